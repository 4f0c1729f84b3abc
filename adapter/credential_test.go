package adapter_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A tokenSite serves people who show a token, their name and perhaps a digit, in
// a cookie "jwt" or in Authorization. Its chain refuses everybody else.
type tokenSite struct {
	URL    string
	Server *adapter.Server
	Engine *gin.Engine
}

func newTokenSite(t *testing.T, cfg adapter.Config, setup func(*tokenSite)) *tokenSite {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	srv, err := adapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	gin.SetMode(gin.ReleaseMode)
	s := &tokenSite{Server: srv, Engine: gin.New()}
	srv.Use(func(c *gin.Context) {
		token, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
		if !ok {
			token, _ = c.Cookie("jwt")
		}
		switch {
		case token == "":
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"message": "a token, please"})
		case strings.HasPrefix(token, "bad"):
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"message": "not this token"})
		}
		c.Set("token", token)
	})
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		if c.GetString("token") == "nobody" {
			return nil, nil
		}
		return &adapter.Identity{UserID: strings.TrimRight(c.GetString("token"), "0123456789")}, nil
	})
	me := func(ctx context.Context, _ *adapter.Socket, _ any) (string, error) {
		id, ok := adapter.IdentityOf(ctx)
		if !ok {
			return "", nil
		}
		return id.UserID, nil
	}
	adapter.Handle(srv, "me", me)
	adapter.Handle(srv.Of("/admin"), "me", me)
	srv.Of("/other")
	if setup != nil {
		setup(s)
	}
	srv.Mount(s.Engine)
	s.URL = adaptertest.Serve(t, s.Engine)
	t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	return s
}

// everySource is every place for a token.
var everySource = []adapter.Source{adapter.Query("token"), adapter.Subprotocol("bearer"), adapter.AuthPayload("token"), adapter.FirstMessage()}

// TestOneTokenInEveryPlace: the same unmodified middleware takes a token from
// wherever a client can put it.
func TestOneTokenInEveryPlace(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		s := newTokenSite(t, adapter.Config{Credentials: everySource}, nil)
		for _, tt := range []struct {
			place, query string
			header       http.Header
			first        string
		}{
			{place: "header", header: http.Header{"Authorization": {"bearer alice"}}},
			{place: "cookie", header: http.Header{"Cookie": {"jwt=alice"}}},
			{place: "query", query: "?token=alice"},
			{place: "query with a scheme", query: "?token=bEARER%20alice"},
			{place: "subprotocol", header: http.Header{"Sec-Websocket-Protocol": {"bearer, alice"}}},
			{place: "first message", first: `{"type":"authenticate","token":"alice","id":1}`},
			{place: "first message with a scheme", first: `{"type":"authenticate","token":"bearer alice","id":1}`},
		} {
			t.Run(tt.place, func(t *testing.T) {
				c, resp, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws+tt.query, tt.header)
				if err != nil {
					t.Fatal(err)
				}
				if got := resp.Header.Get("Sec-Websocket-Protocol"); (got == "bearer") != (tt.place == "subprotocol") {
					t.Errorf("the answer names the subprotocol %q", got)
				}
				if tt.first != "" {
					c.Raw(`{"type":"me","id":0}`)
					if f := c.Event("reply"); f.Error == nil || f.Error.Code != adapter.CodeUnauthenticated {
						t.Errorf("before the first message: %s", f)
					}
					c.Raw(tt.first)
					if f := c.Event("reply"); f.Error != nil {
						t.Fatalf("authenticate: %s", f)
					}
				}
				c.Event("connect")
				var me string
				if c.Must("me", nil, &me); me != "alice" {
					t.Errorf("me = %q, want alice", me)
				}
			})
		}
	})
	for _, transport := range []string{"polling", "websocket", "upgrade"} {
		t.Run(transport, func(t *testing.T) {
			n := startNode(t)
			s := newTokenSite(t, adapter.Config{Credentials: everySource}, nil)
			b := adaptertest.NewBrowser(t, s.URL)
			for place, options := range map[string]map[string]any{
				"header":        {"extraHeaders": map[string]string{"authorization": "bearer alice"}},
				"query":         {"query": map[string]string{"token": "alice"}},
				"subprotocol":   {"protocols": []string{"bearer", "alice"}},
				"auth":          {"auth": map[string]string{"token": "alice"}},
				"first message": {},
			} {
				if place == "subprotocol" && transport != "websocket" {
					continue // polls have none
				}
				t.Run(place, func(t *testing.T) {
					name := transport + " " + place
					c := n.open(name, b, "/", transport, options)
					c.await("connect")
					if place == "first message" {
						if got := c.call("me"); got != `[{"error":{"code":"unauthenticated","message":"authenticate first"}}]` {
							t.Errorf("before the first message: me = %s", got)
						}
						if got := c.call("authenticate", map[string]string{"token": "alice"}); got != "[]" {
							t.Fatalf("authenticate = %s", got)
						}
					}
					if got := c.call("me"); got != `["alice"]` {
						t.Errorf("me = %s, want alice", got)
					}
					if transport == "upgrade" {
						c.upgraded()
						if got := c.call("me"); got != `["alice"]` {
							t.Errorf("me after the upgrade = %s", got)
						}
					}
				})
			}
		})
	}
}

