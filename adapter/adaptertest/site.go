package adaptertest

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// A Site is a small app on one session store: pages that log in and out and
// touch the session, and socket events that do the same from the other side.
//
//	POST /login?user=alice   POST /logout        GET /me
//	POST /set?key=k&value=v  GET /get?key=k
//	POST /slow?key=k&value=v loads the session, waits for Slow, then saves
//	events: me, get {key}, set {key,value}, count {key}
type Site struct {
	Server *adapter.Server
	Engine *gin.Engine
	Pages  *gin.RouterGroup // behind Server.HTTP()
	URL    string
	Slow   *Gate // where POST /slow waits between load and save
}

// A Gate holds requests between two points of a test.
type Gate struct {
	Entered chan struct{} // receives when a request has come to the gate
	Release chan struct{} // lets one request through
}

// NewGate returns a closed gate.
func NewGate() *Gate { return &Gate{make(chan struct{}), make(chan struct{})} }

// Pass is called by the request.
func (g *Gate) Pass() {
	g.Entered <- struct{}{}
	<-g.Release
}

// NewSite starts a Site on store. setup, if not nil, may add to it before it
// is mounted.
func NewSite(t testing.TB, cfg adapter.Config, store sessions.Store, setup func(*Site)) *Site {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	srv, err := adapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &Site{Server: srv, Engine: gin.New(), Slow: NewGate()}
	srv.Use(sessions.Sessions("sid", srv.Store(store)))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id, ok := adapter.LoggedIn(c)
		if !ok {
			return nil, nil
		}
		if role, _ := sessions.Default(c).Get("role").(string); role != "" {
			id.Roles = []string{role}
		}
		id.User = id.UserID
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
		answer(c, s.Server.Login(c, adapter.Identity{UserID: c.Query("user"), Provider: "test"}))
	})
	s.Pages.POST("/logout", func(c *gin.Context) { answer(c, s.Server.Logout(c)) })
	s.Pages.GET("/me", func(c *gin.Context) {
		if user, ok := adapter.User[string](c); ok {
			c.String(http.StatusOK, user)
			return
		}
		c.Status(http.StatusUnauthorized)
	})
	s.Pages.GET("/get", func(c *gin.Context) {
		value, _ := sessions.Default(c).Get(c.Query("key")).(string)
		c.String(http.StatusOK, value)
	})
	set := func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set(c.Query("key"), c.Query("value"))
		answer(c, session.Save())
	}
	s.Pages.POST("/set", set)
	s.Pages.POST("/slow", func(c *gin.Context) {
		_ = sessions.Default(c).ID() // loads
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
