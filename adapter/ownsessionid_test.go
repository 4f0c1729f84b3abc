package adapter_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/adapter/backplane"
)

// TestRevokeOfASessionThatTheAppNames: Identify may say what the session is, as where a
// token has an id. BySession is by Identity.SessionID, and meant nobody then: Revoke and
// Refresh did nothing, and said nothing.
func TestRevokeOfASessionThatTheAppNames(t *testing.T) {
	var bus backplane.Memory
	var role atomic.Value
	role.Store("guest")
	var servers []*adapter.Server
	var urls []string
	for range 2 {
		srv, err := adapter.New(adapter.Config{Revalidate: -1, Backplane: bus.Node()})
		if err != nil {
			t.Fatal(err)
		}
		srv.Use(func(*gin.Context) {})
		srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
			user, device, _ := strings.Cut(strings.TrimPrefix(c.GetHeader("Authorization"), "Bearer "), "/")
			return &adapter.Identity{UserID: user, SessionID: device, Roles: []string{role.Load().(string)}}, nil
		})
		adapter.Handle(srv, "role", tellRole)
		gin.SetMode(gin.ReleaseMode)
		e := gin.New()
		srv.Mount(e)
		e.Group("/", srv.HTTP()...).GET("/me", func(c *gin.Context) { c.String(http.StatusOK, "somebody") })
		servers, urls = append(servers, srv), append(urls, adaptertest.Serve(t, e))
		t.Cleanup(func() {
			if err := srv.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			if left := srv.Left(nil, nil); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	for _, srv := range servers {
		await(t, "both know each other", func() bool { return srv.Nodes() == 2 })
	}
	dial := func(node int, token string) (*adaptertest.Conn, *http.Response, error) {
		return adaptertest.NewBrowser(t, urls[node]).TryDial(ws, http.Header{"Authorization": {"Bearer " + token}})
	}
	must := func(node int, token string) *adaptertest.Conn {
		t.Helper()
		c, _, err := dial(node, token)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	here, there, other := must(0, "ann/phone"), must(1, "ann/phone"), must(0, "ann/laptop")
	role.Store("admin")
	if err := servers[0].Refresh(t.Context(), adapter.BySession("phone")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*adaptertest.Conn{here, there} {
		await(t, "the phone has the new role", func() bool { return string(c.Call("role", nil).Data) == `"admin"` })
	}
	if f := other.Call("role", nil); string(f.Data) != `"guest"` {
		t.Errorf("the laptop's role is %s, and was not meant", f.Data)
	}

	if n, err := servers[0].Revoke(t.Context(), adapter.BySession("phone")); n != 1 || err != nil {
		t.Errorf("Revoke = %d, %v; want 1 on this node", n, err)
	}
	for _, c := range []*adaptertest.Conn{here, there} {
		if code := c.Closed(); code != 4409 {
			t.Errorf("closed with %d, want 4409", code)
		}
	}
	for node := range servers {
		if _, resp, err := dial(node, "ann/phone"); err == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("the phone, again, on node %d: %v, want 401", node, err)
		}
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, urls[node]+"/me", nil)
		r.Header.Set("Authorization", "Bearer ann/phone")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a page of the phone's on node %d: %s, want 401", node, resp.Status)
		}
	}
	other.Must("role", nil, nil)
}
