package adapter

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
)

// What callers branch on.
var (
	// ErrClosed is returned for what is sent to, or done with, a socket that is gone.
	ErrClosed = net.ErrClosed
	// ErrSessionGone is returned when a session was ended (logout, expiry, a new
	// id at login) after it was loaded: what was to be saved is not saved, so
	// that an ended session never comes back.
	ErrSessionGone = errors.New("adapter: the session has ended")
	// ErrReadOnlySession is returned by Session.Update for sessions kept in a
	// cookie, which only an answer over HTTP can change: that to a handshake, a
	// page, or a poll of Socket.IO.
	ErrReadOnlySession = errors.New("adapter: a session kept in a cookie cannot be written from a socket")
	// ErrNoSession is returned where a session is needed and the chain has
	// loaded none through Server.Store or Server.TokenStore.
	ErrNoSession = errors.New("adapter: no session: use sessions.Sessions(name, srv.Store(store)) in the chain, or a manager with srv.TokenStore(store)")
	// ErrUnknownSession is returned by Server.RevokeSession for a handle that is
	// none of the user's.
	ErrUnknownSession = errors.New("adapter: the user has no such session")
	// ErrShutdown is the cause of everything that ends with the server.
	ErrShutdown = errors.New("adapter: the server is shutting down")
)

// Codes of the refusals that the adapter makes itself. An app adds its own.
const (
	CodeBadRequest      = "bad_request"     // the request or frame is not what was expected
	CodeUnauthenticated = "unauthenticated" // nobody is logged in, and somebody has to be
	CodeForbidden       = "forbidden"       // somebody is, and may not do this
	CodeForeignOrigin   = "foreign_origin"  // the page asking comes from an origin that is not listed
	CodeNamespace       = "unknown_namespace"
	CodeEvent           = "unknown_event"
	CodeSessionEnded    = "session_ended"
	CodeExpired         = "expired"
	CodeTooFast         = "too_fast"
	CodeUnavailable     = "unavailable" // a store or the server does not answer now; try again
	CodeInternal        = "internal"
)

// Error is what a peer sees of a refusal, in one form wherever it is refused:
// the error of a reply, the data of a connect_error, the body of an HTTP answer.
// A handler, guard or Identify that returns one sends it as it is; any other
// error is logged and reaches the peer as "internal" without its text.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data,omitempty"`

	http int // status of the middleware whose code this is
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// status is the HTTP answer for e, and closeCode the WebSocket one.
func (e *Error) status() int {
	switch e.Code {
	case CodeBadRequest:
		return http.StatusBadRequest
	case CodeUnauthenticated, CodeSessionEnded, CodeExpired:
		return http.StatusUnauthorized
	case CodeNamespace:
		return http.StatusNotFound
	case CodeTooFast:
		return http.StatusTooManyRequests
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	case CodeInternal:
		return http.StatusInternalServerError
	}
	return cmp.Or(e.http, http.StatusForbidden)
}

func (e *Error) json() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		// Data that cannot be encoded is the app's mistake, not the peer's.
		b, _ = json.Marshal(&Error{Code: e.Code, Message: e.Message})
	}
	return b
}

// asError returns what a peer may see of err, and whether err says more that
// belongs into the log.
func asError(err error) (e *Error, hidden bool) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e, false
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &Error{Code: CodeUnavailable, Message: "the request was not finished in time; try again"}, true
	}
	return &Error{Code: CodeInternal, Message: "something went wrong on the server"}, true
}
