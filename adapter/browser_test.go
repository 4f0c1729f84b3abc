package adapter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// chromium finds the browser, and the client's bundle that its pages load.
// Without them the test is skipped, unless the full test run asked for
// everything.
func chromium(t *testing.T) (path, dist string) {
	t.Helper()
	missing := "chromium in PATH"
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path, missing = found, ""
			break
		}
	}
	dist = filepath.Join("testdata", "node", "node_modules", "socket.io-client", "dist")
	if _, err := os.Stat(dist); err != nil && missing == "" {
		missing = "npm install in adapter/testdata/node"
	}
	if missing != "" {
		if os.Getenv("USHER_TEST") == "full" {
			t.Fatal("needs " + missing)
		}
		t.Skip("needs " + missing)
	}
	return path, dist
}

// openChromium starts a browser with cookies of its own. Its tabs end with the
// test.
func openChromium(t *testing.T, path string) (browser context.Context) {
	t.Helper()
	allocator, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-quic", true))
	t.Cleanup(stop)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	// The first action's context owns the browser, so it must not be a step's.
	if err := chromedp.Do(browser); err != nil {
		t.Fatal(err)
	}
	return browser
}

// A page is a page that has loaded socket.io-client.
type page struct {
	t   *testing.T
	ctx context.Context
}

// openPage opens a page of the given origin in a tab of its own.
func openPage(t *testing.T, browser context.Context, origin string) *page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	// The same goes for the tab.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	p := &page{t, ctx}
	step, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	if err := chromedp.Do(step, chromedp.Navigate(origin+"/")); err != nil {
		t.Fatal(err)
	}
	if got := p.run(`typeof io`); got != `"function"` {
		t.Fatalf("the page of %s has no socket.io-client: io is %s", origin, got)
	}
	return p
}