// TestOrderOfCredentials: who shows several is known by the first in the list,
// and an Authorization header of its own comes before.
func TestOrderOfCredentials(t *testing.T) {
	for _, tt := range []struct {
		order  []adapter.Source
		header http.Header
		want   string
	}{
		{[]adapter.Source{adapter.Query("token"), adapter.Subprotocol("bearer")}, nil, "query"},
		{[]adapter.Source{adapter.Subprotocol("bearer"), adapter.Query("token")}, nil, "subprotocol"},
		{[]adapter.Source{adapter.Query("other"), adapter.Query("token")}, nil, "query"},
		{everySource, http.Header{"Authorization": {"Bearer header"}}, "header"},
	} {
		s := newTokenSite(t, adapter.Config{Credentials: tt.order}, nil)
		h := http.Header{"Sec-Websocket-Protocol": {"bearer, subprotocol"}}
		for k, v := range tt.header {
			h[k] = v
		}
		c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws+"?token=query", h)
		if err != nil {
			t.Fatal(err)
		}
		var me string
		if c.Must("me", nil, &me); me != tt.want {
			t.Errorf("%v: me = %q, want %q", tt.order, me, tt.want)
		}
	}
}

func TestBadCredentialsAreRefused(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: []adapter.Source{adapter.Query("token"), adapter.Subprotocol("bearer")}}, nil)
	for _, tt := range []struct {
		query  string
		header http.Header
		status int
	}{
		{"", nil, 401},
		{"?token=bad", nil, 401},
		{"?token=", nil, 401},
		{"?token=a%0d%0aX-Evil:%20yes", nil, 400},
		{"?token=" + strings.Repeat("x", 9000), nil, 400},
		{"?token=two%20words", nil, 400},
		{"", http.Header{"Sec-Websocket-Protocol": {"bearer"}}, 400},
		{"", http.Header{"Sec-Websocket-Protocol": {"bearer, bad"}}, 401},
		{"", http.Header{"Sec-Websocket-Protocol": {"chat, other"}}, 401},
	} {
		_, resp, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws+tt.query, tt.header)
		if err == nil || resp == nil || resp.StatusCode != tt.status {
			t.Errorf("%.60s %v: %v, want %d", tt.query, tt.header, err, tt.status)
		}
	}
	for _, bad := range []adapter.Source{{}, adapter.Query(""), adapter.Query("sid"), adapter.Subprotocol("two words"), adapter.AuthPayload(""), adapter.QuerySession("sid", "sid"), adapter.QuerySession("session", "")} {
		if _, err := adapter.New(adapter.Config{Credentials: []adapter.Source{bad}}); err == nil || !strings.Contains(err.Error(), "Credentials[0]") {
			t.Errorf("New with %v: %v", bad, err)
		}
	}
}

