package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// The rules of Socket.IO protocol 5, in the order of its text, and their tests.
//
//	the table of packet types .............. sio.TestPacket, sio.TestDecodeErrors, TestSocketIOBadPackets
//	CONNECT is answered with a sid ......... TestSocketIOConnect, TestSocketIOConnectTwice, sio.TestConnect
//	its payload ............................ TestSocketIOConnect, TestSocketIOAuthIsANamespacesOwn
//	or CONNECT_ERROR ....................... TestSocketIOConnectError, TestSocketIONamespacesWithoutComma
//	no CONNECT first: closed ............... TestSocketIOPacketsBeforeConnect, TestSocketIOConnectTimeout
//	several namespaces at once ............. TestSocketIOSeveralNamespaces
//	an event is an array with a name ....... TestSocketIOBadPackets, sio.TestDecodeErrors, sio.TestSplitEvent
//	reserved names ......................... TestSocketIOBadPackets
//	acknowledgements ....................... TestSocketIOAcks, TestSocketIOAcksOfTheClient
//	binary ................................. TestSocketIOBinaryPackets, sio.TestAssembler, sio.TestAttachments
//	attachments that do not come ........... TestSocketIOAttachmentsNeverComplete, TestSocketIOAttachmentsAreBounded
//	DISCONNECT ............................. TestSocketIODisconnect, TestSocketIODisconnectByTheServer
//	the encoding ........................... sio.TestPacket, sio.TestDecodeVariants
//	the sample session ..................... TestSocketIOSampleSession
//	bounds ................................. TestSocketIOHostilePacketsAreBounded, sio.TestAssemblerBounds
//
// Those of package sio are in internal/sio.

// connectedAs matches the answer to CONNECT and returns the socket's id.
func connectedAs(t *testing.T, got, namespace string) (id string) {
	t.Helper()
	data, ok := strings.CutPrefix(got, "40"+namespace)
	var fields map[string]string
	if !ok || json.Unmarshal([]byte(data), &fields) != nil || len(fields) != 1 || fields["sid"] == "" {
		t.Fatalf(`CONNECT was answered %s, want 40%s{"sid":…}`, got, namespace)
	}
	return fields["sid"]
}

func TestSocketIOConnect(t *testing.T) {
	setup := func(srv *adapter.Server) {
		for _, n := range []*adapter.Namespace{srv.Namespace, srv.Of("/custom")} {
			n.OnConnect(func(_ context.Context, s *adapter.Socket) error {
				auth := map[string]any{}
				if err := s.Auth(&auth); err != nil {
					return err
				}
				return s.Emit("auth", auth)
			})
		}
	}
	for _, tt := range []struct{ connect, namespace, auth string }{
		{`40`, ``, `42["auth",{}]`},
		{`40/`, ``, `42["auth",{}]`},
		{`40{}`, ``, `42["auth",{}]`},
		{`40{"token":"123"}`, ``, `42["auth",{"token":"123"}]`},
		{`40/custom`, `/custom,`, `42/custom,["auth",{}]`},
		{`40/custom,`, `/custom,`, `42/custom,["auth",{}]`},
		{`40/custom,{"token":"abc","n":[1]}`, `/custom,`, `42/custom,["auth",{"n":[1],"token":"abc"}]`},
	} {
		t.Run(tt.connect, func(t *testing.T) {
			inBubble(t, adapter.Config{}, setup, func(t *testing.T, b *bubble) {
				w := b.dial("")
				var open struct{ SID string }
				unmarshal(t, w.next()[1:], &open)
				w.write(tt.connect)
				if id := connectedAs(t, w.next(), tt.namespace); id == open.SID {
					t.Error("the socket has the sid of the connection, which is a secret of its client")
				}
				w.want(tt.auth)

				sid := b.handshake()
				b.post(sid, tt.connect)
				packets := ""
				for strings.Count(packets, "\x1e") < 1 {
					packets = strings.Trim(packets+"\x1e"+b.poll(sid).body, "\x1e")
				}
				granted, auth, _ := strings.Cut(packets, "\x1e")
				connectedAs(t, granted, tt.namespace)
				if auth != tt.auth {
					t.Errorf("by polling: %s, want %s", auth, tt.auth)
				}
			})
		})
	}
}

