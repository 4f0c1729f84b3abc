package engine

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// A request that is no WebSocket handshake stays an ordinary request.
func TestUpgradeRefuses(t *testing.T) {
	for _, tt := range []struct{ name, old, new string }{
		{"no upgrade", "Upgrade: websocket\r\n", ""},
		{"another protocol", "Upgrade: websocket", "Upgrade: h2c"},
		{"no connection token", "keep-alive, Upgrade", "keep-alive"},
		{"version 8", "Version: 13", "Version: 8"},
		{"no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""},
		{"a short key", "dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="},
		{"POST", "GET /", "POST /"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := engineFor(t, usual)
			head := strings.Replace(handshake, tt.old, tt.new, 1)
			if head == handshake {
				t.Fatal("the case is the good handshake")
			}
			w := httptest.NewRecorder()
			c, err := e.Upgrade(w, request(t, head), nil, newEvents())
			if c != nil || !errors.Is(err, ErrNotWebSocket) {
				t.Errorf("Upgrade = %v, %v; want %v", c, err, ErrNotWebSocket)
			}
			if w.Body.Len() != 0 || len(w.Header()) != 0 {
				t.Errorf("Upgrade wrote %q and headers %v, want nothing", w.Body, w.Header())
			}
		})
	}
	t.Run("a writer that cannot be hijacked", func(t *testing.T) {
		w := httptest.NewRecorder()
		c, err := engineFor(t, usual).Upgrade(w, request(t, handshake), nil, newEvents())
		if c != nil || !errors.Is(err, ErrNotWebSocket) {
			t.Errorf("Upgrade = %v, %v; want %v", c, err, ErrNotWebSocket)
		}
	})
}

// RFC 6455, section 4.1: a client waits for the answer before it sends.
func TestUpgradeRefusesEarlyData(t *testing.T) {
	here, there := net.Pipe()
	w := &pipeWriter{nc: here, in: string(masked(fin|opText, "too early"))}
	c, err := engineFor(t, usual).Upgrade(w, request(t, handshake), nil, newEvents())
	if c != nil || err == nil || errors.Is(err, ErrNotWebSocket) {
		t.Errorf("Upgrade = %v, %v; want an error after which nothing can be written", c, err)
	}
	newPeer(t, there).wantEnd()
}

// A peer that does not read the answer holds nobody up, and is not waited for for
// ever.
func TestUpgradeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		h := newEvents()
		c, err := engineFor(t, usual).Upgrade(&pipeWriter{header: http.Header{}, nc: here}, request(t, handshake), nil, h)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		c.Start()
		within(t, "Start", start, 0, 0)
		time.Sleep(usual.PingInterval + usual.PingTimeout + 2*tick)
		if got := h.cause(t); got.Reason != ReasonPingTimeout {
			t.Errorf("Closed(%+v), want %s", got, ReasonPingTimeout)
		}
		newPeer(t, there).wantEnd()
	})
}

// The answer to the handshake and the first frames leave in one write.
func TestAnswerLeavesWithTheFirstFrames(t *testing.T) {
	here, there := net.Pipe()
	m := &meter{here, make(chan int, 10)}
	p := newPeer(t, there)
	shaken := make(chan error, 1)
	go func() { shaken <- p.shake() }()
	c, err := engineFor(t, usual).Upgrade(&pipeWriter{header: http.Header{}, nc: m}, request(t, handshake), nil, newEvents())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = there.Close()
		c.Close(Cause{})
	})
	for _, s := range []string{"first", "second"} {
		if err := c.Send(text(s)); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.sizes) != 0 {
		t.Error("something was written before Start")
	}
	c.Start()
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	p.want(opText, "first")
	p.want(opText, "second")
	if n := len(m.sizes); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
}

// A real client and a real server: headers, subprotocol, echo, goodbye. The
// server's own deadlines, meant for requests, do not end the connection.
func TestGorillaClient(t *testing.T) {
	e := engineFor(t, usual)
	closed := make(chan Cause, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c *Conn
		h := newEvents()
		h.closed = closed
		h.receive = func(binary bool, data []byte) Task {
			_ = c.Send(text(string(data)))
			return nil
		}
		header := http.Header{"Set-Cookie": {"a=1", "b=2"}, "Sec-Websocket-Protocol": {"chat"}}
		c, err := e.Upgrade(w, r, header, h)
		if err != nil {
			t.Errorf("Upgrade: %v", err)
			return
		}
		c.Start()
	}))
	srv.Config.ReadTimeout = 100 * time.Millisecond
	srv.Config.WriteTimeout = 100 * time.Millisecond
	srv.Start()
	defer srv.Close()

	ws, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	_ = res.Body.Close()
	if got := fmt.Sprint(res.Cookies()); got != "[a=1 b=2]" || ws.Subprotocol() != "chat" {
		t.Errorf("cookies %s, subprotocol %q; want both cookies and chat", got, ws.Subprotocol())
	}
	for start := time.Now(); time.Since(start) < 300*time.Millisecond; { // past the deadlines
		if err := ws.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, data, err := ws.ReadMessage(); err != nil || string(data) != "hello" {
			t.Fatalf("read %q, %v; want the echo", data, err)
		}
	}
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "bye"), time.Now().Add(patience))
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, 4001) {
		t.Errorf("read %v, want our close code back", err)
	}
	if c := <-closed; c.Reason != ReasonTransportClose {
		t.Errorf("Closed(%+v), want %s", c, ReasonTransportClose)
	}
}
