package compat

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-contrib/authz"
	"github.com/gin-contrib/cache"
	"github.com/gin-contrib/cache/persistence"
	"github.com/gin-contrib/gzip"
	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/timeout"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
	gocache "github.com/robfig/go-cache"
	"github.com/ulule/limiter/v3"
	ginlimiter "github.com/ulule/limiter/v3/drivers/middleware/gin"
	"github.com/ulule/limiter/v3/drivers/store/memory"

	"github.com/gin-usher/usher/adapter"
)

// Tests with the numbers of docs/architecture.md. Those called Naive show that
// the danger is real: they do what people do without the adapter, or hide a
// middleware from it as a function of their own.

// polling is the transport of that name.
var polling = transports[2]

// rowOf makes a row of middlewares that need nothing.
func rowOf(mw ...gin.HandlerFunc) row {
	return row{name: "mw", build: func(*testing.T, *adapter.Server) *fixture { return &fixture{mw: mw} }}
}

// behind hides who has made a middleware.
func behind(mw gin.HandlerFunc) gin.HandlerFunc { return func(c *gin.Context) { mw(c) } }

// TestP12TimeoutIsRefused wherever sockets would meet it.
func TestP12TimeoutIsRefused(t *testing.T) { // not parallel: timeout.New writes a variable of its package
	f := finding{row: named(t, "gin-contrib/timeout")}
	f.cannotWork(t)
}

// TestP12NaiveTimeoutAnswersAHeldPoll: which is why it is refused.
func TestP12NaiveTimeoutAnswersAHeldPoll(t *testing.T) {
	skipRace(t)
	s := mustSite(t, rowOf(behind(timeout.New(timeout.WithTimeout(time.Second)))), mounting{above: true})
	sock := s.open(t, polling, "")
	if _, a := sock.tryNext(); a == nil || a.status != http.StatusRequestTimeout {
		t.Errorf("a held poll was answered %+v, want 408: this test no longer shows the danger", a)
	}
}

// lowerCase asks for a WebSocket as proxies and other clients do, with a
// Connection header that gzip does not recognise, and returns the answer.
func lowerCase(t *testing.T, url, path string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: chat\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAccept-Encoding: gzip\r\n\r\n", path)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%s: %s", path, resp.Status)
	}
	if path != plainPath {
		return resp
	}
	// A text frame comes first, and nothing before it.
	if b, err := r.Peek(2); err != nil || b[0] != 0x81 {
		t.Errorf("the first bytes behind the 101 are %x, %v", b, err)
	}
	return resp
}

// TestP13GzipLeavesSocketsAlone: hidden in a function it cannot be refused, and
// still nothing of it gets to a socket.
func TestP13GzipLeavesSocketsAlone(t *testing.T) {
	t.Parallel()
	for _, m := range []mounting{{above: true}, {place: use}, {place: useOnce}, {place: useEach}} {
		s := mustSite(t, rowOf(behind(gzip.Gzip(gzip.BestSpeed))), m)
		for _, path := range []string{plainPath, enginePath + "?EIO=4&transport=websocket"} {
			if resp := lowerCase(t, s.url, path); resp.Header.Get("Content-Encoding") != "" {
				t.Errorf("%+v: %s: the 101 has Content-Encoding %q", m, path, resp.Header.Get("Content-Encoding"))
			}
		}
		for _, tr := range transports {
			s.open(t, tr, "").echoes()
		}
		if !m.above {
			// There it holds the connection's own writer, and ends its body on
			// what is a socket's by then: net/http stops it, and complains. So
			// it is refused where it can be seen.
			s.quiet(t)
		}
	}
}

func TestP13NaiveGzipMarksTheUpgrade(t *testing.T) {
	t.Parallel()
	e := gin.New()
	e.Use(gzip.Gzip(gzip.BestSpeed))
	var up websocket.Upgrader
	e.GET("/socket", func(c *gin.Context) {
		if ws, err := up.Upgrade(c.Writer, c.Request, c.Writer.Header()); err == nil {
			_ = ws.Close()
		}
	})
	if resp := lowerCase(t, serve(t, e, io.Discard), "/socket"); resp.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("the 101 has %v: this test no longer shows the danger", resp.Header)
	}
}

