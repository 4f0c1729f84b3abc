package compat

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// A mounting is how the middleware of a site is mounted.
type mounting struct {
	place     place
	above     bool // with r.Use, above the sockets' route
	disguised bool // as a function of somebody else's: what nobody can detect
	token     bool // with Query credentials
}

// A site is a server with one middleware.
type site struct {
	*fixture
	url    string
	engine *gin.Engine
	srv    *adapter.Server
	probe  *probe  // of the middleware
	chain  *probe  // of a middleware of Use
	logged *buffer // by the server
	errors *buffer // by net/http
}

// origin is a page that may open sockets of every site.
const origin = "https://chat.example"

// newSite starts a site, or returns what it panics with before it starts.
func newSite(t *testing.T, r row, m mounting) (s *site, refused string) {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	s = &site{probe: newProbe(), chain: newProbe(), logged: new(buffer), errors: new(buffer)}
	cfg := adapter.Config{
		Revalidate: time.Millisecond, // which is as soon as the timers can
		Origins:    []string{origin},
		Logger:     slog.New(slog.NewTextHandler(s.logged, nil)),
	}
	if m.token {
		cfg.Credentials = []adapter.Source{adapter.Query("token")}
	}
	srv, err := adapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	s.srv, s.engine = srv, gin.New()
	s.fixture = r.build(t, srv)
	if s.identify == nil {
		srv.AllowAnonymous()
	}
	mw := append([]gin.HandlerFunc{s.probe.handler}, s.mw...)
	if m.disguised {
		for i, h := range mw {
			mw[i] = func(c *gin.Context) { h(c) }
		}
	}
	defer func() {
		if text, is := recover().(string); is {
			s, refused = nil, text
		}
	}()
	srv.Use(s.chain.handler)
	srv.Use(s.before...)
	switch {
	case m.above:
		s.engine.Use(s.before...)
		s.engine.Use(mw...)
	case m.place == use:
		srv.Use(mw...)
	case m.place == useOnce:
		srv.UseOnce(mw...)
	case m.place == useEach:
		srv.UseEach(mw...)
	}
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		if s.identify == nil {
			return nil, nil
		}
		return s.identify(c)
	})
	adapter.Handle(srv, "echo", func(_ context.Context, _ *adapter.Socket, in string) (string, error) { return in, nil })
	adapter.Handle(srv, "look", func(ctx context.Context, sock *adapter.Socket, _ string) (string, error) {
		if s.look == nil {
			return "", nil
		}
		return s.look(ctx, sock), nil
	})
	srv.Mount(s.engine)
	pages := s.engine.Group("/", srv.HTTP()...)
	if !m.above && m.place != use {
		pages.Use(mw...)
	}
	pages.GET(pagePath, func(c *gin.Context) {
		if _, known := adapter.IdentityOf(c); s.identify != nil && !known {
			c.String(http.StatusUnauthorized, "who is it?")
			return
		}
		c.String(http.StatusOK, "a page")
	})
	if s.pages != nil {
		s.pages(pages)
	}
	s.url = serve(t, s.engine, s.errors)
	return s, ""
}

// serve runs h until the test ends and returns its URL. What net/http has to
// complain about goes to errors.
func serve(t *testing.T, h http.Handler, errors io.Writer) string {
	t.Helper()
	ts := httptest.NewUnstartedServer(h)
	ts.Config.ErrorLog = log.New(errors, "", 0)
	ts.Start()
	t.Cleanup(ts.Close)
	return ts.URL
}

// mustSite is newSite for what is not refused.
func mustSite(t *testing.T, r row, m mounting) *site {
	t.Helper()
	s, refused := newSite(t, r, m)
	if s == nil {
		t.Fatalf("refused at start-up: %s", refused)
	}
	return s
}

// person returns the browser of somebody whom the middleware lets in.
func (s *site) person(t *testing.T) *browser {
	t.Helper()
	b := newBrowser(t, s.url, s.dress)
	if s.login != nil {
		s.login(b)
	}
	return b
}

// open opens a socket that must be let in.
func (s *site) open(t *testing.T, tr transport, query string) *socket {
	t.Helper()
	sock, a := tr.open(s.person(t), query)
	if sock == nil {
		t.Fatalf("%s: not let in: %d %s", tr.name, a.status, a.body)
	}
	return sock
}

// A moment is when a middleware ran.
type moment struct {
	what      string // handshake, replay, poll, post, upgrade, preflight or page
	transport string
}

func momentOf(r *http.Request) moment {
	query := r.URL.Query()
	m := moment{transport: query.Get("transport")}
	switch {
	case r.URL.Path == plainPath:
		m = moment{"handshake", "plain"}
	case r.URL.Path != enginePath:
		m.what = "page"
	case r.Method == http.MethodOptions:
		m.what = "preflight"
	case query.Get("sid") == "":
		m.what = "handshake"
	case m.transport == "websocket":
		m.what = "upgrade"
	case r.Method == http.MethodGet:
		m.what = "poll"
	default:
		m.what = "post"
	}
	if adapter.Replaying(r.Context()) {
		m.what = "replay"
	}
	return m
}

// A probe counts how often a place in a chain is passed, and left again.
type probe struct {
	mu      sync.Mutex
	began   map[moment]int
	ended   map[moment]int
	changed chan struct{} // closed at the next change
}

func newProbe() *probe {
	return &probe{began: make(map[moment]int), ended: make(map[moment]int), changed: make(chan struct{})}
}

func (p *probe) handler(c *gin.Context) {
	m := momentOf(c.Request)
	p.note(p.began, m)
	defer p.note(p.ended, m)
	c.Next()
}

func (p *probe) note(where map[moment]int, m moment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	where[m]++
	close(p.changed)
	p.changed = make(chan struct{})
}

// runs returns how often the place was passed at moments of a kind, over all
// transports if none is named.
func (p *probe) runs(what, transport string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for m, count := range p.began {
		if m.what == what && (transport == "" || m.transport == transport) {
			n += count
		}
	}
	return n
}

// await waits until the place was left as often as wanted.
func (p *probe) await(t *testing.T, m moment, want int) {
	t.Helper()
	late := time.After(patience)
	for {
		p.mu.Lock()
		n, changed := p.ended[m], p.changed
		p.mu.Unlock()
		if n >= want {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("the end of a %s was seen %d times in %v, want %d", fmt.Sprint(m), n, patience, want)
		}
	}
}

// A buffer is a bytes.Buffer for many goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
