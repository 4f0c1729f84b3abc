package adapter

import (
	"errors"
	"slices"
	"sync"

	"github.com/gin-usher/usher/adapter/backplane"
)

// An Op selects sockets and then does something to all of them. It is a value:
// each step returns a new one, so a selection may be kept and refined.
type Op struct {
	ns       *Namespace
	rooms    []string
	none     bool // To was given no rooms: nobody is selected
	except   []string
	user     string
	toUser   bool
	self     *Socket // left out
	volatile bool
	raw      bool // not to be compressed
	local    bool // on this node only
}

// To adds rooms, or ids of sockets. Without any, and none before, it selects
// nobody: a list that turns out to be empty must not become everybody.
func (o Op) To(rooms ...string) Op {
	o.rooms = append(slices.Clip(o.rooms), rooms...)
	o.none = len(o.rooms) == 0
	return o
}

// In is To.
func (o Op) In(rooms ...string) Op { return o.To(rooms...) }

// Except leaves out everyone in any of the rooms, or of those ids.
func (o Op) Except(rooms ...string) Op {
	o.except = append(slices.Clip(o.except), rooms...)
	return o
}

// Volatile lets the event be dropped for sockets that still have something to
// read: for what is worthless a moment later.
func (o Op) Volatile() Op {
	o.volatile = true
	return o
}

// Compress says whether the event may be compressed, where Config lets polls
// or WebSockets be. It may unless Compress(false) says that it is not worth it:
// an image, say, or that it must not be, because its length would tell what is
// in it.
func (o Op) Compress(on bool) Op {
	o.raw = !on
	return o
}

// Local leaves out the sockets of other nodes. Where there are none it changes
// nothing.
func (o Op) Local() Op {
	o.local = true
	return o
}

// cluster is where other nodes are told of o; nil if nowhere.
func (o Op) cluster() *cluster {
	if o.local || o.none {
		return nil
	}
	return o.ns.srv.cluster
}

// Emit sends an event to the selected sockets and returns. It fails only if
// the event cannot be encoded; delivery is not confirmed. One argument is the
// event's data, several are an array.
func (o Op) Emit(event string, args ...any) error {
	m, err := newMessage(o.ns, event, args)
	if err != nil {
		return err
	}
	m.raw = o.raw
	if c := o.cluster(); c != nil {
		if err := c.emit(o, m); err != nil {
			return err
		}
	}
	return o.emitHere(m)
}

// emitHere is Emit on this node.
func (o Op) emitHere(m *message) (err error) {
	if o.ns.parts == nil && o.ns.pattern == nil {
		return o.emitIn(o.ns, m)
	}
	for _, n := range o.ns.here() {
		if e := o.emitIn(n, m.in(n)); e != nil {
			err = e
		}
	}
	return err
}

// emitIn is Emit in one namespace.
func (o Op) emitIn(n *Namespace, m *message) error {
	targets := targetPool.Get().(*[]*Socket)
	defer targetPool.Put(targets)
	var err error
	if n.history != nil {
		err = n.history.emit(m, o, targets)
	} else {
		*targets = o.selectIn(n, (*targets)[:0])
		err = queueAll(m, *targets, o.volatile)
	}
	if len(n.onOutgoing) > 0 && err == nil {
		m.decodeArgs()
		for _, s := range *targets {
			s.tap(m)
		}
	}
	clear(*targets)
	return err
}

var targetPool = sync.Pool{New: func() any { return new([]*Socket) }}

// queueAll queues m for each of the targets. One that is closing gets nothing.
func queueAll(m *message, targets []*Socket, volatile bool) (err error) {
	for _, s := range targets {
		if e := s.queue(m, volatile); e != nil && !errors.Is(e, ErrClosed) {
			err = e // it cannot be encoded
		}
	}
	return err
}

// Join puts the selected sockets into rooms.
func (o Op) Join(rooms ...string) {
	if c := o.cluster(); c != nil {
		c.tell(o, &backplane.Message{Kind: backplane.Join, Rooms: rooms})
	}
	for _, s := range o.selectInto(nil) {
		_ = s.Join(rooms...)
	}
	o.ghosts(func(h *history, g *ghost) {
		for _, r := range rooms {
			if _, in := g.rooms[r]; !in {
				g.rooms[r] = h.last
			}
		}
	})
}

// Leave takes the selected sockets out of rooms.
func (o Op) Leave(rooms ...string) {
	if c := o.cluster(); c != nil {
		c.tell(o, &backplane.Message{Kind: backplane.Leave, Rooms: rooms})
	}
	for _, s := range o.selectInto(nil) {
		_ = s.Leave(rooms...)
	}
	// Who is sent away must not come back by being recovered.
	o.ghosts(func(_ *history, g *ghost) {
		for _, r := range rooms {
			delete(g.rooms, r)
		}
	})
}

// Disconnect ends the selected sockets.
func (o Op) Disconnect() {
	if c := o.cluster(); c != nil {
		c.tell(o, &backplane.Message{Kind: backplane.Disconnect})
	}
	for _, s := range o.selectInto(nil) {
		_ = s.Disconnect()
	}
	o.ghosts(func(h *history, g *ghost) { h.buryLocked(g) })
}

// selectInto puts the selected sockets into dst, which is empty, each once.
func (o Op) selectInto(dst []*Socket) []*Socket {
	if o.ns.parts == nil && o.ns.pattern == nil {
		return o.selectIn(o.ns, dst)
	}
	for _, n := range o.ns.here() {
		dst = append(dst, o.selectIn(n, nil)...)
	}
	return dst
}

// selectIn is selectInto for one namespace.
func (o Op) selectIn(n *Namespace, dst []*Socket) []*Socket {
	switch {
	case o.none:
		return dst
	case o.toUser:
		dst = n.users.Select(dst, []string{o.user}, nil)
		if len(o.rooms) > 0 {
			dst = slices.DeleteFunc(dst, func(s *Socket) bool {
				return !slices.ContainsFunc(o.rooms, func(r string) bool { return n.rooms.In(r, s) || r == s.id })
			})
		}
		dst = n.dropExcept(dst, o.except)
	case len(o.rooms) == 0:
		dst = n.dropExcept(append(dst, n.all()...), o.except)
	default:
		dst = n.rooms.Select(dst, o.rooms, o.except)
		for _, r := range o.rooms {
			// Every socket is reachable by its id, like a room of its own.
			if s := n.socket(r); s != nil && !slices.Contains(dst, s) {
				dst = append(dst, s)
			}
		}
		dst = n.dropExcept(dst, n.ids(o.except))
	}
	if o.self != nil {
		if i := slices.Index(dst, o.self); i >= 0 {
			dst = slices.Delete(dst, i, i+1)
		}
	}
	return dst
}

// ids returns those of names that are ids of sockets.
func (n *Namespace) ids(names []string) (ids []string) {
	for _, name := range names {
		if n.socket(name) != nil {
			ids = append(ids, name)
		}
	}
	return ids
}

func (n *Namespace) dropExcept(dst []*Socket, except []string) []*Socket {
	if len(except) == 0 {
		return dst
	}
	return slices.DeleteFunc(dst, func(s *Socket) bool {
		return slices.ContainsFunc(except, func(r string) bool { return r == s.id || n.rooms.In(r, s) })
	})
}
