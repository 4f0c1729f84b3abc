package adapter_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestSecurityRevokedTokenRespaced: however a client writes its Authorization,
// the token is the same one, and its sockets end when it is revoked, however who
// revokes it writes it.
func TestSecurityRevokedTokenRespaced(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Revalidate: -1}, nil)
	spellings := []string{"Bearer alice", "bearer alice", "BEARER alice", "Bearer  alice", "bEaReR    alice", "Bearer alice  ", "Bearer \talice"}
	var open []*adaptertest.Conn
	for _, spelling := range spellings {
		c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, http.Header{"Authorization": {spelling}})
		if err != nil {
			t.Fatalf("%q: %v", spelling, err)
		}
		var me string
		if c.Must("me", nil, &me); me != "alice" {
			t.Errorf("%q is %q, want alice", spelling, me)
		}
		open = append(open, c)
	}
	if n, err := s.Server.Revoke(t.Context(), adapter.ByToken("bearer  alice")); n != len(spellings) || err != nil {
		t.Errorf("Revoke = %d, %v; want %d sockets", n, err, len(spellings))
	}
	for i, c := range open {
		if code := c.Closed(); code < 4400 {
			t.Errorf("%q: closed with %d", spellings[i], code)
		}
		if _, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, http.Header{"Authorization": {spellings[i]}}); err == nil {
			t.Errorf("%q is let in after Revoke", spellings[i])
		}
	}
}

// TestSecurityRevokedTokenWithoutItsScheme: many middlewares take what is left when
// "Bearer" is taken away, if it is there, or the last word. A token that they take
// is revoked in that spelling too, on pages and sockets.
func TestSecurityRevokedTokenWithoutItsScheme(t *testing.T) {
	srv := startBare(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
		srv.Use(func(c *gin.Context) {})
		srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
			words := strings.Fields(c.GetHeader("Authorization"))
			if len(words) == 0 {
				return nil, nil
			}
			return &adapter.Identity{UserID: words[len(words)-1]}, nil
		})
		adapter.On(srv, "do", func(context.Context, *adapter.Socket, any) error { return nil })
	})
	r := gin.New()
	srv.Mount(r)
	r.Group("/", srv.HTTP()...).GET("/me", func(c *gin.Context) {
		if _, ok := adapter.IdentityOf(c); !ok {
			c.Status(http.StatusUnauthorized)
		}
	})
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, r))
	for _, header := range []string{"alice", "Bearer\talice", "bearer \t alice"} {
		h := http.Header{"Authorization": {header}}
		c, _, err := b.TryDial(ws, h)
		if err != nil {
			t.Fatalf("%q: %v", header, err)
		}
		defer c.Close()
	}
	if n, err := srv.Revoke(t.Context(), adapter.ByToken("alice")); n != 3 || err != nil {
		t.Errorf("Revoke = %d, %v; want 3 sockets", n, err)
	}
	for _, header := range []string{"alice", "Bearer\talice", "bearer \t alice", "Bearer alice"} {
		h := http.Header{"Authorization": {header}}
		if _, resp, err := b.TryDial(ws, h); err == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%q opens a socket after Revoke: %v", header, err)
		}
		if status, _, _ := engineDo(t, b, "GET", "/me", "", h); status != http.StatusUnauthorized {
			t.Errorf("%q on a page after Revoke: %d, want 401", header, status)
		}
	}
}

