package adaptertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/gorilla/websocket"
)

// A Conn is a plain JSON WebSocket. Its methods fail the test when what they
// wait for does not come, and print what did.
type Conn struct {
	inbox
	ws  *websocket.Conn
	id  string // of the socket, once it is known
	ids atomic.Int64

	writing sync.Mutex // one writer at a time
}

func (c *Conn) read() {
	for {
		_, b, err := c.ws.ReadMessage()
		if err != nil {
			c.end(err)
			return
		}
		f := Frame{raw: string(b)}
		if err := json.Unmarshal(b, &f); err != nil {
			c.end(fmt.Errorf("frame %q: %w", b, err))
			return
		}
		c.add(f)
	}
}

// greeted takes the socket's id from the connect frame.
func (c *Conn) greeted(f Frame) {
	var data struct{ SID string }
	if err := json.Unmarshal(f.Data, &data); err != nil || data.SID == "" {
		c.t.Fatalf("the connect frame names no socket: %s", f)
	}
	c.id = data.SID
}

// ID returns the socket's id, Socket.ID on the server; "" after TryDial.
func (c *Conn) ID() string { return c.id }

// Raw sends one text message as it is.
func (c *Conn) Raw(text string) {
	c.t.Helper()
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatalf("send %q: %v", text, err)
	}
}

// Emit sends an event that wants no answer.
func (c *Conn) Emit(event string, data any) {
	c.t.Helper()
	c.Raw(c.encode(event, data, 0))
}

// Call sends an event and waits for its reply; other frames stay.
func (c *Conn) Call(event string, data any) Frame {
	c.t.Helper()
	id := c.ids.Add(1)
	c.Raw(c.encode(event, data, id))
	return c.wait(fmt.Sprintf("the reply to %q", event), func(f Frame) bool { return f.Type == "reply" && string(f.ID) == strconv.FormatInt(id, 10) })
}

// Must is Call for what must succeed; the reply's data is stored in out unless
// it is nil.
func (c *Conn) Must(event string, data, out any) {
	c.t.Helper()
	c.must(event, c.Call(event, data), out)
}

func (c *Conn) encode(event string, data any, id int64) string {
	c.t.Helper()
	m := map[string]any{"type": event}
	if data != nil {
		m["data"] = data
	}
	if id != 0 {
		m["id"] = id
	}
	b, err := json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// Closed waits until the server closes the socket and returns the close code,
// 1006 if there was no close frame.
func (c *Conn) Closed() int {
	c.t.Helper()
	return closeCode(c.awaitEnd())
}

// closeCode reads the code of a close frame off what ended a WebSocket.
func closeCode(err error) int {
	if e, ok := errors.AsType[*websocket.CloseError](err); ok {
		return e.Code
	}
	return websocket.CloseAbnormalClosure
}

// End waits until the server ends the socket and says how it did.
func (c *Conn) End() End {
	c.t.Helper()
	return End{Code: c.Closed()}
}

// Close ends the connection without a close frame.
func (c *Conn) Close() { _ = c.ws.Close() }
