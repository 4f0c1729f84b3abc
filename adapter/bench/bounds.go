package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/memstore"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// Bounds are how long an open socket may lag behind what a page has answered.
// Each is measured with other people's sockets open, from the moment at which
// the client has the page's answer to the moment at which the last socket of
// the user has seen the consequence.

// crowds is how many sockets of others are open.
var crowds = []int{1, 100, 10_000}

const (
	samples = 200 // of each bound in each crowd
	tabs    = 3   // sockets of the user whose identity changes

	// rest is longer than the gap between two replays of one session, so that a
	// change finds it at rest.
	rest = 500 * time.Millisecond
)

// bounded is the server for bounds: an app with a login, a logout and roles.
var bounded = &server{
	name: "bounds", path: "/socket.io/ws", users: true, greets: true,
	build: newBounded,
}

func newBounded() (http.Handler, error) {
	r := newEngine()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	srv, err := adapter.New(adapter.Config{Logger: log})
	if err != nil {
		return nil, err
	}
	var roles sync.Map // of users, where an app has its database
	srv.AllowAnonymous()
	srv.Use(sessions.Sessions(cookieName, srv.Store(memstore.NewStore(sessionKey))))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id, ok := adapter.LoggedIn(c)
		if !ok {
			return nil, nil
		}
		if role, has := roles.Load(id.UserID); has {
			id.Roles = []string{role.(string)}
		}
		return &id, nil
	})
	srv.OnIdentity(func(_ context.Context, s *adapter.Socket, _ *adapter.Identity) error {
		return s.Emit("identity", note{})
	})
	srv.Mount(r)

	pages := r.Group("/", srv.HTTP()...)
	answer := func(c *gin.Context, err error) {
		if err != nil {
			_ = c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		c.Status(http.StatusNoContent)
	}
	pages.POST("/visit/:user", func(c *gin.Context) {
		s := sessions.Default(c)
		s.Set("seen", "yes")
		answer(c, s.Save())
	})
	pages.POST("/login/:user", func(c *gin.Context) {
		answer(c, srv.Login(c, adapter.Identity{UserID: c.Param("user"), Provider: "bench"}))
	})
	pages.POST("/logout/:user", func(c *gin.Context) { answer(c, srv.Logout(c)) })
	pages.POST("/promote/:user", func(c *gin.Context) {
		roles.Store(c.Param("user"), "moderator")
		answer(c, srv.Refresh(c, adapter.ByUser(c.Param("user"))))
	})
	return r, nil
}

// A bound is one row of the table for each crowd.
type bound struct {
	name   string
	before string        // the page that makes the user's session
	change string        // the page whose answer starts the clock
	seen   string        // the event that stops it; empty is the end of the socket
	wait   time.Duration // between the handshakes and the change
}

var boundsTable = []bound{
	{"logout → last socket closed", "login", "logout", "", 0},
	{"login → socket is the user's", "visit", "login", "identity", rest},
	{"the same right after the handshake", "visit", "login", "identity", 0},
	{"role change → next event decided by it", "login", "promote", "identity", rest},
	{"the same right after the handshake", "login", "promote", "identity", 0},
}

// bounds measures them all and prints a table.
func bounds(ctx context.Context, o options, stdout io.Writer, stderr *os.File) error {
	if err := raiseFileLimit(slices.Max(crowds) + samples*tabs); err != nil {
		return err
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ms\tothers\tp50\tp99\tmost")
	for _, crowd := range crowds {
		for _, b := range boundsTable {
			fmt.Fprintf(stderr, "%s, %d others\n", b.name, crowd)
			took, err := b.measure(ctx, o, crowd, stderr)
			if err != nil {
				return fmt.Errorf("%s, %d others: %w", b.name, crowd, err)
			}
			slices.Sort(took)
			at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))]) / 1e6 }
			fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%.1f\n", b.name, crowd, at(0.50), at(0.99), at(1))
		}
	}
	return w.Flush()
}

// measure returns how long each change took. What a socket has seen before the
// page's answer was there counts as no time.
func (b bound) measure(ctx context.Context, o options, crowd int, stderr *os.File) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	p, err := start(ctx, bounded, o, stderr)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	others := &load{o: o, s: bounded, p: p}
	if err := others.login(ctx, crowd); err != nil {
		return nil, err
	}
	clients, err := others.openAll(ctx, crowd)
	if err != nil {
		return nil, err
	}
	lost, wait := attend(clients)
	defer wait()
	defer closeAll(clients)

	hc := &http.Client{}
	defer hc.CloseIdleConnections()
	took := make([]time.Duration, samples)
	sample := func(i int) (err error) {
		took[i], err = b.sample(ctx, hc, p, fmt.Sprint("user", i))
		return err
	}
	if b.seen == "" {
		for i := range took {
			if err := sample(i); err != nil {
				return nil, err
			}
		}
	} else if err := inParallel(samples, sample); err != nil { // they mostly wait
		return nil, err
	}
	if n := lost.Load(); n > 0 {
		return nil, fmt.Errorf("%d sockets of others were lost", n)
	}
	return took, nil
}

// sample lets one user's identity change.
func (b bound) sample(ctx context.Context, hc *http.Client, p *process, user string) (time.Duration, error) {
	page := func(name, cookie string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://%s/%s/%s", p.addr, name, user), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Cookie", cookie)
		resp, err := hc.Do(req)
		if err != nil {
			return nil, err
		}
		if _, err = io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode != http.StatusNoContent {
			err = fmt.Errorf("%s: expected status %d, got %s", name, http.StatusNoContent, resp.Status)
		}
		return resp, err
	}
	resp, err := page(b.before, "")
	if err != nil {
		return 0, err
	}
	cookie, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")

	var seen [tabs]time.Time
	var failed [tabs]error
	var watching sync.WaitGroup
	defer watching.Wait()
	var sockets [tabs]*client
	defer func() { closeAll(sockets[:]) }()
	for i := range sockets {
		c, err := dial(ctx, p.addr)
		if err != nil {
			return 0, err
		}
		sockets[i] = c
		if err := c.shake(p.addr, bounded.path, cookie); err != nil {
			return 0, err
		}
		if _, err := c.next(); err != nil {
			return 0, err
		}
		watching.Go(func() { seen[i], failed[i] = b.watch(c) })
	}
	select {
	case <-time.After(b.wait):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if _, err := page(b.change, cookie); err != nil {
		return 0, err
	}
	answered := time.Now()
	watching.Wait()
	for _, err := range failed {
		if err != nil {
			return 0, err
		}
	}
	return max(0, slices.MaxFunc(seen[:], time.Time.Compare).Sub(answered)), nil
}

// watch returns when the socket has seen the change.
func (b bound) watch(c *client) (time.Time, error) {
	for {
		frame, err := c.next()
		now := time.Now()
		switch {
		case b.seen == "" && err != nil:
			return now, nil
		case err != nil:
			return now, fmt.Errorf("expected the event %q: %w", b.seen, err)
		}
		var event struct{ Type string }
		if err := json.Unmarshal(frame, &event); err != nil {
			return now, err
		}
		if b.seen != "" && event.Type == b.seen {
			return now, nil
		}
	}
}
