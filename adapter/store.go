package adapter

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gorilla/securecookie"
	gsessions "github.com/gorilla/sessions"
)

// Keys of session values that the adapter keeps; see ownPrefix. They are strings,
// which every store and codec can carry.
const (
	keyID       = "usher.id" // the id of sessions whose store gives none
	keyUser     = "usher.user"
	keyProvider = "usher.provider"
	keyAt       = "usher.at"      // when, in Unix nanoseconds
	keyOptions  = "usher.options" // the session's, as JSON, where they are not the store's
	keyIdle     = "usher.idle"    // for how long one of a TokenStore lives unless it is used, in milliseconds
	keyExpires  = "usher.expires" // when the store is to forget it, in Unix milliseconds
)

// A Pinger is a session store that can say whether its database answers. Stores
// that swallow load errors should be one: without it, theirs look like logouts.
type Pinger interface {
	Ping(ctx context.Context) error
}

// Store wraps a session store so that the server notices what happens to its
// sessions. Wrap it once and use the result everywhere:
//
//	store := srv.Store(redisStore)
//	srv.Use(sessions.Sessions("sid", store))
//
// The wrapper tells a dead store from a logout; saves only what a request
// changed, on top of what is stored by then (a value of which no copy can be made,
// with unexported parts that refer to others, counts as changed); refuses saves of
// sessions that have ended (ErrSessionGone); discards saves made during a replay; and
// lets open sockets follow every save and delete.
//
// A store that keeps sessions in a cookie has no way to forget one: until it
// would expire, Config.Endings has to remember a Logout, or else this process
// does for as long as it lives.
func (s *Server) Store(inner sessions.Store) sessions.Store {
	st := &store{srv: s, inner: inner}
	st.inCookie.Store(isCookieStore(inner))
	s.stores = append(s.stores, st)
	return st
}

type store struct {
	srv      *Server
	inner    sessions.Store
	inCookie atomic.Bool // the inner store gives no ids
	maxAge   atomic.Int64
	answers  condition
}

// loaded is a session as a request found it.
type loaded struct {
	store   *store
	tokens  *tokenStore // in the place of store: its token is the id, and there is neither name nor cookie
	view    *tokenView  // where tokens is not nil; nil if its codec does not know the bytes
	name    string
	cookie  string       // the value the client holds: as it came, or as last set
	renewed *http.Cookie // as last set; nil if it has not been
	id      string
	ended   string            // the id of the session that the client has shown, if that is over
	base    map[any]any       // the values as loaded
	expires time.Time         // when it ends in its store; zero if that is not known
	usual   gsessions.Options // that the store gives to its sessions
}

// values are those as loaded; none where it is not known what was.
func (l *loaded) values() map[any]any {
	if l == nil {
		return nil
	}
	return l.base
}

type loadedKey struct {
	store *store
	name  string
}

func (st *store) Options(o sessions.Options) {
	st.maxAge.Store(int64(o.MaxAge))
	st.inner.Options(o)
}

// Get returns the request's session, loading it once.
func (st *store) Get(r *http.Request, name string) (*gsessions.Session, error) {
	return gsessions.GetRegistry(r).Get(st, name)
}

// New loads the session that r's cookie names, or makes a new one.
func (st *store) New(r *http.Request, name string) (*gsessions.Session, error) {
	v := visitOf(r.Context())
	got, err := st.fetch(r, name)
	if got == nil {
		got = gsessions.NewSession(st.inner, name)
		got.IsNew = true
	}
	// A session of our own, whose Save comes back to this store.
	session := gsessions.NewSession(st, name)
	session.ID, session.IsNew = got.ID, got.IsNew
	if got.Values != nil {
		session.Values = got.Values
	}
	if got.Options != nil {
		session.Options = got.Options
	}
	l := &loaded{store: st, name: name, usual: *session.Options}
	if c, cookieErr := r.Cookie(name); cookieErr == nil {
		l.cookie = c.Value
	}
	var failed error
	if err != nil && !isNobody(err, l.cookie) {
		failed = fmt.Errorf("adapter: load session: %w", err)
	}
	if err == nil && session.IsNew && l.cookie != "" {
		err = st.ping(r.Context())
		failed = err
	}
	if failed != nil {
		v.fail(failed)
	}
	if l.cookie != "" { // else the store need not have been asked
		st.answers.note(failed)
	}
	if session.IsNew {
		// Some stores take the id from the cookie although they know no such
		// session. Saving under it would let a client choose its id.
		l.ended, session.ID = session.ID, ""
	} else {
		if session.ID == "" {
			st.foundInCookie() // since before a restart
			identifyOld(session, l.cookie)
		}
		if l.id = sessionID(session); st.srv.ended.has(l.id) || st.srv.revoked.login(session.Values) {
			// The store still has it, or it lives in the client's cookie.
			session.ID, session.IsNew, session.Values = "", true, make(map[any]any)
			l.ended, l.id = l.id, ""
		}
	}
	l.base = frozen(session.Values)
	l.expires = expiryOf(session.Values)
	if v.addLoaded(l); v == nil {
		*r = *r.WithContext(context.WithValue(r.Context(), loadedKey{st, name}, l))
	}
	return session, err
}

