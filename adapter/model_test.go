package adapter_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// TestModel runs random interleavings of what happens to people and sessions with
// what their sockets do, and holds what the sockets see against a model: see truth.
//
// A failure prints its seed and the fewest operations that still fail.
// USHER_MODEL=<seed> runs one seed, with everything that happens. Seeds that have
// failed are kept in modelSeeds. USHER_MODEL_FROM=<seed> says where to begin, which
// is else at random.
func TestModel(t *testing.T) {
	// What gin-contrib/sessions says about a store that fails.
	log := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	defer slog.SetDefault(log)
	gin.SetMode(gin.ReleaseMode)

	if seed, err := strconv.ParseUint(os.Getenv("USHER_MODEL"), 10, 64); err == nil {
		cfg, ops := newModelSchedule(seed)
		wrong, trace := cfg.run(t, ops, true)
		t.Logf("%v\n%s", cfg, strings.Join(trace, "\n"))
		if len(wrong) > 0 {
			failModel(t, seed, cfg, ops, wrong)
		}
		return
	}
	for _, seed := range modelSeeds {
		for range 10 { // intervals between replays are random in the adapter
			if !runModelSeed(t, seed) {
				return
			}
		}
	}
	count := int64(10_000)
	switch {
	case testing.Short():
		count = 500
	case raceEnabled():
		count = 2_000
	case os.Getenv("USHER_TEST") == "full":
		count = 100_000
	}
	first, err := strconv.ParseUint(os.Getenv("USHER_MODEL_FROM"), 10, 48)
	if err != nil {
		first = rand.Uint64() >> 16
	}
	var next atomic.Int64
	t.Run("interleavings", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				for !t.Failed() {
					n := next.Add(1)
					seed := first + uint64(n)
					if n%8 == 0 { // it costs more, and knows less of what is to be expected
						seed |= modelMore
					}
					if n > count || !runModelSeed(t, seed) {
						return
					}
				}
			})
		}
	})
	t.Logf("%d interleavings, from seed %d", count, first+1)
}

// modelSeeds have failed once. They are those of newModelSchedule as it is: who
// changes what it makes of a seed has to find others, by undoing the fixes.
var modelSeeds = []uint64{
	37580771064833,  // acted after Identity.Expires, until the timer fired
	279213130195907, // revoked while a namespace was asked for late
	279213130196028,
	117256931262260, // a handler began behind its guard after the socket had ended
	117256931264277,
	192503622777167, // a handle of a session whose login had been revoked answered
	235763675518012, // a session of before a login answered with that of after; two logins after a Revoke
	131637197550926, // a replay between the end of a session and the move of its sockets ended them
	125951237947388, // OnConnect ran as who had expired while a namespace was asked for
	125951237983489, // a nobody missed who it became, as a Revoke came in between
	381890293172923, // a session that was given less than it had was believed to live longer
	334779215365752, // nobody looked for the end of a session that came during the handshake
	510947357371811, // nor for one that came while a replay was under way
	525885916553545, // who became somebody by a session that was found late did not hang on it
	427391121288820, // the model took the end of a session for none, as it had not said when it is
	137319796216235, // one whose replay had failed was looked at later than one whose had not
	125857578265703, // a namespace that was asked for late was as good as its handshake for longer than said
	345405360295294, // the model expected a session's end to be seen before it came
	526133611684038, // a socket that came while a replay hung was looked for too late
	244658634982376, // the model did not know that a login takes a socket along before it is asked about again
	493608065057573, // a save that failed had been written, after its session had ended
	510947357371859, // a namespace that was asked for after a login ended with the session before it
}

func runModelSeed(t *testing.T, seed uint64) (ok bool) {
	t.Helper()
	defer func() {
		if v := recover(); v != nil {
			t.Fatalf("seed %d panics: %v", seed, v)
		}
	}()
	cfg, ops := newModelSchedule(seed)
	wrong, _ := cfg.run(t, ops, false)
	if len(wrong) > 0 {
		failModel(t, seed, cfg, ops, wrong)
	}
	return len(wrong) == 0
}

