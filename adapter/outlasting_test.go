package adapter_test

import (
	"context"
	"log/slog"
	"net/http"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A heedfulStore does nothing for requests that are over, as stores do whose
// databases take a context.
type heedfulStore struct{ sessions.Store }

func (s *heedfulStore) Save(r *http.Request, w http.ResponseWriter, session *gsessions.Session) error {
	if err := context.Cause(r.Context()); err != nil {
		return err
	}
	return s.Store.Save(r, w, session)
}

// TestEndingsOutliveWhoeverAsks: a session was left in its store, and valid again after
// a restart, where whoever ended it had gone: a browser that is closed behind its
// logout, and a socket that revokes its own session, with whose end its handler's
// context is over.
func TestEndingsOutliveWhoeverAsks(t *testing.T) {
	store := &heedfulStore{newMemstore(t)}
	quiet := adapter.Config{Logger: slog.New(slog.DiscardHandler)}
	s := adaptertest.NewSite(t, quiet, store, func(s *adaptertest.Site) {
		adapter.On(s.Server, "sign out", func(ctx context.Context, sock *adapter.Socket, _ any) error {
			if _, err := s.Server.Revoke(ctx, adapter.BySession(sock.SessionID())); err != nil {
				t.Error(err)
			}
			return nil
		})
	})
	s.Pages.POST("/leave", func(c *gin.Context) {
		ctx, cancel := context.WithCancel(c.Request.Context())
		cancel()
		c.Request = c.Request.WithContext(ctx)
		if err := s.Server.Logout(c); err != nil {
			t.Error(err)
		}
	})
	before := make(map[string]*adaptertest.Browser)
	b := s.NewBrowser(t, "alice")
	before["a page"] = b.Clone()
	b.MustPost("/leave")
	b = s.NewBrowser(t, "alice")
	before["a socket"] = b.Clone()
	c := b.Dial(ws)
	c.Emit("sign out", nil)
	c.Closed()

	if err := s.Server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = adaptertest.NewSite(t, quiet, store, nil)
	for where, b := range before {
		wantNobody(t, "alice, who has left by "+where, b.At(s))
	}
}
