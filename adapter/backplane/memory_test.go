package backplane_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gin-usher/usher/adapter/backplane"
	"github.com/gin-usher/usher/adapter/backplane/backplanetest"
)

// TestMain fails when a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	backplanetest.Run(t, func(*testing.T) []backplane.Backplane {
		bus := new(backplane.Memory)
		return []backplane.Backplane{bus.Node(), bus.Node(), bus.Node()}
	})
}

// TestMemoryEndsAreForOneServer: an end that two servers shared would deliver to
// the first of them only.
func TestMemoryEndsAreForOneServer(t *testing.T) {
	end := new(backplane.Memory).Node()
	t.Cleanup(func() { _ = end.Close() })
	if err := end.Subscribe("a", func(*backplane.Message) {}); err != nil {
		t.Fatal(err)
	}
	if err := end.Subscribe("b", func(*backplane.Message) {}); err == nil {
		t.Error("a second subscription: no error")
	}
}