// failModel reports a failure with as few operations as it takes.
func failModel(t *testing.T, seed uint64, cfg modelConfig, ops []modelOp, wrong []string) {
	t.Helper()
	fails := func(ops []modelOp) bool {
		for range 3 {
			if again, _ := cfg.run(t, ops, false); len(again) > 0 {
				return true
			}
		}
		return false
	}
	for i := len(ops) - 1; i >= 0; i-- {
		if fewer := slices.Delete(slices.Clone(ops), i, i+1); fails(fewer) {
			ops = fewer
		}
	}
	var list strings.Builder
	for i, op := range ops {
		fmt.Fprintf(&list, "%3d  %v\n", i+1, op)
	}
	var trace []string
	for range 10 {
		var again []string
		if again, trace = cfg.run(t, ops, true); len(again) > 0 {
			wrong = again
			break
		}
	}
	t.Errorf("seed %d (%v):\n%s\nthe fewest operations that fail:\n%s\nwhat happens:\n%s",
		seed, cfg, strings.Join(wrong, "\n"), &list, strings.Join(trace, "\n"))
}

// A modelOp is one operation of a schedule. Whom it is about is a number, counted
// round those there are.
type modelOp struct {
	do     string
	n      int    // browser or connection
	what   string // key, user, namespace, point
	d      time.Duration
	choice int
	age    int  // seconds: a MaxAge that is not that of all sessions
	atOnce bool // the next one does not wait until this one waits or is done
}

func (o modelOp) String() string {
	s := ""
	switch o.do {
	case "login":
		s = fmt.Sprintf("browser %d logs in as %s", o.n, o.what)
		if o.d != 0 {
			s += fmt.Sprintf(", for %v", o.d)
		}
		if o.age != 0 {
			s += fmt.Sprintf(", with a MaxAge of %d s", o.age)
		}
	case "elsewhere":
		s = fmt.Sprintf("another program lets the session of browser %d live for %v", o.n, o.d)
	case "logout", "me":
		s = fmt.Sprintf("browser %d: %s", o.n, o.do)
	case "set", "get":
		s = fmt.Sprintf("browser %d: %s %s", o.n, o.do, o.what)
	case "role":
		s = fmt.Sprintf("browser %d: the session's role changes", o.n)
		if o.d != 0 {
			s += fmt.Sprintf(", and it expires in %v", o.d)
		}
		if o.age != 0 {
			s += fmt.Sprintf(", and its MaxAge is %d s", o.age)
		}
	case "become":
		s = fmt.Sprintf("browser %d: its session becomes that of %q", o.n, o.what)
	case "steal":
		s = fmt.Sprintf("browser %d takes the cookie of browser %d", o.n, o.choice)
	case "dial":
		kind := []string{
			"a plain socket", "a Socket.IO connection and \"/\"", "a Socket.IO connection",
			"a connection that polls and \"/\"", "a connection that polls",
		}[o.choice]
		s = fmt.Sprintf("browser %d opens %s", o.n, kind)
	case "upgrade":
		s = fmt.Sprintf("connection %d goes on over a WebSocket", o.n)
	case "poll":
		s = fmt.Sprintf("connection %d polls", o.n)
		if o.choice == 1 {
			s = fmt.Sprintf("the next request of connection %d is late: it shows the cookie before", o.n)
		}
	case "intrude":
		s = fmt.Sprintf("somebody in browser %d with %s has got hold of the id of connection %d", o.n, modelIntruders[o.choice], o.n)
	case "join":
		s = fmt.Sprintf("connection %d asks for %s", o.n, o.what)
	case "leave":
		s = fmt.Sprintf("connection %d is cut by its client", o.n)
	case "emit":
		s = fmt.Sprintf("connection %d sends %q on %s", o.n, modelEvents[o.choice], o.what)
	case "account":
		s = fmt.Sprintf("the account of %s changes", o.what)
		if o.choice > 0 {
			s += fmt.Sprintf(" to status %d", modelBans[o.choice])
		}
		if o.d != 0 {
			s += ", then Refresh"
		}
	case "revoke":
		s = fmt.Sprintf("Revoke by %s %s", modelRevokes[o.choice], o.what)
		if o.choice == 1 {
			s = fmt.Sprintf("Revoke the session of browser %d", o.n)
		}
	case "store":
		s = "the store " + []string{"answers again", "fails", "finds nothing"}[o.choice]
	case "hold":
		s = "hold the next " + o.what
		if o.choice > 0 {
			s += " (as long as its context)"
		}
	case "open":
		s = fmt.Sprintf("go on with held %d", o.n)
	case "wait":
		s = fmt.Sprintf("%v pass", o.d)
	}
	if o.atOnce {
		s += ", and at once"
	}
	return s
}

var (
	modelEvents  = []string{"event", "set", "get"}
	modelBans    = []int{0, 401, 403}
	modelRevokes = []string{"user", "session", "provider"}
	modelKeys    = []string{"a", "b"}
)

