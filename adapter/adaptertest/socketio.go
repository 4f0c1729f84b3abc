package adaptertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gorilla/websocket"
)

// A SocketIO is a small client of Socket.IO: protocol 5 on Engine.IO 4, one
// namespace, text alone, over a WebSocket or over polling, without an upgrade.
// It takes no packet for granted that a real client would not.
type SocketIO struct {
	inbox
	way    Way
	http   *http.Client
	ws     *websocket.Conn // nil for one that polls
	url    string          // of polls
	cancel context.CancelFunc
	acks   atomic.Int64

	answered chan sioAnswer // to CONNECT
	id, pid  string         // set with answered

	state  sync.Mutex
	told   bool   // DISCONNECT has come
	status int    // of a poll that was refused
	offset string // of the last event, where there is recovery

	writing sync.Mutex // one writer, or POST, at a time
}

// A sioAnswer is what CONNECT was answered with: one of the two.
type sioAnswer struct{ granted, refused []byte }

// separator stands between the packets of a poll: Engine.IO 4, "Payload".
const separator = "\x1e"

// openSocketIO makes the handshake and asks for the namespace.
func (b *Browser) openSocketIO(w Way) (*SocketIO, *Refusal) {
	b.t.Helper()
	s := &SocketIO{
		inbox: newInbox(b.t), way: w, answered: make(chan sioAnswer, 1),
		// Polls are held for longer than pages take.
		http: &http.Client{Jar: b.HTTP.Jar, Transport: b.HTTP.Transport},
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	s.cancel = cancel
	open := s.handshakeWebSocket
	if w.Transport == Polling {
		open = s.handshakePolling
	}
	read, refusal := open(ctx, b)
	if refusal != nil {
		cancel()
		return nil, refusal
	}
	var reading sync.WaitGroup
	reading.Go(read)
	b.t.Cleanup(func() {
		s.Close()
		reading.Wait()
	})

	connect := "40" + s.namespace()
	if w.Auth != nil {
		auth, err := json.Marshal(w.Auth)
		if err != nil {
			b.t.Fatal(err)
		}
		connect += string(auth)
	}
	s.Raw(connect)
	select {
	case a := <-s.answered:
		if a.refused != nil {
			s.Close()
			return nil, connectError(b, a.refused)
		}
	case <-s.ended:
		b.t.Fatalf("the connection ended before CONNECT was answered: %v", s.err)
	case <-ctx.Done():
		b.t.Fatal(context.Cause(ctx))
	}
	return s, nil
}

// connectError reads a CONNECT_ERROR.
func connectError(b *Browser, packet []byte) *Refusal {
	b.t.Helper()
	var e struct {
		Message string
		Data    json.RawMessage
	}
	if err := json.Unmarshal(packet, &e); err != nil {
		b.t.Fatalf("CONNECT_ERROR %s: %v", packet, err)
	}
	r := &Refusal{}
	r.read(e.Data)
	r.Message = e.Message
	return r
}

// namespace is how packets name it: not at all if it is "/".
func (s *SocketIO) namespace() string {
	if s.way.Namespace == "" || s.way.Namespace == "/" {
		return ""
	}
	return s.way.Namespace + ","
}

func (s *SocketIO) handshakeWebSocket(ctx context.Context, b *Browser) (read func(), refusal *Refusal) {
	b.t.Helper()
	query := s.way.query(url.Values{"EIO": {"4"}, "transport": {"websocket"}})
	d := websocket.Dialer{Jar: b.HTTP.Jar, HandshakeTimeout: patience}
	ws, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(b.URL, "http")+s.way.Path+"?"+query, s.way.Header)
	if err != nil {
		return nil, b.refusal(resp, err)
	}
	s.ws = ws
	return s.readWebSocket, nil
}

