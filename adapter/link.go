package adapter

import (
	"encoding/json"

	"github.com/gin-usher/usher/adapter/internal/engine"
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
// socket of that format is met, and shared by all.
type message struct {
	ns    *Namespace
	event string
	args  []any
	id    uint64 // where an acknowledgement is wanted
	raw   bool   // not to be compressed
	plain []engine.Frame
	sio   []engine.Frame
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
