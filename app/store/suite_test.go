package store_test

import (
	"errors"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	gorilla "github.com/gorilla/sessions"

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

// TestIdentityOverTime is the suite about what sockets see of a login. What can be
// taken away is the way to the database, which is a file.
func TestIdentityOverTime(t *testing.T) {
	open := func(t *testing.T, life time.Duration) sessions.Store {
		db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "usher.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		st := db.Sessions([]byte("0123456789abcdef0123456789abcdef"))
		st.Options(sessions.Options{Path: "/", MaxAge: int(life.Seconds())})
		return st
	}
	adaptertest.Identity(t, adaptertest.Subject{
		Open: func(t *testing.T, life time.Duration) adaptertest.Logins { return adaptertest.Stored(open(t, life)) },
		Mortal: func(t *testing.T) (l adaptertest.Logins, down, up func()) {
			st := &mortal{Store: open(t, time.Hour)}
			return adaptertest.Stored(st), func() { st.dead.Store(true) }, func() { st.dead.Store(false) }
		},
	})
}

// A mortal store can be taken away.
type mortal struct {
	sessions.Store
	dead atomic.Bool
}

var errAway = errors.New("the disk is gone")

func (m *mortal) Get(r *http.Request, name string) (*gorilla.Session, error) {
	return gorilla.GetRegistry(r).Get(m, name)
}

func (m *mortal) New(r *http.Request, name string) (*gorilla.Session, error) {
	if m.dead.Load() {
		return gorilla.NewSession(m, name), errAway
	}
	return m.Store.New(r, name)
}

func (m *mortal) Save(r *http.Request, w http.ResponseWriter, s *gorilla.Session) error {
	if m.dead.Load() {
		return errAway
	}
	return m.Store.Save(r, w, s)
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
