package adapter_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// lasting is a token of alice's that is good for d.
func lasting(d time.Duration) string {
	return fmt.Sprintf("alice.%d", time.Now().Add(d).UnixNano())
}

// identifyLasting takes such tokens as Bearer, as the password of Basic, and in a
// cookie "jwt". change, if not nil, may alter what they say.
func identifyLasting(srv *adapter.Server, change func(*adapter.Identity)) {
	srv.Use(func(c *gin.Context) {
		token, bearer := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
		if !bearer {
			if _, token, bearer = c.Request.BasicAuth(); !bearer {
				token, _ = c.Cookie("jwt")
			}
		}
		_, until, _ := strings.Cut(token, ".")
		nanos, err := strconv.ParseInt(until, 10, 64)
		if err != nil || change == nil && !time.Now().Before(time.Unix(0, nanos)) {
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"message": "a fresh token, please"})
			return
		}
		c.Set("expires", time.Unix(0, nanos))
	})
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id := &adapter.Identity{UserID: "alice", Expires: c.GetTime("expires")}
		if change != nil {
			change(id)
		}
		return id, nil
	})
}

// A teller is a client of any transport in a bubble, which answers heartbeats.
type teller struct {
	next         func() string // the next message that is no heartbeat
	authenticate func(token string)
	done         string // how authenticate is answered
	told         func(expires time.Time) string
	bye          func()
}

// tellers opens a socket in "/" over each transport with a token.
var tellers = map[string]func(b *bubble, token string) *teller{
	"plain": func(b *bubble, token string) *teller {
		w := b.plain(http.Header{"Authorization": {"Bearer " + token}})
		return &teller{
			next:         w.next,
			authenticate: func(token string) { w.write(fmt.Sprintf(`{"type":"authenticate","token":%q,"id":1}`, token)) },
			done:         `{"type":"reply","id":1}`,
			told: func(expires time.Time) string {
				return fmt.Sprintf(`{"type":"token required","data":{"expires":%q}}`, expires.UTC().Format(time.RFC3339))
			},
			bye: func() { w.wantClose(4410, "credential expired") },
		}
	},
	"websocket": func(b *bubble, token string) *teller {
		w := b.dial("")
		w.next()
		w.write(fmt.Sprintf(`40{"token":%q}`, token))
		c := socketIO(b, func() string { return w.next() }, func(p string) { w.write(p) })
		end := c.bye
		c.bye = func() {
			end()
			w.wantClose(4410, "credential expired")
		}
		return c
	},
	"polling": func(b *bubble, token string) *teller {
		sid := b.handshake()
		b.post(sid, fmt.Sprintf(`40{"token":%q}`, token))
		var packets []string
		return socketIO(b, func() string {
			if len(packets) == 0 {
				packets = strings.Split(b.poll(sid).body, "\x1e")
			}
			p := packets[0]
			packets = packets[1:]
			return p
		}, func(p string) { b.post(sid, p) })
	},
}

func socketIO(b *bubble, read func() string, write func(string)) *teller {
	c := &teller{
		next: func() string {
			for {
				p := read()
				if p != "2" {
					return p
				}
				write("3")
			}
		},
		authenticate: func(token string) { write(fmt.Sprintf(`421["authenticate",{"token":%q}]`, token)) },
		done:         `431[]`,
		told: func(expires time.Time) string {
			return fmt.Sprintf(`42["token required",{"expires":%q}]`, expires.UTC().Format(time.RFC3339))
		},
	}
	c.bye = func() {
		if got := c.next(); got != "41" {
			b.t.Errorf("got %s at the end, want 41", got)
		}
	}
	if got := c.next(); !strings.HasPrefix(got, `40{"sid":"`) {
		b.t.Fatalf("CONNECT was answered %s", got)
	}
	return c
}

// plain opens a plain WebSocket and waits for its connect frame.
func (b *bubble) plain(header http.Header) *wire {
	b.t.Helper()
	d := websocket.Dialer{NetDialContext: b.pipes.dial}
	conn, _, err := d.Dial("ws://usher.test"+ws, header)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	w := &wire{conn, b.t}
	if got := w.next(); !strings.HasPrefix(got, `{"type":"connect"`) {
		b.t.Fatalf("the first frame is %s", got)
	}
	return w
}

