package adapter_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A victim is somebody whose browser a page of somebody else's makes send
// requests: with her cookies, and with what else that page can choose, down to
// the bytes.
type victim struct {
	t      *testing.T
	addr   string
	cookie string
	sid    string // of a connection that is open
}

// newVictim logs alice in at the site, and opens a connection of hers from a page
// of origin.
func newVictim(t *testing.T, s *adaptertest.Site, url, host, origin string) *victim {
	t.Helper()
	v := &victim{t: t, addr: strings.TrimPrefix(url, "http://")}
	v.cookie = "sid=" + s.NewBrowser(t, "alice").Cookies()[0].Value
	own := []string{"Host: " + host, "Origin: " + origin}
	_, body := v.ask("GET", enginePath, "", own...)
	var open struct{ SID string }
	unmarshal(t, strings.TrimPrefix(body, "0"), &open)
	v.sid = open.SID
	if resp, body := v.ask("POST", enginePath+"&sid="+v.sid, "40", own...); resp.StatusCode != http.StatusOK {
		t.Fatalf("CONNECT: %s %s", resp.Status, body)
	}
	if _, body := v.ask("GET", enginePath+"&sid="+v.sid, "", own...); !strings.HasPrefix(body, "40{") {
		t.Fatalf("CONNECT was answered %s", body)
	}
	return v
}

// ask makes a request with these lines as its head. The body of an answer that
// lets a WebSocket in is not waited for.
func (v *victim) ask(method, target, body string, lines ...string) (*http.Response, string) {
	v.t.Helper()
	nc, err := net.Dial("tcp", v.addr)
	if err != nil {
		v.t.Fatal(err)
	}
	defer nc.Close()
	head := append([]string{method + " " + target + " HTTP/1.1", "Cookie: " + v.cookie, "Connection: close"}, lines...)
	if method == "POST" {
		head = append(head, fmt.Sprintf("Content-Length: %d", len(body)))
	} else {
		body = ""
	}
	if _, err := io.WriteString(nc, strings.Join(head, "\r\n")+"\r\n\r\n"+body); err != nil {
		v.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: method})
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, ""
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp, string(got)
}

// webSocket are the lines that ask for an upgrade.
var webSocket = []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}

// wantLetIn checks every kind of request that begins something, and, if they are
// to be refused, those of the connection that is open too. Nothing that is
// refused may be read by the page that asked (CORS).
func (v *victim) wantLetIn(want bool, lines ...string) {
	v.t.Helper()
	for _, r := range []struct {
		name, method, target string
		ws, sid              bool
	}{
		{"a plain WebSocket", "GET", ws, true, false},
		{"a WebSocket of Socket.IO", "GET", "/socket.io/?EIO=4&transport=websocket", true, false},
		{"a polling handshake", "GET", enginePath, false, false},
		{"a preflight", "OPTIONS", enginePath, false, false},
		{"a poll", "GET", enginePath + "&sid=" + v.sid, false, true},
		{"a POST", "POST", enginePath + "&sid=" + v.sid, false, true},
		{"an upgrade", "GET", "/socket.io/?EIO=4&transport=websocket&sid=" + v.sid, true, true},
	} {
		if want && r.sid {
			continue // it is another page's
		}
		head := lines
		if r.ws {
			head = append(head[:len(head):len(head)], webSocket...)
		}
		resp, body := v.ask(r.method, r.target, `42["echo","hijacked"]`, head...)
		switch {
		case want && resp.StatusCode >= 300:
			v.t.Errorf("%s: %s %s, want it let in", r.name, resp.Status, body)
		case !want && resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusBadRequest:
			v.t.Errorf("%s: %s %s, want 403", r.name, resp.Status, body)
		case !want && (resp.Header.Get("Access-Control-Allow-Origin") != "" || len(resp.Cookies()) > 0):
			v.t.Errorf("%s: refused with %v", r.name, resp.Header)
		}
	}
}

