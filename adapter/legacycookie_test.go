package adapter_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestSecurityLogoutOfACookieFromBeforeTheAdapter: sessions in cookies that an app had
// made before it used the adapter have no id of ours. Their sockets hung on nothing, and
// a logout ended neither them nor the cookie.
func TestSecurityLogoutOfACookieFromBeforeTheAdapter(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	old := gin.New()
	old.Use(sessions.Sessions("sid", newCookieStore(t)))
	old.POST("/login", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set("user", "alice")
		if err := session.Save(); err != nil {
			t.Error(err)
		}
	})
	w := httptest.NewRecorder()
	old.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/login", nil))
	cookie := w.Result().Cookies()[0]

	for name, before := range map[string][]string{"at once": nil, "after a save": {"/set"}, "after two": {"/set", "/set"}} {
		t.Run(name, func(t *testing.T) {
			srv, err := adapter.New(adapter.Config{Revalidate: -1})
			if err != nil {
				t.Fatal(err)
			}
			srv.Use(sessions.Sessions("sid", srv.Store(newCookieStore(t))))
			srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
				user, _ := sessions.Default(c).Get("user").(string)
				if user == "" {
					return nil, nil
				}
				return &adapter.Identity{UserID: user}, nil
			})
			adapter.Handle(srv, "role", func(ctx context.Context, s *adapter.Socket, _ any) (any, error) { return s.Session().Get(ctx, "user") })
			e := gin.New()
			srv.Mount(e)
			pages := e.Group("/", srv.HTTP()...)
			pages.POST("/set", func(c *gin.Context) {
				session := sessions.Default(c)
				session.Set("color", "blue")
				if err := session.Save(); err != nil {
					t.Error(err)
				}
			})
			pages.POST("/logout", func(c *gin.Context) {
				if err := srv.Logout(c); err != nil {
					t.Error(err)
				}
			})
			b := adaptertest.NewBrowser(t, adaptertest.Serve(t, e))
			site, err := url.Parse(b.URL)
			if err != nil {
				t.Fatal(err)
			}
			b.HTTP.Jar.SetCookies(site, []*http.Cookie{cookie})
			thief := b.Clone()
			c := b.Dial(ws)
			if f := c.Call("role", nil); string(f.Data) != `"alice"` {
				t.Errorf("the socket reads %s", f)
			}
			for _, path := range before {
				b.MustPost(path)
			}
			b.MustPost("/logout")
			if code := c.Closed(); code != 4409 {
				t.Errorf("closed with %d, want 4409", code)
			}
			if _, resp, err := thief.TryDial(ws, nil); err == nil || resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("a socket with the old cookie: %v, want 401", err)
			}
			if err := srv.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
