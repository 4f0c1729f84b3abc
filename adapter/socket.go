package adapter

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/plain"
)

// Bounds of one socket's inbox: events that have come and not been handled.
// A full inbox stops reading, so the client's own connection fills up.
const (
	inboxItems = 256
	inboxBytes = 1 << 20
)

// maxBad frames within badWindow close the connection.
const (
	maxBad    = 10
	badWindow = 10 * time.Second
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
	conn  *engine.Conn
	id    string
	ref   sessionRef
	keys  map[any]any

	shake    atomic.Pointer[Handshake]
	identity atomic.Pointer[Identity]
	opening  atomic.Bool // OnConnect is running; what is sent is held back
	expiry   engine.Timer

	// Guarded by follower.mu.
	binding   *binding
	sessionID string

	mu          sync.Mutex
	inbox       []item
	pending     int // bytes of the inbox
	dispatching bool
	paused      bool
	closed      bool
	started     bool // it was open at all
	entered     bool // OnConnect let it in
	reason      Reason
	held        []engine.Frame
	heldBytes   int
	rooms       []string
	ctx         context.Context // made when first asked for
	cancel      context.CancelCauseFunc
	bad         int
	badSince    time.Time
}

// An item is one turn of the dispatcher: an event if run is nil.
type item struct {
	msg plain.Message
	run func(ctx context.Context)
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

// Handshake returns the first request of the connection.
func (s *Socket) Handshake() *Handshake { return s.shake.Load() }

// Get returns what a middleware of the chain left with c.Set during the
// handshake.
func (s *Socket) Get(key any) (value any, ok bool) {
	value, ok = s.keys[key]
	return value, ok
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
	f, err := encodeEvent(event, args)
	if err != nil {
		return err
	}
	return s.send(f)
}

// To addresses everyone in any of the rooms except this socket.
func (s *Socket) To(rooms ...string) Op { return Op{ns: s.ns, self: s}.To(rooms...) }

// Broadcast addresses everyone in the namespace except this socket.
func (s *Socket) Broadcast() Op { return Op{ns: s.ns, self: s} }

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

func (s *Socket) close(r Reason) { s.conn.Close(causeOf(r)) }

// send queues a frame, or holds it back until OnConnect has let the socket in.
func (s *Socket) send(f engine.Frame) error {
	if s.opening.Load() {
		if held, err := s.hold(f); held {
			return err
		}
	}
	return s.conn.Send(f)
}

// hold keeps a frame back while OnConnect runs. It reports false if OnConnect
// has finished meanwhile.
func (s *Socket) hold(f engine.Frame) (held bool, err error) {
	s.mu.Lock()
	switch {
	case !s.opening.Load():
		s.mu.Unlock()
		return false, nil
	case s.closed:
		s.mu.Unlock()
		return true, ErrClosed
	case s.heldBytes+len(f) > s.ns.srv.cfg.SendBuffer:
		s.mu.Unlock()
		s.close(ReasonSlow)
		return true, ErrClosed
	}
	s.held = append(s.held, f)
	s.heldBytes += len(f)
	s.mu.Unlock()
	return true, nil
}

func (s *Socket) sendVolatile(f engine.Frame) {
	if !s.opening.Load() {
		_ = s.conn.SendVolatile(f)
	}
}

// start opens the socket: the connect frame first, then OnConnect as the first
// turn of the dispatcher. Everything is attached before the first byte is read.
func (s *Socket) start() {
	s.opening.Store(true)
	s.mu.Lock()
	if s.closed {
		// Its session was ended while the handshake was answered.
		s.mu.Unlock()
		s.conn.Start()
		return
	}
	s.started = true
	s.ns.srv.live.Add(1)
	s.ns.add(s)
	id := s.Identity()
	if id != nil {
		s.ns.users.Add(id.UserID, s)
	}
	var task engine.Task
	if len(s.ns.onConnect) > 0 {
		task = s.pushLocked(item{run: s.connect})
	}
	s.mu.Unlock()
	s.expireAt(id)
	if task == nil {
		s.enter()
	}
	s.conn.Start()
	if task != nil {
		s.ns.srv.eng.Go(task)
	}
}

// connect asks OnConnect and lets the socket in or refuses it.
func (s *Socket) connect(ctx context.Context) {
	for _, f := range s.ns.onConnect {
		if err := f(ctx, s); err != nil {
			e := s.visible(err, "connect")
			_ = s.conn.Send(errorFrame(nil, "", e))
			s.refuse(e)
			return
		}
	}
	s.enter()
}

// enter sends the connect frame and what was held back behind it.
func (s *Socket) enter() {
	b := engine.NewBuilder(64)
	b.Append(func(dst []byte) []byte {
		return plain.AppendEvent(dst, plain.Connect, fmt.Appendf(nil, `{"sid":%q}`, s.id), nil)
	})
	_ = s.conn.Send(b.Text())
	s.mu.Lock()
	s.entered = true
	// Until nothing is held any more, others go on holding back: so nothing
	// overtakes. Sending may close the socket, which takes the lock.
	for len(s.held) > 0 {
		held := s.held
		s.held, s.heldBytes = nil, 0
		s.mu.Unlock()
		for _, f := range held {
			_ = s.conn.Send(f)
		}
		s.mu.Lock()
	}
	s.opening.Store(false)
	s.mu.Unlock()
}

// refuse closes with the code that belongs to e.
func (s *Socket) refuse(e *Error) {
	c := causeOf(ReasonRefused)
	c.Code, c.Text = closeCodeFor(e), e.Code
	s.conn.Close(c)
}

// pushLocked appends an item to the inbox and returns the dispatcher if it has
// to be started.
func (s *Socket) pushLocked(it item) engine.Task {
	s.inbox = append(s.inbox, it)
	s.pending += len(it.msg.Data)
	if s.dispatching {
		return nil
	}
	s.dispatching = true
	return (*dispatcher)(s)
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
		s.pending -= len(it.msg.Data)
		resume := s.paused && len(s.inbox) <= inboxItems/2 && s.pending <= inboxBytes/2
		if resume {
			s.paused = false
		}
		s.mu.Unlock()
		if resume {
			s.conn.Resume()
		}
		s.turn(it)
	}
}

