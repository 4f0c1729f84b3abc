package adapter_test

import (
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-contrib/sessions/memstore"

	"github.com/gin-usher/usher/adapter/adaptertest"
)

var storeKey = []byte("0123456789abcdef0123456789abcdef")

func newMemstore(t *testing.T) sessions.Store {
	t.Helper()
	st := memstore.NewStore(storeKey)
	st.Options(sessions.Options{Path: "/", MaxAge: 3600})
	return st
}

func newCookieStore(t *testing.T) sessions.Store {
	t.Helper()
	st := cookie.NewStore(storeKey)
	st.Options(sessions.Options{Path: "/", MaxAge: 3600})
	return st
}

// subject is a store of gin-contrib for the suite about identity. What can be
// taken away is the way to it: neither has a database.
func subject(open func(*testing.T) sessions.Store, inCookie bool) adaptertest.Subject {
	lasting := func(t *testing.T, life time.Duration) sessions.Store {
		st := open(t)
		st.Options(sessions.Options{Path: "/", MaxAge: int(life.Seconds())})
		// Options are the browser's; what is signed is believed for as long as
		// the codec says, 30 days if nobody does.
		st.(interface{ MaxAge(seconds int) }).MaxAge(int(life.Seconds()))
		return st
	}
	return adaptertest.Subject{
		Open: func(t *testing.T, life time.Duration) adaptertest.Logins {
			return adaptertest.Stored(lasting(t, life))
		},
		Mortal: func(t *testing.T) (l adaptertest.Logins, down, up func()) {
			st := &mortalStore{Store: lasting(t, time.Hour)}
			return adaptertest.Stored(st), func() { st.dead.Store(true) }, func() { st.dead.Store(false) }
		},
		InCookie: inCookie,
	}
}

func TestIdentityOverTimeMemstore(t *testing.T) { adaptertest.Identity(t, subject(newMemstore, false)) }
func TestIdentityOverTimeCookie(t *testing.T)   { adaptertest.Identity(t, subject(newCookieStore, true)) }

func TestMemstore(t *testing.T)    { adaptertest.Sessions(t, newMemstore, false) }
func TestCookieStore(t *testing.T) { adaptertest.Sessions(t, newCookieStore, true) }