func (s *SocketIO) readWebSocket() {
	for {
		kind, data, err := s.ws.ReadMessage()
		switch {
		case err != nil:
			s.end(err)
			return
		case kind != websocket.TextMessage:
			s.end(fmt.Errorf("expected text, got %d bytes", len(data)))
			return
		}
		if err := s.packet(string(data)); err != nil {
			s.end(err)
			return
		}
	}
}

func (s *SocketIO) handshakePolling(ctx context.Context, b *Browser) (read func(), refusal *Refusal) {
	b.t.Helper()
	s.url = b.URL + s.way.Path + "?" + s.way.query(url.Values{"EIO": {"4"}, "transport": {"polling"}})
	resp, body, err := s.do(ctx, http.MethodGet, "")
	if err != nil {
		b.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		r := &Refusal{Status: resp.StatusCode}
		r.read(body)
		return nil, r
	}
	first, rest, _ := strings.Cut(string(body), separator)
	var open struct{ SID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(first, "0")), &open); err != nil || open.SID == "" {
		b.t.Fatalf("the handshake was answered %q, want an open packet", body)
	}
	s.url += "&sid=" + url.QueryEscape(open.SID)
	return func() { s.readPolls(ctx, rest) }, nil
}

// readPolls polls until the server says that it is over.
func (s *SocketIO) readPolls(ctx context.Context, body string) {
	for {
		for packet := range strings.SplitSeq(body, separator) {
			if packet == "" {
				continue
			}
			if err := s.packet(packet); err != nil {
				s.end(err)
				return
			}
		}
		resp, data, err := s.do(ctx, http.MethodGet, "")
		if err == nil && resp.StatusCode != http.StatusOK {
			s.state.Lock()
			s.status = resp.StatusCode
			s.state.Unlock()
			err = fmt.Errorf("a poll was answered %s: %s", resp.Status, data)
		}
		if err != nil {
			s.end(err)
			return
		}
		body = string(data)
	}
}

// do polls, or posts if there is a body.
func (s *SocketIO) do(ctx context.Context, method, body string) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.url, strings.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	for k, vs := range s.way.Header {
		r.Header[k] = vs
	}
	if body != "" {
		r.Header.Set("Content-Type", "text/plain;charset=UTF-8")
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp, data, err
}

// errTold ends a client that polls and was told that its socket is over: all
// that could come is the end of the connection.
var errTold = errors.New("DISCONNECT")

// packet takes one packet of Engine.IO.
func (s *SocketIO) packet(p string) error {
	switch p[0] {
	case '0', '6': // open, whose sid only polls need; noop
		return nil
	case '1':
		return errors.New("the server closed the connection")
	case '2':
		return s.write("3" + p[1:])
	case '4':
		if len(p) > 1 {
			return s.message(p[1:])
		}
	}
	return fmt.Errorf("expected a packet of Engine.IO, got %q", p)
}

// message takes one packet of Socket.IO.
func (s *SocketIO) message(p string) error {
	kind, body := p[0], strings.TrimPrefix(p[1:], s.namespace())
	switch kind {
	case '0':
		var granted struct{ SID, PID string }
		if err := json.Unmarshal([]byte(body), &granted); err != nil {
			return fmt.Errorf("CONNECT was answered %q: %w", p, err)
		}
		s.id, s.pid = granted.SID, granted.PID
		s.answered <- sioAnswer{granted: []byte(body)}
	case '1':
		s.state.Lock()
		s.told = true
		s.state.Unlock()
		if s.ws == nil {
			return errTold
		}
	case '2', '3':
		return s.event(kind == '3', p, body)
	case '4':
		s.answered <- sioAnswer{refused: []byte(body)}
	default:
		return fmt.Errorf("expected a packet without attachments, got %q", p)
	}
	return nil
}

