package compat

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/size"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/csrf"
	ginadapter "github.com/gwatts/gin-adapter"
	"github.com/justinas/nosurf"
	"github.com/ulule/limiter/v3"
	ginlimiter "github.com/ulule/limiter/v3/drivers/middleware/gin"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	gincsrf "github.com/utrack/gin-csrf"

	"github.com/gin-usher/usher/adapter"
)

// noOrigin is what every row against forged requests has to say.
const noOrigin = "an upgrade is a GET, which it exempts: it keeps no page of another site from opening sockets. `Config.Origins` does"

var limiting = []row{
	{name: "ulule/limiter", module: "github.com/ulule/limiter/v3", place: useOnce, build: buildLimiter,
		note: "by default it counts by `c.ClientIP()`, which believes what every client says in `X-Forwarded-For` until `SetTrustedProxies` is called. In `Use` replays would count"},
	{name: "gin-contrib/size", module: "github.com/gin-contrib/size", place: useEach, build: buildSize,
		note: "on a POST of a client that polls; frames of a WebSocket are bounded by `Config.MaxPayload`, which bounds POSTs too"},
	{name: "utrack/gin-csrf", module: "github.com/utrack/gin-csrf", place: useOnce, build: buildGinCSRF,
		note: noOrigin + ". With gin-contrib/sessions on Redis, `go.mod` needs `replace github.com/gomodule/redigo => github.com/gomodule/redigo v1.9.2`"},
	{name: "gorilla/csrf", module: "github.com/gorilla/csrf", place: useOnce,
		build: func(*testing.T, *adapter.Server) *fixture {
			return tokens(ginadapter.Wrap(csrf.Protect([]byte(key), csrf.Secure(false), csrf.Path("/"))), csrf.Token)
		},
		note: "through gwatts/gin-adapter; " + noOrigin},
	{name: "justinas/nosurf", module: "github.com/justinas/nosurf", place: useOnce,
		build: func(*testing.T, *adapter.Server) *fixture { return tokens(byHand(nosurf.NewPure), nosurf.Token) },
		note:  "wrapped by hand; " + noOrigin},
}

// key is 32 bytes that sign and encrypt.
const key = "0123456789abcdef0123456789abcdef"

// limit is how many requests of one client a limiter lets through here.
const limit = 3

func buildLimiter(t *testing.T, _ *adapter.Server) *fixture {
	l := limiter.New(memory.NewStore(), limiter.Rate{Period: time.Hour, Limit: limit})
	for range limit {
		if _, err := l.Get(context.Background(), "greedy"+enginePath); err != nil {
			t.Fatal(err)
		}
	}
	// Each route has its own count, so that one transport does not use up
	// another's.
	byClient := ginlimiter.WithKeyGetter(func(c *gin.Context) string { return c.GetHeader("X-Client") + c.Query("transport") + c.FullPath() })
	greedy := func(r *http.Request) { r.Header.Set("X-Client", "greedy") }
	return &fixture{
		mw:    []gin.HandlerFunc{ginlimiter.NewMiddleware(l, byClient)},
		dress: func(r *http.Request) { r.Header.Set("X-Client", "modest") },
		strangers: []func(*http.Request){func(r *http.Request) {
			greedy(r)
			// Whatever it asks for it has asked for before.
			for range limit {
				if _, err := l.Get(r.Context(), "greedy"+r.URL.Query().Get("transport")+r.URL.Path); err != nil {
					t.Error(err)
				}
			}
		}},
	}
}

func buildSize(*testing.T, *adapter.Server) *fixture {
	return &fixture{
		mw: []gin.HandlerFunc{limits.RequestSizeLimiter(1000)},
		also: func(t *testing.T, s *site) {
			sock := s.open(t, transports[2], "")
			a := sock.try("42[\"echo\",\"" + strings.Repeat("x", 1000) + "\"]")
			if a == nil || a.status != http.StatusRequestEntityTooLarge || a.body != "request too large" {
				t.Errorf("a POST over the limit was answered %+v, want 413", a)
			}
		},
	}
}

func buildGinCSRF(t *testing.T, srv *adapter.Server) *fixture {
	st := newRedis(t)
	f := &fixture{
		before: []gin.HandlerFunc{sessions.Sessions("sid", srv.Store(st))},
		mw: []gin.HandlerFunc{gincsrf.Middleware(gincsrf.Options{Secret: key, ErrorFunc: func(c *gin.Context) {
			c.AbortWithStatus(http.StatusBadRequest)
		}}), func(c *gin.Context) { c.Set("csrf", gincsrf.GetToken(c)) }},
		kept: st.saves,
	}
	return f.withToken()
}

// tokens is a middleware of net/http that hands out tokens.
func tokens(mw gin.HandlerFunc, token func(*http.Request) string) *fixture {
	f := &fixture{mw: []gin.HandlerFunc{mw, func(c *gin.Context) { c.Set("csrf", token(c.Request)) }}}
	return f.withToken()
}

// withToken has handlers look at the token of the handshake.
func (f *fixture) withToken() *fixture {
	f.look = func(_ context.Context, s *adapter.Socket) string {
		if token, _ := s.Get("csrf"); token == nil || token == "" {
			return "no token"
		}
		return "a token"
	}
	f.want = "a token"
	return f
}
