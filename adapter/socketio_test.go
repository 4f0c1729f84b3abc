package adapter_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// transports runs a test over each way a Socket.IO client connects.
func transports(t *testing.T, test func(t *testing.T, transport string)) {
	for _, transport := range []string{"polling", "websocket", "upgrade", "polling 3.x", "websocket 3.x", "upgrade 3.x"} {
		t.Run(transport, func(t *testing.T) { test(t, transport) })
	}
}

// upgraded waits until the client has moved to its WebSocket.
func (c *client) upgraded() {
	c.t.Helper()
	for {
		c.do(map[string]any{"do": "engine", "name": c.name})
		if c.await("engine").Transport == "websocket" {
			return
		}
	}
}

func TestSocketIOKnowsTheUser(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
		alice := s.NewBrowser(t, "alice")
		c := n.open("alice", alice, "/", transport, nil)
		c.await("connect")
		if got := c.call("me"); got != `["alice"]` {
			t.Errorf("me = %s, want alice", got)
		}
		if strings.HasPrefix(transport, "upgrade") {
			c.upgraded()
			if got := c.call("me"); got != `["alice"]` {
				t.Errorf("me after the upgrade = %s, want alice", got)
			}
		}
		alice.MustPost("/logout")
		if l := c.await("disconnect"); l.Reason != "io server disconnect" {
			t.Errorf("disconnect %s", l)
		}
	})
}

func TestSocketIORefusesNobody(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
		c := n.open("nobody", s.NewBrowser(t, ""), "/", transport, nil)
		l := c.await("connect_error")
		if l.Message != "log in first" || string(l.Data) != `{"code":"unauthenticated","message":"log in first"}` {
			t.Errorf("connect_error %s", l)
		}
	})
}

func TestSocketIOEventsAndAcks(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
			adapter.On(srv, "fail", func(context.Context, *adapter.Socket, any) error {
				return &adapter.Error{Code: "no", Message: "not today"}
			})
			adapter.On(srv, "shout", func(_ context.Context, _ *adapter.Socket, in any) error {
				return srv.Emit("shouted", in, 2, []byte{1, 2, 3})
			})
		})
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, nil)
		c.await("connect")
		for _, value := range []string{`"text"`, `{"a":[1,2,{"b":null}]}`, `""`, `"é 😀 ,/"`, `true`, `[]`} {
			var v any
			unmarshal(t, value, &v)
			if got := c.call("echo", v); got != "["+value+"]" {
				t.Errorf("echo %s = %s", value, got)
			}
		}
		if got := c.call("fail", 1); got != `[{"error":{"code":"no","message":"not today"}}]` {
			t.Errorf("fail = %s", got)
		}
		if got := c.call("nope"); got != `[{"error":{"code":"unknown_event","message":"there is no event \"nope\" here"}}]` {
			t.Errorf("nope = %s", got)
		}
		c.emit("fail", 1)
		if l := c.event("error"); string(l.Args[0]) != `{"error":{"code":"no","message":"not today"},"event":"fail"}` {
			t.Errorf("error = %s", l)
		}
		c.emit("shout", "hello")
		l := c.event("shouted")
		if fmt.Sprintf("%s", l.Args) != `["hello" 2 {"$bytes":"AQID"}]` {
			t.Errorf("shouted = %s", l)
		}
	})
}

func TestSocketIOBinary(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		type file struct {
			Name string `json:"name"`
			Data []byte `json:"data"`
		}
		s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
			adapter.Handle(srv, "reverse", func(_ context.Context, _ *adapter.Socket, in file) (file, error) {
				slices.Reverse(in.Data)
				return in, nil
			})
		})
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, nil)
		c.await("connect")
		bytes := func(b ...byte) map[string]string {
			return map[string]string{"$bytes": base64.StdEncoding.EncodeToString(b)}
		}
		if got := c.call("reverse", map[string]any{"name": "x", "data": bytes(1, 2, 3)}); got != `[{"name":"x","data":{"$bytes":"AwIB"}}]` {
			t.Errorf("reverse = %s", got)
		}
		if got := c.call("echo", map[string]any{"deep": []any{bytes(1), "and", bytes(2, 3)}}); got != `[{"deep":[{"$bytes":"AQ=="},"and",{"$bytes":"AgM="}]}]` {
			t.Errorf("echo = %s", got)
		}
	})
}

func TestSocketIONamespaces(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
			admin := srv.Of("/admin").AllowAnonymous().Require(adapter.Role("admin"))
			adapter.Handle(admin, "secret", func(context.Context, *adapter.Socket, any) (int, error) { return 42, nil })
		})
		alice := s.NewBrowser(t, "alice")
		n.open("c", alice, "/", transport, nil).await("connect")
		for nsp, want := range map[string]string{"/nowhere": "Invalid namespace", "/admin": `this needs one of the roles ["admin"]`} {
			n.do(map[string]any{"do": "join", "name": "c", "as": nsp, "nsp": nsp})
			if l := (&client{n, nsp}).await("connect_error"); l.Message != want {
				t.Errorf("connect_error of %s: %s, want %s", nsp, l, want)
			}
		}
		alice.MustPost("/set?key=role&value=admin")
		c := n.open("admin", alice, "/admin", transport, nil)
		c.await("connect")
		if got := c.call("secret"); got != `[42]` {
			t.Errorf("secret = %s", got)
		}
	})
}

