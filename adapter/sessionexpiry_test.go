package adapter_test

import (
	"errors"
	"maps"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// begin makes a session of alice's as the server would have saved it.
func (l *ledger) begin() http.Header {
	header := l.login("a")
	l.extend(l.maxAge)
	l.maxAge = time.Hour // of the cookie's signature
	return header
}

// extend saves the session for so long from now.
func (l *ledger) extend(life time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := ledgerEntry{maps.Clone(l.of["a"].values), time.Now().Add(life)}
	e.values["usher.expires"] = strconv.FormatInt(e.expires.UnixMilli(), 10)
	l.of["a"] = e
}

// prolong is what another program does to the database.
func (l *ledger) prolong(life time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of["a"] = ledgerEntry{l.of["a"].values, time.Now().Add(life)}
}

// forget is what another program does when somebody logs out there.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, "a")
}

// A mortalLedger is one whose database can be away.
type mortalLedger struct {
	*ledger
	dead atomic.Bool
}

func (l *mortalLedger) New(r *http.Request, name string) (*gsessions.Session, error) {
	if l.dead.Load() {
		return gsessions.NewSession(l, name), errors.New("the database is away")
	}
	return l.ledger.New(r, name)
}

func (l *mortalLedger) Get(r *http.Request, name string) (*gsessions.Session, error) {
	return gsessions.GetRegistry(r).Get(l, name)
}

// TestSessionExpiry: the end of a session is noticed when it comes, and told from
// a logout, where the session says when it is.
func TestSessionExpiry(t *testing.T) {
	const maxAge = 10 * time.Minute
	for _, tt := range []struct {
		name   string
		stale  time.Duration
		meet   func(st *mortalLedger) // what happens a minute before the end
		code   int                    // 0 for a socket that stays
		within time.Duration
	}{
		{"expires", 0, func(*mortalLedger) {}, 4410, time.Second},
		{"was deleted elsewhere, is noticed at the end", 0, func(st *mortalLedger) { st.forget() }, 4410, time.Second},
		{"was saved elsewhere", 0, func(st *mortalLedger) { st.extend(maxAge) }, 0, 0},
		{"was extended elsewhere, without a word", 0, func(st *mortalLedger) { st.prolong(maxAge) }, 0, 0},
		{"the store is away", time.Hour, func(st *mortalLedger) { st.dead.Store(true) }, 4410, time.Second},
	} {
		for _, authorization := range []string{"", "Bearer x"} {
			t.Run(tt.name+authorization, func(t *testing.T) {
				st := &mortalLedger{ledger: newLedger(maxAge)}
				var runs atomic.Int32
				inBubble(t, adapter.Config{Revalidate: -1, MaxStale: tt.stale}, rolls(st, &runs), func(t *testing.T, b *bubble) {
					header := st.begin()
					if authorization != "" {
						header.Set("Authorization", authorization)
					}
					began := time.Now()
					w := b.tab(header)
					time.Sleep(maxAge - time.Minute)
					if n := runs.Load(); n != 1 {
						t.Errorf("the chain ran %d times before the end", n)
					}
					tt.meet(st)
					code := tt.code
					if authorization != "" && tt.stale > 0 {
						code = 0 // who has shown a token does not live by the session
					}
					if code == 0 {
						select {
						case err := <-w.ended:
							t.Fatalf("ended after %v: %v", time.Since(began), err)
						case <-time.After(time.Minute + maxAge/2):
						}
						if n := runs.Load(); n > 6 && tt.stale == 0 {
							t.Errorf("the chain ran %d times", n)
						}
						return
					}
					if err := <-w.ended; !websocket.IsCloseError(err, code) {
						t.Errorf("ended with %v, want %d", err, code)
					}
					if late := time.Since(began) - maxAge; late < 0 || late > tt.within {
						t.Errorf("ended %v after the session", late)
					}
				})
			})
		}
	}
}

