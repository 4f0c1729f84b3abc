package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/securecookie"
	gorilla "github.com/gorilla/sessions"
)

var testKey = []byte("0123456789abcdef0123456789abcdef")

// browser keeps one cookie, "sid", and has a session of its own per request.
type browser struct {
	t      testing.TB
	store  sessions.Store
	cookie *http.Cookie
}

func newBrowser(t testing.TB, db *DB) *browser {
	return &browser{t: t, store: db.Sessions(testKey)}
}

func (b *browser) request() *http.Request {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
	if b.cookie != nil {
		r.AddCookie(b.cookie)
	}
	return r
}

// load returns the session as a new request sees it.
func (b *browser) load() (*gorilla.Session, error) { return b.store.New(b.request(), "sid") }

// save saves a session and keeps the cookie of the response.
func (b *browser) save(s *gorilla.Session) error {
	w := httptest.NewRecorder()
	err := b.store.Save(b.request(), w, s)
	cookies := w.Result().Cookies()
	if err != nil {
		if len(cookies) != 0 {
			b.t.Errorf("a failed save set the cookie %v", cookies)
		}
		return err
	}
	if len(cookies) != 1 {
		b.t.Fatalf("save set the cookies %v, want one", cookies)
	}
	b.cookie = cookies[0]
	return nil
}

func (b *browser) trySet(key, value string) error {
	s, err := b.load()
	if err != nil {
		return err
	}
	s.Values[key] = value
	return b.save(s)
}

func (b *browser) set(key, value string) {
	b.t.Helper()
	if err := b.trySet(key, value); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) get(key string) any {
	b.t.Helper()
	s, err := b.load()
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Values[key]
}

func (b *browser) tryLogout() error {
	s, err := b.load()
	if err != nil {
		return err
	}
	s.Options.MaxAge = -1
	return b.save(s)
}

func countSessions(t testing.TB, db *DB) (n int) {
	t.Helper()
	if err := db.read.QueryRowContext(t.Context(), `SELECT count(*) FROM sessions`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSessionBehindGin(t *testing.T) {
	db := openTest(t)
	gin.SetMode(gin.TestMode)
	r := gin.New()
	store := db.Sessions(testKey)
	store.Options(sessions.Options{Path: "/", MaxAge: 3600, HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode})
	r.Use(sessions.Sessions("sid", store))
	r.GET("/count", func(c *gin.Context) {
		s := sessions.Default(c)
		n, _ := s.Get("n").(int)
		s.Set("n", n+1)
		if err := s.Save(); err != nil {
			t.Error(err)
		}
		if sessions.Default(c).ID() == "" {
			t.Error("a saved session has no id")
		}
		c.String(http.StatusOK, "%d", n)
	})

	var cookie *http.Cookie
	for want := range 3 {
		req := httptest.NewRequest(http.MethodGet, "/count", nil)
		if cookie != nil {
			req.AddCookie(cookie)
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Body.String() != fmt.Sprint(want) {
			t.Errorf("visit %d counted %s", want, w.Body)
		}
		cookie = w.Result().Cookies()[0]
	}
	if cookie.Path != "/" || cookie.MaxAge != 3600 || !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie = %v", cookie)
	}
	if n := countSessions(t, db); n != 1 {
		t.Errorf("%d sessions are stored, want 1", n)
	}
}

func TestSessionDefaultCookie(t *testing.T) {
	b := newBrowser(t, openTest(t))
	b.set("theme", "dark")
	c := b.cookie
	if c.Path != "/" || c.MaxAge != 30*24*3600 || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteLaxMode {
		t.Errorf("cookie = %v", c)
	}
}

func TestSessionReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	db := openPath(t, path)
	b := newBrowser(t, db)
	b.set("theme", "dark")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b.store = openPath(t, path).Sessions(testKey)
	if got := b.get("theme"); got != "dark" {
		t.Errorf("after a restart the session holds %v, want dark", got)
	}
}

func TestSessionIDIsNotStored(t *testing.T) {
	db := openTest(t)
	b := newBrowser(t, db)
	b.set("theme", "dark")
	s, err := b.load()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.ID) < 43 { // 256 bits in base64
		t.Errorf("id %q can be guessed", s.ID)
	}
	var key, data []byte
	if err := db.read.QueryRowContext(t.Context(), `SELECT key, data FROM sessions`).Scan(&key, &data); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(key, []byte(s.ID)) || bytes.Contains(data, []byte(s.ID)) {
		t.Error("who reads the database can log in with the id in it")
	}
}

