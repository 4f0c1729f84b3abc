package adapter_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// The rules of Engine.IO protocol 4, in the order of its text, and their tests.
//
//	EIO and transport are mandatory ........ TestEngineIOErrors, TestEngineIOMandatoryQuery
//	binary is announced, text is not ....... TestEngineIORefusesBinaryPosts, TestEngineIOPostsAndPolls
//	POST: 200 and "ok" ..................... TestEngineIOPostsAndPolls
//	an unknown sid: 400 .................... TestEngineIOErrors, TestEngineIOMandatoryQuery
//	one POST at a time ..................... TestEngineIOOverlappingPosts, engine.TestPollingOverlap
//	one GET at a time ...................... TestEngineIOOverlappingPolls, TestEngineIOOverlapEndsTheSession
//	a GET waits for packets ................ TestEngineIOPostsAndPolls, engine.TestPollsGetWhatWasSent
//	a packet in a frame of its own ......... TestEngineIOPostsAndPolls, engine.TestFrame
//	one WebSocket for a session ............ TestEngineIOSecondWebSocket, engine.TestSecondWebSocketIsClosed
//	the table of packet types .............. eio.TestMessage, eio.TestMessageErrors, TestEngineIOWrongPackets
//	a handshake is a GET ................... TestEngineIOErrors, TestEngineIOMethods
//	the handshake's fields ................. TestEngineIOHandshake, eio.TestHandshake
//	ping and pong .......................... TestEngineIOHeartbeat, engine.TestPollingHeartbeat, engine.TestUpgradeKeepsTheBeat
//	no pong: closed ........................ TestEngineIOHeartbeat, engine.TestPingAndTimeout
//	the upgrade, its probe and its noop .... TestEngineIOUpgrade, engine.TestUpgrade, engine.TestProbeFails, engine.TestUpgradeTimeout
//	closing ................................ TestEngineIOClientCloses, TestEngineIOLastPoll
//	encodings, polling ..................... eio.TestPayload, eio.TestPayloadErrors, TestEngineIOUndecodablePosts
//	encodings, WebSocket ................... eio.TestBinaryMessage, TestEngineIOWrongPackets
//	errors of the server ................... eio.TestError, TestEngineIOErrors
//
// Those of package eio are in internal/eio, those of package engine in internal/engine.

func TestEngineIOMandatoryQuery(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		const (
			version   = `{"code":5,"message":"Unsupported protocol version"}`
			transport = `{"code":0,"message":"Transport unknown"}`
		)
		for _, tt := range []struct{ query, want string }{
			{"transport=polling", version},
			{"EIO=abc&transport=polling", version},
			{"EIO=&transport=polling", version},
			{"transport=websocket", version},
			{"EIO=abc&transport=websocket", version},
			{"EIO=4", transport},
			{"EIO=4&transport=", transport},
			{"EIO=4&transport=abc", transport},
			{"EIO=4&transport=Polling", transport},
			{"EIO=4&transport=polling&sid=nobody", unknownSession},
			{"EIO=4&transport=websocket&sid=nobody", unknownSession},
		} {
			status, body, h := engineDo(t, b.Browser, "GET", "/socket.io/?"+tt.query, "", nil)
			if status != http.StatusBadRequest || body != tt.want || h.Get("Content-Type") != "application/json" {
				t.Errorf("GET %s: %d %s %s, want 400 %s as JSON", tt.query, status, body, h.Get("Content-Type"), tt.want)
			}
			// The same of a WebSocket, which is never opened.
			d := websocket.Dialer{NetDialContext: b.pipes.dial}
			_, resp, err := d.Dial("ws://usher.test/socket.io/?"+tt.query, nil)
			if err == nil || resp.StatusCode != http.StatusBadRequest {
				t.Errorf("a WebSocket at %s: %v, want 400", tt.query, err)
			}
		}
		b.wantPolled("a POST to an unknown session", b.post("nobody", "4"), http.StatusBadRequest, unknownSession)
	})
}

// A handshake is a GET, and a session takes GET and POST.
func TestEngineIOMethods(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "HEAD"} {
			without, with := `{"code":2,"message":"Bad handshake method"}`, badRequest
			if method == "HEAD" {
				without, with = "", ""
			}
			if status, body, _ := engineDo(t, b.Browser, method, enginePath, "40", nil); status != http.StatusBadRequest || body != without {
				t.Errorf("%s: %d %s, want 400 %s", method, status, body, without)
			}
			if method == "POST" {
				continue
			}
			if status, body, _ := engineDo(t, b.Browser, method, enginePath+"&sid="+sid, "40", nil); status != http.StatusBadRequest || body != with {
				t.Errorf("%s of a session: %d %s, want 400 %s", method, status, body, with)
			}
		}
		b.post(sid, `421["echo","unharmed"]`)
		b.wantPolled("a poll", b.poll(sid), http.StatusOK, `431["unharmed"]`)
	})
}