// run evaluates an expression, waits if it is a promise, and returns the value
// as JSON. What is thrown is returned as {"thrown": "…"}.
func (p *page) run(expression string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	wrapped := fmt.Sprintf(`(async () => { try { return JSON.stringify(await (%s)) ?? "null" } catch (e) { return JSON.stringify({thrown: String(e.message ?? e)}) } })()`, expression)
	got, err := chromedp.Run(ctx, chromedp.Evaluate[string](wrapped, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return got
}

func (p *page) want(expression, want string) {
	p.t.Helper()
	if got := p.run(expression); got != want {
		p.t.Errorf("%.200s is %s, want %s", expression, got, want)
	}
}

// script is what every page has: connect opens a socket and keeps it, steal
// tries what can be done with a sid.
const script = `
let socket;
function connect(url, transports, credentials = true) {
	socket?.disconnect();
	socket = io(url, {transports, withCredentials: credentials, forceNew: true, reconnection: false});
	return new Promise((done) => {
		socket.on("connect", () => done("connected"));
		socket.on("connect_error", (e) => done("refused: " + e.message));
	});
}
function upgraded() {
	const engine = socket.io.engine;
	return new Promise((done) => engine.transport.name === "websocket" ? done(true) : engine.on("upgrade", () => done(true)));
}
function heard(event) {
	return new Promise((done) => socket.once(event, (...args) => done(args)));
}
const bytes = (b) => Array.from(new Uint8Array(b));
async function steal(url, sid) {
	const path = "/socket.io/?EIO=4&transport=polling&sid=" + sid;
	const status = (method, body) => fetch(url + path, {method, body, credentials: "include"}).then((r) => r.status, () => "unreadable");
	const ws = new WebSocket(url.replace("http", "ws") + path.replace("polling", "websocket"));
	const upgrade = await new Promise((done) => { ws.onopen = () => done("open"); ws.onerror = () => done("failed"); });
	return [await status("GET"), await status("POST", '42["me"]'), upgrade];
}
`

// servePages serves a page with socket.io-client and returns its origin.
func servePages(t *testing.T, dist string) (origin string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("GET /client/", http.StripPrefix("/client/", http.FileServer(http.Dir(dist))))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!doctype html><title>A page</title><script src="/client/socket.io.js"></script><script>%s</script>`, script)
	})
	return adaptertest.Serve(t, mux)
}

// TestP20Browser: pages of another origin, in a real browser, with the cookies
// of whoever is logged in.
//
// The origins are ports of one host. For cookies that is one site, so those of
// the server go along by SameSite=Lax with every page here, also with one that
// is not listed: the worst case, which only the check of origins is left for.
func TestP20Browser(t *testing.T) {
	path, dist := chromium(t)
	listed, other, foreign := servePages(t, dist), servePages(t, dist), servePages(t, dist)
	var logged syncBuffer
	var connects atomic.Int32
	s := adaptertest.NewSite(t, adapter.Config{
		Origins: []string{listed, other},
		Logger:  slog.New(slog.NewTextHandler(&logged, nil)),
	}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.OnConnect(func(context.Context, *adapter.Socket) error { connects.Add(1); return nil })
		adapter.Handle(s.Server, "echo", func(_ context.Context, _ *adapter.Socket, in any) (any, error) { return in, nil })
		adapter.On(s.Server, "shout", func(_ context.Context, _ *adapter.Socket, in text) error {
			return s.Server.Emit("shouted", in.Text, []byte{1, 2})
		})
	})
	url, _ := json.Marshal(s.URL)
	in := func(expression string, args ...any) string {
		return strings.ReplaceAll(fmt.Sprintf(expression, args...), "URL", string(url))
	}

	browser := openChromium(t, path)
	page := openPage(t, browser, listed)
	page.want(in(`connect(URL, ["websocket"])`), `"refused: log in first"`)
	page.want(in(`connect(URL, ["polling"])`), `"refused: log in first"`)
	logIn := `fetch(URL + "/login?user=%s", {method: "POST", mode: "no-cors", credentials: "include"}).then((r) => r.type)`
	page.want(in(logIn, "alice"), `"opaque"`)

	for name, transports := range map[string]string{
		"polling": `["polling"]`, "websocket": `["websocket"]`, "upgrade": `["polling", "websocket"]`,
	} {
		t.Run(name, func(t *testing.T) {
			page := openPage(t, browser, listed)
			page.want(in(`connect(URL, %s)`, transports), `"connected"`)
			if name == "upgrade" {
				page.want(`upgraded()`, `true`)
			}
			transport := name
			if name == "upgrade" {
				transport = "websocket"
			}
			page.want(`socket.io.engine.transport.name`, `"`+transport+`"`)
			page.want(`socket.emitWithAck("me")`, `"alice"`)
			page.want(`socket.emitWithAck("echo", {"a": [1, "ü", null]})`, `{"a":[1,"ü",null]}`)
			page.want(`socket.emitWithAck("echo", {deep: [new Uint8Array([1, 2, 255])]}).then((r) => bytes(r.deep[0]))`, `[1,2,255]`)
			page.want(`[socket.emit("shout", {text: "hello"}), heard("shouted")][1].then(([text, data]) => [text, bytes(data)])`, `["hello",[1,2]]`)

			var sid string
			if err := json.Unmarshal([]byte(page.run(`socket.io.engine.id`)), &sid); err != nil {
				t.Fatal(err)
			}
			before := strings.Count(logged.String(), "somebody else's")
			// Another listed page in alice's own browser, and in mallory's.
			openPage(t, browser, other).want(in(`steal(URL, %q)`, sid), `[403,403,"failed"]`)
			malloryBrowser := openChromium(t, path)
			mallory := openPage(t, malloryBrowser, listed)
			mallory.want(in(`steal(URL, %q)`, sid), `[403,403,"failed"]`) // nobody yet
			mallory.want(in(logIn, "mallory"), `"opaque"`)
			mallory.want(in(`steal(URL, %q)`, sid), `[403,403,"failed"]`)
			if n := strings.Count(logged.String(), "somebody else's") - before; n != 9 || strings.Contains(logged.String(), sid) {
				t.Errorf("the log has %d lines of 9 tries, want one each, without the sid:\n%s", n, logged.String())
			}
			// A page that is not listed cannot even read what it is answered.
			openPage(t, browser, foreign).want(in(`steal(URL, %q)`, sid), `["unreadable","unreadable","failed"]`)

			page.want(`socket.connected`, `true`)
			page.want(`socket.emitWithAck("me")`, `"alice"`)
			page.want(`socket.disconnect().connected`, `false`)
		})
	}

	// A page that is not listed gets nothing, though alice's cookies go along.
	before := connects.Load()
	evil := openPage(t, browser, foreign)
	evil.want(in(`connect(URL, ["polling"])`), `"refused: xhr poll error"`)
	evil.want(in(`connect(URL, ["websocket"])`), `"refused: websocket error"`)
	evil.want(in(`connect(URL, ["polling"], false)`), `"refused: xhr poll error"`)
	evil.want(in(`connect(URL, ["websocket"], false)`), `"refused: websocket error"`)
	if n := connects.Load(); n != before {
		t.Errorf("%d sockets were opened by a page that is not listed", n-before)
	}

	// And when alice logs out, her page is told.
	page.want(in(`connect(URL, ["polling", "websocket"])`), `"connected"`)
	page.want(in(`[heard("disconnect"), fetch(URL + "/logout", {method: "POST", mode: "no-cors", credentials: "include"})][0].then((r) => r[0])`), `"io server disconnect"`)
	page.want(in(`connect(URL, ["polling"])`), `"refused: log in first"`)
}
