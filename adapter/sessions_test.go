package adapter_test

import (
	"testing"

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

func TestMemstore(t *testing.T)    { adaptertest.Sessions(t, newMemstore, false) }
func TestCookieStore(t *testing.T) { adaptertest.Sessions(t, newCookieStore, true) }
