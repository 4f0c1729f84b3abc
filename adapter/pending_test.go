package adapter_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestSeveralNamespacesShowATokenAtOnce: a client that has waited for its login opens
// what it needs, each namespace with its token. One attempt is under way at a time, and
// the others come behind it.
func TestSeveralNamespacesShowATokenAtOnce(t *testing.T) {
	gate := adaptertest.NewGate()
	t.Cleanup(gate.Open)
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, func(s *tokenSite) {
		s.Server.Use(func(c *gin.Context) {
			if adapter.Replaying(c.Request.Context()) {
				gate.Pass()
			}
		})
	})
	for _, show := range []string{"auth", "first message"} {
		t.Run(show, func(t *testing.T) {
			w := engineDial(t, adaptertest.NewBrowser(t, s.URL), "")
			wsRead(t, w)
			granted, connect, authenticate := 0, []string{`40{"token":"alice"}`, `40/admin,{"token":"alice"}`}, []string(nil)
			if show != "auth" {
				connect = []string{"40", "40/admin,"}
				authenticate = []string{`420["authenticate","alice"]`, `42/admin,1["authenticate","alice"]`}
			}
			wsWrite(t, w, connect...)
			if show != "auth" {
				wsRead(t, w)
				wsRead(t, w)
				wsWrite(t, w, authenticate...)
			}
			for range 2 {
				<-gate.Entered
				gate.Release <- struct{}{}
			}
			for range 2 {
				if got := wsRead(t, w); strings.HasPrefix(got, `40`) || got == "430[]" || got == "43/admin,1[]" {
					granted++
				} else {
					t.Errorf("%s", got)
				}
			}
			if granted != 2 {
				t.Errorf("%d namespaces know alice, want 2", granted)
			}
		})
	}
}

// TestSecurityAttemptsAtOnce: attempts that come all at once are three as well.
func TestSecurityAttemptsAtOnce(t *testing.T) {
	var runs atomic.Int64
	srv := startBare(t, adapter.Config{Credentials: everySource}, func(srv *adapter.Server) {
		srv.Use(func(c *gin.Context) {
			if adapter.Replaying(c.Request.Context()) {
				runs.Add(1)
			}
			c.AbortWithStatus(http.StatusUnauthorized)
		})
		srv.Identify(func(*gin.Context) (*adapter.Identity, error) { return nil, nil })
		srv.Of("/room/:id")
	})
	r := gin.New()
	srv.Mount(r)
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, r))
	for range 20 {
		runs.Store(0)
		w := engineDial(t, b, "")
		wsRead(t, w)
		for i := range 50 {
			_ = w.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `40/room/%d,{"token":"guess%d"}`, i, i)) // fails once it is closed
		}
		for {
			if _, _, err := w.ReadMessage(); err != nil {
				if !websocket.IsCloseError(err, 4401) {
					t.Errorf("closed with %v, want 4401", err)
				}
				break
			}
		}
		srv.Settle()
		if n := runs.Load(); n > 3 {
			t.Fatalf("%d tokens were tried, want 3", n)
		}
	}
}

// TestWhoWaitsEndsAlone: a namespace that waits for a token ends when none comes, and
// does not take those of its connection with it that are in use: neither by its time
// nor by its bounds, whichever of them was asked for first.
func TestWhoWaitsEndsAlone(t *testing.T) {
	for _, order := range [][]string{{"40/admin,", "40"}, {"40", "40/admin,"}} {
		t.Run(strings.Join(order, " "), func(t *testing.T) {
			cfg := adapter.Config{Credentials: []adapter.Source{adapter.FirstMessage()}}
			inBubble(t, cfg, func(srv *adapter.Server) { srv.Of("/admin") }, func(t *testing.T, b *bubble) {
				w := b.dial("")
				w.next()
				w.write(order...)
				for range order {
					w.next()
				}
				w.write(`421["echo","` + strings.Repeat("x", pendingInput) + `"]`)
				if got := w.next(); !strings.HasPrefix(got, `431["xxx`) {
					t.Fatalf("echo of 4 KiB = %.100s", got)
				}
				time.Sleep(10 * time.Second)
				w.write(`421["echo",1]`)
				if order[0] != "40" {
					w.want("41/admin,")
				}
				w.want("431[1]")
			})
		})
	}
}

