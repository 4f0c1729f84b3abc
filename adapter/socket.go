package adapter

import (
	"context"
	"encoding/json"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// A Socket is one connection in one namespace. All methods are safe for
// concurrent use.
//
// Its events are items of an inbox, and so are connecting, a change of
// identity and disconnecting: a dispatcher, which exists only while the inbox
// holds something, handles them one at a time.
type Socket struct {
	ns    *Namespace
	mount *mount
	link  link
	id    string
	ref   sessionRef
	auth  json.RawMessage

	recovery *recoverable // nil without recovery

	shake    atomic.Pointer[Handshake]
	identity atomic.Pointer[Identity]
	opening  atomic.Bool // guards or OnConnect are asked; what is sent is held back
	waiting  atomic.Bool // to be authenticated
	expiry   engine.Timer

	// Guarded by follower.mu.
	binding   *binding
	sessionID string
	checked   time.Duration // when the run of the chain that says who it is had ended, by follower.now

	mu          sync.Mutex
	inbox       []item
	inboxSize   int32 // in bytes: inboxBytes and a message of at most 1 GiB
	dispatching bool
	paused      bool
	closed      bool
	started     bool // it was open at all
	greeted     bool // the connect frame has been sent
	failures    int8 // to show a fresh credential
	tokens      pace // that were shown
	appeared    bool // it can be found in its namespace
	entered     bool // OnConnect let it in
	reminded    bool // that its token is about to expire
	reason      Reason
	held        []engine.Frame
	heldBytes   int
	rooms       []string
	keys        map[any]any // what the chain has left with c.Set; replaced, and never changed
	asked       map[uint64]chan<- answer
	data        *Data
	ctx         context.Context // made when first asked for
	cancel      context.CancelCauseFunc
}

// ID returns the socket's id: public, and no credential for anything.
func (s *Socket) ID() string { return s.id }

// Namespace returns the namespace the socket is in.
func (s *Socket) Namespace() *Namespace { return s.ns }

// Identity returns who the socket acts as now; nil is nobody. Handlers that
// must not see it change halfway use IdentityOf(ctx) or User.
func (s *Socket) Identity() *Identity { return s.identity.Load() }

// SessionID returns the id of the session the socket hangs on, "" if none.
func (s *Socket) SessionID() string {
	f := &s.ns.srv.follow
	f.mu.Lock()
	defer f.mu.Unlock()
	return s.sessionID
}

// session returns where the socket's session is kept, and its id.
func (s *Socket) session() (sessionRef, string) {
	f := &s.ns.srv.follow
	f.mu.Lock()
	defer f.mu.Unlock()
	return s.ref, s.sessionID
}

// Handshake returns the first request of the connection.
func (s *Socket) Handshake() *Handshake { return s.shake.Load() }

// Get returns what a middleware of the chain has left with c.Set: one of Use, when
// the chain was asked last, one of UseOnce or UseEach at the handshake.
func (s *Socket) Get(key any) (value any, ok bool) {
	value, ok = s.left()[key]
	return value, ok
}

// Auth decodes into v, a pointer, what a Socket.IO client gave as auth for this
// namespace. v stays as it is if it gave nothing. Nobody has checked it: who the
// client is says Identity.
func (s *Socket) Auth(v any) error {
	if s.auth == nil {
		return nil
	}
	if err := json.Unmarshal(s.auth, v); err != nil {
		return &Error{Code: CodeBadRequest, Message: "auth: " + explain(err)}
	}
	return nil
}

// Data returns what the app keeps with the socket.
func (s *Socket) Data() *Data {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		s.data = new(Data)
	}
	return s.data
}

// Context ends when the socket does; its cause is the Reason.
func (s *Socket) Context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancelCause(context.Background())
		if s.closed {
			s.cancel(s.reason)
		}
	}
	return s.ctx
}

// Emit queues an event for this socket and returns. It fails with ErrClosed
// once the socket is gone; delivery is not confirmed.
func (s *Socket) Emit(event string, args ...any) error {
	m, err := newMessage(s.ns, event, args)
	if err != nil {
		return err
	}
	if s.recovery == nil {
		return s.send(m)
	}
	if err = s.ns.history.emitTo(s, m); err == nil {
		s.tap(m)
	}
	return err
}

