package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
	"github.com/gin-usher/usher/app/auth"
	"github.com/gin-usher/usher/app/chat"
)

var ada = app.User{ID: "u1", Name: "Ada", Avatar: "https://avatars.example/ada.png"}

// world is everything around the site, faked. A test changes what it needs
// before serve.
type world struct {
	public string
	user   *app.User // who the chain finds
	refuse *adapter.Error
	status int // of refuse

	rooms    []app.Room
	messages []app.Message
	chatErr  error
	health   error

	static fstest.MapFS // nil: the real files
	dev    http.Handler
	tokens gin.HandlerFunc

	mu     sync.Mutex
	posted []app.Draft
	post   error
	panics bool

	session    string // the handle of the request's
	signedIn   map[string][]adapter.SessionInfo
	revoked    []string
	devicesErr error // of the database
	partial    error // beside the devices: a server did not answer

	log bytes.Buffer
}

var (
	_ Sockets = (*adapter.Server)(nil)
	_ Devices = (*adapter.Server)(nil)
	_ Login   = (*auth.Auth)(nil)
	_ Chat    = (*chat.Service)(nil)
	_ Live    = (*chat.Live)(nil)
)

func (w *world) Mount(e *gin.Engine, _ ...*gin.RouterGroup) {
	e.GET("/socket.io/ws", func(c *gin.Context) { c.String(http.StatusUpgradeRequired, "socket") })
}

func (w *world) HTTP() gin.HandlersChain {
	return gin.HandlersChain{func(c *gin.Context) {
		switch {
		case w.refuse != nil:
			Refuse(c, w.status, w.refuse)
		case w.user != nil:
			c.Set("user", *w.user)
		}
	}}
}

func (w *world) User(ctx context.Context) (app.User, bool) {
	u, ok := ctx.Value("user").(app.User)
	return u, ok
}

func (w *world) Providers() []auth.ProviderInfo {
	return []auth.ProviderInfo{
		{Name: "github", Label: "GitHub", URL: "/login/github"},
		{Name: "dev", Label: "Demo ID", URL: "/login/dev"},
	}
}
func (w *world) Begin(c *gin.Context) {
	if c.Param("provider") != "dev" {
		fail(c, app.Errorf(app.CodeNotFound, "There is no such way to log in here."))
		return
	}
	c.Redirect(http.StatusSeeOther, "/begun")
}
func (w *world) Callback(c *gin.Context) {
	fail(c, app.Errorf(app.CodeInvalid, "This login took too long."))
}
func (w *world) Logout(c *gin.Context) { c.Redirect(http.StatusSeeOther, "/") }

func (w *world) Rooms(context.Context) ([]app.Room, error) { return w.rooms, w.chatErr }

func (w *world) Open(_ context.Context, name string) (app.Room, []app.Message, error) {
	if w.panics {
		panic("a bug")
	}
	if w.chatErr != nil {
		return app.Room{}, nil, w.chatErr
	}
	for _, r := range w.rooms {
		if r.Name == name {
			return r, w.messages, nil
		}
	}
	return app.Room{}, nil, app.Errorf(app.CodeNotFound, "There is no room %q.", name)
}

func (w *world) History(_ context.Context, _ string, before int64) ([]app.Message, error) {
	var earlier []app.Message
	for _, m := range w.messages {
		if m.ID < before {
			earlier = append(earlier, m)
		}
	}
	return earlier, w.chatErr
}

func (w *world) Members(context.Context, string) ([]app.User, error) {
	return []app.User{{ID: "u2", Name: "Grace"}}, nil
}

func (w *world) Post(_ context.Context, u app.User, d app.Draft) (app.Message, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.post != nil {
		return app.Message{}, w.post
	}
	w.posted = append(w.posted, d)
	return app.Message{ID: 1, Text: d.Text, User: u}, nil
}

// newWorld has one room with two messages, and nobody signed in.
func newWorld() *world {
	at := time.Date(2026, 3, 1, 14, 5, 0, 0, time.UTC)
	return &world{
		public: "http://localhost:3000",
		rooms:  []app.Room{{Name: "lobby", Title: "Lobby"}},
		messages: []app.Message{
			{ID: 7, Room: "lobby", Text: "hello", At: at, User: ada},
			{ID: 9, Room: "lobby", Text: "anybody?", At: at.Add(time.Minute), User: ada},
		},
	}
}

