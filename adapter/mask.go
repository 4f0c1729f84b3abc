package adapter

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"runtime"
	"strings"

	"github.com/gin-gonic/gin"
)

// Recoveries write down the request that a panic has happened in: gin.Recovery
// in debug mode, and in every mode for a connection that was cut off; others
// always. Gin masks Authorization alone, others nothing. So whatever panics in
// our routes, or in the chain below a recovery, leaves a request without secrets
// behind. The query's and the subprotocol's tokens have been moved by then.

// maskOnPanic is a handler below which c.Request has no secrets once something
// has panicked. It does not recover: the stack stays as it is.
func maskOnPanic(c *gin.Context) {
	panicked := true
	defer func() {
		if panicked {
			c.Request = masked(c.Request)
		}
	}()
	c.Next()
	panicked = false
}

// masked returns r without cookies, credentials and the sid of Engine.IO.
func masked(r *http.Request) *http.Request {
	m := *r
	m.Header = r.Header.Clone()
	for _, k := range [...]string{"Authorization", "Proxy-Authorization", "Cookie"} {
		if m.Header.Get(k) != "" {
			m.Header.Set(k, "*")
		}
	}
	if query := r.URL.Query(); query.Has("sid") {
		query.Set("sid", "*")
		u := *r.URL
		u.RawQuery = query.Encode()
		m.URL, m.RequestURI = &u, u.RequestURI()
	}
	return &m
}

// handlerName is the name of the function, or of the one that has made it.
func handlerName(h gin.HandlerFunc) string {
	return runtime.FuncForPC(reflect.ValueOf(h).Pointer()).Name()
}

// recovers reports whether h looks like a middleware that recovers from panics:
// gin.Recovery, ginzap.RecoveryWithZap and their like.
func recovers(h gin.HandlerFunc) bool {
	return strings.Contains(strings.ToLower(handlerName(h)), "recover")
}

// String names the request without anything secret, for logs: printed as they
// are, its fields would show cookies.
func (h *Handshake) String() string {
	r := h.Request(context.Background())
	return r.Method + " " + r.URL.Path + " from " + h.remote
}

// String names the socket, for logs: printed as they are, its fields would show
// its session and its credentials.
func (s *Socket) String() string { return "socket " + s.id + " of " + s.ns.name }

// LogValue is what package slog writes of an identity: a digest in the place of
// the session's id, and nothing of User.
func (id *Identity) LogValue() slog.Value {
	if id == nil {
		return slog.StringValue("")
	}
	return slog.GroupValue(
		slog.String("user", id.UserID),
		slog.String("session", digest(id.SessionID)),
		slog.String("provider", id.Provider),
		slog.Any("roles", id.Roles),
	)
}
