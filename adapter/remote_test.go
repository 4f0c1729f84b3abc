package adapter_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/gin-usher/usher/adapter"
)

func TestSockets(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
			adapter.On(srv, "name", func(_ context.Context, sock *adapter.Socket, name string) error {
				sock.Data().Set("name", name)
				return nil
			})
		})
		ann := n.open("ann", s.NewBrowser(t, "ann"), "/", transport, nil)
		bob := n.open("bob", s.NewBrowser(t, ""), "/", transport, nil)
		for _, c := range []*client{ann, bob} {
			c.await("connect")
			c.call("name", c.name)
			c.call("join", text{Room: "red"})
		}
		ann.call("join", text{Room: "blue"})

		found, err := s.Server.To("red").Sockets(t.Context())
		if err != nil || len(found) != 2 {
			t.Fatalf("Sockets = %v, %v; want two", found, err)
		}
		slices.SortFunc(found, func(a, b adapter.RemoteSocket) int {
			return cmp.Compare(a.Data["name"].(string), b.Data["name"].(string))
		})
		a, b := found[0], found[1]
		if a.Identity == nil || a.Identity.UserID != "ann" || b.Identity != nil {
			t.Errorf("identities %v and %v", a.Identity, b.Identity)
		}
		if got := fmt.Sprint(a.Rooms, b.Rooms); got != "[red blue] [red]" {
			t.Errorf("rooms %s", got)
		}
		if a.Handshake.Header().Get("Cookie") == "" {
			t.Error("no cookie in ann's handshake")
		}
		if err := a.Emit("hello", a.ID); err != nil {
			t.Error(err)
		}
		if l := ann.event("hello"); string(l.Args[0]) != fmt.Sprintf("%q", a.ID) {
			t.Errorf("%s", l)
		}
		b.Join("green")
		b.Leave("red")
		if in, _ := s.Server.To("green").Sockets(t.Context()); len(in) != 1 || fmt.Sprint(in[0].Rooms) != "[green]" {
			t.Errorf("in green: %v", in)
		}
		s.Server.Join("everybody")
		if in, _ := s.Server.To("everybody").Except("green").Sockets(t.Context()); len(in) != 1 || in[0].ID != a.ID {
			t.Errorf("everybody but green: %v", in)
		}
		s.Server.Leave("everybody")
		if in, _ := s.Server.To("everybody").Sockets(t.Context()); len(in) != 0 {
			t.Errorf("everybody has left, and yet: %v", in)
		}
		b.Disconnect()
		if l := bob.await("disconnect"); l.Reason != "io server disconnect" {
			t.Errorf("%s", l)
		}
		if err := b.Emit("too late", 1); err != nil {
			t.Errorf("Emit to one that is gone: %v", err)
		}
		s.Server.Disconnect()
		ann.await("disconnect")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Server.Sockets(ctx); err == nil {
			t.Error("Sockets with a context that is over: no error")
		}
	})
}