// site builds the site around w.
func (w *world) site(t testing.TB) http.Handler {
	t.Helper()
	public, err := url.Parse(w.public)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		PublicURL: public,
		Sockets:   w,
		Login:     w,
		Chat:      w,
		Live:      w,
		Devices:   w,
		User:      w.User,
		Session:   func(context.Context) string { return w.session },
		Health:    func(context.Context) error { return w.health },
		Dev:       w.dev,

		TokenLogin: w.tokens,

		Templates: os.DirFS("../../templates"),
		Static:    os.DirFS("../../static"),
		Logger:    slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	if w.static != nil {
		cfg.Static = w.static
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return h
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

// request makes a request by the public host; header holds pairs.
func (w *world) request(t testing.TB, method, target, form string, header ...string) answer {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(form))
	r.Host = strings.SplitN(w.public, "://", 2)[1]
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.site(t).ServeHTTP(rec, r)
	res := rec.Result()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(body)}
}

func (w *world) get(t testing.TB, target string, header ...string) answer {
	t.Helper()
	return w.request(t, http.MethodGet, target, "", header...)
}

// want fails unless the answer has the status and holds every part.
func (a answer) want(t testing.TB, status int, parts ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("status %d, want %d\n%s", a.StatusCode, status, a.body)
	}
	for _, part := range parts {
		if !strings.Contains(a.body, part) {
			t.Errorf("the answer lacks %q:\n%s", part, a.body)
		}
	}
}

func (a answer) lacks(t testing.TB, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(a.body, part) {
			t.Errorf("the answer has %q:\n%s", part, a.body)
		}
	}
}

func TestHome(t *testing.T) {
	w := newWorld()
	a := w.get(t, "/")
	a.want(t, 200, `href="/room/lobby"`, "Lobby", `href="/login"`)
	a.lacks(t, `id="logout"`)

	w.user = &ada
	a = w.get(t, "/")
	a.want(t, 200, `<bdi class="name">Ada</bdi>`, `src="https://avatars.example/ada.png"`, `<form id="logout" method="post" action="/logout">`)
	a.lacks(t, `href="/login"`)
}

