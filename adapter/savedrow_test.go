package adapter_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/gin-contrib/sessions"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A heldStore lets one save wait at a gate, right before it writes.
type heldStore struct {
	sessions.Store
	armed atomic.Bool
	gate  *adaptertest.Gate
}

func (s *heldStore) Save(r *http.Request, w http.ResponseWriter, session *gsessions.Session) error {
	if session.Options.MaxAge >= 0 && s.armed.CompareAndSwap(true, false) {
		s.gate.Pass()
	}
	return s.Store.Save(r, w, session)
}

// TestClusterSaveThatMeetsALogout: one node saves a session while another ends it,
// and hears of that when its row is there again. The tombstones hide the row, but
// are forgotten before it would be: it has to go.
func TestClusterSaveThatMeetsALogout(t *testing.T) {
	for _, ends := range []string{"logout", "revoke", "login"} {
		for _, saves := range []string{"page", "socket"} {
			t.Run(ends+"/"+saves, func(t *testing.T) {
				store := &heldStore{Store: newMemstore(t), gate: adaptertest.NewGate()}
				t.Cleanup(store.gate.Open)
				c := adaptertest.NewCluster(t, 2, adapter.Config{Revalidate: -1}, store, nil)
				alice := c.Sites[0].NewBrowser(t, "alice")
				there := alice.Clone().At(c.Sites[1])
				var session string
				{
					conn := alice.Dial(ws)
					session = c.Sites[0].Server.Here("/")[0].SessionID()
					conn.Close()
				}

				c.Cut(1)
				store.armed.Store(true)
				saved := make(chan string, 1)
				if saves == "page" {
					go func() {
						_, body := there.Post("/set?key=k&value=v", nil)
						saved <- body
					}()
				} else {
					conn := there.Dial(ws)
					go func() { saved <- conn.Call("set", map[string]string{"key": "k", "value": "v"}).String() }()
				}
				<-store.gate.Entered
				switch ends {
				case "logout":
					alice.MustPost("/logout")
				case "login":
					alice.MustPost("/login?user=alice")
				case "revoke":
					if _, err := c.Sites[0].Server.Revoke(t.Context(), adapter.BySession(session)); err != nil {
						t.Fatal(err)
					}
				}
				store.gate.Release <- struct{}{}
				<-saved
				c.Mend(1)
				// As it is when the tombstones are forgotten.
				later := adaptertest.NewSite(t, adapter.Config{}, store, nil)
				await(t, "the row to be gone", func() bool {
					status, _ := there.At(later).Get("/me")
					return status == http.StatusUnauthorized
				})
			})
		}
	}
}