// Who one is in a namespace is not changed by what one says to another.
func TestSocketIOAuthIsANamespacesOwn(t *testing.T) {
	inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
		for _, n := range []*adapter.Namespace{srv.Namespace, srv.Of("/custom")} {
			adapter.Handle(n, "auth", func(_ context.Context, s *adapter.Socket, _ any) (string, error) {
				var auth struct{ Token string }
				err := s.Auth(&auth)
				return auth.Token, err
			})
		}
	}, func(t *testing.T, b *bubble) {
		w := b.dial("")
		w.next()
		w.write(`40{"token":"plain"}`)
		connectedAs(t, w.next(), "")
		w.write(`40/custom,{"token":"admin"}`)
		connectedAs(t, w.next(), "/custom,")
		w.write(`421["auth"]`, `42/custom,2["auth"]`)
		got := map[string]bool{w.next(): true, w.next(): true}
		if !got[`431["plain"]`] || !got[`43/custom,2["admin"]`] {
			t.Errorf("got %v", got)
		}
	})
}

// Some clients ask again while they wait. They get one socket and one answer.
func TestSocketIOConnectTwice(t *testing.T) {
	var connected atomic.Int32
	inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.OnConnect(func(context.Context, *adapter.Socket) error { connected.Add(1); return nil })
	}, func(t *testing.T, b *bubble) {
		w := b.dial("")
		w.next()
		w.write(`40`, `40`, `421["echo",1]`, `40{"token":"x"}`, `422["echo",2]`)
		connectedAs(t, w.next(), "")
		w.want(`431[1]`, `432[2]`)
		if n := connected.Load(); n != 1 {
			t.Errorf("OnConnect ran %d times, want once", n)
		}
	})
}

func TestSocketIOConnectError(t *testing.T) {
	inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.Of("/full").AllowAnonymous().Require(func(context.Context, *adapter.Socket) error {
			return &adapter.Error{Code: "full", Message: "come back later", Data: map[string]int{"seats": 0}}
		})
		srv.Of("/late").AllowAnonymous().OnConnect(func(context.Context, *adapter.Socket) error {
			return &adapter.Error{Code: "late", Message: "we are closed"}
		})
		srv.Of("/broken").AllowAnonymous().OnConnect(func(context.Context, *adapter.Socket) error {
			return errors.New("a password in an error of the database")
		})
		srv.Of("/members")
	}, func(t *testing.T, b *bubble) {
		for _, tt := range []struct{ connect, want string }{
			{`40/random`, `44/random,{"message":"Invalid namespace"}`},
			{`40/random,{"token":"x"}`, `44/random,{"message":"Invalid namespace"}`},
			{`40/full,`, `44/full,{"message":"come back later","data":{"code":"full","message":"come back later","data":{"seats":0}}}`},
			{`40/late,`, `44/late,{"message":"we are closed","data":{"code":"late","message":"we are closed"}}`},
			{`40/broken,`, `44/broken,{"message":"something went wrong on the server","data":{"code":"internal","message":"something went wrong on the server"}}`},
			{`40/members,`, `44/members,{"message":"log in first","data":{"code":"unauthenticated","message":"log in first"}}`},
			{`40/custom,{"x":"` + strings.Repeat("x", 16<<10) + `"}`, `44/custom,{"message":"expected at most 16384 bytes of auth, got 16392"}`},
		} {
			// The connection goes on, by either transport.
			w := b.dial("")
			w.next()
			w.write(tt.connect)
			w.want(tt.want)
			w.write(`40`)
			connectedAs(t, w.next(), "")
			sid := b.handshake()
			b.post(sid, tt.connect)
			b.wantPolled("a poll", b.poll(sid), http.StatusOK, tt.want)
			b.post(sid, `40`)
			connectedAs(t, b.poll(sid).body, "")
		}
	})
}

