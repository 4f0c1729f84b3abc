package compat

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/gin-contrib/cors"
	"github.com/gin-contrib/requestid"
	"github.com/gin-contrib/secure"
	"github.com/gin-gonic/gin"
	ginadapter "github.com/gwatts/gin-adapter"
	rscors "github.com/rs/cors"
	unrolled "github.com/unrolled/secure"

	"github.com/gin-usher/usher/adapter"
)

var heading = []row{
	{name: "gin-contrib/cors", module: "github.com/gin-contrib/cors", place: useEach,
		build: func(t *testing.T, _ *adapter.Server) *fixture {
			return crossOrigin(cors.New(cors.Config{AllowOrigins: []string{origin}, AllowCredentials: true, AllowMethods: []string{"GET", "POST"}}))
		},
		note: "not needed for sockets: `Config.Origins` lets their pages read polls. What it says and what the adapter says is never there twice"},
	{name: "rs/cors", module: "github.com/rs/cors", place: useEach,
		build: func(t *testing.T, _ *adapter.Server) *fixture {
			f := crossOrigin(ginadapter.Wrap(rscors.New(rscors.Options{AllowedOrigins: []string{origin}, AllowCredentials: true}).Handler))
			f.strangers = nil // it refuses nobody; Config.Origins does
			return f
		},
		note: "through gwatts/gin-adapter. It rejects no request; `Config.Origins` does, and is not switched off by it"},
	{name: "gin-contrib/secure", module: "github.com/gin-contrib/secure", place: useEach, build: func(*testing.T, *adapter.Server) *fixture {
		return overTLS(secure.New(secure.DefaultConfig()))
	}, note: "`SSLRedirect` answers with redirects, which no WebSocket client follows: they become 401 with the reason. Behind a proxy set `SSLProxyHeaders`"},
	{name: "unrolled/secure", module: "github.com/unrolled/secure", place: useEach, build: func(*testing.T, *adapter.Server) *fixture {
		s := unrolled.New(unrolled.Options{
			SSLRedirect: true, SSLProxyHeaders: map[string]string{"X-Forwarded-Proto": "https"}, STSSeconds: 3600,
			FrameDeny: true, ContentTypeNosniff: true, ContentSecurityPolicy: "default-src 'self'",
		})
		return overTLS(byHand(s.Handler))
	}, note: "wrapped by hand. As above"},
	{name: "gin-contrib/requestid", module: "github.com/gin-contrib/requestid", place: useEach,
		build: func(*testing.T, *adapter.Server) *fixture {
			return &fixture{
				mw:    []gin.HandlerFunc{requestid.New()},
				dress: func(r *http.Request) { r.Header.Set("X-Request-ID", "request-1") },
				look: func(_ context.Context, s *adapter.Socket) string {
					return s.Handshake().Header().Get("X-Request-ID")
				},
				want: "request-1",
			}
		},
		note: "handlers find the handshake's id in `s.Handshake().Header()`"},
}

// crossOrigin is a middleware of CORS that allows origin.
func crossOrigin(mw gin.HandlerFunc) *fixture {
	return &fixture{
		mw:        []gin.HandlerFunc{mw},
		dress:     func(r *http.Request) { r.Header.Set("Origin", origin) },
		strangers: []func(*http.Request){func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }},
		also: func(t *testing.T, s *site) {
			b := s.person(t)
			r := b.request(http.MethodOptions, enginePath+"?EIO=4&transport=polling", "")
			r.Header.Set("Access-Control-Request-Method", "POST")
			a := b.send(r)
			if a.status != http.StatusNoContent || !slices.Equal(a.header["Access-Control-Allow-Origin"], []string{origin}) {
				t.Errorf("what a browser asks before a POST was answered %d %v", a.status, a.header)
			}
		},
	}
}

// overTLS is a middleware that redirects to HTTPS who does not come over it.
func overTLS(mw gin.HandlerFunc) *fixture {
	return &fixture{
		mw:        []gin.HandlerFunc{mw},
		dress:     func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") },
		strangers: []func(*http.Request){func(*http.Request) {}},
	}
}

// byHand makes a middleware of net/http one of Gin, as people write it.
func byHand(mw func(http.Handler) http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		passed := false
		mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			passed = true
			c.Request = r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort()
		}
	}
}
