package adapter_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/adapter/backplane"
)

// openCluster is three sites like openSite's that are one.
func openCluster(t *testing.T, cfg adapter.Config, setup func(*adapter.Server)) *adaptertest.Cluster {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return adaptertest.NewCluster(t, 3, cfg, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.AllowAnonymous()
		adapter.On(s.Server, "join", func(_ context.Context, sock *adapter.Socket, in text) error { return sock.Join(in.Room) })
		adapter.Handle(s.Server, "echo", func(_ context.Context, _ *adapter.Socket, in any) (any, error) { return in, nil })
		adapter.Handle(s.Server, "id", func(_ context.Context, sock *adapter.Socket, _ any) (string, error) { return sock.ID(), nil })
		adapter.On(s.Server, "name", func(_ context.Context, sock *adapter.Socket, name string) error {
			sock.Data().Set("name", name)
			return nil
		})
		s.Server.Of("/other").AllowAnonymous()
		if setup != nil {
			setup(s.Server)
		}
	})
}

// settle returns once everything that site has sent before has been handled by
// all other sites.
func settle(t *testing.T, c *adaptertest.Cluster, site int) {
	t.Helper()
	if _, err := c.Sites[site].Server.Sockets(t.Context()); err != nil {
		t.Fatalf("settle: %v", err)
	}
}

func TestClusterEmitsEverywhere(t *testing.T) {
	n := startNode(t)
	c := openCluster(t, adapter.Config{}, nil)
	plain := make([]*adaptertest.Conn, 3)
	sio := make([]*client, 3)
	ids := make([]string, 3)
	for i, s := range c.Sites {
		plain[i] = s.NewBrowser(t, "ann").Dial(ws)
		plain[i].Must("join", text{Room: fmt.Sprint("plain", i)}, nil)
		sio[i] = n.open(fmt.Sprint("c", i), s.NewBrowser(t, ""), "/", []string{"polling", "websocket", "upgrade"}[i], nil)
		ids[i] = sio[i].await("connect").ID
		sio[i].call("join", text{Room: fmt.Sprint("sio", i)})
		for _, room := range []string{"all"} {
			plain[i].Must("join", text{Room: room}, nil)
			sio[i].call("join", text{Room: room})
		}
	}
	srv := c.Sites[0].Server
	value := map[string]any{"text": "é <&>", "bytes": []byte{0, 1, 255}}
	inPlain := `{"bytes":"AAH/","text":"é \u003c\u0026\u003e"}`
	inSIO := `{"bytes":{"$bytes":"AAH/"},"text":"é <&>"}`
	for i, tt := range []struct {
		name  string
		emit  func(event string, args ...any) error
		plain []int
		sio   []int
	}{
		{"all", srv.Emit, []int{0, 1, 2}, []int{0, 1, 2}},
		{"a room", srv.To("all").Emit, []int{0, 1, 2}, []int{0, 1, 2}},
		{"rooms", srv.To("plain1", "sio2").Emit, []int{1}, []int{2}},
		{"except a room", srv.Except("plain1", "sio0").Emit, []int{0, 2}, []int{1, 2}},
		{"except ids", srv.To("all").Except(ids[0], ids[2]).Emit, []int{0, 1, 2}, []int{1}},
		{"ids", srv.To(ids[1], ids[2]).Emit, nil, []int{1, 2}},
		{"a user", srv.ToUser("ann").Emit, []int{0, 1, 2}, nil},
		{"a user in rooms", srv.ToUser("ann").To("plain2", "sio1").Emit, []int{2}, nil},
		{"nobody is no user", srv.ToUser("").Emit, nil, nil},
		{"this node", srv.Local().Emit, []int{0}, []int{0}},
		{"a room of this node", srv.To("all").Local().Emit, []int{0}, []int{0}},
		{"not compressed", srv.To("all").Compress(false).Emit, []int{0, 1, 2}, []int{0, 1, 2}},
	} {
		if err := tt.emit("news", i, value); err != nil {
			t.Fatal(err)
		}
		settle(t, c, 0)
		for j, conn := range plain {
			conn.Must("echo", 1, nil) // what was emitted has come by now
			var got []string
			for _, f := range conn.Rest() {
				got = append(got, string(f.Data))
			}
			var want []string
			if slices.Contains(tt.plain, j) {
				want = []string{fmt.Sprintf(`[%d,%s]`, i, inPlain)}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: the plain client on site %d got %s, want %s", tt.name, j, got, want)
			}
		}
		for j, cl := range sio {
			cl.call("echo", 1)
			want := slices.Contains(tt.sio, j)
			got := slices.IndexFunc(n.kept, func(l told) bool { return l.Name == cl.name && l.Event == "news" })
			if (got >= 0) != want {
				t.Errorf("%s: the Socket.IO client on site %d: got %v, want %v", tt.name, j, got >= 0, want)
			}
			if got >= 0 {
				if l := cl.event("news"); len(l.Args) != 2 || string(l.Args[0]) != fmt.Sprint(i) || string(l.Args[1]) != inSIO {
					t.Errorf("%s: %s, want %s", tt.name, l, inSIO)
				}
			}
		}
	}
}

// TestClusterBroadcastFromASocket: the socket itself is left out, on whatever
// node, and so are no others.
func TestClusterBroadcastFromASocket(t *testing.T) {
	c := openCluster(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "tell", func(_ context.Context, sock *adapter.Socket, in string) error {
			return errors.Join(sock.Broadcast().Emit("told", in), sock.To("red").Emit("told red", in))
		})
	})
	var conns []*adaptertest.Conn
	for _, s := range c.Sites {
		conn := s.NewBrowser(t, "").Dial(ws)
		conn.Must("join", text{Room: "red"}, nil)
		conns = append(conns, conn)
	}
	conns[1].Must("tell", "hello", nil)
	for _, i := range []int{0, 2} {
		if f := conns[i].Event("told red"); string(f.Data) != `"hello"` {
			t.Errorf("%s", f)
		}
		conns[i].Event("told")
	}
	settle(t, c, 0)
	settle(t, c, 2)
	conns[1].Must("echo", 1, nil)
	if rest := conns[1].Rest(); len(rest) > 0 {
		t.Errorf("who has told got %v", rest)
	}
}

