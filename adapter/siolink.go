package adapter

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// A sioSocket is a socket and its link to the connection.
type sioSocket struct {
	socket Socket
	conn   *sioConn

	// Guarded by conn.mu.
	paused bool
	own    bool // it shows, or has shown, a credential of its own
}

func (s *sioSocket) pending() *pending { return s.conn.waits.Load() }

func (s *sioSocket) proven() {
	s.conn.mu.Lock()
	s.own = true
	s.conn.mu.Unlock()
	s.conn.inUse()
}

// inUse ends the connection's wait: one of its sockets has been let in. Others that
// wait end by themselves.
func (conn *sioConn) inUse() {
	if waits := conn.waits.Swap(nil); waits != nil {
		waits.prove()
		conn.session.Limit(0)
	}
}

func (s *sioSocket) encode(m *message) ([]engine.Frame, error) {
	if m.sio == nil {
		if err := m.encodeArgs(); err != nil {
			return nil, err
		}
	}
	return m.socketIO(), nil
}

// encodeArgs writes the event and its arguments as Socket.IO has them. It may
// run the app's own code.
func (m *message) encodeArgs() (err error) {
	if m.data == nil {
		if m.data, m.attachments, err = sio.EncodeArgs(append([]any{m.event}, m.args...)...); err != nil {
			return fmt.Errorf("adapter: emit %q: %w", m.event, err)
		}
	}
	return nil
}

// socketIO returns m, whose arguments are encoded, in Socket.IO's format. An
// offset goes behind the arguments, where clients look for it.
func (m *message) socketIO() []engine.Frame {
	if m.sio == nil {
		data := m.data
		if m.offset != "" {
			data = append(slices.Clip(data[:len(data)-1]), `,"`+m.offset+`"]`...)
		}
		// What EncodeArgs has made can be written in every format.
		frames, _ := m.ns.srv.cfg.Parser.frames(sio.Packet{
			Type: sio.Event, Namespace: m.ns.name, ID: m.id, HasID: m.id != 0, Data: data,
		}, m.attachments...)
		m.sio = m.built(frames)
	}
	return m.sio
}

func (s *sioSocket) send(frames []engine.Frame, volatile bool) error {
	if volatile {
		return s.conn.session.SendVolatile(frames...)
	}
	return s.conn.session.Send(frames...)
}

func (s *sioSocket) connected() {
	s.conn.inUse()
	s.granted()
}

func (s *sioSocket) granted() {
	pid := ""
	if r := s.socket.recovery; r != nil {
		pid = r.pid
	}
	_ = s.conn.send(sio.Granted(s.conn.version(), s.socket.ns.name, s.socket.id, pid))
}

func (s *sioSocket) refuse(e *Error) {
	if _, ok := s.conn.drop(s); ok {
		s.conn.refuse(s.socket.ns.name, e.Message, e.json())
		s.conn.connectBy()
		if !e.undecided() {
			s.pending().failed()
		}
	}
	s.socket.ended(ReasonRefused)
}

func (s *sioSocket) reply(in incoming, out any) error {
	return s.ack(in, argsOf(out))
}

func (s *sioSocket) ack(in incoming, args []any) error {
	data, attachments, err := sio.EncodeArgs(args...)
	if err != nil {
		return fmt.Errorf("adapter: encode the answer to %q: %w", in.event, err)
	}
	id, err := strconv.ParseUint(string(in.id), 10, 64)
	if err != nil {
		return err
	}
	_ = s.conn.send(sio.Packet{
		Type: sio.Ack, Namespace: s.socket.ns.name, ID: id, HasID: true, Data: data,
	}, attachments...)
	return nil
}

// fail answers with {"error":…}: acknowledgements have no errors of their own.
// What wanted no answer becomes an event "error".
func (s *sioSocket) fail(in incoming, e *Error) {
	if in.id != nil {
		_ = s.ack(in, []any{map[string]json.RawMessage{"error": e.json()}})
		return
	}
	data, _, err := sio.EncodeArgs("error", map[string]any{"event": shortName(in.event), "error": json.RawMessage(e.json())})
	if err != nil {
		return
	}
	_ = s.conn.send(sio.Packet{Type: sio.Event, Namespace: s.socket.ns.name, Data: data})
}

// close ends the socket, and the connection with the last of its sockets.
// After a DISCONNECT packet a client does not connect again by itself; after
// the end of a connection it does, which is right for what passes.
func (s *sioSocket) close(r Reason) {
	switch r {
	case ReasonShutdown, ReasonStale, ReasonSlow, ReasonParse:
		s.conn.session.Close(causeOf(r))
		return
	}
	left, ok := s.conn.drop(s)
	if !ok {
		return // it is over, or about to be
	}
	_ = s.conn.send(sio.Packet{Type: sio.Disconnect, Namespace: s.socket.ns.name})
	s.socket.ended(r)
	if left == 0 {
		s.conn.end(causeOf(r))
	}
}

// pause and resume call the session under the lock: what it is told last has to
// be what was counted last.
func (s *sioSocket) pause() {
	conn := s.conn
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if s.paused || conn.sockets[s.socket.ns.name] != s {
		return
	}
	s.paused = true
	if conn.paused++; conn.paused == 1 {
		conn.session.Pause()
	}
}

func (s *sioSocket) resume() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.resumeLocked()
}

func (s *sioSocket) resumeLocked() {
	if !s.paused {
		return
	}
	s.paused = false
	if s.conn.paused--; s.conn.paused == 0 {
		s.conn.session.Resume()
	}
}
