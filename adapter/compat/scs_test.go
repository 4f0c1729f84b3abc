package compat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
	ginadapter "github.com/gwatts/gin-adapter"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/adapter/backplane"
	"github.com/gin-usher/usher/adapter/compat/recipes"
)

// Sessions of alexedwards/scs under Server.TokenStore: what a login, a logout and
// a store that is down mean for sockets.

// A tokenDB is the store behind Server.TokenStore. It can be down, and counts.
type tokenDB struct {
	*memstore.MemStore
	down    atomic.Bool
	broken  atomic.Bool   // for what is to be deleted
	expiry  atomic.Int64  // of the last commit, in Unix nanoseconds
	finds   chan struct{} // receives of every look while it is down, if somebody waits
	commits atomic.Int64
	writing atomic.Pointer[adaptertest.Gate] // where commits wait, if there is one
	reading atomic.Pointer[adaptertest.Gate] // where the next look waits, when it has read
}

func newTokenDB() *tokenDB {
	return &tokenDB{MemStore: memstore.NewWithCleanupInterval(0), finds: make(chan struct{})}
}

var errDown = errors.New("the database is down")

func (db *tokenDB) Find(token string) ([]byte, bool, error) {
	if db.down.Load() {
		select {
		case db.finds <- struct{}{}:
		default:
		}
		return nil, false, errDown
	}
	b, found, err := db.MemStore.Find(token)
	if gate := db.reading.Swap(nil); gate != nil {
		gate.Pass()
	}
	return b, found, err
}

func (db *tokenDB) Commit(token string, b []byte, expiry time.Time) error {
	db.commits.Add(1)
	db.expiry.Store(expiry.UnixNano())
	if db.down.Load() {
		return errDown
	}
	if gate := db.writing.Load(); gate != nil {
		gate.Pass()
	}
	return db.MemStore.Commit(token, b, expiry)
}

func (db *tokenDB) Delete(token string) error {
	if db.down.Load() || db.broken.Load() {
		return errDown
	}
	return db.MemStore.Delete(token)
}

// A tokenSite is an app with the recipe for scs.
type tokenSite struct {
	url     string
	srv     *adapter.Server
	manager *scs.SessionManager
	slow    *adaptertest.Gate // where POST /slow waits, the session loaded
	logged  *buffer
	more    func(*gin.RouterGroup) // adds pages, if it is not nil
}

func newTokenSite(t *testing.T, db scs.Store, cfg adapter.Config, setup func(*tokenSite)) *tokenSite {
	t.Helper()
	return newTokenSiteWith(t, scs.New(), db, cfg, setup)
}

func newTokenSiteWith(t *testing.T, manager *scs.SessionManager, db scs.Store, cfg adapter.Config, setup func(*tokenSite)) *tokenSite {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	s := &tokenSite{manager: manager, slow: adaptertest.NewGate(), logged: new(buffer)}
	cfg.Logger = slog.New(slog.NewTextHandler(s.logged, nil))
	srv, err := adapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	s.srv, s.manager.Store = srv, db
	srv.AllowAnonymous()
	recipes.SCS(srv, s.manager)
	adapter.Handle(srv, "me", func(ctx context.Context, _ *adapter.Socket, _ string) (string, error) {
		id, _ := adapter.IdentityOf(ctx)
		if id == nil {
			return "nobody", nil
		}
		return id.UserID, nil
	})
	adapter.Handle(srv, "color", func(ctx context.Context, sock *adapter.Socket, _ string) (string, error) {
		color, err := sock.Session().Get(ctx, "color")
		if err != nil {
			return err.Error(), nil
		}
		return fmt.Sprint(color), nil
	})
	if setup != nil {
		setup(s)
	}
	engine := gin.New()
	engine.Use(gin.RecoveryWithWriter(s.logged))
	srv.Mount(engine)
	s.pages(engine.Group("/", srv.HTTP()...))
	// As it is without the adapter: nobody looks at the end of these requests.
	s.pages(engine.Group("/bare", ginadapter.Wrap(s.manager.LoadAndSave)))
	s.url = serve(t, engine, s.logged)
	return s
}

