package adapter_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// restart returns a server that has taken the place of the one of s: on the same
// store, and knowing what was written to path.
func restart(t *testing.T, s *adaptertest.Site, path string, store sessions.Store) *adaptertest.Site {
	t.Helper()
	if err := s.Server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	return adaptertest.NewSite(t, adapter.Config{Endings: openEndings(t, path), Logger: slog.New(slog.DiscardHandler)}, store, nil)
}

// wantNobody checks that a browser is nobody on pages and on sockets.
func wantNobody(t *testing.T, who string, b *adaptertest.Browser) {
	t.Helper()
	if status, body := b.Get("/me"); status != http.StatusUnauthorized {
		t.Errorf("GET /me of %s: %d %s, want 401", who, status, body)
	}
	if _, resp, err := b.TryDial(ws, nil); err == nil || resp == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a socket of %s: %v, want 401", who, err)
	}
}

// wantUser checks that a browser is somebody on pages and on sockets.
func wantUser(t *testing.T, user string, b *adaptertest.Browser) {
	t.Helper()
	if status, body := b.Get("/me"); status != http.StatusOK || body != user {
		t.Errorf("GET /me of %s: %d %s", user, status, body)
	}
	if f := b.Dial(ws).Call("me", nil); string(f.Data) != `"`+user+`"` {
		t.Errorf("me of %s = %s", user, f)
	}
}

// TestLogoutOutlivesARestart: a cookie cannot be deleted from whoever has a copy.
func TestLogoutOutlivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endings")
	store := newCookieStore(t)
	s := adaptertest.NewSite(t, adapter.Config{Endings: openEndings(t, path)}, store, func(s *adaptertest.Site) {
		s.Engine.POST("/clear", append(s.Server.HTTP(), func(c *gin.Context) {
			session := sessions.Default(c)
			session.Clear()
			if err := session.Save(); err != nil {
				t.Error(err)
			}
		})...)
	})
	ended := make(map[string]*adaptertest.Browser)
	for _, how := range []string{"/logout", "/clear", "/login?user=carol"} {
		alice := s.NewBrowser(t, "alice")
		ended["who has copied the cookie before "+how] = alice.Clone()
		alice.MustPost(how)
	}
	bob := s.NewBrowser(t, "bob")

	for range 2 {
		s = restart(t, s, path, store)
		for who, b := range ended {
			wantNobody(t, who, b.At(s))
		}
		wantUser(t, "bob", bob.At(s))
	}
}

func TestRevokeOutlivesARestart(t *testing.T) {
	for name, newStore := range map[string]func(*testing.T) sessions.Store{"memstore": newMemstore, "cookie": newCookieStore} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "endings")
			store := newStore(t)
			s := adaptertest.NewSite(t, adapter.Config{Endings: openEndings(t, path)}, store, nil)
			alice, bob, carol := s.NewBrowser(t, "alice"), s.NewBrowser(t, "bob"), s.NewBrowser(t, "carol")
			conn := carol.Dial(ws)
			found, err := s.Server.ToUser("carol").Sockets(t.Context())
			if err != nil || len(found) != 1 {
				t.Fatalf("carol has %v, %v", found, err)
			}
			for _, w := range []adapter.Who{adapter.ByUser("alice"), adapter.BySession(found[0].Identity.SessionID)} {
				if _, err := s.Server.Revoke(t.Context(), w); err != nil {
					t.Fatal(err)
				}
			}
			conn.Closed()
			again := alice.Clone()
			again.MustPost("/login?user=alice")

			s = restart(t, s, path, store)
			wantNobody(t, "alice, from before", alice.At(s))
			wantNobody(t, "carol", carol.At(s))
			wantUser(t, "alice", again.At(s))
			wantUser(t, "bob", bob.At(s))
			wantUser(t, "alice", s.NewBrowser(t, "alice"))
			if n, err := s.Server.Revoke(t.Context(), adapter.ByProvider("test")); err != nil || n == 0 {
				t.Errorf("Revoke of the provider = %d, %v", n, err)
			}

			s = restart(t, s, path, store)
			wantNobody(t, "bob", bob.At(s))
			wantNobody(t, "alice, from between", again.At(s))
			wantUser(t, "dave", s.NewBrowser(t, "dave"))
		})
	}
}

func TestRevokedTokenOutlivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endings")
	open := func() *tokenSite {
		return newTokenSite(t, adapter.Config{Credentials: everySource, Endings: openEndings(t, path)}, nil)
	}
	s := open()
	if _, err := s.Server.Revoke(t.Context(), adapter.ByToken("alice")); err != nil {
		t.Fatal(err)
	}
	if err := s.Server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := adaptertest.NewBrowser(t, open().URL)
	if _, resp, err := b.TryDial(ws+"?token=alice", nil); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the revoked token: %v, want 401", err)
	}
	b.Dial(ws + "?token=alice2")
}

// A stubbornStore cannot delete.
type stubbornStore struct{ sessions.Store }

var errStubborn = errors.New("connection reset")

func (s *stubbornStore) Save(r *http.Request, w http.ResponseWriter, session *gsessions.Session) error {
	if session.Options.MaxAge < 0 {
		return errStubborn
	}
	return s.Store.Save(r, w, session)
}

// TestAFailedDeletionOutlivesARestart: what the store still has is kept from
// coming back by what is written down.
func TestAFailedDeletionOutlivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endings")
	store := &stubbornStore{newMemstore(t)}
	s := adaptertest.NewSite(t, adapter.Config{Endings: openEndings(t, path)}, store, nil)
	alice := s.NewBrowser(t, "alice")
	thief := alice.Clone()
	if status, body := alice.Post("/logout", nil); status != http.StatusInternalServerError || !strings.Contains(body, errStubborn.Error()) {
		t.Errorf("POST /logout: %d %s, want the store's error", status, body)
	}
	switched := s.NewBrowser(t, "bob")
	before := switched.Clone()
	switched.MustPost("/login?user=carol")
	s = restart(t, s, path, store)
	wantNobody(t, "alice", thief.At(s))
	wantNobody(t, "bob, before the login", before.At(s))
	wantUser(t, "carol", switched.At(s))
}

// TestAStoreThatForgetsNeedsNoEndings: a logout costs no second write.
func TestAStoreThatForgetsNeedsNoEndings(t *testing.T) {
	kept := new(memoryEndings)
	s := adaptertest.NewSite(t, adapter.Config{Endings: kept}, newMemstore(t), nil)
	alice := s.NewBrowser(t, "alice")
	alice.MustPost("/login?user=bob")
	alice.MustPost("/logout")
	if all, _ := kept.All(t.Context()); len(all) > 0 {
		t.Errorf("%d endings were written, want none", len(all))
	}
}

// memoryEndings keeps endings in memory, and fails or hangs when it is told to.
type memoryEndings struct {
	mu    sync.Mutex
	of    []adapter.Ending
	err   error
	hangs bool
	calls int
}

func (e *memoryEndings) Add(ctx context.Context, endings ...adapter.Ending) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls++
	if e.hangs {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if e.err == nil {
		e.of = append(e.of, endings...)
	}
	return e.err
}

func (e *memoryEndings) All(context.Context) ([]adapter.Ending, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.of), e.err
}

func (e *memoryEndings) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

func (e *memoryEndings) hang(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hangs = on
}

var errFull = errors.New("no space left on device")

