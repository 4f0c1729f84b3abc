package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/app"
)

// A ticket is the answer of POST /api/login.
type ticket struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// apiDo makes a request as programs do that keep no cookies.
func apiDo(t *testing.T, method, url, body string, header http.Header) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header.Clone()
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

// tokenOf logs name in and returns the token.
func tokenOf(t *testing.T, site, name string) ticket {
	t.Helper()
	status, body := apiDo(t, "POST", site+"/api/login", fmt.Sprintf(`{"user":%q}`, name), nil)
	var got ticket
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || got.Token == "" {
		t.Fatalf("POST /api/login as %s: %d %s", name, status, body)
	}
	return got
}

func authorization(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

// TestTokenNamesTheSamePerson: whoever logs in over the provider's pages and
// whoever asks for a token under the same name are one.
func TestTokenNamesTheSamePerson(t *testing.T) {
	site, _ := startSite(t, t.TempDir())
	alice := adaptertest.NewBrowser(t, site)
	token := tokenOf(t, site, "Alice").Token
	self := func(h http.Header) (status int, u app.User) {
		t.Helper()
		status, body := apiDo(t, "GET", site+"/api/self", "", h)
		if err := json.Unmarshal([]byte(body), &u); err != nil {
			t.Fatalf("GET /api/self: %d %s", status, body)
		}
		return status, u
	}
	if status, u := self(nil); status != http.StatusUnauthorized || u.ID != "" {
		t.Errorf("nobody is %d %+v, want 401", status, u)
	}
	if status, u := self(authorization(token + "x")); status != http.StatusUnauthorized || u.ID != "" {
		t.Errorf("a bad token is %d %+v, want 401", status, u)
	}
	_, byToken := self(authorization(token))
	logIn(t, alice, "alice")
	if bySession := whoAmI(t, alice); byToken != bySession || byToken.Name != "Alice" || byToken.Avatar == "" {
		t.Errorf("by token %+v, by session %+v", byToken, bySession)
	}
	if status, body := alice.Get("/api/self"); status != http.StatusOK || !strings.Contains(body, byToken.ID) {
		t.Errorf("GET /api/self by session: %d %s", status, body)
	}
	// Who shows a token means to be known by it.
	cookie := http.Header{"Cookie": {alice.Cookies()[0].Name + "=" + alice.Cookies()[0].Value}}
	for token, want := range map[string]string{tokenOf(t, site, "bob").Token: "Bob", "bad": ""} {
		h := cookie.Clone()
		h.Set("Authorization", "Bearer "+token)
		if _, u := self(h); u.Name != want {
			t.Errorf("alice's cookie with the token of %q is %+v", want, u)
		}
	}
}

func TestTokensAreForDevelopmentOnly(t *testing.T) {
	site, _ := startSite(t, t.TempDir(), func(s *settings) {
		real, err := settingsFromEnv(func(name string) string {
			return map[string]string{"GITHUB_CLIENT_ID": "id", "GITHUB_CLIENT_SECRET": "secret"}[name]
		})
		if err != nil {
			t.Fatal(err)
		}
		s.providers = real.providers
	})
	if status, body := apiDo(t, "POST", site+"/api/login", `{"user":"alice"}`, nil); status != http.StatusNotFound || !strings.Contains(body, `"code":"not_found"`) {
		t.Errorf("POST /api/login: %d %s, want 404", status, body)
	}
}

// TestTokenOpensSocketsFromEverywhere: the same token, wherever a client can put
// it, in plain JSON.
func TestTokenOpensSocketsFromEverywhere(t *testing.T) {
	site, _ := startSite(t, t.TempDir())
	token := tokenOf(t, site, "alice").Token
	bob := adaptertest.NewBrowser(t, site)
	logIn(t, bob, "bob")
	heard := bob.Dial(socketPath)
	heard.Must("join", map[string]string{"room": "lobby"}, nil)
	for place, tt := range map[string]struct {
		header http.Header
		first  string
	}{
		"header":        {header: authorization(token)},
		"subprotocol":   {header: http.Header{"Sec-Websocket-Protocol": {"bearer, " + token}}},
		"first message": {first: token},
	} {
		t.Run(place, func(t *testing.T) {
			c, _, err := adaptertest.NewBrowser(t, site).TryDial(socketPath, tt.header)
			if err != nil {
				t.Fatal(err)
			}
			if tt.first != "" {
				if f := c.Call("join", map[string]string{"room": "lobby"}); f.Error == nil || f.Error.Code != "unauthenticated" {
					t.Errorf("before the token: %s", f)
				}
				c.Raw(fmt.Sprintf(`{"type":"authenticate","token":%q,"id":"first"}`, tt.first))
				if f := c.Event("reply"); f.Error != nil {
					t.Fatalf("authenticate: %s", f)
				}
			}
			c.Event("connect")
			var in joined
			c.Must("join", map[string]string{"room": "lobby"}, &in)
			if len(in.Members) != 2 || in.Members[0].Name != "Alice" {
				t.Errorf("members = %+v, want Alice and Bob", in.Members)
			}
			c.Must("chat message", map[string]string{"room": "lobby", "text": "by " + place}, nil)
			if f := heard.Event("chat message"); !strings.Contains(f.String(), "by "+place) || !strings.Contains(f.String(), "Alice") {
				t.Errorf("bob heard %s", f)
			}
			c.Close()
		})
	}
}

// TestTokenOpensSocketIOFromEverywhere is the same with socket.io-client.
func TestTokenOpensSocketIOFromEverywhere(t *testing.T) {
	client := nodeClient(t)
	site, _ := startSite(t, t.TempDir())
	token := tokenOf(t, site, "alice").Token
	bob := adaptertest.NewBrowser(t, site)
	logIn(t, bob, "bob")
	heard := bob.Dial(socketPath)
	heard.Must("join", map[string]string{"room": "lobby"}, nil)
	const script = `
const { io } = require("socket.io-client");
const [site, token, names] = process.argv.slice(1);
const places = {
  header: { extraHeaders: { authorization: "bearer " + token } }, // as in Socket.IO's guide
  subprotocol: { protocols: ["bearer", token], transports: ["websocket"] },
  auth: { auth: { token } },
  first: {},
};
const transports = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };
(async () => {
  for (const name of names.split(" ")) {
    const [place, transport] = name.split("/");
    const socket = io(site, { forceNew: true, reconnection: false, transports: transports[transport], ...places[place] });
    await new Promise((resolve, reject) => socket.on("connect", resolve).on("connect_error", reject));
    if (place === "first") {
      const early = await socket.emitWithAck("join", { room: "lobby" });
      if (early.error?.code !== "unauthenticated") throw new Error("before the token: " + JSON.stringify(early));
      const refused = await socket.emitWithAck("authenticate", { token });
      if (refused?.error) throw new Error("authenticate: " + JSON.stringify(refused));
    }
    const { members } = await socket.emitWithAck("join", { room: "lobby" });
    const own = new Promise((resolve) => socket.on("chat message", resolve));
    await socket.emitWithAck("chat message", { room: "lobby", text: "by " + name });
    console.log(name, members.map((m) => m.name).join(" "), (await own).user.name);
    socket.close();
  }
})().catch((e) => { console.log("failed:", e.message); process.exit(1); });`
	var names []string
	for _, transport := range []string{"polling", "websocket", "upgrade"} {
		for _, place := range []string{"header", "subprotocol", "auth", "first"} {
			if place != "subprotocol" || transport == "websocket" { // polls have none
				names = append(names, place+"/"+transport)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), "node", "-e", script, site, token, strings.Join(names, " "))
	cmd.Dir = client
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(names) {
		t.Fatalf("%d of %d:\n%s", len(lines), len(names), out)
	}
	for i, name := range names {
		if want := name + " Alice Bob Alice"; lines[i] != want {
			t.Errorf("got %q, want %q", lines[i], want)
		}
		if f := heard.Event("chat message"); !strings.Contains(f.String(), "by "+name) {
			t.Errorf("bob heard %s, want what was said by %s", f, name)
		}
	}
}

// TestTokenEndsItsSocket: a socket ends with its token, unless it is shown a
// fresh one before.
func TestTokenEndsItsSocket(t *testing.T) {
	site, _ := startSite(t, t.TempDir(), func(s *settings) { s.TokenLife = 2 * time.Second })
	open := func(token ticket) *adaptertest.Conn {
		t.Helper()
		c, _, err := adaptertest.NewBrowser(t, site).TryDial(socketPath, authorization(token.Token))
		if err != nil {
			t.Fatal(err)
		}
		c.Must("join", map[string]string{"room": "lobby"}, nil)
		return c
	}
	first := tokenOf(t, site, "alice")
	left, stays := open(first), open(first)
	second := first
	for !second.Expires.After(first.Expires) { // tokens have whole seconds
		second = tokenOf(t, site, "alice")
	}
	stays.Raw(fmt.Sprintf(`{"type":"authenticate","token":%q,"id":"again"}`, second.Token))
	if f := stays.Event("reply"); f.Error != nil {
		t.Fatalf("a fresh token: %s", f)
	}
	stays.Raw(fmt.Sprintf(`{"type":"authenticate","token":%q,"id":"other"}`, tokenOf(t, site, "bob").Token))
	if f := stays.Event("reply"); f.Error == nil || f.Error.Code != "forbidden" {
		t.Errorf("somebody else's token: %s, want forbidden", f)
	}
	if code := left.Closed(); code != 4410 || time.Now().Before(first.Expires) {
		t.Errorf("closed with %d at %v, want 4410 at %v", code, time.Now(), first.Expires)
	}
	if code := stays.Closed(); code != 4410 || time.Now().Before(second.Expires) {
		t.Errorf("closed with %d at %v, want 4410 at %v", code, time.Now(), second.Expires)
	}
	if _, resp, err := adaptertest.NewBrowser(t, site).TryDial(socketPath, authorization(first.Token)); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("an expired token: %v, want 401", err)
	}
}

func TestTokenSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	site, stop := startSite(t, dir)
	token := tokenOf(t, site, "alice").Token
	stop()
	if info, err := os.Stat(filepath.Join(dir, "token-keys.json")); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the keys: %v, %v", info, err)
	}
	// On the same port, because a token is of the site at its address.
	port := site[strings.LastIndex(site, ":")+1:]
	p := startProcess(t, dir, "PORT="+port)
	if status, body := apiDo(t, "GET", p.site+"/api/self", "", authorization(token)); status != http.StatusOK {
		t.Errorf("GET /api/self: %d %s", status, body)
	}
}

