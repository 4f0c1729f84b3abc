package engine

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// ErrClosed is returned for what is sent to a connection that is closed.
var ErrClosed = net.ErrClosed

// A Cause says why a connection ended. The first cause wins.
type Cause struct {
	Reason string // for programs: "ping timeout", "transport close", …
	Code   int    // the close frame's status; 0 sends no close frame and cuts the connection
	Text   string // the close frame's reason, at most 123 bytes
	Drop   bool   // throw away what is queued instead of flushing it first
	Err    error  // for logs
}

// Reasons that the engine itself closes with. The words are Socket.IO's.
const (
	ReasonTransportClose = "transport close"
	ReasonTransportError = "transport error"
	ReasonPingTimeout    = "ping timeout"
	ReasonSlow           = "slow client"
	ReasonTooLarge       = "message too large"
)

// A Handler receives what happens on a connection.
type Handler interface {
	// Receive gets each message in order, from one goroutine at a time, and
	// must not block. data is valid only during the call. A task it returns is
	// run soon, beside or before further reading.
	Receive(binary bool, data []byte) Task
	// Closed is called once, from any goroutine, and must not block. It is
	// never called from within Send and its kin, whose callers may hold locks.
	// A Receive that had begun may still be running.
	Closed(Cause)
}

// A Conn is one WebSocket connection. All methods are safe for concurrent use,
// except Start, which is called once.
//
// gorilla/websocket makes the handshake and parses what comes in; what is
// compressed is inflated by next. Frames that go out are built by Frame and
// written by flush, the only writer.
type Conn struct {
	e    *Engine
	nc   net.Conn
	ws   *websocket.Conn
	h    Handler
	poll poller
	beat Timer
	ping Frame // what a heartbeat sends; none means a WebSocket ping

	answer Frame // to the handshake, until Start

	// Owned by the one goroutine that reads at a time.
	br       bufio.Reader
	loan     *bufio.Reader // whose memory br uses; nil while idle
	ahead    *[]byte       // what the poller has read and br has not yet
	aheadAt  int32
	aheadEnd int32
	protest  *Cause  // what gorilla found wrong with what came in
	inflow   *inflow // nil unless compression was negotiated

	heard atomic.Bool  // bytes came in since the last ping
	limit atomic.Int32 // on one message, if there is one of its own

	mu       sync.Mutex
	out      []Frame
	first    [1]Frame // out's memory while it holds one frame
	outBytes int
	pinged   bool // a ping waits for an answer
	pingSent bool // and has left the queue
	writing  bool // a flush is running
	flushed  bool // closed, and everything has been written
	readDone bool // the reader has ended
	paused   bool // the handler wants no more messages
	parked   bool // the reader has left because of that
	closed   bool
	gone     bool
	dialect  Dialect // of the session it carries, if it does; set before Start
	end      *ending // why and how, once closed
}

// An ending is what a connection needs to know only when it is closed.
type ending struct {
	cause Cause
	cutAt time.Time // with a close frame: the end of patience
}

func (c *Conn) attach(ws *websocket.Conn, h Handler) {
	c.ws, c.h = ws, h
	ws.SetPongHandler(func(string) error { return nil }) // heard says it
	ws.SetPingHandler(func(data string) error {
		c.pong([]byte(data))
		return nil
	})
	ws.SetCloseHandler(func(int, string) error { return nil }) // answered by readFailed
	c.e.conns.Add(1)
}

// Start answers the handshake, with what was sent since in the same write, and
// begins to read and to ping. A connection that was closed before is started all
// the same: it still has a close frame to exchange.
func (c *Conn) Start() {
	c.mu.Lock()
	if !c.closed {
		// Under the lock, so that Close sets its own deadline after this one.
		c.e.wheel.Set(&c.beat, time.Now().Add(c.e.firstBeat(c.dialect)), c)
	}
	c.out = slices.Insert(c.out, 0, c.answer)
	c.outBytes += c.answer.Len()
	c.answer = Frame{}
	small := c.outBytes <= chunkSize
	c.mu.Unlock()
	if _, tcp := c.nc.(*net.TCPConn); tcp && small {
		// The kernel has room for as much on a new connection, so it does not
		// wait for the peer, and no worker has to be woken.
		c.flushSome(1)
	} else {
		c.e.workers.run((*flushTask)(c))
	}
	if c.poll.init(c) {
		c.idle()
		return
	}
	c.e.workers.run((*readTask)(c))
}

// pingAt moves the next heartbeat.
func (c *Conn) pingAt(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && !c.pinged {
		c.e.wheel.Set(&c.beat, at, c)
	}
}

// Limit sets how many bytes a message may have; 0 means Config.MaxPayload. One
// that is being received is not affected.
func (c *Conn) Limit(bytes int) { c.limit.Store(int32(bytes)) }

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Send queues f and returns. It fails with ErrClosed once the connection is
// closed. A peer that lets more than SendBuffer bytes pile up is closed.
func (c *Conn) Send(f Frame) error {
	start, err := c.queue(f, false)
	if start {
		c.e.workers.run((*flushTask)(c))
	}
	return err
}