// fetch asks the inner store for the session that r's cookie names.
func (st *store) fetch(r *http.Request, name string) (*gsessions.Session, error) {
	got, err := st.inner.New(r, name)
	if _, asks := st.inner.(Pinger); !asks || err != nil || got != nil && !got.IsNew {
		return got, err
	}
	if _, none := r.Cookie(name); none != nil || st.ping(r.Context()) != nil {
		return got, err
	}
	// It answers by now. Whether it did before it does not say.
	return st.inner.New(r, name)
}

// ping asks a store that is a Pinger whether it did what it says, or hides that
// its database does not answer.
func (st *store) ping(ctx context.Context) error {
	if p, ok := st.inner.(Pinger); ok {
		if err := p.Ping(ctx); err != nil {
			return fmt.Errorf("adapter: session store: %w", err)
		}
	}
	return nil
}

// sessionID returns the store's id of a session, or the one we keep in its
// values where the store gives none.
func sessionID(s *gsessions.Session) string {
	if s.ID != "" {
		return s.ID
	}
	id, _ := s.Values[keyID].(string)
	return id
}

// identifyOld gives an id to a session that lives in its cookie and was made before the
// adapter was there to give it one. It is the same for all who show the cookie, and
// stays the session's when that is saved.
func identifyOld(s *gsessions.Session, cookie string) {
	if sessionID(s) == "" {
		sum := sha256.Sum256([]byte(cookie))
		s.Values[keyID] = "cookie " + base64.RawURLEncoding.EncodeToString(sum[:])
	}
}

// maxCookie is what browsers keep of a cookie (RFC 6265, section 6.1), and what
// gorilla's codecs decode. Of a longer one they say so in an error that is none
// of theirs.
const maxCookie = 4096

// isNobody tells errors that mean "there is no such session" from errors that
// mean "I could not look".
func isNobody(err error, cookie string) bool {
	if len(cookie) > maxCookie {
		return true
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrNotExist) {
		// No such file; but without its folder, as on a volume that is not
		// mounted, there is none of anybody.
		_, gone := os.Stat(filepath.Dir(e.Path))
		return gone == nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, http.ErrNoCookie) {
		return true
	}
	if m, ok := errors.AsType[securecookie.MultiError](err); ok {
		return m.IsDecode()
	}
	e, ok := errors.AsType[securecookie.Error](err)
	return ok && e.IsDecode()
}

// Save writes what the request changed, or deletes the session if its MaxAge
// is negative.
func (st *store) Save(r *http.Request, w http.ResponseWriter, session *gsessions.Session) error {
	ctx := r.Context()
	if v := visitOf(ctx); v != nil && v.replay {
		v.addSave(caller())
		return nil
	}
	l := loadedOf(ctx, st, session.Name())
	if l == nil || session.ID == "" || session.ID == l.id { // else Login has given it its id, on another copy of r
		if err := checkOwn(l.values(), session.Values); err != nil {
			return err
		}
	}
	id := sessionID(session)
	cleared := ""
	if id == "" && l != nil && st.inCookie.Load() {
		// The app has cleared all values, the id that we keep among them.
		cleared = l.id
	}
	if session.Options != nil && session.Options.MaxAge < 0 {
		return st.delete(r, w, session, cmp.Or(id, cleared))
	}
	if session.ID == "" && id == "" {
		if err := st.create(r, w, session, l); err != nil {
			return err
		}
		if cleared != "" {
			// What cannot be changed under its id ends: the old cookie would be
			// as good as before.
			life := st.end(cleared, tombstoneLife)
			st.srv.closeSession(cleared, ReasonSessionEnded)
			return st.remember(ctx, cleared, life)
		}
		return nil
	}

	unlock, err := st.srv.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if st.srv.ended.has(id) || st.srv.revoked.login(session.Values) {
		return ErrSessionGone
	}
	if session.ID != "" && !session.IsNew && l != nil && l.id == session.ID {
		if err := st.merge(ctx, session, l); err != nil {
			return err
		}
	}
	if st.srv.revoked.login(session.Values) {
		return ErrSessionGone
	}
	err = st.write(r, w, session, l)
	st.note(r, session)
	if st.srv.ended.has(id) {
		return st.undo(r, session, id) // also what has failed: it may be there all the same
	}
	if err != nil {
		return err
	}
	switch {
	case l == nil:
	case session.ID == "":
		st.srv.follow.superseded(id, l.name, l.cookie)
	case l.renewed != nil:
		st.srv.follow.recookieLater(id, l.renewed)
	}
	st.srv.sessionSaved(id)
	return nil
}

