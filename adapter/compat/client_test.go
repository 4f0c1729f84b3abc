package compat

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// Routes of a site.
const (
	pagePath   = "/page"
	plainPath  = "/socket.io/ws"
	enginePath = "/socket.io/"
)

// A browser is one client with its cookies.
type browser struct {
	t    testing.TB
	url  string
	http *http.Client
	// dress puts on a request what this client sends with each.
	dress func(*http.Request)
}

func newBrowser(t testing.TB, url string, dress func(*http.Request)) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t, url, &http.Client{
		Jar: jar, Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, dress}
}

// request makes a request as the browser sends it, without the jar's cookies.
func (b *browser) request(method, path, body string) *http.Request {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if body == "" {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	if b.dress != nil {
		b.dress(r)
	}
	return r
}

// An answer is what came back for a request.
type answer struct {
	status int
	body   string
	header http.Header
}

func (b *browser) send(r *http.Request) answer {
	b.t.Helper()
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	return answer{resp.StatusCode, string(body), resp.Header}
}

func (b *browser) get(path string) answer { return b.send(b.request(http.MethodGet, path, "")) }

func (b *browser) post(path, body string) answer {
	return b.send(b.request(http.MethodPost, path, body))
}

// A transport is one of the three ways in.
type transport struct {
	name string
	// statusOpen is the status of a handshake that is let through.
	statusOpen int
	// open connects to "/". A refusal is an answer: of HTTP, or with the status
	// 0 the connect_error of Socket.IO.
	open func(b *browser, query string) (*socket, *answer)
}

var transports = []transport{
	{"plain", http.StatusSwitchingProtocols, openPlain},
	{"websocket", http.StatusSwitchingProtocols, openWebSocket},
	{"polling", http.StatusOK, openPolling},
}

// A socket is one that was let in.
type socket struct {
	b         *browser
	handshake http.Header     // of the answer
	ws        *websocket.Conn // nil for one that polls
	plain     bool
	path      string      // of polls, and for an upgrade
	last      http.Header // of the last poll
}

// dial opens a WebSocket as the browser would.
func (b *browser) dial(path string) (*websocket.Conn, *answer) {
	b.t.Helper()
	r := b.request(http.MethodGet, path, "")
	header := maps.Clone(r.Header)
	if header == nil {
		header = make(http.Header)
	}
	header.Set("Accept-Encoding", "gzip, deflate, br") // as browsers do
	d := websocket.Dialer{Jar: b.http.Jar, HandshakeTimeout: patience}
	ws, resp, err := d.DialContext(b.t.Context(), "ws"+strings.TrimPrefix(r.URL.String(), "http"), header)
	if err != nil {
		if resp == nil {
			b.t.Fatalf("dial %s: %v", path, err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return nil, &answer{resp.StatusCode, string(body), resp.Header}
	}
	b.t.Cleanup(func() { _ = ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(10 * patience))
	return ws, &answer{resp.StatusCode, "", resp.Header}
}

func openPlain(b *browser, query string) (*socket, *answer) {
	b.t.Helper()
	ws, a := b.dial(plainPath + "?" + query)
	if ws == nil {
		return nil, a
	}
	s := &socket{b: b, handshake: a.header, ws: ws, plain: true}
	if first := s.next(); !strings.HasPrefix(first, `{"type":"connect"`) {
		b.t.Fatalf("the first frame is %q, want connect", first)
	}
	return s, a
}

func openWebSocket(b *browser, query string) (*socket, *answer) {
	b.t.Helper()
	ws, a := b.dial(enginePath + "?EIO=4&transport=websocket&" + query)
	if ws == nil {
		return nil, a
	}
	s := &socket{b: b, handshake: a.header, ws: ws}
	if first := s.next(); !strings.HasPrefix(first, `0{"sid":`) {
		b.t.Fatalf("the first frame is %q, want the handshake", first)
	}
	return s.connect(a)
}

func openPolling(b *browser, query string) (*socket, *answer) {
	b.t.Helper()
	a := b.get(enginePath + "?EIO=4&transport=polling&" + query)
	if a.status != http.StatusOK {
		return nil, &a
	}
	var open struct{ SID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(a.body, "0")), &open); err != nil || open.SID == "" {
		b.t.Fatalf("the first poll was answered %d %q, want the handshake", a.status, a.body)
	}
	s := &socket{b: b, handshake: a.header, path: enginePath + "?EIO=4&transport=polling&sid=" + open.SID}
	return s.connect(&a)
}

// connect asks for the namespace "/", as Socket.IO does after the handshake.
func (s *socket) connect(a *answer) (*socket, *answer) {
	s.b.t.Helper()
	if refused := s.try("40"); refused != nil {
		return nil, refused
	}
	first, refused := s.tryNext()
	switch {
	case refused != nil:
		return nil, refused
	case strings.HasPrefix(first, "44"):
		return nil, &answer{body: strings.TrimPrefix(first, "44"), header: a.header}
	case !strings.HasPrefix(first, `40{"sid":`):
		s.b.t.Fatalf("CONNECT was answered %q", first)
	}
	return s, a
}

// upgrade moves a socket that polls to a WebSocket and returns the answer's
// headers.
func (s *socket) upgrade() http.Header {
	s.b.t.Helper()
	ws, a := s.b.dial(strings.Replace(s.path, "polling", "websocket", 1))
	if ws == nil {
		s.b.t.Fatalf("the upgrade was refused: %d %s", a.status, a.body)
	}
	s.ws = ws
	s.write("2probe")
	if got := s.next(); got != "3probe" {
		s.b.t.Fatalf("the probe was answered %q", got)
	}
	s.write("5")
	return a.header
}

// try sends a packet, and returns the answer of HTTP if it was refused.
func (s *socket) try(text string) *answer {
	s.b.t.Helper()
	if s.ws == nil {
		if a := s.b.post(s.path, text); a.status != http.StatusOK || a.body != "ok" {
			return &a
		}
		return nil
	}
	if err := s.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		s.b.t.Fatalf("send %q: %v", text, err)
	}
	return nil
}

// tryNext returns the very next thing that the server says.
func (s *socket) tryNext() (string, *answer) {
	s.b.t.Helper()
	if s.ws == nil {
		a := s.b.get(s.path)
		s.last = a.header
		if a.status != http.StatusOK {
			return "", &a
		}
		return a.body, nil
	}
	_, data, err := s.ws.ReadMessage()
	if err != nil {
		s.b.t.Fatalf("read: %v", err)
	}
	return string(data), nil
}

func (s *socket) write(text string) {
	s.b.t.Helper()
	if a := s.try(text); a != nil {
		s.b.t.Fatalf("a POST of %q was answered %d %q", text, a.status, a.body)
	}
}

func (s *socket) next() string {
	s.b.t.Helper()
	text, a := s.tryNext()
	if a != nil {
		s.b.t.Fatalf("a poll was answered %d %q", a.status, a.body)
	}
	return text
}

// mustAsk sends an event and returns what its handler answered. What comes next
// must be that answer and nothing else.
func (s *socket) mustAsk(event, in string) string {
	s.b.t.Helper()
	out, a := s.ask(event, in)
	if a != nil {
		s.b.t.Fatalf("%s: a request of a client that polls was answered %d %q", event, a.status, a.body)
	}
	return out
}

// ask is mustAsk for what HTTP may refuse.
func (s *socket) ask(event, in string) (out string, refused *answer) {
	s.b.t.Helper()
	arg, err := json.Marshal(in)
	if err != nil {
		s.b.t.Fatal(err)
	}
	packet, head, tail := fmt.Sprintf(`420[%q,%s]`, event, arg), `430[`, `]`
	if s.plain {
		packet, head, tail = fmt.Sprintf(`{"type":%q,"data":%s,"id":1}`, event, arg), `{"type":"reply","id":1,"data":`, `}`
	}
	if refused = s.try(packet); refused != nil {
		return "", refused
	}
	got, refused := s.tryNext()
	if refused != nil {
		return "", refused
	}
	data, is := strings.CutPrefix(got, head)
	data, ends := strings.CutSuffix(data, tail)
	var text string
	if !is || !ends || json.Unmarshal([]byte(data), &text) != nil {
		return got, nil
	}
	return text, nil
}

// echoes checks that nothing stands between the client and the handlers.
func (s *socket) echoes() {
	s.b.t.Helper()
	for _, text := range []string{"one", "two"} {
		if got := s.mustAsk("echo", text); got != text {
			s.b.t.Errorf("the echo of %q is %q", text, got)
		}
	}
}

// names returns what the headers of an answer are called that somebody has set
// on purpose. Of a cookie it is the cookie's name.
func names(h http.Header) (all []string) {
	for name, values := range h {
		switch name {
		case "Date", "Content-Length", "Content-Type", "Connection", "Upgrade", "Sec-Websocket-Accept", "Cache-Control":
			continue
		case "Set-Cookie":
			for _, c := range (&http.Response{Header: h}).Cookies() {
				all = append(all, "cookie "+c.Name)
			}
		default:
			if !slices.Equal(slices.Compact(slices.Clone(values)), values) {
				name += " twice"
			}
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
