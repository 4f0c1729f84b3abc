package auth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/memstore"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
)

func TestLogin(t *testing.T) {
	s := newSite(t, devProvider(t))
	b := s.browser(t)
	at := b.begin("/login/dev?next=/room/lobby%3Fbefore=7")
	q := at.Query()
	if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 {
		t.Errorf("no S256 challenge in %s", at)
	}
	if len(q.Get("state")) < 26 || len(q.Get("nonce")) < 26 { // 5 bits a character
		t.Errorf("state %q or nonce %q is shorter than 128 bits", q.Get("state"), q.Get("nonce"))
	}
	if want := s.url.String() + "/login/dev/callback"; q.Get("redirect_uri") != want {
		t.Errorf("redirect_uri = %q, want %q", q.Get("redirect_uri"), want)
	}

	done := b.get(b.consent(at, "alice").String())
	if to := done.Header.Get("Location"); done.StatusCode != http.StatusSeeOther || to != "/room/lobby?before=7" {
		t.Fatalf("callback answered %s to %q: %s", done.Status, to, done.body)
	}
	profile := s.users.last(t)
	if profile.Provider != "dev" || profile.Subject == "" || profile.Name != "Alice" || profile.Avatar != "/dev/oidc/avatar/alice.svg" {
		t.Errorf("profile = %+v", profile)
	}
	want := adapter.Identity{UserID: "u1", Provider: "dev", User: app.User{ID: "u1", Name: "Alice", Avatar: "/dev/oidc/avatar/alice.svg"}}
	if got := s.logins(); len(got) != 1 || got[0].UserID != want.UserID || got[0].Provider != want.Provider || got[0].User != want.User {
		t.Errorf("Login got %+v, want %+v", got, want)
	}
	if left := b.cookies("/login/dev/callback"); len(left) != 0 {
		t.Errorf("cookies left after the login: %v", left)
	}
	for _, h := range []string{done.Header.Get("Cache-Control"), b.get("/login/dev").Header.Get("Cache-Control")} {
		if h != "no-store" {
			t.Errorf("Cache-Control = %q, want no-store", h)
		}
	}
}

func TestSamePersonComesBack(t *testing.T) {
	s := newSite(t, devProvider(t))
	for _, person := range []string{"alice", "bob", "alice"} {
		b := s.browser(t)
		b.get(b.consent(b.begin("/login/dev"), person).String()).location(t)
	}
	got := s.logins()
	if len(got) != 3 || got[0].UserID != got[2].UserID || got[0].UserID == got[1].UserID {
		t.Errorf("logins of alice, bob and alice are %+v", got)
	}
}

func TestLoginCancelled(t *testing.T) {
	s := newSite(t, devProvider(t))
	b := s.browser(t)
	action, fields := b.get(b.begin("/login/dev").String()).form(t)
	fields.Set("decision", "deny")
	msg := b.get(b.post(action, fields).location(t).String()).refused(t, app.CodeForbidden)
	if !strings.Contains(msg, "cancelled") {
		t.Errorf("message %q does not say what happened", msg)
	}
	if len(s.logins()) != 0 {
		t.Error("somebody was logged in")
	}
}

// A state that is not exactly the one of this browser's attempt is refused,
// before the provider is asked anything.
func TestStateRefused(t *testing.T) {
	s := newSite(t, devProvider(t))
	other := s.browser(t)
	foreign := other.begin("/login/dev").Query().Get("state")
	for name, change := range map[string]func(q url.Values){
		"missing":             func(q url.Values) { q.Del("state") },
		"empty":               func(q url.Values) { q.Set("state", "") },
		"wrong":               func(q url.Values) { q.Set("state", "AAAAAAAAAAAAAAAAAAAAAAAAAA") },
		"prefix":              func(q url.Values) { q.Set("state", q.Get("state")[:25]) },
		"longer":              func(q url.Values) { q.Set("state", q.Get("state")+"A") },
		"other case":          func(q url.Values) { q.Set("state", strings.ToLower(q.Get("state"))) },
		"of another browser":  func(q url.Values) { q.Set("state", foreign) },
		"twice":               func(q url.Values) { q.Add("state", q.Get("state")) },
		"wrong, with error":   func(q url.Values) { q.Set("state", foreign); q.Set("error", "access_denied") },
		"missing, with error": func(q url.Values) { q.Del("state"); q.Set("error", "server_error") },
	} {
		t.Run(name, func(t *testing.T) {
			b := s.browser(t)
			callback := b.consent(b.begin("/login/dev"), "alice")
			good := callback.String()
			q := callback.Query()
			change(q)
			callback.RawQuery = q.Encode()
			b.get(callback.String()).refused(t, app.CodeInvalid)
			if len(s.logins()) != 0 {
				t.Fatal("somebody was logged in")
			}
			// A guess costs the attempt nothing.
			b.get(good).location(t)
			s.loggedIn = nil
		})
	}
}

