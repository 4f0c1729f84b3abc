package auth

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

var destinations = []struct{ next, want string }{
	// Pages of this site.
	{"/", "/"},
	{"/room/lobby", "/room/lobby"},
	{"/room/lobby/", "/room/lobby/"},
	{"/room/lobby?before=7&x=%2F%2Fy", "/room/lobby?before=7&x=%2F%2Fy"},
	{"/room/lobby#m7", "/room/lobby#m7"},
	{"/search?q=http://a.example", "/search?q=http://a.example"},
	{"/a%20b", "/a%20b"},
	{"/züri", "/z%C3%BCri"},
	{"/loginish", "/loginish"},
	{"/@user:pass", "/@user:pass"},
	// Everything else.
	{"", "/"},
	{"room", "/"},
	{".", "/"},
	{"?next=x", "/"},
	{"#x", "/"},
	{"//evil.example", "/"},
	{"///evil.example", "/"},
	{"////evil.example", "/"},
	{"//", "/"},
	{`/\evil.example`, "/"},
	{`\/evil.example`, "/"},
	{`\\evil.example`, "/"},
	{`/\/evil.example`, "/"},
	{`/room\..\..//evil.example`, "/"},
	{"https://evil.example", "/"},
	{"https:/evil.example", "/"},
	{"https:evil.example", "/"},
	{"HTTPS://evil.example", "/"},
	{"javascript:alert(1)", "/"},
	{"data:text/html,x", "/"},
	{" //evil.example", "/"},
	{" /room", "/"},
	{"\t//evil.example", "/"},
	{"/\t/evil.example", "/"},
	{"/\n/evil.example", "/"},
	{"/\r/evil.example", "/"},
	{"/\x00/evil.example", "/"},
	{"/\x7f/evil.example", "/"},
	{"/room\r\nSet-Cookie: sid=evil", "/"},
	{"/\u0085/evil.example", "/"},
	{"/\u2028/evil.example", "/"},
	{"/\xff/evil.example", "/"},
	{"/%2fevil.example", "/"},
	{"/%2Fevil.example", "/"},
	{"/%2f", "/"},
	{"/%2F?x", "/"},
	{"%2f%2fevil.example", "/"},
	{"/%5cevil.example", "/"},
	{"/%5Cevil.example", "/"},
	{"/%09/evil.example", "/"},
	{"/%0d%0aSet-Cookie:%20sid=evil", "/"},
	{"/%00", "/"},
	{"/%ff", "/"},
	{"/%252f%252fevil.example", "/"},
	{"/%255cevil.example", "/"},
	{"/%zz", "/"},
	{"/.//evil.example", "/"},
	{"/..//evil.example", "/"},
	{"/%2e%2e//evil.example", "/"},
	{"/%2e/%2fevil.example", "/"},
	{"/room/../../evil", "/"},
	{"/room//lobby", "/"},
	{"/room/.", "/"},
	{"//evil.example@localhost", "/"},
	{"//user:pass@evil.example/", "/"},
	{"//evil.example:80/", "/"},
	{"//[::1]/", "/"},
	{"///", "/"},
	{"/login", "/"},
	{"/login?next=/login", "/"},
	{"/login/dev", "/"},
	{"/login/dev/callback?code=1", "/"},
	{"/logout", "/"},
	{"/" + strings.Repeat("a", maxNext), "/"},
}

func TestLocalPath(t *testing.T) {
	for _, tt := range destinations {
		if got := localPath(tt.next); got != tt.want {
			t.Errorf("localPath(%q) = %q, want %q", tt.next, got, tt.want)
		}
	}
}

// Whatever next says, a login ends on this site.
func TestOpenRedirectRefused(t *testing.T) {
	s := newSite(t, devProvider(t))
	b := s.browser(t)
	for _, next := range []string{
		"//evil.example", `/\evil.example`, `\\evil.example`, "https://evil.example", "/%2fevil.example", "/\t/evil.example", "/%0d%0aX: y", "javascript:alert(1)",
	} {
		done := b.get(b.consent(b.begin("/login/dev?next="+url.QueryEscape(next)), "alice").String())
		if to := done.Header["Location"]; done.StatusCode != http.StatusSeeOther || len(to) != 1 || to[0] != "/" {
			t.Errorf("next=%q leads to %q", next, to)
		}
	}
}

// For every input the result is a path which Go and a browser's rules resolve
// to this site.
func FuzzLocalPath(f *testing.F) {
	for _, tt := range destinations {
		f.Add(tt.next)
	}
	base := &url.URL{Scheme: "http", Host: "localhost:3000", Path: "/login/dev/callback"}
	f.Fuzz(func(t *testing.T, next string) {
		got := localPath(next)
		if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\\r\n\t\x00") {
			t.Fatalf("localPath(%q) = %q", next, got)
		}
		u, err := base.Parse(got)
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme || strings.HasPrefix(u.Path, "//") {
			t.Fatalf("localPath(%q) = %q, which is %v, %v", next, got, u, err)
		}
		if again := localPath(got); again != got && len(got) <= maxNext {
			t.Fatalf("localPath(%q) = %q, and again %q", next, got, again)
		}
	})
}
