package adapter_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// A ledger is a session store that forgets sessions when their time is over, and
// writes down when they are saved. Its cookies are the id and when they were
// made, and are too old after maxAge, as signed ones are.
type ledger struct {
	maxAge time.Duration
	gate   chan struct{} // if not nil, a save waits for it

	mu    sync.Mutex
	of    map[string]ledgerEntry
	saves map[string][]time.Time
}

type ledgerEntry struct {
	values  map[any]any
	expires time.Time
}

func newLedger(maxAge time.Duration) *ledger {
	return &ledger{maxAge: maxAge, of: make(map[string]ledgerEntry), saves: make(map[string][]time.Time)}
}

func (l *ledger) Options(o sessions.Options) { l.maxAge = time.Duration(o.MaxAge) * time.Second }

func (l *ledger) Get(r *http.Request, name string) (*gsessions.Session, error) {
	return gsessions.GetRegistry(r).Get(l, name)
}

func (l *ledger) New(r *http.Request, name string) (*gsessions.Session, error) {
	s := gsessions.NewSession(l, name)
	s.IsNew = true
	s.Options = &gsessions.Options{Path: "/", MaxAge: int(l.maxAge / time.Second)}
	c, err := r.Cookie(name)
	if err != nil {
		return s, nil
	}
	id, made, _ := strings.Cut(c.Value, "-")
	unix, err := strconv.ParseInt(made, 10, 64)
	if err != nil || time.Since(time.Unix(unix, 0)) > l.maxAge {
		return s, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.of[id]; ok && time.Now().Before(e.expires) {
		s.ID, s.IsNew, s.Values = id, false, maps.Clone(e.values)
	}
	return s, nil
}

func (l *ledger) Save(_ *http.Request, w http.ResponseWriter, s *gsessions.Session) error {
	if l.gate != nil && s.Options.MaxAge >= 0 {
		<-l.gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Options.MaxAge < 0 {
		delete(l.of, s.ID)
		return nil
	}
	if s.ID == "" {
		s.ID = fmt.Sprintf("s%d", len(l.saves))
	}
	l.of[s.ID] = ledgerEntry{maps.Clone(s.Values), time.Now().Add(time.Duration(s.Options.MaxAge) * time.Second)}
	l.saves[s.ID] = append(l.saves[s.ID], time.Now())
	http.SetCookie(w, gsessions.NewCookie(s.Name(), s.ID+"-"+strconv.FormatInt(time.Now().Unix(), 10), s.Options))
	return nil
}

// login makes a session of alice's and returns the Cookie header for it.
func (l *ledger) login(id string) http.Header {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of[id] = ledgerEntry{map[any]any{"usher.user": "alice", "color": "blue"}, time.Now().Add(l.maxAge)}
	return http.Header{"Cookie": {fmt.Sprintf("sid=%s-%d", id, time.Now().Unix())}}
}

// left is how long a session has to live, negative if it has ended.
func (l *ledger) left(id string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.of[id]
	if !ok {
		return -1
	}
	return time.Until(e.expires)
}

func (l *ledger) saved(id string) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.saves[id]
}

// rolls sets a server up on a store, with a counter of how often its chain runs.
func rolls(st sessions.Store, runs *atomic.Int32, after ...gin.HandlerFunc) func(*adapter.Server) {
	return func(srv *adapter.Server) {
		srv.Use(sessions.Sessions("sid", srv.Store(st)), func(*gin.Context) { runs.Add(1) })
		srv.UseOnce(after...)
		srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
			id, ok := adapter.LoggedIn(c)
			if !ok {
				return nil, nil
			}
			return &id, nil
		})
	}
}

// A tab is a plain WebSocket that is read all the time, so that its heartbeats
// are answered while a test sleeps.
type tab struct {
	*wire
	frames chan string
	ended  chan error
}

func (b *bubble) tab(header http.Header) *tab {
	b.t.Helper()
	c := &tab{b.plain(header), make(chan string, 10), make(chan error, 1)}
	go func() {
		for {
			_, data, err := c.ReadMessage()
			if err != nil {
				c.ended <- err
				return
			}
			c.frames <- string(data)
		}
	}()
	return c
}

// echo sends an event and waits for its answer.
func (c *tab) echo() {
	c.t.Helper()
	c.write(`{"type":"echo","id":1}`)
	if got := <-c.frames; got != `{"type":"reply","id":1,"data":null}` {
		c.t.Fatalf("echo was answered %s", got)
	}
}

