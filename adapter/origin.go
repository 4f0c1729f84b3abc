package adapter

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// checkOrigin is asked for every request, before anything else. No Gin
// middleware answers this question for sockets: those against request forgery
// exempt GET, which an upgrade is, and CORS applies to no WebSocket. A browser
// sends the user's cookies along with a socket opened by any page on the web
// and trusts the server to look at Origin (RFC 6455, section 10.2).
func (s *Server) checkOrigin(r *http.Request) *Error {
	origins := r.Header.Values("Origin")
	if len(origins) > 1 {
		return &Error{Code: CodeBadRequest, Message: "expected one Origin header, got several"}
	}
	if len(origins) == 1 {
		if s.allows(origins[0], r.Host, r.TLS != nil) {
			return nil
		}
		want := "pages of this host may open sockets"
		if len(s.cfg.Origins) > 0 {
			want = "only the origins in Config.Origins may open sockets"
		}
		return &Error{Code: CodeForeignOrigin, Message: fmt.Sprintf(
			"origin %.200q is not allowed: %s; add it to Config.Origins to allow it", origins[0], want)}
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); site {
	case "same-origin", "none":
		return nil
	case "":
		if s.cfg.BrowsersOnly {
			return &Error{Code: CodeForeignOrigin, Message: "expected an Origin header, got none; Config.BrowsersOnly refuses clients that are not browsers"}
		}
		return nil
	default:
		return &Error{Code: CodeForeignOrigin, Message: fmt.Sprintf(
			"a request with Sec-Fetch-Site %.40q and without Origin is not allowed; add the page's origin to Config.Origins to allow its sockets", site)}
	}
}

// allows compares an Origin header with the list, or with the request's own
// host where there is no list.
func (s *Server) allows(origin, host string, tls bool) bool {
	if s.same(origin, host, tls) {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || len(origin) != len(u.Scheme+"://"+u.Host) || !isASCII(origin) {
		return false // "null" and everything that is no origin: RFC 6454, section 6.2
	}
	if len(s.cfg.Origins) > 0 {
		return slices.Contains(s.cfg.Origins, u.Scheme+"://"+canonicalHost(u.Scheme, u.Host))
	}
	if tls && u.Scheme != "https" {
		return false
	}
	// Behind a proxy that ends TLS the request's scheme is unknown here, so the
	// host is compared under the origin's scheme.
	return canonicalHost(u.Scheme, u.Host) == canonicalHost(u.Scheme, host)
}

// isASCII reports whether s is an origin's text as browsers write it, with
// international names in punycode. Anything else must not come near ToLower: it
// makes a k of the Kelvin sign.
func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c >= utf8.RuneSelf })
}

// same is allows for what most browsers send: no need to take it apart.
func (s *Server) same(origin, host string, tls bool) bool {
	if len(s.cfg.Origins) > 0 {
		return slices.Contains(s.cfg.Origins, origin)
	}
	scheme, of, _ := strings.Cut(origin, "://")
	return of != "" && of == host && (scheme == "https" || scheme == "http" && !tls)
}

// sameOrigin reports whether two requests that checkOrigin has let through come
// from pages of the same origin. Browsers send no Origin with a GET to the
// page's own host, so its absence means that host; unless the host is none of
// those listed, as behind a proxy that renames it.
func (s *Server) sameOrigin(a, b *http.Request) bool {
	x, y := a.Header.Get("Origin"), b.Header.Get("Origin")
	if x == y {
		return true
	}
	if x != "" && y != "" {
		return false
	}
	without, origin := a, y
	if y == "" {
		without, origin = b, x
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	if canonicalHost(u.Scheme, u.Host) == canonicalHost(u.Scheme, without.Host) {
		return true
	}
	return !slices.ContainsFunc(s.cfg.Origins, func(listed string) bool {
		scheme, host, _ := strings.Cut(listed, "://")
		return host == canonicalHost(scheme, without.Host)
	})
}

// canonicalHost lowers the host and drops the port that the scheme implies. A
// trailing dot stays: browsers treat it as another host, and so do we.
func canonicalHost(scheme, host string) string {
	host = strings.ToLower(host)
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return host
	}
	if (scheme == "http" && port == "80") || (scheme == "https" && port == "443") {
		if strings.Contains(name, ":") {
			return "[" + name + "]"
		}
		return name
	}
	return host
}
