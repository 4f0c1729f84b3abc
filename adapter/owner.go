package adapter

import (
	"context"
	"crypto/subtle"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
)

// A former credential is what a connection was bound to before a login. A
// browser may poll once more before it has the answer, with the new cookie.
type former struct {
	cookies string
	until   time.Time
}

// crossing is how long such requests may be on their way.
const crossing = 10 * time.Second

// shows reports whether a request shows a former credential, from where the
// connection was opened: as for sockets that follow a login, the cookie alone
// proves nothing, for it may have been planted.
func (f *former) shows(r *http.Request, cookies string, shake *Handshake) bool {
	return f != nil && time.Now().Before(f.until) && sameCookies(cookies, f.cookies) && shake.samePeer(r)
}

// openedAt reports whether the connection was opened at the route of a request, and for
// the same parameters of its path: what stands above the one route, such as a list of
// addresses, is not to be passed by at another, and a tenant's is not for others.
func (conn *sioConn) openedAt(m *mount, c *gin.Context) bool {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	return conn.adm.mount == m && slices.Equal(conn.params, c.Params)
}

// owns reports whether a request may use this connection. The sid alone proves
// nothing: it stands in URLs, and URLs end up in logs.
//
// The credential that the connection is bound to passes. Cookies that are missing now
// do not, unless a token is shown in their place; a token that is missing does, because
// browsers cannot send one on an upgrade, and it is the handshake's that counts. About
// any other credential the chain is asked: if it names the same user, or the one who
// has logged in where nobody was, the connection is bound to it from then on.
func (conn *sioConn) owns(r *http.Request) bool {
	conn.mu.Lock()
	adm, set := conn.adm, conn.cookie
	conn.mu.Unlock()
	first := adm.shake.Request(context.Background())
	if !conn.srv.sameOrigin(first, r) {
		return false
	}
	token, cookies := r.Header.Get("Authorization"), set.uptodate(joinCookies(r))
	switch {
	case adm.refusal != nil && token == "":
		return true // there is no credential of the handshake, only those of sockets
	case cookies == "" && adm.shake.cookies != "" && token == "":
		return false
	case (token == "" || sameSecret(token, adm.token)) && (sameCookies(cookies, adm.shake.cookies) || adm.former.shows(r, cookies, adm.shake)):
		return true
	}
	conn.mu.Lock()
	guessing := conn.rebinds.lately() >= maxRebinds
	conn.mu.Unlock()
	if guessing {
		return false
	}
	ok := conn.rebind(r, adm, set, func(h http.Header) {
		if token != "" {
			h.Set("Authorization", token)
		}
		h.Del("Cookie")
		if cookies != "" {
			h.Set("Cookie", cookies)
		}
	})
	if !ok {
		conn.mu.Lock()
		conn.rebinds.add()
		conn.mu.Unlock()
	}
	return ok
}

// rebind asks the chain about another credential, and binds the connection to
// it if it may have it. from is the request that shows it, and set what it was
// read with.
func (conn *sioConn) rebind(from *http.Request, was *admission, set *sessionCookie, change func(http.Header)) bool {
	now, e := conn.srv.present(from.Context(), was.shake, was.mount, change)
	if e != nil {
		return false
	}
	bound := conn.identity()
	switch {
	case bound != nil:
		if !bound.is(now.identity) {
			return false
		}
	case now.identity == nil:
		if now.sessionID != was.sessionID {
			return false
		}
	default:
		// Somebody where nobody was: only who has logged in right there.
		there := was.sessionID == now.sessionID || conn.srv.ended.successor(was.sessionID) == now.sessionID
		if was.sessionID == "" || !there || !was.shake.samePeer(from) {
			return false
		}
	}
	now.address, now.keys = was.address, renewedKeys(was.keys, now.keys)

	conn.mu.Lock()
	if is := conn.adm; is.sessionID != was.sessionID && now.sessionID == was.sessionID {
		// A login has taken the connection along meanwhile, and this request crosses it.
		conn.mu.Unlock()
		return is.former.shows(from, was.shake.cookies, is.shake)
	}
	conn.showsLocked(now, set)
	conn.adm = now
	var sockets []*sioSocket
	for _, s := range conn.sockets {
		if !s.own {
			sockets = append(sockets, s)
		}
	}
	conn.mu.Unlock()
	for _, s := range sockets {
		conn.srv.follow.rebind(&s.socket, now)
	}
	if conn.srv.over(now) {
		for _, s := range sockets {
			s.close(ReasonSessionEnded)
		}
	}
	return true
}

// follow lets the connection be that of a session's successor.
func (s *sioSocket) follow(sessionID string, shake *Handshake) {
	conn := s.conn
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if s.own {
		return
	}
	now := *conn.adm
	if now.sessionID != sessionID { // once for all sockets of the connection
		now.former = &former{now.shake.cookies, time.Now().Add(crossing)}
	}
	if id := now.identity; id != nil && id.SessionID == now.sessionID {
		renamed := *id
		renamed.SessionID = sessionID
		now.identity = &renamed
	}
	now.sessionID, now.shake, now.ends = sessionID, shake, time.Time{}
	now.seen = math.MaxUint64 // who it is now is for the chain to say
	conn.adm, conn.cookie, conn.behind = &now, nil, false
}

// identity is who the connection is bound to: not those of its sockets that have
// shown a credential of their own.
func (conn *sioConn) identity() *Identity {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	for _, s := range conn.sockets {
		if !s.own {
			return s.socket.Identity()
		}
	}
	return conn.adm.identity
}

// joinCookies is the request's Cookie header in one line.
func joinCookies(r *http.Request) string { return strings.Join(r.Header.Values("Cookie"), "; ") }

// sameCookies reports whether two Cookie headers say the same, in any order.
func sameCookies(a, b string) bool {
	if sameSecret(a, b) {
		return true
	}
	split := func(header string) (cookies []string) {
		for c := range strings.SplitSeq(header, ";") {
			if c = strings.TrimSpace(c); c != "" {
				cookies = append(cookies, c)
			}
		}
		slices.Sort(cookies)
		return cookies
	}
	return sameSecret(strings.Join(split(a), ";"), strings.Join(split(b), ";"))
}

// sameSecret compares without telling by its duration how much is right.
func sameSecret(a, b string) bool {
	return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}