// TestEndingsThatFail: Logout and Revoke say so, and have happened all the same.
func TestEndingsThatFail(t *testing.T) {
	kept, book := new(memoryEndings), new(logBook)
	s := adaptertest.NewSite(t, adapter.Config{Endings: kept, Logger: slog.New(book)}, newCookieStore(t), nil)
	alice, bob := s.NewBrowser(t, "alice"), s.NewBrowser(t, "bob")
	thief := alice.Clone()
	conn, bobs := alice.Dial(ws), bob.Dial(ws)
	kept.fail(errFull)

	if status, body := alice.Post("/logout", nil); status != http.StatusInternalServerError || !strings.Contains(body, errFull.Error()) {
		t.Errorf("POST /logout: %d %s, want the error of Endings", status, body)
	}
	if code := conn.Closed(); code != 4409 {
		t.Errorf("closed with %d, want 4409", code)
	}
	wantNobody(t, "alice", alice)
	wantNobody(t, "the old cookie", thief)
	if n, err := s.Server.Revoke(t.Context(), adapter.ByUser("bob")); n != 1 || !errors.Is(err, errFull) {
		t.Errorf("Revoke = %d, %v; want 1 and the error of Endings", n, err)
	}
	if code := bobs.Closed(); code != 4409 {
		t.Errorf("closed with %d, want 4409", code)
	}
	wantNobody(t, "bob", bob)
	alice.MustPost("/login?user=alice") // a login is none of their business
	alice.MustPost("/login?user=carol")
	if n := book.count("cannot be written down"); n != 1 {
		t.Errorf("logged %d times that it cannot be written, want once: %q", n, book.lines)
	}

	kept.fail(nil)
	if err := s.Server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := adaptertest.NewSite(t, adapter.Config{Endings: kept}, newCookieStore(t), nil)
	wantNobody(t, "alice, whose logout was written at last", thief.At(after))
	wantNobody(t, "bob", bob.At(after))
	wantUser(t, "carol", alice.At(after))

	kept.fail(errFull)
	if _, err := adapter.New(adapter.Config{Endings: kept}); !errors.Is(err, errFull) {
		t.Errorf("New with endings that cannot be read = %v", err)
	}
}

// TestEndingsAreTriedAgain is in virtual time.
func TestEndingsAreTriedAgain(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	synctest.Test(t, func(t *testing.T) {
		kept, book := new(memoryEndings), new(logBook)
		srv := startBare(t, adapter.Config{Endings: kept, Logger: slog.New(book)}, nil)
		kept.fail(errFull)
		if _, err := srv.Revoke(t.Context(), adapter.ByUser("ann")); !errors.Is(err, errFull) {
			t.Errorf("Revoke = %v", err)
		}
		time.Sleep(time.Minute)
		kept.mu.Lock()
		calls := kept.calls
		kept.mu.Unlock()
		if calls < 5 || calls > 8 {
			t.Errorf("tried %d times in a minute", calls)
		}
		kept.fail(nil)
		time.Sleep(11 * time.Second)
		if all, _ := kept.All(t.Context()); len(all) != 1 || all[0].Kind != "user" {
			t.Errorf("in the end: %v", all)
		}
		if a, b := book.count("cannot be written down"), book.count("written down again"); a != 1 || b != 1 {
			t.Errorf("logged %d and %d times, want once each: %q", a, b, book.lines)
		}

		// A database that hangs holds nobody up for long, nor does a caller who
		// has gone keep it from being written.
		kept.hang(true)
		began := time.Now()
		if _, err := srv.Revoke(t.Context(), adapter.ByUser("bob")); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("Revoke = %v after %v, want a timeout after 5s", err, time.Since(began))
		}
		kept.hang(false)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := srv.Revoke(gone, adapter.ByUser("carol")); err != nil {
			t.Errorf("Revoke for who has gone = %v", err)
		}
	})
}

