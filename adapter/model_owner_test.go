package adapter_test

import (
	"net/http"
	"slices"
	"time"
)

// Whose is a connection that polls? Each of its requests shows a cookie, and the id
// of the connection proves nothing. What is true:
//
//   - the credential of the connection may use it: that of its handshake and, once
//     somebody has logged in there, that of the new session. The one before may for
//     a moment, as requests cross the answer that brings the new cookie;
//   - so may another session of the same user, and then that is the connection's;
//   - nobody else may, and whoever tries changes nothing.

// A modelShow is what a request shows of who it is, and what came of it.
type modelShow struct {
	began    int // moment
	cookie   string
	intrudes bool // it is not the connection's client

	// The chain's run for it, if it was asked: only then it may have become the
	// connection's credential. Of a handshake, all of it.
	asked  span
	at     time.Time // of the end
	status int       // of the answer, 0 until then
}

// modelCrossing is how long a cookie from before a login may be shown.
const modelCrossing = 10 * time.Second

// refused reports whether the request had no effect.
func (s *modelShow) refused() bool {
	return s.status == http.StatusForbidden || s.status == statusUnknown
}

// letIn reports whether the request has certainly been let in.
func (s *modelShow) letIn() bool {
	return s.status == http.StatusOK || s.status == http.StatusSwitchingProtocols
}

// inEffectLocked are those of a connection's shows by which it may have been bound
// since a moment, the handshake among them: not those before a later one that
// was let in before that moment.
func (t *truth) inEffectLocked(c *modelConn, since int) (shows []*modelShow) {
	for i, s := range c.shows {
		if i > 0 && (s.asked.from == 0 || s.refused()) {
			continue
		}
		superseded := slices.ContainsFunc(c.shows[i+1:], func(later *modelShow) bool {
			return later.letIn() && later.asked.from > s.asked.to && later.asked.to != 0 && later.asked.to < since && (i == 0 || s.asked.to != 0)
		})
		if !superseded {
			shows = append(shows, s)
		}
	}
	return shows
}

// boundLocked are the sessions that a connection may have been bound to since a
// moment: those that it has shown and, behind each, those that logins have put in
// its place.
func (t *truth) boundLocked(c *modelConn, since int) (bound []*modelSession) {
	for _, show := range t.inEffectLocked(c, since) {
		if s := t.sessions[show.cookie]; show != c.shows[0] && s != nil && t.endedLocked(s, show.asked.from) {
			continue // a nobody's cookie
		}
		for _, s := range t.followedLocked(show.cookie, c.address) {
			if !slices.Contains(bound, s) {
				bound = append(bound, s)
			}
		}
	}
	return bound
}

// leavesLocked returns when a connection may last have been bound to another session
// than one that it was bound to, and whether that was certainly the last.
func (t *truth) leavesLocked(c *modelConn, s *modelSession) (at time.Time, certain bool) {
	for _, show := range c.shows[1:] {
		if show.asked.from == 0 || show.refused() || slices.Contains(t.followedLocked(show.cookie, c.address), s) {
			continue
		}
		if show.asked.to == 0 {
			at = time.Now()
		} else if show.at.After(at) {
			at = show.at
		}
	}
	return at, !slices.Contains(t.boundLocked(c, t.last), s)
}

// shown checks the answer to a request.
func (t *truth) shown(c *modelConn, show *modelShow, method string, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tickLocked()
	show.status = status
	if !show.refused() || show.intrudes || status == http.StatusForbidden {
		t.noteLocked("connection %d: %s with session %q: %d", c.n, method, show.cookie, status)
	}
	switch {
	case status == statusUnknown || t.over:
	case status != http.StatusForbidden && !t.mayOwnLocked(c, show):
		t.wrongLocked("%s with session %q was let in to connection %d: %d", method, show.cookie, c.n, status)
	case status == http.StatusForbidden && !c.left && t.mustOwnLocked(c, show):
		t.wrongLocked("%s with session %q was refused at connection %d, which is its own", method, show.cookie, c.n)
	}
}

