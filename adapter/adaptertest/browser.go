// Package adaptertest is for the tests of apps that use package adapter: a
// browser with a cookie jar that opens pages and sockets, and a suite that a
// session store passes if logins and logouts are safe on it.
package adaptertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
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
	if f := c.Next(); f.Type != "connect" {
		b.t.Fatalf("first frame of %s: %s, want connect", path, f)
	}
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
	c = &Conn{t: b.t, ws: ws, news: make(chan struct{}, 1), ended: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(c.read)
	b.t.Cleanup(func() {
		_ = ws.Close()
		wg.Wait()
	})
	return c, resp, nil
}

// A Frame is one message from the server.
type Frame struct {
	Type  string          `json:"type"`
	ID    json.RawMessage `json:"id"` // a number or a string
	Data  json.RawMessage `json:"data"`
	Event string          `json:"event"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	raw string
}

func (f Frame) String() string { return f.raw }

// A Conn is a plain JSON WebSocket. Its methods fail the test when what they
// wait for does not come, and print what did.
type Conn struct {
	t     testing.TB
	ws    *websocket.Conn
	news  chan struct{} // something was added to frames
	ended chan struct{}
	err   error // after ended

	mu     sync.Mutex
	frames []Frame
	ids    int64

	writing sync.Mutex // one writer at a time
}

func (c *Conn) read() {
	defer close(c.ended)
	for {
		_, b, err := c.ws.ReadMessage()
		if err != nil {
			c.err = err
			return
		}
		f := Frame{raw: string(b)}
		if err := json.Unmarshal(b, &f); err != nil {
			c.err = fmt.Errorf("frame %q: %w", b, err)
			return
		}
		c.mu.Lock()
		c.frames = append(c.frames, f)
		c.mu.Unlock()
		select {
		case c.news <- struct{}{}:
		default:
		}
	}
}

// take removes the first frame that is wanted, if there is one.
func (c *Conn) take(want func(Frame) bool) (f Frame, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.frames, want)
	if i < 0 {
		return f, false
	}
	f = c.frames[i]
	c.frames = slices.Delete(c.frames, i, i+1)
	return f, true
}

// Raw sends one text message as it is.
func (c *Conn) Raw(text string) {
	c.t.Helper()
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatalf("send %q: %v", text, err)
	}
}

// Emit sends an event that wants no answer.
func (c *Conn) Emit(event string, data any) {
	c.t.Helper()
	c.Raw(c.encode(event, data, 0))
}

// Call sends an event and waits for its reply; other frames stay.
func (c *Conn) Call(event string, data any) Frame {
	c.t.Helper()
	c.mu.Lock()
	c.ids++
	id := c.ids
	c.mu.Unlock()
	c.Raw(c.encode(event, data, id))
	return c.wait(fmt.Sprintf("the reply to %q", event), func(f Frame) bool { return f.Type == "reply" && string(f.ID) == strconv.FormatInt(id, 10) })
}

// Must is Call for what must succeed; the reply's data is stored in out unless
// it is nil.
func (c *Conn) Must(event string, data, out any) {
	c.t.Helper()
	f := c.Call(event, data)
	if f.Error != nil {
		c.t.Fatalf("%s: %s", event, f)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(f.Data, out); err != nil {
		c.t.Fatalf("%s: %s: %v", event, f, err)
	}
}

func (c *Conn) encode(event string, data any, id int64) string {
	c.t.Helper()
	m := map[string]any{"type": event}
	if data != nil {
		m["data"] = data
	}
	if id != 0 {
		m["id"] = id
	}
	b, err := json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// Next waits for the next frame, of whatever kind.
func (c *Conn) Next() Frame {
	c.t.Helper()
	return c.wait("a frame", func(Frame) bool { return true })
}

// Event waits for an event of the given name; other frames stay.
func (c *Conn) Event(event string) Frame {
	c.t.Helper()
	return c.wait(fmt.Sprintf("event %q", event), func(f Frame) bool { return f.Type == event })
}

func (c *Conn) wait(what string, want func(Frame) bool) Frame {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for ended := false; ; {
		if f, ok := c.take(want); ok {
			return f
		}
		if ended {
			c.t.Fatalf("waiting for %s: the socket ended: %v; before came %v", what, c.err, c.Rest())
		}
		select {
		case <-c.news:
		case <-c.ended:
			ended = true // once more for what came before
		case <-ctx.Done():
			c.t.Fatalf("waiting for %s: nothing in %v but %v", what, patience, c.Rest())
		}
	}
}

// Closed waits until the server closes the socket and returns the close code,
// 1006 if there was no close frame.
func (c *Conn) Closed() int {
	c.t.Helper()
	select {
	case <-c.ended:
		if e, ok := errors.AsType[*websocket.CloseError](c.err); ok {
			return e.Code
		}
	case <-time.After(patience):
		c.t.Fatalf("the socket is still open after %v", patience)
	}
	return websocket.CloseAbnormalClosure
}

// Close ends the connection without a close frame.
func (c *Conn) Close() { _ = c.ws.Close() }

// Rest returns the frames that have come and that nobody has waited for. After
// Closed it is all that came before the end.
func (c *Conn) Rest() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := c.frames
	c.frames = nil
	return rest
}
