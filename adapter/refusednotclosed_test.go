package adapter_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestNobodyIsRefusedAndNotDisconnected: a replay that came between the request for a
// namespace and the answer took its socket for one that had been somebody's, and the
// client got a DISCONNECT where it waits for CONNECT_ERROR.
func TestNobodyIsRefusedAndNotDisconnected(t *testing.T) {
	var replays atomic.Int32
	other := make(chan struct{}, 10)
	s := openSite(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
		srv.Of("/members")
		srv.UseOnce(func(*gin.Context) {
			// So that the socket is looked at again, and asks again itself.
			if err := srv.Refresh(context.Background(), adapter.ByUser("carol")); err != nil {
				t.Error(err)
			}
		})
		srv.Use(func(c *gin.Context) {
			switch r := c.Request.Context(); {
			case !adapter.Replaying(r):
			case replays.Add(1)%2 == 0:
				other <- struct{}{}
			default: // the socket's own
				<-other
				select {
				case <-time.After(20 * time.Millisecond): // until what it has found is applied
				case <-r.Done():
				}
			}
		})
	})
	b := s.NewBrowser(t, "")
	b.MustPost("/set?key=color&value=blue") // a session, and nobody's
	for range 2 {
		c, refusal := b.TryConnect(adaptertest.Way{Transport: adaptertest.WebSocket, Namespace: "/members"})
		if refusal == nil || refusal.Code != adapter.CodeUnauthenticated {
			t.Fatalf("%v, %+v; want a refusal", c, refusal)
		}
	}
}
