package adapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/plain"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// maxBad frames within badWindow close the connection.
const (
	maxBad    = 10
	badWindow = 10 // seconds
)

// A plainConn is a WebSocket that speaks the plain JSON format: the link of
// one socket, and the handler of its connection.
type plainConn struct {
	socket *Socket
	conn   atomic.Pointer[engine.Conn] // nil while the handshake is under way

	waits *pending // to be authenticated; set before the start

	mu       sync.Mutex
	bad      int32
	badSince int32 // Unix seconds
}

// plainSocket is a socket and its link in one piece of memory.
type plainSocket struct {
	socket Socket
	conn   plainConn
}

func (p *plainConn) encode(m *message) ([]engine.Frame, error) {
	if m.plain == nil {
		if err := m.encodePlain(); err != nil {
			return nil, err
		}
	}
	return m.plain, nil
}

// encodePlain writes the event in the plain format.
func (m *message) encodePlain() error {
	var data []byte
	var err error
	switch {
	case m.data != nil:
		data, err = m.plainData()
	case len(m.args) == 0:
	case len(m.args) == 1:
		data, err = encode(m.args[0])
	default:
		data, err = encode(m.args)
	}
	if err != nil {
		return fmt.Errorf("adapter: emit %q: %w", m.event, err)
	}
	b := engine.NewBuilder(len(m.event) + len(data) + 24)
	var id []byte
	if m.id != 0 {
		id = strconv.AppendUint(nil, m.id, 10)
	}
	b.Append(func(dst []byte) []byte { return plain.AppendEvent(dst, m.event, data, id) })
	m.plain = m.built([]engine.Frame{b.Text()})
	return nil
}

// plainData returns the data of the plain format by the arguments as Socket.IO
// has them, which is what package json would make of the values.
func (m *message) plainData() ([]byte, error) {
	args := sio.SplitArgs(m.data)[1:]
	if len(args) == 0 {
		return nil, nil
	}
	data := args[0]
	if len(args) > 1 {
		data = joined(args)
	}
	if len(m.attachments) == 0 {
		return data, nil
	}
	var with json.RawMessage // with the attachments in base64
	err := sio.Bind(data, m.attachments, &with)
	return with, err
}

func encode(v any) ([]byte, error) {
	if raw, ok := v.(json.RawMessage); ok {
		if !json.Valid(raw) {
			return nil, errors.New("expected valid JSON in a json.RawMessage")
		}
		return raw, nil
	}
	return json.Marshal(v)
}

func (p *plainConn) send(frames []engine.Frame, volatile bool) error {
	return p.conn.Load().SendAll(frames, volatile) // until there is one, frames are held back
}

func (p *plainConn) connected() {
	data := `{"sid":"` + p.socket.id + `"}` // base32
	b := engine.NewBuilder(len(data) + 32)
	b.Append(func(dst []byte) []byte { return plain.AppendEvent(dst, plain.Connect, []byte(data), nil) })
	_ = p.conn.Load().Send(b.Text())
}

func (p *plainConn) refuse(e *Error) {
	_ = p.conn.Load().Send(errorFrame(nil, "", e))
	c := causeOf(ReasonRefused)
	c.Code, c.Text = closeCodeFor(e), e.Code
	p.conn.Load().Close(c)
}

// reply is written by the dispatcher itself if nobody else is writing: the
// next event waits until this one is answered.
func (p *plainConn) reply(in incoming, out any) error {
	var data []byte
	if _, none := out.(nothing); !none {
		if several, ok := out.(argList); ok {
			out = several.list()
		}
		var err error
		if data, err = encode(out); err != nil {
			return fmt.Errorf("adapter: encode the answer to %q: %w", in.event, err)
		}
	}
	b := engine.NewBuilder(len(data) + len(in.id) + 32)
	b.Append(func(dst []byte) []byte { return plain.AppendReply(dst, in.id, data) })
	_ = p.conn.Load().SendNow(b.Text())
	return nil
}

func (p *plainConn) fail(in incoming, e *Error) {
	_ = p.conn.Load().SendNow(errorFrame(in.id, shortName(in.event), e))
}

