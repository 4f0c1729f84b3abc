package adapter_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// eio3 lets clients of Socket.IO 2 in.
var eio3 = adapter.Config{AllowEIO3: true}

// transports2 runs a test over each way a client of Socket.IO 2 connects.
func transports2(t *testing.T, test func(t *testing.T, transport string, options map[string]any)) {
	for _, transport := range []string{"polling 2.x", "websocket 2.x", "upgrade 2.x"} {
		t.Run(transport, func(t *testing.T) { test(t, transport, nil) })
	}
	// On Node.js the client asks for base64, in browsers it does not.
	t.Run("polling 2.x in a browser", func(t *testing.T) { test(t, "polling 2.x", map[string]any{"browser": true}) })
}

// bytesOf is how the driver is told of bytes.
func TestSocketIO2KnowsTheUser(t *testing.T) {
	transports2(t, func(t *testing.T, transport string, options map[string]any) {
		n := startNode(t)
		reasons := make(chan adapter.Reason, 1)
		s := adaptertest.NewSite(t, eio3, newMemstore(t), func(s *adaptertest.Site) {
			s.Server.OnDisconnect(func(_ *adapter.Socket, r adapter.Reason) { reasons <- r })
		})
		alice := s.NewBrowser(t, "alice")
		c := n.open("alice", alice, "/", transport, options)
		c.await("connect")
		if got := c.call("me"); got != `["alice"]` {
			t.Errorf("me = %s, want alice", got)
		}
		if strings.HasPrefix(transport, "upgrade") {
			c.upgraded()
			if got := c.call("me"); got != `["alice"]` {
				t.Errorf("me after the upgrade = %s, want alice", got)
			}
		}
		alice.MustPost("/logout")
		if l := c.await("disconnect"); l.Reason != "io server disconnect" {
			t.Errorf("disconnect %s", l)
		}
		if r := <-reasons; r != adapter.ReasonSessionEnded {
			t.Errorf("the server says %q", r)
		}
	})
}

func TestSocketIO2RefusesNobody(t *testing.T) {
	transports2(t, func(t *testing.T, transport string, options map[string]any) {
		n := startNode(t)
		s := adaptertest.NewSite(t, eio3, newMemstore(t), nil)
		l := n.open("nobody", s.NewBrowser(t, ""), "/", transport, options).await("connect_error")
		if l.Message != "log in first" || string(l.Data) != `{"code":"unauthenticated","message":"log in first"}` {
			t.Errorf("error %s", l)
		}
	})
}

func TestSocketIO2EventsAndAcks(t *testing.T) {
	transports2(t, func(t *testing.T, transport string, options map[string]any) {
		n := startNode(t)
		s := openSite(t, eio3, func(srv *adapter.Server) {
			adapter.On(srv, "fail", func(context.Context, *adapter.Socket, any) error {
				return &adapter.Error{Code: "no", Message: "not today"}
			})
			adapter.Handle(srv, "ask me", func(ctx context.Context, sock *adapter.Socket, in any) (string, error) {
				return adapter.Call[string](ctx, sock, "what", in)
			})
		})
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, options)
		c.await("connect")
		for _, value := range []string{`"text"`, `{"a":[1,2,{"b":null}]}`, `""`, `"é 😀 ,/"`, `true`, `[]`} {
			var v any
			unmarshal(t, value, &v)
			if got := c.call("echo", v); got != "["+value+"]" {
				t.Errorf("echo %s = %s", value, got)
			}
		}
		if got := c.call("fail", 1); got != `[{"error":{"code":"no","message":"not today"}}]` {
			t.Errorf("fail = %s", got)
		}
		c.emit("fail", 1)
		if l := c.event("error"); string(l.Args[0]) != `{"error":{"code":"no","message":"not today"},"event":"fail"}` {
			t.Errorf("error = %s", l)
		}
		if got := c.call("ask me", "why"); got != `["ack of what"]` {
			t.Errorf("the client's acknowledgement = %s", got)
		}
		if strings.HasPrefix(transport, "upgrade") {
			c.upgraded()
			if got := c.call("echo", "é 😀"); got != `["é 😀"]` {
				t.Errorf("echo after the upgrade = %s", got)
			}
		}
	})
}