func TestLoginPage(t *testing.T) {
	tests := []struct{ name, next, want string }{
		{"plain", "", `href="/login/github"`},
		{"back to a room", "/room/lobby", `href="/login/github?next=%2Froom%2Flobby"`},
		{"back to the devices", "/devices", `href="/login/github?next=%2Fdevices"`},
		{"below the devices", "/devices/sign-out", `href="/login/github"`},
		{"other site", "//evil.example", `href="/login/github"`},
		{"backslashes", `/\evil.example`, `href="/login/github"`},
		{"scheme", "javascript:alert(1)", `href="/login/github"`},
		{"past the room", "/room/lobby/../../login", `href="/login/github"`},
		{"newline", "/room/lobby\n//evil", `href="/login/github"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			a := w.get(t, "/login?next="+url.QueryEscape(tt.next))
			a.want(t, 200, tt.want, "Continue with GitHub", "Continue with Demo ID")
			a.lacks(t, "evil", "javascript")

			// A person who is signed in may go on as they are, to a safe place.
			w.user = &ada
			a = w.get(t, "/login?next="+url.QueryEscape(tt.next))
			a.want(t, 200, "Go on as")
			a.lacks(t, "evil", "javascript")
		})
	}
}

func TestLoginRoutes(t *testing.T) {
	w := newWorld()
	if a := w.get(t, "/login/dev"); a.StatusCode != 303 {
		t.Errorf("begin: status %d, want 303", a.StatusCode)
	}
	w.get(t, "/login/nobody").want(t, 404, "There is no such way to log in here.")
	w.get(t, "/login/dev/callback?code=SECRET&state=SECRET").want(t, 400, "This login took too long.")
	if strings.Contains(w.log.String(), "SECRET") {
		t.Errorf("the log has the query:\n%s", w.log.String())
	}
}

func TestRoom(t *testing.T) {
	w := newWorld()
	w.user = &ada
	a := w.get(t, "/room/lobby")
	a.want(t, 200,
		"<title>Lobby · Usher</title>",
		`data-id="7"`, `<p class="text" dir="auto">hello</p>`,
		`<time datetime="2026-03-01T14:05:00Z">14:05 UTC</time>`,
		`class="message follows mine" data-id="9"`,
		`<bdi class="name">Grace</bdi>`,
		`<form id="composer" method="post" action="/room/lobby">`,
		`data-me="u1"`, `id="status"`, `id="ended"`, `id="text"`, `id="send"`,
	)
	if got := a.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", got)
	}
	w.get(t, "/room/attic").want(t, 404, `There is no room &#34;attic&#34;.`)
}

func TestRoomAnonymousIsSentToLogin(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		a := newWorld().request(t, method, "/room/lobby?x=1", "")
		if got := a.Header.Get("Location"); a.StatusCode != 303 || got != "/login?next=%2Froom%2Flobby" {
			t.Errorf("%s: %d to %q, want 303 to the login page", method, a.StatusCode, got)
		}
		a.lacks(t, "hello")
	}
}

func TestRoomPast(t *testing.T) {
	w := newWorld()
	w.user = &ada
	a := w.get(t, "/room/lobby?before=9")
	a.want(t, 200, `data-id="7"`, `href="/room/lobby"`)
	a.lacks(t, `data-id="9"`, `id="composer"`)
	w.get(t, "/room/lobby?before=x").want(t, 400)

	// A full page offers the page before it.
	w.messages = nil
	for i := range app.Latest {
		w.messages = append(w.messages, app.Message{ID: int64(100 + i), Room: "lobby", User: ada})
	}
	w.get(t, "/room/lobby").want(t, 200, `href="?before=100"`)
}

// What people write must reach the page as text, wherever it stands.
func TestRoomEscapesWhatPeopleWrite(t *testing.T) {
	const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>'`
	w := newWorld()
	w.user = &app.User{ID: `u"1`, Name: hostile, Avatar: "javascript:alert(1)"}
	w.rooms = []app.Room{{Name: "lobby", Title: hostile}}
	w.messages = []app.Message{{ID: 1, Text: hostile, User: *w.user}}
	for _, target := range []string{"/", "/login", "/room/lobby", "/devices", "/nowhere"} {
		a := w.get(t, target)
		a.lacks(t, "<script>", "<img src=x", `src="javascript:`, `href="javascript:`, `data-me="u"1`)
		a.want(t, a.StatusCode, "&lt;script&gt;")
	}
}

func TestPostWithoutJavaScript(t *testing.T) {
	w := newWorld()
	w.user = &ada
	a := w.request(t, http.MethodPost, "/room/lobby", "text=one%0D%0Atwo&nonce=n1")
	if got := a.Header.Get("Location"); a.StatusCode != 303 || got != "/room/lobby" {
		t.Errorf("%d to %q, want 303 to /room/lobby", a.StatusCode, got)
	}
	want := app.Draft{Room: "lobby", Text: "one\ntwo", UserID: "u1", Nonce: "n1"}
	if len(w.posted) != 1 || w.posted[0] != want {
		t.Errorf("posted %+v, want %+v", w.posted, want)
	}

	// Refused: the form comes back with what was written, and the same nonce.
	w.post = app.Errorf(app.CodeInvalid, "Write something first.")
	w.request(t, http.MethodPost, "/room/lobby", "text=+&nonce=n2").want(t, 400, "Write something first.", `value="n2"`)

	// Even when nothing else can be shown.
	w.post = app.Errorf(app.CodeUnavailable, "The database does not answer.")
	w.chatErr = w.post
	w.request(t, http.MethodPost, "/room/lobby", "text=precious&nonce=n3").
		want(t, 503, ">precious</textarea>", "The database does not answer.", `value="n3"`)

	w.request(t, http.MethodPost, "/room/lobby", "text="+strings.Repeat("a", maxForm+1)).want(t, 400, "too long")
}

func TestMe(t *testing.T) {
	w := newWorld()
	a := w.get(t, "/me", "Accept", "text/html")
	a.want(t, 401)
	var e struct{ Code, Message string }
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Code != "unauthenticated" || e.Message == "" {
		t.Errorf("anonymous: %s (%v), want code and message", a.body, err)
	}

	w.user = &ada
	a = w.get(t, "/me")
	a.want(t, 200)
	if want := `{"id":"u1","name":"Ada","avatar":"https://avatars.example/ada.png"}`; a.body != want {
		t.Errorf("/me = %s, want %s", a.body, want)
	}
	if got := a.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", got)
	}
}

