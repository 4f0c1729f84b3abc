package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// feed writes b in pieces that end at each of cuts, and waits in between until
// the engine has read what was written.
func (p *peer) feed(c *Conn, b []byte, cuts ...int) {
	p.t.Helper()
	at := 0
	for _, cut := range append(cuts, len(b)) {
		if cut <= at || cut > len(b) {
			continue
		}
		c.heard.Store(false)
		p.write(b[at:cut])
		at = cut
		eventually(p.t, "the engine has read", c.heard.Load)
	}
}

func everyByte(b []byte) (cuts []int) {
	for i := range b {
		cuts = append(cuts, i)
	}
	return cuts
}

// Whatever way the frames are cut into segments, the messages are the same.
func TestSegments(t *testing.T) {
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	whole := func([]byte) []int { return nil }
	for _, tt := range []struct {
		name  string
		bytes []byte
		cuts  func([]byte) []int
		texts []string
		pongs []string
	}{
		{"two frames in one segment", join(masked(fin|opText, "one"), masked(fin|opText, "two")), whole,
			[]string{"one", "two"}, nil},
		{"a frame split at every byte", masked(fin|opText, "split"), everyByte,
			[]string{"split"}, nil},
		{"an empty message", masked(fin|opText, ""), whole,
			[]string{""}, nil},
		{"ping and message in one segment", join(masked(fin|opPing, "p"), masked(fin|opText, "one")), whole,
			[]string{"one"}, []string{"p"}},
		{"message and ping in one segment", join(masked(fin|opText, "one"), masked(fin|opPing, "p")), whole,
			[]string{"one"}, []string{"p"}},
		{"pong then half a frame", join(masked(fin|opPong, "unasked"), masked(fin|opText, "one")), func(b []byte) []int { return []int{len(b) - 5} },
			[]string{"one"}, nil},
		{"pong then a byte", join(masked(fin|opPong, ""), masked(fin|opText, "one")), func([]byte) []int { return []int{7} },
			[]string{"one"}, nil},
		{"half a ping then the rest and a message", join(masked(fin|opPing, "half"), masked(fin|opText, "one")), func([]byte) []int { return []int{8} },
			[]string{"one"}, []string{"half"}},
		{"a ping split at every byte", join(masked(fin|opPing, "slow"), masked(fin|opText, "one")), everyByte,
			[]string{"one"}, []string{"slow"}},
		{"the longest ping", join(masked(fin|opPing, strings.Repeat("p", 125)), masked(fin|opText, "one")), whole,
			[]string{"one"}, []string{strings.Repeat("p", 125)}},
		{"only pings", join(masked(fin|opPing, "1"), masked(fin|opPong, "2"), masked(fin|opPing, "3")), whole,
			nil, []string{"1", "3"}},
		{"fragments with a ping in between", join(masked(opText, "Hel"), masked(fin|opPing, "p"), masked(0, ""), masked(fin|opPong, ""), masked(fin, "lo")), whole,
			[]string{"Hello"}, []string{"p"}},
		{"fragments split at every byte", join(masked(opText, "Hel"), masked(fin|opPing, "p"), masked(fin, "lo")), everyByte,
			[]string{"Hello"}, []string{"p"}},
		{"64 KiB", join(masked(fin|opText, strings.Repeat("x", 64<<10)), masked(fin|opText, "after")), whole,
			[]string{strings.Repeat("x", 64<<10), "after"}, nil},
		{"65,535 bytes", masked(fin|opText, strings.Repeat("x", 1<<16-1)), whole,
			[]string{strings.Repeat("x", 1<<16-1)}, nil},
		{"1 MB", join(masked(fin|opText, strings.Repeat("x", 1<<20)), masked(fin|opPing, "p"), masked(fin|opText, "after")), whole,
			[]string{strings.Repeat("x", 1<<20), "after"}, []string{"p"}},
		{"more small messages than a buffer holds", bytes.Repeat(masked(fin|opText, "0123456789"), 2000), whole,
			slicesRepeat("0123456789", 2000), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			paths(t, func(t *testing.T, dial dialer) {
				h := newEvents()
				c, p := dial(t, usual, h)
				var reading sync.WaitGroup
				reading.Go(func() {
					for _, want := range tt.pongs {
						p.want(opPong, want)
					}
				})
				p.feed(c, tt.bytes, tt.cuts(tt.bytes)...)
				h.want(t, tt.texts...)
				reading.Wait()
				// And the stream is still in step.
				p.text("end")
				h.want(t, "end")
			})
		})
	}
}

