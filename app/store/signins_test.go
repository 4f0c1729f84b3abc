package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// logIn saves a new session as adapter's Login does, and returns its handle.
func (b *browser) logIn(user, agent string) (handle string) {
	b.t.Helper()
	s, err := b.load()
	if err != nil {
		b.t.Fatal(err)
	}
	s.Values["usher.user"] = user
	s.Values["usher.provider"] = "github"
	s.Values["usher.at"] = strconv.FormatInt(time.Now().UnixNano(), 10)
	s.Values["usher.address"] = "192.0.2.1"
	s.Values["usher.agent"] = agent
	if err := b.save(s); err != nil {
		b.t.Fatal(err)
	}
	return adapter.SessionHandle(s.ID)
}

// signedIn returns where user is signed in.
func signedIn(t testing.TB, db *DB, user string, limit int) []adapter.StoredSession {
	t.Helper()
	all, err := db.Sessions(testKey).(adapter.SessionLister).UserSessions(t.Context(), user, limit)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func agents(all []adapter.StoredSession) (names []string) {
	for _, s := range all {
		names = append(names, s.Agent)
	}
	return names
}

func TestUserSessions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	synctest.Test(t, func(t *testing.T) {
		db := openPath(t, path)
		phone, laptop := newBrowser(t, db), newBrowser(t, db)
		newBrowser(t, db).set("theme", "dark") // nobody's
		newBrowser(t, db).logIn("ben", "Desk")
		began := time.Now()
		handle := phone.logIn("ada", "Phone")
		time.Sleep(time.Hour)
		laptop.logIn("ada", "Laptop")

		all := signedIn(t, db, "ada", 10)
		if got := agents(all); !slices.Equal(got, []string{"Laptop", "Phone"}) {
			t.Fatalf("ada is signed in at %v, want the laptop and the phone", got)
		}
		want := adapter.StoredSession{Handle: handle, UserID: "ada", Provider: "github", Address: "192.0.2.1", Agent: "Phone", Since: began, Used: began}
		if got := all[1]; !got.Since.Equal(want.Since) || !got.Used.Equal(want.Used.Truncate(time.Millisecond)) {
			t.Errorf("the phone is signed in since %v and was used %v, want %v", got.Since, got.Used, began)
		} else if got.Since, got.Used = want.Since, want.Used; got != want {
			t.Errorf("the phone is %+v, want %+v", got, want)
		}
		if got := agents(signedIn(t, db, "ada", 1)); !slices.Equal(got, []string{"Laptop"}) {
			t.Errorf("of one session ada has %v, want the one used last", got)
		}
		for _, nobody := range []string{"", "ann", "%"} {
			if got := signedIn(t, db, nobody, 10); len(got) != 0 {
				t.Errorf("%q is signed in at %+v", nobody, got)
			}
		}

		time.Sleep(defaultMaxAge - 30*time.Minute)
		if got := agents(signedIn(t, db, "ada", 10)); !slices.Equal(got, []string{"Laptop"}) {
			t.Errorf("after the phone's session has expired ada has %v", got)
		}
	})
}

// TestUseIsNoted: reading a session is a use, and does not write each time.
func TestUseIsNoted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	synctest.Test(t, func(t *testing.T) {
		db := openPath(t, path)
		b := newBrowser(t, db)
		b.logIn("ada", "Phone")
		used := func() time.Time {
			synctest.Wait() // for the goroutine that notes it
			return signedIn(t, db, "ada", 1)[0].Used
		}
		saved := used()
		time.Sleep(useEvery - time.Millisecond)
		b.get("theme")
		if got := used(); !got.Equal(saved) {
			t.Errorf("a use within a minute was noted, %v after the last", got.Sub(saved))
		}
		time.Sleep(time.Millisecond)
		b.get("theme")
		noted := used()
		if got := noted.Sub(saved); got != useEvery {
			t.Errorf("a use after a minute was noted %v after the last", got)
		}
		b.get("theme")
		if got := used(); !got.Equal(noted) {
			t.Errorf("the next use was noted too")
		}
		time.Sleep(time.Second)
		b.set("theme", "dark")
		if got := used().Sub(noted); got != time.Second {
			t.Errorf("a save was noted %v after the last use, want 1s", got)
		}
	})
}

