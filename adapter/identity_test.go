package adapter_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// mortalStore is a session store whose database can be taken away.
type mortalStore struct {
	sessions.Store
	dead atomic.Bool
}

var errDead = errors.New("connection refused")

func (m *mortalStore) Get(r *http.Request, name string) (*gsessions.Session, error) {
	return gsessions.GetRegistry(r).Get(m, name)
}

func (m *mortalStore) New(r *http.Request, name string) (*gsessions.Session, error) {
	if m.dead.Load() {
		s := gsessions.NewSession(m, name)
		s.IsNew = true
		return s, errDead
	}
	return m.Store.New(r, name)
}

func (m *mortalStore) Save(r *http.Request, w http.ResponseWriter, s *gsessions.Session) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Store.Save(r, w, s)
}

// silentStore swallows load errors, as gormstore does; only a ping tells.
type silentStore struct{ mortalStore }

func (m *silentStore) New(r *http.Request, name string) (*gsessions.Session, error) {
	s, err := m.mortalStore.New(r, name)
	if errors.Is(err, errDead) {
		return s, nil
	}
	return s, err
}

func (m *silentStore) Ping(context.Context) error {
	if m.dead.Load() {
		return errDead
	}
	return nil
}

// quick makes replays frequent enough to be waited for.
var quick = adapter.Config{Revalidate: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}

func TestP24DeadStoreIsNoLogout(t *testing.T) {
	loud := &mortalStore{Store: newMemstore(t)}
	silent := &silentStore{mortalStore{Store: newMemstore(t)}}
	for _, tt := range []struct {
		name  string
		store sessions.Store
		dead  *atomic.Bool
	}{{"with load errors", loud, &loud.dead}, {"silent, with Ping", silent, &silent.dead}} {
		t.Run(tt.name, func(t *testing.T) {
			var replays atomic.Int32
			s := adaptertest.NewSite(t, quick, tt.store, func(s *adaptertest.Site) {
				s.Server.Use(func(c *gin.Context) {
					if adapter.Replaying(c.Request.Context()) && tt.dead.Load() {
						replays.Add(1)
					}
				})
			})
			alice := s.NewBrowser(t, "alice")
			c := alice.Dial(ws)

			tt.dead.Store(true)
			if status, _ := alice.Get("/me"); status != http.StatusServiceUnavailable {
				t.Errorf("GET /me with a dead store: %d, want 503", status)
			}
			if _, resp, err := alice.TryDial(ws, nil); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("a handshake with a dead store: %v, want 503", err)
			}
			// The open socket lives through replays that cannot tell.
			for replays.Load() == 0 {
				c.Must("me", nil, nil)
			}
			if f := c.Call("me", nil); string(f.Data) != `"alice"` {
				t.Errorf("me with a dead store = %s, want alice", f)
			}

			tt.dead.Store(false)
			if status, user := alice.Get("/me"); status != http.StatusOK || user != "alice" {
				t.Errorf("GET /me after the store came back: %d %s", status, user)
			}
			alice.Dial(ws).Must("me", nil, nil)
			c.Must("me", nil, nil)
		})
	}
}

func TestP24StaleIdentityIsBounded(t *testing.T) {
	cfg := quick
	cfg.MaxStale = time.Second
	store := &mortalStore{Store: newMemstore(t)}
	s := adaptertest.NewSite(t, cfg, store, nil)
	c := s.NewBrowser(t, "alice").Dial(ws)
	store.dead.Store(true)
	if code := c.Closed(); code != 1013 {
		t.Errorf("close code %d after MaxStale, want 1013", code)
	}
}

