package adapter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// wire tells what the client has negotiated and how much has gone over its
// WebSocket in each direction.
func (c *client) wire() (extensions string, read, written int) {
	c.t.Helper()
	c.do(map[string]any{"do": "engine", "name": c.name})
	l := c.await("engine")
	if len(l.Args) != 3 {
		c.t.Fatalf("no WebSocket: %s", l)
	}
	unmarshal(c.t, string(l.Args[0]), &extensions)
	unmarshal(c.t, string(l.Args[1]), &read)
	unmarshal(c.t, string(l.Args[2]), &written)
	return extensions, read, written
}

func TestSocketIOPerMessageDeflate(t *testing.T) {
	long := strings.Repeat("compress me ", 10_000)
	for _, transport := range []string{"websocket", "upgrade", "websocket 3.x", "upgrade 3.x"} {
		t.Run(transport, func(t *testing.T) {
			n := startNode(t)
			s := openSite(t, adapter.Config{Compression: 1024}, func(srv *adapter.Server) {
				adapter.Handle(srv, "bytes", func(_ context.Context, _ *adapter.Socket, in []byte) ([]byte, error) { return in, nil })
				adapter.On(srv, "shout", func(_ context.Context, s *adapter.Socket, compress bool) error {
					return srv.Compress(compress).Emit("shouted", long, []byte(long))
				})
			})
			c := n.open("c", s.NewBrowser(t, ""), "/", transport, map[string]any{"perMessageDeflate": true})
			c.await("connect")
			c.upgraded()
			extensions, read, written := c.wire()
			if extensions != "permessage-deflate" {
				t.Fatalf("negotiated %q", extensions)
			}
			if got := c.call("echo", long); got != `["`+long+`"]` {
				t.Errorf("echo = %.80s", got)
			}
			data := fmt.Sprintf(`{"$bytes":%s}`, mustJSON(t, []byte(long)))
			if got := c.call("bytes", json.RawMessage(data)); got != "["+data+"]" {
				t.Errorf("bytes = %.80s", got)
			}
			c.emit("shout", true)
			if l := c.event("shouted"); string(l.Args[0]) != `"`+long+`"` || string(l.Args[1]) != data {
				t.Errorf("shouted %.80s", l)
			}
			if _, r, w := c.wire(); r-read > len(long)/5 || w-written > len(long)/5 {
				t.Errorf("%d bytes four times were %d bytes to the client, and twice %d bytes from it", len(long), r-read, w-written)
			}
			c.emit("shout", false)
			if l := c.event("shouted"); string(l.Args[0]) != `"`+long+`"` || string(l.Args[1]) != data {
				t.Errorf("shouted %.80s", l)
			}
			if _, r, _ := c.wire(); r-read < 2*len(long) {
				t.Errorf("with Compress(false) %d bytes twice were %d bytes", len(long), r-read)
			}
		})
	}
}

func TestSocketIOWithoutPerMessageDeflate(t *testing.T) {
	n := startNode(t)
	for _, tt := range []struct {
		name   string
		at     int
		client any
	}{
		{"server off", 0, true},
		{"client off", 1024, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openSite(t, adapter.Config{Compression: tt.at}, nil)
			c := n.open(tt.name, s.NewBrowser(t, ""), "/", "websocket", map[string]any{"perMessageDeflate": tt.client})
			c.await("connect")
			long := strings.Repeat("compress me ", 1000)
			if got := c.call("echo", long); got != `["`+long+`"]` {
				t.Errorf("echo = %.80s", got)
			}
			if extensions, read, _ := c.wire(); extensions != "" || read < len(long) {
				t.Errorf("negotiated %q, %d bytes were %d", extensions, len(long), read)
			}
		})
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A meter counts what comes in.
type meter struct {
	net.Conn
	read *atomic.Int64
}

func (m meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.read.Add(int64(n))
	return n, err
}

func TestPlainPerMessageDeflate(t *testing.T) {
	s := openSite(t, adapter.Config{Compression: 1024}, nil)
	b := s.NewBrowser(t, "")
	var read atomic.Int64
	d := websocket.Dialer{
		EnableCompression: true,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			return meter{nc, &read}, err
		},
	}
	c, _, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(b.URL, "http")+ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := wsRead(t, c); !strings.Contains(got, `"connect"`) {
		t.Fatal(got)
	}
	long := strings.Repeat("compress me ", 10_000)
	wsWrite(t, c, `{"type":"echo","id":1,"data":"`+long+`"}`)
	if got, want := wsRead(t, c), `{"type":"reply","id":1,"data":"`+long+`"}`; got != want {
		t.Errorf("reply %.80s", got)
	}
	if err := s.Server.Emit("long", long); err != nil {
		t.Fatal(err)
	}
	if got := wsRead(t, c); !strings.Contains(got, long) {
		t.Errorf("event %.80s", got)
	}
	if n := read.Load(); n > int64(len(long)/5) {
		t.Errorf("%d bytes twice were %d", len(long), n)
	}
	if err := s.Server.Compress(false).Emit("long", long); err != nil {
		t.Fatal(err)
	}
	if got := wsRead(t, c); !strings.Contains(got, long) || read.Load() < int64(len(long)) {
		t.Errorf("with Compress(false) %d bytes were %d: %.80s", len(long), read.Load(), got)
	}
	// More than MaxPayload, in a kilobyte.
	if err := c.WriteMessage(websocket.TextMessage, bytes.Repeat([]byte(" "), 1_000_001)); err != nil {
		t.Fatal(err)
	}
	if code, _ := wsClosed(t, c); code != websocket.CloseMessageTooBig {
		t.Errorf("closed with %d", code)
	}
}

func TestCompressionIsASize(t *testing.T) {
	if _, err := adapter.New(adapter.Config{Compression: -1}); err == nil || !strings.Contains(err.Error(), "Compression: expected") {
		t.Errorf("New: %v", err)
	}
}
