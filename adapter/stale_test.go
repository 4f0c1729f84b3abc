package adapter_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// TestMaxStaleIsTheBound: however a store fails, an identity that cannot be
// checked lasts for MaxStale, and neither until the next try nor until a try
// that hangs has given up.
func TestMaxStaleIsTheBound(t *testing.T) {
	const (
		fine = iota
		fails
		hangs
	)
	for _, tt := range []struct {
		name          string
		first, second int32 // what it does at once, and after half the time
	}{
		{"fails", fails, fails},
		{"hangs", hangs, hangs},
		{"fails, then hangs", fails, hangs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const maxStale = time.Minute
			var store atomic.Int32
			cfg := adapter.Config{Revalidate: -1, MaxStale: maxStale, PingInterval: time.Hour}
			inBubble(t, cfg, func(srv *adapter.Server) {
				srv.Use(func(c *gin.Context) {
					switch store.Load() {
					case fails:
						c.AbortWithStatus(http.StatusServiceUnavailable)
					case hangs:
						time.Sleep(time.Hour) // and looks at no context
					}
				})
				srv.Identify(func(*gin.Context) (*adapter.Identity, error) {
					return &adapter.Identity{UserID: "alice"}, nil
				})
			}, func(t *testing.T, b *bubble) {
				b.online()
				time.Sleep(time.Second)
				store.Store(tt.first)
				from := time.Now()
				if err := b.srv.Refresh(t.Context(), adapter.ByUser("alice")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(maxStale / 2)
				store.Store(tt.second)
				b.wantGone(adapter.ReasonStale)
				if took := time.Since(from); took < maxStale || took > maxStale+time.Second/2 {
					t.Errorf("the socket ended after %v, want %v", took, maxStale)
				}
				time.Sleep(time.Hour) // for what hangs
			})
		})
	}
}
