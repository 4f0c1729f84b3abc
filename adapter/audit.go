package adapter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
)

// The audit trail is one line in Config.Logger for every socket that is
// accepted, refused or ended, for every token that is refused in a message and for
// every change of who it is, at level Info.
// No line has a cookie, a token, the id of a session or an Engine.IO sid: those
// are credentials or lead to them.

// audit writes a line about the socket.
func (s *Socket) audit(what string, id *Identity, more ...slog.Attr) {
	log := s.ns.srv.log
	ctx := context.Background()
	if !log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := []slog.Attr{
		slog.String("namespace", s.ns.name),
		slog.String("socket", s.id),
		slog.String("user", userOf(id)),
		slog.String("session", digest(s.SessionID())),
		slog.String("address", withoutPort(s.shake.Load().remote)),
	}
	log.LogAttrs(ctx, slog.LevelInfo, what, append(attrs, more...)...)
}

func userOf(id *Identity) string {
	if id == nil {
		return ""
	}
	return id.UserID
}

func rolesOf(id *Identity) []string {
	if id == nil {
		return nil
	}
	return id.Roles
}

// digest stands for a session id in logs: enough to tell sessions apart.
func digest(sessionID string) string {
	if sessionID == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(sessionID))
	return hex.EncodeToString(sum[:6])
}

// turnAway notes a handshake, or a request of a connection, that was refused.
func (n *Namespace) turnAway(r *http.Request, e *Error) {
	n.srv.log.LogAttrs(r.Context(), slog.LevelInfo, "handshake refused",
		slog.String("namespace", n.name),
		slog.String("code", e.Code),
		slog.String("reason", e.Message),
		slog.String("address", withoutPort(r.RemoteAddr)),
		slog.String("origin", clip(r.Header.Get("Origin"))),
	)
	if len(n.onRefused) == 0 {
		return
	}
	h, err := record(r)
	if err != nil {
		h = nil // it is one that cannot be kept
	}
	n.tellRefused(r.Context(), h, e)
}

// tellRefused tells who wants to know.
func (n *Namespace) tellRefused(ctx context.Context, h *Handshake, e *Error) {
	defer func() {
		if v := recover(); v != nil {
			n.srv.log.Error("a function of OnRefused panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	for _, f := range n.onRefused {
		f(ctx, h, e)
	}
}

// deny tells the client that its socket is not let in, and who wants to know. It
// does not wait for those.
func (s *Socket) deny(e *Error) {
	s.link.refuse(e)
	s.auditRefusal("socket refused", e)
	s.tellDenied(e)
}

// denyToken is deny for a token that was shown in a message, by a socket that stays
// who it was: one that waits has not been let in.
func (s *Socket) denyToken(in incoming, e *Error) {
	s.link.fail(in, e)
	s.auditRefusal("token refused", e)
	if s.waiting.Load() {
		s.tellDenied(e)
	}
}

func (s *Socket) auditRefusal(what string, e *Error) {
	s.audit(what, s.Identity(), slog.String("code", e.Code), slog.String("reason", e.Message))
}

func (s *Socket) tellDenied(e *Error) {
	if len(s.ns.onRefused) > 0 {
		s.ns.srv.eng.Go(&denial{s, e})
	}
}

// A timedOut is a socket that has waited in vain for a token, about which there is to
// be a line too, on a goroutine that may wait.
type timedOut Socket

func (t *timedOut) Run() {
	s, e := (*Socket)(t), &Error{Code: CodeUnauthenticated, Message: "no token was shown in time"}
	s.auditRefusal("socket refused", e)
	s.tellDenied(e)
}

// A denial is what OnRefused is told, on a goroutine that may wait.
type denial struct {
	s *Socket
	e *Error
}

func (d *denial) Run() { d.s.ns.tellRefused(d.s.Context(), d.s.Handshake(), d.e) }

// clip shortens what a client has sent for a log.
func clip(s string) string {
	const most = 200
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}