func TestSocketIO2Binary(t *testing.T) {
	transports2(t, func(t *testing.T, transport string, options map[string]any) {
		n := startNode(t)
		type file struct {
			Name string `json:"name"`
			Data []byte `json:"data"`
		}
		got := make(chan file, 1)
		var framed atomic.Int32
		s := adaptertest.NewSite(t, eio3, newMemstore(t), func(s *adaptertest.Site) {
			s.Engine.Use(func(c *gin.Context) {
				c.Next()
				if c.ContentType() == "application/octet-stream" || c.Writer.Header().Get("Content-Type") == "application/octet-stream" {
					framed.Add(1)
				}
			})
			s.Server.AllowAnonymous()
			adapter.Handle(s.Server, "echo", func(_ context.Context, _ *adapter.Socket, in any) (any, error) { return in, nil })
			adapter.On(s.Server, "put", func(_ context.Context, sock *adapter.Socket, in file) error {
				got <- in
				return sock.Emit("é 😀", map[string]any{"deep": []any{in.Data, "and", []byte{}}}, in.Name)
			})
		})
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, options)
		c.await("connect")
		rounds := 1
		if strings.HasPrefix(transport, "upgrade") {
			rounds = 2
		}
		for range rounds {
			c.emit("put", map[string]any{"name": "x é 😀", "data": bytesOf(1, 2, 3, 255)})
			if f := <-got; f.Name != "x é 😀" || string(f.Data) != "\x01\x02\x03\xff" {
				t.Errorf("put %+v", f)
			}
			if l := c.event("é 😀"); fmt.Sprintf("%s", l.Args) != `[{"deep":[{"$bytes":"AQID/w=="},"and",{"$bytes":""}]} "x é 😀"]` {
				t.Errorf("event %s", l)
			}
			if got := c.call("echo", map[string]any{"a": []any{bytesOf(1), bytesOf(2, 3)}}); got != `[{"a":[{"$bytes":"AQ=="},{"$bytes":"AgM="}]}]` {
				t.Errorf("echo = %s", got)
			}
			if strings.HasPrefix(transport, "upgrade") {
				c.upgraded()
			}
		}
		// Two POSTs and two answers, if not more, or base64 throughout. An answer is
		// counted when it is written, which may be after the client has read it.
		if options != nil {
			await(t, "four bodies are in the binary framing", func() bool { return framed.Load() >= 4 })
		} else if n := framed.Load(); n >= 4 {
			t.Errorf("%d bodies were in the binary framing", n)
		}
	})
}

// TestSocketIO2Namespaces: "/" is there unasked, others by name and query.
func TestSocketIO2Namespaces(t *testing.T) {
	transports2(t, func(t *testing.T, transport string, options map[string]any) {
		n := startNode(t)
		s := openSite(t, eio3, func(srv *adapter.Server) {
			admin := srv.Of("/admin").AllowAnonymous().Require(func(_ context.Context, sock *adapter.Socket) error {
				if sock.Query().Get("token") != "let me in" {
					return &adapter.Error{Code: "forbidden", Message: "a token, please"}
				}
				return nil
			})
			adapter.Handle(admin, "query", func(_ context.Context, sock *adapter.Socket, _ any) (any, error) {
				q := sock.Query()
				return []string{q.Get("token"), q.Get("page"), q.Get("both")}, nil
			})
		})
		for name, joins := range map[string][]struct{ nsp, query, want string }{
			"stranger": {{"/nowhere", "", "Invalid namespace"}, {"/lost", "token=x", "Invalid namespace"}, {"/admin", "token=wrong", "a token, please"}},
			"friend":   {{"/admin", "token=let%20me%20in&both=namespace", ""}},
		} {
			n.open(name, s.NewBrowser(t, ""), "/?page=7&both=url", transport, options).await("connect")
			for _, tt := range joins {
				c := &client{n, name + tt.nsp}
				n.do(map[string]any{"do": "join", "name": name, "as": c.name, "nsp": tt.nsp, "query": tt.query})
				if tt.want == "" {
					c.await("connect")
					if got := c.call("query"); got != `[["let me in","7","namespace"]]` {
						t.Errorf("query = %s", got)
					}
				} else if l := c.await("connect_error"); l.Message != tt.want {
					t.Errorf("error of %s: %s, want %s", tt.nsp, l, tt.want)
				}
			}
		}
		// The server connects this client to "/" too, and it does not mind.
		c := n.open("admin", s.NewBrowser(t, ""), "/admin?token=let%20me%20in", transport, options)
		c.await("connect")
		if got := c.call("query"); got != `[["let me in","",""]]` {
			t.Errorf("query = %s", got)
		}
	})
}