// To addresses everyone in any of the rooms except this socket.
func (s *Socket) To(rooms ...string) Op { return Op{ns: s.ns, self: s}.To(rooms...) }

// Broadcast addresses everyone in the namespace except this socket.
func (s *Socket) Broadcast() Op { return Op{ns: s.ns, self: s} }

// Volatile addresses this socket, with an event that is dropped if anything still
// waits for it.
func (s *Socket) Volatile() Op { return s.ns.To(s.id).Volatile() }

// Compress addresses this socket, with an event that is compressed or not where
// Config says that events are.
func (s *Socket) Compress(on bool) Op { return s.ns.To(s.id).Compress(on) }

// Join puts the socket into rooms. It fails with ErrClosed once the socket is
// gone.
func (s *Socket) Join(rooms ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	for _, r := range rooms {
		if s.ns.rooms.Add(r, s) {
			s.rooms = append(s.rooms, r)
		}
	}
	return nil
}

// Leave takes the socket out of rooms.
func (s *Socket) Leave(rooms ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	for _, r := range rooms {
		if s.ns.rooms.Remove(r, s) {
			s.rooms = slices.DeleteFunc(s.rooms, func(in string) bool { return in == r })
		}
	}
	return nil
}

// Rooms returns the rooms the socket is in, or was in when it ended.
func (s *Socket) Rooms() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rooms)
}

// Disconnect ends the socket after what was emitted before has been sent. It
// does not wait.
func (s *Socket) Disconnect() error {
	s.close(ReasonServer)
	return nil
}

func (s *Socket) close(r Reason) { s.link.close(r) }

// send queues an event and shows it to the taps.
func (s *Socket) send(m *message) error {
	if s.isClosed() {
		// A connection of Socket.IO goes on without this socket: for others that
		// it carries, or for the moment that the client needs to read why.
		return ErrClosed
	}
	if err := s.queue(m, false); err != nil {
		return err
	}
	s.tap(m)
	return nil
}

func (s *Socket) tap(m *message) {
	for _, f := range s.ns.onOutgoing {
		f(s, m.event, m.args)
	}
}

// queue queues an event, or holds it back until the socket is let in.
func (s *Socket) queue(m *message, volatile bool) error {
	frames, err := s.link.encode(m.in(s.ns))
	if err != nil {
		return err
	}
	if s.opening.Load() {
		if volatile {
			return nil
		}
		if held, err := s.hold(frames); held {
			return err
		}
	}
	return s.link.send(frames, volatile)
}

// hold keeps frames back while OnConnect runs. It reports false if OnConnect
// has finished meanwhile.
func (s *Socket) hold(frames []engine.Frame) (held bool, err error) {
	n := 0
	for _, f := range frames {
		n += f.Len()
	}
	s.mu.Lock()
	switch {
	case !s.opening.Load():
		s.mu.Unlock()
		return false, nil
	case s.closed:
		s.mu.Unlock()
		return true, ErrClosed
	case s.heldBytes+n > s.ns.srv.cfg.SendBuffer:
		s.mu.Unlock()
		s.close(ReasonSlow)
		return true, ErrClosed
	}
	s.held = append(s.held, frames...)
	s.heldBytes += n
	s.mu.Unlock()
	return true, nil
}

