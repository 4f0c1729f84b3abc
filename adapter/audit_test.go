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
