package adapter_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

func TestRevokeEndsATokensSockets(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, func(s *tokenSite) {
		s.Engine.GET("/me", append(s.Server.HTTP(), func(c *gin.Context) { c.Status(http.StatusOK) })...)
	})
	b := adaptertest.NewBrowser(t, s.URL)
	open := func(token string) *adaptertest.Conn {
		c, _, err := b.TryDial(ws+"?token="+token, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Event("connect")
		return c
	}
	stolen, other := open("alice"), open("alice2")
	waiting, _, err := b.TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Server.Revoke(t.Context(), adapter.ByToken("alice")); n != 1 || err != nil {
		t.Errorf("Revoke = %d, %v; want 1", n, err)
	}
	if code := stolen.Closed(); code != 4409 {
		t.Errorf("closed with %d, want 4409", code)
	}
	other.Must("me", nil, new(string))
	if _, resp, err := b.TryDial(ws+"?token=alice", nil); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the revoked token: %v, want 401", err)
	}
	waiting.Raw(`{"type":"authenticate","token":"alice","id":1}`)
	if f := waiting.Event("reply"); f.Error == nil || f.Error.Code != adapter.CodeUnauthenticated {
		t.Errorf("the revoked token in a first message: %s", f)
	}
	r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/me", nil)
	r.Header.Set("Authorization", "Bearer alice")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a page with the revoked token: %d, want 401", resp.StatusCode)
	}
	for _, who := range []adapter.Who{{}, adapter.ByUser(""), adapter.ByToken("")} {
		if _, err := s.Server.Revoke(t.Context(), who); err == nil {
			t.Errorf("Revoke of %v: no error", who)
		}
		if err := s.Server.Refresh(t.Context(), who); err == nil {
			t.Errorf("Refresh of %v: no error", who)
		}
	}
}

// TestRevokeWhileTheHandshakeRuns: who is let in by a chain that began before
// does not stay.
func TestRevokeWhileTheHandshakeRuns(t *testing.T) {
	gate := adaptertest.NewGate()
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.Use(func(c *gin.Context) {
			c.Next()
			if c.Query("slow") != "" && !adapter.Replaying(c.Request.Context()) {
				gate.Pass()
			}
		})
	})
	alice := s.NewBrowser(t, "alice")
	done := make(chan *adaptertest.Conn, 1)
	go func() {
		c, _, err := alice.TryDial(ws+"?slow=1", nil)
		if err != nil {
			t.Error(err)
		}
		done <- c
	}()
	<-gate.Entered
	if _, err := s.Server.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Error(err)
	}
	gate.Release <- struct{}{}
	if c := <-done; c != nil && c.Closed() != 4409 {
		t.Error("a socket whose handshake was under way survives")
	}
}

// TestNothingIsSavedAfterRevoke: neither by a request that has loaded the session
// before, nor by a handler that goes on.
func TestNothingIsSavedAfterRevoke(t *testing.T) {
	gate, result := adaptertest.NewGate(), make(chan error, 2)
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		adapter.On(s.Server, "stubborn", func(_ context.Context, sock *adapter.Socket, _ any) error {
			gate.Pass()
			_, err := sock.Session().Get(context.Background(), "key")
			result <- err
			result <- sock.Session().Update(context.Background(), func(adapter.Values) error { return nil })
			return nil
		})
	})
	alice := s.NewBrowser(t, "alice")
	alice.Dial(ws).Emit("stubborn", nil)
	<-gate.Entered
	late := make(chan int, 1)
	go func() {
		status, _ := alice.Post("/slow?key=k&value=v", nil)
		late <- status
	}()
	<-s.Slow.Entered
	if _, err := s.Server.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	gate.Release <- struct{}{}
	s.Slow.Release <- struct{}{}
	for _, what := range []string{"Get", "Update"} {
		if err := <-result; !errors.Is(err, adapter.ErrSessionGone) {
			t.Errorf("%s after Revoke = %v, want ErrSessionGone", what, err)
		}
	}
	if status := <-late; status != http.StatusGone {
		t.Errorf("the late save: %d, want 410", status)
	}
}

func TestRevokeForgetsWhoIsAway(t *testing.T) {
	s := newRecoverySite(t, adapter.Recovery{})
	alice := s.NewBrowser(t, "alice")
	c := dialRecovering(t, alice, "")
	c.cut(s)
	if _, err := s.Server.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Error(err)
	}
	alice.MustPost("/login?user=alice")
	if again := dialRecovering(t, alice, c.again("")); again.SID == c.SID || again.SID == "" {
		t.Errorf("after Revoke and a login: %s", again.first)
	}
}

// TestRefreshFollowsRoles: roles that are kept where the adapter cannot see them.
func TestRefreshFollowsRoles(t *testing.T) {
	roles := make(chan []string, 1)
	roles <- []string{"member"}
	srv, err := adapter.New(adapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	srv.Use(func(*gin.Context) {})
	srv.Identify(func(*gin.Context) (*adapter.Identity, error) {
		now := <-roles
		roles <- now
		return &adapter.Identity{UserID: "alice", Roles: now}, nil
	})
	changed := make(chan []string, 1)
	srv.OnIdentity(func(ctx context.Context, s *adapter.Socket, old *adapter.Identity) error {
		changed <- append(slices.Clone(old.Roles), s.Identity().Roles...)
		return nil
	})
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	srv.Mount(r)
	c := adaptertest.NewBrowser(t, adaptertest.Serve(t, r)).Dial(ws)
	t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	<-roles
	roles <- []string{"admin"}
	if err := srv.Refresh(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	if got := <-changed; !slices.Equal(got, []string{"member", "admin"}) {
		t.Errorf("roles before and after: %v", got)
	}
	c.Close()
}

// TestLoginsAfterRevoke: also in the place of a session that Revoke has ended by
// its user, of two logins the last one counts.
func TestLoginsAfterRevoke(t *testing.T) {
	for _, st := range signedStores {
		t.Run(st.name, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{}, st.open(t), nil)
			first := s.NewBrowser(t, "alice")
			if _, err := s.Server.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
				t.Fatal(err)
			}
			second := first.Clone() // the same browser, whose answer comes second
			first.MustPost("/login?user=alice")
			wantWho(t, first, "alice")
			second.MustPost("/login?user=bob")
			wantWho(t, first, "")
			wantWho(t, second, "bob")
		})
	}
}
