package engine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"time"
)

// hijack lends gorilla the connection below a response: a net.Conn and a
// bufio.Reader that stay ours, so that the reader's memory can be given back
// while the connection is idle.
type hijack struct {
	http.ResponseWriter
	e *Engine
	c *Conn
}

func (h *hijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.c = &Conn{e: h.e, nc: nc}
	if brw.Reader.Buffered() > 0 {
		// RFC 6455, section 4.1: a client waits for the 101.
		return nil, nil, errors.Join(errors.New("engine: data before the handshake was answered"), nc.Close())
	}
	h.c.borrow()
	return (*netConn)(h.c), bufio.NewReadWriter(&h.c.br, brw.Writer), nil
}

// netConn is what gorilla sees of a connection.
type netConn Conn

// Read hands over what the poller has read, then reads on.
func (n *netConn) Read(p []byte) (int, error) {
	c := (*Conn)(n)
	m, err := c.readOn(p)
	if c.inflow != nil {
		c.inflow.pass(p[:m])
	}
	return m, err
}

func (c *Conn) readOn(p []byte) (int, error) {
	if c.ahead != nil {
		m := copy(p, (*c.ahead)[c.aheadAt:c.aheadEnd])
		if c.aheadAt += int32(m); c.aheadAt == c.aheadEnd {
			c.e.putChunk(c.ahead)
			c.ahead, c.aheadAt, c.aheadEnd = nil, 0, 0
		}
		return m, nil
	}
	m, err := c.nc.Read(p)
	if m > 0 {
		c.heard.Store(true)
	}
	return m, err
}

// Write takes the answer to the handshake, which leaves with the first frames:
// see Start. What gorilla writes later is the close frame for a protocol error,
// from within a read: readFailed closes with its status, since one writer owns
// every byte.
func (n *netConn) Write(p []byte) (int, error) {
	c := (*Conn)(n)
	if c.ws == nil {
		c.answer, c.writing = verbatim(p), true
		return len(p), nil
	}
	if len(p) >= 4 && p[0] == 0x80|opClose {
		c.protest = &Cause{
			Reason: ReasonTransportError,
			Code:   int(binary.BigEndian.Uint16(p[2:])),
			Text:   string(p[4:]),
			Drop:   true,
		}
	}
	return len(p), nil
}

func (n *netConn) Close() error                      { return n.nc.Close() }
func (n *netConn) LocalAddr() net.Addr               { return n.nc.LocalAddr() }
func (n *netConn) RemoteAddr() net.Addr              { return n.nc.RemoteAddr() }
func (n *netConn) SetDeadline(t time.Time) error     { return n.nc.SetDeadline(t) }
func (n *netConn) SetReadDeadline(t time.Time) error { return n.nc.SetReadDeadline(t) }

// SetWriteDeadline does nothing: gorilla would set a deadline for each control
// frame it believes to write, and the heartbeat bounds a write that is stuck.
func (n *netConn) SetWriteDeadline(time.Time) error { return nil }
