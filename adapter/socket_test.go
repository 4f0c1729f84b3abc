package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

type text = struct {
	Room string `json:"room"`
	Text string `json:"text"`
}

// openSite is a site whose namespace admits anybody and knows rooms.
func openSite(t *testing.T, cfg adapter.Config, setup func(*adapter.Server)) *adaptertest.Site {
	t.Helper()
	return adaptertest.NewSite(t, cfg, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.AllowAnonymous()
		adapter.On(s.Server, "join", func(_ context.Context, sock *adapter.Socket, in text) error { return sock.Join(in.Room) })
		adapter.On(s.Server, "leave", func(_ context.Context, sock *adapter.Socket, in text) error { return sock.Leave(in.Room) })
		adapter.Handle(s.Server, "echo", func(_ context.Context, _ *adapter.Socket, in any) (any, error) { return in, nil })
		adapter.Handle(s.Server, "id", func(_ context.Context, sock *adapter.Socket, _ struct{}) (string, error) { return sock.ID(), nil })
		if setup != nil {
			setup(s.Server)
		}
	})
}

func TestBadFramesAreNamed(t *testing.T) {
	s := openSite(t, adapter.Config{Development: true}, func(srv *adapter.Server) {
		adapter.On(srv, "typed", func(context.Context, *adapter.Socket, text) error { return nil })
	})
	for _, tt := range []struct{ frame, want string }{
		{`hello`, `{"type":"error","error":{"code":"bad_request"`},
		{`[1,2]`, `got an array`},
		{`{}`, `expected \"type\"`},
		{`{"type":7}`, `expected \"type\" to be a string, got a number`},
		{`{"type":"echo","id":{}}`, `expected \"id\" to be a number or a string, got an object`},
		{`{"type":"connect","id":1}`, `belongs to the protocol`},
		{`{"type":"nope","id":"a"}`, `{"type":"reply","id":"a","error":{"code":"unknown_event"`},
		{`{"type":"nope"}`, `there are: count, echo`},
		{`{"type":"typed","id":3,"data":{"text":[]}}`, `event \"typed\": expected \"text\" to be a string, got array`},
		{`{"type":"typed","id":3,"data":"x"}`, `expected data to be an object, got string`},
	} {
		c := s.NewBrowser(t, "").Dial(ws)
		c.Raw(tt.frame)
		if f := c.Next(); !strings.Contains(f.String(), tt.want) {
			t.Errorf("%s: %s, want %s", tt.frame, f, tt.want)
		}
		c.Must("echo", 1, nil) // and the socket goes on
	}
}

func TestUnknownEventsAreListedInDevelopmentOnly(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	if f := s.NewBrowser(t, "").Dial(ws).Call("nope", nil); strings.Contains(f.String(), "echo") {
		t.Errorf("the names of events reach clients in production: %s", f)
	}
}

func TestTenBadFramesClose(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	c := s.NewBrowser(t, "").Dial(ws)
	for range 10 {
		c.Raw(`garbage`)
	}
	for range 10 {
		if f := c.Next(); f.Type != "error" {
			t.Fatalf("%s, want an error frame for each bad one", f)
		}
	}
	if code := c.Closed(); code != 1008 {
		t.Errorf("close code %d, want 1008", code)
	}
}

func TestTooLargeAMessageCloses(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	c := s.NewBrowser(t, "").Dial(ws)
	fits := strings.Repeat("x", 1_000_000-len(`{"type":"echo","data":"","id":1}`))
	var got string
	if c.Must("echo", fits, &got); got != fits {
		t.Errorf("a message of exactly 1 MB came back with %d bytes", len(got))
	}
	c.Raw(`{"type":"echo","data":"` + strings.Repeat("x", 1_000_000) + `"}`)
	if code := c.Closed(); code != 1009 {
		t.Errorf("close code %d, want 1009", code)
	}
}

func TestEventsOfOneSocketKeepTheirOrder(t *testing.T) {
	var running atomic.Int32
	var seen []int
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "n", func(_ context.Context, _ *adapter.Socket, n int) error {
			if running.Add(1) != 1 {
				t.Error("two handlers of one socket at the same time")
			}
			seen = append(seen, n)
			running.Add(-1)
			return nil
		})
	})
	c := s.NewBrowser(t, "").Dial(ws)
	const n = 3000 // more than an inbox holds
	for i := range n {
		c.Emit("n", i)
	}
	c.Must("echo", nil, nil)
	if len(seen) != n || !slices.IsSorted(seen) {
		t.Errorf("%d of %d events, in order: %v", len(seen), n, slices.IsSorted(seen))
	}
}

