package adapter_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// A modelConn is the client's end of a connection.
type modelConn struct {
	w        *modelSite
	n        int
	socketIO bool
	polls    *modelPolls // nil for one that was a WebSocket from the beginning
	late     bool        // asks for "/" when told to
	address  string
	cookie   string
	dialed   int // moment
	dialedAt time.Time
	out      chan string
	pipe     net.Conn // of the WebSocket
	done     sync.WaitGroup

	// Guarded by truth.mu.
	shows   []*modelShow // what its requests have shown, the handshake first
	sockets map[string]*modelSocket
	open    bool
	left    bool // the client has
	code    int  // of the server's close frame
}

func withoutModelPort(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// How a connection is opened.
const (
	dialPlain = iota
	dialSocketIO
	dialSocketIOLate // "/" is asked for when the schedule says so
	dialPolls
	dialPollsLate
)

// dial opens a connection.
func (w *modelSite) dial(b *modelBrowser, kind int) {
	w.mu.Lock()
	c := &modelConn{
		w: w, n: len(w.conns), socketIO: kind != dialPlain, late: kind == dialSocketIOLate || kind == dialPollsLate,
		address: b.address, cookie: b.cookie, dialed: w.tickLocked(), dialedAt: time.Now(),
		out: make(chan string, 64), sockets: make(map[string]*modelSocket),
	}
	c.shows = []*modelShow{{began: c.dialed, cookie: c.cookie, asked: span{c.dialed, c.dialed}, at: c.dialedAt}}
	w.conns = append(w.conns, c)
	if !c.socketIO {
		c.socketLocked("/")
	}
	w.mu.Unlock()
	if kind >= dialPolls {
		w.dialPolls(c, b)
		return
	}
	here, there := net.Pipe()
	c.pipe = here
	path, query := "/socket.io/ws", ""
	if c.socketIO {
		path, query = "/socket.io/", "EIO=4&transport=websocket"
	}
	r := c.request("GET", path, query, c.cookie)
	asWebSocket(r)
	c.done.Go(c.read)
	c.done.Go(func() {
		for text := range c.out {
			if _, err := here.Write(textFrame(text)); err != nil {
				continue // the reader sees the end
			}
		}
	})
	w.ops.Go(func() {
		rw := &modelUpgrade{ResponseRecorder: httptest.NewRecorder(), conn: there}
		w.engine.ServeHTTP(rw, r)
		if !rw.hijacked {
			_ = there.Close()
			w.refused(c, rw.Code)
		}
	})
}

// request is one of the connection's client. Its port says whose it is.
func (c *modelConn) request(method, path, query, cookie string) *http.Request {
	r := (&http.Request{
		Method: method, URL: &url.URL{Path: path, RawQuery: query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Host: "usher.test", RemoteAddr: fmt.Sprintf("%s:%d", c.address, 1000+c.n), RequestURI: path + "?" + query, Header: make(http.Header),
	}).WithContext(context.Background())
	if cookie != "" {
		r.Header.Set("Cookie", "sid="+cookie)
	}
	return r
}

func asWebSocket(r *http.Request) {
	for k, v := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		r.Header.Set(k, v)
	}
}

// modelUpgrade is the response to a handshake.
type modelUpgrade struct {
	*httptest.ResponseRecorder
	conn     net.Conn
	hijacked bool
}

func (u *modelUpgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	u.hijacked = true
	return u.conn, bufio.NewReadWriter(bufio.NewReaderSize(bytes.NewReader(nil), 16), bufio.NewWriterSize(u.conn, 512)), nil
}

// socketLocked returns the connection's socket in a namespace.
func (c *modelConn) socketLocked(ns string) *modelSocket {
	s := c.sockets[ns]
	if s == nil {
		s = &modelSocket{conn: c, ns: ns, asked: c.w.tickLocked()}
		c.sockets[ns] = s
		c.w.asked[c.address] = append(c.w.asked[c.address], time.Now())
	}
	return s
}

func (w *modelSite) socketOf(s *adapter.Socket) *modelSocket {
	_, port, _ := net.SplitHostPort(s.Handshake().RemoteAddr())
	n, _ := strconv.Atoi(port)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conns[n-1000].socketLocked(s.Namespace().Name())
}

// send queues a text message.
func (c *modelConn) send(text string) {
	select {
	case c.out <- text:
	default:
		panic("a client of the model waits for the server")
	}
}

// textFrame is a message as a WebSocket's client sends it.
func textFrame(text string) []byte {
	if len(text) > 125 {
		panic("a message of the model is longer than a short frame")
	}
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...) // a mask of zeros masks nothing
}