func TestLogoutIsPostAndSameOrigin(t *testing.T) {
	w := newWorld()
	w.user = &ada
	if a := w.get(t, "/logout"); a.StatusCode != 404 {
		t.Errorf("GET: status %d, want 404", a.StatusCode)
	}
	tests := []struct {
		name   string
		header []string
		want   int
	}{
		{"own form", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://localhost:3000"}, 303},
		{"not a browser", nil, 303},
		{"older browser, own form", []string{"Origin", "http://localhost:3000"}, 303},
		{"behind a proxy that changes Host", []string{"Origin", "http://localhost:3000", "Host", "backend"}, 303},
		{"another site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"a neighbour's subdomain", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://x.localhost:3000"}, 403},
		{"older browser, another site", []string{"Origin", "https://evil.example"}, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := w.request(t, http.MethodPost, "/logout", "x=1", tt.header...)
			a.want(t, tt.want)
		})
	}
}

func TestHealthz(t *testing.T) {
	w := newWorld()
	a := w.get(t, "/healthz")
	a.want(t, 200)
	if a.body != `{"status":"ok"}` {
		t.Errorf("body %s", a.body)
	}
	w.health = errors.New("disk on fire")
	a = w.get(t, "/healthz")
	a.want(t, 503, `"code":"unavailable"`)
	a.lacks(t, "fire")
	if !strings.Contains(w.log.String(), "disk on fire") {
		t.Errorf("the log lacks the cause:\n%s", w.log.String())
	}
	if a := w.request(t, http.MethodHead, "/healthz", ""); a.StatusCode != 503 {
		t.Errorf("HEAD: status %d, want 503", a.StatusCode)
	}
}

// With the session store down nobody can say who asks: not "signed out" (P24).
func TestRefusedByTheChain(t *testing.T) {
	tests := []struct {
		name   string
		status int
		want   int
		text   string
	}{
		{"store down", 503, 503, "the database does not answer"},
		{"timeout", 504, 503, "please try again"},
		{"not allowed", 403, 403, "for members only"},
		{"not logged in", 401, 401, "for members only"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.refuse, w.status = &adapter.Error{Code: "refused", Message: "for members only"}, tt.status
			for _, target := range []string{"/", "/room/lobby", "/login", "/nowhere"} {
				a := w.get(t, target)
				a.want(t, tt.want, "<!doctype html>", tt.text)
				a.lacks(t, "hello")
				if retry := a.Header.Get("Retry-After"); (retry != "") != (tt.want == 503) {
					t.Errorf("Retry-After = %q with status %d", retry, tt.want)
				}
			}
			w.get(t, "/me").want(t, tt.want, `"message":`, tt.text)
			// What needs no identity is still served.
			w.get(t, "/healthz").want(t, 200)
			w.get(t, "/static/style.css").want(t, 200)
		})
	}
}

func TestErrors(t *testing.T) {
	internal := "Something went wrong on our side."
	tests := []struct {
		name   string
		err    error
		status int
		text   string
	}{
		{"invalid", app.Errorf(app.CodeInvalid, "too short"), 400, "too short"},
		{"unauthenticated", app.Errorf(app.CodeUnauthenticated, "who?"), 401, "who?"},
		{"forbidden", app.Errorf(app.CodeForbidden, "no"), 403, "no"},
		{"not found", app.Errorf(app.CodeNotFound, "gone"), 404, "gone"},
		{"too fast", app.Errorf(chat.CodeTooFast, "slow down"), 429, "slow down"},
		{"unavailable", &app.Error{Code: app.CodeUnavailable, Message: "later", Err: errors.New("secret cause")}, 503, "later"},
		{"internal", &app.Error{Code: app.CodeInternal, Message: "our fault", Err: errors.New("secret cause")}, 500, "our fault"},
		{"unknown code", &app.Error{Code: "teapot", Message: "secret cause"}, 500, internal},
		{"any error", errors.New("secret cause"), 500, internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.user, w.chatErr = &ada, tt.err
			a := w.get(t, "/")
			a.want(t, tt.status, tt.text, "<!doctype html>", `<bdi class="name">Ada</bdi>`)
			a.lacks(t, "secret cause")
			a = w.get(t, "/", "Accept", "application/json")
			a.want(t, tt.status, tt.text, `"code":`)
			a.lacks(t, "secret cause", "<html")
			if logged := strings.Contains(w.log.String(), "request failed"); logged != (tt.status >= 500) {
				t.Errorf("cause in the log: %t, with status %d\n%s", logged, tt.status, w.log.String())
			}
		})
	}
}

