// Package adaptertest is for the tests of apps that use package adapter: a
// browser with a cookie jar that opens pages and sockets, and a suite that a
// session store passes if logins and logouts are safe on it.
package adaptertest

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// Serve runs h until the test ends and returns its URL.
func Serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// A Browser is one person's: pages and sockets share its cookies.
type Browser struct {
	t    testing.TB
	URL  string // of the site
	HTTP *http.Client
}

// NewBrowser returns a browser without cookies at the site.
func NewBrowser(t testing.TB, site string) *Browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &Browser{t: t, URL: site, HTTP: &http.Client{Jar: jar, Transport: transport, Timeout: patience}}
}

// Clone returns a browser with the same cookies as b has now: what a thief or
// a backup would have.
func (b *Browser) Clone() *Browser {
	b.t.Helper()
	c := NewBrowser(b.t, b.URL)
	c.HTTP.Jar.SetCookies(c.site(), b.Cookies())
	return c
}

func (b *Browser) site() *url.URL {
	u, err := url.Parse(b.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

// Cookies returns what the browser would send to the site.
func (b *Browser) Cookies() []*http.Cookie { return b.HTTP.Jar.Cookies(b.site()) }

// Get opens a page and returns its status and body.
func (b *Browser) Get(path string) (status int, body string) {
	b.t.Helper()
	return b.do(http.MethodGet, path, nil)
}

// Post sends a form and returns the status and body of the answer.
func (b *Browser) Post(path string, form url.Values) (status int, body string) {
	b.t.Helper()
	return b.do(http.MethodPost, path, form)
}

func (b *Browser) do(method, path string, form url.Values) (int, string) {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.HTTP.Do(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(got)
}

// Dial opens a plain JSON WebSocket with the browser's cookies and waits for
// the connect frame. path is usually "/socket.io/ws".
func (b *Browser) Dial(path string) *Conn {
	b.t.Helper()
	c, resp, err := b.TryDial(path, nil)
	if err != nil {
		if resp != nil {
			body, _ := io.ReadAll(resp.Body)
			b.t.Fatalf("dial %s: %v: %s: %s", path, err, resp.Status, body)
		}
		b.t.Fatalf("dial %s: %v", path, err)
	}
	f := c.Next()
	if f.Type != "connect" {
		b.t.Fatalf("first frame of %s: %s, want connect", path, f)
	}
	c.greeted(f)
	return c
}

// TryDial is Dial for sockets that may be refused; it does not wait for the
// connect frame. After a refusal resp holds the answer.
func (b *Browser) TryDial(path string, header http.Header) (c *Conn, resp *http.Response, err error) {
	b.t.Helper()
	d := websocket.Dialer{Jar: b.HTTP.Jar, HandshakeTimeout: patience}
	ws, resp, err := d.DialContext(b.t.Context(), "ws"+strings.TrimPrefix(b.URL, "http")+path, header)
	if err != nil {
		return nil, resp, err
	}
	c = &Conn{inbox: newInbox(b.t), ws: ws}
	var wg sync.WaitGroup
	wg.Go(c.read)
	b.t.Cleanup(func() {
		_ = ws.Close()
		wg.Wait()
	})
	return c, resp, nil
}
