package web_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	_ "modernc.org/sqlite" // to lock the database of the running program
)

// chromium finds the browser. Without one the test is skipped, unless the full
// test run asked for everything.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("USHER_TEST") == "full" {
		t.Fatal("chromium is not installed")
	}
	t.Skip("needs chromium in PATH")
	return ""
}

// startProgram builds the whole program, runs it on a free port and a new data
// folder, and returns its URL and the folder.
func startProgram(t *testing.T) (site, data string) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "usher")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/gin-usher/usher").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary)
	data = filepath.Join(dir, "data")
	cmd.Env = append(os.Environ(), "PORT=0", "DATA_DIR="+data)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program ended with %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the program printed no line: %v", err)
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "Usher is listening on ")), data
}

// lockDatabase keeps the running program from writing until unlock.
func lockDatabase(t *testing.T, data string) (unlock func()) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(data, "usher.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), `BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := conn.ExecContext(t.Context(), `ROLLBACK`); err != nil {
			t.Fatal(err)
		}
	}
}

// A tab is a page of a browser.
type tab struct {
	t    *testing.T
	name string
	ctx  context.Context
}

// newBrowser starts a browser of its own, with its own cookies.
func newBrowser(t *testing.T, name string) *tab {
	t.Helper()
	allocator, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-quic", true),
		chromedp.WindowSize(1200, 800))
	t.Cleanup(stop)
	return (&tab{t: t, name: name, ctx: allocator}).open(name)
}

// open opens another tab of the same browser.
func (b *tab) open(name string) *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	// The first action's context owns the tab, so it must not be a step's.
	if err := chromedp.Do(ctx); err != nil {
		b.t.Fatalf("%s: open a tab: %v", name, err)
	}
	return &tab{b.t, name, ctx}
}

func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %s: %v", b.name, what, err)
	}
}

// sees waits until the JavaScript expression is true.
func (b *tab) sees(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		// An error is a page that is being replaced: look again.
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")")); err == nil && ok {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
			b.t.Fatalf("%s does not see %s within a minute: %s\nthe page:\n%s", b.name, what, expression, text)
		}
	}
}

func (b *tab) connected() {
	b.t.Helper()
	b.sees("that it is connected", `document.querySelector("#status")?.dataset.state == "connected"`)
}

// logIn clicks from the room that wants a login through the provider and back.
func (b *tab) logIn(site, person string) {
	b.t.Helper()
	b.do("open the room", chromedp.Navigate(site+"/room/lobby"))
	b.click("the provider", "a.provider.dev")
	b.click("who to be", fmt.Sprintf(`.person[value=%q]`, person))
	b.click("to allow it", "#allow")
	b.do("see the room", chromedp.WaitVisible(chromedp.CSS("#composer")))
	b.connected()
}

// click waits for the page that has the element, and clicks: a click into a page
// that is being replaced is lost.
func (b *tab) click(what, selector string) {
	b.t.Helper()
	b.sees(what, fmt.Sprintf(`document.readyState == "complete" && document.querySelector(%q)`, selector))
	b.do("click "+what, chromedp.Click(chromedp.CSS(selector)))
}

func (b *tab) say(text string) {
	b.t.Helper()
	b.do("type a message", chromedp.SendKeys(chromedp.CSS("#text"), text))
	b.do("send it", chromedp.Click(chromedp.CSS("#send")))
	b.hears(text)
	b.sees("its message confirmed", `!document.querySelector(".sending") && document.querySelector("#messages li:last-child").dataset.id > 0`)
}

func (b *tab) hears(text string) {
	b.t.Helper()
	b.sees("the message "+text, fmt.Sprintf(`[...document.querySelectorAll("#messages li.message .text")].filter(e => e.textContent == %q).length == 1`, text))
}

