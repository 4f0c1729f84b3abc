package adapter_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// enginePath is the route of Engine.IO with what every request carries.
const enginePath = "/socket.io/?EIO=4&transport=polling"

// engineDo makes one request of the protocol, with b's cookies.
func engineDo(t *testing.T, b *adaptertest.Browser, method, path, body string, header http.Header) (status int, answer string, h http.Header) {
	t.Helper()
	resp, answer := send(t, b, method, path, body, header)
	return resp.StatusCode, answer, resp.Header
}

// send makes a request with b's cookies and returns the answer and its body.
func send(t *testing.T, b *adaptertest.Browser, method, path, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header[k] = v
	}
	resp, err := b.HTTP.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(got)
}

// engineOpen opens a session by polling, connects to "/" and returns the sid.
func engineOpen(t *testing.T, b *adaptertest.Browser) (sid string) {
	t.Helper()
	_, body, _ := engineDo(t, b, "GET", enginePath, "", nil)
	var open struct {
		SID      string   `json:"sid"`
		Upgrades []string `json:"upgrades"`
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "0")), &open); err != nil || open.SID == "" {
		t.Fatalf("handshake: %s", body)
	}
	if status, body, _ := engineDo(t, b, "POST", enginePath+"&sid="+open.SID, "40", nil); status != http.StatusOK {
		t.Fatalf("CONNECT: %d %s", status, body)
	}
	if _, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+open.SID, "", nil); !strings.HasPrefix(body, `40{"sid":`) {
		t.Fatalf("CONNECT was answered %s", body)
	}
	return open.SID
}

// TestP20SidAloneIsNoCredential: whoever learns a sid can neither read nor
// write nor take over, and its owner notices nothing.
func TestP20SidAloneIsNoCredential(t *testing.T) {
	var logged syncBuffer
	s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))}, newMemstore(t), nil)
	alice := s.NewBrowser(t, "alice")
	sid := engineOpen(t, alice)
	for name, thief := range map[string]*adaptertest.Browser{"nobody": s.NewBrowser(t, ""), "mallory": s.NewBrowser(t, "mallory")} {
		for _, method := range []string{"GET", "POST"} {
			if status, body, _ := engineDo(t, thief, method, enginePath+"&sid="+sid, `42["me"]`, nil); status != http.StatusForbidden {
				t.Errorf("%s by %s: %d %s, want 403", method, name, status, body)
			}
		}
		d := websocket.Dialer{Jar: thief.HTTP.Jar}
		if _, resp, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http")+"/socket.io/?EIO=4&transport=websocket&sid="+sid, nil); err == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("upgrade by %s: %v, want 403", name, err)
		}
	}
	if !strings.Contains(logged.String(), "somebody else's") || strings.Contains(logged.String(), sid) {
		t.Errorf("the log has %q, want a line without the sid", logged.String())
	}
	if status, _, _ := engineDo(t, alice, "POST", enginePath+"&sid="+sid, `420["me"]`, nil); status != http.StatusOK {
		t.Errorf("alice's own POST: %d", status)
	}
	if _, body, _ := engineDo(t, alice, "GET", enginePath+"&sid="+sid, "", nil); body != `430["alice"]` {
		t.Errorf("alice got %s", body)
	}
}

func TestP20OriginIsCheckedOnEveryRequest(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
	alice := s.NewBrowser(t, "alice")
	sid := engineOpen(t, alice)
	foreign := http.Header{"Origin": {"https://evil.example"}}
	for _, tt := range []struct{ method, path string }{{"GET", enginePath}, {"GET", enginePath + "&sid=" + sid}, {"POST", enginePath + "&sid=" + sid}, {"OPTIONS", enginePath}} {
		status, body, h := engineDo(t, alice, tt.method, tt.path, "", foreign)
		if status != http.StatusForbidden || !strings.Contains(body, `"code":4`) || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s from a foreign origin: %d %s %v", tt.method, tt.path, status, body, h)
		}
	}
}