// TestQuerySessionIsNotForBrowsers: a page could plant a session of its own into
// its visitor's socket.
func TestQuerySessionIsNotForBrowsers(t *testing.T) {
	cfg := adapter.Config{Credentials: []adapter.Source{adapter.QuerySession("session", "sid")}, Logger: slog.New(slog.DiscardHandler)}
	s := adaptertest.NewSite(t, cfg, newMemstore(t), nil)
	alice := s.NewBrowser(t, "alice")
	value := url.QueryEscape(alice.Cookies()[0].Value)
	var me string
	c, _, err := s.NewBrowser(t, "").TryDial(ws+"?session="+value, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Must("me", nil, &me); me != "alice" {
		t.Errorf("me = %q, want alice", me)
	}
	if _, resp, err := s.NewBrowser(t, "").TryDial(ws+"?session="+value, http.Header{"Origin": {s.URL}}); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("with an Origin: %v, want 403", err)
	}
	// Browsers send no Origin where they follow a link, from a mail, say, or where a
	// page polls its own host.
	for _, site := range []string{"none", "same-origin"} {
		status, body, h := engineDo(t, s.NewBrowser(t, ""), "GET", enginePath+"&session="+value, "", http.Header{"Sec-Fetch-Site": {site}})
		if status != http.StatusBadRequest || strings.Contains(body, `"sid"`) || h.Get("Set-Cookie") != "" {
			t.Errorf("a browser that polls, Sec-Fetch-Site %s: %d %s", site, status, body)
		}
	}
	bob, _, err := s.NewBrowser(t, "bob").TryDial(ws+"?session="+value, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bob.Must("me", nil, &me); me != "bob" {
		t.Errorf("me = %q; a cookie that is there wins", me)
	}
	for _, bad := range []string{"forged", "a%3bb", ""} {
		if _, _, err := s.NewBrowser(t, "").TryDial(ws+"?session="+bad, nil); err == nil {
			t.Errorf("session %q was let in", bad)
		}
	}
	alice.MustPost("/logout")
	if code := c.Closed(); code != 4409 {
		t.Errorf("closed with %d after the logout, want 4409", code)
	}
}

// TestATokenIsForItsSocketAlone: the token of "/admin" does not change who "/" is.
func TestATokenIsForItsSocketAlone(t *testing.T) {
	for _, transport := range []string{"polling", "websocket", "upgrade"} {
		t.Run(transport, func(t *testing.T) {
			n := startNode(t)
			s := newTokenSite(t, adapter.Config{Credentials: everySource}, nil)
			b := adaptertest.NewBrowser(t, s.URL)
			c := n.open("c", b, "/", transport, map[string]any{"extraHeaders": map[string]string{"Cookie": "jwt=alice"}})
			c.await("connect")
			n.do(map[string]any{"do": "join", "name": "c", "as": "admin", "nsp": "/admin", "auth": map[string]string{"token": "root"}})
			admin := &client{n, "admin"}
			admin.await("connect")
			for range 3 {
				if got := c.call("me"); got != `["alice"]` {
					t.Errorf("me in / = %s", got)
				}
				if got := admin.call("me"); got != `["root"]` {
					t.Errorf("me in /admin = %s", got)
				}
			}
			n.do(map[string]any{"do": "close", "name": "admin"})
			admin.await("disconnect")
			n.do(map[string]any{"do": "join", "name": "c", "as": "bad", "nsp": "/other", "auth": map[string]string{"token": "bad"}})
			if l := (&client{n, "bad"}).await("connect_error"); l.Message != "not this token" {
				t.Errorf("a bad token: %s", l)
			}
			if got := c.call("me"); got != `["alice"]` {
				t.Errorf("me in / = %s", got)
			}
		})
	}
}

// TestAfterAToken: what else holds for a connection whose handshake showed nothing.
func TestAfterAToken(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, nil)
	b := adaptertest.NewBrowser(t, s.URL)
	cookie := func(v string) http.Header { return http.Header{"Cookie": {v}} }
	_, body, _ := engineDo(t, b, "GET", enginePath, "", cookie("theme=dark"))
	path := enginePath + "&sid=" + body[strings.Index(body, `:"`)+2:strings.Index(body, `",`)]
	engineDo(t, b, "POST", path, `40{"token":"alice"}`, cookie("theme=dark"))
	if _, got, _ := engineDo(t, b, "GET", path, "", cookie("theme=dark")); !strings.HasPrefix(got, "40{") {
		t.Fatalf("CONNECT was answered %s", got)
	}
	// A cookie that is no credential may change, and more than 4 KiB is fine now.
	engineDo(t, b, "POST", path, `420["me","`+strings.Repeat("x", 5000)+`"]`, cookie("theme=light"))
	if _, got, _ := engineDo(t, b, "GET", path, "", nil); got != `430["alice"]` {
		t.Errorf("me = %s", got)
	}
	// A namespace without a token of its own has none.
	engineDo(t, b, "POST", path, `40/admin,`, nil)
	if _, got, _ := engineDo(t, b, "GET", path, "", nil); !strings.HasPrefix(got, `44/admin,{"message":"a token, please"`) {
		t.Errorf("CONNECT of /admin was answered %s", got)
	}
	if status, _, _ := engineDo(t, b, "POST", path, `420["me"]`, http.Header{"Authorization": {"Bearer mallory"}}); status != http.StatusForbidden {
		t.Errorf("a POST with another's token: %d, want 403", status)
	}
}