// SendVolatile queues f if nothing waits to be written, and drops it otherwise.
func (c *Conn) SendVolatile(f Frame) error {
	start, err := c.queue(f, true)
	if start {
		c.e.workers.run((*flushTask)(c))
	}
	return err
}

// SendNow is Send by a goroutine that may itself wait for the peer: if nobody
// else is writing, the frame is written before SendNow returns.
func (c *Conn) SendNow(f Frame) error {
	start, err := c.queue(f, false)
	if start {
		c.flush()
	}
	return err
}

// SendAll queues frames that belong together, or drops them all if they are
// volatile and something waits.
func (c *Conn) SendAll(frames []Frame, volatile bool) error {
	n := 0
	for _, f := range frames {
		n += f.Len()
	}
	c.mu.Lock()
	ok, err := c.roomLocked(n, volatile)
	start := false
	if ok {
		for _, f := range frames {
			start = c.pushLocked(f) || start
		}
	}
	c.mu.Unlock()
	if start {
		c.e.workers.run((*flushTask)(c))
	}
	return err
}

// queue reports whether the caller has to see to a flush.
func (c *Conn) queue(f Frame, volatile bool) (start bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok, err := c.roomLocked(f.Len(), volatile); !ok {
		return false, err
	}
	return c.pushLocked(f), nil
}

// roomLocked reports whether n more bytes may be queued, and closes a peer
// that has let too many pile up.
func (c *Conn) roomLocked(n int, volatile bool) (ok bool, err error) {
	switch {
	case c.closed:
		return false, ErrClosed
	case len(c.out) == 0:
		return true, nil
	case volatile:
		return false, nil
	case c.outBytes+n > c.e.cfg.SendBuffer:
		c.closeAsideLocked(Cause{Reason: ReasonSlow, Code: websocket.ClosePolicyViolation, Text: "too slow", Drop: true})
		return false, ErrClosed
	}
	return true, nil
}

// pushLocked is queue without its conditions.
func (c *Conn) pushLocked(f Frame) (start bool) {
	if c.out == nil {
		c.out = c.first[:0]
	}
	c.out = append(c.out, f)
	c.outBytes += f.Len()
	start = !c.writing
	c.writing = true
	return start
}

type flushTask Conn

func (t *flushTask) Run() { (*Conn)(t).flush() }

// gatherSize is how much a flush puts into one write at most.
const gatherSize = 64 << 10

var gathers = sync.Pool{New: func() any { b := make([]byte, 0, chunkSize); return &b }}

// flush writes until the queue is empty. Frames that wait together leave in
// one write: four frames in one write cost what one costs.
func (c *Conn) flush() { c.flushSome(math.MaxInt) }

// flushSome leaves what still waits after so many writes to a worker.
func (c *Conn) flushSome(writes int) {
	for ; ; writes-- {
		c.mu.Lock()
		if len(c.out) == 0 {
			c.writing = false
			done := c.closed
			c.flushed = done
			c.mu.Unlock()
			if done {
				c.linger()
			}
			return
		}
		if writes == 0 {
			c.mu.Unlock()
			c.e.workers.run((*flushTask)(c))
			return
		}
		var one Frame
		var many []Frame
		if len(c.out) == 1 {
			one = c.out[0]
		} else {
			many = c.out
		}
		// The queue's memory is given back: an idle connection has none.
		c.out, c.first[0], c.outBytes = nil, Frame{}, 0
		c.pingSent = c.pinged
		c.mu.Unlock()

		var err error
		if many == nil {
			_, err = c.nc.Write(c.wire(one))
		} else {
			err = c.writeAll(many)
		}
		if err != nil {
			c.mu.Lock()
			c.out, c.writing = nil, false
			c.closeAsideLocked(Cause{Reason: ReasonTransportError, Err: err})
			c.mu.Unlock()
			c.cut()
			return
		}
	}
}

func (c *Conn) writeAll(frames []Frame) error {
	gather := gathers.Get().(*[]byte)
	defer func() {
		if cap(*gather) <= gatherSize {
			*gather = (*gather)[:0]
			gathers.Put(gather)
		}
	}()
	b := (*gather)[:0]
	for i := range frames {
		f := c.wire(frames[i])
		frames[i] = Frame{}
		if len(b) > 0 && len(b)+len(f) > gatherSize {
			if _, err := c.nc.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
		if len(f) > gatherSize {
			if _, err := c.nc.Write(f); err != nil {
				return err
			}
			continue
		}
		b = append(b, f...)
	}
	*gather = b
	if len(b) == 0 {
		return nil
	}
	_, err := c.nc.Write(b)
	return err
}

// Close ends the connection with cause, unless it has ended already. It does
// not wait: what is queued and the close frame are written by the writer.
func (c *Conn) Close(cause Cause) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closeLocked(cause)
	c.mu.Unlock()
	if cause.Code == 0 {
		c.cut()
	}
	c.tell()
}