func TestClusterOrder(t *testing.T) {
	c := openCluster(t, adapter.Config{SendBuffer: 64 << 20}, nil)
	var conns []*adaptertest.Conn
	for _, s := range c.Sites {
		conns = append(conns, s.NewBrowser(t, "").Dial(ws))
	}
	const count = 400
	var emitting sync.WaitGroup
	for i, s := range c.Sites {
		emitting.Go(func() {
			for j := range count {
				if err := s.Server.Emit("n", i, j); err != nil {
					t.Error(err)
					return
				}
				if j%100 == 99 {
					_, _ = s.Server.Sockets(t.Context()) // the others have kept up
				}
			}
		})
	}
	for _, conn := range conns {
		next := make([]int, len(c.Sites))
		for range count * len(c.Sites) {
			var got [2]int
			if f := conn.Event("n"); json.Unmarshal(f.Data, &got) != nil || got[1] != next[got[0]] {
				t.Fatalf("%s, want %v", f, next)
			}
			next[got[0]]++
		}
	}
	emitting.Wait()
}

func TestClusterKeepsNamespacesApart(t *testing.T) {
	var crossed atomic.Int32
	c := openCluster(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.Of("/room/:id").AllowAnonymous()
		adapter.OnServerSide(srv, "server event", func(context.Context, any) error {
			crossed.Add(1)
			return nil
		})
		adapter.Handle(srv.Of("/other"), "echo", func(_ context.Context, _ *adapter.Socket, in any) (any, error) { return in, nil })
		adapter.Handle(srv.Of("/room/:id"), "echo", func(_ context.Context, _ *adapter.Socket, in any) (any, error) { return in, nil })
		adapter.On(srv.Of("/room/:id"), "join", func(_ context.Context, sock *adapter.Socket, in text) error { return sock.Join(in.Room) })
	})
	b := c.Sites[1].NewBrowser(t, "ann")
	main := b.Dial(ws)
	main.Must("join", text{Room: "red"}, nil)
	other, seven, eight := b.Dial(ws+"?nsp=/other"), b.Dial(ws+"?nsp=/room/7"), b.Dial(ws+"?nsp=/room/8")
	seven.Must("join", text{Room: "red"}, nil)
	eight.Must("join", text{Room: "red"}, nil)
	srv := c.Sites[0].Server
	for _, err := range []error{
		srv.Of("/other").Emit("for other"),
		srv.Of("/other").To("red").Emit("for nobody"),
		srv.Of("/room/7").To("red").Emit("for seven"),
		srv.Of("/room/:id").ToUser("ann").Emit("for rooms"),
		srv.Of("/other").ServerSideEmit("server event"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	srv.Of("/other").To("red").Join("blue")
	srv.Of("/room/8").Join("blue")
	settle(t, c, 0)
	for _, tt := range []struct {
		conn *adaptertest.Conn
		want string
	}{{main, ""}, {other, "for other"}, {seven, "for seven for rooms"}, {eight, "for rooms"}} {
		tt.conn.Must("echo", 1, nil)
		var got []string
		for _, f := range tt.conn.Rest() {
			got = append(got, f.Type)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	for name, want := range map[string]int{"/": 0, "/other": 0, "/room/7": 0, "/room/8": 1, "/room/:id": 1, "/room/9": 0} {
		in, err := srv.Of(name).To("blue").Sockets(t.Context())
		if err != nil || len(in) != want {
			t.Errorf("in blue of %s: %v, %v; want %d", name, in, err, want)
		}
	}
	if members, err := srv.Of("/room/:id").Presence(t.Context(), "red"); err != nil || fmt.Sprint(members) != "[{ann <nil> 2}]" {
		t.Errorf("Presence in all rooms = %v, %v", members, err)
	}
	if crossed.Load() != 0 {
		t.Error("an event between servers has crossed namespaces")
	}
}

func TestClusterMovesAndTellsOfSockets(t *testing.T) {
	c := openCluster(t, adapter.Config{}, nil)
	ann := c.Sites[1].NewBrowser(t, "ann")
	ann.MustPost("/set?key=role&value=admin")
	conn, header := c.Sites[1].NewBrowser(t, "").Dial(ws), map[string][]string{
		"Authorization": {"Bearer secret-token"}, "X-Api-Key": {"secret-key"}, "User-Agent": {"test"}, "Origin": {ann.URL},
	}
	conn.Must("name", "nobody", nil)
	theirs, _, err := ann.TryDial(ws+"?token=secret-query", header)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Event("connect")
	theirs.Must("name", "Ann", nil)
	theirs.Must("join", text{Room: "red"}, nil)
	var id string
	theirs.Must("id", nil, &id)

	srv := c.Sites[0].Server
	all, err := srv.Sockets(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("Sockets = %v, %v; want two", all, err)
	}
	slices.SortFunc(all, func(a, b adapter.RemoteSocket) int { return cmp.Compare(len(a.Rooms), len(b.Rooms)) })
	nobody, red := all[0], all[1]
	if nobody.Identity != nil || nobody.Data["name"] != "nobody" {
		t.Errorf("nobody is %+v", nobody)
	}
	if red.ID != id || red.Identity == nil || red.Identity.UserID != "ann" || red.Identity.SessionID != "" ||
		!slices.Equal(red.Identity.Roles, []string{"admin"}) || red.Data["name"] != "Ann" || fmt.Sprint(red.Rooms) != "[red]" {
		t.Errorf("ann is %+v with %+v", red, red.Identity)
	}
	r := red.Handshake.Request(t.Context())
	if r.Header.Get("User-Agent") != "test" || r.URL.Path != ws || r.Host == "" || red.Handshake.RemoteAddr() == "" ||
		time.Since(red.Handshake.Time()) > time.Minute {
		t.Errorf("the handshake is %v %v %v %v", r.URL, r.Host, r.Header, red.Handshake.Time())
	}
	if text := fmt.Sprint(r.URL, r.Header, r.Cookies()); strings.Contains(text, "secret") || strings.Contains(text, ann.Cookies()[0].Value) {
		t.Errorf("credentials in the handshake: %s", text)
	}
	if local, err := srv.Local().Sockets(t.Context()); err != nil || len(local) != 0 {
		t.Errorf("Local().Sockets = %v, %v", local, err)
	}

	if err := red.Emit("hello", 1); err != nil {
		t.Error(err)
	}
	theirs.Event("hello")
	red.Join("green", "blue")
	red.Leave("red")
	if in, err := srv.To("green").Except("red").Sockets(t.Context()); err != nil || len(in) != 1 || fmt.Sprint(in[0].Rooms) != "[green blue]" {
		t.Errorf("in green: %v, %v", in, err)
	}
	srv.Except("blue").Join("rest")
	if in, err := c.Sites[2].Server.To("rest").Sockets(t.Context()); err != nil || len(in) != 1 || in[0].ID != nobody.ID {
		// Two nodes have told the third: order is kept for each of them only.
		settle(t, c, 0)
		if in, err = c.Sites[2].Server.To("rest").Sockets(t.Context()); err != nil || len(in) != 1 || in[0].ID != nobody.ID {
			t.Errorf("in rest: %v, %v", in, err)
		}
	}
	red.Disconnect()
	if code := theirs.Closed(); code != websocket.CloseNormalClosure {
		t.Errorf("close code %d", code)
	}
	srv.Disconnect()
	conn.Closed()
}

func TestClusterPresence(t *testing.T) {
	c := openCluster(t, adapter.Config{}, nil)
	for i, user := range []string{"ann", "ann", "bob", ""} {
		s := c.Sites[i%3]
		conn := s.NewBrowser(t, user).Dial(ws)
		conn.Must("join", text{Room: "red"}, nil)
		if i == 1 {
			s.NewBrowser(t, user).Dial(ws).Must("join", text{Room: "red"}, nil)
		}
	}
	members, err := c.Sites[0].Server.Presence(t.Context(), "red")
	if got := fmt.Sprint(members); err != nil || got != "[{ann ann 3} {bob <nil> 1}]" {
		t.Errorf("Presence = %s, %v", got, err)
	}
}

func TestClusterServerSideEvents(t *testing.T) {
	type greeting struct {
		Text  string `json:"text"`
		Image []byte `json:"image"`
	}
	got := make(chan string, 10_000)
	var site atomic.Int32
	c := openCluster(t, adapter.Config{}, func(srv *adapter.Server) {
		i := site.Add(1) - 1
		adapter.OnServerSide(srv, "greet", func(_ context.Context, in adapter.Args2[int, greeting]) error {
			got <- fmt.Sprint(i, " ", in.A, " ", in.B.Text, " ", in.B.Image)
			return nil
		})
		adapter.HandleServerSide(srv, "double", func(_ context.Context, in int) (greeting, error) {
			return greeting{fmt.Sprint(i, " ", 2*in), []byte{byte(in)}}, nil
		})
		adapter.HandleServerSide(srv, "refuse", func(_ context.Context, in any) (int, error) {
			if i == 1 {
				return 0, &adapter.Error{Code: "no", Message: "not today"}
			}
			panic("what a handler does")
		})
	})
	srv := c.Sites[0].Server
	for j := range 100 {
		if err := srv.ServerSideEmit("greet", j, greeting{"hello", []byte{1, 2}}); err != nil {
			t.Fatal(err)
		}
	}
	next := map[byte]int{}
	for range 200 {
		line := <-got
		if want := fmt.Sprintf("%c %d hello [1 2]", line[0], next[line[0]]); line != want || line[0] == '0' {
			t.Fatalf("%s, want %s", line, want)
		}
		next[line[0]]++
	}
	answers, err := adapter.ServerSideCall[greeting](t.Context(), srv, "double", 21)
	slices.SortFunc(answers, func(a, b greeting) int { return cmp.Compare(a.Text, b.Text) })
	if s := fmt.Sprint(answers); err != nil || s != "[{1 42 [21]} {2 42 [21]}]" {
		t.Errorf("double = %s, %v", s, err)
	}
	_, err = adapter.ServerSideCall[int](t.Context(), srv, "refuse")
	if err == nil || !strings.Contains(err.Error(), "2 of 2 other nodes did not answer") || !strings.Contains(err.Error(), "no: not today") ||
		!strings.Contains(err.Error(), adapter.CodeInternal) || strings.Contains(err.Error(), "what a handler does") {
		t.Errorf("refuse: %v", err)
	}
	if _, err = adapter.ServerSideCall[int](t.Context(), srv, "unknown"); err == nil || !strings.Contains(err.Error(), adapter.CodeEvent) {
		t.Errorf("unknown: %v", err)
	}
	if _, err = adapter.ServerSideCall[int](t.Context(), srv, "double", "x"); err == nil || !strings.Contains(err.Error(), "expected data to be a whole number") {
		t.Errorf("double of a string: %v", err)
	}
	if err := srv.ServerSideEmit("greet", func() {}); err == nil {
		t.Error("an event that cannot be encoded: no error")
	}
}

func TestWithoutBackplaneThereIsNobodyElse(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	c := s.NewBrowser(t, "").Dial(ws)
	if err := s.Server.Local().Emit("here"); err != nil {
		t.Error(err)
	}
	c.Event("here")
	if err := s.Server.ServerSideEmit("event", 1); err != nil {
		t.Error(err)
	}
	if all, err := adapter.ServerSideCall[int](t.Context(), s.Server, "event"); err != nil || all != nil {
		t.Errorf("ServerSideCall = %v, %v", all, err)
	}
	if err := s.Server.Health(t.Context()); err != nil || s.Server.Nodes() != 1 {
		t.Errorf("Health = %v, %d nodes", err, s.Server.Nodes())
	}
}

func TestClusterCallAll(t *testing.T) {
	n := startNode(t)
	c := openCluster(t, adapter.Config{}, nil)
	srv := c.Sites[0].Server
	conns := make([]*adaptertest.Conn, 3)
	for i, s := range c.Sites {
		conns[i] = s.NewBrowser(t, "").Dial(ws)
		conns[i].Must("join", text{Room: "red"}, nil)
	}
	sio := n.open("c", c.Sites[2].NewBrowser(t, ""), "/", "websocket", nil)
	id := sio.await("connect").ID
	sio.call("join", text{Room: "red"})
	reply := func(i int, rest string) {
		conns[i].Raw(`{"type":"reply","id":` + string(conns[i].Event("how many?").ID) + `,` + rest + `}`)
	}
	type result struct {
		replies []adapter.Reply[any]
		err     error
	}
	ask := func(ctx context.Context, o adapter.Op) chan result {
		done := make(chan result, 1)
		go func() {
			replies, err := adapter.CallAll[any](ctx, o, "how many?", []byte{1})
			done <- result{replies, err}
		}()
		return done
	}

	done := ask(t.Context(), srv.To("red"))
	reply(0, `"data":3`)
	reply(1, `"data":[4]`)
	reply(2, `"error":{"code":"no","message":"I will not say"}`)
	got := <-done
	var values []string
	for _, r := range got.replies {
		values = append(values, fmt.Sprint(r.Value, " ", r.Err, " ", r.Socket != nil, " ", r.SocketID == id))
	}
	slices.Sort(values)
	want := []string{"3 <nil> true false", "<nil> no: I will not say false false", "[4] <nil> false false", "ack of how many? <nil> false true"}
	if !slices.Equal(values, want) || got.err == nil || !strings.Contains(got.err.Error(), "1 of 4 sockets did not answer") {
		t.Errorf("CallAll = %q, %v; want %q", values, got.err, want)
	}

	// A client that ends is not waited for, and one that is silent until ctx is
	// done; what is there by then counts.
	ctx, cancel := context.WithCancel(t.Context())
	done = ask(ctx, srv.To("red"))
	conns[1].Event("how many?")
	conns[1].Close()
	reply(0, `"data":3`)
	conns[2].Event("how many?")
	n.await("the question", func(l told) bool { return l.Event == "how many?" })
	conns[0].Must("echo", 1, nil) // the answers have been read by now
	sio.call("echo", 1)
	settle(t, c, 2) // and passed on
	for c.Sites[1].Server.Open() > 0 {
		c.Sites[1].NewBrowser(t, "").Get("/me") // lets time pass
	}
	settle(t, c, 1)
	cancel()
	got = <-done
	var errs []string
	for _, r := range got.replies {
		errs = append(errs, fmt.Sprint(errors.Is(r.Err, adapter.ErrClosed), errors.Is(r.Err, context.Canceled), r.Err == nil))
	}
	slices.Sort(errs)
	if want := []string{"false false true", "false false true", "false true false", "true false false"}; !slices.Equal(errs, want) {
		t.Errorf("%q, want %q: %v", errs, want, got.err)
	}
	if replies, err := adapter.CallAll[any](t.Context(), srv.To("nobody"), "how many?"); err != nil || len(replies) != 0 {
		t.Errorf("CallAll of nobody = %v, %v", replies, err)
	}
}

// TestClusterGoodbyeEndsWaiting: a server that shuts down in the middle of a call
// is not waited for.
func TestClusterGoodbyeEndsWaiting(t *testing.T) {
	entered := make(chan struct{})
	var site atomic.Int32
	c := openCluster(t, adapter.Config{}, func(srv *adapter.Server) {
		i := site.Add(1)
		adapter.HandleServerSide(srv, "wait", func(ctx context.Context, _ any) (int32, error) {
			if i == 3 {
				entered <- struct{}{}
				<-ctx.Done()
				return 0, context.Cause(ctx)
			}
			return i, nil
		})
	})
	type result struct {
		answers []int32
		err     error
	}
	done := make(chan result, 1)
	go func() {
		answers, err := adapter.ServerSideCall[int32](t.Context(), c.Sites[0].Server, "wait")
		done <- result{answers, err}
	}()
	<-entered
	if err := c.Sites[2].Server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := <-done; got.err == nil || !slices.Equal(got.answers, []int32{2}) {
		t.Errorf("ServerSideCall = %v, %v; want one answer and an error", got.answers, got.err)
	}
	c.Sites = c.Sites[:2]
	c.Await(t, 2)
}

// TestClusterCancel: a handler on another node ends with the context of who
// waits for it.
func TestClusterCancel(t *testing.T) {
	entered, ended := make(chan struct{}, 2), make(chan error, 2)
	c := openCluster(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.HandleServerSide(srv, "wait", func(ctx context.Context, _ any) (int, error) {
			entered <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return 0, nil
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := adapter.ServerSideCall[int](ctx, c.Sites[0].Server, "wait")
		done <- err
	}()
	<-entered
	<-entered
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ServerSideCall = %v", err)
	}
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("the handler's context has no error")
		}
	}
}

func TestClusterLogout(t *testing.T) {
	c := openCluster(t, adapter.Config{Revalidate: -1}, nil)
	ann := c.Sites[0].NewBrowser(t, "ann")
	bob := c.Sites[1].NewBrowser(t, "bob").Dial(ws)
	var conns []*adaptertest.Conn
	for _, s := range c.Sites {
		conns = append(conns, ann.At(s).Dial(ws))
	}
	thief := ann.Clone().At(c.Sites[2])
	ann.At(c.Sites[1]).MustPost("/logout")
	for i, conn := range conns {
		if code := conn.Closed(); code != 4409 {
			t.Errorf("site %d: close code %d, want 4409", i, code)
		}
	}
	bob.Must("echo", 1, nil)
	if status, body := thief.Get("/me"); status != 401 {
		t.Errorf("GET /me with the old cookie: %d %s", status, body)
	}

	// Who logs in on one node is nobody on others until they connect again: the
	// new session's id is not for them to know.
	nobody := c.Sites[0].NewBrowser(t, "")
	nobody.MustPost("/set?key=color&value=red")
	here, there := nobody.Dial(ws), nobody.At(c.Sites[1]).Dial(ws)
	nobody.MustPost("/login?user=carol")
	if code := there.Closed(); code != 4409 {
		t.Errorf("the socket of another node: close code %d, want 4409", code)
	}
	for {
		if f := here.Call("me", nil); string(f.Data) == `"carol"` {
			break
		}
	}
}

// TestClusterLogoutWhileCut: what a node misses it is told of when it is back,
// and so is one that comes new.
func TestClusterLogoutWhileCut(t *testing.T) {
	for _, cut := range []int{0, 1} { // the node that logs out, another
		t.Run(fmt.Sprint("node ", cut), func(t *testing.T) {
			c := openCluster(t, adapter.Config{Revalidate: -1}, nil)
			ann := c.Sites[0].NewBrowser(t, "ann")
			conn := ann.At(c.Sites[1]).Dial(ws)
			c.Cut(cut)
			ann.MustPost("/logout")
			c.Mend(cut)
			if code := conn.Closed(); code != 4409 {
				t.Errorf("close code %d, want 4409", code)
			}
		})
	}
}

func TestClusterRecovery(t *testing.T) {
	n := startNode(t)
	c := openCluster(t, adapter.Config{Recovery: adapter.Recovery{Window: time.Minute}}, nil)
	cl := n.open("c", c.Sites[0].NewBrowser(t, "ann"), "/", "websocket", nil)
	first := cl.await("connect")
	cl.call("join", text{Room: "red"})
	emit := func(i int) {
		t.Helper()
		if err := c.Sites[1].Server.To("red").Emit("news", i, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		settle(t, c, 1)
	}
	emit(0)
	cl.event("news")
	n.do(map[string]any{"do": "cut", "name": "c"})
	cl.await("disconnect")
	for c.Sites[0].Server.Ghosts() == 0 {
		c.Sites[0].NewBrowser(t, "").Get("/me") // lets time pass
	}
	for i := range 3 {
		emit(i + 1)
	}
	c.Sites[2].Server.To(first.ID).Join("blue")
	settle(t, c, 2)
	if err := c.Sites[2].Server.To("blue").Emit("news", 9); err != nil {
		t.Fatal(err)
	}
	settle(t, c, 2)
	n.do(map[string]any{"do": "connect", "name": "c"})
	if again := cl.await("connect"); !again.Recovered || again.ID != first.ID {
		t.Fatalf("%s, want the socket %s recovered", again, first.ID)
	}
	for _, want := range []int{1, 2, 3, 9} {
		if l := cl.event("news"); string(l.Args[0]) != fmt.Sprint(want) {
			t.Errorf("missed event %s, want %d", l, want)
		}
	}
}

// TestClusterLeavesNothingBehind looks into the tables of the nodes after
// requests, ended sockets and ended sessions.
func TestClusterLeavesNothingBehind(t *testing.T) {
	c := openCluster(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.HandleServerSide(srv, "n", func(context.Context, any) (int, error) { return 1, nil })
	})
	var wg sync.WaitGroup
	for i, s := range c.Sites {
		wg.Go(func() {
			for j := range 10 {
				b := s.NewBrowser(t, fmt.Sprint("user", i))
				conn := b.At(c.Sites[(i+1)%3]).Dial(ws)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(j)*time.Millisecond)
				_, _ = adapter.CallAll[int](ctx, s.Server.To("red"), "silence")
				_, _ = adapter.ServerSideCall[int](ctx, s.Server, "n")
				_, _ = s.Server.Sockets(ctx)
				cancel()
				if j%2 == 0 {
					b.MustPost("/logout")
				} else {
					conn.Close()
				}
			}
		})
	}
	wg.Wait()
	for i, s := range c.Sites {
		var left map[string]int
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if left = s.Server.Left(nil, []string{"user0", "user1", "user2"}); len(left) == 0 {
				break
			}
			s.NewBrowser(t, "").Get("/me") // lets time pass
		}
		if len(left) > 0 {
			t.Errorf("site %d has left behind: %v", i, left)
		}
	}
}

