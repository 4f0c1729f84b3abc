package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gorilla/securecookie"
	gorilla "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
)

var (
	// ErrSessionGone is returned by Save for a session that was deleted or has
	// expired since it was loaded. Nothing is stored: a request that was slow
	// must not undo a logout.
	ErrSessionGone = errors.New("store: the session has ended")

	// ErrSessionTooLarge is returned by Save for values that take more than
	// MaxSession bytes. What was stored before stays.
	ErrSessionTooLarge = errors.New("store: the session is too large")
)

// MaxSession is the most bytes that the values of one session may take.
const MaxSession = 64 << 10

const (
	defaultMaxAge = 30 * 24 * time.Hour

	// browserSession is how long a session with MaxAge 0 is kept after its
	// last save. Its cookie ends with the browser, which tells nobody.
	browserSession = 24 * time.Hour

	purgeEvery = time.Hour
	purgeBatch = 500
)

// Sessions returns a store for the middleware of gin-contrib/sessions, kept in
// this database. The cookie carries a random id and nothing else, signed (and
// encrypted, if there is a block key) with the key pairs; several pairs allow
// keys to be rotated, as in gorilla's stores.
//
//   - New and Get return a new session without an error when there is no
//     cookie, or no such session any more; a new session and the securecookie
//     error when the cookie was forged; and a new session and another error
//     when the database does not answer. Who treats that one as "logged out"
//     logs everybody out whenever a disk is slow.
//   - Save moves the expiry. Options.MaxAge below zero deletes the session and
//     the cookie; zero lets the cookie end with the browser. An empty ID is
//     given a new one; any other must still exist, or the answer is
//     ErrSessionGone.
//   - A session's last use is noted when it is saved, and at most once a minute
//     when it is loaded; not by a replay of the chain for open sockets.
//   - Options sets the cookie of the sessions to come and must be called
//     before the first request. The default: Path "/", 30 days, HttpOnly,
//     SameSite=Lax.
//
// The store is an adapter.SessionLister.
func (db *DB) Sessions(keyPairs ...[]byte) sessions.Store {
	codecs := securecookie.CodecsFromPairs(keyPairs...)
	for _, c := range codecs {
		// No age: the table knows when a session ends, and the age of the
		// cookie would end one that is in use without getting a new cookie, as
		// over a socket. No length: a cookie that is too long is then reported
		// as what it is, forged.
		c.(*securecookie.SecureCookie).MaxAge(0).MaxLength(0)
	}
	return &sessionStore{
		db:     db,
		codecs: codecs,
		options: gorilla.Options{
			Path:     "/",
			MaxAge:   int(defaultMaxAge.Seconds()),
			HttpOnly: true,
			SameSite: http.SameSiteLaxMode,
		},
	}
}

type sessionStore struct {
	db      *DB
	codecs  []securecookie.Codec
	options gorilla.Options
}

// Options implements sessions.Store.
func (s *sessionStore) Options(o sessions.Options) { s.options = *o.ToGorillaOptions() }

// Get implements gorilla's Store: one session per name and request.
func (s *sessionStore) Get(r *http.Request, name string) (*gorilla.Session, error) {
	return gorilla.GetRegistry(r).Get(s, name)
}

// New implements gorilla's Store. The session is never nil.
func (s *sessionStore) New(r *http.Request, name string) (*gorilla.Session, error) {
	session := gorilla.NewSession(s, name)
	options := s.options
	session.Options = &options
	session.IsNew = true

	cookie, err := r.Cookie(name)
	if err != nil || cookie.Value == "" {
		return session, nil
	}
	var id string
	if err := securecookie.DecodeMulti(name, cookie.Value, &id, s.codecs...); err != nil {
		return session, err
	}
	data, used, err := s.db.loadSession(r.Context(), id)
	if err != nil || data == nil {
		// The id is not kept: a later Save must not bring back a session that
		// is gone, nor write over one that could not be read.
		return session, err
	}
	if err := (securecookie.GobEncoder{}).Deserialize(data, &session.Values); err != nil {
		// Values of a type that this program no longer knows. That is an
		// unusable session and not a database that does not answer, so the
		// error stays a securecookie one.
		session.Values = make(map[any]any)
		return session, fmt.Errorf("store: decode session: %w", err)
	}
	session.ID, session.IsNew = id, false
	if !adapter.Replaying(r.Context()) && time.Since(used) >= useEvery {
		s.db.noteUse(id, session.Values)
	}
	return session, nil
}

