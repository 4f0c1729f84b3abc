package store

import (
	"context"
	"time"

	"github.com/gin-usher/usher/adapter"
)

var _ adapter.SessionLister = (*sessionStore)(nil)

const (
	// useEvery is how exact the last use of a session is: a page that only reads
	// must not cost a write each time.
	useEvery = time.Minute
	// maxUses is how many wait to be noted; more are forgotten until their next.
	maxUses = 256
	// noteTimeout is how long the writer may be kept waiting for one.
	noteTimeout = time.Second
)

// use is a session that was just loaded.
type use struct {
	key []byte
	at  time.Time
	of  adapter.StoredSession
}

// noteUse has the use of a session noted. It does not wait: a page must not be
// slow, or fail, because somebody else holds the database.
func (db *DB) noteUse(id string, values map[any]any) {
	select {
	case db.uses <- use{sessionKey(id), time.Now(), adapter.StoredSessionOf(id, values)}:
	default:
	}
}

// noteUses notes uses until ctx ends. One that cannot be noted is forgotten: the
// next may be. Whose session it is goes along, for those that were stored before
// that was kept.
func (db *DB) noteUses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-db.uses:
			db.writeUse(ctx, u)
		}
	}
}

func (db *DB) writeUse(ctx context.Context, u use) {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	_, _ = db.write.ExecContext(ctx, `
		UPDATE sessions
		SET used = ?, handle = ?, user_id = ?, provider = ?, address = ?, agent = ?, since = ?
		WHERE key = ? AND used <= ?`,
		u.at.UnixMilli(), u.of.Handle, u.of.UserID, u.of.Provider, u.of.Address, u.of.Agent, unixNano(u.of.Since),
		u.key, u.at.Add(-useEvery).UnixMilli())
}

// UserSessions implements adapter.SessionLister.
func (s *sessionStore) UserSessions(ctx context.Context, userID string, limit int) ([]adapter.StoredSession, error) {
	const doing = "list your sessions"
	rows, err := s.db.read.QueryContext(ctx, `
		SELECT handle, user_id, provider, address, agent, since, used FROM sessions
		WHERE user_id = ? AND user_id <> '' AND expires > ? ORDER BY used DESC LIMIT ?`,
		userID, time.Now().UnixMilli(), limit)
	if err != nil {
		return nil, s.db.fail(ctx, doing, err)
	}
	defer rows.Close()
	var all []adapter.StoredSession
	for rows.Next() {
		var of adapter.StoredSession
		var since, used int64
		if err := rows.Scan(&of.Handle, &of.UserID, &of.Provider, &of.Address, &of.Agent, &since, &used); err != nil {
			return nil, s.db.fail(ctx, doing, err)
		}
		of.Since, of.Used = time.Unix(0, since), time.UnixMilli(used)
		all = append(all, of)
	}
	if err := rows.Err(); err != nil {
		return nil, s.db.fail(ctx, doing, err)
	}
	return all, nil
}

// EndUserSession implements adapter.SessionLister.
func (s *sessionStore) EndUserSession(ctx context.Context, userID, handle string) (found bool, err error) {
	const doing = "end this session"
	if userID == "" || handle == "" {
		return false, nil // what rows of nobody have
	}
	res, err := s.db.write.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = ? AND handle = ?`, userID, handle)
	if err != nil {
		return false, s.db.fail(ctx, doing, err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return false, s.db.fail(ctx, doing, err)
	}
	return n > 0, nil
}

// unixNano is 0 for no time.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
