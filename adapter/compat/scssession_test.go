package compat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/adapter/backplane"
	"github.com/gin-usher/usher/adapter/compat/recipes"
)

// Sessions of alexedwards/scs as sockets read and change them, and as Revoke ends
// them.

// withSession gives a site events and pages that read and change the session.
func withSession(s *tokenSite) {
	answer := func(err error) string {
		switch {
		case errors.Is(err, adapter.ErrSessionGone):
			return "gone"
		case err != nil:
			return err.Error()
		}
		return "ok"
	}
	adapter.Handle(s.srv, "get", func(ctx context.Context, sock *adapter.Socket, key string) (string, error) {
		value, err := sock.Session().Get(ctx, key)
		if err != nil {
			return answer(err), nil
		}
		return fmt.Sprint(value), nil
	})
	adapter.Handle(s.srv, "put", func(ctx context.Context, sock *adapter.Socket, in string) (string, error) {
		key, value, _ := strings.Cut(in, "=")
		return answer(sock.Session().Update(ctx, func(v adapter.Values) error {
			v[key] = value
			return nil
		})), nil
	})
	adapter.Handle(s.srv, "paint", recipes.SCSColor)
	adapter.Handle(s.srv, "count", func(ctx context.Context, sock *adapter.Socket, key string) (string, error) {
		return answer(sock.Session().Update(ctx, func(v adapter.Values) error {
			n, _ := v[key].(int)
			v[key] = n + 1
			return nil
		})), nil
	})
	s.more = func(g *gin.RouterGroup) {
		put := func(c *gin.Context) {
			s.manager.Put(c.Request.Context(), c.Query("key"), c.Query("value"))
			c.String(http.StatusOK, "ok")
		}
		g.POST("/put", put)
		g.POST("/slow-put", func(c *gin.Context) {
			s.slow.Pass()
			put(c)
		})
		g.GET("/value", func(c *gin.Context) {
			c.String(http.StatusOK, fmt.Sprint(s.manager.Get(c.Request.Context(), c.Query("key"))))
		})
		g.POST("/slow-renew", func(c *gin.Context) {
			s.slow.Pass()
			_ = s.manager.RenewToken(c.Request.Context())
			put(c)
		})
		g.POST("/slow-logout", func(c *gin.Context) {
			s.slow.Pass()
			_ = s.manager.Destroy(c.Request.Context())
			put(c) // into a new session
		})
		g.POST("/tag", func(c *gin.Context) {
			tags, _ := s.manager.Get(c.Request.Context(), "tags").([]string)
			s.manager.Put(c.Request.Context(), "tags", append(tags, c.Query("tag")))
			c.String(http.StatusOK, "ok")
		})
		g.POST("/deadline", func(c *gin.Context) {
			in, _ := time.ParseDuration(c.Query("in"))
			s.manager.SetDeadline(c.Request.Context(), time.Now().Add(in))
			c.String(http.StatusOK, "ok")
		})
		g.POST("/forget", func(c *gin.Context) {
			_ = s.manager.Clear(c.Request.Context())
			c.String(http.StatusOK, "ok")
		})
	}
}

// wantValue checks what a page finds in the session.
func (b *browser) wantValue(key, want string) {
	b.t.Helper()
	if a := b.get("/value?key=" + key); a.status != http.StatusOK || a.body != want {
		b.t.Errorf("a page finds %q under %s (%d), want %q", a.body, key, a.status, want)
	}
}

// wantAsk checks what a socket's handler answers.
func (s *socket) wantAsk(event, in, want string) {
	s.b.t.Helper()
	if got := s.mustAsk(event, in); got != want {
		s.b.t.Errorf("%s %q: %q, want %q", event, in, got, want)
	}
}

// slowly posts while f runs: the page has loaded the session before, and goes on
// after.
func (s *tokenSite) slowly(b *browser, path string, f func()) answer {
	b.t.Helper()
	done := make(chan answer, 1)
	go func() { done <- b.post(path, "") }()
	<-s.slow.Entered
	f()
	s.slow.Release <- struct{}{}
	return <-done
}

func eachTokenSession(t *testing.T, run func(t *testing.T, s *tokenSite, db *tokenDB, tr transport)) {
	for _, hash := range []bool{false, true} {
		for _, tr := range transports {
			t.Run(fmt.Sprintf("%s, hashed %t", tr.name, hash), func(t *testing.T) {
				t.Parallel()
				db := newTokenDB()
				run(t, newTokenSite(t, db, adapter.Config{Revalidate: -1}, func(s *tokenSite) {
					s.manager.HashTokenInStore = hash
					withSession(s)
				}), db, tr)
			})
		}
	}
}