func (s *tokenSite) pages(g *gin.RouterGroup) {
	put := func(c *gin.Context) {
		s.manager.Put(c.Request.Context(), "color", c.Query("color"))
		c.String(http.StatusOK, "ok")
	}
	g.POST("/set", put)
	g.POST("/slow", func(c *gin.Context) {
		s.slow.Pass()
		put(c)
	})
	g.POST("/login", recipes.SCSLogin(s.manager, func(c *gin.Context) (string, bool) { return c.Query("user"), true }))
	g.POST("/silent-login", func(c *gin.Context) {
		// Nothing is written: the session is committed once all handlers are through.
		_ = s.manager.RenewToken(c.Request.Context())
		s.manager.Put(c.Request.Context(), "user", c.Query("user"))
	})
	g.POST("/slow-login", func(c *gin.Context) {
		_ = s.manager.RenewToken(c.Request.Context())
		s.slow.Pass()
		s.manager.Put(c.Request.Context(), "user", c.Query("user"))
	})
	g.POST("/logout", func(c *gin.Context) {
		if err := s.manager.Destroy(c.Request.Context()); err != nil {
			c.String(http.StatusInternalServerError, err.Error())
			return
		}
		if flash := c.Query("flash"); flash != "" {
			s.manager.Put(c.Request.Context(), "flash", flash) // in a new session
		}
		c.String(http.StatusOK, "bye")
	})
	g.POST("/late-logout", func(c *gin.Context) {
		s.slow.Pass()
		_ = s.manager.Destroy(c.Request.Context())
	})
	g.POST("/panic", func(c *gin.Context) {
		_ = s.manager.RenewToken(c.Request.Context())
		panic("half way through a login")
	})
	g.POST("/end-all", func(c *gin.Context) {
		if err := s.manager.Iterate(c.Request.Context(), s.manager.Destroy); err != nil {
			c.String(http.StatusInternalServerError, err.Error())
			return
		}
		// The session of who asks lives on, in a new one.
		_ = s.manager.RenewToken(c.Request.Context())
		c.String(http.StatusOK, "done")
	})
	g.GET("/me", func(c *gin.Context) {
		c.String(http.StatusOK, s.manager.GetString(c.Request.Context(), "user"))
	})
	if s.more != nil {
		s.more(g)
	}
}

// browser returns one with a session, of user unless that is empty.
func (s *tokenSite) browser(t *testing.T, user string) *browser {
	t.Helper()
	b := newBrowser(t, s.url, nil)
	b.mustPost("/set?color=green")
	if user != "" {
		b.mustPost("/login?user=" + user)
	}
	return b
}

func (b *browser) mustPost(path string) answer {
	b.t.Helper()
	a := b.post(path, "")
	if a.status >= http.StatusBadRequest {
		b.t.Fatalf("POST %s: %d %s", path, a.status, a.body)
	}
	return a
}

// clone returns a browser with the cookies that b has now.
func (b *browser) clone() *browser {
	other := newBrowser(b.t, b.url, b.dress)
	r := b.request(http.MethodGet, "/", "")
	other.http.Jar.SetCookies(r.URL, b.http.Jar.Cookies(r.URL))
	return other
}

// open opens a socket that must be let in.
func (tr transport) mustOpen(b *browser) *socket {
	b.t.Helper()
	s, a := tr.open(b, "")
	if s == nil {
		b.t.Fatalf("%s: not let in: %d %s", tr.name, a.status, a.body)
	}
	return s
}

// ended waits until the server ends the socket, and returns the close code; 0 for
// one that polls, whose connection must be gone.
func (s *socket) ended() int {
	s.b.t.Helper()
	if s.ws == nil {
		for {
			if _, a := s.tryNext(); a != nil {
				return 0
			}
		}
	}
	for {
		_, _, err := s.ws.ReadMessage()
		if e, ok := errors.AsType[*websocket.CloseError](err); ok {
			return e.Code
		}
		if err != nil {
			s.b.t.Fatalf("expected to be closed by the server, got %v", err)
		}
	}
}