// TestFirstMessageIsATurn: what a client sends right behind its first message is
// handled as who it is by then, behind OnConnect; and a guard that panics is an
// error like that of a handler.
func TestFirstMessageIsATurn(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, func(s *tokenSite) {
		s.Server.OnConnect(func(_ context.Context, sock *adapter.Socket) error { return sock.Emit("welcome") })
		s.Server.Require(func(ctx context.Context, _ *adapter.Socket) error {
			if id, _ := adapter.IdentityOf(ctx); id != nil && id.UserID == "panic" {
				panic("a mistake of the app")
			}
			return nil
		})
	})
	b := adaptertest.NewBrowser(t, s.URL)
	c, _, err := b.TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Raw(`{"type":"authenticate","token":"panic","id":1}`)
	if f := c.Event("reply"); f.Error == nil || f.Error.Code != adapter.CodeInternal {
		t.Errorf("a guard that panics: %s", f)
	}
	c.Raw(`{"type":"authenticate","token":"alice","id":2}`)
	c.Raw(`{"type":"me","id":3}`)
	c.Event("welcome")
	for range 2 {
		if f := c.Event("reply"); f.Error != nil || string(f.ID) == "3" && string(f.Data) != `"alice"` {
			t.Errorf("%s", f)
		}
	}
}

// TestSecurityAuthenticateFlood: who is in may show fresh tokens, and guess in between,
// no faster than people whose tokens expire.
func TestSecurityAuthenticateFlood(t *testing.T) {
	var runs atomic.Int64
	s := newTokenSite(t, adapter.Config{Credentials: everySource, Revalidate: -1}, func(s *tokenSite) {
		s.Server.Use(func(*gin.Context) { runs.Add(1) })
	})
	for _, tr := range []adaptertest.Transport{adaptertest.Plain, adaptertest.WebSocket, adaptertest.Polling} {
		t.Run(string(tr), func(t *testing.T) {
			c := adaptertest.NewBrowser(t, s.URL).Connect(adaptertest.Way{Transport: tr, Header: http.Header{"Authorization": {"Bearer alice"}}})
			before := runs.Load()
			for i := range 60 {
				token := "alice"
				if i%2 == 1 {
					token = "guess"
				}
				if f := c.Call("authenticate", token); i >= 20 && (f.Error == nil || f.Error.Code != adapter.CodeTooFast) {
					t.Fatalf("token %d: %s, want %s", i, f, adapter.CodeTooFast)
				}
			}
			c.Must("me", nil, nil)
			if n := runs.Load() - before; n > 60 { // each good one is looked at once more, and then again
				t.Errorf("the chain ran %d times", n)
			}
		})
	}
}

