package engine

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// usual is what the adapter configures.
var usual = Config{PingInterval: 25 * time.Second, PingTimeout: 20 * time.Second, MaxPayload: 1 << 20, SendBuffer: 1 << 20}

// patience bounds waits for what should happen at once.
const patience = 20 * time.Second

// A message is what a Handler received.
type message struct {
	binary bool
	data   string
}

// events is a Handler that passes on what it gets.
type events struct {
	got     chan message
	closed  chan Cause
	receive func(binary bool, data []byte) Task // instead of got, if set
}

func newEvents() *events {
	return &events{got: make(chan message, 4096), closed: make(chan Cause, 2)}
}

func (h *events) Receive(binary bool, data []byte) Task {
	if h.receive != nil {
		return h.receive(binary, data)
	}
	h.got <- message{binary, string(data)}
	return nil
}

func (h *events) Closed(c Cause) { h.closed <- c }

func (h *events) next(t testing.TB) message {
	t.Helper()
	select {
	case m := <-h.got:
		return m
	case c := <-h.closed:
		h.closed <- c
		select {
		case m := <-h.got: // it came before
			return m
		default:
		}
		t.Fatalf("the connection ended with %+v, want a message", c)
	case <-time.After(patience):
		t.Fatal("no message came")
	}
	return message{}
}

func (h *events) want(t testing.TB, texts ...string) {
	t.Helper()
	for _, want := range texts {
		if m := h.next(t); m.binary || m.data != want {
			t.Fatalf("received %s, want the text %s", brief(m.data), brief(want))
		}
	}
}

func (h *events) cause(t testing.TB) Cause {
	t.Helper()
	select {
	case c := <-h.closed:
		return c
	case <-time.After(patience):
		t.Fatal("Closed was not called")
	}
	return Cause{}
}

func brief(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q… (%d bytes)", s[:60], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// task makes a Task of a function.
type task func()

func (f task) Run() { f() }

// A peer is the other end of a connection, byte by byte.
type peer struct {
	t          testing.TB
	nc         net.Conn
	br         *bufio.Reader
	extensions []string // what the handshake was answered with
}

func newPeer(t testing.TB, nc net.Conn) *peer { return &peer{t: t, nc: nc, br: bufio.NewReader(nc)} }

const handshake = "GET / HTTP/1.1\r\nHost: example.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// offering is the handshake of a client that offers extensions.
func offering(extensions string) string {
	return strings.TrimSuffix(handshake, "\r\n") + "Sec-WebSocket-Extensions: " + extensions + "\r\n\r\n"
}

// handshakeFor offers compression, as browsers do, where it is configured.
func handshakeFor(cfg Config) string {
	if cfg.Deflate == 0 {
		return handshake
	}
	return offering("permessage-deflate; client_max_window_bits")
}

// shake reads the answer to the handshake.
func (p *peer) shake() error {
	res, err := http.ReadResponse(p.br, nil)
	if err != nil {
		return err
	}
	// The sample of RFC 6455, section 1.3.
	if got, want := res.Header.Get("Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; res.StatusCode != 101 || got != want {
		return fmt.Errorf("handshake: %s, Sec-WebSocket-Accept %q, want 101 and %q", res.Status, got, want)
	}
	p.extensions = res.Header["Sec-Websocket-Extensions"]
	return nil
}

const fin = 0x80

// masked is one frame of a client: RFC 6455, section 5.2.
func masked(head byte, payload string) []byte {
	b := []byte{head}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

func status(code int, text string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + text
}

// write sends all frames in one write.
func (p *peer) write(frames ...[]byte) {
	p.t.Helper()
	_ = p.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := p.nc.Write(bytes.Join(frames, nil)); err != nil {
		p.t.Fatalf("the peer could not write: %v", err)
	}
}

func (p *peer) text(s string) { p.t.Helper(); p.write(masked(fin|opText, s)) }

// frame reads one frame of the server.
func (p *peer) frame() (head byte, payload string, err error) {
	var h [2]byte
	if _, err := io.ReadFull(p.br, h[:]); err != nil {
		return 0, "", err
	}
	n := uint64(h[1])
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(p.br, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(p.br, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, "", err
	}
	if n > 64<<20 {
		return 0, "", fmt.Errorf("frame % x: masked or absurdly long", h)
	}
	data := make([]byte, n)
	_, err = io.ReadFull(p.br, data)
	return h[0], string(data), err
}

func (p *peer) want(op byte, payload string) {
	p.t.Helper()
	_ = p.nc.SetReadDeadline(time.Now().Add(10 * time.Minute)) // of virtual time, mostly
	head, got, err := p.frame()
	if err != nil || head != fin|op || got != payload {
		p.t.Fatalf("the peer read frame %#x %s, %v; want %#x %s", head, brief(got), err, fin|op, brief(payload))
	}
}

// wantEnd reads the end of the connection, not of the peer's patience.
func (p *peer) wantEnd() {
	p.t.Helper()
	_ = p.nc.SetReadDeadline(time.Now().Add(10 * time.Minute))
	head, got, err := p.frame()
	if err == nil {
		p.t.Fatalf("the peer read frame %#x %s, want the end", head, brief(got))
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		p.t.Fatal("the connection was not ended")
	}
}

// A dialer opens a connection to a new engine; both end with the test.
type dialer func(t testing.TB, cfg Config, h Handler) (*Conn, *peer)

// engineFor returns an engine that is closed at the end of the test.
func engineFor(t testing.TB, cfg Config) *Engine {
	e := New(cfg)
	t.Cleanup(e.Close)
	return e
}

// paths runs test over each way in which the engine reads: waiting for
// readability, blocking with and without TLS, and following frames that may be
// compressed.
func paths(t *testing.T, test func(t *testing.T, dial dialer)) {
	for _, p := range []struct {
		name string
		dial dialer
	}{{"tcp", dialTCP}, {"tls", dialTLS}, {"pipe", dialPipe}, {"deflate", dialDeflate}} {
		t.Run(p.name, func(t *testing.T) { test(t, p.dial) })
	}
}

func dialTCP(t testing.TB, cfg Config, h Handler) (*Conn, *peer) {
	t.Helper()
	c, p := dialServer(t, engineFor(t, cfg), h, httptest.NewServer)
	if !c.poll.ok() && runtime.GOOS != "windows" {
		t.Fatal("plain TCP is read in the blocking way")
	}
	return c, p
}

// dialDeflate opens a connection that may compress; what goes out is not.
func dialDeflate(t testing.TB, cfg Config, h Handler) (*Conn, *peer) {
	t.Helper()
	cfg.Deflate = 1 << 30
	return dialTCP(t, cfg, h)
}

func dialTLS(t testing.TB, cfg Config, h Handler) (*Conn, *peer) {
	t.Helper()
	return dialServer(t, engineFor(t, cfg), h, httptest.NewTLSServer)
}

func dialPipe(t testing.TB, cfg Config, h Handler) (*Conn, *peer) {
	t.Helper()
	return dialWrapped(t, engineFor(t, cfg), h, func(nc net.Conn) net.Conn { return nc })
}

// dialServer opens a connection through a real HTTP server.
func dialServer(t testing.TB, e *Engine, h Handler, serve func(http.Handler) *httptest.Server) (*Conn, *peer) {
	t.Helper()
	conns := make(chan *Conn, 1)
	srv := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := e.Upgrade(w, r, nil, h)
		if err != nil {
			t.Errorf("Upgrade: %v", err)
			close(conns)
			return
		}
		c.Start()
		conns <- c
	}))
	t.Cleanup(srv.Close)
	nc, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if srv.TLS != nil {
		nc = tlsClient(nc, srv)
	}
	p := newPeer(t, nc)
	p.write([]byte(handshakeFor(e.cfg)))
	if err := p.shake(); err != nil {
		t.Fatal(err)
	}
	c := <-conns
	t.Cleanup(func() {
		_ = nc.Close()
		c.Close(Cause{})
	})
	return c, p
}

