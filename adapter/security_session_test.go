package adapter_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// signedStores are the stores whose cookies are signed by gorilla/securecookie.
var signedStores = []struct {
	name string
	open func(*testing.T) sessions.Store
}{
	{"cookie", newCookieStore},
	{"memstore", newMemstore},
}

// who is whom a page and a new socket take b for; "" is nobody.
func who(t *testing.T, b *adaptertest.Browser) (page, socket string) {
	t.Helper()
	if status, body := b.Get("/me"); status == http.StatusOK {
		page = body
	}
	c, resp, err := b.TryDial(ws, nil)
	if err != nil {
		if resp == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("dial: %v, want a socket or 401", err)
		}
		return page, ""
	}
	c.Must("me", nil, &socket)
	return page, socket
}

// wantWho checks that b is the same person everywhere.
func wantWho(t *testing.T, b *adaptertest.Browser, want string) {
	t.Helper()
	if page, socket := who(t, b); page != want || socket != want {
		t.Errorf("the page says %q and the socket %q, want %q", page, socket, want)
	}
}

// TestSecuritySessionPuzzlingByReservedKeys: a form handler that stores what it
// is sent under the name that it is sent (OWASP WSTG-SESS-08) makes nobody
// somebody, and nobody somebody else.
func TestSecuritySessionPuzzlingByReservedKeys(t *testing.T) {
	for _, store := range signedStores {
		t.Run(store.name, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{}, store.open(t), func(s *adaptertest.Site) {
				s.Server.UseOnce(func(c *gin.Context) {
					if key := c.Query("key"); key != "" { // unsaved, before Identify asks
						sessions.Default(c).Set(key, c.Query("value"))
					}
				})
			})
			s.Pages.POST("/remove", func(c *gin.Context) {
				session := sessions.Default(c)
				session.Delete(c.Query("key"))
				if session.Save() != nil {
					c.Status(http.StatusConflict)
				}
			})
			for _, user := range []string{"", "mallory"} {
				b := s.NewBrowser(t, user)
				b.MustPost("/set?key=color&value=red") // so that there is a session
				for _, key := range []string{"usher.user", "usher.provider", "usher.id", "usher.at", "usher.more"} {
					if status, body := b.Post("/set?key="+key+"&value=admin", nil); status == http.StatusOK {
						t.Errorf("%q saved %s: %s", user, key, body)
					}
					if _, _, err := b.TryDial(ws+"?value=admin&key="+key, nil); err == nil {
						t.Errorf("%q is let in with %s set on the way", user, key)
					}
					wantWho(t, b, user)
				}
			}
			mallory := s.NewBrowser(t, "mallory")
			for _, key := range []string{"usher.provider", "usher.at"} {
				if status, _ := mallory.Post("/remove?key="+key, nil); status != http.StatusConflict {
					t.Errorf("without %s: %d, want it refused", key, status)
				}
			}
			c := mallory.Dial(ws)
			if f := c.Call("set", map[string]string{"key": "usher.user", "value": "admin"}); f.Error == nil {
				t.Errorf("a socket's handler saved usher.user: %s", f)
			}
			polls := openPolling(t, mallory) // over which cookies can be written too
			if got := polls.call(mallory, "set", `{"key":"usher.user","value":"admin"}`); !strings.Contains(got, `"error"`) {
				t.Errorf("a handler of a socket that polls saved usher.user: %s", got)
			}
			wantWho(t, mallory, "mallory")
			mallory.MustPost("/set?key=color&value=blue") // what is the app's is
		})
	}
}

// A login that goes through a copy of the request, as middlewares of tracing make
// one, is a login all the same, and what is saved after it is saved.
func TestSaveAfterALoginThroughACopyOfTheRequest(t *testing.T) {
	for _, store := range signedStores {
		t.Run(store.name, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{}, store.open(t), func(s *adaptertest.Site) {
				s.Server.Use(func(c *gin.Context) { c.Request = c.Request.WithContext(c.Request.Context()) })
			})
			s.Pages.POST("/traced", func(c *gin.Context) {
				if err := s.Server.Login(c, adapter.Identity{UserID: "alice"}); err != nil {
					t.Error(err)
				}
				if _, ok := adapter.LoggedIn(c); !ok {
					t.Error("nobody is logged in after Login")
				}
				session := sessions.Default(c)
				session.Set("color", "red")
				if err := session.Save(); err != nil {
					t.Error(err)
				}
			})
			for _, user := range []string{"", "alice", "bob"} {
				b := s.NewBrowser(t, user)
				b.MustPost("/traced")
				wantWho(t, b, "alice")
				if _, color := b.Get("/get?key=color"); color != "red" {
					t.Errorf("%q: the color is %q", user, color)
				}
			}
		})
	}
}

