package recipes

import (
	"net/http"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/redis"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// Sessions identifies people by a session of gin-contrib/sessions, in Redis here.
func Sessions(srv *adapter.Server, find func(c *gin.Context, id string) (*User, error)) error {
	store, err := redis.NewStore(10, "tcp", "localhost:6379", "", "", []byte("32 random bytes, kept secret ..."))
	if err != nil {
		return err
	}
	store.Options(sessions.Options{Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
	srv.Use(sessions.Sessions("sid", srv.Store(store))) // wrapped, so that sockets follow logins and logouts at once
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id, ok := adapter.LoggedIn(c) // what srv.Login has stored
		if !ok {
			return nil, nil
		}
		user, err := find(c, id.UserID)
		if err != nil || user == nil {
			return nil, err // an error is "cannot be known now", nil is nobody
		}
		id.User, id.Roles = *user, user.Roles
		return &id, nil
	})
	return nil
}
