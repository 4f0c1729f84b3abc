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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openTest opens a new database that is closed when the test ends.
func openTest(t testing.TB) *DB {
	t.Helper()
	return openPath(t, filepath.Join(t.TempDir(), "usher.db"))
}

func openPath(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return db
}

// wantUnavailable fails the test unless err is the database not answering,
// with a sentence for people that contains every part.
func wantUnavailable(t testing.TB, err error, parts ...string) {
	t.Helper()
	e, ok := errors.AsType[*app.Error](err)
	if !ok || e.Code != app.CodeUnavailable {
		t.Fatalf("error = %v, want an app.Error with code %q", err, app.CodeUnavailable)
	}
	if e.Err == nil {
		t.Error("the cause is missing")
	}
	for _, part := range parts {
		if !strings.Contains(e.Message, part) {
			t.Errorf("message = %q, want it to contain %q", e.Message, part)
		}
	}
}

func TestOpenKeepsFilesPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	path := filepath.Join(dir, "usher.db")
	db := openPath(t, path)
	mustUser(t, db, "ann") // so that -wal and -shm exist

	for file, want := range map[string]fs.FileMode{dir: 0o700, path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %o, want %o", filepath.Base(file), got, want)
		}
	}
}

func TestOpenPathWithSpecialCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "what?mode=memory&x#1 100%41.db")
	db := openPath(t, path)
	mustUser(t, db, "ann")
	if _, err := os.Stat(path + "-wal"); err != nil {
		t.Errorf("the database is not where it was asked for: %v", err)
	}
}

func TestOpenSettings(t *testing.T) {
	db := openTest(t)
	for _, tt := range []struct {
		pool   *sql.DB
		pragma string
		want   string
	}{
		{db.write, "journal_mode", "wal"},
		{db.write, "synchronous", "2"}, // FULL
		{db.write, "foreign_keys", "1"},
		{db.write, "busy_timeout", "5000"},
		{db.read, "journal_mode", "wal"},
		{db.read, "busy_timeout", "5000"},
		{db.read, "query_only", "1"},
	} {
		var got string
		if err := tt.pool.QueryRowContext(t.Context(), "PRAGMA "+tt.pragma).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("PRAGMA %s = %s, want %s", tt.pragma, got, tt.want)
		}
	}
}

func TestOpenFailures(t *testing.T) {
	dir := t.TempDir()
	notDatabase := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(notDatabase, []byte(strings.Repeat("Dear Ann, ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}

	if _, err := Open(t.Context(), filepath.Join(notDatabase, "usher.db")); err == nil {
		t.Error("a file was taken for a folder")
	}
	if _, err := Open(t.Context(), notDatabase); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("Open of a letter: %v", err)
	}

	newer := filepath.Join(dir, "newer.db")
	db := openPath(t, newer)
	if _, err := db.write.ExecContext(t.Context(), `PRAGMA user_version = 1000`); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), newer); err == nil || !strings.Contains(err.Error(), "start the newer program") {
		t.Errorf("Open of a newer database: %v", err)
	}
}

func TestOpenAtTheSameTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			db, err := Open(context.Background(), path)
			if err != nil {
				t.Error(err)
				return
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	rooms, err := openPath(t, path).Rooms(t.Context())
	if want := []app.Room{{Name: "lobby", Title: "Lobby"}}; err != nil || !slices.Equal(rooms, want) {
		t.Errorf("Rooms = %v, %v; want %v", rooms, err, want)
	}
}