// TestTokenSession: a socket sees what pages write, and they see what it writes.
func TestTokenSession(t *testing.T) {
	eachTokenSession(t, func(t *testing.T, s *tokenSite, db *tokenDB, tr transport) {
		b := s.browser(t, "alice")
		sock := tr.mustOpen(b)
		sock.wantAsk("get", "color", "green")
		sock.wantAsk("paint", "red", "green")
		b.wantValue("color", "red")
		sock.wantAsk("get", "size", "<nil>")
		b.mustPost("/put?key=size&value=9")
		sock.wantAsk("get", "size", "9")
		sock.wantAsk("put", "size=10", "ok")
		sock.wantAsk("count", "n", "ok")
		b.wantValue("size", "10")
		b.wantValue("n", "1")
		b.wantValue("user", "alice")

		// On the session that a login makes, too.
		b.mustPost("/login?user=alice")
		sock.wantAsk("put", "size=11", "ok")
		b.wantValue("size", "11")
		b.wantValue("n", "1")

		db.down.Store(true)
		if got := sock.mustAsk("get", "size"); !strings.Contains(got, errDown.Error()) {
			t.Errorf("Get while the store is down: %q, want its error", got)
		}
		if got := sock.mustAsk("put", "size=12"); !strings.Contains(got, errDown.Error()) {
			t.Errorf("Update while the store is down: %q, want its error", got)
		}
	})
}

// TestTokenSessionLosesNothing: scs writes the whole session with each commit, so of
// two requests at once the later one erased what the other had written.
func TestTokenSessionLosesNothing(t *testing.T) {
	eachTokenSession(t, func(t *testing.T, s *tokenSite, _ *tokenDB, tr transport) {
		b := s.browser(t, "alice")
		b.mustPost("/tag?tag=one")
		sock := tr.mustOpen(b)
		if a := s.slowly(b, "/slow-put?key=page&value=1", func() {
			sock.wantAsk("put", "socket=2", "ok")
			// What the page has loaded, and leaves.
			sock.wantAsk("put", "color=red", "ok")
			b.clone().mustPost("/tag?tag=two")
		}); a.status != http.StatusOK {
			t.Errorf("the page: %d %s", a.status, a.body)
		}
		for key, want := range map[string]string{"page": "1", "socket": "2", "color": "red", "tags": "[one two]"} {
			b.wantValue(key, want)
			sock.wantAsk("get", key, want)
		}
	})
}

// TestTokenSessionManyWriters: 80 pages and 80 events change one session at once.
func TestTokenSessionManyWriters(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, withSession)
			b := s.browser(t, "alice")
			const writers, each = 8, 10
			var all sync.WaitGroup
			for w := range writers {
				other := b.clone()
				sock := tr.mustOpen(other)
				all.Go(func() {
					for range each {
						if got := sock.mustAsk("count", "n"); got != "ok" {
							t.Errorf("count: %s", got)
						}
					}
				})
				page := b.clone()
				all.Go(func() {
					for i := range each {
						if a := page.post(fmt.Sprintf("/put?key=page%d-%d&value=%d", w, i, i), ""); a.status != http.StatusOK {
							t.Errorf("a page: %d %s", a.status, a.body)
						}
					}
				})
			}
			all.Wait()
			b.wantValue("n", strconv.Itoa(writers*each))
			for w := range writers {
				for i := range each {
					b.wantValue(fmt.Sprintf("page%d-%d", w, i), strconv.Itoa(i))
				}
			}
		})
	}
}

// TestTokenSessionOverALogin: RenewToken keeps what is in the session, so it keeps
// what a socket has written since the page loaded it. Destroy keeps nothing.
func TestTokenSessionOverALogin(t *testing.T) {
	eachTokenSession(t, func(t *testing.T, s *tokenSite, _ *tokenDB, tr transport) {
		b := s.browser(t, "alice")
		sock := tr.mustOpen(b)
		if a := s.slowly(b, "/slow-renew?key=page&value=1", func() {
			sock.wantAsk("put", "socket=2", "ok")
		}); a.status != http.StatusOK {
			t.Errorf("the page: %d %s", a.status, a.body)
		}
		for key, want := range map[string]string{"page": "1", "socket": "2", "color": "green"} {
			b.wantValue(key, want)
		}
		if a := s.slowly(b, "/slow-logout?key=flash&value=bye", func() {
			sock.wantAsk("put", "secret=3", "ok")
		}); a.status != http.StatusOK {
			t.Errorf("the page: %d %s", a.status, a.body)
		}
		b.wantValue("flash", "bye")
		for _, key := range []string{"secret", "socket", "user"} {
			b.wantValue(key, "<nil>")
		}
	})
}

