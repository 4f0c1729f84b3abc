package engine

import (
	"time"

	"github.com/gin-usher/usher/adapter/internal/eio"
)

// A Dialect is what a client understands of Engine.IO, over one transport.
type Dialect uint8

// The dialects.
const (
	V4     Dialect = iota // protocol 4
	V3                    // protocol 3
	V3Text                // protocol 3, where the client has asked with b64=1 for base64
)

// asks reports whether it is the client that pings.
func (d Dialect) asks() bool { return d != V4 }

// Version returns the protocol of d.
func (d Dialect) Version() eio.Version {
	if d == V4 {
		return eio.V4
	}
	return eio.V3
}

// translate returns frames as a WebSocket of d carries them. Frames are made in
// the form of protocol 4, once for everybody: text is the same in both, and
// bytes get their type in front or become base64.
func (d Dialect) translate(frames []Frame) []Frame {
	if d == V4 {
		return frames
	}
	translated := frames
	for i, f := range frames {
		binary, data := f.Payload()
		if !binary {
			continue
		}
		if &translated[0] == &frames[0] {
			translated = append([]Frame(nil), frames...) // others send these too
		}
		p := eio.Packet{Type: eio.Message, Binary: true, Data: data}
		b := NewBuilder(1 + len(data))
		if d == V3Text {
			b.Append(func(dst []byte) []byte { return eio.AppendText(dst, eio.V3, p) })
			translated[i] = b.Text()
		} else {
			b.Append(func(dst []byte) []byte { return eio.AppendBinary(dst, eio.V3, p) })
			translated[i] = b.Binary()
		}
		translated[i].raw = f.raw
	}
	return translated
}

// AppendPoll appends frames as the body of a poll's answer, and reports whether
// that is in the binary framing of protocol 3: clients expect that as soon as one
// packet of the answer holds bytes.
func (d Dialect) AppendPoll(dst []byte, frames []Frame) (body []byte, binary bool) {
	if d == V4 {
		return AppendPoll(dst, frames), false
	}
	packets := make([]eio.Packet, len(frames))
	for i, f := range frames {
		bytes, data := f.Payload()
		if bytes {
			packets[i] = eio.Packet{Type: eio.Message, Binary: true, Data: data}
			binary = d == V3
		} else {
			packets[i] = eio.Packet{Type: eio.Type(data[0] - '0'), Data: data[1:]}
		}
	}
	if binary {
		return eio.AppendBinaryPayload(dst, packets...), true
	}
	return eio.AppendPayload(dst, eio.V3, packets...), false
}

// Dialect returns what the client understands over polls, or over the WebSocket
// that the session began with.
func (s *Session) Dialect() Dialect { return s.dialect }

// beatLocked sets the heartbeat of a session that polls: when to ping, or in
// protocol 3 the end of patience.
func (s *Session) beatLocked() {
	s.e.wheel.Set(&s.beat, s.lastPing.Add(s.e.firstBeat(s.dialect)), s)
}

// firstBeat is the time from a ping, or the beginning, to the next heartbeat. A
// peer that pings has PingInterval for that and PingTimeout to get it through.
func (e *Engine) firstBeat(d Dialect) time.Duration {
	if d.asks() {
		return e.cfg.PingInterval + e.cfg.PingTimeout
	}
	return e.cfg.PingInterval
}

// heardPing answers a ping of a client of protocol 3, with the same data.
func (s *Session) heardPing(p eio.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastPing = time.Now()
	switch {
	case s.closed:
		return
	case s.ws != nil:
		s.ws.heard.Store(false)
		s.ws.pingAt(s.lastPing.Add(s.e.firstBeat(s.dialect)))
	default:
		s.beatLocked()
	}
	_ = s.sendLocked([]Frame{Packet(eio.Packet{Type: eio.Pong, Data: p.Data})}, false)
}

// speak makes c the carrier of a session.
func (c *Conn) speak(d Dialect) {
	c.dialect = d
	if !d.asks() {
		c.ping = Packet(eio.Packet{Type: eio.Ping})
	}
}
