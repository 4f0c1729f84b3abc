package adapter

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// owns reports whether a request may use this connection. The sid alone proves
// nothing: it stands in URLs, and URLs end up in logs.
//
// The credential that the connection is bound to passes. Cookies that are
// missing now do not; a token that is missing does, because browsers cannot
// send one on an upgrade, and it is the handshake's that counts. About any other
// credential the chain is asked: if it names the same user, or the one who has
// logged in where nobody was, the connection is bound to it from then on.
func (conn *sioConn) owns(r *http.Request) bool {
	req, e := conn.srv.moveCredentials(r)
	if e != nil {
		return false
	}
	conn.mu.Lock()
	adm := conn.adm
	conn.mu.Unlock()
	first := adm.shake.Request(context.Background())
	if !conn.srv.sameOrigin(first, req) {
		return false
	}
	token, cookies := req.Header.Get("Authorization"), joinCookies(req)
	switch {
	case cookies == "" && adm.shake.cookies != "":
		return false
	case (token == "" || token == adm.token) && sameCookies(cookies, adm.shake.cookies):
		return true
	}
	now := *adm
	if token != "" {
		now.token = token
		first.Header.Set("Authorization", token)
	}
	if cookies != "" {
		first.Header.Set("Cookie", cookies)
	}
	return conn.rebind(first, r, now)
}

// rebind asks the chain who a request is that is like the handshake but for its
// credential, and binds the connection to it if it may have it. from is the
// request that presents the credential.
func (conn *sioConn) rebind(like, from *http.Request, now admission) bool {
	ctx, cancel := context.WithTimeout(from.Context(), replayTimeout)
	defer cancel()
	p := &pass{srv: conn.srv, mount: now.mount, req: like.Clone(ctx)}
	p.visit.replay = true
	p.admit = func(context.Context, *Identity) error { return nil }
	if p.run(methodReplay) != admitted {
		return false
	}
	sessionID, ref := "", sessionRef{}
	if l := p.session(); l != nil {
		sessionID, ref = l.id, sessionRef{l.store, l.name}
	}
	bound := conn.identity()
	switch {
	case bound != nil:
		if !bound.is(p.identity) {
			return false
		}
	case p.identity == nil:
		if sessionID != now.sessionID {
			return false
		}
	default:
		// Somebody where nobody was: only who has logged in right there.
		if now.sessionID == "" || conn.srv.ended.successor(now.sessionID) != sessionID || !now.shake.samePeer(from) {
			return false
		}
	}
	shake, err := record(like, nil)
	if err != nil {
		return false
	}
	shake.issued = now.shake.issued
	now.shake, now.identity, now.sessionID, now.ref = shake, p.identity, sessionID, ref
	now.bind(like)

	conn.mu.Lock()
	conn.adm = &now
	sockets := slices.Collect(maps.Values(conn.sockets))
	conn.mu.Unlock()
	for _, s := range sockets {
		conn.srv.follow.rebind(&s.socket, &now)
	}
	if conn.srv.ended.has(sessionID) {
		conn.srv.closeSession(sessionID, ReasonSessionEnded)
	}
	return true
}

// follow lets the connection be that of a session's successor.
func (conn *sioConn) follow(sessionID string, shake *Handshake) {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	now := *conn.adm
	now.sessionID, now.shake = sessionID, shake
	conn.adm = &now
}

func (conn *sioConn) identity() *Identity {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	for _, s := range conn.sockets {
		return s.socket.Identity()
	}
	return conn.adm.identity
}

// joinCookies is the request's Cookie header in one line.
func joinCookies(r *http.Request) string { return strings.Join(r.Header.Values("Cookie"), "; ") }

// sameCookies reports whether two Cookie headers say the same, in any order.
func sameCookies(a, b string) bool {
	if a == b {
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
	return slices.Equal(split(a), split(b))
}
