package adapter_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// An unsureStore is one whose database has written what it is asked to, and answers
// too late: a save fails, and its row is there.
type unsureStore struct {
	sessions.Store
	late func(id string) // what happens before; nil is a save like others
}

func (s *unsureStore) Save(r *http.Request, w http.ResponseWriter, session *gsessions.Session) error {
	late := s.late
	if late == nil || session.Options.MaxAge < 0 {
		return s.Store.Save(r, w, session)
	}
	s.late = nil
	late(session.ID)
	if err := s.Store.Save(r, w, session); err != nil {
		return err
	}
	return context.DeadlineExceeded
}

// TestFailedSaveBringsNothingBack: a save that meets the end of its session and fails
// may have been written. It was left there, valid again after a restart.
func TestFailedSaveBringsNothingBack(t *testing.T) {
	store := &unsureStore{Store: newMemstore(t)}
	quiet := adapter.Config{Logger: slog.New(slog.DiscardHandler)}
	s := adaptertest.NewSite(t, quiet, store, func(s *adaptertest.Site) {
		adapter.On(s.Server, "save", func(ctx context.Context, sock *adapter.Socket, _ any) error {
			err := sock.Session().Update(ctx, func(v adapter.Values) error { v["color"] = "blue"; return nil })
			if !errors.Is(err, adapter.ErrSessionGone) {
				t.Errorf("the socket's save: %v, want ErrSessionGone", err)
			}
			return nil
		})
	})
	s.Pages.POST("/save", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set("color", "blue")
		if err := session.Save(); !errors.Is(err, adapter.ErrSessionGone) {
			t.Errorf("the page's save: %v, want ErrSessionGone", err)
		}
	})
	revoke := func(id string) {
		if _, err := s.Server.Revoke(context.Background(), adapter.BySession(id)); err != nil {
			t.Error(err)
		}
	}
	before := make(map[string]*adaptertest.Browser)

	b := s.NewBrowser(t, "alice")
	before["a page"] = b.Clone()
	store.late = revoke
	b.MustPost("/save")

	b = s.NewBrowser(t, "alice")
	before["a socket"] = b.Clone()
	c := b.Dial(ws)
	store.late = revoke
	c.Emit("save", nil)
	c.Closed()
	if err := s.Server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = adaptertest.NewSite(t, quiet, store, nil)
	for who, b := range before {
		wantNobody(t, "alice, whose session "+who+" has saved", b.At(s))
	}
}
