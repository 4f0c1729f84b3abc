// Package eio is the wire format of Engine.IO: pure functions between bytes and
// packets, for protocol 4 (socket.io-client 3 and 4) and protocol 3
// (socket.io-client 1 and 2).
//
// # What goes where
//
// A text packet is its type as a digit and then its data, the same on every
// transport. What holds bytes differs:
//
//	                 WebSocket        polling
//	protocol 4       the bytes        b and base64; packets joined by 0x1e
//	protocol 3       type, bytes      b, type and base64; each packet after its
//	                                  length and a colon, or the binary framing
//
// JSON-P, which protocol 3 has for browsers without cross-origin requests, is
// left out: a script tag sends cookies and no Origin, so that a session could
// be read from any page.
package eio

import (
	"encoding/base64"
	"errors"
	"fmt"
	"unicode/utf8"
)

// A Version is a revision of the protocol, as in the query parameter EIO.
type Version int

// The protocols of socket.io-client 1 and 2, and of 3 and 4.
const (
	V3 Version = 3
	V4 Version = 4
)

// ParseVersion reads the query parameter EIO. Anything but "3" and "4" is not
// ok; to refuse it, answer ErrVersion.
func ParseVersion(s string) (v Version, ok bool) {
	switch s {
	case "3":
		return V3, true
	case "4":
		return V4, true
	}
	return 0, false
}

// Type is what a packet is for.
type Type byte

// The types of both protocols. Heartbeats differ in who asks: in protocol 4 the
// server sends Ping and the client answers Pong, in protocol 3 it is the client
// that sends Ping.
const (
	Open    Type = iota // the handshake, from the server
	Close               // the transport can be closed
	Ping                // heartbeat; with the data "probe" the question before an upgrade
	Pong                // the answer to Ping with the same data
	Message             // data of the layer above
	Upgrade             // the client moves to this transport
	Noop                // nothing: it ends a poll
)

func (t Type) String() string {
	switch t {
	case Open:
		return "open"
	case Close:
		return "close"
	case Ping:
		return "ping"
	case Pong:
		return "pong"
	case Message:
		return "message"
	case Upgrade:
		return "upgrade"
	case Noop:
		return "noop"
	}
	return fmt.Sprintf("type %d", byte(t))
}

// A Packet is one packet of either protocol. The Data of a text packet is valid
// UTF-8. Protocol 4 has bytes in a Message only.
type Packet struct {
	Type   Type
	Binary bool
	Data   []byte
}

// DecodeMessage parses one WebSocket message. Data refers to msg, except where
// it was base64. Its errors are sentences for the client's developer.
func DecodeMessage(v Version, binary bool, msg []byte) (Packet, error) {
	switch {
	case !binary && !utf8.Valid(msg):
		return Packet{}, errUTF8
	case !binary:
		return decodeText(v, msg)
	case v == V4:
		return Packet{Type: Message, Binary: true, Data: msg}, nil
	}
	return decodeBinary(msg)
}

var (
	errUTF8  = errors.New("expected UTF-8 text, got other bytes")
	errEmpty = errors.New("expected a packet, got nothing")
)

// decodeText parses a packet that is text, which the caller has found to be
// UTF-8.
func decodeText(v Version, text []byte) (Packet, error) {
	if len(text) == 0 {
		return Packet{}, errEmpty
	}
	if text[0] != 'b' {
		t, err := digit(text[0])
		return Packet{Type: t, Data: text[1:]}, err
	}
	p, text := Packet{Type: Message, Binary: true}, text[1:]
	if v == V3 {
		if len(text) == 0 {
			return Packet{}, errors.New(`expected a packet type after "b", got nothing`)
		}
		var err error
		if p.Type, err = digit(text[0]); err != nil {
			return Packet{}, err
		}
		text = text[1:]
	}
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(data, text)
	if err != nil {
		return Packet{}, fmt.Errorf(`expected base64 after "b": %v`, err)
	}
	p.Data = data[:n]
	return p, nil
}

// decodeBinary parses a binary packet of protocol 3, whose first byte is its
// type: the number, not the digit.
func decodeBinary(b []byte) (Packet, error) {
	if len(b) == 0 {
		return Packet{}, errEmpty
	}
	if b[0] > byte(Noop) {
		return Packet{}, fmt.Errorf("expected a packet type from 0 to 6, got %d", b[0])
	}
	return Packet{Type: Type(b[0]), Binary: true, Data: b[1:]}, nil
}

func digit(c byte) (Type, error) {
	if c < '0' || c > '0'+byte(Noop) {
		return 0, fmt.Errorf("expected a packet type from 0 to 6, got %q", c)
	}
	return Type(c - '0'), nil
}

// AppendText appends p as text, for a text message of a WebSocket or for a
// payload; bytes become base64.
func AppendText(dst []byte, v Version, p Packet) []byte {
	if !p.Binary {
		dst = append(dst, '0'+byte(p.Type))
		return append(dst, p.Data...)
	}
	dst = append(dst, 'b')
	if v == V3 {
		dst = append(dst, '0'+byte(p.Type))
	}
	return base64.StdEncoding.AppendEncode(dst, p.Data)
}

// AppendBinary appends a packet of bytes as the content of a binary message of
// a WebSocket. A client of protocol 3 that asked with b64=1 for base64 has to
// get AppendText instead.
func AppendBinary(dst []byte, v Version, p Packet) []byte {
	if v == V3 {
		dst = append(dst, byte(p.Type))
	}
	return append(dst, p.Data...)
}