// TestTokenSessionGone: a handler that runs while its session ends does not bring it
// back.
func TestTokenSessionGone(t *testing.T) {
	for _, end := range []string{"Destroy", "RenewToken", "another program", "Revoke"} {
		t.Run(end, func(t *testing.T) {
			db, gate, result := newTokenDB(), adaptertest.NewGate(), make(chan error, 2)
			s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, func(s *tokenSite) {
				adapter.On(s.srv, "stubborn", func(_ context.Context, sock *adapter.Socket, _ string) error {
					var inside error
					err := sock.Session().Update(context.Background(), func(v adapter.Values) error {
						gate.Pass()
						v["back"] = "again"
						return inside
					})
					result <- err
					_, err = sock.Session().Get(context.Background(), "back")
					result <- err
					return nil
				})
			})
			t.Cleanup(gate.Open)
			b := s.browser(t, "alice")
			sock := transports[0].mustOpen(b)
			if a := sock.try(`{"type":"stubborn","data":""}`); a != nil {
				t.Fatalf("refused: %+v", a)
			}
			<-gate.Entered
			rows := 0
			switch end {
			case "Destroy":
				b.mustPost("/logout")
			case "RenewToken":
				b.mustPost("/login?user=bob")
				rows = 1 // bob's
			case "another program":
				all, _ := db.All()
				for token := range all {
					_ = db.MemStore.Delete(token)
				}
			case "Revoke":
				if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
					t.Fatal(err)
				}
				rows = 1 // alice's is over where it is
			}
			gate.Release <- struct{}{}
			err, after := <-result, <-result
			if end == "another program" {
				// It tells nobody, and no store can be asked to write only what is there.
				if err != nil || after != nil {
					t.Errorf("Update = %v, Get = %v", err, after)
				}
				return
			}
			if !errors.Is(err, adapter.ErrSessionGone) || !errors.Is(after, adapter.ErrSessionGone) {
				t.Errorf("Update = %v, Get = %v; want ErrSessionGone", err, after)
			}
			all, _ := db.All()
			if len(all) != rows {
				t.Errorf("the store has %d sessions, want %d", len(all), rows)
			}
			for _, row := range all {
				if _, values, err := (scs.GobCodec{}).Decode(row); err != nil || values["back"] != nil {
					t.Errorf("a session has %v, %v", values, err)
				}
			}
		})
	}
}

// TestTokenSessionExpiry: what a socket changes lives no longer for it: neither than
// an IdleTimeout allows, nor than Lifetime.
func TestTokenSessionExpiry(t *testing.T) {
	for name, idle := range map[string]time.Duration{"lifetime": 0, "idle timeout": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			db := newTokenDB()
			s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, func(s *tokenSite) {
				s.manager.Lifetime, s.manager.IdleTimeout = time.Hour, idle
				withSession(s)
			})
			b := s.browser(t, "alice")
			sock := transports[0].mustOpen(b)
			before := db.expiry.Load()
			sock.wantAsk("put", "a=1", "ok")
			sock.wantAsk("put", "a=2", "ok")
			if late := time.Duration(db.expiry.Load() - before); late < 0 || late >= time.Millisecond {
				t.Errorf("an Update moves the session's end by %v, want less than a millisecond", late)
			}
			if idle == 0 && db.expiry.Load() != before {
				t.Error("an Update moves the end of a session's lifetime")
			}
		})
	}
}

// TestTokenSessionDeadline: a page that leaves the session's deadline alone does not
// take back what another one has made of it meanwhile.
func TestTokenSessionDeadline(t *testing.T) {
	for _, in := range []time.Duration{time.Minute, 2 * time.Hour} { // the lifetime is an hour
		db := newTokenDB()
		s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, func(s *tokenSite) {
			s.manager.Lifetime = time.Hour
			withSession(s)
		})
		b := s.browser(t, "alice")
		var want int64
		if a := s.slowly(b, "/slow-put?key=page&value=1", func() {
			b.clone().mustPost("/deadline?in=" + in.String())
			want = db.expiry.Load()
		}); a.status != http.StatusOK {
			t.Errorf("the page: %d %s", a.status, a.body)
		}
		if got := db.expiry.Load(); got != want {
			t.Errorf("the session ends %v after what was set", time.Duration(got-want))
		}
		b.mustPost("/deadline?in=30m")
		if got := time.Until(time.Unix(0, db.expiry.Load())); got > 30*time.Minute || got < 29*time.Minute {
			t.Errorf("the session ends in %v, want 30m", got)
		}
	}
}