func TestHandlerContextEndsWithTheReason(t *testing.T) {
	started, cause := make(chan struct{}), make(chan error, 1)
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "wait", func(ctx context.Context, sock *adapter.Socket, _ struct{}) error {
			close(started)
			<-ctx.Done()
			cause <- context.Cause(ctx)
			if err := sock.Emit("too late"); !errors.Is(err, adapter.ErrClosed) {
				t.Errorf("Emit after the end: %v, want ErrClosed", err)
			}
			if err := sock.Join("room"); !errors.Is(err, adapter.ErrClosed) {
				t.Errorf("Join after the end: %v, want ErrClosed", err)
			}
			return nil
		})
	})
	b := s.NewBrowser(t, "alice")
	c := b.Dial(ws)
	c.Emit("wait", nil)
	<-started
	b.MustPost("/logout")
	if err := <-cause; err != adapter.ReasonSessionEnded {
		t.Errorf("cause %v, want %v", err, adapter.ReasonSessionEnded)
	}
}

func TestOnConnectComesFirstAndMayRefuse(t *testing.T) {
	gone := make(chan adapter.Reason, 2)
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.OnConnect(func(_ context.Context, sock *adapter.Socket) error {
			if sock.Handshake().Header().Get("X-Bad") != "" {
				return &adapter.Error{Code: adapter.CodeForbidden, Message: "not with that header"}
			}
			if err := sock.Join("lobby"); err != nil {
				return err
			}
			if err := srv.To("lobby").Emit("joined", sock.ID()); err != nil {
				return err
			}
			return sock.Emit("welcome")
		})
		srv.OnDisconnect(func(sock *adapter.Socket, r adapter.Reason) {
			if !slices.Equal(sock.Rooms(), []string{"lobby"}) {
				t.Errorf("rooms in OnDisconnect: %v", sock.Rooms())
			}
			gone <- r
		})
	})
	b := s.NewBrowser(t, "")
	c := b.Dial(ws) // waits for connect as the first frame
	if one, two := c.Next(), c.Next(); one.Type != "joined" || two.Type != "welcome" {
		t.Errorf("after connect came %s and %s", one, two)
	}
	refused, _, err := b.TryDial(ws, http.Header{"X-Bad": {"1"}})
	if err != nil {
		t.Fatal(err)
	}
	if f := refused.Next(); f.Error == nil || f.Error.Message != "not with that header" {
		t.Errorf("%s, want the refusal", f)
	}
	if code := refused.Closed(); code != 4403 {
		t.Errorf("close code %d, want 4403", code)
	}
	c.Close()
	if r := <-gone; r != adapter.ReasonTransportClose {
		t.Errorf("reason %q, want %q", r, adapter.ReasonTransportClose)
	}
	select {
	case r := <-gone:
		t.Errorf("OnDisconnect ran for a socket that was refused, reason %q", r)
	default:
	}
}

func TestPanicInOnConnectRefuses(t *testing.T) {
	s := openSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, func(srv *adapter.Server) {
		srv.OnConnect(func(context.Context, *adapter.Socket) error { panic("broken") })
	})
	c, _, err := s.NewBrowser(t, "").TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	if code := c.Closed(); code != 1013 {
		t.Errorf("close code %d, want 1013", code)
	}
}

