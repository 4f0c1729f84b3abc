package adaptertest

import (
	"context"
	"net/http"

	"github.com/gin-usher/usher/adapter"
)

// The rows of visitors who log in.

// tellWho lets visitors in, and tells each socket whom a login has made it.
func tellWho(s *Site) {
	s.Server.AllowAnonymous()
	s.Server.OnIdentity(func(ctx context.Context, sock *adapter.Socket, _ *adapter.Identity) error {
		user, _ := adapter.User[string](ctx)
		return sock.Emit("you are", user)
	})
}

// login makes a visitor's open socket the user's, without a new connection.
func (r *row) login() {
	r.start(adapter.Config{}, r.Open(r.t, life), tellWho)
	b := r.site.NewBrowser(r.t, "")
	b.MustPost("/set?key=color&value=blue") // gives the visitor a session
	c := b.Connect(r.way)
	r.wantUser(c, "")
	if r.AtInterval {
		// Nobody says that the session has a new id: the socket stays the
		// visitor's, or is over where the browser shows another cookie.
		old := b.Clone()
		still := old.Connect(r.way)
		b.MustPost("/login?user=alice")
		r.awaitReplays(still, r.replays.Load()+2)
		r.wantUser(still, "")
		return
	}
	b.MustPost("/login?user=alice")
	if f := c.Event("you are"); string(f.Data) != `"alice"` {
		r.t.Errorf("OnIdentity: %s, want alice", f)
	}
	r.wantUser(c, "alice")
	if err := r.site.Server.ToUser("alice").Emit("hello", 1); err != nil {
		r.t.Fatal(err)
	}
	c.Event("hello")
	b.MustPost("/logout")
	r.wantEnd(c, adapter.ReasonSessionEnded)
}

// firstVisit is login for a visitor of whom nothing is known: the handshake is
// the browser's first request, and there is no session that the socket could
// follow.
func (r *row) firstVisit() {
	r.start(adapter.Config{}, r.Open(r.t, life), tellWho)
	b, other := r.site.NewBrowser(r.t, ""), r.site.NewBrowser(r.t, "")
	one, two, others := b.Connect(r.way), b.Connect(r.way), other.Connect(r.way)
	r.wantUser(one, "")
	b.MustPost("/login?user=alice")
	if r.AtInterval {
		// Nobody is told of the login: the socket stays the visitor's, or is over
		// where the browser shows another cookie.
		switch {
		case r.way.Transport == Polling:
			if err := r.site.Server.To(one.ID()).Emit("poll again"); err != nil {
				r.t.Fatal(err)
			}
			if end := one.End(); end.Status != http.StatusForbidden {
				r.t.Errorf("the visitor's socket ended with %+v, want a poll that is refused with 403", end)
			}
		default:
			r.awaitReplays(one, r.replays.Load()+2)
			r.wantUser(one, "")
			r.wantUser(two, "")
		}
		r.wantUser(b.Connect(r.way), "alice")
		return
	}
	for _, c := range []Client{one, two} {
		if f := c.Event("you are"); string(f.Data) != `"alice"` {
			r.t.Errorf("OnIdentity: %s, want alice", f)
		}
		r.wantUser(c, "alice")
	}
	if err := r.site.Server.ToUser("alice").Emit("hello", 1); err != nil {
		r.t.Fatal(err)
	}
	one.Event("hello")
	two.Event("hello")

	// From here on they are sockets of the session like any other.
	if f := one.Call("get", pair{Key: "color"}); f.Error != nil {
		r.t.Errorf("get color = %s, want no error", f)
	}
	b.MustPost("/logout")
	r.wantEnd(one, adapter.ReasonSessionEnded)
	r.wantEnd(two, adapter.ReasonSessionEnded)
	r.wantUser(others, "")
	if frames := others.Rest(); len(frames) > 0 {
		r.t.Errorf("another visitor got %v", frames)
	}
}
