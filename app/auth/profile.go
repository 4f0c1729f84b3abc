package auth

import (
	"net/url"
	"strings"
	"unicode"
)

const (
	maxDisplayName = 80   // characters
	maxAvatarURL   = 2048 // bytes
)

// displayName returns the first of names that is still a name once cleaned,
// else "Someone".
func displayName(names ...string) string {
	for _, n := range names {
		if n = cleanName(n); n != "" {
			return n
		}
	}
	return "Someone"
}

// cleanName makes a provider's text fit to stand between other people's names:
// on one line, without controls, and without the invisible characters that
// turn the reading direction of what follows.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == '\u200c', r == '\u200d':
			return r // joiners: Persian and emoji families need them
		case r == unicode.ReplacementChar, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp):
			return -1
		}
		return r
	}, name)
	name = strings.Join(strings.Fields(name), " ")
	if r := []rune(name); len(r) > maxDisplayName {
		name = string(r[:maxDisplayName])
	}
	name = strings.Trim(name, " \u200c\u200d")
	if !strings.ContainsFunc(name, func(r rune) bool {
		return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S)
	}) {
		return ""
	}
	return name
}

// avatarURL returns raw if it is an absolute http or https URL, else "". One
// on the site itself, as the development provider's are, becomes a path, so
// that it outlives a change of port.
func avatarURL(public *url.URL, raw string) string {
	if raw == "" || len(raw) > maxAvatarURL {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return ""
	}
	if u.Scheme == public.Scheme && strings.EqualFold(u.Host, public.Host) {
		local := localPath(u.RequestURI())
		if local == "/" {
			return ""
		}
		return local
	}
	return u.String()
}
