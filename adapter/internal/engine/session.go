package engine

import (
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter/internal/eio"
)

// ReasonParse is a peer's bytes that make no sense.
const ReasonParse = "parse error"

// ErrOverlap is returned for a second poll or post while one is under way: the
// protocol allows one of each.
var ErrOverlap = errors.New("engine: another request of this session is under way")

// A Session is an Engine.IO connection. It is carried by held polls or by a
// WebSocket, and may change from the first to the second. Frames that are sent
// are text or binary messages whose text begins with the packet type, as a
// WebSocket of protocol 4 carries them; polls, and clients of protocol 3, get the
// same packets in their own encoding.
//
// All methods are safe for concurrent use.
type Session struct {
	e    *Engine
	h    Handler
	beat Timer

	mu       sync.Mutex
	ws       *Conn // carries the session; nil while it polls
	probe    *Conn // asks to carry it
	out      []Frame
	outBytes int
	poll     *heldPoll
	posting  bool
	limit    int
	pinged   bool
	lastPing time.Time     // or the beginning: from then on the other side counts
	resumed  chan struct{} // closed when a pause ends
	closed   bool
	dialect  Dialect // never changes
}

// A heldPoll is a GET that waits for something to send.
type heldPoll struct {
	answer chan []Frame // gets one answer
}

// NewSession begins a session that polls.
func (e *Engine) NewSession(d Dialect, h Handler) *Session {
	s := &Session{e: e, h: h, lastPing: time.Now(), dialect: d}
	e.conns.Add(1)
	s.beatLocked() // nobody else has it yet
	return s
}

// Packet makes the frame of a packet.
func Packet(p eio.Packet) Frame {
	b := NewBuilder(1 + len(p.Data))
	if p.Binary {
		b.Append(func(dst []byte) []byte { return eio.AppendBinary(dst, eio.V4, p) })
		return b.Binary()
	}
	b.Append(func(dst []byte) []byte { return eio.AppendText(dst, eio.V4, p) })
	return b.Text()
}

// AppendPoll appends frames as the body of a poll's answer.
func AppendPoll(dst []byte, frames []Frame) []byte {
	for i, f := range frames {
		if i > 0 {
			dst = append(dst, '\x1e')
		}
		binary, data := f.Payload()
		if binary {
			dst = eio.AppendText(dst, eio.V4, eio.Packet{Type: eio.Message, Binary: true, Data: data})
		} else {
			dst = append(dst, data...)
		}
	}
	return dst
}

// Payload returns what a frame carries, and whether it is binary.
func (f Frame) Payload() (binary bool, data []byte) {
	at := 2
	switch f.wire[1] {
	case 126:
		at = 4
	case 127:
		at = 10
	}
	return f.wire[0]&0x0f == opBinary, f.wire[at:]
}

// Send queues frames that belong together and returns.
func (s *Session) Send(frames ...Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendLocked(frames, false)
}

// SendVolatile is Send unless something waits to be sent already.
func (s *Session) SendVolatile(frames ...Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendLocked(frames, true)
}

func (s *Session) sendLocked(frames []Frame, volatile bool) error {
	if s.closed {
		return ErrClosed
	}
	if s.ws != nil {
		return s.ws.SendAll(s.ws.dialect.translate(frames), volatile)
	}
	if volatile && len(s.out) > 0 {
		return nil
	}
	n := 0
	for _, f := range frames {
		n += f.Len()
	}
	if s.outBytes+n > s.e.cfg.SendBuffer && len(s.out) > 0 {
		s.closeLocked(Cause{Reason: ReasonSlow, Drop: true})
		s.e.workers.run(&toldTask{s, Cause{Reason: ReasonSlow}})
		return ErrClosed
	}
	s.out = append(s.out, frames...)
	s.outBytes += n
	s.answerLocked()
	return nil
}

// answerLocked answers the held poll, if there is one, with what waits.
func (s *Session) answerLocked() {
	if s.poll == nil || len(s.out) == 0 {
		return
	}
	s.poll.answer <- s.takeLocked()
	s.poll = nil
}

func (s *Session) takeLocked() []Frame {
	frames := s.out
	s.out, s.outBytes = nil, 0
	return frames
}

// Limit sets how many bytes a message over a WebSocket may have, now or after an
// upgrade; 0 means Config.MaxPayload.
func (s *Session) Limit(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = bytes
	for _, c := range []*Conn{s.ws, s.probe} {
		if c != nil {
			c.Limit(bytes)
		}
	}
}