// undo takes back what guards have done with a socket that they did not let in, and
// that waits: it is in no room, and gets nothing of what was sent to it.
func (s *Socket) undo() {
	_ = s.Leave(s.Rooms()...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.heldBytes = nil, 0
}

// start opens the socket, before the first byte of it is read: the connect
// frame first, unless ask or OnConnect decide before. It reports false if the
// socket was ended already, or is because what adm has found was: a client that
// sends along with its handshake must not have a handler run for it.
func (s *Socket) start(adm *admission, ask func(context.Context) (*admission, error)) bool {
	s.opening.Store(true)
	s.mu.Lock()
	if s.closed {
		// Its session was ended while the handshake was answered.
		s.mu.Unlock()
		return false
	}
	if ask == nil && s.recovery == nil && !s.appearLocked(adm) {
		s.mu.Unlock()
		s.close(ReasonSessionEnded)
		return false
	}
	s.started = true
	s.ns.srv.live.Add(1)
	id := s.Identity()
	var task engine.Task
	asks := ask != nil || s.recovery != nil || len(s.ns.onConnect) > 0
	if asks {
		// Before what a client has sent behind a first message.
		task = s.pushFirstLocked(item{run: func(ctx context.Context) { s.connect(ctx, adm, ask) }})
	}
	s.expireLocked(nil, id)
	s.mu.Unlock()
	switch {
	case !asks:
		s.ns.srv.follow.catchUp(s, adm.seen)
		s.enter()
	case task != nil: // else this is a turn itself
		s.ns.srv.eng.Go(task)
	}
	return true
}

// appearLocked lets the socket be found in its namespace, unless what adm has
// found was ended since.
func (s *Socket) appearLocked(adm *admission) bool {
	return s.ns.srv.stands(adm, func() {
		s.appeared = true
		s.ns.add(s)
		if id := s.Identity(); id != nil {
			s.ns.users.Add(id.UserID, s)
		}
	})
}

// connect asks, and lets the socket in or refuses it.
func (s *Socket) connect(ctx context.Context, adm *admission, ask func(context.Context) (*admission, error)) {
	var err error
	if ask != nil {
		adm, err = ask(ctx)
		ctx = &eventContext{Context: s.Context(), socket: s, identity: s.Identity(), keys: s.left()} // whom it has found
		if s.Identity().expired() {
			s.close(ReasonExpired) // while the chain ran, as in turn
		}
	}
	stands := true
	switch {
	case err != nil:
	case s.recovery != nil:
		stands = s.ns.history.admit(s, adm)
	case ask != nil:
		s.mu.Lock()
		stands = s.closed || s.appearLocked(adm)
		s.mu.Unlock()
	}
	switch {
	case !stands:
		err = errOver
	case err == nil:
		s.ns.srv.follow.catchUp(s, adm.seen)
	}
	for _, f := range s.ns.onConnect {
		// None begins once the socket has ended: whoever ended it may count on
		// that nothing is done for it any more.
		if err == nil && ctx.Err() == nil {
			err = f(ctx, s)
		}
	}
	switch {
	case err != nil:
		s.deny(s.visible(err, "connect"))
	case ctx.Err() == nil:
		s.enter()
	}
}

// enter sends the connect frame and what was held back behind it.
func (s *Socket) enter() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.entered = true // before its client can know, and be cut off
	greeted := s.greeted
	s.mu.Unlock()
	s.audit("socket accepted", s.Identity())
	if !greeted {
		s.link.connected()
	}
	s.mu.Lock()
	// Until nothing is held any more, others go on holding back: so nothing
	// overtakes. Sending may close the socket, which takes the lock.
	for len(s.held) > 0 && !s.closed {
		held := s.held
		s.held, s.heldBytes = nil, 0
		s.mu.Unlock()
		_ = s.link.send(held, false)
		s.mu.Lock()
	}
	s.opening.Store(false)
	s.mu.Unlock()
}

func (s *Socket) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// ended is told by the link that the socket is over. It does not wait.
func (s *Socket) ended(r Reason) {
	srv := s.ns.srv
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed, s.reason = true, r
	srv.eng.Wheel().Stop(&s.expiry)
	rooms, entered := s.rooms, s.entered
	cancel, asked := s.cancel, s.asked
	s.asked = nil
	// Events that wait were not acknowledged, and their context is over.
	s.inbox = slices.DeleteFunc(s.inbox, func(it item) bool { return it.run == nil })
	s.inboxSize = 0
	var task engine.Task
	started := s.started
	if started {
		task = s.pushLocked(item{run: s.disconnected})
	}
	s.mu.Unlock()

	srv.follow.remove(s)
	if started && s.recovery != nil {
		s.ns.history.dies(s, rooms, entered, r) // before it cannot be found any more
	}
	s.ns.remove(s)
	for _, room := range rooms {
		s.ns.rooms.Remove(room, s)
	}
	if id := s.Identity(); id != nil {
		s.ns.users.Remove(id.UserID, s)
	}
	if cancel != nil {
		cancel(r)
	}
	s.unanswered(asked, r)
	if !started {
		if s.waiting.Load() && r == ReasonAuthTimeout {
			srv.eng.Go((*timedOut)(s))
		}
		s.ns.leave()
	}
	if task != nil {
		srv.eng.Go(task)
	}
}

