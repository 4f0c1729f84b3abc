package adapter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"
)

// Values are what a session holds. Keys and values are what the store can
// carry; strings always are, and keys of a TokenStore are nothing else. Keys that
// begin with "usher." are the adapter's own: whatever changes them is not saved.
type Values map[any]any

// A Session is a socket's hold on the session of its handshake. It keeps no
// values: each call asks the store, so it sees what HTTP requests have written
// meanwhile and cannot bring back what they have ended. Safe for concurrent use.
type Session struct {
	srv *Server
	s   *Socket
}

// ref is what a socket remembers of its session: where it is kept and under
// which cookie the browser knows it.
type sessionRef struct {
	store  *store
	tokens *tokenStore // in the place of store; it needs no cookie
	name   string
}

// ref is what a socket is to remember of the session.
func (l *loaded) ref() sessionRef { return sessionRef{l.store, l.tokens, l.name} }

// Session returns the socket's hold on its session.
func (s *Socket) Session() *Session { return &Session{s.ns.srv, s} }

// load fetches the session as it is now.
func (h *Session) load(ctx context.Context) (*gsessions.Session, *http.Request, error) {
	ref, id := h.s.session()
	if ref.store == nil || id == "" {
		return nil, nil, ErrNoSession
	}
	if h.srv.ended.has(id) {
		return nil, nil, ErrSessionGone
	}
	r := h.s.shake.Load().Request(ctx)
	cookie, err := r.Cookie(ref.name)
	if err != nil {
		return nil, nil, ErrSessionGone
	}
	got, err := ref.store.load(ctx, ref.name, cookie.Value)
	if err != nil {
		return nil, nil, err
	}
	if got.IsNew || sessionID(got) != id || h.srv.revoked.login(got.Values) {
		return nil, nil, ErrSessionGone
	}
	return got, r, nil
}

// Get returns the value of key as the store has it now; nil if there is none.
// It fails with ErrSessionGone after a logout, and with the store's error when
// the store does not answer.
func (h *Session) Get(ctx context.Context, key any) (any, error) {
	if ref, id := h.s.session(); ref.tokens != nil && id != "" {
		got, err := ref.tokens.load(ctx, id)
		if err != nil {
			return nil, err
		}
		return got.values[key], nil
	}
	got, _, err := h.load(ctx)
	if err != nil {
		return nil, err
	}
	return got.Values[key], nil
}

// Update loads the session, lets f change its values and saves it, while no
// other Update and no HTTP save of the same session runs in this process. If f
// fails nothing is saved. f must not use the session otherwise, or it waits for
// itself until ctx is done. After a logout, and if a login has replaced the
// session meanwhile, it fails with ErrSessionGone.
//
// A session that lives in its cookie is read-only (ErrReadOnlySession), except
// over a Socket.IO connection that polls and is not about to upgrade: there the
// new cookie goes out with the next answer to a poll. This connection's sockets
// see it at once, those of other tabs when their own requests show it. Nil then
// says that it waits to be sent. It is lost if the connection ends before, or if a
// page saves the session before; from then on, until the browser has shown what
// the page gave it, the session is read-only again. A page whose request is
// answered at the same moment overwrites it or is overwritten, as between any two
// requests of a browser that keeps its session in a cookie.
func (h *Session) Update(ctx context.Context, f func(Values) error) error {
	ref, id := h.s.session()
	if ref.store == nil && ref.tokens == nil || id == "" {
		return ErrNoSession
	}
	if ref.store != nil && ref.store.inCookie.Load() && h.carrier() == nil {
		return ErrReadOnlySession
	}
	unlock, err := h.srv.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if ref.tokens != nil {
		if err := ref.tokens.update(ctx, id, f); err != nil {
			return err
		}
		h.srv.sessionSaved(id)
		return nil
	}
	got, r, err := h.load(ctx)
	if err != nil {
		return err
	}
	if sessionID(got) != id {
		// The socket has followed a login meanwhile. Nothing from before comes
		// into the session that Login has made, and the lock is not of that one.
		return ErrSessionGone
	}
	if got.ID == "" { // it lives in the cookie
		if conn := h.carrier(); conn != nil {
			return h.updateCookie(ctx, conn, id, f)
		}
		return ErrReadOnlySession
	}
	values := Values(maps.Clone(got.Values))
	if err := f(values); err != nil {
		return err
	}
	if err := checkOwn(got.Values, values); err != nil {
		return err
	}
	got.Values = values
	if _, err := h.save(r, id, got); err != nil {
		return err
	}
	h.srv.sessionSaved(id)
	return nil
}

