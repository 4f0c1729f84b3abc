package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
	"github.com/gin-usher/usher/app/chat"
)

// failure is how the site answers one kind of error.
type failure struct {
	status int
	title  string
}

// failures is the one table from error codes to HTTP.
var failures = map[app.Code]failure{
	app.CodeInvalid:         {http.StatusBadRequest, "That did not work"},
	app.CodeUnauthenticated: {http.StatusUnauthorized, "Please sign in"},
	app.CodeForbidden:       {http.StatusForbidden, "Not for you"},
	app.CodeNotFound:        {http.StatusNotFound, "No such seat"},
	chat.CodeTooFast:        {http.StatusTooManyRequests, "Not so fast"},
	app.CodeUnavailable:     {http.StatusServiceUnavailable, "Back in a moment"},
	app.CodeInternal:        {http.StatusInternalServerError, "Something broke"},
}

// safe returns what the person at the other end may know of err.
func safe(err error) *app.Error {
	if e, ok := errors.AsType[*app.Error](err); ok {
		if _, known := failures[e.Code]; known {
			return e
		}
	}
	return &app.Error{
		Code:    app.CodeInternal,
		Message: "Something went wrong on our side. It has been noted; please try again.",
		Err:     err,
	}
}

// fail ends the request with err; showErrors shows it.
func fail(c *gin.Context, err error) {
	_ = c.Error(err) // gin returns what it was given
	c.Abort()
}

// showErrors renders the last error of a request that nobody has answered.
func (s *site) showErrors(c *gin.Context) {
	c.Next()
	if last := c.Errors.Last(); last != nil && !c.Writer.Written() {
		s.showError(c, last.Err)
	}
}

// showError answers with err as a page or as JSON.
func (s *site) showError(c *gin.Context, err error) {
	e := safe(err)
	f := failures[e.Code]
	s.logFailure(c, f.status, err)
	noStore(c)
	if f.status == http.StatusServiceUnavailable {
		c.Header("Retry-After", "5")
	}
	if wantsJSON(c) {
		c.JSON(f.status, gin.H{"code": e.Code, "message": e.Message})
		return
	}
	s.render(c, f.status, "error", f.title, errorPage{Status: f.status, Message: e.Message, Code: e.Code})
}

// errorPage is the data of templates/error.html.
type errorPage struct {
	Status  int
	Message string
	Code    app.Code
}

// wantsJSON reports whether the caller is a program: by what it asks, or by
// what it accepts.
func wantsJSON(c *gin.Context) bool {
	path := c.Request.URL.Path
	if slices.Contains([]string{"/me", "/healthz"}, path) || strings.HasPrefix(path, "/api/") {
		return true
	}
	return c.NegotiateFormat(gin.MIMEHTML, gin.MIMEJSON) == gin.MIMEJSON
}

// Refuse is for adapter.Config.Refuse: a page request that the socket server's
// chain refuses is answered with the site's own error page.
func Refuse(c *gin.Context, status int, e *adapter.Error) {
	switch status {
	case http.StatusUnauthorized:
		fail(c, &app.Error{Code: app.CodeUnauthenticated, Message: e.Message})
	case http.StatusForbidden:
		fail(c, &app.Error{Code: app.CodeForbidden, Message: e.Message})
	default:
		// Whatever else keeps the chain from answering passes: a store that
		// is down, a timeout.
		fail(c, &app.Error{
			Code:    app.CodeUnavailable,
			Message: "We cannot check who you are right now, because the database does not answer. Nothing is lost: please try again in a moment.",
			Err:     e,
		})
	}
}

// recoverPanic turns a handler's panic into the 500 page.
func (s *site) recoverPanic(c *gin.Context) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v == http.ErrAbortHandler {
			panic(v) // net/http's way to drop a connection
		}
		c.Abort()
		err := fmt.Errorf("web: panic: %v\n%s", v, debug.Stack())
		if c.Writer.Written() {
			// Too late for another answer: half of one is on its way.
			s.logFailure(c, http.StatusInternalServerError, err)
			return
		}
		s.showError(c, err)
	}()
	c.Next()
}

// logRequest writes one line per request. The query stays out of it: it may
// carry a login code or a token.
func (s *site) logRequest(c *gin.Context) {
	start := time.Now()
	path := c.Request.URL.Path
	c.Next()
	s.Logger.LogAttrs(c.Request.Context(), slog.LevelInfo, "request",
		slog.String("method", c.Request.Method),
		slog.String("path", path),
		slog.Int("status", c.Writer.Status()),
		slog.Duration("took", time.Since(start)),
		slog.String("from", c.ClientIP()),
	)
}

// logFailure writes down the cause of what the person saw only as a page.
func (s *site) logFailure(c *gin.Context, status int, err error) {
	if status < http.StatusInternalServerError {
		return
	}
	// The request may be over, but its failure is still worth a line.
	ctx := context.WithoutCancel(c.Request.Context())
	s.Logger.ErrorContext(ctx, "request failed",
		"method", c.Request.Method, "path", c.Request.URL.Path, "status", status, "error", err)
}
