package adapter_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/adapter/backplane"
)

// await asks until it is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !so(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after 20s not yet: %s", what)
		}
	}
}

func TestClusterRevoke(t *testing.T) {
	c := openCluster(t, adapter.Config{Revalidate: -1}, nil)
	bob := c.Sites[1].NewBrowser(t, "bob").Dial(ws)
	sessionOf := func(user string) string {
		found, err := c.Sites[0].Server.ToUser(user).Local().Sockets(t.Context())
		if err != nil || len(found) == 0 {
			t.Fatalf("%s has %v, %v", user, found, err)
		}
		return found[0].Identity.SessionID
	}
	for _, tt := range []struct {
		what string
		who  func(user string) adapter.Who
	}{
		{"user", adapter.ByUser},
		{"session", func(user string) adapter.Who { return adapter.BySession(sessionOf(user)) }},
		{"provider", func(string) adapter.Who { return adapter.ByProvider("test") }}, // bob's too: the last one
	} {
		t.Run(tt.what, func(t *testing.T) {
			what, who := tt.what, tt.who
			user := "ann of " + what
			b := c.Sites[0].NewBrowser(t, "")
			b.MustPost("/login?user=" + "ann+of+" + what)
			thief := b.Clone()
			var conns []*adaptertest.Conn
			for _, s := range c.Sites {
				conns = append(conns, b.At(s).Dial(ws), b.At(s).Dial(ws))
			}
			n, err := c.Sites[0].Server.Revoke(t.Context(), who(user))
			if n != 2 || err != nil {
				t.Errorf("Revoke = %d, %v; want the two sockets of that node", n, err)
			}
			for i, conn := range conns {
				if code := conn.Closed(); code != 4409 {
					t.Errorf("socket %d: close code %d, want 4409", i, code)
				}
			}
			for i, s := range c.Sites {
				if status, body := thief.At(s).Get("/me"); status != http.StatusUnauthorized {
					t.Errorf("site %d: GET /me with the old cookie: %d %s", i, status, body)
				}
			}
			// Whoever logs in on one node is let in on all.
			b.At(c.Sites[2]).MustPost("/login?user=" + "ann+of+" + what)
			for _, s := range c.Sites {
				wantUser(t, user, b.At(s))
			}
			if what != "provider" {
				bob.Must("echo", 1, nil)
			} else if code := bob.Closed(); code != 4409 {
				t.Errorf("bob: close code %d, want 4409", code)
			}
		})
	}
}

// joined starts sites on one bus, each with what cfg returns for it, and waits
// until they know each other.
func joined(t *testing.T, bus *backplane.Memory, n int, cfg func(i int) adapter.Config, setup func(*adaptertest.Site)) []*adaptertest.Site {
	t.Helper()
	store := newCookieStore(t) // keys are the same for all, and so is what a cookie says
	var sites []*adaptertest.Site
	for i := range n {
		c := cfg(i)
		if c.Backplane == nil {
			c.Backplane = bus.Node()
		}
		if c.Logger == nil {
			c.Logger = slog.New(slog.DiscardHandler)
		}
		sites = append(sites, adaptertest.NewSite(t, c, store, setup))
	}
	for _, s := range sites {
		await(t, "all nodes know each other", func() bool { return s.Server.Nodes() == n })
	}
	return sites
}

func TestClusterRevokesTokens(t *testing.T) {
	var bus backplane.Memory
	var sites []*tokenSite
	for range 2 {
		sites = append(sites, newTokenSite(t, adapter.Config{Credentials: everySource, Backplane: bus.Node(), Revalidate: -1}, nil))
	}
	for _, s := range sites {
		await(t, "all nodes know each other", func() bool { return s.Server.Nodes() == 2 })
	}
	b := adaptertest.NewBrowser(t, sites[1].URL)
	stolen, other := b.Dial(ws+"?token=alice"), b.Dial(ws+"?token=alice2")
	if n, err := sites[0].Server.Revoke(t.Context(), adapter.ByToken("alice")); n != 0 || err != nil {
		t.Errorf("Revoke = %d, %v; want none on that node", n, err)
	}
	if code := stolen.Closed(); code != 4409 {
		t.Errorf("closed with %d, want 4409", code)
	}
	if _, resp, err := b.TryDial(ws+"?token=alice", nil); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the revoked token: %v, want 401", err)
	}
	other.Must("me", nil, nil)
	if _, err := sites[0].Server.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Error(err)
	}
	if code := other.Closed(); code != 4409 {
		t.Errorf("closed with %d, want 4409", code)
	}
}