// mayOwnLocked reports whether a request that was made may be let in.
func (t *truth) mayOwnLocked(c *modelConn, show *modelShow) bool {
	if show.intrudes && show.cookie == "" {
		return c.cookie == "" // a client that keeps no cookies looks like that
	}
	others := slices.DeleteFunc(t.inEffectLocked(c, show.began), func(s *modelShow) bool { return s == show })
	var bound []*modelSession
	for _, s := range others {
		if s.cookie == show.cookie {
			return true
		}
		bound = append(bound, t.followedLocked(s.cookie, c.address)...)
	}
	mine, now := t.sessions[show.cookie], t.last
	if slices.Contains(bound, mine) {
		return true
	}
	users, seen := t.usersLocked(c, bound)
	hasNone := func(s *modelShow) bool { return t.overLocked(t.sessions[s.cookie], s.began, now) }
	if !seen && hasNone(show) && slices.ContainsFunc(others, hasNone) {
		return true // two that have no session, of whom nobody knows more than that
	}
	if mine == nil {
		return false
	}
	for i, r := range mine.rows {
		if r.present && r.span(mine, i).overlaps(show.began, now) && r.user != "" && slices.Contains(users, r.user) {
			return true
		}
	}
	return false
}

// usersLocked returns who may be at a connection; seen says that its handlers have
// seen somebody.
func (t *truth) usersLocked(c *modelConn, bound []*modelSession) (users []string, seen bool) {
	for _, k := range c.sockets {
		if k.seen && k.lastUser != "" {
			users, seen = append(users, k.lastUser), true
		}
	}
	for _, s := range bound {
		own := make(map[string]bool)
		for _, r := range s.rows {
			own[r.user] = r.user != ""
		}
		delete(own, "")
		if len(own) > 1 || !seen {
			for user := range own {
				users = append(users, user)
			}
		}
	}
	return users, seen
}

// mustOwnLocked reports whether a request has certainly shown the credential of its
// connection: as nothing has changed that, or as a login has.
func (t *truth) mustOwnLocked(c *modelConn, show *modelShow) bool {
	if c.polls.visitor != "" {
		return false // it has no session, and about a visitor's cookie the chain is asked
	}
	next, until := "", time.Time{}
	if s := t.sessions[c.cookie]; s != nil {
		for _, e := range s.ends {
			if e.how != "login" {
				continue
			}
			if next != "" || e.failed || e.to == 0 || e.to > show.began || e.address != c.address || !t.heldLocked(c, e.from) {
				return false
			}
			if slices.ContainsFunc(s.rows, func(r *modelRow) bool { return r.user != "" && r.user != e.user }) {
				return false // who may have been closed, and their connection is not taken along
			}
			next, until = e.next, e.begun.Add(modelCrossing)
		}
	}
	if next != "" {
		if len(t.followedLocked(next, c.address)) != 1 || len(t.sessions[next].ends) > 0 {
			return false // and so on
		}
	}
	for _, other := range c.shows {
		if other.cookie != c.cookie && other.cookie != next && other.asked.from != 0 && !other.refused() {
			return false
		}
	}
	switch show.cookie {
	case next:
		return next != ""
	case c.cookie:
		return next == "" || time.Now().Before(until)
	}
	return false
}

// heldLocked reports whether a connection has a socket that was open before a moment.
func (t *truth) heldLocked(c *modelConn, before int) bool {
	for _, k := range c.sockets {
		if k.opened != 0 && k.opened < before && !k.gone {
			return true
		}
	}
	return false
}

// intruded checks that an event of an intruder's was let in.
func (t *truth) intruded(c *modelConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.intrudesLocked(c) {
		t.wrongLocked("connection %d has taken an event from somebody else", c.n)
	}
}

// intrudesLocked reports whether who was no intruder after all may use a connection.
func (t *truth) intrudesLocked(c *modelConn) bool {
	return slices.ContainsFunc(c.shows, func(s *modelShow) bool {
		return s.intrudes && !s.refused() && t.mayOwnLocked(c, s)
	})
}
