package engine

import (
	"bytes"
	"encoding/binary"
	"sync"
	"unicode/utf8"
)

// Opcodes of RFC 6455, section 5.2.
const (
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

// headroom is the longest header of a frame that a server sends: servers do
// not mask (RFC 6455, section 5.1).
const headroom = 10

// A Frame is one complete WebSocket message as it goes over the wire. It is
// read-only once it was sent, so that one Frame serves a whole broadcast. The
// zero Frame is none.
type Frame struct{ *frame }

// frame is one piece of memory for everybody who gets the message: a queue
// holds eight bytes for each that waits.
type frame struct {
	wire []byte // header and payload
	raw  bool   // not to be compressed, however long

	once  sync.Once
	small []byte // the same compressed, see deflated
}

// verbatim makes a Frame of bytes that are not one.
func verbatim(wire []byte) Frame { return Frame{&frame{wire: bytes.Clone(wire), raw: true}} }

// Uncompressed marks the message as one that is not to be compressed, and
// returns it. It is called before the frame is sent.
func (f Frame) Uncompressed() Frame {
	f.raw = true
	return f
}

// Compressible reports whether the message may be compressed.
func (f Frame) Compressible() bool { return !f.raw }

// Len is what the frame counts for in queues: its uncompressed length.
func (f Frame) Len() int { return len(f.wire) }

// A Builder collects the payload of a Frame behind room for its header, so
// that the finished frame is one piece of memory, written with one call.
type Builder struct{ buf []byte }

// NewBuilder returns a Builder with room for n bytes of payload.
func NewBuilder(n int) Builder { return Builder{make([]byte, headroom, headroom+n)} }

// Append applies f, which appends to what it gets and returns the result.
func (b *Builder) Append(f func([]byte) []byte) { b.buf = f(b.buf) }

// Text finishes the frame as a text message.
func (b *Builder) Text() Frame { return newFrame(b.buf, opText) }

// Binary finishes the frame as a binary message.
func (b *Builder) Binary() Frame { return newFrame(b.buf, opBinary) }

func newFrame(buf []byte, op byte) Frame { return Frame{&frame{wire: finish(buf, op)}} }

// finish writes the header right before the payload: RFC 6455, section 5.2.
func finish(buf []byte, op byte) []byte {
	n := len(buf) - headroom
	var at int
	switch {
	case n < 126:
		at = headroom - 2
		buf[at+1] = byte(n)
	case n < 1<<16:
		at = headroom - 4
		buf[at+1] = 126
		binary.BigEndian.PutUint16(buf[at+2:], uint16(n))
	default:
		at = headroom - 10
		buf[at+1] = 127
		binary.BigEndian.PutUint64(buf[at+2:], uint64(n))
	}
	buf[at] = 0x80 | op
	return buf[at:]
}

// control makes a control frame; its payload is at most 125 bytes (section 5.5).
func control(op byte, payload []byte) Frame {
	buf := make([]byte, headroom, headroom+len(payload))
	return newFrame(append(buf, payload...), op)
}

// closeFrame makes a close frame with a status code and a short reason.
func closeFrame(code int, text string) Frame {
	if n := 123; len(text) > n {
		for !utf8.RuneStart(text[n]) {
			n-- // half a character would be a protocol error of ours
		}
		text = text[:n]
	}
	payload := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(text)), uint16(code))
	return control(opClose, append(payload, text...))
}
