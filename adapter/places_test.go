package adapter_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/adapter/backplane"
)

var noLog = slog.New(slog.DiscardHandler)

// dialAs opens a socket that says which browser it is of.
func dialAs(t *testing.T, b *adaptertest.Browser, name string) *adaptertest.Conn {
	t.Helper()
	c, _, err := b.TryDial(ws, http.Header{"User-Agent": {name}})
	if err != nil {
		t.Fatal(err)
	}
	c.Event("connect")
	return c
}

// TestSessionsOfACluster: wherever it is asked, a session that the store knows of
// has the sockets of all nodes, and ends on all of them.
func TestSessionsOfACluster(t *testing.T) {
	c := adaptertest.NewCluster(t, 3, adapter.Config{Logger: noLog}, newListingStore(t), nil)
	phone, laptop := logInWith(t, c.Sites[0], "alice", "Phone"), logInWith(t, c.Sites[0], "alice", "Laptop")
	bob := logInWith(t, c.Sites[1], "bob", "Phone").Dial(ws)
	var conns []*adaptertest.Conn
	for _, s := range []int{1, 1, 2} {
		conns = append(conns, phone.At(c.Sites[s]).Dial(ws))
	}
	kept := laptop.At(c.Sites[2]).Dial(ws)
	for i, s := range c.Sites {
		all := mustSessions(t, s.Server, "alice")
		slices.SortFunc(all, func(a, b adapter.SessionInfo) int { return strings.Compare(b.Agent, a.Agent) })
		if len(all) != 2 || all[0].Agent != "Phone" || all[0].Sockets != 3 || all[1].Agent != "Laptop" || all[1].Sockets != 1 {
			t.Fatalf("site %d: alice is signed in at %+v, want Phone with 3 sockets and Laptop with 1", i, all)
		}
		if i == 0 && time.Since(all[0].Used) > time.Minute {
			t.Errorf("the phone was used at %v, want now", all[0].Used)
		}
	}
	var handle string
	for _, at := range mustSessions(t, c.Sites[0].Server, "alice") {
		if at.Agent == "Phone" {
			handle = at.Handle
		}
	}
	if n, err := c.Sites[0].Server.RevokeSession(t.Context(), "bob", handle); n != 0 || !errors.Is(err, adapter.ErrUnknownSession) {
		t.Errorf("RevokeSession by bob = %d, %v; want ErrUnknownSession", n, err)
	}
	if n, err := c.Sites[0].Server.RevokeSession(t.Context(), "alice", handle); n != 0 || err != nil {
		t.Fatalf("RevokeSession = %d, %v; want none of this node", n, err)
	}
	// The others may not have heard of it yet, and what they tell is over.
	if all := mustSessions(t, c.Sites[0].Server, "alice"); len(all) != 1 || all[0].Agent != "Laptop" {
		t.Errorf("after that alice is signed in at %+v, want Laptop alone", all)
	}
	for i, conn := range conns {
		if code := conn.Closed(); code != 4409 {
			t.Errorf("socket %d: closed with %d, want 4409", i, code)
		}
	}
	kept.Must("me", nil, nil)
	bob.Must("me", nil, nil)
}

