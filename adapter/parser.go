package adapter

import (
	"errors"
	"fmt"

	"github.com/gin-usher/usher/adapter/internal/eio"
	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// A Parser is how the packets of Socket.IO are written. A server and all of its
// clients have the same one; those of another are closed with "parse error".
// Handlers do not see the difference, nor do plain WebSockets.
type Parser int

const (
	// JSON is the parser that socket.io-client has by default: text, and a
	// binary message for each []byte.
	JSON Parser = iota

	// MessagePack is the parser of the npm package socket.io-msgpack-parser,
	// which clients get with the option parser: one binary message per packet.
	MessagePack
)

func (p Parser) String() string {
	switch p {
	case JSON:
		return "JSON"
	case MessagePack:
		return "MessagePack"
	}
	return fmt.Sprintf("Parser(%d)", int(p))
}

// frames makes the frames of a packet and its attachments. It cannot fail
// without attachments, nor with those of EncodeArgs.
func (p Parser) frames(packet sio.Packet, attachments ...[]byte) ([]engine.Frame, error) {
	if p == MessagePack {
		data, err := sio.AppendMessagePack(nil, packet, attachments)
		if err != nil {
			return nil, err
		}
		return []engine.Frame{messageFrame(data, true)}, nil
	}
	packet.Attachments = len(attachments)
	frames := make([]engine.Frame, 1, 1+len(attachments))
	frames[0] = messageFrame(sio.AppendPacket(nil, packet), false)
	for _, a := range attachments {
		frames = append(frames, messageFrame(a, true))
	}
	return frames, nil
}

func messageFrame(data []byte, binary bool) engine.Frame {
	return engine.Packet(eio.Packet{Type: eio.Message, Binary: binary, Data: data})
}

// receive takes one message of a connection. Where a packet is complete with it
// ok is true.
func (p Parser) receive(in *sio.Assembler, binary bool, data []byte) (m sio.Message, ok bool, err error) {
	switch {
	case p == MessagePack && binary:
		m, err = sio.DecodeMessagePack(data, in.MaxBytes)
		return m, err == nil, err
	case p == MessagePack:
		return m, false, errors.New("expected MessagePack, got text")
	case binary:
		return in.Binary(data)
	}
	return in.Text(data)
}
