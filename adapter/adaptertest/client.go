package adaptertest

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"
)

// A Transport is a way in which clients speak to a server.
type Transport string

// The transports.
const (
	Plain     Transport = "plain JSON"
	WebSocket Transport = "Socket.IO over WebSocket"
	Polling   Transport = "Socket.IO over polling"
)

// Transports lists all of them, for tests that hold for each.
var Transports = []Transport{Plain, WebSocket, Polling}

// A Way is where a client connects, and what with. Without a Transport it is
// Plain; all else may be left out.
type Way struct {
	Transport Transport
	Path      string      // Config.Path of the server; empty means "/socket.io/"
	Namespace string      // empty means "/"
	Query     url.Values  // of the handshake's URL
	Header    http.Header // of the handshake, and of each poll and post
	Auth      any         // what a Socket.IO client shows for its namespace; of no use to Plain
}

// A Client is a client's end of a socket, the same over every transport: a
// *Conn or a *SocketIO. Its methods fail the test when what they wait for does
// not come within ten seconds, and print what did.
type Client interface {
	// ID returns the socket's id, Socket.ID on the server.
	ID() string
	// Emit sends an event that wants no answer; nil data is none.
	Emit(event string, data any)
	// Call sends an event and waits for its reply; other frames stay.
	Call(event string, data any) Frame
	// Must is Call for what must succeed; the reply's data is stored in out
	// unless it is nil.
	Must(event string, data, out any)
	// Event waits for an event of the given name; other frames stay.
	Event(event string) Frame
	// Next waits for the next frame, of whatever kind.
	Next() Frame
	// Rest returns the frames that nobody has waited for.
	Rest() []Frame
	// End waits until the server ends the socket.
	End() End
	// Close is the network's end: the client goes without a goodbye.
	Close()
}

// An End is how the server has ended a socket, as its client sees it.
type End struct {
	// Disconnect says that it was Socket.IO's DISCONNECT packet, after which
	// clients do not connect again by themselves. Plain sockets have no such
	// packet.
	Disconnect bool
	// Code is the close code of the WebSocket, 1006 if it broke; 0 over
	// polling, where there is none.
	Code int
	// Status is what a poll was refused with, 0 if none was: 403 if the browser
	// does not have the cookie of the handshake any more, 400 if the connection
	// is over.
	Status int
}

// says reports whether a client of a transport that is ended on purpose is told
// so: with the close code, after which it comes back by itself or not.
func (e End) says(tr Transport, code int, comesBack bool) bool {
	switch tr {
	case Plain:
		return e == End{Code: code}
	case Polling:
		// A poll that sets out just then finds the cookie gone, or the connection.
		return e == End{Disconnect: !comesBack} || e.Status == http.StatusForbidden || e.Status == http.StatusBadRequest
	}
	return e == End{Code: code, Disconnect: !comesBack}
}

// wantCode waits for the end of a socket that is not to come back by itself.
func wantCode(t testing.TB, way Way, c Client, code int) {
	t.Helper()
	if end := c.End(); !end.says(way.Transport, code, false) {
		t.Errorf("the client was told %+v, want %d", end, code)
	}
}

// A Refusal is how a server keeps a client out.
type Refusal struct {
	Status  int    // of the handshake's answer; 0 if the namespace refused, which is CONNECT_ERROR in Socket.IO
	Code    string // adapter.Error's, where the body or packet is one
	Message string
}

// Connect opens a socket with the browser's cookies. It must be let in.
func (b *Browser) Connect(w Way) Client {
	b.t.Helper()
	c, refusal := b.TryConnect(w)
	if refusal != nil {
		b.t.Fatalf("connect, %s: refused: %+v", cmp.Or(w.Transport, Plain), *refusal)
	}
	return c
}

// TryConnect is Connect for sockets that may be refused.
func (b *Browser) TryConnect(w Way) (Client, *Refusal) {
	b.t.Helper()
	w.Path = cmp.Or(w.Path, "/socket.io/")
	if w.Transport == WebSocket || w.Transport == Polling {
		c, refusal := b.openSocketIO(w)
		if refusal != nil {
			return nil, refusal
		}
		return c, nil
	}
	query := url.Values{}
	if w.Namespace != "" {
		query.Set("nsp", w.Namespace)
	}
	c, resp, err := b.TryDial(w.Path+"ws?"+w.query(query), w.Header)
	if err != nil {
		return nil, b.refusal(resp, err)
	}
	f := c.Next()
	if f.Type != "connect" {
		if f.Error == nil {
			b.t.Fatalf("the first frame is %s, want connect", f)
		}
		return nil, &Refusal{Code: f.Error.Code, Message: f.Error.Message}
	}
	c.greeted(f)
	return c, nil
}

// query returns the query of the handshake: the protocol's own and the way's.
func (w Way) query(own url.Values) string {
	for k, vs := range w.Query {
		own[k] = vs
	}
	return own.Encode()
}

// refusal reads the answer to a handshake that was not let through.
func (b *Browser) refusal(resp *http.Response, err error) *Refusal {
	b.t.Helper()
	if resp == nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	r := &Refusal{Status: resp.StatusCode}
	r.read(body)
	return r
}

// read takes code and message from an adapter.Error; what is none is the message.
func (r *Refusal) read(body []byte) {
	var e struct{ Code, Message string }
	if json.Unmarshal(body, &e) != nil || e.Code == "" {
		e.Message = string(body)
	}
	r.Code, r.Message = e.Code, e.Message
}
