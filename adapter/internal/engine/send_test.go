package engine

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

func TestFrame(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload string
		header  string
	}{
		{"empty", "", "\x81\x00"},
		{"RFC 6455, section 5.7", "Hello", "\x81\x05"},
		{"longest short", strings.Repeat("x", 125), "\x81\x7d"},
		{"shortest medium", strings.Repeat("x", 126), "\x81\x7e\x00\x7e"},
		{"256 bytes", strings.Repeat("x", 256), "\x81\x7e\x01\x00"},
		{"longest medium", strings.Repeat("x", 1<<16-1), "\x81\x7e\xff\xff"},
		{"64 KiB", strings.Repeat("x", 1<<16), "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, room := range []int{0, len(tt.payload)} {
				b := NewBuilder(room)
				half := len(tt.payload) / 2
				b.Append(func(dst []byte) []byte { return append(dst, tt.payload[:half]...) })
				b.Append(func(dst []byte) []byte { return append(dst, tt.payload[half:]...) })
				if got, want := string(b.Text().wire), tt.header+tt.payload; got != want {
					t.Errorf("Text() = %s, want %s", brief(got), brief(want))
				}
			}
			b := NewBuilder(0)
			b.Append(func(dst []byte) []byte { return append(dst, tt.payload...) })
			if got, want := string(b.Binary().wire), "\x82"+tt.header[1:]+tt.payload; got != want {
				t.Errorf("Binary() = %s, want %s", brief(got), brief(want))
			}
		})
	}
}

// Frames that wait together leave in one write.
func TestGathering(t *testing.T) {
	for _, tt := range []struct {
		name   string
		queued []int // sizes of payloads, while another frame is being written
		writes []int // sizes of the writes that follow
	}{
		{"one", []int{10}, []int{12}},
		{"four", []int{10, 10, 10, 10}, []int{48}},
		{"as much as fits", []int{40 << 10, 24<<10 - 8}, []int{64 << 10}},
		{"a byte more", []int{40 << 10, 24<<10 - 7}, []int{40<<10 + 4, 24<<10 - 3}},
		{"one too long to copy", []int{10, 70 << 10, 10, 10}, []int{12, 70<<10 + 10, 24}},
		{"only that one and another", []int{70 << 10, 70 << 10}, []int{70<<10 + 10, 70<<10 + 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &meter{sizes: make(chan int, 100)}
				c, p := dialWrapped(t, engineFor(t, usual), newEvents(), func(nc net.Conn) net.Conn {
					m.Conn = nc
					return m
				})
				<-m.sizes // the handshake
				_ = c.Send(text("being written"))
				synctest.Wait()
				for i, n := range tt.queued {
					if err := c.Send(text(strings.Repeat(string(rune('a'+i)), n))); err != nil {
						t.Fatal(err)
					}
				}
				p.want(opText, "being written")
				for i, n := range tt.queued {
					p.want(opText, strings.Repeat(string(rune('a'+i)), n))
				}
				synctest.Wait()
				<-m.sizes
				close(m.sizes)
				var writes []int
				for n := range m.sizes {
					writes = append(writes, n)
				}
				if !slices.Equal(writes, tt.writes) {
					t.Errorf("writes of %v bytes, want %v", writes, tt.writes)
				}
				m.sizes = make(chan int, 100) // for the end of the test
			})
		})
	}
}

// SendNow has written when it returns, unless another writer is at work.
func TestSendNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dialPipe(t, usual, newEvents())
		written := make(chan struct{})
		go func() {
			if err := c.SendNow(text("now")); err != nil {
				t.Errorf("SendNow = %v", err)
			}
			close(written)
		}()
		synctest.Wait()
		select {
		case <-written:
			t.Error("SendNow returned before the peer had read")
		default:
		}
		// Another goroutine is writing: this one has nothing to wait for.
		if err := c.SendNow(text("next")); err != nil {
			t.Errorf("SendNow = %v", err)
		}
		p.want(opText, "now")
		p.want(opText, "next")
		<-written
	})
}

func TestVolatile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.SendBuffer = 100
		h := newEvents()
		c, p := dialPipe(t, cfg, h)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(c.SendVolatile(text("taken")))
		synctest.Wait()
		must(c.Send(text("waits")))
		for range 100 {
			must(c.SendVolatile(text("dropped, and never what makes a peer slow")))
		}
		p.want(opText, "taken")
		p.want(opText, "waits")
		synctest.Wait()
		must(c.SendVolatile(text("taken again")))
		p.want(opText, "taken again")
	})
}

