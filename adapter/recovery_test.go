package adapter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A recoverySite is a site whose clients are recovered, and tells of the ends.
type recoverySite struct {
	*adaptertest.Site
	gone      chan adapter.Reason
	recovered atomic.Int32
}

func newRecoverySite(t *testing.T, r adapter.Recovery) *recoverySite {
	t.Helper()
	if r.Window == 0 {
		r.Window = time.Minute
	}
	s := &recoverySite{gone: make(chan adapter.Reason, 100)}
	s.Site = openSite(t, adapter.Config{Recovery: r, Logger: slog.New(slog.DiscardHandler)}, func(srv *adapter.Server) {
		srv.OnDisconnect(func(_ *adapter.Socket, r adapter.Reason) { s.gone <- r })
		srv.OnConnect(func(_ context.Context, sock *adapter.Socket) error {
			if sock.Recovered() {
				s.recovered.Add(1)
			}
			return nil
		})
		adapter.On(srv, "name", func(_ context.Context, sock *adapter.Socket, name string) error {
			sock.Data().Set("name", name)
			return nil
		})
		adapter.Handle(srv, "name?", func(_ context.Context, sock *adapter.Socket, _ any) (any, error) {
			return sock.Data().Get("name"), nil
		})
	})
	return s
}

func TestRecoveryOfAClient(t *testing.T) {
	for _, transport := range []string{"polling", "websocket", "upgrade"} {
		t.Run(transport, func(t *testing.T) {
			n := startNode(t)
			s := newRecoverySite(t, adapter.Recovery{})
			alice := s.NewBrowser(t, "alice")
			c := n.open("c", alice, "/", transport, nil)
			first := c.await("connect")
			if first.Recovered {
				t.Error("a first connection is recovered")
			}
			c.call("join", text{Room: "red"})
			c.call("name", "Alice")
			other := n.open("other", s.NewBrowser(t, "bob"), "/", transport, nil)
			other.await("connect")
			other.call("join", text{Room: "red"})
			emit := func(i int) {
				t.Helper()
				for _, err := range []error{
					s.Server.To("red").Emit("news", i, map[string]any{"bytes": []byte{byte(i)}}),
					s.Server.To("blue").Emit("news", "for others"),
					s.Server.ToUser("bob").Emit("news", "for bob"),
					s.Server.To("red").Except(first.ID).Emit("news", "for others in red"),
					s.Server.To("red").Volatile().Emit("volatile", i),
				} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			emit(0)
			c.event("news")
			for round := range 3 {
				n.do(map[string]any{"do": "cut", "name": "c"})
				c.await("disconnect")
				<-s.gone
				for i := range 5 {
					emit(10*round + i)
				}
				if err := s.Server.To(first.ID).Emit("news", "by id"); err != nil {
					t.Fatal(err)
				}
				n.do(map[string]any{"do": "connect", "name": "c"})
				if again := c.await("connect"); !again.Recovered || again.ID != first.ID {
					t.Fatalf("%s, want the socket %s recovered", again, first.ID)
				}
				for i := range 5 {
					want := fmt.Sprintf(`%d {"bytes":{"$bytes":"%s"}}`, 10*round+i, []string{"AA==", "AQ==", "Ag==", "Aw==", "BA==", "", "", "", "", "",
						"Cg==", "Cw==", "DA==", "DQ==", "Dg==", "", "", "", "", "", "FA==", "FQ==", "Fg==", "Fw==", "GA=="}[10*round+i])
					if l := c.event("news"); string(l.Args[0])+" "+string(l.Args[1]) != want {
						t.Fatalf("missed event %s, want %s", l, want)
					}
				}
				if l := c.event("news"); string(l.Args[0]) != `"by id"` {
					t.Fatalf("%s", l)
				}
				if got := c.call("name?"); got != `["Alice"]` {
					t.Errorf("Data after the recovery: %s", got)
				}
				if got := c.call("me"); got != `["alice"]` {
					t.Errorf("me = %s", got)
				}
				emit(99)
				if l := c.event("news"); string(l.Args[0]) != "99" {
					t.Errorf("after the recovery: %s", l)
				}
			}
			if n := s.recovered.Load(); n != 3 {
				t.Errorf("OnConnect saw %d recovered sockets, want 3", n)
			}
		})
	}
}

// A recoveringClient speaks Socket.IO over a WebSocket, by hand.
type recoveringClient struct {
	t        *testing.T
	ws       *websocket.Conn
	SID, PID string
	first    string // what the CONNECT was answered with
}

// dialRecovering opens a connection and asks for "/" with auth.
func dialRecovering(t *testing.T, b *adaptertest.Browser, auth string) *recoveringClient {
	t.Helper()
	c := &recoveringClient{t: t, ws: engineDial(t, b, "")}
	if open := c.next(); !strings.HasPrefix(open, "0{") {
		t.Fatalf("open packet %s", open)
	}
	c.send("40" + auth)
	c.first = c.next()
	if !strings.HasPrefix(c.first, "40{") {
		return c
	}
	var granted struct{ SID, PID string }
	if err := json.Unmarshal([]byte(c.first[2:]), &granted); err != nil {
		t.Fatal(err)
	}
	c.SID, c.PID = granted.SID, granted.PID
	return c
}

func (c *recoveringClient) send(text string) {
	c.t.Helper()
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *recoveringClient) next() string {
	c.t.Helper()
	_ = c.ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, text, err := c.ws.ReadMessage()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// do sends an event and waits for its acknowledgement.
func (c *recoveringClient) do(event string, data any) {
	c.t.Helper()
	b, err := json.Marshal([]any{event, data})
	if err != nil {
		c.t.Fatal(err)
	}
	c.send("421" + string(b))
	for {
		if got := c.next(); strings.HasPrefix(got, "431") || strings.HasPrefix(got, "websocket") {
			return
		}
	}
}

func (c *recoveringClient) cut(s *recoverySite) {
	_ = c.ws.NetConn().Close()
	<-s.gone
}

// again is what a client sends to be recovered.
func (c *recoveringClient) again(offset string) string {
	if offset == "" {
		return fmt.Sprintf(`{"pid":%q}`, c.PID)
	}
	return fmt.Sprintf(`{"pid":%q,"offset":%q}`, c.PID, offset)
}

// offset is the last argument of an event, which is its number.
func offset(t *testing.T, packet string) string {
	t.Helper()
	var args []any
	if err := json.Unmarshal([]byte(strings.TrimPrefix(packet, "42")), &args); err != nil || len(args) == 0 {
		t.Fatalf("expected an event, got %s", packet)
	}
	return args[len(args)-1].(string)
}

// TestRecoveryBeforeTheEndIsNoticed: networks change without a goodbye, and the
// server would take a ping's time to notice.
func TestRecoveryBeforeTheEndIsNoticed(t *testing.T) {
	s := newRecoverySite(t, adapter.Recovery{})
	alice := s.NewBrowser(t, "alice")
	c := dialRecovering(t, alice, "")
	c.do("join", text{Room: "red"})
	_ = s.Server.To("red").Emit("one")
	seen := offset(t, c.next())
	_ = s.Server.To("red").Emit("two") // on its way when the network went
	again := dialRecovering(t, alice, c.again(seen))
	if again.SID != c.SID || again.PID != c.PID {
		t.Fatalf("CONNECT was answered %s, want the socket %s", again.first, c.SID)
	}
	if got := again.next(); !strings.HasPrefix(got, `42["two",`) {
		t.Errorf("missed event %s, want two", got)
	}
	if r := <-s.gone; r != adapter.ReasonTransportClose {
		t.Errorf("the old socket ended for %q", r)
	}
	_ = s.Server.To("red").Emit("three")
	if got := again.next(); !strings.HasPrefix(got, `42["three",`) {
		t.Errorf("%s, want three, once", got)
	}
}

// TestRecoveryOnlyAsWhoItWas: a stolen id of recovery is of no use, and neither
// is one's own after a logout, an end of the session or a change of roles.
func TestRecoveryOnlyAsWhoItWas(t *testing.T) {
	for _, tt := range []struct {
		name string
		come func(s *recoverySite, alice *adaptertest.Browser) *adaptertest.Browser
		want bool
	}{
		{"herself", func(_ *recoverySite, alice *adaptertest.Browser) *adaptertest.Browser { return alice }, true},
		{"on another device", func(s *recoverySite, _ *adaptertest.Browser) *adaptertest.Browser { return s.NewBrowser(t, "alice") }, true},
		{"with a new session id", func(_ *recoverySite, alice *adaptertest.Browser) *adaptertest.Browser {
			alice.MustPost("/login?user=alice")
			return alice
		}, true},
		{"mallory", func(s *recoverySite, _ *adaptertest.Browser) *adaptertest.Browser { return s.NewBrowser(t, "mallory") }, false},
		{"nobody", func(s *recoverySite, _ *adaptertest.Browser) *adaptertest.Browser { return s.NewBrowser(t, "") }, false},
		{"after her logout", func(_ *recoverySite, alice *adaptertest.Browser) *adaptertest.Browser {
			alice.MustPost("/logout")
			return alice
		}, false},
		{"after a logout and a login", func(_ *recoverySite, alice *adaptertest.Browser) *adaptertest.Browser {
			alice.MustPost("/logout")
			alice.MustPost("/login?user=alice")
			return alice
		}, false},
		{"with another role", func(_ *recoverySite, alice *adaptertest.Browser) *adaptertest.Browser {
			alice.MustPost("/set?key=role&value=admin")
			return alice
		}, false},
		{"sent out of the room", func(s *recoverySite, alice *adaptertest.Browser) *adaptertest.Browser {
			s.Server.ToUser("alice").Leave("red")
			return alice
		}, true},
		{"disconnected meanwhile", func(s *recoverySite, alice *adaptertest.Browser) *adaptertest.Browser {
			s.Server.ToUser("alice").Disconnect()
			return alice
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newRecoverySite(t, adapter.Recovery{})
			alice := s.NewBrowser(t, "alice")
			c := dialRecovering(t, alice, "")
			c.do("join", text{Room: "red"})
			c.cut(s)
			who := tt.come(s, alice)
			_ = s.Server.To("red").Emit("secret")
			again := dialRecovering(t, who, c.again(""))
			if got := again.SID == c.SID && again.PID == c.PID; got != tt.want {
				t.Fatalf("CONNECT was answered %s; recovered %v, want %v", again.first, got, tt.want)
			}
			again.send(`421["echo","done"]`)
			got := again.next()
			if secret := strings.Contains(got, "secret"); secret != (tt.want && tt.name != "sent out of the room") {
				t.Errorf("got %s", got)
			}
			if tt.want || who == alice {
				return
			}
			// And she notices nothing.
			if again := dialRecovering(t, alice, c.again("")); again.SID != c.SID {
				t.Errorf("alice was answered %s after the attempt", again.first)
			}
		})
	}
}

// TestRecoveryOfNobody: who was nobody is recovered on the same session only.
func TestRecoveryOfNobody(t *testing.T) {
	s := newRecoverySite(t, adapter.Recovery{})
	b := s.NewBrowser(t, "")
	b.MustPost("/set?key=color&value=red")
	c := dialRecovering(t, b, "")
	c.cut(s)
	other := s.NewBrowser(t, "")
	other.MustPost("/set?key=color&value=blue")
	if again := dialRecovering(t, other, c.again("")); again.SID == c.SID {
		t.Error("recovered on another session")
	}
	if again := dialRecovering(t, b, c.again("")); again.SID != c.SID {
		t.Errorf("on the same session: %s", again.first)
	}
}

func TestRecoveryNotAfterAGoodbye(t *testing.T) {
	s := newRecoverySite(t, adapter.Recovery{})
	alice := s.NewBrowser(t, "alice")
	for name, leave := range map[string]func(c *recoveringClient){
		"by the client": func(c *recoveringClient) { c.send("41") },
		"by the server": func(*recoveringClient) { s.Server.Disconnect() },
	} {
		c := dialRecovering(t, alice, "")
		leave(c)
		<-s.gone
		if again := dialRecovering(t, alice, c.again("")); again.SID == c.SID {
			t.Errorf("recovered after a goodbye %s", name)
		}
	}
}

func TestRecoveryIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name   string
		bounds adapter.Recovery
		events int
		size   int
		want   bool
	}{
		{"few", adapter.Recovery{Packets: 10, Bytes: 10_000}, 10, 10, true},
		{"too many packets", adapter.Recovery{Packets: 10, Bytes: 10_000}, 11, 10, false},
		{"too many bytes", adapter.Recovery{Packets: 10, Bytes: 10_000}, 5, 5000, false},
		{"more than is kept", adapter.Recovery{Total: 20_000}, 100, 1000, false},
		{"no room for a socket that is away", adapter.Recovery{Total: 100}, 1, 10, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newRecoverySite(t, tt.bounds)
			alice := s.NewBrowser(t, "alice")
			c := dialRecovering(t, alice, "")
			c.cut(s)
			for range tt.events {
				_ = s.Server.Emit("event", strings.Repeat("x", tt.size))
			}
			if kept, total := s.Server.Kept(), tt.bounds.Total; total > 0 && kept > total {
				t.Errorf("%d bytes are kept, at most %d were allowed", kept, total)
			}
			again := dialRecovering(t, alice, c.again(""))
			if got := again.SID == c.SID; got != tt.want {
				t.Errorf("recovered %v, want %v", got, tt.want)
			}
			for i := range tt.events {
				if !tt.want {
					break
				}
				if got := again.next(); !strings.HasPrefix(got, `42["event","x`) {
					t.Fatalf("missed event %d: %s", i, got)
				}
			}
		})
	}
	for _, offset := range []string{"zzzzzz", "-1", "!", strings.Repeat("1", 1000)} {
		s := newRecoverySite(t, adapter.Recovery{})
		alice := s.NewBrowser(t, "alice")
		c := dialRecovering(t, alice, "")
		c.cut(s)
		if again := dialRecovering(t, alice, c.again(offset)); again.SID == c.SID || again.SID == "" {
			t.Errorf("offset %.20q: %s", offset, again.first)
		}
	}
}

