package adapter_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// sid asks the client for the sid of its connection.
func (c *client) sid() string {
	c.t.Helper()
	c.do(map[string]any{"do": "engine", "name": c.name})
	return c.await("engine").SID
}

// steal tries all that can be done with a sid, and wants 403 each time.
func steal(t *testing.T, who string, thief *adaptertest.Browser, sid string, header http.Header) {
	t.Helper()
	for _, method := range []string{"GET", "POST"} {
		if status, body, _ := engineDo(t, thief, method, enginePath+"&sid="+sid, `42["me"]`, header); status != http.StatusForbidden || !strings.Contains(body, `"code":4`) {
			t.Errorf("%s by %s: %d %s, want 403", method, who, status, body)
		}
	}
	d := websocket.Dialer{Jar: thief.HTTP.Jar}
	ws, resp, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(thief.URL, "http")+"/socket.io/?EIO=4&transport=websocket&sid="+sid, header)
	if err == nil {
		_ = ws.Close()
	}
	if resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("an upgrade by %s: %v, want 403", who, err)
	}
}

// wantTheft checks that there is a line for each try, and none with the sid.
func wantTheft(t *testing.T, log, sid string, tries int) {
	t.Helper()
	if n := strings.Count(log, "somebody else's Engine.IO session was refused"); n != tries || strings.Contains(log, sid) {
		t.Errorf("the log has %d lines about %d tries, want one each, without the sid:\n%s", n, tries, log)
	}
}

// TestP20NodeClientWithCookies: the owner is the real client. It notices nothing
// of thieves, before and after its upgrade.
func TestP20NodeClientWithCookies(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		var logged syncBuffer
		s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))}, newMemstore(t), nil)
		alice := s.NewBrowser(t, "alice")
		c := n.open("alice", alice, "/", transport, nil)
		c.await("connect")
		if strings.HasPrefix(transport, "upgrade") {
			c.upgraded()
		}
		sid := c.sid()
		steal(t, "nobody", s.NewBrowser(t, ""), sid, nil)
		steal(t, "mallory", s.NewBrowser(t, "mallory"), sid, nil)
		steal(t, "a foreign page with alice's cookies", alice, sid, http.Header{"Origin": {"https://evil.example"}})
		wantTheft(t, logged.String(), sid, 6) // a foreign origin is refused before anybody asks whose sid it is
		if got := c.call("me"); got != `["alice"]` {
			t.Errorf("me = %s, want alice", got)
		}
		alice.MustPost("/logout")
		if l := c.await("disconnect"); l.Reason != "io server disconnect" {
			t.Errorf("disconnect %s", l)
		}
	})
}

// TestP20TokenOfTheJWTGuide: the client of Socket.IO's guide to JWT, which sends
// {authorization: "bearer …"} by extraHeaders. In a browser only polls carry it.
func TestP20TokenOfTheJWTGuide(t *testing.T) {
	guide := func(token string) map[string]any {
		return map[string]any{"transportOptions": map[string]any{"polling": map[string]any{
			"extraHeaders": map[string]string{"authorization": "bearer " + token},
		}}}
	}
	for _, transport := range []string{"polling", "upgrade", "polling 3.x", "upgrade 3.x"} {
		t.Run(transport, func(t *testing.T) {
			n := startNode(t)
			var logged syncBuffer
			b := adaptertest.NewBrowser(t, newTokenSite(t, adapter.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))}, nil).URL)
			c := n.open("alice", b, "/", transport, guide("alice"))
			c.await("connect")
			if got := c.call("me"); got != `["alice"]` {
				t.Errorf("me = %s, want alice", got)
			}
			if strings.HasPrefix(transport, "upgrade") {
				c.upgraded()
			}
			sid := c.sid()
			steal(t, "mallory", b, sid, http.Header{"Authorization": {"bearer mallory"}})
			wantTheft(t, logged.String(), sid, 3)
			if got := c.call("me"); got != `["alice"]` {
				t.Errorf("me = %s, want alice", got)
			}
		})
	}
	// What a browser cannot do: a WebSocket alone carries no token.
	t.Run("websocket", func(t *testing.T) {
		n := startNode(t)
		b := adaptertest.NewBrowser(t, newTokenSite(t, adapter.Config{}, nil).URL)
		if l := n.open("alice", b, "/", "websocket", guide("alice")).await("connect_error"); l.Message != "websocket error" {
			t.Errorf("connect_error %s", l)
		}
		n.open("node", b, "/", "websocket", map[string]any{"extraHeaders": map[string]string{"authorization": "bearer bob"}}).await("connect")
	})
}
