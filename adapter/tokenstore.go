package adapter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// A TokenStore keeps sessions, as bytes, under the tokens that clients show. It
// is the Store of alexedwards/scs, so each of its stores is one.
//
// A store may also have DeleteCtx, FindCtx and CommitCtx, which take a context
// first, and All or AllCtx, which list what is stored. They are used where they
// are there.
type TokenStore interface {
	// Delete forgets a session. That there is none is no error.
	Delete(token string) error
	// Find returns a session. That there is none, or that it has expired, is no
	// error: found is false. An error means that the store did not answer.
	Find(token string) (b []byte, found bool, err error)
	// Commit keeps a session until expiry, in the place of what was there.
	Commit(token string, b []byte, expiry time.Time) error
}

// The optional methods of a TokenStore. Each is looked for by itself, as scs does.
type (
	deleterCtx interface {
		DeleteCtx(ctx context.Context, token string) error
	}
	finderCtx interface {
		FindCtx(ctx context.Context, token string) (b []byte, found bool, err error)
	}
	committerCtx interface {
		CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error
	}
	lister interface {
		All() (map[string][]byte, error)
	}
	listerCtx interface {
		AllCtx(ctx context.Context) (map[string][]byte, error)
	}
)

// TokenStore is Store for a manager of alexedwards/scs: it wraps the store so
// that the server notices what happens to its sessions. Wrap it once, before the
// manager is used, and name the manager's codec if it is not scs.GobCodec:
//
//	manager.Store = srv.TokenStore(manager.Store, manager.Codec)
//	srv.Use(wrap(manager.LoadAndSave)) // any adapter for middlewares of net/http
//
// A session of such a store is known by the token, which becomes
// Identity.SessionID; by its hash, if the manager has HashTokenInStore set.
//
// Destroy ends the session's sockets once the request that calls it is over.
// After RenewToken they follow to the new session, under the rules of Login, if
// the page that calls it lies behind HTTP; elsewhere they end at once. What is
// committed for a session that has ended is refused with ErrSessionGone, and
// what is committed in a replay is discarded.
//
// A commit writes what its request has changed, on top of what is stored by then:
// pages and Socket.Session that change different keys both keep theirs, also across
// a RenewToken. The manager's own Commit outside of a request behind HTTP, as in a
// handler that has called Load, writes the whole session.
//
// Revoke of a user or provider ends sessions too. For that it is noted in each, at
// the end of a page behind HTTP that has saved it, whom Identify names then. A session
// that was made elsewhere and notes nobody is refused once, with 401, and is over if
// its user was revoked after it was made, or within the minute before. A page that
// revokes its own user and is to go on calls Destroy first: RenewToken keeps what was
// revoked. The notes, the session's expiry among them, lie under keys that begin with "usher.", where the
// manager's Keys lists them. They are the adapter's: a commit that changes one fails,
// and Clear takes them along.
//
// LoadAndSave belongs into the chain alone. If it stands around the engine as
// well, that one has loaded the session where the server cannot see it, and
// everything is noticed by the next replay only.
//
// A session with an IdleTimeout is kept alive by requests, and under Config.Rolling by
// sockets in use too. Session.Update leaves its end where it is.
//
// Bytes that the codec does not decode stay as they are. Then Socket.Session fails,
// commits write the whole session, and Revoke of a user ends its sockets alone.
//
// What is returned has all the methods with a context, and All and AllCtx if
// inner has one of the two.
func (s *Server) TokenStore(inner TokenStore, codec ...TokenCodec) TokenStore {
	st := &tokenStore{srv: s, inner: inner, codec: gobCodec{}}
	if len(codec) > 0 && codec[0] != nil {
		st.codec = codec[0]
	}
	s.tokenStores = append(s.tokenStores, st)
	_, lists := inner.(lister)
	if _, listsCtx := inner.(listerCtx); lists || listsCtx {
		return iterableTokenStore{st}
	}
	return st
}

type tokenStore struct {
	srv   *Server
	inner TokenStore
	codec TokenCodec
	life  atomic.Int64 // the longest that a session was kept for

	answers condition

	mu        sync.Mutex
	unsettled map[string]int // tokens that pages which still run have deleted, maybe for another one, or committed
}

// errRenewing is why a replay cannot tell who it is.
var errRenewing = errors.New("adapter: the session is just being given another token")

// FindCtx returns a session, unless it has ended.
func (st *tokenStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	v := visitOf(ctx)
	b, found, err := st.find(ctx, token)
	if err != nil {
		err = fmt.Errorf("adapter: load session: %w", err)
	}
	st.answers.note(err)
	if err != nil {
		v.fail(err)
		return nil, false, err
	}
	// Looked at last: whoever ends a session leaves the tombstone first.
	if st.srv.ended.has(token) {
		if v != nil && v.replay && st.isUnsettled(token) {
			v.fail(errRenewing)
		}
		return nil, false, nil
	}
	if !found {
		return nil, false, nil
	}
	l := &loaded{tokens: st, id: token}
	// Bytes of another codec are the manager's alone.
	if got, err := st.decode(b); err == nil {
		if st.srv.revoked.login(got.values) {
			return nil, false, nil
		}
		l.base, l.expires = got.values, got.expires()
		l.view = &tokenView{deadline: got.deadline, login: loginOf(got.values)}
	}
	v.addLoaded(l)
	return b, true, nil
}

