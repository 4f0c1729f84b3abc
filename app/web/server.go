// Package web is the site: its routes, pages, static files and error pages.
// It knows the chat and the login flow by small interfaces only, so its tests
// need neither a database nor a provider.
package web

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/app"
	"github.com/gin-usher/usher/app/auth"
)

// DevPath is where Config.Dev is served.
const DevPath = "/dev/oidc"

// Sockets is what the site needs of the socket server; *adapter.Server is one.
type Sockets interface {
	// HTTP returns the middlewares that say who asks for a page.
	HTTP() gin.HandlersChain
	// Mount adds the socket routes.
	Mount(e *gin.Engine, at ...*gin.RouterGroup)
}

// Login is the login flow; *auth.Auth is one. Its handlers leave their errors
// in c.Errors for this package to show.
type Login interface {
	Providers() []auth.ProviderInfo
	Begin(c *gin.Context)
	Callback(c *gin.Context)
	Logout(c *gin.Context)
}

// Chat reads and writes what the room pages show; *chat.Service is one.
type Chat interface {
	Rooms(ctx context.Context) ([]app.Room, error)
	Open(ctx context.Context, room string) (app.Room, []app.Message, error)
	History(ctx context.Context, room string, before int64) ([]app.Message, error)
}

// Live is the chat as its open sockets see it; *chat.Live is one.
type Live interface {
	// Members lists who is in the room right now.
	Members(ctx context.Context, room string) ([]app.User, error)
	// Post stores a message and tells everyone in the room.
	Post(ctx context.Context, u app.User, d app.Draft) (app.Message, error)
}

// Config is what New builds the site from. Every field is required unless it
// says otherwise.
type Config struct {
	// PublicURL is the address people use: scheme and host, no path. Nothing
	// is ever derived from a request's Host header instead.
	PublicURL *url.URL

	Sockets Sockets
	Login   Login
	Chat    Chat
	Live    Live
	Devices Devices

	// User finds the person a request was identified as;
	// adapter.User[app.User] does.
	User func(ctx context.Context) (app.User, bool)

	// Session is the handle of the session that a request came with, as Devices
	// knows it; empty if it came with none.
	Session func(ctx context.Context) string

	// Health reports whether the stores answer.
	Health func(ctx context.Context) error

	// Dev serves the development login provider under DevPath. Nil: none.
	Dev http.Handler

	// TokenLogin answers POST /api/login, to this machine only: it is for
	// development, like Dev. Nil: none.
	TokenLogin gin.HandlerFunc

	// Templates holds layout.html and the pages, Static the files under /static/.
	Templates, Static fs.FS

	// TrustedProxies lists the addresses and networks whose X-Forwarded-For
	// is believed. Nil: none.
	TrustedProxies []string

	// Logger gets a line for every request and the cause of every failure.
	Logger *slog.Logger
}

// site is the state the handlers share. It does not change after New.
type site struct {
	Config
	pages  pages
	assets assets
}

// New returns the site, ready to serve. It sets Gin's process-wide mode to
// release.
func New(cfg Config) (http.Handler, error) {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	if err := engine.SetTrustedProxies(cfg.TrustedProxies); err != nil {
		return nil, fmt.Errorf("web: trusted proxies: %w", err)
	}
	s := &site{Config: cfg}
	var err error
	if s.assets, err = loadAssets(cfg.Static); err != nil {
		return nil, fmt.Errorf("web: static files: %w", err)
	}
	if s.pages, err = parsePages(cfg.Templates, s.assets); err != nil {
		return nil, fmt.Errorf("web: templates: %w", err)
	}
	forms, err := crossOriginProtection(cfg.PublicURL)
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}

	// Sockets check origin and identity themselves, and answer refusals in
	// their own format: they are mounted above what is only for pages.
	engine.Use(s.logRequest, s.recoverPanic)
	cfg.Sockets.Mount(engine)
	engine.Use(hurry, securityHeaders(cfg.PublicURL), s.showErrors, forms)

	engine.GET("/healthz", s.healthz)
	engine.HEAD("/healthz", s.healthz)
	engine.GET("/static/*file", s.asset)
	engine.HEAD("/static/*file", s.asset)
	engine.GET("/favicon.ico", s.favicon)
	if cfg.Dev != nil {
		engine.Any(DevPath+"/*path", gin.WrapH(cfg.Dev))
	}

	if cfg.TokenLogin != nil {
		engine.POST("/api/login", onlyThisMachine, cfg.TokenLogin)
	}
	api := engine.Group("/api", noStore)
	api.Use(cfg.Sockets.HTTP()...)
	api.GET("/self", s.me)

	people := engine.Group("/", s.publicHost, noStore)
	people.Use(cfg.Sockets.HTTP()...)

	people.GET("/", s.home)
	people.GET("/me", s.me)
	people.GET("/login", s.login)
	people.GET("/login/:provider", cfg.Login.Begin)
	people.GET("/login/:provider/callback", cfg.Login.Callback)
	people.POST("/logout", cfg.Login.Logout)
	people.GET("/devices", s.requireUser, s.devices)
	people.POST("/devices/sign-out", s.requireUser, s.signOutDevice)
	people.POST("/devices/sign-out-others", s.requireUser, s.signOutOthers)
	people.GET("/room/:name", s.requireUser, s.room)
	people.POST("/room/:name", s.requireUser, s.post)

	// The chain runs here too: a page that does not exist still has the
	// current user in its header.
	notFound := gin.HandlersChain{noStore}
	notFound = append(notFound, cfg.Sockets.HTTP()...)
	engine.NoRoute(append(notFound, s.notFound)...)

	return engine, nil
}

// healthz answers those who watch the server: load balancers, monitors.
func (s *site) healthz(c *gin.Context) {
	noStore(c)
	if err := s.Health(c.Request.Context()); err != nil {
		fail(c, &app.Error{Code: app.CodeUnavailable, Message: "The database does not answer.", Err: err})
		return
	}
	c.JSON(http.StatusOK, gin.H{"status": "ok"})
}

// me says who the caller is.
func (s *site) me(c *gin.Context) {
	u, ok := s.User(c)
	if !ok {
		fail(c, app.Errorf(app.CodeUnauthenticated, "You are not signed in."))
		return
	}
	c.JSON(http.StatusOK, u)
}

func (s *site) notFound(c *gin.Context) {
	fail(c, app.Errorf(app.CodeNotFound, "There is no page at this address."))
}

// requireUser sends anonymous visitors to the login page and back afterwards.
func (s *site) requireUser(c *gin.Context) {
	if _, ok := s.User(c); ok {
		return
	}
	// What was posted is lost with the redirect, so come back to the page
	// that shows the form: the path without its query.
	c.Redirect(http.StatusSeeOther, "/login?"+url.Values{"next": {c.Request.URL.EscapedPath()}}.Encode())
	c.Abort()
}