func TestSessionNew(t *testing.T) {
	db := openTest(t)
	known := newBrowser(t, db)
	known.set("theme", "dark")
	value := known.cookie.Value
	sign := func(key []byte, id string) string {
		t.Helper()
		v, err := securecookie.EncodeMulti("sid", id, securecookie.CodecsFromPairs(key)...)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct {
		name   string
		cookie string
		forged bool
	}{
		{"no cookie", "", false},
		{"unknown id", sign(testKey, "nobody"), false},
		{"empty id", sign(testKey, ""), false},
		{"garbage", "garbage", true},
		{"other key", sign([]byte("another key"), "nobody"), true},
		{"changed", "A" + value[1:], true},
		{"cut", value[:len(value)-4], true},
		{"too long", strings.Repeat("A", 8192), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBrowser(t, db)
			if tt.cookie != "" {
				b.cookie = &http.Cookie{Name: "sid", Value: tt.cookie}
			}
			for name, load := range map[string]func(*http.Request, string) (*gorilla.Session, error){"New": b.store.New, "Get": b.store.Get} {
				s, err := load(b.request(), "sid")
				if s == nil || s.ID != "" || !s.IsNew || len(s.Values) != 0 || s.Name() != "sid" {
					t.Fatalf("%s = %+v, want a new session", name, s)
				}
				decode, ok := errors.AsType[securecookie.Error](err)
				if tt.forged != (ok && decode.IsDecode()) || !tt.forged && err != nil {
					t.Errorf("%s: %v, want a forged cookie: %t", name, err, tt.forged)
				}
			}
		})
	}
}

// The values of an older program, of a type that is gone.
func TestSessionUnreadable(t *testing.T) {
	db := openTest(t)
	b := newBrowser(t, db)
	b.set("theme", "dark")
	if _, err := db.write.ExecContext(t.Context(), `UPDATE sessions SET data = x'0102'`); err != nil {
		t.Fatal(err)
	}
	s, err := b.load()
	if decode, ok := errors.AsType[securecookie.Error](err); !ok || !decode.IsDecode() {
		t.Errorf("error = %v, want a securecookie error", err)
	}
	if s.ID != "" || !s.IsNew || len(s.Values) != 0 {
		t.Errorf("session = %+v, want a new one", s)
	}
}

func TestSessionKeyRotation(t *testing.T) {
	db := openTest(t)
	b := newBrowser(t, db)
	b.set("theme", "dark")
	newKey := bytes.Repeat([]byte("k"), 32)
	b.store = db.Sessions(newKey, nil, testKey, nil)
	b.set("size", "big")
	b.store = db.Sessions(newKey)
	if theme, size := b.get("theme"), b.get("size"); theme != "dark" || size != "big" {
		t.Errorf("after two rotations the session holds %v and %v", theme, size)
	}
}

func TestSessionLogout(t *testing.T) {
	db := openTest(t)
	b := newBrowser(t, db)
	b.set("user", "ann")
	stolen := *b
	if err := b.tryLogout(); err != nil {
		t.Fatal(err)
	}
	if b.cookie.MaxAge >= 0 || b.cookie.Value != "" || b.cookie.Path != "/" {
		t.Errorf("cookie = %v, want one that deletes", b.cookie)
	}
	if got := stolen.get("user"); got != nil {
		t.Errorf("the old cookie is still %v", got)
	}
	if n := countSessions(t, db); n != 0 {
		t.Errorf("%d sessions are stored, want none", n)
	}

	// A session that was never saved has nothing but its cookie to delete.
	fresh := newBrowser(t, db)
	if err := fresh.tryLogout(); err != nil || fresh.cookie.MaxAge >= 0 {
		t.Errorf("logout of nobody: %v, cookie %v", err, fresh.cookie)
	}
}

// A request that loaded the session before a logout and saves after it.
func TestSessionLateSave(t *testing.T) {
	db := openTest(t)
	b := newBrowser(t, db)
	b.set("user", "ann")
	late, err := b.load()
	if err != nil {
		t.Fatal(err)
	}
	stolen := *b
	if err := b.tryLogout(); err != nil {
		t.Fatal(err)
	}

	late.Values["cart"] = "tea"
	if err := stolen.save(late); !errors.Is(err, ErrSessionGone) {
		t.Errorf("late save: %v, want ErrSessionGone", err)
	}
	if got := stolen.get("user"); got != nil {
		t.Errorf("the late save brought %v back", got)
	}
	if n := countSessions(t, db); n != 0 {
		t.Errorf("%d sessions are stored, want none", n)
	}
}

// Delete, forget the id, save: how a login changes the session's id.
func TestSessionNewID(t *testing.T) {
	db := openTest(t)
	b := newBrowser(t, db)
	b.set("theme", "dark")
	planted := *b

	s, err := b.load()
	if err != nil {
		t.Fatal(err)
	}
	oldID, maxAge := s.ID, s.Options.MaxAge
	s.Options.MaxAge = -1
	if err := b.save(s); err != nil {
		t.Fatal(err)
	}
	s.ID, s.IsNew, s.Options.MaxAge = "", true, maxAge
	s.Values["user"] = "ben"
	if err := b.save(s); err != nil {
		t.Fatal(err)
	}
	if s.ID == "" || s.ID == oldID {
		t.Errorf("id = %q, was %q", s.ID, oldID)
	}
	if got := b.get("user"); got != "ben" {
		t.Errorf("the new cookie is %v, want ben", got)
	}
	if got := planted.get("user"); got != nil {
		t.Errorf("the cookie from before the login is %v", got)
	}
}