// undo deletes a session that was ended while it was written: what was written
// must not stay. The deletion that ended it may have come before the write.
func (st *store) undo(r *http.Request, session *gsessions.Session, id string) error {
	gone := *session
	gone.Options = expired(session.Options)
	err := st.drop(r, &nullWriter{}, &gone)
	if err != nil {
		err = errors.Join(err, st.remember(r.Context(), id, st.end(id, st.sessionLife())))
	}
	return errors.Join(ErrSessionGone, err)
}

// create saves a session for the first time.
func (st *store) create(r *http.Request, w http.ResponseWriter, session *gsessions.Session, l *loaded) error {
	if st.inCookie.Load() {
		session.Values[keyID] = rand.Text()
	}
	var first nullWriter
	if err := st.write(r, &first, session, l); err != nil {
		return err
	}
	if session.ID == "" && sessionID(session) == "" {
		// The store gives no ids: the session is the cookie. It needs an id all
		// the same, so that it can be ended and its sockets found.
		st.foundInCookie()
		session.Values[keyID] = rand.Text()
		first = nullWriter{}
		if err := st.write(r, &first, session, l); err != nil {
			return err
		}
	}
	joinHeaders(w.Header(), first.Header())
	session.IsNew = false
	if l != nil {
		l.id = sessionID(session)
	}
	return nil
}

// write saves session and remembers the cookie that the client gets for it.
func (st *store) write(r *http.Request, w http.ResponseWriter, session *gsessions.Session, l *loaded) error {
	if l != nil {
		keepOptions(session, l.usual)
	}
	keepExpiry(session)
	var got nullWriter
	if err := st.inner.Save(r, &got, session); err != nil {
		return fmt.Errorf("adapter: save session: %w", err)
	}
	joinHeaders(w.Header(), got.Header())
	if l == nil {
		return nil
	}
	for _, c := range setCookies(got.Header()) {
		if c.Name == session.Name() {
			l.renewed = &http.Cookie{Name: c.Name, Value: c.Value, Quoted: c.Quoted}
			l.cookie = c.Value
		}
	}
	l.base = frozen(session.Values)
	l.expires = expiryOf(session.Values)
	return nil
}

// keepExpiry notes in a session until when it is saved: stores do not tell, nor
// whether one that is not there any more has expired or was ended. A session whose
// cookie lives as long as the browser lives as long as the store likes.
//
// It is what is known, and no more: whoever else shares the database may extend a
// session without a word. When it expires is for the store to say.
func keepExpiry(session *gsessions.Session) {
	if o := session.Options; o == nil || o.MaxAge <= 0 {
		delete(session.Values, keyExpires)
	} else {
		noteExpiry(session.Values, time.Now().Add(time.Duration(o.MaxAge)*time.Second))
	}
}

// noteExpiry rounds up: what is kept until then does not end before.
func noteExpiry(values map[any]any, at time.Time) {
	values[keyExpires] = strconv.FormatInt(at.Add(time.Millisecond-1).UnixMilli(), 10)
}

