package recipes

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/markbates/goth/gothic"

	"github.com/gin-usher/usher/adapter"
)

// Goth logs people in with OAuth. The sockets need nothing of it: they know the
// session that Login makes, see the recipe for sessions.
func Goth(srv *adapter.Server, r *gin.Engine) {
	pages := r.Group("/", srv.HTTP()...)
	pages.GET("/login/:provider", func(c *gin.Context) {
		gothic.BeginAuthHandler(c.Writer, gothic.GetContextWithProvider(c.Request, c.Param("provider")))
	})
	pages.GET("/login/:provider/callback", func(c *gin.Context) {
		person, err := gothic.CompleteUserAuth(c.Writer, gothic.GetContextWithProvider(c.Request, c.Param("provider")))
		if err != nil {
			c.AbortWithStatus(http.StatusUnauthorized)
			return
		}
		// A new session id; open anonymous sockets of this browser become the user's.
		id := adapter.Identity{UserID: person.Provider + ":" + person.UserID, Provider: person.Provider}
		if err := srv.Login(c, id); err != nil {
			c.AbortWithStatus(http.StatusServiceUnavailable)
			return
		}
		c.Redirect(http.StatusSeeOther, "/")
	})
	pages.POST("/logout", func(c *gin.Context) {
		_ = srv.Logout(c) // and all sockets of this session are closed
		c.Redirect(http.StatusSeeOther, "/")
	})
}