// Spent reports whether the session has ended and no poll gets anything of it
// any more.
func (s *Session) Spent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed && (s.ws != nil || len(s.out) == 0)
}

// Close ends the session, unless it has ended already.
func (s *Session) Close(cause Cause) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closeLocked(cause)
	s.mu.Unlock()
	s.told(cause)
}

// toldTask tells the handler on a goroutine that holds no locks.
type toldTask struct {
	s     *Session
	cause Cause
}

func (t *toldTask) Run() { t.s.told(t.cause) }

func (s *Session) told(cause Cause) {
	s.h.Closed(cause)
	s.e.conns.Done()
}

func (s *Session) closeLocked(cause Cause) {
	s.closed = true
	s.e.wheel.Stop(&s.beat)
	if s.resumed != nil {
		close(s.resumed)
		s.resumed = nil
	}
	if s.probe != nil {
		s.e.Go(&closeTask{s.probe, Cause{Reason: cause.Reason, Code: websocket.CloseNormalClosure}})
		s.probe = nil
	}
	if s.ws != nil {
		// Not from here: the connection tells us, who hold the lock.
		s.e.Go(&closeTask{s.ws, cause})
		return
	}
	if cause.Drop {
		s.out = nil
	}
	// What was sent before, and the word that it is over: for the poll that
	// waits, or for the one that is on its way.
	s.out = append(s.out, Packet(eio.Packet{Type: eio.Close}))
	s.answerLocked()
	if cause.byPeer() {
		s.out = nil
	}
}

// byPeer reports whether the peer ended the connection: by leaving, or by
// breaking the protocol. To its next poll the session is unknown, as the text
// wants it ("an HTTP 400 error status and close the session"); only who was sent
// away has a last word to fetch.
func (c Cause) byPeer() bool {
	switch c.Reason {
	case ReasonTransportClose, ReasonTransportError, ReasonPingTimeout, ReasonParse, ReasonTooLarge:
		return true
	}
	return false
}

type closeTask struct {
	c     *Conn
	cause Cause
}

func (t *closeTask) Run() { t.c.Close(t.cause) }

// Poll waits for something to send and returns it. It returns ErrClosed when
// there is nothing and never will be, ErrOverlap for a second poll, which ends
// the session, and nil frames when done is closed first, which ends it too.
func (s *Session) Poll(done <-chan struct{}) ([]Frame, error) {
	s.mu.Lock()
	switch {
	case s.ws != nil:
		s.mu.Unlock()
		return nil, ErrClosed
	case s.poll != nil:
		s.out = append(s.takeLocked(), Packet(eio.Packet{Type: eio.Close}))
		s.answerLocked()
		s.mu.Unlock()
		s.Close(Cause{Reason: ReasonTransportError, Err: ErrOverlap})
		return nil, ErrOverlap
	case len(s.out) > 0:
		frames := s.takeLocked()
		s.mu.Unlock()
		return frames, nil
	case s.closed:
		s.mu.Unlock()
		return nil, ErrClosed
	}
	p := &heldPoll{answer: make(chan []Frame, 1)}
	s.poll = p
	s.mu.Unlock()

	select {
	case frames := <-p.answer:
		return frames, nil
	case <-done:
	}
	s.mu.Lock()
	if s.poll == p {
		s.poll = nil
	}
	s.mu.Unlock()
	// What p may have been answered at this moment is lost, and the session is
	// over: the client would not know what it has missed.
	s.Close(Cause{Reason: ReasonTransportClose})
	return nil, nil
}

// BeginPost is called when a POST comes in, before its body is read: of two at
// once it is not known which came first. It returns ErrClosed when the session
// does not poll any more, and ErrOverlap for a second POST, which ends it. Else
// EndPost has to follow.
func (s *Session) BeginPost() error {
	s.mu.Lock()
	switch {
	case s.closed || s.ws != nil:
		s.mu.Unlock()
		return ErrClosed
	case s.posting:
		s.mu.Unlock()
		s.Close(Cause{Reason: ReasonTransportError, Err: ErrOverlap})
		return ErrOverlap
	}
	s.posting = true
	s.mu.Unlock()
	return nil
}

// EndPost is called when a POST has been taken, or has failed.
func (s *Session) EndPost() {
	s.mu.Lock()
	s.posting = false
	s.mu.Unlock()
}

