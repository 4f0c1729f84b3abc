package engine

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-usher/usher/adapter/internal/eio"
)

// A pollClient is a client of a Session, with nothing in between but packets.
type pollClient struct {
	*Session
	t *testing.T
	h *events
}

// An answer is what a poll got, and when.
type answer struct {
	body string
	err  error
	at   time.Time
}

// polling runs test with a session that polls, in virtual time.
func polling(t *testing.T, test func(t *testing.T, c *pollClient)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.UpgradeTimeout = 10 * time.Second
		e, h := engineFor(t, cfg), newEvents()
		c := &pollClient{e.NewSession(V4, h), t, h}
		t.Cleanup(func() { c.Close(Cause{}) })
		test(t, c)
	})
}

// hold begins a poll and returns when it is held.
func (c *pollClient) hold() <-chan answer {
	ch := make(chan answer, 1)
	go func() {
		frames, err := c.Poll(nil)
		ch <- answer{string(AppendPoll(nil, frames)), err, time.Now()}
	}()
	synctest.Wait()
	return ch
}

func (c *pollClient) poll() answer { return <-c.hold() }

func (c *pollClient) wantPoll(want string) {
	c.t.Helper()
	if a := c.poll(); a.body != want || a.err != nil {
		c.t.Fatalf("the poll was answered %s, %v; want %q", brief(a.body), a.err, want)
	}
}

func (c *pollClient) post(body string) error {
	if err := c.BeginPost(); err != nil {
		return err
	}
	defer c.EndPost()
	return c.Post(eio.DecodePayload(c.Dialect().Version(), []byte(body), eio.Limits{}))
}

func (c *pollClient) mustPost(body string) {
	c.t.Helper()
	if err := c.post(body); err != nil {
		c.t.Fatalf("POST %q: %v", body, err)
	}
}

func (c *pollClient) emit(texts ...string) {
	c.t.Helper()
	for _, s := range texts {
		if err := c.Send(text(s)); err != nil {
			c.t.Fatalf("Send %s: %v", s, err)
		}
	}
}

// open opens a WebSocket for the session.
func (c *pollClient) open() *peer {
	c.t.Helper()
	here, there := net.Pipe()
	p := newPeer(c.t, there)
	c.t.Cleanup(func() { _ = there.Close() })
	shaken := make(chan error, 1)
	go func() { shaken <- p.shake() }()
	err := c.Upgrade(&pipeWriter{header: http.Header{}, nc: here}, request(c.t, handshake), nil, c.Dialect())
	if err := errors.Join(err, <-shaken); err != nil {
		c.t.Fatal(err)
	}
	return p
}

// probe opens a WebSocket and probes it.
func (c *pollClient) probe() *peer {
	c.t.Helper()
	p := c.open()
	p.text("2probe")
	p.want(opText, "3probe")
	return p
}

func (c *pollClient) alive() {
	c.t.Helper()
	synctest.Wait()
	select {
	case cause := <-c.h.closed:
		c.t.Fatalf("the session ended with %+v", cause)
	default:
	}
}

func (c *pollClient) wantEnd(reason string) {
	c.t.Helper()
	if cause := c.h.cause(c.t); cause.Reason != reason {
		c.t.Errorf("ended with %+v, want %q", cause, reason)
	}
	synctest.Wait()
	select {
	case cause := <-c.h.closed:
		c.t.Errorf("Closed was called again, with %+v", cause)
	default:
	}
	if err := c.Send(text("4late")); !errors.Is(err, ErrClosed) {
		c.t.Errorf("Send after the end: %v, want %v", err, ErrClosed)
	}
}

func TestPollingHeartbeat(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		last := time.Now()
		for range 50 {
			c.wantPoll("2")
			within(t, "ping", last, 25*time.Second, tick)
			time.Sleep(19 * time.Second)
			c.mustPost("3")
			last = time.Now()
		}
		c.wantPoll("2")
		ping := time.Now()
		c.mustPost("4a message is no pong")
		c.wantPoll("1")
		within(t, "the end", ping, 20*time.Second, tick)
		c.wantEnd(ReasonPingTimeout)
	})
}

// A client that has gone without a word has no poll to be pinged by.
func TestPollingClientGone(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		start := time.Now()
		cause := <-c.h.closed
		within(t, "the end", start, 45*time.Second, 2*tick)
		if cause.Reason != ReasonPingTimeout {
			t.Errorf("ended with %+v, want %q", cause, ReasonPingTimeout)
		}
	})
}

