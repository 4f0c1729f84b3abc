package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/memstore"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
)

type gorillaOptions struct {
	users bool // only who has logged in
	lean  bool // everything that is known to save memory
}

// envelope is the wire format of package adapter, written by hand.
type envelope struct {
	Type string          `json:"type"`
	Data json.RawMessage `json:"data,omitempty"`
	ID   json.RawMessage `json:"id,omitempty"`
}

// writeWait is the deadline that gorilla's own examples set for each write.
const writeWait = 10 * time.Second

// A member is one connection.
type member struct {
	ws   *websocket.Conn
	user string

	mu sync.Mutex // gorilla supports one writer at a time
}

func (m *member) write(data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ws.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	return m.ws.WriteMessage(websocket.TextMessage, data)
}

func (m *member) writePrepared(p *websocket.PreparedMessage) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ws.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	return m.ws.WritePreparedMessage(p)
}

// A lobby is the room of a chat as it is usually written.
type lobby struct {
	lean bool

	mu      sync.RWMutex
	members map[*member]struct{}
}

func (l *lobby) join(m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members[m] = struct{}{}
}

func (l *lobby) leave(m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.members, m)
}

// say writes to everybody in turn. A member whose write fails is found by its
// own reader.
func (l *lobby) say(data []byte) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.lean {
		for m := range l.members {
			_ = m.write(data)
		}
		return nil
	}
	p, err := websocket.NewPreparedMessage(websocket.TextMessage, data)
	if err != nil {
		return err
	}
	for m := range l.members {
		_ = m.writePrepared(p)
	}
	return nil
}

// newGorilla serves WebSockets in a Gin route as people write it by hand.
func newGorilla(o gorillaOptions) http.Handler {
	r := newEngine()
	room := &lobby{lean: o.lean, members: make(map[*member]struct{})}
	var up websocket.Upgrader
	if o.lean {
		up.ReadBufferSize = 256
		up.WriteBufferPool = new(sync.Pool)
	}
	if o.users {
		r.Use(sessions.Sessions(cookieName, memstore.NewStore(sessionKey)))
		r.POST("/login/:user", func(c *gin.Context) {
			s := sessions.Default(c)
			// As much as the adapter's Login keeps: the cost of a session is that
			// of its values.
			s.Set("user", c.Param("user"))
			s.Set("provider", "bench")
			s.Set("at", strconv.FormatInt(time.Now().UnixNano(), 10))
			if err := s.Save(); err != nil {
				_ = c.AbortWithError(http.StatusInternalServerError, err)
				return
			}
			c.Status(http.StatusNoContent)
		})
	}
	r.GET("/ws", func(c *gin.Context) {
		m := new(member)
		if o.users {
			user, ok := sessions.Default(c).Get("user").(string)
			if !ok {
				c.AbortWithStatus(http.StatusUnauthorized)
				return
			}
			m.user = user
		}
		ws, err := up.Upgrade(c.Writer, c.Request, nil)
		if err != nil {
			return
		}
		m.ws = ws
		if o.lean {
			go m.serve(room)
			return
		}
		m.serve(room)
	})
	return r
}

// serve reads until the connection ends.
func (m *member) serve(room *lobby) {
	defer m.ws.Close()
	defer room.leave(m)
	for {
		_, data, err := m.ws.ReadMessage()
		if err != nil {
			return
		}
		if err := m.handle(room, data); err != nil {
			return
		}
	}
}

func (m *member) handle(room *lobby, data []byte) error {
	var in envelope
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	var n note
	if err := json.Unmarshal(in.Data, &n); err != nil {
		return err
	}
	encoded, err := json.Marshal(n)
	if err != nil {
		return err
	}
	out := envelope{Type: "reply", ID: in.ID, Data: encoded}
	switch in.Type {
	case "join":
		room.join(m)
	case "say":
		out.Type = "say"
	}
	message, err := json.Marshal(out)
	if err != nil {
		return err
	}
	if in.Type == "say" {
		return room.say(message)
	}
	return m.write(message)
}
