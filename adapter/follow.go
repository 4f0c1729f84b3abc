package adapter

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// Bounds on replays.
const (
	replayGap     = 250 * time.Millisecond // between two replays of one session
	replayRunners = 4                      // at the same time in the whole server
	replayTimeout = 10 * time.Second
	replayRetry   = 5 * time.Second // after an outcome that is unknown
)

// A follower keeps identities true: it knows which sockets hang on which
// credential and replays the chain for them when the answer may have changed.
type follower struct {
	srv   *Server
	began time.Time

	mu       sync.Mutex
	bindings map[string]*binding    // lists, by session id or else by key
	hashed   map[sessionHash]string // ids of those sessions; nil without a cluster
	visitors map[visitorLink][]*Socket
	saves    uint64     // counts session saves and Refresh, for handshakes in flight
	tellings uint64     // counts calls of Refresh, for replays in flight
	queue    []*binding // wait for a runner
	runners  int
	closed   bool
}

// now is the time since the server was made: a third of a time.Time, of which
// every binding keeps two.
func (f *follower) now() time.Duration { return time.Since(f.began) }

// A binding is all sockets of one credential: they are identified together, by
// one run of the chain. Its fields are guarded by follower.mu.
type binding struct {
	f         *follower
	key       string
	sessionID string
	visitor   visitorLink // of the one socket, where it is nobody's
	timer     engine.Timer
	next      *binding // of the same session
	sockets   []*Socket

	ran     time.Duration // start of the last replay, or the handshake, by follower.now
	stale   time.Duration // when the first replay was asked for whose outcome is unknown; zero if it is known
	asked   time.Duration // since when it is queued or running
	queued  bool
	running bool
	again   bool // something changed while it ran
}

// bind finds out which sockets are identified with this one: those of the same
// session or token whose requests a chain cannot tell apart. It may look at
// anything: a tenant in the path, a key in a header, the peer's address. Were
// such sockets bound together, each replay would make them all who the first of
// them is. Anonymous sockets without any credential have an empty key and a
// binding each.
func (adm *admission) bind(r *http.Request) {
	if adm.sessionID == "" && adm.token == "" {
		return
	}
	h := sha256.New()
	query := ""
	if r.URL.RawQuery != "" {
		values := r.URL.Query()
		for _, k := range [...]string{"EIO", "transport", "t", "sid", "b64", "nsp", "refusals"} {
			values.Del(k) // the protocol's own
		}
		query = values.Encode()
	}
	fmt.Fprintf(h, "%p %q %q %q %q\n", adm.mount, r.Method, r.URL.EscapedPath(), query, withoutPort(r.RemoteAddr))
	_, headers, _ := bytes.Cut(adm.shake.head, []byte("\r\n"))
	h.Write(headers)
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		h.Write(r.TLS.PeerCertificates[0].Raw)
	}
	if adm.ref.store != nil && adm.ref.store.inCookie.Load() {
		// The session is in there: that of a tab which was opened before a page
		// changed it is another one.
		h.Write([]byte(cookieIn(adm.shake.cookies, adm.ref.name)))
	}
	adm.binding = "\x00" + string(h.Sum(nil)[:16]) // no session's id begins so
}

// close stops replays; one that is running ends with its context.
func (f *follower) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// add binds s to the credential of its handshake. Whoever ends the session from
// here on finds the socket; whoever did before has left a tombstone, which is
// for the caller to look at. If any session was saved since the chain ran, this
// one may have changed between then and now, and is looked at again.
func (f *follower) add(s *Socket, adm *admission) {
	f.mu.Lock()
	b := f.hangLocked(s, adm)
	s.checked = f.now()
	changed := f.saves != adm.seen
	f.mu.Unlock()
	if changed {
		f.trigger(b)
	}
}

// hangLocked binds s to what adm has found.
func (f *follower) hangLocked(s *Socket, adm *admission) *binding {
	b := f.bindLocked(s, adm.sessionID, adm.binding)
	s.ref = adm.ref
	if adm.visitor != "" {
		b.visitor = adm.visitor
		f.visitors[adm.visitor] = append(f.visitors[adm.visitor], s)
	}
	return b
}

// catchUp has s looked at again if since it was seen something has changed that
// it could not be told of, as it could not be found in its namespace.
func (f *follower) catchUp(s *Socket, seen uint64) {
	f.mu.Lock()
	b, changed := s.binding, f.saves != seen
	f.mu.Unlock()
	if b != nil && changed {
		f.trigger(b)
	}
}

// recheck has s looked at again.
func (f *follower) recheck(s *Socket) {
	f.mu.Lock()
	b := s.binding
	f.mu.Unlock()
	if b != nil {
		f.trigger(b)
	}
}

