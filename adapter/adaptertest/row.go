package adaptertest

import (
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// A row is one run of a row over one transport.
type row struct {
	Subject
	t    *testing.T
	way  Way
	site *Site

	replays atomic.Int64

	mu   sync.Mutex
	ends map[string]chan adapter.Reason // by the socket's id
}

// start starts the row's site. Where the server hears of everything nothing is
// left to the interval.
func (r *row) start(cfg adapter.Config, logins Logins, setup func(*Site)) {
	r.t.Helper()
	if cfg.Revalidate == 0 {
		cfg.Revalidate = -1
		if r.AtInterval {
			cfg.Revalidate = interval
		}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	r.site = NewSiteWith(r.t, cfg, &replayed{logins, &r.replays}, func(s *Site) {
		s.Server.OnDisconnect(func(sock *adapter.Socket, reason adapter.Reason) { r.ended(sock.ID()) <- reason })
		if setup != nil {
			setup(s)
		}
	})
}

// replayed counts the replays that have run, also where the sessions' own
// middleware stops them.
type replayed struct {
	Logins
	n *atomic.Int64
}

func (l *replayed) Use(srv *adapter.Server) {
	srv.Use(func(c *gin.Context) {
		c.Next()
		if adapter.Replaying(c.Request.Context()) {
			l.n.Add(1)
		}
	})
	l.Logins.Use(srv)
}

// ended is where the reason of a socket's end is put. Sockets that are recovered
// end more than once.
func (r *row) ended(id string) chan adapter.Reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ends[id] == nil {
		r.ends[id] = make(chan adapter.Reason, 10)
	}
	return r.ends[id]
}

// reason waits for why a socket has ended.
func (r *row) reason(c Client) adapter.Reason {
	r.t.Helper()
	select {
	case reason := <-r.ended(c.ID()):
		return reason
	case <-time.After(patience):
		r.t.Fatalf("the server has not ended the socket after %v", patience)
		return ""
	}
}

// codes are what WebSockets are closed with.
var codes = map[adapter.Reason]int{
	adapter.ReasonSessionEnded: 4409,
	adapter.ReasonRevoked:      4409,
	adapter.ReasonUnauthorized: 4401,
	adapter.ReasonForbidden:    4403,
	adapter.ReasonExpired:      4410,
	adapter.ReasonStale:        1013,
}

// wantEnd waits for the end of a socket, for one of the reasons, and checks what
// its client is told of it.
func (r *row) wantEnd(c Client, want ...adapter.Reason) {
	r.t.Helper()
	end, reason := c.End(), r.reason(c)
	if !slices.Contains(want, reason) {
		r.t.Errorf("the socket ended for %q, want %q", reason, want)
	}
	// What passes is no DISCONNECT: clients come back by themselves.
	if !end.says(r.way.Transport, codes[reason], reason == adapter.ReasonStale) {
		r.t.Errorf("the client was told %+v of %q, want the code %d", end, reason, codes[reason])
	}
}

// wantUser checks who a socket acts as.
func (r *row) wantUser(c Client, want string) {
	r.t.Helper()
	var got string
	if c.Must("me", nil, &got); got != want {
		r.t.Errorf("me = %q, want %q", got, want)
	}
}

// wantOut checks that a browser is nobody: for pages, and for new sockets.
func (r *row) wantOut(what string, b *Browser) {
	r.t.Helper()
	if status, body := b.Get("/me"); status != http.StatusUnauthorized {
		r.t.Errorf("%s: GET /me: %d %s, want 401", what, status, body)
	}
	r.wantRefused(what, b, r.way, http.StatusUnauthorized, adapter.CodeUnauthenticated)
}

// wantRefused checks that a socket is not let in. Socket.IO lets everybody
// connect and refuses at the namespace, unless the chain does.
func (r *row) wantRefused(what string, b *Browser, way Way, status int, code string) {
	r.t.Helper()
	c, refusal := b.TryConnect(way)
	if refusal == nil {
		r.t.Errorf("%s: a new socket was let in, as %s", what, c.ID())
		return
	}
	if status == http.StatusUnauthorized && way.Transport != Plain {
		status = 0
	}
	if refusal.Status != status || refusal.Code != code {
		r.t.Errorf("%s: a new socket was refused with %+v, want %d %s", what, *refusal, status, code)
	}
}

// awaitReplays waits until so many replays have run through the chain.
func (r *row) awaitReplays(c Client, want int64) {
	r.t.Helper()
	for late := time.Now().Add(patience); r.replays.Load() < want; {
		if time.Now().After(late) {
			r.t.Fatalf("%d replays in %v, want %d", r.replays.Load(), patience, want)
		}
		c.Must("me", nil, nil) // lets time pass
	}
}