// becomes asks until the socket is somebody's, as its identity follows a little
// later.
func (s *socket) becomes(who string) {
	s.b.t.Helper()
	for late := time.Now().Add(patience); ; {
		got := s.mustAsk("me", "")
		if got == who {
			return
		}
		if time.Now().After(late) {
			s.b.t.Fatalf("the socket is %s's, want %s's", got, who)
		}
	}
}

// eachTokenSite runs a test for every transport, with tokens in the store as they are and
// hashed.
func eachTokenSite(t *testing.T, run func(t *testing.T, s *tokenSite, tr transport)) {
	for _, hash := range []bool{false, true} {
		for _, tr := range transports {
			t.Run(fmt.Sprintf("%s, hashed %t", tr.name, hash), func(t *testing.T) {
				t.Parallel() // Socket.IO's close takes a second, in which nothing happens
				run(t, newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, func(s *tokenSite) {
					s.manager.HashTokenInStore = hash
				}), tr)
			})
		}
	}
}

// mustEnd checks that the socket is told that its session has ended.
func (s *socket) mustEnd(why string) {
	s.b.t.Helper()
	if code := s.ended(); code != 4409 && s.ws != nil {
		s.b.t.Errorf("%s: closed with %d, want 4409", why, code)
	}
}

// TestTokenStoreLogout: a logout was noticed by the next replay only, up to 30 s
// later. There is none here.
func TestTokenStoreLogout(t *testing.T) {
	eachTokenSite(t, func(t *testing.T, s *tokenSite, tr transport) {
		alice, bob := s.browser(t, "alice"), s.browser(t, "bob")
		sock, other := tr.mustOpen(alice), tr.mustOpen(bob)
		thief := alice.clone()
		alice.mustPost("/logout")
		sock.mustEnd("a logout")
		if a := thief.get("/me"); a.body != "" {
			t.Errorf("with the cookie of before the logout a page is %s's", a.body)
		}
		other.becomes("bob")

		other = tr.mustOpen(bob)
		bob.mustPost("/logout?flash=bye") // which makes a new session
		other.mustEnd("a logout with a message for the next page")

		nobody := s.browser(t, "")
		other = tr.mustOpen(nobody)
		nobody.mustPost("/logout")
		other.mustEnd("the end of a session without a user")
	})
}

// TestTokenStoreLateLogout: a logout that was under way when a login on another page
// gave the session a new token left the user logged in by that.
func TestTokenStoreLateLogout(t *testing.T) {
	eachTokenSite(t, func(t *testing.T, s *tokenSite, tr transport) {
		alice, bob := s.browser(t, "alice"), s.browser(t, "bob")
		before := alice.clone()
		var sock *socket
		s.slowly(before, "/late-logout", func() {
			alice.mustPost("/login?user=alice")
			sock = tr.mustOpen(alice)
		})
		sock.mustEnd("a logout with the token before")
		if a := alice.get("/me"); a.body != "" {
			t.Errorf("after it a page is %s's", a.body)
		}
		if a := bob.get("/me"); a.body != "bob" {
			t.Errorf("bob is %q", a.body)
		}
	})
}

// TestTokenStoreLogin: RenewToken deletes the old session before there is a new
// one, so a store cannot tell a login from a logout while it happens.
func TestTokenStoreLogin(t *testing.T) {
	eachTokenSite(t, func(t *testing.T, s *tokenSite, tr transport) {
		for _, login := range []string{"/login", "/silent-login"} {
			b := s.browser(t, "")
			sock := tr.mustOpen(b)
			sock.becomes("nobody")
			b.mustPost(login + "?user=alice")
			sock.becomes("alice")

			// It hangs on the new session from now on.
			b.mustPost("/set?color=red")
			if got := sock.mustAsk("color", ""); got != "red" {
				t.Errorf("the socket reads the color %q, want red", got)
			}
			b.mustPost("/login?user=alice") // once more: the same user
			sock.becomes("alice")
			b.mustPost("/logout")
			sock.mustEnd("the logout after " + login)
		}
	})
}

