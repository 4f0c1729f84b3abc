package engine

import (
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter/internal/eio"
)

// noopDelay is how long a poll is held on after a probe. A client that gets
// its noop earlier counts a packet too many: it may still be opening the poll
// that it expects to be answered.
const noopDelay = 100 * time.Millisecond

// A carrier is a WebSocket that carries a session, or asks to. It is the
// handler of its Conn.
type carrier struct {
	s     *Session
	timer Timer // the noop that ends the last poll, then the end of patience

	mu      sync.Mutex
	conn    *Conn
	probed  time.Time // when the probe was answered; zero before
	refused bool
}

// OpenWebSocket answers r with a WebSocket that carries a session of its own
// from its first byte. Nothing is read until Start.
func (e *Engine) OpenWebSocket(w http.ResponseWriter, r *http.Request, header http.Header, d Dialect, h Handler) (*Session, error) {
	s := &Session{e: e, h: h, dialect: d}
	t := &carrier{s: s}
	conn, err := e.Upgrade(w, r, header, t)
	if err != nil {
		return nil, err
	}
	conn.speak(d)
	t.conn, s.ws = conn, conn
	e.conns.Add(1)
	return s, nil
}

// Start begins to read from a WebSocket that carries the session from the
// beginning. Sessions that poll need no start.
func (s *Session) Start() { s.ws.Start() }

// Upgrade answers r with a WebSocket that may take over from polling once it
// has been probed. A session that has a WebSocket already accepts another and
// closes it. d is of the session's protocol.
func (s *Session) Upgrade(w http.ResponseWriter, r *http.Request, header http.Header, d Dialect) error {
	t := &carrier{s: s}
	conn, err := s.e.Upgrade(w, r, header, t)
	if err != nil {
		return err
	}
	conn.speak(d)
	t.conn = conn
	s.mu.Lock()
	conn.Limit(s.limit)
	t.refused = s.closed || s.ws != nil || s.probe != nil
	if !t.refused {
		s.probe = conn
		s.e.wheel.Set(&t.timer, time.Now().Add(s.e.cfg.UpgradeTimeout), t)
	}
	s.mu.Unlock()
	conn.Start()
	if t.refused {
		conn.Close(Cause{Reason: ReasonTransportClose, Code: websocket.CloseNormalClosure, Text: "upgraded already"})
	}
	return nil
}

// Receive handles a message of the WebSocket.
func (t *carrier) Receive(binary bool, data []byte) Task {
	s := t.s
	p, err := eio.DecodeMessage(s.dialect.Version(), binary, data)
	s.mu.Lock()
	carries := s.ws == t.conn
	s.mu.Unlock()
	switch {
	case t.refused:
	case carries && err != nil:
		s.Close(Cause{Reason: ReasonParse, Code: websocket.ClosePolicyViolation, Text: "parse error", Err: err})
	case carries:
		return s.receive(p)
	case err == nil && p.Type == eio.Ping && string(p.Data) == "probe":
		_ = t.conn.Send(Packet(eio.Packet{Type: eio.Pong, Data: p.Data}))
		t.mu.Lock()
		if t.probed.IsZero() { // probing again buys no time
			t.probed = time.Now()
		}
		t.mu.Unlock()
		s.e.wheel.Set(&t.timer, time.Now().Add(noopDelay), t)
	case err == nil && p.Type == eio.Upgrade:
		s.switchTo(t)
	default:
		t.conn.Close(Cause{Reason: ReasonParse, Code: websocket.ClosePolicyViolation, Text: "expected a probe"})
	}
	return nil
}

// switchTo lets the WebSocket carry the session. What the last poll has not
// taken goes first, so nothing is lost and nothing overtakes.
func (s *Session) switchTo(t *carrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.mu.Lock()
	probed := !t.probed.IsZero()
	t.mu.Unlock()
	if s.closed || s.probe != t.conn || !probed {
		s.e.Go(&closeTask{t.conn, Cause{Reason: ReasonParse, Code: websocket.ClosePolicyViolation, Text: "expected a probe"}})
		return
	}
	s.e.wheel.Stop(&t.timer)
	s.e.wheel.Stop(&s.beat)
	s.probe, s.ws, s.pinged = nil, t.conn, false
	if s.poll != nil {
		s.poll.answer <- []Frame{Packet(eio.Packet{Type: eio.Noop})}
		s.poll = nil
	}
	if frames := s.takeLocked(); len(frames) > 0 {
		_ = s.ws.SendAll(s.ws.dialect.translate(frames), false)
	}
	if s.resumed != nil {
		// A POST is held back still, which no honest client leaves behind. What
		// holds for it holds for the WebSocket.
		s.ws.Pause()
	}
	s.ws.pingAt(s.lastPing.Add(s.e.firstBeat(s.dialect)))
}

// Expired sends the noops that let the client finish its polls while it
// upgrades, and gives up a probe that leads to nothing.
func (t *carrier) Expired(now time.Time) {
	s := t.s
	s.mu.Lock()
	if s.probe != t.conn {
		s.mu.Unlock()
		return
	}
	t.mu.Lock()
	if !t.probed.IsZero() && s.resumed != nil {
		// A client upgrades only after the answer to its POST, which is held
		// back; one that is refused then has given up its polls already.
		t.probed = now
	}
	probed := t.probed
	t.mu.Unlock()
	if probed.IsZero() || now.Sub(probed) >= s.e.cfg.UpgradeTimeout {
		s.probe = nil
		s.mu.Unlock()
		t.conn.Close(Cause{Reason: ReasonTransportClose, Code: websocket.CloseNormalClosure, Text: "upgrade timeout"})
		return
	}
	if s.poll != nil {
		s.poll.answer <- []Frame{Packet(eio.Packet{Type: eio.Noop})}
		s.poll = nil
	}
	s.e.wheel.Set(&t.timer, now.Add(noopDelay), t)
	s.mu.Unlock()
}

// Closed ends the session with the WebSocket that carries it. A probe that
// ends leaves the polls going.
func (t *carrier) Closed(c Cause) {
	s := t.s
	s.e.wheel.Stop(&t.timer)
	s.mu.Lock()
	if s.probe == t.conn {
		s.probe = nil
	}
	carries := s.ws == t.conn
	s.mu.Unlock()
	if carries {
		s.Close(c)
	}
}
