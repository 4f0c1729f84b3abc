// Package sio is the wire format of Socket.IO: pure functions between text or
// MessagePack and packets, and between JSON with attachments and Go values. It
// speaks protocol 5 (socket.io-client 3 and 4) and protocol 4 (socket.io-client
// 1 and 2), whose packets are the same but for what connecting says.
//
// # Binary
//
// A packet with bytes is a text message followed by binary messages, its
// attachments. In the text, {"_placeholder":true,"num":0} stands where the
// first one belongs. EncodeArgs takes each []byte of a Go value out of it; an
// Assembler waits until a packet is complete; Bind puts the bytes back into a
// Go value.
//
// With the parser for MessagePack a packet is one binary message with all in
// it. AppendMessagePack and DecodeMessagePack go between that and the same JSON
// and attachments.
package sio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Type is what a packet is for.
type Type byte

// The types of packets.
const (
	Connect      Type = iota // the client asks for a namespace; the server grants it
	Disconnect               // either side leaves a namespace
	Event                    // an event and its arguments
	Ack                      // the answer to an event that had an id
	ConnectError             // the server refuses a namespace; "error" in protocol 4
	BinaryEvent              // an event with attachments
	BinaryAck                // an answer with attachments
)

func (t Type) String() string {
	switch t {
	case Connect:
		return "CONNECT"
	case Disconnect:
		return "DISCONNECT"
	case Event:
		return "EVENT"
	case Ack:
		return "ACK"
	case ConnectError:
		return "CONNECT_ERROR"
	case BinaryEvent:
		return "BINARY_EVENT"
	case BinaryAck:
		return "BINARY_ACK"
	}
	return fmt.Sprintf("type %d", byte(t))
}

// What is accepted of a packet before anybody has looked at it. The bytes are
// bounded by who read them.
const (
	// MaxNamespace is in bytes. It leaves room for the query that clients of
	// protocol 4 put there, which may carry a token.
	MaxNamespace = 4096

	// MaxAttachments is for one packet. The reference allows 10 since version
	// 4.2.6 of its parser and any number before.
	MaxAttachments = 1000

	// MaxDepth is how deep arrays and objects nest. Documents as editors send
	// them use two levels for each of their own; sixty of those are far beyond
	// what people write. All that descends into data can thus recurse.
	MaxDepth = 128

	// MaxArgs is the number of elements in the payload of an event or an
	// answer, its name included. Each costs memory of its own: without a bound
	// a megabyte of zeros and commas would become twelve.
	MaxArgs = 1024
)

// A Packet is one packet without the bytes of its attachments.
type Packet struct {
	Type        Type
	Namespace   string // begins with a slash; "/" is the main one
	ID          uint64 // if HasID, what the answer to an event refers to
	HasID       bool
	Data        json.RawMessage // nil where there is none; with placeholders for the attachments
	Attachments int             // that follow
}

// Reserved reports whether an event name belongs to the protocol or its
// clients: a packet that carries it is invalid.
func Reserved(event string) bool {
	switch event {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return true
	}
	return false
}

// CheckNamespace says what is wrong with the name of a namespace, if anything.
// There is no escaping, so that a comma would end it.
func CheckNamespace(name string) error {
	switch {
	case len(name) > MaxNamespace:
		return fmt.Errorf("expected a namespace of at most %d bytes, got %d", MaxNamespace, len(name))
	case !strings.HasPrefix(name, "/"):
		return fmt.Errorf("expected a namespace that begins with /, got %q", name)
	case strings.Contains(name, ","):
		return fmt.Errorf("expected a namespace without a comma, got %q", name)
	}
	return nil
}

// Decode parses the text of a packet, which is valid UTF-8. The packet keeps no
// reference to text. What it accepts is valid for its type, and its
// placeholders are those of its attachments, each once. Its errors are
// sentences for the client's developer; the protocol wants the connection
// closed.
func Decode(text []byte) (Packet, error) {
	if len(text) == 0 {
		return Packet{}, errors.New("expected a packet, got nothing")
	}
	if text[0] < '0' || text[0] > '0'+byte(BinaryAck) {
		return Packet{}, fmt.Errorf("expected a packet type from 0 to 6, got %q", text[0])
	}
	p, text := Packet{Type: Type(text[0] - '0'), Namespace: "/"}, text[1:]
	var err error
	if p.Type == BinaryEvent || p.Type == BinaryAck {
		if p.Attachments, text, err = cutAttachments(text); err != nil {
			return Packet{}, err
		}
	}
	if len(text) > 0 && text[0] == '/' {
		// The comma may be missing where nothing follows.
		name, rest, _ := bytes.Cut(text, []byte{','})
		if len(name) > MaxNamespace {
			return Packet{}, fmt.Errorf("expected a namespace of at most %d bytes, got %d", MaxNamespace, len(name))
		}
		if len(name) > 1 {
			p.Namespace = string(name)
		}
		text = rest
	}
	if p.ID, p.HasID, text, err = cutID(text); err != nil {
		return Packet{}, err
	}
	if err := p.check(text); err != nil {
		return Packet{}, fmt.Errorf("%v: %w", p.Type, err)
	}
	if len(text) > 0 {
		p.Data = bytes.Clone(text)
	}
	return p, nil
}

// cutAttachments splits off the number of attachments and the dash after it.
func cutAttachments(text []byte) (n int, rest []byte, err error) {
	digits, rest, ok := bytes.Cut(text, []byte{'-'})
	if !ok || len(digits) == 0 {
		return 0, nil, errors.New("expected the number of attachments and a dash")
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, nil, fmt.Errorf("expected a digit in the number of attachments, got %q", c)
		}
		if n = 10*n + int(c-'0'); n > MaxAttachments {
			return 0, nil, fmt.Errorf("expected at most %d attachments, got more", MaxAttachments)
		}
	}
	if n == 0 {
		return 0, nil, errors.New("expected at least one attachment, got 0")
	}
	return n, rest, nil
}

