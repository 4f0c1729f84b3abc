package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// maxEndings is how many endings are given back at most: those that last longest.
const maxEndings = 1 << 20

// Endings returns what adapter.Config.Endings wants, kept in this database, which
// several servers may share. What has to be remembered no longer is removed with
// the expired sessions.
func (db *DB) Endings() adapter.Endings { return endings{db} }

type endings struct{ db *DB }

// Add implements adapter.Endings.
func (e endings) Add(ctx context.Context, all ...adapter.Ending) error {
	return e.db.inTx(ctx, "remember what has ended", func(tx *sql.Tx) error {
		for _, of := range all {
			_, err := tx.ExecContext(ctx, `
				INSERT INTO endings (kind, hash, at, until) VALUES (?, ?, ?, ?)
				ON CONFLICT (kind, hash) DO UPDATE SET at = max(at, excluded.at), until = max(until, excluded.until)`,
				of.Kind, of.Hash[:], of.At.UnixNano(), of.Until.UnixMilli()+1) // rounded up
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// All implements adapter.Endings.
func (e endings) All(ctx context.Context) ([]adapter.Ending, error) {
	all, err := e.all(ctx)
	if err != nil {
		return nil, e.db.fail(ctx, "read what has ended", err)
	}
	return all, nil
}

func (e endings) all(ctx context.Context) ([]adapter.Ending, error) {
	rows, err := e.db.read.QueryContext(ctx, `SELECT kind, hash, at, until FROM endings WHERE until > ? ORDER BY until DESC LIMIT ?`,
		time.Now().UnixMilli(), maxEndings)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []adapter.Ending
	for rows.Next() {
		var of adapter.Ending
		var hash []byte
		var at, until int64
		if err := rows.Scan(&of.Kind, &hash, &at, &until); err != nil {
			return nil, err
		}
		copy(of.Hash[:], hash)
		of.At, of.Until = time.Unix(0, at), time.UnixMilli(until)
		all = append(all, of)
	}
	return all, rows.Err()
}
