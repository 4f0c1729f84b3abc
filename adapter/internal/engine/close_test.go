package engine

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// The close frame comes after what was queued, the peer's answer ends it all.
func TestClose(t *testing.T) {
	paths(t, func(t *testing.T, dial dialer) {
		h := newEvents()
		c, p := dial(t, usual, h)
		for range 3 {
			if err := c.Send(text("last words")); err != nil {
				t.Fatal(err)
			}
		}
		want := Cause{Reason: "test", Code: 4409, Text: "session ended"}
		c.Close(want)
		c.Close(Cause{Reason: "too late", Code: 1000})
		if err := c.Send(text("too late")); !errors.Is(err, ErrClosed) {
			t.Errorf("Send = %v, want %v", err, ErrClosed)
		}
		if err := c.SendVolatile(text("too late")); !errors.Is(err, ErrClosed) {
			t.Errorf("SendVolatile = %v, want %v", err, ErrClosed)
		}
		if err := c.SendNow(text("too late")); !errors.Is(err, ErrClosed) {
			t.Errorf("SendNow = %v, want %v", err, ErrClosed)
		}
		for range 3 {
			p.want(opText, "last words")
		}
		start := time.Now()
		p.want(opClose, status(4409, "session ended"))
		if p.nc.LocalAddr().Network() != "pipe" {
			p.wantEnd() // of this direction only
		}
		// What was on its way is no longer received.
		p.write(masked(fin|opText, "ignored"), masked(fin|opPing, "ignored"), masked(fin|opClose, status(4409, "")))
		if got := h.cause(t); got != want {
			t.Errorf("Closed(%+v), want %+v", got, want)
		}
		c.e.conns.Wait()
		p.wantEnd()
		if d := time.Since(start); d >= closeTimeout {
			t.Errorf("the end took %v: it was the timer's, not the peer's", d)
		}
		if len(h.closed) != 0 || len(h.got) != 0 {
			t.Errorf("%d more causes and %d messages after the end", len(h.closed), len(h.got))
		}
	})
}

func TestCloseWithoutCode(t *testing.T) {
	paths(t, func(t *testing.T, dial dialer) {
		h := newEvents()
		c, p := dial(t, usual, h)
		c.Close(Cause{Reason: "test"})
		p.wantEnd()
		if got := h.cause(t); got.Reason != "test" {
			t.Errorf("Closed(%+v), want the cause of Close", got)
		}
	})
}

func TestCloseDropsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newEvents()
		c, p := dialPipe(t, usual, h)
		_ = c.Send(text("being written"))
		synctest.Wait()
		_ = c.Send(text("dropped"))
		c.Close(Cause{Reason: "test", Code: 4401, Drop: true})
		p.want(opText, "being written")
		p.want(opClose, status(4401, ""))
	})
}

// A connection may be closed before it is started, and is closed in order then.
func TestCloseBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := engineFor(t, usual)
		h := newEvents()
		here, there := net.Pipe()
		p := newPeer(t, there)
		shaken := make(chan error, 1)
		go func() { shaken <- p.shake() }()
		c, err := e.Upgrade(&pipeWriter{nc: here}, request(t, handshake), nil, h)
		if err != nil {
			t.Fatal(err)
		}
		// What is queued is dropped, the answer to the handshake is not.
		c.Close(Cause{Reason: "test", Code: 4409, Drop: true})
		c.Start()
		if err := <-shaken; err != nil {
			t.Fatal(err)
		}
		p.want(opClose, status(4409, ""))
		p.write(masked(fin|opClose, status(4409, "")))
		p.wantEnd()
	})
}

func TestPeerCloses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload string
		answer  string
	}{
		{"normal", status(1000, ""), status(1000, "")},
		{"going away", status(1001, "tab closed"), status(1001, "")},
		{"private", status(4321, "grüß Gott"), status(4321, "")},
		{"without a status", "", status(1000, "")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			paths(t, func(t *testing.T, dial dialer) {
				h := newEvents()
				c, p := dial(t, usual, h)
				p.write(masked(fin|opText, "bye"), masked(fin|opClose, tt.payload))
				h.want(t, "bye")
				p.want(opClose, tt.answer)
				p.wantEnd()
				if got := h.cause(t); got.Reason != ReasonTransportClose {
					t.Errorf("Closed(%+v), want %s", got, ReasonTransportClose)
				}
				c.e.conns.Wait()
			})
		})
	}
}

// A peer that goes without a word is a close, at whatever byte, on each path.
func TestPeerVanishes(t *testing.T) {
	frame := masked(fin|opText, "never whole")
	for _, tt := range []struct {
		name  string
		bytes []byte
	}{
		{"between messages", nil},
		{"in a header", frame[:1]},
		{"in a mask", frame[:4]},
		{"in a payload", frame[:9]},
		{"between fragments", masked(opText, "first")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			paths(t, func(t *testing.T, dial dialer) {
				h := newEvents()
				c, p := dial(t, usual, h)
				if len(tt.bytes) > 0 {
					p.write(tt.bytes)
				}
				_ = p.nc.Close()
				if got := h.cause(t); got.Reason != ReasonTransportClose {
					t.Errorf("Closed(%+v), want %s", got, ReasonTransportClose)
				}
				c.e.conns.Wait()
			})
		})
	}
}

