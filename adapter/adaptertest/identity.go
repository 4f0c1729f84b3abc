package adaptertest

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// A Subject is a kind of sessions that the suite Identity is asked about, with
// what cannot be on it. For each of these the suite shows what is instead.
type Subject struct {
	// Open returns logins whose sessions live for life after their last save.
	Open func(t *testing.T, life time.Duration) Logins

	// Mortal returns logins on a store of their own, which down takes away and
	// up brings back with all that it held.
	Mortal func(t *testing.T) (l Logins, down, up func())

	// InCookie says that sessions are kept in the client's cookie. A socket sees
	// the one that it was opened with; over polling, that of the last request. It
	// extends them over polling alone.
	InCookie bool

	// AtInterval says that the server is told nothing of these sessions: sockets
	// follow at their next replay, a session ends for its own kind alone,
	// Socket.Session does not know them, and Server.Revoke of a user leaves them.
	AtInterval bool

	// Foreign says that sessions are another package's: a page whose session cannot
	// be loaded or saved gets that package's answer, 500.
	Foreign bool
}

// interval is how often sockets are replayed where nothing else brings it about.
const interval = 300 * time.Millisecond

// Identity is the suite about identity over time: whatever happens to a login,
// its sockets follow, over every transport, on every kind of sessions. Its rows
// are those of the table "identity over time" in docs/identity.md. They run all
// at the same time, for most of what they do is to wait.
func Identity(t *testing.T, s Subject) {
	rows := []struct {
		name string
		test func(*row)
	}{
		{"logout", (*row).logout},
		{"login of a visitor", (*row).login},
		{"login of a visitor without a cookie", (*row).firstVisit},
		{"login of another user", (*row).otherUser},
		{"user becomes nobody", (*row).nobody},
		{"session changed over HTTP", (*row).changed},
		{"role granted and taken", (*row).roles},
		{"session expires", (*row).sessionExpires},
		{"session in use", (*row).inUse},
		{"credential expires", (*row).credentialExpires},
		{"user revoked", (*row).revoked},
		{"recovery", (*row).recovery},
		{"store down", (*row).storeDown},
		{"store down for too long", (*row).stale},
		{"credential expires while the store is down", (*row).expiresWhileDown},
	}
	var all sync.WaitGroup
	for _, tt := range rows {
		for _, tr := range Transports {
			all.Go(func() {
				t.Run(tt.name+", "+string(tr), func(t *testing.T) {
					tt.test(&row{Subject: s, t: t, way: Way{Transport: tr}, ends: make(map[string]chan adapter.Reason)})
				})
			})
		}
	}
	all.Wait()
}

// life is that of sessions that are not to expire; soon of what is, when a
// socket is open.
const (
	life = time.Hour
	soon = 5 * time.Second
)

// overdue is by how much a session may outlive its life: signed cookies count in
// whole seconds, in which they were made and in which they are looked at, and a
// socket sees the end at its next replay, a tenth late.
const overdue = 2*time.Second + interval + interval/10