// wantTold waits for the event, which has to be the next message, and to come at
// the given time.
func (c *teller) wantTold(t *testing.T, at, expires time.Time) {
	t.Helper()
	if got := c.next(); got != c.told(expires) {
		t.Fatalf("got %s, want %s", got, c.told(expires))
	}
	if late := time.Since(at); late < 0 || late > 100*time.Millisecond {
		t.Errorf("told %v after the time, want at most 100ms", late)
	}
}

func (c *teller) refresh(t *testing.T, token string) {
	t.Helper()
	c.authenticate(token)
	if got := c.next(); got != c.done {
		t.Fatalf("authenticate was answered %s", got)
	}
}

// TestTokenRequired: a client that is told in time, and shows a fresh token each
// time, outlives its tokens; and ends with the last one.
func TestTokenRequired(t *testing.T) {
	for name, open := range tellers {
		for _, recovery := range []time.Duration{0, time.Hour} {
			if recovery > 0 && name == "plain" {
				continue
			}
			t.Run(fmt.Sprintf("%s, recovery %v", name, recovery), func(t *testing.T) {
				cfg := adapter.Config{Credentials: everySource, Recovery: adapter.Recovery{Window: recovery}}
				inBubble(t, cfg, func(srv *adapter.Server) { identifyLasting(srv, nil) }, func(t *testing.T, b *bubble) {
					start := time.Now()
					first := start.Add(10 * time.Minute)
					c := open(b, lasting(10*time.Minute))
					c.wantTold(t, first.Add(-time.Minute), first)

					second := time.Now().Add(5 * time.Minute)
					c.refresh(t, lasting(5*time.Minute))
					c.wantTold(t, second.Add(-time.Minute), second)

					// A life of less than two minutes: at half of it.
					now := time.Now()
					third := now.Add(90 * time.Second)
					c.refresh(t, lasting(90*time.Second))
					c.wantTold(t, now.Add(45*time.Second), third)

					c.bye()
					b.wantGone(adapter.ReasonExpired)
					// A connection of Socket.IO ends a second after its last socket.
					if late := time.Since(third); late < 0 || late > 1200*time.Millisecond {
						t.Errorf("ended %v after the last token", late)
					}
				})
			})
		}
	}
}

// TestTokenRequiredOnce: replays that change something else do not ask again,
// and one that finds a later end does.
func TestTokenRequiredOnce(t *testing.T) {
	for name, open := range tellers {
		t.Run(name, func(t *testing.T) {
			var expires atomic.Int64
			var replays atomic.Int32
			cfg := adapter.Config{Credentials: everySource, Revalidate: 2 * time.Second}
			inBubble(t, cfg, func(srv *adapter.Server) {
				identifyLasting(srv, func(id *adapter.Identity) {
					id.Expires = time.Unix(0, expires.Load())
					id.Roles = []string{strconv.Itoa(int(replays.Add(1)))}
				})
			}, func(t *testing.T, b *bubble) {
				now := time.Now()
				first, second := now.Add(30*time.Second), now.Add(20*time.Minute)
				expires.Store(first.UnixNano())
				c := open(b, lasting(time.Hour))
				c.wantTold(t, now.Add(15*time.Second), first)
				told := replays.Load()
				time.Sleep(10 * time.Second)
				if replays.Load() < told+3 {
					t.Errorf("%d replays, want some", replays.Load()-told)
				}
				expires.Store(second.UnixNano())
				c.wantTold(t, second.Add(-time.Minute), second)
				c.bye()
				b.wantGone(adapter.ReasonExpired)
			})
		})
	}
}

// TestTokenRequiredOfWhoHasNone: whoever cannot show a fresh token is not asked,
// and ends.
func TestTokenRequiredOfWhoHasNone(t *testing.T) {
	basic := func(token string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:"+token))
	}
	for _, tt := range []struct {
		name    string
		sources []adapter.Source
		header  func(token string) http.Header
	}{
		{"nowhere to send one", []adapter.Source{adapter.Query("token")}, func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }},
		{"a cookie", everySource, func(token string) http.Header { return http.Header{"Cookie": {"jwt=" + token}} }},
		{"a password", everySource, func(token string) http.Header { return http.Header{"Authorization": {basic(token)}} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, adapter.Config{Credentials: tt.sources, Revalidate: -1}, func(srv *adapter.Server) { identifyLasting(srv, nil) }, func(t *testing.T, b *bubble) {
				w := b.plain(tt.header(lasting(3 * time.Minute)))
				if _, got, err := w.ReadMessage(); !websocket.IsCloseError(err, 4410) {
					t.Errorf("got %s, %v; want the close code 4410 and nothing before", got, err)
				}
			})
		})
	}
}

