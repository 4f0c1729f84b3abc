package adapter_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/adapter/backplane"
)

// A severalSite is an app with two sessions, which logs people in by itself: sockets
// hang on the one that it loads first, and who they are is in the other.
type severalSite struct {
	srv  *adapter.Server
	url  string
	held atomic.Pointer[adaptertest.Gate] // where the chain's next run waits
}

func newSeveralSite(t *testing.T, cfg adapter.Config, store sessions.Store) *severalSite {
	t.Helper()
	srv, err := adapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &severalSite{srv: srv}
	srv.Use(sessions.SessionsMany([]string{"prefs", "auth"}, srv.Store(store)))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		_ = sessions.DefaultMany(c, "prefs").Get("color")
		user, _ := sessions.DefaultMany(c, "auth").Get("user").(string)
		role, _ := sessions.DefaultMany(c, "auth").Get("role").(string)
		if gate := s.held.Swap(nil); gate != nil {
			gate.Pass()
		}
		if user == "" {
			return nil, nil
		}
		return &adapter.Identity{UserID: user, Roles: []string{role}}, nil
	})
	adapter.Handle(srv, "role", tellRole)
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	srv.Mount(e)
	pages := e.Group("/", srv.HTTP()...)
	save := func(name string, change func(sessions.Session)) gin.HandlerFunc {
		return func(c *gin.Context) {
			session := sessions.DefaultMany(c, name)
			change(session)
			if err := session.Save(); err != nil {
				t.Error(err)
			}
		}
	}
	pages.POST("/login", save("prefs", func(s sessions.Session) { s.Set("color", "blue") }),
		save("auth", func(s sessions.Session) { s.Set("user", "alice") }))
	pages.POST("/promote", save("auth", func(s sessions.Session) { s.Set("role", "admin") }))
	pages.POST("/logout", save("auth", func(s sessions.Session) {
		s.Clear()
		s.Options(sessions.Options{Path: "/", MaxAge: -1})
	}))
	s.url = adaptertest.Serve(t, e)
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if left := srv.Left(nil, nil); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return s
}

// TestSecurityLogoutOfAnotherSession: a socket hung on one of several sessions, and what
// became of the others was noticed when it was looked at again by itself, half a minute
// later: here never.
func TestSecurityLogoutOfAnotherSession(t *testing.T) {
	var bus backplane.Memory
	store := newMemstore(t)
	var sites []*severalSite
	for range 2 {
		sites = append(sites, newSeveralSite(t, adapter.Config{Revalidate: -1, Backplane: bus.Node()}, store))
	}
	for _, s := range sites {
		await(t, "both know each other", func() bool { return s.srv.Nodes() == 2 })
	}
	b := adaptertest.NewBrowser(t, sites[0].url)
	b.MustPost("/login")
	there := *b
	there.URL = sites[1].url
	open := []*adaptertest.Conn{b.Dial(ws), there.Dial(ws)}
	b.MustPost("/promote")
	for i, c := range open {
		await(t, "the role of the other session is seen", func() bool { return string(c.Call("role", nil).Data) == `"admin"` })
		if t.Failed() {
			t.Fatalf("node %d", i)
		}
	}
	// One whose handshake is under way has read what was before.
	gate := adaptertest.NewGate()
	defer gate.Open()
	sites[0].held.Store(gate)
	var late *adaptertest.Conn
	var dialing sync.WaitGroup
	dialing.Go(func() { late = b.Clone().Dial(ws) })
	<-gate.Entered
	b.MustPost("/logout")
	gate.Open()
	dialing.Wait()
	for _, c := range append(open, late) {
		if code := c.Closed(); code < 4401 || code > 4409 {
			t.Errorf("closed with %d, want 4401 to 4409", code)
		}
	}
	if _, resp, err := b.TryDial(ws, nil); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the logout: %v, want 401", err)
	}
}

func tellRole(ctx context.Context, _ *adapter.Socket, _ any) (string, error) {
	id, _ := adapter.IdentityOf(ctx)
	return id.Roles[0], nil
}