// TestClusterTaps: OnAnyOutgoing sees what comes from other nodes, as values.
func TestClusterTaps(t *testing.T) {
	seen := make(chan string, 10)
	c := openCluster(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.OnAnyOutgoing(func(_ *adapter.Socket, event string, args []any) { seen <- fmt.Sprint(event, " ", args) })
	})
	c.Sites[1].NewBrowser(t, "").Dial(ws)
	if err := c.Sites[0].Server.Emit("news", 1, map[string]any{"b": []byte{7}}); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "news [1 map[b:[7]]]" {
		t.Errorf("seen %q", got)
	}
}

// TestClusterCopiesBytes: what the app does with its bytes after Emit is its own
// affair.
func TestClusterCopiesBytes(t *testing.T) {
	c := openCluster(t, adapter.Config{}, nil)
	conn := c.Sites[1].NewBrowser(t, "").Dial(ws)
	b := bytes.Repeat([]byte{1}, 10_000)
	if err := c.Sites[0].Server.Emit("bytes", b); err != nil {
		t.Fatal(err)
	}
	clear(b)
	var got []byte
	if err := json.Unmarshal(conn.Event("bytes").Data, &got); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{1}, 10_000)) {
		t.Errorf("%d bytes, %v; want them as they were", len(got), err)
	}
}

