package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// auditLines returns the lines of a JSON log with the given message.
func auditLines(t *testing.T, log, msg string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if l["msg"] == msg {
			lines = append(lines, l)
		}
	}
	return lines
}

// TestAuditTrail: one line for every accept, refusal, change of identity and end.
func TestAuditTrail(t *testing.T) {
	var logged syncBuffer
	var mu sync.Mutex
	var told []string
	cfg := adapter.Config{Logger: slog.New(slog.NewJSONHandler(&logged, nil))}
	s := adaptertest.NewSite(t, cfg, newMemstore(t), func(s *adaptertest.Site) {
		note := func(_ context.Context, h *adapter.Handshake, err error) {
			mu.Lock()
			defer mu.Unlock()
			e, _ := errors.AsType[*adapter.Error](err)
			told = append(told, e.Code+" "+strings.Split(h.RemoteAddr(), ":")[0])
		}
		s.Server.OnRefused(note)
		adapter.Handle(s.Server, "roles", func(ctx context.Context, _ *adapter.Socket, _ any) ([]string, error) {
			id, _ := adapter.IdentityOf(ctx)
			return id.Roles, nil
		})
		s.Server.Of("/admin").Require(adapter.Role("admin")).OnRefused(note)
	})
	alice := s.NewBrowser(t, "alice")
	c := alice.Dial(ws)
	alice.MustPost("/set?key=role&value=admin")
	for { // until the role has arrived
		var roles []string
		if c.Must("roles", nil, &roles); slices.Contains(roles, "admin") {
			break
		}
	}
	_, _, _ = s.NewBrowser(t, "").TryDial(ws, nil)
	_, _, _ = s.NewBrowser(t, "bob").TryDial(ws+"?nsp=/admin", nil)
	_, _, _ = alice.TryDial(ws, http.Header{"Origin": {"https://evil.example"}})
	alice.MustPost("/logout")
	c.Closed()
	s.Server.Settle()

	log := logged.String()
	accepted := auditLines(t, log, "socket accepted")
	if len(accepted) != 1 || accepted[0]["user"] != "alice" || accepted[0]["namespace"] != "/" || accepted[0]["address"] != "127.0.0.1" || accepted[0]["session"] == "" {
		t.Errorf("accepted: %v", accepted)
	}
	if changed := auditLines(t, log, "identity changed"); len(changed) != 1 || changed[0]["user"] != "alice" || changed[0]["was"] != "alice" {
		t.Errorf("changed: %v", changed)
	}
	if ended := auditLines(t, log, "socket ended"); len(ended) != 1 || ended[0]["reason"] != "session ended" {
		t.Errorf("ended: %v", ended)
	}
	var codes []any
	for _, l := range auditLines(t, log, "handshake refused") {
		codes = append(codes, l["code"])
	}
	if !slices.Equal(codes, []any{"unauthenticated", "forbidden", "foreign_origin"}) {
		t.Errorf("refused: %v", codes)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"unauthenticated 127.0.0.1", "forbidden 127.0.0.1", "foreign_origin 127.0.0.1"}; !slices.Equal(told, want) {
		t.Errorf("OnRefused was told %q, want %q", told, want)
	}
}

// TestAuditTrailOfSocketIO: a namespace that is refused over an open connection.
func TestAuditTrailOfSocketIO(t *testing.T) {
	var logged syncBuffer
	told := make(chan error, 1)
	cfg := adapter.Config{Logger: slog.New(slog.NewJSONHandler(&logged, nil))}
	s := adaptertest.NewSite(t, cfg, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.Of("/admin").Require(adapter.Role("admin")).OnRefused(func(_ context.Context, _ *adapter.Handshake, err error) {
			told <- err
			panic("a mistake of the app")
		})
	})
	c := engineDial(t, s.NewBrowser(t, "bob"), "")
	_, _, _ = c.ReadMessage()
	if err := c.WriteMessage(1, []byte("40/admin,")); err != nil {
		t.Fatal(err)
	}
	if _, got, _ := c.ReadMessage(); !strings.HasPrefix(string(got), "44/admin,") {
		t.Errorf("%s", got)
	}
	if e, ok := errors.AsType[*adapter.Error](<-told); !ok || e.Code != adapter.CodeForbidden {
		t.Errorf("OnRefused was told %v", e)
	}
	if refused := auditLines(t, logged.String(), "socket refused"); len(refused) != 1 || refused[0]["user"] != "bob" || refused[0]["code"] != "forbidden" {
		t.Errorf("refused: %v", refused)
	}
}