// newModelSchedule makes the interleaving of a seed.
func newModelSchedule(seed uint64) (modelConfig, []modelOp) {
	r := rand.New(rand.NewPCG(seed, seed))
	pick := func(of ...time.Duration) time.Duration { return of[r.IntN(len(of))] }
	cfg := modelConfig{
		revalidate: pick(time.Second, 2*time.Second, 4*time.Second, 4*time.Second, -1),
		maxStale:   pick(-1, 3*time.Second, 8*time.Second),
		life:       pick(2*time.Second, 5*time.Second, time.Hour, time.Hour, time.Hour),
		anonymous:  r.IntN(2) == 0,
		greets:     r.IntN(2) == 0,
	}
	var ops []modelOp
	add := func(o modelOp) {
		o.atOnce = o.do != "wait" && r.IntN(8) == 0
		ops = append(ops, o)
	}
	browsers := 1 + r.IntN(3)
	user := func() string { return modelUsers[min(r.IntN(4), 1)^1] } // mostly alice
	lasts := func() time.Duration {
		if r.IntN(3) > 0 {
			return 0
		}
		return pick(500*time.Millisecond, time.Second, 3*time.Second)
	}
	begin := func(n int) {
		if r.IntN(4) == 0 {
			add(modelOp{do: "set", n: n, what: modelKeys[0]})
		} else {
			add(modelOp{do: "login", n: n, what: user(), d: lasts()})
		}
	}
	begin(0)
	if r.IntN(2) == 0 {
		add(modelOp{do: "dial", n: 0, choice: r.IntN(3)})
	}
	// What random steps seldom do in this order.
	change := func() {
		if r.IntN(2) == 0 {
			add(modelOp{do: "role", n: 0, d: lasts()})
		} else {
			add(modelOp{do: "account", what: user(), choice: max(0, r.IntN(6)-3), d: time.Duration(r.IntN(2))})
		}
	}
	emit := func() { add(modelOp{do: "emit", n: r.IntN(4), what: "/", choice: r.IntN(3)}) }
	meanwhile := func() {
		switch r.IntN(10) {
		case 2: // a change while a namespace is asked for late
			add(modelOp{do: "dial", n: 0, choice: 2})
			add(modelOp{do: "wait", d: 1200 * time.Millisecond})
			add(modelOp{do: "hold", what: []string{"replay after load", "replay in chain", "replay identified"}[r.IntN(3)]})
			for conn := range 3 {
				add(modelOp{do: "join", n: conn, what: "/b"})
			}
			if r.IntN(2) == 0 {
				add(modelOp{do: "revoke", n: 0, what: user(), choice: r.IntN(3)})
			} else {
				change()
			}
			add(modelOp{do: "open", n: r.IntN(4)})
			add(modelOp{do: "wait", d: 500 * time.Millisecond})
			add(modelOp{do: "emit", n: r.IntN(4), what: "/b", choice: r.IntN(3)})
		case 0: // a change while a replay of another one is under way
			add(modelOp{do: "hold", what: []string{"replay after load", "replay in chain", "replay identified"}[r.IntN(3)]})
			change()
			add(modelOp{do: "wait", d: pick(400*time.Millisecond, 400*time.Millisecond, 1200*time.Millisecond)})
			change()
			add(modelOp{do: "open", n: r.IntN(4)})
			emit()
			add(modelOp{do: "wait", d: 500 * time.Millisecond})
			emit()
		case 1: // a store that is away for longer than it may be
			add(modelOp{do: "store", choice: 1 + r.IntN(2)})
			for range 3 + r.IntN(4) {
				add(modelOp{do: "wait", d: 3 * time.Second})
				emit()
			}
		}
	}

	armed, meanwhileAt := 0, r.IntN(20)
	for i := range 8 + r.IntN(22) {
		if i == meanwhileAt {
			meanwhile()
		}
		n, conn := r.IntN(browsers), r.IntN(4)
		ns := []string{"/", "/", "/b"}[r.IntN(3)]
		switch x := r.IntN(100); {
		case x < 12:
			add(modelOp{do: "dial", n: n, choice: r.IntN(3)})
		case x < 16:
			add(modelOp{do: "join", n: conn, what: ns})
		case x < 31:
			add(modelOp{do: "emit", n: conn, what: ns, choice: r.IntN(3)})
		case x < 37:
			begin(n)
		case x < 41:
			add(modelOp{do: "logout", n: n})
		case x < 43:
			add(modelOp{do: "me", n: n})
		case x < 48:
			add(modelOp{do: "set", n: n, what: modelKeys[r.IntN(2)]})
		case x < 50:
			add(modelOp{do: "get", n: n, what: modelKeys[r.IntN(2)]})
		case x < 55:
			add(modelOp{do: "role", n: n, d: lasts()})
		case x < 57:
			add(modelOp{do: "become", n: n, what: []string{"", "alice", "bob"}[r.IntN(3)]})
		case x < 59:
			add(modelOp{do: "steal", n: n, choice: r.IntN(browsers)})
		case x < 60:
			add(modelOp{do: "leave", n: conn})
		case x < 66:
			add(modelOp{do: "account", what: user(), choice: max(0, r.IntN(8)-5), d: time.Duration(r.IntN(2))})
		case x < 69:
			add(modelOp{do: "revoke", n: n, what: user(), choice: r.IntN(3)})
		case x < 73:
			add(modelOp{do: "store", choice: []int{0, 0, 1, 2}[r.IntN(4)]})
		case x < 83 && armed < 4:
			armed++
			add(modelOp{do: "hold", what: modelPoints[r.IntN(len(modelPoints))], choice: r.IntN(2)})
		case x < 90:
			add(modelOp{do: "open", n: r.IntN(4)})
		default:
			add(modelOp{do: "wait", d: pick(time.Millisecond, 50*time.Millisecond, 120*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond,
				1200*time.Millisecond, 1200*time.Millisecond, 3*time.Second, 11*time.Second)})
		}
	}
	if seed&modelMore != 0 {
		return moreModelSchedule(cfg, ops, rand.New(rand.NewPCG(seed, ^seed)))
	}
	return cfg, ops
}