// emit sends an event on a socket that is open.
func (w *modelSite) emit(n int, ns, event, data string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.conn(n)
	if c == nil || c.sockets[ns] == nil || c.sockets[ns].opened == 0 || c.sockets[ns].gone {
		return
	}
	switch {
	case !c.socketIO:
		c.send(fmt.Sprintf(`{"type":%q,"data":%q,"id":1}`, event, data))
	case ns == "/":
		c.send(fmt.Sprintf(`421[%q,%q]`, event, data))
	default:
		c.send(fmt.Sprintf(`42%s,1[%q,%q]`, ns, event, data))
	}
}

// join asks for a namespace.
func (w *modelSite) join(n int, ns string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.conn(n)
	if c == nil || !c.open || !c.socketIO || c.sockets[ns] != nil {
		return
	}
	c.socketLocked(ns)
	c.sendJoin(ns)
}

func (c *modelConn) sendJoin(ns string) {
	if ns == "/" {
		c.send("40")
	} else {
		c.send("40" + ns + ",")
	}
}

// leave cuts a connection.
func (w *modelSite) leave(n int) {
	w.mu.Lock()
	c := w.conn(n)
	if c != nil {
		c.left = true
		w.tickLocked()
	}
	w.mu.Unlock()
	if c != nil {
		c.cut()
	}
}

// cut ends the connection as a network does.
func (c *modelConn) cut() {
	if c.polls != nil {
		c.polls.cut()
	} else {
		_ = c.pipe.Close()
	}
}

// conn is called with the lock held.
func (w *modelSite) conn(n int) *modelConn {
	if len(w.conns) == 0 {
		return nil
	}
	return w.conns[n%len(w.conns)]
}

// read is the client.
func (c *modelConn) read() {
	defer c.pipe.Close()
	br := bufio.NewReaderSize(c.pipe, 512)
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return // refused is told by the handshake's handler
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	c.w.mu.Lock()
	c.open = true
	c.w.mu.Unlock()
	c.listen(br)
}

// listen reads frames until there are no more.
func (c *modelConn) listen(br *bufio.Reader) {
	for {
		op, data, err := readModelFrame(br)
		if err != nil {
			c.w.cut(c, 1006)
			return
		}
		switch op {
		case 1:
			c.hear(string(data))
		case 8:
			c.w.cut(c, int(binary.BigEndian.Uint16(data)))
			return
		}
	}
}

func readModelFrame(br *bufio.Reader) (op byte, data []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(br, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(head[1])
	if n == 126 {
		var long [2]byte
		if _, err = io.ReadFull(br, long[:]); err != nil {
			return 0, nil, err
		}
		n = int(binary.BigEndian.Uint16(long[:]))
	}
	data = make([]byte, n)
	_, err = io.ReadFull(br, data)
	return head[0] & 0xf, data, err
}

// hear takes a message of the server.
func (c *modelConn) hear(text string) {
	w := c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if !c.socketIO {
		if strings.HasPrefix(text, `{"type":"connect"`) {
			w.openedLocked(c.sockets["/"])
		}
		return
	}
	if strings.HasPrefix(text, "0{") {
		if !c.late {
			c.socketLocked("/")
			c.sendJoin("/")
		}
		return
	}
	if len(text) < 2 || text[0] != '4' {
		return
	}
	ns, rest := "/", text[2:]
	if strings.HasPrefix(rest, "/") {
		ns, rest, _ = strings.Cut(rest, ",")
	}
	s := c.sockets[ns]
	switch text[1] {
	case '0':
		w.openedLocked(s)
	case '1':
		w.goneLocked(s)
	case '4':
		w.deniedLocked(s, rest)
	}
}
