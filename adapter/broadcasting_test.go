package adapter_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/gin-usher/usher/adapter"
)

// TestSocketIOBroadcasting: each way to say who gets an event, with the real
// client. What must not come is followed by a mark: had it come, it would have
// come before.
func TestSocketIOBroadcasting(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
			adapter.On(srv, "to others in", func(_ context.Context, sock *adapter.Socket, room string) error {
				return sock.To(room).Emit("x", "socket.to")
			})
			adapter.On(srv, "broadcast", func(_ context.Context, sock *adapter.Socket, _ any) error {
				return sock.Broadcast().Emit("x", "socket.broadcast")
			})
		})
		ids := make(map[string]string)
		clients := make(map[string]*client)
		for name, rooms := range map[string][]string{"a": {"red"}, "b": {"red", "blue"}, "c": {"blue"}, "d": nil} {
			user := ""
			if name == "d" {
				user = "dora"
			}
			c := n.open(name, s.NewBrowser(t, user), "/", transport, nil)
			ids[name] = c.await("connect").ID
			for _, room := range rooms {
				c.call("join", text{Room: room})
			}
			clients[name] = c
		}
		srv := s.Server
		for _, tt := range []struct {
			what string
			emit func() error
			want string
		}{
			{"everybody", func() error { return srv.Emit("x", 1) }, "abcd"},
			{"a room", func() error { return srv.To("red").Emit("x", 1) }, "ab"},
			{"in a room", func() error { return srv.In("blue").Emit("x", 1) }, "bc"},
			{"two rooms, each once", func() error { return srv.To("red", "blue").Emit("x", 1) }, "abc"},
			{"except a room", func() error { return srv.Except("red").Emit("x", 1) }, "cd"},
			{"a room except another", func() error { return srv.To("blue").Except("red").Emit("x", 1) }, "c"},
			{"a room except a socket", func() error { return srv.To("red").Except(ids["a"]).Emit("x", 1) }, "b"},
			{"one socket", func() error { return srv.To(ids["d"]).Emit("x", 1) }, "d"},
			{"a user", func() error { return srv.ToUser("dora").Emit("x", 1) }, "d"},
			{"this node", func() error { return srv.Local().To("red").Emit("x", 1) }, "ab"},
			{"volatile", func() error { return srv.To("blue").Volatile().Emit("x", 1) }, "bc"},
			{"uncompressed", func() error { return srv.To("blue").Compress(false).Emit("x", 1) }, "bc"},
			{"socket.to", func() error { clients["a"].call("to others in", "red"); return nil }, "b"},
			{"socket.broadcast", func() error { clients["a"].call("broadcast"); return nil }, "bcd"},
		} {
			if err := tt.emit(); err != nil {
				t.Fatal(err)
			}
			if tt.what != "volatile" { // the mark would be what waits already
				if err := srv.Emit("mark"); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"a", "b", "c", "d"} {
				if slices.Contains([]byte(tt.want), name[0]) {
					clients[name].event("x")
				}
				if tt.what != "volatile" {
					clients[name].event("mark")
				}
				if i := slices.IndexFunc(n.kept, func(l told) bool { return l.Name == name && l.Event == "x" }); i >= 0 {
					t.Errorf("%s: %s got what was not for it, or got it twice: %s", tt.what, name, n.kept[i])
					n.kept = slices.Delete(n.kept, i, i+1)
				}
			}
		}
	})
}

// TestSocketIOCallAll: io.to("room").timeout(…).emitWithAck, with all answers and
// with some.
func TestSocketIOCallAll(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, nil)
		var b *client
		for _, name := range []string{"a", "b"} {
			c := n.open(name, s.NewBrowser(t, ""), "/", transport, nil)
			c.await("connect")
			c.call("join", text{Room: "red"})
			b = c
		}
		replies, err := adapter.CallAll[adapter.Args2[string, int]](t.Context(), s.Server.To("red"), "how many?", 3)
		if err != nil || len(replies) != 2 {
			t.Fatalf("CallAll = %v, %v; want two answers", replies, err)
		}
		for _, r := range replies {
			if r.Value.A != "ack of how many?" || r.Value.B != 3 || r.Err != nil {
				t.Errorf("answer %+v", r)
			}
		}

		n.do(map[string]any{"do": "leave", "name": "b", "event": "silence"})
		b.await("leaves")
		ctx, cancel := context.WithCancel(t.Context())
		type result struct {
			replies []adapter.Reply[string]
			err     error
		}
		done := make(chan result, 1)
		go func() {
			replies, err := adapter.CallAll[string](ctx, s.Server.To("red"), "silence")
			done <- result{replies, err}
		}()
		b.event("silence")
		(&client{n, "a"}).event("silence")
		(&client{n, "a"}).call("echo", 1) // its answer has come before
		cancel()
		got := <-done
		answers := 0
		for _, r := range got.replies {
			switch {
			case r.Err == nil && r.Value == "ack of silence":
				answers++
			case !errors.Is(r.Err, context.Canceled):
				t.Errorf("answer %+v", r)
			}
		}
		if got.err == nil || answers != 1 {
			t.Errorf("CallAll = %+v, %v; want one answer of two", got.replies, got.err)
		}
	})
}

// TestSocketIOReasons: each end has its documented reason on both sides.
func TestSocketIOReasons(t *testing.T) {
	for _, transport := range []string{"polling", "websocket", "upgrade"} {
		t.Run(transport, func(t *testing.T) {
			n := startNode(t)
			reasons := make(chan adapter.Reason, 1)
			s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
				srv.OnDisconnect(func(_ *adapter.Socket, r adapter.Reason) { reasons <- r })
			})
			for _, tt := range []struct {
				name           string
				end            func(name string)
				client, server string
			}{
				{"by the client", func(name string) { n.do(map[string]any{"do": "close", "name": name}) }, "io client disconnect", "client namespace disconnect"},
				{"by the server", func(string) { s.Server.Disconnect() }, "io server disconnect", "server namespace disconnect"},
				{"cut", func(name string) { n.do(map[string]any{"do": "cut", "name": name}) }, "forced close", "transport close"},
				{"revoked", func(string) { _, _ = s.Server.Revoke(t.Context(), adapter.ByUser("alice")) }, "io server disconnect", "revoked"},
			} {
				c := n.open(tt.name, s.NewBrowser(t, "alice"), "/", transport, nil)
				c.await("connect")
				if transport == "upgrade" {
					c.upgraded()
				}
				tt.end(tt.name)
				if l := c.await("disconnect"); l.Reason != tt.client {
					t.Errorf("%s: the client says %q, want %q", tt.name, l.Reason, tt.client)
				}
				if r := <-reasons; string(r) != tt.server {
					t.Errorf("%s: the server says %q, want %q", tt.name, r, tt.server)
				}
			}
		})
	}
}