// TestAuthenticateAgain: a fresh token on an open socket.
func TestAuthenticateAgain(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, func(s *tokenSite) { s.Server.AllowAnonymous() })
	b := adaptertest.NewBrowser(t, s.URL)
	c, _, err := b.TryDial(ws+"?token=nobody", nil)
	if err != nil {
		t.Fatal(err)
	}
	me := func(want string) {
		t.Helper()
		var me string
		if c.Must("me", nil, &me); me != want {
			t.Errorf("me = %q, want %q", me, want)
		}
	}
	me("")
	authenticate := func(token, code string) {
		t.Helper()
		c.Raw(fmt.Sprintf(`{"type":"authenticate","token":%q,"id":1}`, token))
		f := c.Event("reply")
		switch {
		case code == "" && f.Error != nil, code != "" && (f.Error == nil || f.Error.Code != code):
			t.Errorf("authenticate as %s: %s, want %q", token, f, code)
		}
	}
	authenticate("bad", adapter.CodeUnauthenticated)
	me("")
	authenticate("alice", "") // nobody becomes somebody
	me("alice")
	for range 3 { // with years of tokens behind it
		authenticate("bad", adapter.CodeUnauthenticated)
		authenticate("alice2", "") // the same with a fresh token
		me("alice")
	}
	authenticate("bob", adapter.CodeForbidden)
	me("alice")
	authenticate("bad", adapter.CodeUnauthenticated)
	c.Raw(`{"type":"authenticate","token":"bad","id":1}`) // the third in vain, one after the other
	if code := c.Closed(); code != 4401 {
		t.Errorf("closed with %d, want 4401", code)
	}
}

// TestPendingIsBounded: who does not say who he is gets little, and not for long.
func TestPendingIsBounded(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource, AuthTimeout: time.Second}, nil)
	b := adaptertest.NewBrowser(t, s.URL)
	dial := func(t *testing.T) *adaptertest.Conn {
		c, _, err := b.TryDial(ws, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("time", func(t *testing.T) {
		if code := dial(t).Closed(); code != 4408 {
			t.Errorf("closed with %d, want 4408", code)
		}
		c := engineDial(t, b, "")
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				if !websocket.IsCloseError(err, 4408) {
					t.Errorf("Socket.IO: %v, want 4408", err)
				}
				break
			}
		}
	})
	t.Run("attempts", func(t *testing.T) {
		c := dial(t)
		for range 3 {
			c.Raw(`{"type":"authenticate","token":"bad","id":1}`)
			if f := c.Event("reply"); f.Error == nil || f.Error.Message != "not this token" {
				t.Errorf("%s", f)
			}
		}
		if code := c.Closed(); code != 4401 {
			t.Errorf("closed with %d, want 4401", code)
		}
	})
	t.Run("attempts by auth", func(t *testing.T) {
		c := engineDial(t, b, "")
		_, _, _ = c.ReadMessage()
		for range 3 {
			if err := c.WriteMessage(websocket.TextMessage, []byte(`40{"token":"bad"}`)); err != nil {
				t.Fatal(err)
			}
			if _, got, _ := c.ReadMessage(); string(got) != `44{"message":"not this token","data":{"code":"unauthenticated","message":"not this token"}}` {
				t.Errorf("%s", got)
			}
		}
		if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 4401) {
			t.Errorf("%v, want 4401", err)
		}
	})
	t.Run("input", func(t *testing.T) {
		c := dial(t)
		c.Raw(`{"type":"x","data":"` + strings.Repeat("x", 5000) + `"}`)
		if code := c.Closed(); code != 1009 {
			t.Errorf("5,000 bytes at once: closed with %d, want 1009", code)
		}
		c = dial(t)
		for range 5 {
			c.Raw(`{"type":"x","data":"` + strings.Repeat("x", 1000) + `"}`)
		}
		if code := c.Closed(); code != 1009 {
			t.Errorf("5 × 1,000 bytes: closed with %d, want 1009", code)
		}
		_, open, _ := engineDo(t, b, "GET", enginePath, "", nil)
		sid := open[strings.Index(open, `:"`)+2 : strings.Index(open, `",`)]
		if status, _, _ := engineDo(t, b, "POST", enginePath+"&sid="+sid, `40{"x":"`+strings.Repeat("x", 5000)+`"}`, nil); status != http.StatusRequestEntityTooLarge {
			t.Errorf("a POST of 5,000 bytes: %d, want 413", status)
		}
	})
	t.Run("address", func(t *testing.T) {
		b := adaptertest.NewBrowser(t, newTokenSite(t, adapter.Config{Credentials: everySource, AuthTimeout: time.Minute}, nil).URL)
		for i := range 20 {
			// Gin believes anybody who says that he is a proxy; limits do not.
			if _, _, err := b.TryDial(ws, http.Header{"X-Forwarded-For": {fmt.Sprintf("192.0.2.%d", i)}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, resp, err := b.TryDial(ws, http.Header{"X-Forwarded-For": {"192.0.2.99"}}); err == nil || resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("one more: %v, want 429", err)
		}
		if status, body, _ := engineDo(t, b, "GET", enginePath, "", nil); status != http.StatusForbidden {
			t.Errorf("one more by polling: %d %s", status, body)
		}
		var me string
		c, _, err := b.TryDial(ws+"?token=alice", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.Must("me", nil, &me); me != "alice" {
			t.Errorf("me = %q: who says who he is does not wait", me)
		}
	})
}

// TestPendingUnderAttack: 10,000 connections that never say who they are cost
// bounded memory, and who has said it notices nothing.
func TestPendingUnderAttack(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource, AuthTimeout: time.Minute}, func(s *tokenSite) {
		if err := s.Engine.SetTrustedProxies([]string{"127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
	})
	b := adaptertest.NewBrowser(t, s.URL)
	alice, _, err := b.TryDial(ws+"?token=alice", nil)
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}}
	defer client.CloseIdleConnections()
	admitted := 0
	for i := range 10_000 {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+enginePath, nil)
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.1", i/250, i%250))
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			admitted++
		}
		if i%1000 == 0 {
			var me string
			if alice.Must("me", nil, &me); me != "alice" {
				t.Fatalf("me = %q", me)
			}
		}
	}
	if admitted != 1000 {
		t.Errorf("%d connections wait, want 1000", admitted)
	}
	if after := heap(); after > before+20<<20 {
		t.Errorf("the attack costs %d KiB", (after-before)>>10)
	}
	alice.Must("me", nil, new(string))
}

