package adapter_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestAttemptsThatCannotBeCheckedAreNotCounted: while nobody can say whose a token
// is, showing it is not a failure of the client's. It may try again, whether it
// waits or replaces the token of a socket that is open.
func TestAttemptsThatCannotBeCheckedAreNotCounted(t *testing.T) {
	var down atomic.Bool
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, func(s *tokenSite) {
		s.Server.Use(func(c *gin.Context) {
			if down.Load() && !c.IsAborted() {
				_ = c.AbortWithError(http.StatusServiceUnavailable, errors.New("no database"))
			}
		})
	})
	b := adaptertest.NewBrowser(t, s.URL)
	for name, query := range map[string]string{"open": "?token=alice", "waiting": ""} {
		t.Run(name, func(t *testing.T) {
			down.Store(false)
			c, _, err := b.TryDial(ws+query, nil)
			if err != nil {
				t.Fatal(err)
			}
			authenticate := func(token, code string) {
				t.Helper()
				c.Raw(`{"type":"authenticate","token":"` + token + `","id":99}`)
				if f := c.Event("reply"); code == "" && f.Error != nil || code != "" && (f.Error == nil || f.Error.Code != code) {
					t.Errorf("authenticate: %s, want the code %q", f, code)
				}
			}
			down.Store(true)
			for range 4 {
				authenticate("alice2", adapter.CodeUnavailable)
			}
			down.Store(false)
			authenticate("bad", adapter.CodeUnauthenticated)
			authenticate("alice2", "")
			c.Must("me", nil, nil)
		})
	}
	t.Run("auth payload", func(t *testing.T) {
		down.Store(false)
		w := engineDial(t, b, "")
		wsRead(t, w)
		down.Store(true)
		for range 4 {
			wsWrite(t, w, `40{"token":"alice"}`)
			if got := wsRead(t, w); !strings.HasPrefix(got, `44{"message"`) || !strings.Contains(got, adapter.CodeUnavailable) {
				t.Errorf("CONNECT was answered %s", got)
			}
		}
		down.Store(false)
		wsWrite(t, w, `40{"token":"alice"}`)
		if got := wsRead(t, w); !strings.HasPrefix(got, `40{"sid"`) {
			t.Errorf("CONNECT was answered %s", got)
		}
	})
}