// "If the server does not receive a CONNECT packet first, then it MUST close
// the connection immediately."
func TestSocketIOPacketsBeforeConnect(t *testing.T) {
	for _, packets := range []string{`42["echo",1]`, `420["echo",1]`, `42/custom,["echo"]`, `41`, `430[]`, `44{"message":"x"}`, `40/random` + "\x1e" + `42["echo",1]`} {
		t.Run(packets, func(t *testing.T) {
			inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
				w := b.dial("")
				w.write(strings.Split(packets, "\x1e")...)
				w.wantClose(websocket.ClosePolicyViolation, "parse error")

				sid := b.handshake()
				held := b.hold(sid)
				b.post(sid, packets)
				if p := <-held; p.body != "1" && !strings.HasPrefix(p.body, "44/random,") {
					t.Errorf("the held poll: %v, want a close packet", p)
				}
				b.wantUnknown(sid)
			})
		})
	}
}

// A connection without a namespace is closed after ConnectTimeout: it has asked
// for none, was let into none, or has left the last.
func TestSocketIOConnectTimeout(t *testing.T) {
	for _, packets := range [][]string{nil, {`40/random`}, {`40`, `41`}, {`40/custom,`, `40`, `41/custom`, `41`}} {
		t.Run(strings.Join(packets, " "), func(t *testing.T) {
			inBubble(t, adapter.Config{ConnectTimeout: 10 * time.Second}, nil, func(t *testing.T, b *bubble) {
				w := b.dial("")
				w.write(packets...)
				start := time.Now()
				w.wantClose(websocket.ClosePolicyViolation, "connect timeout")
				if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
					t.Errorf("the WebSocket was closed after %v", d)
				}
				sid := b.handshake()
				if packets != nil {
					b.post(sid, strings.Join(packets, "\x1e"))
				}
				start = time.Now()
				var p polled
				for p.body != "1" && time.Since(start) < time.Minute {
					p = b.poll(sid)
				}
				if d := time.Since(start); p.body != "1" || d < 9*time.Second || d > 11*time.Second {
					t.Errorf("after %v the poll was answered %v", d, p)
				}
			})
		})
	}
}

func TestSocketIOSeveralNamespaces(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		w := b.online()
		w.write(`40/custom,`)
		first := connectedAs(t, w.next(), "/custom,")
		w.write(`421["echo","main"]`)
		w.want(`431["main"]`)
		w.write(`42/custom,1["echo","custom"]`)
		w.want(`43/custom,1["custom"]`)
		if err := errors.Join(b.srv.Emit("to", "main"), b.srv.Of("/custom").Emit("to", "custom")); err != nil {
			t.Fatal(err)
		}
		w.want(`42["to","main"]`, `42/custom,["to","custom"]`)

		// One is left: what still comes for it is dropped, and the other goes on.
		w.write(`41/custom`, `42/custom,2["echo","too late"]`, `43/custom,7[]`, `41/custom`, `422["echo","main"]`)
		w.want(`432["main"]`)
		w.write(`40/custom`)
		if second := connectedAs(t, w.next(), "/custom,"); second == first {
			t.Error("a socket's id came twice")
		}
		w.write(`42/custom,3["echo","again"]`)
		w.want(`43/custom,3["again"]`)
	})
}

// "No response is expected from the other side."
func TestSocketIODisconnect(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		w := b.online()
		start := time.Now()
		w.write(`41`)
		b.wantGone(adapter.ReasonClient)
		w.want(`2`) // nothing before the heartbeat
		if d := time.Since(start); d < 25*time.Second {
			t.Errorf("a ping came after %v", d)
		}
		w.write(`3`, `40`)
		connectedAs(t, w.next(), "")
	})
}

