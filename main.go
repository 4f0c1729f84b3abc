// Usher is a small chat in which every page and every open connection agrees
// on who you are. This program is its reference application; the library is
// package adapter.
//
//	go run .
//
// prints the address to open. Settings come from the environment: see
// config.Config and auth.ProvidersFromEnv.
package main

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
	"github.com/gin-usher/usher/app/auth"
	"github.com/gin-usher/usher/app/auth/devoidc"
	"github.com/gin-usher/usher/app/chat"
	"github.com/gin-usher/usher/app/config"
	"github.com/gin-usher/usher/app/store"
	"github.com/gin-usher/usher/app/web"
)

//go:embed templates static
var files embed.FS

const (
	// drainTimeout is how long open requests and sockets get to finish once
	// the program was told to stop.
	drainTimeout = 10 * time.Second
	// sessionAge is how long a login lasts without being used.
	sessionAge = 30 * 24 * time.Hour
	// devClient is this program's client id at the development provider.
	devClient = "usher"
	// devProvider is the name of that provider.
	devProvider = "dev"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on, a second signal ends the program at once

	if err := start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "usher:", err)
		os.Exit(1)
	}
}

// settings are what run needs to be told.
type settings struct {
	config.Config
	// providers returns the configured ways to log in, for a site at public.
	providers func(public *url.URL) ([]auth.Provider, error)
	// announce is told the address once the site is about to be served.
	announce func(public *url.URL)
}

// settingsFromEnv reads and checks the environment. Its error names every
// variable that is wrong.
func settingsFromEnv(getenv func(string) string) (settings, error) {
	cfg, err := config.FromEnv(getenv)
	providers := func(public *url.URL) ([]auth.Provider, error) {
		return auth.ProvidersFromEnv(getenv, public)
	}
	// Asked once already here, for the error: the address does not matter yet.
	_, loginErr := providers(cmp.Or(cfg.PublicURL, &url.URL{Scheme: "http", Host: "localhost"}))
	return settings{
		Config:    cfg,
		providers: providers,
		announce:  func(public *url.URL) { fmt.Println("Usher is listening on", public) },
	}, errors.Join(err, loginErr)
}

// start runs the program as the environment describes it.
func start(ctx context.Context) error {
	cfg, err := settingsFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", cfg.Addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program: choose another port with PORT or ADDR", cfg.Addr)
	}
	if err != nil {
		return err
	}
	return run(ctx, cfg, listener)
}

// run serves the site on listener until ctx ends, then lets what is under way
// finish. It closes listener and everything it opened.
func run(ctx context.Context, cfg settings, listener net.Listener) (err error) {
	defer listener.Close() // a no-op once the server has closed it
	public, err := cfg.PublicURLOn(listener.Addr())
	if err != nil {
		return err
	}
	secure := public.Scheme == "https"

	secrets, err := config.LoadSecrets(cfg.DataDir, cfg.Log)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, filepath.Join(cfg.DataDir, "usher.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	srv, err := adapter.New(adapter.Config{
		Origins:     []string{public.Scheme + "://" + public.Host},
		Development: config.IsLoopback(public.Hostname()),
		Logger:      cfg.Log,
		Refuse:      web.Refuse,
		// The sessions are in the database, and go there; what Revoke ends goes
		// nowhere by itself.
		Endings: db.Endings(),
		// Not Query: URLs end up in the logs of proxies.
		Credentials: []adapter.Source{adapter.Subprotocol("bearer"), adapter.AuthPayload("token"), adapter.FirstMessage()},
	})
	if err != nil {
		return err
	}

	// Who someone is: a session in the database or a token, and the person it
	// names. The same chain decides for pages and for sockets.
	providers, dev, err := loginProviders(cfg, public, listener.Addr())
	if err != nil {
		return err
	}
	people, err := auth.New(auth.Config{
		PublicURL: public,
		Users:     db,
		Login:     srv.Login,
		Logout:    srv.Logout,
		Providers: providers,
		Secure:    secure,
		Keys:      [][]byte{secrets.Login},
		Logger:    cfg.Log,
	})
	if err != nil {
		return err
	}
	kept := db.Sessions(secrets.SessionHash, secrets.SessionBlock)
	kept.Options(sessions.Options{
		Path:     "/",
		MaxAge:   int(sessionAge.Seconds()),
		HttpOnly: true,
		Secure:   secure,
		SameSite: http.SameSiteLaxMode,
	})
	keys, err := config.LoadTokenKeys(cfg.DataDir, cfg.Log)
	if err != nil {
		return err
	}
	tokens := auth.NewTokens(public, keys, cfg.TokenLife)
	srv.Use(sessions.Sessions(cookieName(secure), srv.Store(kept)), tokens.Bearer)
	srv.Identify(people.Identity)

	rooms := chat.New(db)
	live := chat.NewLive(srv, rooms, cfg.Log)
	defer live.Close()

	templates, err := fs.Sub(files, "templates")
	if err != nil {
		return err
	}
	static, err := fs.Sub(files, "static")
	if err != nil {
		return err
	}
	pages := web.Config{
		PublicURL:      public,
		Sockets:        srv,
		Login:          people,
		Chat:           rooms,
		Live:           live,
		Devices:        srv,
		User:           adapter.User[app.User],
		Session:        sessionHandle,
		Health:         db.Ping,
		Templates:      templates,
		Static:         static,
		TrustedProxies: cfg.TrustedProxies,
		Logger:         cfg.Log,
	}
	if dev != nil {
		pages.Dev = dev.Handler()
		pages.TokenLogin = people.TokenLogin(tokens, func(user string) (app.Profile, error) {
			p, err := dev.Profile(user)
			return app.Profile{Provider: devProvider, Subject: p.Subject, Name: p.Name, Avatar: p.Picture}, err
		})
	}
	site, err := web.New(pages)
	if err != nil {
		return err
	}

	server := &http.Server{
		Handler: site,
		// No limit on whole requests or answers: a socket is a long one.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
	}
	cfg.announce(public)
	return serve(ctx, server, srv, listener)
}