// A peer that breaks the protocol is told so: RFC 6455, section 7.1.7. The
// close frame was once dropped with the queue.
func TestProtocolErrors(t *testing.T) {
	unmasked := []byte{fin | opText, 2, 'h', 'i'}
	for _, tt := range []struct {
		name  string
		bytes []byte
	}{
		{"unmasked", unmasked},                                                                // section 5.1
		{"unmasked ping", []byte{fin | opPing, 0}},                                            // section 5.1
		{"RSV2", masked(fin|0x20|opText, "x")},                                                // section 5.2
		{"RSV3 on a pong", masked(fin|0x10|opPong, "x")},                                      // section 5.2
		{"unknown opcode", masked(fin|3, "x")},                                                // section 5.2
		{"unknown control opcode", masked(fin|0xb, "x")},                                      // section 5.2
		{"continuation of nothing", masked(fin, "x")},                                         // section 5.4
		{"message within a message", append(masked(opText, "a"), masked(fin|opText, "b")...)}, // section 5.4
		{"fragmented ping", masked(opPing, "x")},                                              // section 5.5
		{"long ping", masked(fin|opPing, strings.Repeat("x", 126))},                           // section 5.5
		{"long close", masked(fin|opClose, status(1000, strings.Repeat("x", 124)))},           // section 5.5
		{"close code 1005", masked(fin|opClose, status(1005, ""))},                            // section 7.4.1
		{"close code 1006", masked(fin|opClose, status(1006, ""))},                            // section 7.4.1
		{"close code 999", masked(fin|opClose, status(999, ""))},                              // section 7.4.2
		{"close reason not UTF-8", masked(fin|opClose, status(1000, "\xff"))},                 // section 5.5.1
	} {
		t.Run(tt.name, func(t *testing.T) {
			paths(t, func(t *testing.T, dial dialer) {
				h := newEvents()
				c, p := dial(t, usual, h)
				p.write(masked(fin|opText, "fine"), tt.bytes)
				h.want(t, "fine")
				_ = p.nc.SetReadDeadline(time.Now().Add(patience))
				head, payload, err := p.frame()
				if err != nil || head != fin|opClose || !strings.HasPrefix(payload, status(1002, "")) {
					t.Fatalf("the peer read %#x %q, %v; want a close frame with 1002", head, payload, err)
				}
				if !utf8.ValidString(payload[2:]) {
					t.Errorf("the reason %q is not UTF-8", payload[2:])
				}
				got := h.cause(t)
				if got.Reason != ReasonTransportError || got.Err == nil {
					t.Errorf("Closed(%+v), want %s with its error", got, ReasonTransportError)
				}
				_ = p.nc.Close()
				c.e.conns.Wait()
			})
		})
	}
}

// The status of a too large message reaches a peer that is still sending it.
func TestTooLarge(t *testing.T) {
	cfg := usual
	cfg.MaxPayload = 100 << 10
	for _, tt := range []struct {
		name  string
		bytes []byte
	}{
		{"one frame", masked(fin|opText, strings.Repeat("x", 400<<10))},
		{"fragments", append(masked(opText, strings.Repeat("x", 90<<10)), masked(fin, strings.Repeat("x", 300<<10))...)},
		{"a byte too many", masked(fin|opText, strings.Repeat("x", 100<<10+1))},
		{"a length beyond all bounds", append([]byte{fin | opText, 0x80 | 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, make([]byte, 200<<10)...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			paths(t, func(t *testing.T, dial dialer) {
				h := newEvents()
				c, p := dial(t, cfg, h)
				p.text(strings.Repeat("x", 100<<10))
				h.want(t, strings.Repeat("x", 100<<10))
				var sending sync.WaitGroup
				sending.Go(func() {
					if _, err := p.nc.Write(tt.bytes); err != nil {
						t.Errorf("the peer could not send to the end: %v", err)
					}
				})
				p.want(opClose, status(1009, "message too large"))
				if got := h.cause(t); got.Reason != ReasonTooLarge {
					t.Errorf("Closed(%+v), want %s", got, ReasonTooLarge)
				}
				sending.Wait()
				_ = p.nc.Close()
				c.e.conns.Wait()
			})
		})
	}
}

// A peer that never stops sending does not keep a connection that is closed.
func TestTooLargeWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newEvents()
		_, p := dialPipe(t, Config{PingInterval: 25 * time.Second, PingTimeout: 20 * time.Second, MaxPayload: 1000, SendBuffer: 1000}, h)
		go func() { _, _ = io.Copy(io.Discard, p.nc) }()
		start := time.Now()
		_, err := p.nc.Write(masked(fin|opText, strings.Repeat("x", 1001)))
		for err == nil {
			_, err = p.nc.Write([]byte("more"))
			time.Sleep(100 * time.Millisecond)
		}
		within(t, "the cut", start, 0, closeTimeout+2*tick)
	})
}

