package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A heard transport keeps the Set-Cookie lines of all answers, which a jar
// forgets the attributes of.
type heard struct {
	http.RoundTripper
	mu    sync.Mutex
	lines []string
}

func (h *heard) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := h.RoundTripper.RoundTrip(r)
	if err == nil {
		h.mu.Lock()
		h.lines = append(h.lines, resp.Header["Set-Cookie"]...)
		h.mu.Unlock()
	}
	return resp, err
}

// TestSecurityOfTheProgram: what the library offers is switched on.
func TestSecurityOfTheProgram(t *testing.T) {
	site, _ := startSite(t, t.TempDir())
	b := adaptertest.NewBrowser(t, site)
	cookies := &heard{RoundTripper: b.HTTP.Transport}
	b.HTTP.Transport = cookies
	logIn(t, b, "alice")

	refused := func(t *testing.T, header http.Header, want int) {
		t.Helper()
		for _, path := range []string{socketPath, "/socket.io/?EIO=4&transport=websocket"} {
			if _, resp, err := b.TryDial(path, header); err == nil || resp.StatusCode != want {
				t.Errorf("%s: %v, want %d", path, err, want)
			}
		}
	}
	t.Run("foreign origin", func(t *testing.T) {
		for _, origin := range []string{"https://evil.example", "null", site + ".evil.example", "https" + strings.TrimPrefix(site, "http")} {
			refused(t, http.Header{"Origin": {origin}}, http.StatusForbidden)
		}
	})
	t.Run("DNS rebinding", func(t *testing.T) {
		refused(t, http.Header{"Origin": {"http://rebound.example"}, "Host": {"rebound.example"}}, http.StatusForbidden)
	})
	t.Run("large head", func(t *testing.T) {
		refused(t, http.Header{"X-Large": {strings.Repeat("x", 80<<10)}}, http.StatusRequestHeaderFieldsTooLarge)
	})
	t.Run("cookie", func(t *testing.T) {
		cookies.mu.Lock()
		defer cookies.mu.Unlock()
		found := false
		for _, line := range cookies.lines {
			c, err := http.ParseSetCookie(line)
			if err != nil {
				t.Fatal(err)
			}
			found = found || c.Name == cookieName(false)
			if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Domain != "" {
				t.Errorf("cookie %q, want HttpOnly, SameSite=Lax and no Domain", line)
			}
		}
		if !found {
			t.Errorf("the login has set %q, want the session among them", cookies.lines)
		}
	})
}

// testsOf are the tests below a folder, by folder and function, each with the
// texts that stand in its file, which names of subtests are among.
func testsOf(t *testing.T, root string) map[string]map[string]bool {
	t.Helper()
	tests := make(map[string]map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && path != root):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		texts := make(map[string]bool)
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					texts[text] = true
				}
			}
			return true
		})
		folder := filepath.ToSlash(filepath.Dir(path))
		if folder == "." {
			folder = "main"
		}
		for _, d := range file.Decls {
			// Sessions is the suite that the stores' tests run.
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && (strings.HasSuffix(path, "_test.go") || f.Name.Name == "Sessions") {
				tests[folder+"."+f.Name.Name] = texts
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// TestSecurityPageNamesEveryTest: docs/security.md names tests that there are,
// and all that are of security by their name.
func TestSecurityPageNamesEveryTest(t *testing.T) {
	page, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testsOf(t, ".")
	named := make(map[string]bool)
	for row := range strings.Lines(string(page)) {
		cells := strings.Split(row, "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "Attack" {
			continue
		}
		found := regexp.MustCompile("`([a-z0-9/]+\\.(?:Test|Fuzz|Sessions)\\w*)(?:/([^`]+))?`").FindAllStringSubmatch(cells[3], -1)
		if len(found) == 0 || strings.Count(cells[3], "`") != 2*len(found) {
			t.Errorf("expected tests as `folder.Test…`, separated by spaces, in the row %s", row)
		}
		for _, m := range found {
			name, sub := m[1], m[2]
			named[name] = true
			texts, exists := tests[name]
			if !exists {
				t.Errorf("there is no test %s", name)
			} else if sub != "" && !texts[sub] {
				t.Errorf("%s has no case %q", name, sub)
			}
		}
	}
	for name := range tests {
		if strings.Contains(name, ".TestSecurity") && !named[name] && name != "main.TestSecurityPageNamesEveryTest" {
			t.Errorf("the page does not name %s", name)
		}
	}
	if len(named) < 100 {
		t.Errorf("the page names %d tests: it is not read as it is meant", len(named))
	}
}
