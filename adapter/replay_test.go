package adapter_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// TestReplaysAreCoalesced: a page that saves its session 1,000 times a second, with
// 100 sockets of the browser on it, costs 4 runs of the chain a second; and what
// it has saved last is seen.
func TestReplaysAreCoalesced(t *testing.T) {
	const tabs, seconds, perSecond = 100, 5, 1000
	st := newLedger(time.Hour)
	var runs atomic.Int32
	var wrapped sessions.Store
	inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
		wrapped = srv.Store(st)
		srv.Use(sessions.Sessions("sid", wrapped), func(*gin.Context) { runs.Add(1) })
		srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
			id, ok := adapter.LoggedIn(c)
			if !ok {
				return nil, nil
			}
			role, _ := sessions.Default(c).Get("role").(string)
			id.Roles = []string{role}
			return &id, nil
		})
	}, func(t *testing.T, b *bubble) {
		cookie := st.login("a")
		for range tabs {
			b.tab(cookie)
		}
		time.Sleep(time.Second)
		began := runs.Load()
		var last string
		for i := range seconds * perSecond {
			last = fmt.Sprint("role ", i)
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/save", nil)
			r.Header = cookie.Clone()
			session, err := wrapped.Get(r, "sid")
			if err != nil {
				t.Fatal(err)
			}
			session.Values["role"] = last
			if err := session.Save(r, httptest.NewRecorder()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second / perSecond)
		}
		if n := int(runs.Load() - began); n > 4*seconds+1 || n < 4*seconds-2 {
			t.Errorf("%d runs of the chain in %d s, want 4 a second", n, seconds)
		}
		time.Sleep(400 * time.Millisecond) // a gap, and the grain of the timers
		if n := int(runs.Load() - began); n > 4*seconds+2 {
			t.Errorf("%d runs of the chain with the trailing one, want %d at most", n, 4*seconds+2)
		}
		socks := b.srv.Here("/")
		if len(socks) != tabs {
			t.Fatalf("%d sockets, want %d", len(socks), tabs)
		}
		for _, s := range socks {
			if roles := s.Identity().Roles; len(roles) != 1 || roles[0] != last {
				t.Fatalf("a socket has the roles %v, want %s", roles, last)
			}
		}
	})
}

// TestReplaysAreSpread: sockets that came together are not asked together. The first
// time they are asked within half an interval, so twice the average is what to expect.
func TestReplaysAreSpread(t *testing.T) {
	const people, window = 1000, 250 * time.Millisecond
	var mu sync.Mutex
	runs := make(map[time.Duration]int) // by window
	replayed := make(map[string]int)
	var start time.Time
	inBubble(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.Use(func(c *gin.Context) {
			if !adapter.Replaying(c.Request.Context()) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			runs[time.Since(start)/window]++
			replayed[c.GetHeader("X-User")]++
		})
		srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
			return &adapter.Identity{UserID: c.GetHeader("X-User")}, nil
		})
	}, func(t *testing.T, b *bubble) {
		start = time.Now()
		for i := range people {
			b.tab(http.Header{"X-User": {fmt.Sprint("user", i)}})
		}
		if took := time.Since(start); took > 0 {
			t.Fatalf("they came within %v, want all at once", took)
		}
		const intervals = 4
		time.Sleep(intervals * 30 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		total, most := 0, 0
		for _, n := range runs {
			total += n
			most = max(most, n)
		}
		average := float64(total) / (intervals * 30 * float64(time.Second/window))
		if float64(most) > 6*average {
			t.Errorf("%d runs of the chain within %v, the average is %.1f", most, window, average)
		}
		for user, n := range replayed {
			if n < intervals-1 || n > 2*intervals {
				t.Errorf("%s was asked about %d times in %d intervals", user, n, intervals)
			}
		}
		if len(replayed) != people {
			t.Errorf("%d of %d were asked about", len(replayed), people)
		}
	})
}

// TestHandshakeMeetsSaves: what is saved while a handshake is under way has its
// socket looked at again if it is its session. Other people's saves used to cost it a
// replay as well, and the wait for the gap after that.
func TestHandshakeMeetsSaves(t *testing.T) {
	for _, tt := range []struct {
		name  string
		saves []string
		runs  int32
	}{
		{"none", nil, 1},
		{"its own", []string{"a"}, 2},
		{"another's", []string{"b"}, 1},
		{"another's, its own, another's", []string{"b", "a", "b"}, 2},
		{"as many as are remembered", slices.Repeat([]string{"b"}, 64), 1},
		{"more", slices.Repeat([]string{"b"}, 65), 2},
		{"somebody's roles", []string{""}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := newLedger(time.Hour)
			var runs atomic.Int32
			inBubble(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
				wrapped := srv.Store(st)
				srv.Use(sessions.Sessions("sid", wrapped), func(*gin.Context) { runs.Add(1) })
				srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
					id, _ := adapter.LoggedIn(c)
					return &id, nil
				})
				srv.UseOnce(func(c *gin.Context) {
					_ = sessions.Default(c).Get("it is loaded")
					for _, id := range tt.saves {
						if id == "" {
							if err := srv.Refresh(c, adapter.ByUser("carol")); err != nil {
								t.Error(err)
							}
							continue
						}
						r := httptest.NewRequest("POST", "/save", nil) // of a page, with a context of its own
						r.Header = st.login(id)
						session, err := wrapped.Get(r, "sid")
						if err == nil {
							err = session.Save(r, httptest.NewRecorder())
						}
						if err != nil {
							t.Error(err)
						}
					}
				})
			}, func(t *testing.T, b *bubble) {
				b.tab(st.login("a"))
				time.Sleep(time.Minute)
				if n := runs.Load(); n != tt.runs {
					t.Errorf("the chain ran %d times, want %d", n, tt.runs)
				}
			})
		})
	}
}