// linger waits for the peer's answer, and not for ever.
func TestLingerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name  string
			reads bool
		}{{"a peer that does not answer", true}, {"a peer that does not read", false}} {
			h := newEvents()
			c, p := dialPipe(t, usual, h)
			start := time.Now()
			c.Close(Cause{Reason: "test", Code: 4000})
			if tt.reads {
				p.want(opClose, status(4000, ""))
				p.wantEnd()
			}
			c.e.conns.Wait()
			within(t, tt.name+" was cut", start, closeTimeout, tick)
		}
	})
}

// A connection that was paused when it is closed has unread bytes in the
// kernel, which would answer the peer with a reset in place of the close frame.
func TestCloseWhileParked(t *testing.T) {
	paths(t, func(t *testing.T, dial dialer) {
		h := newEvents()
		conn := make(chan *Conn, 1)
		h.receive = func(_ bool, data []byte) Task {
			c := <-conn
			c.Pause()
			h.got <- message{data: string(data)}
			return nil
		}
		c, p := dial(t, usual, h)
		conn <- c
		p.text("pause")
		h.want(t, "pause")
		eventually(t, "the reader has left", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.parked
		})
		unread := masked(fin|opText, strings.Repeat("x", 10000))
		var sending sync.WaitGroup
		sending.Go(func() { _, _ = p.nc.Write(unread) })
		if p.nc.LocalAddr().Network() != "pipe" {
			sending.Wait() // a pipe has no memory
		}
		c.Close(Cause{Reason: "test", Code: 4409, Text: "session ended"})
		p.want(opClose, status(4409, "session ended"))
		sending.Wait()
		p.write(masked(fin|opClose, status(4409, "")))
		p.wantEnd()
		c.Resume() // by a dispatcher that has not heard of it
		c.e.conns.Wait()
		if len(h.got) != 0 {
			t.Errorf("%d messages after Close", len(h.got))
		}
	})
}

// lockedHandler locks in Closed what its users hold while they send.
type lockedHandler struct {
	events
	mu sync.Mutex
}

func (h *lockedHandler) Closed(c Cause) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events.Closed(c)
}

// Whoever sends may hold locks: Closed, which takes them too, must not come
// out of Send.
func TestClosedOutsideSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.SendBuffer = 10
		h := &lockedHandler{events: *newEvents()}
		c, p := dialPipe(t, cfg, h)
		h.mu.Lock()
		var err error
		for err == nil {
			err = c.Send(text("0123456789"))
		}
		h.mu.Unlock()
		if !errors.Is(err, ErrClosed) {
			t.Errorf("Send = %v, want %v", err, ErrClosed)
		}
		if got := <-h.closed; got.Reason != ReasonSlow {
			t.Errorf("Closed(%+v), want %s", got, ReasonSlow)
		}
		_ = p.nc.Close()
	})
}

// Nor out of a SendNow whose write fails.
func TestClosedOutsideSendNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &lockedHandler{events: *newEvents()}
		c, _ := dialWrapped(t, engineFor(t, usual), h, func(nc net.Conn) net.Conn { return &failing{Conn: nc, err: io.ErrClosedPipe} })
		h.mu.Lock()
		if err := c.SendNow(text("lost")); err != nil {
			t.Errorf("SendNow = %v, want nil: the handler is told", err)
		}
		h.mu.Unlock()
		if got := <-h.closed; got.Reason != ReasonTransportError {
			t.Errorf("Closed(%+v), want %s", got, ReasonTransportError)
		}
	})
}

func TestEngineCloseTwice(t *testing.T) {
	e := New(usual)
	e.Close()
	e.Close()
}

func TestCloseFrame(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"none", "", "\x88\x02\x03\xe8"},
		{"short", "bye", "\x88\x05\x03\xe8bye"},
		{"as long as fits", strings.Repeat("x", 123), "\x88\x7d\x03\xe8" + strings.Repeat("x", 123)},
		{"too long", strings.Repeat("x", 124), "\x88\x7d\x03\xe8" + strings.Repeat("x", 123)},
		// Half a character would make the close frame itself a protocol error.
		{"too long by half a character", strings.Repeat("x", 122) + "é", "\x88\x7c\x03\xe8" + strings.Repeat("x", 122)},
		{"too long by a quarter", strings.Repeat("x", 120) + "😀", "\x88\x7a\x03\xe8" + strings.Repeat("x", 120)},
	} {
		if got := string(closeFrame(1000, tt.text).wire); got != tt.want {
			t.Errorf("%s: closeFrame = %q, want %q", tt.name, got, tt.want)
		}
	}
}
