package store

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations are applied in order, each once; PRAGMA user_version counts them.
// One that has been released is never edited: what changes is a new one.
var migrations = []string{
	// 1: times are Unix milliseconds.
	`
	CREATE TABLE users (
		id       TEXT PRIMARY KEY,
		provider TEXT NOT NULL CHECK (provider <> ''),
		subject  TEXT NOT NULL CHECK (subject <> ''),
		name     TEXT NOT NULL,
		avatar   TEXT NOT NULL,
		created  INTEGER NOT NULL,
		UNIQUE (provider, subject)
	) STRICT;

	CREATE TABLE rooms (
		name  TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 32 AND name NOT GLOB '*[^a-z0-9-]*'),
		title TEXT NOT NULL
	) STRICT;

	-- AUTOINCREMENT: an id is never used twice, so clients may page and
	-- recognise messages by it even if the newest were deleted one day.
	CREATE TABLE messages (
		id      INTEGER PRIMARY KEY AUTOINCREMENT,
		room    TEXT NOT NULL REFERENCES rooms (name),
		user_id TEXT NOT NULL REFERENCES users (id),
		text    TEXT NOT NULL,
		nonce   TEXT NOT NULL,
		at      INTEGER NOT NULL
	) STRICT;
	CREATE INDEX messages_by_room ON messages (room, id);
	CREATE UNIQUE INDEX messages_by_nonce ON messages (user_id, nonce) WHERE nonce <> '';

	-- key is the SHA-256 of the id in the cookie: who reads the database
	-- cannot log in with what is in it.
	CREATE TABLE sessions (
		key     BLOB PRIMARY KEY,
		data    BLOB NOT NULL,
		expires INTEGER NOT NULL
	) STRICT;
	CREATE INDEX sessions_by_expiry ON sessions (expires);

	INSERT INTO rooms (name, title) VALUES ('lobby', 'Lobby');
	`,

	// 2: what has ended. at is in Unix nanoseconds, until in milliseconds.
	`
	CREATE TABLE endings (
		kind  TEXT NOT NULL CHECK (kind <> ''),
		hash  BLOB NOT NULL CHECK (length(hash) = 32),
		at    INTEGER NOT NULL,
		until INTEGER NOT NULL,
		PRIMARY KEY (kind, hash)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX endings_by_until ON endings (until);
	`,

	// 3: whose sessions they are. handle is adapter.SessionHandle of the id, by
	// which pages know a session. since is in nanoseconds: it is compared with when
	// logins were revoked.
	`
	ALTER TABLE sessions ADD COLUMN handle TEXT NOT NULL DEFAULT '';
	ALTER TABLE sessions ADD COLUMN user_id TEXT NOT NULL DEFAULT '';
	ALTER TABLE sessions ADD COLUMN provider TEXT NOT NULL DEFAULT '';
	ALTER TABLE sessions ADD COLUMN address TEXT NOT NULL DEFAULT '';
	ALTER TABLE sessions ADD COLUMN agent TEXT NOT NULL DEFAULT '';
	ALTER TABLE sessions ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE sessions ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
	CREATE INDEX sessions_by_user ON sessions (user_id, used) WHERE user_id <> '';
	`,
}

// migrate brings the tables up to date in one transaction, so that a crash or
// a second process starting at the same time sees all of it or nothing.
func (db *DB) migrate(ctx context.Context) error {
	return db.inTx(ctx, "prepare the database", func(tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
			return err
		}
		if version > len(migrations) {
			return fmt.Errorf("the database has version %d and this program knows up to %d: start the newer program", version, len(migrations))
		}
		if version == len(migrations) {
			return nil
		}
		for i, m := range migrations[version:] {
			if _, err := tx.ExecContext(ctx, m); err != nil {
				return fmt.Errorf("migration %d: %w", version+i+1, err)
			}
		}
		// A PRAGMA takes no parameters.
		_, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, len(migrations)))
		return err
	})
}