func TestPanicIsAPage(t *testing.T) {
	w := newWorld()
	w.user, w.panics = &ada, true
	a := w.get(t, "/room/lobby")
	a.want(t, 500, "<!doctype html>", "Something broke", `<bdi class="name">Ada</bdi>`)
	a.lacks(t, "a bug", "goroutine")
	if !strings.Contains(w.log.String(), "a bug") || !strings.Contains(w.log.String(), "web_test.go") {
		t.Errorf("the log lacks the panic or its stack:\n%s", w.log.String())
	}
}

func TestSecurityHeaders(t *testing.T) {
	w := newWorld()
	for _, target := range []string{"/", "/room/attic", "/me", "/static/style.css", "/nowhere"} {
		h := w.get(t, target).Header
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'", "connect-src 'self' ws://localhost:3000"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: CSP %q lacks %q", target, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%s: CSP %q", target, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: headers %v", target, h)
		}
		if h.Get("Strict-Transport-Security") != "" {
			t.Errorf("%s: HSTS over http", target)
		}
	}
	w.public = "https://chat.example.org"
	h := w.get(t, "/").Header
	if h.Get("Strict-Transport-Security") == "" || !strings.Contains(h.Get("Content-Security-Policy"), "wss://chat.example.org") {
		t.Errorf("https: headers %v", h)
	}
}