func TestSocketIO2Disconnects(t *testing.T) {
	transports2(t, func(t *testing.T, transport string, options map[string]any) {
		n := startNode(t)
		reasons := make(chan adapter.Reason, 1)
		s := openSite(t, eio3, func(srv *adapter.Server) {
			srv.OnDisconnect(func(_ *adapter.Socket, r adapter.Reason) { reasons <- r })
			adapter.On(srv, "go", func(_ context.Context, sock *adapter.Socket, _ any) error { return sock.Disconnect() })
		})
		for _, tt := range []struct {
			do     func(*client)
			client string
			server adapter.Reason
		}{
			{func(c *client) { c.do(map[string]any{"do": "close", "name": c.name}) }, "io client disconnect", adapter.ReasonClient},
			{func(c *client) { c.emit("go") }, "io server disconnect", adapter.ReasonServer},
			{func(*client) { _ = s.Server.Shutdown(t.Context()) }, "transport close", adapter.ReasonShutdown},
		} {
			c := n.open(tt.client, s.NewBrowser(t, ""), "/", transport, options)
			c.await("connect")
			if strings.HasPrefix(transport, "upgrade") {
				c.upgraded()
			}
			tt.do(c)
			if l := c.await("disconnect"); l.Reason != tt.client {
				t.Errorf("disconnect %s, want %s", l, tt.client)
			}
			if r := <-reasons; r != tt.server {
				t.Errorf("the server says %q, want %q", r, tt.server)
			}
		}
	})
}

// TestSocketIO2SharesRooms: one broadcast, with bytes, to clients of each kind.
func TestSocketIO2SharesRooms(t *testing.T) {
	n := startNode(t)
	s := openSite(t, eio3, func(srv *adapter.Server) {
		adapter.On(srv, "say", func(_ context.Context, _ *adapter.Socket, in text) error {
			return srv.To(in.Room).Emit("said", map[string]any{"text": in.Text, "bytes": []byte(in.Text)})
		})
	})
	var clients []*client
	for _, transport := range []string{"polling 2.x", "websocket 2.x", "upgrade 2.x", "polling", "websocket", "upgrade"} {
		c := n.open(transport, s.NewBrowser(t, ""), "/", transport, nil)
		if got := c.call("join", text{Room: "red"}); got != `[]` {
			t.Fatalf("join = %s", got)
		}
		clients = append(clients, c)
	}
	browser := n.open("browser", s.NewBrowser(t, ""), "/", "polling 2.x", map[string]any{"browser": true})
	browser.call("join", text{Room: "red"})
	clients = append(clients, browser)
	plain := s.NewBrowser(t, "").Dial(ws)
	plain.Must("join", text{Room: "red"}, nil)
	for _, from := range clients {
		from.emit("say", text{"red", from.name})
		want := fmt.Sprintf(`{"bytes":%q,"text":%q}`, base64.StdEncoding.EncodeToString([]byte(from.name)), from.name)
		if f := plain.Event("said"); string(f.Data) != want {
			t.Errorf("plain got %s, want %s", f, want)
		}
		var said struct {
			Text  string `json:"text"`
			Bytes struct {
				Base64 []byte `json:"$bytes"`
			} `json:"bytes"`
		}
		for _, c := range clients {
			unmarshal(t, string(c.event("said").Args[0]), &said)
			if said.Text != from.name || string(said.Bytes.Base64) != from.name {
				t.Errorf("%s got %+v from %s", c.name, said, from.name)
			}
		}
	}
}

