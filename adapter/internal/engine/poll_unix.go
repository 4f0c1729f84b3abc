//go:build unix

package engine

import (
	"cmp"
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
	try func(fd uintptr) bool
	err error
}

// init reports whether c can be waited for. Over TLS it cannot: bytes may wait
// inside the TLS layer while the socket shows nothing to read.
func (p *poller) init(c *Conn) bool {
	tcp, ok := c.nc.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	p.raw, p.try = raw, c.tryRead
	return true
}

func (p *poller) ok() bool { return p.raw != nil }

// wait waits for the first bytes and puts them into c.ahead.
func (p *poller) wait(c *Conn) error {
	if err := p.raw.Read(p.try); err != nil {
		return err
	}
	if c.aheadEnd > 0 {
		return nil
	}
	c.e.putChunk(c.ahead)
	c.ahead = nil
	return cmp.Or(p.err, io.EOF)
}

// tryRead is called once at first and again when the connection is readable.
func (c *Conn) tryRead(fd uintptr) bool {
	buf := c.e.getChunk()
	for {
		n, err := syscall.Read(int(fd), *buf)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			c.e.putChunk(buf)
			return false
		}
		c.poll.err = err
		c.ahead, c.aheadAt, c.aheadEnd = buf, 0, int32(max(n, 0))
		return true
	}
}
