package adapter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// Bounds on touching sessions, see Config.Rolling.
const (
	touchGap     = time.Minute // between two touches of one session, see gapOf
	touchRunners = 2           // at the same time in the whole server
	touchQueue   = 10_000      // sessions that wait for a runner
	touchTimeout = 10 * time.Second
)

// A Toucher is a session store that can extend the life of a session without
// writing its values. Where several servers share a database, a store should be
// one under Config.Rolling: another server may save or end a session between this
// one's reading and writing it, which a touch must not undo.
type Toucher interface {
	// Touch lets the session with an id of the store's live for maxAge seconds
	// from now. One that is not there stays away, and is no error.
	Touch(ctx context.Context, id string, maxAge int) error
}

// A roller keeps the sessions alive whose sockets are in use. It remembers only
// those that are not to be touched again yet.
type roller struct {
	srv *Server

	mu      sync.Mutex
	touched map[string]touch // by session id
	queue   []due            // sessions that wait for a runner
	runners int
	timer   engine.Timer
}

// A touch is the last one of a session.
type touch struct {
	next time.Duration // when there may be another one, by follower.now
	busy bool          // queued or running
}

// A due is a session to be touched, and one of its sockets.
type due struct {
	id string
	s  *Socket
	at time.Duration // since when, by follower.now
}

// gapOf is the time between two touches of a session that lives for life after
// each of them: a minute is too long for one that does not live for two. Of one
// that ends with its browser, only the store knows for how long it keeps it.
func gapOf(life time.Duration) time.Duration {
	if life <= 0 {
		return touchGap
	}
	return min(touchGap, life/2)
}

// used is told that the client of s has sent an event. It does not wait.
func (r *roller) used(s *Socket) {
	ref, id := s.session()
	switch {
	case id == "" || ref.store == nil && ref.tokens == nil:
		return
	case ref.store != nil && ref.store.inCookie.Load() && s.Session().carrier() == nil:
		return // nobody brings the browser another cookie
	}
	now := r.srv.follow.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.touched[id]
	if last.busy || known && now < last.next || len(r.queue) >= touchQueue {
		return
	}
	if r.touched == nil {
		r.touched = make(map[string]touch)
		r.srv.eng.Wheel().Set(&r.timer, time.Now().Add(touchGap), r)
	}
	r.touched[id] = touch{busy: true}
	r.queue = append(r.queue, due{id, s, now})
	if r.runners < touchRunners {
		r.runners++
		r.srv.eng.Go(r)
	}
}

// Expired forgets sessions that may be touched again.
func (r *roller) Expired(time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.srv.follow.now()
	for id, last := range r.touched {
		if !last.busy && now >= last.next {
			delete(r.touched, id)
		}
	}
	if len(r.touched) == 0 {
		r.touched = nil
		return
	}
	r.srv.eng.Wheel().Set(&r.timer, time.Now().Add(touchGap), r)
}

// Run is a runner: it works until no session waits.
func (r *roller) Run() {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 || r.srv.ctx.Err() != nil {
			r.queue = nil
			r.runners--
			r.mu.Unlock()
			return
		}
		next := r.queue[0]
		r.queue[0] = due{}
		r.queue = r.queue[1:]
		r.mu.Unlock()

		life, err := next.s.Session().touch(r.srv.ctx, next.id)
		if err != nil && !errors.Is(err, ErrSessionGone) && r.srv.ctx.Err() == nil {
			r.srv.log.Warn("the session of a socket in use could not be extended", "socket", next.s.id, "error", err)
		}
		r.mu.Lock()
		r.touched[next.id] = touch{next: next.at + gapOf(life)}
		r.mu.Unlock()
	}
}

// touch extends the session's life, if its id is still the given one, to what it
// was when it was last saved, and changes nothing else. It returns that life, zero
// if it has done nothing or the session ends with its browser.
func (h *Session) touch(ctx context.Context, id string) (life time.Duration, err error) {
	defer func() {
		if v := recover(); v != nil {
			life, err = 0, fmt.Errorf("adapter: touch session: the store panicked: %v", v)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, touchTimeout)
	defer cancel()
	unlock, err := h.srv.locks.lock(ctx, id)
	if err != nil {
		return 0, err
	}
	defer unlock()
	ref, now := h.s.session()
	if now != id {
		return 0, nil // its sockets follow another one by now
	}
	if ref.tokens != nil {
		life, ends, err := ref.tokens.touch(ctx, id)
		h.srv.follow.extend(id, ends)
		return life, err
	}
	got, req, err := h.load(ctx)
	if err != nil {
		return 0, err
	}
	switch {
	case sessionID(got) != id:
		return 0, nil
	case got.ID == "":
		ref.store.foundInCookie() // since before a restart
		return h.touchCookie(ctx, id, keptOptions(got))
	}
	maxAge := keptOptions(got).MaxAge
	life = time.Duration(maxAge) * time.Second
	if t, ok := ref.store.inner.(Toucher); ok {
		if err := t.Touch(ctx, id, maxAge); err != nil {
			return 0, fmt.Errorf("adapter: touch session: %w", err)
		}
		h.extended(id, life)
		return life, nil
	}
	header, err := h.save(req, id, got)
	if err != nil {
		return 0, err
	}
	h.extended(id, life)
	for _, c := range setCookies(header) {
		if c.Name == ref.name {
			h.srv.follow.recookie(id, &http.Cookie{Name: c.Name, Value: c.Value, Quoted: c.Quoted})
		}
	}
	return life, nil
}

// touchCookie extends a session that lives in the cookie of a connection that polls.
func (h *Session) touchCookie(ctx context.Context, id string, o *gsessions.Options) (life time.Duration, err error) {
	conn := h.carrier()
	if conn == nil || o.MaxAge <= 0 {
		return 0, nil
	}
	err = h.updateCookie(ctx, conn, id, func(Values) error { return nil })
	if errors.Is(err, ErrReadOnlySession) {
		return 0, nil // a page has just saved it
	}
	return time.Duration(o.MaxAge) * time.Second, err
}

// extended notes for how long a session lives from now; zero is until its browser ends.
func (h *Session) extended(id string, life time.Duration) {
	if life > 0 {
		h.srv.follow.extend(id, time.Now().Add(life))
	}
}

// extend notes when a session ends.
func (f *follower) extend(id string, ends time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.ofSessionLocked(id) {
		b.extendLocked(ends)
		b.watchLocked()
	}
}

// recookie lets the sockets of a session be asked with its new cookie from now on:
// most stores sign when a cookie was made, and do not take one that is too old.
// What the connection is bound to stays what the browser has and shows.
func (f *follower) recookie(id string, cookie *http.Cookie) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.ofSessionLocked(id) {
		b.renewed = cookie
		b.renewLocked()
	}
}

// recookieLater is recookie for the cookie that a page has given to the browser. It waits for
// the replay that follows every save: a session may be saved more often than that.
func (f *follower) recookieLater(id string, cookie *http.Cookie) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.ofSessionLocked(id) {
		b.renewed = cookie
	}
}

func (b *binding) renewLocked() {
	if b.renewed == nil {
		return
	}
	for _, s := range b.sockets {
		s.shake.Store(s.shake.Load().withCookies([]*http.Cookie{b.renewed}))
	}
	b.renewed = nil
}