// TestP13NaiveGzipLosesAHeldPoll: its writer hides that deadlines can be set.
func TestP13NaiveGzipLosesAHeldPoll(t *testing.T) {
	t.Parallel()
	const timeout = time.Second // also of the handshake, on a busy machine
	for name, mw := range map[string]gin.HandlerFunc{"nothing": func(*gin.Context) {}, "gzip": behind(gzip.Gzip(gzip.BestSpeed))} {
		s := mustSite(t, rowOf(mw), mounting{above: true})
		ts := httptest.NewUnstartedServer(s.engine)
		ts.Config.WriteTimeout = timeout
		ts.Start()
		t.Cleanup(ts.Close)
		s.url = ts.URL
		sock := s.open(t, polling, "")
		held := make(chan error, 1)
		// The client polls again when the connection is cut, and finds nothing.
		ctx, cancel := context.WithTimeout(t.Context(), 4*timeout)
		defer cancel()
		sent := make(chan struct{})
		said := sync.OnceFunc(func() { close(sent) })
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { said() }})
		go func() {
			resp, err := sock.b.http.Do(sock.b.request(http.MethodGet, sock.path, "").WithContext(ctx))
			if err == nil {
				_ = resp.Body.Close()
			}
			held <- err
		}()
		<-sent
		<-time.After(2 * timeout)
		if err := s.srv.Emit("late", "x"); err != nil {
			t.Fatal(err)
		}
		if err := <-held; (err != nil) != (name == "gzip") {
			t.Errorf("a poll that is held behind %s: %v: this test no longer shows the danger", name, err)
		}
	}
}

// TestP17PollsAskNobodyAgain: what counts, checks or publishes every request is
// asked on the handshake alone.
func TestP17PollsAskNobodyAgain(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ulule/limiter", "justinas/nosurf", "gorilla/csrf", "utrack/gin-csrf", "gin.Logger", "go-gin-prometheus", "gin-contrib/sessions, memstore"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := named(t, name)
			s := mustSite(t, r, mounting{place: r.place})
			sock := s.open(t, polling, "")
			for range many {
				sock.echoes()
			}
			if n := s.probe.runs("poll", "") + s.probe.runs("post", ""); n != 0 {
				t.Errorf("it ran %d times on polls and posts", n)
			}
			if s.wrote != nil && strings.Contains(s.wrote(), "sid=") {
				t.Errorf("it published the sid:\n%s", s.wrote())
			}
		})
	}
}

func TestP17NaiveEveryPollIsAsked(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"ulule/limiter": http.StatusTooManyRequests, "justinas/nosurf": http.StatusBadRequest, "gorilla/csrf": http.StatusForbidden} {
		s := mustSite(t, named(t, name), mounting{above: true})
		sock, a := polling.open(s.person(t), "")
		if sock != nil {
			_, a = sock.ask("echo", "one")
		}
		if a == nil || a.status != want {
			t.Errorf("%s: a client that polls got %+v, want %d: this test no longer shows the danger", name, a, want)
		}
	}
	for _, name := range []string{"gin.Logger", "go-gin-prometheus"} {
		s := mustSite(t, named(t, name), mounting{above: true})
		s.open(t, polling, "").echoes()
		if !strings.Contains(s.wrote(), "sid=") {
			t.Errorf("%s published no sid: this test no longer shows the danger", name)
		}
	}
}

// TestP18CachesOfPagesAreRefused, in each of their forms; but not a middleware of
// the same package that does no harm.
func TestP18CachesOfPagesAreRefused(t *testing.T) {
	t.Parallel()
	pages := newPageCache()
	var store persistence.CacheStore = pages
	next := func(c *gin.Context) { c.Next() }
	for name, mw := range map[string]gin.HandlerFunc{
		"SiteCache":              cache.SiteCache(pages, time.Minute),
		"CachePage":              cache.CachePage(pages, time.Minute, next),
		"CachePageAtomic":        cache.CachePageAtomic(pages, time.Minute, next),
		"CachePageWithoutQuery":  cache.CachePageWithoutQuery(pages, time.Minute, next),
		"CachePageWithoutHeader": cache.CachePageWithoutHeader(pages, time.Minute, next),
	} {
		for _, m := range []mounting{{above: true}, {place: use}, {place: useOnce}, {place: useEach}} {
			if s, refused := newSite(t, rowOf(mw), m); s != nil || !strings.Contains(refused, "gin-contrib/cache") {
				t.Errorf("%s, %+v: start-up says %q, want a panic that names gin-contrib/cache", name, m, refused)
			}
		}
	}
	s := mustSite(t, rowOf(cache.Cache(&store)), mounting{above: true})
	s.open(t, polling, "").echoes()
}