// TestTokenSessionOwnValues: what lies under usher. is the adapter's, and an app that
// stores what a form says under the name that the form says cannot forge it: a session
// that claims to be of tomorrow would outlive Revoke.
func TestTokenSessionOwnValues(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, withSession)
	visitor, alice := s.browser(t, ""), s.browser(t, "alice")
	for _, key := range []string{"usher.user", "usher.at", "usher.anything"} {
		for name, b := range map[string]*browser{"visitor": visitor, "alice": alice, "nobody": newBrowser(t, s.url, nil)} {
			if a := b.post("/put?key="+key+"&value=9223372036854775807", ""); a.status != http.StatusInternalServerError {
				t.Errorf("%s writes %s: %d, want 500", name, key, a.status)
			}
		}
		sock := transports[0].mustOpen(alice)
		if got := sock.mustAsk("put", key+"=9223372036854775807"); !strings.Contains(got, "the adapter's own") {
			t.Errorf("a socket writes %s: %q, want a refusal", key, got)
		}
	}
	if a := alice.get("/me"); a.body != "alice" {
		t.Errorf("the session is %q's after that, want alice's", a.body)
	}

	// Where nobody sees the page it counts for nothing.
	alice.mustPost("/bare/put?key=usher.at&value=9223372036854775807")
	fresh := newBrowser(t, s.url, nil)
	fresh.mustPost("/bare/put?key=usher.at&value=9223372036854775807")
	fresh.mustPost("/bare/login?user=alice")
	fresh.mustPost("/bare/put?key=usher.at&value=9223372036854775807")
	other := newBrowser(t, s.url, nil)
	other.mustPost("/bare/put?key=usher.user&value=bob")
	other.mustPost("/bare/put?key=usher.user&value=bob")
	if a := other.get("/bare/value?key=usher.user"); a.body != "<nil>" {
		t.Errorf("a forged session is %q's", a.body)
	}
	if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*browser{"alice": alice, "fresh": fresh} {
		if a := b.get("/me"); a.body == "alice" {
			t.Errorf("%s is alice after Revoke", name)
		}
	}

	// All of it may go, with all else.
	bob := s.browser(t, "bob")
	sock := transports[0].mustOpen(bob)
	bob.mustPost("/forget")
	sock.mustEnd("the end of who it was")
	bob.mustPost("/put?key=a&value=1")
	bob.wantValue("a", "1")
}

// TestTokenSessionRevoke: Revoke of a user closed the sockets of scs sessions and left
// the sessions to pages.
func TestTokenSessionRevoke(t *testing.T) {
	eachTokenSession(t, func(t *testing.T, s *tokenSite, _ *tokenDB, tr transport) {
		for _, login := range []string{"/login", "/silent-login"} { // saved before the page's end, and after
			b, bob := s.browser(t, ""), s.browser(t, "bob")
			b.mustPost(login + "?user=alice")
			sock, bobs := tr.mustOpen(b), tr.mustOpen(bob)
			thief := b.clone()
			if n, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); n != 1 || err != nil {
				t.Errorf("Revoke = %d, %v; want 1 socket", n, err)
			}
			sock.mustEnd("Revoke")
			for name, who := range map[string]*browser{"the page": b, "the old cookie": thief} {
				for _, path := range []string{"/me", "/bare/me"} {
					if a := who.get(path); a.status != http.StatusOK || a.body != "" {
						t.Errorf("%s: GET %s: %d, %q's; want nobody's", name, path, a.status, a.body)
					}
				}
			}
			bobs.becomes("bob")

			// It is no ban: who logs in again is in, and stays.
			b.mustPost(login + "?user=alice")
			sock = tr.mustOpen(b)
			sock.becomes("alice")
			b.mustPost("/put?key=a&value=1")
			for _, path := range []string{"/me", "/bare/me"} {
				if a := b.get(path); a.body != "alice" {
					t.Errorf("after a new login GET %s is %q's, want alice's", path, a.body)
				}
			}
			b.mustPost(login + "?user=alice") // once more
			sock.becomes("alice")
			if a := thief.get("/me"); a.body != "" {
				t.Errorf("the old cookie is %q's", a.body)
			}
			if n, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); n != 1 || err != nil {
				t.Errorf("Revoke again = %d, %v; want 1 socket", n, err)
			}
			sock.mustEnd("the second Revoke")
			if a := b.get("/me"); a.body != "" {
				t.Errorf("after the second Revoke the page is %q's", a.body)
			}
		}
	})
}

// TestTokenSessionRevokeOfAnotherUser: a session is noted to be whose it was last.
func TestTokenSessionRevokeOfAnotherUser(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, withSession)
	b := s.browser(t, "alice")
	b.mustPost("/login?user=bob")
	if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	if a := b.get("/me"); a.body != "bob" {
		t.Errorf("after Revoke of alice the page is %q's, want bob's", a.body)
	}
	if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("bob")); err != nil {
		t.Fatal(err)
	}
	if a := b.get("/bare/me"); a.body != "" {
		t.Errorf("after Revoke of bob the page is %q's, want nobody's", a.body)
	}
}

// TestTokenSessionRevokeOfAProvider: what Identify says of it is noted too.
func TestTokenSessionRevokeOfAProvider(t *testing.T) {
	logins, _ := newSCS(time.Hour)
	s := adaptertest.NewSiteWith(t, adapter.Config{Revalidate: -1}, logins, nil)
	b := s.NewBrowser(t, "alice")
	revoke := func(provider string, want int) {
		t.Helper()
		if _, err := s.Server.Revoke(t.Context(), adapter.ByProvider(provider)); err != nil {
			t.Fatal(err)
		}
		if status, body := b.Get("/me"); status != want {
			t.Errorf("after Revoke of the provider %s the page is %d %q, want %d", provider, status, body, want)
		}
	}
	revoke("another", http.StatusOK)
	revoke("test", http.StatusUnauthorized)
	b.MustPost("/login?user=alice")
	revoke("another", http.StatusOK)
}

