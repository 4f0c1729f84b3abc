package adaptertest

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// Sessions is the suite that a session store passes under Server.Store, with
// sockets over every transport: each case is a way in which sessions and sockets
// are known to betray a user. The numbers are the properties' in
// docs/architecture.md. How sockets follow a login is asked by Identity.
//
// newStore returns an empty store. inCookie says that the store keeps sessions
// in the client's cookie, which no WebSocket can write.
func Sessions(t *testing.T, newStore func(t *testing.T) sessions.Store, inCookie bool) {
	var all sync.WaitGroup
	for _, tr := range Transports {
		all.Go(func() {
			t.Run(string(tr), func(t *testing.T) { sessionsOver(t, Way{Transport: tr}, newStore, inCookie) })
		})
	}
	all.Wait()
}

func sessionsOver(t *testing.T, way Way, newStore func(t *testing.T) sessions.Store, inCookie bool) {
	site := func(t *testing.T) *Site {
		return NewSite(t, adapter.Config{}, newStore(t), nil)
	}
	// A socket cannot write what only the browser keeps.
	ifWritable := func(name string, f func(*testing.T)) {
		if !inCookie {
			t.Run(name, f)
		}
	}

	ifWritable("P01 what a socket saves reaches no stranger", func(t *testing.T) {
		s := NewSite(t, adapter.Config{}, newStore(t), func(s *Site) {
			// Its pooled context is in use while the socket acts.
			s.Engine.GET("/stranger", func(c *gin.Context) {
				s.Slow.Pass()
				c.String(http.StatusOK, "hello")
			})
		})
		c := s.NewBrowser(t, "alice").Connect(way)
		for range 10 {
			stranger := s.NewBrowser(t, "")
			var wg sync.WaitGroup
			wg.Go(func() { stranger.Get("/stranger") })
			<-s.Slow.Entered
			c.Must("count", pair{Key: "n"}, nil)
			s.Slow.Release <- struct{}{}
			wg.Wait()
			if got := stranger.Cookies(); len(got) > 0 {
				t.Fatalf("a stranger got the cookies %v", got)
			}
		}
	})

	t.Run("P03 a socket sees what HTTP writes", func(t *testing.T) {
		s := site(t)
		alice := s.NewBrowser(t, "alice")
		c := alice.Connect(way)
		alice.MustPost("/set?key=color&value=blue")
		f := c.Call("get", pair{Key: "color"})
		if inCookie && way.Transport != Polling {
			// The new cookie is the browser's; the handshake's is what the
			// socket has. A poll brings the new one along.
			if string(f.Data) != "null" {
				t.Errorf("get color = %s, want null: a socket cannot see a cookie that was set later", f)
			}
			return
		}
		if string(f.Data) != `"blue"` {
			t.Errorf("get color = %s, want blue", f)
		}
	})

	t.Run("P22 revoked sessions are over, everywhere and for pages too", func(t *testing.T) {
		store := newStore(t)
		s := NewSite(t, adapter.Config{}, store, nil)
		phone, laptop, bob := s.NewBrowser(t, "alice"), s.NewBrowser(t, "alice"), s.NewBrowser(t, "bob")
		conns := []Client{phone.Connect(way), phone.Connect(way), laptop.Connect(way)}
		others := bob.Connect(way)
		if n, err := s.Server.Revoke(t.Context(), adapter.ByUser("alice")); n != 3 || err != nil {
			t.Errorf("Revoke = %d, %v; want 3 sockets", n, err)
		}
		for _, c := range conns {
			wantCode(t, way, c, 4409)
		}
		for _, b := range []*Browser{phone, laptop} {
			if status, body := b.Get("/me"); status != http.StatusUnauthorized {
				t.Errorf("GET /me after Revoke: %d %s, want 401", status, body)
			}
		}
		others.Must("me", nil, new(string))
		// It is no ban.
		phone.MustPost("/login?user=alice")
		again := phone.Connect(way)
		found, err := s.Server.ToUser("alice").Sockets(t.Context())
		if err != nil || len(found) != 1 {
			t.Fatalf("alice has %d sockets, %v; want 1", len(found), err)
		}
		if n, err := s.Server.Revoke(t.Context(), adapter.BySession(found[0].Identity.SessionID)); n != 1 || err != nil {
			t.Errorf("Revoke of the session = %d, %v; want 1", n, err)
		}
		wantCode(t, way, again, 4409)
		if status, body := phone.Get("/me"); status != http.StatusUnauthorized {
			t.Errorf("GET /me after Revoke of the session: %d %s, want 401", status, body)
		}
		if !inCookie {
			// Its row is gone: a server that was told nothing knows nobody.
			other := NewSite(t, adapter.Config{}, store, nil).NewBrowser(t, "")
			other.HTTP.Jar.SetCookies(other.site(), phone.Cookies())
			if status, body := other.Get("/me"); status != http.StatusUnauthorized {
				t.Errorf("GET /me at another server: %d %s, want 401", status, body)
			}
		}
		if n, err := s.Server.Revoke(t.Context(), adapter.ByProvider("test")); n != 1 || err != nil {
			t.Errorf("Revoke of the provider = %d, %v; want bob's one", n, err)
		}
		wantCode(t, way, others, 4409)
	})

	t.Run("P04 an ended session is not brought back by a socket", func(t *testing.T) {
		// A handler that is running while the session ends, and goes on
		// although its context is done.
		gate := NewGate()
		result := make(chan error, 1)
		s := NewSite(t, adapter.Config{}, newStore(t), func(s *Site) {
			adapter.On(s.Server, "stubborn", func(_ context.Context, sock *adapter.Socket, _ struct{}) error {
				gate.Pass()
				err := sock.Session().Update(context.Background(), func(v adapter.Values) error {
					v["back"] = "again"
					return nil
				})
				result <- err
				return err
			})
		})
		alice := s.NewBrowser(t, "alice")
		thief := alice.Clone()
		c := alice.Connect(way)
		c.Emit("stubborn", nil)
		<-gate.Entered
		alice.MustPost("/logout")
		gate.Release <- struct{}{}
		if err := <-result; err == nil {
			t.Error("Update of an ended session succeeded")
		}
		if status, body := thief.Get("/me"); status != http.StatusUnauthorized {
			t.Errorf("GET /me with the old cookie: %d %s, want 401", status, body)
		}
	})

	ifWritable("P05 HTTP and a socket change different keys and both stay", func(t *testing.T) {
		s := site(t)
		alice := s.NewBrowser(t, "alice")
		c := alice.Connect(way)
		var wg sync.WaitGroup
		wg.Go(func() { alice.MustPost("/slow?key=http&value=1") })
		<-s.Slow.Entered
		c.Must("set", pair{"socket", "2"}, nil)
		s.Slow.Release <- struct{}{}
		wg.Wait()
		for key, want := range map[string]string{"http": "1", "socket": "2"} {
			if _, got := alice.Get("/get?key=" + key); got != want {
				t.Errorf("%s = %q, want %q", key, got, want)
			}
		}
	})

	if inCookie && way.Transport != Polling {
		t.Run("P06 a cookie session is read-only on a WebSocket", func(t *testing.T) {
			s := site(t)
			c := s.NewBrowser(t, "alice").Connect(way)
			if f := c.Call("set", pair{"k", "v"}); f.Error == nil || f.Error.Code != "read_only" {
				t.Errorf("set = %s, want the error read_only", f)
			}
		})
	}

	ifWritable("P07 many writers of one session lose nothing", func(t *testing.T) {
		s := site(t)
		alice := s.NewBrowser(t, "alice")
		const sockets, each = 8, 20
		var wg sync.WaitGroup
		for range sockets {
			c := alice.Connect(way)
			wg.Go(func() {
				for range each {
					if f := c.Call("count", pair{Key: "n"}); f.Error != nil {
						t.Errorf("count: %s", f)
						return
					}
				}
			})
		}
		wg.Wait()
		if _, got := alice.Get("/get?key=n"); got != strconv.Itoa(sockets*each) {
			t.Errorf("n = %s after %d increments", got, sockets*each)
		}
	})

	t.Run("P22 logout closes that session's sockets and no others", func(t *testing.T) {
		s := site(t)
		alice, phone, bob := s.NewBrowser(t, "alice"), s.NewBrowser(t, "alice"), s.NewBrowser(t, "bob")
		one, two := alice.Connect(way), alice.Connect(way)
		other, bobs := phone.Connect(way), bob.Connect(way)
		alice.MustPost("/logout")
		for _, c := range []Client{one, two} {
			wantCode(t, way, c, 4409)
		}
		for c, want := range map[Client]string{other: `"alice"`, bobs: `"bob"`} {
			if f := c.Call("me", nil); string(f.Data) != want {
				t.Errorf("me = %s, want %s", f, want)
			}
		}
	})

	t.Run("P23 login leaves no planted session behind", func(t *testing.T) {
		s := site(t)
		attacker := s.NewBrowser(t, "")
		attacker.MustPost("/set?key=planted&value=evil")
		bob := attacker.Clone() // the attacker's cookie, planted in Bob's browser
		before := bob.Cookies()[0].Value
		bob.MustPost("/login?user=bob")
		if after := bob.Cookies()[0].Value; after == before {
			t.Error("the session cookie is the same after login")
		}
		if status, body := attacker.Get("/me"); status != http.StatusUnauthorized {
			t.Errorf("GET /me with the planted cookie: %d %s, want 401", status, body)
		}
		if _, got := attacker.Get("/get?key=planted"); got != "" {
			t.Errorf("the planted session still has planted=%q", got)
		}
		if status, body := bob.Get("/me"); status != http.StatusOK || body != "bob" {
			t.Errorf("GET /me as Bob: %d %s, want bob", status, body)
		}
		if _, got := bob.Get("/get?key=planted"); got != "" {
			t.Errorf("the planted value planted=%q survived the login", got)
		}
		if f := bob.Connect(way).Call("me", nil); string(f.Data) != `"bob"` {
			t.Errorf("me = %s, want bob", f)
		}
		if _, refusal := attacker.TryConnect(way); refusal == nil || refusal.Code != adapter.CodeUnauthenticated {
			t.Errorf("a socket with the planted cookie: %+v, want unauthenticated", refusal)
		}
	})

	t.Run("P26 a late HTTP save does not bring an ended session back", func(t *testing.T) {
		s := site(t)
		alice := s.NewBrowser(t, "alice")
		slow := alice.Clone()
		var wg sync.WaitGroup
		wg.Go(func() {
			if status, body := slow.Post("/slow?key=late&value=1", nil); status != http.StatusGone {
				t.Errorf("the late save: %d %s, want 410", status, body)
			}
		})
		<-s.Slow.Entered
		thief := alice.Clone()
		alice.MustPost("/logout")
		s.Slow.Release <- struct{}{}
		wg.Wait()
		for name, b := range map[string]*Browser{"the old cookie": thief, "the late request's cookie": slow} {
			if status, body := b.Get("/me"); status != http.StatusUnauthorized {
				t.Errorf("GET /me with %s: %d %s, want 401", name, status, body)
			}
		}
	})
}
