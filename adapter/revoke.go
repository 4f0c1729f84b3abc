package adapter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	gsessions "github.com/gorilla/sessions"
)

// Who says whose sockets and sessions are meant. Its zero value is nobody's.
type Who struct {
	by    by
	value string
}

// ByUser is everything of one user.
func ByUser(id string) Who { return Who{byUser, id} }

// BySession is one session, by Identity.SessionID.
func BySession(id string) Who { return Who{bySession, id} }

// ByToken is everything that was opened with one token, as it stands in
// Authorization, behind "Bearer" or alone.
func ByToken(token string) Who { return Who{byToken, withoutSignature(token)} }

// ByProvider is everybody who has logged in with one provider.
func ByProvider(name string) Who { return Who{byProvider, name} }

// matches reports whether the socket is one of those that are meant.
func (w Who) matches(s *Socket) bool {
	id := s.Identity()
	switch w.by {
	case byUser:
		return id != nil && id.UserID == w.value
	case byProvider:
		return id != nil && id.Provider == w.value
	case bySession:
		return s.SessionID() == w.value
	case byToken:
		return withoutSignature(s.shake.Load().token()) == w.value
	}
	return false
}

// withoutSignature returns what is signed of a JWT, and any other token as it is.
// The signature can be written in several ways that verify: base64 of most sizes
// ends in bits that decoders ignore (RFC 4648, section 3.5), and those of elliptic
// curves have twins. What is signed has one.
func withoutSignature(token string) string {
	if at := strings.LastIndexByte(token, '.'); strings.HasPrefix(token, "ey") && strings.Count(token, ".") == 2 {
		return token[:at]
	}
	return token
}

// token returns the token that the handshake shows in Authorization, "" if none.
func (h *Handshake) token() string {
	_, rest, _ := bytes.Cut(h.head, []byte("\r\nAuthorization: "))
	line, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return bareToken(string(line))
}

// socketsOf returns the open sockets that are meant.
func (s *Server) socketsOf(w Who) (found []*Socket) {
	if w.by == bySession {
		return s.follow.sockets(w.value)
	}
	for _, sock := range s.sockets() {
		if w.matches(sock) {
			found = append(found, sock)
		}
	}
	return found
}

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
// The error says that a store could not delete a session, or that the revocation
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
	s.mu.RLock()
	namespaces := slices.Collect(maps.Values(s.namespaces))
	s.mu.RUnlock()
	for _, n := range namespaces {
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

// Refresh has the chain replayed for the sockets that are meant, on every node
// of the cluster, because what it would say has changed where the adapter cannot
// see it: roles in a database, for one. It returns at once; identity, rooms and
// guards follow within a quarter of a second, on other nodes within half a
// second, and nobody is disconnected who may stay. A node that cannot be reached
// notices within Config.Revalidate.
func (s *Server) Refresh(ctx context.Context, w Who) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if w.value == "" {
		return errors.New("adapter: Refresh: expected a user, session, token or provider, got none")
	}
	s.follow.tell() // before it looks: those that it cannot find yet see it
	s.follow.refresh(s.socketsOf(w))
	if s.cluster != nil {
		s.cluster.changes.add(w.mark())
	}
	return nil
}

// tell notes a change for those that are being looked at, in a handshake or a
// replay: by whom they will turn out to be, they cannot be found yet.
func (f *follower) tell() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saves.add(sessionHash{})
	f.tellings++
}

// refresh has sockets looked at again.
func (f *follower) refresh(sockets []*Socket) {
	bindings := make(map[*binding]struct{})
	f.mu.Lock()
	for _, s := range sockets {
		if s.binding != nil {
			bindings[s.binding] = struct{}{}
		}
	}
	f.mu.Unlock()
	for b := range bindings {
		f.trigger(b)
	}
}

// dropLater returns what deletes a session by its id, where the store has ids: later,
// when sockets that have its cookie now may be closed or follow another session. Some
// stores find a session by its cookie alone (gorm's does): that of a socket on it.
// Without one their row stays, behind its tombstone.
func (st *store) dropLater(id string) func(context.Context) error {
	if st.inCookie.Load() {
		return func(context.Context) error { return nil } // the tombstone is all there is
	}
	header := make(http.Header)
	name := "session"
	for _, sock := range st.srv.follow.sockets(id) {
		if ref, _ := sock.session(); ref.store == st {
			name = ref.name
			header.Set("Cookie", sock.shake.Load().cookies)
			break
		}
	}
	return func(ctx context.Context) error { return st.dropRow(ctx, name, id, header) }
}

// dropRow deletes a session, with the header by which some stores find it.
func (st *store) dropRow(ctx context.Context, name, id string, header http.Header) error {
	gone := gsessions.NewSession(st.inner, name)
	gone.ID, gone.Options = id, expired(nil)
	err := st.inner.Save((&http.Request{Header: header}).WithContext(ctx), &nullWriter{}, gone)
	if err == nil {
		err = st.ping(ctx)
	}
	if err != nil {
		return fmt.Errorf("adapter: delete session: %w", err)
	}
	return nil
}

// over reports whether what a handshake has found was ended since the chain ran.
func (s *Server) over(adm *admission) bool {
	if s.ended.has(adm.sessionID) || s.revoked.token(adm.token) {
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
