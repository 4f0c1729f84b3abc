package adapter

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"
)

// A renewal is what a request has done to the sessions of one TokenStore.
type renewal struct {
	store     *tokenStore
	from      []string      // what it has come with, and deleted, if it is that of a page
	to        string        // what it has committed
	made      bool          // and there was no such session before
	rivals    []string      // what other pages have put in the place of what it has deleted
	unsettled []string      // tokens of which others have to wait for the end of the request
	bases     []map[any]any // the values of what was deleted, as they were loaded
	// What was deleted last of these, and how it was then.
	deleted string
	last    *tokenSession
}

// found returns the session of a token that the visit has loaded, or made; nil if it
// has not.
func (v *visit) found(st *tokenStore, token string) *loaded {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.foundLocked(st, token)
}

// noteSaved notes what is known of the visit's session l, nil if it is a new one,
// now that it is saved.
func (v *visit) noteSaved(l, now *loaded) {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if l == nil {
		v.loaded = append(v.loaded, now)
	} else {
		l.base, l.expires, l.view = now.base, now.expires, now.view
	}
}

// sources returns the values of the sessions that may have come into l, or into a
// new one: l's own first, then those of sessions that the visit has deleted.
func (v *visit) sources(st *tokenStore, l *loaded) (all []map[any]any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l != nil {
		all = append(all, l.base)
	}
	return append(all, v.renewalLocked(st).bases...)
}

// carry notes what is in a session that the visit deletes: a socket may have changed
// it since it was loaded, and RenewToken means to keep it. One that is changed at this
// very moment may be carried along although the change is refused.
func (v *visit) carry(ctx context.Context, st *tokenStore, token string) {
	if v == nil {
		return
	}
	v.mu.Lock()
	r := v.renewalLocked(st)
	mine := len(r.bases) > 0 && r.deleted == token
	v.mu.Unlock()
	if !mine {
		return
	}
	var last *tokenSession
	if b, found, err := st.find(ctx, token); err == nil && found {
		last, _ = st.decode(b)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	r.last = last
}

// carried returns the session that the visit has deleted last: its values as they were
// loaded, and as they were then; nil if that is not known.
func (v *visit) carried(st *tokenStore) (base map[any]any, last *tokenSession) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := v.renewalLocked(st)
	if n := len(r.bases); n > 0 {
		base = r.bases[n-1]
	}
	return base, r.last
}

func (v *visit) foundLocked(st *tokenStore, token string) *loaded {
	for _, l := range v.loaded {
		if l.tokens == st && l.id == token {
			return l
		}
	}
	return nil
}

// committed notes a commit, of a session that is made by it or was there, which
// comes in the place of those that the visit has deleted.
func (v *visit) committed(st *tokenStore, token string, made bool) {
	if v == nil || !v.page {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	r := v.renewalLocked(st)
	r.made = made || r.made && r.to == token
	r.to = token
	r.unsettleLocked(token)
	for _, from := range r.from {
		if was := st.srv.ended.succeeded(from, token, v.peer); was != "" {
			r.rivals = append(r.rivals, was)
		}
	}
}

// deleted notes that the visit's session was deleted. It reports false if that
// is nothing to wait for: the session is another one, or nobody will look at
// the end of the visit.
func (v *visit) deleted(st *tokenStore, token string) bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.renewals {
		if r.store == st && slices.Contains(r.from, token) {
			return true // once more
		}
	}
	l := v.foundLocked(st, token)
	if l == nil {
		return false
	}
	l.id = ""
	r := v.renewalLocked(st)
	if l.view != nil && !l.view.fresh {
		r.bases, r.deleted, r.last = append(r.bases, l.base), token, nil
	}
	if !v.page {
		return false
	}
	r.from = append(r.from, token)
	if r.to == token {
		r.to = ""
	}
	r.unsettleLocked(token)
	return true
}

// unsettleLocked notes that what a session is is not known before the request ends.
func (r *renewal) unsettleLocked(token string) {
	if !slices.Contains(r.unsettled, token) {
		r.unsettled = append(r.unsettled, token)
		r.store.unsettle(token)
	}
}

func (v *visit) renewalLocked(st *tokenStore) *renewal {
	for _, r := range v.renewals {
		if r.store == st {
			return r
		}
	}
	r := &renewal{store: st}
	v.renewals = append(v.renewals, r)
	return r
}

// takeRenewals returns what the visit has done, once.
func (v *visit) takeRenewals() []*renewal {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.renewals
	v.renewals = nil
	return all
}

// renews reports whether the visit has deleted a session that sockets may hang on.
func (v *visit) renews() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.ContainsFunc(v.renewals, func(r *renewal) bool { return len(r.from) > 0 })
}

