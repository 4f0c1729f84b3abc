package store_test

import (
	"path/filepath"
	"testing"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/app/store"
)

// TestSessionsUnderTheAdapter is the suite that every session store of a
// socket has to pass.
func TestSessionsUnderTheAdapter(t *testing.T) {
	adaptertest.Sessions(t, func(t *testing.T) sessions.Store {
		db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "usher.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		return db.Sessions([]byte("0123456789abcdef0123456789abcdef"))
	}, false)
}
