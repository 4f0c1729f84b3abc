package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestGuardsMayUseTheSocket: a guard may put the socket into a room, send to it and
// end it, over every transport: also while the handshake of a plain WebSocket is under
// way and there is no connection yet, where who wrote to the room met nothing and
// panicked. Of a socket that is not let in nothing stays.
func TestGuardsMayUseTheSocket(t *testing.T) {
	for _, tr := range []adaptertest.Transport{adaptertest.Plain, adaptertest.WebSocket, adaptertest.Polling} {
		t.Run(string(tr), func(t *testing.T) {
			s := guardedSite(t)
			write := func() {
				t.Helper()
				if err := s.Server.Of("/admin").To("staff").Emit("is anybody there"); err != nil {
					t.Error(err)
				}
			}
			b := adaptertest.NewBrowser(t, s.URL)
			way := adaptertest.Way{Transport: tr, Namespace: "/admin", Header: http.Header{"Authorization": {"Bearer alice"}}}
			if _, refusal := b.TryConnect(way); refusal == nil || refusal.Message != "not you" {
				t.Errorf("alice: %+v", refusal)
			}
			write()
			await(t, "the room is empty", func() bool { return s.Server.Left([]string{"staff"}, nil)["room staff of /admin"] == 0 })

			way.Header = http.Header{"Authorization": {"Bearer root"}}
			c := b.Connect(way)
			c.Event("somebody is at the door")
			write()
			c.Event("is anybody there")

			if tr != adaptertest.Plain {
				return
			}
			way.Header = http.Header{"Authorization": {"Bearer ended"}}
			ended, _, err := b.TryDial(ws+"?nsp=/admin", way.Header)
			if err != nil {
				t.Fatal(err)
			}
			if code := ended.Closed(); code != 1000 {
				t.Errorf("ended by a guard: %d, want 1000", code)
			}
			await(t, "one is in the room", func() bool { return s.Server.Left([]string{"staff"}, nil)["room staff of /admin"] == 1 })
		})
	}
}

// TestWhoWaitsGetsNothingFromARoom: a guard that puts sockets into a room has done so
// with one that the next guard refuses. It waits to show another token, and is nobody.
func TestWhoWaitsGetsNothingFromARoom(t *testing.T) {
	s := guardedSite(t)
	c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws+"?nsp=/admin", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Raw(`{"type":"authenticate","token":"alice","id":1}`)
	if f := c.Event("reply"); f.Error == nil || f.Error.Message != "not you" {
		t.Errorf("alice: %s", f)
	}
	if err := s.Server.Of("/admin").To("staff").Emit("is anybody there"); err != nil {
		t.Error(err)
	}
	c.Raw(`{"type":"authenticate","token":"root","id":2}`)
	c.Event("connect")
	c.Event("reply")
	c.Must("me", nil, nil)
	got := 0
	for _, f := range c.Rest() {
		if f.Type != "somebody is at the door" {
			t.Errorf("%s", f)
		}
		got++
	}
	if got != 1 {
		t.Errorf("%d events of root's own, want 1", got)
	}
}

// TestGuardThatCannotTell: a guard whose database does not answer when somebody's
// identity changes ends the socket, but not for good, as it does not at the handshake;
// nor does one that panics. One that says no does.
func TestGuardThatCannotTell(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func() error
		code   int
	}{
		"no":       {func() error { return &adapter.Error{Code: "closed", Message: "closed today"} }, 4403},
		"an error": {func() error { return errors.New("no database") }, 1013},
		"a panic":  {func() error { panic("a mistake of the app") }, 1013},
	} {
		t.Run(name, func(t *testing.T) {
			var open atomic.Bool
			open.Store(true)
			s := openSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, func(srv *adapter.Server) {
				srv.Require(func(context.Context, *adapter.Socket) error {
					if open.Load() {
						return nil
					}
					return tt.answer()
				})
			})
			b := s.NewBrowser(t, "alice")
			c := b.Dial(ws)
			open.Store(false)
			b.MustPost("/set?key=role&value=admin")
			if code := c.Closed(); code != tt.code {
				t.Errorf("closed with %d, want %d", code, tt.code)
			}
		})
	}
}

// guardedSite has a namespace "/admin" for root, whose first guard puts sockets into a
// room and tells the room.
func guardedSite(t *testing.T) *tokenSite {
	t.Helper()
	return newTokenSite(t, adapter.Config{Credentials: everySource}, func(s *tokenSite) {
		admin := s.Server.Of("/admin")
		admin.Require(func(_ context.Context, sock *adapter.Socket) error {
			if err := sock.Join("staff"); err != nil {
				return err
			}
			return admin.To("staff").Emit("somebody is at the door")
		}, func(ctx context.Context, sock *adapter.Socket) error {
			switch id, _ := adapter.IdentityOf(ctx); id.UserID {
			case "root":
				return nil
			case "ended":
				return sock.Disconnect()
			}
			return &adapter.Error{Code: adapter.CodeUnauthenticated, Message: "not you"}
		})
	})
}

// TestGuardsAskTheSocket: who somebody is a guard may ask the socket as well as its
// context, and what middlewares have left, by whatever way the token has come.
func TestGuardsAskTheSocket(t *testing.T) {
	asked := make(chan string, 1)
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, func(s *tokenSite) {
		s.Server.Require(func(ctx context.Context, sock *adapter.Socket) error {
			user := "nobody"
			if id := sock.Identity(); id != nil {
				user = id.UserID
			}
			token, _ := sock.Get("token")
			asked <- fmt.Sprint(user, " ", token, " ", sock.Handshake().Header().Get("Authorization"))
			if id, _ := adapter.IdentityOf(ctx); id.UserID == "mallory" {
				return &adapter.Error{Code: adapter.CodeUnauthenticated, Message: "not you"}
			}
			return nil
		})
		adapter.Handle(s.Server, "who", func(_ context.Context, sock *adapter.Socket, _ struct{}) (string, error) {
			return sock.Identity().UserID, nil
		})
	})
	b := adaptertest.NewBrowser(t, s.URL)
	want := func(way, user string) {
		t.Helper()
		if got, want := <-asked, user+" "+user+" Bearer "+user; got != want {
			t.Errorf("%s: the guard was told %q, want %q", way, got, want)
		}
	}
	b.Dial(ws + "?token=alice")
	want("in the handshake", "alice")
	b.Connect(adaptertest.Way{Transport: adaptertest.WebSocket, Query: url.Values{"token": {"alice"}}})
	want("over Socket.IO", "alice")
	b.Connect(adaptertest.Way{Transport: adaptertest.WebSocket, Auth: map[string]string{"token": "alice"}})
	want("as auth", "alice")

	c, _, err := b.TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Raw(`{"type":"authenticate","token":"mallory","id":1}`)
	want("in a first message", "mallory")
	if f := c.Event("reply"); f.Error == nil || f.Error.Message != "not you" {
		t.Errorf("mallory: %s", f)
	}
	c.Raw(`{"type":"authenticate","token":"alice","id":2}`)
	want("in a second one", "alice")
	c.Event("connect")
	var who string
	if c.Must("who", nil, &who); who != "alice" {
		t.Errorf("who = %q, want alice", who)
	}
}
