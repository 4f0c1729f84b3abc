package adapter

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
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
// manager is used:
//
//	manager.Store = srv.TokenStore(manager.Store)
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
// LoadAndSave belongs into the chain alone. If it stands around the engine as
// well, that one has loaded the session where the server cannot see it, and
// everything is noticed by the next replay only.
//
// A commit writes the whole session: of two at the same time the last one stays.
// A session with an IdleTimeout is kept alive by requests, not by open sockets.
// Socket.Session does not know these sessions; a handler asks the manager, whose
// Load takes the token from the cookies of Socket.Handshake.
//
// What is returned has all the methods with a context, and All and AllCtx if
// inner has one of the two.
func (s *Server) TokenStore(inner TokenStore) TokenStore {
	st := &tokenStore{srv: s, inner: inner}
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
	life  atomic.Int64 // the longest that a session was kept for

	answers condition

	mu      sync.Mutex
	renewed map[string]int // tokens deleted by requests that still run, and may put another one in their place
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
		if v != nil && v.replay && st.isRenewed(token) {
			v.fail(errRenewing)
		}
		return nil, false, nil
	}
	if found {
		v.addLoaded(&loaded{tokens: st, id: token})
	}
	return b, found, nil
}

// CommitCtx writes a session, unless it has ended.
func (st *tokenStore) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	v := visitOf(ctx)
	if v != nil && v.replay {
		v.addSave(caller())
		return nil
	}
	if st.srv.ended.has(token) {
		return ErrSessionGone
	}
	found := v.found(st, token)
	if found {
		// A commit makes a session where there is none: it would bring back one
		// that was deleted where nobody tells this process of it.
		_, still, err := st.find(ctx, token)
		if err != nil {
			return fmt.Errorf("adapter: save session: %w", err)
		}
		if !still {
			return ErrSessionGone
		}
	}
	for life := int64(time.Until(expiry)); ; {
		longest := st.life.Load()
		if life <= longest || st.life.CompareAndSwap(longest, life) {
			break
		}
	}
	if err := st.commit(ctx, token, b, expiry); err != nil {
		return fmt.Errorf("adapter: save session: %w", err)
	}
	if st.srv.ended.has(token) {
		// Ended while it was written: what was written must not stay. The
		// deletion that ended it may have come before our write.
		return errors.Join(ErrSessionGone, st.outlive(ctx, token, st.drop(ctx, token)))
	}
	if !found {
		v.addLoaded(&loaded{tokens: st, id: token})
	}
	for _, from := range v.committed(st, token) {
		st.srv.ended.succeeded(from, token, v.peer)
	}
	st.srv.sessionSaved(token)
	return nil
}

// DeleteCtx ends a session: first the tombstone, so that nothing can bring it
// back, then the row, then its sockets. They wait for the end of the request if
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
	err := st.drop(ctx, token)
	if !wait {
		st.srv.closeSession(token, ReasonSessionEnded)
	}
	return st.outlive(ctx, token, err)
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

// drop deletes a session.
func (st *tokenStore) drop(ctx context.Context, token string) error {
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

func (st *tokenStore) renew(token string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.renewed == nil {
		st.renewed = make(map[string]int)
	}
	st.renewed[token]++
}

func (st *tokenStore) settled(token string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.renewed[token]--; st.renewed[token] == 0 {
		delete(st.renewed, token)
	}
}

func (st *tokenStore) isRenewed(token string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.renewed[token] > 0
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
	maps.DeleteFunc(all, func(token string, _ []byte) bool { return st.srv.ended.has(token) })
	return all, nil
}

func (st iterableTokenStore) All() (map[string][]byte, error) {
	return st.AllCtx(context.Background())
}

// A renewal is what the request of a page has done to the sessions of one
// TokenStore.
type renewal struct {
	store *tokenStore
	from  []string // what it has come with, and deleted
	to    string   // what it has committed
}

// found reports whether the visit has loaded the session of a token, or made it.
func (v *visit) found(st *tokenStore, token string) bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.foundLocked(st, token) != nil
}

func (v *visit) foundLocked(st *tokenStore, token string) *loaded {
	for _, l := range v.loaded {
		if l.tokens == st && l.id == token {
			return l
		}
	}
	return nil
}

// committed notes a commit, and returns the sessions in whose place it comes.
func (v *visit) committed(st *tokenStore, token string) (from []string) {
	if v == nil || !v.page {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	r := v.renewalLocked(st)
	r.to = token
	return slices.Clone(r.from)
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
	if !v.page {
		return false
	}
	r := v.renewalLocked(st)
	r.from = append(r.from, token)
	if r.to == token {
		r.to = ""
	}
	st.renew(token)
	return true
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

// takeRenewals returns what the visit has done in which sessions were deleted,
// once.
func (v *visit) takeRenewals() []*renewal {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.renewals
	v.renewals = nil
	return slices.DeleteFunc(all, func(r *renewal) bool { return len(r.from) == 0 })
}

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
		defer s.renewed(c, c.Request, v) // also if a handler panics
		c.Next()
	}
}

// lookAgain is the end of a page, still within its chain: if the request has
// renewed its session, it finds out whose it is now.
func (s *Server) lookAgain(c *gin.Context, v *visit) {
	c.Next()
	if !v.renews() {
		return
	}
	if id, err := s.identify(c, v); err == nil && id != nil {
		v.mu.Lock()
		v.user = id.UserID
		v.mu.Unlock()
	}
}

// renewed lets the sockets of sessions that the request of a page has deleted
// follow to the one it has committed, or ends them.
func (s *Server) renewed(c *gin.Context, r *http.Request, v *visit) {
	for _, done := range v.takeRenewals() {
		// What the store calls a token may be its hash: only the answer has the
		// cookie itself, with its name.
		cookie := cookieOf(done.to, c.Writer.Header())
		for _, from := range done.from {
			if cookie == nil {
				s.closeSession(from, ReasonSessionEnded)
			} else {
				s.followLogin(r, from, done.to, v.user, cookie)
			}
			done.store.settled(from)
		}
		if s.ended.has(done.to) { // before they came
			s.closeSession(done.to, ReasonSessionEnded)
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