func TestEngineIOPostsAndPolls(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		posted := b.post(sid, "420[\"echo\",\"€\"]\x1e421[\"echo\",2]") // without a Content-Type it is text
		b.wantPolled("a POST", posted, http.StatusOK, "ok")
		got := b.poll(sid)
		b.wantPolled("a poll", got, http.StatusOK, "430[\"€\"]\x1e431[2]")
		for name, want := range map[string]string{"Content-Type": "text/plain; charset=UTF-8", "Cache-Control": "no-store"} {
			if got.header.Get(name) != want {
				t.Errorf("the poll's %s is %q, want %q", name, got.header.Get(name), want)
			}
		}
		if v := posted.header.Get("Cache-Control"); v != "no-store" {
			t.Errorf("the POST's Cache-Control is %q", v)
		}

		// A poll waits for as long as there is nothing to say.
		start := time.Now()
		held := b.hold(sid)
		time.Sleep(20 * time.Second)
		b.post(sid, `422["echo"]`)
		if p := <-held; p.body != `432[null]` || p.at.Sub(start) != 20*time.Second {
			t.Errorf("after %v the held poll was answered %v", p.at.Sub(start), p)
		}

		// Bytes are base64 in polls and frames of their own over a WebSocket.
		b.post(sid, "451-3[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQID/w==")
		b.wantPolled("a poll", b.poll(sid), http.StatusOK, "461-3[{\"_placeholder\":true,\"num\":0}]\x1ebAQID/w==")
		w := b.online()
		w.write(`451-3["echo",{"_placeholder":true,"num":0}]`)
		if err := w.WriteMessage(websocket.BinaryMessage, []byte{1, 2, 3, 255}); err != nil {
			t.Fatal(err)
		}
		w.want(`461-3[{"_placeholder":true,"num":0}]`, "b010203ff")
	})
}

// Of two POSTs at once nobody can tell which was meant to be first, even while
// they are still coming in.
func TestEngineIOOverlappingPosts(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		held := b.hold(sid)
		body, rest := io.Pipe()
		first := b.send(context.Background(), "POST", sid, body)
		if _, err := rest.Write([]byte(`421["echo",`)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.wantPolled("the second POST", b.post(sid, `422["echo",2]`), http.StatusBadRequest, badRequest)
		b.wantPolled("the held poll", <-held, http.StatusOK, "1")
		b.wantGone(adapter.ReasonTransportError)
		if _, err := rest.Write([]byte(`1]`)); err != nil {
			t.Fatal(err)
		}
		_ = rest.Close()
		b.wantPolled("the first POST", <-first, http.StatusBadRequest, badRequest)
		b.wantUnknown(sid)
	})
}

func TestEngineIOOverlapEndsTheSession(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		held := b.hold(sid)
		b.wantPolled("the second poll", b.poll(sid), http.StatusBadRequest, badRequest)
		b.wantPolled("the first", <-held, http.StatusOK, "1")
		b.wantGone(adapter.ReasonTransportError)
		b.wantUnknown(sid)
	})
}

// A client that gives up its poll cannot know what it has missed.
func TestEngineIOCancelledPoll(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		ctx, cancel := context.WithCancel(context.Background())
		held := b.send(ctx, "GET", sid, nil)
		cancel()
		<-held
		b.wantGone(adapter.ReasonTransportClose)
		b.wantUnknown(sid)
	})
}

func TestEngineIOUndecodablePosts(t *testing.T) {
	for _, body := range []string{"abc", "", "7", "{}", "6\x1e", "b?", "4\xff"} {
		t.Run(fmt.Sprintf("%q", body), func(t *testing.T) {
			inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
				sid := b.connected()
				held := b.hold(sid)
				if p := b.post(sid, body); p.status != http.StatusBadRequest || !strings.HasPrefix(p.body, `{"code":3,"message":"`) {
					t.Errorf("the POST: %v, want 400 and an error as JSON", p)
				}
				b.wantPolled("the held poll", <-held, http.StatusOK, "1")
				b.wantGone(adapter.ReasonParse)
				b.wantUnknown(sid)
			})
		})
	}
}