func TestStateWithoutCookieRefused(t *testing.T) {
	s := newSite(t, devProvider(t))
	victim, attacker := s.browser(t), s.browser(t)
	callback := attacker.consent(attacker.begin("/login/dev"), "alice")
	// Login CSRF: the attacker's own callback, opened by the victim.
	msg := victim.get(callback.String()).refused(t, app.CodeInvalid)
	if !strings.Contains(msg, s.url.String()+"/login") {
		t.Errorf("message %q does not say where to start again", msg)
	}
	if len(s.logins()) != 0 {
		t.Error("the victim was logged in as the attacker")
	}
}

func TestStateReplayRefused(t *testing.T) {
	s := newSite(t, devProvider(t))
	b := s.browser(t)
	callback := b.consent(b.begin("/login/dev"), "alice")
	b.get(callback.String()).location(t)
	b.get(callback.String()).refused(t, app.CodeInvalid)
	if len(s.logins()) != 1 {
		t.Errorf("%d logins, want 1", len(s.logins()))
	}
}

// Deleting a cookie is only a request: whoever kept a copy sends it again. The
// issuer here accepts a code any number of times, so it is the state that must
// not.
func TestStateReplayWithCookieRefused(t *testing.T) {
	i := newIssuer(t)
	s := newSite(t, i.provider(t))
	b := s.browser(t)
	q := b.begin("/login/oidc").Query()
	i.nonce = q.Get("nonce")
	copies := b.cookies("/login/oidc/callback")
	if len(copies) != 1 {
		t.Fatalf("cookies of one attempt: %v", copies)
	}
	callback := s.url.String() + "/login/oidc/callback?code=c&state=" + q.Get("state")
	// At the same moment, so that it is one step and not two that decides.
	var passed, refused atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), "GET", callback, nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.AddCookie(copies[0])
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusSeeOther:
				passed.Add(1)
			case http.StatusBadRequest:
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if passed.Load() != 1 || refused.Load() != 7 || len(s.logins()) != 1 {
		t.Errorf("%d passed, %d refused, %d logins; want 1, 7, 1", passed.Load(), refused.Load(), len(s.logins()))
	}
}

// A state made for one provider is not spent at another, whose codes it would
// mix up.
func TestStateOfOtherProviderRefused(t *testing.T) {
	i := newIssuer(t)
	s := newSite(t, func(public *url.URL) []Provider {
		second := i.provider(t, func(cfg *OIDCConfig) { cfg.Name = "second" })
		return append(i.provider(t)(public), second(public)...)
	})
	b := s.browser(t)
	state := b.begin("/login/oidc").Query().Get("state")
	b.get("/login/second/callback?code=c&state="+state).refused(t, app.CodeInvalid)
	if i.posted != nil {
		t.Error("the code was spent")
	}
}

func TestAttemptExpires(t *testing.T) {
	s := newSite(t, devProvider(t))
	var later atomic.Int64
	s.attempts.now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	b := s.browser(t)
	late := b.consent(b.begin("/login/dev"), "alice")
	later.Store(int64(attemptLife + time.Second))
	b.get(late.String()).refused(t, app.CodeInvalid)
}

