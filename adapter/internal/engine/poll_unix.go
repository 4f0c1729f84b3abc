//go:build unix

package engine

import (
	"io"
	"net"
	"syscall"
)

// A poller waits for a plain TCP connection to become readable without a
// buffer and without a deep stack: an idle connection then costs one goroutine
// on its first 2 KiB. The read that finds nothing is the one a blocking read
// would make too, so waiting this way costs no further system call.
type poller struct {
	raw syscall.RawConn
	c   *Conn
	try func(fd uintptr) bool

	buf *[]byte
	n   int
	err error
}

// newPoller returns nil where only blocking reads are safe: over TLS bytes may
// wait inside the TLS layer while the socket shows nothing to read.
func newPoller(c *Conn, nc net.Conn) *poller {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	p := &poller{raw: raw, c: c}
	p.try = p.read
	return p
}

// wait returns the first bytes that arrive, in a buffer of the engine's pool.
func (p *poller) wait() (*[]byte, int, error) {
	if err := p.raw.Read(p.try); err != nil {
		return nil, 0, err
	}
	buf, n, err := p.buf, p.n, p.err
	p.buf, p.n, p.err = nil, 0, nil
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		p.c.e.putChunk(buf)
		return nil, 0, err
	}
	return buf, n, nil
}

// read is called once at first and again when the connection is readable.
func (p *poller) read(fd uintptr) bool {
	buf := p.c.e.getChunk()
	for {
		n, err := syscall.Read(int(fd), *buf)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			p.c.e.putChunk(buf)
			return false
		}
		p.buf, p.n, p.err = buf, max(n, 0), err
		return true
	}
}
