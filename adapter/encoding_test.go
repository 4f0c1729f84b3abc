package adapter_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A poller is a client that polls and decodes nothing by itself.
type poller struct {
	t   *testing.T
	b   *adaptertest.Browser
	sid string
}

func newPoller(t *testing.T, s *adaptertest.Site) *poller {
	t.Helper()
	b := s.NewBrowser(t, "")
	b.HTTP.Transport.(*http.Transport).DisableCompression = true
	return &poller{t, b, engineOpen(t, b)}
}

func (p *poller) poll(accept ...string) (body string, h http.Header) {
	p.t.Helper()
	status, body, h := engineDo(p.t, p.b, "GET", enginePath+"&sid="+p.sid, "", http.Header{"Accept-Encoding": accept})
	if status != http.StatusOK {
		p.t.Fatalf("poll: %d %s", status, body)
	}
	return body, h
}

func decode(t *testing.T, encoding, body string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(body)
	var err error
	switch encoding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "deflate":
		r, err = zlib.NewReader(r) // RFC 9110, section 8.4.1.2
	}
	if err != nil {
		t.Fatalf("%s: %v", encoding, err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", encoding, err)
	}
	return string(b)
}

func TestPollsAreEncodedAsAccepted(t *testing.T) {
	s := openSite(t, adapter.Config{Origins: []string{"https://chat.example"}}, nil)
	p := newPoller(t, s)
	long := strings.Repeat("compress me ", 1000)
	for _, tt := range []struct {
		accept []string
		want   string
	}{
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"gzip"}, "gzip"},
		{[]string{"GZIP"}, "gzip"},
		{[]string{"deflate"}, "deflate"},
		{[]string{"gzip, deflate, br, zstd"}, "gzip"}, // browsers
		{[]string{"deflate", "gzip"}, "gzip"},
		{[]string{"br"}, ""},
		{[]string{"*"}, "gzip"},
		{[]string{"gzip;q=0, *"}, "deflate"},
		{[]string{"gzip;q=0,*;q=0"}, ""},
		{[]string{"gzip;q=0.5, deflate;q=0.501"}, "deflate"},
		{[]string{"gzip ; Q=1.000 , deflate;q=1"}, "gzip"},
		{[]string{"gzip;q=0.000"}, ""},
		{[]string{"gzip;q=0.4, identity"}, ""},
		{[]string{"gzip;q=0.4, identity;q=0.4"}, "gzip"},
		{[]string{"identity;q=0, gzip;q=0.001"}, "gzip"},
		{[]string{"gzip;q=2, deflate;q=-1"}, ""},
		{[]string{"gzip;q=nan, deflate;level=9"}, ""},
		{[]string{",,;q=1,"}, ""},
	} {
		if err := s.Server.Emit("long", long); err != nil {
			t.Fatal(err)
		}
		body, h := p.poll(tt.accept...)
		if got := h.Get("Content-Encoding"); got != tt.want {
			t.Errorf("%q: Content-Encoding %q, want %q", tt.accept, got, tt.want)
			continue
		}
		if got, want := decode(t, tt.want, body), `42["long","`+long+`"]`; got != want {
			t.Errorf("%q: %.80s, want %.80s", tt.accept, got, want)
		}
		if tt.want != "" && len(body) > len(long)/10 {
			t.Errorf("%q: %d bytes became %d", tt.accept, len(long), len(body))
		}
		if vary := h.Values("Vary"); !slices.Equal(vary, []string{"Accept-Encoding"}) || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%q: Vary %q, Cache-Control %q", tt.accept, vary, h.Get("Cache-Control"))
		}
	}
	// Many packets in one answer, with bytes among them, and CORS beside it.
	for range 3 {
		if err := s.Server.Emit("bytes", bytes.Repeat([]byte{1}, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	_, body, h := engineDo(t, p.b, "GET", enginePath+"&sid="+p.sid, "", http.Header{"Accept-Encoding": {"gzip"}, "Origin": {"https://chat.example"}})
	one := `451-["bytes",{"_placeholder":true,"num":0}]` + "\x1eb" + strings.Repeat("AQEB", 333) + "AQ=="
	if got, want := decode(t, h.Get("Content-Encoding"), body), strings.Join([]string{one, one, one}, "\x1e"); got != want {
		t.Errorf("three binary events: %.200s, want %.200s", got, want)
	}
	if vary := h.Values("Vary"); !slices.Equal(vary, []string{"Origin", "Accept-Encoding"}) {
		t.Errorf("Vary %q, want Origin and Accept-Encoding", vary)
	}
}

func TestPollsThatAreNotEncoded(t *testing.T) {
	event := func(n int) string { return strings.Repeat("x", n-len(`42["long",""]`)) }
	for _, tt := range []struct {
		name string
		at   int // Config.CompressPolls
		emit func(*adapter.Server) error
		want string
	}{
		{"as long as the threshold", 0, func(s *adapter.Server) error { return s.Emit("long", event(1024)) }, "gzip"},
		{"a byte shorter", 0, func(s *adapter.Server) error { return s.Emit("long", event(1023)) }, ""},
		{"a threshold of one's own", 100, func(s *adapter.Server) error { return s.Emit("long", event(100)) }, "gzip"},
		{"below it", 100, func(s *adapter.Server) error { return s.Emit("long", event(99)) }, ""},
		{"never", -1, func(s *adapter.Server) error { return s.Emit("long", event(5000)) }, ""},
		{"Compress(false)", 0, func(s *adapter.Server) error { return s.Compress(false).Emit("long", event(5000)) }, ""},
		{"Compress(true)", 0, func(s *adapter.Server) error { return s.Compress(false).Compress(true).Emit("long", event(5000)) }, "gzip"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openSite(t, adapter.Config{CompressPolls: tt.at}, nil)
			p := newPoller(t, s)
			if err := tt.emit(s.Server); err != nil {
				t.Fatal(err)
			}
			body, h := p.poll("gzip")
			if got := h.Get("Content-Encoding"); got != tt.want || (h.Get("Vary") != "") != (tt.want != "") {
				t.Errorf("Content-Encoding %q, Vary %q, want %q", got, h.Get("Vary"), tt.want)
			}
			if got := decode(t, tt.want, body); !strings.HasPrefix(got, `42["long","xxx`) {
				t.Errorf("body %.80s", got)
			}
		})
	}
}

// What may not be compressed decides only for a poll that has nothing else.
func TestPollOfBothKinds(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	p := newPoller(t, s)
	op := s.Server.Compress(true)
	for _, o := range []adapter.Op{op.Compress(false), op} { // a step leaves the first Op as it is
		if err := o.Emit("long", strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if _, h := p.poll("gzip"); h.Get("Content-Encoding") != "gzip" {
		t.Errorf("Content-Encoding %q, want gzip", h.Get("Content-Encoding"))
	}
}

// gzipWriter is the usual middleware: the header first, then everything that
// is written goes through gzip.
type gzipWriter struct {
	gin.ResponseWriter
	w *gzip.Writer
}

func (g gzipWriter) Write(p []byte) (int, error) {
	g.Header().Del("Content-Length") // Gin sets that of the body as it was
	return g.w.Write(p)
}

func TestPollsBelowACompressingMiddleware(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	srv, err := adapter.New(quick)
	if err != nil {
		t.Fatal(err)
	}
	srv.AllowAnonymous()
	e := gin.New()
	e.Use(func(c *gin.Context) {
		c.Header("Content-Encoding", "gzip")
		c.Header("Vary", "accept-encoding, X-Other")
		g := gzipWriter{c.Writer, gzip.NewWriter(c.Writer)}
		c.Writer = g
		c.Next()
		_ = g.w.Close()
	})
	srv.Mount(e)
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, e)) // which decodes
	sid := engineOpen(t, b)
	if err := srv.Emit("long", strings.Repeat("x", 5000)); err != nil {
		t.Fatal(err)
	}
	_, body, h := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil)
	if !strings.HasPrefix(body, `42["long","xxx`) || h.Get("Vary") != "accept-encoding, X-Other" {
		t.Errorf("compressed %d bytes: %.40q, Vary %q", len(body), body, h.Get("Vary"))
	}
}
