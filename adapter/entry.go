package adapter

import (
	"context"
	"math"
	"net/http"
	"time"
)

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
		// From here on, though it is not known yet whom the token names: guards
		// take their time, and meanwhile the connection may be bound anew.
		s.conn.mu.Lock()
		s.own = true
		s.conn.mu.Unlock()
		sock.identity.Store(nil)
		sock.start(adm, func(context.Context) (*admission, error) { return sock.askWith(token, adm) })
	case srv.takes(inFirstMessage) && s.mustWait(adm):
		s.wait(adm)
	case adm.refusal != nil:
		s.socket.deny(adm.refusal)
	default:
		srv.follow.add(sock, adm)
		if srv.over(adm) {
			// Before the start: no handler runs for a session that has ended.
			s.socket.deny(errOver)
			srv.follow.remove(sock) // its connection may have been lost before it was added
			return
		}
		if !sock.start(adm, func(context.Context) (*admission, error) { return sock.ask(adm) }) {
			srv.follow.remove(sock)
		}
	}
}

// mustWait reports whether somebody has to be named first. On a connection that is
// in use nobody waits for that.
func (s *sioSocket) mustWait(adm *admission) bool {
	if adm.refusal != nil {
		return s.pending() != nil
	}
	if adm.seen == math.MaxUint64 {
		return false // somebody has logged in: see follow
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return adm.identity == nil && !s.socket.ns.anonymous && (len(s.conn.sockets) == 1 || s.pending() != nil)
}

// wait grants the namespace to a socket that is nobody's yet, so that its client
// can send a first message.
func (s *sioSocket) wait(adm *admission) {
	conn, sock := s.conn, &s.socket
	conn.mu.Lock()
	sockets := len(conn.sockets)
	conn.mu.Unlock()
	waits := s.pending()
	if waits == nil && sockets == 1 && adm.refusal == nil {
		if e := conn.mustShow(adm); e != nil {
			sock.deny(e)
			return
		}
	} else if waits == nil || sockets > pendingSockets { // or one has been let in meanwhile
		sock.deny(&Error{Code: CodeUnauthenticated, Message: "authenticate first"})
		return
	}
	sock.waiting.Store(true)
	sock.opening.Store(true)
	sock.mu.Lock()
	sock.greeted = true
	if !sock.closed {
		conn.srv.eng.Wheel().Set(&sock.expiry, time.Now().Add(conn.srv.cfg.AuthTimeout), sock)
	}
	sock.mu.Unlock()
	s.granted()
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

// freshFor is how long what the chain said at the handshake is good for a
// namespace that is asked for later.
const freshFor = time.Second

// errOver refuses a socket whose credential was ended while it came in.
var errOver = &Error{Code: CodeSessionEnded, Message: "this session has ended; connect again"}

// ask decides, in the socket's first turn, whether it is let in, and returns what
// that was decided by.
func (s *Socket) ask(adm *admission) (*admission, error) {
	srv := s.ns.srv
	if time.Since(adm.shake.Time()) > freshFor || srv.follow.missed(s, adm.seen) {
		seen, began := srv.follow.changeCount(), srv.follow.now()
		p, o := srv.replay(s)
		switch o {
		case unknown:
			return nil, srv.refusal(p.err)
		case refused:
			return nil, p.refused()
		}
		if old := s.Identity(); old != nil && !old.is(p.identity) {
			return nil, &Error{Code: CodeSessionEnded, Message: "somebody else is logged in now; connect again"}
		}
		now := p.found()
		now.seen = seen
		if srv.follow.supersede(s, now.sessionID, began) {
			s.adopt(now, false) // the guards are asked below
		}
		now.identity = s.Identity()
		adm = now
	}
	return adm, s.let()
}

// askWith decides by a token that is for this socket alone.
func (s *Socket) askWith(token string, adm *admission) (found *admission, err error) {
	srv, p := s.ns.srv, s.link.pending()
	tried, e := p.try(s.Context())
	if e != nil {
		return nil, e
	}
	defer func() {
		refused, _ := asError(err)
		tried(err != nil && refused.undecided())
	}()
	now, e := srv.present(s.Context(), adm.shake, adm.mount, func(h http.Header) { h.Set("Authorization", "Bearer "+token) })
	if e != nil {
		return nil, e
	}
	s.shake.Store(now.shake)
	s.adopt(now, false)
	srv.follow.add(s, now)
	if s.isClosed() {
		srv.follow.remove(s)
	}
	if srv.over(now) {
		return nil, &Error{Code: CodeSessionEnded, Message: "this session has ended; log in again"}
	}
	if err := s.let(); err != nil {
		return nil, err
	}
	s.link.proven()
	return now, nil
}

// let asks the namespace whether it lets the socket in as who it is.
func (s *Socket) let() error {
	id := s.Identity()
	if err := s.ns.admits(id); err != nil {
		return err
	}
	return s.ns.guard(&eventContext{Context: s.Context(), socket: s, identity: id, keys: s.left()}, s)
}