// TestTokenSessionRevokeOfOneself: a page may sign its user out everywhere else.
func TestTokenSessionRevokeOfOneself(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, func(s *tokenSite) {
		withSession(s)
		more := s.more
		s.more = func(g *gin.RouterGroup) {
			more(g)
			g.POST("/only-here", func(c *gin.Context) {
				ctx := c.Request.Context()
				if _, err := s.srv.Revoke(ctx, adapter.ByUser("alice")); err != nil {
					c.String(http.StatusInternalServerError, err.Error())
					return
				}
				if c.Query("keep") != "" {
					_ = s.manager.RenewToken(ctx)
				} else {
					_ = s.manager.Destroy(ctx)
				}
				s.manager.Put(ctx, "user", "alice")
				c.String(http.StatusOK, "ok")
			})
		}
	})
	here, there := s.browser(t, "alice"), s.browser(t, "alice")
	here.mustPost("/only-here")
	for name, b := range map[string]*browser{"alice": here, "": there} {
		if a := b.get("/me"); a.body != name {
			t.Errorf("the page is %q's, want %q's", a.body, name)
		}
	}
	transports[0].mustOpen(here).becomes("alice")

	// What is kept is what was revoked.
	if a := here.post("/only-here?keep=1", ""); a.status != http.StatusInternalServerError {
		t.Errorf("a page that keeps what it has revoked: %d, want 500", a.status)
	}
	if a := here.get("/me"); a.body != "" {
		t.Errorf("the page is %q's, want nobody's", a.body)
	}
}

// TestTokenSessionRevokeOutlivesTheProcess: with Config.Endings, for both sides.
func TestTokenSessionRevokeOutlivesTheProcess(t *testing.T) {
	db, path := newTokenDB(), filepath.Join(t.TempDir(), "endings")
	start := func() *tokenSite {
		t.Helper()
		endings, err := adapter.EndingsFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return newTokenSite(t, db, adapter.Config{Revalidate: -1, Endings: endings}, withSession)
	}
	s := start()
	out, back := s.browser(t, "alice"), s.browser(t, "alice")
	if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	back.mustPost("/login?user=alice")
	if err := s.srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = start()
	for name, b := range map[string]*browser{"": out, "alice": back} {
		b.url = s.url
		if a := b.get("/me"); a.status != http.StatusOK || a.body != name {
			t.Errorf("after a restart: %d, %q's; want %q's", a.status, a.body, name)
		}
	}
	transports[0].mustOpen(back).becomes("alice")
	late := newBrowser(t, s.url, nil)
	late.mustPost("/login?user=alice")
	transports[0].mustOpen(late).becomes("alice")
}

// TestTokenSessionRevokeOnAnotherNode: sessions of one store, and whoever logs in again
// where the Revoke is known stays in on both.
func TestTokenSessionRevokeOnAnotherNode(t *testing.T) {
	bus, db := new(backplane.Memory), newTokenDB()
	here := newTokenSite(t, db, adapter.Config{Revalidate: -1, Backplane: bus.Node()}, withSession)
	there := newTokenSite(t, db, adapter.Config{Revalidate: -1, Backplane: bus.Node()}, withSession)
	b := here.browser(t, "alice")
	far := b.clone()
	far.url = there.url
	sock := transports[0].mustOpen(far)
	if _, err := here.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	sock.mustEnd("Revoke on another node") // which has heard of it by then
	for name, who := range map[string]*browser{"here": b, "there": far} {
		if a := who.get("/me"); a.body != "" {
			t.Errorf("%s the page is %q's, want nobody's", name, a.body)
		}
	}
	for _, login := range []*tokenSite{here, there} {
		again := newBrowser(t, login.url, nil)
		again.mustPost("/login?user=alice")
		for name, site := range map[string]*tokenSite{"here": here, "there": there} {
			again.url = site.url
			if a := again.get("/me"); a.body != "alice" {
				t.Errorf("after a new login the page %s is %q's, want alice's", name, a.body)
			}
			transports[0].mustOpen(again).becomes("alice")
		}
	}
}

// TestTokenSessionWithoutANote: a session that was made where nobody notes whose it is
// may be of before a Revoke. It is refused once, and over.
func TestTokenSessionWithoutANote(t *testing.T) {
	for _, idle := range []time.Duration{0, time.Hour} { // with which each request saves
		db := newTokenDB()
		s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, func(s *tokenSite) {
			s.manager.IdleTimeout = idle
			withSession(s)
		})
		var all []*browser
		for range 3 {
			b := newBrowser(t, s.url, nil)
			b.mustPost("/bare/login?user=alice")
			all = append(all, b)
		}
		sock := transports[0].mustOpen(all[0])
		if n, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); n != 1 || err != nil {
			t.Errorf("Revoke = %d, %v; want 1 socket", n, err)
		}
		sock.mustEnd("Revoke")
		for _, b := range all[:2] {
			thief := b.clone()
			if a := b.get("/me"); a.status != http.StatusUnauthorized {
				t.Errorf("a page: %d %q, want 401", a.status, a.body)
			}
			for _, who := range []*browser{b, thief} {
				for _, path := range []string{"/me", "/bare/me"} {
					if a := who.get(path); a.status != http.StatusOK || a.body != "" {
						t.Errorf("the next GET %s: %d, %q's; want nobody's", path, a.status, a.body)
					}
				}
			}
			b.mustPost("/login?user=alice")
			transports[0].mustOpen(b).becomes("alice")
		}
		if ws, a := all[2].dial(plainPath); ws != nil || a.status != http.StatusUnauthorized {
			t.Errorf("a handshake: %d, want 401", a.status)
		}
		transports[0].mustOpen(all[2]).becomes("nobody")
		if rows, _ := db.All(); len(rows) != 2 {
			t.Errorf("the store has %d sessions, want those of the two new logins", len(rows))
		}
	}
}