// The connection ends with its last socket, a moment after the packet: a client
// that gets both at once believes that it has lost the connection.
func TestSocketIODisconnectByTheServer(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		w := b.online()
		w.write(`40/custom`)
		connectedAs(t, w.next(), "/custom,")
		b.srv.Of("/custom").Disconnect()
		w.want(`41/custom,`)
		time.Sleep(5 * time.Second)
		w.write(`421["echo","still there"]`)
		w.want(`431["still there"]`)
		start := time.Now()
		b.srv.Disconnect()
		b.wantGone(adapter.ReasonServer)
		w.want(`41`)
		w.wantClose(websocket.CloseNormalClosure, "disconnected by the server")
		if d := time.Since(start); d < time.Second || d > 1200*time.Millisecond {
			t.Errorf("the connection was closed after %v", d)
		}
	})
}

func TestSocketIOAcks(t *testing.T) {
	inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "note", func(context.Context, *adapter.Socket, any) error { return nil })
		adapter.Handle(srv, "several", func(_ context.Context, _ *adapter.Socket, in adapter.Args3[int, string, any]) (adapter.Args3[int, string, any], error) {
			return in, nil
		})
	}, func(t *testing.T, b *bubble) {
		w := b.online()
		w.write(`40/custom,`)
		connectedAs(t, w.next(), "/custom,")
		for _, tt := range []struct{ packet, want string }{
			{`420["echo","the id 0"]`, `430["the id 0"]`},
			{`4212["echo","foo"]`, `4312["foo"]`},
			{`42007["echo","zeros"]`, `437["zeros"]`},
			{`4218446744073709551615["echo","the largest"]`, `4318446744073709551615["the largest"]`},
			{`42/custom,13["echo","bar"]`, `43/custom,13["bar"]`},
			{`42/,14["echo","by its name"]`, `4314["by its name"]`},
			{`4215["note"]`, `4315[]`},
			{`42456["several",1,"2",{"3":[false]}]`, `43456[1,"2",{"3":[false]}]`},
			{`4216["nothing like this"]`, `4316[{"error":{"code":"unknown_event","message":"there is no event \"nothing like this\" here"}}]`},
			{`4217["echo","the same id"]`, `4317["the same id"]`},
			{`4217["echo","the same id"]`, `4317["the same id"]`},
		} {
			w.write(tt.packet)
			w.want(tt.want)
		}
		w.write(`42["echo","no id, no answer"]`, `421["echo",1]`)
		w.want(`431[1]`)
	})
}

// What a client acknowledges reaches who has asked, once; what nobody has asked
// for reaches nobody.
func TestSocketIOAcksOfTheClient(t *testing.T) {
	inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "start", func(ctx context.Context, s *adapter.Socket, kind string) error {
			answer, err := adapter.Call[map[string]any](ctx, s, "question", kind)
			if err != nil {
				return err
			}
			return s.Emit("answered", fmt.Sprint(answer["is"]))
		})
	}, func(t *testing.T, b *bubble) {
		w := b.online()
		ask := func(kind string) (id string) {
			w.write(`42["start","` + kind + `"]`)
			got := w.next()
			id, ok := strings.CutSuffix(strings.TrimPrefix(got, "42"), `["question","`+kind+`"]`)
			if !ok || id == "" || strings.Trim(id, "0123456789") != "" {
				t.Fatalf("the question came as %s", got)
			}
			return id
		}
		w.write(`4399["nobody asked"]`)
		id := ask("text")
		w.write(`43`+id+`[{"is":"yes"}]`, `43`+id+`[{"is":"no"}]`)
		w.want(`42["answered","yes"]`)
		id = ask("bytes")
		w.write(`461-` + id + `[{"is":{"_placeholder":true,"num":0}}]`)
		if err := w.WriteMessage(websocket.BinaryMessage, []byte("AB")); err != nil {
			t.Fatal(err)
		}
		w.want(`42["answered","[65 66]"]`)
		w.write(`421["echo","in order"]`)
		w.want(`431["in order"]`)
	})
}

