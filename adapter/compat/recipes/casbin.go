package recipes

import (
	"net/http"

	"github.com/casbin/casbin/v2"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// Casbin decides about pages by their path and about every event by its own:
//
//	p, moderator, /admin/ban, EVENT
func Casbin(e casbin.IEnforcer) gin.HandlerFunc {
	return func(c *gin.Context) {
		role := "anonymous"
		if id, ok := adapter.IdentityOf(c); ok && len(id.Roles) > 0 {
			role = id.Roles[0]
		}
		switch ok, err := e.Enforce(role, c.Request.URL.Path, c.Request.Method); {
		case err != nil:
			c.AbortWithStatus(http.StatusServiceUnavailable)
		case !ok:
			c.AbortWithStatus(http.StatusForbidden)
		}
	}
}

// Moderation guards an event, and the namespace that it belongs to.
func Moderation(srv *adapter.Server, e casbin.IEnforcer) {
	allowed := adapter.Wrap(Casbin(e))
	admin := srv.Of("/admin").Require(allowed) // p, moderator, /admin, CONNECT
	adapter.On(admin, "ban", Ban, allowed)     // p, moderator, /admin/ban, EVENT
}