// TestSocketIO2Order: numbered messages arrive once and in order while the
// client moves to its WebSocket, and so do the answers.
func TestSocketIO2Order(t *testing.T) {
	const count = 2_500
	n := startNode(t)
	next := map[string]*atomic.Int64{}
	s := openSite(t, adapter.Config{AllowEIO3: true, SendBuffer: 64 << 20}, func(srv *adapter.Server) {
		adapter.On(srv, "n", func(_ context.Context, sock *adapter.Socket, i int64) error {
			if who := sock.Query().Get("name"); !next[who].CompareAndSwap(i, i+1) {
				t.Errorf("%s: %d instead of %d", who, i, next[who].Load())
			}
			return sock.Emit("back", i)
		})
	})
	var clients []*client
	for _, transport := range []string{"polling 2.x", "websocket 2.x", "upgrade 2.x"} {
		name, _, _ := strings.Cut(transport, " ")
		next[name] = new(atomic.Int64)
		c := n.open(name, s.NewBrowser(t, ""), "/", transport, map[string]any{"query": map[string]string{"name": name}})
		until := "websocket"
		if name == "polling" {
			until = "polling"
		}
		n.do(map[string]any{"do": "count", "name": name, "event": "back", "count": count})
		n.do(map[string]any{"do": "trickle", "name": name, "event": "n", "count": count, "until": until})
		clients = append(clients, c)
	}
	for _, c := range clients {
		if l := c.await("counted"); l.Message != "" || fmt.Sprintf("%s", l.Args) != fmt.Sprintf("[%d]", count) {
			t.Errorf("%s: %s", c.name, l)
		}
	}
}

// TestSocketIO2IsRefusedByDefault, and the server says why.
func TestSocketIO2IsRefusedByDefault(t *testing.T) {
	transports2(t, func(t *testing.T, transport string, options map[string]any) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, nil)
		l := n.open("c", s.NewBrowser(t, ""), "/", transport, options).await("connect_error")
		if !strings.HasPrefix(transport, "websocket") && l.Context != http.StatusBadRequest {
			t.Errorf("connect_error %s, want status 400", l)
		}
	})
	s := openSite(t, adapter.Config{}, nil)
	for _, query := range []string{"", "&j=0", "&b64=1", "&sid=x"} {
		status, body, _ := engineDo(t, s.NewBrowser(t, ""), "GET", eio3Path+query, "", nil)
		if status != http.StatusBadRequest || body != `{"code":5,"message":"Unsupported protocol version"}` {
			t.Errorf("EIO=3%s: %d %s", query, status, body)
		}
	}
}

const eio3Path = "/socket.io/?EIO=3&transport=polling"

// eio3Open opens a session by polling and takes the packet that connects it.
func eio3Open(t *testing.T, b *adaptertest.Browser, query string) (sid string) {
	t.Helper()
	_, body, h := engineDo(t, b, "GET", eio3Path+query, "", nil)
	length, packet, _ := strings.Cut(body, ":")
	if length != fmt.Sprint(len(packet)) || h.Get("Content-Type") != "text/plain; charset=UTF-8" {
		t.Fatalf("handshake: %s as %s", body, h.Get("Content-Type"))
	}
	var open struct {
		SID string `json:"sid"`
	}
	unmarshal(t, strings.TrimPrefix(packet, "0"), &open)
	want := fmt.Sprintf(`0{"sid":%q,"upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}`, open.SID)
	if packet != want {
		t.Fatalf("handshake: %s, want %s", packet, want)
	}
	if _, body, _ := engineDo(t, b, "GET", eio3Path+"&sid="+open.SID, "", nil); body != "2:40" {
		t.Fatalf("connecting: %q", body)
	}
	return open.SID
}

