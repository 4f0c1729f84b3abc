package adapter

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	gsessions "github.com/gorilla/sessions"
)

// Who says whose sockets and sessions are meant. Its zero value is nobody's.
type Who struct {
	by    by
	value string
}

type by uint8

const (
	byUser by = iota + 1
	bySession
	byToken
	byProvider
)

// ByUser is everything of one user.
func ByUser(id string) Who { return Who{byUser, id} }

// BySession is one session, by Identity.SessionID.
func BySession(id string) Who { return Who{bySession, id} }

// ByToken is everything that was opened with one token, as it stands behind
// "Bearer".
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

// token returns what stands behind "Bearer" in the handshake, "" if nothing does.
func (h *Handshake) token() string {
	const header = "\r\nAuthorization: Bearer "
	_, rest, ok := strings.Cut(string(h.head), header)
	if !ok {
		return ""
	}
	token, _, _ := strings.Cut(rest, "\r\n")
	return token
}

// sockets returns the open sockets that are meant.
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
// It closes the sockets that are meant, also those whose handshake is under way,
// and returns how many there were. From then on,
//
//   - ByUser, ByProvider: sessions that Login made before are over, in every
//     store, for pages too. Whoever logs in again is let in: banning is what
//     Identify does.
//   - BySession: the session is over and deleted.
//   - ByToken: the token is refused, on pages too, although its middleware may
//     find it valid.
//
// This is remembered by this process, for as long as such a session or token can
// live, at most 30 days or the store's MaxAge. The error says that a store could
// not delete a session; all the rest has happened all the same.
func (s *Server) Revoke(ctx context.Context, w Who) (closed int, err error) {
	if w.value == "" {
		return 0, errors.New("adapter: Revoke: expected a user, session, token or provider, got none")
	}
	life := cookieLife
	for _, st := range s.stores {
		life = max(life, st.sessionLife())
	}
	if w.by == bySession {
		s.ended.add(w.value, life)
		for _, st := range s.stores {
			err = errors.Join(err, st.drop(ctx, w.value))
		}
	} else {
		s.revoked.add(w, life)
	}
	for _, sock := range s.socketsOf(w) {
		sock.close(ReasonRevoked)
		closed++
	}
	s.forgetAway(w)
	return closed, err
}

// forgetAway lets nobody who is meant be recovered.
func (s *Server) forgetAway(w Who) {
	if s.cfg.Recovery.Window == 0 {
		return
	}
	s.mu.RLock()
	namespaces := slices.Collect(maps.Values(s.namespaces))
	s.mu.RUnlock()
	for _, n := range namespaces {
		h := n.history
		h.mu.Lock()
		for _, g := range h.away {
			id := g.identity
			switch {
			case w.by == bySession && g.sessionID != w.value:
			case w.by == byUser && (id == nil || id.UserID != w.value):
			case w.by == byProvider && (id == nil || id.Provider != w.value):
			default: // with a token nobody knows who had it
				h.buryLocked(g)
			}
		}
		h.mu.Unlock()
	}
}

// Refresh has the chain replayed for the sockets that are meant, because what it
// would say has changed where the adapter cannot see it: roles in a database, for
// one. It returns at once; identity, rooms and guards follow within a quarter of
// a second, and nobody is disconnected who may stay.
func (s *Server) Refresh(ctx context.Context, w Who) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if w.value == "" {
		return errors.New("adapter: Refresh: expected a user, session, token or provider, got none")
	}
	s.follow.refresh(s.socketsOf(w))
	return nil
}

// refresh has sockets looked at again.
func (f *follower) refresh(sockets []*Socket) {
	bindings := make(map[*binding]struct{})
	f.mu.Lock()
	f.saves++ // for handshakes in flight
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

// drop deletes a session by its id, where the store has ids.
func (st *store) drop(ctx context.Context, id string) error {
	if st.inCookie.Load() {
		return nil // the tombstone is all there is
	}
	r := (&http.Request{Header: make(http.Header)}).WithContext(ctx)
	gone := gsessions.NewSession(st.inner, "session")
	gone.ID, gone.Options = id, expired(nil)
	if err := st.inner.Save(r, &nullWriter{}, gone); err != nil {
		return fmt.Errorf("adapter: delete session: %w", err)
	}
	return nil
}

// revocations are what Revoke has ended by something else than a session.
type revocations struct {
	mu sync.RWMutex
	of map[Who]revocation
}

type revocation struct{ at, until time.Time }

// maxRevocations bounds the memory of revocations.
const maxRevocations = 1 << 18

func (v *revocations) add(w Who, life time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.of == nil {
		v.of = make(map[Who]revocation)
	}
	now := time.Now()
	if len(v.of) >= maxRevocations {
		for w, r := range v.of {
			if now.After(r.until) {
				delete(v.of, w)
			}
		}
	}
	v.of[w.hidden()] = revocation{now, now.Add(life)}
}

// hidden is w without the token itself, which is not to be kept.
func (w Who) hidden() Who {
	if w.by == byToken {
		sum := sha256.Sum256([]byte(w.value))
		w.value = string(sum[:16])
	}
	return w
}

// since reports whether w was revoked after t.
func (v *revocations) since(w Who, t time.Time) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if len(v.of) == 0 || w.value == "" {
		return false
	}
	r, ok := v.of[w.hidden()]
	return ok && r.at.After(t)
}

// login reports whether a session that Login made was revoked since.
func (v *revocations) login(values map[any]any) bool {
	user, _ := values[keyUser].(string)
	if user == "" {
		return false
	}
	provider, _ := values[keyProvider].(string)
	at, _ := values[keyAt].(string)
	n, _ := strconv.ParseInt(at, 10, 64) // none is before everything
	t := time.Unix(0, n)
	return v.since(ByUser(user), t) || v.since(ByProvider(provider), t)
}

// token reports whether the token of a request was revoked, whenever.
func (v *revocations) token(authorization string) bool {
	token, ok := cutBearer(authorization)
	return ok && v.since(ByToken(token), time.Time{})
}

// over reports whether what a handshake has found was ended since the chain ran.
func (s *Server) over(adm *admission) bool {
	if s.ended.has(adm.sessionID) || s.revoked.token(adm.token) {
		return true
	}
	id, ran := adm.identity, time.Unix(0, adm.ran)
	return id != nil && (s.revoked.since(ByUser(id.UserID), ran) || s.revoked.since(ByProvider(id.Provider), ran))
}