// TestSecuritySessionPuzzlingBetweenApps: two apps share a database, and one's
// session means nothing to the other unless they share the cookie's name and its
// keys too, which is one session on purpose.
func TestSecuritySessionPuzzlingBetweenApps(t *testing.T) {
	for _, store := range signedStores {
		t.Run(store.name, func(t *testing.T) {
			shared := store.open(t)
			a := adaptertest.NewSite(t, adapter.Config{}, shared, nil)
			value := a.NewBrowser(t, "admin").Cookies()[0].Value
			for name, url := range map[string]string{
				"another name": newNamedSite(t, "sid-b", shared),
				"another key":  newNamedSite(t, "sid", cookie.NewStore([]byte("the key of app B, of 32 bytes ..."))),
			} {
				for _, as := range []string{"sid", "sid-b"} {
					b := adaptertest.NewBrowser(t, url)
					setCookie(t, b, as, value)
					if page, socket := who(t, b); page != "" || socket != "" {
						t.Errorf("%s: app A's session as %s at app B: the page says %q, the socket %q", name, as, page, socket)
					}
				}
				own := adaptertest.NewBrowser(t, url)
				own.MustPost("/login?user=bob")
				wantWho(t, own, "bob")
			}
		})
	}
}

// newNamedSite is an app whose session's cookie has the given name, and returns
// its URL.
func newNamedSite(t *testing.T, name string, st sessions.Store) string {
	t.Helper()
	srv, err := adapter.New(adapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	srv.Use(sessions.Sessions(name, srv.Store(st)))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id, ok := adapter.LoggedIn(c)
		if !ok {
			return nil, nil
		}
		return &id, nil
	})
	adapter.Handle(srv, "me", func(_ context.Context, sock *adapter.Socket, _ any) (string, error) {
		return sock.Identity().UserID, nil
	})
	e := gin.New()
	srv.Mount(e)
	pages := e.Group("/", srv.HTTP()...)
	pages.POST("/login", func(c *gin.Context) {
		if err := srv.Login(c, adapter.Identity{UserID: c.Query("user")}); err != nil {
			t.Error(err)
		}
	})
	pages.GET("/me", func(c *gin.Context) {
		if id, ok := adapter.IdentityOf(c); ok {
			c.String(http.StatusOK, id.UserID)
			return
		}
		c.Status(http.StatusUnauthorized)
	})
	return adaptertest.Serve(t, e)
}

// TestSecurityCookieTossing: a page of a neighbouring sub-domain plants its own
// session into the victim's browser, with the sockets' path, so that it comes
// first there and the pages know nothing of it (RFC 6265, sections 5.4 and 8.6).
func TestSecurityCookieTossing(t *testing.T) {
	for _, store := range signedStores {
		t.Run(store.name, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, store.open(t), nil)
			value := func(b *adaptertest.Browser) string { return "sid=" + b.Cookies()[0].Value }
			victim, mallory := value(s.NewBrowser(t, "alice")), value(s.NewBrowser(t, "mallory"))
			again, visitor := value(s.NewBrowser(t, "alice")), s.NewBrowser(t, "")
			visitor.MustPost("/set?key=color&value=red")
			for _, tt := range []struct {
				name, cookies string
				want          int // 200 is let in
				message       string
			}{
				{"in front", mallory + "; " + victim, 400, "two people"},
				{"behind", victim + "; " + mallory, 400, "two people"},
				{"on both sides", mallory + "; " + victim + "; " + mallory, 400, "two people"},
				{"among others", "theme=dark; " + victim + "; theme=light; " + mallory, 400, "two people"},
				{"hidden by many", victim + "; sid=1; sid=2; sid=3; sid=4; " + mallory, 400, "each cookie once"},
				{"twice the same", victim + "; " + victim, 200, ""},
				{"two sessions of one person", victim + "; " + again, 200, ""},
				{"a leftover of nobody", victim + "; sid=leftover", 200, ""},
				{"a visitor's", victim + "; " + value(visitor), 200, ""},
				{"another cookie twice", victim + "; theme=dark; theme=light", 200, ""},
			} {
				t.Run(tt.name, func(t *testing.T) {
					b := adaptertest.NewBrowser(t, s.URL)
					header := http.Header{"Cookie": {tt.cookies}}
					if status, body, _ := engineDo(t, b, "GET", enginePath, "", header); status != tt.want || !strings.Contains(body, tt.message) {
						t.Errorf("polling: %d %s, want %d", status, body, tt.want)
					}
					for _, path := range []string{ws, "/socket.io/?EIO=4&transport=websocket"} {
						_, resp, err := b.TryDial(path, header)
						if (err == nil) != (tt.want == 200) || err != nil && resp.StatusCode != tt.want {
							t.Errorf("%s: %v, want %d", path, err, tt.want)
						}
					}
				})
			}
		})
	}
}