func tlsClient(nc net.Conn, srv *httptest.Server) net.Conn {
	conf := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.ServerName = "example.com" // of httptest's certificate
	return tls.Client(nc, conf)
}

// pipeWriter is the response of a request that came over a pipe.
type pipeWriter struct {
	header http.Header
	nc     net.Conn
	in     string // what the server has read beyond the request
}

func (w *pipeWriter) Header() http.Header         { return w.header }
func (w *pipeWriter) Write(b []byte) (int, error) { return w.nc.Write(b) }
func (w *pipeWriter) WriteHeader(int)             {}
func (w *pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	br := bufio.NewReader(io.MultiReader(strings.NewReader(w.in), w.nc))
	if w.in != "" {
		_, _ = br.Peek(len(w.in))
	}
	return w.nc, bufio.NewReadWriter(br, bufio.NewWriter(w.nc)), nil
}

func request(t testing.TB, head string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dialWrapped opens a connection over a pipe, whose end on the engine's side
// is wrapped. It is started.
func dialWrapped(t testing.TB, e *Engine, h Handler, wrap func(net.Conn) net.Conn) (*Conn, *peer) {
	t.Helper()
	return dialWith(t, e, h, handshakeFor(e.cfg), wrap)
}

// dialWith is dialWrapped with a handshake of the caller's.
func dialWith(t testing.TB, e *Engine, h Handler, head string, wrap func(net.Conn) net.Conn) (*Conn, *peer) {
	t.Helper()
	here, there := net.Pipe()
	p := newPeer(t, there)
	shaken := make(chan error, 1)
	go func() { shaken <- p.shake() }()
	c, err := e.Upgrade(&pipeWriter{header: http.Header{}, nc: wrap(here)}, request(t, head), nil, h)
	if err != nil {
		t.Fatal(err)
	}
	c.Start()
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the answer had been written", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.writing
	})
	t.Cleanup(func() {
		_ = there.Close()
		c.Close(Cause{})
	})
	return c, p
}

// A meter counts the writes to a connection.
type meter struct {
	net.Conn
	sizes chan int
}

func (m *meter) Write(b []byte) (int, error) {
	m.sizes <- len(b)
	return m.Conn.Write(b)
}

// eventually waits for a state that announces itself in no other way.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("in vain waited until %s", what)
		}
	}
}

// idle waits until nothing of any engine runs: every worker waits for work.
func idle(t testing.TB, e *Engine, waiters int) {
	t.Helper()
	buf := make([]byte, 1<<20)
	eventually(t, "the engine was idle", func() bool {
		waiting := 0
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			switch {
			case strings.Contains(g, ".(*Conn).wait("):
				if !strings.Contains(g, "[IO wait]") {
					return false
				}
				waiting++
			case strings.Contains(g, ".(*workers).work("):
				if !strings.Contains(g, "[select") || strings.Contains(g, "Run(") {
					return false
				}
			}
		}
		// Loading it also orders what the workers did before what follows.
		return waiting == waiters && e.workers.idle.Load() > 0
	})
}

// text makes a frame.
func text(s string) Frame {
	b := NewBuilder(len(s))
	b.Append(func(dst []byte) []byte { return append(dst, s...) })
	return b.Text()
}
