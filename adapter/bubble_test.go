package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A bubble is a whole HTTP server in virtual time, reached over pipes in memory.
// It shows what a test with a network can only hope for: that a poll is held,
// and that something happens after 100 ms and not before.
type bubble struct {
	*adaptertest.Browser
	t     *testing.T
	srv   *adapter.Server
	pipes *pipes
	gone  chan adapter.Reason // why sockets of "/" ended
}

// inBubble runs test with a server that admits everybody, has an event "echo"
// and a namespace "/custom", and what setup adds.
func inBubble(t *testing.T, cfg adapter.Config, setup func(*adapter.Server), test func(t *testing.T, b *bubble)) {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	synctest.Test(t, func(t *testing.T) {
		if cfg.Logger == nil {
			cfg.Logger = slog.New(slog.DiscardHandler)
		}
		srv, err := adapter.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []*adapter.Namespace{srv.Namespace, srv.Of("/custom")} {
			n.AllowAnonymous()
			adapter.Handle(n, "echo", func(_ context.Context, _ *adapter.Socket, in any) (any, error) { return in, nil })
		}
		gone := make(chan adapter.Reason, 1000)
		srv.OnDisconnect(func(_ *adapter.Socket, r adapter.Reason) { gone <- r })
		if setup != nil {
			setup(srv)
		}
		r := gin.New()
		srv.Mount(r)

		p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		front := &http.Server{Handler: r, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		var serving sync.WaitGroup
		serving.Go(func() { _ = front.Serve(p) })
		b := &bubble{Browser: adaptertest.NewBrowser(t, "http://usher.test"), t: t, srv: srv, pipes: p, gone: gone}
		b.HTTP.Transport = &http.Transport{DialContext: p.dial, MaxIdleConnsPerHost: -1}
		b.HTTP.Timeout = 0 // polls are held for longer than real tests last
		t.Cleanup(func() {
			if err := srv.Shutdown(context.Background()); err != nil {
				t.Errorf("shutdown: %v", err)
			}
			_ = front.Close()
			serving.Wait()
			time.Sleep(time.Second) // http.Server waits that long for a client that it has cut off
		})
		test(t, b)
	})
}

// pipes is the network: a listener, and how to reach it.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return pipeAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- addressed{there}:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// addressed gives a pipe the address that servers expect of their clients.
type addressed struct{ net.Conn }

func (addressed) RemoteAddr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "tcp" }
func (pipeAddr) String() string  { return "192.0.2.1:1234" }

// A polled is the answer to a request, and when it came.
type polled struct {
	status int
	body   string
	header http.Header
	at     time.Time
}

func (p polled) String() string { return fmt.Sprintf("%d %.200q", p.status, p.body) }

// send makes a request of a session, in its own time.
func (b *bubble) send(ctx context.Context, method, sid string, body io.Reader) <-chan polled {
	b.t.Helper()
	ch := make(chan polled, 1)
	r, err := http.NewRequestWithContext(ctx, method, b.URL+enginePath+"&sid="+sid, body)
	if err != nil {
		b.t.Fatal(err)
	}
	go func() {
		resp, err := b.HTTP.Do(r)
		if err != nil {
			ch <- polled{body: err.Error(), at: time.Now()}
			return
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			data = []byte(err.Error())
		}
		ch <- polled{resp.StatusCode, string(data), resp.Header, time.Now()}
	}()
	synctest.Wait()
	return ch
}

// hold begins a poll and returns when the server has it.
func (b *bubble) hold(sid string) <-chan polled {
	b.t.Helper()
	return b.send(context.Background(), "GET", sid, nil)
}

func (b *bubble) poll(sid string) polled {
	b.t.Helper()
	return <-b.hold(sid)
}

func (b *bubble) post(sid, body string) polled {
	b.t.Helper()
	return <-b.send(context.Background(), "POST", sid, strings.NewReader(body))
}

