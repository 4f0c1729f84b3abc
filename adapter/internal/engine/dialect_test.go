package engine

import (
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-usher/usher/adapter/internal/eio"
)

// polling3 runs test with a session of protocol 3 that polls, in virtual time.
func polling3(t *testing.T, d Dialect, test func(t *testing.T, c *pollClient)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.UpgradeTimeout = 10 * time.Second
		e, h := engineFor(t, cfg), newEvents()
		c := &pollClient{e.NewSession(d, h), t, h}
		t.Cleanup(func() { c.Close(Cause{}) })
		test(t, c)
	})
}

// wantPoll3 polls in the encoding of protocol 3.
func (c *pollClient) wantPoll3(want string, framed bool) {
	c.t.Helper()
	frames, err := c.Poll(nil)
	body, binary := c.Dialect().AppendPoll(nil, frames)
	if err != nil || string(body) != want || binary != framed {
		c.t.Fatalf("the poll was answered %q (framed: %t), %v; want %q", body, binary, err, want)
	}
}

func bytesFrame(b string) Frame {
	return Packet(eio.Packet{Type: eio.Message, Binary: true, Data: []byte(b)})
}

// open3 opens a WebSocket that carries a session of its own.
func open3(t *testing.T, d Dialect) (*Session, *peer, *events) {
	t.Helper()
	e, h := engineFor(t, usual), newEvents()
	here, there := net.Pipe()
	p := newPeer(t, there)
	shaken := make(chan error, 1)
	go func() { shaken <- p.shake() }()
	s, err := e.OpenWebSocket(&pipeWriter{header: http.Header{}, nc: here}, request(t, handshake), nil, d, h)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = there.Close()
		s.Close(Cause{})
	})
	return s, p, h
}

func TestPolling3Encodings(t *testing.T) {
	for _, tt := range []struct {
		name   string
		d      Dialect
		send   []Frame
		want   string
		framed bool
	}{
		{"text", V3, []Frame{text("4é😀"), text("6")}, "4:4é😀1:6", false},
		{"bytes", V3, []Frame{text("4é"), bytesFrame("\x00\xff")}, "\x00\x03\xff4é\x01\x03\xff\x04\x00\xff", true},
		{"bytes and base64", V3Text, []Frame{text("4é"), bytesFrame("\x00\xff")}, "2:4é6:b4AP8=", false},
		{"no bytes", V3, []Frame{bytesFrame("")}, "\x01\x01\xff\x04", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			polling3(t, tt.d, func(t *testing.T, c *pollClient) {
				if err := c.Send(tt.send...); err != nil {
					t.Fatal(err)
				}
				c.wantPoll3(tt.want, tt.framed)
			})
		})
	}
}

// The frames of a broadcast are everybody's: what is made of them for one
// session must not be seen by others.
func TestTranslateLeavesFramesAlone(t *testing.T) {
	shared := []Frame{text("4x"), bytesFrame("\xff"), bytesFrame("\xfe")}
	before := string(shared[1].wire) + string(shared[2].wire)
	for d, want := range map[Dialect]string{V3: "\x82\x02\x04\xff\x82\x02\x04\xfe", V3Text: "\x81\x06b4/w==\x81\x06b4/g=="} {
		got := d.translate(shared)
		if got[0] != shared[0] {
			t.Error("text was copied")
		}
		if string(got[1].wire)+string(got[2].wire) != want {
			t.Errorf("%d: % x, % x; want % x", d, got[1].wire, got[2].wire, want)
		}
	}
	if string(shared[1].wire)+string(shared[2].wire) != before {
		t.Errorf("shared frames became % x, % x", shared[1].wire, shared[2].wire)
	}
	for _, d := range []Dialect{V4, V3} {
		if only := shared[:1]; &d.translate(only)[0] != &only[0] {
			t.Errorf("%d: text alone was copied", d)
		}
	}
}

func TestPolling3Heartbeat(t *testing.T) {
	polling3(t, V3, func(t *testing.T, c *pollClient) {
		for range 20 {
			time.Sleep(44 * time.Second)
			c.mustPost("1:2")
			c.wantPoll3("1:3", false)
		}
		c.mustPost("8:2é and x")
		c.wantPoll3("8:3é and x", false)
		last := time.Now()
		time.Sleep(30 * time.Second)
		c.mustPost("21:4a message is no ping")
		c.wantPoll3("1:1", false)
		within(t, "the end", last, 45*time.Second, tick)
		c.wantEnd(ReasonPingTimeout)
	})
}

// A client that has gone without a word, or that has never said one.
func TestPolling3ClientGone(t *testing.T) {
	polling3(t, V3, func(t *testing.T, c *pollClient) {
		start := time.Now()
		c.wantPoll3("1:1", false)
		within(t, "the end", start, 45*time.Second, tick)
		c.wantEnd(ReasonPingTimeout)
	})
}

// A client posts once at a time: it cannot ping while its POST is held back.
func TestPolling3HeldPostIsNoSilence(t *testing.T) {
	polling3(t, V3, func(t *testing.T, c *pollClient) {
		c.h.receive = func(bool, []byte) Task { c.Pause(); return nil }
		posted := make(chan error, 1)
		go func() { posted <- c.post("5:4slow") }()
		time.Sleep(10 * time.Minute)
		c.alive()
		c.Resume()
		if err := <-posted; err != nil {
			t.Fatal(err)
		}
		resumed := time.Now()
		time.Sleep(44 * time.Second)
		c.alive()
		c.wantPoll3("1:1", false)
		within(t, "the end", resumed, 45*time.Second, tick)
		c.wantEnd(ReasonPingTimeout)
	})
}

