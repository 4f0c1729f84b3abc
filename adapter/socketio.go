package adapter

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// A sioConn is a Socket.IO connection: an Engine.IO session and the sockets
// that it carries, one for each namespace the client has asked for.
type sioConn struct {
	srv     *Server
	id      string // Engine.IO's sid, which clients send with every request
	session *engine.Session
	timer   engine.Timer // until the first namespace is asked for

	// Messages come one at a time, but a POST may still be at it when the
	// WebSocket of a hostile client takes over.
	reading sync.Mutex
	in      sio.Assembler

	waits atomic.Pointer[pending] // to be authenticated

	mu      sync.Mutex
	adm     *admission
	sockets map[string]*sioSocket // by namespace
	paused  int                   // sockets whose inbox is full
	asked   bool                  // for a namespace, at least once
	ending  *engine.Cause         // the server has ended the last socket
	closed  bool
}

// A sioSocket is a socket and its link to the connection.
type sioSocket struct {
	socket Socket
	conn   *sioConn

	// Guarded by conn.mu.
	paused bool
	own    bool // it has shown a credential of its own
}

// Receive takes one message from the reader.
func (conn *sioConn) Receive(binary bool, data []byte) engine.Task {
	if !conn.waits.Load().hears(len(data)) {
		return nil
	}
	conn.reading.Lock()
	defer conn.reading.Unlock()
	m, ok, err := conn.srv.cfg.Parser.receive(&conn.in, binary, data)
	if err == nil && ok {
		var task engine.Task
		if task, err = conn.handle(m); err == nil {
			return task
		}
	}
	if err != nil {
		conn.session.Close(engine.Cause{Reason: engine.ReasonParse, Code: websocket.ClosePolicyViolation, Text: "parse error", Err: err})
	}
	return nil
}

func (conn *sioConn) handle(m sio.Message) (engine.Task, error) {
	if m.Type == sio.Connect {
		return nil, conn.connect(m.Namespace, m.Data)
	}
	conn.mu.Lock()
	s, asked := conn.sockets[m.Namespace], conn.asked
	conn.mu.Unlock()
	switch {
	case !asked:
		return nil, fmt.Errorf("expected a CONNECT first, got %v", m.Type)
	case s == nil:
		return nil, nil // it may have been ended while this was on its way
	}
	switch m.Type {
	case sio.Disconnect:
		conn.drop(s)
		s.socket.ended(ReasonClient)
		conn.connectBy()
		return nil, nil
	case sio.Event:
		name, args, err := sio.SplitEvent(m.Data)
		if err != nil {
			return nil, err
		}
		in := incoming{event: name, args: args, attachments: m.Binary}
		if m.HasID {
			in.id = strconv.AppendUint(nil, m.ID, 10)
		}
		return s.socket.receive(in), nil
	case sio.Ack:
		s.socket.answered(m.ID, answer{args: sio.SplitArgs(m.Data), attachments: m.Binary})
		return nil, nil
	}
	return nil, fmt.Errorf("expected an event, got %v", m.Type)
}

// maxSockets bounds the namespaces of one connection: clients can make as many
// names as they like for a pattern.
const maxSockets = 100

// maxAuth bounds, in bytes, the payload of a CONNECT, which is kept.
const maxAuth = 16 << 10

// connect makes the socket of a namespace. Whether it is let in is asked in its
// first turn, off the reader.
func (conn *sioConn) connect(name string, auth json.RawMessage) error {
	srv := conn.srv
	if !srv.begin() {
		return nil // the connection is about to be closed
	}
	defer srv.handshakes.Done()
	name, query := conn.splitQuery(name)
	ns := srv.enter(name)
	if ns == nil {
		conn.refuse(name, sio.InvalidNamespace, nil)
		return nil
	}
	if len(auth) > maxAuth {
		ns.leave()
		conn.refuse(name, fmt.Sprintf("expected at most %d bytes of auth, got %d", maxAuth, len(auth)), nil)
		return nil
	}
	s := &sioSocket{conn: conn}
	sock := &s.socket
	sock.auth = auth
	if conn.version() == sio.V5 { // clients before that do not know of it
		sock.recovery = ns.recoverable(auth)
	}
	conn.mu.Lock()
	if conn.closed || conn.ending != nil || conn.sockets[name] != nil {
		conn.mu.Unlock()
		ns.leave()
		return nil // it is over; or the client asks twice, as some do while they wait
	}
	if len(conn.sockets) >= maxSockets {
		conn.mu.Unlock()
		ns.leave()
		conn.refuse(name, fmt.Sprintf("expected at most %d namespaces at once", maxSockets), nil)
		return nil
	}
	adm := conn.adm
	sock.take(adm)
	sock.setQuery(query)
	sock.ns, sock.id, sock.link = ns, randomID(), s
	if conn.sockets == nil {
		conn.sockets = make(map[string]*sioSocket, 1)
	}
	conn.sockets[name] = s
	conn.asked = true
	srv.eng.Wheel().Stop(&conn.timer)
	conn.mu.Unlock()

	s.decide(adm)
	return nil
}

