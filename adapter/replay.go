package adapter

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// Bounds on replays.
const (
	replayGap     = 250 * time.Millisecond // between two replays of one session
	replayRunners = 4                      // at the same time in the whole server
	replayTimeout = 10 * time.Second
	replayRetry   = 5 * time.Second // at most, after an outcome that is unknown
)

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
	for s, why := range stale {
		s.close(why)
	}
}

// overdueLocked sees to a binding whose replay has not ended: many stores wait
// for their database without an end and do not look at the context, and take
// the runners with them. That outcome is unknown like any other, and is bounded
// by MaxStale. It returns the sockets that end.
func (f *follower) overdueLocked(b *binding) map[*Socket]Reason {
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
		wait = b.stale + f.srv.cfg.MaxStale - f.now()
		if b.ends != 0 {
			wait = min(wait, b.ends-f.now())
		}
		if wait <= 0 {
			stale, next := f.staleLocked(b, b.asked)
			if len(stale) < len(b.sockets) {
				f.srv.eng.Wheel().Set(&b.timer, time.Now().Add(next), b)
			}
			return stale
		}
	}
	if len(b.sockets) > 0 {
		f.srv.eng.Wheel().Set(&b.timer, time.Now().Add(wait), b)
	}
	return nil
}

// staleLocked returns the sockets of a binding that end because a replay, which
// began at a time, fails or hangs: for too long, or when the session they live by
// should be over. One whose handshake has come through meanwhile waits for a replay
// of its own, though not for one that hangs. next is how long to wait until there may
// be more, if there is no other replay before.
func (f *follower) staleLocked(b *binding, began time.Duration) (stale map[*Socket]Reason, next time.Duration) {
	stale, next = make(map[*Socket]Reason), replayRetry
	ended, left := b.hasEndedLocked(), b.stale+f.srv.cfg.MaxStale-f.now()
	late := left <= 0
	if !late {
		next = min(next, left)
	}
	for _, s := range b.sockets {
		switch age := f.now() - s.checked; {
		case s.checked > began && age < replayTimeout:
			next = min(next, replayTimeout-age)
		case ended && s.Identity() != nil && s.shake.Load().token() == "":
			stale[s] = ReasonExpired
		case late && age >= f.srv.cfg.MaxStale:
			stale[s] = ReasonStale
		case late:
			next = min(next, f.srv.cfg.MaxStale-age)
		}
	}
	return stale, next
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
		b.renewLocked()
		seen := f.changes.count
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
		var stale map[*Socket]Reason
		if o == unknown {
			if b.stale == 0 {
				b.stale = b.asked
			}
			stale, _ = f.staleLocked(b, b.ran)
		}
		f.mu.Unlock()
		// While it counts as running, so that the next one's outcome comes later.
		switch {
		case o == unknown:
			f.doubt(stale, p)
		case p != nil:
			f.apply(b, sockets, p, o)
		}
		f.ran(b, p, o, seen)
	}
}

// ran sets the time of the next replay, after one has come to an outcome, and when
// it began changes were counted: whom Refresh means is found by who they were, and
// whom the replay has found may be meant as well.
func (f *follower) ran(b *binding, p *pass, o outcome, seen uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b.running = false
	if p != nil {
		b.again = b.again || f.changes.since(seen, whosOf(p.identity, b.sessionID, bareToken(p.token)))
	}
	next := time.Duration(0)
	switch o {
	case unknown:
		retry := replayRetry
		if every := f.srv.cfg.Revalidate; every > 0 {
			retry = min(retry, every) // who is in doubt is looked at no less often
		}
		next = retry/2 + rand.N(retry/2+1)
		for _, end := range [...]time.Duration{b.stale + f.srv.cfg.MaxStale, b.ends} {
			if left := end - f.now(); left > 0 {
				next = min(next, left) // neither is to depend on when it is asked
			}
		}
	default:
		b.stale = 0
		if b.ends != 0 && b.ran >= b.ends+endGrain { // when it began: it may have taken long
			b.ends = 0
		}
		if p != nil && !b.again { // else it may have read what was before
			if l := p.session(); l != nil && l.id == b.sessionID {
				b.toldLocked(l)
			}
		}
		if every := f.srv.cfg.Revalidate; every > 0 {
			next = every - every/10 + rand.N(every/5+1)
		}
		next = b.untilEndLocked(next)
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

// doubt is what a replay comes to whose outcome is unknown: those end for whom it
// has been so for too long.
func (f *follower) doubt(stale map[*Socket]Reason, p *pass) {
	f.srv.log.Warn("a socket's identity could not be checked", "error", p.err, "status", p.w.status, "stale sockets", len(stale))
	for s, why := range stale {
		s.close(why)
	}
}

// apply lets a replay's outcome reach every socket that it speaks for.
func (f *follower) apply(b *binding, sockets []*Socket, p *pass, o outcome) {
	gone := f.gone(b, p)
	// What of b is read here changes only when it is not running.
	sockets = slices.DeleteFunc(sockets, func(s *Socket) bool { return !f.supersede(s, b.sessionID, b.ran) })
	switch o {
	case refused:
		status, e := p.answer()
		for _, s := range sockets {
			if status == http.StatusUnauthorized || e != nil && e.Code == CodeUnauthenticated {
				s.close(p.nobody(s, gone))
			} else {
				s.close(ReasonForbidden)
			}
		}
	case admitted:
		found := p.found()
		if b.sessionID == "" && found.sessionID != "" {
			f.discover(sockets, p, found)
			return
		}
		for _, s := range sockets {
			if s.ns.admits(p.identity) != nil {
				if s.Identity() == nil {
					continue // it is not let in yet, and will not be: see let
				}
				s.close(p.nobody(s, gone))
				continue
			}
			s.setIdentity(found, gone)
		}
	}
}

// discover binds sockets to a session that they have shown and that was not there
// when they connected, or that the store could not find then: it may be ended from
// here on, and whoever ends it has to find them. Who they are by it says the replay
// that follows.
func (f *follower) discover(sockets []*Socket, p *pass, found *admission) {
	for _, s := range sockets {
		adm := *found
		adm.mount, adm.shake = s.mount, s.shake.Load()
		adm.hang(p)
		adm.bind(f.srv.cfg.Cookie)
		f.rebind(s, &adm)
	}
}

// gone is what it means that a replay finds nobody where somebody was: no store says
// why a session is not there.
func (f *follower) gone(b *binding, p *pass) Reason {
	f.mu.Lock()
	over := b.hasEndedLocked()
	f.mu.Unlock()
	if p.hasLapsed() || over && p.session() == nil && !f.srv.ended.has(b.sessionID) {
		return ReasonExpired
	}
	return ReasonSessionEnded
}

// nobody is why s ends when a replay finds nobody: its credential has expired
// (the timer for it may be later by its grain), its session is gone, or something
// else that named somebody does no more.
func (p *pass) nobody(s *Socket, gone Reason) Reason {
	if s.Identity().expired() || p.hasLapsed() {
		return ReasonExpired
	}
	if p.session() == nil && s.SessionID() != "" {
		return gone
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
	adm := &admission{identity: p.identity, keys: p.keys, token: p.token, ran: p.ran}
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