// TestP20SessionMayBeRenewed: the same user with a new session id goes on.
func TestP20SessionMayBeRenewed(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
	alice := s.NewBrowser(t, "alice")
	sid := engineOpen(t, alice)
	alice.MustPost("/login?user=alice") // a new session id
	if status, body, _ := engineDo(t, alice, "POST", enginePath+"&sid="+sid, `420["me"]`, nil); status != http.StatusOK {
		t.Fatalf("POST with the renewed session: %d %s", status, body)
	}
	if _, body, _ := engineDo(t, alice, "GET", enginePath+"&sid="+sid, "", nil); body != `430["alice"]` {
		t.Errorf("alice got %s", body)
	}
}

// TestPollsCrossALogin: a browser goes on polling with the old cookie until it
// has the answer to its login. From elsewhere the old cookie and the sid are of
// no use.
func TestPollsCrossALogin(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, newMemstore(t), func(s *adaptertest.Site) { s.Server.AllowAnonymous() })
	b := s.NewBrowser(t, "")
	b.MustPost("/set?key=color&value=blue") // gives the visitor a session
	path := enginePath + "&sid=" + engineOpen(t, b)
	before := b.Clone()
	b.MustPost("/login?user=alice")
	for _, tt := range []struct {
		name   string
		header http.Header
		status int
	}{
		{"from the same place", nil, http.StatusOK},
		{"from elsewhere", http.Header{"X-Forwarded-For": {"203.0.113.66"}}, http.StatusForbidden},
		{"with a token", http.Header{"Authorization": {"Bearer other"}}, http.StatusForbidden},
	} {
		if status, body, _ := engineDo(t, before, "POST", path, `42["me"]`, tt.header); status != tt.status {
			t.Errorf("the old cookie %s: %d %s, want %d", tt.name, status, body, tt.status)
		}
	}
	if status, body, _ := engineDo(t, b, "POST", path, `42["me"]`, nil); status != http.StatusOK {
		t.Errorf("the new cookie: %d %s", status, body)
	}
}

func TestEngineIOErrors(t *testing.T) {
	s := openSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, nil)
	b := s.NewBrowser(t, "")
	sid := engineOpen(t, b)
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/socket.io/?EIO=3&transport=polling", 400, `{"code":5,"message":"Unsupported protocol version"}`},
		{"GET", "/socket.io/?transport=polling", 400, `{"code":5,"message":"Unsupported protocol version"}`},
		{"GET", "/socket.io/?EIO=4&transport=carrier-pigeon", 400, `{"code":0,"message":"Transport unknown"}`},
		{"GET", "/socket.io/?EIO=4", 400, `{"code":0,"message":"Transport unknown"}`},
		{"GET", enginePath + "&sid=nobody", 400, `{"code":1,"message":"Session ID unknown"}`},
		{"POST", enginePath, 400, `{"code":2,"message":"Bad handshake method"}`},
		{"GET", "/socket.io/?EIO=4&transport=websocket", 400, `{"code":3,"message":"Bad request"}`},
		{"GET", "/socket.io/?EIO=4&transport=websocket&sid=" + sid, 400, `{"code":3,"message":"Bad request"}`},
	} {
		if status, body, _ := engineDo(t, b, tt.method, tt.path, "", nil); status != tt.status || body != tt.body {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, status, body, tt.status, tt.body)
		}
	}
	for _, body := range []string{"abc", "", "4", "9", "42[", `42["connect"]`, "451-[]", "45x", "4\xff", strings.Repeat("4", 10)} {
		sid := engineOpen(t, b)
		_, _, _ = engineDo(t, b, "POST", enginePath+"&sid="+sid, body, nil)
		if _, answer, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil); answer != "1" && !strings.Contains(answer, `"code"`) {
			t.Errorf("after the POST %q the poll was answered %q, want the session to be closed", body, answer)
		}
	}
	sid = engineOpen(t, b)
	large := bytes.Repeat([]byte("x"), 1_000_001)
	if status, _, _ := engineDo(t, b, "POST", enginePath+"&sid="+sid, string(large), nil); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a POST of more than 1 MB: %d, want 413", status)
	}
}

