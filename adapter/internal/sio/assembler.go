package sio

import (
	"errors"
	"fmt"
)

// A Message is a packet with all that belongs to it. Its type is never
// BinaryEvent or BinaryAck but Event or Ack, whether it has attachments or not.
type Message struct {
	Packet
	Binary [][]byte // as many as Attachments
}

// An Assembler makes messages of what comes over one connection. Its zero value
// works; after an error the connection is to be closed. It is not for
// concurrent use.
type Assembler struct {
	MaxAttachments int // per packet; zero means the constant of that name, which is also the most
	MaxBytes       int // per packet, text and attachments; zero means no bound

	pending Message // if its Attachments are not zero
	bytes   int     // of pending
}

// Pending reports whether attachments are due.
func (a *Assembler) Pending() bool { return a.pending.Attachments > 0 }

// Text takes a text message. Unless attachments are due now, ok is true and m
// is complete. m keeps no reference to text.
func (a *Assembler) Text(text []byte) (m Message, ok bool, err error) {
	if a.Pending() {
		return Message{}, false, fmt.Errorf("expected attachment %d of %d, got text", len(a.pending.Binary)+1, a.pending.Attachments)
	}
	if a.MaxBytes > 0 && len(text) > a.MaxBytes {
		return Message{}, false, a.tooLong()
	}
	p, err := Decode(text)
	if err != nil {
		return Message{}, false, err
	}
	if a.MaxAttachments > 0 && p.Attachments > a.MaxAttachments {
		return Message{}, false, fmt.Errorf("expected at most %d attachments, got %d", a.MaxAttachments, p.Attachments)
	}
	switch p.Type {
	case BinaryEvent:
		p.Type = Event
	case BinaryAck:
		p.Type = Ack
	}
	if p.Attachments == 0 {
		return Message{Packet: p}, true, nil
	}
	a.pending, a.bytes = Message{Packet: p}, len(text)
	return Message{}, false, nil
}

// Binary takes a binary message. If it was the last attachment of a packet, ok
// is true and m is complete. m keeps no reference to data.
func (a *Assembler) Binary(data []byte) (m Message, ok bool, err error) {
	if !a.Pending() {
		return Message{}, false, errors.New("expected text, got an attachment of no packet")
	}
	if a.MaxBytes > 0 && len(data) > a.MaxBytes-a.bytes {
		return Message{}, false, a.tooLong()
	}
	a.bytes += len(data)
	// A copy of nothing is nil, but these are bytes.
	a.pending.Binary = append(a.pending.Binary, append([]byte{}, data...))
	if len(a.pending.Binary) < a.pending.Attachments {
		return Message{}, false, nil
	}
	m, a.pending, a.bytes = a.pending, Message{}, 0
	return m, true, nil
}

func (a *Assembler) tooLong() error {
	return fmt.Errorf("expected at most %d bytes in a packet and its attachments, got more", a.MaxBytes)
}