func TestReopenKeepsUsersAndMessages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	db := openPath(t, path)
	ann := mustUser(t, db, "ann")
	if err := db.CreateRoom(t.Context(), app.Room{Name: "tea", Title: "Tea"}); err != nil {
		t.Fatal(err)
	}
	first := mustPost(t, db, app.Draft{Room: "tea", Text: "hello", UserID: ann.ID, Nonce: "n1"})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	db = openPath(t, path)
	if got := mustUser(t, db, "ann"); got != ann {
		t.Errorf("user = %v, want %v", got, ann)
	}
	if got, err := db.Room(t.Context(), "tea"); err != nil || got.Title != "Tea" {
		t.Errorf("Room = %v, %v", got, err)
	}
	if got := mustMessages(t, db, "tea"); len(got) != 1 || got[0] != first {
		t.Errorf("messages = %v, want %v", got, first)
	}
	if again := mustPost(t, db, app.Draft{Room: "tea", Text: "hello", UserID: ann.ID, Nonce: "n1"}); again != first {
		t.Errorf("repeated post = %v, want %v", again, first)
	}
}

// A copy of the files of an open database is what a killed process leaves.
func TestPostSurvivesKill(t *testing.T) {
	from := filepath.Join(t.TempDir(), "usher.db")
	db := openPath(t, from)
	ann := mustUser(t, db, "ann")
	var want []app.Message
	for i := range 5 {
		want = append(want, mustPost(t, db, app.Draft{Room: "lobby", Text: fmt.Sprint(i), UserID: ann.ID}))
		to := filepath.Join(t.TempDir(), "usher.db")
		for _, suffix := range []string{"", "-wal"} {
			data, err := os.ReadFile(from + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to+suffix, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := mustMessages(t, openPath(t, to), "lobby"); !slices.Equal(got, want) {
			t.Fatalf("after a kill there are %v, want %v", got, want)
		}
	}
}

func TestDiskFull(t *testing.T) {
	db := openTest(t)
	ann := mustUser(t, db, "ann")
	browser := newBrowser(t, db)
	browser.set("theme", "dark")

	limit := func(pages int) {
		t.Helper()
		if _, err := db.write.ExecContext(t.Context(), fmt.Sprintf(`PRAGMA max_page_count = %d`, pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // SQLite raises it to what is in use
	var stored []app.Message
	var err error
	for range 100 { // the last pages have room for a few more
		var m app.Message
		if m, err = db.Post(t.Context(), app.Draft{Room: "lobby", Text: strings.Repeat("x", app.MaxText), UserID: ann.ID}); err != nil {
			break
		}
		stored = append(stored, m)
	}
	wantUnavailable(t, err, "Could not store the message", "disk is full")
	if got := mustMessages(t, db, "lobby"); !slices.Equal(got, stored) {
		t.Errorf("%d messages are stored, %d were acknowledged", len(got), len(stored))
	}
	err = browser.trySet("essay", strings.Repeat("x", 32<<10))
	wantUnavailable(t, err, "Could not save your session", "disk is full")
	if got := browser.get("theme"); got != "dark" {
		t.Errorf("session value after a failed save = %v, want what was stored before", got)
	}

	limit(1 << 30)
	stored = append(stored, mustPost(t, db, app.Draft{Room: "lobby", Text: "room again", UserID: ann.ID}))
	if got := mustMessages(t, db, "lobby"); !slices.Equal(got, stored) {
		t.Errorf("%d messages are stored, %d were acknowledged", len(got), len(stored))
	}
	browser.set("essay", strings.Repeat("x", 32<<10))
}

// lock takes the write lock from outside, as a backup would, until the
// returned function is called.
func lock(t *testing.T, path string) (unlock func()) {
	t.Helper()
	other, err := sql.Open("sqlite", dsn(path, url.Values{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	other.SetMaxOpenConns(1)
	if _, err := other.ExecContext(t.Context(), `BEGIN EXCLUSIVE`); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if _, err := other.ExecContext(t.Context(), `ROLLBACK`); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	db := openPath(t, path)
	ann := mustUser(t, db, "ann")
	draft := app.Draft{Room: "lobby", Text: "hello", UserID: ann.ID}
	browser := newBrowser(t, db)
	browser.set("theme", "dark")
	unlock := lock(t, path)

	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := db.Post(ctx, draft)
		wantUnavailable(t, err, "Could not store the message", "in time")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error = %v, want it to be context.DeadlineExceeded too", err)
		}
	})

	// Not the five seconds: the driver gives up after 10 ms.
	if _, err := db.write.ExecContext(t.Context(), `PRAGMA busy_timeout = 10`); err != nil {
		t.Fatal(err)
	}
	t.Run("busy", func(t *testing.T) {
		_, err := db.Post(t.Context(), draft)
		wantUnavailable(t, err, "Could not store the message", "database is busy")
		_, err = db.UpsertUser(t.Context(), app.Profile{Provider: "test", Subject: "ben"})
		wantUnavailable(t, err, "Could not store your profile", "database is busy")
		wantUnavailable(t, db.CreateRoom(t.Context(), app.Room{Name: "tea"}), "Could not create the room", "database is busy")
		wantUnavailable(t, db.Ping(t.Context()), "database is busy")
		wantUnavailable(t, browser.trySet("theme", "light"), "Could not save your session", "database is busy")
		wantUnavailable(t, browser.tryLogout(), "Could not end your session", "database is busy")
	})
	t.Run("reads go on", func(t *testing.T) {
		if got := mustMessages(t, db, "lobby"); len(got) != 0 {
			t.Errorf("messages = %v, want none", got)
		}
		if got := browser.get("theme"); got != "dark" {
			t.Errorf("session value = %v, want dark", got)
		}
	})

	unlock()
	mustPost(t, db, draft)
	browser.set("theme", "light")
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("Ping after the lock is gone: %v", err)
	}
}

func TestCanceled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	db := openPath(t, path)
	ann := mustUser(t, db, "ann")
	unlock := lock(t, path)

	waiting, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	for _, ctx := range []context.Context{waiting, waiting} { // while it waits, and before
		_, err := db.Post(ctx, app.Draft{Room: "lobby", Text: "hello", UserID: ann.ID})
		if !errors.Is(err, context.Canceled) || app.CodeOf(err) != app.CodeInternal {
			t.Errorf("error = %v, want context.Canceled and no app.Error", err)
		}
	}
	if _, err := db.Messages(waiting, "lobby", 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}

	unlock()
	mustPost(t, db, app.Draft{Room: "lobby", Text: "hello", UserID: ann.ID})
}

func TestClosed(t *testing.T) {
	db := openTest(t)
	ann := mustUser(t, db, "ann")
	browser := newBrowser(t, db)
	browser.set("theme", "dark")
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("Ping of an open database: %v", err)
	}
	for range 2 {
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}

	ctx := t.Context()
	for name, call := range map[string]func() error{
		"Ping":       func() error { return db.Ping(ctx) },
		"UpsertUser": func() error { _, err := db.UpsertUser(ctx, app.Profile{Provider: "p", Subject: "s"}); return err },
		"User":       func() error { _, err := db.User(ctx, ann.ID); return err },
		"Rooms":      func() error { _, err := db.Rooms(ctx); return err },
		"Room":       func() error { _, err := db.Room(ctx, "lobby"); return err },
		"CreateRoom": func() error { return db.CreateRoom(ctx, app.Room{Name: "tea"}) },
		"Post":       func() error { _, err := db.Post(ctx, app.Draft{Room: "lobby", Text: "x", UserID: ann.ID}); return err },
		"Messages":   func() error { _, err := db.Messages(ctx, "lobby", 0, 1); return err },
		"end":        func() error { return db.Endings().Add(ctx, adapter.Ending{Kind: "user"}) },
		"ended":      func() error { _, err := db.Endings().All(ctx); return err },
		"load":       func() error { _, err := browser.load(); return err },
		"save":       func() error { return browser.trySet("theme", "light") },
		"logout":     browser.tryLogout,
	} {
		t.Run(name, func(t *testing.T) { wantUnavailable(t, call(), "server is stopping") })
	}
}
