package adapter_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// policy is what casbin and its like do: rules of who may do what where.
func policy(rules ...string) gin.HandlerFunc {
	return func(c *gin.Context) {
		id, _ := adapter.IdentityOf(c)
		who := "nobody"
		if id != nil {
			who = id.UserID
		}
		if !slices.Contains(rules, fmt.Sprintf("%s %s %s", who, c.Request.Method, c.Request.URL.Path)) {
			c.AbortWithStatusJSON(http.StatusForbidden, gin.H{"code": "policy", "message": "the policy says no"})
		}
	}
}

// TestP29PoliciesDecideAboutEachEvent: rules by path see every event, and not the
// path of the socket's handshake, for which one rule would allow them all.
func TestP29PoliciesDecideAboutEachEvent(t *testing.T) {
	guard := adapter.Wrap(policy(
		"alice GET /socket.io/", "mallory GET /socket.io/", // what a rule for the handshake looks like
		"alice EVENT /read", "alice EVENT /write", "mallory EVENT /read",
		"alice CONNECT /admin", "alice EVENT /admin/delete",
	))
	allowed := func(context.Context, *adapter.Socket, any) (string, error) { return "done", nil }
	setup := func(srv *adapter.Server) {
		adapter.Handle(srv, "read", allowed, guard)
		adapter.Handle(srv, "write", allowed, guard)
		adapter.Handle(srv, "delete", allowed, guard)
		admin := srv.Of("/admin").Require(guard)
		adapter.Handle(admin, "delete", allowed, guard)
	}
	const refused = `{"code":"policy","message":"the policy says no"}`
	t.Run("plain", func(t *testing.T) {
		s := openSite(t, adapter.Config{}, setup)
		for _, tt := range []struct {
			user, event string
			want        bool
		}{
			{"alice", "read", true}, {"alice", "write", true}, {"alice", "delete", false},
			{"mallory", "read", true}, {"mallory", "write", false}, {"mallory", "delete", false},
		} {
			f := s.NewBrowser(t, tt.user).Dial(ws).Call(tt.event, nil)
			if ok := f.Error == nil; ok != tt.want || !ok && !strings.Contains(f.String(), refused) {
				t.Errorf("%s %s: %s", tt.user, tt.event, f)
			}
		}
		s.NewBrowser(t, "alice").Dial(ws+"?nsp=/admin").Must("delete", nil, nil)
		_, resp, err := s.NewBrowser(t, "mallory").TryDial(ws+"?nsp=/admin", nil)
		if err == nil || resp.StatusCode != http.StatusForbidden {
			t.Fatalf("mallory in /admin: %v", err)
		}
		if body, _ := io.ReadAll(resp.Body); string(body) != refused {
			t.Errorf("mallory in /admin: %s, want %s", body, refused)
		}
	})
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, setup)
		mallory := n.open("mallory", s.NewBrowser(t, "mallory"), "/", transport, nil)
		mallory.await("connect")
		for event, want := range map[string]string{"read": `["done"]`, "write": `[{"error":` + refused + `}]`} {
			if got := mallory.call(event); got != want {
				t.Errorf("%s = %s, want %s", event, got, want)
			}
		}
		if l := n.open("admin", s.NewBrowser(t, "mallory"), "/admin", transport, nil).await("connect_error"); string(l.Data) != refused {
			t.Errorf("connect_error %s", l)
		}
	})
}

// TestWrapSeesTheRequest: what a middleware looks at is there.
func TestWrapSeesTheRequest(t *testing.T) {
	saw := make(chan string, 1)
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.Use(func(c *gin.Context) { c.Set("tenant", "acme") })
		adapter.On(srv, "say it", func(context.Context, *adapter.Socket, any) error { return nil }, adapter.Wrap(func(c *gin.Context) {
			c.Next()
			id, _ := adapter.IdentityOf(c)
			var body struct{ Text string }
			if err := c.ShouldBindJSON(&body); err != nil {
				t.Error(err)
			}
			_, err := c.Cookie("sid")
			saw <- fmt.Sprint(c.Request.Method, c.Request.URL.Path, " ", c.ClientIP(), id.UserID, c.GetString("tenant"), body.Text, err, c.Query("a"))
		}))
	})
	alice := s.NewBrowser(t, "alice")
	c := alice.Dial(ws + "?a=b")
	c.Must("say it", map[string]string{"text": "hello"}, nil)
	if got, want := <-saw, "EVENT/say it 127.0.0.1aliceacmehello<nil>b"; got != want {
		t.Errorf("the middleware saw %q, want %q", got, want)
	}
}

