package adapter_test

import (
	"net/http"
	"sync"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestLogoutWithTheCookieBefore: a logout that was sent before the browser had the
// cookie of a login on another page shows the session that this one has replaced.
// Who logs out does not stay logged in; but from elsewhere comes who has planted
// that session, and has no say.
func TestLogoutWithTheCookieBefore(t *testing.T) {
	for _, st := range raceStores {
		for _, path := range []string{"/logout", "/delete"} {
			t.Run(st.name+path, func(t *testing.T) {
				s := adaptertest.NewSite(t, adapter.Config{}, st.open(t), nil)
				s.Pages.POST("/delete", func(c *gin.Context) { // as apps log out that know nothing else
					session := sessions.Default(c)
					session.Clear()
					session.Options(sessions.Options{Path: "/", MaxAge: -1})
					if err := session.Save(); err != nil {
						t.Error(err)
					}
				})
				alice := s.NewBrowser(t, "alice")
				before := alice.Clone()
				alice.MustPost("/login?user=alice")
				alice.MustPost("/login?user=alice")
				c := alice.Dial(ws)

				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("X-Forwarded-For", "203.0.113.66")
				resp, err := before.Clone().HTTP.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				wantUser(t, "alice", alice)
				c.Must("me", nil, nil)

				before.MustPost(path)
				wantNobody(t, "alice, after a logout with the cookie before", alice)
				if code := c.Closed(); code != 4409 {
					t.Errorf("closed with %d, want 4409", code)
				}
			})
		}
	}
}

// A slowDeletion is a store whose deletions wait for a gate.
type slowDeletion struct {
	sessions.Store
	gate *adaptertest.Gate
}

func (s *slowDeletion) Save(r *http.Request, w http.ResponseWriter, session *gsessions.Session) error {
	if session.Options.MaxAge < 0 {
		s.gate.Pass()
	}
	return s.Store.Save(r, w, session)
}

// TestLogoutDoesNotWaitForTheStore: a socket went on for as long as the database took
// to delete its session, while pages refused it already.
func TestLogoutDoesNotWaitForTheStore(t *testing.T) {
	gate := adaptertest.NewGate()
	defer gate.Open()
	s := adaptertest.NewSite(t, adapter.Config{}, &slowDeletion{newMemstore(t), gate}, nil)
	alice := s.NewBrowser(t, "alice")
	c := alice.Dial(ws)
	var logout sync.WaitGroup
	logout.Go(func() { alice.Post("/logout", nil) })
	<-gate.Entered
	if code := c.Closed(); code != 4409 {
		t.Errorf("closed with %d, want 4409", code)
	}
	gate.Open()
	logout.Wait()
}
