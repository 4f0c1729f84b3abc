package adapter_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// withMessagePack are the options of a client.
var withMessagePack = map[string]any{"parser": "socket.io-msgpack-parser"}

// js is what the client makes of an expression, for what JSON lacks.
func js(expression string) map[string]string { return map[string]string{"$js": expression} }

func bytesOf(b ...byte) map[string]string {
	return map[string]string{"$bytes": base64.StdEncoding.EncodeToString(b)}
}

func TestMessagePack(t *testing.T) {
	type file struct {
		Name string `json:"name"`
		Data []byte `json:"data"`
	}
	type numbers struct {
		Signed   int64   `json:"signed"`
		Unsigned uint64  `json:"unsigned"`
		Float    float64 `json:"float"`
		Nothing  any     `json:"nothing"`
	}
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		gone := make(chan adapter.Reason, 10)
		s := openSite(t, adapter.Config{Parser: adapter.MessagePack}, func(srv *adapter.Server) {
			srv.OnDisconnect(func(_ *adapter.Socket, r adapter.Reason) { gone <- r })
			adapter.On(srv, "fail", func(context.Context, *adapter.Socket, any) error {
				return &adapter.Error{Code: "no", Message: "not today"}
			})
			adapter.On(srv, "shout", func(_ context.Context, _ *adapter.Socket, in any) error {
				return srv.Emit("shouted", in, 2, []byte{1, 2, 3})
			})
			adapter.Handle(srv, "reverse", func(_ context.Context, _ *adapter.Socket, in file) (file, error) {
				slices.Reverse(in.Data)
				return in, nil
			})
			adapter.Handle(srv, "numbers", func(_ context.Context, _ *adapter.Socket, in numbers) (string, error) {
				return fmt.Sprintf("%+v", in), nil
			})
			adapter.Handle(srv, "large", func(context.Context, *adapter.Socket, any) ([]any, error) {
				return []any{1<<53 - 1, -1<<53 + 1, int64(math.MinInt64), uint64(1 << 63), 0.1, -1e300}, nil
			})
			adapter.Handle(srv, "tomorrow", func(_ context.Context, _ *adapter.Socket, in time.Time) (time.Time, error) {
				return in.AddDate(0, 0, 1), nil
			})
			adapter.Handle(srv, "ask back", func(ctx context.Context, sock *adapter.Socket, in any) (string, error) {
				return adapter.Call[string](ctx, sock, "question", in)
			})
			adapter.On(srv, "leave me", func(_ context.Context, sock *adapter.Socket, _ any) error {
				sock.Disconnect()
				return nil
			})
			vip := srv.Of("/vip").AllowAnonymous()
			vip.OnConnect(func(context.Context, *adapter.Socket) error {
				return &adapter.Error{Code: "full", Message: "come back later", Data: map[string]any{"in": 5}}
			})
			adapter.Handle(srv.Of("/chat").AllowAnonymous(), "where", func(_ context.Context, sock *adapter.Socket, _ any) (string, error) {
				return sock.Namespace().Name(), nil
			})
		})
		b := s.NewBrowser(t, "")
		c := n.open("c", b, "/", transport, withMessagePack)
		c.await("connect")
		for range 2 { // before and after the upgrade
			for _, value := range []string{`"text"`, `{"a":[1,-2.5,{"b":null}],"":true}`, `""`, `"é 😀 ,/\u0001\"\\ <&>"`, `true`, `[]`, `{}`, `[9007199254740991,-9007199254740991]`} {
				var v any
				unmarshal(t, value, &v)
				if got := c.call("echo", v); !sameJSON(t, got, "["+value+"]") {
					t.Errorf("echo %s = %s", value, got)
				}
			}
			if got := c.call("echo", map[string]any{"deep": []any{bytesOf(1), "and", bytesOf(2, 3)}, "buffer": js("new Uint8Array([4, 5]).buffer")}); !sameJSON(t, got, `[{"deep":[{"$bytes":"AQ=="},"and",{"$bytes":"AgM="}],"buffer":{"$bytes":"BAU="}}]`) {
				t.Errorf("echo = %s", got)
			}
			if got := c.call("reverse", map[string]any{"name": "x", "data": bytesOf(1, 2, 3)}); got != `[{"name":"x","data":{"$bytes":"AwIB"}}]` {
				t.Errorf("reverse = %s", got)
			}
			if strings.HasPrefix(transport, "upgrade") {
				c.upgraded()
			}
		}
		for _, tt := range []struct {
			event string
			in    any
			want  string
		}{
			{"fail", 1, `[{"error":{"code":"no","message":"not today"}}]`},
			{"numbers", js("{signed: -9007199254740991, unsigned: 2 ** 63, float: 1e-7, nothing: NaN}"), `["{Signed:-9007199254740991 Unsigned:9223372036854775808 Float:1e-07 Nothing:<nil>}"]`},
			{"large", nil, `[[9007199254740991,-9007199254740991,-9223372036854775808,9223372036854775808,0.1,-1e+300]]`},
			{"tomorrow", js("new Date(1e12)"), `["2001-09-10T01:46:40Z"]`},
			{"echo", js("[undefined, Infinity, {a: undefined, b: new Date(0)}]"), `[[null,null,{"b":"1970-01-01T00:00:00.000Z"}]]`},
			{"echo", js("({_placeholder: true, num: 0})"), `[{"_placeholder":true,"num":0}]`},
			{"ask back", "why?", `["ack of question"]`},
		} {
			if got := c.call(tt.event, tt.in); !sameJSON(t, got, tt.want) {
				t.Errorf("%s %v = %s, want %s", tt.event, tt.in, got, tt.want)
			}
		}
		if l := c.event("question"); fmt.Sprintf("%s", l.Args) != `["why?"]` {
			t.Errorf("question = %s", l)
		}
		c.emit("fail", 1)
		if l := c.event("error"); string(l.Args[0]) != `{"error":{"code":"no","message":"not today"},"event":"fail"}` {
			t.Errorf("error = %s", l)
		}
		c.emit("shout", "hello")
		if l := c.event("shouted"); fmt.Sprintf("%s", l.Args) != `["hello" 2 {"$bytes":"AQID"}]` {
			t.Errorf("shouted = %s", l)
		}

		for nsp, want := range map[string]string{
			"/nowhere": `"message":"Invalid namespace"`,
			"/vip":     `"message":"come back later","data":{"code":"full","message":"come back later","data":{"in":5}}`,
		} {
			n.do(map[string]any{"do": "join", "name": "c", "as": nsp, "nsp": nsp})
			if l := (&client{n, nsp}).await("connect_error"); !strings.Contains(l.raw, want) {
				t.Errorf("connect_error of %s: %s, want %s", nsp, l, want)
			}
		}
		n.do(map[string]any{"do": "join", "name": "c", "as": "/chat", "nsp": "/chat", "auth": map[string]any{"token": "é"}})
		chat := &client{n, "/chat"}
		chat.await("connect")
		if got := chat.call("where", nil); got != `["/chat"]` {
			t.Errorf("where = %s", got)
		}
		if err := s.Server.Of("/chat").Emit("news", 1); err != nil {
			t.Fatal(err)
		}
		chat.event("news")
		n.do(map[string]any{"do": "close", "name": "/chat"})
		if l := chat.await("disconnect"); l.Reason != "io client disconnect" {
			t.Errorf("disconnect of /chat: %s", l)
		}

		c.emit("leave me")
		if l := c.await("disconnect"); l.Reason != "io server disconnect" {
			t.Errorf("disconnect %s", l)
		}
		if r := <-gone; r != adapter.ReasonServer {
			t.Errorf("the server's reason is %q", r)
		}
		d := n.open("d", b, "/", transport, withMessagePack)
		d.await("connect")
		n.do(map[string]any{"do": "close", "name": "d"})
		if r := <-gone; r != adapter.ReasonClient {
			t.Errorf("the server's reason is %q", r)
		}
	})
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	unmarshal(t, a, &x)
	unmarshal(t, b, &y)
	return fmt.Sprintf("%#v", x) == fmt.Sprintf("%#v", y)
}

