package adapter_test

import (
	"context"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// explosive is a value whose encoding panics, as one of an app's may.
type explosive struct{}

func (explosive) MarshalJSON() ([]byte, error) { panic("boom") }

// TestPanicWhileEncodingIsAnError: with recovery, what is emitted is encoded
// between two steps that are taken under a lock. A panic there unlocked what was
// not locked, which ends the process and cannot be recovered from.
func TestPanicWhileEncodingIsAnError(t *testing.T) {
	s := openSite(t, adapter.Config{Recovery: adapter.Recovery{Window: time.Minute}}, func(srv *adapter.Server) {
		adapter.On(srv, "all", func(_ context.Context, sock *adapter.Socket, _ any) error {
			return sock.Namespace().Emit("news", explosive{})
		})
		adapter.On(srv, "one", func(_ context.Context, sock *adapter.Socket, _ any) error {
			return sock.Emit("news", explosive{})
		})
	})
	c := s.NewBrowser(t, "alice").Dial(ws)
	for _, event := range []string{"all", "one"} {
		if f := c.Call(event, nil); f.Error == nil || f.Error.Code != adapter.CodeInternal {
			t.Errorf("%s was answered %s, want the code %q", event, f, adapter.CodeInternal)
		}
	}
	if err := s.Server.Emit("news", "fine"); err != nil {
		t.Errorf("emit after a panic: %v", err)
	}
	c.Event("news")
}