// A peer that does not read is closed and told why, the others go on.
func TestSlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.SendBuffer = 1000
		e := engineFor(t, cfg)
		slow, quick := newEvents(), newEvents()
		pipe := func(nc net.Conn) net.Conn { return nc }
		a, slowPeer := dialWrapped(t, e, slow, pipe)
		b, quickPeer := dialWrapped(t, e, quick, pipe)
		const n = 100
		var reading sync.WaitGroup
		reading.Go(func() {
			for i := range n {
				quickPeer.want(opText, fmt.Sprintf("%0100d", i))
			}
		})
		closed := 0
		for i := range n {
			f := text(fmt.Sprintf("%0100d", i))
			if err := a.Send(f); errors.Is(err, ErrClosed) {
				closed++
			} else if err != nil {
				t.Fatal(err)
			}
			if err := b.Send(f); err != nil {
				t.Fatalf("Send to the peer that reads = %v", err)
			}
			synctest.Wait()
		}
		reading.Wait()
		// One frame of 102 bytes is being written, nine are queued.
		if closed != n-10 {
			t.Errorf("%d of %d frames were refused, want %d", closed, n, n-10)
		}
		if c := <-slow.closed; c.Reason != ReasonSlow {
			t.Errorf("Closed(%+v), want %s", c, ReasonSlow)
		}
		slowPeer.want(opText, fmt.Sprintf("%0100d", 0))
		slowPeer.want(opClose, status(1008, "too slow"))
	})
}

// The same against a kernel's buffers.
func TestSlowPeerTCP(t *testing.T) {
	h := newEvents()
	c, p := dialTCP(t, usual, h)
	f := text(strings.Repeat("x", 10000))
	var err error
	for range 10000 { // 100 MB: no kernel takes that
		if err = c.Send(f); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrClosed) {
		t.Errorf("Send = %v, want %v", err, ErrClosed)
	}
	if c := h.cause(t); c.Reason != ReasonSlow {
		t.Errorf("Closed(%+v), want %s", c, ReasonSlow)
	}
	// What is in the buffers is whole frames, and the close frame behind them.
	for {
		head, payload, err := p.frame()
		if err != nil {
			t.Fatalf("the peer read %v before the close frame", err)
		}
		if head == fin|opClose {
			if payload != status(1008, "too slow") {
				t.Errorf("close frame %q, want 1008", payload)
			}
			return
		}
		if head != fin|opText || len(payload) != 10000 {
			t.Fatalf("the peer read frame %#x of %d bytes", head, len(payload))
		}
	}
}

// A frame larger than SendBuffer goes out if nothing else waits.
func TestFrameLargerThanBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.SendBuffer = 10
		c, p := dialPipe(t, cfg, newEvents())
		want := strings.Repeat("x", 1000)
		if err := c.Send(text(want)); err != nil {
			t.Fatal(err)
		}
		p.want(opText, want)
	})
}

// What one goroutine sends arrives in the order it was sent in.
func TestOrderPerSender(t *testing.T) {
	const senders, each = 8, 400
	paths(t, func(t *testing.T, dial dialer) {
		c, p := dial(t, usual, newEvents())
		var sending sync.WaitGroup
		for s := range senders {
			send := c.Send
			if s%2 == 0 {
				send = c.SendNow
			}
			sending.Go(func() {
				for i := range each {
					if err := send(text(fmt.Sprintf("%d %d", s, i))); err != nil {
						t.Errorf("Send = %v", err)
						return
					}
				}
			})
		}
		var next [senders]int
		for range senders * each {
			head, payload, err := p.frame()
			if err != nil || head != fin|opText {
				t.Fatalf("the peer read %#x %q, %v", head, payload, err)
			}
			var s, i int
			if _, err := fmt.Sscanf(payload, "%d %d", &s, &i); err != nil {
				t.Fatalf("the peer read %q", payload)
			}
			if i != next[s] {
				t.Fatalf("of sender %d came %d, want %d", s, i, next[s])
			}
			next[s]++
		}
		sending.Wait()
	})
}

// One frame serves a whole broadcast and is not touched by it.
func TestSharedFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := engineFor(t, usual)
		const n = 1000
		shared := text("for everybody")
		want := string(shared.wire)
		var conns []*Conn
		var reading sync.WaitGroup
		for range n {
			c, p := dialWrapped(t, e, newEvents(), func(nc net.Conn) net.Conn { return nc })
			conns = append(conns, c)
			reading.Go(func() {
				for range 3 {
					p.want(opText, "for everybody")
				}
				p.want(opClose, status(1012, "restarting"))
			})
		}
		for range 3 {
			for _, c := range conns {
				if err := c.Send(shared); err != nil {
					t.Errorf("Send = %v", err)
				}
			}
		}
		for _, c := range conns {
			c.Close(Cause{Reason: "test", Code: 1012, Text: "restarting"})
		}
		reading.Wait()
		if string(shared.wire) != want {
			t.Errorf("the frame became %q, want %q", shared.wire, want)
		}
	})
}

// A write that fails ends the connection.
func TestWriteError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newEvents()
		broken := errors.New("broken")
		c, p := dialWrapped(t, engineFor(t, usual), h, func(nc net.Conn) net.Conn { return &failing{Conn: nc, err: broken} })
		if err := c.Send(text("lost")); err != nil {
			t.Errorf("Send = %v, want nil: it does not wait", err)
		}
		if got := <-h.closed; got.Reason != ReasonTransportError || !errors.Is(got.Err, broken) {
			t.Errorf("Closed(%+v), want %s with its error", got, ReasonTransportError)
		}
		p.wantEnd()
	})
}

// A failing connection can write one thing, the answer to the handshake.
type failing struct {
	net.Conn
	err   error
	spent bool
}

func (f *failing) Write(b []byte) (int, error) {
	if f.spent {
		return 0, f.err
	}
	f.spent = true
	return f.Conn.Write(b)
}
