package adapter

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-usher/usher/adapter/internal/eio"
	"github.com/gin-usher/usher/adapter/internal/engine"
)

// A sessionCookie is a session that lives in a cookie and was changed by a
// socket: on its way to the browser, with the answer to the next poll, or there.
type sessionCookie struct {
	id    string   // of the session
	name  string   // of the cookie
	value string   // as the connection's handshake has it now
	set   []string // Set-Cookie, until an answer takes it; guarded by sioConn.mu
	old   []string // values that the browser may still show: the first it had, then the latest
}

const (
	oldCookies  = 4 // that are remembered: a POST may overtake a poll, and some clients keep no cookies
	cookieTries = 3
)

// errCookieChanged is why a cookie cannot be changed before the browser has shown
// the one that a page has given to it.
var errCookieChanged = fmt.Errorf("%w at this moment: a page has just saved it; try again", ErrReadOnlySession)

// carrier returns the connection that can bring the cookie of the socket's
// session to its browser, nil if none can: it has to poll, and its client to keep
// cookies, which those of QuerySession do not.
func (h *Session) carrier() *sioConn {
	over, ok := h.s.link.(*sioSocket)
	if !ok || !over.conn.session.Polls() {
		return nil
	}
	ref, _ := h.s.session()
	if slices.ContainsFunc(h.srv.cfg.Credentials, func(c Source) bool { return c.place == inQuerySession && c.cookie == ref.name }) {
		return nil
	}
	return over.conn
}

// updateCookie is Update for a session that lives in conn's cookie. The session's
// lock is held; but the browser may show another cookie at any time, and what f
// has changed is then changed in that one.
func (h *Session) updateCookie(ctx context.Context, conn *sioConn, id string, f func(Values) error) error {
	ref, _ := h.s.session()
	var base, changed map[any]any
	for range cookieTries {
		was, ok := conn.cookieValue(ref.name)
		if !ok {
			return errCookieChanged
		}
		got, err := ref.store.load(ctx, ref.name, was)
		if err != nil {
			return err
		}
		if got.IsNew || sessionID(got) != id {
			return ErrSessionGone
		}
		if changed == nil {
			base, changed = got.Values, maps.Clone(got.Values)
			if err := f(changed); err != nil {
				return err
			}
			if err := checkOwn(base, changed); err != nil {
				return err
			}
			got.Values = maps.Clone(changed)
		} else {
			rebase(got.Values, base, changed)
		}
		got.Values[keyID] = id // without it nothing could end the session
		header, err := h.save(h.s.shake.Load().Request(ctx), id, got)
		if err != nil {
			return err
		}
		if conn.setCookie(id, ref.name, was, header) {
			return nil
		}
	}
	return errCookieChanged
}

// cookieValue returns the value of a cookie as the connection has it now. It is
// not ok if the browser has got another one.
func (conn *sioConn) cookieValue(name string) (value string, ok bool) {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	return cookieIn(conn.adm.shake.cookies, name), !conn.behind
}

// cookieIn returns the value of the first cookie of a name in a Cookie header, as
// net/http would.
func cookieIn(header, name string) string {
	for part := range strings.SplitSeq(header, ";") {
		if n, value, _ := strings.Cut(strings.TrimSpace(part), "="); n == name {
			return value
		}
	}
	return ""
}

// setCookie makes the connection that of a session's new cookie, and has it sent
// with the next answer to a poll. It reports false if the cookie is not the one
// that was changed any more. One that has not been sent yet is superseded.
func (conn *sioConn) setCookie(id, name, was string, header http.Header) bool {
	set := setCookies(header)
	conn.mu.Lock()
	if conn.behind || cookieIn(conn.adm.shake.cookies, name) != was {
		conn.mu.Unlock()
		return false
	}
	next := &sessionCookie{id: id, name: name, set: header["Set-Cookie"]}
	unsent := false
	if last := conn.cookie; last != nil {
		unsent = last.set != nil
		next.old = last.old
	}
	if !unsent { // else no browser has ever had it
		next.old = append(slices.Clone(next.old), was)
		if len(next.old) > oldCookies {
			next.old = slices.Delete(next.old, 1, 2)
		}
	}
	adm := *conn.adm
	adm.shake = adm.shake.withCookies(set)
	adm.binding = conn.ownKey(adm.binding)
	next.value = cookieIn(adm.shake.cookies, name)
	conn.adm, conn.cookie = &adm, next
	sockets := make([]*Socket, 0, len(conn.sockets))
	for _, s := range conn.sockets {
		sockets = append(sockets, &s.socket)
	}
	conn.mu.Unlock()

	conn.srv.follow.changed(id, sockets, set, conn)
	if !unsent {
		// The poll that is held is answered at once, with a packet that says nothing:
		// until then the browser shows the old cookie on pages too.
		_ = conn.session.Send(engine.Packet(eio.Packet{Type: eio.Noop}))
	}
	return true
}

