package auth

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"
	"go.uber.org/goleak"
	"golang.org/x/net/html"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
	"github.com/gin-usher/usher/app/auth/devoidc"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	goleak.VerifyTestMain(m)
}

// site is the routes of Auth on a real server, with people in memory and a
// session that is a bare cookie.
type site struct {
	*Auth
	url    *url.URL
	users  *people
	engine *gin.Engine

	mu        sync.Mutex
	loggedIn  []adapter.Identity
	loggedOut int
	loginErr  error // what Config.Login and Logout answer
}

// newSite starts a site whose providers are made once its address is known.
// configure may change the rest.
func newSite(t testing.TB, providers func(public *url.URL) []Provider, configure ...func(*Config)) *site {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	s := &site{
		url:   &url.URL{Scheme: "http", Host: server.Listener.Addr().String()},
		users: &people{byKey: make(map[[2]string]app.User)},
	}
	cfg := Config{
		PublicURL: s.url,
		Users:     s.users,
		Login:     s.login,
		Logout:    s.logout,
		Providers: providers(s.url),
		Logger:    slog.New(slog.DiscardHandler),
	}
	for _, f := range configure {
		f(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Auth = a
	r := gin.New()
	r.Use(renderErrors)
	r.GET("/login/:provider", a.Begin)
	r.GET("/login/:provider/callback", a.Callback)
	r.POST("/logout", a.Logout)
	r.NoRoute(func(c *gin.Context) { c.String(http.StatusOK, "page %s", c.Request.URL) })
	dev, err := devoidc.New(devoidc.Config{
		Issuer:      s.url.String() + "/dev/oidc",
		ClientID:    "usher",
		RedirectURI: s.url.String() + "/login/dev/callback",
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Any("/dev/oidc/*path", gin.WrapH(dev.Handler()))
	s.engine = r
	server.Config.Handler = r
	server.Start()
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		server.Close()
	})
	return s
}

// devProvider is the client of the site's own development provider.
func devProvider(t testing.TB) func(*url.URL) []Provider {
	return func(public *url.URL) []Provider {
		p, err := OIDC(OIDCConfig{Name: "dev", Label: "Development login", Issuer: public.String() + "/dev/oidc", PublicURL: public, ClientID: "usher"})
		if err != nil {
			t.Fatal(err)
		}
		return []Provider{p}
	}
}

func (s *site) login(c *gin.Context, id adapter.Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loginErr != nil {
		return s.loginErr
	}
	s.loggedIn = append(s.loggedIn, id)
	return nil
}

func (s *site) logout(*gin.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loggedOut++
	return s.loginErr
}

func (s *site) logins() []adapter.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loggedIn
}

// renderErrors stands in for package web: the last error, as JSON.
func renderErrors(c *gin.Context) {
	c.Next()
	last := c.Errors.Last()
	if last == nil {
		return
	}
	e, ok := errors.AsType[*app.Error](last.Err)
	if !ok || c.Writer.Written() {
		c.String(http.StatusTeapot, "no app.Error, or a body besides it: %v", last)
		return
	}
	c.JSON(statuses[e.Code], gin.H{"code": e.Code, "message": e.Message, "cause": e.Error()})
}

var statuses = map[app.Code]int{
	app.CodeInvalid: 400, app.CodeUnauthenticated: 401, app.CodeForbidden: 403,
	app.CodeNotFound: 404, app.CodeUnavailable: 503, app.CodeInternal: 500,
}

// people is app.Users in memory.
type people struct {
	mu       sync.Mutex
	byKey    map[[2]string]app.User
	profiles []app.Profile
	err      error
}

func (p *people) UpsertUser(_ context.Context, profile app.Profile) (app.User, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return app.User{}, p.err
	}
	p.profiles = append(p.profiles, profile)
	key := [2]string{profile.Provider, profile.Subject}
	u, ok := p.byKey[key]
	if !ok {
		u.ID = "u" + strconv.Itoa(len(p.byKey)+1)
	}
	u.Name, u.Avatar = profile.Name, profile.Avatar
	p.byKey[key] = u
	return u, nil
}

