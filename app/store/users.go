package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"time"

	"github.com/gin-usher/usher/app"
)

// UpsertUser finds the person by Provider and Subject, or adds them under a
// random id, and brings name and avatar up to date. A profile without
// Provider or Subject is refused with app.CodeInvalid: all such people would
// be one.
func (db *DB) UpsertUser(ctx context.Context, p app.Profile) (app.User, error) {
	if p.Provider == "" || p.Subject == "" {
		return app.User{}, app.Errorf(app.CodeInvalid, "The login service did not say who you are.")
	}
	u := app.User{Name: p.Name, Avatar: p.Avatar}
	err := db.inTx(ctx, "store your profile", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `
			INSERT INTO users (id, provider, subject, name, avatar, created) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (provider, subject) DO UPDATE SET name = excluded.name, avatar = excluded.avatar
				WHERE name <> excluded.name OR avatar <> excluded.avatar`,
			rand.Text(), p.Provider, p.Subject, p.Name, p.Avatar, time.Now().UnixMilli(),
		); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx,
			`SELECT id FROM users WHERE provider = ? AND subject = ?`, p.Provider, p.Subject).Scan(&u.ID)
	})
	if err != nil {
		return app.User{}, err
	}
	return u, nil
}

// User finds a person by id, or fails with app.CodeNotFound.
func (db *DB) User(ctx context.Context, id string) (app.User, error) {
	u, err := userByID(ctx, db.read, id)
	if err != nil {
		return app.User{}, db.fail(ctx, "look you up", err)
	}
	return u, nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func userByID(ctx context.Context, q querier, id string) (app.User, error) {
	u := app.User{ID: id}
	err := q.QueryRowContext(ctx, `SELECT name, avatar FROM users WHERE id = ?`, id).Scan(&u.Name, &u.Avatar)
	if errors.Is(err, sql.ErrNoRows) {
		return app.User{}, app.Errorf(app.CodeNotFound, "There is no such user.")
	}
	return u, err
}
