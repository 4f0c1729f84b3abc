package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A pollingTab is a Socket.IO connection that polls with a browser's cookies.
type pollingTab struct {
	t       *testing.T
	b       *adaptertest.Browser
	sid     string
	calls   int
	packets []string
	set     []string // Set-Cookie of all answers so far
}

func openPolling(t *testing.T, b *adaptertest.Browser) *pollingTab {
	t.Helper()
	return &pollingTab{t: t, b: b, sid: engineOpen(t, b)}
}

func (p *pollingTab) post(by *adaptertest.Browser, packet string) {
	p.t.Helper()
	if status, body, _ := engineDo(p.t, by, "POST", enginePath+"&sid="+p.sid, packet, nil); status != http.StatusOK {
		p.t.Fatalf("POST %s: %d %s", packet, status, body)
	}
}

// poll makes one poll.
func (p *pollingTab) poll() {
	p.t.Helper()
	status, body, header := engineDo(p.t, p.b, "GET", enginePath+"&sid="+p.sid, "", nil)
	if status != http.StatusOK {
		p.t.Fatalf("poll: %d %s", status, body)
	}
	p.packets = append(p.packets, strings.Split(body, "\x1e")...)
	p.set = append(p.set, header["Set-Cookie"]...)
}

// call sends an event, as by does, and returns the arguments of its answer.
func (p *pollingTab) call(by *adaptertest.Browser, event, data string) string {
	p.t.Helper()
	p.calls++
	p.post(by, fmt.Sprintf(`42%d[%q,%s]`, p.calls, event, data))
	for ack := fmt.Sprintf("43%d", p.calls); ; p.poll() {
		if i := slices.IndexFunc(p.packets, func(s string) bool { return strings.HasPrefix(s, ack) }); i >= 0 {
			got := p.packets[i]
			p.packets = slices.Delete(p.packets, i, i+1)
			return strings.TrimPrefix(got, ack)
		}
	}
}

// put changes a value of the session by an event.
func (p *pollingTab) put(key, value string) {
	p.t.Helper()
	if got := p.call(p.b, "set", fmt.Sprintf(`{"key":%q,"value":%q}`, key, value)); got != "[]" {
		p.t.Fatalf("set %s: %s", key, got)
	}
}

// wantValue asks for a value by an event that by sends.
func (p *pollingTab) wantValue(by *adaptertest.Browser, key, want string) {
	p.t.Helper()
	if got := p.call(by, "get", fmt.Sprintf(`{"key":%q}`, key)); got != fmt.Sprintf("[%q]", want) {
		p.t.Errorf("the socket sees %s = %s, want %q", key, got, want)
	}
}

// wantPage asks a page for a value.
func wantPage(t *testing.T, b *adaptertest.Browser, key, want string) {
	t.Helper()
	if _, got := b.Get("/get?key=" + key); got != want {
		t.Errorf("a page sees %s = %q, want %q", key, got, want)
	}
}

func put(s *adapter.Socket, key string, value any) error {
	return s.Session().Update(context.Background(), func(v adapter.Values) error {
		v[key] = value
		return nil
	})
}