func TestEngineIO3OnTheWire(t *testing.T) {
	s := openSite(t, eio3, func(srv *adapter.Server) {
		adapter.Handle(srv, "bytes", func(_ context.Context, _ *adapter.Socket, in []byte) ([]byte, error) {
			slices.Reverse(in)
			return in, nil
		})
	})
	b := s.NewBrowser(t, "")
	text, octets := "text/plain; charset=UTF-8", "application/octet-stream"
	// 51-0["bytes",{…}] with one attachment, and its answer.
	event := `451-0["bytes",{"_placeholder":true,"num":0}]`
	answer := `461-0[{"_placeholder":true,"num":0}]`
	framed := func(parts ...string) string {
		var out []byte
		for _, p := range parts {
			out = append(out, p[0]) // 0 for text, 1 for bytes
			for _, c := range fmt.Sprint(len(p) - 1) {
				out = append(out, byte(c-'0'))
			}
			out = append(append(out, 255), p[1:]...)
		}
		return string(out)
	}
	for _, tt := range []struct {
		name, query, kind, body, wantKind, want string
	}{
		{"text", "", text, `17:420["echo","é😀"]`, text, `10:430["é😀"]`},
		{"ping", "", text, "6:2probe1:2", text, "6:3probe1:3"},
		{"framed text", "", octets, framed("\x00" + `420["echo","é😀"]`), text, `10:430["é😀"]`},
		{"bytes", "", octets, framed("\x00"+event, "\x01\x04\x01\x02\xff"), octets, framed("\x00"+answer, "\x01\x04\xff\x02\x01")},
		{"base64", "", text, fmt.Sprintf("%d:%s6:b4AQL/", len(event), event), octets, framed("\x00"+answer, "\x01\x04\xff\x02\x01")},
		{"b64", "&b64=1", text, fmt.Sprintf("%d:%s6:b4AQL/", len(event), event), text, fmt.Sprintf("%d:%s6:b4/wIB", len(answer), answer)},
		{"b64 and bytes", "&b64=1", octets, framed("\x00"+event, "\x01\x04\x01\x02\xff"), text, fmt.Sprintf("%d:%s6:b4/wIB", len(answer), answer)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sid := eio3Open(t, b, tt.query)
			status, body, _ := engineDo(t, b, "POST", eio3Path+"&sid="+sid, tt.body, http.Header{"Content-Type": {tt.kind}})
			if status != http.StatusOK || body != "ok" {
				t.Fatalf("POST %q: %d %s", tt.body, status, body)
			}
			got, kind := "", ""
			for len(got) < len(tt.want) {
				_, body, h := engineDo(t, b, "GET", eio3Path+"&sid="+sid, "", nil)
				got, kind = got+body, h.Get("Content-Type")
			}
			if got != tt.want || kind != tt.wantKind {
				t.Errorf("the poll got %q as %s, want %q as %s", got, kind, tt.want, tt.wantKind)
			}
		})
	}
}

func TestEngineIO3Errors(t *testing.T) {
	s := openSite(t, adapter.Config{AllowEIO3: true, Logger: slog.New(slog.DiscardHandler)}, nil)
	b := s.NewBrowser(t, "")
	sid := eio3Open(t, b, "")
	jsonp := `{"code":3,"message":"JSONP is not spoken here: use polling by XMLHttpRequest, or WebSocket"}`
	for _, tt := range []struct{ method, path, body string }{
		{"GET", eio3Path + "&j=0", jsonp},
		{"GET", eio3Path + "&j=1&sid=" + sid, jsonp},
		{"POST", eio3Path + "&j=2&sid=" + sid, jsonp},
		{"GET", "/socket.io/?EIO=2&transport=polling", `{"code":5,"message":"Unsupported protocol version"}`},
		{"GET", enginePath + "&sid=" + sid, `{"code":3,"message":"expected EIO=3, as in the handshake"}`},
		{"GET", eio3Path + "&sid=" + engineOpen(t, b), `{"code":3,"message":"expected EIO=4, as in the handshake"}`},
		{"GET", eio3Path + "&sid=nobody", `{"code":1,"message":"Session ID unknown"}`},
	} {
		if status, body, _ := engineDo(t, b, tt.method, tt.path, "", nil); status != http.StatusBadRequest || body != tt.body {
			t.Errorf("%s %s: %d %s, want 400 %s", tt.method, tt.path, status, body, tt.body)
		}
	}
	octets := http.Header{"Content-Type": {"application/octet-stream"}}
	for _, tt := range []struct {
		body   string
		header http.Header
	}{
		{"", nil}, {"4", nil}, {"1:", nil}, {"9:4", nil}, {"1:9", nil}, {`5:42["x"]`, nil}, {"1:3", nil},
		{"4:b3AQ", nil}, {"x", octets}, {"\x00\x01\xff9", octets}, {"\x01\x01\xff\x09", octets}, {"\x01\x01\xff\x02", octets},
		{"\x01\x02\xff\x04x", octets}, // an attachment of nothing
	} {
		sid := eio3Open(t, b, "")
		_, _, _ = engineDo(t, b, "POST", eio3Path+"&sid="+sid, tt.body, tt.header)
		if _, answer, _ := engineDo(t, b, "GET", eio3Path+"&sid="+sid, "", nil); answer != unknownSession {
			t.Errorf("after the POST %q the poll was answered %q, want the session to be closed", tt.body, answer)
		}
	}
}

