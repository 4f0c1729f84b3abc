package adapter

import (
	"container/list"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// Recovery is connection state recovery: a Socket.IO client that was cut off
// and comes back within the window gets its socket's id, rooms and Data back,
// and the events that it has missed. It is recovered only as who it was: the
// chain has run for its new handshake, and what it found has to be the same
// user with the same roles, and the session one that has not ended. Guards and
// OnConnect run as ever; Socket.Recovered tells them.
//
// Events are kept in the memory of this process. Volatile ones are not, and
// neither are those that want an acknowledgement. In a cluster a client is
// recovered by the node that it was connected to, which keeps events of other
// nodes like its own; on another node it starts anew.
type Recovery struct {
	// Window is how long a client may stay away. Zero means that there is no
	// recovery.
	Window time.Duration

	// Packets and Bytes are how much a client may have missed to be recovered.
	// Zero means 1,000 packets, and as many bytes as Config.SendBuffer.
	Packets int
	Bytes   int

	// Total is how many bytes are kept in the whole server. When they are used
	// up the oldest events go, and clients that miss them start anew. Zero means
	// 64 MiB.
	Total int64
}

// A history is what one namespace keeps for clients that come back.
//
// Events get a number each, which clients tell as the last they have seen. For
// that to say what they have not seen, events have to reach every connection's
// queue in the order of their numbers.
type history struct {
	n *Namespace

	order sync.Mutex // held from numbering an event to the last queue it goes to

	mu     sync.Mutex
	last   uint64 // the number of the last event
	floor  uint64 // the number of the last event that is not kept any more
	events list.List
	living map[string]*Socket // by pid
	away   map[string]*ghost  // by pid
	leave  list.List          // of ghosts, those that go first in front
	timer  engine.Timer
}

// A keptEvent is an event that somebody may have missed.
type keptEvent struct {
	number uint64
	until  time.Time
	frames []engine.Frame
	to     []uint64 // the marks of those who were there
	op     Op       // for those who were away; without rooms if it was for one socket
	one    bool     // it was for one socket, none of those who are away
	self   uint64   // the mark of the socket that op leaves out
}

func (e *keptEvent) size() (n int64) {
	for _, f := range e.frames {
		n += int64(f.Len())
	}
	return n + int64(8*len(e.to)) + 300
}

// A ghost is what is kept of a socket that was cut off, for its client to come
// back to.
type ghost struct {
	pid       string
	mark      uint64
	id        string
	identity  *Identity
	sessionID string
	rooms     map[string]uint64 // and the last event before it was there
	data      *Data
	from      uint64 // the last event before it was there at all
	gone      uint64 // the last event before it was away
	until     time.Time
	place     *list.Element
}

func (g *ghost) size() int64 {
	n := 600
	for room := range g.rooms {
		n += len(room) + 50
	}
	return int64(n)
}

// recoverable is what a socket has where there is recovery.
type recoverable struct {
	pid       string // the secret by which its client will ask for it
	mark      uint64 // a short and public pid: with it kept events note whom they went to
	from      uint64 // the last event before it was there
	asked     string // the pid that the client asks for
	offset    string // and the last event it has seen
	recovered bool
	over      chan struct{} // closed when it is away or gone
}

// recoverable returns what a new socket needs to be recovered, and to recover
// the one that its CONNECT asks for; nil if there is no recovery.
func (n *Namespace) recoverable(auth json.RawMessage) *recoverable {
	if n.srv.cfg.Recovery.Window == 0 {
		return nil
	}
	r := &recoverable{pid: randomID(), mark: n.srv.marks.Add(1), over: make(chan struct{})}
	var ask struct {
		PID    any `json:"pid"`
		Offset any `json:"offset"`
	}
	if auth != nil && json.Unmarshal(auth, &ask) == nil {
		r.asked, _ = ask.PID.(string)
		r.offset, _ = ask.Offset.(string)
	}
	return r
}

// Recovered reports whether the socket is one that was cut off, with its id,
// rooms and Data, and its client has got what it had missed.
func (s *Socket) Recovered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recovery != nil && s.recovery.recovered
}

// emit numbers m, keeps it and queues it for those whom o selects, which it
// leaves in targets. They are selected in the same step: who comes back between
// the two would neither be there nor have missed the event.
func (h *history) emit(m *message, o Op, targets *[]*Socket) error {
	h.order.Lock()
	defer h.order.Unlock()
	for {
		*targets = o.selectIn(h.n, (*targets)[:0])
		plain, sio := m.lacks(*targets, h.missed())
		if !plain && !sio {
			break
		}
		if err := h.prepare(m, plain, sio); err != nil {
			return err
		}
	}
	var marks []uint64
	for _, s := range *targets {
		if s.recovery != nil {
			marks = append(marks, s.recovery.mark)
		}
	}
	if len(marks) > 0 || h.missed() {
		h.number(m, marks, &o, o.volatile)
	}
	return queueAll(m, *targets, o.volatile)
}