// logout closes that session's sockets at once, and nothing brings it back.
func (r *row) logout() {
	r.start(adapter.Config{}, r.Open(r.t, life), nil)
	alice, phone, bob := r.site.NewBrowser(r.t, "alice"), r.site.NewBrowser(r.t, "alice"), r.site.NewBrowser(r.t, "bob")
	one, two := alice.Connect(r.way), alice.Connect(r.way)
	other, bobs := phone.Connect(r.way), bob.Connect(r.way)

	thief, slow := alice.Clone(), alice.Clone()
	var late sync.WaitGroup
	var status int
	late.Go(func() { status, _ = slow.Post("/slow?key=late&value=1", nil) })
	<-r.site.Slow.Entered
	alice.MustPost("/logout")
	for _, c := range []Client{one, two} {
		if r.AtInterval {
			r.wantEnd(c, adapter.ReasonUnauthorized)
		} else {
			r.wantEnd(c, adapter.ReasonSessionEnded)
		}
	}
	r.wantOut("the old cookie", thief)
	r.site.Slow.Release <- struct{}{}
	late.Wait()
	if r.AtInterval {
		// It is a danger of this kind of sessions on pages too.
		if code, user := thief.Get("/me"); status != http.StatusOK || code != http.StatusOK || user != "alice" {
			r.t.Errorf("a request that saved late: %d, then GET /me: %d %s: it no longer brings the session back", status, code, user)
		}
	} else {
		want := http.StatusGone
		if r.Foreign {
			want = http.StatusInternalServerError
		}
		if status != want {
			r.t.Errorf("the late save: %d, want %d", status, want)
		}
		r.wantOut("the old cookie after a late save", thief)
		r.wantOut("the late request's cookie", slow)
	}
	r.wantUser(other, "alice")
	r.wantUser(bobs, "bob")
}

// otherUser: two people never share a socket.
func (r *row) otherUser() {
	r.start(adapter.Config{}, r.Open(r.t, life), nil)
	b := r.site.NewBrowser(r.t, "alice")
	c := b.Connect(r.way)
	b.MustPost("/login?user=bob")
	if r.AtInterval {
		r.wantEnd(c, adapter.ReasonUnauthorized)
	} else {
		r.wantEnd(c, adapter.ReasonSessionEnded)
	}
	r.wantUser(b.Connect(r.way), "bob")
}

// nobody: a logout is not a demotion, even where nobody is admitted.
func (r *row) nobody() {
	r.start(adapter.Config{}, r.Open(r.t, life), func(s *Site) { s.Server.AllowAnonymous() })
	b := r.site.NewBrowser(r.t, "alice")
	c := b.Connect(r.way)
	b.MustPost("/forget")
	r.wantEnd(c, adapter.ReasonSessionEnded)
	r.wantUser(b.Connect(r.way), "")
}

// changed: what HTTP writes is what the socket reads next, and the chain is
// replayed for it.
func (r *row) changed() {
	r.start(adapter.Config{}, r.Open(r.t, life), func(s *Site) {
		s.Server.OnIdentity(func(_ context.Context, sock *adapter.Socket, _ *adapter.Identity) error {
			return sock.Emit("roles", sock.Identity().Roles)
		})
	})
	alice := r.site.NewBrowser(r.t, "alice")
	c := alice.Connect(r.way)
	read := func(key, want string) {
		r.t.Helper()
		if f := c.Call("get", pair{Key: key}); string(f.Data) != want {
			r.t.Errorf("get %s = %s, want %s", key, f, want)
		}
	}
	alice.MustPost("/set?key=color&value=blue")
	switch {
	case r.AtInterval:
		if f := c.Call("get", pair{Key: "color"}); f.Error == nil {
			r.t.Errorf("get color = %s: Socket.Session knows these sessions now", f)
		}
	case r.InCookie && r.way.Transport != Polling:
		read("color", "null")
	default:
		read("color", `"blue"`)
	}
	before := r.replays.Load()
	alice.MustPost("/set?key=role&value=admin")
	if r.InCookie && r.way.Transport != Polling {
		// The save is noticed, and the cookie is the one of the handshake.
		r.awaitReplays(c, before+1)
		r.wantUser(c, "alice")
		read("role", "null")
		if frames := c.Rest(); len(frames) > 0 {
			r.t.Errorf("got %v: a socket sees a cookie that was set later", frames)
		}
		return
	}
	// Over polling a cookie is shown by the next request. One that was on its way
	// when the cookie was set shows the old one, and may come later.
	var roles Frame
	for late := time.Now().Add(patience); roles.Type == ""; {
		if time.Now().After(late) {
			r.t.Fatalf("OnIdentity has not seen the role in %v", patience)
		}
		r.wantUser(c, "alice")
		for _, f := range c.Rest() {
			roles = f
		}
	}
	if roles.Type != "roles" || string(roles.Data) != `["admin"]` {
		r.t.Errorf("OnIdentity: %s, want admin", roles)
	}
}

