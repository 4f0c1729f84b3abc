package adapter_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// TestSecuritySlowPost: a body that never ends holds nothing for longer than a
// client may be silent (slowloris, CWE-400).
func TestSecuritySlowPost(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		body, slowly := io.Pipe()
		began := time.Now()
		answer := b.send(context.Background(), "POST", sid, body)
		go func() {
			for range 1000 { // a byte a second
				if _, err := slowly.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		p := <-answer
		_ = body.Close()
		if took := p.at.Sub(began); p.status == http.StatusOK || took > 46*time.Second {
			t.Errorf("answered %v after %v, want an error after 45s", p, took)
		}
		b.wantUnknown(sid)
	})
}