// pageVisit is the beginning of the chain on a page.
func (s *Server) pageVisit(c *gin.Context) {
	v := new(visit)
	c.Request = c.Request.WithContext(v.with(c.Request.Context()))
	if len(s.tokenStores) > 0 {
		v.page, v.peer = true, peerOf(c.Request)
		defer s.followRenewals(c, c.Request, v) // also if a handler panics
		c.Next()
	}
}

// followRenewals lets the sockets of sessions that the request of a page has deleted
// follow to the one it has committed, or ends them.
func (s *Server) followRenewals(c *gin.Context, r *http.Request, v *visit) {
	for _, done := range v.takeRenewals() {
		if len(done.from) > 0 {
			s.followRenewal(c, r, v, done)
		}
		if cookie := cookieOf(done.to, c.Writer.Header()); cookie != nil && v.user != "" {
			if visitorOf(r) != "" {
				s.followVisitor(r, &loaded{tokens: done.store, id: done.to, name: cookie.Name, cookie: cookie.Value})
				if !c.Writer.Written() {
					unlink(c)
				}
			}
			if done.made {
				s.replaceRivals(r, v, done, cookie)
			}
		}
		for _, token := range done.unsettled {
			done.store.settled(token)
		}
	}
}

func (s *Server) followRenewal(c *gin.Context, r *http.Request, v *visit, done *renewal) {
	// What the store calls a token may be its hash: only the answer has the
	// cookie itself, with its name.
	cookie := cookieOf(done.to, c.Writer.Header())
	for _, from := range done.from {
		if cookie == nil {
			s.closeSession(from, ReasonSessionEnded)
			if done.to == "" {
				done.store.endSuccessors(r.Context(), from, v.peer)
			}
		} else {
			s.followLogin(r, from, done.to, v.user, cookie)
		}
	}
	if s.ended.has(done.to) { // before they came
		s.closeSession(done.to, ReasonSessionEnded)
	}
}

// replaceRivals ends what other logins of the same browser have made while the page
// that has logged in was on its way, or before, if its request did not show that yet.
// The browser keeps one cookie: their sockets follow to its session, or no logout
// would end them.
func (s *Server) replaceRivals(r *http.Request, v *visit, done *renewal, cookie *http.Cookie) {
	// Also if the client has gone.
	ctx, cancel := outlasting(r.Context())
	defer cancel()
	rivals := done.rivals
	succeed := func(id string) {
		if was := s.ended.succeeded(id, done.to, v.peer); was != "" {
			rivals = append(rivals, was)
		}
	}
	for _, c := range r.CookiesNamed(cookie.Name) {
		for _, shown := range [...]string{c.Value, hashedToken(c.Value)} {
			if !slices.Contains(done.from, shown) { // else the commit has done it
				succeed(shown)
			}
		}
	}
	if visit := visitorOf(r).session(cookie.Name); visit != "" {
		s.ended.add(visit, tombstoneLife)
		succeed(visit)
	}
	for len(rivals) > 0 {
		rival := rivals[0]
		rivals = rivals[1:]
		if rival == done.to || slices.Contains(done.from, rival) {
			continue
		}
		// Twice, as in Login.
		was := s.followLogin(r, rival, done.to, v.user, cookie)
		done.store.end(rival, tombstoneLife)
		if was = cmp.Or(was, s.followLogin(r, rival, done.to, v.user, cookie)); was != "" {
			rivals = append(rivals, was)
		}
		if err := done.store.outlive(ctx, rival, done.store.drop(ctx, rival)); err != nil {
			s.log.Warn("a session that another login has replaced could not be deleted", "error", err)
		}
	}
}

// endSuccessors ends what logins on other pages have put in the place of a session
// while the page that destroyed it was on its way. Who logs out does not mean to stay
// logged in.
func (st *tokenStore) endSuccessors(ctx context.Context, token string, peer uint64) {
	// Also if the client has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), touchTimeout)
	defer cancel()
	for _, next := range st.srv.ended.successors(token, peer) {
		st.end(next, tombstoneLife)
		st.srv.closeSession(next, ReasonSessionEnded)
		if err := st.outlive(ctx, next, st.drop(ctx, next)); err != nil {
			st.srv.log.Warn("a session that a logout has ended could not be deleted", "error", err)
		}
	}
}

// cookieOf returns the cookie of an answer by which a client will show a token,
// nil if there is none.
func cookieOf(token string, answer http.Header) *http.Cookie {
	if token == "" {
		return nil
	}
	for _, c := range setCookies(answer) {
		if c.Value == token || hashedToken(c.Value) == token {
			return c
		}
	}
	return nil
}

// hashedToken is what scs calls a token in its store with HashTokenInStore.
func hashedToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
