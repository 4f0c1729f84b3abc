package recipes

import (
	"context"
	"net/http"

	"github.com/alexedwards/scs/v2"
	"github.com/gin-gonic/gin"
	ginadapter "github.com/gwatts/gin-adapter"

	"github.com/gin-usher/usher/adapter"
)

// SCS identifies people by a session of alexedwards/scs, whose middleware is one
// of net/http.
func SCS(srv *adapter.Server, manager *scs.SessionManager) {
	manager.Store = srv.TokenStore(manager.Store, manager.Codec) // wrapped, so that sockets follow RenewToken and Destroy
	srv.Use(ginadapter.Wrap(manager.LoadAndSave))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id := manager.GetString(c.Request.Context(), "user")
		if id == "" {
			return nil, nil
		}
		return &adapter.Identity{UserID: id, Expires: manager.Deadline(c.Request.Context())}, nil
	})
}

// SCSLogin is a page behind srv.HTTP(): open sockets of nobody become the user's.
func SCSLogin(manager *scs.SessionManager, check func(*gin.Context) (user string, ok bool)) gin.HandlerFunc {
	return func(c *gin.Context) {
		user, ok := check(c)
		if !ok {
			c.AbortWithStatus(http.StatusUnauthorized)
			return
		}
		if err := manager.RenewToken(c.Request.Context()); err != nil { // before the user is put into it
			_ = c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		manager.Put(c.Request.Context(), "user", user)
		c.Redirect(http.StatusSeeOther, "/")
	}
}

// SCSColor is a handler of an event: it reads and changes the session as it is now.
// What a page writes meanwhile stays, and after a logout it is adapter.ErrSessionGone.
func SCSColor(ctx context.Context, s *adapter.Socket, next string) (was string, err error) {
	err = s.Session().Update(ctx, func(v adapter.Values) error {
		was, _ = v["color"].(string)
		v["color"] = next
		return nil
	})
	return was, err
}