// A counted value counts how often it is encoded.
type countedValue struct{ times *atomic.Int64 }

func (v countedValue) MarshalJSON() ([]byte, error) {
	v.times.Add(1)
	return []byte(`"counted"`), nil
}

// Clients of either transport share what is encoded once, and a room with plain
// WebSockets.
func TestMessagePackBroadcast(t *testing.T) {
	n := startNode(t)
	s := openSite(t, adapter.Config{Parser: adapter.MessagePack}, nil)
	var clients []*client
	for _, transport := range []string{"polling", "websocket", "upgrade", "websocket 3.x"} {
		c := n.open(transport, s.NewBrowser(t, ""), "/", transport, withMessagePack)
		c.call("join", text{Room: "red"})
		clients = append(clients, c)
	}
	var times atomic.Int64
	if err := s.Server.To("red").Emit("said", countedValue{&times}, []byte{1}); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if l := c.event("said"); fmt.Sprintf("%s", l.Args) != `["counted" {"$bytes":"AQ=="}]` {
			t.Errorf("%s", l)
		}
	}
	if got := times.Load(); got != 1 {
		t.Errorf("it was encoded %d times", got)
	}
	plain := s.NewBrowser(t, "").Dial(ws)
	plain.Must("join", text{Room: "red"}, nil)
	if err := s.Server.To("red").Emit("said", "to all"); err != nil {
		t.Fatal(err)
	}
	if f := plain.Event("said"); string(f.Data) != `"to all"` {
		t.Errorf("%s", f)
	}
	for _, c := range clients {
		if l := c.event("said"); fmt.Sprintf("%s", l.Args) != `["to all"]` {
			t.Errorf("%s", l)
		}
	}
}