func TestFramesHeldDuringOnConnectAreBounded(t *testing.T) {
	gate := adaptertest.NewGate()
	s := openSite(t, adapter.Config{SendBuffer: 10_000}, func(srv *adapter.Server) {
		srv.OnConnect(func(context.Context, *adapter.Socket) error {
			gate.Pass()
			return nil
		})
	})
	c, _, err := s.NewBrowser(t, "").TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-gate.Entered
	for range 11 {
		if err := s.Server.Emit("news", strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	gate.Release <- struct{}{}
	if code := c.Closed(); code != 1008 {
		t.Errorf("close code %d, want 1008", code)
	}
}

func TestRooms(t *testing.T) {
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "say", func(_ context.Context, sock *adapter.Socket, in text) error {
			return sock.To(in.Room).Emit("said", in.Text)
		})
	})
	dial := func(user, room string) (c *adaptertest.Conn, id string) {
		c = s.NewBrowser(t, user).Dial(ws)
		c.Must("id", nil, &id)
		if room != "" {
			c.Must("join", text{Room: room}, nil)
		}
		return c, id
	}
	a, _ := dial("alice", "red")
	b, bID := dial("alice", "red")
	c, _ := dial("carol", "blue")
	d, _ := dial("", "")
	all := map[string]*adaptertest.Conn{"a": a, "b": b, "c": c, "d": d}
	for i, tt := range []struct {
		name string
		emit func(event string) error
		want string
	}{
		{"everyone", func(e string) error { return s.Server.Emit(e) }, "abcd"},
		{"a room", func(e string) error { return s.Server.To("red").Emit(e) }, "ab"},
		{"two rooms", func(e string) error { return s.Server.To("red", "blue").Emit(e) }, "abc"},
		{"chained", func(e string) error { return s.Server.To("red").To("blue").Emit(e) }, "abc"},
		{"except a room", func(e string) error { return s.Server.Except("red").Emit(e) }, "cd"},
		{"a room except a socket", func(e string) error { return s.Server.To("red").Except(bID).Emit(e) }, "a"},
		{"a socket by its id", func(e string) error { return s.Server.To(bID).Emit(e) }, "b"},
		{"a user", func(e string) error { return s.Server.ToUser("alice").Emit(e) }, "ab"},
		{"a user in a room", func(e string) error { return s.Server.ToUser("alice").To("blue").Emit(e) }, ""},
		{"an empty room", func(e string) error { return s.Server.To("green").Emit(e) }, ""},
		{"no user", func(e string) error { return s.Server.ToUser("").Emit(e) }, ""},
	} {
		event := fmt.Sprintf("event %d", i)
		if err := tt.emit(event); err != nil {
			t.Fatal(err)
		}
		for name, conn := range all {
			// The reply comes behind whatever the event put into the queue.
			conn.Raw(`{"type":"echo","id":99,"data":1}`)
			f := conn.Next()
			got := f.Type == event
			if got {
				conn.Next()
			}
			if want := strings.Contains(tt.want, name); got != want {
				t.Errorf("%s: %s got %s, want the event: %v", tt.name, name, f, want)
			}
		}
	}
	a.Must("say", text{"red", "hello"}, nil)
	if f := b.Event("said"); string(f.Data) != `"hello"` {
		t.Errorf("said = %s", f)
	}
	b.Must("leave", text{Room: "red"}, nil)
	if err := s.Server.To("red").Emit("after"); err != nil {
		t.Fatal(err)
	}
	a.Event("after")
}

