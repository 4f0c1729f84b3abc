package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/app"
)

const socketPath = "/socket.io/ws"

// startSite runs the program in this process, on a free port and dir, and
// returns its URL. change may change its settings. stop ends it as a signal would and reports how it went.
func startSite(t *testing.T, dir string, change ...func(*settings)) (site string, stop func()) {
	t.Helper()
	cfg, err := settingsFromEnv(func(name string) string {
		return map[string]string{"PORT": "0", "DATA_DIR": dir, "LOG_LEVEL": "error"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(&cfg)
	}
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	cfg.announce = func(public *url.URL) { ready <- public.String() }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg, listener) }()
	select {
	case site = <-ready:
	case err := <-ended:
		t.Fatalf("the program ended at once: %v", err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return site, stop
}

var (
	inputs  = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
	actions = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
)

// logIn walks name through the real login: the list of providers, the
// provider's page, its question, and back.
func logIn(t *testing.T, b *adaptertest.Browser, name string) {
	t.Helper()
	_, body := b.Get("/login")
	link := regexp.MustCompile(`href="(/login/dev[^"]*)"`).FindStringSubmatch(body)
	if link == nil {
		t.Fatalf("the login page lists no development provider: %s", body)
	}
	_, body = b.Get(html.UnescapeString(link[1]))
	for _, answer := range []url.Values{{"username": {name}}, {"decision": {"allow"}}} {
		action := actions.FindStringSubmatch(body)
		if action == nil {
			t.Fatalf("expected a form of the provider, got %s", body)
		}
		for _, m := range inputs.FindAllStringSubmatch(body, -1) {
			answer.Add(html.UnescapeString(m[1]), html.UnescapeString(m[2]))
		}
		_, body = b.Post(html.UnescapeString(action[1]), answer)
	}
	if me := whoAmI(t, b); !strings.EqualFold(me.Name, name) {
		t.Fatalf("after logging in, /me is %+v, want %s", me, name)
	}
}

// whoAmI returns who /me says b is.
func whoAmI(t *testing.T, b *adaptertest.Browser) (me app.User) {
	t.Helper()
	status, body := b.Get("/me")
	if status != http.StatusOK {
		return app.User{}
	}
	if err := json.Unmarshal([]byte(body), &me); err != nil {
		t.Fatalf("/me: %v: %s", err, body)
	}
	return me
}

type joined struct {
	Room     string        `json:"room"`
	Members  []app.User    `json:"members"`
	Messages []app.Message `json:"messages"`
}

type posted struct {
	ID int64     `json:"id"`
	At time.Time `json:"at"`
}

func TestSettingsNameEveryVariableThatIsWrong(t *testing.T) {
	wrong := map[string]string{"PORT": "x", "GITHUB_CLIENT_ID": "x"}
	_, err := settingsFromEnv(func(name string) string { return wrong[name] })
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"PORT=x", "GITHUB_CLIENT_SECRET"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

// The development provider lets anybody in as anybody, so nothing but this
// machine may ever reach it.
func TestDevelopmentProviderStaysOnLoopback(t *testing.T) {
	github := map[string]string{"GITHUB_CLIENT_ID": "id", "GITHUB_CLIENT_SECRET": "secret"}
	tests := []struct {
		name, public, addr string
		env                map[string]string
		dev                bool
		wantErr            bool
	}{
		{"loopback", "http://localhost:3000", "127.0.0.1:3000", nil, true, false},
		{"all interfaces", "http://localhost:3000", "0.0.0.0:3000", nil, false, true},
		{"behind a proxy or tunnel", "https://chat.example.org", "127.0.0.1:3000", nil, false, true},
		{"real provider", "https://chat.example.org", "0.0.0.0:3000", github, false, false},
		{"real provider on loopback", "http://localhost:3000", "127.0.0.1:3000", github, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, err := net.ResolveTCPAddr("tcp", tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			public, err := url.Parse(tt.public)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := settingsFromEnv(func(name string) string { return tt.env[name] })
			if err != nil {
				t.Fatal(err)
			}
			providers, dev, err := loginProviders(cfg, public, addr)
			if (err != nil) != tt.wantErr || (dev != nil) != tt.dev {
				t.Fatalf("loginProviders: handler %v, error %v; want handler %t, error %t", dev, err, tt.dev, tt.wantErr)
			}
			if err != nil {
				if !strings.Contains(err.Error(), "GITHUB_CLIENT_ID") {
					t.Errorf("error %q does not say what to set", err)
				}
				return
			}
			if len(providers) != 1 || (providers[0].Name() == "dev") != tt.dev {
				t.Errorf("providers = %v", providers)
			}
		})
	}
}

func TestCookieName(t *testing.T) {
	if got := cookieName(true); !strings.HasPrefix(got, "__Host-") {
		t.Errorf("over https: %q, want the __Host- prefix", got)
	}
	if got := cookieName(false); strings.HasPrefix(got, "__") {
		t.Errorf("over http: %q, which browsers refuse", got)
	}
}

func TestRunServesUntilToldToStop(t *testing.T) {
	site, stop := startSite(t, t.TempDir())
	if status, _ := adaptertest.NewBrowser(t, site).Get("/healthz"); status != http.StatusOK {
		t.Errorf("healthz: status %d, want 200", status)
	}
	stop()
	if conn, err := net.Dial("tcp", strings.TrimPrefix(site, "http://")); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

func TestTwoPeopleChatAndOneLogsOut(t *testing.T) {
	site, _ := startSite(t, t.TempDir())
	alice, bob := adaptertest.NewBrowser(t, site), adaptertest.NewBrowser(t, site)
	early, _, err := alice.TryDial(socketPath+"?refusals=close", nil)
	if err != nil {
		t.Fatal(err)
	}
	if code := early.Closed(); code != 4401 {
		t.Fatalf("a socket before login closed with %d, want 4401", code)
	}
	logIn(t, alice, "alice")
	logIn(t, bob, "bob")

	var in joined
	a := alice.Dial(socketPath)
	a.Must("join", map[string]string{"room": "lobby"}, &in)
	if len(in.Members) != 1 || in.Members[0] != whoAmI(t, alice) {
		t.Errorf("the socket joined as %+v, /me is %+v", in.Members, whoAmI(t, alice))
	}
	b1, b2 := bob.Dial(socketPath), bob.Dial(socketPath)
	b1.Must("join", map[string]string{"room": "lobby"}, nil)
	b2.Must("join", map[string]string{"room": "lobby"}, &in)
	if len(in.Members) != 2 {
		t.Errorf("two people with three sockets are the members %+v", in.Members)
	}

	var ack posted
	b1.Must("chat message", map[string]string{"room": "lobby", "text": "Good evening"}, &ack)
	for name, c := range map[string]*adaptertest.Conn{"alice": a, "bob's first tab": b1, "bob's second tab": b2} {
		var m app.Message
		f := c.Event("chat message")
		if err := json.Unmarshal(f.Data, &m); err != nil {
			t.Fatal(err)
		}
		if m.ID != ack.ID || m.Text != "Good evening" || m.Room != "lobby" || m.User != whoAmI(t, bob) || !m.At.Equal(ack.At) {
			t.Errorf("%s got %s, want bob's message %d", name, f, ack.ID)
		}
	}
	if status, page := alice.Get("/room/lobby"); status != http.StatusOK || !strings.Contains(page, "Good evening") {
		t.Errorf("the room's page has no message: %d", status)
	}

	if status, _ := bob.Get("/logout"); status == http.StatusOK || status == http.StatusSeeOther {
		t.Errorf("GET /logout: %d; a link must not log anybody out", status)
	}
	bob.Post("/logout", nil)
	for _, c := range []*adaptertest.Conn{b1, b2} {
		if code := c.Closed(); code != 4409 {
			t.Errorf("bob's socket closed with %d, want 4409", code)
		}
	}
	if me := whoAmI(t, bob); me.ID != "" {
		t.Errorf("/me after logout is %+v", me)
	}
	a.Must("chat message", map[string]string{"room": "lobby", "text": "Alone now"}, nil)
	f := a.Event("presence")
	for strings.Contains(f.String(), `"Bob"`) { // bob's coming was announced too
		f = a.Event("presence")
	}
}

// nodeClient returns the folder from which Node.js finds socket.io-client.
func nodeClient(t *testing.T) string {
	t.Helper()
	client := filepath.Join("adapter", "testdata", "node")
	if _, err := os.Stat(filepath.Join(client, "node_modules", "socket.io-client")); err != nil {
		if os.Getenv("USHER_TEST") == "full" {
			t.Fatal("needs npm install in " + client)
		}
		t.Skip("needs npm install in " + client)
	}
	return client
}

// TestChatOverSocketIO is the chat as the unmodified socket.io-client uses it:
// the same events as over a plain WebSocket, in the same room.
func TestChatOverSocketIO(t *testing.T) {
	client := nodeClient(t)
	site, _ := startSite(t, t.TempDir())
	alice, bob := adaptertest.NewBrowser(t, site), adaptertest.NewBrowser(t, site)
	logIn(t, alice, "alice")
	logIn(t, bob, "bob")
	plain := alice.Dial(socketPath)
	plain.Must("join", map[string]string{"room": "lobby"}, nil)

	const script = `
const { io } = require("socket.io-client");
const socket = io(process.argv[1], { extraHeaders: { Cookie: process.argv[2] }, reconnection: false });
socket.on("connect_error", (e) => { console.log(JSON.stringify(e.message)); process.exit(1); });
socket.on("disconnect", (reason) => { console.log(JSON.stringify(reason)); process.exit(0); });
(async () => {
  const { members, messages } = await socket.emitWithAck("join", { room: "lobby" });
  console.log(JSON.stringify({ members: members.map((m) => m.name), messages: messages.length }));
  const heard = new Promise((resolve) => socket.on("chat message", resolve));
  const { id } = await socket.emitWithAck("chat message", { room: "lobby", text: "from socket.io-client" });
  const message = await heard;
  console.log(JSON.stringify({ same: message.id === id, text: message.text, by: message.user.name }));
  const refused = await socket.emitWithAck("chat message", { room: "lobby", text: "" });
  console.log(JSON.stringify(refused.error.code));
})();`
	var cookies []string
	for _, c := range bob.Cookies() {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	cmd := exec.CommandContext(t.Context(), "node", "-e", script, site, strings.Join(cookies, "; "))
	cmd.Dir = client
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{
		`{"members":["Alice","Bob"],"messages":0}`,
		`{"same":true,"text":"from socket.io-client","by":"Bob"}`,
		`"invalid"`,
	} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("socket.io-client says %s, want %s", lines.Text(), want)
		}
	}
	if f := plain.Event("chat message"); !strings.Contains(f.String(), "from socket.io-client") {
		t.Errorf("the plain WebSocket got %s", f)
	}
	bob.Post("/logout", nil)
	if !lines.Scan() || lines.Text() != `"io server disconnect"` {
		t.Errorf("after logout socket.io-client says %s", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("node: %v", err)
	}
}

func TestPostsAreChecked(t *testing.T) {
	site, _ := startSite(t, t.TempDir())
	b := adaptertest.NewBrowser(t, site)
	logIn(t, b, "alice")
	c := b.Dial(socketPath)
	c.Must("join", map[string]string{"room": "lobby"}, nil)
	for name, text := range map[string]string{"nothing": "", "spaces": " \n ", "too long": strings.Repeat("é", 4001)} {
		if f := c.Call("chat message", map[string]string{"room": "lobby", "text": text}); f.Error == nil || f.Error.Code != "invalid" {
			t.Errorf("%s: %.200s, want the error invalid", name, f)
		}
	}
	c.Must("chat message", map[string]string{"room": "lobby", "text": strings.Repeat("é", 4000)}, nil)
	var in joined
	c.Must("join", map[string]string{"room": "lobby"}, &in)
	if len(in.Messages) != 1 {
		t.Errorf("%d messages were stored, want the one that fits", len(in.Messages))
	}
}

func TestASecondStartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	site, stop := startSite(t, dir)
	alice := adaptertest.NewBrowser(t, site)
	logIn(t, alice, "alice")
	before := whoAmI(t, alice)
	c := alice.Dial(socketPath)
	c.Must("join", map[string]string{"room": "lobby"}, nil)
	c.Must("chat message", map[string]string{"room": "lobby", "text": "Still here?"}, nil)
	stop()
	if code := c.Closed(); code != 1012 {
		t.Errorf("the socket closed with %d at the end of the program, want 1012", code)
	}

	alice.URL, _ = startSite(t, dir)
	if after := whoAmI(t, alice); after != before {
		t.Errorf("after a restart /me is %+v, was %+v", after, before)
	}
	var in joined
	alice.Dial(socketPath).Must("join", map[string]string{"room": "lobby"}, &in)
	if len(in.Messages) != 1 || in.Messages[0].Text != "Still here?" {
		t.Errorf("after a restart the room has %+v", in.Messages)
	}
}

// openDatabase opens the running program's database as another program would.
func openDatabase(t *testing.T, dir string) *sql.Conn {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "usher.db"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = db.Close()
	})
	return conn
}

func execSQL(t *testing.T, c *sql.Conn, statement string) {
	t.Helper()
	if _, err := c.ExecContext(context.Background(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestSessionDatabaseGoneIsNoLogout(t *testing.T) {
	dir := t.TempDir()
	site, _ := startSite(t, dir)
	alice := adaptertest.NewBrowser(t, site)
	logIn(t, alice, "alice")
	c := alice.Dial(socketPath)
	c.Must("join", map[string]string{"room": "lobby"}, nil)

	db := openDatabase(t, dir)
	execSQL(t, db, `ALTER TABLE sessions RENAME TO sessions_away`)
	for _, path := range []string{"/", "/me", "/room/lobby"} {
		status, page := alice.Get(path)
		if status != http.StatusServiceUnavailable {
			t.Errorf("GET %s without the session table: %d, want 503", path, status)
		}
		if path == "/" && !strings.Contains(page, "Try again") {
			t.Errorf("the page says nothing of trying again: %s", page)
		}
	}
	if _, resp, err := alice.TryDial(socketPath, nil); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a handshake without the session table: %v, want 503", err)
	}
	c.Must("chat message", map[string]string{"room": "lobby", "text": "I am still here"}, nil)

	execSQL(t, db, `ALTER TABLE sessions_away RENAME TO sessions`)
	if me := whoAmI(t, alice); me.Name != "Alice" {
		t.Errorf("/me after the table came back is %+v", me)
	}
	alice.Dial(socketPath).Must("join", map[string]string{"room": "lobby"}, nil)
	c.Must("chat message", map[string]string{"room": "lobby", "text": "and still me"}, nil)
}

func TestLockedDatabaseIsAnErrorAndHeals(t *testing.T) {
	dir := t.TempDir()
	site, _ := startSite(t, dir)
	alice := adaptertest.NewBrowser(t, site)
	logIn(t, alice, "alice")
	c := alice.Dial(socketPath)
	c.Must("join", map[string]string{"room": "lobby"}, nil)
	db := openDatabase(t, dir)
	execSQL(t, db, `BEGIN IMMEDIATE`)
	if f := c.Call("chat message", map[string]string{"room": "lobby", "text": "kept?", "nonce": "n1"}); f.Error == nil || f.Error.Code != "unavailable" {
		t.Errorf("a post to a locked database: %s, want the error unavailable", f)
	}
	execSQL(t, db, `ROLLBACK`)
	var first, again posted
	c.Must("chat message", map[string]string{"room": "lobby", "text": "kept?", "nonce": "n1"}, &first)
	c.Must("chat message", map[string]string{"room": "lobby", "text": "kept?", "nonce": "n1"}, &again)
	if first.ID != again.ID {
		t.Errorf("the same post is the messages %d and %d", first.ID, again.ID)
	}
}

// buildProgram compiles the program once per test run.
var buildProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "usher-test-*")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "usher")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := buildProgram(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// A process is the program as its own process.
type process struct {
	cmd  *exec.Cmd
	site string
	logs *bytes.Buffer
}

func startProcess(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	path, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path), logs: new(bytes.Buffer)}
	p.cmd.Env = append(os.Environ(), append([]string{"PORT=0", "DATA_DIR=" + dir}, env...)...)
	p.cmd.Stderr = p.logs
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = p.cmd.Wait()
		t.Fatalf("the program printed no line: %v: %s", err, p.logs)
	}
	p.site = strings.TrimSpace(strings.TrimPrefix(line, "Usher is listening on "))
	if !strings.HasPrefix(p.site, "http://localhost:") {
		t.Fatalf("the program printed %q", line)
	}
	return p
}

