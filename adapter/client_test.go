package adapter_test

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// bundle has what a folder dist has, and what does not belong there.
var bundle = fstest.MapFS{
	"socket.io.js":             {Data: []byte("var io;")},
	"socket.io.js.map":         {Data: []byte(`{"version":3}`)},
	"socket.io.esm.min.js":     {Data: []byte("export {};")},
	"socket.io.txt":            {Data: []byte("a text")},
	"socket.io:id.js":          {Data: []byte("a parameter of the route")},
	"server.js":                {Data: []byte("a secret")},
	"socket.io.d.js/inner.js":  {Data: []byte("in a folder")},
	"more/socket.io.js":        {Data: []byte("another one")},
	"socket.io.js.map.private": {Data: []byte("a secret")},
}

func nothing(*adapter.Server) gin.HandlersChain { return nil }

// clientSite serves client behind a chain that must not run.
func clientSite(t *testing.T, client fs.FS, group string, above func(*adapter.Server) gin.HandlersChain) *adaptertest.Browser {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	cfg := quick
	cfg.Client = client
	srv, err := adapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv.Use(func(c *gin.Context) {
		t.Errorf("the chain ran for %s", c.Request.URL)
		http.SetCookie(c.Writer, &http.Cookie{Name: "sid", Value: "new"})
		c.AbortWithStatus(http.StatusUnauthorized)
	})
	srv.Identify(func(*gin.Context) (*adapter.Identity, error) { return nil, nil })
	e := gin.New()
	e.Use(above(srv)...)
	srv.Mount(e, e.Group(group))
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return adaptertest.NewBrowser(t, adaptertest.Serve(t, e))
}

func fetch(t *testing.T, b *adaptertest.Browser, method, path string, header http.Header) (*http.Response, string) {
	t.Helper()
	return send(t, b, method, path, "", header)
}

func TestClientIsServed(t *testing.T) {
	for _, group := range []string{"", "/app"} {
		b := clientSite(t, bundle, group, (*adapter.Server).HTTP)
		etags := map[string]bool{}
		for name, kind := range map[string]string{
			"socket.io.js":         "text/javascript; charset=utf-8",
			"socket.io.js.map":     "application/json",
			"socket.io.esm.min.js": "text/javascript; charset=utf-8",
		} {
			path := group + "/socket.io/" + name
			resp, body := fetch(t, b, "GET", path+"?v=1", nil)
			if want := string(bundle[name].Data); resp.StatusCode != http.StatusOK || body != want {
				t.Fatalf("GET %s: %s %q, want %q", path, resp.Status, body, want)
			}
			for k, want := range map[string]string{
				"Content-Type": kind, "X-Content-Type-Options": "nosniff", "Cache-Control": "public, no-cache", "Set-Cookie": "",
			} {
				if got := resp.Header.Get(k); got != want {
					t.Errorf("%s: %s %q, want %q", path, k, got, want)
				}
			}
			etag := resp.Header.Get("ETag")
			if etags[etag] || !strings.HasPrefix(etag, `"`) {
				t.Errorf("%s: ETag %s is weak, or another file's too", path, etag)
			}
			etags[etag] = true

			head, body := fetch(t, b, "HEAD", path, nil)
			if head.StatusCode != http.StatusOK || body != "" || head.Header.Get("ETag") != etag || head.ContentLength != int64(len(bundle[name].Data)) {
				t.Errorf("HEAD %s: %s, %d bytes, %v", path, head.Status, head.ContentLength, head.Header)
			}
			for given, want := range map[string]int{
				etag:                    http.StatusNotModified,
				"W/" + etag:             http.StatusNotModified,
				`"old", ` + etag:        http.StatusNotModified,
				"*":                     http.StatusNotModified,
				`"old"`:                 http.StatusOK,
				strings.Trim(etag, `"`): http.StatusOK,
			} {
				resp, body := fetch(t, b, "GET", path, http.Header{"If-None-Match": {given}})
				if resp.StatusCode != want || (body == "") != (want == http.StatusNotModified) || resp.Header.Get("ETag") != etag {
					t.Errorf("%s with If-None-Match %s: %s %q, want %d", path, given, resp.Status, body, want)
				}
			}
		}
	}
}

func TestNothingElseOfTheClientsFilesIsServed(t *testing.T) {
	b := clientSite(t, bundle, "/app", nothing)
	for _, path := range []string{
		"server.js", "socket.io.txt", "socket.io:id.js", "socket.io%3Aid.js", "socket.io.d.js", "socket.io.d.js/inner.js",
		"more/socket.io.js", "socket.io.js.map.private", "x/../server.js", "%2e%2e/server.js", "socket.io.min.js",
	} {
		if resp, body := fetch(t, b, "GET", "/app/socket.io/"+path, nil); resp.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s %q, want 404", path, resp.Status, body)
		}
	}
	if resp, _ := fetch(t, b, "POST", "/app/socket.io/socket.io.js", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("POST: %s", resp.Status)
	}
}

func TestClientWithoutItsEntryIsRefused(t *testing.T) {
	for name, client := range map[string]fs.FS{
		"expected socket.io.js at the root": fstest.MapFS{"dist/socket.io.js": {}, "socket.io.min.js": {}},
		"no such file":                      os.DirFS(filepath.Join(t.TempDir(), "missing")),
	} {
		if _, err := adapter.New(adapter.Config{Client: client}); err == nil || !strings.Contains(err.Error(), "config: Client: ") || !strings.Contains(err.Error(), name) {
			t.Errorf("New: %v, want %q", err, name)
		}
	}
}

func TestClientOfNPM(t *testing.T) {
	dist := filepath.Join("testdata", "node", "node_modules", "socket.io-client", "dist")
	want, err := os.ReadFile(filepath.Join(dist, "socket.io.min.js"))
	if err != nil {
		if os.Getenv("USHER_TEST") == "full" {
			t.Fatal(err)
		}
		t.Skip("needs npm install in adapter/testdata/node")
	}
	b := clientSite(t, os.DirFS(dist), "", nothing)
	for _, name := range []string{"socket.io.js", "socket.io.js.map", "socket.io.esm.min.js", "socket.io.msgpack.min.js"} {
		if resp, body := fetch(t, b, "GET", "/socket.io/"+name, nil); resp.StatusCode != http.StatusOK || body == "" {
			t.Errorf("GET %s: %s, %d bytes", name, resp.Status, len(body))
		}
	}
	if _, got := fetch(t, b, "GET", "/socket.io/socket.io.min.js", nil); sha256.Sum256([]byte(got)) != sha256.Sum256(want) {
		t.Errorf("socket.io.min.js came as %d bytes, want the file's %d", len(got), len(want))
	}
}