// expiryOf returns what noteExpiry has noted, zero if it has not.
func expiryOf(values map[any]any) time.Time {
	noted, _ := values[keyExpires].(string)
	at, err := strconv.ParseInt(noted, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(at)
}

// keepOptions notes in a session how it is saved, how long and with which
// attributes of its cookie, if that is not what the store gives to every session:
// whoever loads it from there cannot tell.
func keepOptions(session *gsessions.Session, usual gsessions.Options) {
	if o := session.Options; o == nil || *o == usual {
		delete(session.Values, keyOptions)
	} else if noted, err := json.Marshal(o); err == nil {
		session.Values[keyOptions] = string(noted)
	}
}

// keptOptions returns the options that a loaded session was last saved with.
func keptOptions(session *gsessions.Session) *gsessions.Options {
	var o gsessions.Options
	if session.Options != nil {
		o = *session.Options
	}
	if noted, ok := session.Values[keyOptions].(string); ok {
		kept := o
		if json.Unmarshal([]byte(noted), &kept) == nil && kept.MaxAge >= 0 {
			o = kept
		}
	}
	return &o
}

// merge puts the request's changes on top of what is stored now, so that a
// request and a socket that change different keys both keep theirs.
func (st *store) merge(ctx context.Context, session *gsessions.Session, l *loaded) error {
	fresh, err := st.load(ctx, l.name, l.cookie)
	if err != nil {
		return err
	}
	if fresh.IsNew || fresh.ID != session.ID {
		return ErrSessionGone
	}
	rebase(fresh.Values, l.base, session.Values)
	session.Values = fresh.Values
	return nil
}

// rebase makes the changes that lead from base to changed in values.
func rebase(values, base, changed map[any]any) {
	for k := range base {
		if _, kept := changed[k]; !kept {
			delete(values, k)
		}
	}
	for k, v := range changed {
		if old, had := base[k]; !had || !unchanged(old, v) {
			values[k] = v
		}
	}
}

// load asks the inner store afresh for the session that a cookie names.
func (st *store) load(ctx context.Context, name, cookie string) (*gsessions.Session, error) {
	r := (&http.Request{Header: make(http.Header)}).WithContext(ctx)
	// As it came: net/http would quote or drop bytes that a store understands.
	r.Header.Set("Cookie", name+"="+cookie)
	got, err := st.fetch(r, name)
	if err != nil && !isNobody(err, cookie) {
		return nil, fmt.Errorf("adapter: load session: %w", err)
	}
	switch {
	case got == nil || err != nil:
		got = gsessions.NewSession(st.inner, name)
		got.IsNew = true
	case got.IsNew:
		return got, st.ping(ctx)
	default:
		identifyOld(got, cookie)
	}
	return got, nil
}

// delete ends a session: first the tombstone, so that nothing can bring it
// back, then its sockets, which do not wait for a database, then the row. That it
// stays so after this process is written down last.
func (st *store) delete(r *http.Request, w http.ResponseWriter, session *gsessions.Session, id string) error {
	life := st.end(id, tombstoneLife)
	st.srv.closeSession(id, ReasonSessionEnded)
	var got nullWriter
	err := st.drop(r, &got, session)
	if err != nil {
		// The row may live on behind its tombstone, which has to last then; and
		// the client can be made to forget the cookie.
		life = st.end(id, st.sessionLife())
		http.SetCookie(&got, gsessions.NewCookie(session.Name(), "", expired(session.Options)))
	}
	joinHeaders(w.Header(), got.Header())
	replaced := id
	if l := loadedOf(r.Context(), st, session.Name()); l != nil {
		replaced = cmp.Or(id, l.ended) // by then, when it was loaded
	}
	for _, next := range st.srv.ended.successors(replaced, peerOf(r)) {
		// A login has taken the session over while this request was on its way.
		// Who logs out does not mean to stay logged in, and the cookie is taken
		// back. Looked up last: sockets that had left the session by then hang
		// on one of these.
		life := st.end(next, tombstoneLife)
		drop := st.dropLater(next)
		st.srv.closeSession(next, ReasonSessionEnded)
		if dropErr := drop(r.Context()); dropErr != nil {
			life = st.end(next, st.sessionLife())
			err = errors.Join(err, dropErr)
		}
		err = errors.Join(err, st.remember(r.Context(), next, life))
	}
	return errors.Join(err, st.remember(r.Context(), id, life))
}

// end makes sure that nothing brings the session back for at least life, as long
// as this process lives. It returns for how long that has to be.
func (st *store) end(id string, life time.Duration) time.Duration {
	if st.inCookie.Load() {
		// The browser may show the cookie again for as long as it is valid.
		life = max(life, st.sessionLife())
	}
	st.srv.ended.add(id, life)
	if c := st.srv.cluster; c != nil && id != "" {
		c.sessionEnded(id, life)
	}
	return life
}

// sessionLife is how long a session can live that nothing has deleted.
func (st *store) sessionLife() time.Duration {
	return max(time.Duration(st.maxAge.Load())*time.Second, cookieLife)
}

// cookieLife is what gorilla's cookie store accepts by default.
const cookieLife = 30 * 24 * time.Hour

// expired returns o as the options of a cookie that is to be deleted.
func expired(o *gsessions.Options) *gsessions.Options {
	e := gsessions.Options{Path: "/"}
	if o != nil {
		e = *o
	}
	e.MaxAge = -1
	return &e
}

// A nullWriter is a response that only keeps headers.
type nullWriter struct{ header http.Header }

func (w *nullWriter) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *nullWriter) WriteHeader(int)             {}
