package recipes

import (
	"github.com/alexedwards/scs/v2"
	"github.com/gin-gonic/gin"
	ginadapter "github.com/gwatts/gin-adapter"

	"github.com/gin-usher/usher/adapter"
)

// SCS identifies people by a session of alexedwards/scs, whose middleware is one
// of net/http.
func SCS(srv *adapter.Server, sessions *scs.SessionManager) {
	srv.Use(ginadapter.Wrap(sessions.LoadAndSave))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id := sessions.GetString(c.Request.Context(), "user")
		if id == "" {
			return nil, nil
		}
		return &adapter.Identity{UserID: id, SessionID: sessions.Token(c.Request.Context())}, nil
	})
}
