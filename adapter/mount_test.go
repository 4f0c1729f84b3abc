package adapter_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// bufferedWriter is what middlewares put in the place of c.Writer.
type bufferedWriter struct{ gin.ResponseWriter }

// TestSocketsOnEveryKindOfEngine opens a socket and sees it through a replay,
// which finds its route a second time, from the recorded request.
func TestSocketsOnEveryKindOfEngine(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	for _, tt := range []struct {
		name   string
		path   string
		tenant string
		set    func(*gin.Engine)
	}{
		{"plain", "/t/a" + ws, "a", func(*gin.Engine) {}},
		{"UseRawPath", "/t/a%2Fb" + ws, "a/b", func(e *gin.Engine) { e.UseRawPath = true }},
		{"UseRawPath without unescaping", "/t/a%2Fb" + ws, "a%2Fb", func(e *gin.Engine) { e.UseRawPath, e.UnescapePathValues = true, false }},
		{"UseEscapedPath", "/t/a%2Fb" + ws, "a/b", func(e *gin.Engine) { e.UseEscapedPath = true }},
		{"RemoveExtraSlash", "//t//a" + ws, "a", func(e *gin.Engine) { e.RemoveExtraSlash = true }},
		{"HandleMethodNotAllowed", "/t/a%20b" + ws, "a b", func(e *gin.Engine) { e.HandleMethodNotAllowed = true }},
		{"its own 404", "/t/a" + ws, "a", func(e *gin.Engine) { e.NoRoute(func(c *gin.Context) { c.String(http.StatusOK, "app") }) }},
		{"another writer", "/t/a" + ws, "a", func(e *gin.Engine) {
			e.Use(func(c *gin.Context) { c.Writer = &bufferedWriter{c.Writer} })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv, err := adapter.New(quick)
			if err != nil {
				t.Fatal(err)
			}
			var replays atomic.Int32
			srv.Use(func(c *gin.Context) {
				c.Writer = &bufferedWriter{c.Writer}
				c.Next()
				c.Next() // does nothing in Gin, and here
			})
			srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
				if got := c.Param("tenant"); got != tt.tenant || !c.IsWebsocket() {
					t.Errorf("tenant %q, WebSocket %v, want %q of a WebSocket", got, c.IsWebsocket(), tt.tenant)
				}
				if adapter.Replaying(c.Request.Context()) {
					replays.Add(1)
				}
				return &adapter.Identity{UserID: "alice", SessionID: "one"}, nil
			})
			e := gin.New()
			tt.set(e)
			srv.Mount(e, e.Group("/t/:tenant"))
			b := adaptertest.NewBrowser(t, adaptertest.Serve(t, e))
			c := b.Dial(tt.path)
			for replays.Load() == 0 {
				c.Call("nothing", nil)
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, b.URL+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := b.HTTP.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode >= 500 {
				t.Errorf("HEAD: %s", resp.Status)
			}
			if err := srv.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSecuritySidAtAnotherMount: a connection is polled where it was opened. What
// stands above the one route is not passed by at another one of the same server.
func TestSecuritySidAtAnotherMount(t *testing.T) {
	inside := func(c *gin.Context) {
		if c.GetHeader("X-Inside") == "" {
			c.AbortWithStatus(http.StatusForbidden)
		}
	}
	srv, err := adapter.New(adapter.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv.AllowAnonymous()
	r := gin.New()
	srv.Mount(r, r.Group("/inside", inside))
	srv.Mount(r, r.Group("/outside"))
	srv.Mount(r, r.Group("/of/:tenant"))
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, r))
	t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	header := http.Header{"X-Inside": {"yes"}}
	open := func(at string) (query string) {
		_, open, _ := engineDo(t, b, "GET", at+enginePath, "", header)
		return enginePath + "&sid=" + open[strings.Index(open, `:"`)+2:strings.Index(open, `",`)]
	}
	there, tenants := open("/inside"), open("/of/a")
	for _, tt := range []struct {
		path   string
		header http.Header
		status int
	}{
		{"/inside" + there, nil, http.StatusForbidden},
		{"/outside" + there, nil, http.StatusBadRequest},
		{"/outside" + there, header, http.StatusBadRequest},
		{"/inside" + there, header, http.StatusOK},
		{"/of/b" + tenants, nil, http.StatusBadRequest},
		{"/of/a" + tenants, nil, http.StatusOK},
	} {
		if status, body, _ := engineDo(t, b, "POST", tt.path, "40", tt.header); status != tt.status {
			t.Errorf("%s with %v: %d %s, want %d", tt.path, tt.header, status, body, tt.status)
		}
	}
}