// A pong that nobody has asked for does not put the heartbeat off.
func TestPollingEarlyPong(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		start := time.Now()
		time.Sleep(20 * time.Second)
		c.mustPost("3")
		c.wantPoll("2")
		within(t, "ping", start, 25*time.Second, tick)
	})
}

// A client posts once at a time. While the server holds a POST back its pong
// has to wait, and that is not its fault; but it expects pings.
func TestHeldPostIsNoSilence(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		c.h.receive = func(bool, []byte) Task { c.Pause(); return nil }
		posted := make(chan error, 1)
		go func() { posted <- c.post("4slow") }()
		last := time.Now()
		for range 20 {
			c.wantPoll("2")
			if d := time.Since(last); d > 40*time.Second {
				t.Fatalf("%v without a ping; the client counts 45s", d)
			}
			last = time.Now()
		}
		time.Sleep(19*time.Second + 900*time.Millisecond)
		c.alive()
		c.Resume()
		if err := <-posted; err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		c.mustPost("3")
		time.Sleep(20 * time.Second)
		c.alive()
	})
}

func TestPollsGetWhatWasSent(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		c.emit("4a", "4b")
		b := NewBuilder(3)
		b.Append(func(dst []byte) []byte { return append(dst, 1, 2, 3) })
		if err := c.Send(text("451-[]"), b.Binary()); err != nil {
			t.Fatal(err)
		}
		c.wantPoll("4a\x1e4b\x1e451-[]\x1ebAQID")
		held := c.hold()
		c.emit("4c", "4d")
		if a := <-held; a.body != "4c" {
			t.Errorf("the held poll was answered %q, want what came first", a.body)
		}
		c.wantPoll("4d")
	})
}

func TestPollingVolatile(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		for _, s := range []string{"4a", "4b"} {
			if err := c.SendVolatile(text(s)); err != nil {
				t.Fatal(err)
			}
		}
		c.wantPoll("4a")
		held := c.hold()
		if err := c.SendVolatile(text("4c")); err != nil {
			t.Fatal(err)
		}
		if a := <-held; a.body != "4c" {
			t.Errorf("the held poll was answered %q, want 4c", a.body)
		}
	})
}

// Nobody polls, and what is sent piles up. The handler is told on a goroutine
// of its own: who sends may hold its locks.
func TestPollingSlow(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		large := text("4" + strings.Repeat("x", usual.SendBuffer/4))
		var err error
		n := 0
		for ; err == nil; n++ {
			err = c.Send(large)
		}
		if !errors.Is(err, ErrClosed) || n != 4 {
			t.Errorf("Send %d of a quarter of SendBuffer: %v; want %v for the fourth", n, err, ErrClosed)
		}
		c.wantEnd(ReasonSlow)
		c.wantPoll("1")
		if a := c.poll(); !errors.Is(a.err, ErrClosed) {
			t.Errorf("a poll after the end: %+v, want %v", a, ErrClosed)
		}
	})
}

// What was sent before the end arrives, and then the word that it is over.
func TestPollingClose(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		c.emit("4bye")
		c.Close(Cause{Reason: "over"})
		c.Close(Cause{Reason: "again"})
		c.wantEnd("over")
		c.wantPoll("4bye\x1e1")
		if a := c.poll(); !errors.Is(a.err, ErrClosed) {
			t.Errorf("a poll after the end: %+v, want %v", a, ErrClosed)
		}
		if err := c.post("4x"); !errors.Is(err, ErrClosed) {
			t.Errorf("a POST after the end: %v, want %v", err, ErrClosed)
		}
	})
	polling(t, func(t *testing.T, c *pollClient) {
		held := c.hold()
		c.Close(Cause{Reason: "over"})
		if a := <-held; a.body != "1" {
			t.Errorf("the held poll was answered %+v, want a close packet", a)
		}
	})
}

func TestPollingClientCloses(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		held := c.hold()
		c.mustPost("4last\x1e1\x1e4too late")
		if a := <-held; a.body != "6" {
			t.Errorf("the held poll was answered %+v, want a noop", a)
		}
		c.wantEnd(ReasonTransportClose)
		c.h.want(t, "last")
		if len(c.h.got) > 0 {
			t.Errorf("received %v after the close packet", <-c.h.got)
		}
	})
}

