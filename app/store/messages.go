package store

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gin-usher/usher/app"
)

// Rooms lists the rooms by name.
func (db *DB) Rooms(ctx context.Context) ([]app.Room, error) {
	rooms, err := db.rooms(ctx)
	if err != nil {
		return nil, db.fail(ctx, "list the rooms", err)
	}
	return rooms, nil
}

func (db *DB) rooms(ctx context.Context) ([]app.Room, error) {
	rows, err := db.read.QueryContext(ctx, `SELECT name, title FROM rooms ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var rooms []app.Room
	for rows.Next() {
		var r app.Room
		if err := rows.Scan(&r.Name, &r.Title); err != nil {
			return nil, err
		}
		rooms = append(rooms, r)
	}
	return rooms, rows.Err()
}

// Room finds a room by name, or fails with app.CodeNotFound.
func (db *DB) Room(ctx context.Context, name string) (app.Room, error) {
	r := app.Room{Name: name}
	err := db.read.QueryRowContext(ctx, `SELECT title FROM rooms WHERE name = ?`, name).Scan(&r.Title)
	if errors.Is(err, sql.ErrNoRows) {
		return app.Room{}, noRoom(name)
	}
	if err != nil {
		return app.Room{}, db.fail(ctx, "open the room", err)
	}
	return r, nil
}

// CreateRoom adds a room; one that exists already is left as it is. A name
// that does not fit [a-z0-9-]{1,32} is refused with app.CodeInvalid.
func (db *DB) CreateRoom(ctx context.Context, r app.Room) error {
	_, err := db.write.ExecContext(ctx,
		`INSERT INTO rooms (name, title) VALUES (?, ?) ON CONFLICT (name) DO NOTHING`, r.Name, r.Title)
	if violates(err, sqlite3.SQLITE_CONSTRAINT_CHECK) {
		return app.Errorf(app.CodeInvalid, "A room's name has 1 to 32 characters: lower-case letters a to z, digits and dashes.")
	}
	if err != nil {
		return db.fail(ctx, "create the room", err)
	}
	return nil
}

// Post stores d. When it returns without an error the message survives a
// crash of the process and of the machine. A Nonce that this user has posted
// before stores nothing and returns the first message, whatever the Text. An
// unknown user or room is app.CodeNotFound.
//
// When Post fails because ctx ended, the message may have been stored: who
// wants to know posts it again with the same Nonce.
func (db *DB) Post(ctx context.Context, d app.Draft) (app.Message, error) {
	m := app.Message{Room: d.Room, Text: d.Text}
	err := db.inTx(ctx, "store the message", func(tx *sql.Tx) error {
		var err error
		if m.User, err = userByID(ctx, tx, d.UserID); err != nil {
			return err
		}
		// The time is taken while holding the write lock, so that it grows
		// with the id. To the millisecond: what is stored is what is returned.
		m.At = time.Now().UTC().Truncate(time.Millisecond)
		res, err := tx.ExecContext(ctx, `
			INSERT INTO messages (room, user_id, text, nonce, at) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (user_id, nonce) WHERE nonce <> '' DO NOTHING`,
			d.Room, d.UserID, d.Text, d.Nonce, m.At.UnixMilli())
		if violates(err, sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY) {
			return noRoom(d.Room) // the user was found above
		}
		if err != nil {
			return err
		}
		stored, err := res.RowsAffected()
		if err != nil {
			return err
		}
		if stored == 0 {
			return scanMessage(tx.QueryRowContext(ctx,
				selectMessages+`WHERE m.user_id = ? AND m.nonce = ? AND m.nonce <> ''`, d.UserID, d.Nonce), &m)
		}
		m.ID, err = res.LastInsertId()
		return err
	})
	if err != nil {
		return app.Message{}, err
	}
	return m, nil
}

// Messages returns up to limit messages of a room with an id below before
// (0 means the newest), oldest first. A room that does not exist has none.
func (db *DB) Messages(ctx context.Context, room string, before int64, limit int) ([]app.Message, error) {
	msgs, err := db.messages(ctx, room, before, limit)
	if err != nil {
		return nil, db.fail(ctx, "read the messages", err)
	}
	return msgs, nil
}

func (db *DB) messages(ctx context.Context, room string, before int64, limit int) ([]app.Message, error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	// SQLite takes a negative limit for none at all.
	rows, err := db.read.QueryContext(ctx,
		selectMessages+`WHERE m.room = ? AND m.id < ? ORDER BY m.id DESC LIMIT ?`, room, before, max(limit, 0))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var msgs []app.Message
	for rows.Next() {
		var m app.Message
		if err := scanMessage(rows, &m); err != nil {
			return nil, err
		}
		msgs = append(msgs, m)
	}
	slices.Reverse(msgs)
	return msgs, rows.Err()
}

const selectMessages = `
	SELECT m.id, m.room, m.text, m.at, u.id, u.name, u.avatar
	FROM messages AS m JOIN users AS u ON u.id = m.user_id `

func scanMessage(row interface{ Scan(...any) error }, m *app.Message) error {
	var at int64
	if err := row.Scan(&m.ID, &m.Room, &m.Text, &at, &m.User.ID, &m.User.Name, &m.User.Avatar); err != nil {
		return err
	}
	m.At = time.UnixMilli(at).UTC()
	return nil
}

func noRoom(name string) *app.Error {
	return app.Errorf(app.CodeNotFound, "There is no room named %q.", name)
}