func TestClusterEmitRefuses(t *testing.T) {
	c := openCluster(t, adapter.Config{}, nil)
	srv := c.Sites[0].Server
	var deep any
	for range 200 {
		deep = []any{deep}
	}
	for what, err := range map[string]error{
		"a function":      srv.Emit("e", func() {}),
		"too deep":        srv.Emit("e", deep),
		"too large":       srv.Emit("e", make([]byte, backplane.MaxBytes)),
		"a reserved name": srv.Emit("reply", 1),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := srv.Local().Emit("e", deep); err != nil {
		t.Errorf("for this node only: %v", err)
	}
}

// A logBook keeps the messages of a log.
type logBook struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Enabled(context.Context, slog.Level) bool { return true }

func (l *logBook) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r.Message)
	return nil
}

func (l *logBook) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// A brokenBus is a backplane that fails when it is told to.
type brokenBus struct {
	backplane.Backplane
	fail atomic.Bool
	deaf atomic.Bool
}

func (b *brokenBus) Subscribe(node string, deliver func(*backplane.Message)) error {
	return b.Backplane.Subscribe(node, func(m *backplane.Message) {
		if !b.deaf.Load() {
			deliver(m)
		}
	})
}

func (b *brokenBus) Publish(ctx context.Context, batch []*backplane.Message) error {
	if b.fail.Load() {
		return errors.New("no connection")
	}
	return b.Backplane.Publish(ctx, batch)
}