// handshake opens a session that polls.
func (b *bubble) handshake() (sid string) {
	b.t.Helper()
	var open struct{ SID string }
	p := b.poll("")
	unmarshal(b.t, strings.TrimPrefix(p.body, "0"), &open)
	return open.SID
}

// connected is handshake and a socket in "/".
func (b *bubble) connected() (sid string) {
	b.t.Helper()
	sid = b.handshake()
	b.post(sid, "40")
	if p := b.poll(sid); !strings.HasPrefix(p.body, `40{"sid":"`) {
		b.t.Fatalf("CONNECT was answered %v", p)
	}
	return sid
}

// A wire is a client's end of a WebSocket.
type wire struct {
	*websocket.Conn
	t *testing.T
}

// dial opens a WebSocket: for a session, or with a new one if sid is "".
func (b *bubble) dial(sid string) *wire {
	b.t.Helper()
	path := "ws://usher.test/socket.io/?EIO=4&transport=websocket"
	if sid != "" {
		path += "&sid=" + sid
	}
	d := websocket.Dialer{NetDialContext: b.pipes.dial}
	ws, _, err := d.Dial(path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = ws.Close() })
	return &wire{ws, b.t}
}

// online is a WebSocket with a session of its own and a socket in "/".
func (b *bubble) online() *wire {
	b.t.Helper()
	w := b.dial("")
	w.next()
	w.write("40")
	if got := w.next(); !strings.HasPrefix(got, `40{"sid":"`) {
		b.t.Fatalf("CONNECT was answered %s", got)
	}
	return w
}

// probe opens a WebSocket for a session and has its probe answered.
func (b *bubble) probe(sid string) *wire {
	b.t.Helper()
	w := b.dial(sid)
	w.write("2probe")
	w.want("3probe")
	return w
}

func (w *wire) write(packets ...string) {
	w.t.Helper()
	wsWrite(w.t, w.Conn, packets...)
}

// next returns the next message; bytes come as "b" and the bytes in hex.
func (w *wire) next() string {
	w.t.Helper()
	kind, data, err := w.ReadMessage()
	if err != nil {
		w.t.Fatal(err)
	}
	if kind == websocket.BinaryMessage {
		return fmt.Sprintf("b%x", data)
	}
	return string(data)
}

func (w *wire) want(packets ...string) {
	w.t.Helper()
	for _, p := range packets {
		if got := w.next(); got != p {
			w.t.Fatalf("got %.200q, want %q", got, p)
		}
	}
}

// wantClose reads up to the close frame.
func (w *wire) wantClose(code int, text string) {
	w.t.Helper()
	for {
		if _, _, err := w.ReadMessage(); err != nil {
			e, ok := errors.AsType[*websocket.CloseError](err)
			if !ok || e.Code != code || e.Text != text {
				w.t.Errorf("closed with %v, want %d %q", err, code, text)
			}
			return
		}
	}
}

// wantPolled checks an answer.
func (b *bubble) wantPolled(what string, got polled, status int, body string) {
	b.t.Helper()
	if got.status != status || got.body != body {
		b.t.Errorf("%s: %v, want %d %q", what, got, status, body)
	}
}

// wantGone waits for the end of a socket in "/".
func (b *bubble) wantGone(want adapter.Reason) {
	b.t.Helper()
	if r := <-b.gone; r != want {
		b.t.Errorf("OnDisconnect got %q, want %q", r, want)
	}
}

// wantUnknown checks that the session is gone for every kind of request.
func (b *bubble) wantUnknown(sid string) {
	b.t.Helper()
	synctest.Wait() // sockets are told first
	b.wantPolled("a poll after the end", b.poll(sid), http.StatusBadRequest, unknownSession)
	b.wantPolled("a POST after the end", b.post(sid, `42["echo"]`), http.StatusBadRequest, unknownSession)
}

const (
	badRequest     = `{"code":3,"message":"Bad request"}`
	unknownSession = `{"code":1,"message":"Session ID unknown"}`
)
