package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the "sqlite" driver

	"github.com/gin-usher/usher/app"
)

var (
	_ app.Users    = (*DB)(nil)
	_ app.Messages = (*DB)(nil)
)

// busyTimeout is how long a statement waits for another process that holds
// the database, such as a backup.
const busyTimeout = 5 * time.Second

// readers is the size of the pool that reads.
const readers = 4

// DB is an open database. It owns its connections and the goroutines that
// remove what has expired and note when sessions are used; Close ends them.
type DB struct {
	write *sql.DB // one connection
	read  *sql.DB

	uses chan use // of sessions, that are to be noted

	closed atomic.Bool
	close  func() error // once
}

// Open opens the database at path, creating the folder (0700) and the file
// (0600) when they are missing, and brings its tables up to date. A database
// written by a newer program is refused.
func Open(ctx context.Context, path string) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: open: %w", err)
	}
	if err := create(path); err != nil {
		return nil, fmt.Errorf("store: open: %w", err)
	}

	db := &DB{uses: make(chan use, maxUses)}
	// journal_mode is kept in the file, so only the writer sets it.
	// Transactions begin IMMEDIATE: one that begins as a reader and then
	// writes can fail at once with "locked", and no timeout helps it.
	if db.write, err = sql.Open("sqlite", dsn(path, url.Values{
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"on"},
		"_txlock":       {"immediate"},
	})); err != nil {
		return nil, fmt.Errorf("store: open: %w", err)
	}
	db.write.SetMaxOpenConns(1)
	if db.read, err = sql.Open("sqlite", dsn(path, url.Values{
		"_query_only": {"on"},
	})); err != nil {
		return nil, errors.Join(fmt.Errorf("store: open: %w", err), db.write.Close())
	}
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)

	if err := db.prepare(ctx); err != nil {
		// The writer goes last: the last connection to close folds the WAL
		// into the database, and a read-only one cannot.
		return nil, errors.Join(fmt.Errorf("store: open %s: %w", path, err), db.read.Close(), db.write.Close())
	}

	running, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { db.purge(running) })
	wg.Go(func() { db.noteUses(running) })
	db.close = sync.OnceValue(func() error {
		db.closed.Store(true)
		stop()
		wg.Wait()
		return errors.Join(db.read.Close(), db.write.Close())
	})
	return db, nil
}

// prepare is migrate once the database is a WAL. Two that open a new one at the
// same time may both want to make it one; SQLite tells one of them at once that
// the database is busy, whatever the timeout.
func (db *DB) prepare(ctx context.Context) error {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(busyTimeout); ; {
		err := db.migrate(ctx)
		if err == nil || !isBusy(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// Ping reports whether the database can be read and written to. It takes the
// write lock for a moment and changes nothing.
func (db *DB) Ping(ctx context.Context) error {
	const doing = "reach the database"
	if err := db.read.QueryRowContext(ctx, `SELECT name FROM rooms LIMIT 1`).Scan(new(string)); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return db.fail(ctx, doing, err)
	}
	return db.inTx(ctx, doing, func(*sql.Tx) error { return nil })
}

// Close ends the purge, waits for running statements and closes the file.
// Everything called afterwards fails with app.CodeUnavailable. Closing again
// returns what the first call returned.
func (db *DB) Close() error { return db.close() }

// inTx runs f in a transaction that holds the write lock. The transaction is
// durable when inTx returns nil, and has left no trace otherwise.
func (db *DB) inTx(ctx context.Context, doing string, f func(*sql.Tx) error) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return db.fail(ctx, doing, err)
	}
	defer tx.Rollback() // does nothing after Commit
	if err := f(tx); err != nil {
		return db.fail(ctx, doing, err)
	}
	if err := tx.Commit(); err != nil {
		return db.fail(ctx, doing, err)
	}
	return nil
}

// create makes the folder and an empty file with their permissions; SQLite
// gives the file's to its -wal and -shm. It never opens a file that exists:
// closing it again would drop the POSIX locks that other connections of this
// process hold on it.
func create(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// dsn names the file as a URI, the only form in which a path may contain "?".
func dsn(path string, settings url.Values) string {
	settings.Set("_busy_timeout", strconv.FormatInt(busyTimeout.Milliseconds(), 10))
	slashed := filepath.ToSlash(path)
	if runtime.GOOS == "windows" {
		slashed = "/" + strings.TrimPrefix(slashed, "/") // file:///C:/…
	}
	return (&url.URL{Scheme: "file", Path: slashed, RawQuery: settings.Encode()}).String()
}