// TestClusterRevokeWhileCut: a node that hears of it late ends what came before,
// and nothing that came after; neither does hearing of it again.
func TestClusterRevokeWhileCut(t *testing.T) {
	for _, cut := range []int{0, 1} { // the node that revokes, another
		t.Run(fmt.Sprint("node ", cut), func(t *testing.T) {
			c := openCluster(t, adapter.Config{Revalidate: -1}, nil)
			old := c.Sites[0].NewBrowser(t, "ann")
			before := old.At(c.Sites[1]).Dial(ws)
			c.Cut(cut)
			if _, err := c.Sites[0].Server.Revoke(t.Context(), adapter.ByUser("ann")); err != nil {
				t.Fatal(err)
			}
			fresh := c.Sites[0].NewBrowser(t, "ann")
			stale, after := old.At(c.Sites[1]).Dial(ws), fresh.At(c.Sites[1]).Dial(ws)
			c.Mend(cut)
			for what, conn := range map[string]*adaptertest.Conn{"from before": before, "from after, with the old cookie": stale} {
				if code := conn.Closed(); code != 4409 {
					t.Errorf("the socket %s: close code %d, want 4409", what, code)
				}
			}
			for range 3 {
				c.Mend(0) // tells all of it again
				c.Mend(1)
			}
			settle(t, c, 0)
			after.Must("echo", 1, nil)
			if status, body := old.At(c.Sites[1]).Get("/me"); status != http.StatusUnauthorized {
				t.Errorf("GET /me with the old cookie: %d %s", status, body)
			}
			for _, s := range c.Sites {
				wantUser(t, "ann", fresh.At(s))
			}
		})
	}
}

// TestClusterTellsNewNodes: of what ended and was revoked before they came, also
// before the node that tells them was started itself.
func TestClusterTellsNewNodes(t *testing.T) {
	var bus backplane.Memory
	kept := new(memoryEndings)
	first := joined(t, &bus, 1, func(int) adapter.Config { return adapter.Config{Endings: kept} }, nil)[0]
	ann, bob, carol := first.NewBrowser(t, "ann"), first.NewBrowser(t, "bob"), first.NewBrowser(t, "carol")
	thief := ann.Clone()
	ann.MustPost("/logout")
	if _, err := first.Server.Revoke(t.Context(), adapter.ByUser("bob")); err != nil {
		t.Fatal(err)
	}
	if err := first.Server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	sites := joined(t, &bus, 2, func(i int) adapter.Config {
		if i == 0 {
			return adapter.Config{Endings: kept}
		}
		return adapter.Config{}
	}, nil)
	for who, b := range map[string]*adaptertest.Browser{"ann": thief, "bob": bob} {
		await(t, who+" is nobody", func() bool {
			status, _ := b.At(sites[1]).Get("/me")
			return status == http.StatusUnauthorized
		})
	}
	wantUser(t, "carol", carol.At(sites[1]))
}