// TestUseIsNotWaitedFor: a page is as fast as ever while somebody else holds the
// database, and what is not noted then does not end the session.
func TestUseIsNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	db := openPath(t, path)
	b := newBrowser(t, db)
	b.logIn("ada", "Phone")
	if _, err := db.write.ExecContext(t.Context(), `UPDATE sessions SET used = 0`); err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, path)
	for range maxUses + 10 { // more than may wait
		if s, err := b.load(); err != nil || s.IsNew {
			t.Fatalf("load = %+v, %v", s, err)
		}
	}
	unlock()
	b.set("theme", "dark")
}

func TestEndUserSession(t *testing.T) {
	db := openTest(t)
	b, other := newBrowser(t, db), newBrowser(t, db)
	handle := b.logIn("ada", "Phone")
	other.logIn("ada", "Laptop")
	newBrowser(t, db).set("theme", "dark")
	lister := db.Sessions(testKey).(adapter.SessionLister)
	for _, wrong := range [][2]string{{"ben", handle}, {"ada", "x"}, {"ada", ""}, {"", ""}, {"", handle}} {
		if found, err := lister.EndUserSession(t.Context(), wrong[0], wrong[1]); found || err != nil {
			t.Errorf("EndUserSession(%q) = %t, %v; want nothing found", wrong, found, err)
		}
	}
	if n := countSessions(t, db); n != 3 {
		t.Fatalf("%d sessions are stored, want 3", n)
	}
	late, err := b.load()
	if err != nil {
		t.Fatal(err)
	}
	if found, err := lister.EndUserSession(t.Context(), "ada", handle); !found || err != nil {
		t.Errorf("EndUserSession = %t, %v; want it found", found, err)
	}
	if err := b.save(late); !errors.Is(err, ErrSessionGone) {
		t.Errorf("save of the session that was ended: %v, want ErrSessionGone", err)
	}
	if got := agents(signedIn(t, db, "ada", 10)); !slices.Equal(got, []string{"Laptop"}) {
		t.Errorf("ada is signed in at %v, want the laptop", got)
	}
	_ = db.Close()
	_, err = lister.EndUserSession(t.Context(), "ada", handle)
	wantUnavailable(t, err)
	_, err = lister.UserSessions(t.Context(), "ada", 1)
	wantUnavailable(t, err)
}

// TestSessionsOfBeforeAreListed: sessions that were stored before the table knew
// whose they are stay what they were, and are listed from their next use on.
func TestSessionsOfBeforeAreListed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	old, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{`PRAGMA journal_mode = WAL`, migrations[0], `PRAGMA user_version = 1`} {
		if _, err := old.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	// As it was saved then, by a program of today into another database.
	b := newBrowser(t, openTest(t))
	handle := b.logIn("ada", "")
	data, _, err := b.store.(*sessionStore).db.loadSession(t.Context(), mustID(t, b))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.ExecContext(t.Context(), `INSERT INTO sessions (key, data, expires) VALUES (?, ?, ?)`,
		sessionKey(mustID(t, b)), data, time.Now().Add(time.Hour).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}

	db := openPath(t, path)
	b.store = db.Sessions(testKey)
	if all := signedIn(t, db, "ada", 10); len(all) != 0 {
		t.Errorf("before its use the session is listed: %+v", all)
	}
	if got := b.get("usher.user"); got != "ada" {
		t.Fatalf("the session of before is %v's, want ada's", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for again := time.NewTicker(time.Millisecond); ; {
		all := signedIn(t, db, "ada", 10)
		if len(all) == 1 && all[0].Handle == handle && time.Since(all[0].Used) < time.Minute {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("after its use the session is not listed: %s", fmt.Sprint(all))
		}
	}
}

// mustID returns the id in the browser's cookie.
func mustID(t testing.TB, b *browser) string {
	t.Helper()
	s, err := b.load()
	if err != nil || s.ID == "" {
		t.Fatalf("load = %+v, %v", s, err)
	}
	return s.ID
}
