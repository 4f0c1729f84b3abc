package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
)

func (w *world) Sessions(_ context.Context, user string) ([]adapter.SessionInfo, error) {
	if w.devicesErr != nil {
		return nil, w.devicesErr
	}
	// No more at once than the adapter has room for.
	return slices.Clone(w.signedIn[user][:min(len(w.signedIn[user]), 3)]), w.partial
}

func (w *world) RevokeSession(_ context.Context, user, handle string) (int, error) {
	if w.devicesErr != nil {
		return 0, w.devicesErr
	}
	i := slices.IndexFunc(w.signedIn[user], func(of adapter.SessionInfo) bool { return handle != "" && of.Handle == handle })
	if i < 0 {
		return 0, adapter.ErrUnknownSession
	}
	w.signedIn[user] = slices.Delete(w.signedIn[user], i, i+1)
	w.revoked = append(w.revoked, handle)
	return 1, nil
}

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

// newDevices is a world in which Ada is signed in at many places.
func newDevices() *world {
	w := newWorld()
	at := time.Date(2026, 3, 1, 14, 5, 0, 0, time.UTC)
	w.user, w.session = &ada, "here"
	w.signedIn = map[string][]adapter.SessionInfo{
		ada.ID: {
			{Handle: "here", Address: "192.0.2.1", Agent: firefox, Since: at, Used: at.Add(time.Hour), Sockets: 2},
			{Handle: "there", Address: "192.0.2.2", Agent: `<script>"x"</script>`, Since: at, Used: at.Add(time.Minute)},
			{Agent: "curl/8.5.0", Since: at, Used: at, Sockets: 1},
			{Handle: "far", Since: at, Used: at},
			{Handle: "farther", Since: at, Used: at},
		},
		"u2": {{Handle: "grace"}},
	}
	return w
}

func TestDevices(t *testing.T) {
	w := newDevices()
	a := w.get(t, "/devices")
	a.want(t, 200,
		"<title>Your devices · Usher</title>", "Firefox on Linux", "This device", "192.0.2.1", "In the chat now",
		`Last used <time datetime="2026-03-01T14:06:00Z">1 March 2026, 14:06 UTC</time>`,
		`<input type="hidden" name="device" value="there">`, "An unknown browser", "curl",
		`<form method="post" action="/devices/sign-out-others">`,
	)
	a.lacks(t, `value="here"`, `value=""`, "<script>", "grace")
	if n := strings.Count(a.body, `action="/devices/sign-out"`); n != 1 {
		t.Errorf("%d devices can be signed out, want 1: not this one, and not one that cannot be ended", n)
	}
	if got := a.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", got)
	}

	w.signedIn[ada.ID] = w.signedIn[ada.ID][:1]
	w.get(t, "/devices").lacks(t, "everywhere else")
	w.devicesErr = &app.Error{Code: app.CodeUnavailable, Message: "The database is busy."}
	w.get(t, "/devices").want(t, 503, "The database is busy.")

	w = newDevices()
	w.get(t, "/devices").lacks(t, "did not answer")
	w.partial = errors.New("1 of 2 other nodes did not answer")
	w.get(t, "/devices").want(t, 200, "Firefox on Linux", "One of our servers did not answer")

	w = newDevices()
	w.user = nil
	for _, target := range []string{"/devices", "/devices/sign-out", "/devices/sign-out-others"} {
		method := http.MethodPost
		if target == "/devices" {
			method = http.MethodGet
		}
		a := w.request(t, method, target, "device=there")
		if got := a.Header.Get("Location"); a.StatusCode != 303 || got != "/login?next="+url.QueryEscape(target) || len(w.revoked) != 0 {
			t.Errorf("%s of nobody: %d to %q, ended %q; want 303 to the login page", target, a.StatusCode, got, w.revoked)
		}
	}
}