// TestCookieOverPolls: what a socket writes into a session in a cookie reaches the
// browser, on top of what was there, with the attributes that the cookie has.
func TestCookieOverPolls(t *testing.T) {
	st := cookie.NewStore(storeKey)
	st.Options(sessions.Options{Path: "/", MaxAge: 3600, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	s := adaptertest.NewSite(t, adapter.Config{}, st, nil)
	alice := s.NewBrowser(t, "alice")
	alice.MustPost("/set?key=color&value=blue")
	p := openPolling(t, alice)
	p.put("size", "xl")
	if len(p.set) != 1 {
		t.Fatalf("the polls set %q, want one cookie", p.set)
	}
	for _, attribute := range []string{"sid=", "Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax"} {
		if !strings.Contains(p.set[0], attribute) {
			t.Errorf("the polls set %q, want %q in it", p.set, attribute)
		}
	}
	for key, want := range map[string]string{"color": "blue", "size": "xl"} {
		p.wantValue(alice, key, want)
		wantPage(t, alice, key, want)
	}
	// And on it goes from both sides.
	alice.MustPost("/set?key=color&value=red")
	p.put("size", "s")
	for key, want := range map[string]string{"color": "red", "size": "s"} {
		p.wantValue(alice, key, want)
		wantPage(t, alice, key, want)
	}
}

// TestCookieOverPollsKeepsItsOptions: a cookie that was made with other attributes
// than its store's is not weakened.
func TestCookieOverPollsKeepsItsOptions(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newCookieStore(t), nil)
	s.Pages.POST("/remember", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Options(sessions.Options{Path: "/", MaxAge: 86400, HttpOnly: true, SameSite: http.SameSiteStrictMode})
		session.Set("remember", "me")
		if err := session.Save(); err != nil {
			t.Error(err)
		}
	})
	alice := s.NewBrowser(t, "alice")
	alice.MustPost("/remember")
	p := openPolling(t, alice)
	p.put("size", "xl")
	if len(p.set) != 1 || !strings.Contains(p.set[0], "Max-Age=86400") || !strings.Contains(p.set[0], "HttpOnly") || !strings.Contains(p.set[0], "SameSite=Strict") {
		t.Errorf("the polls set %q, want the attributes of the page", p.set)
	}
}

// TestCookieOverPollsSupersedes: what was not sent yet goes out with what comes
// after it, in one cookie; and an answer brings a cookie once.
func TestCookieOverPollsSupersedes(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newCookieStore(t), nil)
	alice := s.NewBrowser(t, "alice")
	p := openPolling(t, alice)
	sock := s.Server.Here("/")[0]
	for i := range 10 {
		if err := put(sock, fmt.Sprint("k", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := sock.Session().Get(t.Context(), "k3"); v != "v" || err != nil {
		t.Errorf("the socket sees k3 = %v, %v", v, err)
	}
	wantPage(t, alice, "k3", "")
	p.poll()
	if len(p.set) != 1 {
		t.Fatalf("the poll sets %q, want one cookie", p.set)
	}
	for i := range 10 {
		wantPage(t, alice, fmt.Sprint("k", i), "v")
	}
	p.wantValue(alice, "k9", "v")
	if len(p.set) != 1 {
		t.Errorf("later polls set %q again", p.set[1:])
	}
}

// TestCookieOverPollsAndRequestsUnderWay: a request that still shows the cookie
// before does not take the connection back to it, and asks nobody.
func TestCookieOverPollsAndRequestsUnderWay(t *testing.T) {
	var runs atomic.Int32
	s := adaptertest.NewSite(t, adapter.Config{Revalidate: -1}, newCookieStore(t), func(s *adaptertest.Site) {
		s.Server.Use(func(*gin.Context) { runs.Add(1) })
	})
	alice := s.NewBrowser(t, "alice")
	p := openPolling(t, alice)
	before := alice.Clone()
	for i := range 3 {
		p.put("n", fmt.Sprint(i))
		p.wantValue(before, "n", fmt.Sprint(i)) // sent before the answer came
		p.wantValue(alice, "n", fmt.Sprint(i))
	}
	wantPage(t, alice, "n", "2")
	// A client that keeps no cookies has the values for as long as it is connected.
	p.b = before
	p.put("n", "3")
	p.put("m", "4")
	p.wantValue(before, "n", "3")
	// The replays of Update, one in 250 ms at most, and those of pages.
	if n := runs.Load(); n > 30 {
		t.Errorf("the chain ran %d times", n)
	}
}

// TestCookieOverPollsGivesWayToPages: what a page has saved is not overwritten
// from a cookie that is older.
func TestCookieOverPollsGivesWayToPages(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newCookieStore(t), nil)
	alice := s.NewBrowser(t, "alice")
	p := openPolling(t, alice)
	sock := s.Server.Here("/")[0]
	if err := put(sock, "lost", "yes"); err != nil {
		t.Fatal(err)
	}
	alice.MustPost("/set?key=page&value=1")
	if err := put(sock, "socket", "1"); !errors.Is(err, adapter.ErrReadOnlySession) {
		t.Errorf("Update before the browser has shown its new cookie: %v, want ErrReadOnlySession", err)
	}
	p.poll() // shows it
	if len(p.set) > 0 {
		t.Errorf("the poll sets %q over what the page has saved", p.set)
	}
	if err := put(sock, "socket", "1"); err != nil {
		t.Error(err)
	}
	p.poll()
	for key, want := range map[string]string{"page": "1", "socket": "1"} {
		wantPage(t, alice, key, want)
		p.wantValue(alice, key, want)
	}
	wantPage(t, alice, "lost", "")
}

// TestCookieOverPollsAfterTheEnd: the cookie of a session that has ended does not
// take the place of what came after it.
func TestCookieOverPollsAfterTheEnd(t *testing.T) {
	for _, end := range []string{"/logout", "/login?user=alice", "/login?user=bob"} {
		t.Run(end, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{}, newCookieStore(t), nil)
			alice := s.NewBrowser(t, "alice")
			p := openPolling(t, alice)
			sock := s.Server.Here("/")[0]
			if err := put(sock, "k", "v"); err != nil {
				t.Fatal(err)
			}
			thief := alice.Clone()
			alice.MustPost(end)
			for name, b := range map[string]*adaptertest.Browser{"before": thief, "now": alice} {
				_, body, header := engineDo(t, b, "GET", enginePath+"&sid="+p.sid, "", nil)
				if set := header["Set-Cookie"]; len(set) > 0 {
					t.Errorf("a poll with the cookie of %s was answered %s and sets %q", name, body, set)
				}
			}
			wantPage(t, alice, "k", "")
			if status, body := thief.Get("/me"); status != http.StatusUnauthorized {
				t.Errorf("GET /me with the old cookie: %d %s", status, body)
			}
			if end == "/logout" {
				if err := put(sock, "k", "v"); !errors.Is(err, adapter.ErrSessionGone) {
					t.Errorf("Update afterwards: %v, want ErrSessionGone", err)
				}
			}
		})
	}
}