// save writes what load has fetched, with the options that it was last saved with,
// unless the session has ended meanwhile. It is called with the
// session's lock held, and returns the headers that the client would get.
func (h *Session) save(r *http.Request, id string, got *gsessions.Session) (http.Header, error) {
	ref, _ := h.s.session()
	if h.srv.ended.has(id) || h.srv.revoked.login(got.Values) {
		return nil, ErrSessionGone
	}
	got.Options = keptOptions(got)
	keepExpiry(got)
	var w nullWriter
	err := ref.store.inner.Save(r, &w, got)
	ref.store.note(r, got)
	if h.srv.ended.has(id) {
		return nil, ref.store.undo(r, got, id) // also what has failed: it may be there all the same
	}
	if err != nil {
		return nil, fmt.Errorf("adapter: save session: %w", err)
	}
	return w.Header(), nil
}

// gorillaSession returns the session of c that lies in one of srv's stores.
func gorillaSession(c *gin.Context) (*gsessions.Session, *store, error) {
	v, _ := c.Get(sessions.DefaultKey)
	held, ok := v.(interface{ Session() *gsessions.Session })
	if !ok {
		return nil, nil, ErrNoSession
	}
	session := held.Session()
	st, ok := session.Store().(*store)
	if !ok {
		return nil, nil, errors.New("adapter: the session's store is not wrapped: use sessions.Sessions(name, srv.Store(store))")
	}
	return session, st, nil
}