// newPageCache is the cache of gin-contrib/cache in memory as NewInMemoryStore makes
// it, without a janitor: that one's finalizer races with its start.
func newPageCache() *persistence.InMemoryStore {
	return &persistence.InMemoryStore{Cache: *gocache.New(time.Minute, 0)}
}

func TestP18NaiveCacheHandsOutSomebodyElsesPoll(t *testing.T) {
	t.Parallel()
	pages := newPageCache()
	s := mustSite(t, rowOf(behind(cache.CachePage(pages, time.Minute, func(c *gin.Context) { c.Next() }))), mounting{above: true})
	const handshake = enginePath + "?EIO=4&transport=polling"
	alice, mallory := newBrowser(t, s.url, nil).get(handshake), newBrowser(t, s.url, nil).get(handshake)
	if !strings.Contains(alice.body, `"sid"`) || alice.body != mallory.body {
		t.Errorf("two clients got %q and %q: this test no longer shows the danger", alice.body, mallory.body)
	}
}

// TestP19RedisSessionsBesideCSRF: utrack/gin-csrf asks for a redigo with which
// gin-contrib's Redis store does not compile; go.mod replaces it.
func TestP19RedisSessionsBesideCSRF(t *testing.T) {
	t.Parallel()
	if got := versions["github.com/gomodule/redigo"]; got != "v1.9.2" {
		t.Errorf("redigo is %s, want v1.9.2", got)
	}
	r := named(t, "utrack/gin-csrf")
	s := mustSite(t, r, mounting{place: r.place})
	for _, tr := range transports {
		if got := s.open(t, tr, "").mustAsk("look", ""); got != s.want {
			t.Errorf("%s: %s", tr.name, got)
		}
	}
	if s.kept() == 0 {
		t.Error("nothing was saved in Redis")
	}
}

// TestP21StrangersAreStrangersEverywhere: no credential and a forged one, with
// each middleware that says who it is.
func TestP21StrangersAreStrangersEverywhere(t *testing.T) {
	t.Parallel()
	for _, r := range identifying {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := mustSite(t, r, mounting{place: r.place})
			if len(s.strangers) < 2 {
				t.Fatal("there is no forged credential")
			}
			f := finding{row: r}
			f.strangers(t, s)
		})
	}
}

// visits is a chain that saves whenever it runs, on a store.
func visits(open func(*testing.T) *counted) row {
	return row{name: "visits", place: use, build: func(t *testing.T, srv *adapter.Server) *fixture {
		st := open(t)
		return &fixture{
			mw: []gin.HandlerFunc{sessions.Sessions("sid", srv.Store(st)), func(c *gin.Context) {
				s := sessions.Default(c)
				n, _ := s.Get("visits").(int)
				s.Set("visits", n+1)
				if err := s.Save(); err != nil {
					t.Errorf("save: %v", err)
				}
				c.Set("visits", n+1)
			}},
			pages: func(g *gin.RouterGroup) {
				g.GET("/visits", func(c *gin.Context) { c.String(http.StatusOK, "%d", c.GetInt("visits")) })
			},
			kept: st.saves,
		}
	}}
}