func TestCookieOfAttempt(t *testing.T) {
	const marker = "/room/a-page-to-return-to"
	for name, tt := range map[string]struct {
		secure       bool
		prefix, path string
	}{
		"http":  {false, "login-", "/login/"},
		"https": {true, "__Host-login-", "/"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, devProvider(t), func(cfg *Config) {
				if tt.secure {
					cfg.PublicURL = &url.URL{Scheme: "https", Host: "chat.example"}
					cfg.Secure = true
				}
			})
			resp := s.browser(t).get("/login/dev?next=" + marker)
			state := resp.location(t).Query().Get("state")
			cookies := resp.Cookies()
			if len(cookies) != 1 {
				t.Fatalf("cookies = %v, want one", cookies)
			}
			c := cookies[0]
			if !strings.HasPrefix(c.Name, tt.prefix) || c.Path != tt.path || c.Secure != tt.secure || !c.HttpOnly ||
				c.SameSite != http.SameSiteLaxMode || c.MaxAge != 600 || c.Domain != "" {
				t.Errorf("cookie = %v", c)
			}
			if strings.Contains(c.Raw, state) || strings.Contains(c.Raw, marker) {
				t.Errorf("the cookie is readable: %s", c.Raw)
			}
			if len(c.Value) > 4000 {
				t.Errorf("the cookie is %d bytes", len(c.Value))
			}
		})
	}
}

func TestLongestDestinationFitsTheCookie(t *testing.T) {
	s := newSite(t, devProvider(t))
	next := "/?" + strings.Repeat(`&"`, (maxNext-2)/2)
	resp := s.browser(t).get("/login/dev?next=" + url.QueryEscape(next))
	resp.location(t)
	if n := len(resp.Header.Get("Set-Cookie")); n > 4096 {
		t.Errorf("Set-Cookie is %d bytes", n)
	}
}

func TestForgedCookieRefused(t *testing.T) {
	s := newSite(t, devProvider(t))
	stranger, err := newAttempts(nil, false, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	b := s.browser(t)
	callback := b.consent(b.begin("/login/dev"), "alice")
	state := callback.Query().Get("state")
	own := b.http.Jar.Cookies(callback)[0]

	forged := newRecorder()
	if err := stranger.save(forged, mustRequest(t, "/"), attempt{State: state, Provider: "dev", Session: `{"Nonce":"n","Verifier":"v"}`, Next: "/"}); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"sealed with another key": forged.cookies(t)[0].Value,
		"changed":                 own.Value[:len(own.Value)-6] + "AAAAAA",
		"empty":                   "",
		"garbage":                 "%%%",
		"of another state":        s.browserCookie(t),
	} {
		t.Run(name, func(t *testing.T) {
			fresh := s.browser(t)
			r := mustRequest(t, callback.String())
			r.Header.Set("Cookie", own.Name+"="+value)
			fresh.do(r).refused(t, app.CodeInvalid)
		})
	}
	b.get(callback.String()).location(t)
}

// browserCookie is the sealed cookie of another, genuine attempt.
func (s *site) browserCookie(t testing.TB) string {
	t.Helper()
	return s.browser(t).get("/login/dev").Cookies()[0].Value
}

