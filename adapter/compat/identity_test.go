package compat

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	scsmemory "github.com/alexedwards/scs/v2/memstore"
	"github.com/gin-contrib/sessions"
	gormsessions "github.com/gin-contrib/sessions/gorm"
	"github.com/gin-gonic/gin"
	"github.com/glebarez/sqlite"
	gsessions "github.com/gorilla/sessions"
	ginadapter "github.com/gwatts/gin-adapter"
	"gorm.io/gorm"
	gormlogger "gorm.io/gorm/logger"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// The suite about identity over time, on stores with a database.

func TestIdentityOverTimeRedis(t *testing.T) {
	t.Parallel()
	shared := startRedis(t, false)
	adaptertest.Identity(t, adaptertest.Subject{
		Open: func(_ *testing.T, life time.Duration) adaptertest.Logins {
			return adaptertest.Stored(shared.sessions(life))
		},
		Mortal: func(t *testing.T) (l adaptertest.Logins, down, up func()) {
			own := startRedis(t, true)
			return adaptertest.Stored(own.sessions(time.Hour)), own.down, own.up
		},
	})
}

func TestIdentityOverTimeGorm(t *testing.T) {
	t.Parallel()
	adaptertest.Identity(t, adaptertest.Subject{
		Open: func(t *testing.T, life time.Duration) adaptertest.Logins {
			return adaptertest.Stored(lasting(openGorm(t), life))
		},
		Mortal: func(t *testing.T) (l adaptertest.Logins, down, up func()) {
			st := openGorm(t)
			return adaptertest.Stored(lasting(st, time.Hour)), st.db.close, func() { st.db.open(t) }
		},
	})
}

func TestIdentityOverTimeFilesystem(t *testing.T) {
	t.Parallel()
	adaptertest.Identity(t, adaptertest.Subject{
		Open: func(t *testing.T, life time.Duration) adaptertest.Logins {
			return adaptertest.Stored(lasting(newFiles(t), life))
		},
		Mortal: func(t *testing.T) (l adaptertest.Logins, down, up func()) {
			st := newFiles(t)
			return adaptertest.Stored(lasting(st, time.Hour)), func() { st.away(t) }, func() { st.back(t) }
		},
	})
}

func TestIdentityOverTimeSCS(t *testing.T) { testSCS(t, false) }

// TestIdentityOverTimeSCSAlone is for a store that is not wrapped: what happens
// to its sessions is found at the next replay.
func TestIdentityOverTimeSCSAlone(t *testing.T) { testSCS(t, true) }

func testSCS(t *testing.T, alone bool) {
	t.Parallel()
	adaptertest.Identity(t, adaptertest.Subject{
		Open: func(_ *testing.T, life time.Duration) adaptertest.Logins {
			l, _ := newSCS(life)
			if l.alone = alone; !alone {
				// What uses it extends it. Alone, replays would. The cookie is the
				// browser's to forget, which polls do not show any more then.
				l.Lifetime, l.IdleTimeout, l.Cookie.Persist = 2*time.Hour, life, false
			}
			return l
		},
		Mortal: func(*testing.T) (l adaptertest.Logins, down, up func()) {
			logins, store := newSCS(time.Hour)
			logins.alone = alone
			return logins, func() { store.dead.Store(true) }, func() { store.dead.Store(false) }
		},
		AtInterval: alone, Foreign: true,
	})
}

// TestRedisThatHangs: a server that is frozen does not end sockets at once, nor
// lets them be for ever. Stores as apps make them have no timeouts: their
// handshakes wait as pages do. With timeouts they get 503.
func TestRedisThatHangs(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*redisServer, time.Duration) sessions.Store{
		"without timeouts": (*redisServer).sessions, "with timeouts": (*redisServer).impatient,
	} {
		for _, tr := range adaptertest.Transports {
			t.Run(name+", "+string(tr), func(t *testing.T) {
				t.Parallel()
				own := startRedis(t, false)
				cfg := adapter.Config{Revalidate: time.Second / 2, MaxStale: 2 * time.Second, Logger: slog.New(slog.DiscardHandler)}
				gone := make(chan adapter.Reason, 1)
				s := adaptertest.NewSite(t, cfg, open(own, time.Hour), func(s *adaptertest.Site) {
					s.Server.OnDisconnect(func(_ *adapter.Socket, reason adapter.Reason) { gone <- reason })
				})
				t.Cleanup(own.down) // so that what hangs ends before the site does
				alice, way := s.NewBrowser(t, "alice"), adaptertest.Way{Transport: tr}
				c := alice.Connect(way)
				own.stop()
				from := time.Now()
				if name == "with timeouts" {
					if _, refusal := alice.TryConnect(way); refusal == nil || refusal.Status != http.StatusServiceUnavailable {
						t.Errorf("a handshake: %+v, want 503", refusal)
					}
				}
				var me string
				if c.Must("me", nil, &me); me != "alice" {
					t.Errorf("me = %q, want alice", me)
				}
				select {
				case reason := <-gone:
					if reason != adapter.ReasonStale {
						t.Errorf("the socket ended for %q", reason)
					}
				case <-time.After(patience):
					t.Fatalf("the socket is open %v after the store", patience)
				}
				if took := time.Since(from); took < cfg.MaxStale {
					t.Errorf("the socket ended after %v, want MaxStale", took)
				}
				if code := c.End().Code; code != 1013 && tr != adaptertest.Polling {
					t.Errorf("closed with %d, want 1013", code)
				}
			})
		}
	}
}

// A database is one that can be closed and opened again under a gorm.DB.
type database struct {
	path string
	now  atomic.Pointer[sql.DB]
}