// TestTokenStoreReplayDuringLogin: a replay that comes while the old token is
// deleted and the new one not yet committed finds nobody, which is no logout.
func TestTokenStoreReplayDuringLogin(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: time.Millisecond}, nil)
	b := s.browser(t, "alice")
	sock := transports[0].mustOpen(b)
	done := make(chan answer, 1)
	go func() { done <- b.post("/slow-login?user=alice", "") }()
	<-s.slow.Entered
	release := sync.OnceFunc(func() { s.slow.Release <- struct{}{} })
	t.Cleanup(release)
	for late := time.Now().Add(patience); !strings.Contains(s.logged.String(), "given another token"); {
		sock.becomes("alice")
		if time.Now().After(late) {
			t.Fatalf("no replay has seen the session without a token:\n%s", s.logged.String())
		}
	}
	release()
	if a := <-done; a.status != http.StatusOK {
		t.Fatalf("login: %d %s", a.status, a.body)
	}
	sock.becomes("alice")
	b.mustPost("/logout")
	sock.mustEnd("the logout")
}

// TestTokenStoreSessionOfTheHandshake: a session that begins with the handshake is
// the socket's, like one that was there.
func TestTokenStoreSessionOfTheHandshake(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, func(s *tokenSite) {
		s.srv.UseOnce(func(c *gin.Context) { s.manager.Put(c.Request.Context(), "color", "green") })
	})
	b := newBrowser(t, s.url, nil)
	sock := transports[0].mustOpen(b)
	b.mustPost("/login?user=alice")
	sock.becomes("alice")
}

// TestTokenStoreAnotherUser: two people never share a socket.
func TestTokenStoreAnotherUser(t *testing.T) {
	eachTokenSite(t, func(t *testing.T, s *tokenSite, tr transport) {
		b := s.browser(t, "alice")
		sock := tr.mustOpen(b)
		b.mustPost("/login?user=bob")
		sock.mustEnd("a login of somebody else")
		tr.mustOpen(b).becomes("bob")
	})
}

// TestTokenStoreOthersAreEnded: a page that ends sessions of others is no login of
// theirs, although it commits a session of its own, and comes from where they are.
func TestTokenStoreOthersAreEnded(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, nil)
	nobody, admin := s.browser(t, ""), s.browser(t, "admin")
	sock, own := transports[0].mustOpen(nobody), transports[0].mustOpen(admin)
	admin.mustPost("/end-all")
	sock.mustEnd("the end of all sessions")
	own.becomes("admin")
}

// TestTokenStoreForeignPeer: a cookie that was planted in the browser that logs in
// must not give its sockets to whoever planted it.
func TestTokenStoreForeignPeer(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, nil)
	victim := s.browser(t, "")
	attacker := victim.clone()
	attacker.dress = withHeader("X-Forwarded-For", "192.0.2.66")
	sock := transports[0].mustOpen(attacker)
	own := transports[0].mustOpen(victim)
	victim.mustPost("/login?user=alice")
	sock.mustEnd("a login from another address")
	own.becomes("alice")
}

// TestTokenStoreWithoutTheEnd: where nobody will see the end of a request, or it
// does not come to a new session, a deleted one is over.
func TestTokenStoreWithoutTheEnd(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, nil)
	for _, path := range []string{"/panic", "/bare/panic", "/bare/login?user=alice", "/bare/logout"} {
		b := s.browser(t, "")
		sock := transports[0].mustOpen(b)
		b.post(path, "")
		sock.mustEnd(path)
	}
}

// TestTokenStoreLateSave: scs writes the whole session with the answer, so a
// request that was under way at the logout brought it back.
func TestTokenStoreLateSave(t *testing.T) {
	db := newTokenDB()
	s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, nil)
	for _, path := range []string{"/slow", "/bare/slow"} {
		b := s.browser(t, "alice")
		late := b.clone()
		saved := make(chan answer, 1)
		go func() { saved <- late.post(path+"?color=late", "") }()
		<-s.slow.Entered
		thief := b.clone()
		b.mustPost("/logout")
		s.slow.Release <- struct{}{}
		if a := <-saved; a.status != http.StatusInternalServerError || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s after the logout: %d, cookie %q; want 500 and none", path, a.status, a.header.Get("Set-Cookie"))
		}
		if a := thief.get("/bare/me"); a.body != "" {
			t.Errorf("after a late save the session is back, %s's", a.body)
		}
		if all, _ := db.All(); len(all) != 0 {
			t.Errorf("the store has %d sessions, want none", len(all))
		}
	}
}