func TestEngineIOCORSForListedOrigins(t *testing.T) {
	s := openSite(t, adapter.Config{Origins: []string{"https://chat.example"}}, nil)
	b := s.NewBrowser(t, "")
	origin := http.Header{"Origin": {"https://chat.example"}}
	for _, method := range []string{"GET", "OPTIONS"} {
		status, _, h := engineDo(t, b, method, enginePath, "", origin)
		if status >= 400 || h.Get("Access-Control-Allow-Origin") != "https://chat.example" || h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Vary") != "Origin" {
			t.Errorf("%s: %d %v", method, status, h)
		}
	}
}

func TestEngineIOOverlappingPolls(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	b := s.NewBrowser(t, "")
	sid := engineOpen(t, b)
	answers := make(chan string, 2)
	statuses := make(chan int, 2)
	for range 2 {
		go func() {
			r, _ := http.NewRequestWithContext(t.Context(), "GET", b.URL+enginePath+"&sid="+sid, nil)
			resp, err := b.HTTP.Do(r)
			if err != nil {
				answers <- err.Error()
				statuses <- 0
				return
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			answers <- string(body)
			statuses <- resp.StatusCode
		}()
	}
	got := map[string]bool{<-answers: true, <-answers: true}
	if !got["1"] || !got[`{"code":3,"message":"Bad request"}`] {
		t.Errorf("two polls at once were answered %v, want 1 and an error", got)
	}
	if a, b := <-statuses, <-statuses; a+b != 600 {
		t.Errorf("statuses %d and %d, want 200 and 400", a, b)
	}
}

// TestP20NobodysConnectionIsNotForTheTaking: whoever logs in elsewhere is not
// the one who has opened an anonymous connection.
func TestP20NobodysConnectionIsNotForTheTaking(t *testing.T) {
	s := openSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, nil)
	for name, owner := range map[string]*adaptertest.Browser{"without a session": s.NewBrowser(t, ""), "with one": s.NewBrowser(t, "")} {
		if name == "with one" {
			owner.MustPost("/set?key=color&value=red")
		}
		sid := engineOpen(t, owner)
		thief := s.NewBrowser(t, "mallory")
		if status, body, _ := engineDo(t, thief, "POST", enginePath+"&sid="+sid, `42["echo",1]`, nil); status != http.StatusForbidden {
			t.Errorf("%s: a POST by somebody: %d %s, want 403", name, status, body)
		}
		if status, body, _ := engineDo(t, owner, "POST", enginePath+"&sid="+sid, `420["echo",1]`, nil); status != http.StatusOK {
			t.Errorf("%s: the owner's POST: %d %s", name, status, body)
		}
	}
}

// TestP20SuccessorOfNobody: who logs in on the session of an anonymous
// connection goes on with it, whether or not there is a socket yet.
func TestP20SuccessorOfNobody(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	for _, connected := range []bool{true, false} {
		b := s.NewBrowser(t, "")
		b.MustPost("/set?key=color&value=red")
		_, body, _ := engineDo(t, b, "GET", enginePath, "", nil)
		var open struct{ SID string }
		if err := json.Unmarshal([]byte(body[1:]), &open); err != nil {
			t.Fatal(err)
		}
		path := enginePath + "&sid=" + open.SID
		if connected {
			engineDo(t, b, "POST", path, "40", nil)
			engineDo(t, b, "GET", path, "", nil)
		}
		b.MustPost("/login?user=alice")
		if !connected {
			if status, body, _ := engineDo(t, b, "POST", path, "40", nil); status != http.StatusOK {
				t.Fatalf("CONNECT after the login: %d %s", status, body)
			}
			if _, body, _ := engineDo(t, b, "GET", path, "", nil); !strings.HasPrefix(body, `40{"sid":`) {
				t.Fatalf("CONNECT after the login was answered %s", body)
			}
		}
		me := ""
		for deadline := time.Now().Add(5 * time.Second); me != `431["alice"]` && time.Now().Before(deadline); {
			engineDo(t, b, "POST", path, `421["me"]`, nil)
			_, me, _ = engineDo(t, b, "GET", path, "", nil)
		}
		if me != `431["alice"]` {
			t.Errorf("connected %v: me = %s, want alice", connected, me)
		}
	}
}