// TestRecoveryForgets: nothing is kept longer than somebody may ask for it.
func TestRecoveryForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := adapter.New(adapter.Config{Recovery: adapter.Recovery{Window: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		srv.KeepGhost("red")
		_ = srv.To("red").Emit("event", 1)
		if srv.Kept() == 0 {
			t.Error("nothing is kept")
		}
		time.Sleep(time.Minute - time.Second)
		if srv.Ghosts() != 1 {
			t.Error("forgotten too early")
		}
		time.Sleep(2 * time.Second)
		if srv.Ghosts() != 0 {
			t.Error("who was away is not forgotten")
		}
		time.Sleep(time.Minute) // and the events, as long as they may be missed
		if kept := srv.Kept(); kept != 0 {
			t.Errorf("%d bytes are kept", kept)
		}
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRecoveryLosesNothing: events go out all the time, connections are cut all
// the time, and each event arrives once and in order.
func TestRecoveryLosesNothing(t *testing.T) {
	s := newRecoverySite(t, adapter.Recovery{Packets: 1 << 20})
	stop := make(chan struct{})
	var emitting sync.WaitGroup
	const emitters, clients, cuts = 4, 3, 15
	for e := range emitters {
		emitting.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Microsecond):
					_ = s.Server.To("red").Emit("n", e, i)
				}
			}
		})
	}
	var wg sync.WaitGroup
	for range clients {
		alice := s.NewBrowser(t, "alice")
		wg.Go(func() {
			next := make(map[int]int)
			c := dialRecovering(t, alice, "")
			c.do("join", text{Room: "red"})
			last := ""
			for range cuts {
				for range 50 {
					packet := c.next()
					var args []any
					if err := json.Unmarshal([]byte(strings.TrimPrefix(packet, "42")), &args); err != nil || len(args) != 4 {
						t.Errorf("expected an event, got %s", packet)
						return
					}
					e, i := int(args[1].(float64)), int(args[2].(float64))
					if want, ok := next[e]; ok && want != i {
						t.Errorf("emitter %d: got event %d, want %d", e, i, want)
						return
					}
					next[e] = i + 1
					last = args[3].(string)
				}
				_ = c.ws.NetConn().Close()
				again := dialRecovering(t, alice, c.again(last))
				if again.SID != c.SID {
					t.Errorf("not recovered: %s", again.first)
					return
				}
				c = again
			}
		})
	}
	wg.Wait()
	close(stop)
	emitting.Wait()
}