// TestTokenStoreEndedWhileWritten: the commit has been let through when the logout
// comes, and is written after it.
func TestTokenStoreEndedWhileWritten(t *testing.T) {
	db, gate := newTokenDB(), adaptertest.NewGate()
	s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, nil)
	b := s.browser(t, "alice")
	late := b.clone()
	db.writing.Store(gate)
	saved := make(chan answer, 1)
	go func() { saved <- late.post("/set?color=late", "") }()
	<-gate.Entered
	db.writing.Store(nil)
	b.mustPost("/logout")
	gate.Release <- struct{}{}
	if a := <-saved; a.status != http.StatusInternalServerError {
		t.Errorf("a save during which the session has ended: %d, want 500", a.status)
	}
	if all, _ := db.All(); len(all) != 0 {
		t.Errorf("the store has %d sessions, want none", len(all))
	}
}

// TestTokenStoreDeletedElsewhere: a session that another program has deleted from
// the store is not brought back by a save either.
func TestTokenStoreDeletedElsewhere(t *testing.T) {
	db := newTokenDB()
	s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, nil)
	b := s.browser(t, "alice")
	saved := make(chan answer, 1)
	late := b.clone()
	go func() { saved <- late.post("/slow?color=late", "") }()
	<-s.slow.Entered
	all, err := db.All()
	if err != nil || len(all) != 1 {
		t.Fatalf("the store has %d sessions, %v; want 1", len(all), err)
	}
	for token := range all {
		_ = db.Delete(token)
	}
	s.slow.Release <- struct{}{}
	if a := <-saved; a.status != http.StatusInternalServerError {
		t.Errorf("a save of a session that is gone: %d, want 500", a.status)
	}
	if all, _ := db.All(); len(all) != 0 {
		t.Errorf("the store has %d sessions, want none", len(all))
	}
}

// TestTokenStoreDown: a manager's ErrorFunc may answer what looks like a logout.
func TestTokenStoreDown(t *testing.T) {
	db := newTokenDB()
	s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, func(s *tokenSite) {
		s.manager.ErrorFunc = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusUnauthorized) }
	})
	b := s.browser(t, "alice")
	sock := transports[0].mustOpen(b)
	db.down.Store(true)
	if err := s.srv.Refresh(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	<-db.finds // of the replay
	if ws, a := b.dial(plainPath); ws != nil || a.status != http.StatusServiceUnavailable {
		t.Errorf("a handshake while the store is down: %d, want 503", a.status)
	}
	sock.becomes("alice")

	// What cannot be deleted is over all the same.
	thief := b.clone()
	sockets, err := s.srv.ToUser("alice").Sockets(t.Context())
	if err != nil || len(sockets) != 1 {
		t.Fatalf("alice has %d sockets, %v; want 1", len(sockets), err)
	}
	if n, err := s.srv.Revoke(t.Context(), adapter.BySession(sockets[0].Identity.SessionID)); n != 1 || !errors.Is(err, errDown) {
		t.Errorf("Revoke = %d, %v; want 1 socket and the error of the store", n, err)
	}
	sock.mustEnd("Revoke")
	db.down.Store(false)
	if a := thief.get("/me"); a.status != http.StatusOK || a.body != "" {
		t.Errorf("the page of a revoked session: %d %q, want nobody's", a.status, a.body)
	}
}

