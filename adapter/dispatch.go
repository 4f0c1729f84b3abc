package adapter

import (
	"context"
	"runtime/debug"
	"slices"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// Bounds of one socket's inbox: events that have come and not been handled.
// A full inbox stops reading, so the client's own connection fills up.
const (
	inboxItems = 256
	inboxBytes = 1 << 20
)

// An item is one turn of the dispatcher: an event if run is nil.
type item struct {
	in  incoming
	run func(ctx context.Context)
}

// pushLocked appends an item to the inbox and returns the dispatcher if it has
// to be started.
func (s *Socket) pushLocked(it item) engine.Task {
	s.inbox = append(s.inbox, it)
	s.inboxSize += int32(it.in.size())
	if s.dispatching {
		return nil
	}
	s.dispatching = true
	return (*dispatcher)(s)
}

// pushFirstLocked is pushLocked for what comes before all events that wait, and
// behind what came before them already.
func (s *Socket) pushFirstLocked(it item) engine.Task {
	task := s.pushLocked(it)
	if i := slices.IndexFunc(s.inbox, func(it item) bool { return it.run == nil }); i >= 0 {
		last := len(s.inbox) - 1
		copy(s.inbox[i+1:], s.inbox[i:last])
		s.inbox[i] = it
	}
	return task
}

// dispatcher is the goroutine that works off the inbox.
type dispatcher Socket

func (d *dispatcher) Run() {
	s := (*Socket)(d)
	for {
		s.mu.Lock()
		if len(s.inbox) == 0 {
			s.inbox, s.dispatching = nil, false
			s.mu.Unlock()
			return
		}
		it := s.inbox[0]
		s.inbox[0] = item{}
		s.inbox = s.inbox[1:]
		s.inboxSize -= int32(it.in.size())
		// Under the lock under which it changes: an event that is ahead of the
		// turn in which guards and OnIdentity see a change does not see it.
		id, keys := s.Identity(), s.keys
		resume := s.paused && len(s.inbox) <= inboxItems/2 && s.inboxSize <= inboxBytes/2
		if resume {
			s.paused = false
		}
		s.mu.Unlock()
		if resume {
			s.link.resume()
		}
		s.turn(it, id, keys)
	}
}

// turn runs one item as id, with what the chain had left. A panic of user code is caught
// here and nowhere else, but for guards that are asked out of turn: see sentry.
func (s *Socket) turn(it item, id *Identity, keys map[any]any) {
	ctx := &eventContext{Context: s.Context(), socket: s, identity: id, keys: keys}
	defer func() {
		if v := recover(); v != nil {
			s.ns.srv.log.Error("a handler panicked", "event", it.in.event, "socket", s.id, "panic", v, "stack", string(debug.Stack()))
			e := &Error{Code: CodeInternal, Message: "something went wrong on the server"}
			if it.run != nil {
				// Neither let in nor refused, or guarded by nobody: end it.
				s.mu.Lock()
				entered := s.entered
				s.mu.Unlock()
				if entered {
					s.close(ReasonStale)
				} else {
					s.deny(e)
				}
				return
			}
			s.link.fail(it.in, e)
		}
	}()
	if ctx.identity.expired() {
		// The timer is later by its grain, and a slow replay may find somebody who
		// has expired meanwhile.
		s.close(ReasonExpired)
	}
	if it.run != nil {
		it.run(ctx)
		return
	}
	if ctx.Err() != nil {
		return // what a socket still wanted when it ended was never acknowledged
	}
	switch {
	case it.in.event == authenticateEvent && s.ns.srv.takes(inFirstMessage):
		s.authenticate(it.in)
		return
	case s.waiting.Load():
		s.link.fail(it.in, &Error{Code: CodeUnauthenticated, Message: "authenticate first"})
		return
	}
	if srv := s.ns.srv; srv.cfg.Rolling {
		srv.rolling.used(s)
	}
	out, err := s.ns.handle(ctx, s, it.in)
	if ctx.Err() != nil {
		return // its connection may go on, but what was found is not for its client any more
	}
	if err == nil && it.in.id != nil {
		err = s.link.reply(it.in, out)
	}
	if err != nil {
		s.link.fail(it.in, s.visible(err, it.in.event))
	}
}

// visible is what the client may see of err; the rest goes to the log.
func (s *Socket) visible(err error, event string) *Error {
	e, hidden := asError(err)
	if hidden && s.Context().Err() == nil {
		s.ns.srv.log.Error("a handler failed", "event", event, "socket", s.id, "error", err)
	}
	return e
}

// receive takes an event from the reader, and asks the link to pause when the
// inbox is full.
func (s *Socket) receive(in incoming) engine.Task {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	task := s.pushLocked(item{in: in})
	if !s.paused && (len(s.inbox) >= inboxItems || s.inboxSize >= inboxBytes) {
		s.paused = true
		s.link.pause()
	}
	return task
}