func TestSocketIOBinaryPackets(t *testing.T) {
	type part struct {
		Name string `json:"name"`
		Data []byte `json:"data"`
	}
	setup := func(srv *adapter.Server) {
		adapter.Handle(srv, "join", func(_ context.Context, _ *adapter.Socket, in []part) (string, error) {
			s := ""
			for _, p := range in {
				s += fmt.Sprintf("%s=%x ", p.Name, p.Data)
			}
			return s, nil
		})
	}
	for _, tt := range []struct {
		name, packet string
		attachments  []string
		want         []string
	}{
		{"of the text", `451-5["echo",{"_placeholder":true,"num":0}]`, []string{"\x01\x02\x03\x04"},
			[]string{`461-5[{"_placeholder":true,"num":0}]`, "b01020304"}},
		{"no bytes at all", `451-5["echo",{"_placeholder":true,"num":0}]`, []string{""},
			[]string{`461-5[{"_placeholder":true,"num":0}]`, "b"}},
		{"nested", `452-6["echo",{"a":[{"_placeholder":true,"num":0}],"b":{"c":{"_placeholder":true,"num":1}}}]`, []string{"\x01", "\x02\x03"},
			[]string{`462-6[{"a":[{"_placeholder":true,"num":0}],"b":{"c":{"_placeholder":true,"num":1}}}]`, "b01", "b0203"}},
		{"in another order", `452-7["join",[{"name":"x","data":{"num":1,"_placeholder":true}},{"name":"y","data":{"_placeholder":true,"num":0}}]]`, []string{"\x01", "\x02"},
			[]string{`437["x=02 y=01 "]`}},
		{"what looks like a placeholder", `428["echo",{"_placeholder":true,"num":0}]`, nil,
			[]string{`438[{"_placeholder":true,"num":0}]`}},
		{"in a namespace", `451-/custom,9["echo",{"_placeholder":true,"num":0}]`, []string{"\xff"},
			[]string{`461-/custom,9[{"_placeholder":true,"num":0}]`, "bff"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, adapter.Config{}, setup, func(t *testing.T, b *bubble) {
				w := b.online()
				w.write(`40/custom`)
				connectedAs(t, w.next(), "/custom,")
				w.write(tt.packet)
				for _, a := range tt.attachments {
					w.write("3") // heartbeats may come in between
					if err := w.WriteMessage(websocket.BinaryMessage, []byte(a)); err != nil {
						t.Fatal(err)
					}
				}
				w.want(tt.want...)
			})
		})
	}
	t.Run("of the server", func(t *testing.T) {
		inBubble(t, adapter.Config{}, setup, func(t *testing.T, b *bubble) {
			w := b.online()
			if err := b.srv.Emit("files", []part{{"a", []byte{1}}, {"b", []byte{}}}, []byte{2}); err != nil {
				t.Fatal(err)
			}
			w.want(`453-["files",[{"name":"a","data":{"_placeholder":true,"num":0}},{"name":"b","data":{"_placeholder":true,"num":1}}],{"_placeholder":true,"num":2}]`, "b01", "b", "b02")
		})
	})
}