// startBare starts a server without pages, for tests in virtual time.
func startBare(t *testing.T, cfg adapter.Config, setup func(*adapter.Server)) *adapter.Server {
	t.Helper()
	srv, err := adapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if setup != nil {
		setup(srv)
	}
	srv.Mount(gin.New())
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return srv
}

func TestClusterLostBackplane(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	for _, how := range []string{"publishing fails", "nothing comes back"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var bus backplane.Memory
				end := &brokenBus{Backplane: bus.Node()}
				book := new(logBook)
				got := make(chan int, 10)
				srv := startBare(t, adapter.Config{Backplane: end, Logger: slog.New(book)}, nil)
				other := startBare(t, adapter.Config{Backplane: bus.Node(), Logger: slog.New(slog.DiscardHandler)}, func(srv *adapter.Server) {
					adapter.OnServerSide(srv, "n", func(_ context.Context, n int) error {
						got <- n
						return nil
					})
				})
				synctest.Wait()
				if err := srv.Health(t.Context()); err != nil || srv.Nodes() != 2 || other.Nodes() != 2 {
					t.Fatalf("at first: %v, %d and %d nodes", err, srv.Nodes(), other.Nodes())
				}
				if how == "publishing fails" {
					end.fail.Store(true)
				} else {
					end.deaf.Store(true)
				}
				time.Sleep(time.Minute)
				if err := srv.Health(t.Context()); err == nil {
					t.Error("Health of a server that is cut off: no error")
				}
				if how == "publishing fails" {
					if err := srv.ServerSideEmit("n", 1); err == nil {
						t.Error("ServerSideEmit of a server that is cut off: no error")
					}
					if other.Nodes() != 1 {
						t.Error("a node that is silent counts")
					}
				} else if srv.Nodes() != 1 {
					t.Error("a node that is not heard counts")
				}
				if err := srv.Emit("e", 1); err != nil {
					t.Errorf("Emit reaches the own sockets all the same: %v", err)
				}
				end.fail.Store(false)
				end.deaf.Store(false)
				time.Sleep(6 * time.Second)
				if err := srv.Health(t.Context()); err != nil || srv.Nodes() != 2 || other.Nodes() != 2 {
					t.Errorf("in the end: %v, %d and %d nodes", err, srv.Nodes(), other.Nodes())
				}
				if err := srv.ServerSideEmit("n", 2); err != nil {
					t.Error(err)
				}
				if n := <-got; n != 2 {
					t.Errorf("got %d", n)
				}
				if lost, back := book.count("the backplane is lost"), book.count("the backplane is back"); lost != 1 || back != 1 {
					t.Errorf("logged %d times that it is lost and %d times that it is back, want once each: %q", lost, back, book.lines)
				}
			})
		})
	}
}

