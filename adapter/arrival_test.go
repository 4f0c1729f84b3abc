package adapter_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// A handler gets what stands in the query, as the strings that it is.
func TestQueryValuesReachHandlersAsStrings(t *testing.T) {
	setup := func(srv *adapter.Server) {
		adapter.Handle(srv, "query", func(ctx context.Context, s *adapter.Socket, _ any) (url.Values, error) {
			return s.Handshake().Request(ctx).URL.Query(), nil
		})
	}
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, setup)
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, map[string]any{
			"query": map[string]any{"n": 1, "yes": true, "none": nil, "name": "Jürg & Söhne=?", "empty": ""},
		})
		c.await("connect")
		if strings.HasPrefix(transport, "upgrade") {
			c.upgraded()
		}
		var got []map[string][]string
		unmarshal(t, c.call("query"), &got)
		for name, want := range map[string]string{"EIO": "4", "n": "1", "yes": "true", "none": "null", "name": "Jürg & Söhne=?", "empty": ""} {
			if v, ok := got[0][name]; !ok || len(v) != 1 || v[0] != want {
				t.Errorf("%s is %q, want %q", name, v, want)
			}
		}
	})
	t.Run("several of a name", func(t *testing.T) {
		s := openSite(t, adapter.Config{}, setup)
		b := s.NewBrowser(t, "")
		_, body, _ := engineDo(t, b, "GET", enginePath+"&list=a&list=b&n=007", "", nil)
		var open struct{ SID string }
		unmarshal(t, body[1:], &open)
		engineDo(t, b, "POST", enginePath+"&sid="+open.SID+"&n=8", "40\x1e421[\"query\"]", nil)
		got := ""
		for !strings.Contains(got, "431[") {
			_, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+open.SID, "", nil)
			got += body
		}
		if want := `431[{"EIO":["4"],"list":["a","b"],"n":["007"],"transport":["polling"]}]`; !strings.HasSuffix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// corked is a client's connection that gathers what it writes, so that it
// leaves in one segment.
type corked struct {
	net.Conn
	gathers bool
	waits   []byte
}

func (c *corked) Write(b []byte) (int, error) {
	if c.gathers {
		c.waits = append(c.waits, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *corked) flush() error {
	_, err := c.Conn.Write(c.waits)
	c.gathers, c.waits = false, nil
	return err
}

// dialCorked opens a WebSocket whose writes are gathered.
func dialCorked(ctx context.Context, site, query string) (*websocket.Conn, *corked, error) {
	var nc *corked
	d := websocket.Dialer{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		nc = &corked{Conn: c}
		return nc, err
	}}
	ws, _, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(site, "http")+"/socket.io/?EIO=4&transport=websocket"+query, nil)
	if err != nil {
		return nil, nil, err
	}
	nc.gathers = true
	return ws, nc, nil
}

// A client may send CONNECT and its first events in one segment, as soon as it
// has the answer to its handshake. Of 1,000 none is lost.
func TestListenersAreThereBeforeTheFirstByte(t *testing.T) {
	const count = 1000
	var heard, ended atomic.Int32
	all := make(chan struct{})
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "first", func(context.Context, *adapter.Socket, int) error { heard.Add(1); return nil })
		srv.OnDisconnect(func(*adapter.Socket, adapter.Reason) {
			if ended.Add(1) == count {
				close(all)
			}
		})
	})
	b := s.NewBrowser(t, "")
	packets := func(i int) (send []string, want string) {
		return []string{"40", fmt.Sprintf(`42["first",%d]`, i), fmt.Sprintf(`42%d["echo",%d]`, i, i)}, fmt.Sprintf(`43%d[%d]`, i, i)
	}
	socket := func(i int) error {
		ws, nc, err := dialCorked(t.Context(), s.URL, "")
		if err != nil {
			return err
		}
		defer ws.Close()
		send, want := packets(i)
		for _, p := range send {
			if err := ws.WriteMessage(websocket.TextMessage, []byte(p)); err != nil {
				return err
			}
		}
		if err := nc.flush(); err != nil {
			return err
		}
		_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
		for n := 0; ; n++ {
			_, got, err := ws.ReadMessage()
			if err != nil || n > 2 {
				return fmt.Errorf("got %q, %w; want %q", got, err, want)
			}
			if string(got) == want {
				return nil
			}
		}
	}
	polling := func(i int) { // all in one POST
		_, body, _ := engineDo(t, b, "GET", enginePath, "", nil)
		var open struct{ SID string }
		unmarshal(t, body[1:], &open)
		path := enginePath + "&sid=" + open.SID
		send, want := packets(i)
		engineDo(t, b, "POST", path, strings.Join(send, "\x1e"), nil)
		for got := ""; !strings.HasSuffix(got, want); {
			status, body, _ := engineDo(t, b, "GET", path, "", nil)
			if got += body; status != http.StatusOK {
				t.Fatalf("client %d: polls got %q, want %q", i, got, want)
			}
		}
		engineDo(t, b, "POST", path, "1", nil)
	}
	numbers := make(chan int, count)
	for i := range count {
		if i%4 > 0 {
			numbers <- i
		}
	}
	close(numbers)
	var sockets sync.WaitGroup
	for range 20 {
		sockets.Go(func() {
			for i := range numbers {
				if err := socket(i); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
		})
	}
	defer sockets.Wait()
	for i := 0; i < count; i += 4 {
		polling(i)
	}
	sockets.Wait()
	select {
	case <-all:
	case <-time.After(20 * time.Second):
	}
	if h, e := heard.Load(), ended.Load(); h != count || e != count {
		t.Errorf("of %d clients %d were heard and %d were seen to leave", count, h, e)
	}
}