// Packets that make no sense from a client, over the WebSocket that carries it.
func TestEngineIOWrongPackets(t *testing.T) {
	for packet, text := range map[string]string{
		"0":      "unexpected packet open",
		"2":      "unexpected packet ping", // the server pings in protocol 4
		"2probe": "unexpected packet ping",
		"5":      "unexpected packet upgrade",
		"7":      "parse error",
		"abc":    "parse error",
		"":       "parse error",
		"b?":     "parse error",
	} {
		t.Run(fmt.Sprintf("%q", packet), func(t *testing.T) {
			inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
				w := b.online()
				w.write("6") // means nothing, and does no harm
				w.write(packet)
				w.wantClose(websocket.ClosePolicyViolation, text)
				b.wantGone(adapter.ReasonParse)
			})
		})
	}
}

func TestEngineIOHeartbeat(t *testing.T) {
	cfg := adapter.Config{PingInterval: 7 * time.Second, PingTimeout: 3 * time.Second}
	const grain = 200 * time.Millisecond // timers fire late by up to 100 ms, never early
	near := func(t *testing.T, what string, since time.Time, want time.Duration) {
		t.Helper()
		if d := time.Since(since); d < want || d > want+grain {
			t.Errorf("%s came after %v, want %v", what, d, want)
		}
	}
	t.Run("polling", func(t *testing.T) {
		inBubble(t, cfg, nil, func(t *testing.T, b *bubble) {
			sid := b.connected()
			last := time.Now()
			for range 20 {
				b.wantPolled("a poll", b.poll(sid), http.StatusOK, "2")
				near(t, "a ping", last, 7*time.Second)
				time.Sleep(2900 * time.Millisecond)
				b.wantPolled("a pong", b.post(sid, "3"), http.StatusOK, "ok")
				last = time.Now()
			}
			b.wantPolled("a poll", b.poll(sid), http.StatusOK, "2")
			last = time.Now()
			b.wantPolled("a poll without a pong", b.poll(sid), http.StatusOK, "1")
			near(t, "the end", last, 3*time.Second)
			b.wantGone(adapter.ReasonPingTimeout)
			b.wantUnknown(sid)
		})
	})
	t.Run("nobody polls", func(t *testing.T) {
		inBubble(t, cfg, nil, func(t *testing.T, b *bubble) {
			sid := b.connected()
			start := time.Now()
			b.wantGone(adapter.ReasonPingTimeout)
			near(t, "the end", start, 10*time.Second)
			b.wantUnknown(sid)
		})
	})
	t.Run("websocket", func(t *testing.T) {
		inBubble(t, cfg, nil, func(t *testing.T, b *bubble) {
			w := b.online()
			last := time.Now()
			for range 20 {
				w.want("2")
				near(t, "a ping", last, 7*time.Second)
				last = time.Now()
				w.write("3")
			}
			w.want("2")
			last = time.Now()
			if _, _, err := w.ReadMessage(); err == nil {
				t.Error("a message after a ping without a pong")
			}
			near(t, "the end", last, 3*time.Second)
			b.wantGone(adapter.ReasonPingTimeout)
		})
	})
}

// The whole story: probe, noop, upgrade; nothing is lost, nothing overtakes, and
// no poll is left behind.
func TestEngineIOUpgrade(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		held := b.hold(sid)
		start := time.Now()
		w := b.probe(sid)
		// A client that gets its noop within 100 ms of the probe counts a packet
		// too many: it may not have begun to pause its polls.
		noop := <-held
		b.wantPolled("the held poll", noop, http.StatusOK, "6")
		if d := noop.at.Sub(start); d < 100*time.Millisecond || d > 300*time.Millisecond {
			t.Errorf("the noop came %v after the probe, want 100ms", d)
		}
		b.wantPolled("a POST during the probe", b.post(sid, `421["echo",1]`), http.StatusOK, "ok")
		b.post(sid, `422["echo",2]`)
		w.write("5", `423["echo",3]`)
		w.want(`431[1]`, `432[2]`, `433[3]`)
		b.wantPolled("a poll after the upgrade", b.poll(sid), http.StatusBadRequest, badRequest)
		b.wantPolled("a POST after the upgrade", b.post(sid, `424["echo",4]`), http.StatusBadRequest, badRequest)
		b.dial(sid).wantClose(websocket.CloseNormalClosure, "upgraded already")
		w.write(`425["echo",5]`)
		w.want(`435[5]`)
		w.write("1")
		w.wantClose(websocket.CloseNormalClosure, "")
		b.wantGone(adapter.ReasonTransportClose)
		b.wantUnknown(sid)
	})
}