// CommitCtx writes what the visit has changed of a session, on top of what is stored
// now, unless it has ended.
func (st *tokenStore) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	v := visitOf(ctx)
	if v != nil && v.replay {
		v.addSave(caller())
		return nil
	}
	unlock, err := st.srv.locks.lock(ctx, token)
	if err != nil {
		return fmt.Errorf("adapter: save session: %w", err)
	}
	defer unlock()
	l := v.found(st, token)
	if st.srv.ended.has(token) {
		if l != nil && l.view != nil && l.view.refused {
			return nil // the answer says so
		}
		return ErrSessionGone
	}
	row, found, err := st.find(ctx, token)
	if err != nil {
		return fmt.Errorf("adapter: save session: %w", err)
	}
	if l != nil && !found {
		// A commit makes a session where there is none: it would bring back one
		// that was deleted where nobody tells this process of it.
		return ErrSessionGone
	}
	var stored *tokenSession
	if found {
		stored, _ = st.decode(row)
	}
	now, err := st.save(ctx, l, stored, token, b, expiry)
	if err != nil {
		return err
	}
	if l != nil || !found { // else it is another visit's
		v.noteSaved(l, now)
		v.committed(st, token, l == nil)
	}
	st.srv.sessionSaved(token)
	return nil
}

// DeleteCtx ends a session: first the tombstone, so that nothing can bring it
// back, then its sockets, then the row. The sockets wait for the end of the request if
// it is that of a page which has come with this very session: scs deletes the
// old token before it commits a new one, and what it will do is not to be known.
func (st *tokenStore) DeleteCtx(ctx context.Context, token string) error {
	v := visitOf(ctx)
	if v != nil && v.replay {
		v.addSave(caller())
		return nil
	}
	wait := v.deleted(st, token)
	st.end(token, tombstoneLife)
	v.carry(ctx, st, token)
	if !wait {
		st.srv.closeSession(token, ReasonSessionEnded)
	}
	return st.outlive(ctx, token, st.drop(ctx, token))
}

// outlive sees to a session that has ended and could not be deleted: its row lives
// on behind its tombstone, which has to last then, also after this process.
func (st *tokenStore) outlive(ctx context.Context, token string, err error) error {
	if err == nil {
		return nil
	}
	life := st.sessionLife()
	st.end(token, life)
	return errors.Join(err, st.srv.ledger.write(ctx, endingOfSession(hashSession(token), life)))
}

func (st *tokenStore) Find(token string) ([]byte, bool, error) {
	return st.FindCtx(context.Background(), token)
}

func (st *tokenStore) Commit(token string, b []byte, expiry time.Time) error {
	return st.CommitCtx(context.Background(), token, b, expiry)
}

func (st *tokenStore) Delete(token string) error { return st.DeleteCtx(context.Background(), token) }

// find, commit and remove are the inner store's methods, with the context if it
// takes one.
func (st *tokenStore) find(ctx context.Context, token string) ([]byte, bool, error) {
	if inner, ok := st.inner.(finderCtx); ok {
		return inner.FindCtx(ctx, token)
	}
	return st.inner.Find(token)
}

func (st *tokenStore) commit(ctx context.Context, token string, b []byte, expiry time.Time) error {
	if inner, ok := st.inner.(committerCtx); ok {
		return inner.CommitCtx(ctx, token, b, expiry)
	}
	return st.inner.Commit(token, b, expiry)
}

func (st *tokenStore) remove(ctx context.Context, token string) error {
	if inner, ok := st.inner.(deleterCtx); ok {
		return inner.DeleteCtx(ctx, token)
	}
	return st.inner.Delete(token)
}

// drop deletes a session, also if whoever has asked for it has gone.
func (st *tokenStore) drop(ctx context.Context, token string) error {
	ctx, cancel := outlasting(ctx)
	defer cancel()
	if err := st.remove(ctx, token); err != nil {
		return fmt.Errorf("adapter: delete session: %w", err)
	}
	return nil
}

// end makes sure that nothing brings the session back for at least life.
func (st *tokenStore) end(token string, life time.Duration) {
	st.srv.ended.add(token, life)
	if c := st.srv.cluster; c != nil && token != "" {
		c.sessionEnded(token, life)
	}
}

// sessionLife is how long a session can live that nothing has deleted.
func (st *tokenStore) sessionLife() time.Duration {
	return max(time.Duration(st.life.Load()), cookieLife)
}

func (st *tokenStore) unsettle(token string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.unsettled == nil {
		st.unsettled = make(map[string]int)
	}
	st.unsettled[token]++
}

func (st *tokenStore) settled(token string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.unsettled[token]--; st.unsettled[token] == 0 {
		delete(st.unsettled, token)
	}
}

func (st *tokenStore) isUnsettled(token string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.unsettled[token] > 0
}

// An iterableTokenStore is one whose inner store can list its sessions.
type iterableTokenStore struct{ *tokenStore }

// AllCtx returns the sessions that have not ended, by token.
func (st iterableTokenStore) AllCtx(ctx context.Context) (map[string][]byte, error) {
	var all map[string][]byte
	var err error
	if inner, ok := st.inner.(listerCtx); ok {
		all, err = inner.AllCtx(ctx)
	} else {
		all, err = st.inner.(lister).All()
	}
	if err != nil {
		return nil, fmt.Errorf("adapter: list sessions: %w", err)
	}
	all = maps.Clone(all)
	maps.DeleteFunc(all, func(token string, b []byte) bool {
		if st.srv.ended.has(token) {
			return true
		}
		if st.srv.revoked.none() {
			return false
		}
		got, err := st.decode(b)
		return err == nil && st.srv.revoked.login(got.values)
	})
	return all, nil
}

func (st iterableTokenStore) All() (map[string][]byte, error) {
	return st.AllCtx(context.Background())
}