// prepare encodes m. It lets go of the order meanwhile, which is held before and
// after, whatever happens: it runs the app's own code, which may emit or panic.
func (h *history) prepare(m *message, plain, sio bool) error {
	h.order.Unlock()
	defer h.order.Lock()
	return m.prepare(plain, sio)
}

// emitTo numbers m, keeps it and queues it for one socket.
func (h *history) emitTo(s *Socket, m *message) error {
	if err := m.encodeArgs(); err != nil {
		return err
	}
	h.order.Lock()
	defer h.order.Unlock()
	if s.isClosed() {
		return ErrClosed // what is said to have failed must not be recovered
	}
	h.number(m, []uint64{s.recovery.mark}, nil, false)
	return s.queue(m, false)
}

// missed reports whether anybody is away.
func (h *history) missed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.away) > 0
}

// number gives m its number, and keeps it unless it may be lost. One that may be
// has the number of the last that may not.
func (h *history) number(m *message, to []uint64, o *Op, volatile bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !volatile {
		h.last++
	}
	m.offset = strconv.FormatUint(h.last, 36)
	if volatile {
		return
	}
	cfg := &h.n.srv.cfg
	// A client may be away for a while before that is noticed.
	until := time.Now().Add(cfg.Recovery.Window + cfg.PingInterval + cfg.PingTimeout)
	e := &keptEvent{number: h.last, until: until, frames: m.socketIO(), to: to, one: o == nil}
	if o != nil {
		e.op = *o
		if o.self != nil && o.self.recovery != nil {
			e.self = o.self.recovery.mark
		}
		e.op.self = nil // an ended socket is not to be kept for its mark
	}
	h.events.PushBack(e)
	h.n.srv.kept.Add(e.size())
	for h.events.Len() > 0 && h.n.srv.kept.Load() > cfg.Recovery.Total {
		h.forgetFirst()
	}
	h.watchLocked()
}

func (h *history) forgetFirst() {
	front := h.events.Front()
	e := front.Value.(*keptEvent)
	h.events.Remove(front)
	h.floor = e.number
	h.n.srv.kept.Add(-e.size())
}

// watchLocked sets the timer for what is kept.
func (h *history) watchLocked() {
	var next time.Time
	if front := h.events.Front(); front != nil {
		next = front.Value.(*keptEvent).until
	}
	if front := h.leave.Front(); front != nil {
		if until := front.Value.(*ghost).until; next.IsZero() || until.Before(next) {
			next = until
		}
	}
	if !next.IsZero() {
		h.n.srv.eng.Wheel().Set(&h.timer, next, h)
	}
}

// Expired forgets what nobody can ask for any more.
func (h *history) Expired(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for front := h.events.Front(); front != nil && !front.Value.(*keptEvent).until.After(now); front = h.events.Front() {
		h.forgetFirst()
	}
	for front := h.leave.Front(); front != nil && !front.Value.(*ghost).until.After(now); front = h.leave.Front() {
		h.buryLocked(front.Value.(*ghost))
	}
	h.watchLocked()
}

// lives notes a socket that is let in, so that its client can come back for it
// even before the server notices that it was cut off.
func (h *history) lives(s *Socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.living == nil {
		h.living = make(map[string]*Socket)
	}
	h.living[s.recovery.pid] = s
	if !s.recovery.recovered {
		s.recovery.from = h.last
	}
}

// dies is told of the end of every socket. It is away if it was cut off.
func (h *history) dies(s *Socket, rooms []string, entered bool, r Reason) {
	defer close(s.recovery.over)
	sessionID, data := s.SessionID(), s.Data()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.living[s.recovery.pid] == s {
		delete(h.living, s.recovery.pid)
	}
	switch r {
	case ReasonTransportClose, ReasonTransportError, ReasonPingTimeout:
	default:
		return
	}
	if s.revoked() {
		return // it was on its way out already when Revoke looked for it
	}
	g := &ghost{
		pid: s.recovery.pid, mark: s.recovery.mark, id: s.id, identity: s.Identity(), sessionID: sessionID,
		rooms: make(map[string]uint64, len(rooms)), data: data, from: s.recovery.from, gone: h.last,
		until: time.Now().Add(h.n.srv.cfg.Recovery.Window),
	}
	for _, room := range rooms {
		g.rooms[room] = g.gone
	}
	if !entered || h.n.srv.kept.Load()+g.size() > h.n.srv.cfg.Recovery.Total {
		return
	}
	h.n.srv.kept.Add(g.size())
	if h.away == nil {
		h.away = make(map[string]*ghost)
	}
	h.away[g.pid] = g
	g.place = h.leave.PushBack(g)
	h.n.stay()
	h.watchLocked()
}

func (h *history) buryLocked(g *ghost) {
	delete(h.away, g.pid)
	h.leave.Remove(g.place)
	h.n.srv.kept.Add(-g.size())
	h.n.leave()
}

