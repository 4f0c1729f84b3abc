package adapter

import (
	"net/http"
	"strings"
)

// stick puts the cookie by which a load balancer finds its way back to this
// process onto the answer of a handshake. We never read it: whose connection
// it is has nothing to do with it.
func (s *Server) stick(answer http.Header, r *http.Request, sid string) {
	if s.cfg.Cookie == "" {
		return
	}
	answer.Add("Set-Cookie", ownCookie(r, s.cfg.Cookie, sid).String())
}

// ownCookie is a cookie of the adapter's, for the answer to r. It ends with the
// browser.
func ownCookie(r *http.Request, name, value string) *http.Cookie {
	return &http.Cookie{
		Name:     name,
		Value:    value,
		Path:     "/",
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
		Secure:   overTLS(r),
	}
}

// overTLS reports whether the client has sent r over TLS, here or to a proxy.
// Whoever makes the header up keeps nothing but his own cookie from himself.
func overTLS(r *http.Request) bool {
	proto := r.Header.Get("X-Forwarded-Proto")
	return r.TLS != nil || strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
}