// The policy forbids what the pages must then not have.
func TestPagesHaveNothingInline(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(>| [^>]*>[^<])`)
	w := newWorld()
	w.user = &ada
	for _, target := range []string{"/", "/login", "/room/lobby", "/nowhere"} {
		if found := inline.FindString(w.get(t, target).body); found != "" {
			t.Errorf("%s has %q", target, found)
		}
	}
}

func TestPublicHost(t *testing.T) {
	tests := []struct{ name, public, host, want string }{
		{"itself", "http://localhost:3000", "localhost:3000", ""},
		{"by address", "http://localhost:3000", "127.0.0.1:3000", "http://localhost:3000/login?next=%2Froom%2Flobby"},
		{"by IPv6 address", "http://localhost:3000", "[::1]:3000", "http://localhost:3000/login?next=%2Froom%2Flobby"},
		{"a proxy's name", "http://localhost:3000", "backend:3000", ""},
		{"health check of a public site", "https://chat.example.org", "127.0.0.1:3000", ""},
		{"forged", "https://chat.example.org", "evil.example", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.public = tt.public
			a := w.get(t, "/login?next=%2Froom%2Flobby", "Host", tt.host)
			if got := a.Header.Get("Location"); got != tt.want {
				t.Errorf("Location = %q, want %q", got, tt.want)
			}
			a.lacks(t, "evil")
		})
	}
}

func TestStatic(t *testing.T) {
	w := newWorld()
	w.static = fstest.MapFS{
		"style.css":   {Data: []byte("body{}")},
		"chat.js":     {Data: []byte("export{}")},
		"favicon.svg": {Data: []byte("<svg/>")},
		"favicon.ico": {Data: []byte("icon")},
	}
	href := regexp.MustCompile(`/static/style\.css\?v=[\w-]+`).FindString(w.get(t, "/").body)
	if href == "" {
		t.Fatal("the page names no style sheet")
	}
	a := w.get(t, href)
	a.want(t, 200, "body{}")
	if got := a.Header.Get("Cache-Control"); !strings.Contains(got, "immutable") {
		t.Errorf("by hash: Cache-Control = %q, want immutable", got)
	}
	if got := a.Header.Get("Content-Type"); got != "text/css; charset=utf-8" {
		t.Errorf("Content-Type = %q", got)
	}

	// Any other address must be asked for again, and is a 304 while unchanged.
	for _, target := range []string{"/static/style.css", "/static/style.css?v=old"} {
		plain := w.get(t, target)
		if got := plain.Header.Get("Cache-Control"); got != "no-cache" {
			t.Errorf("%s: Cache-Control = %q, want no-cache", target, got)
		}
		again := w.get(t, target, "If-None-Match", plain.Header.Get("ETag"))
		if again.StatusCode != 304 || again.body != "" {
			t.Errorf("%s again: %d %q, want 304", target, again.StatusCode, again.body)
		}
	}
	w.get(t, "/favicon.ico").want(t, 200, "icon")
	w.get(t, "/static/").want(t, 404)
	w.get(t, "/static/../server.go").want(t, 404)

	w.static["style.css"] = &fstest.MapFile{Data: []byte("body{color:red}")}
	if changed := w.get(t, "/").body; strings.Contains(changed, href) {
		t.Error("the address stays the same though the file has changed")
	}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"trusted proxy", func(c *Config) { c.TrustedProxies = []string{"nonsense"} }, "trusted proxies"},
		{"file type", func(c *Config) { c.Static = fstest.MapFS{"a.exe": {}} }, "a.exe"},
		{"no layout", func(c *Config) { c.Templates = fstest.MapFS{} }, "layout.html"},
		{"template", func(c *Config) {
			c.Templates = fstest.MapFS{"layout.html": {Data: []byte("x")}, "home.html": {Data: []byte("{{")}}
		}, "home.html"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			cfg := Config{
				PublicURL: &url.URL{Scheme: "http", Host: "localhost"},
				Sockets:   w, Login: w, Chat: w, Live: w, User: w.User,
				Templates: os.DirFS("../../templates"), Static: os.DirFS("../../static"),
				Logger: slog.New(slog.DiscardHandler),
			}
			tt.change(&cfg)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: %v, want an error about %s", err, tt.want)
			}
		})
	}
}

// An address is believed from a trusted proxy only (P30).
func TestForwardedForIsNotBelieved(t *testing.T) {
	w := newWorld()
	w.get(t, "/", "X-Forwarded-For", "203.0.113.9")
	if strings.Contains(w.log.String(), "203.0.113.9") {
		t.Errorf("the log believes X-Forwarded-For:\n%s", w.log.String())
	}
}

func TestSocketsAndDevelopmentProviderAreMounted(t *testing.T) {
	w := newWorld()
	w.get(t, "/socket.io/ws").want(t, http.StatusUpgradeRequired, "socket")
	w.get(t, DevPath+"/authorize").want(t, 404)
	w.dev = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, "dev "+r.URL.Path) })
	w.get(t, DevPath+"/authorize").want(t, 200, "dev /dev/oidc/authorize")
}

func TestAPI(t *testing.T) {
	w := newWorld()
	w.get(t, "/api/self").want(t, 401, `"code":"unauthenticated"`)
	w.get(t, "/api/nothing", "Accept", "text/html").want(t, 404, `"code":"not_found"`)
	w.request(t, "POST", "/api/login", "").want(t, 404, `"code":"not_found"`)
	w.user = &ada
	a := w.get(t, "/api/self", "Accept", "text/html")
	a.want(t, 200, `"id":"u1"`, `"name":"Ada"`)
	if got := a.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", got)
	}

	w.tokens = func(c *gin.Context) { c.String(http.StatusOK, "a token") }
	for header, status := range map[[2]string]int{
		{"Host", "localhost:3000"}:           200,
		{"Host", "127.0.0.1:3000"}:           200,
		{"Host", "[::1]:3000"}:               200,
		{"Host", "rebound.example:3000"}:     403, // to this machine's address, by its owner
		{"Host", "localhost.evil.example"}:   403,
		{"Origin", "http://localhost:3000"}:  200,
		{"Origin", "https://evil.example"}:   403,
		{"Origin", "null"}:                   403,
		{"Sec-Fetch-Site", "cross-site"}:     403,
		{"Content-Type", "application/json"}: 200,
	} {
		a := w.request(t, "POST", "/api/login", "", header[0], header[1])
		a.want(t, status)
		if status == 403 {
			a.want(t, status, `"code":"forbidden"`)
		}
	}
	w.get(t, "/api/login").want(t, 404, `"code":"not_found"`)
}

func TestInitial(t *testing.T) {
	for name, want := range map[string]string{"ada": "A", "  élodie": "É", "": "?", "   ": "?", "\xff": "?", "🦊": "🦊"} {
		if got := initial(name); got != want {
			t.Errorf("initial(%q) = %q, want %q", name, got, want)
		}
	}
}