// TestCookieOverPollsIsOfItsConnection: sockets of this connection are asked again
// with what was changed, those of other tabs with what they have.
func TestCookieOverPollsIsOfItsConnection(t *testing.T) {
	changed := make(chan string, 10)
	cfg := quick
	s := adaptertest.NewSite(t, cfg, newCookieStore(t), func(s *adaptertest.Site) {
		s.Server.OnIdentity(func(_ context.Context, sock *adapter.Socket, _ *adapter.Identity) error {
			changed <- fmt.Sprint(sock.ID(), sock.Identity().Roles)
			return nil
		})
	})
	alice := s.NewBrowser(t, "alice")
	other := openPolling(t, alice)
	before := s.Server.Here("/")[0]
	p := openPolling(t, alice)
	socks := s.Server.Here("/")
	sock := socks[slices.IndexFunc(socks, func(s *adapter.Socket) bool { return s != before })]
	p.put("role", "admin")
	if got, want := <-changed, sock.ID()+"[admin]"; got != want {
		t.Errorf("OnIdentity saw %s, want %s", got, want)
	}
	for range 2 * time.Second / (100 * time.Millisecond) {
		if roles := before.Identity().Roles; len(roles) > 0 {
			t.Fatalf("the other tab has the roles %v before it has shown the cookie", roles)
		}
		p.wantValue(alice, "role", "admin")
	}
	if roles := sock.Identity().Roles; len(roles) != 1 {
		t.Errorf("after replays the socket has the roles %v", roles)
	}
	// The other tab's requests show the browser's cookie.
	other.wantValue(alice, "role", "admin")
	if got, want := <-changed, before.ID()+"[admin]"; got != want {
		t.Errorf("OnIdentity saw %s, want %s", got, want)
	}
}