// TestRolling: a session in use over a socket alone outlives its MaxAge, at the
// price of a save a minute and of no replay.
func TestRolling(t *testing.T) {
	for _, tt := range []struct {
		name       string
		revalidate time.Duration
	}{{"never asked again", -1}, {"asked again with the cookie as it is now", 0}} {
		t.Run(tt.name, func(t *testing.T) {
			st := newLedger(10 * time.Minute)
			var runs atomic.Int32
			inBubble(t, adapter.Config{Rolling: true, Revalidate: tt.revalidate}, rolls(st, &runs), func(t *testing.T, b *bubble) {
				cookie := st.login("a")
				one, two := b.tab(cookie), b.tab(http.Header{"Cookie": cookie["Cookie"], "X-Tab": {"2"}})
				began := runs.Load()
				for range 120 {
					one.echo()
					two.echo()
					time.Sleep(30 * time.Second)
				}
				saves := st.saved("a")
				if n := len(saves); n < 55 || n > 61 {
					t.Errorf("%d saves in an hour, want one a minute", n)
				}
				for i := 1; i < len(saves); i++ {
					if gap := saves[i].Sub(saves[i-1]); gap < time.Minute {
						t.Errorf("two saves within %v", gap)
					}
				}
				if n := runs.Load() - began; tt.revalidate < 0 && n > 2*6 {
					t.Errorf("the chain ran %d times for two sockets, want once whenever the session might have expired", n)
				}
				if v := st.of["a"].values; v["color"] != "blue" || v["usher.user"] != "alice" || len(v) != 3 { // and its end
					t.Errorf("the session holds %v now", v)
				}

				if err := <-one.ended; !websocket.IsCloseError(err, 4410) {
					t.Errorf("ended with %v, want 4410", err)
				}
				if left := st.left("a"); left > 0 || left < -time.Second {
					t.Errorf("ended when the session had %v", left)
				}
			})
		})
	}
}

// TestRollingIsOptIn: without it sessions end when they end.
func TestRollingIsOptIn(t *testing.T) {
	st := newLedger(10 * time.Minute)
	var runs atomic.Int32
	inBubble(t, adapter.Config{}, rolls(st, &runs), func(t *testing.T, b *bubble) {
		w := b.tab(st.login("a"))
		for range 19 {
			w.echo()
			time.Sleep(30 * time.Second)
		}
		if err := <-w.ended; !websocket.IsCloseError(err, 4409) {
			t.Errorf("ended with %v, want 4409", err)
		}
		if n := len(st.saved("a")); n > 0 {
			t.Errorf("%d saves", n)
		}
	})
}

// TestRollingCountsUse: heartbeats and answers are no use, and neither is a
// socket that is let in.
func TestRollingCountsUse(t *testing.T) {
	st := newLedger(10 * time.Minute)
	var runs atomic.Int32
	inBubble(t, adapter.Config{Rolling: true, Revalidate: -1}, rolls(st, &runs), func(t *testing.T, b *bubble) {
		w := b.tab(st.login("a"))
		sock := b.srv.Here("/")[0]
		for range 10 {
			done := make(chan error, 1)
			go func() {
				_, err := adapter.Call[int](context.Background(), sock, "how many")
				done <- err
			}()
			id := strings.TrimSuffix(strings.TrimPrefix(<-w.frames, `{"type":"how many","id":`), "}")
			w.write(`{"type":"reply","id":` + id + `,"data":1}`)
			if err := <-done; err != nil {
				t.Error(err)
			}
			time.Sleep(50 * time.Second)
		}
		if n := len(st.saved("a")); n > 0 {
			t.Errorf("%d saves of a socket that only answers", n)
		}
	})
}

// TestRollingKeepsMaxAge: a session that was made for longer, or for less time
// than the store's others, lives on for as long as that.
func TestRollingKeepsMaxAge(t *testing.T) {
	for _, age := range []time.Duration{time.Hour, 4 * time.Minute} {
		t.Run(age.String(), func(t *testing.T) {
			st := newLedger(10 * time.Minute)
			var runs atomic.Int32
			remember := func(c *gin.Context) {
				session := sessions.Default(c)
				session.Set("seen", "now")
				session.Options(sessions.Options{Path: "/", MaxAge: int(age / time.Second)})
				if err := session.Save(); err != nil {
					t.Error(err)
				}
			}
			inBubble(t, adapter.Config{Rolling: true, Revalidate: -1}, rolls(st, &runs, remember), func(t *testing.T, b *bubble) {
				w := b.tab(st.login("a"))
				time.Sleep(3 * time.Minute)
				w.echo()
				synctest.Wait()
				if left := st.left("a"); left != age {
					t.Errorf("after an event the session has %v, want %v", left, age)
				}
				// So it is with what a handler saves.
				time.Sleep(time.Minute)
				err := b.srv.Here("/")[0].Session().Update(t.Context(), func(v adapter.Values) error {
					v["color"] = "red"
					return nil
				})
				if left := st.left("a"); err != nil || left != age {
					t.Errorf("after Update (%v) the session has %v, want %v", err, left, age)
				}
			})
		})
	}
}