// remembered are endings of before the server began.
type remembered struct {
	mu  sync.Mutex
	all []adapter.Ending
}

func (r *remembered) Add(_ context.Context, more ...adapter.Ending) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, more...)
	return nil
}

func (r *remembered) All(context.Context) ([]adapter.Ending, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all), nil
}

// TestTokenSessionLongAfterARevoke: a session that notes nobody is believed when it was
// made long enough after its user was revoked, wherever that was.
func TestTokenSessionLongAfterARevoke(t *testing.T) {
	endings := new(remembered)
	before := newTokenSite(t, newTokenDB(), adapter.Config{Endings: endings}, withSession)
	if _, err := before.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	for i := range endings.all {
		endings.all[i].At = endings.all[i].At.Add(-10 * time.Minute)
	}
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1, Endings: endings}, func(s *tokenSite) {
		withSession(s)
		s.srv.UseOnce(func(c *gin.Context) {
			if user := c.Query("user"); user != "" {
				s.manager.Put(c.Request.Context(), "user", user)
			}
		})
	})
	bare, shaken := newBrowser(t, s.url, nil), newBrowser(t, s.url, nil)
	bare.mustPost("/bare/login?user=alice")
	if sock, a := openPlain(shaken, "user=alice"); sock == nil {
		t.Fatalf("not let in: %d %s", a.status, a.body)
	}
	for name, b := range map[string]*browser{"a page that nobody sees": bare, "a handshake": shaken} {
		if a := b.get("/me"); a.body != "alice" {
			t.Errorf("after a login by %s the page is %d, %q's; want alice's", name, a.status, a.body)
		}
		transports[0].mustOpen(b).becomes("alice")
	}
}

// TestTokenSessionRevokedWhileItLogsIn: the session is saved with the first byte of the
// answer, and it is noted whose it is at the page's end.
func TestTokenSessionRevokedWhileItLogsIn(t *testing.T) {
	gate, db := adaptertest.NewGate(), newTokenDB()
	t.Cleanup(gate.Open)
	s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, func(s *tokenSite) {
		withSession(s)
		more := s.more
		s.more = func(g *gin.RouterGroup) {
			more(g)
			g.POST("/long-login", func(c *gin.Context) {
				_ = s.manager.RenewToken(c.Request.Context())
				s.manager.Put(c.Request.Context(), "user", c.Query("user"))
				c.String(http.StatusOK, "welcome")
				c.Writer.Flush()
				gate.Pass()
			})
		}
	})
	login := func(b *browser) (done chan answer) {
		done = make(chan answer, 1)
		go func() {
			r := b.request(http.MethodPost, "/long-login?user=alice", "")
			resp, err := b.http.Do(r)
			if err != nil {
				t.Errorf("login: %v", err)
				done <- answer{}
				return
			}
			defer resp.Body.Close() // the head is there, and the browser has the cookie
			done <- answer{status: resp.StatusCode}
			_, _ = resp.Body.Read(make([]byte, 1024))
		}()
		<-gate.Entered
		<-done
		return done
	}
	revoke := func() {
		t.Helper()
		if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
			t.Fatal(err)
		}
	}
	// Before the Revoke: she is out, whatever is noted afterwards.
	b := s.browser(t, "")
	login(b)
	revoke()
	gate.Release <- struct{}{}
	eventually(t, "nobody's", func() bool { return b.get("/me").body == "" && b.get("/bare/me").body == "" })

	// After it: what she asks for in between waits, and she is in.
	login(b)
	if a := b.get("/me"); a.status != http.StatusServiceUnavailable {
		t.Errorf("a page before it is noted whose the session is: %d %q, want 503", a.status, a.body)
	}
	// A page that has read it before it is noted, and goes on after, ended it.
	slow := adaptertest.NewGate()
	t.Cleanup(slow.Open)
	db.reading.Store(slow)
	late := make(chan answer)
	go func() { late <- b.clone().get("/me") }()
	<-slow.Entered
	gate.Release <- struct{}{}
	eventually(t, "alice's", func() bool { return b.get("/me").body == "alice" })
	slow.Release <- struct{}{}
	if a := <-late; a.body != "alice" {
		t.Errorf("a page that has read the session before it was noted whose it is: %d %q, want alice's", a.status, a.body)
	}
	eventually(t, "alice's", func() bool { return b.get("/me").body == "alice" })
	transports[0].mustOpen(b).becomes("alice")
}