// TestSessionsThatOneNodeKnows: of a store that does not list its sessions only
// sockets tell, and only a node with one of them knows what to delete.
func TestSessionsThatOneNodeKnows(t *testing.T) {
	store := newListingStore(t)
	c := adaptertest.NewCluster(t, 3, adapter.Config{Logger: noLog}, struct{ sessions.Store }{store}, nil)
	phone := logInWith(t, c.Sites[0], "alice", "Phone")
	first := dialAs(t, phone.At(c.Sites[1]), "Phone")
	before := time.Now()
	second := dialAs(t, phone.At(c.Sites[2]), "Phone")
	asked := c.Sites[0].Server
	all := mustSessions(t, asked, "alice")
	if len(all) != 1 || all[0].Agent != "Phone" || all[0].Address != "127.0.0.1" || all[0].Sockets != 2 || all[0].Since.After(before) {
		t.Fatalf("alice is signed in at %+v, want one place with 2 sockets, since the first", all)
	}
	unknown := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for who, handle := range map[string]string{"bob": all[0].Handle, "alice": unknown, "": all[0].Handle} {
		if n, err := asked.RevokeSession(t.Context(), who, handle); n != 0 || !errors.Is(err, adapter.ErrUnknownSession) {
			t.Errorf("RevokeSession(%q, %s) = %d, %v; want ErrUnknownSession", who, handle, n, err)
		}
	}
	first.Must("me", nil, nil)
	if _, err := asked.RevokeSession(t.Context(), "alice", all[0].Handle); err != nil {
		t.Fatal(err)
	}
	if left := mustSessions(t, asked, "alice"); len(left) != 0 {
		t.Errorf("after that alice is signed in at %+v", left)
	}
	store.mu.Lock()
	rows := len(store.kept)
	store.mu.Unlock()
	if rows != 0 {
		t.Errorf("the store has %d sessions, want it deleted", rows)
	}
	for i, conn := range []*adaptertest.Conn{first, second} {
		if code := conn.Closed(); code != 4409 {
			t.Errorf("socket %d: closed with %d, want 4409", i, code)
		}
	}
	if _, err := asked.RevokeSession(t.Context(), "alice", all[0].Handle); !errors.Is(err, adapter.ErrUnknownSession) {
		t.Errorf("RevokeSession once more: %v, want ErrUnknownSession", err)
	}
}

// An undeletable store keeps its sessions.
type undeletable struct {
	sessions.Store
	fail func() error
}

func (u *undeletable) Save(r *http.Request, w http.ResponseWriter, s *gsessions.Session) error {
	if s.Options.MaxAge < 0 {
		return u.fail()
	}
	return u.Store.Save(r, w, s)
}

// TestRevokeSessionOfAStoreThatFails: the sockets are closed, and who asked on
// another node learns that the row is still there.
func TestRevokeSessionOfAStoreThatFails(t *testing.T) {
	for name, save := range map[string]func() error{
		"with an error": func() error { return errors.New("a secret of the database") },
		"by a panic":    func() error { panic("a mistake of the store") },
	} {
		t.Run(name, func(t *testing.T) {
			store := &undeletable{Store: newMemstore(t), fail: save}
			c := adaptertest.NewCluster(t, 2, adapter.Config{Logger: noLog}, store, nil)
			conn := c.Sites[1].NewBrowser(t, "alice").Dial(ws)
			all := mustSessions(t, c.Sites[0].Server, "alice")
			if len(all) != 1 {
				t.Fatalf("alice is signed in at %+v, want one place", all)
			}
			_, err := c.Sites[0].Server.RevokeSession(t.Context(), "alice", all[0].Handle)
			if err == nil || errors.Is(err, adapter.ErrUnknownSession) || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "could not be deleted") {
				t.Errorf("RevokeSession: %v, want an error that says what was not done", err)
			}
			if code := conn.Closed(); code != 4409 {
				t.Errorf("closed with %d, want 4409", code)
			}
		})
	}
}

