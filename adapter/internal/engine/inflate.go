package engine

import (
	"compress/flate"
	"errors"
	"fmt"
	"io"
)

// An inflow follows the frames that a connection with compression reads, on
// their way to gorilla, which gets them without RSV1. gorilla could inflate by
// itself, but lets the bit pass where it must not stand, and does not read on
// to the end of a message whose compressed data end before: what is left would
// then be taken for the next frame.
//
// It is owned by the goroutine that reads.
type inflow struct {
	deflated []bool // data messages that have begun and are not read yet

	left   uint64 // of the payload that is passing
	length uint64 // of the payload to come, as far as it is known
	at     int8   // in the header
	size   int8   // of the header
}

// pass takes note of b, which comes next on the wire: RFC 6455, section 5.2.
func (z *inflow) pass(b []byte) {
	for len(b) > 0 {
		if z.left > 0 {
			n := min(z.left, uint64(len(b)))
			z.left -= n
			b = b[n:]
			continue
		}
		switch {
		case z.at == 0:
			// Clients mask. gorilla refuses a frame that is not, and what comes
			// after it is of no interest.
			z.length, z.size = 0, 2+4
			data := b[0]&0x0f == opText || b[0]&0x0f == opBinary
			deflated := b[0]&rsv1 != 0
			switch {
			case data:
				z.deflated = append(z.deflated, deflated)
				b[0] &^= rsv1
			case deflated:
				// RFC 7692, section 6: not on control frames, nor on the later
				// ones of a message. gorilla refuses a frame for RSV2.
				b[0] |= rsv2
			}
		case z.at == 1:
			switch n := b[0] & 0x7f; n {
			case 126:
				z.size += 2
			case 127:
				z.size += 8
			default:
				z.length = uint64(n)
			}
		case z.at < z.size-4:
			z.length = z.length<<8 | uint64(b[0])
		}
		b = b[1:]
		if z.at++; z.at == z.size {
			z.at, z.left = 0, z.length
		}
	}
}

// next reports whether the message that gorilla has begun to read is compressed.
func (z *inflow) next() bool {
	deflated := z.deflated[0]
	if z.deflated = z.deflated[1:]; len(z.deflated) == 0 {
		z.deflated = nil
	}
	return deflated
}

// An inflater reads the content of a compressed message.
type inflater struct {
	in compressed
	r  io.ReadCloser // of package flate, over in
}

// compressed reads a message as it came and what package flate has to see
// behind it.
type compressed struct {
	message io.Reader
	left    int64 // how much longer it may be
	ended   bool
	tail    int   // how much of tail has been read
	err     error // of message
}

// tail is the end of a flush, which the sender has taken off (RFC 7692, section
// 7.2.2), and an empty last block, so that the end is one.
const tail = "\x00\x00\xff\xff" + "\x01\x00\x00\xff\xff"

func (in *compressed) Read(p []byte) (int, error) {
	for !in.ended {
		n, err := in.message.Read(p)
		if in.left -= int64(n); in.left < 0 {
			err = errTooLarge
		}
		switch {
		case err == io.EOF:
			in.ended = true
		case err != nil:
			in.err = err
			return 0, err
		}
		if n > 0 {
			return n, nil
		}
	}
	n := copy(p, tail[in.tail:])
	if in.tail += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// errGarbled is for compressed data that is none.
var errGarbled = errors.New("engine: expected compressed data")

// inflate returns a reader of the message that r reads as it came. limit is how
// long it may be; the caller bounds what it inflates to.
func (e *Engine) inflate(r io.Reader, limit int64) *inflater {
	z, ok := e.inflaters.Get().(*inflater)
	if !ok {
		z = &inflater{r: flate.NewReader(nil)}
	}
	z.in = compressed{message: r, left: limit}
	if err := z.r.(flate.Resetter).Reset(&z.in, nil); err != nil {
		panic(err) // package flate has no reason for one
	}
	return z
}

// Read reads on to the end of the message when its compressed data have ended,
// so that the next frame is the next to be read.
func (z *inflater) Read(p []byte) (int, error) {
	n, err := z.r.Read(p)
	switch {
	case err == nil:
		return n, nil
	case z.in.err != nil:
		return n, z.in.err
	case err != io.EOF:
		return n, fmt.Errorf("%w: %w", errGarbled, err)
	}
	z.in.tail = len(tail)
	if _, err := io.Copy(io.Discard, &z.in); err != nil {
		return n, err
	}
	return n, io.EOF
}

func (e *Engine) putInflater(z *inflater) {
	z.in = compressed{}
	e.inflaters.Put(z)
}
