package adapter

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
)

// Nobody tells a TokenStore who has logged in, and Revoke cannot ask each of its
// sessions whose it is. So it is noted in them, at the end of a page that has saved
// one: whom Identify names then, and since when. A session in which nobody is noted
// yet is as old as itself.

// An owner is whose the session of a page is at its end.
type owner struct {
	login             // at is the stamp of a login that is made now
	store *tokenStore // that the session is in; nil if there is none yet
	same  bool        // it was so when the page began
	began time.Time   // the page
}

// sign notes in a session whose it is, if that is news. login reports whether they
// have logged in with this page: they have been somebody else's, or nobody's, before,
// or nothing in the session is from before.
func (o *owner) sign(s *tokenSession, fresh bool) (login bool) {
	was := loginOf(s.values)
	if was.user == o.user && was.provider == o.provider {
		return false
	}
	at := o.at
	if login = fresh || !o.same; !login {
		if at = was.at; was.user != o.user {
			if began := o.began.UnixNano(); at == 0 || at > began {
				at = began
			}
		}
	}
	s.values[keyUser], s.values[keyProvider] = o.user, o.provider
	s.values[keyAt] = strconv.FormatInt(at, 10)
	return login
}

// names reports whether a session notes that it is who id is.
func (l login) names(id *Identity) bool {
	return id != nil && l.user == id.UserID && l.provider == id.Provider
}

// lookAgain is the end of a page, still within its chain, that began as somebody's or
// nobody's: if the request has renewed or saved its session, it finds out whose it is
// now. It may be saved before, with the answer's first byte, or after.
func (s *Server) lookAgain(c *gin.Context, v *visit, was *Identity) {
	began := time.Now()
	c.Next()
	l := v.session()
	if !v.renews() && !unsigned(l, was, c.Writer.Written()) {
		return
	}
	id, err := s.ask(c)
	if err != nil || id == nil || id.expired() {
		return
	}
	o := &owner{login: login{id.UserID, id.Provider, s.revoked.stamp(id.UserID, id.Provider)}, same: was.is(id), began: began}
	if l != nil {
		o.store = l.tokens
	}
	v.mu.Lock()
	v.user = id.UserID
	if l == nil || l.view != nil {
		v.owner = o
	}
	v.mu.Unlock()
	if l != nil && l.view != nil && !l.view.saved.IsZero() && !l.view.login.names(id) {
		if err := l.tokens.sign(c.Request.Context(), l, o); err != nil && !errors.Is(err, ErrSessionGone) {
			s.log.Warn("it could not be noted whose a session is: after a Revoke of its user it is over", "error", err)
		}
	}
}

// unsigned reports whether a page that began as somebody's has saved, or may yet save,
// a session l of a TokenStore that does not say so; nil is one that is not there yet.
func unsigned(l *loaded, was *Identity, answered bool) bool {
	switch {
	case l == nil:
		return !answered
	case l.view == nil || l.view.login.names(was):
		return false
	}
	return !answered || !l.view.saved.IsZero()
}

// ownerFor returns whose a session of a store is that is saved after the page was
// looked at; nil if that is not known, or not yet.
func (v *visit) ownerFor(st *tokenStore) *owner {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.owner == nil || v.owner.store != nil && v.owner.store != st {
		return nil
	}
	return v.owner
}

// sign notes in a session that was saved already whose it is.
func (st *tokenStore) sign(ctx context.Context, l *loaded, o *owner) error {
	// Also if the client has gone: it has the cookie.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), touchTimeout)
	defer cancel()
	unlock, err := st.srv.locks.lock(ctx, l.id)
	if err != nil {
		return err
	}
	defer unlock()
	got, err := st.load(ctx, l.id)
	if err != nil {
		return err
	}
	login := o.sign(got, l.view.fresh)
	if st.srv.revoked.login(got.values) || login && st.srv.revoked.anySince(o.login, l.view.saved) {
		return st.revoke(ctx, l.id)
	}
	return st.write(ctx, l.id, got, got.expires())
}

// revoke ends a session of somebody who was revoked.
func (st *tokenStore) revoke(ctx context.Context, token string) error {
	st.end(token, tombstoneLife)
	st.srv.closeSession(token, ReasonRevoked) // before it waits for the store
	return st.outlive(ctx, token, st.drop(ctx, token))
}

// errSigning is why it is not known whether a session was revoked.
var errSigning = errors.New("adapter: it is just being noted whose the session is")

// believe refuses who is found by a session that notes nobody, or somebody else, if
// they were revoked after it was made: it may be of before. It ends the session, so
// that the next request has none and can log in.
func (st *tokenStore) believe(ctx context.Context, l *loaded, id *Identity) error {
	was := l.view.login
	if was.names(id) {
		return nil // or it would not have been found
	}
	claim := login{user: id.UserID, provider: id.Provider}
	if was.user == "" || was.user == id.UserID {
		claim.at = was.at
	}
	if !st.srv.revoked.ends(claim) {
		return nil
	}
	unlock, err := st.srv.locks.lock(ctx, l.id)
	if err != nil {
		return err
	}
	defer unlock()
	if st.isUnsettled(l.id) {
		return errSigning
	}
	// It may have been noted between when it was loaded and now.
	if got, err := st.load(ctx, l.id); err == nil && loginOf(got.values).names(id) {
		return nil
	} else if err != nil && !errors.Is(err, ErrSessionGone) {
		return err
	}
	l.view.refused = true
	if err := st.revoke(ctx, l.id); err != nil {
		st.srv.log.Warn("a session of somebody who was revoked could not be deleted", "error", err)
	}
	return &Error{Code: CodeUnauthenticated, Message: "this session was revoked; log in again"}
}
