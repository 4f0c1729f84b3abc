package adapter

import (
	"context"
	"errors"
	"time"
)

// Revoke ends sockets and logins: "sign out everywhere", bans, a stolen device.
// It closes the sockets that are meant on every node of the cluster, also those
// whose handshake is under way, and returns how many there were on this one: to
// count the others it would have to wait for them. From then on,
//
//   - ByUser, ByProvider: sessions that Login made before are over, in every
//     store, for pages too, and so are those of a TokenStore. Whoever logs in
//     again is let in: banning is what Identify does.
//   - BySession: the session is over and deleted.
//   - ByToken: the token is refused, on pages too, although its middleware may
//     find it valid.
//
// This is remembered for as long as such a session or token can live, at most 30
// days or the store's MaxAge: in Config.Endings, without which it is forgotten
// when this process ends. Nodes that cannot be reached are told when they are
// back; the clocks of a cluster should not differ by more than a minute.
//
// It goes on if ctx ends, as that of a handler does whose own socket is closed. The
// error says that a store could not delete a session, or that the revocation
// could not be written down; all the rest has happened all the same.
func (s *Server) Revoke(ctx context.Context, w Who) (closed int, err error) {
	if w.value == "" {
		return 0, errors.New("adapter: Revoke: expected a user, session, token or provider, got none")
	}
	life := s.longestLife()
	// A request that has loaded its session before may save it a little later.
	life += tombstoneLife
	m, r := w.mark(), newRevocation(life)
	// First the mark, so that nobody comes in any more, then who is in.
	if w.by == bySession {
		s.ended.add(w.value, life)
	} else {
		r = s.revoked.add(m, r)
	}
	if s.cluster != nil {
		s.cluster.tellRevoked(m, r)
	}
	s.settle()
	var drops []func(context.Context) error
	if w.by == bySession {
		for _, st := range s.stores {
			drops = append(drops, st.dropLater(w.value))
		}
	}
	sockets := s.socketsOf(w)
	for _, sock := range sockets {
		sock.close(ReasonRevoked)
	}
	s.forgetAway(map[mark]bool{m: true})
	if w.by == bySession {
		s.follow.withdrawn(w.value, m.hash)
		for _, drop := range drops {
			err = errors.Join(err, drop(ctx))
		}
		for _, st := range s.tokenStores {
			err = errors.Join(err, st.drop(ctx, w.value))
		}
	}
	s.ledger.warn("Revoke")
	return len(sockets), errors.Join(err, s.ledger.write(ctx, endingOf(m, r)))
}

// longestLife is how long a session can live in any of the stores.
func (s *Server) longestLife() time.Duration {
	life := cookieLife
	for _, st := range s.stores {
		life = max(life, st.sessionLife())
	}
	for _, st := range s.tokenStores {
		life = max(life, st.sessionLife())
	}
	return life
}

// forgetAway lets nobody who is meant be recovered.
func (s *Server) forgetAway(marks map[mark]bool) {
	if s.cfg.Recovery.Window == 0 {
		return
	}
	tokens := false // nobody knows who had one
	for m := range marks {
		tokens = tokens || m.by == byToken
	}
	for _, n := range s.spaces() {
		h := n.history
		h.mu.Lock()
		for _, g := range h.away {
			meant := tokens || marks[BySession(g.sessionID).mark()]
			if id := g.identity; id != nil {
				meant = meant || marks[ByUser(id.UserID).mark()] || marks[ByProvider(id.Provider).mark()]
			}
			if meant {
				h.buryLocked(g)
			}
		}
		h.mu.Unlock()
	}
}

// revoked reports whether who the socket is was ended since the chain has said so.
func (s *Socket) revoked() bool {
	f, ended := &s.ns.srv.follow, &s.ns.srv.revoked
	if ended.none() {
		return false
	}
	f.mu.Lock()
	checked := f.began.Add(s.checked)
	f.mu.Unlock()
	if shake := s.shake.Load(); shake != nil && ended.token(shake.token()) {
		return true
	}
	id := s.Identity()
	return id != nil && ended.anySince(login{user: id.UserID, provider: id.Provider}, checked)
}

// over reports whether what a handshake has found was ended since the chain ran.
func (s *Server) over(adm *admission) bool {
	if s.ended.has(adm.sessionID) || s.ended.has(adm.ownSession()) || s.revoked.token(adm.token) {
		return true
	}
	id := adm.identity
	return id != nil && s.revoked.anySince(login{user: id.UserID, provider: id.Provider}, time.Unix(0, adm.ran))
}

// stands runs f, which makes seen who a socket is, unless what adm has found was
// ended since. Between the two nobody ends it: a socket of which it is known that
// it may come in, and that nobody can find yet, would be missed.
func (s *Server) stands(adm *admission, f func()) bool {
	s.arriving.RLock()
	defer s.arriving.RUnlock()
	if s.over(adm) {
		return false
	}
	f()
	return true
}

// settle is called by who has ended something other than a session, or looks at
// who its sockets are, before it looks for them: those that were told before that
// what they have found stands can be found afterwards.
func (s *Server) settle() {
	s.arriving.Lock()
	defer s.arriving.Unlock()
}
