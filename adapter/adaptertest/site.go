package adaptertest

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// A Site is a small app on one kind of sessions: pages that log in and out and
// touch the session, and socket events that do the same from the other side.
//
//	POST /login?user=alice   POST /logout        GET /me
//	POST /forget clears the session, as apps log out that know nothing else
//	POST /set?key=k&value=v  GET /get?key=k
//	POST /slow?key=k&value=v loads the session, waits for Slow, then saves
//	events: me, get {key}, set {key,value}, count {key}
type Site struct {
	Server *adapter.Server
	Engine *gin.Engine
	Pages  *gin.RouterGroup // behind Server.HTTP()
	URL    string
	Slow   *Gate // where POST /slow waits between load and save

	// Amend, if a setup sets it, adds to an identity what the app knows of the
	// user beside the session: roles, an expiry.
	Amend func(id *adapter.Identity)

	logins Logins
}

// A Gate holds requests between two points of a test.
type Gate struct {
	Entered chan struct{} // receives when a request has come to the gate
	Release chan struct{} // lets one request through

	open   chan struct{} // closed when it stands open
	opened sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{Entered: make(chan struct{}), Release: make(chan struct{}), open: make(chan struct{})}
}

// Pass is called by the request.
func (g *Gate) Pass() {
	select {
	case g.Entered <- struct{}{}:
	case <-g.open:
		return
	}
	select {
	case <-g.Release:
	case <-g.open:
	}
}

// Open lets everybody through from now on: at the end of a test, so that one that
// fails does not wait for a request that it holds.
func (g *Gate) Open() { g.opened.Do(func() { close(g.open) }) }

// NewSite starts a Site on a store of gin-contrib/sessions. setup, if not nil,
// may add to it before it is mounted.
func NewSite(t testing.TB, cfg adapter.Config, store sessions.Store, setup func(*Site)) *Site {
	t.Helper()
	return NewSiteWith(t, cfg, Stored(store), setup)
}

// NewSiteWith is NewSite for any kind of sessions.
func NewSiteWith(t testing.TB, cfg adapter.Config, logins Logins, setup func(*Site)) *Site {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	srv, err := adapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &Site{Server: srv, Engine: gin.New(), Slow: NewGate(), logins: logins}
	logins.Use(srv)
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id, ok := logins.LoggedIn(c)
		if !ok {
			return nil, nil
		}
		if role := logins.Get(c, "role"); role != "" {
			id.Roles = []string{role}
		}
		id.User = id.UserID
		if s.Amend != nil {
			s.Amend(&id)
		}
		return &id, nil
	})
	s.events()
	if setup != nil {
		setup(s)
	}
	srv.Mount(s.Engine)
	s.Pages = s.Engine.Group("/", srv.HTTP()...)
	s.pages()
	s.URL = Serve(t, s.Engine)
	t.Cleanup(s.Slow.Open)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return s
}

// NewBrowser returns a browser at the site that is logged in as user, or as
// nobody if user is empty.
func (s *Site) NewBrowser(t testing.TB, user string) *Browser {
	t.Helper()
	b := NewBrowser(t, s.URL)
	if user != "" {
		b.MustPost("/login?user=" + user)
	}
	return b
}

// MustPost is Post of what must answer 200.
func (b *Browser) MustPost(path string) {
	b.t.Helper()
	if status, body := b.Post(path, nil); status != http.StatusOK {
		b.t.Fatalf("POST %s: %d %s", path, status, body)
	}
}

func (s *Site) pages() {
	s.Pages.POST("/login", func(c *gin.Context) {
		answer(c, s.logins.Login(c, c.Query("user")))
	})
	s.Pages.POST("/logout", func(c *gin.Context) { answer(c, s.logins.Logout(c)) })
	s.Pages.POST("/forget", func(c *gin.Context) { answer(c, s.logins.Clear(c)) })
	s.Pages.GET("/me", func(c *gin.Context) {
		if user, ok := adapter.User[string](c); ok {
			c.String(http.StatusOK, user)
			return
		}
		c.Status(http.StatusUnauthorized)
	})
	s.Pages.GET("/get", func(c *gin.Context) {
		c.String(http.StatusOK, s.logins.Get(c, c.Query("key")))
	})
	set := func(c *gin.Context) { answer(c, s.logins.Set(c, c.Query("key"), c.Query("value"))) }
	s.Pages.POST("/set", set)
	s.Pages.POST("/slow", func(c *gin.Context) {
		_ = s.logins.Get(c, "") // loads
		s.Slow.Pass()
		set(c)
	})
}

func answer(c *gin.Context, err error) {
	switch {
	case errors.Is(err, adapter.ErrSessionGone):
		c.String(http.StatusGone, err.Error())
	case err != nil:
		c.String(http.StatusInternalServerError, err.Error())
	default:
		c.String(http.StatusOK, "ok")
	}
}

type pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func (s *Site) events() {
	adapter.Handle(s.Server, "me", func(ctx context.Context, _ *adapter.Socket, _ struct{}) (string, error) {
		user, _ := adapter.User[string](ctx)
		return user, nil
	})
	adapter.Handle(s.Server, "get", func(ctx context.Context, sock *adapter.Socket, in pair) (any, error) {
		value, err := sock.Session().Get(ctx, in.Key)
		return value, visible(err)
	})
	adapter.On(s.Server, "set", func(ctx context.Context, sock *adapter.Socket, in pair) error {
		return visible(sock.Session().Update(ctx, func(v adapter.Values) error {
			v[in.Key] = in.Value
			return nil
		}))
	})
	adapter.On(s.Server, "count", func(ctx context.Context, sock *adapter.Socket, in pair) error {
		return visible(sock.Session().Update(ctx, func(v adapter.Values) error {
			old, _ := v[in.Key].(string)
			n, _ := strconv.Atoi(old)
			v[in.Key] = strconv.Itoa(n + 1)
			return nil
		}))
	})
}

// visible gives the errors of the session handle codes that a test can see.
func visible(err error) error {
	switch {
	case errors.Is(err, adapter.ErrSessionGone):
		return &adapter.Error{Code: "gone", Message: err.Error()}
	case errors.Is(err, adapter.ErrReadOnlySession):
		return &adapter.Error{Code: "read_only", Message: err.Error()}
	}
	return err
}