// modelMore is a bit of seeds: an interleaving with it has, on top of what the
// seed makes without, sessions that say when they end and another program that
// works on them. So the kept seeds mean what they meant before there was that.
const modelMore = 1 << 48

func moreModelSchedule(cfg modelConfig, ops []modelOp, r *rand.Rand) (modelConfig, []modelOp) {
	if cfg.tells = r.IntN(4) > 0; cfg.tells {
		cfg.life = time.Duration([]int{1, 2, 3, 5, 8, 3600}[r.IntN(6)]) * time.Second
		cfg.rolling = r.IntN(3) == 0
	}
	for i := range ops {
		if o := &ops[i]; (o.do == "login" || o.do == "role") && r.IntN(5) == 0 {
			o.age = []int{1, 2, 4, 10}[r.IntN(4)]
		}
	}
	insert := func(o modelOp) { ops = slices.Insert(ops, 1+r.IntN(len(ops)), o) }
	if r.IntN(2) == 0 {
		for i := range ops {
			if o := &ops[i]; o.do == "dial" && o.choice != dialPlain && r.IntN(3) > 0 {
				o.choice += dialPolls - dialSocketIO
			}
		}
		for range 2 + r.IntN(6) {
			switch n := r.IntN(4); r.IntN(6) {
			case 0:
				insert(modelOp{do: "upgrade", n: n})
			case 1:
				insert(modelOp{do: "poll", n: n})
			case 2, 3:
				insert(modelOp{do: "poll", n: n, choice: 1})
			default:
				insert(modelOp{do: "intrude", n: n, choice: r.IntN(len(modelIntruders))})
			}
		}
	}
	for range r.IntN(4) {
		o := modelOp{do: "elsewhere", n: r.IntN(3)}
		if r.IntN(3) > 0 {
			o.d = time.Duration(1+r.IntN(10)) * time.Second
		}
		insert(o)
	}
	return cfg, ops
}

// run runs the operations in a bubble of their own and returns what was wrong.
func (cfg modelConfig) run(t *testing.T, ops []modelOp, verbose bool) (wrong, trace []string) {
	synctest.Test(t, func(t *testing.T) {
		w := newModelSite(cfg)
		w.verbose = verbose
		for i := range 3 {
			// The last one is elsewhere.
			w.browsers = append(w.browsers, &modelBrowser{n: i, address: fmt.Sprintf("192.0.2.%d", 1+i/2)})
		}
		for _, o := range ops {
			// So that no two operations come at the same time: what was before what
			// is told by the clock in places.
			time.Sleep(time.Microsecond)
			w.note("— %v", o)
			w.do(o)
			if !o.atOnce {
				w.rest()
			}
		}
		w.end()
		wrong, trace = w.wrong, w.trace
	})
	return wrong, trace
}

// rest waits until everything waits.
func (w *modelSite) rest() {
	synctest.Wait()
	w.mu.Lock()
	w.quiet++
	w.mu.Unlock()
	w.overdue(w.conns)
}

