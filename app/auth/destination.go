package auth

import (
	"net/url"
	"path"
	"strings"
)

// maxNext bounds the destination, which travels in a cookie.
const maxNext = 512

// localPath returns next if it surely names a page of this site, and "/" if
// there is any doubt.
//
// Browsers are lenient: they drop tabs and newlines anywhere in a URL, take
// backslashes for slashes, and read what follows two slashes as a host.
// Servers and proxies may decode a path once more than we do, or clean it. So
// this is a list of what is allowed, on the path as sent and as decoded, and
// not one of known tricks.
func localPath(next string) string {
	const home = "/"
	if len(next) > maxNext || !strings.HasPrefix(next, "/") || strings.ContainsFunc(next, unsafeInURL) {
		return home
	}
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return home
	}
	// A percent sign that is left after decoding would mean something else to
	// whoever decodes again.
	if strings.ContainsFunc(u.Path, unsafeInURL) || strings.Contains(u.Path, "%") {
		return home
	}
	// No doubled slash and no dot segment, anywhere.
	if u.Path != path.Clean(u.Path) && u.Path != path.Clean(u.Path)+"/" || u.Path == "//" {
		return home
	}
	// Back to a login or logout would be a loop.
	if first, _, _ := strings.Cut(u.Path[1:], "/"); first == "login" || first == "logout" {
		return home
	}
	return u.String()
}

// unsafeInURL reports control characters, backslashes and bytes that are no
// UTF-8.
func unsafeInURL(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\\' || r == '\u2028' || r == '\u2029' || r == '\ufffd'
}