// TestWhoAsksForRefusalsDoesNotWait: a page that has been signed out is told so at
// once, and not after the time for a first message.
func TestWhoAsksForRefusalsDoesNotWait(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource, AuthTimeout: time.Minute}, nil)
	c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws+"?refusals=close", nil)
	if err != nil {
		t.Fatal(err)
	}
	if code := c.Closed(); code != 4401 {
		t.Errorf("closed with %d, want 4401", code)
	}
}

// TestTwoTokensInTheSubprotocol: one of them would be left where it stood.
func TestTwoTokensInTheSubprotocol(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, nil)
	h := http.Header{"Sec-Websocket-Protocol": {"bearer, alice, bearer, bob"}}
	if _, resp, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, h); err == nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("%v, want 400", err)
	}
}

// TestExpiredIsNotUnauthenticated: a chain that is asked again right after the
// expiry refuses, maybe before the socket's own timer has noticed. The client has
// to hear that a fresh token will do.
func TestExpiredIsNotUnauthenticated(t *testing.T) {
	expires := time.Now().Add(500 * time.Millisecond)
	srv, err := adapter.New(adapter.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv.Use(func(c *gin.Context) {
		if !time.Now().Before(expires) {
			c.AbortWithStatus(http.StatusUnauthorized)
		}
	})
	srv.Identify(func(*gin.Context) (*adapter.Identity, error) {
		return &adapter.Identity{UserID: "alice", Expires: expires}, nil
	})
	e := gin.New()
	srv.Mount(e)
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, e))
	t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	var open []*adaptertest.Conn
	for i := range 20 { // each with a replay of its own
		c, _, err := b.TryDial(fmt.Sprintf("%s?n=%d", ws, i), nil)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	<-time.After(time.Until(expires))
	if err := srv.Refresh(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	for _, c := range open {
		if code := c.Closed(); code != 4410 {
			t.Errorf("closed with %d, want 4410", code)
		}
	}
}

// zapRecovery is what others than Gin do: the whole request, in every mode.
func zapRecovery(w io.Writer) gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			if v := recover(); v != nil {
				dump, _ := httputil.DumpRequest(c.Request, false)
				_, _ = w.Write(dump)
				c.AbortWithStatus(http.StatusInternalServerError)
			}
		}()
		c.Next()
	}
}