// roles are kept beside the session, where only Refresh tells of them.
func (r *row) roles() {
	var roles atomic.Pointer[[]string]
	roles.Store(&[]string{"member"})
	gate := NewGate()
	r.t.Cleanup(gate.Open)
	asked := make(chan string, 10)
	r.start(adapter.Config{}, r.Open(r.t, life), func(s *Site) {
		s.Amend = func(id *adapter.Identity) { id.Roles = *roles.Load() }
		now := func(ctx context.Context) string {
			id, _ := adapter.IdentityOf(ctx)
			return strings.Join(id.Roles, " ")
		}
		s.Server.Require(func(ctx context.Context, _ *adapter.Socket) error {
			asked <- "guard: " + now(ctx)
			return nil
		}, adapter.Role("member"))
		s.Server.OnConnect(func(_ context.Context, sock *adapter.Socket) error { return sock.Join("member") })
		s.Server.OnIdentity(func(ctx context.Context, sock *adapter.Socket, old *adapter.Identity) error {
			asked <- "identity: " + strings.Join(old.Roles, " ") + " > " + now(ctx)
			for _, role := range old.Roles {
				_ = sock.Leave(role)
			}
			return sock.Join(sock.Identity().Roles...)
		})
		adapter.Handle(s.Server, "long", func(ctx context.Context, _ *adapter.Socket, _ struct{}) (string, error) {
			before := now(ctx)
			gate.Pass()
			return before + ", " + now(ctx), nil
		})
		adapter.Handle(s.Server, "roles", func(ctx context.Context, _ *adapter.Socket, _ struct{}) (string, error) {
			asked <- "event: " + now(ctx)
			return now(ctx), nil
		})
		adapter.On(s.Server, "ban", func(context.Context, *adapter.Socket, struct{}) error { return nil }, adapter.Role("admin"))
	})
	c := r.site.NewBrowser(r.t, "alice").Connect(r.way)
	want := func(steps ...string) {
		r.t.Helper()
		for _, step := range steps {
			select {
			case got := <-asked:
				if got != step {
					r.t.Errorf("%q was asked, want %q", got, step)
				}
			case <-time.After(patience):
				r.t.Fatalf("nothing was asked in %v, want %q", patience, step)
			}
		}
	}
	refresh := func(now ...string) {
		r.t.Helper()
		roles.Store(&now)
		if err := r.site.Server.Refresh(r.t.Context(), adapter.ByUser("alice")); err != nil {
			r.t.Fatal(err)
		}
	}
	want("guard: member")
	if f := c.Call("ban", nil); f.Error == nil || f.Error.Code != adapter.CodeForbidden {
		r.t.Errorf("ban = %s, want forbidden", f)
	}

	// Granted while a handler runs, with another event behind it.
	var long, next Frame
	var calls sync.WaitGroup
	calls.Go(func() { long = c.Call("long", nil) })
	<-gate.Entered
	calls.Go(func() { next = c.Call("roles", nil) })
	refresh("member", "admin")
	r.awaitIdentity(c, "member", "admin")
	want("guard: member admin") // however long the handler takes
	gate.Release <- struct{}{}
	calls.Wait()
	if string(long.Data) != `"member, member"` {
		r.t.Errorf("a handler saw %s, want member alone", long)
	}
	if string(next.Data) == `"member"` {
		want("event: member", "guard: member admin", "identity: member > member admin") // it was on its way
	} else {
		want("guard: member admin", "identity: member > member admin", "event: member admin")
	}
	c.Must("ban", nil, nil)
	if err := r.site.Server.To("admin").Emit("admins"); err != nil {
		r.t.Fatal(err)
	}
	c.Event("admins")

	// Taken, and then the one without which nobody is here.
	refresh("member")
	want("guard: member", "identity: member admin > member")
	if f := c.Call("ban", nil); f.Error == nil || f.Error.Code != adapter.CodeForbidden {
		r.t.Errorf("ban = %s, want forbidden", f)
	}
	if err := r.site.Server.To("admin").Emit("admins"); err != nil {
		r.t.Fatal(err)
	}
	c.Must("me", nil, nil) // what was sent before has come
	if frames := c.Rest(); len(frames) > 0 {
		r.t.Errorf("got %v in a room for admins", frames)
	}
	refresh("guest")
	want("guard: guest")
	r.wantEnd(c, adapter.ReasonForbidden)
}