// TestP25SavesInReplaysAreDiscarded: an anonymous chain that saves whenever it
// runs makes no row per replay, and a cookie that it would have set in one does
// not take the browser's away.
func TestP25SavesInReplaysAreDiscarded(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) *counted{"cookie": newCookies, "memstore": newMemory, "redis": newRedis, "gorm": newGorm} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mustSite(t, visits(open), mounting{place: use})
			open := make([]*socket, len(transports))
			for i, tr := range transports {
				open[i] = s.open(t, tr, "")
			}
			before := s.kept()
			for _, tr := range transports {
				s.chain.await(t, moment{"replay", tr.name}, many)
			}
			if after := s.kept(); after != before {
				t.Errorf("%d replays saved %d times", many*len(transports), after-before)
			}
			for i, sock := range open {
				if a := sock.b.get("/visits"); a.body != "2" {
					t.Errorf("%s: after the handshake and replays this is visit %s, want 2", transports[i].name, a.body)
				}
			}
			if !strings.Contains(s.logged.String(), "writes a session or cookie whenever it runs") {
				t.Error("no warning names the middleware that saves")
			}
		})
	}
}

// TestP25NaiveLimiterIsAskedByReplays: in Use a limiter counts replays as if
// somebody had asked. It is not taken for a logout, but nobody is known either.
func TestP25NaiveLimiterIsAskedByReplays(t *testing.T) {
	t.Parallel()
	s := mustSite(t, named(t, "ulule/limiter"), mounting{place: use})
	sock := s.open(t, transports[0], "")
	s.chain.await(t, moment{"replay", "plain"}, limit+1)
	sock.echoes()
	s.chain.await(t, moment{"replay", "plain"}, limit+2) // the outcome of the one before is in the log
	if got := s.logged.String(); !strings.Contains(got, "identity could not be checked") || !strings.Contains(got, "status=429") {
		t.Errorf("no replay was answered 429: this test no longer shows the danger\n%s", got)
	}
}

func answers(context.Context, *adapter.Socket, string) (string, error) { return "done", nil }

// TestP29CasbinDecidesAboutEachEvent: the real casbin, asked about each event
// instead of the route.
func TestP29CasbinDecidesAboutEachEvent(t *testing.T) {
	t.Parallel()
	r := row{name: "casbin", place: use, build: func(t *testing.T, srv *adapter.Server) *fixture {
		f := buildAuthz(t, srv)
		asked := adapter.Wrap(authz.NewAuthorizer(enforcer(t, "alice /read EVENT")))
		for _, event := range []string{"read", "delete"} {
			adapter.Handle(srv, event, answers, asked)
			adapter.Handle(srv, event+" unasked", answers)
		}
		return f
	}}
	s := mustSite(t, r, mounting{place: use})
	for _, tr := range transports {
		sock := s.open(t, tr, "")
		if got := sock.mustAsk("read", ""); got != "done" {
			t.Errorf("%s: read = %s, want done", tr.name, got)
		}
		if got := sock.mustAsk("delete", ""); !strings.Contains(got, adapter.CodeForbidden) {
			t.Errorf("%s: delete = %s, want the error forbidden", tr.name, got)
		}
		// The naive way: the rule for the route has let in, and nobody asks again.
		if got := sock.mustAsk("delete unasked", ""); got != "done" {
			t.Errorf("%s: without Wrap delete = %s: this test no longer shows the danger", tr.name, got)
		}
	}
}

// TestP30LimitByAddress: a limit by c.ClientIP() is the app's own, as its engine
// is. With the proxies set that there are, a header does not lead around it.
func TestP30LimitByAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		proxies func(*gin.Engine) error
		status  int
	}{
		{"no proxies", func(e *gin.Engine) error { return e.SetTrustedProxies(nil) }, http.StatusTooManyRequests},
		{"Naive: Gin's default", func(*gin.Engine) error { return nil }, http.StatusSwitchingProtocols},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := limiter.New(memory.NewStore(), limiter.Rate{Period: time.Hour, Limit: limit})
			s := mustSite(t, rowOf(ginlimiter.NewMiddleware(l)), mounting{place: useOnce})
			if err := tt.proxies(s.engine); err != nil {
				t.Fatal(err)
			}
			last := 0
			for i := range limit + 1 {
				claim := fmt.Sprintf("198.51.100.%d", i)
				_, a := transports[0].open(newBrowser(t, s.url, withHeader("X-Forwarded-For", claim)), "")
				last = a.status
			}
			if last != tt.status {
				t.Errorf("handshake %d from one address was answered %d, want %d", limit+1, last, tt.status)
			}
		})
	}
}