func (d *database) open(t testing.TB) {
	t.Helper()
	db, err := sql.Open(sqlite.DriverName, d.path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	d.now.Store(db)
}

func (d *database) close() { _ = d.now.Load().Close() }

func (d *database) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return d.now.Load().PrepareContext(ctx, query)
}

func (d *database) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return d.now.Load().ExecContext(ctx, query, args...)
}

func (d *database) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return d.now.Load().QueryContext(ctx, query, args...)
}

func (d *database) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return d.now.Load().QueryRowContext(ctx, query, args...)
}

// A gormStore is gin-contrib's with what it lacks: it says whether its database
// answers, and is used for one session at a time.
type gormStore struct {
	oneByOne
	db *database
}

func (g *gormStore) Ping(ctx context.Context) error { return g.db.now.Load().PingContext(ctx) }

func openGorm(t *testing.T) *gormStore {
	t.Helper()
	d := &database{path: filepath.Join(t.TempDir(), "sessions.db")}
	d.open(t)
	t.Cleanup(d.close)
	db, err := gorm.Open(&sqlite.Dialector{Conn: d}, &gorm.Config{Logger: gormlogger.Discard, SkipDefaultTransaction: true})
	if err != nil {
		t.Fatal(err)
	}
	return &gormStore{oneByOne{Store: gormsessions.NewStore(db, false, []byte(key))}, d}
}

// files is gorilla's store of files as gin-contrib has it after this version.
type files struct {
	*gsessions.FilesystemStore
	dir string
}

func newFiles(t *testing.T) *files {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sessions")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &files{gsessions.NewFilesystemStore(dir, []byte(key)), dir}
}

func (f *files) Options(o sessions.Options) { f.FilesystemStore.Options = o.ToGorillaOptions() }

// away takes the directory away. A file is in its place: what is not there at all
// would be sessions that are not there.
func (f *files) away(t testing.TB) {
	t.Helper()
	if err := errors.Join(os.Rename(f.dir, f.dir+".away"), os.WriteFile(f.dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (f *files) back(t testing.TB) {
	t.Helper()
	if err := errors.Join(os.Remove(f.dir), os.Rename(f.dir+".away", f.dir)); err != nil {
		t.Fatal(err)
	}
}

// scsLogins are sessions of alexedwards/scs, which keeps a user in "user".
type scsLogins struct {
	*scs.SessionManager
	alone bool // the server is told nothing of these sessions
}

func newSCS(life time.Duration) (*scsLogins, *mortalSCS) {
	m := scs.New()
	store := &mortalSCS{Store: scsmemory.NewWithCleanupInterval(0)}
	m.Store, m.Lifetime = store, life
	m.ErrorFunc = func(w http.ResponseWriter, _ *http.Request, _ error) {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
	}
	return &scsLogins{SessionManager: m}, store
}

func (l *scsLogins) Use(srv *adapter.Server) {
	if !l.alone {
		l.Store = srv.TokenStore(l.Store)
	}
	srv.Use(ginadapter.Wrap(l.LoadAndSave))
}

func (l *scsLogins) LoggedIn(c *gin.Context) (adapter.Identity, bool) {
	ctx := c.Request.Context()
	user := l.GetString(ctx, "user")
	return adapter.Identity{UserID: user, SessionID: l.Token(ctx), Provider: "test"}, user != ""
}

func (l *scsLogins) Login(c *gin.Context, user string) error {
	ctx := c.Request.Context()
	if err := l.RenewToken(ctx); err != nil {
		return err
	}
	l.Put(ctx, "user", user)
	return nil
}

func (l *scsLogins) Logout(c *gin.Context) error { return l.Destroy(c.Request.Context()) }

func (l *scsLogins) Clear(c *gin.Context) error {
	return l.SessionManager.Clear(c.Request.Context())
}

func (l *scsLogins) Get(c *gin.Context, key string) string {
	return l.GetString(c.Request.Context(), key)
}

func (l *scsLogins) Set(c *gin.Context, key, value string) error {
	l.Put(c.Request.Context(), key, value)
	return nil
}

// A mortalSCS is a store of scs that can be taken away.
type mortalSCS struct {
	scs.Store
	dead atomic.Bool
}

var errAway = errors.New("connection refused")

func (m *mortalSCS) Find(token string) ([]byte, bool, error) {
	if m.dead.Load() {
		return nil, false, errAway
	}
	return m.Store.Find(token)
}

func (m *mortalSCS) Commit(token string, b []byte, expiry time.Time) error {
	if m.dead.Load() {
		return errAway
	}
	return m.Store.Commit(token, b, expiry)
}

func (m *mortalSCS) Delete(token string) error {
	if m.dead.Load() {
		return errAway
	}
	return m.Store.Delete(token)
}

// TestLogoutWithAClosedDatabase: gormstore says of a session that it could not
// look for that it is deleted.
func TestLogoutWithAClosedDatabase(t *testing.T) {
	t.Parallel()
	store := openGorm(t)
	said := make(chan error, 1)
	s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, lasting(store, time.Hour), func(s *adaptertest.Site) {
		s.Engine.POST("/dying-logout", append(s.Server.HTTP(), func(c *gin.Context) {
			store.db.close()
			said <- s.Server.Logout(c)
			store.db.open(t)
		})...)
	})
	alice := s.NewBrowser(t, "alice")
	thief := alice.Clone()
	alice.Post("/dying-logout", nil)
	if err := <-said; err == nil {
		t.Error("Logout says nothing of the closed database")
	}
	if status, user := thief.Get("/me"); status != http.StatusUnauthorized {
		t.Errorf("GET /me with the old cookie: %d %s, want 401", status, user)
	}
}
