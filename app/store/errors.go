package store

import (
	"context"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gin-usher/usher/app"
)

// fail turns what the database said while doing something into what package
// store promises (see the package's documentation). doing completes the
// sentence "Could not …" for people and the prefix for logs.
func (db *DB) fail(ctx context.Context, doing string, err error) error {
	if _, ok := errors.AsType[*app.Error](err); ok {
		return err // said better by the caller
	}
	err = fmt.Errorf("store: %s: %w", doing, err)
	if ctxErr := ctx.Err(); ctxErr != nil && !errors.Is(err, ctxErr) {
		// An interrupted statement may report the interruption, or the lock
		// that it was waiting for: the reason is that the context ended.
		err = fmt.Errorf("%w (%w)", err, ctxErr)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if reason := db.reason(err); reason != "" {
		return &app.Error{
			Code:    app.CodeUnavailable,
			Message: fmt.Sprintf("Could not %s because %s. Please try again in a moment.", doing, reason),
			Err:     err,
		}
	}
	return err
}

// reason says for people why the database does not answer, and "" for errors
// that are not its failure to answer.
func (db *DB) reason(err error) string {
	if db.closed.Load() {
		return "the server is stopping"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "the database did not answer in time"
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return ""
	}
	switch primary(e) {
	case sqlite3.SQLITE_FULL:
		return "the disk is full"
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return "the database is busy"
	case sqlite3.SQLITE_IOERR:
		return "the disk has failed"
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return "the database cannot be opened or written to"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return "the database is damaged"
	case sqlite3.SQLITE_NOMEM:
		return "the server is out of memory"
	}
	return ""
}

// primary strips the detail from an extended result code.
func primary(e *sqlite.Error) int { return e.Code() & 0xff }

// violates reports whether err is the violation of a constraint of this kind,
// one of the extended codes SQLITE_CONSTRAINT_….
func violates(err error, constraint int) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code() == constraint
}

// isBusy reports whether somebody else holds the database.
func isBusy(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (primary(e) == sqlite3.SQLITE_BUSY || primary(e) == sqlite3.SQLITE_LOCKED)
}
