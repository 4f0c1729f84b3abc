package adapter

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter/internal/eio"
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
	paused bool // guarded by conn.mu
}

// Receive takes one message from the reader.
func (conn *sioConn) Receive(binary bool, data []byte) engine.Task {
	conn.reading.Lock()
	defer conn.reading.Unlock()
	var m sio.Message
	var ok bool
	var err error
	if binary {
		m, ok, err = conn.in.Binary(data)
	} else {
		m, ok, err = conn.in.Text(data)
	}
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
		return nil, conn.connect(m.Namespace)
	}
	conn.mu.Lock()
	s := conn.sockets[m.Namespace]
	conn.mu.Unlock()
	if s == nil {
		return nil, nil // it may have been ended while this was on its way
	}
	switch m.Type {
	case sio.Disconnect:
		conn.drop(s)
		s.socket.ended(ReasonClient)
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

// connect makes the socket of a namespace. Whether it is let in is asked in its
// first turn, off the reader.
func (conn *sioConn) connect(name string) error {
	srv := conn.srv
	if !srv.begin() {
		return nil // the connection is about to be closed
	}
	defer srv.handshakes.Done()
	name, query := conn.splitQuery(name)
	srv.mu.RLock()
	ns := srv.namespaces[name]
	srv.mu.RUnlock()
	if ns == nil {
		refused, err := sio.Refused(conn.version(), name, sio.InvalidNamespace, nil)
		if err != nil {
			return err
		}
		_ = conn.session.Send(packetFrame(refused))
		return nil
	}
	s := &sioSocket{conn: conn}
	sock := &s.socket
	conn.mu.Lock()
	if conn.closed || conn.ending != nil || conn.sockets[name] != nil {
		conn.mu.Unlock()
		return nil // it is over, or the namespace is asked for already
	}
	adm := conn.adm
	sock.take(adm)
	sock.setQuery(query)
	sock.ns, sock.id, sock.link = ns, randomID(), s
	if conn.sockets == nil {
		conn.sockets = make(map[string]*sioSocket, 1)
	}
	conn.sockets[name] = s
	if !conn.asked {
		conn.asked = true
		srv.eng.Wheel().Stop(&conn.timer)
	}
	conn.mu.Unlock()

	srv.follow.add(sock, adm)
	sock.start(func(context.Context) error { return sock.ask(adm) })
	if srv.ended.has(adm.sessionID) {
		s.close(ReasonSessionEnded)
	}
	return nil
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
			if _, e := p.answer(); e != nil {
				return e
			}
			return statusError(p.w.status)
		}
		if old := s.Identity(); old != nil && !old.is(p.identity) {
			return &Error{Code: CodeSessionEnded, Message: "somebody else is logged in now; connect again"}
		}
		s.adopt(p.identity, false) // the guards are asked below
	}
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
	if !conn.session.Polls() {
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

// connectBy closes the connection if no namespace is asked for in time.
func (conn *sioConn) connectBy() {
	conn.mu.Lock()
	asked := conn.asked
	conn.mu.Unlock()
	if !asked {
		conn.srv.eng.Wheel().Set(&conn.timer, time.Now().Add(conn.srv.cfg.ConnectTimeout), conn)
	}
}

// Expired is the end of connectBy, or of lastPoll.
func (conn *sioConn) Expired(time.Time) {
	conn.mu.Lock()
	asked, ending, closed := conn.asked, conn.ending, conn.closed
	conn.mu.Unlock()
	switch {
	case closed:
		conn.forget()
	case ending != nil:
		conn.session.Close(*ending)
	case !asked:
		conn.session.Close(engine.Cause{Reason: "connect timeout", Code: closePolicy, Text: "connect timeout"})
	}
}

// shake is the handshake with the cookies as they are now.
func (conn *sioConn) shake() *Handshake {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	for _, s := range conn.sockets {
		return s.socket.shake.Load() // all of them follow a login together
	}
	return conn.adm.shake
}

func (conn *sioConn) identity() *Identity {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	for _, s := range conn.sockets {
		return s.socket.Identity()
	}
	return conn.adm.identity
}

// owns reports whether a request may use this connection. The sid alone proves
// nothing: it stands in URLs, and URLs end up in logs.
//
// The credential of the handshake passes. A cookie that is missing now does
// not; a token that is missing does, because browsers cannot send one on an
// upgrade, and it is the handshake's that counts. Any other credential is
// asked about: it has to name the same user, or the one that nobody became.
func (conn *sioConn) owns(r *http.Request) bool {
	req, e := conn.srv.moveCredentials(r)
	if e != nil {
		return false
	}
	shake := conn.shake()
	first := shake.Request(context.Background())
	if then, now := first.Header.Get("Origin"), req.Header.Get("Origin"); then != "" && now != "" && then != now {
		return false
	}
	conn.mu.Lock()
	adm := conn.adm
	conn.mu.Unlock()
	token := req.Header.Get("Authorization")
	same := token == adm.token || token == ""
	if adm.ref.store != nil {
		then, now := cookieValue(first, adm.ref.name), cookieValue(req, adm.ref.name)
		if then != "" && now == "" {
			return false
		}
		same = same && then == now
	}
	if same {
		return true
	}
	ctx, cancel := context.WithTimeout(r.Context(), replayTimeout)
	defer cancel()
	p := &pass{srv: conn.srv, mount: adm.mount, req: req.Clone(ctx)}
	p.visit.replay = true
	p.admit = func(context.Context, *Identity) error { return nil }
	if p.run(methodReplay) != admitted {
		return false
	}
	bound := conn.identity()
	return bound == nil || bound.is(p.identity)
}

func cookieValue(r *http.Request, name string) string {
	c, err := r.Cookie(name)
	if err != nil {
		return ""
	}
	return c.Value
}

// packetFrame makes the frame of a packet without attachments.
func packetFrame(p sio.Packet) engine.Frame {
	return engine.Packet(eio.Packet{Type: eio.Message, Data: sio.AppendPacket(nil, p)})
}

// packetFrames makes the frames of a packet and its attachments.
func packetFrames(p sio.Packet, attachments [][]byte) []engine.Frame {
	p.Attachments = len(attachments)
	frames := make([]engine.Frame, 1, 1+len(attachments))
	frames[0] = packetFrame(p)
	for _, a := range attachments {
		frames = append(frames, engine.Packet(eio.Packet{Type: eio.Message, Binary: true, Data: a}))
	}
	return frames
}

func (s *sioSocket) encode(m *message) ([]engine.Frame, error) {
	if m.sio == nil {
		data, attachments, err := sio.EncodeArgs(append([]any{m.event}, m.args...)...)
		if err != nil {
			return nil, fmt.Errorf("adapter: emit %q: %w", m.event, err)
		}
		m.sio = packetFrames(sio.Packet{
			Type: sio.Event, Namespace: m.ns.name, ID: m.id, HasID: m.id != 0, Data: data,
		}, attachments)
	}
	return m.sio, nil
}

func (s *sioSocket) send(frames []engine.Frame, volatile bool) error {
	if volatile {
		return s.conn.session.SendVolatile(frames...)
	}
	return s.conn.session.Send(frames...)
}

func (s *sioSocket) connected() {
	_ = s.conn.session.Send(packetFrame(sio.Granted(s.conn.version(), s.socket.ns.name, s.socket.id, "")))
}

func (s *sioSocket) refuse(e *Error) {
	if _, ok := s.conn.drop(s); ok {
		if refused, err := sio.Refused(s.conn.version(), s.socket.ns.name, e.Message, e.json()); err == nil {
			_ = s.conn.session.Send(packetFrame(refused))
		}
	}
	s.socket.ended(ReasonRefused)
}

func (s *sioSocket) reply(in incoming, out any) error {
	args := []any{out}
	if _, none := out.(nothing); none {
		args = nil
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
	_ = s.conn.session.Send(packetFrames(sio.Packet{
		Type: sio.Ack, Namespace: s.socket.ns.name, ID: id, HasID: true, Data: data,
	}, attachments)...)
	return nil
}

// fail answers with {"error":…}: acknowledgements have no errors of their own.
// What wanted no answer becomes an event "error".
func (s *sioSocket) fail(in incoming, e *Error) {
	if in.id != nil {
		_ = s.ack(in, []any{map[string]json.RawMessage{"error": e.json()}})
		return
	}
	data, _, err := sio.EncodeArgs("error", map[string]any{"event": in.event, "error": json.RawMessage(e.json())})
	if err != nil {
		return
	}
	_ = s.conn.session.Send(packetFrame(sio.Packet{Type: sio.Event, Namespace: s.socket.ns.name, Data: data}))
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
	_ = s.conn.session.Send(packetFrame(sio.Packet{Type: sio.Disconnect, Namespace: s.socket.ns.name}))
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