// Pings are the client's part, and only a message may be bytes.
func TestPolling3RefusesPackets(t *testing.T) {
	for _, body := range []string{"1:3", "1:0", "1:5", "6:b2AP8=", "6:b6AP8="} {
		polling3(t, V3, func(t *testing.T, c *pollClient) {
			held := c.hold()
			c.mustPost(body)
			if a := <-held; a.body != "1" {
				t.Errorf("after the POST %q the held poll was answered %+v, want a close packet", body, a)
			}
			c.wantEnd(ReasonParse)
		})
	}
	// In protocol 4 they are the server's.
	polling(t, func(t *testing.T, c *pollClient) {
		c.mustPost("2")
		c.wantEnd(ReasonParse)
		if a := c.poll(); !errors.Is(a.err, ErrClosed) || !c.Spent() {
			t.Errorf("a poll after the end: %+v, want %v", a, ErrClosed)
		}
	})
}

func TestWebSocket3Heartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p, h := open3(t, V3)
		for range 20 {
			time.Sleep(44 * time.Second)
			p.text("4before")
			h.want(t, "before")
			p.text("2x")
			p.want(opText, "3x")
		}
		last := time.Now()
		if c := <-h.closed; c.Reason != ReasonPingTimeout {
			t.Errorf("ended with %+v, want a %s", c, ReasonPingTimeout)
		}
		within(t, "the end", last, 45*time.Second, tick)
		p.wantEnd()
	})
}

// A ping cannot overtake the message before it, which a slow line may take long
// to carry: any byte since the last ping is a sign of life, as in protocol 4.
func TestWebSocket3SlowMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p, h := open3(t, V3)
		frame := masked(fin|opText, "4slowly, over a slow line")
		for i := range frame {
			time.Sleep(19 * time.Second)
			p.write(frame[i : i+1])
		}
		h.want(t, "slowly, over a slow line")
		p.text("2")
		p.want(opText, "3")
		last := time.Now()
		p.write(frame[:5]) // and then the line is dead
		if c := <-h.closed; c.Reason != ReasonPingTimeout {
			t.Errorf("ended with %+v, want a %s", c, ReasonPingTimeout)
		}
		within(t, "the end", last, 65*time.Second, 2*tick)
	})
}

// Nobody reads the pings of a client whose handler is behind.
func TestWebSocket3PausedIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p, h := open3(t, V3)
		h.receive = func(bool, []byte) Task { s.Pause(); return nil }
		p.text("4slow")
		time.Sleep(10 * time.Minute)
		s.Resume()
		time.Sleep(19 * time.Second)
		p.text("2")
		p.want(opText, "3")
		last := time.Now()
		if c := <-h.closed; c.Reason != ReasonPingTimeout {
			t.Errorf("ended with %+v, want a %s", c, ReasonPingTimeout)
		}
		within(t, "the end", last, 45*time.Second, tick)
	})
}

// In both directions the type stands before the bytes.
func TestWebSocket3Bytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p, h := open3(t, V3)
		if err := s.Send(text("4é"), bytesFrame("\x00\xff")); err != nil {
			t.Fatal(err)
		}
		p.want(opText, "4é")
		p.want(opBinary, "\x04\x00\xff")
		for _, frame := range [][]byte{masked(fin|opBinary, "\x04\x00\xff"), masked(fin|opText, "b4AP8=")} {
			p.write(frame)
			if m := h.next(t); !m.binary || m.data != "\x00\xff" {
				t.Errorf("received %+v, want the bytes", m)
			}
		}
		p.write(masked(fin|opBinary, "\x07\x00"))
		if c := h.cause(t); c.Reason != ReasonParse {
			t.Errorf("ended with %+v, want a %s", c, ReasonParse)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, p, _ := open3(t, V3Text)
		if err := s.Send(bytesFrame("\x00\xff")); err != nil {
			t.Fatal(err)
		}
		p.want(opText, "b4AP8=")
	})
}

// What waited for a poll goes over the WebSocket in its form, and the client's
// pings count on from the last one.
func TestUpgrade3(t *testing.T) {
	polling3(t, V3Text, func(t *testing.T, c *pollClient) {
		time.Sleep(20 * time.Second)
		c.mustPost("1:2")
		last := time.Now()
		c.wantPoll3("1:3", false)
		held := c.hold()
		here, there := net.Pipe()
		p := newPeer(t, there)
		t.Cleanup(func() { _ = there.Close() })
		shaken := make(chan error, 1)
		go func() { shaken <- p.shake() }()
		err := c.Upgrade(&pipeWriter{header: http.Header{}, nc: here}, request(t, handshake), nil, V3)
		if err := errors.Join(err, <-shaken); err != nil {
			t.Fatal(err)
		}
		p.text("2probe")
		p.want(opText, "3probe")
		probed := time.Now()
		if a := <-held; a.body != "6" {
			t.Errorf("the held poll was answered %q, want the noop", a.body)
		}
		within(t, "the noop", probed, noopDelay, tick)
		if err := c.Send(text("4waiting"), bytesFrame("\xff")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		p.text("5")
		p.want(opText, "4waiting")
		p.want(opBinary, "\x04\xff") // this WebSocket has not asked for base64
		if c := <-c.h.closed; c.Reason != ReasonPingTimeout {
			t.Errorf("ended with %+v, want a %s", c, ReasonPingTimeout)
		}
		// It has said something since then.
		within(t, "the end", last, 65*time.Second, 2*tick)
	})
}