// A WebSocket may be closed and a session ended at any stage of the upgrade.
func TestEngineIOCloseDuringTheUpgrade(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		held := b.hold(sid)
		w := b.probe(sid)
		b.post(sid, "1")
		b.wantPolled("the held poll", <-held, http.StatusOK, "6")
		w.wantClose(websocket.CloseNormalClosure, "")
		b.wantUnknown(sid)

		sid = b.connected()
		held = b.hold(sid)
		w = b.probe(sid)
		_ = w.Close()
		synctest.Wait()
		b.post(sid, `421["echo","still polling"]`)
		b.wantPolled("the held poll", <-held, http.StatusOK, `431["still polling"]`)
	})
}

// Whatever happens to a session, the poll that waits is answered at once.
func TestEngineIONoPollIsLeftHanging(t *testing.T) {
	var sock *adapter.Socket
	setup := func(srv *adapter.Server) {
		srv.OnConnect(func(_ context.Context, s *adapter.Socket) error { sock = s; return nil })
	}
	for name, tt := range map[string]struct {
		do   func(b *bubble, sid string)
		want []string // one of these
		at   time.Duration
	}{
		"the client closes":       {func(b *bubble, sid string) { b.post(sid, "1") }, []string{"6"}, 0},
		"the client upgrades":     {func(b *bubble, sid string) { b.probe(sid).write("5") }, []string{"6"}, 0},
		"it probes and waits":     {func(b *bubble, sid string) { b.probe(sid) }, []string{"6"}, 200 * time.Millisecond},
		"it upgrades and closes":  {func(b *bubble, sid string) { b.probe(sid).write("5", "1") }, []string{"6"}, 0},
		"its upgrade is cut off":  {func(b *bubble, sid string) { w := b.probe(sid); w.write("5"); _ = w.Close() }, []string{"6"}, 0},
		"it posts garbage":        {func(b *bubble, sid string) { b.post(sid, "?") }, []string{"1"}, 0},
		"it posts a bad event":    {func(b *bubble, sid string) { b.post(sid, "42{}") }, []string{"1"}, 0},
		"it posts too much":       {func(b *bubble, sid string) { b.post(sid, strings.Repeat("4", 1001)) }, []string{"1"}, 0},
		"it polls twice":          {func(b *bubble, sid string) { b.hold(sid) }, []string{"1"}, 0},
		"the server sends":        {func(b *bubble, _ string) { _ = b.srv.Emit("hi") }, []string{`42["hi"]`}, 0},
		"the server disconnects":  {func(b *bubble, _ string) { sock.Disconnect() }, []string{"41"}, 0},
		"the server shuts down":   {func(b *bubble, _ string) { _ = b.srv.Shutdown(context.Background()) }, []string{"1"}, 0},
		"the client is too slow":  {func(b *bubble, _ string) { _ = b.srv.Emit("x", strings.Repeat("x", 2000)); _ = b.srv.Emit("x") }, nil, 0},
		"nothing, up to a ping":   {func(*bubble, string) {}, []string{"2"}, 25*time.Second + 200*time.Millisecond},
		"it leaves its namespace": {func(b *bubble, sid string) { b.post(sid, "41") }, []string{"2"}, 25*time.Second + 200*time.Millisecond},
		"a thief knows the session": {func(b *bubble, sid string) {
			engineDo(b.t, b.Browser, "GET", enginePath+"&sid="+sid, "", http.Header{"Origin": {"https://evil.example"}})
		}, []string{"2"}, 25*time.Second + 200*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, adapter.Config{MaxPayload: 1000, SendBuffer: 1000}, setup, func(t *testing.T, b *bubble) {
				sid := b.connected()
				start := time.Now()
				held := b.hold(sid)
				tt.do(b, sid)
				p := <-held
				if d := p.at.Sub(start); d > tt.at {
					t.Errorf("the poll was answered after %v, want at most %v", d, tt.at)
				}
				if p.status != http.StatusOK || tt.want != nil && !slices.Contains(tt.want, p.body) {
					t.Errorf("the poll was answered %v, want %q", p, tt.want)
				}
			})
		})
	}
}