// TestWrapTakesEveryRefusal: middlewares refuse in many ways, and none is let through.
func TestWrapTakesEveryRefusal(t *testing.T) {
	for name, tt := range map[string]struct {
		mw   gin.HandlerFunc
		code string
	}{
		"abort":           {func(c *gin.Context) { c.Abort() }, adapter.CodeForbidden},
		"status":          {func(c *gin.Context) { c.Status(http.StatusUnauthorized) }, adapter.CodeUnauthenticated},
		"abort by status": {func(c *gin.Context) { c.AbortWithStatus(http.StatusTooManyRequests) }, adapter.CodeTooFast},
		"text":            {func(c *gin.Context) { c.String(http.StatusForbidden, "no") }, adapter.CodeForbidden},
		"error in JSON":   {func(c *gin.Context) { c.AbortWithStatusJSON(http.StatusPaymentRequired, gin.H{"error": "pay first"}) }, adapter.CodeForbidden},
		"redirect":        {func(c *gin.Context) { c.Redirect(http.StatusFound, "/login") }, adapter.CodeUnauthenticated},
		"failure":         {func(c *gin.Context) { c.AbortWithStatus(http.StatusBadGateway) }, adapter.CodeUnavailable},
		"panic":           {func(c *gin.Context) { panic("oops") }, adapter.CodeInternal},
		"nothing":         {func(c *gin.Context) { c.Header("X", "y"); c.Next() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
				adapter.On(srv, "do", func(context.Context, *adapter.Socket, any) error { return nil }, adapter.Wrap(tt.mw))
			})
			f := s.NewBrowser(t, "").Dial(ws).Call("do", nil)
			code := ""
			if f.Error != nil {
				code = f.Error.Code
			}
			if code != tt.code {
				t.Errorf("%s, want the code %q", f, tt.code)
			}
		})
	}
}

// TestOneFormOfARefusal: ack error, data of connect_error and HTTP body say the same.
func TestOneFormOfARefusal(t *testing.T) {
	no := adapter.Wrap(func(c *gin.Context) {
		c.AbortWithStatusJSON(http.StatusForbidden, gin.H{"code": "closed", "message": "closed today"})
	})
	const want = `{"code":"closed","message":"closed today"}`
	n := startNode(t)
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.Of("/closed").AllowAnonymous().Require(no)
		adapter.On(srv, "do", func(context.Context, *adapter.Socket, any) error { return nil }, no)
	})
	b := s.NewBrowser(t, "")
	_, resp, _ := b.TryDial(ws+"?nsp=/closed", nil)
	body, _ := io.ReadAll(resp.Body)
	c := n.open("c", b, "/", "websocket", nil)
	c.await("connect")
	refused := n.open("refused", b, "/closed", "websocket", nil).await("connect_error")
	for where, got := range map[string]string{
		"HTTP body":          string(body),
		"plain reply":        strings.TrimSuffix(strings.SplitN(b.Dial(ws).Call("do", nil).String(), `"error":`, 2)[1], "}"),
		"acknowledgement":    strings.TrimSuffix(strings.TrimPrefix(c.call("do"), `[{"error":`), "}]"),
		"connect_error data": string(refused.Data),
	} {
		if got != want {
			t.Errorf("%s: %s, want %s", where, got, want)
		}
	}
	if refused.Message != "closed today" {
		t.Errorf("connect_error %s", refused)
	}
}

// TestRefusalWithDataThatCannotBeEncoded: the code and the message are there all the
// same, in each form.
func TestRefusalWithDataThatCannotBeEncoded(t *testing.T) {
	odd := func(context.Context, *adapter.Socket) error {
		return &adapter.Error{Code: "odd", Message: "not today", Data: math.NaN()}
	}
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.Of("/odd").AllowAnonymous().Require(odd)
		adapter.On(srv, "do", func(context.Context, *adapter.Socket, any) error { return nil }, odd)
	})
	b := s.NewBrowser(t, "")
	const want = `{"code":"odd","message":"not today"}`
	_, resp, err := b.TryDial(ws+"?nsp=/odd", nil)
	if err == nil || resp == nil {
		t.Fatalf("%v, want a refusal", err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != want || resp.StatusCode != http.StatusForbidden {
		t.Errorf("HTTP: %d %s, want %s", resp.StatusCode, body, want)
	}
	if f := b.Dial(ws).Call("do", nil); !strings.Contains(f.String(), want) {
		t.Errorf("reply: %s, want %s", f, want)
	}
}