func TestP24LogoutWithADeadStoreStillEndsTheSession(t *testing.T) {
	store := &mortalStore{Store: newMemstore(t)}
	s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, store, func(s *adaptertest.Site) {
		// A logout page that still has the session when the store dies.
		s.Engine.POST("/dying-logout", append(s.Server.HTTP(), func(c *gin.Context) {
			store.dead.Store(true)
			if err := s.Server.Logout(c); err == nil {
				t.Error("Logout says nothing of the dead store")
			}
			store.dead.Store(false)
		})...)
	})
	alice := s.NewBrowser(t, "alice")
	thief := alice.Clone()
	c := alice.Dial(ws)
	alice.Post("/dying-logout", nil)
	if code := c.Closed(); code != 4409 {
		t.Errorf("close code %d, want 4409", code)
	}
	if status, _ := thief.Get("/me"); status != http.StatusUnauthorized {
		t.Errorf("GET /me with the old cookie: %d, want 401", status)
	}
}

func TestRoleChangeReachesTheNextEvent(t *testing.T) {
	changed := make(chan []string, 1)
	s := adaptertest.NewSite(t, quick, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.OnIdentity(func(_ context.Context, sock *adapter.Socket, old *adapter.Identity) error {
			changed <- append(append([]string{}, old.Roles...), sock.Identity().Roles...)
			return nil
		})
		adapter.On(s.Server, "ban", func(context.Context, *adapter.Socket, struct{}) error { return nil }, adapter.Role("admin"))
	})
	alice := s.NewBrowser(t, "alice")
	c := alice.Dial(ws)
	if f := c.Call("ban", nil); f.Error == nil || f.Error.Code != adapter.CodeForbidden {
		t.Errorf("ban without the role = %s, want forbidden", f)
	}
	alice.MustPost("/set?key=role&value=admin")
	if got := <-changed; len(got) != 1 || got[0] != "admin" {
		t.Errorf("OnIdentity saw the roles %v", got)
	}
	c.Must("ban", nil, nil)
}

func TestLoginPromotesOpenSockets(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.AllowAnonymous()
		s.Server.OnIdentity(func(ctx context.Context, sock *adapter.Socket, _ *adapter.Identity) error {
			user, _ := adapter.User[string](ctx)
			return sock.Emit("you are", user)
		})
	})
	b := s.NewBrowser(t, "")
	b.MustPost("/set?key=color&value=blue") // gives the visitor a session
	c := b.Dial(ws)
	if f := c.Call("me", nil); string(f.Data) != `""` {
		t.Fatalf("me = %s, want nobody", f)
	}
	b.MustPost("/login?user=alice")
	if f := c.Event("you are"); string(f.Data) != `"alice"` {
		t.Errorf("OnIdentity: %s, want alice", f)
	}
	if f := c.Call("me", nil); string(f.Data) != `"alice"` {
		t.Errorf("me = %s, want alice", f)
	}
	if err := s.Server.ToUser("alice").Emit("hello", 1); err != nil {
		t.Fatal(err)
	}
	c.Event("hello")
	b.MustPost("/logout")
	if code := c.Closed(); code != 4409 {
		t.Errorf("close code %d after logout, want 4409", code)
	}
}

func TestAnotherUserOnTheSameSessionClosesSockets(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
	b := s.NewBrowser(t, "alice")
	c := b.Dial(ws)
	b.MustPost("/login?user=bob")
	if code := c.Closed(); code != 4409 {
		t.Errorf("close code %d, want 4409", code)
	}
}

func TestSecondLoginOfTheSameUserKeepsSockets(t *testing.T) {
	s := adaptertest.NewSite(t, quick, newMemstore(t), nil)
	b := s.NewBrowser(t, "alice")
	c := b.Dial(ws)
	b.MustPost("/login?user=alice")
	if f := c.Call("me", nil); string(f.Data) != `"alice"` {
		t.Errorf("me = %s, want alice", f)
	}
	b.MustPost("/set?key=color&value=blue")
	if f := c.Call("get", map[string]string{"key": "color"}); string(f.Data) != `"blue"` {
		t.Errorf("get color = %s: the socket does not follow the session to its new id", f)
	}
	b.MustPost("/logout")
	if code := c.Closed(); code != 4409 {
		t.Errorf("close code %d after logout, want 4409", code)
	}
}