// TestSessionShortened: a session that is given less than it had ends when it says
// so, and not when it said before.
func TestSessionShortened(t *testing.T) {
	st := newLedger(10 * time.Minute)
	var runs atomic.Int32
	inBubble(t, adapter.Config{Revalidate: -1}, rolls(st, &runs), func(t *testing.T, b *bubble) {
		w := b.tab(st.begin())
		time.Sleep(time.Minute)
		st.extend(30 * time.Second)
		if err := b.srv.Refresh(t.Context(), adapter.BySession("a")); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := <-w.ended; !websocket.IsCloseError(err, 4410) {
			t.Errorf("ended with %v, want 4410", err)
		}
		if after := time.Since(began); after < 30*time.Second || after > 31*time.Second {
			t.Errorf("ended after %v, want 30 s", after)
		}
	})
}

// TestSessionExpiresWhileAsked: the chain may take so long that the session which it
// has loaded is long over, and then nobody would look again.
func TestSessionExpiresWhileAsked(t *testing.T) {
	for _, asked := range []string{"in the handshake", "in a replay"} {
		t.Run(asked, func(t *testing.T) {
			st := newLedger(10 * time.Minute)
			var runs atomic.Int32
			var slow atomic.Bool
			setup := func(srv *adapter.Server) {
				rolls(st, &runs)(srv)
				srv.Use(func(c *gin.Context) {
					if slow.Swap(false) {
						sessions.Default(c).Get("usher.user") // from here on it is loaded
						time.Sleep(9 * time.Second)
					}
				})
			}
			inBubble(t, adapter.Config{Revalidate: -1}, setup, func(t *testing.T, b *bubble) {
				header := st.begin()
				var w *tab
				if asked == "in the handshake" {
					st.extend(2 * time.Second)
					slow.Store(true)
					w = b.tab(header)
				} else {
					w = b.tab(header)
					time.Sleep(time.Second)
					st.extend(2 * time.Second)
					slow.Store(true)
					if err := b.srv.Refresh(t.Context(), adapter.BySession("a")); err != nil {
						t.Fatal(err)
					}
				}
				select {
				case err := <-w.ended:
					if !websocket.IsCloseError(err, 4409, 4410) {
						t.Errorf("ended with %v, want 4409 or 4410", err)
					}
				case <-time.After(time.Minute):
					t.Error("the socket has outlived its session by a minute")
				}
			})
		})
	}
}

// TestSessionFoundLate: a store that hides that its database is away lets somebody in
// as nobody. Once it finds the session, they are who it says, and it can be ended.
func TestSessionFoundLate(t *testing.T) {
	st := newLedger(10 * time.Minute)
	var runs atomic.Int32
	inBubble(t, adapter.Config{}, rolls(st, &runs), func(t *testing.T, b *bubble) {
		header := st.begin()
		there := st.of["a"]
		st.forget()
		w := b.tab(header)
		st.mu.Lock()
		st.of["a"] = there
		st.mu.Unlock()
		time.Sleep(time.Minute)
		if n, err := b.srv.Revoke(t.Context(), adapter.BySession("a")); n != 1 || err != nil {
			t.Errorf("Revoke has closed %d sockets (%v), want 1", n, err)
		}
		select {
		case err := <-w.ended:
			if !websocket.IsCloseError(err, 4409) {
				t.Errorf("ended with %v, want 4409", err)
			}
		case <-time.After(time.Second):
			t.Error("the socket has outlived its session")
		}
	})
}

// TestSessionEndedBeforeItExpired: what ends a session before its time is a logout.
func TestSessionEndedBeforeItExpired(t *testing.T) {
	st := newLedger(10 * time.Minute)
	var runs atomic.Int32
	inBubble(t, adapter.Config{}, rolls(st, &runs), func(t *testing.T, b *bubble) {
		w := b.tab(st.begin())
		time.Sleep(5 * time.Minute)
		st.forget()
		if err := <-w.ended; !websocket.IsCloseError(err, 4409) {
			t.Errorf("ended with %v, want 4409", err)
		}
	})
}
