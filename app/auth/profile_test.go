package auth

import (
	"net/url"
	"strings"
	"testing"
)

func TestDisplayName(t *testing.T) {
	for _, tt := range []struct {
		names []string
		want  string
	}{
		{[]string{"Ada Lovelace"}, "Ada Lovelace"},
		{[]string{"  Ada \n\t Lovelace  "}, "Ada Lovelace"},
		{[]string{"", "ada"}, "ada"},
		{[]string{" \u200b\u202e ", "ada"}, "ada"},
		{[]string{"", ""}, "Someone"},
		{nil, "Someone"},
		{[]string{"Ada\u202eevil\u202c"}, "Adaevil"},
		{[]string{"\u2066Ada\u2069\u200f\u061c"}, "Ada"},
		{[]string{"A\x00d\x1ba\x7f"}, "Ada"},
		{[]string{"Ada\u2028Lovelace"}, "Ada Lovelace"},
		{[]string{"Ada\xff"}, "Ada"},
		{[]string{"\ufeffAda\ue000"}, "Ada"},
		{[]string{"\u200d\u200c"}, "Someone"},
		{[]string{"\u0301"}, "Someone"},
		{[]string{"👩‍👩‍👧"}, "👩‍👩‍👧"},
		{[]string{"می\u200cخواهم"}, "می\u200cخواهم"},
		{[]string{"<b>Ada</b>"}, "<b>Ada</b>"}, // the template escapes
		{[]string{strings.Repeat("é", 100)}, strings.Repeat("é", 80)},
		{[]string{strings.Repeat("a", 79) + " b"}, strings.Repeat("a", 79)},
	} {
		if got := displayName(tt.names...); got != tt.want {
			t.Errorf("displayName(%q) = %q, want %q", tt.names, got, tt.want)
		}
	}
}

func TestAvatarURL(t *testing.T) {
	public := &url.URL{Scheme: "http", Host: "localhost:3000"}
	for raw, want := range map[string]string{
		"":                               "",
		"https://a.example/p.png?s=64":   "https://a.example/p.png?s=64",
		"http://a.example/p.png":         "http://a.example/p.png",
		"HTTPS://a.example/p.png":        "https://a.example/p.png",
		"https://a.example/\"onerror=x":  "https://a.example/%22onerror=x",
		"javascript:alert(1)":            "",
		"data:image/svg+xml,<svg>":       "",
		"//a.example/p.png":              "",
		"/p.png":                         "",
		"https:///p.png":                 "",
		"https://user:pw@a.example/":     "",
		"ftp://a.example/p.png":          "",
		"https://a.example/\x00":         "",
		"http://localhost:3000/x/a.svg":  "/x/a.svg",
		"http://LOCALHOST:3000/a%20.svg": "/a%20.svg",
		"http://localhost:3000":          "",
		"http://localhost:3000/":         "",
		"http://localhost:3000//evil":    "",
		"http://localhost:3000/logout":   "",
		"http://localhost:4000/a.svg":    "http://localhost:4000/a.svg",
		"https://localhost:3000/a.svg":   "https://localhost:3000/a.svg",
		"https://a.example/" + strings.Repeat("a", maxAvatarURL): "",
	} {
		if got := avatarURL(public, raw); got != want {
			t.Errorf("avatarURL(%.60q) = %q, want %q", raw, got, want)
		}
	}
}
