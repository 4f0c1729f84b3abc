package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestLoginTakesNoForeignSocketAlong plants a session in Bob's browser, with a
// socket of the attacker on it: what a new session id denies to the cookie must
// not be given to the socket.
func TestLoginTakesNoForeignSocketAlong(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) { s.Server.AllowAnonymous() })
	attacker := s.NewBrowser(t, "")
	attacker.MustPost("/set?key=planted&value=evil")
	foreign, _, err := attacker.TryDial(ws, http.Header{"X-Forwarded-For": {"203.0.113.66"}})
	if err != nil {
		t.Fatal(err)
	}
	bob := attacker.Clone()
	own := bob.Dial(ws)
	bob.MustPost("/login?user=bob")
	if code := foreign.Closed(); code != 4409 {
		t.Errorf("close code %d for the attacker's socket, want 4409", code)
	}
	for {
		if f := own.Call("me", nil); string(f.Data) == `"bob"` {
			break
		}
	}
}

// TestClearIsALogout is about how apps without Server.Logout log out.
func TestClearIsALogout(t *testing.T) {
	for _, tt := range []struct {
		name  string
		store func(*testing.T) sessions.Store
		code  int // that sockets of a cleared session are closed with
	}{{"memstore", newMemstore, 4401}, {"cookie", newCookieStore, 4409}} {
		t.Run(tt.name, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{}, tt.store(t), nil)
			s.Pages.POST("/clear", func(c *gin.Context) {
				session := sessions.Default(c)
				session.Clear()
				if c.Query("delete") != "" {
					session.Options(sessions.Options{Path: "/", MaxAge: -1})
				}
				if err := session.Save(); err != nil {
					t.Error(err)
				}
			})
			for path, code := range map[string]int{"/clear": tt.code, "/clear?delete=1": 4409} {
				alice := s.NewBrowser(t, "alice")
				c := alice.Dial(ws)
				thief := alice.Clone()
				alice.MustPost(path)
				if got := c.Closed(); got != code {
					t.Errorf("%s: close code %d, want %d", path, got, code)
				}
				for who, b := range map[string]*adaptertest.Browser{"alice": alice, "the old cookie": thief} {
					if status, user := b.Get("/me"); status != http.StatusUnauthorized {
						t.Errorf("%s: GET /me with %s: %d %s, want 401", path, who, status, user)
					}
				}
				alice.MustPost("/login?user=alice")
				if f := alice.Dial(ws).Call("me", nil); string(f.Data) != `"alice"` {
					t.Errorf("%s: me after a new login = %s", path, f)
				}
			}
		})
	}
}

// gatedStore holds the first save back.
type gatedStore struct {
	sessions.Store
	gate  *adaptertest.Gate
	saved atomic.Bool
}

func (g *gatedStore) Save(r *http.Request, w http.ResponseWriter, s *gsessions.Session) error {
	err := g.Store.Save(r, w, s)
	if !g.saved.Swap(true) {
		g.gate.Pass()
	}
	return err
}

// TestFirstCookieSessionsHaveIDs saves two sessions at once in a store of which
// it is not known yet that it gives no ids.
func TestFirstCookieSessionsHaveIDs(t *testing.T) {
	gate := adaptertest.NewGate()
	s := adaptertest.NewSite(t, adapter.Config{Revalidate: -1}, &gatedStore{Store: newCookieStore(t), gate: gate}, nil)
	alice := s.NewBrowser(t, "")
	var wg sync.WaitGroup
	wg.Go(func() {
		if status, body := alice.Post("/login?user=alice", nil); status != http.StatusOK {
			t.Errorf("login: %d %s", status, body)
		}
	})
	<-gate.Entered
	s.NewBrowser(t, "bob")
	gate.Release <- struct{}{}
	wg.Wait()
	c := alice.Dial(ws)
	alice.MustPost("/logout")
	if code := c.Closed(); code != 4409 {
		t.Errorf("close code %d, want 4409", code)
	}
}

// TestClearAfterARestart has a cookie from before a restart.
func TestClearAfterARestart(t *testing.T) {
	before := adaptertest.NewSite(t, adapter.Config{}, newCookieStore(t), nil).NewBrowser(t, "alice")
	s := adaptertest.NewSite(t, adapter.Config{Revalidate: -1}, newCookieStore(t), nil)
	s.Pages.POST("/clear", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Clear()
		if err := session.Save(); err != nil {
			t.Error(err)
		}
	})
	alice := s.NewBrowser(t, "")
	site, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	alice.HTTP.Jar.SetCookies(site, before.Cookies())
	c := alice.Dial(ws)
	alice.MustPost("/clear")
	if code := c.Closed(); code != 4409 {
		t.Errorf("close code %d, want 4409", code)
	}
}