// supersede reports whether what a run of the chain has found, which began at a
// time and loaded a session, is newer than what s is known by: whether it began
// when that had ended, and s has not gone on to another session meanwhile. Of two
// runs that overlap, nobody can tell which has seen the later truth. The first
// counts, and a third decides.
func (f *follower) supersede(s *Socket, sessionID string, began time.Duration) bool {
	f.mu.Lock()
	b := s.binding
	newer := began >= s.checked && s.sessionID == sessionID
	if newer {
		s.checked = f.now()
	}
	f.mu.Unlock()
	if !newer && b != nil {
		f.trigger(b)
	}
	return newer
}

func (f *follower) bindLocked(s *Socket, sessionID, key string) *binding {
	var b *binding
	if key != "" {
		for b = f.bindings[group(sessionID, key)]; b != nil && b.key != key; b = b.next {
		}
	}
	if b == nil {
		b = &binding{f: f, key: key, sessionID: sessionID, ran: f.now()}
		if key != "" {
			b.next = f.bindings[group(sessionID, key)]
			f.bindings[group(sessionID, key)] = b
			if f.hashed != nil && sessionID != "" && b.next == nil {
				f.hashed[hashSession(sessionID)] = sessionID
			}
		}
		// The first interval is a random part of one, so that sockets that
		// came together are not replayed together for ever.
		if every := f.srv.cfg.Revalidate; every > 0 {
			f.srv.eng.Wheel().Set(&b.timer, time.Now().Add(every/2+rand.N(every/2+1)), b)
		}
	}
	b.sockets = append(b.sockets, s)
	s.binding, s.sessionID = b, sessionID
	return b
}

// remove takes s off its binding.
func (f *follower) remove(s *Socket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unbindLocked(s)
}

func (f *follower) unbindLocked(s *Socket) {
	b := s.binding
	if b == nil {
		return
	}
	s.binding = nil
	if b.visitor != "" {
		f.visitors[b.visitor] = slices.DeleteFunc(f.visitors[b.visitor], func(other *Socket) bool { return other == s })
		if len(f.visitors[b.visitor]) == 0 {
			delete(f.visitors, b.visitor)
		}
	}
	for i, other := range b.sockets {
		if other == s {
			last := len(b.sockets) - 1
			b.sockets[i], b.sockets[last] = b.sockets[last], nil
			b.sockets = b.sockets[:last]
			break
		}
	}
	if len(b.sockets) == 0 {
		f.srv.eng.Wheel().Stop(&b.timer)
		f.forgetLocked(b)
	}
}

func (f *follower) forgetLocked(b *binding) {
	if b.key == "" {
		return
	}
	g := group(b.sessionID, b.key)
	if f.bindings[g] == b {
		if b.next == nil {
			delete(f.bindings, g)
			if f.hashed != nil && b.sessionID != "" {
				delete(f.hashed, hashSession(b.sessionID))
			}
		} else {
			f.bindings[g] = b.next
		}
		return
	}
	for p := f.bindings[g]; p != nil; p = p.next {
		if p.next == b {
			p.next = b.next
			return
		}
	}
}

// group is where a binding is listed: with the others of its session, so that
// ending a session finds them all.
func group(sessionID, key string) string { return cmp.Or(sessionID, key) }

func (f *follower) saveCount() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.saves
}

// ofSessionLocked returns the bindings of one session, whatever else their
// requests carried.
func (f *follower) ofSessionLocked(id string) (found []*binding) {
	for b := f.bindings[id]; b != nil && id != ""; b = b.next {
		found = append(found, b)
	}
	return found
}

// saved is told of every save of a session.
func (f *follower) saved(id string) {
	f.mu.Lock()
	f.saves++
	found := f.ofSessionLocked(id)
	f.mu.Unlock()
	for _, b := range found {
		f.trigger(b)
	}
}

// sockets returns the sockets of a session.
func (f *follower) sockets(sessionID string) []*Socket {
	if sessionID == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*Socket
	for _, b := range f.ofSessionLocked(sessionID) {
		all = append(all, b.sockets...)
	}
	return all
}

// sessionOf returns the id of the session with a hash, "" if it has no sockets.
func (f *follower) sessionOf(h sessionHash) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hashed[h]
}

// move lets the sockets of one session follow it to its new id.
func (f *follower) move(from, to string, cookie *http.Cookie) {
	f.mu.Lock()
	moved := make(map[*binding]struct{})
	for _, b := range f.ofSessionLocked(from) {
		for _, s := range append([]*Socket(nil), b.sockets...) {
			shake := s.shake.Load().withCookies([]*http.Cookie{cookie})
			s.shake.Store(shake)
			if over, ok := s.link.(*sioSocket); ok {
				over.follow(to, shake)
			}
			ran := b.ran
			f.unbindLocked(s)
			now := f.bindLocked(s, to, b.key)
			now.inherit(ran)
			moved[now] = struct{}{}
		}
	}
	f.mu.Unlock()
	for b := range moved {
		f.trigger(b)
	}
}