// TestSecurityPlantedVisitor: over https, a neighbour's page cannot have a login
// take the attacker's socket along, not even from the same address, as behind a
// proxy that does not tell addresses: it can plant no cookie with the prefix.
func TestSecurityPlantedVisitor(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) { s.Server.AllowAnonymous() })
	visit := func() (c *adaptertest.Conn, link string) {
		c, resp, err := s.NewBrowser(t, "").TryDial(ws, http.Header{"X-Forwarded-Proto": {"https"}})
		if err != nil {
			t.Fatal(err)
		}
		set := resp.Cookies()
		if len(set) != 1 || set[0].Name != "__Host-usher-visitor" || !set[0].Secure || set[0].Path != "/" || set[0].Domain != "" {
			t.Fatalf("Set-Cookie %v, want one that only the host can set", set)
		}
		return c, set[0].Value
	}
	foreign, planted := visit()
	own, link := visit()
	header := http.Header{"X-Forwarded-Proto": {"https"}, "Cookie": {"usher-visitor=" + planted + "; __Host-usher-visitor=" + link}}
	if resp, body := send(t, s.NewBrowser(t, ""), "POST", "/login?user=bob", "", header); resp.StatusCode != http.StatusOK {
		t.Fatalf("login: %s %s", resp.Status, body)
	}
	become(t, own, "bob")
	if f := foreign.Call("me", nil); string(f.Data) != `""` {
		t.Errorf("the attacker's socket is that of %s", f.Data)
	}
}

// TestSecurityForgedCookie: whatever a cookie has become on its way, or was from
// the beginning, it opens no session but its own.
func TestSecurityForgedCookie(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, store := range signedStores {
		t.Run(store.name, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, store.open(t), nil)
			stranger := adaptertest.NewSite(t, adapter.Config{}, cookie.NewStore([]byte("somebody else's key, 32 bytes ...")), nil)
			good := s.NewBrowser(t, "alice").Cookies()[0].Value
			forged := map[string]string{
				"empty":            "",
				"a space":          `" "`,
				"not base64":       "%%%",
				"unsigned":         base64.URLEncoding.EncodeToString([]byte("1|alice|")),
				"another key":      stranger.NewBrowser(t, "alice").Cookies()[0].Value,
				"doubled":          good + good,
				"with something":   good + "A",
				"4 KiB":            strings.Repeat("A", 4<<10),
				"32 KiB":           good + strings.Repeat("A", 32<<10),
				"more than a head": strings.Repeat("A", 100<<10),
			}
			for n := range len(good) {
				forged[fmt.Sprintf("cut to %d", n)] = good[:n]
				b := []byte(good)
				b[n] = alphabet[(max(strings.IndexByte(alphabet, b[n]), 0)+32)%64] // a bit that counts, also at the end
				forged[fmt.Sprintf("another bit at %d", n)] = string(b)
			}
			b := adaptertest.NewBrowser(t, s.URL)
			if _, _, err := b.TryDial(ws, http.Header{"Cookie": {"sid=" + good}}); err != nil {
				t.Fatalf("the true one: %v", err)
			}
			for name, value := range forged {
				header := http.Header{"Cookie": {"sid=" + value}}
				want := http.StatusUnauthorized
				if len(value) > 64<<10 {
					want = http.StatusBadRequest // a socket does not keep as much
				}
				if _, resp, err := b.TryDial(ws, header); err == nil || resp.StatusCode != want {
					t.Errorf("%s: a socket was answered %v, want %d", name, err, want)
				}
				if status, body, _ := engineDo(t, b, "GET", "/me", "", header); status != http.StatusUnauthorized {
					t.Errorf("%s: a page was answered %d %s, want 401", name, status, body)
				}
			}
		})
	}
}

// TestSecurityRotatedSecret: a session that was signed with the key before goes
// on, and ends when that key is taken away.
func TestSecurityRotatedSecret(t *testing.T) {
	old, fresh := []byte("the secret of before, 32 bytes ..."), []byte("the secret of now, of 32 bytes ...")
	site := func(keys ...[]byte) *adaptertest.Site {
		st := cookie.NewStore(keys...)
		st.Options(sessions.Options{Path: "/", MaxAge: 3600})
		return adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, st, nil)
	}
	value := site(old).NewBrowser(t, "alice").Cookies()[0].Value

	rotated := site(fresh, nil, old, nil)
	b := adaptertest.NewBrowser(t, rotated.URL)
	setCookie(t, b, "sid", value)
	wantWho(t, b, "alice")
	b.MustPost("/set?key=color&value=red") // signs with the new key
	renewed := b.Cookies()[0].Value
	if renewed == value {
		t.Fatal("the session has not been signed again")
	}

	removed := site(fresh)
	for cookie, want := range map[string]string{value: "", renewed: "alice"} {
		b := adaptertest.NewBrowser(t, removed.URL)
		setCookie(t, b, "sid", cookie)
		wantWho(t, b, want)
	}
}

// setCookie puts a cookie into b's jar.
func setCookie(t *testing.T, b *adaptertest.Browser, name, value string) {
	t.Helper()
	u, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	b.HTTP.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}