// TestAuditTrailOfTokens: who guesses tokens in messages is seen like who guesses them
// in handshakes, and so is who waits and shows none.
func TestAuditTrailOfTokens(t *testing.T) {
	for _, format := range []string{"plain", "Socket.IO"} {
		t.Run(format, func(t *testing.T) {
			var logged syncBuffer
			told := make(chan string, 10)
			s := newTokenSite(t, adapter.Config{
				Credentials: []adapter.Source{adapter.FirstMessage()}, AuthTimeout: time.Second,
				Logger: slog.New(slog.NewJSONHandler(&logged, nil)),
			}, func(s *tokenSite) {
				s.Server.OnRefused(func(_ context.Context, h *adapter.Handshake, err error) {
					e, _ := errors.AsType[*adapter.Error](err)
					told <- e.Message + " " + strings.Split(h.RemoteAddr(), ":")[0]
				})
			})
			b := adaptertest.NewBrowser(t, s.URL)
			path, connect, authenticate := ws, "", `{"type":"authenticate","token":"badguess"}`
			if format != "plain" {
				path, connect, authenticate = "/socket.io/?EIO=4&transport=websocket", "40", `420["authenticate","badguess"]`
			}
			open := func(token string) *websocket.Conn {
				c, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(b.URL, "http")+path, http.Header{"Authorization": {token}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				if connect != "" {
					wsRead(t, c)
					wsWrite(t, c, connect)
				}
				return c
			}
			c := open("")
			wsWrite(t, c, authenticate)
			for _, want := range []string{"not this token 127.0.0.1", "no token was shown in time 127.0.0.1"} {
				if got := <-told; got != want {
					t.Errorf("OnRefused was told %q, want %q", got, want)
				}
			}
			alice := open("Bearer alice")
			wsRead(t, alice)
			wsWrite(t, alice, authenticate)
			wsRead(t, alice)
			await(t, "the line about alice's token", func() bool { return len(auditLines(t, logged.String(), "token refused")) == 2 })

			refused := auditLines(t, logged.String(), "token refused")
			if refused[0]["user"] != "" || refused[1]["user"] != "alice" || refused[1]["code"] != "unauthenticated" {
				t.Errorf("tokens refused: %v", refused)
			}
			if refused := auditLines(t, logged.String(), "socket refused"); len(refused) != 1 {
				t.Errorf("sockets refused: %v", refused)
			}
			if len(told) != 0 {
				t.Errorf("OnRefused was told of an open socket: %s", <-told)
			}
			if strings.Contains(logged.String(), "badguess") {
				t.Errorf("the token is in the log: %s", logged.String())
			}
		})
	}
}

// TestAddressOfAThief: the line about who shows somebody else's sid names the address
// that he comes from, and not the one that he says he has.
func TestAddressOfAThief(t *testing.T) {
	var logged syncBuffer
	s := newTokenSite(t, adapter.Config{Logger: slog.New(slog.NewJSONHandler(&logged, nil))}, nil)
	b := adaptertest.NewBrowser(t, s.URL)
	_, open, _ := engineDo(t, b, "GET", enginePath, "", http.Header{"Authorization": {"Bearer alice"}})
	path := enginePath + "&sid=" + open[strings.Index(open, `:"`)+2:strings.Index(open, `",`)]
	engineDo(t, b, "POST", path, "6", http.Header{"Authorization": {"Bearer mallory"}, "X-Forwarded-For": {"203.0.113.9"}})
	lines := auditLines(t, logged.String(), "a request for somebody else's Engine.IO session was refused")
	if len(lines) != 1 || lines[0]["address"] != "127.0.0.1" {
		t.Errorf("%v", lines)
	}
}

// TestRedirectIsNamedWithoutItsQuery: a middleware that sends people to log in, or to
// log out elsewhere, gives them states and tokens along.
func TestRedirectIsNamedWithoutItsQuery(t *testing.T) {
	for _, behind := range []string{"?id_token_hint=SECRET", "#access_token=SECRET"} {
		var logged syncBuffer
		s := newTokenSite(t, adapter.Config{Logger: slog.New(slog.NewJSONHandler(&logged, nil))}, func(s *tokenSite) {
			s.Server.Use(func(c *gin.Context) {
				c.Redirect(http.StatusFound, "https://id.example/logout"+behind)
				c.Abort()
			})
		})
		status, body, _ := engineDo(t, adaptertest.NewBrowser(t, s.URL), "GET", enginePath, "", http.Header{"Authorization": {"Bearer alice"}})
		if status != http.StatusUnauthorized || !strings.Contains(body, `https://id.example/logout\"`) {
			t.Errorf("%s: %d %s", behind, status, body)
		}
		if log := logged.String(); !strings.Contains(log, "id.example/logout") || strings.Contains(log, "SECRET") {
			t.Errorf("%s: %s", behind, log)
		}
	}
}
