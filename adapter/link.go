package adapter

import (
	"encoding/json"
	"fmt"

	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// A link carries one socket over a connection, in the connection's format. No
// method waits for the peer, except reply and fail, which the dispatcher calls.
type link interface {
	// encode returns m in the link's format, built once for all who get it.
	encode(m *message) ([]engine.Frame, error)
	// send queues frames that belong together; volatile ones are dropped if
	// something waits.
	send(frames []engine.Frame, volatile bool) error
	// connected tells the peer that the socket is open, refuse that it is not.
	connected()
	refuse(e *Error)
	// reply answers an event with what its handler returned, fail with an error.
	reply(in incoming, out any) error
	fail(in incoming, e *Error)
	// close ends the socket. The first reason counts.
	close(r Reason)
	// pending is the connection's wait to be authenticated; nil if there is none.
	// proven ends it: the socket has shown a credential of its own.
	pending() *pending
	proven()
	// pause and resume stop and start reading.
	pause()
	resume()
}

// incoming is an event from a client.
type incoming struct {
	event       string
	id          json.RawMessage // nil where no answer is wanted
	args        []json.RawMessage
	attachments [][]byte // binary that placeholders in args stand for
	packed      bool     // the format has room for one argument: several come as an array
}

func (in incoming) size() (n int) {
	for _, a := range in.args {
		n += len(a)
	}
	for _, a := range in.attachments {
		n += len(a)
	}
	return n
}

// A message is an event on its way out. Each format is built when the first
// socket of that format is met, and shared by all. One goroutine uses it.
type message struct {
	ns    *Namespace
	event string
	args  []any
	id    uint64 // where an acknowledgement is wanted
	raw   bool   // not to be compressed
	plain []engine.Frame
	sio   []engine.Frame

	data        []byte // event and args as Socket.IO has them
	attachments [][]byte
	offset      string // the event's number, where clients are recovered

	elsewhere map[string]*message // the same in other namespaces of a pattern
}

func newMessage(n *Namespace, event string, args []any) (*message, error) {
	if event == "" || n.srv.reserved(event) {
		return nil, fmt.Errorf("adapter: emit: expected the name of an event, got %q, which belongs to the protocol", event)
	}
	return &message{ns: n, event: event, args: args}, nil
}

// in returns m for a socket of n: in Socket.IO's format the namespace is part of
// the packet.
func (m *message) in(n *Namespace) *message {
	if m.ns == n || m.ns.name == n.name {
		return m
	}
	there := m.elsewhere[n.name]
	if there == nil {
		if m.elsewhere == nil {
			m.elsewhere = make(map[string]*message)
		}
		there = &message{ns: n, event: m.event, args: m.args, id: m.id, raw: m.raw, plain: m.plain, data: m.data, attachments: m.attachments}
		m.elsewhere[n.name] = there
	}
	return there
}

// lacks reports which formats have not been encoded and are needed for the
// targets, or, if it is kept, for who comes back.
func (m *message) lacks(targets []*Socket, kept bool) (plain, sio bool) {
	for _, s := range targets {
		if _, is := s.link.(*plainConn); is {
			plain = true
		} else {
			kept = true
		}
	}
	return plain && m.plain == nil, kept && m.data == nil
}

// prepare encodes m in the formats that are asked for.
func (m *message) prepare(plain, sio bool) error {
	if plain {
		if err := m.encodePlain(); err != nil {
			return err
		}
	}
	if sio {
		return m.encodeArgs()
	}
	return nil
}

// decodeArgs gives m, if it has come from another node, its arguments as values:
// what JSON makes of them, and bytes.
func (m *message) decodeArgs() {
	if m.args != nil || m.data == nil {
		return
	}
	for _, raw := range sio.SplitArgs(m.data)[1:] {
		var v any
		_ = sio.Bind(raw, m.attachments, &v) // it was checked
		m.args = append(m.args, v)
	}
}

// built is what encode does last with the frames of a format.
func (m *message) built(frames []engine.Frame) []engine.Frame {
	if m.raw {
		for _, f := range frames {
			f.Uncompressed()
		}
	}
	return frames
}
