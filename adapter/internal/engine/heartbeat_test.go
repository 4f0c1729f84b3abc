package engine

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// within fails unless the time since start is at least d and at most late more.
func within(t *testing.T, what string, start time.Time, d, late time.Duration) {
	t.Helper()
	if got := time.Since(start); got < d || got > d+late {
		t.Errorf("%s after %v, want %v and at most %v more", what, got, d, late)
	}
}

func TestPingAndTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newEvents()
		start := time.Now()
		_, p := dialPipe(t, usual, h)
		p.want(opPing, "")
		within(t, "ping", start, 25*time.Second, tick)
		c := <-h.closed
		within(t, "the end", start, 45*time.Second, 2*tick)
		if c.Reason != ReasonPingTimeout || c.Code != 0 {
			t.Errorf("ended with %+v, want a %s without a close frame", c, ReasonPingTimeout)
		}
		p.wantEnd()
	})
}

func TestPongKeepsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newEvents()
		start := time.Now()
		_, p := dialPipe(t, usual, h)
		for i := range 100 {
			p.want(opPing, "")
			// Ping and verdict are each rounded up to a tick of the wheel.
			within(t, "ping", start, time.Duration(i+1)*25*time.Second, time.Duration(2*i+1)*tick)
			p.write(masked(fin|opPong, ""))
		}
		p.text("still here")
		h.want(t, "still here")
	})
}

// Any byte is a sign of life, also one that completes nothing.
func TestAnyByteKeepsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newEvents()
		_, p := dialPipe(t, usual, h)
		frame := masked(fin|opText, "slowly")
		for i := range frame {
			p.want(opPing, "")
			time.Sleep(19 * time.Second)
			p.write(frame[i : i+1])
		}
		h.want(t, "slowly")
		// A byte before the ping does not count.
		start := time.Now()
		p.want(opPing, "")
		if c := <-h.closed; c.Reason != ReasonPingTimeout {
			t.Errorf("ended with %+v, want a %s", c, ReasonPingTimeout)
		}
		within(t, "the end", start, 20*time.Second, 25*time.Second)
	})
}

// A peer that does not take the ping is dead, and so is, one heartbeat later,
// a peer that sends but never reads.
func TestStuckPeer(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newEvents()
			start := time.Now()
			_, p := dialPipe(t, usual, h)
			if c := <-h.closed; c.Reason != ReasonPingTimeout {
				t.Errorf("ended with %+v, want a %s", c, ReasonPingTimeout)
			}
			within(t, "the end", start, 45*time.Second, 2*tick)
			p.wantEnd()
		})
	})
	t.Run("a message in the way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newEvents()
			start := time.Now()
			c, p := dialPipe(t, usual, h)
			_ = c.Send(text("never read"))
			time.Sleep(26 * time.Second)
			p.text("but I am here")
			h.want(t, "but I am here")
			if c := <-h.closed; c.Reason != ReasonPingTimeout {
				t.Errorf("ended with %+v, want a %s", c, ReasonPingTimeout)
			}
			within(t, "the end", start, 45*time.Second, 2*tick)
		})
	})
	t.Run("talkative", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newEvents()
			start := time.Now()
			_, p := dialPipe(t, usual, h)
			for {
				select {
				case c := <-h.closed:
					if c.Reason != ReasonPingTimeout {
						t.Errorf("ended with %+v, want a %s", c, ReasonPingTimeout)
					}
					within(t, "the end", start, 45*time.Second, 30*time.Second)
					return
				case <-time.After(time.Second):
					_, _ = p.nc.Write(masked(fin|opText, "la"))
				}
			}
		})
	})
}

// While the handler wants no messages nobody listens for signs of life, so
// their absence proves nothing.
func TestParkedIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newEvents()
		var c *Conn
		ready := make(chan struct{})
		h.receive = func(_ bool, data []byte) Task {
			<-ready
			h.got <- message{data: string(data)}
			c.Pause()
			return nil
		}
		c, p := dialPipe(t, usual, h)
		close(ready)
		p.text("one")
		h.want(t, "one")
		start := time.Now()
		for range 20 {
			p.want(opPing, "")
		}
		within(t, "20 pings", start, 500*time.Second, 50*tick)

		// Resumed just before the verdict: the peer had no time to be heard.
		time.Sleep(20*time.Second - 2*tick)
		c.Resume()
		p.want(opPing, "")
		p.text("two")
		h.want(t, "two")
	})
}

// A ping is forced into a full queue: it must not be what makes a peer slow.
func TestPingIntoFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.SendBuffer = 100
		h := newEvents()
		c, p := dialPipe(t, cfg, h)
		time.Sleep(24 * time.Second)
		full := text(string(make([]byte, 98)))
		for range 2 { // one is being written, the other fills the queue
			if err := c.Send(full); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.Sleep(2 * time.Second)
		p.want(opText, string(make([]byte, 98)))
		p.want(opText, string(make([]byte, 98)))
		p.want(opPing, "")
		p.write(masked(fin|opPong, ""))
		time.Sleep(20 * time.Second)
		if err := c.Send(text("more")); err != nil {
			t.Errorf("Send = %v, want nil", err)
		}
		p.want(opText, "more")
	})
}

// A close that met the heartbeat was once given the heartbeat's patience in
// place of its own, or cut before its close frame could leave.
func TestCloseMeetsHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut atomic.Int32
		start := time.Now()
		e := engineFor(t, usual)
		for range 300 {
			h := newEvents()
			c, p := dialWrapped(t, e, h, func(nc net.Conn) net.Conn { return nc })
			go func() {
				// Both at the tick in which the ping is due.
				time.Sleep(25*time.Second - time.Since(start))
				c.Close(Cause{Reason: "test", Code: 4000})
			}()
			go func() {
				head, payload, err := p.frame()
				if err == nil && head == fin|opPing {
					head, payload, err = p.frame()
				}
				if err != nil || head != fin|opClose || payload != status(4000, "") {
					t.Errorf("the peer read %#x %q, %v; want the close frame", head, payload, err)
				}
				p.wantEnd()
				within(t, "the cut", start, 30*time.Second, 2*tick)
				cut.Add(1)
			}()
		}
		time.Sleep(time.Minute)
		if cut.Load() != 300 {
			t.Errorf("%d of 300 connections were cut", cut.Load())
		}
		e.wheel.mu.Lock()
		defer e.wheel.mu.Unlock()
		if e.wheel.count != 0 {
			t.Errorf("%d timers of dead connections are left", e.wheel.count)
		}
	})
}

// A heartbeat that fired before the connection was closed and comes after it
// says nothing about the time left for closing.
func TestLateHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newEvents()
		c, p := dialPipe(t, usual, h)
		due := time.Now()
		_ = c.Send(text("last words"))
		c.Close(Cause{Reason: "test", Code: 4000, Text: "bye"})
		c.Expired(due)
		p.want(opText, "last words")
		p.want(opClose, status(4000, "bye"))
		p.write(masked(fin|opClose, status(4000, "")))
		p.wantEnd()
	})
}