// Who is sent away by the server is told so, by the poll that waits or by the
// next one; and that is the last one.
func TestEngineIOLastPoll(t *testing.T) {
	for _, waiting := range []bool{true, false} {
		inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
			sid := b.connected()
			var last polled
			if waiting {
				held := b.hold(sid)
				b.srv.Disconnect()
				b.wantPolled("the held poll", <-held, http.StatusOK, "41")
				last = b.poll(sid)
			} else {
				b.srv.Disconnect()
				synctest.Wait()
				time.Sleep(2 * time.Second)
				last = b.poll(sid)
			}
			want := "1"
			if !waiting {
				want = "41\x1e1"
			}
			b.wantPolled("the last poll", last, http.StatusOK, want)
			if p := b.poll(sid); p.status != http.StatusBadRequest {
				t.Errorf("a poll after the last: %v, want 400", p)
			}
			time.Sleep(6 * time.Second)
			b.wantUnknown(sid)
		})
	}
}

func TestEngineIOClientCloses(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		held := b.hold(sid)
		b.wantPolled("a POST of the close packet", b.post(sid, "1"), http.StatusOK, "ok")
		b.wantPolled("the held poll", <-held, http.StatusOK, "6")
		b.wantGone(adapter.ReasonTransportClose)
		b.wantUnknown(sid)
	})
}

// maxPayload bounds a POST as a whole and each message of a WebSocket, whether
// or not they say their length.
func TestEngineIOMaxPayload(t *testing.T) {
	echo := func(n int) string { return `421["echo","` + strings.Repeat("x", n-len(`421["echo",""]`)) + `"]` }
	cfg := adapter.Config{MaxPayload: 1000}
	t.Run("as much as allowed", func(t *testing.T) {
		inBubble(t, cfg, nil, func(t *testing.T, b *bubble) {
			sid := b.connected()
			b.wantPolled("a POST of 1,000 bytes", b.post(sid, echo(1000)), http.StatusOK, "ok")
			if p := b.poll(sid); !strings.HasPrefix(p.body, "431") {
				t.Errorf("the answer: %v", p)
			}
			w := b.online()
			w.write(echo(1000))
			if got := w.next(); !strings.HasPrefix(got, "431") {
				t.Errorf("the answer: %.100s", got)
			}
		})
	})
	for name, body := range map[string]func() io.Reader{
		"a POST":                     func() io.Reader { return strings.NewReader(echo(1001)) },
		"a POST without a length":    func() io.Reader { return io.MultiReader(strings.NewReader(echo(1001))) },
		"packets that are too many":  func() io.Reader { return strings.NewReader(strings.Repeat("6\x1e", 500) + "6") },
		"a POST that does not end":   func() io.Reader { return endless{} },
		"a length that is a promise": func() io.Reader { return io.LimitReader(endless{}, 1<<40) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, cfg, nil, func(t *testing.T, b *bubble) {
				sid := b.connected()
				held := b.hold(sid)
				posted := b.send(context.Background(), "POST", sid, body())
				b.wantPolled("the held poll", <-held, http.StatusOK, "1")
				if p := <-posted; p.status != http.StatusRequestEntityTooLarge && p.status != 0 { // or cut off in its middle
					t.Errorf("the POST: %v, want 413", p)
				}
				b.wantGone(adapter.ReasonTooLarge)
				b.wantUnknown(sid)
			})
		})
	}
	t.Run("a message", func(t *testing.T) {
		inBubble(t, cfg, nil, func(t *testing.T, b *bubble) {
			w := b.online()
			w.write(echo(1001))
			w.wantClose(websocket.CloseMessageTooBig, "message too large")
			b.wantGone(adapter.ReasonTooLarge)
		})
	})
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '4'
	}
	return len(p), nil
}

// A sid is as hard to guess as a key.
func TestEngineIOSidsAreUnguessable(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		seen := make(map[string]bool)
		var used [256]bool
		for range 1000 {
			sid := b.handshake()
			if seen[sid] || len(sid) != len(b.handshake()) {
				t.Fatalf("sid %q came twice, or in another length", sid)
			}
			seen[sid] = true
			for _, c := range []byte(sid) {
				used[c] = true
			}
		}
		alphabet := 0
		for _, u := range used {
			if u {
				alphabet++
			}
		}
		if bits := float64(len(b.handshake())) * math.Log2(float64(alphabet)); bits < 120 {
			t.Errorf("sids have at most %.0f bits, want 120", bits)
		}
	})
}
