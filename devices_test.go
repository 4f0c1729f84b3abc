package main

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/gin-usher/usher/adapter/adaptertest"
)

// named is a browser that says which one it is.
type named struct {
	http.RoundTripper
	agent string
}

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("User-Agent", n.agent)
	return n.RoundTripper.RoundTrip(r)
}

// logInFrom logs a person in with a browser of their own.
func logInFrom(t *testing.T, site, name, agent string) *adaptertest.Browser {
	t.Helper()
	b := adaptertest.NewBrowser(t, site)
	b.HTTP.Transport = named{b.HTTP.Transport, agent}
	logIn(t, b, name)
	return b
}

var devices = regexp.MustCompile(`(?s)<h2><bdi>([^<]*)</bdi>.*?</li>`)

// devicesOf returns the handles that the person's page of devices has a button
// for, by browser, and which browser it says is this one.
func devicesOf(t *testing.T, b *adaptertest.Browser) (handles map[string]string, current string) {
	t.Helper()
	status, body := b.Get("/devices")
	if status != http.StatusOK {
		t.Fatalf("GET /devices: %d %s", status, body)
	}
	handles = make(map[string]string)
	for _, m := range devices.FindAllStringSubmatch(body, -1) {
		browser := html.UnescapeString(m[1])
		if strings.Contains(m[0], "This device") {
			current = browser
			continue
		}
		if hidden := inputs.FindStringSubmatch(m[0]); hidden != nil {
			handles[browser] = html.UnescapeString(hidden[2])
		}
	}
	return handles, current
}

const (
	onLinux = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	onPhone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
	onMac   = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15"
)

func TestDevicesAreSignedOut(t *testing.T) {
	dir := t.TempDir()
	site, _ := startSite(t, dir)
	linux := logInFrom(t, site, "alice", onLinux)
	phone := logInFrom(t, site, "alice", onPhone)
	mac := logInFrom(t, site, "alice", onMac)
	bob := logInFrom(t, site, "bob", onPhone)
	pocket, desk, bobs := phone.Dial(socketPath), linux.Dial(socketPath), bob.Dial(socketPath)

	handles, current := devicesOf(t, linux)
	if current != "Firefox on Linux" || len(handles) != 2 || handles["Safari on iPhone"] == "" || handles["Safari on Mac"] == "" {
		t.Fatalf("alice's devices are %v and this one, %q", handles, current)
	}
	// The page must not show what the cookie or the database could be asked with.
	_, body := linux.Get("/devices")
	for _, c := range linux.Cookies() {
		if strings.Contains(body, c.Value) {
			t.Errorf("the page has the cookie %s", c.Name)
		}
	}

	// Whoever knows a handle of somebody else's has nothing.
	if status, _ := bob.Post("/devices/sign-out", url.Values{"device": {handles["Safari on iPhone"]}}); status != http.StatusNotFound {
		t.Errorf("bob signs alice's phone out: %d, want 404", status)
	}
	if me := whoAmI(t, phone); me.Name != "Alice" {
		t.Errorf("then the phone is %q's, want Alice's", me.Name)
	}

	if status, body := linux.Post("/devices/sign-out", url.Values{"device": {handles["Safari on iPhone"]}}); status != http.StatusOK {
		t.Fatalf("sign the phone out: %d %s", status, body)
	}
	if code := pocket.Closed(); code != 4409 {
		t.Errorf("the phone's socket was closed with %d, want 4409", code)
	}
	if me := whoAmI(t, phone); me.ID != "" {
		t.Errorf("the phone is still %s's", me.Name)
	}
	if _, body := phone.Get("/room/lobby"); !strings.Contains(body, "Continue with") {
		t.Errorf("the phone sees %s, want the login page", body)
	}

	logIn(t, phone, "alice")
	pocket = phone.Dial(socketPath)
	if status, body := linux.Post("/devices/sign-out-others", nil); status != http.StatusOK {
		t.Fatalf("sign out everywhere else: %d %s", status, body)
	}
	if code := pocket.Closed(); code != 4409 {
		t.Errorf("the phone's socket was closed with %d, want 4409", code)
	}
	for browser, b := range map[string]*adaptertest.Browser{"phone": phone, "mac": mac} {
		if me := whoAmI(t, b); me.ID != "" {
			t.Errorf("the %s is still %s's", browser, me.Name)
		}
	}
	if handles, current = devicesOf(t, linux); len(handles) != 0 || current != "Firefox on Linux" {
		t.Errorf("alice's devices are %v and this one, %q; want this one", handles, current)
	}
	if me := whoAmI(t, linux); me.Name != "Alice" {
		t.Errorf("this device is %q's, want Alice's", me.Name)
	}
	for _, c := range []*adaptertest.Conn{desk, bobs} {
		c.Must("join", map[string]string{"room": "lobby"}, nil)
	}
}

// TestTokensAreDevices: an app that shows a token is signed in too, as long as it
// has a socket open.
func TestTokensAreDevices(t *testing.T) {
	site, _ := startSite(t, t.TempDir())
	linux := logInFrom(t, site, "alice", onLinux)
	header := authorization(tokenOf(t, site, "alice").Token)
	header.Set("User-Agent", "robot/2.0")
	robot, _, err := adaptertest.NewBrowser(t, site).TryDial(socketPath, header)
	if err != nil {
		t.Fatal(err)
	}
	robot.Event("connect")
	handles, _ := devicesOf(t, linux)
	if handles["robot"] == "" {
		t.Fatalf("alice's devices are %v, want the robot among them", handles)
	}
	if status, body := linux.Post("/devices/sign-out", url.Values{"device": {handles["robot"]}}); status != http.StatusOK {
		t.Fatalf("sign the robot out: %d %s", status, body)
	}
	robot.Closed()
	if _, resp, err := adaptertest.NewBrowser(t, site).TryDial(socketPath, header); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the robot is let in again: %v", err)
	}
}