func TestExpiryIsAHardEnd(t *testing.T) {
	srv, err := adapter.New(adapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	expires := time.Now().Add(300 * time.Millisecond)
	srv.Use(func(*gin.Context) {})
	srv.Identify(func(*gin.Context) (*adapter.Identity, error) {
		return &adapter.Identity{UserID: "alice", Expires: expires}, nil
	})
	e := gin.New()
	srv.Mount(e)
	c := adaptertest.NewBrowser(t, adaptertest.Serve(t, e)).Dial(ws)
	if code := c.Closed(); code != 4410 {
		t.Errorf("close code %d, want 4410", code)
	}
	if early := time.Until(expires); early > 0 {
		t.Errorf("closed %v before the credential expired", early)
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSessionDeletedBehindTheServersBackIsNoticed(t *testing.T) {
	store := newMemstore(t)
	s := adaptertest.NewSite(t, quick, store, func(s *adaptertest.Site) {
		// Deletes with the bare store, as another process would.
		e := s.Engine.Group("/bare", sessions.Sessions("sid", store))
		e.POST("/delete", func(c *gin.Context) {
			session := sessions.Default(c)
			session.Options(sessions.Options{Path: "/", MaxAge: -1})
			if err := session.Save(); err != nil {
				t.Error(err)
			}
		})
	})
	b := s.NewBrowser(t, "alice")
	c := b.Dial(ws)
	b.MustPost("/bare/delete")
	if code := c.Closed(); code != 4409 {
		t.Errorf("close code %d, want 4409", code)
	}
}

func TestReplayDiscardsSaves(t *testing.T) {
	var replays, cookies atomic.Int32
	s := adaptertest.NewSite(t, quick, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.Use(func(c *gin.Context) {
			session := sessions.Default(c)
			n, _ := session.Get("visits").(int)
			session.Set("visits", n+1)
			if err := session.Save(); err != nil {
				t.Error(err)
			}
			if adapter.Replaying(c.Request.Context()) {
				replays.Add(1)
				if c.Writer.Header().Get("Set-Cookie") != "" {
					cookies.Add(1)
				}
			}
		})
		adapter.Handle(s.Server, "visits", func(ctx context.Context, sock *adapter.Socket, _ struct{}) (any, error) {
			return sock.Session().Get(ctx, "visits")
		})
	})
	c := s.NewBrowser(t, "alice").Dial(ws)
	before := c.Call("visits", nil)
	for replays.Load() < 2 {
		c.Must("me", nil, nil)
	}
	if after := c.Call("visits", nil); string(after.Data) != string(before.Data) {
		t.Errorf("visits went from %s to %s by replays alone", before, after)
	}
	if n := cookies.Load(); n > 0 {
		t.Errorf("%d replays set a cookie", n)
	}
}

func TestUserPanicsOnAnotherType(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, newMemstore(t), func(s *adaptertest.Site) {
		adapter.Handle(s.Server, "wrong", func(ctx context.Context, _ *adapter.Socket, _ struct{}) (v string, _ error) {
			defer func() { v, _ = recover().(string) }()
			adapter.User[int](ctx)
			return "", nil
		})
	})
	var got string
	s.NewBrowser(t, "alice").Dial(ws).Must("wrong", nil, &got)
	if want := "adapter: User[int] of an Identity whose User is a string"; got != want {
		t.Errorf("panic %q, want %q", got, want)
	}
}

func TestUserIsTheSameWhereverItIsAsked(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
	s.Pages.GET("/all", func(c *gin.Context) {
		fromGin, _ := adapter.User[string](c)
		fromRequest, _ := adapter.User[string](c.Request.Context())
		derived, cancel := context.WithCancel(c)
		defer cancel()
		fromDerived, _ := adapter.User[string](derived)
		c.String(http.StatusOK, "%s %s %s", fromGin, fromRequest, fromDerived)
	})
	if _, got := s.NewBrowser(t, "alice").Get("/all"); got != "alice alice alice" {
		t.Errorf("got %q", got)
	}
	if _, got := s.NewBrowser(t, "").Get("/all"); got != "  " {
		t.Errorf("nobody is %q", got)
	}
}