// awaitIdentity waits until a replay has found roles for a socket.
func (r *row) awaitIdentity(c Client, roles ...string) {
	r.t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for late := time.After(patience); ; {
		found, err := r.site.Server.To(c.ID()).Sockets(r.t.Context())
		if err == nil && len(found) == 1 && slices.Equal(found[0].Identity.Roles, roles) {
			return
		}
		select {
		case <-again.C:
		case <-late:
			r.t.Fatalf("no roles %v in %v: %+v, %v", roles, patience, found, err)
		}
	}
}

// sessionExpires: the end of a session that nobody has ended is noticed when it
// comes, and is no logout. Where the server is not told when that will be it is
// noticed by the next replay.
func (r *row) sessionExpires() {
	r.start(adapter.Config{}, r.Open(r.t, soon), nil)
	alice := r.site.NewBrowser(r.t, "alice")
	thief := alice.Clone() // whose jar does not forget
	c := thief.Connect(r.way)
	if r.AtInterval {
		r.wantEnd(c, adapter.ReasonUnauthorized)
	} else {
		r.wantEnd(c, adapter.ReasonExpired)
	}
	r.wantOut("an expired session", thief)
}

// inUse: under Config.Rolling the events of a socket keep its session alive beyond
// its MaxAge, and nothing else does. A session in a cookie is extended over polls
// alone, and one of which the server is told nothing is not.
func (r *row) inUse() {
	r.start(adapter.Config{Rolling: true, Revalidate: interval}, r.Open(r.t, soon), nil)
	// Their jars do not forget, as those of browsers would.
	idle := r.site.NewBrowser(r.t, "bob").Clone().Connect(r.way)
	alice := r.site.NewBrowser(r.t, "alice")
	alice.MustPost("/set?key=color&value=blue")
	began, use := time.Now(), soon+overdue+interval
	// A cookie reaches its browser with a poll, and with nothing else.
	lasts := !r.AtInterval && (!r.InCookie || r.way.Transport == Polling)
	if !lasts {
		use = soon / 2
	}
	used := alice.Clone().Connect(r.way)
	again := time.NewTicker(interval)
	defer again.Stop()
	for time.Since(began) < use {
		select {
		case <-again.C:
			r.wantUser(used, "alice")
		case reason := <-r.ended(used.ID()):
			r.t.Fatalf("%v after it was saved, the session of a socket in use ended for %q", time.Since(began), reason)
		}
	}
	over := []adapter.Reason{adapter.ReasonSessionEnded, adapter.ReasonExpired, adapter.ReasonUnauthorized}
	r.wantEnd(idle, over...)
	if lasts { // it is still here, with all it had
		var color string
		if used.Must("get", pair{Key: "color"}, &color); color != "blue" {
			r.t.Errorf("get color = %q, want blue", color)
		}
	}
	r.wantEnd(used, over...) // used no more
}