// TestRecoveriesSeeNoSecrets: nor does one that masks nothing, on a handshake and
// on a poll. The request is otherwise as it was.
func TestRecoveriesSeeNoSecrets(t *testing.T) {
	var out syncBuffer
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, func(s *tokenSite) {
		s.Server.UseEach(zapRecovery(&out), func(c *gin.Context) {
			if c.GetHeader("X-Panic") != "" {
				panic("a mistake")
			}
		})
	})
	b := adaptertest.NewBrowser(t, s.URL)
	header := func(panics string) http.Header {
		return http.Header{"Authorization": {"Bearer alice"}, "Cookie": {"jwt=carol"}, "X-Panic": {panics}, "X-Request-Id": {"seven"}}
	}
	_, open, _ := engineDo(t, b, "GET", enginePath, "", header(""))
	_, rest, _ := strings.Cut(open, `"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	for _, path := range []string{enginePath + "&token=bob", enginePath + "&sid=" + sid} {
		if status, _, _ := engineDo(t, b, "GET", path, "", header("yes")); status != http.StatusInternalServerError {
			t.Errorf("%s: %d, want 500", path, status)
		}
	}
	dumps := out.String()
	for _, secret := range []string{"alice", "bob", "carol", sid} {
		if secret == "" || strings.Contains(dumps, secret) {
			t.Errorf("%q is in %s", secret, dumps)
		}
	}
	if n := strings.Count(dumps, "X-Request-Id: seven"); n != 2 {
		t.Errorf("the recovery saw %d requests:\n%s", n, dumps)
	}
}

// TestOnConnectKnowsWhomATokenNames: the context of OnConnect is that of who has
// been let in, not of the connection that showed nobody yet.
func TestOnConnectKnowsWhomATokenNames(t *testing.T) {
	known := make(chan string, 1)
	s := newTokenSite(t, adapter.Config{Credentials: []adapter.Source{adapter.AuthPayload("token")}}, func(s *tokenSite) {
		s.Server.OnConnect(func(ctx context.Context, _ *adapter.Socket) error {
			id, _ := adapter.IdentityOf(ctx)
			if id == nil {
				id = new(adapter.Identity)
			}
			known <- id.UserID
			return nil
		})
	})
	b := adaptertest.NewBrowser(t, s.URL)
	for _, tr := range []adaptertest.Transport{adaptertest.WebSocket, adaptertest.Polling} {
		b.Connect(adaptertest.Way{Transport: tr, Auth: map[string]string{"token": "alice"}})
		if user := <-known; user != "alice" {
			t.Errorf("%s: OnConnect runs as %q, want alice", tr, user)
		}
	}
}

// TestOnConnectComesBeforeWhatFollowsAFirstMessage: a client need not wait for
// the answer to its first message.
func TestOnConnectComesBeforeWhatFollowsAFirstMessage(t *testing.T) {
	gate := adaptertest.NewGate()
	order := make(chan string, 2)
	s := newTokenSite(t, adapter.Config{Credentials: []adapter.Source{adapter.FirstMessage()}}, func(s *tokenSite) {
		s.Server.Use(func(c *gin.Context) {
			if adapter.Replaying(c.Request.Context()) && c.GetString("token") == "alice" {
				gate.Pass() // until the client has sent more
			}
		})
		s.Server.OnConnect(func(context.Context, *adapter.Socket) error {
			order <- "OnConnect"
			return nil
		})
		adapter.Handle(s.Server, "first", func(context.Context, *adapter.Socket, struct{}) (any, error) {
			order <- "event"
			return nil, nil
		})
	})
	c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Raw(`{"type":"authenticate","token":"alice","id":1}`)
	<-gate.Entered
	c.Raw(`{"type":"first","id":2}`)
	c.Raw(`{"type":`) // not an event: answered by the reader, so the event is in the inbox
	c.Event("error")
	gate.Release <- struct{}{}
	for _, want := range []string{"OnConnect", "event"} {
		if got := <-order; got != want {
			t.Errorf("%s came, want %s", got, want)
		}
	}
}
