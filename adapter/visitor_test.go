package adapter_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// visited is a site that lets visitors in, on every namespace.
func visited(t *testing.T) *adaptertest.Site {
	return adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.AllowAnonymous()
	})
}

// become waits until the socket is somebody's.
func become(t *testing.T, c *adaptertest.Conn, user string) {
	t.Helper()
	for {
		f := c.Call("me", nil)
		if string(f.Data) == `"`+user+`"` {
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("me = %s, want %s", f, user)
		}
	}
}

// TestVisitorLogsIn opens sockets with no cookie at all, logs in with the
// browser that has opened them, and never connects again.
func TestVisitorLogsIn(t *testing.T) {
	s := visited(t)
	alice := s.NewBrowser(t, "")
	first, resp, err := alice.TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	set := resp.Header.Values("Set-Cookie")
	if len(set) != 1 || !strings.HasPrefix(set[0], "usher-visitor=") || !strings.Contains(set[0], "; HttpOnly; SameSite=Lax") || strings.Contains(set[0], "Secure") {
		t.Fatalf("Set-Cookie %q, want one usher-visitor that scripts cannot read", set)
	}
	second, resp, err := alice.TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set := resp.Header.Values("Set-Cookie"); len(set) != 0 {
		t.Errorf("Set-Cookie %q for a visitor who has the cookie", set)
	}
	bob := s.NewBrowser(t, "")
	other := bob.Dial(ws)

	alice.MustPost("/login?user=alice")
	become(t, first, "alice")
	become(t, second, "alice")
	if f := other.Call("me", nil); string(f.Data) == `"alice"` {
		t.Error("another visitor's socket became alice's")
	}
	for _, c := range alice.Cookies() {
		if c.Name == "usher-visitor" {
			t.Error("the cookie is still there after the login")
		}
	}
	// From here on they are sockets of the session like any other.
	alice.MustPost("/set?key=color&value=blue")
	if f := first.Call("get", map[string]string{"key": "color"}); string(f.Data) != `"blue"` {
		t.Errorf("get color = %s, want blue", f)
	}
	alice.MustPost("/logout")
	for _, c := range []*adaptertest.Conn{first, second} {
		if code := c.Closed(); code != 4409 {
			t.Errorf("close code %d, want 4409", code)
		}
	}
	other.Must("me", nil, nil)
}

// TestPlantedVisitorCookie has the attacker's cookie in Bob's browser: the
// attacker's socket stays nobody's.
func TestPlantedVisitorCookie(t *testing.T) {
	s := visited(t)
	attacker := s.NewBrowser(t, "")
	foreign, _, err := attacker.TryDial(ws, http.Header{"X-Forwarded-For": {"203.0.113.66"}})
	if err != nil {
		t.Fatal(err)
	}
	bob := attacker.Clone()
	own := bob.Dial(ws)
	bob.MustPost("/login?user=bob")
	become(t, own, "bob")
	if f := foreign.Call("me", nil); string(f.Data) == `"bob"` {
		t.Error("the attacker's socket became bob's")
	}
}

// TestVisitorCookieIsNotTakenAsItComes sends values that we have not made.
func TestVisitorCookieIsNotTakenAsItComes(t *testing.T) {
	s := visited(t)
	for _, value := range []string{"", "x", strings.Repeat("A", 27), strings.Repeat("A", 25) + ",", strings.Repeat("A", 4000)} {
		_, resp, err := s.NewBrowser(t, "").TryDial(ws, http.Header{"Cookie": {"usher-visitor=" + value}})
		if err != nil {
			t.Fatal(err)
		}
		if set := resp.Header.Values("Set-Cookie"); len(set) != 1 {
			t.Errorf("usher-visitor=%.40q: Set-Cookie %q, want a new one", value, set)
		}
	}
}

// TestNoVisitorCookie is for those who need none: somebody is named, or there is
// no store in which a login could be kept.
func TestNoVisitorCookie(t *testing.T) {
	s := visited(t)
	_, resp, err := s.NewBrowser(t, "alice").TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set := resp.Header.Values("Set-Cookie"); len(set) != 0 {
		t.Errorf("alice got %q", set)
	}
}

// TestGuardReadsTheSession asks for the session within the handshake.
func TestGuardReadsTheSession(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.Require(func(ctx context.Context, sock *adapter.Socket) error {
			v, err := sock.Session().Get(ctx, "invited")
			if err != nil {
				return err
			}
			if v != "yes" {
				return &adapter.Error{Code: adapter.CodeForbidden, Message: "you are not invited"}
			}
			return nil
		})
	})
	alice := s.NewBrowser(t, "alice")
	if _, resp, err := alice.TryDial(ws, nil); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("dial = %v, want 403", err)
	}
	alice.MustPost("/set?key=invited&value=yes")
	alice.Dial(ws).Must("me", nil, nil)
}

// TestVisitorLogsInWhilePolling is the same over the polls of Engine.IO, whose
// every request shows the cookies that the browser has by then.
func TestVisitorLogsInWhilePolling(t *testing.T) {
	s := visited(t)
	alice := s.NewBrowser(t, "")
	sid := "&sid=" + engineOpen(t, alice)
	me := func() string {
		t.Helper()
		if status, body, _ := engineDo(t, alice, "POST", enginePath+sid, `421["me",null]`, nil); status != http.StatusOK {
			t.Fatalf("POST: %d %s", status, body)
		}
		status, body, _ := engineDo(t, alice, "GET", enginePath+sid, "", nil)
		if status != http.StatusOK {
			t.Fatalf("GET: %d %s", status, body)
		}
		return body
	}
	if got := me(); strings.Contains(got, "alice") {
		t.Fatalf("me before the login: %s", got)
	}
	alice.MustPost("/login?user=alice")
	for !strings.Contains(me(), `"alice"`) {
		if t.Context().Err() != nil {
			t.Fatal("the socket stays nobody's")
		}
	}
	// A client that keeps no cookies is not held to this one.
	stranger := s.NewBrowser(t, "")
	stranger.HTTP.Jar = nil
	sid = "&sid=" + engineOpen(t, stranger)
	if status, body, _ := engineDo(t, stranger, "POST", enginePath+sid, `421["me",null]`, nil); status != http.StatusOK {
		t.Errorf("POST without cookies: %d %s", status, body)
	}
}
