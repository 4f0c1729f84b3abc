package adaptertest

import (
	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// Logins are one kind of sessions, as the pages of a Site use it.
type Logins interface {
	// Use gives srv the middlewares that identify people. It is called once,
	// before srv is mounted.
	Use(srv *adapter.Server)
	// LoggedIn reads off who has logged in.
	LoggedIn(c *gin.Context) (id adapter.Identity, ok bool)
	// Login makes the session that of user, under a new id.
	Login(c *gin.Context, user string) error
	// Logout ends the session.
	Logout(c *gin.Context) error
	// Clear forgets what the session holds, who is logged in among it.
	Clear(c *gin.Context) error
	// Get returns a value of the session, "" if there is none.
	Get(c *gin.Context, key string) string
	// Set sets a value of the session and saves it.
	Set(c *gin.Context, key, value string) error
}

// Stored returns the logins of Server.Login, with sessions of gin-contrib in a
// store. The provider of everybody is "test".
func Stored(store sessions.Store) Logins { return &stored{store: store} }

type stored struct {
	store sessions.Store
	srv   *adapter.Server
}

func (l *stored) Use(srv *adapter.Server) {
	l.srv = srv
	srv.Use(sessions.Sessions("sid", srv.Store(l.store)))
}

func (l *stored) LoggedIn(c *gin.Context) (adapter.Identity, bool) { return adapter.LoggedIn(c) }

func (l *stored) Login(c *gin.Context, user string) error {
	return l.srv.Login(c, adapter.Identity{UserID: user, Provider: "test"})
}

func (l *stored) Logout(c *gin.Context) error { return l.srv.Logout(c) }

func (l *stored) Clear(c *gin.Context) error {
	session := sessions.Default(c)
	session.Clear()
	return session.Save()
}

func (l *stored) Get(c *gin.Context, key string) string {
	value, _ := sessions.Default(c).Get(key).(string)
	return value
}

func (l *stored) Set(c *gin.Context, key, value string) error {
	session := sessions.Default(c)
	session.Set(key, value)
	return session.Save()
}