// credentialExpires: at Identity.Expires it is over, by a timer.
func (r *row) credentialExpires() {
	expires := sync.OnceValue(func() time.Time { return time.Now().Add(soon) }) // from the handshake
	r.start(adapter.Config{}, r.Open(r.t, life), func(s *Site) {
		s.Amend = func(id *adapter.Identity) { id.Expires = expires() }
	})
	c := r.site.NewBrowser(r.t, "alice").Connect(r.way)
	r.wantEnd(c, adapter.ReasonExpired)
	if early := time.Until(expires()); early > 0 {
		r.t.Errorf("closed %v before the credential expired", early)
	}
}

// revoked ends all of a user's sockets and sessions; it is no ban.
func (r *row) revoked() {
	r.start(adapter.Config{}, r.Open(r.t, life), nil)
	phone, laptop, bob := r.site.NewBrowser(r.t, "alice"), r.site.NewBrowser(r.t, "alice"), r.site.NewBrowser(r.t, "bob")
	clients := []Client{phone.Connect(r.way), phone.Connect(r.way), laptop.Connect(r.way)}
	others := bob.Connect(r.way)
	if n, err := r.site.Server.Revoke(r.t.Context(), adapter.ByUser("alice")); n != len(clients) || err != nil {
		r.t.Errorf("Revoke = %d, %v; want %d sockets", n, err, len(clients))
	}
	for _, c := range clients {
		r.wantEnd(c, adapter.ReasonRevoked)
	}
	for name, b := range map[string]*Browser{"phone": phone, "laptop": laptop} {
		if r.AtInterval {
			if status, user := b.Get("/me"); status != http.StatusOK || user != "alice" {
				r.t.Errorf("%s: GET /me: %d %s: Revoke ends these sessions now", name, status, user)
			}
			continue
		}
		r.wantOut(name, b)
	}
	r.wantUser(others, "bob")
	phone.MustPost("/login?user=alice")
	r.wantUser(phone.Connect(r.way), "alice")
}

// recovery: who was cut off comes back as who it was, while the login lasts.
func (r *row) recovery() {
	r.start(adapter.Config{
		Recovery:     adapter.Recovery{Window: time.Minute},
		PingInterval: time.Second, PingTimeout: time.Second, // over polling, by which the end is noticed
	}, r.Open(r.t, life), func(s *Site) {
		s.Server.OnConnect(func(_ context.Context, sock *adapter.Socket) error {
			if sock.Recovered() {
				return nil
			}
			return sock.Join("room")
		})
	})
	alice := r.site.NewBrowser(r.t, "alice")
	c := alice.Connect(r.way)
	// again is the client that comes back for a socket that was cut off.
	again := func(b *Browser, was Client) (Client, *Refusal) {
		way := r.way
		if s, ok := was.(*SocketIO); ok {
			way.Auth = s.Recovery()
		}
		return b.TryConnect(way)
	}
	cut := func() {
		r.t.Helper()
		c.Close()
		switch reason := r.reason(c); reason {
		case adapter.ReasonTransportClose, adapter.ReasonTransportError, adapter.ReasonPingTimeout:
		default:
			r.t.Fatalf("the socket that was cut off ended for %q", reason)
		}
		if err := r.site.Server.To("room").Emit("missed", 1); err != nil {
			r.t.Fatal(err)
		}
	}
	cut()
	back, refusal := again(alice, c)
	if refusal != nil {
		r.t.Fatalf("refused: %+v", *refusal)
	}
	if r.way.Transport == Plain {
		if back.ID() == c.ID() {
			r.t.Error("a plain socket was recovered")
		}
		back.Must("me", nil, nil)
		if frames := back.Rest(); len(frames) > 0 {
			r.t.Errorf("a plain socket got %v, which it had missed", frames)
		}
	} else {
		if back.ID() != c.ID() {
			r.t.Fatalf("not recovered: %s, want %s", back.ID(), c.ID())
		}
		back.Event("missed")
	}
	r.wantUser(back, "alice")

	c = back
	cut()
	thief := alice.Clone()
	alice.MustPost("/logout")
	if _, refusal := again(thief, c); refusal == nil || refusal.Code != adapter.CodeUnauthenticated {
		r.t.Errorf("with the old cookie after a logout: %+v, want a refusal", refusal)
	}
	alice.MustPost("/login?user=alice")
	back, refusal = again(alice, c)
	if refusal != nil {
		r.t.Fatalf("refused: %+v", *refusal)
	}
	// Where nobody knows of the logout, she is who she was, and that is all.
	if recovered := back.ID() == c.ID(); recovered != (r.AtInterval && r.way.Transport != Plain) {
		r.t.Errorf("after a logout and a login: recovered %v", recovered)
	}
	back.Must("me", nil, nil)
	if frames := back.Rest(); len(frames) > 0 && !r.AtInterval {
		r.t.Errorf("after a logout and a login came %v", frames)
	}
}