// inherit lets a binding that was made for one socket be replayed as soon as the
// one that it had before could have been.
func (b *binding) inherit(ran time.Duration) {
	if len(b.sockets) == 1 {
		b.ran = ran
	}
}

// rebind binds s to another credential of its user, and has it looked at.
func (f *follower) rebind(s *Socket, adm *admission) {
	f.mu.Lock()
	if s.binding == nil { // it has ended
		f.mu.Unlock()
		return
	}
	s.shake.Store(adm.shake)
	ran := s.binding.ran
	f.unbindLocked(s)
	b := f.hangLocked(s, adm)
	b.inherit(ran)
	f.mu.Unlock()
	f.trigger(b)
}

// Expired is the timer of a binding: the interval has passed, or the gap after
// a replay that was asked for too soon; or a replay that was due has not ended.
func (b *binding) Expired(time.Time) {
	f := b.f
	f.mu.Lock()
	if !b.queued && !b.running {
		f.enqueueLocked(b)
		f.mu.Unlock()
		return
	}
	stale := f.overdueLocked(b)
	f.mu.Unlock()
	for _, s := range stale {
		s.close(ReasonStale)
	}
}

// overdueLocked sees to a binding whose replay has not ended: many stores wait
// for their database without an end and do not look at the context, and take
// the runners with them. That outcome is unknown like any other, and is bounded
// by MaxStale. It returns the sockets for which that has passed.
func (f *follower) overdueLocked(b *binding) []*Socket {
	due := b.asked + replayTimeout
	if b.stale != 0 {
		// The last of several: it may come when MaxStale has passed already.
		due = min(due, max(b.stale+f.srv.cfg.MaxStale, b.asked+replayGap))
	}
	wait := due - f.now()
	if wait <= 0 {
		if b.stale == 0 {
			b.stale = b.asked
		}
		if wait = b.stale + f.srv.cfg.MaxStale - f.now(); wait <= 0 {
			stale := f.staleLocked(b, b.asked)
			if len(stale) == len(b.sockets) {
				return stale
			}
			f.srv.eng.Wheel().Set(&b.timer, time.Now().Add(replayRetry), b)
			return stale
		}
	}
	if len(b.sockets) > 0 {
		f.srv.eng.Wheel().Set(&b.timer, time.Now().Add(wait), b)
	}
	return nil
}

// staleLocked returns the sockets of a binding that end because a replay, which
// began at a time, fails or hangs. One whose handshake has come through meanwhile
// waits for a replay of its own, though not for one that hangs.
func (f *follower) staleLocked(b *binding, began time.Duration) (stale []*Socket) {
	for _, s := range b.sockets {
		age := f.now() - s.checked
		if age >= f.srv.cfg.MaxStale && (s.checked <= began || age >= replayTimeout) {
			stale = append(stale, s)
		}
	}
	return stale
}

// trigger asks for a replay: now if the last one is long enough ago, else as
// soon as it is.
func (f *follower) trigger(b *binding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.running {
		b.again = true
		return
	}
	if wait := b.ran + replayGap - f.now(); wait > 0 {
		f.srv.eng.Wheel().Set(&b.timer, time.Now().Add(wait), b)
		return
	}
	f.enqueueLocked(b)
}

func (f *follower) enqueueLocked(b *binding) {
	if b.queued || b.running || len(b.sockets) == 0 || f.closed {
		return
	}
	b.queued, b.asked = true, f.now()
	f.overdueLocked(b)
	f.queue = append(f.queue, b) // bounded by the number of bindings
	if f.runners < replayRunners {
		f.runners++
		f.srv.eng.Go(f)
	}
}

// Run is a runner: it works until no binding waits.
func (f *follower) Run() {
	for {
		f.mu.Lock()
		if len(f.queue) == 0 || f.closed {
			f.queue = nil
			f.runners--
			f.mu.Unlock()
			return
		}
		b := f.queue[0]
		f.queue[0] = nil
		f.queue = f.queue[1:]
		b.queued, b.running, b.again = false, true, false
		b.ran = f.now()
		tellings := f.tellings
		var s *Socket
		if len(b.sockets) > 0 {
			s = b.sockets[0]
		}
		f.mu.Unlock()

		o := admitted
		var p *pass
		if s != nil {
			p, o = f.srv.replay(s)
		}

		f.mu.Lock()
		sockets := slices.Clone(b.sockets)
		if o == unknown {
			if b.stale == 0 {
				b.stale = b.asked
			}
			sockets = nil
			if f.now()-b.stale >= f.srv.cfg.MaxStale {
				sockets = f.staleLocked(b, b.ran)
			}
		}
		f.mu.Unlock()
		if p != nil {
			// While it counts as running, so that the next one's outcome comes later.
			f.apply(b, sockets, p, o)
		}
		f.ran(b, o, tellings)
	}
}