// badPackets make no sense from a client that is connected to "/".
var badPackets = []string{
	``, `abc`, `7`, `9`, `-1`,
	`2`, `2[]`, `2{}`, `2"x"`, `2null`, `2["x"`, `2["x"]]`, `2[["x"]]`, `2[null]`, `2["x",]`,
	`2["connect"]`, `2["connect_error"]`, `2["disconnect"]`, `2["disconnecting"]`, `2["newListener"]`, `2["removeListener"]`,
	`2abc["echo"]`, `2-1["echo"]`, `21.5["echo"]`, `218446744073709551616["echo"]`, `2` + strings.Repeat("9", 500) + `["echo"]`,
	`3[]`, `31`, `31{}`, `31["x"`, `3x[]`,
	`0[]`, `0"x"`, `0null`, `0{`, `01{}`,
	`1{}`, `11`,
	`4{"message":"x"}`, `4`,
	`5["echo"]`, `50-["echo"]`, `51-["echo"]`, `51-`, `5x-["echo"]`, `51001-["echo"]`, `5` + strings.Repeat("9", 500) + `-["echo"]`,
	`52-["echo",{"_placeholder":true,"num":0}]`, `51-["echo",{"_placeholder":true,"num":1}]`,
	`51-["echo",{"_placeholder":true,"num":-1}]`, `51-["echo",{"_placeholder":true,"num":"0"}]`,
	`51-["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]`,
	`51-["disconnect",{"_placeholder":true,"num":0}]`,
	`61-[{"_placeholder":true,"num":0}]`, `61-1{"_placeholder":true,"num":0}`,
	`2["echo",` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `]`,
	`2["echo",` + strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200) + `]`,
	`2["echo"` + strings.Repeat(",0", 1100) + `]`,
	`0/` + strings.Repeat("x", 5000),
	"2[\"\xff\"]",
}

func TestSocketIOBadPackets(t *testing.T) {
	for _, packet := range badPackets {
		t.Run(fmt.Sprintf("%.40s", packet), func(t *testing.T) {
			inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
				w := b.online()
				w.write("4"+packet, `421["echo","too late"]`)
				w.wantClose(websocket.ClosePolicyViolation, "parse error")
				b.wantGone(adapter.ReasonParse)

				sid := b.connected()
				held := b.hold(sid)
				b.post(sid, "4"+packet+"\x1e"+`421["echo","too late"]`)
				b.wantPolled("the held poll", <-held, http.StatusOK, "1")
				b.wantGone(adapter.ReasonParse)
				b.wantUnknown(sid)
			})
		})
	}
}

// An attachment that was announced has to come next. Until it does the handler
// is not called; a heartbeat alone keeps the connection, and what has come is
// within MaxPayload.
func TestSocketIOAttachmentsNeverComplete(t *testing.T) {
	const header = `452-1["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`
	bytes := func(w *wire) {
		if err := w.WriteMessage(websocket.BinaryMessage, []byte{1}); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, send := range map[string]func(w *wire){
		"none before the next packet":       func(w *wire) { w.write(header, `421["echo"]`) },
		"one before the next packet":        func(w *wire) { w.write(header); bytes(w); w.write(`421["echo"]`) },
		"none before DISCONNECT":            func(w *wire) { w.write(header, `41`) },
		"one too many":                      func(w *wire) { w.write(`42["note"]`); bytes(w) },
		"none after a long time":            func(w *wire) { w.write(header); w.want("2"); w.write("3"); w.want("2"); w.write("3", `42["note"]`) },
		"a second header in place of bytes": func(w *wire) { w.write(header, header) },
	} {
		t.Run(name, func(t *testing.T) {
			var noted, echoed atomic.Int32
			inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
				adapter.On(srv, "note", func(context.Context, *adapter.Socket, any) error { noted.Add(1); return nil })
				srv.OnAny(func(_ context.Context, _ *adapter.Socket, e adapter.Event) {
					if e.Name() == "echo" {
						echoed.Add(1)
					}
				})
			}, func(t *testing.T, b *bubble) {
				w := b.online()
				send(w)
				w.wantClose(websocket.ClosePolicyViolation, "parse error")
				b.wantGone(adapter.ReasonParse)
				synctest.Wait()
				if n := echoed.Load(); n > 0 {
					t.Errorf("the handler was called %d times for a packet that never was whole", n)
				}
			})
		})
	}
}