func TestPollingClientLeavesItsPoll(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		done := make(chan struct{})
		close(done)
		if frames, err := c.Poll(done); frames != nil || err != nil {
			t.Errorf("Poll = %v, %v; want nothing", frames, err)
		}
		c.wantEnd(ReasonTransportClose)
	})
}

func TestPollingOverlap(t *testing.T) {
	t.Run("polls", func(t *testing.T) {
		polling(t, func(t *testing.T, c *pollClient) {
			held := c.hold()
			if a := c.poll(); !errors.Is(a.err, ErrOverlap) {
				t.Errorf("the second poll: %+v, want %v", a, ErrOverlap)
			}
			if a := <-held; a.body != "1" {
				t.Errorf("the first poll was answered %+v, want a close packet", a)
			}
			c.wantEnd(ReasonTransportError)
		})
	})
	t.Run("posts", func(t *testing.T) {
		polling(t, func(t *testing.T, c *pollClient) {
			c.h.receive = func(bool, []byte) Task { c.Pause(); return nil }
			posted := make(chan error, 1)
			go func() { posted <- c.post("4a") }()
			synctest.Wait()
			if err := c.post("4b"); !errors.Is(err, ErrOverlap) {
				t.Errorf("the second POST: %v, want %v", err, ErrOverlap)
			}
			c.wantEnd(ReasonTransportError)
			if err := <-posted; err != nil { // closing ends the pause
				t.Error(err)
			}
		})
	})
}

// Packets that a client never sends, or not over this transport.
func TestPollingBadPackets(t *testing.T) {
	for _, body := range []string{"0", "2", "2probe", "5", "7", "x", "", "b?", "4a\x1e"} {
		t.Run(fmt.Sprintf("%q", body), func(t *testing.T) {
			polling(t, func(t *testing.T, c *pollClient) {
				_ = c.post(body)
				c.wantEnd(ReasonParse)
			})
		})
	}
}

func TestUpgrade(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		held := c.hold()
		p := c.probe()
		probed := time.Now()
		a := <-held
		if a.body != "6" {
			t.Fatalf("the held poll was answered %+v, want a noop", a)
		}
		within(t, "the noop", probed, noopDelay, 2*tick)
		// The client has its noop, and has yet to move.
		c.emit("4a", "4b")
		p.text("5")
		p.want(opText, "4a")
		p.want(opText, "4b")
		c.emit("4c")
		p.want(opText, "4c")
		p.text("4up")
		c.h.want(t, "up")
		if a := c.poll(); !errors.Is(a.err, ErrClosed) {
			t.Errorf("a poll after the upgrade: %+v, want %v", a, ErrClosed)
		}
		if err := c.post("4x"); !errors.Is(err, ErrClosed) {
			t.Errorf("a POST after the upgrade: %v, want %v", err, ErrClosed)
		}
		p.text("1")
		p.want(opClose, status(1000, ""))
		c.wantEnd(ReasonTransportClose)
	})
}

// A client that polls on while it probes gets a noop each time, and one that
// moves without waiting for it gets it then.
func TestUpgradeLeavesNoPollHanging(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		p := c.probe()
		for range 3 {
			start := time.Now()
			c.wantPoll("6")
			within(t, "the noop", start, 0, 2*tick)
		}
		held := c.hold()
		p.text("5")
		if a := <-held; a.body != "6" {
			t.Errorf("the held poll was answered %+v, want a noop", a)
		}
	})
}

// The client counts from the last ping, whatever carried it.
func TestUpgradeKeepsTheBeat(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		c.wantPoll("2")
		ping := time.Now()
		c.mustPost("3")
		time.Sleep(24 * time.Second)
		p := c.probe()
		p.text("5")
		p.want(opText, "2")
		within(t, "ping", ping, 25*time.Second, 2*tick)
		for i := range 20 {
			p.text("3")
			p.want(opText, "2")
			within(t, "ping", ping, time.Duration(i+2)*25*time.Second, time.Duration(2*i+4)*tick)
		}
		ping = time.Now()
		cause := <-c.h.closed
		within(t, "the end", ping, 20*time.Second, 2*tick)
		if cause.Reason != ReasonPingTimeout {
			t.Errorf("ended with %+v, want %q", cause, ReasonPingTimeout)
		}
	})
}

// A ping that was under way by polling may be answered over the WebSocket.
func TestUpgradeBetweenPingAndPong(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		c.wantPoll("2")
		p := c.probe()
		p.text("5")
		p.text("3")
		p.want(opText, "2")
		p.text("3")
		c.alive()
	})
}

