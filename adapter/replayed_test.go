package adapter_test

import (
	"context"
	"encoding/gob"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestHandlersSeeWhatAReplayHasLeft: what a middleware of Use has left at the
// handshake was seen for as long as the socket lived, and a guard that goes by it let
// an admin of yesterday in. What UseOnce has left stays: it is not asked again.
func TestHandlersSeeWhatAReplayHasLeft(t *testing.T) {
	changed := make(chan struct{}, 10)
	var asked atomic.Int32
	s := openSite(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
		srv.UseOnce(func(c *gin.Context) { c.Set("request", asked.Add(1)) })
		srv.Use(func(c *gin.Context) {
			if role, ok := sessions.Default(c).Get("role").(string); ok && role != "" {
				c.Set("role", role)
			}
		})
		srv.UseOnce(func(c *gin.Context) {
			if asked.Load() > 0 {
				c.Set("request again", asked.Load())
			}
		})
		srv.OnIdentity(func(ctx context.Context, _ *adapter.Socket, _ *adapter.Identity) error {
			changed <- struct{}{}
			return nil
		})
		adapter.Handle(srv, "left", func(ctx context.Context, s *adapter.Socket, key string) ([]any, error) {
			value, _ := s.Get(key)
			return []any{value, ctx.Value(key)}, nil
		})
		adapter.On(srv, "drop", func(context.Context, *adapter.Socket, any) error { return nil }, adapter.Wrap(func(c *gin.Context) {
			if c.GetString("role") != "admin" {
				c.AbortWithStatus(http.StatusForbidden)
			}
		}))
	})
	alice := s.NewBrowser(t, "alice")
	alice.MustPost("/set?key=role&value=admin")
	for _, tr := range adaptertest.Transports {
		t.Run(string(tr), func(t *testing.T) {
			alice.MustPost("/set?key=role&value=admin")
			c := alice.Connect(adaptertest.Way{Transport: tr})
			c.Must("drop", nil, nil)
			request := asked.Load()
			alice.MustPost("/set?key=role&value=")
			<-changed
			if f := c.Call("drop", nil); f.Error == nil || f.Error.Code != adapter.CodeForbidden {
				t.Errorf("who is no admin any more drops: %s", f)
			}
			for key, want := range map[string]any{"role": nil, "request": float64(request), "request again": float64(request)} {
				var got []any
				if c.Must("left", key, &got); len(got) != 2 || got[0] != want || got[1] != want {
					t.Errorf("%q = %v, want %v twice", key, got, want)
				}
			}
		})
	}
}

// TestSocketsWithOtherCookiesAreOthers: sockets of one session that were opened with
// another cookie each, of a tenant for one, were replayed as if they were alike, and
// all became who the first of them was.
func TestSocketsWithOtherCookiesAreOthers(t *testing.T) {
	st := newLedger(time.Hour)
	inBubble(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
		srv.Use(sessions.Sessions("sid", srv.Store(st)))
		srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
			id, _ := adapter.LoggedIn(c)
			if tenant, _ := c.Cookie("tenant"); tenant == "own" {
				id.Roles = []string{"admin"} // there, and nowhere else
			}
			return &id, nil
		})
	}, func(t *testing.T, b *bubble) {
		cookie := st.login("a").Get("Cookie")
		b.tab(http.Header{"Cookie": {cookie + "; tenant=own"}})
		b.tab(http.Header{"Cookie": {cookie + "; tenant=other"}})
		if err := b.srv.Refresh(t.Context(), adapter.ByUser("alice")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		admins := 0
		for _, s := range b.srv.Here("/") {
			if slices.Contains(s.Identity().Roles, "admin") {
				admins++
			}
		}
		if admins != 1 {
			t.Errorf("%d sockets are an admin's, want one", admins)
		}
	})
}

// A hiccup is a store that hides that it fails, as gorm's does, and answers again a
// moment later.
type hiccup struct {
	sessions.Store
	fail atomic.Bool
}

func (h *hiccup) New(r *http.Request, name string) (*gsessions.Session, error) {
	if h.fail.CompareAndSwap(true, false) {
		session := gsessions.NewSession(h, name)
		session.IsNew, session.Options = true, &gsessions.Options{Path: "/"}
		return session, nil
	}
	return h.Store.New(r, name)
}

func (h *hiccup) Get(r *http.Request, name string) (*gsessions.Session, error) {
	return gsessions.GetRegistry(r).Get(h, name)
}

func (h *hiccup) Ping(context.Context) error {
	if h.fail.Load() {
		return errors.New("no answer")
	}
	return nil
}

// TestSilentStoreRecovers: a store that says nothing of its failure, and answers by
// the time that it is asked whether it does, made its users log out.
func TestSilentStoreRecovers(t *testing.T) {
	st := &hiccup{Store: newMemstore(t)}
	s := adaptertest.NewSite(t, adapter.Config{Revalidate: -1}, st, nil)
	alice := s.NewBrowser(t, "alice")
	c := alice.Dial(ws)
	for range 3 {
		st.fail.Store(true)
		if status, user := alice.Get("/me"); status != http.StatusOK || user != "alice" {
			t.Errorf("GET /me: %d %s", status, user)
		}
		st.fail.Store(true)
		c.Must("get", map[string]string{"key": "color"}, nil)
	}
}

type basket struct{ Items []string }

func init() { gob.Register(basket{}) }

// TestPageKeepsTheSocketsStruct: a page that changes one key put back the struct that
// a socket had written meanwhile, as it could not tell that it had not changed it.
func TestPageKeepsTheSocketsStruct(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		adapter.On(s.Server, "buy", func(ctx context.Context, sock *adapter.Socket, in string) error {
			return sock.Session().Update(ctx, func(v adapter.Values) error {
				all, _ := v["basket"].(basket)
				all.Items = append(all.Items, in)
				v["basket"] = all
				return nil
			})
		})
		adapter.Handle(s.Server, "basket", func(ctx context.Context, sock *adapter.Socket, _ any) (any, error) {
			return sock.Session().Get(ctx, "basket")
		})
	})
	alice := s.NewBrowser(t, "alice")
	c := alice.Dial(ws)
	c.Must("buy", "apple", nil)
	done := make(chan int)
	go func() {
		status, _ := alice.Post("/slow?key=theme&value=dark", nil)
		done <- status
	}()
	<-s.Slow.Entered
	c.Must("buy", "pear", nil)
	s.Slow.Release <- struct{}{}
	if status := <-done; status != http.StatusOK {
		t.Errorf("the page: %d", status)
	}
	var got basket
	if c.Must("basket", nil, &got); !slices.Equal(got.Items, []string{"apple", "pear"}) {
		t.Errorf("the basket holds %v, want the apple and the pear", got.Items)
	}
}

// TestExpiredIdentity: pages took who Identify says has expired, and sockets were
// opened for them and closed at once. It is nobody on pages, where one logs in again.
func TestExpiredIdentity(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Amend = func(id *adapter.Identity) { id.Expires = time.Now().Add(-time.Second) }
	})
	alice := s.NewBrowser(t, "alice")
	if status, user := alice.Get("/me"); status != http.StatusUnauthorized {
		t.Errorf("GET /me: %d %s, want 401", status, user)
	}
	for _, tr := range adaptertest.Transports {
		if c, refusal := alice.TryConnect(adaptertest.Way{Transport: tr}); refusal == nil || refusal.Code != adapter.CodeExpired {
			t.Errorf("%s: %v, %+v; want to be refused as expired", tr, c, refusal)
		}
	}
}
