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