// The two sides have to have the same parser, and the connection says so.
func TestParsersDoNotMix(t *testing.T) {
	for parser, options := range map[adapter.Parser]map[string]any{adapter.JSON: withMessagePack, adapter.MessagePack: nil} {
		t.Run(fmt.Sprintf("server %v", parser), func(t *testing.T) {
			s := openSite(t, adapter.Config{Parser: parser}, nil)
			b := s.NewBrowser(t, "")
			transports(t, func(t *testing.T, transport string) {
				c := startNode(t).open("c", b, "/", transport, options)
				l := c.node.await("an end", func(l told) bool { return l.Kind == "connect" || l.Kind == "disconnect" })
				if l.Kind != "disconnect" || !strings.HasPrefix(l.Reason, "transport ") {
					t.Errorf("got %s", l)
				}
			})
			socket := engineDial(t, b, "")
			wsRead(t, socket) // the handshake
			if parser == adapter.JSON {
				wsWriteHex(t, socket, "82a47479706500a36e7370a12f")
			} else {
				wsWrite(t, socket, "40")
			}
			if code, reason := wsClosed(t, socket); code != websocket.ClosePolicyViolation || reason != "parse error" {
				t.Errorf("closed with %d %q, want %d parse error", code, reason, websocket.ClosePolicyViolation)
			}
		})
	}
}

func wsWriteHex(t *testing.T, ws *websocket.Conn, message string) {
	t.Helper()
	b, err := hex.DecodeString(message)
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
		t.Fatal(err)
	}
}

// What makes no sense ends the connection, whatever went before.
func TestMessagePackBadPackets(t *testing.T) {
	gone := make(chan adapter.Reason, 1)
	s := openSite(t, adapter.Config{Parser: adapter.MessagePack, MaxPayload: 2000}, func(srv *adapter.Server) {
		srv.OnDisconnect(func(_ *adapter.Socket, r adapter.Reason) { gone <- r })
	})
	b := s.NewBrowser(t, "")
	const connect, begin = "82a47479706500a36e7370a12f", "83a47479706502a36e7370a12fa464617461"
	echo := "84a47479706502a269641ea36e7370a12fa46461746192a46563686f"
	for name, message := range map[string]string{
		"a reserved name":       begin + "91a7636f6e6e656374",
		"a lie":                 begin + "92a165dfffffffff",
		"a nesting bomb":        begin + strings.Repeat("91", 1500) + "c0",
		"large once it is JSON": echo + "dc0190" + strings.Repeat("c2", 400),
		"nothing":               "",
	} {
		t.Run(name, func(t *testing.T) {
			socket := engineDial(t, b, "")
			wsRead(t, socket) // the handshake
			wsWriteHex(t, socket, connect)
			if got := hex.EncodeToString([]byte(wsRead(t, socket))); !strings.HasPrefix(got, "83a47479706500a36e7370a12fa46461746181a3736964") {
				t.Fatalf("granted with %s", got)
			}
			wsWriteHex(t, socket, echo+"d1fdd5")
			if got, want := hex.EncodeToString([]byte(wsRead(t, socket))), "84a47479706503a36e7370a12fa269641ea46461746191d1fdd5"; got != want {
				t.Fatalf("the answer is %s, want %s", got, want)
			}
			wsWriteHex(t, socket, message)
			if code, reason := wsClosed(t, socket); code != websocket.ClosePolicyViolation || reason != "parse error" {
				t.Errorf("closed with %d %q, want %d parse error", code, reason, websocket.ClosePolicyViolation)
			}
			if r := <-gone; r != adapter.ReasonParse {
				t.Errorf("the reason is %q", r)
			}
		})
	}
}

// Polls carry the packets as base64.
func TestMessagePackPolls(t *testing.T) {
	s := openSite(t, adapter.Config{Parser: adapter.MessagePack}, nil)
	b := s.NewBrowser(t, "")
	_, opened, _ := engineDo(t, b, "GET", enginePath, "", nil)
	var open struct {
		SID string `json:"sid"`
	}
	unmarshal(t, strings.TrimPrefix(opened, "0"), &open)
	sid := open.SID
	connect, _ := hex.DecodeString("82a47479706500a36e7370a12f")
	if status, body, _ := engineDo(t, b, "POST", enginePath+"&sid="+sid, "b"+base64.StdEncoding.EncodeToString(connect), nil); status != http.StatusOK || body != "ok" {
		t.Fatalf("POST: %d %s", status, body)
	}
	_, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil)
	granted, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(body, "b"))
	if err != nil || !strings.HasPrefix(body, "b") || !strings.HasPrefix(hex.EncodeToString(granted), "83a47479706500") {
		t.Errorf("the poll was answered %q", body)
	}
	engineDo(t, b, "POST", enginePath+"&sid="+sid, "40", nil)
	if _, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil); body != unknownSession {
		t.Errorf("after text the poll was answered %q, want the session to be closed", body)
	}
}

func TestNewRefusesAnUnknownParser(t *testing.T) {
	if _, err := adapter.New(adapter.Config{Parser: 7}); err == nil || !strings.Contains(err.Error(), "Parser: expected JSON or MessagePack, got Parser(7)") {
		t.Errorf("New = %v", err)
	}
}