// TestP20TokenOfTheHandshakeCounts: the client of Socket.IO's guide to JWT sends
// "authorization: bearer …" on polls and cannot do so on the upgrade.
func TestP20TokenOfTheHandshakeCounts(t *testing.T) {
	b := adaptertest.NewBrowser(t, newTokenSite(t, adapter.Config{}, nil).URL)
	path := enginePath
	open := func(token string) string {
		_, body, _ := engineDo(t, b, "GET", path, "", http.Header{"Authorization": {token}})
		var open struct{ SID string }
		if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "0")), &open); err != nil {
			t.Fatalf("handshake: %s", body)
		}
		return open.SID
	}
	sid := open("bearer alice")
	for _, tt := range []struct {
		token  string
		status int
	}{
		{"bearer alice", 200},
		{"Bearer alice", 200},
		{"", 200},
		{"bearer alice2", 200}, // a fresh token of the same user
		{"", 200},
		{"bearer mallory", 403},
		{"bearer", 403},
		{"nonsense", 403},
	} {
		h := http.Header{}
		if tt.token != "" {
			h.Set("Authorization", tt.token)
		}
		if status, body, _ := engineDo(t, b, "POST", path+"&sid="+sid, "6", h); status != tt.status {
			t.Errorf("a POST with the token %q: %d %s, want %d", tt.token, status, body, tt.status)
		}
	}
}

// TestP20CookieOfAnyKindIsNeeded: a token in a cookie of which the adapter knows
// nothing is a credential like a session.
func TestP20CookieOfAnyKindIsNeeded(t *testing.T) {
	b := adaptertest.NewBrowser(t, newTokenSite(t, adapter.Config{}, nil).URL)
	cookie := func(v string) http.Header { return http.Header{"Cookie": {v}} }
	_, body, _ := engineDo(t, b, "GET", enginePath, "", cookie("theme=dark; jwt=alice"))
	var open struct{ SID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "0")), &open); err != nil {
		t.Fatalf("handshake: %s", body)
	}
	for _, tt := range []struct {
		header http.Header
		status int
	}{
		{cookie("theme=dark; jwt=alice"), 200},
		{cookie("jwt=alice; theme=dark"), 200},
		{cookie("jwt=alice2; theme=light"), 200},
		{cookie("theme=light"), 403},
		{cookie("jwt=mallory"), 403},
		{nil, 403},
	} {
		if status, body, _ := engineDo(t, b, "POST", enginePath+"&sid="+open.SID, "6", tt.header); status != tt.status {
			t.Errorf("a POST with %v: %d %s, want %d", tt.header, status, body, tt.status)
		}
	}
}

// TestP20TokenInThePlaceOfCookies: a client that shows its token with every request
// need not keep the cookies that middlewares give it, as most that are no browsers do
// not. Whose token it is is asked without them.
func TestP20TokenInThePlaceOfCookies(t *testing.T) {
	s := newTokenSite(t, adapter.Config{}, func(s *tokenSite) {
		s.Server.UseOnce(func(c *gin.Context) { c.SetCookie("csrf", "7", 3600, "/", "", false, true) })
	})
	b := adaptertest.NewBrowser(t, s.URL)
	b.HTTP.Jar = nil
	header := func(name, value string) http.Header { return http.Header{name: {value}} }
	for _, tt := range []struct {
		header http.Header
		status int
	}{
		{header("Authorization", "Bearer alice"), 200},
		{header("Authorization", "Bearer alice2"), 200},
		{header("Authorization", "Bearer mallory"), 403},
		{header("Authorization", "Bearer bad"), 403},
		{nil, 403},
	} {
		_, body, _ := engineDo(t, b, "GET", enginePath, "", header("Authorization", "Bearer alice"))
		var open struct{ SID string }
		if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "0")), &open); err != nil {
			t.Fatalf("handshake: %s", body)
		}
		for range 2 {
			if status, body, _ := engineDo(t, b, "POST", enginePath+"&sid="+open.SID, "6", tt.header); status != tt.status {
				t.Errorf("a POST with %v: %d %s, want %d", tt.header, status, body, tt.status)
			}
		}
	}
}
