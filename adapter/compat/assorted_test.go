package compat

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gin-contrib/i18n"
	"github.com/gin-contrib/location/v2"
	"github.com/gin-contrib/static"
	"github.com/gin-gonic/gin"
	ginadapter "github.com/gwatts/gin-adapter"
	"golang.org/x/text/language"

	"github.com/gin-usher/usher/adapter"
)

var assorted = []row{
	{name: "gin.Recovery", place: useEach, build: buildRecovery,
		note: "the adapter recovers by itself, in the chain and in handlers; a panic in the chain is 500 or 503, and in a replay *unknown*"},
	{name: "gin-contrib/location", module: "github.com/gin-contrib/location/v2", place: useOnce,
		build: func(*testing.T, *adapter.Server) *fixture {
			return &fixture{
				mw: []gin.HandlerFunc{location.Default()},
				dress: func(r *http.Request) {
					r.Header.Set("X-Forwarded-Proto", "https")
					r.Header.Set("X-Forwarded-Host", "chat.example")
				},
				look: func(_ context.Context, s *adapter.Socket) string {
					v, _ := s.Get("location")
					u, _ := v.(*url.URL)
					return u.String()
				},
				want: "https://chat.example",
			}
		},
		note: "handlers read it with `s.Get(\"location\")`"},
	{name: "gin-contrib/i18n", module: "github.com/gin-contrib/i18n", place: useOnce, build: buildI18n,
		note: "its functions want a `*gin.Context`, which handlers have not: keep the language or the texts with `c.Set` in a middleware behind it"},
	{name: "gin-contrib/static", module: "github.com/gin-contrib/static", place: useEach, build: buildStatic,
		note: "it looks for a file before every poll. On pages, or above the route, it does no harm either"},
	{name: "net/http, through gwatts/gin-adapter", module: "github.com/gwatts/gin-adapter", place: useOnce,
		build: func(*testing.T, *adapter.Server) *fixture { return tenant(ginadapter.Wrap(tenancy)) },
		note:  "what it puts into the request's context is there for the rest of the chain; what handlers need is kept with `c.Set`"},
	{name: "net/http, wrapped by hand", place: useOnce,
		build: func(*testing.T, *adapter.Server) *fixture { return tenant(byHand(tenancy)) },
		note:  "as above. The wrapper must abort when the middleware does not call on"},
}

func buildRecovery(*testing.T, *adapter.Server) *fixture {
	return &fixture{
		mw: []gin.HandlerFunc{gin.RecoveryWithWriter(nil), func(c *gin.Context) {
			if c.GetHeader("X-Panic") != "" {
				panic("broken")
			}
		}},
		strangers: []func(*http.Request){func(r *http.Request) { r.Header.Set("X-Panic", "yes") }},
	}
}

func buildI18n(t *testing.T, _ *adapter.Server) *fixture {
	texts := map[string]string{"localize/en.yaml": "hello: hello\n", "localize/de.yaml": "hello: hallo\n"}
	return &fixture{
		mw: []gin.HandlerFunc{i18n.Localize(i18n.WithBundle(&i18n.BundleCfg{
			RootPath:         "localize",
			AcceptLanguage:   []language.Tag{language.English, language.German},
			DefaultLanguage:  language.English,
			FormatBundleFile: "yaml",
			UnmarshalFunc:    yamlLine,
			Loader:           i18n.LoaderFunc(func(path string) ([]byte, error) { return []byte(texts[path]), nil }),
		})), func(c *gin.Context) { c.Set("greeting", i18n.MustGetMessage(c, "hello")) }},
		dress: func(r *http.Request) { r.Header.Set("Accept-Language", "de") },
		look: func(_ context.Context, s *adapter.Socket) string {
			v, _ := s.Get("greeting")
			text, _ := v.(string)
			return text
		},
		want: "hallo",
	}
}

// yamlLine reads the one line that a text of these tests has.
func yamlLine(data []byte, v any) error {
	key, value, _ := strings.Cut(strings.TrimSpace(string(data)), ": ")
	*v.(*any) = map[string]any{key: value}
	return nil
}

func buildStatic(t *testing.T, _ *adapter.Server) *fixture {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file.txt"), []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &fixture{mw: []gin.HandlerFunc{static.Serve("/", static.LocalFile(dir, false))}}
}

type tenantKey struct{}

// tenancy is what a middleware of net/http may do: it refuses, puts something
// into the context and into the answer, and goes on after the handler.
func tenancy(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get("X-Tenant")
		if name == "" {
			http.Error(w, "no tenant", http.StatusForbidden)
			return
		}
		w.Header().Set("X-Tenant", name)
		http.SetCookie(w, &http.Cookie{Name: "tenant", Value: name, Path: "/"})
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), tenantKey{}, name)))
		_, _ = w.Write(nil)
	})
}

func tenant(mw gin.HandlerFunc) *fixture {
	return &fixture{
		mw: []gin.HandlerFunc{mw, func(c *gin.Context) {
			c.Set("tenant", c.Request.Context().Value(tenantKey{}))
		}},
		dress:     func(r *http.Request) { r.Header.Set("X-Tenant", "acme") },
		strangers: []func(*http.Request){func(*http.Request) {}},
		look: func(_ context.Context, s *adapter.Socket) string {
			v, _ := s.Get("tenant")
			name, _ := v.(string)
			return name
		},
		want: "acme",
	}
}