// TestClusterNodeDies: a server that says nothing any more, not even goodbye, is
// waited for until it counts as dead.
func TestClusterNodeDies(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	synctest.Test(t, func(t *testing.T) {
		quiet := slog.New(slog.DiscardHandler)
		var bus backplane.Memory
		dying := &brokenBus{Backplane: bus.Node()}
		answer := func(n int) func(*adapter.Server) {
			return func(srv *adapter.Server) {
				adapter.HandleServerSide(srv, "n", func(context.Context, any) (int, error) { return n, nil })
			}
		}
		srv := startBare(t, adapter.Config{Backplane: bus.Node(), Logger: quiet}, nil)
		startBare(t, adapter.Config{Backplane: bus.Node(), Logger: quiet}, answer(1))
		startBare(t, adapter.Config{Backplane: dying, Logger: quiet}, answer(2))
		synctest.Wait()
		if all, err := adapter.ServerSideCall[int](t.Context(), srv, "n"); err != nil || len(all) != 2 {
			t.Fatalf("at first: %v, %v", all, err)
		}
		dying.fail.Store(true)
		dying.deaf.Store(true)
		began := time.Now()
		all, err := adapter.ServerSideCall[int](t.Context(), srv, "n")
		if err == nil || !slices.Equal(all, []int{1}) {
			t.Errorf("ServerSideCall = %v, %v; want one answer and an error", all, err)
		}
		if took := time.Since(began); took < 5*time.Second || took > 16*time.Second {
			t.Errorf("a dead node was waited for %v", took)
		}
		if all, err = adapter.ServerSideCall[int](t.Context(), srv, "n"); err != nil || len(all) != 1 {
			t.Errorf("once it is known to be dead: %v, %v", all, err)
		}
		// Questions to nodes have a timeout of their own.
		dying.fail.Store(false)
		time.Sleep(6 * time.Second)
		if srv.Nodes() != 3 {
			t.Fatalf("%d nodes, want the one that speaks again", srv.Nodes())
		}
		began = time.Now()
		if _, err := srv.Sockets(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("Sockets = %v after %v, want a timeout after 5s", err, time.Since(began))
		}
		if _, err := srv.Presence(t.Context(), "red"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Presence = %v", err)
		}
	})
}