// Save implements gorilla's Store. The response gets its cookie only when the
// database holds what the cookie stands for.
func (s *sessionStore) Save(r *http.Request, w http.ResponseWriter, session *gorilla.Session) error {
	if session.Options.MaxAge < 0 {
		if session.ID != "" {
			if err := s.db.deleteSession(r.Context(), session.ID); err != nil {
				return err
			}
		}
		http.SetCookie(w, gorilla.NewCookie(session.Name(), "", session.Options))
		return nil
	}

	data, err := securecookie.GobEncoder{}.Serialize(session.Values)
	if err != nil {
		return fmt.Errorf("store: encode session: %w", err)
	}
	if len(data) > MaxSession {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrSessionTooLarge, len(data), MaxSession)
	}
	id, save := session.ID, s.db.updateSession
	if id == "" {
		id, save = newSessionID(), s.db.insertSession
	}
	value, err := securecookie.EncodeMulti(session.Name(), id, s.codecs...)
	if err != nil {
		return fmt.Errorf("store: sign session cookie: %w", err)
	}
	lifetime := time.Duration(session.Options.MaxAge) * time.Second
	if lifetime == 0 {
		lifetime = browserSession
	}
	if err := save(r.Context(), id, data, time.Now().Add(lifetime), adapter.StoredSessionOf(id, session.Values)); err != nil {
		return err
	}
	session.ID = id
	http.SetCookie(w, gorilla.NewCookie(session.Name(), value, session.Options))
	return nil
}

// loadSession returns nil when there is no such session or it has expired, and
// when it was last used as far as that was noted.
func (db *DB) loadSession(ctx context.Context, id string) (data []byte, used time.Time, err error) {
	var milli int64
	err = db.read.QueryRowContext(ctx, `SELECT data, used FROM sessions WHERE key = ? AND expires > ?`,
		sessionKey(id), time.Now().UnixMilli()).Scan(&data, &milli)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, db.fail(ctx, "load your session", err)
	}
	return data, time.UnixMilli(milli), nil
}

func (db *DB) insertSession(ctx context.Context, id string, data []byte, expires time.Time, of adapter.StoredSession) error {
	_, err := db.write.ExecContext(ctx, `
		INSERT INTO sessions (key, data, expires, used, handle, user_id, provider, address, agent, since)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		sessionKey(id), data, expires.UnixMilli(), time.Now().UnixMilli(),
		of.Handle, of.UserID, of.Provider, of.Address, of.Agent, unixNano(of.Since))
	if err != nil {
		return db.fail(ctx, "save your session", err)
	}
	return nil
}

func (db *DB) updateSession(ctx context.Context, id string, data []byte, expires time.Time, of adapter.StoredSession) error {
	const doing = "save your session"
	// One statement: between a look and a write another request could log out.
	now := time.Now().UnixMilli()
	res, err := db.write.ExecContext(ctx, `
		UPDATE sessions
		SET data = ?, expires = ?, used = ?, handle = ?, user_id = ?, provider = ?, address = ?, agent = ?, since = ?
		WHERE key = ? AND expires > ?`,
		data, expires.UnixMilli(), now,
		of.Handle, of.UserID, of.Provider, of.Address, of.Agent, unixNano(of.Since),
		sessionKey(id), now)
	if err != nil {
		return db.fail(ctx, doing, err)
	}
	changed, err := res.RowsAffected()
	if err != nil {
		return db.fail(ctx, doing, err)
	}
	if changed == 0 {
		return ErrSessionGone
	}
	return nil
}

func (db *DB) deleteSession(ctx context.Context, id string) error {
	if _, err := db.write.ExecContext(ctx, `DELETE FROM sessions WHERE key = ?`, sessionKey(id)); err != nil {
		return db.fail(ctx, "end your session", err)
	}
	return nil
}

// purge removes expired sessions, and endings that are over, until ctx ends.
// Nothing depends on it but the size of the file: neither is loaded anyway. So a
// failure waits for the next round, and the requests that meet the same database
// report it.
func (db *DB) purge(ctx context.Context) {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		db.purgeAll(ctx, `DELETE FROM sessions WHERE key IN (SELECT key FROM sessions WHERE expires <= ? LIMIT ?)`)
		db.purgeAll(ctx, `DELETE FROM endings WHERE (kind, hash) IN (SELECT kind, hash FROM endings WHERE until <= ? LIMIT ?)`)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// purgeAll deletes what is over in batches, so that no request waits long for the
// writer.
func (db *DB) purgeAll(ctx context.Context, batch string) {
	for {
		res, err := db.write.ExecContext(ctx, batch, time.Now().UnixMilli(), purgeBatch)
		if err != nil {
			return
		}
		if n, err := res.RowsAffected(); err != nil || n < purgeBatch {
			return
		}
	}
}

// newSessionID returns 256 random bits.
func newSessionID() string {
	id := make([]byte, 32)
	rand.Read(id) // never fails
	return base64.RawURLEncoding.EncodeToString(id)
}

func sessionKey(id string) []byte {
	key := sha256.Sum256([]byte(id))
	return key[:]
}
