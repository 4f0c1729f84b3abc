package adapter

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
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

	params gin.Params              // of the path that it was opened at
	waits  atomic.Pointer[pending] // to be authenticated

	mu      sync.Mutex
	adm     *admission
	cookie  *sessionCookie        // of its session, if a socket has changed it
	sockets map[string]*sioSocket // by namespace
	paused  int                   // sockets whose inbox is full
	asked   bool                  // for a namespace, at least once
	ending  *engine.Cause         // the server has ended the last socket
	closed  bool
	behind  bool // the browser has another session cookie than it has shown here

	connects pace // CONNECTs that have come
	rebinds  pace // requests whose credential was refused
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

// maxConnects, and maxRebinds that are refused, within paceWindow are all that one
// connection may send. Each may run the chain, without those of its middlewares that
// limit handshakes.
const (
	maxConnects = 2 * maxSockets // leave all, and come back
	maxRebinds  = 200
	paceWindow  = 10 // seconds
)

// A pace is how many of something have come lately.
type pace struct {
	n     int32
	since int32 // Unix seconds
}

// add counts one more, and returns how many there are.
func (p *pace) add() int32 {
	now := int32(time.Now().Unix())
	if p.lately() == 0 {
		p.n, p.since = 0, now
	}
	p.n++
	return p.n
}

// lately returns how many there are.
func (p *pace) lately() int32 {
	if int32(time.Now().Unix())-p.since > paceWindow {
		return 0
	}
	return p.n
}

// tooManyConnects counts one more.
func (conn *sioConn) tooManyConnects() bool {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	return conn.connects.add() > maxConnects
}

// maxAuth bounds, in bytes, the payload of a CONNECT, which is kept.
const maxAuth = 16 << 10

// connect makes the socket of a namespace. Whether it is let in is asked in its
// first turn, off the reader. An error ends the connection.
func (conn *sioConn) connect(name string, auth json.RawMessage) error {
	srv := conn.srv
	if conn.tooManyConnects() {
		return fmt.Errorf("expected at most %d CONNECTs in %d seconds", maxConnects, paceWindow)
	}
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

// refuse answers a CONNECT with no.
func (conn *sioConn) refuse(namespace, message string, data json.RawMessage) {
	if refused, err := sio.Refused(conn.version(), namespace, message, data); err == nil {
		_ = conn.send(refused)
	}
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
