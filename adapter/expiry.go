package adapter

import (
	"bytes"
	"time"

	"github.com/gin-usher/usher/adapter/internal/plain"
)

// tokenRequiredEvent tells a client that its token is about to expire.
const tokenRequiredEvent = "token required"

// refreshLead is how long before the end of a token its client is told; half of
// what is left, where that is less than twice as long.
const refreshLead = time.Minute

// sameExpiry is how far two ends of one credential may lie apart: who computes
// them from what is left gets another one each time.
const sameExpiry = time.Second

// reserved reports whether the server sends an event of that name itself, or
// takes one, so that the app cannot.
func (s *Server) reserved(event string) bool {
	if plain.Reserved(event) {
		return true
	}
	return (event == authenticateEvent || event == tokenRequiredEvent) && s.takes(inFirstMessage)
}

// expireLocked makes the socket end when id does, and has its client told before
// if it can show a fresh token. was is who the socket has been. It is called
// with s.mu held, so that no timer is set behind the back of ended, which would
// keep the socket in memory until then.
func (s *Socket) expireLocked(was, id *Identity) {
	wheel := s.ns.srv.eng.Wheel()
	if id == nil || id.Expires.IsZero() {
		wheel.Stop(&s.expiry)
		return
	}
	asks := s.refreshes()
	if was == nil || id.Expires.Sub(was.Expires).Abs() >= sameExpiry {
		s.reminded = false
	} else if asks && !s.reminded {
		return // what is left has been halved already
	}
	at := id.Expires
	if left := time.Until(at); asks && !s.reminded && left > 0 {
		at = at.Add(-min(refreshLead, left/2))
	}
	wheel.Set(&s.expiry, at, s)
}

// refreshes reports whether the socket's client is known by a token, wherever
// that stood, and can replace it by a message "authenticate". Who is known by a
// cookie has no token to show.
func (s *Socket) refreshes() bool {
	return s.ns.srv.takes(inFirstMessage) && bytes.Contains(s.shake.Load().head, []byte("\r\nAuthorization: Bearer "))
}

// Expired is the hard end of a credential, whatever a replay may be saying, or
// the time to ask for a fresh one; or the end of patience with a socket that waits on
// a connection that does not.
func (s *Socket) Expired(now time.Time) {
	if s.waiting.Load() {
		if s.link.pending() == nil {
			s.close(ReasonAuthTimeout)
		}
		return
	}
	s.mu.Lock()
	id := s.Identity()
	if s.closed || id == nil || id.Expires.IsZero() {
		s.mu.Unlock()
		return
	}
	left := id.Expires.Sub(now)
	if left <= 0 {
		s.mu.Unlock()
		s.close(ReasonExpired)
		return
	}
	if s.reminded || left > refreshLead || !s.refreshes() {
		s.mu.Unlock()
		return // the timer was moved while it fired
	}
	s.reminded = true
	s.ns.srv.eng.Wheel().Set(&s.expiry, id.Expires, s)
	s.mu.Unlock()
	s.requireToken(id.Expires)
}

// requireToken tells the client. It is a matter of this connection: neither
// recovered nor shown to the app's taps.
func (s *Socket) requireToken(expires time.Time) {
	m := &message{ns: s.ns, event: tokenRequiredEvent, args: []any{tokenRequired{expires.UTC().Format(time.RFC3339)}}}
	_ = s.queue(m, false) // who is gone needs no token
}

// tokenRequired is the data of that event.
type tokenRequired struct {
	Expires string `json:"expires"` // RFC 3339, UTC, cut to whole seconds
}