// TestKillLosesNoAcknowledgedMessage kills the program with SIGKILL in the
// middle of a stream of posts, again and again. What was acknowledged is there
// afterwards; what was not is posted again with the same nonce, as the browser
// client does; in the end everything is there once.
func TestKillLosesNoAcknowledgedMessage(t *testing.T) {
	kills := 50
	if testing.Short() {
		kills = 5
	}
	dir := t.TempDir()
	alice := adaptertest.NewBrowser(t, "")
	acknowledged := make(map[int64]string)
	var repeat []string // texts whose answer never came
	next := 0
	for kill := range kills + 1 {
		p := startProcess(t, dir)
		alice.URL = p.site
		if kill == 0 {
			logIn(t, alice, "alice")
		}
		c := alice.Dial(socketPath)
		c.Must("join", map[string]string{"room": "lobby"}, nil)

		last := kill == kills
		burst := repeat
		for !last && len(burst) < 20 { // as many as one person may post at once
			next++
			burst = append(burst, fmt.Sprintf("message %d", next))
		}
		// The posts go out together; the kill comes after a number of answers
		// that differs each time, so somewhere in the middle of the others.
		open := make(map[int64]string)
		for i, text := range burst {
			id := int64(1000*kill + i)
			open[id] = text
			c.Raw(fmt.Sprintf(`{"type":"chat message","id":%d,"data":{"room":"lobby","text":%q,"nonce":%q}}`, id, text, text))
		}
		killAfter := kill % 16
		if last {
			killAfter = len(burst)
		}
		for got := 0; got < killAfter; {
			f := c.Event("reply")
			var ack posted
			if err := json.Unmarshal(f.Data, &ack); err != nil || ack.ID == 0 {
				t.Fatalf("reply %s", f)
			}
			var id int64
			if err := json.Unmarshal(f.ID, &id); err != nil {
				t.Fatal(err)
			}
			acknowledged[ack.ID] = open[id]
			delete(open, id)
			got++
		}
		if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait()
		c.Closed()
		for _, f := range c.Rest() {
			var id int64
			var ack posted
			if f.Type == "reply" && f.Error == nil && json.Unmarshal(f.ID, &id) == nil && json.Unmarshal(f.Data, &ack) == nil {
				acknowledged[ack.ID] = open[id]
				delete(open, id)
			}
		}
		repeat = slices.Collect(maps.Values(open))
	}
	stored := storedMessages(t, dir)
	for id, text := range acknowledged {
		if stored[id] != text {
			t.Errorf("message %d %q was acknowledged, stored is %q", id, text, stored[id])
		}
	}
	seen := make(map[string]int64)
	for id, text := range stored {
		if other, twice := seen[text]; twice {
			t.Errorf("%q is stored twice, as %d and %d", text, other, id)
		}
		seen[text] = id
	}
	t.Logf("%d kills, %d messages acknowledged, %d stored", kills, len(acknowledged), len(stored))
}

