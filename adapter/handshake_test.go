package adapter_test

import (
	"crypto/tls"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestHandshakeIsReadBack sends requests through a recorded handshake: each is
// either refused, or comes back as it was.
func TestHandshakeIsReadBack(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		wrong  string // in the refusal
	}{
		{"as it comes", func(*http.Request) {}, ""},
		{"obs-text", func(r *http.Request) { r.Header.Set("X-Name", "Zo\xeb \xff") }, ""},
		{"tab", func(r *http.Request) { r.Header.Set("X-Name", "a\tb") }, ""},
		{"empty values", func(r *http.Request) { r.Header["X-Empty"] = []string{"", ""} }, ""},
		{"no host", func(r *http.Request) { r.Host = "" }, ""},
		{"TLS", func(r *http.Request) { r.TLS = &tls.ConnectionState{ServerName: "chat.example"} }, ""},
		{"absolute form", func(r *http.Request) { r.URL.Scheme, r.URL.Host = "http", "chat.example" }, ""},
		{"two slashes", func(r *http.Request) { r.URL.Path = "//evil.example/socket.io/ws" }, ""},
		{"escaped path", func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a/b c/ws", "/a%2Fb%20c/ws" }, ""},
		{"space in the path", func(r *http.Request) { r.URL.Path = "/a b/ws" }, ""},
		{"hash in the query", func(r *http.Request) { r.URL.RawQuery = "a=#b&c=%zz;d" }, ""},
		{"a body", func(r *http.Request) {
			r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
			r.Header["Content-Length"], r.Header["transfer-encoding"] = []string{"x"}, []string{"chunked"}
		}, ""},
		{"HTTP/2", func(r *http.Request) {
			r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
			r.Header.Set("Te", "trailers")
		}, ""},
		{"line break in a value", func(r *http.Request) { r.Header.Set("X-Name", "a\r\nX-Admin: yes") }, "X-Name"},
		{"bare line feed", func(r *http.Request) { r.Header.Set("X-Name", "a\nX-Admin: yes") }, "X-Name"},
		{"NUL", func(r *http.Request) { r.Header.Set("X-Name", "a\x00") }, "X-Name"},
		{"line break in a name", func(r *http.Request) { r.Header["X\r\nX-Admin"] = []string{"yes"} }, "X-Admin"},
		{"space in a name", func(r *http.Request) { r.Header["X Y"] = []string{"yes"} }, "X Y"},
		{"line break in the host", func(r *http.Request) { r.Host = "a\r\nX-Admin: yes" }, "Host"},
		{"line break in the query", func(r *http.Request) { r.URL.RawQuery = "a HTTP/1.1\r\nX-Admin: yes" }, "request line"},
		{"space in the query", func(r *http.Request) { r.URL.RawQuery = "a b" }, "request line"},
		{"no path", func(r *http.Request) { r.URL = &url.URL{Opaque: "chat"} }, "request line"},
		{"100 kB of cookies", func(r *http.Request) { r.Header.Set("Cookie", "a="+strings.Repeat("x", 100_000)) }, "bytes of headers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/socket.io/ws?room=1", nil)
			r.Header.Set("Cookie", `sid=1; theme="dark"`)
			tt.change(r)
			got, err := adapter.RequestAgain(r, nil)
			if tt.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("error %v, want one that names %q", err, tt.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := r.Header.Clone()
			maps.DeleteFunc(want, func(k string, _ []string) bool {
				return strings.EqualFold(k, "Transfer-Encoding") || k == "Content-Length"
			})
			if !maps.EqualFunc(got.Header, want, slices.Equal) {
				t.Errorf("headers %q, want %q", got.Header, want)
			}
			if got.URL.Path != r.URL.Path || got.URL.EscapedPath() != r.URL.EscapedPath() || got.URL.RawQuery != r.URL.RawQuery ||
				got.Host != r.Host || got.RemoteAddr != r.RemoteAddr || got.TLS != r.TLS || got.Method != r.Method {
				t.Errorf("%s %s %s of %s, want %s %s %s of %s", got.Method, got.Host, got.URL, got.RemoteAddr, r.Method, r.Host, r.URL, r.RemoteAddr)
			}
		})
	}
}

func TestHandshakeCookiesFollowTheAnswer(t *testing.T) {
	for _, tt := range []struct{ name, set, want string }{
		{"new", "b=2", "sid=1; sidecar=x; b=2"},
		{"replaced", "sid=2; Path=/", "sidecar=x; sid=2"},
		{"name that is a prefix", "side=2", "sid=1; sidecar=x; side=2"},
		{"quoted", `sid="a b"; Path=/`, `sidecar=x; sid="a b"`},
		{"removed by Max-Age", "sid=; Max-Age=0", "sidecar=x"},
		{"removed by Expires", "sid=gone; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "sidecar=x"},
		{"expired, but Max-Age counts", "sid=2; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "sidecar=x; sid=2"},
		{"path above", "sid=2; Path=/socket.io", "sidecar=x; sid=2"},
		{"path above, with a slash", "sid=2; Path=/socket.io/", "sidecar=x; sid=2"},
		{"another path", "sid=2; Path=/admin", "sid=1; sidecar=x"},
		{"path that is a prefix of a word", "sid=2; Path=/socket", "sid=1; sidecar=x"},
		{"parent domain", "sid=2; Domain=.Example.com", "sidecar=x; sid=2"},
		{"another domain", "sid=2; Domain=evil.example", "sid=1; sidecar=x"},
		{"domain that is a suffix of a word", "sid=2; Domain=ample.com", "sid=1; sidecar=x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/socket.io/ws", nil)
			r.Host = "chat.example.com:8080"
			r.Header.Set("Cookie", "sid=1; sidecar=x")
			got, err := adapter.RequestAgain(r, http.Header{"Set-Cookie": {tt.set}})
			if err != nil {
				t.Fatal(err)
			}
			if c := got.Header.Get("Cookie"); c != tt.want {
				t.Errorf("Cookie %q, want %q", c, tt.want)
			}
		})
	}
}

func TestHandshakeThatCannotBeKeptIsRefused(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Engine.Use(func(c *gin.Context) {
			if name := c.Query("name"); name != "" {
				c.Request.Header.Set("X-Name", name)
			}
		})
	})
	alice := s.NewBrowser(t, "alice")
	_, resp, err := alice.TryDial(ws+"?name="+url.QueryEscape("a\r\nX-Admin: yes"), nil)
	if err == nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a header with a line break: %v, want 400", err)
	}
	_, resp, err = alice.TryDial(ws, http.Header{"X-Big": {strings.Repeat("x", 100_000)}})
	if err == nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("100 kB of headers: %v, want 400", err)
	}
	if _, _, err := alice.TryDial(ws+"?name=alice", http.Header{"X-Latin": {"Zo\xeb"}}); err != nil {
		t.Error(err)
	}
}
