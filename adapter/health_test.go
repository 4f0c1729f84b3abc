package adapter_test

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestHealthTellsOfADeadStore: one that can be asked is, of another the answers to
// visitors tell.
func TestHealthTellsOfADeadStore(t *testing.T) {
	loud := &mortalStore{Store: newMemstore(t)}
	silent := &silentStore{mortalStore{Store: newMemstore(t)}}
	for _, tt := range []struct {
		name  string
		store sessions.Store
		dead  *atomic.Bool
		asked bool
	}{{"by its errors", loud, &loud.dead, false}, {"by its ping", silent, &silent.dead, true}} {
		t.Run(tt.name, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{Revalidate: -1, Logger: quick.Logger}, tt.store, nil)
			alice := s.NewBrowser(t, "alice")
			healthy := func(when string) {
				t.Helper()
				if err := s.Server.Health(t.Context()); err != nil {
					t.Errorf("Health %s: %v", when, err)
				}
			}
			healthy("at first")
			tt.dead.Store(true)
			if !tt.asked {
				healthy("before anybody has noticed")
			}
			if _, resp, err := alice.TryDial(ws, nil); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("a handshake while the store is dead: %v, want 503", err)
			}
			if err := s.Server.Health(t.Context()); !errors.Is(err, errDead) {
				t.Errorf("Health while the store is dead: %v, want %v", err, errDead)
			}
			tt.dead.Store(false)
			alice.Dial(ws).Must("me", nil, nil)
			healthy("when the store is back")
		})
	}
}
