package adapter

import (
	"errors"
	"slices"
	"sync"
)

// An Op selects sockets and then does something to all of them. It is a value:
// each step returns a new one, so a selection may be kept and refined.
type Op struct {
	ns       *Namespace
	rooms    []string
	except   []string
	user     string
	toUser   bool
	self     *Socket // left out
	volatile bool
	raw      bool // not to be compressed
}

// To adds rooms, or ids of sockets.
func (o Op) To(rooms ...string) Op {
	o.rooms = append(slices.Clip(o.rooms), rooms...)
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

// Emit sends an event to the selected sockets and returns. It fails only if
// the event cannot be encoded; delivery is not confirmed. One argument is the
// event's data, several are an array.
func (o Op) Emit(event string, args ...any) error {
	m, err := newMessage(o.ns, event, args)
	if err != nil {
		return err
	}
	m.raw = o.raw
	targets := targetPool.Get().(*[]*Socket)
	*targets = o.selectInto((*targets)[:0])
	for i, s := range *targets {
		if e := s.send(m, o.volatile); e != nil && !errors.Is(e, ErrClosed) {
			err = e // it cannot be encoded; one that is closing gets nothing
		}
		(*targets)[i] = nil
	}
	targetPool.Put(targets)
	return err
}

var targetPool = sync.Pool{New: func() any { return new([]*Socket) }}

// Join puts the selected sockets into rooms.
func (o Op) Join(rooms ...string) {
	for _, s := range o.selectInto(nil) {
		_ = s.Join(rooms...)
	}
}

// Leave takes the selected sockets out of rooms.
func (o Op) Leave(rooms ...string) {
	for _, s := range o.selectInto(nil) {
		_ = s.Leave(rooms...)
	}
}

// Disconnect ends the selected sockets.
func (o Op) Disconnect() {
	for _, s := range o.selectInto(nil) {
		_ = s.Disconnect()
	}
}

// selectInto appends the selected sockets to dst, each once.
func (o Op) selectInto(dst []*Socket) []*Socket {
	n := o.ns
	switch {
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
		dst = n.dropExcept(dst, o.ids(o.except))
	}
	if o.self != nil {
		if i := slices.Index(dst, o.self); i >= 0 {
			dst = slices.Delete(dst, i, i+1)
		}
	}
	return dst
}

// ids returns those of names that are ids of sockets.
func (o Op) ids(names []string) (ids []string) {
	for _, name := range names {
		if o.ns.socket(name) != nil {
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