func TestPresenceCountsPeople(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	var conns []*adaptertest.Conn
	for _, user := range []string{"bob", "alice", "alice", ""} {
		c := s.NewBrowser(t, user).Dial(ws)
		c.Must("join", text{Room: "lobby"}, nil)
		conns = append(conns, c)
	}
	got, err := s.Server.Presence(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	want := []adapter.Member{{UserID: "alice", User: "alice", Sockets: 2}, {UserID: "bob", User: "bob", Sockets: 1}}
	if !slices.Equal(got, want) {
		t.Errorf("Presence = %v, want %v", got, want)
	}
	conns[0].Must("leave", text{Room: "lobby"}, nil)
	if got, _ := s.Server.Presence(t.Context(), "lobby"); len(got) != 1 {
		t.Errorf("Presence = %v after bob has left", got)
	}
}

func TestNamespacesAndGuards(t *testing.T) {
	s := openSite(t, quick, func(srv *adapter.Server) {
		admin := srv.Of("/admin").Require(adapter.Role("admin"))
		adapter.Handle(admin, "secret", func(context.Context, *adapter.Socket, struct{}) (int, error) { return 42, nil })
	})
	b := s.NewBrowser(t, "alice")
	for path, want := range map[string]int{ws + "?nsp=/admin": http.StatusForbidden, ws + "?nsp=/nowhere": http.StatusNotFound} {
		if _, resp, err := b.TryDial(path, nil); err == nil || resp.StatusCode != want {
			t.Errorf("%s: %v, want %d", path, err, want)
		}
	}
	b.MustPost("/set?key=role&value=admin")
	c := b.Dial(ws + "?nsp=/admin")
	c.Must("secret", nil, nil)
	plain := b.Dial(ws)
	if f := plain.Call("secret", nil); f.Error == nil || f.Error.Code != adapter.CodeEvent {
		t.Errorf("an event of /admin on /: %s", f)
	}
	// The role is taken: the socket in /admin ends, the one in / stays.
	b.MustPost("/set?key=role&value=user")
	if code := c.Closed(); code != 4403 {
		t.Errorf("close code %d, want 4403", code)
	}
	plain.Must("me", nil, nil)
}

func TestOrdinaryRequestsAreToldWhatIsExpected(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	status, body := s.NewBrowser(t, "").Get(ws)
	if status != http.StatusUpgradeRequired || !strings.Contains(body, "expected a WebSocket handshake") {
		t.Errorf("GET: %d %s", status, body)
	}
}

// TestOverHTTP2: polls are requests like others, which are held past WriteTimeout, and
// the answer to one that is no WebSocket has no header of a connection, for which
// browsers would end the stream.
func TestOverHTTP2(t *testing.T) {
	srv, err := adapter.New(adapter.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv.AllowAnonymous()
	r := gin.New()
	srv.Mount(r)
	site := httptest.NewUnstartedServer(r)
	site.EnableHTTP2, site.Config.WriteTimeout = true, 100*time.Millisecond
	site.StartTLS()
	t.Cleanup(func() {
		_ = srv.Shutdown(context.Background())
		site.Close()
	})
	b := adaptertest.NewBrowser(t, site.URL)
	b.HTTP = site.Client()
	if status, _, h := engineDo(t, b, "GET", ws, "", nil); status != http.StatusUpgradeRequired || h.Get("Upgrade") != "" {
		t.Errorf("GET: %d %v", status, h)
	}
	_, open, _ := engineDo(t, b, "GET", enginePath, "", nil)
	path := enginePath + "&sid=" + open[strings.Index(open, `:"`)+2:strings.Index(open, `",`)]
	engineDo(t, b, "POST", path, "40", nil)
	engineDo(t, b, "GET", path, "", nil)
	time.AfterFunc(300*time.Millisecond, func() { _ = srv.Emit("late") })
	if status, body, _ := engineDo(t, b, "GET", path, "", nil); status != http.StatusOK || body != `42["late"]` {
		t.Errorf("a held poll: %d %s", status, body)
	}
}

func TestShutdownWaitsForHandlersAndRestartsClients(t *testing.T) {
	gate := adaptertest.NewGate()
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "work", func(context.Context, *adapter.Socket, struct{}) error {
			gate.Pass()
			return nil
		})
	})
	idle, busy := s.NewBrowser(t, "").Dial(ws), s.NewBrowser(t, "").Dial(ws)
	busy.Emit("work", nil)
	<-gate.Entered
	var wg sync.WaitGroup
	done := make(chan error, 1)
	wg.Go(func() { done <- s.Server.Shutdown(t.Context()) })
	for _, c := range []*adaptertest.Conn{idle, busy} {
		if code := c.Closed(); code != 1012 {
			t.Errorf("close code %d, want 1012", code)
		}
	}
	select {
	case err := <-done:
		t.Errorf("Shutdown returned (%v) while a handler was running", err)
	default:
	}
	if _, resp, err := s.NewBrowser(t, "").TryDial(ws, nil); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a handshake during shutdown: %v, want 503", err)
	}
	gate.Release <- struct{}{}
	if err := <-done; err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestSetUpMistakesPanic(t *testing.T) {
	nothing := func(context.Context, *adapter.Socket, struct{}) error { return nil }
	for _, tt := range []struct {
		name string
		do   func(srv *adapter.Server, e *gin.Engine)
		want string
	}{
		{"Use without Identify", func(srv *adapter.Server, e *gin.Engine) {
			srv.Use(func(*gin.Context) {})
			srv.Mount(e)
		}, "Use without Identify"},
		{"Use after Mount", func(srv *adapter.Server, e *gin.Engine) {
			srv.Mount(e)
			srv.Use(func(*gin.Context) {})
		}, "Use after Mount"},
		{"On after HTTP", func(srv *adapter.Server, _ *gin.Engine) {
			srv.HTTP()
			adapter.On(srv, "x", nothing)
		}, "after Mount or HTTP"},
		{"the same event twice", func(srv *adapter.Server, _ *gin.Engine) {
			adapter.On(srv, "x", nothing)
			adapter.On(srv, "x", nothing)
		}, "has a handler already"},
		{"an event of the protocol", func(srv *adapter.Server, _ *gin.Engine) { adapter.On(srv, "reply", nothing) }, "the protocol"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv, err := adapter.New(adapter.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if v, _ := recover().(string); !strings.Contains(v, tt.want) {
					t.Errorf("panic %q, want one with %q", v, tt.want)
				}
			}()
			tt.do(srv, gin.New())
		})
	}
}

func TestNewRefusesUnsafeConfig(t *testing.T) {
	for _, tt := range []struct {
		cfg  adapter.Config
		want string
	}{
		{adapter.Config{Origins: []string{"*"}}, "every page on the web"},
		{adapter.Config{Origins: []string{"chat.example"}}, "expected scheme://host"},
		{adapter.Config{Origins: []string{"https://chat.example/path"}}, "expected scheme://host"},
		{adapter.Config{Path: "socket.io"}, "begins and ends with a slash"},
		{adapter.Config{PingInterval: 1}, "at least 1s"},
		{adapter.Config{MaxPayload: -1}, "MaxPayload"},
	} {
		if _, err := adapter.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%+v) = %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

func TestPasswordsOfOthersStayOutOfErrors(t *testing.T) {
	s := openSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, func(srv *adapter.Server) {
		adapter.On(srv, "fail", func(context.Context, *adapter.Socket, struct{}) error {
			return errors.New("dial postgres://admin:hunter2@db: refused")
		})
	})
	if f := s.NewBrowser(t, "").Dial(ws).Call("fail", nil); f.Error == nil || f.Error.Code != "internal" || strings.Contains(f.String(), "hunter2") {
		t.Errorf("fail = %s, want internal without the cause", f)
	}
}
