package adapter_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

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