// Login makes the session of c that of id: under a new session id, with none
// of the values it had before, so that neither the id nor anything in the
// session can have been planted by somebody else. LoggedIn reads UserID and
// Provider back. The old session is ended, and its open sockets follow to the
// new one: those of nobody become id's, those of another user are closed, and
// so are those that were opened from another network address than c's. The
// sockets of a visitor who had no session yet when they connected are found by a
// cookie that they got then.
//
// Of several logins at once in one browser session the last one counts, and ends
// what the others have made: their cookies are nobody's.
//
// In a replay Login fails: nobody would get the new session's cookie.
//
// What else belongs into the session is set after Login and saved as usual.
func (s *Server) Login(c *gin.Context, id Identity) error {
	if id.UserID == "" {
		return errors.New("adapter: Login needs a UserID")
	}
	session, st, err := gorillaSession(c)
	if err != nil {
		return err
	}
	if v := visitOf(c.Request.Context()); v != nil {
		if v.replay {
			v.addSave(caller())
			return errors.New("adapter: Login in a replay of the chain: ask adapter.Replaying, or log in on a page")
		}
		if err := v.failure(); err != nil {
			return err // saving now would make a session that nobody can load
		}
	}
	old := sessionID(session)
	l := loadedOf(c.Request.Context(), st, session.Name())
	if l == nil {
		// Loaded through a request that c has since replaced by a copy.
		l = &loaded{store: st, name: session.Name(), usual: *session.Options}
	}
	visit := visitorOf(c.Request).session(session.Name())
	shown := cmp.Or(old, l.ended, visit)
	if shown != "" {
		// Two logins of one browser session are one after the other, and the
		// later one knows what the earlier one has made of it.
		unlock, err := s.locks.lock(c.Request.Context(), shown)
		if err != nil {
			return err
		}
		defer unlock()
	}

	fresh := gsessions.NewSession(st, session.Name())
	fresh.IsNew = true
	options := *session.Options
	fresh.Options = &options
	fresh.Values[keyUser] = id.UserID
	fresh.Values[keyProvider] = id.Provider
	fresh.Values[keyAt] = strconv.FormatInt(s.revoked.stamp(id.UserID, id.Provider), 10)
	if _, lists := st.inner.(SessionLister); lists {
		s.describe(c, fresh.Values)
	}
	// Some stores take a new session's id from the request's cookie.
	bare := c.Request.Clone(c.Request.Context())
	bare.Header.Del("Cookie")
	if err := st.create(bare, c.Writer, fresh, l); err != nil {
		return err
	}

	gone := *session
	gone.Options = expired(session.Options)
	session.ID, session.IsNew, session.Values, session.Options = fresh.ID, false, fresh.Values, fresh.Options

	// Sockets first, then the rows: a replay that ran while the store is at work
	// would find that the session has ended, and nowhere to follow to.
	// One that was over before is ended too: what was revoked has no tombstone of
	// its own, and there the next login looks for what this one has made.
	var life time.Duration
	cookie := &http.Cookie{Name: l.name, Value: l.cookie}
	replace := func(from string) (was string) {
		// Twice: before it ends, or a replay would find it over and its sockets
		// not yet moved; and after, for sockets that have come in meanwhile.
		was = s.followLogin(c.Request, from, l.id, id.UserID, cookie)
		if from == visit {
			s.ended.add(from, tombstoneLife) // it is nobody's cookie
		} else {
			life = st.end(from, tombstoneLife)
		}
		return cmp.Or(was, s.followLogin(c.Request, from, l.id, id.UserID, cookie))
	}
	var earlier []string
	var drops []func(context.Context) error
	for next := replace(shown); next != ""; {
		// Another login has come in between. The browser has one cookie: two
		// sessions would leave one, and sockets on it, that no logout ends.
		earlier, drops = append(earlier, next), append(drops, st.dropLater(next))
		next = replace(next)
	}
	var forgotten error
	if old != "" {
		err := st.drop(c.Request, &nullWriter{}, &gone)
		forgotten = st.replaced(c.Request.Context(), old, life, err)
	}
	for i, replaced := range earlier {
		err := drops[i](c.Request.Context())
		forgotten = errors.Join(forgotten, st.replaced(c.Request.Context(), replaced, life, err))
	}
	if _, err := c.Request.Cookie(visitorName(c.Request)); err == nil {
		s.followVisitor(c.Request, l)
		unlink(c)
	}
	if forgotten != nil {
		s.log.Warn("the session before a login is over for this process only", "error", forgotten)
	}
	return nil
}

// replaced sees to it that a session which a login has ended stays so: for life
// or, if its row could not be deleted, for as long as that may be there.
func (st *store) replaced(ctx context.Context, id string, life time.Duration, err error) error {
	if err != nil {
		life = st.end(id, st.sessionLife())
		// The tombstone holds; the login itself is done.
		st.srv.log.Warn("the session before a login could not be deleted", "error", err)
	}
	return st.remember(ctx, id, life)
}

// LoggedIn returns what Login stored: UserID, Provider and SessionID. Most
// functions given to Identify begin with it and add User and Roles.
func LoggedIn(c *gin.Context) (id Identity, ok bool) {
	session, st, err := gorillaSession(c)
	if err != nil {
		return Identity{}, false
	}
	l := loadedOf(c.Request.Context(), st, session.Name())
	if l != nil && checkOwn(l.base, session.Values) != nil {
		return Identity{}, false // somebody else than Login has written there
	}
	id.UserID, _ = session.Values[keyUser].(string)
	id.Provider, _ = session.Values[keyProvider].(string)
	id.SessionID = sessionID(session)
	return id, id.UserID != ""
}

// Logout ends the session of c: it can be neither loaded nor saved from now
// on, its sockets are closed with 4409, and the cookie is taken back, in that
// order. An error says that the store could not delete the session, or that
// Config.Endings could not write down that it has ended; all the rest has
// happened all the same.
func (s *Server) Logout(c *gin.Context) error {
	session, st, err := gorillaSession(c)
	if err != nil {
		return err
	}
	id := sessionID(session)
	ended := *session
	ended.Options = expired(session.Options)
	session.ID, session.IsNew, session.Values = "", true, make(map[any]any)
	return st.delete(c.Request, c.Writer, &ended, id)
}