func TestSessionTooLarge(t *testing.T) {
	b := newBrowser(t, openTest(t))
	b.set("theme", "dark")
	err := b.trySet("essay", strings.Repeat("x", MaxSession))
	if !errors.Is(err, ErrSessionTooLarge) || !strings.Contains(err.Error(), fmt.Sprint(MaxSession)) {
		t.Errorf("save: %v, want ErrSessionTooLarge and the limit", err)
	}
	if got := b.get("theme"); got != "dark" {
		t.Errorf("session holds %v, want what was stored before", got)
	}
	b.set("essay", strings.Repeat("x", MaxSession-1024))
}

func TestSessionUnencodable(t *testing.T) {
	db := openTest(t)
	b := newBrowser(t, db)
	s, err := b.load()
	if err != nil {
		t.Fatal(err)
	}
	s.Values["f"] = func() {}
	if err := b.save(s); err == nil {
		t.Error("a function was saved")
	}
	if s.ID != "" || countSessions(t, db) != 0 {
		t.Error("a failed save left a session")
	}
}

func TestSessionWithoutKeys(t *testing.T) {
	db := openTest(t)
	b := &browser{t: t, store: db.Sessions()}
	if err := b.trySet("theme", "dark"); err == nil {
		t.Error("a cookie without a signature was set")
	}
	if n := countSessions(t, db); n != 0 {
		t.Errorf("%d sessions are stored, want none", n)
	}
}

func TestSessionExpiry(t *testing.T) {
	const day = 24 * time.Hour
	path := filepath.Join(t.TempDir(), "usher.db")
	synctest.Test(t, func(t *testing.T) {
		db := openPath(t, path)
		b := newBrowser(t, db)
		b.set("theme", "dark")
		late, err := b.load()
		if err != nil {
			t.Fatal(err)
		}

		time.Sleep(29 * day)
		b.set("size", "big") // rolling: thirty more days
		time.Sleep(29 * day)
		if theme, size := b.get("theme"), b.get("size"); theme != "dark" || size != "big" {
			t.Errorf("a session in use holds %v and %v", theme, size)
		}

		time.Sleep(day - time.Millisecond)
		if s, err := b.load(); err != nil || s.IsNew {
			t.Errorf("load just before the expiry = %+v, %v", s, err)
		}
		time.Sleep(time.Millisecond)
		if s, err := b.load(); err != nil || !s.IsNew || s.ID != "" {
			t.Errorf("load of an expired session = %+v, %v; want a new one", s, err)
		}
		stolen := *b
		if err := stolen.save(late); !errors.Is(err, ErrSessionGone) {
			t.Errorf("save of an expired session: %v, want ErrSessionGone", err)
		}

		time.Sleep(purgeEvery + time.Second)
		if n := countSessions(t, db); n != 0 {
			t.Errorf("%d expired sessions are stored after a purge", n)
		}
	})
}

func TestSessionEndsWithBrowser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, openPath(t, path))
		b.store.Options(sessions.Options{Path: "/"})
		b.set("theme", "dark")
		if b.cookie.MaxAge != 0 || !b.cookie.Expires.IsZero() {
			t.Errorf("cookie = %v, want one that ends with the browser", b.cookie)
		}
		time.Sleep(browserSession - time.Second)
		if got := b.get("theme"); got != "dark" {
			t.Errorf("session holds %v, want dark", got)
		}
		time.Sleep(time.Second)
		if got := b.get("theme"); got != nil {
			t.Errorf("an expired session holds %v", got)
		}
	})
}

func TestPurgeKeepsTheLiving(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	synctest.Test(t, func(t *testing.T) {
		db := openPath(t, path)
		living := newBrowser(t, db)
		living.set("theme", "dark")
		if err := db.inTx(t.Context(), "fill", func(tx *sql.Tx) error {
			for i := range 2*purgeBatch + 1 {
				if _, err := tx.ExecContext(t.Context(), `INSERT INTO sessions (key, data, expires) VALUES (?, x'', ?)`,
					sessionKey(fmt.Sprint(i)), time.Now().UnixMilli()); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(purgeEvery)
		synctest.Wait() // the purge waits for its next tick
		if n := countSessions(t, db); n != 1 {
			t.Errorf("%d sessions are left, want the living one", n)
		}
		if got := living.get("theme"); got != "dark" {
			t.Errorf("the living session holds %v, want dark", got)
		}
	})
}

func TestSessionsAtTheSameTime(t *testing.T) {
	db := openTest(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			b := newBrowser(t, db)
			for j := range 10 {
				want := fmt.Sprint(i, j)
				if err := b.trySet("n", want); err != nil {
					t.Error(err)
					return
				}
				if s, err := b.load(); err != nil || s.Values["n"] != want {
					t.Errorf("load = %v, %v; want %s", s, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := countSessions(t, db); n != 8 {
		t.Errorf("%d sessions are stored, want 8", n)
	}
}
