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

// A peer that does not read the answer holds the handshake up, not for ever.
func TestUpgradeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		start := time.Now()
		c, err := engineFor(t, usual).Upgrade(&pipeWriter{nc: here}, request(t, handshake), nil, newEvents())
		if c != nil || err == nil || errors.Is(err, ErrNotWebSocket) {
			t.Errorf("Upgrade = %v, %v; want an error after which nothing can be written", c, err)
		}
		within(t, "the end of the handshake", start, closeTimeout, 0)
		newPeer(t, there).wantEnd()
	})
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