// ran sets the time of the next replay, after one has come to an outcome. If
// there were other tellings when it began it may have been meant: those who are
// looked for by Refresh are found by who they were.
func (f *follower) ran(b *binding, o outcome, tellings uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b.running = false
	b.again = b.again || f.tellings != tellings
	next := time.Duration(0)
	switch o {
	case unknown:
		next = replayRetry/2 + rand.N(replayRetry/2)
		if left := b.stale + f.srv.cfg.MaxStale - f.now(); left > 0 {
			next = min(next, left) // MaxStale is not to depend on when it is asked
		}
	default:
		b.stale = 0
		if every := f.srv.cfg.Revalidate; every > 0 {
			next = every - every/10 + rand.N(every/5+1)
		}
	}
	if b.again {
		next = replayGap
	}
	if next > 0 && len(b.sockets) > 0 {
		f.srv.eng.Wheel().Set(&b.timer, time.Now().Add(next), b)
	} else {
		f.srv.eng.Wheel().Stop(&b.timer) // it watched over this replay
	}
}

// apply lets a replay's outcome reach every socket that it speaks for; or, where
// it is unknown, those for which it has been so for too long.
func (f *follower) apply(b *binding, sockets []*Socket, p *pass, o outcome) {
	log := f.srv.log
	if o == unknown {
		log.Warn("a socket's identity could not be checked", "error", p.err, "status", p.w.status, "stale sockets", len(sockets))
		for _, s := range sockets {
			s.close(ReasonStale)
		}
		return
	}
	// What of b is read here changes only when it is not running.
	sockets = slices.DeleteFunc(sockets, func(s *Socket) bool { return !f.supersede(s, b.sessionID, b.ran) })
	switch o {
	case refused:
		status, e := p.answer()
		for _, s := range sockets {
			if status == http.StatusUnauthorized || e != nil && e.Code == CodeUnauthenticated {
				s.close(p.nobody(s))
			} else {
				s.close(ReasonForbidden)
			}
		}
	case admitted:
		found := p.found()
		for _, s := range sockets {
			if s.ns.admits(p.identity) != nil {
				s.close(p.nobody(s))
				continue
			}
			s.setIdentity(found)
		}
	}
}

// nobody is why s ends when a replay finds nobody: its credential has expired
// (the timer for it may be later by its grain), its session is gone, or something
// else that named somebody does no more.
func (p *pass) nobody(s *Socket) Reason {
	if s.Identity().expired() {
		return ReasonExpired
	}
	if p.session() == nil && s.SessionID() != "" {
		return ReasonSessionEnded
	}
	return ReasonUnauthorized
}

// newReplay is a pass that repeats a handshake: nobody waits for its answer.
func (s *Server) newReplay(m *mount) *pass {
	p := &pass{srv: s, mount: m}
	p.visit.replay = true
	// Whether nobody is enough is the question of each socket and namespace.
	p.admit = func(context.Context, *Identity) error { return nil }
	return p
}

// found is what a replay has found, as far as it may be ended.
func (p *pass) found() *admission {
	adm := &admission{identity: p.identity, token: p.token, ran: p.ran}
	if l := p.session(); l != nil {
		adm.sessionID = l.id
	}
	return adm
}

// replay runs the chain again for s, with its request as it is now.
func (s *Server) replay(sock *Socket) (*pass, outcome) {
	ctx, cancel := context.WithTimeout(s.ctx, replayTimeout)
	defer cancel()
	p := s.newReplay(sock.mount)
	if p.req, p.err = sock.shake.Load().parse(ctx); p.err != nil {
		return p, unknown
	}
	p.ran, p.token = time.Now().UnixNano(), p.req.Header.Get("Authorization")
	o := p.run(methodReplay)
	if len(p.saves) > 0 || p.w.header.Get("Set-Cookie") != "" {
		by := "a middleware"
		if len(p.saves) > 0 {
			by = p.saves[0]
		}
		if _, told := s.warned.LoadOrStore(by, true); !told {
			s.log.Warn("a middleware of Use writes a session or cookie whenever it runs; in a replay that is discarded. Write only on change, ask adapter.Replaying, or move it to UseOnce", "middleware", by)
		}
	}
	return p, o
}