// do begins one operation.
func (w *modelSite) do(o modelOp) {
	b := w.browsers[o.n%len(w.browsers)]
	w.mu.Lock()
	cookie := b.cookie
	w.mu.Unlock()
	page := func(method, path, query string) {
		w.ops.Go(func() {
			status, body := w.request(b, method, path, query)
			w.note("browser %d: %s %s?%s: %d %s", b.n, method, path, query, status, body)
		})
	}
	switch o.do {
	case "login":
		page("POST", "/login", fmt.Sprintf("user=%s&for=%v&age=%d", o.what, o.d, o.age))
	case "logout":
		page("POST", "/logout", "")
	case "me":
		w.ops.Go(func() { w.me(b, cookie) })
	case "set":
		page("POST", "/set", "key="+o.what+"&value="+w.newValue())
	case "get":
		page("GET", "/get", "key="+o.what)
	case "role":
		page("POST", "/role", fmt.Sprintf("for=%v&age=%d", o.d, o.age))
	case "become":
		page("POST", "/become", "user="+o.what)
	case "steal":
		w.mu.Lock()
		b.setLocked(w.browsers[o.choice].cookie)
		w.mu.Unlock()
	case "elsewhere":
		w.elsewhere(cookie, o.d)
	case "dial":
		w.dial(b, o.choice)
	case "upgrade":
		w.upgrade(o.n)
	case "poll":
		w.poll(o.n, o.choice == 1)
	case "intrude":
		w.intrude(o.n, b, o.choice)
	case "join":
		w.join(o.n, o.what)
	case "leave":
		w.leave(o.n)
	case "emit":
		key, data := modelKeys[o.n%2], ""
		switch modelEvents[o.choice] {
		case "set":
			data = key + "=" + w.newValue()
		case "get":
			data = key
		}
		w.emit(o.n, o.what, modelEvents[o.choice], data)
	case "account":
		told := w.change(o.what, modelBans[o.choice])
		if o.d != 0 {
			_ = w.srv.Refresh(context.Background(), adapter.ByUser(o.what))
			told()
		}
	case "revoke":
		w.ops.Go(func() { w.revoke(modelRevokes[o.choice], o.what, cookie) })
	case "store":
		w.fail(o.choice)
	case "hold":
		w.mu.Lock()
		w.armed[o.what] = 1 + o.choice
		w.mu.Unlock()
	case "open":
		w.release(o.n)
	case "wait":
		time.Sleep(o.d)
	}
}

// newValue is a value that nobody has written before.
func (w *modelSite) newValue() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys++
	return fmt.Sprintf("v%d", w.keys)
}

func (w *modelSite) me(b *modelBrowser, cookie string) {
	began := w.moment()
	status, body := w.request(&modelBrowser{address: b.address, cookie: cookie}, "GET", "/me", "")
	w.page(cookie, began, status, body)
}

func (w *modelSite) revoke(by, user, session string) {
	var who adapter.Who
	var done func()
	switch by {
	case "session":
		if session == "" {
			return
		}
		who, done = adapter.BySession(session), w.ends(session, "revoke")
	case "provider":
		who, done = adapter.ByProvider("test"), w.revoked(by, "test")
	default:
		who, done = adapter.ByUser(user), w.revoked(by, user)
	}
	_, _ = w.srv.Revoke(context.Background(), who)
	done()
}

// end lets everything come to rest, checks what has to be true then, and takes
// the site down.
func (w *modelSite) end() {
	w.rest()
	w.mu.Lock()
	troubled := !w.lastBusy.IsZero()
	w.mu.Unlock()
	w.fail(0)
	w.releaseAll()
	w.ops.Wait()
	w.rest()
	patience := modelGap + modelGrain
	if w.cfg.revalidate > 0 {
		patience = w.cfg.revalidate + w.cfg.revalidate/10 + modelGrain
	}
	if troubled {
		patience = max(patience, w.cfg.retry()+modelGap+2*modelGrain)
	}
	time.Sleep(patience + 2*modelSlack)
	w.rest()
	for _, c := range w.conns {
		w.poll(c.n, false)
		for _, ns := range []string{"/", "/b"} {
			w.emit(c.n, ns, "event", "")
		}
	}
	w.mu.Lock()
	var ids []string
	for id := range w.sessions {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	slices.Sort(ids)
	for _, id := range append(ids, "") {
		w.me(w.browsers[0], id)
	}
	w.rest()
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	if err := w.srv.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	for _, c := range w.conns {
		c.cut()
		close(c.out)
		c.done.Wait()
	}
	w.finish(w.conns)
}