// event makes a frame of an event or an acknowledgement.
func (s *SocketIO) event(ack bool, raw, body string) error {
	start := strings.IndexByte(body, '[')
	var args []json.RawMessage
	if start < 0 || json.Unmarshal([]byte(body[start:]), &args) != nil || !ack && len(args) == 0 {
		return fmt.Errorf("expected an event or an acknowledgement, got %q", raw)
	}
	f := Frame{Type: "reply", ID: json.RawMessage(body[:start]), raw: raw}
	if !ack {
		if err := json.Unmarshal(args[0], &f.Type); err != nil {
			return fmt.Errorf("event %q: %w", raw, err)
		}
		args = args[1:]
		if n := len(args); s.pid != "" && n > 0 {
			// With recovery the last argument is the event's number.
			var offset string
			if json.Unmarshal(args[n-1], &offset) == nil {
				s.state.Lock()
				s.offset = offset
				s.state.Unlock()
				args = args[:n-1]
			}
		}
	}
	if len(args) > 0 {
		f.Data = args[0]
		if bytes.HasPrefix(f.Data, []byte(`{"error":`)) {
			// An error has no packet of its own.
			if err := json.Unmarshal(f.Data, &f); err != nil {
				return fmt.Errorf("error %q: %w", raw, err)
			}
		}
	}
	s.add(f)
	return nil
}

// ID returns the socket's id, Socket.ID on the server.
func (s *SocketIO) ID() string { return s.id }

// Recovery returns what a client that was cut off shows as Way.Auth to have its
// socket back: nil if the server has no recovery.
func (s *SocketIO) Recovery() any {
	if s.pid == "" {
		return nil
	}
	s.state.Lock()
	defer s.state.Unlock()
	auth := map[string]string{"pid": s.pid}
	if s.offset != "" {
		auth["offset"] = s.offset
	}
	return auth
}

// Raw sends one packet of Engine.IO as it is.
func (s *SocketIO) Raw(packet string) {
	s.t.Helper()
	if err := s.write(packet); err != nil {
		s.t.Fatalf("send %q: %v", packet, err)
	}
}

func (s *SocketIO) write(packet string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.ws != nil {
		return s.ws.WriteMessage(websocket.TextMessage, []byte(packet))
	}
	resp, body, err := s.do(s.t.Context(), http.MethodPost, packet)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the POST was answered %s: %s", resp.Status, body)
	}
	return err
}

// Emit sends an event that wants no acknowledgement.
func (s *SocketIO) Emit(event string, data any) {
	s.t.Helper()
	s.Raw("42" + s.namespace() + s.encode(event, data))
}

// Call sends an event and waits for its acknowledgement; other frames stay.
func (s *SocketIO) Call(event string, data any) Frame {
	s.t.Helper()
	id := strconv.FormatInt(s.acks.Add(1), 10)
	s.Raw("42" + s.namespace() + id + s.encode(event, data))
	return s.wait(fmt.Sprintf("the acknowledgement of %q", event), func(f Frame) bool { return f.Type == "reply" && string(f.ID) == id })
}

// Must is Call for what must succeed; the first argument of the acknowledgement
// is stored in out unless it is nil.
func (s *SocketIO) Must(event string, data, out any) {
	s.t.Helper()
	s.must(event, s.Call(event, data), out)
}

func (s *SocketIO) encode(event string, data any) string {
	s.t.Helper()
	args := []any{event}
	if data != nil {
		args = append(args, data)
	}
	b, err := json.Marshal(args)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// End waits until the server ends the socket, and over a WebSocket for the end
// of the connection, which comes a second after the DISCONNECT packet.
func (s *SocketIO) End() End {
	s.t.Helper()
	err := s.awaitEnd()
	s.state.Lock()
	defer s.state.Unlock()
	end := End{Disconnect: s.told, Status: s.status}
	if s.ws != nil {
		end.Code = closeCode(err)
	}
	return end
}

// Close ends the connection without a goodbye. A server does not notice that a
// client has stopped to poll until it misses the answer to a ping.
func (s *SocketIO) Close() {
	s.cancel()
	if s.ws != nil {
		_ = s.ws.Close()
	}
}