func storedMessages(t *testing.T, dir string) map[int64]string {
	t.Helper()
	rows, err := openDatabase(t, dir).QueryContext(t.Context(), `SELECT id, text FROM messages`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	stored := make(map[int64]string)
	for rows.Next() {
		var id int64
		var text string
		if err := rows.Scan(&id, &text); err != nil {
			t.Fatal(err)
		}
		stored[id] = text
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return stored
}

func TestSIGTERMDrains(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM on Windows")
	}
	p := startProcess(t, t.TempDir())
	alice := adaptertest.NewBrowser(t, p.site)
	logIn(t, alice, "alice")
	c := alice.Dial(socketPath)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	if code := c.Closed(); code != 1012 {
		t.Errorf("the socket closed with %d, want 1012", code)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the program ended with %v: %s", err, p.logs)
		}
	case <-time.After(drainTimeout):
		t.Errorf("the program still runs %v after SIGTERM", drainTimeout)
	}
}

// TestReadmeExampleCompiles builds the example of the README as a program.
func TestReadmeExampleCompiles(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	code, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("README.md has no Go example")
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the example does not compile: %v\n%s", err, out)
	}
	if lines := strings.Count(code, "\n"); lines > 40 {
		t.Errorf("the example has %d lines", lines)
	}
}
