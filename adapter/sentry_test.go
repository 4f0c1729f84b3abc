package adapter_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// TestSecurityRoleTakenWhileAHandlerWaits: who kept a handler waiting for an answer
// stayed in a namespace of admins, and was sent what they are sent, for as long as they
// liked after they had ceased to be one: guards were asked when the handler was through.
func TestSecurityRoleTakenWhileAHandlerWaits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		guard adapter.Guard
		code  int
	}{
		{"Role", adapter.Role("admin"), 4403},
		{"panics", func(ctx context.Context, _ *adapter.Socket) error {
			if id, _ := adapter.IdentityOf(ctx); id.Roles[0] != "admin" {
				panic("a guest")
			}
			return nil
		}, 1013},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var role atomic.Value
			role.Store("admin")
			inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
				srv.Identify(func(*gin.Context) (*adapter.Identity, error) {
					return &adapter.Identity{UserID: "mallory", Roles: []string{role.Load().(string), "member"}}, nil
				})
				srv.Require(tt.guard)
				adapter.On(srv, "stall", func(ctx context.Context, s *adapter.Socket, _ any) error {
					_, err := adapter.Call[int](ctx, s, "really?")
					return err
				})
			}, func(t *testing.T, b *bubble) {
				stalls, other := b.tab(http.Header{}), b.tab(http.Header{})
				stalls.write(`{"type":"stall"}`)
				<-stalls.frames
				role.Store("guest")
				if err := b.srv.Refresh(t.Context(), adapter.ByUser("mallory")); err != nil {
					t.Fatal(err)
				}
				for _, c := range []*tab{other, stalls} {
					if err := <-c.ended; !websocket.IsCloseError(err, tt.code) {
						t.Errorf("ended with %v, want %d", err, tt.code)
					}
				}
			})
		})
	}
}

// TestRoleGivenWhileAHandlerWaits: who may stay does, and OnIdentity waits for its turn.
func TestRoleGivenWhileAHandlerWaits(t *testing.T) {
	var role atomic.Value
	role.Store("admin")
	var told atomic.Int32
	inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.Identify(func(*gin.Context) (*adapter.Identity, error) {
			return &adapter.Identity{UserID: "alice", Roles: []string{role.Load().(string), "member"}}, nil
		})
		srv.Require(adapter.Role("member"))
		srv.OnIdentity(func(context.Context, *adapter.Socket, *adapter.Identity) error {
			told.Add(1)
			return nil
		})
		adapter.On(srv, "wait", func(ctx context.Context, s *adapter.Socket, _ any) error {
			_, err := adapter.Call[int](ctx, s, "really?")
			return err
		})
	}, func(t *testing.T, b *bubble) {
		c := b.tab(http.Header{})
		c.write(`{"type":"wait","id":7}`)
		asked := <-c.frames
		role.Store("owner")
		if err := b.srv.Refresh(t.Context(), adapter.ByUser("alice")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if n := told.Load(); n != 0 {
			t.Errorf("OnIdentity was told %d times while a handler runs", n)
		}
		c.write(`{"type":"reply",` + asked[len(`{"type":"really?",`):len(asked)-1] + `,"data":1}`)
		if got := <-c.frames; got != `{"type":"reply","id":7}` {
			t.Errorf("got %s", got)
		}
		c.echo()
		if n := told.Load(); n != 1 {
			t.Errorf("OnIdentity was told %d times, want once", n)
		}
	})
}