// screenshot writes a picture to the folder that USHER_SCREENSHOTS names.
func (b *tab) screenshot(file string, width, height int64, scheme string) {
	b.t.Helper()
	dir := os.Getenv("USHER_SCREENSHOTS")
	if dir == "" {
		return
	}
	var options []chromedp.EmulateViewportOption
	if width < 600 {
		options = append(options, chromedp.EmulateMobile, chromedp.EmulatePortrait)
	}
	b.do("set the size", chromedp.EmulateViewport(width, height, options...))
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		b.t.Fatal(err)
	}
	b.sees("the new style", fmt.Sprintf(`matchMedia("(prefers-color-scheme: %s)").matches && true`, scheme))
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// TestBrowser is the app as two people use it, in two real browsers.
func TestBrowser(t *testing.T) {
	chromium(t)
	site, data := startProgram(t)
	alice, bob := newBrowser(t, "alice"), newBrowser(t, "bob")
	alice.logIn(site, "alice")
	bob.logIn(site, "bob")

	alice.sees("both people", `[...document.querySelectorAll("#members .name")].map(e => e.textContent).join() == "Alice,Bob"`)
	alice.sees("herself in the header", `document.querySelector("header .me .name").textContent == "Alice"`)
	bob.say("Is this seat taken?")
	alice.hears("Is this seat taken?")
	alice.say("It is yours. The show is about to begin.")
	bob.hears("It is yours. The show is about to begin.")
	bob.say("<b>Popcorn?</b>")
	alice.hears("<b>Popcorn?</b>")
	alice.sees("no markup in messages", `!document.querySelector("#messages b")`)

	// A message that cannot be stored: an error, and the text stays.
	unlock := lockDatabase(t, data)
	bob.do("type a message", chromedp.SendKeys(chromedp.CSS("#text"), "I brought two."))
	bob.do("send it", chromedp.Click(chromedp.CSS("#send")))
	bob.sees("why it was not stored", `!document.querySelector("#error").hidden && document.querySelector("#error").textContent.includes("busy")`)
	bob.sees("what he wrote", `document.querySelector("#text").value == "I brought two."`)
	unlock()
	bob.do("send it again", chromedp.Click(chromedp.CSS("#send")))
	alice.hears("I brought two.")

	second := alice.open("alice's second tab")
	second.do("open the room", chromedp.Navigate(site+"/room/lobby"))
	second.connected()
	second.hears("Is this seat taken?")
	bob.sees("still two people", `document.querySelector("#count").textContent == "2"`)

	bob.screenshot("chat.png", 1200, 800, "light")
	bob.screenshot("chat-phone-dark.png", 390, 844, "dark")

	// Alice signs out in one tab; the other one says so, and keeps what she
	// was typing.
	second.do("type half a message", chromedp.SendKeys(chromedp.CSS("#text"), "One more th"))
	alice.do("sign out", chromedp.Click(chromedp.CSS("#logout button")))
	alice.sees("that she is signed out", `location.pathname == "/" && !document.querySelector("header .me")`)
	second.sees("that she was signed out", `!document.querySelector("#ended").hidden && document.querySelector("#status").dataset.state == "ended"`)
	second.sees("what she was typing", `document.querySelector("#text").value == "One more th"`)
	bob.sees("alice leave", `[...document.querySelectorAll("#members .name")].map(e => e.textContent).join() == "Bob"`)
	bob.say("Gone already.")
	second.screenshot("ended.png", 1200, 800, "light")
}

// TestBrowserSignsOutDevices: somebody who is signed in at two places ends one of
// them from the other. The page has no script.
func TestBrowserSignsOutDevices(t *testing.T) {
	chromium(t)
	site, _ := startProgram(t)
	desk, phone := newBrowser(t, "the desk"), newBrowser(t, "the phone")
	desk.logIn(site, "alice")
	phone.logIn(site, "alice")

	desk.click("the way to her devices", "header .me")
	desk.sees("both devices", `location.pathname == "/devices" && document.querySelectorAll(".place").length == 2`)
	desk.sees("which one she is at", `document.querySelectorAll(".place.current .tag").length == 1`)
	desk.sees("that nothing is wider than the page", `document.documentElement.scrollWidth <= innerWidth`)
	desk.screenshot("devices.png", 1200, 800, "light")
	desk.screenshot("devices-dark.png", 1200, 800, "dark")
	desk.screenshot("devices-phone.png", 390, 844, "light")
	desk.screenshot("devices-phone-dark.png", 390, 844, "dark")
	desk.do("set the size of a phone", chromedp.EmulateViewport(390, 844))
	desk.sees("that nothing is wider than a phone", `document.documentElement.scrollWidth <= 390`)

	desk.click("to sign the phone out", `form[action="/devices/sign-out"] button`)
	phone.sees("that she was signed out", `!document.querySelector("#ended").hidden && document.querySelector("#status").dataset.state == "ended"`)
	desk.sees("this device alone", `location.pathname == "/devices" && document.querySelectorAll(".place").length == 1`)
}
