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
	c := http.Cookie{
		Name:     s.cfg.Cookie,
		Value:    sid,
		Path:     "/",
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
		// Whoever makes the header up keeps nothing but his own cookie from
		// himself.
		Secure: r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"),
	}
	answer.Add("Set-Cookie", c.String())
}