// TestSecurityCrossSiteHijacking: no page but our own opens, polls or takes over
// a socket with its visitor's cookies (RFC 6455, section 10.2; OWASP WSTG-CLNT-10).
func TestSecurityCrossSiteHijacking(t *testing.T) {
	const listed = "https://chat.example"
	cases := []struct {
		name, host string
		lines      []string // of the page's request
		same, list bool     // let in for the same host, and by the list
	}{
		{"own page", "chat.example", []string{"Origin: https://chat.example"}, true, true},
		{"own page, default port", "chat.example:443", []string{"Origin: https://chat.example"}, true, true},
		{"own page, upper case", "chat.example", []string{"Origin: HTTPS://CHAT.EXAMPLE"}, true, true},
		{"own page over http", "chat.example", []string{"Origin: http://chat.example"}, true, false},
		{"missing origin", "chat.example", nil, true, true}, // no browser, see the test of Sec-Fetch-Site
		{"foreign", "chat.example", []string{"Origin: https://evil.test"}, false, false},
		{"null", "chat.example", []string{"Origin: null"}, false, false},
		{"empty", "chat.example", []string{"Origin:"}, false, false},
		{"sub-domain", "chat.example", []string{"Origin: https://evil.chat.example"}, false, false},
		{"parent domain", "chat.example", []string{"Origin: https://example"}, false, false},
		{"look-alike suffix", "chat.example", []string{"Origin: https://chat.example.evil.test"}, false, false},
		{"look-alike prefix", "chat.example", []string{"Origin: https://notchat.example"}, false, false},
		{"look-alike dot", "chat.example", []string{"Origin: https://chatxexample"}, false, false},
		{"user info", "chat.example", []string{"Origin: https://chat.example@evil.test"}, false, false},
		{"user info with password", "chat.example", []string{"Origin: https://chat.example:443@evil.test"}, false, false},
		{"user info before the host", "chat.example", []string{"Origin: https://evil.test@chat.example"}, false, false},
		{"empty user info", "chat.example", []string{"Origin: https://@chat.example"}, false, false},
		{"backslash", "chat.example", []string{`Origin: https://chat.example\@evil.test`}, false, false},
		{"path", "chat.example", []string{"Origin: https://chat.example/"}, false, false},
		{"query", "chat.example", []string{"Origin: https://chat.example?"}, false, false},
		{"fragment", "chat.example", []string{"Origin: https://chat.example#"}, false, false},
		{"escaped", "chat.example", []string{"Origin: https://chat%2eexample"}, false, false},
		{"other port", "chat.example", []string{"Origin: https://chat.example:8443"}, false, false},
		{"other port of the host", "chat.example:8443", []string{"Origin: https://chat.example:9443"}, false, false},
		{"port of http under https", "chat.example", []string{"Origin: https://chat.example:80"}, false, false},
		{"port of https under http", "chat.example", []string{"Origin: http://chat.example:443"}, false, false},
		{"empty port", "chat.example", []string{"Origin: https://chat.example:"}, false, false},
		{"scheme ws", "chat.example", []string{"Origin: wss://chat.example"}, false, false},
		{"scheme file", "chat.example", []string{"Origin: file://"}, false, false},
		{"scheme of an extension", "chat.example", []string{"Origin: chrome-extension://chat.example"}, false, false},
		{"scheme javascript", "chat.example", []string{"Origin: javascript:chat.example"}, false, false},
		{"no scheme", "chat.example", []string{"Origin: chat.example"}, false, false},
		{"no host", "", []string{"Origin: https://"}, false, false},
		{"trailing dot", "chat.example", []string{"Origin: https://chat.example."}, false, false},
		{"IPv6 literal", "[::1]:3000", []string{"Origin: http://[::1]:3000"}, true, false},
		{"IPv6, other port", "[::1]:3000", []string{"Origin: http://[::1]:3001"}, false, false},
		{"IPv6, written out", "[::1]:3000", []string{"Origin: http://[0:0:0:0:0:0:0:1]:3000"}, false, false},
		{"IPv6, of IPv4", "127.0.0.1:3000", []string{"Origin: http://[::ffff:127.0.0.1]:3000"}, false, false},
		{"IPv6 with a zone", "[fe80::1]:3000", []string{"Origin: http://[fe80::1%25eth0]:3000"}, false, false},
		{"IPv6 look-alike", "[::1]:3000", []string{"Origin: http://[::1].evil.test:3000"}, false, false},
		{"IPv4 as a number", "127.0.0.1:3000", []string{"Origin: http://2130706433:3000"}, false, false},
		{"IPv4 shortened", "127.0.0.1:3000", []string{"Origin: http://127.1:3000"}, false, false},
		{"IDN in punycode", "xn--bcher-kva.example", []string{"Origin: https://xn--bcher-kva.example"}, true, false},
		{"IDN as written", "xn--bcher-kva.example", []string{"Origin: https://bücher.example"}, false, false},
		{"IDN homograph", "chat.example", []string{"Origin: https://xn--hat-5cd.example"}, false, false}, // a Cyrillic с
		{"letter that folds to ASCII", "kiosk.example", []string{"Origin: https://\u212aiosk.example"}, false, false},
		{"two headers", "chat.example", []string{"Origin: https://chat.example", "Origin: https://evil.test"}, false, false},
		{"two headers, own last", "chat.example", []string{"Origin: https://evil.test", "Origin: https://chat.example"}, false, false},
		{"two in one header", "chat.example", []string{"Origin: https://chat.example, https://evil.test"}, false, false},
		{"two in one header, as RFC 6454", "chat.example", []string{"Origin: https://chat.example https://evil.test"}, false, false},
		{"X-Forwarded-Host", "chat.example", []string{"Origin: https://evil.test", "X-Forwarded-Host: evil.test", "X-Forwarded-Proto: https"}, false, false},
		{"Forwarded", "chat.example", []string{"Origin: https://evil.test", "Forwarded: host=evil.test;proto=https"}, false, false},
		{"X-Host and its like", "chat.example", []string{"Origin: https://evil.test", "X-Host: evil.test", "X-Original-Host: evil.test", "X-HTTP-Host-Override: evil.test"}, false, false},
		{"Host with user info", "chat.example@evil.test", []string{"Origin: https://evil.test"}, false, false},
		{"Host with both", "evil.test, chat.example", []string{"Origin: https://evil.test"}, false, false},
		{"two Hosts", "chat.example", []string{"Origin: https://evil.test", "Host: evil.test"}, false, false},
		{"Host of the attacker's name (DNS rebinding)", "evil.test", []string{"Origin: https://evil.test"}, true, false},
	}
	for mode, origins := range map[string][]string{"same host": nil, "listed": {listed}} {
		t.Run(mode, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{Origins: origins, Logger: slog.New(slog.DiscardHandler)}, newMemstore(t), nil)
			v := newVictim(t, s, s.URL, "chat.example", listed)
			for _, tt := range cases {
				t.Run(tt.name, func(t *testing.T) {
					v.t = t
					want := tt.same
					if origins != nil {
						want = tt.list
					}
					v.wantLetIn(want, append([]string{"Host: " + tt.host}, tt.lines...)...)
				})
			}
			// And she notices nothing.
			v.t = t
			own := []string{"Host: chat.example", "Origin: " + listed}
			v.ask("POST", enginePath+"&sid="+v.sid, `421["me"]`, own...)
			if _, body := v.ask("GET", enginePath+"&sid="+v.sid, "", own...); body != `431["alice"]` {
				t.Errorf("her own connection has %s", body)
			}
		})
	}
}