// sessionHandle is what the page of devices calls the session of a request.
func sessionHandle(ctx context.Context) string {
	id, ok := adapter.IdentityOf(ctx)
	if !ok {
		return ""
	}
	return adapter.SessionHandle(id.SessionID)
}

// serve answers requests until ctx ends, then drains sockets and requests
// together, for at most drainTimeout.
func serve(ctx context.Context, server *http.Server, srv *adapter.Server, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	var failed error
	select {
	case failed = <-served:
	case <-ctx.Done():
	}

	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var sockets, requests error
	wg.Go(func() { sockets = srv.Shutdown(patience) })
	wg.Go(func() { requests = server.Shutdown(patience) })
	wg.Wait()
	if failed == nil {
		<-served // it has returned, or does now
	}
	if err := errors.Join(sockets, requests); err != nil {
		return errors.Join(failed, fmt.Errorf("not everything finished within %v: %w", drainTimeout, err), server.Close())
	}
	return failed
}

// loginProviders returns the configured ways to log in. Without any it is the
// development provider, and dev is what serves it: for a site that only this
// machine can reach.
func loginProviders(cfg settings, public *url.URL, addr net.Addr) (providers []auth.Provider, dev *devoidc.Provider, err error) {
	providers, err = cfg.providers(public)
	if err != nil || len(providers) > 0 {
		return providers, nil, err
	}
	if err := devoidc.Check(public, addr.String(), len(providers)); err != nil {
		return nil, nil, fmt.Errorf("no way to log in: set GITHUB_CLIENT_ID and GITHUB_CLIENT_SECRET, or the variables of another provider (%w)", err)
	}
	issuer := public.JoinPath(web.DevPath).String()
	dev, err = devoidc.New(devoidc.Config{
		Issuer:      issuer,
		ClientID:    devClient,
		RedirectURI: public.JoinPath("login", devProvider, "callback").String(),
	})
	if err != nil {
		return nil, nil, err
	}
	p, err := auth.OIDC(auth.OIDCConfig{
		Name:      devProvider,
		Label:     "Demo ID",
		Issuer:    issuer,
		PublicURL: public,
		ClientID:  devClient,
	})
	if err != nil {
		return nil, nil, err
	}
	return []auth.Provider{p}, dev, nil
}

// cookieName is the session cookie's. Browsers accept the __Host- prefix only
// from the host itself over https, so no neighbour can plant one.
func cookieName(secure bool) string {
	if secure {
		return "__Host-usher"
	}
	return "usher"
}
