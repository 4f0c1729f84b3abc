package adapter_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter/internal/sio"
)

// patience is how long an example waits for what must happen.
const patience = 10 * time.Second

// clientOptions are what socket.io-client takes: io(namespace, { auth, query }).
type clientOptions struct {
	Namespace string
	Auth      any
	Query     string
}

// An exampleClient speaks Socket.IO over a WebSocket, as socket.io-client does
// in a browser. It reads in the background, until it is closed.
type exampleClient struct {
	Header http.Header // of the answer to the handshake

	site    *exampleSite
	user    string
	options clientOptions

	events chan string
	acks   chan string
	over   chan struct{} // the reader has ended
	pid    string        // with which the server recovers it

	mu       sync.Mutex
	ws       *websocket.Conn
	calls    uint64
	offset   string // of the last event, for the recovery
	handlers map[string]func(args string) any
}

// Connect connects a user; "" is nobody.
func (s *exampleSite) Connect(user string) *exampleClient {
	return s.ConnectWith(user, clientOptions{})
}

// ConnectTo connects a user to a namespace.
func (s *exampleSite) ConnectTo(namespace, user string) *exampleClient {
	return s.ConnectWith(user, clientOptions{Namespace: namespace})
}

// ConnectWith connects a user and waits for the answer. If it is a refusal, Next
// returns it.
func (s *exampleSite) ConnectWith(user string, options clientOptions) *exampleClient {
	c := &exampleClient{
		site: s, user: user, options: options,
		events: make(chan string, 1000), acks: make(chan string, 1),
		handlers: make(map[string]func(string) any),
	}
	s.open = append(s.open, c)
	c.connect(options.Auth)
	return c
}

func (c *exampleClient) connect(auth any) {
	ws, resp, err := c.site.dial(c.user, "/socket.io/?EIO=4&transport=websocket&"+c.options.Query)
	must(err)
	_ = resp.Body.Close()
	c.Header, c.ws, c.over = resp.Header, ws, make(chan struct{})
	p := sio.Packet{Type: sio.Connect, Namespace: c.options.Namespace}
	if auth != nil {
		p.Data, err = json.Marshal(auth)
		must(err)
	}
	c.send(p)
	answered := make(chan struct{})
	go c.read(ws, answered)
	receive(answered, "the answer to CONNECT")
}

// read takes what comes until the connection ends.
func (c *exampleClient) read(ws *websocket.Conn, answered chan struct{}) {
	defer close(c.over)
	var in sio.Assembler
	disconnected := false
	for {
		kind, data, err := ws.ReadMessage()
		if err != nil {
			if !disconnected {
				c.events <- `disconnect "transport close"`
			}
			return
		}
		take := in.Binary
		if kind == websocket.TextMessage {
			if data[0] != '4' {
				continue // Engine.IO's own: the handshake
			}
			take, data = in.Text, data[1:]
		}
		m, ok, err := take(data)
		must(err)
		if !ok {
			continue
		}
		switch m.Type {
		case sio.Connect:
			var granted struct{ PID string }
			_ = json.Unmarshal(m.Data, &granted)
			c.pid = granted.PID
			close(answered)
		case sio.ConnectError:
			c.events <- "connect_error " + string(m.Data)
			close(answered)
		case sio.Disconnect:
			disconnected = true
			c.events <- `disconnect "io server disconnect"`
		case sio.Ack:
			c.acks <- inspect(sio.SplitArgs(m.Data), m.Binary)
		case sio.Event:
			c.event(m)
		}
	}
}

// event answers an event, or leaves it for Next.
func (c *exampleClient) event(m sio.Message) {
	name, args, err := sio.SplitEvent(m.Data)
	must(err)
	c.mu.Lock()
	if c.pid != "" {
		_ = json.Unmarshal(args[len(args)-1], &c.offset)
		args = args[:len(args)-1]
	}
	handler := c.handlers[name]
	c.mu.Unlock()
	shown := inspect(args, m.Binary)
	if handler == nil {
		c.events <- strings.TrimSpace(name + " " + shown)
		return
	}
	answer, err := json.Marshal([]any{handler(shown)})
	must(err)
	c.send(sio.Packet{Type: sio.Ack, Namespace: c.options.Namespace, ID: m.ID, HasID: m.HasID, Data: answer})
}

// inspect shows arguments as JSON, and bytes as Node.js prints them.
func inspect(args []json.RawMessage, binary [][]byte) string {
	var parts []string
	for _, arg := range args {
		text := string(arg)
		for i, b := range binary {
			text = strings.ReplaceAll(text, fmt.Sprintf(`{"_placeholder":true,"num":%d}`, i), fmt.Sprintf("<Buffer % x>", b))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

func (c *exampleClient) send(p sio.Packet, attachments ...[]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.Attachments = len(attachments)
	_ = c.ws.WriteMessage(websocket.TextMessage, sio.AppendPacket([]byte("4"), p))
	for _, a := range attachments {
		_ = c.ws.WriteMessage(websocket.BinaryMessage, a)
	}
}

// On handles an event: the result of f is the acknowledgement.
func (c *exampleClient) On(event string, f func(args string) any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers[event] = f
}

// Emit is socket.emit.
func (c *exampleClient) Emit(event string, args ...any) { c.emit(0, event, args) }

// EmitWithAck is await socket.emitWithAck.
func (c *exampleClient) EmitWithAck(event string, args ...any) string {
	c.calls++
	c.emit(c.calls, event, args)
	return receive(c.acks, "the acknowledgement of "+event)
}

func (c *exampleClient) emit(id uint64, event string, args []any) {
	data, attachments, err := sio.EncodeArgs(append([]any{event}, args...)...)
	must(err)
	c.send(sio.Packet{Type: sio.Event, Namespace: c.options.Namespace, ID: id, HasID: id > 0, Data: data}, attachments...)
}

// Next waits for the next event and returns its name and its arguments.
func (c *exampleClient) Next() string { return receive(c.events, "an event") }

func receive[T any](from <-chan T, what string) T {
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		panic("waited in vain for " + what)
	}
}

// Received returns the events that have come, up to now: the answer to what it
// asks the server comes behind them.
func (c *exampleClient) Received() []string {
	c.EmitWithAck("is there more?")
	var all []string
	for len(c.events) > 0 {
		all = append(all, <-c.events)
	}
	return all
}

// Disconnect is socket.disconnect.
func (c *exampleClient) Disconnect() {
	c.send(sio.Packet{Type: sio.Disconnect, Namespace: c.options.Namespace})
}

// Close ends the connection.
func (c *exampleClient) Close() error {
	err := c.ws.Close()
	receive(c.over, "the end of a connection")
	return err
}

// Reconnect connects again after Close, as the one it was before.
func (c *exampleClient) Reconnect() {
	<-c.events // its own disconnect
	c.connect(map[string]any{"pid": c.pid, "offset": c.offset})
}
