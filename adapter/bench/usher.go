package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/memstore"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// A person is the app's own value for a user.
type person struct{ ID, Name string }

// newUsher serves with package adapter as its documentation says.
func newUsher(users bool) (http.Handler, error) {
	r := newEngine()
	// The others keep no audit trail.
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	srv, err := adapter.New(adapter.Config{Logger: log})
	if err != nil {
		return nil, err
	}
	if users {
		srv.Use(sessions.Sessions(cookieName, srv.Store(memstore.NewStore(sessionKey))))
		srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
			id, ok := adapter.LoggedIn(c)
			if !ok {
				return nil, nil
			}
			id.User = person{ID: id.UserID, Name: "user " + id.UserID}
			return &id, nil
		})
	} else {
		srv.AllowAnonymous()
	}

	adapter.Handle(srv, "echo", func(_ context.Context, _ *adapter.Socket, in note) (note, error) { return in, nil })
	adapter.On(srv, "join", func(_ context.Context, s *adapter.Socket, _ note) error { return s.Join("room") })
	adapter.On(srv, "say", func(_ context.Context, _ *adapter.Socket, in note) error { return srv.To("room").Emit("say", in) })
	srv.Mount(r)

	if users {
		pages := r.Group("/", srv.HTTP()...)
		pages.POST("/login/:user", func(c *gin.Context) {
			if err := srv.Login(c, adapter.Identity{UserID: c.Param("user"), Provider: "bench"}); err != nil {
				_ = c.AbortWithError(http.StatusInternalServerError, err)
				return
			}
			c.Status(http.StatusNoContent)
		})
	}
	return r, nil
}
