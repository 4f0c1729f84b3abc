package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/app"
)

// TestSecurityCSRF: no other site submits any form of this one, or calls it with
// a script: not to post, not to log out, and not to log in (login CSRF, OWASP
// WSTG-SESS-05). Every route that is not for reading is tried, those to come too.
func TestSecurityCSRF(t *testing.T) {
	w := newWorld()
	w.user = &ada
	acted := false
	w.tokens = func(c *gin.Context) { acted = true }
	w.dev = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { acted = true })
	var tried int
	for _, route := range w.site(t).(*gin.Engine).Routes() {
		switch route.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect:
			continue
		}
		tried++
		path := strings.NewReplacer(":name", "lobby", ":provider", "dev", "*path", "authorize").Replace(route.Path)
		for _, header := range [][]string{
			{"Sec-Fetch-Site", "cross-site"},
			{"Sec-Fetch-Site", "same-site"},
			{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
			{"Origin", "https://evil.example"},
			{"Origin", "null"},
			{"Origin", "http://localhost:3001"},
			{"Origin", "http://localhost:3000.evil.example"},
			{"Origin", "https://evil.example", "X-Forwarded-Host", "evil.example"},
			{"Origin", "https://evil.example", "Content-Type", "text/plain"},
			{"Origin", "https://evil.example", "Content-Type", "application/json"},
			{"Origin", "https://evil.example", "X-HTTP-Method-Override", "GET"},
		} {
			acted, w.posted = false, nil
			a := w.request(t, route.Method, path, "text=forged", header...)
			if a.StatusCode != http.StatusForbidden || acted || len(w.posted) > 0 {
				t.Errorf("%s %s with %q: %d, acted %t, posted %v", route.Method, path, header, a.StatusCode, acted, w.posted)
			}
		}
	}
	if tried < 3 {
		t.Errorf("%d routes were tried, want at least posting, logging out and logging in", tried)
	}
	// And none of them is done by a link.
	w.posted = nil
	for _, target := range []string{"/logout", "/room/lobby?text=forged", "/room/lobby?_method=POST&text=forged", "/api/login?user=alice"} {
		acted = false
		w.get(t, target, "X-HTTP-Method-Override", "POST")
		if acted || len(w.posted) > 0 {
			t.Errorf("GET %s acts", target)
		}
	}
}

// TestSecurityClickjacking: no answer is shown in a frame of another site
// (CSP frame-ancestors; OWASP WSTG-CLNT-09).
func TestSecurityClickjacking(t *testing.T) {
	w := newWorld()
	w.dev = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	check := func(what string, a answer) {
		t.Helper()
		if csp := a.Header["Content-Security-Policy"]; len(csp) != 1 || !strings.Contains(csp[0], "frame-ancestors 'none'") {
			t.Errorf("%s: status %d, CSP %q", what, a.StatusCode, csp)
		}
	}
	for _, target := range []string{"/", "/login", "/room/lobby", "/room/attic", "/me", "/healthz", "/nowhere", "/login/nobody", "/static/style.css", "/static/nothing"} {
		check(target, w.get(t, target))
	}
	check("a forged logout", w.request(t, http.MethodPost, "/logout", "x=1", "Origin", "https://evil.example"))
	w.user = &ada
	check("a room", w.get(t, "/room/lobby"))
	w.panics = true
	check("a panic", w.get(t, "/room/lobby"))
	w.panics, w.chatErr = false, errors.New("down")
	check("an error", w.get(t, "/"))
}

// TestSecurityXSS: what people write, or put into an address, is text: in pages,
// in JSON, on error pages.
func TestSecurityXSS(t *testing.T) {
	for _, hostile := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'-alert(1)-'`, `</title><script>alert(1)</script>`,
		`<svg/onload=alert(1)>`, `{{alert(1)}}`, "<scr\x00ipt>alert(1)</script>", `</textarea><script>alert(1)</script>`, `javascript:alert(1)`,
	} {
		w := newWorld()
		w.user = &app.User{ID: hostile, Name: hostile, Avatar: hostile}
		w.rooms = []app.Room{{Name: "lobby", Title: hostile}}
		w.messages = []app.Message{{ID: 1, Text: hostile, User: *w.user}}
		w.post = app.Errorf(app.CodeInvalid, "%s", hostile)
		in := url.PathEscape(hostile)
		pages := []answer{
			w.get(t, "/"), w.get(t, "/room/lobby"), w.get(t, "/room/"+in), w.get(t, "/"+in), w.get(t, "/login?next=/"+url.QueryEscape(hostile)),
			w.get(t, "/room/lobby?before="+url.QueryEscape(hostile)), w.get(t, "/login/"+in),
			w.request(t, http.MethodPost, "/room/lobby", url.Values{"text": {hostile}, "nonce": {hostile}}.Encode()),
		}
		for _, a := range pages {
			if kind := a.Header.Get("Content-Type"); kind != "text/html; charset=utf-8" {
				t.Errorf("Content-Type %q of %s", kind, a.body)
			}
			a.lacks(t, "<script>alert", "<img src=x", "<svg/", "</title><", "</textarea><", `href="javascript:`, `src="javascript:`)
		}
		for _, a := range []answer{w.get(t, "/me"), w.get(t, "/api/self"), w.get(t, "/api/"+in), w.get(t, "/room/"+in, "Accept", "application/json")} {
			if kind := a.Header.Get("Content-Type"); kind != "application/json; charset=utf-8" || a.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%v of %s", a.Header, a.body)
			}
			a.lacks(t, "<script", "<img", "<svg")
		}
	}
}

// TestSecurityLogInjection: an address writes no line of the log (CWE-117).
func TestSecurityLogInjection(t *testing.T) {
	w := newWorld()
	w.user, w.chatErr = &ada, errors.New("down\ntime=2026-01-01 msg=forged")
	for _, target := range []string{"/room/x%0atime=2026-01-01%20msg=forged", "/%0d%0atime=2026-01-01%20msg=forged", "/?%0atime=2026-01-01"} {
		w.get(t, target)
	}
	// Messages are the program's own: not every handler quotes them.
	own := regexp.MustCompile(`^time=\S+ level=[A-Z]+ msg=(request|"request failed") `)
	for line := range strings.Lines(w.log.String()) {
		if !own.MatchString(line) || strings.HasPrefix(line, "time=2026-01-01") {
			t.Errorf("a line that is not ours: %q", line)
		}
	}
	if !strings.Contains(w.log.String(), "forged") {
		t.Error("the log has nothing of it: the test tries less than it says")
	}
}

// A hurried recorder notes until when a body is waited for.
type hurried struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (h *hurried) SetReadDeadline(t time.Time) error {
	h.until = t
	return nil
}

// TestSecuritySlowForm: a form that never ends is not waited for (slowloris,
// CWE-400). The program's http.Server has no limit of its own, for its sockets.
func TestSecuritySlowForm(t *testing.T) {
	w := newWorld()
	site := w.site(t)
	for _, path := range []string{"/room/lobby", "/logout", "/nowhere", "/api/login"} {
		rec := &hurried{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("x=1"))
		site.ServeHTTP(rec, r)
		if left := time.Until(rec.until); left <= 0 || left > bodyPatience {
			t.Errorf("POST %s: the body may take %v, want at most %v", path, left, bodyPatience)
		}
	}
	rec := &hurried{ResponseRecorder: httptest.NewRecorder()}
	site.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	if !rec.until.IsZero() {
		t.Errorf("a GET without a body has until %v", rec.until)
	}
}