func TestUpgradeTimeout(t *testing.T) {
	for _, tt := range []struct {
		name string
		open func(c *pollClient) *peer
	}{
		{"no probe", (*pollClient).open},
		{"no upgrade", (*pollClient).probe},
		{"probes again and again", func(c *pollClient) *peer {
			p := c.probe()
			for range 5 {
				time.Sleep(time.Second)
				p.text("2probe")
				p.want(opText, "3probe")
			}
			return p
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			polling(t, func(t *testing.T, c *pollClient) {
				start := time.Now()
				p := tt.open(c)
				p.want(opClose, status(1000, "upgrade timeout"))
				within(t, "the end of the probe", start, 10*time.Second, 2*tick)
				_ = p.nc.Close()
				c.emit("4still polling")
				c.wantPoll("4still polling")
				c.probe().text("5") // and may try again
				c.mustBe(false)
			})
		})
	}
}

// mustBe waits until the session is, or is not, carried by polls.
func (c *pollClient) mustBe(polls bool) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if (c.ws == nil) != polls {
		c.t.Fatalf("carried by polls: %v, want %v", !polls, polls)
	}
}

// The client waits for the answer to its POST before it moves. If the probe
// ended meanwhile it would be left with neither transport.
func TestUpgradeWaitsForAHeldPost(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		c.h.receive = func(_ bool, data []byte) Task {
			if string(data) == "slow" {
				c.Pause()
			}
			return nil
		}
		posted := make(chan error, 1)
		go func() { posted <- c.post("4slow") }()
		p := c.probe()
		time.Sleep(15 * time.Second)
		c.Resume()
		if err := <-posted; err != nil {
			t.Fatal(err)
		}
		p.text("5")
		c.mustBe(false)
		c.alive()
	})
}

// A client that moves while its POST is held back gains nothing by it: the
// handler gets no message until it wants more.
func TestPauseAcrossTheUpgrade(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		c.h.receive = func(_ bool, data []byte) Task {
			if string(data) == "first" {
				c.Pause()
			}
			c.h.got <- message{false, string(data)}
			return nil
		}
		posted := make(chan error, 1)
		go func() { posted <- c.post("4first") }()
		p := c.probe()
		p.text("5")
		go p.write(masked(fin|opText, "4second"))
		c.h.want(t, "first")
		c.mustBe(false)
		time.Sleep(10 * time.Second)
		if len(c.h.got) > 0 {
			t.Fatalf("received %v during a pause", <-c.h.got)
		}
		c.Resume()
		if err := <-posted; err != nil {
			t.Error(err)
		}
		c.h.want(t, "second")
	})
}

func TestSecondWebSocketIsClosed(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		first := c.probe()
		c.open().want(opClose, status(1000, "upgraded already"))
		first.text("5")
		c.mustBe(false)
		second := c.open()
		second.want(opClose, status(1000, "upgraded already"))
		c.emit("4to the first")
		first.want(opText, "4to the first")
	})
	polling(t, func(t *testing.T, c *pollClient) {
		c.Close(Cause{Reason: "over"})
		c.open().want(opClose, status(1000, "upgraded already"))
	})
}

// A probe that fails in whatever way leaves the polls going.
func TestProbeFails(t *testing.T) {
	for name, frames := range map[string][]string{
		"upgrade without a probe": {"5"},
		"a message":               {"4hello"},
		"a ping":                  {"2"},
		"garbage":                 {"x"},
		"nothing":                 nil,
	} {
		t.Run(name, func(t *testing.T) {
			polling(t, func(t *testing.T, c *pollClient) {
				p := c.open()
				for _, f := range frames {
					p.text(f)
					p.want(opClose, status(1008, "expected a probe"))
				}
				_ = p.nc.Close()
				synctest.Wait()
				c.emit("4a")
				c.wantPoll("4a")
				c.alive()
				c.probe().text("5")
				c.mustBe(false)
			})
		})
	}
}

// The end of the session ends its probe.
func TestCloseDuringTheProbe(t *testing.T) {
	polling(t, func(t *testing.T, c *pollClient) {
		p := c.probe()
		c.Close(Cause{Reason: "over"})
		p.want(opClose, status(1000, ""))
		_ = p.nc.Close()
		c.wantPoll("1")
	})
}