// storeDown: a store that does not answer is no logout, and lets nobody in.
func (r *row) storeDown() {
	logins, down, up := r.Mortal(r.t)
	r.start(adapter.Config{Revalidate: interval}, logins, nil)
	alice := r.site.NewBrowser(r.t, "alice")
	c := alice.Connect(r.way)
	down()
	r.awaitReplays(c, r.replays.Load()+2) // one that began before is none
	r.wantUser(c, "alice")
	page, handshake := http.StatusServiceUnavailable, http.StatusServiceUnavailable
	if r.Foreign {
		page = http.StatusInternalServerError
	}
	if r.AtInterval {
		handshake = page // the middleware's own answer
	}
	if status, body := alice.Get("/me"); status != page {
		r.t.Errorf("GET /me without the store: %d %s, want %d", status, body, page)
	}
	if _, refusal := alice.TryConnect(r.way); refusal == nil || refusal.Status != handshake {
		r.t.Errorf("a handshake without the store: %+v, want %d", refusal, handshake)
	}
	r.wantUser(c, "alice")
	if !r.AtInterval {
		if f := c.Call("get", pair{Key: "color"}); f.Error == nil || f.Error.Code == "gone" {
			r.t.Errorf("get without the store = %s, want an error that is not the session's end", f)
		}
	}

	up()
	if status, user := alice.Get("/me"); status != http.StatusOK || user != "alice" {
		r.t.Errorf("GET /me with the store again: %d %s", status, user)
	}
	r.wantUser(alice.Connect(r.way), "alice")
	r.wantUser(c, "alice")
	alice.MustPost("/logout")
	if r.AtInterval {
		r.wantEnd(c, adapter.ReasonUnauthorized)
	} else {
		r.wantEnd(c, adapter.ReasonSessionEnded)
	}
}

// stale: an identity outlives a store that does not answer for MaxStale.
func (r *row) stale() {
	logins, down, _ := r.Mortal(r.t)
	r.start(adapter.Config{Revalidate: interval, MaxStale: time.Second}, logins, nil)
	c := r.site.NewBrowser(r.t, "alice").Connect(r.way)
	r.wantUser(c, "alice")
	from := time.Now()
	down()
	r.wantEnd(c, adapter.ReasonStale)
	if took := time.Since(from); took < time.Second {
		r.t.Errorf("closed %v after the store, want MaxStale", took)
	}
}

// expiresWhileDown: no store has to answer for a credential to expire.
func (r *row) expiresWhileDown() {
	expires := sync.OnceValue(func() time.Time { return time.Now().Add(soon) }) // from the handshake
	logins, down, _ := r.Mortal(r.t)
	r.start(adapter.Config{Revalidate: interval}, logins, func(s *Site) {
		s.Amend = func(id *adapter.Identity) { id.Expires = expires() }
	})
	c := r.site.NewBrowser(r.t, "alice").Connect(r.way)
	down()
	r.wantEnd(c, adapter.ReasonExpired)
	if early := time.Until(expires()); early > 0 {
		r.t.Errorf("closed %v before the credential expired", early)
	}
}