// decide opens the socket for who the connection is, or for whom the token in
// its auth names. One that the chain has refused for want of a credential waits,
// where it may show one in a first message.
func (s *sioSocket) decide(adm *admission) {
	srv, sock := s.conn.srv, &s.socket
	token, e := srv.authToken(sock.auth)
	switch {
	case e != nil:
		s.socket.deny(e)
	case token != "":
		sock.identity.Store(nil) // until it is known whom the token names
		sock.start(func(context.Context) error { return sock.askWith(token, adm) })
	case srv.takes(inFirstMessage) && s.mustWait(adm):
		s.wait(adm)
	case adm.refusal != nil:
		s.socket.deny(adm.refusal)
	case srv.over(adm):
		// Before the start: no handler runs for a session that has ended.
		s.socket.deny(&Error{Code: CodeSessionEnded, Message: "this session has ended; connect again"})
	default:
		srv.follow.add(sock, adm)
		if !sock.start(func(context.Context) error { return sock.ask(adm) }) {
			srv.follow.remove(sock)
		}
		if srv.over(adm) {
			s.close(ReasonSessionEnded) // it was, while it was bound
		}
	}
}

// mustWait reports whether somebody has to be named first. A connection that is
// in use does not wait: it is not to be closed for a socket that is not let in.
func (s *sioSocket) mustWait(adm *admission) bool {
	if adm.refusal != nil {
		return s.pending() != nil
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return adm.identity == nil && !s.socket.ns.anonymous && len(s.conn.sockets) == 1
}

// wait grants the namespace to a socket that is nobody's yet, so that its client
// can send a first message.
func (s *sioSocket) wait(adm *admission) {
	conn := s.conn
	if conn.waits.Load() == nil {
		if e := conn.mustShow(adm); e != nil {
			s.socket.deny(e)
			return
		}
	}
	conn.mu.Lock()
	full := len(conn.sockets) > pendingSockets
	conn.mu.Unlock()
	if full {
		s.socket.deny(&Error{Code: CodeUnauthenticated, Message: "authenticate first"})
		return
	}
	s.socket.mu.Lock()
	s.socket.greeted = true
	s.socket.mu.Unlock()
	s.socket.waiting.Store(true)
	s.connected()
}

// mustShow lets the connection wait for a credential.
func (conn *sioConn) mustShow(adm *admission) *Error {
	waits, e := conn.srv.lobby.enter(adm.address, conn.srv.cfg.AuthTimeout, conn.session.Close)
	if e != nil {
		return e
	}
	conn.waits.Store(waits)
	conn.session.Limit(pendingInput)
	return nil
}

func (s *sioSocket) pending() *pending { return s.conn.waits.Load() }

func (s *sioSocket) proven() {
	s.conn.mu.Lock()
	s.own = true
	s.conn.mu.Unlock()
	if waits := s.conn.waits.Swap(nil); waits != nil {
		waits.leave()
		s.conn.session.Limit(0)
	}
}

// refuse answers a CONNECT with no.
func (conn *sioConn) refuse(namespace, message string, data json.RawMessage) {
	if refused, err := sio.Refused(conn.version(), namespace, message, data); err == nil {
		_ = conn.send(refused)
	}
}

// freshFor is how long what the chain said at the handshake is good for a
// namespace that is asked for later.
const freshFor = time.Second

// ask decides, in the socket's first turn, whether it is let in.
func (s *Socket) ask(adm *admission) error {
	srv := s.ns.srv
	if time.Since(adm.shake.Time()) > freshFor || srv.follow.saveCount() != adm.seen {
		p, o := srv.replay(s)
		switch o {
		case unknown:
			return srv.refusal(p.err)
		case refused:
			return p.refused()
		}
		if old := s.Identity(); old != nil && !old.is(p.identity) {
			return &Error{Code: CodeSessionEnded, Message: "somebody else is logged in now; connect again"}
		}
		s.adopt(p.identity, false) // the guards are asked below
	}
	return s.let()
}

// askWith decides by a token that is for this socket alone.
func (s *Socket) askWith(token string, adm *admission) error {
	srv, p := s.ns.srv, s.link.pending()
	if e := p.try(); e != nil {
		return e
	}
	defer p.tried()
	now, e := srv.present(s.Context(), adm.shake, adm.mount, func(h http.Header) { h.Set("Authorization", "Bearer "+token) })
	if e != nil {
		return e
	}
	s.keys, s.ref = now.keys, now.ref
	s.shake.Store(now.shake)
	s.adopt(now.identity, false)
	srv.follow.add(s, now)
	if s.isClosed() {
		srv.follow.remove(s)
	}
	if srv.over(now) {
		return &Error{Code: CodeSessionEnded, Message: "this session has ended; log in again"}
	}
	if err := s.let(); err != nil {
		return err
	}
	s.link.proven()
	return nil
}

// let asks the namespace whether it lets the socket in as who it is.
func (s *Socket) let() error {
	id := s.Identity()
	if err := s.ns.admits(id); err != nil {
		return err
	}
	return s.ns.guard(&eventContext{Context: s.Context(), socket: s, identity: id}, s)
}

// drop takes a socket off the connection and reports how many are left. It is
// not ok if somebody else has done so.
func (conn *sioConn) drop(s *sioSocket) (left int, ok bool) {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	name := s.socket.ns.name
	if conn.sockets[name] != s {
		return len(conn.sockets), false
	}
	delete(conn.sockets, name)
	s.resumeLocked()
	return len(conn.sockets), true
}

// Closed is told by the engine that the session has ended.
func (conn *sioConn) Closed(c engine.Cause) {
	conn.waits.Load().leave()
	conn.mu.Lock()
	conn.closed = true
	sockets := make([]*sioSocket, 0, len(conn.sockets))
	for _, s := range conn.sockets {
		sockets = append(sockets, s)
	}
	conn.mu.Unlock()
	for _, s := range sockets {
		s.socket.ended(Reason(c.Reason))
	}
	if conn.session.Spent() {
		conn.forget()
		return
	}
	// A client that polls has yet to fetch its last packets.
	conn.srv.eng.Wheel().Set(&conn.timer, time.Now().Add(lastPoll), conn)
}

func (conn *sioConn) forget() {
	conn.srv.mu.Lock()
	defer conn.srv.mu.Unlock()
	delete(conn.srv.clients, conn.id)
}

// lastPoll is how long a closed connection waits for the client's last poll.
const lastPoll = 5 * time.Second

// connectBy closes the connection if it carries no socket and none is asked for
// in time.
func (conn *sioConn) connectBy() {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if len(conn.sockets) == 0 && !conn.closed && conn.ending == nil {
		conn.srv.eng.Wheel().Set(&conn.timer, time.Now().Add(conn.srv.cfg.ConnectTimeout), conn)
	}
}

// Expired is the end of connectBy, or of lastPoll.
func (conn *sioConn) Expired(time.Time) {
	conn.mu.Lock()
	ending, closed, idle := conn.ending, conn.closed, len(conn.sockets) == 0
	conn.mu.Unlock()
	switch {
	case closed:
		conn.forget()
	case ending != nil:
		conn.session.Close(*ending)
	case idle:
		conn.session.Close(engine.Cause{Reason: "connect timeout", Code: closePolicy, Text: "connect timeout"})
	}
}

// send queues a packet and its attachments.
func (conn *sioConn) send(p sio.Packet, attachments ...[]byte) error {
	frames, err := conn.srv.cfg.Parser.frames(p, attachments...)
	if err != nil {
		return err
	}
	return conn.session.Send(frames...)
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
		s.pending().failed()
	}
	s.socket.ended(ReasonRefused)
}

func (s *sioSocket) reply(in incoming, out any) error {
	args := []any{out}
	switch out := out.(type) {
	case nothing:
		args = nil
	case argList:
		args = out.list()
	}
	return s.ack(in, args)
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

// end closes the connection, a moment after the packet that says why: a client
// that gets both at once believes that the connection was lost.
func (conn *sioConn) end(c engine.Cause) {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if conn.closed || conn.ending != nil {
		return
	}
	conn.ending = &c
	conn.srv.eng.Wheel().Set(&conn.timer, time.Now().Add(time.Second), conn)
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