// admit puts a socket that was let in into the namespace: as the one that its
// client asks for, if it may have that, or else as a new one. It reports false if
// what adm has found was ended meanwhile.
func (h *history) admit(s *Socket, adm *admission) bool {
	h.mu.Lock()
	old := h.living[s.recovery.asked]
	h.mu.Unlock()
	sessionID := s.SessionID()
	if old != nil && h.mayHave(s.Identity(), sessionID, old.Identity(), old.SessionID()) {
		// It was cut off, and nobody has noticed yet.
		old.link.(*sioSocket).conn.session.Close(engine.Cause{Reason: engine.ReasonTransportClose})
		select {
		case <-old.recovery.over:
		case <-s.Context().Done():
		}
	}

	h.order.Lock()
	defer h.order.Unlock()
	h.mu.Lock()
	g, missed := h.findLocked(s, sessionID)
	if g != nil {
		h.buryLocked(g)
	}
	h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return true
	}
	if g != nil {
		s.id, s.data = g.id, g.data
		s.recovery.pid, s.recovery.mark, s.recovery.from, s.recovery.recovered = g.pid, g.mark, g.from, true
		for room := range g.rooms {
			if h.n.rooms.Add(room, s) {
				s.rooms = append(s.rooms, room)
			}
		}
		s.held = append(missed, s.held...)
		for _, f := range missed {
			s.heldBytes += f.Len()
		}
	}
	h.lives(s)
	return s.appearLocked(adm)
}

// findLocked returns what s asks for and what it has missed, if s may have it.
func (h *history) findLocked(s *Socket, sessionID string) (*ghost, []engine.Frame) {
	g := h.away[s.recovery.asked]
	if g == nil || !time.Now().Before(g.until) || !h.mayHave(s.Identity(), sessionID, g.identity, g.sessionID) {
		return nil, nil
	}
	seen := g.from
	if s.recovery.offset != "" {
		var err error
		if seen, err = strconv.ParseUint(s.recovery.offset, 36, 64); err != nil || seen > h.last {
			return nil, nil
		}
	}
	if seen < h.floor {
		return nil, nil // it may have missed what is not kept any more
	}
	var missed []engine.Frame
	var away []*keptEvent
	cfg := &h.n.srv.cfg.Recovery
	packets, size := 0, 0
	for at := h.events.Back(); at != nil; at = at.Prev() {
		e := at.Value.(*keptEvent)
		if e.number <= seen {
			break
		}
		there := slices.Contains(e.to, g.mark)
		if !there && !e.reaches(g) {
			continue
		}
		if !there {
			away = append(away, e)
		}
		for _, f := range slices.Backward(e.frames) {
			missed = append(missed, f)
			size += f.Len()
		}
		if packets++; packets > cfg.Packets || size > cfg.Bytes {
			return nil, nil
		}
	}
	slices.Reverse(missed)
	for _, e := range away {
		// From now on it is one who was there: it may be cut off again before it
		// has read this.
		e.to = append(e.to, g.mark)
		h.n.srv.kept.Add(8)
	}
	return g, missed
}

// mayHave reports whether who is id now, with a session, may have what was that
// of another. A recovered socket never outlives its login: the session that it
// hung on must not have ended, unless by a login that the new one comes from.
func (h *history) mayHave(id *Identity, sessionID string, was *Identity, session string) bool {
	ended := &h.n.srv.ended
	switch {
	case !id.sameRights(was) || ended.has(sessionID):
		return false
	case ended.has(session):
		return ended.successor(session) == sessionID
	}
	return id != nil || session == sessionID // two nobodies are not the same
}

// reaches reports whether an event was for g while it was away.
func (e *keptEvent) reaches(g *ghost) bool {
	return !e.one && e.number > g.gone && e.self != g.mark && e.op.selectsGhost(g, e.number)
}

// selectsGhost reports whether o selects g at the time of an event.
func (o Op) selectsGhost(g *ghost, number uint64) bool {
	in := func(room string) bool {
		since, ok := g.rooms[room]
		return room == g.id || ok && since < number
	}
	switch {
	case o.none:
		return false
	case o.toUser && (g.identity == nil || g.identity.UserID != o.user):
		return false
	case len(o.rooms) > 0 && !slices.ContainsFunc(o.rooms, in):
		return false
	}
	return !slices.ContainsFunc(o.except, in)
}

// ghosts calls f for everybody away whom o selects, with mu held.
func (o Op) ghosts(f func(h *history, g *ghost)) {
	if o.ns.srv.cfg.Recovery.Window == 0 {
		return
	}
	for _, n := range o.ns.here() {
		h := n.history
		h.mu.Lock()
		for _, g := range h.away {
			if o.selectsGhost(g, h.last+1) {
				f(h, g)
			}
		}
		h.mu.Unlock()
	}
}

// sameRights reports whether id may have what was another's: the same user with
// the same roles.
func (id *Identity) sameRights(other *Identity) bool {
	if id == nil || other == nil {
		return id == other
	}
	return id.UserID == other.UserID && id.Provider == other.Provider && slices.Equal(id.Roles, other.Roles)
}