// TestClusterSlowNode: a server whose handlers hang keeps nobody waiting, and
// what comes for it is bounded.
func TestClusterSlowNode(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	synctest.Test(t, func(t *testing.T) {
		quiet := slog.New(slog.DiscardHandler)
		var bus backplane.Memory
		release := make(chan struct{})
		var slow, fast atomic.Int32
		book := new(logBook)
		srv := startBare(t, adapter.Config{Backplane: bus.Node(), Logger: quiet}, nil)
		hung := startBare(t, adapter.Config{Backplane: bus.Node(), Logger: slog.New(book)}, func(srv *adapter.Server) {
			adapter.OnServerSide(srv, "n", func(context.Context, int) error {
				<-release
				slow.Add(1)
				return nil
			})
		})
		startBare(t, adapter.Config{Backplane: bus.Node(), Logger: quiet}, func(srv *adapter.Server) {
			adapter.OnServerSide(srv, "n", func(context.Context, int) error {
				fast.Add(1)
				return nil
			})
		})
		synctest.Wait()
		const count = 10_000
		for i := range count {
			if err := srv.ServerSideEmit("n", i); err != nil {
				t.Fatal(err)
			}
			if i%1000 == 0 {
				synctest.Wait() // or the queue of the publisher is the one that is full
			}
		}
		synctest.Wait()
		if n := fast.Load(); n != count {
			t.Errorf("the fast node has handled %d, want %d", n, count)
		}
		// Its sockets are reached all the same: their messages wait elsewhere.
		if _, err := srv.Sockets(t.Context()); err != nil {
			t.Errorf("Sockets = %v", err)
		}
		if err := hung.Health(t.Context()); err == nil {
			t.Error("Health of a node that drops messages: no error")
		}
		close(release)
		synctest.Wait()
		if n := slow.Load(); n != 8192+1 {
			t.Errorf("the slow node has handled %d, want one and the 8192 that have room behind it", n)
		}
		if n := book.count("dropped"); n != 1 {
			t.Errorf("logged %d times that messages were dropped, want once: %q", n, book.lines)
		}
		time.Sleep(20 * time.Second)
		if err := hung.Health(t.Context()); err != nil {
			t.Errorf("Health in the end: %v", err)
		}
	})
}