// What hostile packets cost is in proportion to their size, and gone with them.
func TestSocketIOHostilePacketsAreBounded(t *testing.T) {
	const size = 1_000_000
	fill := func(head, repeat, tail string) string {
		return head + strings.Repeat(repeat, (size-len(head)-len(tail))/len(repeat)) + tail
	}
	hostile := map[string]string{
		"brackets":           fill(`42`, `[`, ``),
		"objects":            fill(`42["x",`, `{"a":`, ``),
		"arguments":          fill(`42["x"`, `,0`, `]`),
		"an id":              fill(`42`, `9`, `["x"]`),
		"a count":            fill(`45`, `9`, `-["x"]`),
		"a namespace":        fill(`40/`, `x`, ``),
		"auth":               fill(`40/custom,{"a":"`, `x`, `"}`),
		"placeholders":       fill(`451000-["x"`, `,{"_placeholder":true,"num":0}`, `]`),
		"small strings":      fill(`42["x",[`, `"",`, `""]]`),
		"an unknown name":    fill(`42["`, `x`, `"]`),
		"an escape":          fill(`42["`, `\u0000`, `"]`),
		"attachments":        `451000-["x"` + placeholders(1000) + `]`,
		"unknown namespaces": `40/` + strings.Repeat("y", 4000),
	}
	for name, packet := range hostile {
		t.Run(name, func(t *testing.T) {
			inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
				const times = 4
				attack := func() {
					w := b.online()
					w.write(packet)
					_ = w.Close()
					synctest.Wait()
				}
				attack() // pools are filled
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				for range times {
					attack()
				}
				runtime.ReadMemStats(&after)
				perAttack := (after.TotalAlloc - before.TotalAlloc) / times
				runtime.GC()
				runtime.ReadMemStats(&after)
				t.Logf("%d bytes cost %d", len(packet), perAttack)
				if most := uint64(9*len(packet) + 1<<20); perAttack > most {
					t.Errorf("a packet of %d bytes cost %d bytes of memory, want at most %d", len(packet), perAttack, most)
				}
				if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
					t.Errorf("%d bytes are left of %d attacks", grown, times)
				}
				if left := b.srv.Left(nil, nil); len(left) > 0 {
					t.Errorf("the server still has %v", left)
				}
			})
		})
	}
}

func placeholders(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, `,{"_placeholder":true,"num":%d}`, i)
	}
	return s.String()
}

// The sample session at the end of the text, with the roles as they are: the
// client probes, the server pings.
func TestSocketIOSampleSession(t *testing.T) {
	inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
		admin := srv.Of("/admin").AllowAnonymous()
		adapter.Handle(admin, "tellme", func(context.Context, *adapter.Socket, any) ([]byte, error) { return []byte{1, 2}, nil })
		for _, name := range []string{"hello", "world"} {
			adapter.On(srv, name, func(_ context.Context, s *adapter.Socket, _ any) error { return s.Emit("heard", name) })
		}
	}, func(t *testing.T, b *bubble) {
		sid := b.handshake()
		b.wantPolled("request 2", b.post(sid, "40"), http.StatusOK, "ok")
		connectedAs(t, b.poll(sid).body, "")
		if err := b.srv.Emit("hey", "Jude"); err != nil {
			t.Fatal(err)
		}
		b.wantPolled("request 4", b.poll(sid), http.StatusOK, `42["hey","Jude"]`)
		b.wantPolled("request 5", b.post(sid, `42["hello"]`+"\x1e"+`42["world"]`), http.StatusOK, "ok")
		synctest.Wait()
		b.wantPolled("its answer", b.poll(sid), http.StatusOK, `42["heard","hello"]`+"\x1e"+`42["heard","world"]`)
		w := b.probe(sid)
		w.write("5", `42["hello"]`, `42["world"]`)
		w.want(`42["heard","hello"]`, `42["heard","world"]`)
		w.write(`40/admin,`)
		connectedAs(t, w.next(), "/admin,")
		w.write(`42/admin,1["tellme"]`)
		w.want(`461-/admin,1[{"_placeholder":true,"num":0}]`, "b0102")
		w.want("2")
		w.write("3")
		w.want("2")
		w.write("1")
		w.wantClose(websocket.CloseNormalClosure, "")
		b.wantGone(adapter.ReasonTransportClose)
	})
}