func slicesRepeat(s string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

func TestBinary(t *testing.T) {
	paths(t, func(t *testing.T, dial dialer) {
		h := newEvents()
		_, p := dial(t, usual, h)
		p.write(masked(opBinary, "\x00\xff"), masked(fin, "\xfe"))
		if m := h.next(t); !m.binary || m.data != "\x00\xff\xfe" {
			t.Errorf("received %+v, want the binary message 00 ff fe", m)
		}
	})
}

// Random frames, cut at random places: messages arrive whole and in order, and
// each ping is answered in order.
func TestRandomSegments(t *testing.T) {
	paths(t, func(t *testing.T, dial dialer) {
		rounds := 8
		if testing.Short() {
			rounds = 1
		}
		for seed := range rounds {
			rnd := rand.New(rand.NewPCG(uint64(seed), 7))
			var stream []byte
			var texts, pongs []string
			control := func() {
				payload := strings.Repeat("c", rnd.IntN(126))
				if rnd.IntN(2) == 0 {
					stream = append(stream, masked(fin|opPong, payload)...)
					return
				}
				payload = payload[:len(payload)/2] + fmt.Sprint(len(pongs))
				stream = append(stream, masked(fin|opPing, payload)...)
				pongs = append(pongs, payload)
			}
			for range 60 {
				switch rnd.IntN(3) {
				case 0:
					control()
				case 1:
					s := fmt.Sprint(len(texts), strings.Repeat("x", rnd.IntN(9000)*rnd.IntN(2)))
					stream = append(stream, masked(fin|opText, s)...)
					texts = append(texts, s)
				case 2:
					s := fmt.Sprint(len(texts), " in pieces")
					head := byte(opText)
					for i := range s {
						stream = append(stream, masked(head, s[i:i+1])...)
						head = 0
						if rnd.IntN(4) == 0 {
							control()
						}
					}
					stream = append(stream, masked(fin, "")...)
					texts = append(texts, s)
				}
			}
			var cuts []int
			for at := 0; at < len(stream); at += 1 + rnd.IntN(400)*rnd.IntN(2) {
				cuts = append(cuts, at)
			}
			h := newEvents()
			c, p := dial(t, usual, h)
			var reading sync.WaitGroup
			reading.Go(func() {
				for _, want := range pongs {
					p.want(opPong, want)
				}
			})
			p.feed(c, stream, cuts...)
			h.want(t, texts...)
			reading.Wait()
			if t.Failed() {
				t.Fatalf("with seed %d", seed)
			}
		}
	})
}

// After the first heartbeat an idle connection holds no buffer and no worker:
// gorilla alone would keep both, waiting for the message behind the pong.
func TestIdleHoldsNothing(t *testing.T) {
	for _, tt := range []struct {
		name string
		rest []byte // in the same segment as the pong
		last string
	}{
		{"a pong", nil, ""},
		{"two pongs", masked(fin|opPong, "unasked"), ""},
		{"a pong and a message", masked(fin|opText, "hello"), "hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newEvents()
			c, p := dialTCP(t, usual, h)
			c.Expired(time.Now()) // as after 25 s
			p.want(opPing, "")
			p.feed(c, append(masked(fin|opPong, ""), tt.rest...))
			if tt.last != "" {
				h.want(t, tt.last)
			}
			idle(t, c.e, 1)
			if c.loan != nil || c.br.Size() != 0 || c.ahead != nil {
				t.Errorf("an idle connection holds a loan %v, a buffer of %d bytes, %v read ahead; want none", c.loan, c.br.Size(), c.ahead)
			}
			if c.out != nil || c.first[0].frame != nil || c.outBytes != 0 {
				t.Errorf("an idle connection holds a queue %v, first %v, %d bytes; want none", c.out, c.first, c.outBytes)
			}
			c.Expired(time.Now()) // the verdict
			p.text("alive")
			h.want(t, "alive")
		})
	}
}

// While paused nothing is received, and nothing is lost.
func TestPauseResume(t *testing.T) {
	const n = 3000
	paths(t, func(t *testing.T, dial dialer) {
		h := newEvents()
		conn := make(chan *Conn, 1)
		var c *Conn
		paused := make(chan struct{}, n)
		count := 0
		h.receive = func(_ bool, data []byte) Task {
			if c == nil {
				c = <-conn
			}
			h.got <- message{data: string(data)}
			if count++; count%7 == 0 {
				c.Pause()
				paused <- struct{}{}
			}
			return nil
		}
		started, p := dial(t, usual, h)
		conn <- started
		var sending sync.WaitGroup
		sending.Go(func() {
			for i := range n {
				p.text(fmt.Sprint(i))
			}
		})
		for i := range n {
			h.want(t, fmt.Sprint(i))
			if (i+1)%7 == 0 {
				<-paused
				if i%2 == 0 {
					// Half of the time the reader has left by now, else it is
					// still about to.
					eventually(t, "the reader has left", func() bool {
						started.mu.Lock()
						defer started.mu.Unlock()
						return started.parked
					})
				}
				if len(h.got) != 0 {
					t.Fatalf("message %s was received while paused", (<-h.got).data)
				}
				started.Resume()
			}
		}
		sending.Wait()
		started.Resume() // where nothing is paused: nothing happens
		p.text("end")
		h.want(t, "end")
	})
}

// The task of a message runs beside further reading.
func TestTaskDoesNotHoldReading(t *testing.T) {
	paths(t, func(t *testing.T, dial dialer) {
		h := newEvents()
		release := make(chan struct{})
		h.receive = func(_ bool, data []byte) Task {
			s := string(data)
			if s == "hold" {
				return task(func() {
					<-release
					h.got <- message{data: "released"}
				})
			}
			h.got <- message{data: s}
			return nil
		}
		_, p := dial(t, usual, h)
		p.text("hold")
		p.text("overtakes")
		h.want(t, "overtakes")
		p.write(masked(fin|opText, "hold"), masked(fin|opText, "too"))
		h.want(t, "too")
		close(release)
		h.want(t, "released", "released")
	})
}