// TestTokenRequiredOfANamespace: each socket of a connection is asked for its own
// token, shows it for itself, and ends by itself.
func TestTokenRequiredOfANamespace(t *testing.T) {
	inBubble(t, adapter.Config{Credentials: everySource}, func(srv *adapter.Server) { identifyLasting(srv, nil) }, func(t *testing.T, b *bubble) {
		start := time.Now()
		w := b.dial("")
		w.next()
		w.write(fmt.Sprintf(`40{"token":%q}`, lasting(3*time.Minute)))
		for _, step := range []struct {
			at   time.Duration
			want string
			then string
		}{
			{0, `40{"sid":"`, fmt.Sprintf(`40/custom,{"token":%q}`, lasting(10*time.Minute))}, // one attempt at a time
			{0, `40/custom,{"sid":"`, ""},
			{2 * time.Minute, `42["token required",{"expires":"2000-01-01T00:03:00Z"}]`, fmt.Sprintf(`421["authenticate",%q]`, lasting(20*time.Minute))},
			{2 * time.Minute, `431[]`, ""},
			{9 * time.Minute, `42/custom,["token required",{"expires":"2000-01-01T00:10:00Z"}]`, ""},
			{10 * time.Minute, `41/custom,`, ""},
			{19 * time.Minute, `42["token required",{"expires":"2000-01-01T00:20:00Z"}]`, ""},
			{20 * time.Minute, `41`, ""},
		} {
			got := w.next()
			for ; got == "2"; got = w.next() {
				w.write("3")
			}
			if late := time.Since(start) - step.at; !strings.HasPrefix(got, step.want) || late < 0 || late > 200*time.Millisecond {
				t.Fatalf("got %s at %v, want %s at %v", got, time.Since(start), step.want, step.at)
			}
			if step.then != "" {
				w.write(step.then)
			}
		}
	})
}

// TestNamesOfTheAdapter: what the adapter asks and takes is not the app's to send
// or handle, also where a client may choose the names that the app sends.
func TestNamesOfTheAdapter(t *testing.T) {
	for _, first := range []bool{true, false} {
		cfg := adapter.Config{Logger: slog.New(slog.DiscardHandler)}
		if first {
			cfg.Credentials = []adapter.Source{adapter.FirstMessage()}
		}
		srv, err := adapter.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"authenticate", "token required"} {
			if err := srv.Emit(name, 1); (err != nil) != first {
				t.Errorf("Emit of %q with FirstMessage %v: %v", name, first, err)
			}
			func() {
				defer func() {
					if v := recover(); (v != nil) != first {
						t.Errorf("On %q with FirstMessage %v: panic %v", name, first, v)
					}
				}()
				adapter.On(srv, name, func(context.Context, *adapter.Socket, any) error { return nil })
			}()
		}
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestNodeRefreshesItsToken: the real client is told, and outlives two tokens.
func TestNodeRefreshesItsToken(t *testing.T) {
	for _, transport := range []string{"polling", "websocket"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			n := startNode(t)
			srv, err := adapter.New(adapter.Config{Credentials: everySource, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			identifyLasting(srv, nil)
			gin.SetMode(gin.ReleaseMode)
			e := gin.New()
			srv.Mount(e)
			b := adaptertest.NewBrowser(t, adaptertest.Serve(t, e))
			t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })

			c := n.open("c", b, "/", transport, map[string]any{"auth": map[string]string{"token": lasting(4 * time.Second)}})
			c.await("connect")
			ends := time.Now().Add(4 * time.Second)
			for _, life := range []time.Duration{4 * time.Second, 6 * time.Second} {
				c.event("token required")
				before := ends
				ends = before.Add(life)
				if got := c.call("authenticate", map[string]string{"token": lasting(time.Until(ends))}); got != "[]" {
					t.Errorf("authenticate was answered %s", got)
				}
			}
			told := c.event("token required")
			if second := ends.Add(-6 * time.Second); time.Now().Before(second) {
				t.Errorf("asked at %v, before the second token was over at %v", time.Now(), second)
			}
			var data struct{ Expires time.Time }
			unmarshal(t, string(told.Args[0]), &data)
			if late := ends.Sub(data.Expires); late < 0 || late > 1500*time.Millisecond {
				t.Errorf("the event says %v, want %v", data.Expires, ends)
			}
			if l := c.await("disconnect"); l.Reason != "io server disconnect" {
				t.Errorf("disconnected with %q", l.Reason)
			}
		})
	}
}