// TestForgetfulServersSaySo: once, and where it can be known at the start.
func TestForgetfulServersSaySo(t *testing.T) {
	const warning = "remembered by this process only"
	path := filepath.Join(t.TempDir(), "endings")
	for _, tt := range []struct {
		name           string
		store          sessions.Store
		endings        adapter.Endings
		mounted, saved int // warnings after Mount, and after a session was saved
	}{
		{"cookie", newCookieStore(t), nil, 1, 1},
		{"cookie, hidden", &stubbornStore{newCookieStore(t)}, nil, 0, 1},
		{"cookie with endings", newCookieStore(t), openEndings(t, path), 0, 0},
		{"memstore", newMemstore(t), nil, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			book := new(logBook)
			s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(book), Endings: tt.endings}, tt.store, nil)
			if n := book.count(warning); n != tt.mounted {
				t.Errorf("%d warnings after Mount, want %d", n, tt.mounted)
			}
			for range 2 {
				s.NewBrowser(t, "ann")
			}
			if n := book.count(warning); n != tt.saved {
				t.Errorf("%d warnings after logins, want %d", n, tt.saved)
			}
		})
	}
}

// TestOddEndings: what comes from a file or a database is input.
func TestOddEndings(t *testing.T) {
	now := time.Now()
	long := now.Add(1000 * 24 * time.Hour)
	of := func(kind string, at, until time.Time) adapter.Ending {
		return adapter.Ending{Kind: kind, Hash: adapter.HashOf("user", "alice"), At: at, Until: until}
	}
	for name, e := range map[string]adapter.Ending{
		"of no kind": of("", now, long), "of another kind": of("planet", now, long), "over": of("user", now, now),
		"from the end of time": of("user", time.Unix(1<<60, 0), long), "from the beginning": of("user", time.Time{}, long),
	} {
		kept := &memoryEndings{of: []adapter.Ending{e}}
		s := adaptertest.NewSite(t, adapter.Config{Endings: kept}, newMemstore(t), nil)
		alice := s.NewBrowser(t, "alice")
		wantUser(t, "alice", alice)
		if _, err := s.Server.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantNobody(t, "alice, with an ending "+name, alice)
		wantUser(t, "alice", s.NewBrowser(t, "alice"))
	}
}

// TestClockThatIsSetBack: an Ending of a process whose clock was ahead, as that
// of a virtual machine may be.
func TestClockThatIsSetBack(t *testing.T) {
	kept := &memoryEndings{of: []adapter.Ending{{
		Kind: "user", Hash: adapter.HashOf("user", "alice"), At: time.Now().Add(30 * time.Minute), Until: time.Now().Add(time.Hour),
	}}}
	s := adaptertest.NewSite(t, adapter.Config{Endings: kept}, newMemstore(t), nil)
	alice := s.NewBrowser(t, "alice")
	wantUser(t, "alice", alice)
	if _, err := s.Server.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	wantNobody(t, "alice", alice)
	wantUser(t, "alice", s.NewBrowser(t, "alice"))
}

// A mineEndings panics the second time.
type mineEndings struct{ memoryEndings }

func (e *mineEndings) Add(ctx context.Context, endings ...adapter.Ending) error {
	if e.count() == 1 {
		e.fail(nil)
		_ = e.memoryEndings.Add(ctx)
		panic("no connection")
	}
	return e.memoryEndings.Add(ctx, endings...)
}

func (e *memoryEndings) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls
}

// TestEndingsThatPanic: what is written later is written by a task of the server's,
// where nobody else recovers. It counts as not written, and is tried again.
func TestEndingsThatPanic(t *testing.T) {
	kept, book := new(mineEndings), new(logBook)
	inBubble(t, adapter.Config{Endings: kept, Logger: slog.New(book)}, nil, func(t *testing.T, b *bubble) {
		kept.fail(errFull)
		if _, err := b.srv.Revoke(t.Context(), adapter.ByUser("alice")); !errors.Is(err, errFull) {
			t.Errorf("Revoke: %v, want %v", err, errFull)
		}
		time.Sleep(time.Minute)
		all, err := kept.All(t.Context())
		if len(all) != 1 || err != nil || kept.count() != 3 {
			t.Errorf("%d endings after %d tries, %v; want one after three", len(all), kept.count(), err)
		}
		if book.count("panic") == 0 {
			t.Error("the panic is not logged")
		}
	})
}
