package adapter

import (
	"net/http"
	"time"
)

// Left counts what the server still keeps of sockets and sessions, and of the
// given rooms and users.
func (s *Server) Left(rooms, users []string) map[string]int {
	left := make(map[string]int)
	note := func(what string, n int) {
		if n > 0 {
			left[what] += n
		}
	}
	s.follow.mu.Lock()
	note("bindings", len(s.follow.bindings))
	note("other sessions", len(s.follow.others.of)+len(s.follow.others.bindings))
	note("queue", len(s.follow.queue))
	note("runners", s.follow.runners)
	note("hashed sessions", len(s.follow.hashed))
	s.follow.mu.Unlock()
	if c := s.cluster; c != nil {
		c.mu.Lock()
		note("inboxes", len(c.inboxes))
		note("bytes in inboxes", c.inBytes)
		note("requests", len(c.requests))
		note("requests of others", len(c.serving))
		c.mu.Unlock()
	}
	s.rolling.mu.Lock()
	note("touched sessions", len(s.rolling.touched))
	s.rolling.mu.Unlock()
	s.locks.mu.Lock()
	note("locks", len(s.locks.held))
	s.locks.mu.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	note("clients", len(s.clients))
	for name, n := range s.namespaces {
		note("sockets of "+name, len(n.all()))
		for _, r := range rooms {
			note("room "+r+" of "+name, n.rooms.Len(r))
		}
		for _, u := range users {
			note("user "+u+" of "+name, n.users.Len(u))
		}
	}
	return left
}

// Open returns how many sockets are open.
func (s *Server) Open() int { return len(s.sockets()) }

// RequestAgain returns r as a replay would see it.
func RequestAgain(r *http.Request, answer http.Header) (*http.Request, error) {
	h, err := record(r)
	if err != nil {
		return nil, err
	}
	return h.answered(r.URL.Path, r.Host, answer).parse(r.Context())
}

type closeLink struct {
	link
	closed chan Reason
}

func (l closeLink) close(r Reason) { l.closed <- r }

// HangReplay makes a socket whose replay began the given time ago and has not
// ended, lets its timer fire, and returns why the socket was closed, if it was.
func HangReplay(s *Server, ago time.Duration) (r Reason, closed bool) {
	s.follow.began = time.Now().Add(-ago)
	l := closeLink{closed: make(chan Reason, 1)}
	b := &binding{f: &s.follow, queued: true, running: true, sockets: []*Socket{{ns: s.Namespace, link: l}}}
	b.Expired(time.Now())
	s.eng.Wheel().Stop(&b.timer)
	select {
	case r := <-l.closed:
		return r, true
	default:
		return "", false
	}
}

// MatchPattern matches a name with a pattern.
func MatchPattern(name, with string) (params map[string]string, ok bool, err error) {
	p, err := parsePattern(name)
	if err != nil {
		return nil, false, err
	}
	params, ok = p.match(with)
	return params, ok, nil
}

// Here returns the sockets of a namespace.
func (s *Server) Here(name string) []*Socket { return Op{ns: s.Of(name)}.selectInto(nil) }

// Made returns the namespaces that patterns have made.
func (s *Server) Made() (names []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, n := range s.namespaces {
		if n.pattern != nil {
			names = append(names, name)
		}
	}
	return names
}

// Settle waits for the last turns of sockets that have ended.
func (s *Server) Settle() { s.live.Wait() }

// Kept returns how many bytes are kept for recovery.
func (s *Server) Kept() int64 { return s.kept.Load() }

// Ghosts returns how many sockets of "/" are away.
func (s *Server) Ghosts() int {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	return len(s.history.away)
}

// KeepGhost makes a socket that was in rooms and is cut off.
func (s *Server) KeepGhost(rooms ...string) {
	sock := &Socket{ns: s.Namespace, id: randomID(), recovery: s.recoverable(nil)}
	s.history.dies(sock, rooms, true, ReasonTransportClose)
}

// HashOf is the hash of a user, session, token or provider in an Ending.
func HashOf(kind, value string) [32]byte { return hashOf(by(kind), value) }

// Saves returns how many changes the server has counted for handshakes in
// flight.
func (s *Server) Changes() uint64 { return s.follow.changeCount() }

// KeepGhostOf makes a socket of a user that is cut off.
func (s *Server) KeepGhostOf(user string) {
	sock := &Socket{ns: s.Namespace, id: randomID(), recovery: s.recoverable(nil)}
	sock.identity.Store(&Identity{UserID: user})
	s.history.dies(sock, nil, true, ReasonTransportClose)
}

// ParseEnding reads a line of an endings file, AppendEnding writes one.
func ParseEnding(line []byte) (e Ending, ok bool)  { return parseEnding(line) }
func AppendEnding(b []byte, e Ending) (all []byte) { return appendEnding(b, e) }

// OpenOf returns how many sockets of a user are open in "/".
func (s *Server) OpenOf(user string) int { return s.users.Len(user) }

// AtRest reports whether the socket has ended and its last turn is over.
func (s *Socket) AtRest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed && !s.dispatching
}