// cutID splits off the acknowledgement id, if there is one.
func cutID(text []byte) (id uint64, has bool, rest []byte, err error) {
	i := 0
	for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
		d := uint64(text[i] - '0')
		if id > (math.MaxUint64-d)/10 {
			return 0, false, nil, errors.New("expected an acknowledgement id of 64 bits, got more")
		}
		id = 10*id + d
	}
	return id, i > 0, text[i:], nil
}

// check says what is wrong with the payload and the id for the packet's type.
func (p Packet) check(data []byte) error {
	switch p.Type {
	case Connect, Disconnect, ConnectError:
		if p.HasID {
			return errors.New("expected no acknowledgement id, got one")
		}
	case Ack, BinaryAck:
		if !p.HasID {
			return errors.New("expected an acknowledgement id, got none")
		}
	}
	if len(data) == 0 {
		switch p.Type {
		case Connect, Disconnect:
			return nil
		}
		return errors.New("expected a payload, got none")
	}
	if p.Type == Disconnect {
		return errors.New("expected no payload, got one")
	}
	if err := validate(data); err != nil {
		return err
	}
	i := skipSpace(data, 0)
	is := kind(data[i])
	switch p.Type {
	case Connect:
		if is != anObject {
			return fmt.Errorf("expected an object, got %v", is)
		}
	case ConnectError:
		if is != anObject && is != aString {
			return fmt.Errorf("expected an object or a string, got %v", is)
		}
	case Ack, BinaryAck:
		if is != anArray {
			return fmt.Errorf("expected an array, got %v", is)
		}
	case Event, BinaryEvent:
		if is != anArray {
			return fmt.Errorf("expected an array, got %v", is)
		}
		if _, err := eventName(data, skipSpace(data, i+1)); err != nil {
			return err
		}
	}
	if p.Attachments > 0 {
		return checkPlaceholders(data, p.Attachments)
	}
	return nil
}

// CheckEvent says what is wrong with the payload of an event that has not come
// through Decode, if anything.
func CheckEvent(data json.RawMessage, attachments [][]byte) error {
	return checkPayload(Event, data, attachments)
}

// CheckAnswer is CheckEvent for the payload of an answer.
func CheckAnswer(data json.RawMessage, attachments [][]byte) error {
	return checkPayload(Ack, data, attachments)
}

func checkPayload(t Type, data json.RawMessage, attachments [][]byte) error {
	switch {
	case len(attachments) > MaxAttachments:
		return fmt.Errorf("expected at most %d attachments, got %d", MaxAttachments, len(attachments))
	case !utf8.Valid(data):
		return errors.New("expected UTF-8 text, got other bytes")
	}
	return Packet{Type: t, HasID: true, Attachments: len(attachments)}.check(data)
}

var errNoName = errors.New("expected the name of an event, got an empty array")

// eventName reads the first element of an event's payload, at data[i].
func eventName(data []byte, i int) ([]byte, error) {
	switch is := kind(data[i]); is {
	case nothing:
		return nil, errNoName
	case aNumber:
		// As in the reference. It is kept as it is written.
		return data[i:skipValue(data, i)], nil
	case aString:
		name := unquote(data[i:skipString(data, i)])
		if Reserved(string(name)) {
			return nil, fmt.Errorf("expected the name of an event, got %q, which is reserved", name)
		}
		return name, nil
	default:
		return nil, fmt.Errorf("expected the name of an event, a string or a number, got %v", is)
	}
}

// AppendPacket appends the text of a packet. Its namespace is one that
// CheckNamespace accepts, or empty for "/". An Event or Ack with attachments
// goes out as BinaryEvent or BinaryAck.
func AppendPacket(dst []byte, p Packet) []byte {
	t := p.Type
	switch {
	case p.Attachments == 0:
	case t == Event:
		t = BinaryEvent
	case t == Ack:
		t = BinaryAck
	}
	dst = append(dst, '0'+byte(t))
	if t == BinaryEvent || t == BinaryAck {
		dst = strconv.AppendInt(dst, int64(p.Attachments), 10)
		dst = append(dst, '-')
	}
	if p.Namespace != "" && p.Namespace != "/" {
		dst = append(dst, p.Namespace...)
		dst = append(dst, ',')
	}
	if p.HasID {
		dst = strconv.AppendUint(dst, p.ID, 10)
	}
	return append(dst, p.Data...)
}

// SplitEvent takes the payload of an event that Decode accepted apart: its name
// and its arguments, which are parts of data. A name that is a number comes as
// it was written.
func SplitEvent(data json.RawMessage) (name string, args []json.RawMessage, err error) {
	args = SplitArgs(data)
	if len(args) == 0 {
		return "", nil, errNoName
	}
	b, err := eventName(args[0], 0)
	if err != nil {
		return "", nil, err
	}
	return string(b), args[1:], nil
}

// SplitArgs takes the payload of an answer that Decode accepted apart, into
// parts of data. They are at most MaxArgs.
func SplitArgs(data json.RawMessage) []json.RawMessage {
	args := make([]json.RawMessage, 0, 4)
	// No callback fails.
	_, _ = elements(data, skipSpace(data, 0), func(i int) (int, error) {
		next := skipValue(data, i)
		args = append(args, data[i:next:next])
		return next, nil
	})
	return args
}