func TestKeysRotate(t *testing.T) {
	old, fresh := []byte(strings.Repeat("o", 32)), []byte(strings.Repeat("n", 32))
	before, err := newAttempts([][]byte{old}, false, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w := newRecorder()
	if err := before.save(w, mustRequest(t, "/"), attempt{State: "s", Next: "/"}); err != nil {
		t.Fatal(err)
	}
	after, err := newAttempts([][]byte{fresh, old}, false, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	r := mustRequest(t, "/")
	r.AddCookie(w.cookies(t)[0])
	if _, err := after.take(newRecorder(), r, "s"); err != nil {
		t.Errorf("an attempt sealed with the older key: %v", err)
	}
	if _, err := newAttempts([][]byte{[]byte("short")}, false, time.Now); err == nil {
		t.Error("a key of 5 bytes is accepted")
	}
}

func TestParallelTabs(t *testing.T) {
	s := newSite(t, devProvider(t))
	b := s.browser(t)
	first, second := b.begin("/login/dev?next=/first"), b.begin("/login/dev?next=/second")
	for _, tab := range []struct {
		at   *url.URL
		next string
	}{{second, "/second"}, {first, "/first"}} {
		if to := b.get(b.consent(tab.at, "alice").String()).location(t).Path; to != tab.next {
			t.Errorf("returned to %s, want %s", to, tab.next)
		}
	}
}

func TestOldestAttemptMakesRoom(t *testing.T) {
	s := newSite(t, devProvider(t))
	var tick atomic.Int64
	s.attempts.now = func() time.Time { return time.Now().Add(time.Duration(tick.Add(1)) * time.Second) }
	b := s.browser(t)
	var tabs []*url.URL
	for range maxAttempts + 1 {
		tabs = append(tabs, b.begin("/login/dev"))
	}
	if n := len(b.cookies("/login/dev")); n != maxAttempts {
		t.Errorf("%d cookies, want %d", n, maxAttempts)
	}
	b.get(b.consent(tabs[0], "alice").String()).refused(t, app.CodeInvalid)
	b.get(b.consent(tabs[1], "alice").String()).location(t)
}

func TestUsedStatesAreBounded(t *testing.T) {
	now := time.Now()
	a, err := newAttempts(nil, false, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return string(rune('a'+i%26)) + time.Duration(i).String() }
	for i := range maxUsed + 10 {
		if !a.use(name(i)) {
			t.Fatalf("first use of state %d refused", i)
		}
	}
	if len(a.used) != maxUsed || len(a.fifo) != maxUsed {
		t.Errorf("%d and %d states remembered, want %d", len(a.used), len(a.fifo), maxUsed)
	}
	if a.use(name(maxUsed)) {
		t.Error("second use of a recent state allowed")
	}
	now = now.Add(attemptLife + time.Second)
	a.use("later")
	if len(a.used) != 1 || len(a.fifo) != 1 {
		t.Errorf("%d and %d states remembered after all expired, want 1", len(a.used), len(a.fifo))
	}
}

func TestProviderSaysError(t *testing.T) {
	s := newSite(t, devProvider(t))
	for _, tt := range []struct {
		code string
		want app.Code
	}{
		{"access_denied", app.CodeForbidden},
		{"server_error", app.CodeUnavailable},
		{"temporarily_unavailable", app.CodeUnavailable},
		{"invalid_scope", app.CodeInvalid},
		{"<script>alert(1)</script>", app.CodeInvalid},
		{"", app.CodeInvalid},
	} {
		t.Run(tt.code, func(t *testing.T) {
			b := s.browser(t)
			q := url.Values{
				"state": {b.begin("/login/dev").Query().Get("state")},
				"error": {tt.code}, "error_description": {"call 555-0100 to unlock your account"},
				"code": {"a code besides the error must not be used"},
			}
			msg := b.get("/login/dev/callback?"+q.Encode()).refused(t, tt.want)
			if !strings.Contains(msg, "Development login") || strings.Contains(msg, "555") || strings.Contains(msg, "<") {
				t.Errorf("message %q", msg)
			}
		})
	}
}

func TestCallbackWithoutCode(t *testing.T) {
	s := newSite(t, devProvider(t))
	for _, extra := range []string{"", "&code=", "&code=one&code=two"} {
		b := s.browser(t)
		state := b.begin("/login/dev").Query().Get("state")
		b.get("/login/dev/callback?state="+state+extra).refused(t, app.CodeInvalid)
	}
}

func TestUnknownProvider(t *testing.T) {
	s := newSite(t, devProvider(t))
	b := s.browser(t)
	for _, path := range []string{"/login/nobody", "/login/nobody/callback?state=x&code=y", "/login/DEV", "/login/%2e%2e"} {
		b.get(path).refused(t, app.CodeNotFound)
	}
}

// Whatever a request says its host is, redirect URIs are the public URL's.
func TestHostHeaderIsNotBelieved(t *testing.T) {
	s := newSite(t, devProvider(t))
	r := mustRequest(t, s.url.String()+"/login/dev")
	r.Host = "evil.example"
	r.Header.Set("X-Forwarded-Host", "evil.example")
	r.Header.Set("X-Forwarded-Proto", "https")
	resp := s.browser(t).do(r)
	at := resp.location(t)
	if at.Host != s.url.Host || at.Query().Get("redirect_uri") != s.url.String()+"/login/dev/callback" {
		t.Errorf("redirected to %s", at)
	}
	if c := resp.Cookies()[0]; c.Domain != "" || c.Secure {
		t.Errorf("cookie = %v", c)
	}
}

func TestStoreDown(t *testing.T) {
	s := newSite(t, devProvider(t))
	b := s.browser(t)
	s.users.err = app.Errorf(app.CodeUnavailable, "the database is locked")
	b.get(b.consent(b.begin("/login/dev"), "alice").String()).refused(t, app.CodeUnavailable)

	s.users.err, s.loginErr = nil, errors.New("session store is down")
	b.get(b.consent(b.begin("/login/dev"), "alice").String()).refused(t, app.CodeUnavailable)
	b.post("/logout", nil).refused(t, app.CodeUnavailable)
	if len(s.logins()) != 0 {
		t.Error("somebody was logged in")
	}
}

func TestLogout(t *testing.T) {
	s := newSite(t, devProvider(t))
	resp := s.browser(t).post("/logout", nil)
	if to := resp.location(t); to.Path != "/" || s.loggedOut != 1 {
		t.Errorf("redirected to %s, logged out %d times", to, s.loggedOut)
	}
}

// The login, the session and the person of the next request, with the adapter
// that they are made for.
func TestIdentityOfSession(t *testing.T) {
	srv, err := adapter.New(adapter.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s := newSite(t, devProvider(t), func(cfg *Config) { cfg.Login, cfg.Logout = srv.Login, srv.Logout })
	srv.Use(sessions.Sessions("sid", srv.Store(memstore.NewStore([]byte(strings.Repeat("k", 32))))))
	srv.Identify(s.Identity)
	pages := s.engine.Group("/", srv.HTTP()...)
	pages.GET("/me", func(c *gin.Context) {
		u, ok := adapter.User[app.User](c)
		c.String(http.StatusOK, "%s %t", u.Name, ok)
	})
	pages.GET("/session/login/:provider/callback", s.Callback)
	pages.POST("/session/logout", s.Logout)

	b := s.browser(t)
	if a := b.get("/me"); a.body != " false" {
		t.Fatalf("/me of a visitor = %q", a.body)
	}
	callback := b.consent(b.begin("/login/dev"), "bob")
	callback.Path = "/session" + callback.Path
	r := mustRequest(t, callback.String())
	for _, c := range b.cookies("/login/dev/callback") {
		r.AddCookie(c)
	}
	b.do(r).location(t)
	if a := b.get("/me"); a.body != "Bob true" {
		t.Errorf("/me after the login = %q", a.body)
	}
	s.users.err = app.Errorf(app.CodeUnavailable, "down")
	if a := b.get("/me"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/me with the store down = %d %q", a.StatusCode, a.body)
	}
	s.users.err = nil
	clear(s.users.byKey)
	if a := b.get("/me"); a.body != " false" {
		t.Errorf("/me of somebody who is gone = %q", a.body)
	}
	b.post("/session/logout", nil).location(t)
	if a := b.get("/me"); a.body != " false" {
		t.Errorf("/me after the logout = %q", a.body)
	}
}

func TestProviders(t *testing.T) {
	s := newSite(t, devProvider(t))
	got := s.Providers()
	if len(got) != 1 || got[0] != (ProviderInfo{"dev", "Development login", "/login/dev"}) {
		t.Errorf("Providers() = %+v", got)
	}
}

func TestNewRefuses(t *testing.T) {
	public := &url.URL{Scheme: "http", Host: "localhost:3000"}
	providers := devProvider(t)(public)
	good := Config{
		PublicURL: public, Users: &people{}, Providers: providers,
		Login:  func(*gin.Context, adapter.Identity) error { return nil },
		Logout: func(*gin.Context) error { return nil },
	}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no public URL":        func(c *Config) { c.PublicURL = nil },
		"public URL with path": func(c *Config) { c.PublicURL = public.JoinPath("chat") },
		"public URL of ftp":    func(c *Config) { c.PublicURL = &url.URL{Scheme: "ftp", Host: "localhost"} },
		"no users":             func(c *Config) { c.Users = nil },
		"no login":             func(c *Config) { c.Login = nil },
		"no logout":            func(c *Config) { c.Logout = nil },
		"secure over http":     func(c *Config) { c.Secure = true },
		"https without secure": func(c *Config) { c.PublicURL = &url.URL{Scheme: "https", Host: "chat.example"} },
		"short key":            func(c *Config) { c.Keys = [][]byte{make([]byte, 31)} },
		"two of a name":        func(c *Config) { c.Providers = append(providers, providers...) },
		"empty provider":       func(c *Config) { c.Providers = []Provider{{Label: "Nothing"}} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), "auth: ") {
				t.Errorf("New = %v, want an error", err)
			}
		})
	}
}
