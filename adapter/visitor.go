package adapter

import (
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"
)

// visitorCookie links the open sockets of a visitor who has no session yet with
// the login that makes one. It names nobody, and opens nothing: all it does is
// tell Login which sockets were opened by the same browser.
const visitorCookie = "usher-visitor"

// visitorName is the cookie's name with r. Browsers accept the prefix over https
// from the host itself only, so no page of a neighbour can plant one there
// (RFC 6265bis, section 4.1.3.2).
func visitorName(r *http.Request) string {
	if overTLS(r) {
		return "__Host-" + visitorCookie
	}
	return visitorCookie
}

// A visitorLink is a value of that cookie: 128 random bits as text.
type visitorLink string

// visitorOf returns the visitor that a request's cookie names, "" if there is
// none or it is none of ours.
func visitorOf(r *http.Request) visitorLink {
	c, err := r.Cookie(visitorName(r))
	if err != nil || len(c.Value) != len(randomID()) || !isToken(c.Value) {
		return ""
	}
	return visitorLink(c.Value)
}

// session stands for the session, in a cookie of a name, that a visitor does not have
// yet. Like one, it is over with the first login: of two at once, the later one finds
// what the earlier one has made, and no socket that has followed that is left behind.
func (v visitorLink) session(name string) string {
	if v == "" {
		return ""
	}
	return "\x00" + visitorCookie + " " + string(v) + " " + name // no session's id begins so
}

// link gives the visitor behind a handshake a cookie, if nobody was named by
// anything and a login may follow.
func (s *Server) link(adm *admission, r *http.Request) {
	if len(s.stores)+len(s.tokenStores) == 0 || adm.refusal != nil || !adm.isNobody() {
		return
	}
	if adm.visitor = visitorOf(r); adm.visitor != "" {
		return
	}
	adm.visitor = visitorLink(randomID())
	adm.answer.Add("Set-Cookie", ownCookie(r, visitorName(r), string(adm.visitor)).String())
}

// isNobody reports whether nothing of the request names somebody or could.
func (adm *admission) isNobody() bool {
	return adm.identity == nil && adm.sessionID == "" && adm.token == ""
}

// unlink takes the cookie back.
func unlink(c *gin.Context) {
	gone := ownCookie(c.Request, visitorName(c.Request), "")
	gone.MaxAge = -1
	http.SetCookie(c.Writer, gone)
}

// followVisitor makes the sockets of the visitor who logs in those of the new
// session. As with the sockets of a session, only those that were opened from
// where r comes from: the cookie may have been planted.
func (s *Server) followVisitor(r *http.Request, to *loaded) {
	visitor := visitorOf(r)
	if visitor == "" {
		return
	}
	f := &s.follow
	f.mu.Lock()
	sockets := slices.Clone(f.visitors[visitor])
	f.mu.Unlock()
	cookies := []*http.Cookie{{Name: to.name, Value: to.cookie}, {Name: visitorName(r), MaxAge: -1}} // see unlink
	for _, sock := range sockets {
		if sock.Identity() != nil || !sock.shake.Load().samePeer(r) {
			continue
		}
		now := &admission{mount: sock.mount, sessionID: to.id, ref: to.ref()}
		now.shake = sock.shake.Load().withCookies(cookies)
		now.bind(s.cfg.Cookie)
		if over, ok := sock.link.(*sioSocket); ok {
			over.follow(to.id, now.shake)
		}
		f.rebind(sock, now)
	}
}