func TestSignOutDevice(t *testing.T) {
	tests := []struct {
		name, form string
		header     []string
		want       int
		ended      []string
	}{
		{name: "one", form: "device=there", want: 303, ended: []string{"there"}},
		{name: "this one", form: "device=here", want: 303, ended: []string{"here"}},
		{name: "somebody else's", form: "device=grace", want: 404},
		{name: "none", form: "x=1", want: 404},
		{name: "empty", form: "device=", want: 404},
		{name: "in the query", form: "x=1", want: 404},
		{name: "not a form", form: "%zz", want: 400},
		{name: "too long", form: "device=" + strings.Repeat("x", maxForm), want: 400},
		{name: "by another site", form: "device=there", header: []string{"Sec-Fetch-Site", "cross-site"}, want: 403},
		{name: "by another origin", form: "device=there", header: []string{"Origin", "https://evil.example"}, want: 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newDevices()
			target := "/devices/sign-out"
			if tt.name == "in the query" {
				target += "?device=there"
			}
			a := w.request(t, http.MethodPost, target, tt.form, tt.header...)
			a.want(t, tt.want)
			if got := a.Header.Get("Location"); tt.want == 303 && got != "/devices" {
				t.Errorf("redirect to %q, want /devices", got)
			}
			if !slices.Equal(w.revoked, tt.ended) {
				t.Errorf("ended %q, want %q", w.revoked, tt.ended)
			}
		})
	}
	w := newDevices()
	if a := w.get(t, "/devices/sign-out?device=there"); a.StatusCode != 404 || len(w.revoked) != 0 {
		t.Errorf("GET: status %d, ended %q; want 404 and none", a.StatusCode, w.revoked)
	}
	w.devicesErr = errors.New("a secret of the database")
	w.request(t, http.MethodPost, "/devices/sign-out", "device=there").lacks(t, "secret")
}

func TestSignOutOthers(t *testing.T) {
	w := newDevices()
	a := w.request(t, http.MethodPost, "/devices/sign-out-others", "x=1", "Sec-Fetch-Site", "cross-site")
	if a.want(t, 403); len(w.revoked) != 0 {
		t.Errorf("another site has ended %q", w.revoked)
	}
	a = w.request(t, http.MethodPost, "/devices/sign-out-others", "")
	if got := a.Header.Get("Location"); a.StatusCode != 303 || got != "/devices" {
		t.Errorf("status %d to %q, want 303 to /devices", a.StatusCode, got)
	}
	// All, although they are not listed at once.
	if !slices.Equal(w.revoked, []string{"there", "far", "farther"}) {
		t.Errorf("ended %q, want all but this one", w.revoked)
	}
	w = newDevices()
	w.partial = errors.New("1 of 2 other nodes did not answer")
	w.request(t, http.MethodPost, "/devices/sign-out-others", "").want(t, 503, "one of our servers did not answer")
	if !slices.Equal(w.revoked, []string{"there", "far", "farther"}) {
		t.Errorf("without one server, ended %q, want all that is known", w.revoked)
	}
	w.devicesErr = &app.Error{Code: app.CodeUnavailable, Message: "The database is busy."}
	w.request(t, http.MethodPost, "/devices/sign-out-others", "").want(t, 503, "The database is busy.")
}

func TestBrowserName(t *testing.T) {
	tests := []struct{ agent, want string }{
		{firefox, "Firefox on Linux"},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36", "Chrome on Windows"},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0", "Edge on Windows"},
		{"Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 OPR/126.0.0.0", "Opera on Windows"},
		{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15", "Safari on Mac"},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1", "Safari on iPhone"},
		{"Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0 Mobile/15E148 Safari/604.1", "Chrome on iPad"},
		{"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36", "Chrome on Android"},
		{"Mozilla/5.0 (Linux; Android 14; SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36", "Samsung Internet on Android"},
		{"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36", "Chrome on ChromeOS"},
		{"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/142.0.0.0 Safari/537.36", "Chrome on Linux"},
		{"Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko", "A browser on Windows"},
		{"curl/8.5.0", "curl"},
		{"Go-http-client/1.1", "Go-http-client"},
		{"", "An unknown browser"},
		{"/", "An unknown browser"},
		{"you have won a prize/1.0", "An unknown browser"},
		{strings.Repeat("x", 200) + "/1", "An unknown browser"},
	}
	for _, tt := range tests {
		if got := browserName(tt.agent); got != tt.want {
			t.Errorf("browserName(%q) = %q, want %q", tt.agent, got, tt.want)
		}
	}
}