func (p *plainConn) pending() *pending {
	if p.socket.waiting.Load() {
		return p.waits
	}
	return nil
}

func (p *plainConn) proven() {
	p.waits.prove()
	p.conn.Load().Limit(0)
}

func (p *plainConn) close(r Reason) { p.end(causeOf(r)) }
func (p *plainConn) pause()         { p.conn.Load().Pause() }
func (p *plainConn) resume()        { p.conn.Load().Resume() }

// end ends the connection. While the handshake is under way, in which guards may do
// with the socket what they like, there is none: then the socket has ended, which
// opened looks at.
func (p *plainConn) end(c engine.Cause) {
	conn := p.conn.Load()
	if conn == nil {
		p.socket.ended(Reason(c.Reason))
		conn = p.conn.Load() // it may have come meanwhile, and nobody have looked since
	}
	if conn != nil {
		conn.Close(c)
	}
}

// opened is told of the connection that the handshake has become.
func (p *plainConn) opened(conn *engine.Conn) {
	p.conn.Store(conn)
	p.socket.mu.Lock()
	closed, r := p.socket.closed, p.socket.reason
	p.socket.mu.Unlock()
	if closed {
		conn.Close(causeOf(r))
	}
}

func errorFrame(id json.RawMessage, event string, e *Error) engine.Frame {
	body := e.json()
	b := engine.NewBuilder(len(body) + len(id) + len(event) + 40)
	b.Append(func(dst []byte) []byte { return plain.AppendError(dst, id, event, body) })
	return b.Text()
}

// Receive takes one frame from the reader.
func (p *plainConn) Receive(binary bool, data []byte) engine.Task {
	if p.waits != nil && !p.waits.hears(len(data)) {
		return nil
	}
	if binary {
		p.reject(nil, "expected a text message with JSON, got a binary one")
		return nil
	}
	m, err := plain.Decode(data)
	if err != nil {
		p.reject(m.ID, err.Error())
		return nil
	}
	if m.Type == plain.Reply {
		p.answered(m)
		return nil
	}
	if plain.Reserved(m.Type) {
		p.reject(nil, fmt.Sprintf("expected the name of an event, got %q, which belongs to the protocol", m.Type))
		return nil
	}
	in := incoming{event: m.Type, id: m.ID, packed: true}
	switch {
	case m.Token != nil:
		in.args = []json.RawMessage{m.Token}
	case m.Data != nil:
		in.args = []json.RawMessage{m.Data}
	}
	return p.socket.receive(in)
}

// answered passes on what the client replies to an event of ours.
func (p *plainConn) answered(m plain.Message) {
	id, err := strconv.ParseUint(string(m.ID), 10, 64)
	if err != nil {
		p.reject(nil, `expected a reply with the "id" of an event that wants one`)
		return
	}
	a := answer{packed: true}
	if m.Data != nil {
		a.args = []json.RawMessage{m.Data}
	}
	if m.Error != nil && string(m.Error) != "null" {
		e := new(Error)
		if json.Unmarshal(m.Error, e) != nil || e.Code == "" {
			p.reject(nil, `expected the "error" of a reply to be {"code":…,"message":…}`)
			return
		}
		a.err = e
	}
	p.socket.answered(id, a)
}

// reject tells the client what was wrong with a frame, and closes on one that
// keeps sending them.
func (p *plainConn) reject(id json.RawMessage, what string) {
	p.mu.Lock()
	now := int32(time.Now().Unix())
	if p.bad == 0 || now-p.badSince > badWindow {
		p.bad, p.badSince = 0, now
	}
	p.bad++
	tooMany := p.bad >= maxBad
	p.mu.Unlock()
	_ = p.conn.Load().Send(errorFrame(id, "", &Error{Code: CodeBadRequest, Message: what}))
	if tooMany {
		p.close(ReasonParse)
	}
}

// Closed is told by the engine that the connection has ended.
func (p *plainConn) Closed(c engine.Cause) {
	p.waits.leave()
	p.socket.ended(Reason(c.Reason))
}