// TestSocketsHangOnTheSessionThatNamesTheUser has another session in front of
// the one that logs in.
func TestSocketsHangOnTheSessionThatNamesTheUser(t *testing.T) {
	srv, err := adapter.New(adapter.Config{Revalidate: -1})
	if err != nil {
		t.Fatal(err)
	}
	prefs, login := srv.Store(newMemstore(t)), srv.Store(newMemstore(t))
	srv.Use(func(c *gin.Context) {
		s, err := prefs.Get(c.Request, "prefs")
		if err != nil {
			t.Error(err)
		}
		if s.IsNew && !adapter.Replaying(c.Request.Context()) {
			s.Values["color"] = "blue"
			if err := prefs.Save(c.Request, c.Writer, s); err != nil {
				t.Error(err)
			}
		}
	}, sessions.Sessions("sid", login))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id, ok := adapter.LoggedIn(c)
		if !ok {
			return nil, nil
		}
		return &id, nil
	})
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	srv.Mount(e)
	pages := e.Group("/", srv.HTTP()...)
	pages.POST("/login", func(c *gin.Context) {
		if err := srv.Login(c, adapter.Identity{UserID: "alice"}); err != nil {
			t.Error(err)
		}
	})
	pages.POST("/logout", func(c *gin.Context) {
		if err := srv.Logout(c); err != nil {
			t.Error(err)
		}
	})
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, e))
	b.MustPost("/login")
	c := b.Dial(ws)
	b.MustPost("/logout")
	if code := c.Closed(); code != 4409 {
		t.Errorf("close code %d, want 4409", code)
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLoginInAReplayFails(t *testing.T) {
	var tries atomic.Int32
	cfg := quick
	cfg.Logger = slog.New(slog.DiscardHandler)
	s := adaptertest.NewSite(t, cfg, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.Use(func(c *gin.Context) {
			if adapter.Replaying(c.Request.Context()) {
				if err := s.Server.Login(c, adapter.Identity{UserID: "mallory"}); err == nil {
					t.Error("Login in a replay succeeded")
				}
				tries.Add(1)
			}
		})
	})
	alice := s.NewBrowser(t, "alice")
	c := alice.Dial(ws)
	for tries.Load() == 0 {
		c.Must("me", nil, nil)
	}
	if status, user := alice.Get("/me"); status != http.StatusOK || user != "alice" {
		t.Errorf("GET /me after a replay: %d %s, want alice", status, user)
	}
	if f := c.Call("me", nil); string(f.Data) != `"alice"` {
		t.Errorf("me after a replay = %s, want alice", f)
	}
}

// TestNoHandlerRunsAfterALogoutDuringTheHandshake ends the session while the
// chain of a handshake runs.
func TestNoHandlerRunsAfterALogoutDuringTheHandshake(t *testing.T) {
	gate := adaptertest.NewGate()
	var ran atomic.Bool
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.UseOnce(func(c *gin.Context) {
			c.Next()
			gate.Pass()
		})
		s.Server.OnConnect(func(context.Context, *adapter.Socket) error {
			ran.Store(true)
			return nil
		})
	})
	alice := s.NewBrowser(t, "alice")
	done := make(chan *adaptertest.Conn)
	go func() {
		c, _, err := alice.TryDial(ws, nil)
		if err != nil {
			t.Error(err)
		}
		done <- c
	}()
	<-gate.Entered
	alice.Clone().MustPost("/logout")
	gate.Release <- struct{}{}
	c := <-done
	if c == nil {
		return
	}
	if code := c.Closed(); code != 4409 {
		t.Errorf("close code %d, want 4409", code)
	}
	if frames := c.Rest(); ran.Load() || len(frames) > 0 {
		t.Errorf("OnConnect ran: %v, frames %v: want neither", ran.Load(), frames)
	}
}

// TestTabsWithOtherCookiesAreAskedForThemselves: one of two tabs was opened before
// the session in their cookie was changed.
func TestTabsWithOtherCookiesAreAskedForThemselves(t *testing.T) {
	var replays atomic.Int32
	s := adaptertest.NewSite(t, quick, newCookieStore(t), func(s *adaptertest.Site) {
		s.Server.Use(func(c *gin.Context) {
			if adapter.Replaying(c.Request.Context()) {
				replays.Add(1)
			}
		})
	})
	alice := s.NewBrowser(t, "alice")
	before := alice.Dial(ws)
	first := s.Server.Here("/")[0]
	alice.MustPost("/set?key=role&value=admin")
	after := alice.Dial(ws)
	for replays.Load() < 10 {
		before.Must("me", nil, nil)
		after.Must("me", nil, nil)
	}
	for _, sock := range s.Server.Here("/") {
		want := "[admin]"
		if sock == first {
			want = "[]"
		}
		if got := fmt.Sprint(sock.Identity().Roles); got != want {
			t.Errorf("after replays a socket has the roles %s, want %s", got, want)
		}
	}
}

// TestUpdateSeesARevoke: one that comes while f runs was told that it has saved, in a
// session that was over.
func TestUpdateSeesARevoke(t *testing.T) {
	gate, result := adaptertest.NewGate(), make(chan error, 1)
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		adapter.On(s.Server, "slow", func(_ context.Context, sock *adapter.Socket, _ struct{}) error {
			result <- sock.Session().Update(context.Background(), func(v adapter.Values) error {
				gate.Pass()
				v["late"] = "1"
				return nil
			})
			return nil
		})
	})
	t.Cleanup(gate.Open)
	s.NewBrowser(t, "alice").Dial(ws).Emit("slow", nil)
	<-gate.Entered
	if _, err := s.Server.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	gate.Release <- struct{}{}
	if err := <-result; !errors.Is(err, adapter.ErrSessionGone) {
		t.Errorf("Update = %v, want ErrSessionGone", err)
	}
}