// TestSecurityTokenMovedByAMiddleware: many middlewares move a token from a cookie
// into Authorization, where the next one looks. Whoever shows another cookie is asked
// about by that cookie, and not by what was moved at the handshake.
func TestSecurityTokenMovedByAMiddleware(t *testing.T) {
	requestID := func(c *gin.Context) { c.Request.Header.Set("X-Request-Id", "7") }
	for name, use := range map[string]func(*adapter.Server, gin.HandlerFunc){
		"alone": func(srv *adapter.Server, mw gin.HandlerFunc) { srv.Use(mw) },
		"among those of UseOnce": func(srv *adapter.Server, mw gin.HandlerFunc) {
			srv.UseOnce(requestID)
			srv.Use(mw)
			srv.UseOnce(requestID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := startBare(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
				use(srv, func(c *gin.Context) {
					if token, err := c.Cookie("jwt"); err == nil && c.GetHeader("X-Token") == "" && c.GetHeader("Authorization") == "" {
						c.Request.Header.Set("Authorization", "Bearer "+token)
						c.Request.Header.Set("X-Token", token)
					}
				})
				identifyByToken(srv)
			})
			r := gin.New()
			srv.Mount(r)
			b := adaptertest.NewBrowser(t, adaptertest.Serve(t, r))
			cookie := func(v string) http.Header { return http.Header{"Cookie": {v}} }
			_, open, _ := engineDo(t, b, "GET", enginePath, "", cookie("jwt=alice"))
			path := enginePath + "&sid=" + open[strings.Index(open, `:"`)+2:strings.Index(open, `",`)]
			for _, tt := range []struct {
				cookies string
				status  int
			}{
				{"jwt=alice", 200},
				{"jwt=mallory", 403},
				{"jwt=alice2", 200}, // a fresh one of the same user
				{"jwt=mallory", 403},
				{"theme=dark", 403},
			} {
				if status, body, _ := engineDo(t, b, "POST", path, "6", cookie(tt.cookies)); status != tt.status {
					t.Errorf("a POST with %s on a connection of alice: %d %s, want %d", tt.cookies, status, body, tt.status)
				}
			}
			if _, resp, err := b.TryDial(ws, cookie("jwt=mallory; jwt=alice")); err == nil || resp.StatusCode != http.StatusBadRequest {
				t.Errorf("cookies that name two people: %v, want 400", err)
			}
		})
	}
}

// identifyByToken knows people by the token that they show in Authorization.
func identifyByToken(srv *adapter.Server) {
	srv.Use(func(c *gin.Context) {
		token, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
		if !ok {
			c.AbortWithStatus(http.StatusUnauthorized)
			return
		}
		c.Set("token", token)
	})
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		return &adapter.Identity{UserID: strings.TrimRight(c.GetString("token"), "0123456789")}, nil
	})
	adapter.On(srv, "do", func(context.Context, *adapter.Socket, any) error { return nil })
}

// TestReplaysShowWhatTheClientHasSent: a middleware of Use that takes the token away,
// so that nobody logs it, or rewrites the path, finds the one and the other again in
// each replay. What those of UseOnce have done is there, as they are not asked again.
func TestReplaysShowWhatTheClientHasSent(t *testing.T) {
	replayed := make(chan string, 1)
	srv := startBare(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
		srv.UseOnce(func(c *gin.Context) {
			if ticket := c.GetHeader("X-Ticket"); ticket != "" { // good for one time
				c.Request.Header.Del("X-Ticket")
				c.Request.Header.Set("Authorization", "Bearer "+ticket)
			}
			c.Request.Header.Del("X-Trusted")
		})
		srv.Use(func(c *gin.Context) {
			if adapter.Replaying(c.Request.Context()) {
				replayed <- c.GetHeader("X-Trusted") + c.GetHeader("X-Ticket") + c.Request.URL.Path
			}
		})
		identifyByToken(srv)
		srv.Use(func(c *gin.Context) {
			c.Request.Header.Del("Authorization")
			c.Request.URL.Path = "/v1" + c.Request.URL.Path
		})
	})
	r := gin.New()
	srv.Mount(r)
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, r))
	for user, header := range map[string]http.Header{
		"alice": {"Authorization": {"Bearer alice"}, "X-Trusted": {"yes"}},
		"bob":   {"X-Ticket": {"bob"}, "X-Trusted": {"yes"}},
	} {
		c, _, err := b.TryDial(ws, header)
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Refresh(t.Context(), adapter.ByUser(user)); err != nil {
			t.Fatal(err)
		}
		if got := <-replayed; got != "/socket.io/ws" {
			t.Errorf("%v: the replay was shown %q", header, got)
		}
		c.Must("do", nil, nil)
		if n, err := srv.Revoke(t.Context(), adapter.ByToken(user)); n != 1 || err != nil {
			t.Errorf("%v: Revoke = %d, %v; want 1 socket", header, n, err)
		}
	}
}
