package eio

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"unicode/utf8"
)

// separator stands between the packets of a payload of protocol 4.
const separator = 0x1e

// Limits bound what a payload may hold. Zero means no bound.
type Limits struct {
	Bytes   int // of the whole body
	Packets int
}

// DecodePayload iterates over the packets of a body that is text. The packets
// refer to body and are made as they are asked for, so that nothing but the
// bytes of the current packet, where it was base64, is allocated. The first
// error ends the iteration: what came before it has been handed out already, as
// in the reference, and the session is to be closed.
//
// In protocol 3 a length counts characters as JavaScript does: in units of
// UTF-16.
func DecodePayload(v Version, body []byte, lim Limits) iter.Seq2[Packet, error] {
	return func(yield func(Packet, error) bool) {
		if err := lim.check(body); err != nil {
			yield(Packet{}, err)
			return
		}
		if !utf8.Valid(body) {
			yield(Packet{}, errUTF8)
			return
		}
		next := cutSeparated
		if v == V3 {
			next = cutCounted
		}
		for n := 1; ; n++ {
			text, rest, more, err := next(body)
			if err == nil {
				err = lim.count(n)
			}
			var p Packet
			if err == nil {
				p, err = decodeText(v, text)
			}
			if err != nil {
				yield(Packet{}, err)
				return
			}
			if !yield(p, nil) || !more {
				return
			}
			body = rest
		}
	}
}

// DecodeBinaryPayload iterates over the packets of a body in the binary framing
// of protocol 3, which comes as application/octet-stream. It is DecodePayload
// in all else. Protocol 4 has no such bodies.
func DecodeBinaryPayload(body []byte, lim Limits) iter.Seq2[Packet, error] {
	return func(yield func(Packet, error) bool) {
		if err := lim.check(body); err != nil {
			yield(Packet{}, err)
			return
		}
		for n := 1; len(body) > 0; n++ {
			text, packet, rest, err := cutFramed(body)
			if err == nil {
				err = lim.count(n)
			}
			var p Packet
			switch {
			case err != nil:
			case text:
				p, err = DecodeMessage(V3, false, packet)
			default:
				p, err = decodeBinary(packet)
			}
			if err != nil {
				yield(Packet{}, err)
				return
			}
			if !yield(p, nil) {
				return
			}
			body = rest
		}
	}
}

// check is for the body as a whole. One without a packet is an error: clients
// have no reason to send it.
func (l Limits) check(body []byte) error {
	switch {
	case len(body) == 0:
		return errEmpty
	case l.Bytes > 0 && len(body) > l.Bytes:
		return fmt.Errorf("expected a payload of at most %d bytes, got %d", l.Bytes, len(body))
	}
	return nil
}

func (l Limits) count(n int) error {
	if l.Packets > 0 && n > l.Packets {
		return fmt.Errorf("expected at most %d packets in a payload, got more", l.Packets)
	}
	return nil
}

// cutSeparated splits off the first packet of protocol 4.
func cutSeparated(body []byte) (packet, rest []byte, more bool, err error) {
	packet, rest, more = bytes.Cut(body, []byte{separator})
	return packet, rest, more, nil
}

// maxDigits is how long a length may be written: no payload has a gigabyte.
const maxDigits = 9

var errLength = errors.New("expected the length of a packet and a colon")

// cutCounted splits off the first packet of protocol 3. The body is UTF-8.
func cutCounted(body []byte) (packet, rest []byte, more bool, err error) {
	i := bytes.IndexByte(body[:min(len(body), maxDigits+1)], ':')
	if i < 1 {
		return nil, nil, false, errLength
	}
	units := 0
	for _, c := range body[:i] {
		if c < '0' || c > '9' {
			return nil, nil, false, errLength
		}
		units = 10*units + int(c-'0')
	}
	body = body[i+1:]
	end := 0
	for ; units > 0 && end < len(body); units-- {
		if body[end] < utf8.RuneSelf {
			end++
			continue
		}
		r, size := utf8.DecodeRune(body[end:])
		if end += size; r > 0xffff {
			units-- // a surrogate pair
		}
	}
	if units != 0 {
		return nil, nil, false, errors.New("expected the length of a packet to be that of the text after it")
	}
	return body[:end], body[end:], end < len(body), nil
}

// cutFramed splits off the first packet of the binary framing: 0 for text or 1
// for bytes, the digits of the length in bytes, each as a number, and 255.
func cutFramed(body []byte) (text bool, packet, rest []byte, err error) {
	if body[0] > 1 {
		return false, nil, nil, fmt.Errorf("expected 0 or 1 before the length of a packet, got %d", body[0])
	}
	i := bytes.IndexByte(body[:min(len(body), maxDigits+2)], 255)
	if i < 2 {
		return false, nil, nil, errors.New("expected the length of a packet and a byte of 255")
	}
	n := 0
	for _, c := range body[1:i] {
		if c > 9 {
			return false, nil, nil, fmt.Errorf("expected a digit from 0 to 9 in the length of a packet, got %d", c)
		}
		n = 10*n + int(c)
	}
	rest = body[i+1:]
	if n > len(rest) {
		return false, nil, nil, fmt.Errorf("expected a packet of %d bytes, got %d", n, len(rest))
	}
	return body[0] == 0, rest[:n], rest[n:], nil
}

// AppendPayload appends the body that answers a poll, as text; bytes become
// base64. In protocol 4 the data of text packets must not have the separator
// 0x1e, which JSON never has unescaped.
func AppendPayload(dst []byte, v Version, packets ...Packet) []byte {
	for i, p := range packets {
		switch {
		case v == V3:
			dst = strconv.AppendInt(dst, int64(textUnits(p)), 10)
			dst = append(dst, ':')
		case i > 0:
			dst = append(dst, separator)
		}
		dst = AppendText(dst, v, p)
	}
	return dst
}

// AppendBinaryPayload appends the body that answers a poll in the binary
// framing of protocol 3. Clients that did not ask with b64=1 for base64 expect
// it as soon as one packet of the answer holds bytes; it goes out as
// application/octet-stream.
func AppendBinaryPayload(dst []byte, packets ...Packet) []byte {
	for _, p := range packets {
		kind := byte(0)
		if p.Binary {
			kind = 1
		}
		dst = append(dst, kind)
		start := len(dst)
		dst = strconv.AppendInt(dst, int64(1+len(p.Data)), 10)
		for i := range dst[start:] {
			dst[start+i] -= '0'
		}
		dst = append(dst, 255)
		if p.Binary {
			dst = AppendBinary(dst, V3, p)
		} else {
			dst = AppendText(dst, V3, p)
		}
	}
	return dst
}

// textUnits is the length of p as text of protocol 3, in units of UTF-16.
func textUnits(p Packet) int {
	if p.Binary {
		return 2 + (len(p.Data)+2)/3*4 // b, the type and base64
	}
	n := 1
	for i := 0; i < len(p.Data); n++ {
		if p.Data[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, size := utf8.DecodeRune(p.Data[i:])
		if i += size; r > 0xffff {
			n++
		}
	}
	return n
}