// pendingInput is what a connection may send before it is let in.
const pendingInput = 4 << 10

// TestSeveralNamespacesWait: a chain that names nobody lets a client show its token in
// as many namespaces as one that refuses does.
func TestSeveralNamespacesWait(t *testing.T) {
	for name, refuses := range map[string]bool{"a chain that refuses": true, "one that names nobody": false} {
		t.Run(name, func(t *testing.T) {
			cfg := adapter.Config{Credentials: []adapter.Source{adapter.FirstMessage()}}
			inBubble(t, cfg, func(srv *adapter.Server) {
				srv.Use(func(c *gin.Context) {
					if c.GetHeader("Authorization") == "" && refuses {
						c.AbortWithStatus(http.StatusUnauthorized)
					}
				})
				srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
					if c.GetHeader("Authorization") == "" {
						return nil, nil
					}
					return &adapter.Identity{UserID: "alice"}, nil
				})
				for _, n := range []string{"/a", "/b", "/c", "/d"} {
					srv.Of(n)
				}
			}, func(t *testing.T, b *bubble) {
				w := b.dial("")
				w.next()
				w.write("40/a,", "40/b,", "40/c,", "40/d,")
				for _, want := range []string{"40/a,", "40/b,", "40/c,", "44/d,"} {
					if got := w.next(); !strings.HasPrefix(got, want) {
						t.Errorf("%s, want %s…", got, want)
					}
				}
				w.write(`42/b,1["authenticate","token"]`)
				w.want("43/b,1[]")
				time.Sleep(4 * time.Second)
				w.write(`42/a,2["authenticate","token"]`)
				w.want("43/a,2[]")
				time.Sleep(4 * time.Second)
				w.want("41/c,") // it has waited for long enough, whoever else has come in
				w.write(`42/a,3["nothing"]`)
				if got := w.next(); !strings.HasPrefix(got, `43/a,3[{"error":{"code":"unknown_event"`) {
					t.Errorf("%s", got)
				}
			})
		})
	}
}

// TestAddressesOfATrustedPlatform: behind a platform that the app has named to Gin, the
// address that limits count is the one that the platform tells. What else says so is
// believed no more than anywhere.
func TestAddressesOfATrustedPlatform(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource, AuthTimeout: time.Minute}, func(s *tokenSite) {
		s.Engine.TrustedPlatform = gin.PlatformCloudflare
	})
	b := adaptertest.NewBrowser(t, s.URL)
	dial := func(name, address string) error {
		_, _, err := b.TryDial(ws, http.Header{name: {address}})
		return err
	}
	for i := range 30 {
		if err := dial("CF-Connecting-IP", fmt.Sprintf("192.0.2.%d", i)); err != nil {
			t.Fatalf("the client %d of the platform: %v", i, err)
		}
	}
	waiting := 0
	for i := range 30 {
		if dial("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", 100+i)) == nil {
			waiting++
		}
	}
	if waiting != 20 {
		t.Errorf("%d connections wait of one that is not of the platform, want 20", waiting)
	}
}

// TestWhoHasLoggedInNeedNotShowAToken: a namespace that a visitor's connection asks for
// after the login is its user's, also if it is the only one by then; it does not wait
// for a first message.
func TestWhoHasLoggedInNeedNotShowAToken(t *testing.T) {
	cfg := adapter.Config{Credentials: []adapter.Source{adapter.FirstMessage()}}
	s := openSite(t, cfg, func(srv *adapter.Server) {
		adapter.Handle(srv.Of("/admin"), "who", func(ctx context.Context, _ *adapter.Socket, _ any) (string, error) {
			id, _ := adapter.IdentityOf(ctx)
			return id.UserID, nil
		})
	})
	b := s.NewBrowser(t, "")
	b.MustPost("/set?key=color&value=red")
	w := engineDial(t, b, "")
	wsRead(t, w)
	wsWrite(t, w, "40")
	wsRead(t, w)
	b.MustPost("/login?user=alice")
	wsWrite(t, w, "41", "40/admin,")
	if got := wsRead(t, w); !strings.HasPrefix(got, "40/admin,") {
		t.Fatalf("CONNECT was answered %s", got)
	}
	wsWrite(t, w, `42/admin,7["who"]`)
	if got := wsRead(t, w); got != `43/admin,7["alice"]` {
		t.Errorf("who = %s, want alice", got)
	}
}