// A journal is a log that can be written from everywhere.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// TestTheProgramLogsNoSecrets: everything that the program writes at its most
// talkative, of people who come by session and by token, and who are refused.
func TestTheProgramLogsNoSecrets(t *testing.T) {
	logs := new(journal)
	def, std := slog.Default(), log.Writer()
	t.Cleanup(func() {
		slog.SetDefault(def)
		log.SetOutput(std)
	})
	slog.SetDefault(slog.New(slog.NewTextHandler(logs, nil))) // and package log, for what libraries say
	dir := t.TempDir()
	site, stop := startSite(t, dir, func(s *settings) {
		s.Log = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	alice := adaptertest.NewBrowser(t, site)
	logIn(t, alice, "alice")
	token := tokenOf(t, site, "bob").Token
	secrets := map[string]string{"token": token, "signature": token[strings.LastIndex(token, ".")+1:]}
	for _, c := range alice.Cookies() {
		secrets["cookie "+c.Name] = c.Value
	}
	bodies := make(map[string]string)
	ask := func(method, path, body string, h http.Header) {
		status, answer := apiDo(t, method, site+path, body, h)
		bodies[fmt.Sprint(method, " ", path, " ", status)] = answer
	}
	good, bad := authorization(token), authorization(token+"x")
	for _, h := range []http.Header{good, bad} {
		for _, path := range []string{"/", "/me", "/api/self", "/nowhere?token=" + token, "/room/nowhere", "/api/nothing", socketPath} {
			ask("GET", path, "", h)
		}
		ask("POST", "/logout", "", h)
		ask("POST", "/api/login", `{"user":"`+token+`"}`, h)
		ask("POST", "/api/login", `{"user":"`+token, h)
		cross := h.Clone()
		cross.Set("Origin", "https://evil.example")
		ask("POST", "/api/login", `{"user":"alice"}`, cross)
		ask("GET", socketPath, "", cross)
	}
	dial := func(h http.Header, let bool) *adaptertest.Conn {
		t.Helper()
		c, resp, err := adaptertest.NewBrowser(t, site).TryDial(socketPath, h)
		if let != (err == nil) {
			t.Fatalf("dial: %v, want success %t", err, let)
		}
		if err != nil {
			body, _ := io.ReadAll(resp.Body)
			bodies["refused socket"] += string(body)
		}
		return c
	}
	dial(bad, false)
	dial(http.Header{"Sec-Websocket-Protocol": {"bearer, " + token + "x"}}, false)
	dial(http.Header{"Sec-Websocket-Protocol": {"bearer, " + token}, "Origin": {"https://evil.example"}}, false)
	c := dial(http.Header{"Sec-Websocket-Protocol": {"bearer, " + token}}, true)
	c.Must("join", map[string]string{"room": "lobby"}, nil)
	c = dial(nil, true)
	c.Raw(`{"type":"authenticate","token":"` + token + `x","id":1}`)
	bodies["first message"] = c.Event("reply").String()
	c.Raw(`{"type":"authenticate","token":"` + token + `","id":2}`)
	c.Event("connect")
	c.Call("nothing", token)
	db := openDatabase(t, dir)
	for _, table := range []string{"users", "sessions"} {
		execSQL(t, db, `ALTER TABLE `+table+` RENAME TO away`)
		cookie := http.Header{"Cookie": {alice.Cookies()[0].Name + "=" + alice.Cookies()[0].Value}}
		ask("GET", "/", "", cookie)
		ask("POST", "/logout", "", cookie)
		dial(cookie, false)
		ask("GET", "/api/self", "", good)
		ask("POST", "/api/login", `{"user":"alice"}`, good)
		execSQL(t, db, `ALTER TABLE away RENAME TO `+table)
	}
	stop()
	for _, want := range []string{"issued a token", "socket accepted", "handshake refused", "request failed", "a page was refused", "[sessions] ERROR"} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	for what, secret := range secrets {
		if before, _, found := strings.Cut(logs.String(), secret); found {
			t.Errorf("the log has the %s: …%s", what, before[max(0, len(before)-200):])
		}
		for of, body := range bodies {
			if strings.Contains(body, secret) {
				t.Errorf("the answer to %s has the %s: %s", of, what, body)
			}
		}
	}
}
