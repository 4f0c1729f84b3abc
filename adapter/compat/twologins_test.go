package compat

import (
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/compat/recipes"
)

// TestTokenStoreTwoLogins: who presses the button twice logs in twice with the session
// of before, or on a first visit with none. The browser keeps one of the two cookies;
// sockets had followed the other session, which no logout ended any more.
func TestTokenStoreTwoLogins(t *testing.T) {
	for _, visit := range []string{"a first visit", "a session", "a session, at once"} {
		for _, tr := range transports {
			t.Run(visit+"/"+tr.name, func(t *testing.T) {
				t.Parallel()
				s := newTokenSite(t, newTokenDB(), adapter.Config{Revalidate: -1}, func(s *tokenSite) {
					s.manager.HashTokenInStore = visit == "a session"
					s.more = func(g *gin.RouterGroup) {
						login := recipes.SCSLogin(s.manager, func(c *gin.Context) (string, bool) { return c.Query("user"), true })
						g.POST("/login-later", func(c *gin.Context) { s.slow.Pass() }, login)
					}
				})
				b := newBrowser(t, s.url, nil)
				if visit != "a first visit" {
					b.mustPost("/set?color=green")
				}
				sock := tr.mustOpen(b)
				sock.becomes("nobody")
				second := b.clone() // the browser, as it was when it sent the second request
				first := func() {
					b.mustPost("/login?user=alice")
					sock.becomes("alice")
				}
				if visit == "a session, at once" {
					s.slowly(second, "/login-later?user=alice", first)
				} else {
					first()
					second.mustPost("/login?user=alice")
				}
				if a := b.get("/me"); a.body != "" {
					t.Errorf("with the first cookie a page is %s's", a.body)
				}
				if a := second.get("/me"); a.status != http.StatusOK || a.body != "alice" {
					t.Errorf("with the second cookie a page is %q's", a.body)
				}
				second.mustPost("/logout")
				sock.mustEnd("the logout")
			})
		}
	}
}
