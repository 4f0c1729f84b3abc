package engine

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// restless is a Handler that answers, pauses and closes at random.
type restless struct {
	conn   chan *Conn
	c      *Conn
	rnd    *rand.Rand
	closed atomic.Int32
}

func (h *restless) Receive(_ bool, data []byte) Task {
	if h.c == nil {
		h.c = <-h.conn
	}
	c := h.c
	switch h.rnd.IntN(10) {
	case 0:
		c.Pause()
		return task(c.Resume)
	case 1:
		_ = c.SendNow(text(string(data)))
	case 2:
		return task(func() { _ = c.SendNow(text("from a task")) })
	default:
		_ = c.Send(text(string(data)))
	}
	if h.rnd.IntN(300) == 0 {
		c.Close(Cause{Reason: "test", Code: 1000})
	}
	return nil
}

func (h *restless) Closed(Cause) { h.closed.Add(1) }

// Connections that are sent to, closed, left and cut at random moments all
// end, once each, and so does the engine.
func TestStress(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(http.Handler) *httptest.Server
	}{{"tcp", httptest.NewServer}, {"tls", httptest.NewTLSServer}} {
		t.Run(tt.name, func(t *testing.T) { stress(t, tt.serve) })
	}
}

func stress(t *testing.T, serve func(http.Handler) *httptest.Server) {
	const n = 50
	cfg := usual
	cfg.MaxPayload, cfg.SendBuffer = 64<<10, 256<<10
	e := New(cfg)
	conns := make(chan *Conn, n)
	var handlers [n]*restless
	var opened atomic.Int32
	srv := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := int(opened.Add(1)) - 1
		h := &restless{conn: make(chan *Conn, 1), rnd: rand.New(rand.NewPCG(uint64(i), 1))}
		handlers[i] = h
		c, err := e.Upgrade(w, r, nil, h)
		if err != nil {
			t.Errorf("Upgrade: %v", err)
			return
		}
		h.conn <- c
		c.Start()
		conns <- c
	}))
	defer srv.Close()

	var clients, senders sync.WaitGroup
	for i := range n {
		nc, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if srv.TLS != nil {
			nc = tlsClient(nc, srv)
		}
		p := newPeer(t, nc)
		p.write([]byte(handshake))
		if err := p.shake(); err != nil {
			t.Fatal(err)
		}
		clients.Go(func() { _, _ = io.Copy(io.Discard, bufio.NewReader(p.br)) })
		clients.Go(func() {
			defer nc.Close()
			rnd := rand.New(rand.NewPCG(uint64(i), 2))
			for range rnd.IntN(400) {
				var b []byte
				switch rnd.IntN(12) {
				case 0:
					b = masked(fin|opPing, "p")
				case 1:
					b = append(masked(opText, "a"), masked(fin, "b")...)
				case 2:
					b = masked(fin|opText, strings.Repeat("x", rnd.IntN(60<<10)))
				default:
					b = masked(fin|opText, fmt.Sprint("message ", i))
				}
				if rnd.IntN(4) == 0 {
					cut := rnd.IntN(len(b))
					if _, err := nc.Write(b[:cut]); err != nil {
						return
					}
					b = b[cut:]
				}
				if _, err := nc.Write(b); err != nil {
					return
				}
			}
			switch rnd.IntN(4) {
			case 0: // a goodbye
				_, _ = nc.Write(masked(fin|opClose, status(1000, "")))
			case 1: // a fault
				_, _ = nc.Write([]byte{0xff, 0xff})
			case 2: // half a message
				_, _ = nc.Write(masked(fin|opText, "half")[:5])
			}
		})
	}
	for i := range n {
		c := <-conns
		for s := range 2 {
			senders.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), uint64(10+s)))
				shared := text("to everybody")
				for range rnd.IntN(300) {
					var err error
					switch rnd.IntN(3) {
					case 0:
						err = c.Send(shared)
					case 1:
						err = c.SendNow(shared)
					case 2:
						err = c.SendVolatile(shared)
					}
					if err != nil {
						break
					}
				}
				switch (i + s) % 3 {
				case 0:
					c.Close(Cause{Reason: "test", Code: 4409, Text: "session ended"})
				case 1:
					c.Close(Cause{Reason: "test"})
				}
			})
		}
	}
	senders.Wait()
	clients.Wait()
	e.Close()
	for i, h := range handlers {
		if got := h.closed.Load(); got != 1 {
			t.Errorf("connection %d: Closed was called %d times, want once", i, got)
		}
	}
	e.wheel.mu.Lock()
	defer e.wheel.mu.Unlock()
	if e.wheel.count != 0 {
		t.Errorf("%d timers are left, want none", e.wheel.count)
	}
}