// tell calls Closed, which closeLocked has announced to Engine.Close.
func (c *Conn) tell() {
	c.h.Closed(c.end.cause)
	c.e.conns.Done()
}

// closeAsideLocked closes from within a Send: the handler is told on a
// goroutine that holds no locks.
func (c *Conn) closeAsideLocked(cause Cause) {
	if !c.closed {
		c.closeLocked(cause)
		c.e.workers.run((*closedTask)(c))
	}
}

type closedTask Conn

func (t *closedTask) Run() { (*Conn)(t).tell() }

// closeLocked queues the close frame, if there is to be one, and bounds the
// time until the cut. Both under the lock: whoever cuts the connection comes
// later and finds no timer set behind its back.
func (c *Conn) closeLocked(cause Cause) {
	c.closed, c.end = true, &ending{cause: cause}
	c.e.conns.Add(1)
	if cause.Drop || cause.Code == 0 {
		c.out, c.first[0], c.outBytes = nil, Frame{}, 0
	}
	if cause.Code == 0 {
		return
	}
	c.end.cutAt = time.Now().Add(closeTimeout)
	c.e.wheel.Set(&c.beat, c.end.cutAt, c)
	if c.pushLocked(closeFrame(cause.Code, cause.Text)) {
		c.e.workers.run((*flushTask)(c))
	}
}

// linger waits, for closeTimeout at most, until the peer has read our close
// frame and closes too. Closing at once could make the kernel answer what the
// peer still sends with a reset, which may overtake the close frame.
func (c *Conn) linger() {
	c.mu.Lock()
	done := c.readDone
	c.mu.Unlock()
	if done {
		c.cut()
		return
	}
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	// A reader that was paused has left bytes unread, and reads them away now.
	c.Resume()
}

// cut closes the network connection.
func (c *Conn) cut() {
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return
	}
	c.gone = true
	c.mu.Unlock()
	c.e.wheel.Stop(&c.beat)
	_ = c.nc.Close()
	c.e.conns.Done()
}

// Expired is the heartbeat: a ping, then PingTimeout of patience. Any byte
// counts as a sign of life, if our ping could leave at all. Where the peer pings
// it is the end of patience with it; what came in since its ping buys some more.
func (c *Conn) Expired(now time.Time) {
	c.mu.Lock()
	if c.closed {
		// A heartbeat that fired before the close may come after it.
		over := !now.Before(c.end.cutAt)
		c.mu.Unlock()
		if over {
			c.cut()
		}
		return
	}
	// The timer is set under the lock: after Close it is Close's.
	start := false
	switch {
	case c.dialect.asks() && (c.heard.Swap(false) || c.parked):
		// A ping cannot overtake the message before it, which may still be coming
		// in, and nobody reads it while the handler is behind.
		c.e.wheel.Set(&c.beat, now.Add(c.e.cfg.PingTimeout), c)
	case !c.pinged && !c.dialect.asks():
		c.pinged, c.pingSent = true, false
		c.heard.Store(false)
		// Past queue: a ping must not be what makes a peer slow.
		ping := c.ping
		if ping.frame == nil {
			ping = control(opPing, nil)
		}
		start = c.pushLocked(ping)
		c.e.wheel.Set(&c.beat, now.Add(c.e.cfg.PingTimeout), c)
	case c.pingSent && (c.heard.Load() || c.parked):
		c.pinged = false
		rest := max(c.e.cfg.PingInterval-c.e.cfg.PingTimeout, tick)
		c.e.wheel.Set(&c.beat, now.Add(rest), c)
	default:
		c.mu.Unlock()
		c.Close(Cause{Reason: ReasonPingTimeout})
		return
	}
	c.mu.Unlock()
	if start {
		c.e.workers.run((*flushTask)(c))
	}
}

// pong answers a ping. A peer that pings and never reads is slow like any other.
func (c *Conn) pong(data []byte) { _ = c.Send(control(opPong, data)) }

// closeCause tells a goodbye from a failure.
func closeCause(err error) Cause {
	if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
		code := ce.Code
		switch code {
		case websocket.CloseNoStatusReceived:
			code = websocket.CloseNormalClosure
		case websocket.CloseAbnormalClosure:
			// Never on the wire: it is gorilla's word for the end of the
			// stream, to which there is no answer.
			code = 0
		}
		// RFC 6455, section 5.5.1: answer with the status that came.
		return Cause{Reason: ReasonTransportClose, Code: code, Drop: true}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Cause{Reason: ReasonTransportClose}
	}
	return Cause{Reason: ReasonTransportError, Err: err}
}