// TestSessionsOfTokensInACluster: a token is no node's, and its sockets are one
// place wherever they are.
func TestSessionsOfTokensInACluster(t *testing.T) {
	var bus backplane.Memory
	var sites []*tokenSite
	for range 3 {
		sites = append(sites, newTokenSite(t, adapter.Config{Credentials: everySource, Backplane: bus.Node(), Revalidate: -1}, nil))
	}
	for _, s := range sites {
		await(t, "all nodes know each other", func() bool { return s.Server.Nodes() == len(sites) })
	}
	dial := func(site int, header http.Header) *adaptertest.Conn {
		t.Helper()
		c, _, err := adaptertest.NewBrowser(t, sites[site].URL).TryDial(ws, header)
		if err != nil {
			t.Fatal(err)
		}
		c.Event("connect")
		return c
	}
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	// The same JWT in two spellings, see withoutSignature.
	one, two := dial(1, bearer("eyalice.x.1")), dial(2, bearer("eyalice.x.2"))
	other := dial(1, http.Header{"Cookie": {"jwt=eyalice.x.1"}})
	asked := sites[0].Server
	all := mustSessions(t, asked, "eyalice.x.")
	if len(all) != 2 {
		t.Fatalf("signed in at %+v, want the token and what is neither token nor session", all)
	}
	slices.SortFunc(all, func(a, b adapter.SessionInfo) int { return strings.Compare(a.Handle, b.Handle) })
	if all[0].Handle != "" || all[0].Sockets != 1 || all[1].Sockets != 2 {
		t.Errorf("signed in at %+v, want two sockets with the token", all)
	}
	if n, err := asked.RevokeSession(t.Context(), "eyalice.x.", all[1].Handle); n != 0 || err != nil {
		t.Fatalf("RevokeSession = %d, %v", n, err)
	}
	if left := mustSessions(t, asked, "eyalice.x."); len(left) != 1 || left[0].Handle != "" {
		t.Errorf("after that signed in at %+v, want the place without a handle", left)
	}
	for i, conn := range []*adaptertest.Conn{one, two} {
		if code := conn.Closed(); code != 4409 {
			t.Errorf("socket %d: closed with %d, want 4409", i, code)
		}
	}
	none := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	if _, err := asked.RevokeSession(t.Context(), "eyalice.x.", none); !errors.Is(err, adapter.ErrUnknownSession) {
		t.Errorf("RevokeSession of what has no handle: %v, want ErrUnknownSession", err)
	}
	other.Must("me", nil, nil)
	for i, s := range sites {
		if _, resp, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, bearer("eyalice.x.3")); err == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("site %d: the token still opens sockets: %v", i, err)
		}
	}
}

// TestSessionsWithoutOneNode: what the others know, and an error that says so.
func TestSessionsWithoutOneNode(t *testing.T) {
	c := adaptertest.NewCluster(t, 3, adapter.Config{Logger: noLog}, newMemstore(t), nil)
	phone := logInWith(t, c.Sites[0], "alice", "Phone")
	dialAs(t, phone, "Phone")
	dialAs(t, phone.At(c.Sites[1]), "Phone")
	away := dialAs(t, c.Sites[2].NewBrowser(t, "alice"), "Laptop")
	all := mustSessions(t, c.Sites[0].Server, "alice")
	i := slices.IndexFunc(all, func(at adapter.SessionInfo) bool { return at.Agent == "Laptop" })
	if len(all) != 2 || i < 0 {
		t.Fatalf("alice is signed in at %+v, want Phone and Laptop", all)
	}
	laptop := all[i].Handle
	c.Cut(2)
	soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	all, err := c.Sites[0].Server.Sessions(soon, "alice")
	if err == nil || !strings.Contains(err.Error(), "1 of 2 other nodes did not answer") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v, want that a node did not answer in time", err)
	}
	if len(all) != 1 || all[0].Agent != "Phone" || all[0].Sockets != 2 {
		t.Errorf("alice is signed in at %+v, want Phone with 2 sockets", all)
	}
	soon, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Sites[0].Server.RevokeSession(soon, "alice", laptop); err == nil || errors.Is(err, adapter.ErrUnknownSession) {
		t.Errorf("RevokeSession of what the silent node may have: %v, want that it did not answer", err)
	}
	away.Must("me", nil, nil)
}