// turn runs one item. It is the one place where a panic of user code is caught.
func (s *Socket) turn(it item) {
	ctx := &eventContext{Context: s.Context(), socket: s, identity: s.Identity()}
	defer func() {
		if v := recover(); v != nil {
			s.ns.srv.log.Error("a handler panicked", "event", it.msg.Type, "socket", s.id, "panic", v, "stack", string(debug.Stack()))
			e := &Error{Code: CodeInternal, Message: "something went wrong on the server"}
			if it.run != nil {
				// Neither let in nor refused, or guarded by nobody: end it.
				s.opening.Store(false)
				s.refuse(e)
				return
			}
			s.answer(it.msg, nil, e)
		}
	}()
	if it.run != nil {
		it.run(ctx)
		return
	}
	if ctx.Err() != nil {
		return // what a socket still wanted when it ended was never acknowledged
	}
	reply, err := s.ns.handle(ctx, s, it.msg.Type, it.msg.Data)
	if err != nil {
		s.answer(it.msg, nil, s.visible(err, it.msg.Type))
		return
	}
	if it.msg.ID != nil {
		s.answer(it.msg, reply, nil)
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

// answer sends a reply, or the error. The dispatcher writes it itself if
// nobody else is writing: the next event waits until this one is answered.
func (s *Socket) answer(m plain.Message, reply []byte, e *Error) {
	if e != nil {
		_ = s.conn.SendNow(errorFrame(m.ID, m.Type, e))
		return
	}
	b := engine.NewBuilder(len(reply) + len(m.ID) + 32)
	b.Append(func(dst []byte) []byte { return plain.AppendReply(dst, m.ID, reply) })
	_ = s.conn.SendNow(b.Text())
}

func errorFrame(id json.RawMessage, event string, e *Error) engine.Frame {
	body := e.json()
	b := engine.NewBuilder(len(body) + len(id) + len(event) + 40)
	b.Append(func(dst []byte) []byte { return plain.AppendError(dst, id, event, body) })
	return b.Text()
}

// plainConn is a Socket as the engine sees it: a connection that speaks the
// plain JSON format and is in one namespace.
type plainConn Socket

// Receive takes one frame from the reader.
func (p *plainConn) Receive(binary bool, data []byte) engine.Task {
	s := (*Socket)(p)
	if binary {
		return s.reject(nil, "expected a text message with JSON, got a binary one")
	}
	m, err := plain.Decode(data)
	if err != nil {
		return s.reject(m.ID, err.Error())
	}
	if plain.Reserved(m.Type) {
		return s.reject(nil, fmt.Sprintf("expected the name of an event, got %q, which belongs to the protocol", m.Type))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	task := s.pushLocked(item{msg: m})
	if !s.paused && (len(s.inbox) >= inboxItems || s.pending >= inboxBytes) {
		s.paused = true
		s.conn.Pause()
	}
	return task
}

// reject tells the client what was wrong with a frame, and closes on one that
// keeps sending them.
func (s *Socket) reject(id json.RawMessage, what string) engine.Task {
	s.mu.Lock()
	now := time.Now()
	if s.bad == 0 || now.Sub(s.badSince) > badWindow {
		s.bad, s.badSince = 0, now
	}
	s.bad++
	tooMany := s.bad >= maxBad
	s.mu.Unlock()
	_ = s.conn.Send(errorFrame(id, "", &Error{Code: CodeBadRequest, Message: what}))
	if tooMany {
		s.close(ReasonParse)
	}
	return nil
}

// Closed is told by the engine that the connection has ended.
func (p *plainConn) Closed(c engine.Cause) {
	s := (*Socket)(p)
	r := Reason(c.Reason)
	srv := s.ns.srv
	srv.eng.Wheel().Stop(&s.expiry)
	srv.follow.remove(s)

	s.mu.Lock()
	s.closed, s.reason = true, r
	rooms := s.rooms
	cancel := s.cancel
	// Events that wait were not acknowledged, and their context is over.
	s.inbox = slices.DeleteFunc(s.inbox, func(it item) bool { return it.run == nil })
	s.pending = 0
	var task engine.Task
	if s.started {
		task = s.pushLocked(item{run: s.disconnected})
	}
	s.mu.Unlock()

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
	if task != nil {
		srv.eng.Go(task)
	}
}

// disconnected is the last turn.
func (s *Socket) disconnected(context.Context) {
	defer s.ns.srv.live.Done()
	s.mu.Lock()
	entered, r := s.entered, s.reason
	s.mu.Unlock()
	if entered {
		for _, f := range s.ns.onDisconnect {
			f(s, r)
		}
	}
}

// setIdentity applies what a replay found. Rooms follow at once; handlers see
// it from their next turn on.
func (s *Socket) setIdentity(id *Identity) {
	old := s.Identity()
	if old.equal(id) {
		return
	}
	if old != nil && !old.is(id) {
		// Two people never share a socket, and a logout is not a demotion.
		s.close(ReasonSessionEnded)
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.identity.Store(id)
	var task engine.Task
	if s.started {
		if old == nil {
			s.ns.users.Add(id.UserID, s)
		}
		task = s.pushLocked(item{run: func(ctx context.Context) { s.identityChanged(ctx, old) }})
	}
	s.mu.Unlock()
	s.expireAt(id)
	if task != nil {
		s.ns.srv.eng.Go(task)
	}
}

// identityChanged is the turn in which handlers begin to see a new identity.
func (s *Socket) identityChanged(ctx context.Context, old *Identity) {
	err := s.ns.guard(ctx, s)
	for _, f := range s.ns.onIdentity {
		if err != nil {
			break
		}
		err = f(ctx, s, old)
	}
	if err != nil {
		s.visible(err, "identity") // logs what the client is not told
		s.close(ReasonForbidden)
	}
}

func (s *Socket) expireAt(id *Identity) {
	wheel := s.ns.srv.eng.Wheel()
	if id == nil || id.Expires.IsZero() {
		wheel.Stop(&s.expiry)
		return
	}
	wheel.Set(&s.expiry, id.Expires, s)
}

// Expired is the hard end of a credential, whatever a replay may be saying.
func (s *Socket) Expired(now time.Time) {
	if id := s.Identity(); id != nil && !id.Expires.IsZero() && !now.Before(id.Expires) {
		s.close(ReasonExpired)
	}
}