// eventually asks until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !is(); {
		if time.Now().After(late) {
			t.Fatalf("it is not %s after %v", what, patience)
		}
	}
}

// TestTokenSessionInFlightAtRevoke: a page that has loaded the session before a Revoke
// neither saves it nor gets it under a new token.
func TestTokenSessionInFlightAtRevoke(t *testing.T) {
	for _, tt := range []struct {
		login, path string
		want        int
	}{
		{"/login", "/slow-put", http.StatusInternalServerError},
		{"/login", "/slow-renew", http.StatusInternalServerError},
		{"/login", "/bare/slow-put", http.StatusInternalServerError},
		// Nobody knows what these are made of, or whose they are; they are saved, and over.
		{"/login", "/bare/slow-renew", http.StatusOK},
		{"/bare/login", "/slow-put", http.StatusOK},
		{"/bare/login", "/slow-renew", http.StatusOK},
		{"/bare/login", "/bare/slow-put", http.StatusOK},
	} {
		t.Run(tt.login+" "+tt.path, func(t *testing.T) {
			s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, withSession)
			b := newBrowser(t, s.url, nil)
			b.mustPost(tt.login + "?user=alice")
			if a := s.slowly(b, tt.path+"?key=a&value=1", func() {
				if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
					t.Fatal(err)
				}
			}); a.status != tt.want {
				t.Errorf("the page: %d %q, want %d", a.status, a.body, tt.want)
			}
			if a := b.get("/me"); a.body != "" && a.status != http.StatusUnauthorized {
				t.Errorf("the next page is %q's (%d), want nobody's", a.body, a.status)
			}
			transports[0].mustOpen(b).becomes("nobody")
		})
	}
}

// TestTokenSessionRevokeRaces: a Revoke that meets a login ends it or does not, and
// nobody is left who cannot be ended, or cannot log in.
func TestTokenSessionRevokeRaces(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, withSession)
	revoke := func(user string) {
		if _, err := s.srv.Revoke(t.Context(), adapter.ByUser(user)); err != nil {
			t.Error(err)
		}
	}
	tries := 300
	if testing.Short() {
		tries = 30
	}
	in := 0
	for i := range tries {
		user := fmt.Sprintf("user%d", i)
		b := newBrowser(t, s.url, nil)
		if i%3 == 0 {
			b.mustPost("/login?user=" + user)
		}
		login := []string{"/login", "/silent-login"}[i%2]
		var both sync.WaitGroup
		both.Go(func() { b.post(login+"?user="+user, "") })
		both.Go(func() { revoke(user) })
		both.Wait()
		me := b.get("/me")
		if me.body == user {
			in++
		} else if me.status != http.StatusUnauthorized && me.body != "" {
			t.Fatalf("%d: after a login and a Revoke: %d %q", i, me.status, me.body)
		}
		if again := b.get("/me"); (again.body == user) != (me.body == user) || again.status != http.StatusOK {
			t.Fatalf("%d: first %d %q, then %d %q", i, me.status, me.body, again.status, again.body)
		}
		if i%10 == 0 && me.body == user {
			transports[0].mustOpen(b).becomes(user)
		}
		b.mustPost(login + "?user=" + user)
		if a := b.get("/me"); a.body != user {
			t.Fatalf("%d: after the next login the page is %d, %q's", i, a.status, a.body)
		}
		revoke(user)
		if a := b.get("/me"); a.body == user {
			t.Fatalf("%d: the login outlives a Revoke", i)
		}
	}
	t.Logf("%d of %d logins came after the Revoke", in, tries)
}

// TestTokenSessionMerged: MergeSession puts what the adapter notes in one session into
// another.
func TestTokenSessionMerged(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, func(s *tokenSite) {
		withSession(s)
		more := s.more
		s.more = func(g *gin.RouterGroup) {
			more(g)
			g.POST("/merge", func(c *gin.Context) {
				ctx := c.Request.Context()
				if err := s.manager.MergeSession(ctx, c.Query("token")); err != nil {
					c.String(http.StatusInternalServerError, err.Error())
					return
				}
				if user := c.Query("user"); user != "" {
					_ = s.manager.RenewToken(ctx)
					s.manager.Put(ctx, "user", user)
				}
				if c.Query("slow") != "" {
					s.slow.Pass()
				}
				c.String(http.StatusOK, "ok")
			})
		}
	})
	tokenOf := func(b *browser) string {
		return b.http.Jar.Cookies(b.request(http.MethodGet, "/", "").URL)[0].Value
	}
	for name, merges := range map[string]func() *browser{
		"into none": func() *browser { return newBrowser(t, s.url, nil) },
		"into one":  func() *browser { return s.browser(t, "") },
	} {
		for _, login := range []string{"", "alice"} {
			from := s.browser(t, "alice")
			from.mustPost("/put?key=kept&value=1")
			b := merges()
			b.mustPost("/merge?token=" + tokenOf(from) + "&user=" + login)
			b.wantValue("kept", "1")
			b.wantValue("user", "alice")
			sock := transports[0].mustOpen(b)
			if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
				t.Fatal(err)
			}
			sock.mustEnd("Revoke")
			if a := b.get("/me"); a.body != "" {
				t.Errorf("%s: after Revoke the page is %d, %q's; want nobody's", name, a.status, a.body)
			}

			// And in between.
			from, b = s.browser(t, "alice"), merges()
			s.slowly(b, "/merge?slow=1&token="+tokenOf(from), func() {
				if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
					t.Fatal(err)
				}
			})
			if a := b.get("/me"); a.body != "" {
				t.Errorf("%s: after a Revoke in between the page is %d, %q's; want nobody's", name, a.status, a.body)
			}
		}
	}
}