// What the server sends in OnConnect and right after comes in that order, and so
// does what the client sends right behind its CONNECT; CONNECT's answer first.
func TestEventsRightAfterConnectKeepTheirOrder(t *testing.T) {
	const count = 100
	setup := func(srv *adapter.Server) {
		srv.OnConnect(func(_ context.Context, sock *adapter.Socket) error {
			if err := sock.Join("here"); err != nil {
				return err
			}
			for i := range count {
				if err := sock.Emit("n", i); err != nil {
					return err
				}
			}
			return srv.To("here").Emit("n", count) // a room's is no exception
		})
		adapter.Handle(srv, "more", func(_ context.Context, sock *adapter.Socket, i int) (int, error) {
			return i, sock.Emit("n", count+1+i)
		})
	}
	// The client sends "more" with 0, 1, … and ids of the same number.
	want := func() (packets []string) {
		for i := range count + 1 {
			packets = append(packets, fmt.Sprintf(`42["n",%d]`, i))
		}
		for i := range count {
			packets = append(packets, fmt.Sprintf(`42["n",%d]`, count+1+i), fmt.Sprintf(`43%d[%d]`, i, i))
		}
		return packets
	}()
	send := []string{"40"}
	for i := range count {
		send = append(send, fmt.Sprintf(`42%d["more",%d]`, i, i))
	}
	check := func(t *testing.T, got []string) {
		t.Helper()
		connectedAs(t, got[0], "")
		for i, w := range want {
			if got[1+i] != w {
				t.Fatalf("packet %d is %s, want %s", 1+i, got[1+i], w)
			}
		}
	}
	t.Run("one segment", func(t *testing.T) {
		s := openSite(t, adapter.Config{}, setup)
		ws, nc, err := dialCorked(t.Context(), s.URL, "")
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		wsWrite(t, ws, send...)
		if err := nc.flush(); err != nil {
			t.Fatal(err)
		}
		wsRead(t, ws) // open
		var got []string
		for range 1 + len(want) {
			got = append(got, wsRead(t, ws))
		}
		check(t, got)
	})
	t.Run("one POST", func(t *testing.T) {
		inBubble(t, adapter.Config{}, setup, func(t *testing.T, b *bubble) {
			sid := b.handshake()
			b.post(sid, strings.Join(send, "\x1e"))
			var got []string
			for len(got) < 1+len(want) {
				got = append(got, strings.Split(b.poll(sid).body, "\x1e")...)
			}
			check(t, got)
		})
	})
	t.Run("one POST, then the upgrade", func(t *testing.T) {
		inBubble(t, adapter.Config{}, setup, func(t *testing.T, b *bubble) {
			sid := b.handshake()
			b.post(sid, strings.Join(send, "\x1e"))
			w := b.probe(sid)
			w.write("5")
			var got []string
			for range 1 + len(want) {
				got = append(got, w.next())
			}
			check(t, got)
		})
	})
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, setup)
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, nil)
		for i := range count {
			c.emit("more", i) // before it is connected, so right behind CONNECT
		}
		for i := range count + 1 + count {
			if l := c.event("n"); string(l.Args[0]) != fmt.Sprint(i) {
				t.Fatalf("event %d is %s", i, l)
			}
		}
	})
}