func TestRecoveryIsOffByDefault(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	c := dialRecovering(t, s.NewBrowser(t, "alice"), "")
	if c.PID != "" {
		t.Errorf("CONNECT was answered %s", c.first)
	}
	_ = s.Server.Emit("event", 1)
	if got := c.next(); got != `42["event",1]` {
		t.Errorf("%s", got)
	}
	if _, err := adapter.New(adapter.Config{Recovery: adapter.Recovery{Window: -1}}); err == nil {
		t.Error("a negative window was taken")
	}
}

// TestAuthOfAConnect: what a client gives as auth reaches the socket of that
// namespace, and is bounded.
func TestAuthOfAConnect(t *testing.T) {
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.Handle(srv, "auth", func(_ context.Context, sock *adapter.Socket, _ any) (string, error) {
			var auth struct{ Key string }
			err := sock.Auth(&auth)
			return auth.Key, err
		})
	})
	for auth, want := range map[string]string{
		`{"key":"value"}`: `430["value"]`,
		`{"key":7}`:       `430[{"error":{"code":"bad_request","message":"auth: expected \"Key\" to be a string, got number"}}]`,
		``:                `430[""]`,
	} {
		c := dialRecovering(t, s.NewBrowser(t, ""), auth)
		c.send(`420["auth"]`)
		if got := c.next(); got != want {
			t.Errorf("auth %s: %s, want %s", auth, got, want)
		}
	}
	large := dialRecovering(t, s.NewBrowser(t, ""), `{"key":"`+strings.Repeat("x", 17<<10)+`"}`)
	if !strings.HasPrefix(large.first, `44{"message":"expected at most`) {
		t.Errorf("17 KiB of auth: %.100s", large.first)
	}
}