// Post takes the packets of the POST that has begun, in order. The first error
// among them ends the session and is returned.
func (s *Session) Post(packets iter.Seq2[eio.Packet, error]) error {
	s.mu.Lock()
	over := s.closed || s.ws != nil // since it began
	s.mu.Unlock()
	if over {
		return ErrClosed
	}
	for p, err := range packets {
		if err != nil {
			s.Close(Cause{Reason: ReasonParse, Err: err})
			return err
		}
		if task := s.receive(p); task != nil {
			s.e.workers.run(task)
		}
		s.waitResumed()
	}
	return nil
}

// receive handles one packet, from a post or the WebSocket that carries us.
func (s *Session) receive(p eio.Packet) Task {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil
	}
	switch {
	case p.Type == eio.Message:
		return s.h.Receive(p.Binary, p.Data)
	case p.Binary: // protocol 3 has room for that, and no use
		s.unexpected(p)
	case p.Type == eio.Ping && s.dialect.asks():
		s.heardPing(p)
	case p.Type == eio.Pong && !s.dialect.asks():
		s.mu.Lock()
		if s.pinged && s.ws == nil && !s.closed {
			s.pinged = false
			s.e.wheel.Set(&s.beat, time.Now().Add(s.e.cfg.PingInterval), s)
		}
		s.mu.Unlock()
	case p.Type == eio.Close:
		s.mu.Lock()
		if s.poll != nil {
			// The client gives up this poll too, but it has to end.
			s.poll.answer <- []Frame{Packet(eio.Packet{Type: eio.Noop})}
			s.poll = nil
		}
		s.mu.Unlock()
		s.Close(Cause{Reason: ReasonTransportClose, Code: websocket.CloseNormalClosure, Drop: true})
	case p.Type == eio.Noop:
	default:
		s.unexpected(p)
	}
	return nil
}

func (s *Session) unexpected(p eio.Packet) {
	s.Close(Cause{Reason: ReasonParse, Code: websocket.ClosePolicyViolation, Text: "unexpected packet " + p.Type.String()})
}

// Pause asks to stop delivering after the message that is being received.
func (s *Session) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ws != nil {
		s.ws.Pause()
		return
	}
	if s.resumed == nil && !s.closed {
		s.resumed = make(chan struct{})
	}
}

// Resume ends a pause.
func (s *Session) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed != nil {
		close(s.resumed)
		s.resumed = nil
		switch {
		case s.ws != nil || s.closed:
		case s.dialect.asks():
			// A ping had to wait for it too.
			s.lastPing = time.Now()
			s.beatLocked()
		case s.pinged:
			// The answer had to wait for the POST that was held back.
			s.e.wheel.Set(&s.beat, time.Now().Add(s.e.cfg.PingTimeout), s)
		}
	}
	if s.ws != nil {
		s.ws.Resume()
	}
}

// waitResumed holds a POST back while the handler is behind. Closing ends it.
func (s *Session) waitResumed() {
	s.mu.Lock()
	resumed := s.resumed
	s.mu.Unlock()
	if resumed != nil {
		<-resumed
	}
}

// Expired is the heartbeat while the session polls. While a POST is held back
// the client can neither answer nor ping, as it sends one at a time; but it goes
// on counting the time between our pings.
func (s *Session) Expired(now time.Time) {
	s.mu.Lock()
	if s.closed || s.ws != nil {
		s.mu.Unlock()
		return
	}
	asks := s.dialect.asks()
	if asks && now.Before(s.lastPing.Add(s.e.firstBeat(s.dialect))) {
		s.mu.Unlock() // a ping has moved the timer while it fired
		return
	}
	if (s.pinged || asks) && s.resumed == nil {
		s.mu.Unlock()
		s.Close(Cause{Reason: ReasonPingTimeout})
		return
	}
	if asks {
		s.e.wheel.Set(&s.beat, now.Add(s.e.cfg.PingTimeout), s)
		s.mu.Unlock()
		return
	}
	s.pinged, s.lastPing = true, now
	s.out = append(s.out, Packet(eio.Packet{Type: eio.Ping}))
	s.answerLocked()
	s.e.wheel.Set(&s.beat, now.Add(s.e.cfg.PingTimeout), s)
	s.mu.Unlock()
}

// Polls reports whether polls carry the session, and no WebSocket asks to.
func (s *Session) Polls() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ws == nil && s.probe == nil && !s.closed
}