// TestSocketIOAndPlainShareRooms: clients of either kind get what the other sends.
func TestSocketIOAndPlainShareRooms(t *testing.T) {
	n := startNode(t)
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "say", func(_ context.Context, _ *adapter.Socket, in text) error {
			return srv.To(in.Room).Emit("said", in.Text)
		})
	})
	polling := n.open("polling", s.NewBrowser(t, ""), "/", "polling", nil)
	socket := n.open("websocket", s.NewBrowser(t, ""), "/", "websocket", nil)
	for _, c := range []*client{polling, socket} {
		if got := c.call("join", text{Room: "red"}); got != `[]` {
			t.Fatalf("join = %s", got)
		}
	}
	plain := s.NewBrowser(t, "").Dial(ws)
	plain.Must("join", text{Room: "red"}, nil)
	plain.Must("say", text{"red", "from plain"}, nil)
	for _, c := range []*client{polling, socket} {
		if l := c.event("said"); string(l.Args[0]) != `"from plain"` {
			t.Errorf("%s", l)
		}
	}
	plain.Event("said")
	polling.emit("say", text{"red", "from polling"})
	if f := plain.Event("said"); string(f.Data) != `"from polling"` {
		t.Errorf("%s", f)
	}
}

// TestSocketIOOrder: numbered messages, sent from the first moment on by clients
// that poll, that have a WebSocket and that are moving from one to the other,
// arrive once and in order, and so do the answers and what a room gets.
func TestSocketIOOrder(t *testing.T) {
	count := 25_000 // of each client
	if testing.Short() || raceEnabled() {
		count = 2_500
	}
	n := startNode(t)
	type sender struct {
		name string
		next atomic.Int64
		bad  atomic.Int64
	}
	senders := map[string]*sender{}
	s := openSite(t, adapter.Config{SendBuffer: 64 << 20}, func(srv *adapter.Server) {
		srv.OnConnect(func(_ context.Context, sock *adapter.Socket) error { return sock.Join("all") })
		adapter.On(srv, "n", func(_ context.Context, sock *adapter.Socket, i int64) error {
			who := senders[sock.Handshake().Header().Get("X-Name")]
			if !who.next.CompareAndSwap(i, i+1) {
				who.bad.Add(1)
			}
			if i%100 == 0 {
				if err := srv.To("all").Emit("hundreds of "+who.name, i/100); err != nil {
					return err
				}
			}
			return sock.Emit("back", i)
		})
	})
	b := s.NewBrowser(t, "")
	start := time.Now()
	var clients []*client
	for _, transport := range []string{"polling", "websocket", "upgrade", "upgrade 3.x"} {
		senders[transport] = &sender{name: transport}
		c := n.open(transport, b, "/", transport, map[string]any{"extraHeaders": map[string]string{"X-Name": transport}})
		until := "websocket"
		if transport == "polling" {
			until = "polling"
		}
		n.do(map[string]any{"do": "count", "name": c.name, "event": "back", "count": count})
		n.do(map[string]any{"do": "trickle", "name": c.name, "event": "n", "count": count, "until": until})
		clients = append(clients, c)
	}
	for _, c := range clients {
		t.Logf("%s: %s of %d sent by polling", c.name, c.await("trickled").Args[0], count)
		if l := c.await("counted"); l.Message != "" || fmt.Sprintf("%s", l.Args) != fmt.Sprintf("[%d]", count) {
			t.Errorf("%s: %s", c.name, l)
		}
	}
	for _, who := range senders {
		if bad, next := who.bad.Load(), who.next.Load(); bad > 0 || next != int64(count) {
			t.Errorf("%s: %d of %d events arrived, %d out of order", who.name, next, count, bad)
		}
	}
	// A client that connected later has missed the first of them.
	for _, c := range clients {
		for _, who := range clients {
			next := -1
			for next != count/100-1 {
				var i int
				unmarshal(t, string(c.event("hundreds of " + who.name).Args[0]), &i)
				if next >= 0 && i != next+1 {
					t.Fatalf("%s got %d of %s after %d", c.name, i, who.name, next)
				}
				next = i
			}
		}
	}
	t.Logf("%d messages and as many answers in %v", len(clients)*count, time.Since(start))
}

// raceEnabled reports whether this is a test with -race.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func unmarshal(t *testing.T, data string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(data), v); err != nil {
		t.Fatal(err)
	}
}