// showsLocked takes note of the cookies of a request that has just been let in,
// and that was read with set.
func (conn *sioConn) showsLocked(now *admission, set *sessionCookie) {
	c, name := conn.cookie, now.ref.name
	if c != nil {
		name = c.name
	}
	value := cookieIn(now.shake.cookies, name)
	if c != nil && c != set && (set != nil && value == set.value || slices.Contains(c.old, value)) {
		// Changed while the chain was asked about the one before.
		now.shake = now.shake.withCookies([]*http.Cookie{{Name: c.name, Value: c.value}})
		value = c.value
	}
	switch {
	case value != cookieIn(conn.adm.shake.cookies, name): // the browser has it from a page
		conn.cookie, conn.behind = nil, false
	case c != nil:
		now.binding = conn.ownKey(now.binding)
	}
}

// superseded is told that a page has given the browser of a session that lives in
// its cookie another one. What sockets have changed in the one before is not sent
// any more; and what they would change now, they would change in the wrong one.
func (f *follower) superseded(id, name, value string) {
	for _, s := range f.sockets(id) {
		over, ok := s.link.(*sioSocket)
		if !ok {
			continue
		}
		conn := over.conn
		conn.mu.Lock()
		if cookieIn(conn.adm.shake.cookies, name) != value {
			conn.behind = true
			if c := conn.cookie; c != nil {
				old := slices.DeleteFunc(slices.Clone(c.old), func(v string) bool { return v == value })
				conn.cookie = &sessionCookie{id: c.id, name: c.name, value: c.value, old: old}
			}
		}
		conn.mu.Unlock()
	}
}

// ownKey returns the key of a binding that has only this connection's sockets:
// the cookies of others, of the same browser too, are not changed with its own.
func (conn *sioConn) ownKey(key string) string {
	if key == "" || strings.HasSuffix(key, conn.id) {
		return key
	}
	return key + conn.id
}

// changed gives the sockets of a connection that hang on a session its changed
// cookie, and has them replayed.
func (f *follower) changed(id string, sockets []*Socket, set []*http.Cookie, conn *sioConn) {
	replay := make(map[*binding]struct{})
	f.mu.Lock()
	for _, s := range sockets {
		b := s.binding
		if b == nil || s.sessionID != id {
			continue // it has ended, or follows another one
		}
		s.shake.Store(s.shake.Load().withCookies(set))
		if key := conn.ownKey(b.key); key != b.key {
			besides := f.others.of[b]
			f.unbindLocked(s)
			b = f.bindLocked(s, id, key, time.Time{})
			f.noteOthersLocked(b, besides)
		}
		replay[b] = struct{}{}
	}
	f.mu.Unlock()
	for b := range replay {
		f.trigger(b)
	}
}

// bringCookie puts a cookie that waits into an answer to the client, unless its
// session has ended: it would take the place of one that a login has made.
func (conn *sioConn) bringCookie(answer http.Header) {
	conn.mu.Lock()
	var id string
	var set []string
	if c := conn.cookie; c != nil {
		id, set = c.id, c.set
		c.set = nil
	}
	conn.mu.Unlock()
	if set == nil || conn.srv.ended.has(id) {
		return
	}
	for _, line := range set {
		answer.Add("Set-Cookie", line)
	}
}

// uptodate returns a Cookie header of the browser's as if it knew already what it
// is yet to be sent: a request that is under way shows what was before.
func (c *sessionCookie) uptodate(header string) string {
	if c == nil || !slices.Contains(c.old, cookieIn(header, c.name)) {
		return header
	}
	return patchCookie(header, &http.Cookie{Name: c.name, Value: c.value})
}