// TestClusterNodesWriteDownWhatTheyAreTold: each may have a file of its own.
func TestClusterNodesWriteDownWhatTheyAreTold(t *testing.T) {
	var bus backplane.Memory
	kept := []*memoryEndings{{}, {}}
	sites := joined(t, &bus, 2, func(i int) adapter.Config { return adapter.Config{Endings: kept[i]} }, nil)
	ann := sites[0].NewBrowser(t, "ann")
	thief := ann.Clone()
	ann.MustPost("/logout")
	for _, w := range []adapter.Who{adapter.ByUser("bob"), adapter.BySession("s"), adapter.ByToken("t"), adapter.ByProvider("p")} {
		if _, err := sites[0].Server.Revoke(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	kinds := func(e *memoryEndings) []string {
		all, _ := e.All(t.Context())
		var kinds []string
		for _, e := range all {
			kinds = append(kinds, e.Kind)
		}
		slices.Sort(kinds)
		return kinds
	}
	want := []string{"provider", "session", "session", "token", "user"}
	await(t, "both have written", func() bool { return slices.Equal(kinds(kept[1]), want) })
	if got := kinds(kept[0]); !slices.Equal(got, want) {
		t.Errorf("who has revoked wrote %v, want %v", got, want)
	}
	for _, s := range sites {
		if err := s.Server.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	alone := joined(t, &bus, 1, func(int) adapter.Config { return adapter.Config{Endings: kept[1]} }, nil)[0]
	wantNobody(t, "ann", thief.At(alone))
}

// A liar is a node that says what a test likes.
type liar struct {
	backplane.Backplane
	t    *testing.T
	name string
}

func newLiar(t *testing.T, bus *backplane.Memory) *liar {
	t.Helper()
	l := &liar{bus.Node(), t, "liar"}
	if err := l.Subscribe(l.name, func(*backplane.Message) {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func (l *liar) says(messages ...*backplane.Message) {
	l.t.Helper()
	for _, m := range messages {
		m.Node = l.name
	}
	if err := l.Publish(l.t.Context(), messages); err != nil {
		l.t.Fatal(err)
	}
}

func revoked(kind, value string, at time.Time, ago, life time.Duration) *backplane.Message {
	return &backplane.Message{Kind: backplane.Revoked, Revoked: []backplane.Revocation{{
		Subject: backplane.Subject{Kind: kind, Hash: adapter.HashOf(kind, value)}, At: at.UnixNano(), Ago: ago, For: life,
	}}}
}

// TestClusterClocks: nodes whose clocks differ agree on which login came first.
// The one that revokes dates it a minute ahead by its own clock.
func TestClusterClocks(t *testing.T) {
	for name, skew := range map[string]time.Duration{
		"right": 0, "30s slow": -30 * time.Second, "30s fast": 30 * time.Second, "20m fast": 20 * time.Minute,
		"a day slow": -24 * time.Hour, "a day fast": 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			var bus backplane.Memory
			sites := joined(t, &bus, 2, func(int) adapter.Config { return adapter.Config{Revalidate: -1} }, nil)
			before := sites[0].NewBrowser(t, "ann")
			conn := before.At(sites[1]).Dial(ws)
			newLiar(t, &bus).says(revoked("user", "ann", time.Now().Add(skew+time.Minute), 0, 30*24*time.Hour))
			if code := conn.Closed(); code != 4409 {
				t.Errorf("closed with %d, want 4409", code)
			}
			for i, s := range sites {
				if status, body := before.At(s).Get("/me"); status != http.StatusUnauthorized {
					t.Errorf("site %d: GET /me with the old cookie: %d %s", i, status, body)
				}
			}
			for i, s := range sites {
				after := s.NewBrowser(t, "ann")
				for j := range sites {
					if status, body := after.At(sites[j]).Get("/me"); status != http.StatusOK {
						t.Errorf("who logs in on site %d is %d %s on site %d", i, status, body, j)
					}
				}
			}
		})
	}
}

// TestClusterHostileEndings: garbage, and the same again, in any order.
func TestClusterHostileEndings(t *testing.T) {
	var bus backplane.Memory
	kept := new(memoryEndings)
	s := joined(t, &bus, 1, func(int) adapter.Config { return adapter.Config{Endings: kept, Revalidate: -1} }, nil)[0]
	l := newLiar(t, &bus)
	ann := s.NewBrowser(t, "ann")
	conn := ann.Dial(ws)
	now := time.Now()
	l.says(
		&backplane.Message{Kind: backplane.Revoked},
		&backplane.Message{Kind: backplane.Changed},
		&backplane.Message{Kind: backplane.Changed, Changed: []backplane.Subject{{}, {Kind: "planet"}, {Kind: "session"}, {Kind: "user"}}},
		revoked("", "ann", now, 0, time.Hour),
		revoked("planet", "ann", now, 0, time.Hour),
		revoked("user", "ann", now, 0, 0),
		revoked("user", "ann", now, 0, -time.Hour),
		revoked("session", "s", now, 0, -1),
		revoked("session", "s", now, math.MinInt64, math.MaxInt64),
		revoked("user", "bob", time.Unix(0, math.MaxInt64), math.MinInt64, math.MaxInt64),
		revoked("user", "bob", time.Unix(0, math.MinInt64), math.MaxInt64, math.MaxInt64),
		revoked("user", "carol", time.Unix(0, math.MinInt64), math.MaxInt64, time.Hour),
	)
	conn.Must("me", nil, nil)
	wantUser(t, "ann", ann)
	wantUser(t, "bob", s.NewBrowser(t, "bob"))
	wantUser(t, "carol", s.NewBrowser(t, "carol"))

	// An old one that comes after a new one takes nothing back, and closes nobody.
	l.says(revoked("user", "ann", now.Add(time.Minute), 0, time.Hour))
	if code := conn.Closed(); code != 4409 {
		t.Errorf("closed with %d, want 4409", code)
	}
	again := s.NewBrowser(t, "ann")
	conn = again.Dial(ws)
	l.says(revoked("user", "ann", now.Add(30*time.Second), time.Second, time.Hour),
		revoked("user", "ann", now.Add(time.Minute), 0, time.Hour),
		revoked("user", "ann", now.Add(time.Minute), time.Hour, time.Hour))
	wantNobody(t, "ann, from before", ann)
	wantUser(t, "ann", again)
	conn.Must("me", nil, nil)
}

// roleSites is a cluster whose sockets tell of their roles, by site.
func roleSites(t *testing.T) (c *adaptertest.Cluster, changed []chan []string) {
	t.Helper()
	for range 3 {
		changed = append(changed, make(chan []string, 1000))
	}
	var site atomic.Int32
	c = openCluster(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
		i := site.Add(1) - 1
		srv.OnIdentity(func(_ context.Context, s *adapter.Socket, _ *adapter.Identity) error {
			changed[i] <- s.Identity().Roles
			return nil
		})
	})
	return c, changed
}

// TestClusterFollowsSaves: a role that one node saves is seen on the others at
// once, whether a page or a socket saves it.
func TestClusterFollowsSaves(t *testing.T) {
	c, changed := roleSites(t)
	ann := c.Sites[0].NewBrowser(t, "ann")
	var conns []*adaptertest.Conn
	for _, s := range c.Sites {
		conns = append(conns, ann.At(s).Dial(ws))
	}
	ann.MustPost("/set?key=role&value=admin")
	for i := range c.Sites {
		if got := <-changed[i]; !slices.Equal(got, []string{"admin"}) {
			t.Errorf("site %d: roles %v, want admin", i, got)
		}
	}
	conns[1].Must("set", map[string]string{"key": "role", "value": "editor"}, nil)
	for i := range c.Sites {
		if got := <-changed[i]; !slices.Equal(got, []string{"editor"}) {
			t.Errorf("site %d: roles %v, want editor", i, got)
		}
	}
}

// TestClusterSaveDuringAHandshake: of one whose chain has run on another node.
func TestClusterSaveDuringAHandshake(t *testing.T) {
	gate, held := adaptertest.NewGate(), new(atomic.Bool)
	changed := make(chan []string, 10)
	c := openCluster(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
		srv.UseOnce(func(c *gin.Context) {
			c.Next()
			if c.Query("slow") != "" && !held.Swap(true) {
				gate.Pass()
			}
		})
		srv.OnIdentity(func(_ context.Context, s *adapter.Socket, _ *adapter.Identity) error {
			changed <- s.Identity().Roles
			return nil
		})
	})
	ann := c.Sites[0].NewBrowser(t, "ann")
	var wg sync.WaitGroup
	wg.Go(func() { ann.At(c.Sites[1]).Dial(ws + "?slow=1") })
	<-gate.Entered
	t.Cleanup(func() { // if it fails before
		select {
		case gate.Release <- struct{}{}:
		default:
		}
	})
	saves := c.Sites[1].Server.Changes()
	ann.MustPost("/set?key=role&value=admin")
	await(t, "the other node has heard of the save", func() bool { return c.Sites[1].Server.Changes() > saves })
	gate.Release <- struct{}{}
	wg.Wait()
	if got := <-changed; !slices.Equal(got, []string{"admin"}) {
		t.Errorf("roles %v, want admin", got)
	}
}

// TestClusterRevokeDuringAHandshake: of one whose chain has run on another node.
func TestClusterRevokeDuringAHandshake(t *testing.T) {
	gate, held := adaptertest.NewGate(), new(atomic.Bool)
	c := openCluster(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
		srv.UseOnce(func(c *gin.Context) {
			c.Next()
			if c.Query("slow") != "" && !held.Swap(true) {
				gate.Pass()
			}
		})
	})
	ann := c.Sites[0].NewBrowser(t, "ann")
	first := ann.At(c.Sites[1]).Dial(ws)
	done := make(chan *adaptertest.Conn, 1)
	go func() {
		conn, _, err := ann.At(c.Sites[1]).TryDial(ws+"?slow=1", nil)
		if err != nil {
			t.Error(err)
		}
		done <- conn
	}()
	<-gate.Entered
	if _, err := c.Sites[0].Server.Revoke(t.Context(), adapter.ByUser("ann")); err != nil {
		t.Error(err)
	}
	first.Closed() // the node has heard of it
	gate.Release <- struct{}{}
	if conn := <-done; conn != nil && conn.Closed() != 4409 {
		t.Error("a socket whose handshake was under way survives")
	}
}

// TestClusterRefresh: roles that are kept where the adapter cannot see them.
func TestClusterRefresh(t *testing.T) {
	var bus backplane.Memory
	var role atomic.Value
	role.Store("member")
	changed := make(chan []string, 10)
	var servers []*adapter.Server
	for range 2 {
		srv, err := adapter.New(adapter.Config{Backplane: bus.Node(), Revalidate: -1})
		if err != nil {
			t.Fatal(err)
		}
		srv.Use(func(*gin.Context) {})
		srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
			return &adapter.Identity{UserID: c.Query("user"), Provider: "house", Roles: []string{role.Load().(string)}}, nil
		})
		srv.OnIdentity(func(_ context.Context, s *adapter.Socket, _ *adapter.Identity) error {
			changed <- append([]string{s.Identity().UserID}, s.Identity().Roles...)
			return nil
		})
		adapter.Handle(srv, "echo", func(_ context.Context, _ *adapter.Socket, in any) (any, error) { return in, nil })
		servers = append(servers, srv)
		t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	}
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	servers[0].Mount(gin.New())
	servers[1].Mount(r)
	for _, srv := range servers {
		await(t, "all nodes know each other", func() bool { return srv.Nodes() == 2 })
	}
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, r))
	ann, bob := b.Dial(ws+"?user=ann"), b.Dial(ws+"?user=bob")
	for i, who := range []adapter.Who{adapter.ByUser("ann"), adapter.ByProvider("house")} {
		now := fmt.Sprint("role ", i)
		role.Store(now)
		if err := servers[0].Refresh(t.Context(), who); err != nil {
			t.Fatal(err)
		}
		if got := <-changed; i == 0 && !slices.Equal(got, []string{"ann", now}) {
			t.Errorf("changed: %v, want ann's role", got)
		}
	}
	<-changed // the other of the provider's two
	ann.Must("echo", 1, nil)
	if n, err := servers[0].Revoke(t.Context(), adapter.ByUser("bob")); n != 0 || err != nil {
		t.Errorf("Revoke = %d, %v", n, err)
	}
	if code := bob.Closed(); code != 4409 {
		t.Errorf("bob, who has shown no credential: close code %d, want 4409", code)
	}
	ann.Must("echo", 1, nil)
}

