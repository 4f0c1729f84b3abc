package engine

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// compressing is usual with compression of whatever is not tiny.
var compressing = func() Config {
	cfg := usual
	cfg.Deflate = 100
	return cfg
}()

// squeezed is what a client makes of a message: RFC 7692, section 7.2.1.
func squeezed(t testing.TB, s string) string {
	t.Helper()
	return strings.TrimSuffix(flushed(t, s), "\x00\x00\xff\xff")
}

// flushed is the same with the end of the flush, so that more may follow.
func flushed(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// wantDeflated reads a compressed message and returns it as it came.
func (p *peer) wantDeflated(op byte, want string) string {
	p.t.Helper()
	_ = p.nc.SetReadDeadline(time.Now().Add(10 * time.Minute))
	head, payload, err := p.frame()
	if err != nil || head != fin|rsv1|op {
		p.t.Fatalf("the peer read frame %#x %s, %v; want %#x", head, brief(payload), err, fin|rsv1|op)
	}
	got, err := io.ReadAll(flate.NewReader(strings.NewReader(payload + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	if err != nil || string(got) != want {
		p.t.Fatalf("the peer inflated %s, %v; want %s", brief(string(got)), err, brief(want))
	}
	return payload
}

// ways are those in which the engine reads.
var ways = map[string]dialer{"tcp": dialTCP, "tls": dialTLS, "pipe": dialPipe}

// RFC 7692, section 7.1.
func TestDeflateNegotiation(t *testing.T) {
	const yes = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	for offer, want := range map[string]string{
		"permessage-deflate":                              yes,
		"permessage-deflate; client_max_window_bits":      yes, // browsers, and ws
		"permessage-deflate;client_max_window_bits=10":    yes,
		`permessage-deflate; client_max_window_bits="15"`: yes,
		"permessage-deflate; server_no_context_takeover":  yes,
		yes: yes,
		"x-webkit-deflate-frame, permessage-deflate":                                 yes,
		"permessage-deflate; server_max_window_bits=10, " + yes:                      yes, // its second choice
		"permessage-deflate; server_max_window_bits=10":                              "",
		"permessage-deflate; server_max_window_bits=15":                              "",
		"permessage-deflate; client_max_window_bits=7":                               "",
		"permessage-deflate; client_max_window_bits=16":                              "",
		"permessage-deflate; client_max_window_bits=08":                              "",
		"permessage-deflate; client_max_window_bits=":                                "",
		`permessage-deflate; client_max_window_bits="`:                               "",
		"permessage-deflate; client_no_context_takeover=1":                           "",
		"permessage-deflate; client_no_context_takeover; client_no_context_takeover": "",
		"permessage-deflate; mystery":                                                "",
		"permessage-deflate;":                                                        "",
		`permessage-deflate; mystery="a, permessage-deflate; b"`:                     "",
		"permessage-bzip2":     "",
		"permessage-deflate-2": "",
		"PERMESSAGE-DEFLATE":   "",
		"":                     "",
	} {
		for threshold, want := range map[int]string{compressing.Deflate: want, 0: ""} {
			cfg := usual
			cfg.Deflate = threshold
			c, p := dialWith(t, engineFor(t, cfg), newEvents(), offering(offer), func(nc net.Conn) net.Conn { return nc })
			if got := strings.Join(p.extensions, "; "); got != want || (c.inflow != nil) != (want != "") {
				t.Errorf("threshold %d, offer %q: answered %q, want %q", threshold, offer, got, want)
			}
		}
	}
}

// The examples of RFC 7692, section 7.2.3, and others, cut in every way.
func TestInflating(t *testing.T) {
	const z = rsv1
	long := strings.Repeat("0123456789", 10_000)
	for _, tt := range []struct {
		name   string
		frames [][]byte
		want   []string
	}{
		{"one block", [][]byte{masked(fin|z|opText, "\xf2\x48\xcd\xc9\xc9\x07\x00")}, []string{"Hello"}},
		{"fragments", [][]byte{masked(z|opText, "\xf2\x48\xcd"), masked(fin, "\xc9\xc9\x07\x00")}, []string{"Hello"}},
		{"a ping between fragments", [][]byte{masked(z|opText, "\xf2\x48\xcd"), masked(fin|opPong, ""), masked(0, ""), masked(fin, "\xc9\xc9\x07\x00")}, []string{"Hello"}},
		{"no compression", [][]byte{masked(fin|z|opText, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00")}, []string{"Hello"}},
		{"a last block", [][]byte{masked(fin|z|opText, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00")}, []string{"Hello"}},
		{"two blocks", [][]byte{masked(fin|z|opText, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")}, []string{"Hello"}},
		{"an empty message", [][]byte{masked(fin|z|opText, "\x00")}, []string{""}},
		{"an empty message of the RFC", [][]byte{masked(fin|z|opText, "\x02\x00")}, []string{""}},
		{"both kinds in turn", [][]byte{
			masked(fin|opText, "one"), masked(fin|z|opText, squeezed(t, "two")), masked(fin|opPing, ""),
			masked(z|opText, squeezed(t, "three")), masked(fin, ""), masked(opText, "fo"), masked(fin, "ur"), masked(fin|z|opText, squeezed(t, "five")),
		}, []string{"one", "two", "three", "four", "five"}},
		{"a long one", [][]byte{masked(fin|z|opText, squeezed(t, long)), masked(fin|opText, "after")}, []string{long, "after"}},
		{"a longer frame", [][]byte{masked(fin|z|opText, "\x00\x60\xea\x9f\x15"+long[:60_000]+"\x00"), masked(fin|opText, "after")}, []string{long[:60_000], "after"}},
		{"many small ones", [][]byte{bytes.Repeat(masked(fin|z|opText, squeezed(t, "0123456789")), 2000)}, slicesRepeat("0123456789", 2000)},
		// What comes after the last block is not the next frame. It looks like
		// pings, longer than what is read ahead.
		{"a rest", [][]byte{masked(fin|z|opText, "\xf3\x48\xcd\xc9\xc9\x07\x00"+strings.Repeat("\xbe\xdd\x21\x3d\x37\xfa", 2000)), masked(fin|opText, "after")}, []string{"Hello", "after"}},
		{"a rest in fragments", [][]byte{masked(z|opText, "\xf3\x48\xcd\xc9\xc9\x07\x00"), masked(0, "rest"), masked(fin, "rest"), masked(fin|opText, "after")}, []string{"Hello", "after"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := bytes.Join(tt.frames, nil)
			cuts := everyByte(all)
			if len(all) > 1000 {
				cuts = []int{1, 2, 3, 4, 5, len(all) / 2, len(all) - 1}
			}
			cuts = slices.Clip(cuts) // shared by what runs at the same time
			for name, dial := range ways {
				for how, cuts := range map[string][]int{"whole": nil, "cut": cuts} {
					t.Run(name+" "+how, func(t *testing.T) {
						t.Parallel()
						h := newEvents()
						c, p := dial(t, compressing, h)
						var pings sync.WaitGroup
						pings.Go(func() {
							if bytes.Contains(all, masked(fin|opPing, "")) {
								p.want(opPong, "")
							}
						})
						p.feed(c, all, cuts...)
						h.want(t, tt.want...)
						pings.Wait()
						p.text("end")
						h.want(t, "end")
					})
				}
			}
		})
	}
}

func TestInflatingKeepsTheKind(t *testing.T) {
	h := newEvents()
	_, p := dialTCP(t, compressing, h)
	p.write(masked(fin|rsv1|opBinary, squeezed(t, "\x00\xff")))
	if m := h.next(t); !m.binary || m.data != "\x00\xff" {
		t.Errorf("received %+v, want the binary message 00 ff", m)
	}
}

func TestDeflateErrors(t *testing.T) {
	const z = rsv1
	for _, tt := range []struct {
		name   string
		cfg    Config
		bytes  []byte
		status int
	}{
		{"not negotiated", usual, masked(fin|z|opText, "\xf2\x48\xcd\xc9\xc9\x07\x00"), 1002},                                                                   // RFC 6455, section 5.2
		{"on a ping", compressing, masked(fin|z|opPing, ""), 1002},                                                                                              // RFC 7692, section 6
		{"on a close frame", compressing, masked(fin|z|opClose, status(1000, "")), 1002},                                                                        // section 6
		{"on a later fragment", compressing, append(masked(z|opText, "\xf2\x48\xcd"), masked(fin|z, "\xc9\xc9\x07\x00")...), 1002},                              // section 6
		{"on a later fragment only", compressing, append(masked(opText, "\xf2\x48\xcd"), masked(fin|z, "\xc9\xc9\x07\x00")...), 1002},                           // section 6
		{"another reserved bit", compressing, masked(fin|z|rsv2|opText, "\xf2\x48\xcd\xc9\xc9\x07\x00"), 1002},                                                  // RFC 6455, section 5.2
		{"unmasked", compressing, []byte{fin | z | opText, 7, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0}, 1002},                                                     // section 5.1
		{"garbage", compressing, masked(fin|z|opText, "garbage, and no end of it"), 1007},                                                                       // section 7.4.1
		{"nothing", compressing, masked(fin|z|opText, ""), 1007},                                                                                                // RFC 7692, section 7.2.3.6: an empty message has a byte
		{"a block that does not end", compressing, masked(fin|z|opText, squeezed(t, "no end of this")[:10]), 1007},                                              // section 7.4.1
		{"a context taken over", compressing, masked(fin|z|opText, "\xf2\x00\x11\x00\x00"), 1007},                                                               // the second Hello of section 7.2.3.2
		{"more than 1 MiB", compressing, masked(fin|z|opText, squeezed(t, strings.Repeat("x", 1<<20+1))), 1009},                                                 // section 7.4.1
		{"more than 1 MiB in fragments", compressing, append(masked(z|opText, flushed(t, strings.Repeat("x", 1<<20))), masked(fin, squeezed(t, "x"))...), 1009}, // of the same message
		{"empty blocks without end", compressing, masked(fin|z|opText, strings.Repeat("\x00\x00\x00\xff\xff", 1<<19)), 1009},                                    // longer than what it could stand for
		{"a rest without end", compressing, masked(fin|z|opText, "\xf3\x48\xcd\xc9\xc9\x07\x00"+strings.Repeat("x", 3<<20)), 1009},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, dial := range ways {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					h := newEvents()
					_, p := dial(t, tt.cfg, h)
					var sending sync.WaitGroup
					sending.Go(func() { p.write(masked(fin|opText, "fine"), tt.bytes) })
					defer sending.Wait()
					h.want(t, "fine")
					_ = p.nc.SetReadDeadline(time.Now().Add(patience))
					head, payload, err := p.frame()
					if err != nil || head != fin|opClose || !strings.HasPrefix(payload, status(tt.status, "")) {
						t.Fatalf("the peer read %#x %q, %v; want a close frame with %d", head, payload, err, tt.status)
					}
					if got := h.cause(t); got.Err == nil {
						t.Errorf("Closed(%+v), want an error", got)
					}
				})
			}
		})
	}
}

// The connection breaking within a compressed message is no garbage.
func TestEndWithinACompressedMessage(t *testing.T) {
	for name, dial := range map[string]dialer{"tcp": dialTCP, "pipe": dialPipe} {
		t.Run(name, func(t *testing.T) {
			h := newEvents()
			c, p := dial(t, compressing, h)
			b := masked(fin|rsv1|opText, squeezed(t, strings.Repeat("message ", 100)))
			p.feed(c, b[:len(b)-3])
			_ = p.nc.Close()
			if got := h.cause(t); got.Reason != ReasonTransportClose {
				t.Errorf("Closed(%+v), want %s", got, ReasonTransportClose)
			}
		})
	}
}

// A megabyte that inflates to a gigabyte costs no more than a message of
// MaxPayload does.
func TestBomb(t *testing.T) {
	chunk := flushed(t, strings.Repeat("\x00", 1<<20)) // of about 1 KiB
	for _, tt := range []struct {
		name   string
		chunks int
	}{{"1 KiB that stands for 2 MiB", 2}, {"1 MiB that stands for 1 GiB", 1 << 10}} {
		t.Run(tt.name, func(t *testing.T) {
			bomb := masked(fin|rsv1|opText, strings.Repeat(chunk, tt.chunks))
			h := newEvents()
			_, p := dialTCP(t, compressing, h)
			p.write(masked(fin|rsv1|opText, squeezed(t, "fine"))) // what is pooled is there
			h.want(t, "fine")
			allocated := allocations()
			var sending sync.WaitGroup
			sending.Go(func() {
				if _, err := p.nc.Write(bomb); err != nil {
					t.Errorf("the peer could not send to the end: %v", err)
				}
			})
			p.want(opClose, status(1009, "message too large"))
			if got := h.cause(t); got.Reason != ReasonTooLarge {
				t.Errorf("Closed(%+v), want %s", got, ReasonTooLarge)
			}
			sending.Wait()
			// Memory grows in steps: what a message of that size costs is
			// twice its size, all steps together.
			if got := allocations() - allocated; got > 3*uint64(compressing.MaxPayload) {
				t.Errorf("%d bytes cost %d, with MaxPayload %d", len(bomb), got, compressing.MaxPayload)
			}
		})
	}
}

// allocations returns how many bytes have been allocated so far.
func allocations() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestDeflating(t *testing.T) {
	long := strings.Repeat("compress me ", 1000)
	noise := make([]byte, 1000)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(noise)
	binary := func(s string) Frame {
		b := NewBuilder(0)
		b.Append(func(dst []byte) []byte { return append(dst, s...) })
		return b.Binary()
	}
	for _, tt := range []struct {
		name     string
		frame    Frame
		op       byte
		payload  string
		deflated bool
	}{
		{"a long text", text(long), opText, long, true},
		{"long bytes", binary(long), opBinary, long, true},
		{"as long as the threshold", text(long[:100]), opText, long[:100], true},
		{"a byte shorter", text(long[:99]), opText, long[:99], false},
		{"not to be compressed", text(long).Uncompressed(), opText, long, false},
		{"of no use", binary(string(noise)), opBinary, string(noise), false},
		{"very long", text(strings.Repeat(long, 20)), opText, strings.Repeat(long, 20), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, dial := range []dialer{dialTCP, dialPipe} {
				c, p := dial(t, compressing, newEvents())
				other, q := dial(t, usual, newEvents()) // has negotiated nothing
				for range 3 {                           // the second and third leave in one write
					if err := c.Send(tt.frame); err != nil {
						t.Fatal(err)
					}
					if err := other.Send(tt.frame); err != nil {
						t.Fatal(err)
					}
				}
				for range 3 {
					if tt.deflated {
						got := p.wantDeflated(tt.op, tt.payload)
						if len(got) >= len(tt.payload) {
							t.Errorf("%d bytes became %d", len(tt.payload), len(got))
						}
					} else {
						p.want(tt.op, tt.payload)
					}
					q.want(tt.op, tt.payload)
				}
			}
		})
	}
	t.Run("control frames", func(t *testing.T) {
		cfg := compressing
		cfg.Deflate = 1
		c, p := dialPipe(t, cfg, newEvents())
		data := strings.Repeat("p", 125)
		p.write(masked(fin|opPing, data))
		p.want(opPong, data)
		c.Close(Cause{Code: 1000, Text: strings.Repeat("b", 100)})
		p.want(opClose, status(1000, strings.Repeat("b", 100)))
	})
}

// A message is compressed once, however many get it.
func TestDeflatedFrameIsShared(t *testing.T) {
	e := engineFor(t, compressing)
	f := text(strings.Repeat("compress me ", 100))
	want := string(f.wire)
	const n = 100
	conns := make([]*Conn, n)
	got := make([]string, n)
	var reading sync.WaitGroup
	for i := range conns {
		c, p := dialWrapped(t, e, newEvents(), func(nc net.Conn) net.Conn { return nc })
		conns[i] = c
		reading.Go(func() { got[i] = p.wantDeflated(opText, strings.Repeat("compress me ", 100)) })
	}
	for _, c := range conns {
		if err := c.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	reading.Wait()
	if len(slices.Compact(got)) != 1 {
		t.Error("not everybody got the same bytes")
	}
	for _, c := range conns {
		if &c.wire(f)[0] != &f.small[0] {
			t.Fatal("a connection made its own")
		}
	}
	if string(f.wire) != want {
		t.Error("the frame itself was changed")
	}
}

// Between messages a connection that compresses holds nothing more.
func TestIdleAfterCompressedMessages(t *testing.T) {
	h := newEvents()
	c, p := dialTCP(t, compressing, h)
	for range 3 {
		p.feed(c, masked(fin|rsv1|opText, squeezed(t, strings.Repeat("x", 9999))))
		h.want(t, strings.Repeat("x", 9999))
		p.feed(c, masked(fin|opPong, ""))
	}
	idle(t, c.e, 1)
	if c.loan != nil || c.br.Size() != 0 || c.ahead != nil || c.inflow.deflated != nil {
		t.Errorf("an idle connection holds a loan %v, a buffer of %d bytes, %v read ahead, %v to read; want none", c.loan, c.br.Size(), c.ahead, c.inflow.deflated)
	}
	p.text("alive")
	h.want(t, "alive")
}

// gorilla's client compresses too: both ends, with random messages.
func TestDeflateWithGorilla(t *testing.T) {
	e := engineFor(t, compressing)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := newEvents()
		var c *Conn
		h.receive = func(binary bool, data []byte) Task {
			b := NewBuilder(len(data))
			b.Append(func(dst []byte) []byte { return append(dst, data...) })
			f := b.Text()
			if binary {
				b := NewBuilder(len(data))
				b.Append(func(dst []byte) []byte { return append(dst, data...) })
				f = b.Binary()
			}
			if err := c.Send(f); err != nil {
				t.Errorf("Send: %v", err)
			}
			return nil
		}
		c, err := e.Upgrade(w, r, nil, h)
		if err != nil {
			t.Errorf("Upgrade: %v", err)
			return
		}
		c.Start()
	}))
	t.Cleanup(srv.Close)
	d := websocket.Dialer{EnableCompression: true}
	ws, resp, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if len(resp.Header["Sec-Websocket-Extensions"]) != 1 {
		t.Fatalf("negotiated %q", resp.Header["Sec-Websocket-Extensions"])
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		want := make([]byte, rnd.IntN(1<<rnd.IntN(17)))
		letters := 1 + rnd.IntN(256)
		for j := range want {
			want[j] = byte(rnd.IntN(letters)) & 0x7f
		}
		ws.EnableWriteCompression(rnd.IntN(2) == 0)
		kind := websocket.TextMessage + rnd.IntN(2)
		if err := ws.WriteMessage(kind, want); err != nil {
			t.Fatal(err)
		}
		_ = ws.SetReadDeadline(time.Now().Add(patience))
		got, data, err := ws.ReadMessage()
		if err != nil || got != kind || !bytes.Equal(data, want) {
			t.Fatalf("message %d of %d bytes came back as %d of %d bytes, %v", i, kind, len(want), len(data), err)
		}
	}
}

// BenchmarkBroadcastDeflated sends a message to 100 connections that compress.
// Shared is how a broadcast does it: compressing is done once; with a frame for
// each it is done by each.
func BenchmarkBroadcastDeflated(b *testing.B) {
	payload := func(i int) string {
		return fmt.Sprintf(`{"type":"chat message","data":{"room":"lobby","n":%d,"text":%q}}`, i, strings.Repeat("the quick brown fox ", 200))
	}
	for _, bb := range []struct {
		name   string
		cfg    Config
		shared bool
	}{{"off", usual, true}, {"shared", compressing, true}, {"each", compressing, false}} {
		b.Run(bb.name, func(b *testing.B) {
			const n = 100
			bb.cfg.PingInterval = time.Hour
			e := engineFor(b, bb.cfg)
			var taken sync.WaitGroup
			conns := make([]*Conn, n)
			sinks := make([]*sink, n)
			for i := range conns {
				conns[i], _ = dialWrapped(b, e, newEvents(), func(nc net.Conn) net.Conn {
					sinks[i] = &sink{Conn: nc, taken: &taken}
					return sinks[i]
				})
				sinks[i].open.Store(true)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				f := text(payload(i))
				taken.Add(n)
				for _, c := range conns {
					if !bb.shared {
						f = text(payload(i))
					}
					if err := c.Send(f); err != nil {
						b.Fatal(err)
					}
				}
				taken.Wait()
			}
		})
	}
}

// A sink takes what is written to it after the handshake.
type sink struct {
	net.Conn
	open  atomic.Bool
	taken *sync.WaitGroup
}

func (s *sink) Write(b []byte) (int, error) {
	if !s.open.Load() {
		return s.Conn.Write(b)
	}
	s.taken.Done()
	return len(b), nil
}
