package adapter_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// adminsOnly is a middleware as apps write them: it goes by what the chain's own
// has left, here the token.
func adminsOnly(c *gin.Context) {
	if c.GetString("token") != "alice1" {
		c.AbortWithStatus(http.StatusForbidden)
	}
}

// TestGuardsSeeWhatTheFreshTokenSays: a client that replaces its token by one that
// may do less is asked about by the new one, also where a middleware looks at what
// the chain has left with c.Set.
func TestGuardsSeeWhatTheFreshTokenSays(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: []adapter.Source{adapter.FirstMessage()}}, func(s *tokenSite) {
		nothing := func(context.Context, *adapter.Socket, any) error { return nil }
		adapter.On(s.Server, "drop", nothing, adapter.Wrap(adminsOnly))
		adapter.Handle(s.Server, "token", func(_ context.Context, sock *adapter.Socket, _ any) (any, error) {
			token, _ := sock.Get("token")
			return token, nil
		})
		adapter.On(s.Server.Of("/admin").Require(adapter.Wrap(adminsOnly)), "drop", nothing)
	})
	dial := func(path string) *adaptertest.Conn {
		c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(path, http.Header{"Authorization": {"Bearer alice1"}})
		if err != nil {
			t.Fatal(err)
		}
		c.Next() // "connect"
		return c
	}
	t.Run("event", func(t *testing.T) {
		c := dial(ws)
		c.Must("drop", nil, nil)
		c.Raw(`{"type":"authenticate","id":99,"token":"alice2"}`)
		c.Next()
		if f := c.Call("drop", nil); f.Error == nil || f.Error.Code != adapter.CodeForbidden {
			t.Errorf("alice2 drops: %s", f)
		}
		var token string
		if c.Must("token", nil, &token); token != "alice2" {
			t.Errorf("Get says %q, want alice2", token)
		}
	})
	t.Run("namespace", func(t *testing.T) {
		c := dial(ws + "?nsp=/admin")
		c.Raw(`{"type":"authenticate","id":99,"token":"alice2"}`)
		if f := c.Next(); f.Error == nil || f.Error.Code != adapter.CodeForbidden {
			t.Errorf("alice2 in /admin: %s", f)
		}
		c.Must("drop", nil, nil) // it goes on as who it was
	})
}

// TestWrapKnowsTheEventInADerivedContext: a guard around a guard may give it a
// context of its own, with a deadline or a span. What the guard decides about is
// the same event, and not the namespace.
func TestWrapKnowsTheEventInADerivedContext(t *testing.T) {
	guard := adapter.Wrap(policy("alice CONNECT /", "alice EVENT /read"))
	timed := func(ctx context.Context, s *adapter.Socket) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return guard(ctx, s)
	}
	nothing := func(context.Context, *adapter.Socket, any) error { return nil }
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.Require(timed)
		adapter.On(srv, "read", nothing, timed)
		adapter.On(srv, "write", nothing, timed)
	})
	c := s.NewBrowser(t, "alice").Dial(ws)
	c.Must("read", nil, nil)
	if f := c.Call("write", nil); f.Error == nil || f.Error.Code != "policy" {
		t.Errorf("write was answered %s, want the code policy", f)
	}
}