func (p *people) User(_ context.Context, id string) (app.User, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return app.User{}, p.err
	}
	for _, u := range p.byKey {
		if u.ID == id {
			return u, nil
		}
	}
	return app.User{}, app.Errorf(app.CodeNotFound, "no such person")
}

func (p *people) last(t testing.TB) app.Profile {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.profiles) == 0 {
		t.Fatal("nobody was logged in")
	}
	return p.profiles[len(p.profiles)-1]
}

// browser keeps cookies and does not follow redirects by itself.
type browser struct {
	t    testing.TB
	site *site
	http *http.Client
}

func (s *site) browser(t testing.TB) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, s, &http.Client{
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// answer is a response, read.
type answer struct {
	*http.Response
	body string
}

func (b *browser) do(r *http.Request) answer {
	b.t.Helper()
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{resp, string(body)}
}

// get fetches a path of the site, or a whole URL.
func (b *browser) get(to string) answer {
	b.t.Helper()
	r, err := http.NewRequest("GET", b.site.resolve(to), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(r)
}

func (b *browser) post(to string, form url.Values) answer {
	b.t.Helper()
	r, err := http.NewRequest("POST", b.site.resolve(to), strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

func (s *site) resolve(to string) string {
	if strings.HasPrefix(to, "/") {
		return s.url.String() + to
	}
	return to
}

// cookies are those that the browser would send to a path of the site.
func (b *browser) cookies(path string) []*http.Cookie {
	return b.http.Jar.Cookies(&url.URL{Scheme: b.site.url.Scheme, Host: b.site.url.Host, Path: path})
}

// begin starts a login and returns where it leads.
func (b *browser) begin(path string) *url.URL {
	b.t.Helper()
	return b.get(path).location(b.t)
}

// location is where a redirect leads.
func (a answer) location(t testing.TB) *url.URL {
	t.Helper()
	if a.StatusCode != http.StatusSeeOther {
		t.Fatalf("%s answered %s, want a redirect: %s", a.Request.URL, a.Status, a.body)
	}
	u, err := a.Location()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// refused checks that the answer is an error page with this code, and returns
// its message.
func (a answer) refused(t testing.TB, code app.Code) string {
	t.Helper()
	var e struct{ Code, Message, Cause string }
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("%s answered %s %q, want an error page", a.Request.URL, a.Status, a.body)
	}
	if e.Code != string(code) {
		t.Fatalf("%s refused with %q (%s), want %q", a.Request.URL, e.Code, e.Cause, code)
	}
	return e.Message
}

// form returns where the form of a page goes and what its hidden fields say.
func (a answer) form(t testing.TB) (action string, fields url.Values) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	fields = url.Values{}
	for n := range doc.Descendants() {
		attr := make(map[string]string)
		for _, at := range n.Attr {
			attr[at.Key] = at.Val
		}
		switch n.Data {
		case "form":
			action = attr["action"]
		case "input":
			if attr["type"] == "hidden" {
				fields.Set(attr["name"], attr["value"])
			}
		}
	}
	if action == "" {
		t.Fatalf("%s answered %s without a form: %s", a.Request.URL, a.Status, a.body)
	}
	return action, fields
}

// consent walks through the development provider's pages as a demo person and
// returns the URL of the callback, which has not been visited yet.
func (b *browser) consent(at *url.URL, person string) *url.URL {
	b.t.Helper()
	action, fields := b.get(at.String()).form(b.t)
	fields.Set("username", "")
	fields.Set("person", person)
	action, fields = b.post(action, fields).form(b.t)
	fields.Set("decision", "allow")
	return b.post(action, fields).location(b.t)
}

// freeAddress is an address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// recorder is a response that keeps its cookies.
type recorder struct{ *httptest.ResponseRecorder }

func newRecorder() recorder { return recorder{httptest.NewRecorder()} }

func (r recorder) cookies(t testing.TB) []*http.Cookie {
	t.Helper()
	cookies := r.Result().Cookies()
	if len(cookies) == 0 {
		t.Fatal("no cookie was set")
	}
	return cookies
}

func mustRequest(t testing.TB, to string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", to, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