// TestRollingOfAShortLife: a session was touched once a minute even if it did not
// live for one, and ended under a socket in use.
func TestRollingOfAShortLife(t *testing.T) {
	st := newLedger(30 * time.Second)
	var runs atomic.Int32
	inBubble(t, adapter.Config{Rolling: true, Revalidate: time.Second}, rolls(st, &runs), func(t *testing.T, b *bubble) {
		w := b.tab(st.login("a"))
		for range 600 {
			w.echo()
			time.Sleep(time.Second)
		}
		if n := len(st.saved("a")); n < 38 || n > 40 {
			t.Errorf("%d saves in ten minutes, want one in 15 s", n)
		}
		if err := <-w.ended; !websocket.IsCloseError(err, 4410) || st.left("a") > 0 {
			t.Errorf("ended with %v, want 4410 when the session has ended", err)
		}
	})
}

// TestRollingNeverResurrects ends a session while it is being touched. Meanwhile
// handlers go on, and there is one touch and not two.
func TestRollingNeverResurrects(t *testing.T) {
	st := newLedger(10 * time.Minute)
	var runs atomic.Int32
	inBubble(t, adapter.Config{Rolling: true, Revalidate: -1}, rolls(st, &runs), func(t *testing.T, b *bubble) {
		st.gate = make(chan struct{})
		w := b.tab(st.login("a"))
		for range 3 {
			w.echo() // not held up by the save
			time.Sleep(time.Minute)
		}
		if n := b.srv.Left(nil, nil)["touched sessions"]; n != 1 {
			t.Errorf("%d sessions are remembered, want 1", n)
		}
		if n, err := b.srv.Revoke(t.Context(), adapter.BySession("a")); n != 1 || err != nil {
			t.Errorf("Revoke = %d, %v", n, err)
		}
		if left := st.left("a"); left >= 0 {
			t.Errorf("revoked, the session has %v", left)
		}
		st.gate <- struct{}{}
		synctest.Wait()
		select {
		case st.gate <- struct{}{}:
			t.Error("a second touch was under way")
		default:
		}
		if left := st.left("a"); left >= 0 {
			t.Errorf("after the touch the session is back, for %v", left)
		}
		time.Sleep(2 * time.Minute)
		if n := b.srv.Left(nil, nil)["touched sessions"]; n != 0 {
			t.Errorf("%d sessions are remembered after two minutes, want none", n)
		}
	})
}

// expirer is a ledger that can extend a session's life by itself.
type expirer struct {
	*ledger
	touches []string
}

func (e *expirer) Touch(_ context.Context, id string, maxAge int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.touches = append(e.touches, fmt.Sprint(id, " ", maxAge))
	return nil
}

// TestRollingByToucher: a store that can touch is not asked to save.
func TestRollingByToucher(t *testing.T) {
	st := &expirer{ledger: newLedger(10 * time.Minute)}
	var runs atomic.Int32
	inBubble(t, adapter.Config{Rolling: true, Revalidate: -1}, rolls(st, &runs), func(t *testing.T, b *bubble) {
		b.tab(st.login("a")).echo()
		synctest.Wait()
		if got := fmt.Sprint(st.touches); got != "[a 600]" || len(st.saved("a")) > 0 {
			t.Errorf("touched %s and saved %v, want a for 600 s and nothing", got, st.saved("a"))
		}
	})
}

// panicking is a store whose saves panic.
type panicking struct{ *ledger }

func (panicking) Save(*http.Request, http.ResponseWriter, *gsessions.Session) error {
	panic("a mistake of the store")
}

// TestRollingSurvivesItsStore: no store can end the program from there.
func TestRollingSurvivesItsStore(t *testing.T) {
	st := panicking{newLedger(10 * time.Minute)}
	var runs atomic.Int32
	var log syncBuffer
	cfg := adapter.Config{Rolling: true, Revalidate: -1, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	inBubble(t, cfg, rolls(st, &runs), func(t *testing.T, b *bubble) {
		w := b.tab(st.login("a"))
		w.echo()
		w.echo()
		synctest.Wait()
		if n := strings.Count(log.String(), "could not be extended"); n != 1 {
			t.Errorf("%d warnings, want one:\n%s", n, &log)
		}
	})
}

// TestRollingLeavesCookiesAlone: what the browser keeps cannot be extended.
func TestRollingLeavesCookiesAlone(t *testing.T) {
	st := newCookieStore(t)
	var runs atomic.Int32
	var made http.Header
	remember := func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set("color", "blue")
		if err := session.Save(); err != nil {
			t.Error(err)
		}
		made = c.Writer.Header().Clone()
	}
	inBubble(t, adapter.Config{Rolling: true, Revalidate: -1}, rolls(st, &runs, remember), func(t *testing.T, b *bubble) {
		w := b.tab(nil)
		if made.Get("Set-Cookie") == "" {
			t.Fatal("no session was made")
		}
		began := runs.Load()
		w.echo()
		synctest.Wait()
		if n := b.srv.Left(nil, nil)["touched sessions"]; n != 0 || runs.Load() != began {
			t.Errorf("%d sessions touched, %d runs of the chain; want none", n, runs.Load()-began)
		}
	})
}
