package adapter_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestChainThatReturnsEarlyAdmitsNobody is about middlewares that run the rest
// of the chain on a goroutine and give up on it, as timeouts do: while Identify
// is still asking, the handshake has not been let through.
func TestChainThatReturnsEarlyAdmitsNobody(t *testing.T) {
	srv, err := adapter.New(adapter.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	asking, answered, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	srv.Use(func(c *gin.Context) {
		go func() {
			defer close(done)
			c.Next()
		}()
		<-asking
		c.Abort()
	})
	srv.Identify(func(*gin.Context) (*adapter.Identity, error) {
		close(asking)
		<-answered
		return &adapter.Identity{UserID: "alice"}, nil
	})
	e := gin.New()
	e.Use(func(c *gin.Context) {
		c.Next()
		close(answered)
	})
	srv.Mount(e)
	_, resp, err := adaptertest.NewBrowser(t, adaptertest.Serve(t, e)).TryDial(ws, nil)
	if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("%v, want 403", err)
	}
	<-done
	if n := srv.Open(); n > 0 {
		t.Errorf("%d sockets are open", n)
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestChainWithoutTheRequestsContextIsUnknown(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.Use(func(c *gin.Context) {
			if c.Query("cut") != "" {
				c.Request = c.Request.WithContext(context.Background())
			}
		})
	})
	alice := s.NewBrowser(t, "alice")
	if _, resp, err := alice.TryDial(ws+"?cut=1", nil); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a handshake: %v, want 503", err)
	}
	if status, _ := alice.Get("/me?cut=1"); status != http.StatusServiceUnavailable {
		t.Errorf("GET /me: %d, want 503", status)
	}
}

func TestPanicInAReplayIsUnknown(t *testing.T) {
	for name, v := range map[string]any{"any": "broken", "http.ErrAbortHandler": http.ErrAbortHandler} {
		t.Run(name, func(t *testing.T) {
			var replays atomic.Int32
			s := adaptertest.NewSite(t, quick, newMemstore(t), func(s *adaptertest.Site) {
				s.Server.Use(func(c *gin.Context) {
					if adapter.Replaying(c.Request.Context()) {
						replays.Add(1)
						panic(v)
					}
				})
			})
			c := s.NewBrowser(t, "alice").Dial(ws)
			for replays.Load() == 0 {
				c.Must("me", nil, nil)
			}
			if f := c.Call("me", nil); string(f.Data) != `"alice"` {
				t.Errorf("me = %s, want alice", f)
			}
		})
	}
}

// TestKeysMayBeSetWhileTheyAreKept has a goroutine of a middleware that goes on
// calling c.Set, which locks, while the end of the chain reads what was set.
func TestKeysMayBeSetWhileTheyAreKept(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.UseOnce(func(c *gin.Context) {
			c.Set("color", "blue")
			started, stop, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for i := 0; ; i++ {
					c.Set(i%100, i)
					if i == 100 {
						close(started)
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			}()
			<-started
			c.Next()
			close(stop)
			<-done
		})
		adapter.Handle(s.Server, "color", func(_ context.Context, sock *adapter.Socket, _ struct{}) (any, error) {
			color, _ := sock.Get("color")
			return color, nil
		})
	})
	if f := s.NewBrowser(t, "alice").Dial(ws).Call("color", nil); string(f.Data) != `"blue"` {
		t.Errorf("color = %s, want blue", f)
	}
}

// TestReplaysKeepTenantsApart opens sockets of one session under two tenants,
// in which their user has two roles, also if a middleware takes away what tells them
// apart once it has seen it.
func TestReplaysKeepTenantsApart(t *testing.T) {
	srv, err := adapter.New(quick)
	if err != nil {
		t.Fatal(err)
	}
	var replays atomic.Int32
	srv.Use(sessions.Sessions("sid", srv.Store(newMemstore(t))), func(c *gin.Context) {
		c.Set("as", c.Query("as"))
		c.Request.URL.RawQuery = "" // out of the logs
	})
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id, ok := adapter.LoggedIn(c)
		if !ok {
			return nil, nil
		}
		id.Roles = []string{c.Param("tenant") + c.GetString("as") + c.GetHeader("X-Key")}
		if adapter.Replaying(c.Request.Context()) {
			replays.Add(1)
		}
		return &id, nil
	})
	adapter.Handle(srv, "role", func(ctx context.Context, _ *adapter.Socket, _ struct{}) (string, error) {
		id, _ := adapter.IdentityOf(ctx)
		return strings.Join(id.Roles, " "), nil
	})
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	srv.Mount(e, e.Group("/t/:tenant"))
	srv.Mount(e)
	e.POST("/login", append(srv.HTTP(), func(c *gin.Context) {
		if err := srv.Login(c, adapter.Identity{UserID: "alice"}); err != nil {
			t.Error(err)
		}
	})...)
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, e))
	b.MustPost("/login")
	sockets := map[string]*adaptertest.Conn{
		"acme":   b.Dial("/t/acme" + ws),
		"globex": b.Dial("/t/globex" + ws),
		"":       b.Dial(ws),
		"guest":  b.Dial(ws + "?as=guest"),
	}
	key, _, err := b.TryDial(ws, http.Header{"X-Key": {"robot"}})
	if err != nil {
		t.Fatal(err)
	}
	sockets["robot"] = key
	for before := replays.Load(); replays.Load() < before+int32(2*len(sockets)); {
		sockets[""].Must("role", nil, nil)
	}
	for want, c := range sockets {
		if f := c.Call("role", nil); string(f.Data) != `"`+want+`"` {
			t.Errorf("role = %s, want %q", f, want)
		}
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHungReplayIsBoundedByMaxStale(t *testing.T) {
	for _, tt := range []struct {
		stale, ago time.Duration
		closed     bool
	}{
		{time.Minute, 5 * time.Second, false},
		{time.Minute, 30 * time.Second, false},
		{time.Minute, 2 * time.Minute, true},
		{-1, 5 * time.Second, false},
		{-1, 11 * time.Second, true},
	} {
		srv, err := adapter.New(adapter.Config{MaxStale: tt.stale})
		if err != nil {
			t.Fatal(err)
		}
		r, closed := adapter.HangReplay(srv, tt.ago)
		if closed != tt.closed || closed && r != adapter.ReasonStale {
			t.Errorf("MaxStale %v, hung for %v: closed %v (%s), want %v", tt.stale, tt.ago, closed, r, tt.closed)
		}
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
