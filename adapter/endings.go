package adapter

import (
	"context"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// Endings is where a server writes down what has ended, so that it stays ended
// when the process does not. A session that a store has deleted needs none of
// this; what only a server's memory keeps from coming back does: a session that
// lives in a cookie, one that its store could not delete, and everything that
// Revoke ends. EndingsFile keeps them in a file. The servers of a cluster may
// share one Endings, in a database, or have one each.
//
// Its methods are safe for concurrent use, by several processes if they share it.
type Endings interface {
	// Add writes endings down: either all of them or, after an error, perhaps
	// some. When it returns nil they are durable: neither the end of the process
	// nor a power cut takes them back. One whose Kind and Hash are known already
	// replaces it, as far as its At and Until are later.
	//
	// A logout waits for it, at most 5 s, until ctx is done.
	Add(ctx context.Context, endings ...Ending) error

	// All returns what was added, in any order, by this process and those before
	// it. What has passed its Until may be missing, and may be deleted.
	//
	// It is called once, by New.
	All(ctx context.Context) ([]Ending, error)
}

// An Ending is something that has ended. There is no secret in it.
type Ending struct {
	Kind  string    // of what: "session", "user", "token" or "provider"
	Hash  [32]byte  // SHA-256 of which
	At    time.Time // when, to the nanosecond: logins before it are over. It may lie a little ahead
	Until time.Time // how long it has to be remembered
}

const (
	writeTimeout = 5 * time.Second
	loadTimeout  = 30 * time.Second
	writeRetry   = 10 * time.Second // after something could not be written
	maxUnwritten = 10_000
)

// endingOf is a revocation as it is written down.
func endingOf(m mark, r revocation) Ending {
	return Ending{Kind: string(m.by), Hash: m.hash, At: time.Unix(0, r.at), Until: r.until}
}

// endingOfSession is the end of a session as it is written down.
func endingOfSession(h sessionHash, life time.Duration) Ending {
	now := time.Now()
	return Ending{Kind: string(bySession), Hash: h, At: now, Until: now.Add(life)}
}

// A ledger is a server's end of Config.Endings, if it has one.
//
// Who logs out or revokes waits until it is written. What other nodes tell, and
// what could not be written, is written by a task that exists while there is
// something to write.
type ledger struct {
	srv  *Server
	kept Endings

	timer engine.Timer // of the next try

	mu      sync.Mutex
	waiting []Ending // to be written, nobody waits for them
	writing bool     // by the task
	failing bool     // the last try to write has failed
	closed  bool
	tasks   sync.WaitGroup // at most one
}

// load takes up what ended before this process began. It returns it, without
// what is over.
func (s *Server) load() ([]Ending, error) {
	if s.cfg.Endings == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	all, err := s.cfg.Endings.All(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	all = slices.DeleteFunc(all, func(e Ending) bool { return !now.Before(e.Until) || !by(e.Kind).known() })
	for _, e := range all {
		life := min(e.Until.Sub(now), maxRemembered)
		if by(e.Kind) == bySession {
			s.ended.addFar(e.Hash, life)
			continue
		}
		// A clock that was wrong then, or is now, dates it in the future.
		at := e.At
		if late := now.Add(maxAhead); at.After(late) {
			at = late
		}
		ago := max(now.Sub(at.Add(-clockSkew)), 0)
		s.revoked.hear(mark{by(e.Kind), e.Hash}, at.UnixNano(), ago, life)
	}
	return all, nil
}

// write makes endings durable, or says why they are not. It does so even if
// whoever asked for it has gone.
func (l *ledger) write(ctx context.Context, endings ...Ending) error {
	if l.kept == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	err := l.kept.Add(ctx, endings...)
	l.tell(err)
	if err == nil {
		return nil
	}
	l.later(true, endings...)
	return fmt.Errorf("adapter: write down what has ended, which holds until this process does: %w", err)
}

// tell logs that endings cannot be written, and that they can be again.
func (l *ledger) tell(err error) {
	l.mu.Lock()
	was := l.failing
	l.failing = err != nil
	l.mu.Unlock()
	switch {
	case err != nil && !was:
		l.srv.log.Error("what has ended cannot be written down: it is tried again, and forgotten if this process ends first", "error", err)
	case err == nil && was:
		l.srv.log.Info("what has ended is written down again")
	}
}

// later has endings written by the task: at once, or after a while because they
// could not be.
func (l *ledger) later(failed bool, endings ...Ending) {
	if l.kept == nil || len(endings) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, endings...)
	if more := len(l.waiting) - maxUnwritten; more > 0 {
		l.waiting = slices.Delete(l.waiting, 0, more)
	}
	switch {
	case l.writing || l.closed:
	case failed || l.failing:
		l.srv.eng.Wheel().Set(&l.timer, time.Now().Add(writeRetry), l)
	default:
		l.startLocked()
	}
}

func (l *ledger) startLocked() {
	l.writing = true
	l.tasks.Add(1)
	l.srv.eng.Go(l)
}

// Expired is the time for the next try.
func (l *ledger) Expired(time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.writing && !l.closed && len(l.waiting) > 0 {
		l.startLocked()
	}
}

// Run writes what waits.
func (l *ledger) Run() {
	defer l.tasks.Done()
	for {
		l.mu.Lock()
		batch := l.waiting
		l.waiting = nil
		if len(batch) == 0 {
			l.writing = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		err := l.try(batch)
		l.tell(err)
		if err != nil {
			l.mu.Lock()
			l.writing = false
			l.mu.Unlock()
			l.later(true, batch...)
			return
		}
	}
}

// try writes a batch where nobody else recovers.
func (l *ledger) try(batch []Ending) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("adapter: Endings.Add panicked: %v", v)
			l.srv.log.Error("Config.Endings panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	return l.kept.Add(ctx, batch...)
}

// close tries once more to write what waits.
func (l *ledger) close() {
	l.srv.eng.Wheel().Stop(&l.timer)
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.tasks.Wait()
	l.mu.Lock()
	batch := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	if err := l.try(batch); err != nil {
		l.srv.log.Error("what has ended could not be written down, and is forgotten with this process", "count", len(batch), "error", err)
	}
}

// warn says once of each that it does not outlive this process.
func (l *ledger) warn(what string) {
	if l.kept != nil {
		return
	}
	if _, told := l.srv.warned.LoadOrStore(warnedEndings(what), true); told {
		return
	}
	l.srv.log.Warn("what has ended is remembered by this process only, and is valid again after a restart: give adapter.New a Config.Endings, such as adapter.EndingsFile", "what", what)
}

// cookieLogout is what ledger.warn says of stores that cannot forget a session.
const cookieLogout = "Logout, with a store that keeps sessions in cookies"

// warnedEndings is a key of Server.warned that no middleware has.
type warnedEndings string

// isCookieStore reports whether a store is known to keep sessions in the cookie:
// the one of gin-contrib/sessions. Of others it shows when they save the first,
// or load one from before.
func isCookieStore(st sessions.Store) bool {
	t := reflect.TypeOf(st)
	return t != nil && t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "github.com/gin-contrib/sessions/cookie"
}

// remember writes down that a session has ended, where its store has not
// forgotten it: life is then longer than the store needs to.
func (st *store) remember(ctx context.Context, id string, life time.Duration) error {
	if id == "" || life <= tombstoneLife {
		return nil
	}
	return st.srv.ledger.write(ctx, endingOfSession(hashSession(id), life))
}

// foundInCookie notes that the store keeps its sessions in cookies.
func (st *store) foundInCookie() {
	if st.inCookie.CompareAndSwap(false, true) {
		st.srv.ledger.warn(cookieLogout)
	}
}