// TestSessionsWaitForFiveSeconds is in virtual time: a node that is silent is
// waited for so long, one of Socket.IO's own not at all.
func TestSessionsWaitForFiveSeconds(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	synctest.Test(t, func(t *testing.T) {
		var bus backplane.Memory
		foreign := bus.Node() // speaks for one namespace, as servers on Node.js do
		if err := foreign.Subscribe("foreign", func(*backplane.Message) {}); err != nil {
			t.Fatal(err)
		}
		defer foreign.Close()
		counted := &foreignBus{Backplane: bus.Node()} // and two that nobody has heard of
		counted.nodes.Store(2)
		end := &brokenBus{Backplane: bus.Node()}
		srv := startBare(t, adapter.Config{Backplane: counted, Logger: noLog}, nil)
		startBare(t, adapter.Config{Backplane: end, Logger: noLog}, nil)
		if err := foreign.Publish(t.Context(), []*backplane.Message{{Kind: backplane.Beat, Node: "foreign", Namespace: "/"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		handle := adapter.SessionHandle("of nobody")
		for _, tt := range []struct {
			silent bool
			took   time.Duration
			err    string
		}{{false, 0, ""}, {true, 5 * time.Second, "1 of 1 other nodes did not answer"}} {
			end.deaf.Store(tt.silent)
			began := time.Now()
			all, err := srv.Sessions(t.Context(), "alice")
			if took := time.Since(began); took != tt.took || all == nil || len(all) > 0 || (err != nil) != tt.silent || tt.silent && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Sessions = %v, %v after %v; want none, %q after %v", all, err, took, tt.err, tt.took)
			}
			began = time.Now()
			_, err = srv.RevokeSession(t.Context(), "alice", handle)
			if took := time.Since(began); took != tt.took || errors.Is(err, adapter.ErrUnknownSession) == tt.silent || tt.silent && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("RevokeSession: %v after %v; want %q after %v", err, took, tt.err, tt.took)
			}
		}
	})
}

// TestSessionsOfALyingNode: what another node tells is input.
func TestSessionsOfALyingNode(t *testing.T) {
	var bus backplane.Memory
	l := &liar{bus.Node(), t, "liar"}
	asked := make(chan *backplane.Message, 10)
	if err := l.Subscribe(l.name, func(m *backplane.Message) {
		if m.Kind == backplane.Locate || m.Kind == backplane.SignOut {
			asked <- m
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := adaptertest.NewSite(t, adapter.Config{Backplane: bus.Node(), Logger: noLog}, newMemstore(t), nil)
	l.says(&backplane.Message{Kind: backplane.Beat})
	await(t, "it is known", func() bool { return s.Server.Nodes() == 2 })

	conn := dialAs(t, s.NewBrowser(t, "alice"), "Phone")
	for _, who := range []adapter.Who{adapter.BySession("gone"), adapter.ByToken("gone")} {
		if _, err := s.Server.Revoke(t.Context(), who); err != nil {
			t.Fatal(err)
		}
	}
	tomorrow := time.Now().Add(24 * time.Hour)
	places := []backplane.Place{
		{Handle: [32]byte{1}, Agent: strings.Repeat("x", 100_000) + "\xff", Address: strings.Repeat("1", 5000), Since: tomorrow, Sockets: 1 << 60},
		{Handle: [32]byte{2}, Sockets: -5},
		{Handle: [32]byte{3}},
		// Ended here a moment ago, which the other node is about to hear.
		{Handle: adapter.HashOf("session", "gone"), Address: "over", Since: tomorrow, Sockets: 1},
		{Handle: adapter.HashOf("token", "gone"), Address: "over", Since: tomorrow, Sockets: 1},
	}
	for i := range 5000 {
		places = append(places, backplane.Place{Handle: [32]byte{4, byte(i), byte(i >> 8)}, Sockets: 1, Since: time.Unix(1, 0)})
	}
	places = append(places, backplane.Place{Handle: [32]byte{5}, Address: "one too many", Since: tomorrow, Sockets: 1})
	next := func() *backplane.Message {
		select {
		case m := <-asked:
			return m
		case <-t.Context().Done():
			return new(backplane.Message)
		}
	}
	answer := func(answers ...*backplane.Message) {
		to := next()
		for _, m := range answers {
			m.Kind, m.Node, m.To, m.Request = backplane.Located, l.name, to.Node, to.Request
		}
		if err := l.Publish(context.Background(), answers); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // t.Context is over by then
	wg.Go(func() {
		answer(&backplane.Message{Places: places}, &backplane.Message{Places: places[:1]}) // once more
		answer(&backplane.Message{Err: &backplane.Error{Code: "no", Message: "not today"}})
	})
	all := mustSessions(t, s.Server, "alice")
	if len(all) > adapter.MaxSessions {
		t.Errorf("%d places, want at most %d", len(all), adapter.MaxSessions)
	}
	mine := slices.ContainsFunc(all, func(at adapter.SessionInfo) bool { return at.Agent == "Phone" && at.Sockets == 1 })
	if !mine {
		t.Error("this node's own place is not among them")
	}
	for _, at := range all {
		if at.Sockets <= 0 || at.Sockets > 200_000 || len(at.Agent) > 200 || len(at.Address) > 200 || time.Until(at.Since) > time.Hour {
			t.Errorf("a place is %.300s", fmt.Sprint(at))
		}
		if at.Address == "over" || at.Address == "one too many" {
			t.Errorf("%q is among the places", at.Address)
		}
	}
	if _, err := s.Server.RevokeSession(t.Context(), "alice", adapter.SessionHandle("elsewhere")); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("RevokeSession: %v, want what the node says", err)
	}
	conn.Must("me", nil, nil)
}

// TestSessionsTellNoSecrets listens to what nodes tell each other of a place.
func TestSessionsTellNoSecrets(t *testing.T) {
	var bus backplane.Memory
	ear := bus.Node()
	var mu sync.Mutex
	var heard []*backplane.Message
	if err := ear.Subscribe("ear", func(m *backplane.Message) {
		mu.Lock()
		defer mu.Unlock()
		if m.Kind == backplane.Locate || m.Kind == backplane.SignOut {
			heard = append(heard, m)
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ear.Close() })
	store := newMemstore(t)
	var sites []*adaptertest.Site
	for range 2 {
		sites = append(sites, adaptertest.NewSite(t, adapter.Config{Backplane: &overheard{bus.Node(), &mu, &heard}, Logger: noLog}, store, nil))
	}
	for _, s := range sites {
		await(t, "both know each other", func() bool { return s.Server.Nodes() == 2 })
	}
	b := logInWith(t, sites[1], "alice@example.org", "Phone")
	conn := b.Dial(ws)
	found, err := sites[1].Server.ToUser("alice@example.org").Local().Sockets(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("her sockets are %v, %v", found, err)
	}
	all := mustSessions(t, sites[0].Server, "alice@example.org")
	if len(all) != 1 {
		t.Fatalf("she is signed in at %+v, want one place", all)
	}
	if _, err := sites[0].Server.RevokeSession(t.Context(), "alice@example.org", all[0].Handle); err != nil {
		t.Fatal(err)
	}
	conn.Closed()
	secrets := []string{"alice", found[0].Identity.SessionID, found[0].ID}
	for _, c := range b.Cookies() {
		secrets = append(secrets, c.Value)
	}
	mu.Lock()
	defer mu.Unlock()
	kinds := make(map[backplane.Kind]int)
	for _, m := range heard {
		kinds[m.Kind]++
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if secret == "" || strings.Contains(string(data), secret) {
				t.Errorf("%q is told in %s", secret, data)
			}
		}
	}
	if kinds[backplane.Locate] == 0 || kinds[backplane.SignOut] == 0 || kinds[backplane.Located] == 0 {
		t.Errorf("heard of %v, want questions and answers", kinds)
	}
}

// An overheard backplane notes the answers about places: they go to one node.
type overheard struct {
	backplane.Backplane
	mu    *sync.Mutex
	heard *[]*backplane.Message
}

func (o *overheard) Publish(ctx context.Context, batch []*backplane.Message) error {
	o.mu.Lock()
	for _, m := range batch {
		if m.Kind == backplane.Located {
			*o.heard = append(*o.heard, m)
		}
	}
	o.mu.Unlock()
	return o.Backplane.Publish(ctx, batch)
}