// TestSecurityCrossSiteWithoutOrigin: browsers send no Origin with a GET that a
// page embeds (a script, an image), but say where it comes from
// (w3c.github.io/webappsec-fetch-metadata).
func TestSecurityCrossSiteWithoutOrigin(t *testing.T) {
	for _, tt := range []struct {
		site         string // Sec-Fetch-Site
		browsersOnly bool
		want         bool
	}{
		{"cross-site", false, false}, {"same-site", false, false}, {"CROSS-SITE", false, false}, {"nonsense", false, false},
		{"same-origin", false, true}, {"none", false, true}, {"", false, true}, {"", true, false}, {"same-origin", true, true},
	} {
		t.Run(fmt.Sprintf("%s/%t", tt.site, tt.browsersOnly), func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{BrowsersOnly: tt.browsersOnly, Logger: slog.New(slog.DiscardHandler)}, newMemstore(t), nil)
			v := newVictim(t, s, s.URL, "chat.example", "http://chat.example")
			lines := []string{"Host: chat.example"}
			if tt.site != "" {
				lines = append(lines, "Sec-Fetch-Site: "+tt.site)
			}
			v.wantLetIn(tt.want, lines...)
		})
	}
}

// TestSecurityDowngradedOrigin: over TLS, a page that was loaded without it is
// somebody else's: whoever sits in between has written it.
func TestSecurityDowngradedOrigin(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, newMemstore(t), nil)
	url := adaptertest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true}
		s.Engine.ServeHTTP(w, r)
	}))
	v := newVictim(t, s, url, "chat.example", "https://chat.example")
	v.wantLetIn(true, "Host: chat.example", "Origin: https://chat.example")
	v.wantLetIn(false, "Host: chat.example", "Origin: http://chat.example")
	v.wantLetIn(false, "Host: chat.example", "Origin: http://chat.example", "X-Forwarded-Proto: http")
}

// TestSecurityOriginListRefuses: what would let in more than it says.
func TestSecurityOriginListRefuses(t *testing.T) {
	for _, origin := range []string{
		"*", "https://*.chat.example", "https://*", "null", "", "chat.example", "//chat.example", "wss://chat.example",
		"https://chat.example/path", "https://user@chat.example", "https://chat.example?x", "https://bücher.example",
	} {
		if _, err := adapter.New(adapter.Config{Origins: []string{origin}}); err == nil || !strings.Contains(err.Error(), "Origins[0]") {
			t.Errorf("New with the origin %q: %v, want an error", origin, err)
		}
	}
}
