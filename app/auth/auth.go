package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
)

// Config says whom an Auth talks to. Users, Login, Logout and PublicURL are
// required.
type Config struct {
	// PublicURL is where browsers reach the site: scheme and host, no path.
	PublicURL *url.URL
	// Users keeps the people who have logged in.
	Users app.Users
	// Login begins a session for the person; it must give the session a new id.
	Login func(*gin.Context, adapter.Identity) error
	// Logout ends the session of the request.
	Logout func(*gin.Context) error
	// Providers are offered in this order. Their names must differ.
	Providers []Provider
	// Secure marks cookies as https only. It must agree with PublicURL.
	Secure bool
	// Keys seal the cookie of a login under way: secrets of at least 32 bytes,
	// of which the first seals and all open. Processes that share a site must
	// share them. Nil means a random one, so that a restart fails the logins
	// that were under way.
	Keys [][]byte
	// Logger is told who logged in. Nil means slog.Default.
	Logger *slog.Logger
}

// Auth is the login of a site: handlers for its routes and the answer to who
// a request is from.
type Auth struct {
	public    *url.URL
	users     app.Users
	login     func(*gin.Context, adapter.Identity) error
	logout    func(*gin.Context) error
	providers []Provider
	attempts  *attempts
	log       *slog.Logger
}

// New returns an Auth, or the reason why cfg cannot work.
func New(cfg Config) (*Auth, error) {
	if err := checkPublicURL(cfg.PublicURL); err != nil {
		return nil, err
	}
	switch {
	case cfg.Users == nil:
		return nil, errors.New("auth: Config.Users is missing")
	case cfg.Login == nil || cfg.Logout == nil:
		return nil, errors.New("auth: Config.Login and Config.Logout are both required")
	case cfg.Secure != (cfg.PublicURL.Scheme == "https"):
		// A Secure cookie never comes back over http, and one without it leaks
		// over http: either way the two settings cannot both be meant.
		return nil, fmt.Errorf("auth: Config.Secure is %t, but PublicURL is %s", cfg.Secure, cfg.PublicURL)
	}
	seen := make(map[string]bool)
	for _, p := range cfg.Providers {
		if p.Provider == nil {
			return nil, fmt.Errorf("auth: provider %q has no implementation", p.Label)
		}
		if !validName(p.Name()) {
			return nil, fmt.Errorf("auth: provider name %q: want 1 to 32 of a-z, 0-9 and -", p.Name())
		}
		if seen[p.Name()] {
			return nil, fmt.Errorf("auth: two providers are named %q", p.Name())
		}
		seen[p.Name()] = true
	}
	attempts, err := newAttempts(cfg.Keys, cfg.Secure, time.Now)
	if err != nil {
		return nil, err
	}
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	return &Auth{
		public:    cfg.PublicURL,
		users:     cfg.Users,
		login:     cfg.Login,
		logout:    cfg.Logout,
		providers: cfg.Providers,
		attempts:  attempts,
		log:       log,
	}, nil
}

// ProviderInfo is what a login page shows of a provider.
type ProviderInfo struct {
	Name  string // "github"
	Label string // "GitHub"
	URL   string // "/login/github"; add ?next=/local/path to return there
}

// Providers lists the ways to log in, in the order of the configuration.
func (a *Auth) Providers() []ProviderInfo {
	infos := make([]ProviderInfo, len(a.providers))
	for i, p := range a.providers {
		infos[i] = ProviderInfo{Name: p.Name(), Label: p.Label, URL: "/login/" + p.Name()}
	}
	return infos
}

// Identity says who c is from, for adapter's Identify: whom the token that
// Tokens.Bearer has found names, or else the session. It is nil for a visitor
// and for a person who is no longer in the store; the error of a store that
// does not answer is returned as it is, so that the adapter can tell "nobody"
// from "unknown".
func (a *Auth) Identity(c *gin.Context) (*adapter.Identity, error) {
	v, _ := c.Get(tokenIdentity)
	id, ok := v.(adapter.Identity)
	if !ok {
		// Only now: a session that is not looked at is not the socket's.
		id, ok = adapter.LoggedIn(c)
	}
	if !ok {
		return nil, nil
	}
	u, err := a.users.User(c.Request.Context(), id.UserID)
	if err != nil {
		if app.CodeOf(err) == app.CodeNotFound {
			return nil, nil
		}
		return nil, fmt.Errorf("auth: load user: %w", err)
	}
	id.User = u
	return &id, nil
}

// Logout ends the session and redirects to the front page. Route it as POST,
// behind http.CrossOriginProtection: a link or an image of another site must
// not log people out.
func (a *Auth) Logout(c *gin.Context) {
	noStore(c)
	if err := a.logout(c); err != nil {
		fail(c, &app.Error{
			Code:    app.CodeUnavailable,
			Message: "You could not be logged out just now. Try again in a moment.",
			Err:     fmt.Errorf("auth: log out: %w", err),
		})
		return
	}
	c.Redirect(http.StatusSeeOther, "/")
}

// fail leaves err for the middleware that renders errors.
func fail(c *gin.Context, err *app.Error) {
	_ = c.Error(err)
	c.Abort()
}

// noStore keeps the answer, which belongs to one person and one moment, out of
// every cache, and the code and state in its URL out of the Referer that other
// sites see.
func noStore(c *gin.Context) {
	c.Header("Cache-Control", "no-store")
	c.Header("Referrer-Policy", "same-origin")
}
