package recipes

import (
	"context"
	"errors"
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

// SCSOf is how a handler reads the session of its socket as it is now: the
// result is the context that the manager's methods take. What they change there
// is stored with manager.Commit, which fails with adapter.ErrSessionGone after a
// logout.
func SCSOf(ctx context.Context, manager *scs.SessionManager, s *adapter.Socket) (context.Context, error) {
	cookie, err := s.Handshake().Request(ctx).Cookie(manager.Cookie.Name)
	if err != nil {
		return nil, err
	}
	loaded, err := manager.Load(ctx, cookie.Value)
	if err == nil && manager.Token(loaded) == "" {
		err = errors.New("the session has ended")
	}
	return loaded, err
}