// TestTokenSessionIterate: a page that changes everybody's sessions makes none of them
// its own.
func TestTokenSessionIterate(t *testing.T) {
	s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, func(s *tokenSite) {
		withSession(s)
		more := s.more
		s.more = func(g *gin.RouterGroup) {
			more(g)
			g.POST("/tell-all", func(c *gin.Context) {
				err := s.manager.Iterate(c.Request.Context(), func(ctx context.Context) error {
					if slices.Contains(s.manager.Keys(ctx), "admin") {
						return nil
					}
					s.manager.Put(ctx, "news", "1")
					_, _, err := s.manager.Commit(ctx)
					return err
				})
				if err != nil {
					c.String(http.StatusInternalServerError, err.Error())
					return
				}
				c.String(http.StatusOK, "ok")
			})
		}
	})
	alice, admin := s.browser(t, "alice"), newBrowser(t, s.url, nil)
	admin.mustPost("/bare/login?user=admin") // nothing says whose session that is
	admin.mustPost("/bare/put?key=admin&value=1")
	admin.mustPost("/tell-all")
	alice.wantValue("news", "1")
	admin.wantValue("news", "<nil>")
	if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("admin")); err != nil {
		t.Fatal(err)
	}
	if a := alice.get("/me"); a.body != "alice" {
		t.Errorf("after Revoke of the admin alice's page is %q's", a.body)
	}
	if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	if a := alice.get("/bare/me"); a.body != "" {
		t.Errorf("after Revoke of alice her page is %q's", a.body)
	}
}

// jsonCodec is a codec of an app's own. Numbers become float64, as JSON has it.
type jsonCodec struct{}

func (jsonCodec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{"deadline": deadline, "values": values})
}

func (jsonCodec) Decode(b []byte) (time.Time, map[string]any, error) {
	var s struct {
		Deadline time.Time
		Values   map[string]any
	}
	err := json.Unmarshal(b, &s)
	return s.Deadline, s.Values, err
}

// TestTokenSessionCodec: with the manager's own codec all is as with the default one.
// Without it the server leaves sessions as they are, and knows when they end.
func TestTokenSessionCodec(t *testing.T) {
	manager := scs.New()
	manager.Codec = jsonCodec{}
	s := newTokenSiteWith(t, manager, newTokenDB(), adapter.Config{Revalidate: -1}, withSession)
	b := s.browser(t, "alice")
	sock := transports[0].mustOpen(b)
	if a := s.slowly(b, "/slow-put?key=page&value=1", func() { sock.wantAsk("put", "socket=2", "ok") }); a.status != http.StatusOK {
		t.Errorf("the page: %d %s", a.status, a.body)
	}
	b.wantValue("socket", "2")
	sock.wantAsk("get", "page", "1")
	if _, err := s.srv.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	sock.mustEnd("Revoke")
	if a := b.get("/me"); a.body != "" {
		t.Errorf("after Revoke the page is %q's", a.body)
	}
}

func TestTokenSessionOfAnotherCodec(t *testing.T) {
	db := newTokenDB()
	s := newTokenSite(t, db, adapter.Config{Revalidate: -1}, func(s *tokenSite) {
		s.manager.Codec = jsonCodec{} // of which the server has not been told
		withSession(s)
	})
	b := s.browser(t, "alice")
	sock := transports[0].mustOpen(b)
	sock.becomes("alice")
	b.mustPost("/put?key=a&value=1")
	b.wantValue("a", "1")
	all, _ := db.All()
	for _, row := range all {
		if _, values, err := (jsonCodec{}).Decode(row); err != nil || len(values) != 3 {
			t.Errorf("the store has %v, %v; want what the manager has written", values, err)
		}
	}
	if got := sock.mustAsk("get", "a"); !strings.Contains(got, "Codec") {
		t.Errorf("get: %q, want an error that names what is missing", got)
	}
	if got := sock.mustAsk("put", "a=2"); !strings.Contains(got, "Codec") {
		t.Errorf("put: %q, want an error that names what is missing", got)
	}
	b.mustPost("/login?user=alice")
	sock.becomes("alice")
	b.mustPost("/logout")
	sock.mustEnd("a logout")
}