func TestEngineIO3WebSocket(t *testing.T) {
	s := openSite(t, eio3, nil)
	b := s.NewBrowser(t, "")
	d := websocket.Dialer{Jar: b.HTTP.Jar}
	url := "ws" + strings.TrimPrefix(b.URL, "http") + "/socket.io/?EIO=3&transport=websocket"
	event := `451-0["echo",{"_placeholder":true,"num":0}]`
	for name, bytes := range map[string]struct {
		query   string
		kind    int
		in, out string
	}{
		"bytes":                  {"", websocket.BinaryMessage, "\x04\x01\xff", "\x04\x01\xff"},
		"base64 from the client": {"", websocket.TextMessage, "b4Af8=", "\x04\x01\xff"},
		"base64 for the client":  {"&b64=1", websocket.BinaryMessage, "\x04\x01\xff", "b4Af8="},
	} {
		ws, _, err := d.DialContext(t.Context(), url+bytes.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := wsRead(t, ws); !strings.HasPrefix(got, `0{"sid":"`) || !strings.Contains(got, `"upgrades":[],`) {
			t.Errorf("%s: open %s", name, got)
		}
		if got := wsRead(t, ws); got != "40" {
			t.Errorf("%s: connecting %q", name, got)
		}
		wsWrite(t, ws, "2", event)
		if err := ws.WriteMessage(bytes.kind, []byte(bytes.in)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"3", `461-0[{"_placeholder":true,"num":0}]`, bytes.out} {
			if got := wsRead(t, ws); got != want {
				t.Errorf("%s: read %q, want %q", name, got, want)
			}
		}
		// The server pings in protocol 4; here that is the client's part.
		wsWrite(t, ws, "3")
		if code, text := wsClosed(t, ws); code != websocket.ClosePolicyViolation || text != "unexpected packet pong" {
			t.Errorf("%s: closed with %d %q", name, code, text)
		}
	}
}

// TestP20SidAloneIsNoCredentialInEIO3: protocol 3 has no rules of its own.
func TestP20SidAloneIsNoCredentialInEIO3(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{AllowEIO3: true, Logger: slog.New(slog.DiscardHandler)}, newMemstore(t), nil)
	alice := s.NewBrowser(t, "alice")
	sid := eio3Open(t, alice, "")
	for name, thief := range map[string]*adaptertest.Browser{"nobody": s.NewBrowser(t, ""), "mallory": s.NewBrowser(t, "mallory")} {
		for _, method := range []string{"GET", "POST"} {
			for _, path := range []string{eio3Path, enginePath} {
				if status, body, _ := engineDo(t, thief, method, path+"&sid="+sid, `7:42["me"]`, nil); status != http.StatusForbidden {
					t.Errorf("%s %s by %s: %d %s, want 403", method, path, name, status, body)
				}
			}
		}
	}
	foreign := http.Header{"Origin": {"https://evil.example"}}
	if status, body, _ := engineDo(t, alice, "GET", eio3Path, "", foreign); status != http.StatusForbidden {
		t.Errorf("a handshake from a foreign origin: %d %s", status, body)
	}
	if status, _, _ := engineDo(t, alice, "POST", eio3Path+"&sid="+sid, `9:420["me"]`, nil); status != http.StatusOK {
		t.Errorf("alice's own POST: %d", status)
	}
	if _, body, _ := engineDo(t, alice, "GET", eio3Path+"&sid="+sid, "", nil); body != `12:430["alice"]` {
		t.Errorf("alice got %s", body)
	}
}