// TestTokenStoreLogoutOutlivesTheProcess: a session that could not be deleted is
// there again after a restart, and has ended all the same.
func TestTokenStoreLogoutOutlivesTheProcess(t *testing.T) {
	db, path := newTokenDB(), filepath.Join(t.TempDir(), "endings")
	start := func() *tokenSite {
		t.Helper()
		endings, err := adapter.EndingsFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return newTokenSite(t, db, adapter.Config{Revalidate: -1, Endings: endings}, nil)
	}
	s := start()
	b := s.browser(t, "alice")
	sock := transports[0].mustOpen(b)
	db.broken.Store(true)
	if a := b.post("/logout", ""); a.status != http.StatusInternalServerError {
		t.Errorf("a logout that cannot be stored: %d, want 500", a.status)
	}
	sock.mustEnd("the logout")
	db.broken.Store(false)
	if all, _ := db.All(); len(all) != 1 {
		t.Fatalf("the store has %d sessions, want the one that could not be deleted", len(all))
	}
	if err := s.srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := start()
	b.url = again.url
	if a := b.get("/me"); a.status != http.StatusOK || a.body != "" {
		t.Errorf("after a restart the page is %d %q, want nobody's", a.status, a.body)
	}
}

// TestTokenStoreRevoke: the id of a session is what the store knows it by, also
// where that is a hash of the cookie.
func TestTokenStoreRevoke(t *testing.T) {
	eachTokenSite(t, func(t *testing.T, s *tokenSite, tr transport) {
		b := s.browser(t, "alice")
		sock := tr.mustOpen(b)
		sockets, err := s.srv.ToUser("alice").Sockets(t.Context())
		if err != nil || len(sockets) != 1 {
			t.Fatalf("alice has %d sockets, %v; want 1", len(sockets), err)
		}
		if n, err := s.srv.Revoke(t.Context(), adapter.BySession(sockets[0].Identity.SessionID)); n != 1 || err != nil {
			t.Errorf("Revoke = %d, %v; want 1 socket", n, err)
		}
		sock.mustEnd("Revoke")
		if a := b.get("/me"); a.body != "" {
			t.Errorf("after Revoke a page is %s's", a.body)
		}
		found := 0
		if err := s.manager.Iterate(t.Context(), func(context.Context) error { found++; return nil }); err != nil || found != 0 {
			t.Errorf("the store has %d sessions, %v; want none", found, err)
		}
	})
}

// TestTokenStoreReplaysWriteNothing: a middleware that puts something into the
// session of each request would write with every replay, and the answer of none
// has a client.
func TestTokenStoreReplaysWriteNothing(t *testing.T) {
	db := newTokenDB()
	replayed := make(chan struct{}, 100)
	s := newTokenSite(t, db, adapter.Config{Revalidate: time.Millisecond}, func(s *tokenSite) {
		s.srv.Use(func(c *gin.Context) {
			s.manager.Put(c.Request.Context(), "seen", time.Now().UnixNano())
			c.Next()
			if adapter.Replaying(c.Request.Context()) {
				select {
				case replayed <- struct{}{}:
				default:
				}
			}
		})
	})
	sock := transports[0].mustOpen(s.browser(t, "alice"))
	before := db.commits.Load()
	for range 3 {
		<-replayed // the end of one was told after what it wrote
	}
	if n := db.commits.Load() - before; n != 0 {
		t.Errorf("replays have written the session %d times, want never", n)
	}
	sock.becomes("alice")
	if log := s.logged.String(); strings.Count(log, "writes a session or cookie whenever it runs") != 1 || !strings.Contains(log, "scs") {
		t.Errorf("the log does not warn once, with the name of scs:\n%s", log)
	}
}

// TestTokenStoreOnAnotherNode: a logout reaches sockets wherever they are.
func TestTokenStoreOnAnotherNode(t *testing.T) {
	bus, db := new(backplane.Memory), newTokenDB()
	here := newTokenSite(t, db, adapter.Config{Revalidate: -1, Backplane: bus.Node()}, nil)
	there := newTokenSite(t, db, adapter.Config{Revalidate: -1, Backplane: bus.Node()}, nil)
	b := here.browser(t, "alice")
	far := b.clone()
	far.url = there.url
	sock := transports[0].mustOpen(far)
	b.mustPost("/logout")
	sock.mustEnd("a logout on another node")
}
