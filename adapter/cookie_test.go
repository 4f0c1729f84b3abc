package adapter_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

func TestStickyCookie(t *testing.T) {
	s := openSite(t, adapter.Config{Cookie: "io"}, nil)
	for _, tt := range []struct {
		name, attributes string
		header           http.Header
	}{
		{"plain", "; Path=/; HttpOnly; SameSite=Lax", nil},
		{"behind a proxy that ends TLS", "; Path=/; HttpOnly; Secure; SameSite=Lax", http.Header{"X-Forwarded-Proto": {"https"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := s.NewBrowser(t, "")
			_, polled, h := engineDo(t, b, "GET", enginePath, "", tt.header)
			sid := wantCookie(t, polled, h, tt.attributes)

			// Once, and neither its absence nor another value makes a difference.
			for _, cookie := range []string{"", "io=" + sid, "io=somebody-else"} {
				_, body, h := engineDo(t, b.Clone(), "POST", enginePath+"&sid="+sid, "3", http.Header{"Cookie": {cookie}})
				if body != "ok" || h.Get("Set-Cookie") != "" {
					t.Errorf("POST with the cookie %q: %s, Set-Cookie %q", cookie, body, h.Get("Set-Cookie"))
				}
			}

			ws, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(b.URL, "http")+"/socket.io/?EIO=4&transport=websocket", tt.header)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			wantCookie(t, wsRead(t, ws), resp.Header, tt.attributes)
		})
	}
	// The upgrade is no handshake, and the plain format has no sid.
	b := s.NewBrowser(t, "")
	sid := engineOpen(t, b)
	for _, path := range []string{"?EIO=4&transport=websocket&sid=" + sid, "ws"} {
		d := websocket.Dialer{Jar: b.HTTP.Jar}
		ws, resp, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(b.URL, "http")+"/socket.io/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		if got := resp.Header["Set-Cookie"]; got != nil {
			t.Errorf("%s sets %q", path, got)
		}
	}
}

// wantCookie compares the cookie with the sid of the handshake.
func wantCookie(t *testing.T, handshake string, h http.Header, attributes string) (sid string) {
	t.Helper()
	var open struct {
		SID string `json:"sid"`
	}
	unmarshal(t, strings.TrimPrefix(handshake, "0"), &open)
	set := slices.DeleteFunc(h["Set-Cookie"], func(c string) bool { return strings.HasPrefix(strings.TrimPrefix(c, "__Host-"), "usher-visitor=") })
	if got, want := strings.Join(set, ", "), "io="+open.SID+attributes; got != want {
		t.Errorf("Set-Cookie: %s, want %s", got, want)
	}
	return open.SID
}

func TestCookieHasAName(t *testing.T) {
	for _, name := range []string{"a b", "a=b", "a;b", "a,b", `"a"`, "ä", "a\n", "a\x00", "(a)", "[a]", "a/b", "a@b"} {
		if _, err := adapter.New(adapter.Config{Cookie: name}); err == nil || !strings.Contains(err.Error(), "Cookie: expected a name") {
			t.Errorf("New with the cookie %q: %v", name, err)
		}
	}
	for _, name := range []string{"io", "__Secure-io", "a.b!#$%&'*+-^_`|~"} {
		srv, err := adapter.New(adapter.Config{Cookie: name})
		if err != nil {
			t.Errorf("New with the cookie %q: %v", name, err)
			continue
		}
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