// TestCookieOverPollsAndTheUpgrade: what waits goes with the answer to the
// upgrade, and from then on the session is read-only.
func TestCookieOverPollsAndTheUpgrade(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newCookieStore(t), nil)
	alice := s.NewBrowser(t, "alice")
	p := openPolling(t, alice)
	sock := s.Server.Here("/")[0]
	if err := put(sock, "k", "v"); err != nil {
		t.Fatal(err)
	}
	d := websocket.Dialer{Jar: alice.HTTP.Jar}
	conn, resp, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http")+"/socket.io/?EIO=4&transport=websocket&sid="+p.sid, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if len(resp.Cookies()) != 1 {
		t.Errorf("the upgrade sets %v, want the session's cookie", resp.Cookies())
	}
	wantPage(t, alice, "k", "v")
	wsWrite(t, conn, "2probe")
	if got := wsRead(t, conn); got != "3probe" {
		t.Fatalf("the probe was answered %s", got)
	}
	upgrading := put(sock, "k", "w")
	p.poll()
	wsWrite(t, conn, "5", `427["get",{"key":"k"}]`)
	got := wsRead(t, conn)
	for !strings.HasPrefix(got, "437") {
		got = wsRead(t, conn)
	}
	if got != `437["v"]` {
		t.Errorf("over the WebSocket k is %s", got)
	}
	for what, err := range map[string]error{"while it upgrades": upgrading, "over a WebSocket": put(sock, "k", "x")} {
		if !errors.Is(err, adapter.ErrReadOnlySession) {
			t.Errorf("Update %s: %v, want ErrReadOnlySession", what, err)
		}
	}
	if len(p.set) > 0 {
		t.Errorf("the polls set %q too", p.set)
	}
}

// TestCookieOverPollsOfQuerySession: a client that keeps no cookies gets none.
func TestCookieOverPollsOfQuerySession(t *testing.T) {
	cfg := adapter.Config{Credentials: []adapter.Source{adapter.QuerySession("session", "sid")}}
	s := adaptertest.NewSite(t, cfg, newCookieStore(t), nil)
	alice := s.NewBrowser(t, "alice")
	_, body, _ := engineDo(t, s.NewBrowser(t, ""), "GET", enginePath+"&session="+url.QueryEscape(alice.Cookies()[0].Value), "", nil)
	if !strings.HasPrefix(body, "0{") {
		t.Fatalf("handshake: %s", body)
	}
	openPolling(t, alice)
	if err := put(s.Server.Here("/")[0], "k", "v"); !errors.Is(err, adapter.ErrReadOnlySession) {
		t.Errorf("Update: %v, want ErrReadOnlySession", err)
	}
}

// TestCookieOverPollsRefusesTooMuch: what does not fit into a cookie is an error,
// and changes nothing.
func TestCookieOverPollsRefusesTooMuch(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newCookieStore(t), nil)
	alice := s.NewBrowser(t, "alice")
	p := openPolling(t, alice)
	sock := s.Server.Here("/")[0]
	if err := put(sock, "k", strings.Repeat("v", 5000)); err == nil {
		t.Error("5,000 bytes fit into a cookie")
	}
	if v, err := sock.Session().Get(t.Context(), "k"); v != nil || err != nil {
		t.Errorf("k = %v, %v", v, err)
	}
	p.put("k", "v")
	wantPage(t, alice, "k", "v")
}

// TestCookieOverPollsOfTheRealClient: answers that bring nothing but a cookie
// disturb no client.
func TestCookieOverPollsOfTheRealClient(t *testing.T) {
	for _, transport := range []string{"polling", "polling 3.x", "polling 2.x"} {
		t.Run(transport, func(t *testing.T) {
			n := startNode(t)
			s := adaptertest.NewSite(t, adapter.Config{AllowEIO3: true}, newCookieStore(t), nil)
			c := n.open("c", s.NewBrowser(t, "alice"), "/", transport, nil)
			c.await("connect")
			sock := s.Server.Here("/")[0]
			for i := range 10 {
				if err := put(sock, fmt.Sprint("k", i), "v"); err != nil {
					t.Fatal(err)
				}
				if got := c.call("get", map[string]string{"key": fmt.Sprint("k", i)}); got != `["v"]` {
					t.Errorf("k%d = %s", i, got)
				}
			}
			if got := c.call("set", map[string]string{"key": "k", "value": "w"}); got != "[]" {
				t.Errorf("set was answered %s", got)
			}
			if got := c.call("get", map[string]string{"key": "k"}); got != `["w"]` {
				t.Errorf("k = %s", got)
			}
		})
	}
}
