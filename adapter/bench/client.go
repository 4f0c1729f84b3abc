package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Opcodes of RFC 6455, section 5.2.
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// clientBuffer bounds what a client can receive in one frame. It is small
// because there are ten thousand clients.
const clientBuffer = 1 << 10

// handshake is what Chrome sends, with the key of RFC 6455, section 1.3: nobody
// checks here that the server hashes it.
const handshake = "GET %[2]s HTTP/1.1\r\n" +
	"Host: %[1]s\r\n" +
	"Connection: Upgrade\r\n" +
	"Pragma: no-cache\r\n" +
	"Cache-Control: no-cache\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n" +
	"Upgrade: websocket\r\n" +
	"Origin: http://%[1]s\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\n" +
	"%[3]s" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" +
	"\r\n"

// A client is the least that can speak WebSocket: the load must cost less than
// what it measures. One goroutine may read while another writes.
type client struct {
	nc   net.Conn
	br   *bufio.Reader
	used int // bytes of br that the last frame took
}

// dial opens a connection for shake. It ends with ctx's deadline.
func dial(ctx context.Context, addr string) (*client, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if t, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(t); err != nil {
			_ = nc.Close()
			return nil, err
		}
	}
	return &client{nc: nc, br: bufio.NewReaderSize(nc, clientBuffer)}, nil
}

func (c *client) shake(addr, path, cookie string) error {
	if cookie != "" {
		cookie = "Cookie: " + cookie + "\r\n"
	}
	if _, err := fmt.Fprintf(c.nc, handshake, addr, path, cookie); err != nil {
		return err
	}
	status := ""
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if status == "" {
			status = strings.TrimSpace(string(line))
		}
		if len(line) <= len("\r\n") {
			break
		}
	}
	if !strings.HasPrefix(status, "HTTP/1.1 101 ") {
		return fmt.Errorf("expected status 101, got %q", status)
	}
	return nil
}

// next returns the next text message, which is valid until the call after. It
// answers pings. A close frame is errClosed.
func (c *client) next() ([]byte, error) {
	for {
		if _, err := c.br.Discard(c.used); err != nil {
			return nil, err
		}
		c.used = 0
		head, err := c.br.Peek(2)
		if err != nil {
			return nil, err
		}
		if head[0]&0x80 == 0 || head[1]&0x80 != 0 {
			return nil, errors.New("expected a whole frame without a mask")
		}
		op, at, n := head[0]&0x0f, 2, int(head[1])
		if n == 126 {
			if head, err = c.br.Peek(4); err != nil {
				return nil, err
			}
			at, n = 4, int(binary.BigEndian.Uint16(head[2:]))
		}
		if at+n > clientBuffer {
			return nil, fmt.Errorf("expected a frame of at most %d bytes, got more", clientBuffer)
		}
		frame, err := c.br.Peek(at + n)
		if err != nil {
			return nil, err
		}
		c.used = at + n
		switch op {
		case opText:
			return frame[at:], nil
		case opClose:
			return nil, errClosed
		case opPing:
			if _, err := c.nc.Write(appendFrame(nil, opPong, frame[at:])); err != nil {
				return nil, err
			}
		}
	}
}

var errClosed = errors.New("closed by the server")

// send writes frames that are ready for the wire.
func (c *client) send(frames []byte) error {
	_, err := c.nc.Write(frames)
	return err
}

// close says goodbye and waits until the server has closed too. What the
// server sends meanwhile is lost.
func (c *client) close() error {
	defer c.nc.Close()
	if err := c.send(appendFrame(nil, opClose, []byte{1000 >> 8, 1000 & 0xff})); err != nil {
		return err
	}
	for {
		if _, err := c.next(); errors.Is(err, errClosed) {
			break
		} else if err != nil {
			return fmt.Errorf("close: %w", err)
		}
	}
	// Until the server lets go, so that its work is counted: at once, or a
	// reset if it has let go of everything by now.
	_ = c.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := c.nc.Read(make([]byte, 1))
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return errors.New("close: the server left the connection open")
	}
	return nil
}

// appendFrame appends one frame from a client. Its masking key is zero, which
// costs the server what any key does and this process nothing.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	if n := len(payload); n < 126 {
		dst = append(dst, 0x80|byte(n))
	} else {
		dst = append(dst, 0x80|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	}
	dst = append(dst, 0, 0, 0, 0)
	return append(dst, payload...)
}
