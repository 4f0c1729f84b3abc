package store_test

import (
	"path/filepath"
	"testing"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter"
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

// TestEndings is the suite that every adapter.Endings has to pass.
func TestEndings(t *testing.T) {
	adaptertest.Endings(t, func(t *testing.T) func() adapter.Endings {
		path := filepath.Join(t.TempDir(), "usher.db")
		return func() adapter.Endings {
			db, err := store.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
			return db.Endings()
		}
	})
}