// TestClusterHungBackplane: a driver that never returns holds up neither those
// who emit nor the end of the server.
func TestClusterHungBackplane(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	synctest.Test(t, func(t *testing.T) {
		var bus backplane.Memory
		srv, err := adapter.New(adapter.Config{Backplane: hungBus{bus.Node()}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		srv.Mount(gin.New())
		began := time.Now()
		for i := range 20_000 {
			if err := srv.Emit("n", i); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("Emit has waited %v", took)
		}
		time.Sleep(10 * time.Second)
		if err := srv.Health(t.Context()); err == nil {
			t.Error("Health: no error")
		}
		began = time.Now()
		if err := srv.Shutdown(context.Background()); err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("Shutdown = %v after %v", err, time.Since(began))
		}
	})
}

type hungBus struct{ backplane.Backplane }

func (hungBus) Publish(ctx context.Context, _ []*backplane.Message) error {
	<-ctx.Done()
	return ctx.Err()
}

// A foreignBus is one whose other node neither beats nor has a name, as with the
// first Redis adapter of Socket.IO, and that wants to know the namespaces.
type foreignBus struct {
	backplane.Backplane
	nodes atomic.Int32
	mu    sync.Mutex
	names []string
}

func (b *foreignBus) Count(context.Context, string) (int, error) { return int(b.nodes.Load()), nil }

func (b *foreignBus) Enter(name string) { b.note("+" + name) }
func (b *foreignBus) Leave(name string) { b.note("-" + name) }

func (b *foreignBus) note(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names = append(b.names, name)
	slices.Sort(b.names)
}

func TestClusterOfForeignNodes(t *testing.T) {
	var bus backplane.Memory
	ours, foreign := &foreignBus{Backplane: bus.Node()}, bus.Node()
	answers := make(chan *backplane.Message, 100)
	if err := foreign.Subscribe("foreign", func(m *backplane.Message) {
		if m.Request != "" {
			answers <- m
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = foreign.Close() })
	s := openSite(t, adapter.Config{Backplane: ours, Logger: slog.New(slog.DiscardHandler)}, func(srv *adapter.Server) {
		srv.Of("/room/:id").AllowAnonymous()
	})
	publish := func(batch ...*backplane.Message) {
		t.Helper()
		if err := foreign.Publish(t.Context(), batch); err != nil {
			t.Error(err)
		}
	}
	ours.nodes.Store(2)
	var wg sync.WaitGroup
	wg.Go(func() {
		for m := range answers {
			switch m.Kind {
			case backplane.Fetch:
				header := map[string][]string{"cookie": {"sid=secret"}, "host": {"example.org"}, "bad\nname": {"x"}}
				publish(&backplane.Message{Kind: backplane.Fetched, Request: m.Request, Sockets: []backplane.Socket{{ID: "one", Header: header}}},
					&backplane.Message{Kind: backplane.Fetched, Request: m.Request},
					&backplane.Message{Kind: backplane.Fetched, Request: m.Request, Sockets: []backplane.Socket{{ID: "of one too many"}}})
			case backplane.Call:
				if strings.Contains(string(m.Event.Data), "liars") {
					publish(&backplane.Message{Kind: backplane.Called, Request: m.Request, Count: 1 << 40},
						&backplane.Message{Kind: backplane.Called, Request: m.Request, Count: -1})
					continue
				}
				publish(&backplane.Message{Kind: backplane.Called, Request: m.Request, Count: 2},
					&backplane.Message{Kind: backplane.Acknowledged, Request: m.Request, Event: backplane.Event{Data: json.RawMessage(`[1]`)}},
					&backplane.Message{Kind: backplane.Called, Request: m.Request, Count: 0},
					&backplane.Message{Kind: backplane.Acknowledged, Request: m.Request, Event: backplane.Event{Data: json.RawMessage(`not JSON`)}})
			}
		}
	})
	found, err := s.Server.Sockets(t.Context())
	if err != nil || len(found) != 1 || found[0].ID != "one" || found[0].Handshake.Header().Get("Cookie") != "" {
		t.Errorf("Sockets = %v, %v", found, err)
	}
	replies, err := adapter.CallAll[int](t.Context(), s.Server.To("red"), "how many?")
	if err == nil || len(replies) != 2 || replies[0].Value != 1 || replies[1].Err == nil {
		t.Errorf("CallAll = %+v, %v", replies, err)
	}
	if replies, err := adapter.CallAll[int](t.Context(), s.Server.To("red"), "liars"); err == nil || len(replies) != 0 {
		t.Errorf("CallAll of nodes that lie = %d replies, %v", len(replies), err)
	}
	ours.nodes.Store(0)
	if found, err := s.Server.Sockets(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("Sockets of nobody = %v, %v", found, err)
	}
	close(answers)
	wg.Wait()

	c := s.NewBrowser(t, "").Dial(ws + "?nsp=/room/7")
	c.Close()
	s.NewBrowser(t, "").Dial(ws + "?nsp=/room/8")
	want := []string{"+/", "+/room/7", "+/room/8", "+/room/:id", "-/room/7"}
	for {
		ours.mu.Lock()
		names := slices.Clone(ours.names)
		ours.mu.Unlock()
		if slices.Equal(names, want) {
			break
		}
		if t.Context().Err() != nil || len(names) > len(want) {
			t.Fatalf("told of %q, want %q", names, want)
		}
		s.NewBrowser(t, "").Get("/me") // lets time pass
	}
}

// TestClusterHostileMessages: what comes from the backplane is input.
func TestClusterHostileMessages(t *testing.T) {
	var bus backplane.Memory
	hostile := bus.Node()
	beats := make(chan struct{}, 1000)
	if err := hostile.Subscribe("hostile", func(m *backplane.Message) {
		if m.Kind == backplane.Fetched {
			beats <- struct{}{}
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hostile.Close() })
	book := new(logBook)
	s := openSite(t, adapter.Config{Backplane: bus.Node(), Logger: slog.New(book), Recovery: adapter.Recovery{Window: time.Minute}}, func(srv *adapter.Server) {
		adapter.OnServerSide(srv, "n", func(context.Context, int) error { return nil })
		srv.OnAnyOutgoing(func(_ *adapter.Socket, event string, _ []any) {
			if event == "panic" {
				panic("what a tap does")
			}
		})
	})
	c := s.NewBrowser(t, "ann").Dial(ws)
	event := func(data string, attachments ...[]byte) backplane.Event {
		return backplane.Event{Data: json.RawMessage(data), Attachments: attachments}
	}
	long := strings.Repeat("x", 5000)
	batch := []*backplane.Message{
		{},
		{Kind: 200},
		{Kind: backplane.Emit, Namespace: "/"},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`{}`)},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`[]`)},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`["connect"]`)},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`["reply",{}]`)},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`["disconnect"]`)},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`["e",`)},
		{Kind: backplane.Emit, Namespace: "/", Event: event("[\"e\",\"\xff\"]")},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`["e",` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `]`)},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`["e"]`, []byte{1})},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`["e",{"_placeholder":true,"num":1}]`, []byte{1})},
		{Kind: backplane.Emit, Namespace: "/", Event: event(`["panic"]`)},
		{Kind: backplane.Emit, Namespace: long, Event: event(`["e"]`)},
		{Kind: backplane.Emit, Namespace: "", Event: event(`["e"]`)},
		{Kind: backplane.Emit, Namespace: "/nowhere", Event: event(`["e"]`)},
		{Kind: backplane.Call, Namespace: "/", Event: event(`["e"]`)},
		{Kind: backplane.Call, Namespace: "/", Event: event(`["e"`), Request: "1"},
		{Kind: backplane.Call, Namespace: "/nowhere", Event: event(`["e"]`), Request: "2"},
		{Kind: backplane.Call, Namespace: "/", Event: event(`["e"]`), Request: long},
		{Kind: backplane.ServerEvent, Namespace: "/", Event: event(`["n","x"]`)},
		{Kind: backplane.ServerEvent, Namespace: "/", Event: event(`[null]`), Request: "3", Timeout: -1},
		{Kind: backplane.ServerEvent, Namespace: "/nowhere", Event: event(`["n",1]`), Request: "4"},
		{Kind: backplane.Locate, Request: "5"},
		{Kind: backplane.Locate, Of: backplane.Subject{Kind: long}, Request: "6"},
		{Kind: backplane.Locate, Of: backplane.Subject{Kind: "user", Hash: adapter.HashOf("user", "ann")}},
		{Kind: backplane.SignOut, Of: backplane.Subject{Kind: "user", Hash: adapter.HashOf("user", "ann")}},
		{Kind: backplane.SignOut, Of: backplane.Subject{Kind: "user", Hash: adapter.HashOf("user", "ann")}, Request: "7"},
		{Kind: backplane.SignOut, Of: backplane.Subject{Kind: "user", Hash: adapter.HashOf("user", "ann")}, Places: make([]backplane.Place, 2), Request: "8"},
		{Kind: backplane.SignOut, Of: backplane.Subject{Kind: "user", Hash: adapter.HashOf("user", "ann")}, Places: make([]backplane.Place, 1), Request: "9"},
		{Kind: backplane.Located, Request: "nothing", Places: make([]backplane.Place, 100)},
		{Kind: backplane.Join, Namespace: "/nowhere"},
		{Kind: backplane.Disconnect, Namespace: "/nowhere"},
		{Kind: backplane.Leave, Namespace: "/", Rooms: []string{"", long}},
		{Kind: backplane.SessionsEnded, Ended: []backplane.Ended{{For: -time.Hour}, {For: 1 << 62}}},
		{Kind: backplane.Cancel, Request: "nothing"},
		{Kind: backplane.Fetched, Request: "nothing", Sockets: make([]backplane.Socket, 100)},
		{Kind: backplane.Acknowledged, Request: "nothing"},
		{Kind: backplane.Goodbye},
		{Kind: backplane.Emit, Namespace: "/", Event: event(" \n[ \"fine\" , 1 ] ")},
	}
	for _, m := range batch {
		m.Node = "hostile"
	}
	for i := range 5000 {
		batch = append(batch, &backplane.Message{Kind: backplane.Hello, Node: fmt.Sprint("node ", i)})
	}
	batch = append(batch, &backplane.Message{Kind: backplane.Fetch, Node: "hostile", Namespace: "/", Request: "last"})
	for part := range slices.Chunk(batch, 100) {
		if err := hostile.Publish(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	<-beats
	c.Must("echo", 1, nil)
	var got []string
	for _, f := range c.Rest() {
		got = append(got, f.String())
	}
	if want := []string{`{"type":"panic"}`, `{"type":"fine","data":1}`}; !slices.Equal(got, want) {
		t.Errorf("the client got %q, want %q", got, want)
	}
	if n := s.Server.Nodes(); n > 1025 {
		t.Errorf("%d nodes, want them bounded", n)
	}
	if book.count("panicked") != 1 || book.count("was dropped") != 1 {
		t.Errorf("the log says %q", book.lines)
	}
}