// disconnected is the last turn.
func (s *Socket) disconnected(context.Context) {
	defer s.ns.srv.live.Done()
	defer s.ns.leave()
	s.mu.Lock()
	entered, r := s.entered, s.reason
	s.mu.Unlock()
	if entered {
		s.audit("socket ended", s.Identity(), slog.String("reason", string(r)))
		for _, f := range s.ns.onDisconnect {
			f(s, r)
		}
	}
}

// setIdentity applies what a replay found; gone is why, if it is nobody any more.
// Rooms follow at once; handlers see it from their next turn on.
func (s *Socket) setIdentity(adm *admission, gone Reason) {
	old, id := s.Identity(), adm.identity
	if old.equal(id) {
		s.setLeft(adm.keys)
		return
	}
	if old != nil && !old.is(id) {
		// Two people never share a socket, and a logout is not a demotion.
		if id != nil {
			gone = ReasonSessionEnded
		}
		s.close(gone)
		return
	}
	if task := s.adopt(adm, true); task != nil {
		s.ns.srv.eng.Go(task)
	} else if old == nil && s.Identity() == nil {
		// A Revoke has come in between. It does not look for a nobody; and the
		// session may be one that it does not end, as Login has not made it.
		s.ns.srv.follow.recheck(s)
	}
}

// adopt makes what adm has found the socket's identity, unless the socket is over
// or that is: who has ended it sees to the sockets that hang on it. announce says
// that guards and OnIdentity are to be asked, in a turn of their own.
func (s *Socket) adopt(adm *admission, announce bool) (task engine.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	id := adm.identity
	var old *Identity
	if !s.ns.srv.stands(adm, func() {
		old = s.identity.Swap(id)
		s.keys = renewedKeys(s.keys, adm.keys)
		if s.appeared && old == nil && id != nil {
			s.ns.users.Add(id.UserID, s)
		}
	}) {
		return nil
	}
	if s.started && announce {
		task = s.pushFirstLocked(item{run: func(ctx context.Context) { s.identityChanged(ctx, old) }})
		if task == nil && s.entered && len(s.ns.guards) > 0 {
			task = (*sentry)(s)
		}
	}
	s.expireLocked(old, id)
	return task
}

// A sentry asks the namespace's guards about a socket that has changed while one of its
// handlers runs. The turn in which they are asked otherwise comes when the handler is
// through, and that may be for its client to say: until then a socket that may not stay
// would get what everybody in the namespace gets.
type sentry Socket

func (g *sentry) Run() {
	s := (*Socket)(g)
	ctx := &eventContext{Context: s.Context(), socket: s, identity: s.Identity(), keys: s.left()}
	defer func() {
		if v := recover(); v != nil {
			s.ns.srv.log.Error("a guard panicked", "socket", s.id, "panic", v, "stack", string(debug.Stack()))
			s.close(ReasonStale)
		}
	}()
	if ctx.Err() != nil {
		return
	}
	s.stays(s.ns.guard(ctx, s))
}

// identityChanged is the turn in which handlers begin to see a new identity.
func (s *Socket) identityChanged(ctx context.Context, old *Identity) {
	if ctx.Err() != nil {
		return // it has ended meanwhile
	}
	id := s.Identity()
	s.audit("identity changed", id, slog.String("was", userOf(old)), slog.Any("roles", rolesOf(id)))
	err := s.ns.guard(ctx, s)
	for _, f := range s.ns.onIdentity {
		if err != nil {
			break
		}
		err = f(ctx, s, old)
	}
	s.stays(err)
}

// stays ends a socket that may not stay who it has become: for good if somebody has
// decided so, else so that its client comes back.
func (s *Socket) stays(err error) {
	switch {
	case err == nil:
	case s.visible(err, "identity").undecided(): // it logs what the client is not told
		s.close(ReasonStale)
	default:
		s.close(ReasonForbidden)
	}
}