// TestClusterRevokeForgetsWhoIsAway: on the node that they were connected to.
func TestClusterRevokeForgetsWhoIsAway(t *testing.T) {
	c := openCluster(t, adapter.Config{Recovery: adapter.Recovery{Window: time.Minute}}, nil)
	c.Sites[1].Server.KeepGhostOf("ann")
	c.Sites[1].Server.KeepGhostOf("bob")
	if _, err := c.Sites[0].Server.Revoke(t.Context(), adapter.ByUser("ann")); err != nil {
		t.Fatal(err)
	}
	await(t, "ann is forgotten", func() bool { return c.Sites[1].Server.Ghosts() == 1 })
	if _, err := c.Sites[0].Server.Revoke(t.Context(), adapter.ByToken("whoever had it")); err != nil {
		t.Fatal(err)
	}
	await(t, "everybody is, whose token nobody knows", func() bool { return c.Sites[1].Server.Ghosts() == 0 })
}

// TestClusterSavesAreFewMessages is in virtual time.
func TestClusterSavesAreFewMessages(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	synctest.Test(t, func(t *testing.T) {
		var bus backplane.Memory
		end := bus.Node()
		var mu sync.Mutex
		var messages, most int
		subjects := make(map[[32]byte]int)
		if err := end.Subscribe("ear", func(m *backplane.Message) {
			if m.Kind == backplane.Changed {
				mu.Lock()
				defer mu.Unlock()
				messages++
				most = max(most, len(m.Changed))
				for _, s := range m.Changed {
					subjects[s.Hash]++
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		defer end.Close()
		srv := startBare(t, adapter.Config{Backplane: bus.Node(), Logger: slog.New(slog.DiscardHandler)}, nil)
		reset := func() (int, int, int) {
			mu.Lock()
			defer mu.Unlock()
			a, b, c := messages, most, len(subjects)
			messages, most = 0, 0
			clear(subjects)
			return a, b, c
		}
		refresh := func(user string) {
			t.Helper()
			if err := srv.Refresh(t.Context(), adapter.ByUser(user)); err != nil {
				t.Fatal(err)
			}
		}

		refresh("ann")
		synctest.Wait()
		if messages, _, _ := reset(); messages != 1 {
			t.Errorf("the first is told %d times, want at once", messages)
		}
		time.Sleep(time.Second)
		for range 10_000 { // in ten seconds
			refresh("ann")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if messages, _, _ := reset(); messages < 20 || messages > 45 {
			t.Errorf("10,000 changes in ten seconds are %d messages, want about 4 a second", messages)
		}
		for i := range 20_000 {
			refresh(fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		if messages, most, told := reset(); messages > 10 || most > 4096 || told != 20_000 {
			t.Errorf("of 20,000 who change at once %d are told, in %d messages of up to %d", told, messages, most)
		}
		time.Sleep(time.Minute)
		if messages, _, _ := reset(); messages != 0 {
			t.Errorf("%d messages about nothing", messages)
		}
		refresh("ann")
		refresh("bob")
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if _, _, told := reset(); told != 2 {
			t.Errorf("a node that leaves tells of %d, want what was due", told)
		}
	})
}

// TestClusterHearsWhileASocketComesIn: of a socket that its guards have not let
// in yet, and that nobody can find in its namespace. Its node hears late, and the
// socket is younger than what it hears of.
func TestClusterHearsWhileASocketComesIn(t *testing.T) {
	gate := adaptertest.NewGate()
	c := openCluster(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
		srv.Of("/slow").Require(func(context.Context, *adapter.Socket) error {
			gate.Pass()
			return nil
		})
	})
	ann := c.Sites[0].NewBrowser(t, "ann")
	c.Cut(1)
	if _, err := c.Sites[0].Server.Revoke(t.Context(), adapter.ByUser("ann")); err != nil {
		t.Fatal(err)
	}
	there := ann.At(c.Sites[1])
	_, body, _ := engineDo(t, there, "GET", enginePath, "", nil)
	var open struct{ SID string }
	unmarshal(t, strings.TrimPrefix(body, "0"), &open)
	path := enginePath + "&sid=" + open.SID
	engineDo(t, there, "POST", path, "40/slow,", nil)
	<-gate.Entered
	c.Mend(0)
	c.Mend(1)
	await(t, "the node has heard", func() bool {
		status, _ := there.Get("/me")
		return status == http.StatusUnauthorized
	})
	gate.Release <- struct{}{}
	// The DISCONNECT packet, alone or behind the CONNECT.
	for {
		status, body, _ := engineDo(t, there, "GET", path, "", nil)
		if strings.Contains(body, "41/slow,") || strings.Contains(body, "44/slow,") || status != http.StatusOK {
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("the socket stays: %s", body)
		}
	}
}
