package engine

import (
	"bufio"
	"errors"
	"io"

	"github.com/gorilla/websocket"
)

// idle starts the goroutine that waits for bytes.
func (c *Conn) idle() {
	c.giveBack()
	c.e.workers.wg.Add(1)
	go c.wait()
}

// wait runs on a shallow stack and only passes on what it finds.
func (c *Conn) wait() {
	defer c.e.workers.wg.Done()
	if err := c.poll.wait(c); err != nil {
		c.readFailed(err)
		return
	}
	c.heard.Store(true)
	c.e.workers.run((*readTask)(c))
}

type readTask Conn

func (t *readTask) Run() { (*Conn)(t).read() }

// read handles messages until there is nothing more to read.
func (c *Conn) read() {
	c.borrow()
	for {
		if c.poll.ok() && c.skipControl() {
			c.idle()
			return
		}
		binary, data, err := c.next()
		if err != nil {
			c.readFailed(err)
			return
		}
		c.mu.Lock()
		closed := c.closed
		c.mu.Unlock()
		if closed {
			// Lingering: only the peer's close frame is of interest.
			c.e.putScratch(data)
			continue
		}
		task := c.h.Receive(binary, *data)
		c.e.putScratch(data)

		if c.park() {
			if task != nil {
				task.Run()
			}
			return
		}
		if c.poll.ok() && c.buffered() == 0 {
			// The next waiter reads on, so this worker is free to run the
			// task itself: no hand-over for the common single message.
			c.idle()
			if task != nil {
				task.Run()
			}
			return
		}
		if task != nil {
			c.e.workers.run(task)
		}
	}
}

// next reads one message into memory of the engine's pool.
func (c *Conn) next() (binary bool, data *[]byte, err error) {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return false, nil, err
	}
	limit := int(c.e.cfg.MaxPayload)
	if own := int(c.limit.Load()); own > 0 {
		limit = own
	}
	if c.inflow != nil && c.inflow.next() {
		// Even what cannot be compressed gets hardly longer by it.
		z := c.e.inflate(r, 2*int64(limit))
		defer c.e.putInflater(z)
		r = z
	}
	data = c.e.scratch.Get().(*[]byte)
	b := (*data)[:0]
	for {
		if len(b) == cap(b) {
			// Never past the limit: a few bytes may inflate to any number.
			n := 2 * cap(b)
			if n >= limit {
				n = limit + 1
			}
			b = append(make([]byte, 0, n), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if len(b) > limit {
			*data = b
			c.e.putScratch(data)
			return false, nil, errTooLarge
		}
		if err == io.EOF {
			*data = b
			return kind == websocket.BinaryMessage, data, nil
		}
		if err != nil {
			*data = b
			c.e.putScratch(data)
			return false, nil, err
		}
	}
}

func (e *Engine) putScratch(b *[]byte) {
	if cap(*b) <= 64<<10 {
		e.scratch.Put(b)
	}
}

// errTooLarge is a sentinel of its own: gorilla's read limit would write the
// close frame past our queue.
var errTooLarge = websocket.ErrReadLimit

// readFailed ends the connection from the reading side.
func (c *Conn) readFailed(err error) {
	c.giveBack()
	var blame *Cause
	switch {
	case err == errTooLarge:
		blame = &Cause{Reason: ReasonTooLarge, Code: websocket.CloseMessageTooBig, Text: "message too large", Err: err}
	case errors.Is(err, errGarbled):
		blame = &Cause{Reason: ReasonTransportError, Code: websocket.CloseInvalidFramePayloadData, Text: "invalid compressed data", Drop: true, Err: err}
	case c.protest != nil:
		blame = c.protest
		blame.Err = err
	}
	if blame != nil {
		c.Close(*blame)
		// Take in what the peer is still sending, so that the kernel does not
		// answer it with a reset that overtakes our close frame. closeTimeout
		// bounds the time and this the bytes.
		_, _ = io.CopyN(io.Discard, c.nc, 8*c.e.cfg.MaxPayload)
	} else {
		c.Close(closeCause(err))
	}
	c.mu.Lock()
	c.readDone = true
	flushed := c.flushed
	c.mu.Unlock()
	if flushed {
		c.cut()
	}
}

// park reports that the handler has paused the connection, and that the reader
// must leave. Resume starts it again.
func (c *Conn) park() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Once it is closed there is only rest to be read away.
	c.parked = c.paused && !c.closed
	return c.parked
}

// Pause asks the reader to stop after the message it is at. It is called
// within Receive.
func (c *Conn) Pause() {
	c.mu.Lock()
	c.paused = true
	c.mu.Unlock()
}

// Resume lets the reader read on.
func (c *Conn) Resume() {
	c.mu.Lock()
	start := c.parked
	c.paused, c.parked = false, false
	if start {
		// Nobody was listening: the silence so far proves nothing.
		c.heard.Store(true)
	}
	c.mu.Unlock()
	if start {
		c.e.workers.run((*readTask)(c))
	}
}

// borrow gives br a buffer. gorilla keeps a pointer to br for the connection's
// life, so it is br's contents that come and go.
func (c *Conn) borrow() {
	if c.loan != nil {
		return
	}
	c.loan = c.e.readers.Get().(*bufio.Reader)
	c.loan.Reset((*netConn)(c))
	c.br = *c.loan
}

// giveBack returns br's buffer. Nothing may be left in it.
func (c *Conn) giveBack() {
	if c.loan == nil {
		return
	}
	*c.loan = c.br
	c.loan.Reset(nil)
	c.e.readers.Put(c.loan)
	c.loan, c.br = nil, bufio.Reader{}
}

func (c *Conn) buffered() int { return c.br.Buffered() + int(c.aheadEnd-c.aheadAt) }

// skipControl takes whole pings and pongs that stand at the front of the
// buffer, between messages, and reports whether nothing is left. gorilla would
// read past them and then block for the next message, on this worker's stack
// and buffer: after the first heartbeat every idle connection would hold both.
// Whatever is not a plain ping or pong is left for gorilla to judge.
func (c *Conn) skipControl() bool {
	for {
		if c.br.Buffered() == 0 && c.ahead != nil {
			_, _ = c.br.Peek(1) // moves what the poller has read into br
		}
		head, err := c.br.Peek(min(c.br.Buffered(), 2))
		if err != nil || len(head) < 2 {
			return c.buffered() == 0
		}
		op := head[0] & 0x0f
		n := int(head[1] & 0x7f)
		// FIN, no reserved bits, masked, short: RFC 6455, sections 5.2 and 5.5.
		if head[0]&0xf0 != 0x80 || (op != opPing && op != opPong) || head[1]&0x80 == 0 || n > 125 {
			return false
		}
		size := 2 + 4 + n
		if c.br.Buffered() < size {
			return false
		}
		frame, _ := c.br.Peek(size)
		if op == opPing {
			data := make([]byte, n)
			for i := range data {
				data[i] = frame[6+i] ^ frame[2+i%4]
			}
			c.pong(data)
		}
		_, _ = c.br.Discard(size)
	}
}

var _ Expirer = (*Conn)(nil)
