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

// TestHandshakeMeetsChanges: who is saved or refreshed while a handshake is under way
// has its socket looked at again. Others cost it neither a replay nor the wait for the
// gap after that.
func TestHandshakeMeetsChanges(t *testing.T) {
	for _, tt := range []struct {
		name    string
		saves   []string
		refresh []adapter.Who
		runs    int32
	}{
		{"none", nil, nil, 1},
		{"its session is saved", []string{"a"}, nil, 2},
		{"another's", []string{"b"}, nil, 1},
		{"another's, its own, another's", []string{"b", "a", "b"}, nil, 2},
		{"as many as are remembered", slices.Repeat([]string{"b"}, 64), nil, 1},
		{"more", slices.Repeat([]string{"b"}, 65), nil, 2},
		{"its user", nil, []adapter.Who{adapter.ByUser("alice")}, 2},
		{"its provider", nil, []adapter.Who{adapter.ByProvider("github")}, 2},
		{"its session", nil, []adapter.Who{adapter.BySession("a")}, 2},
		{"its token", nil, []adapter.Who{adapter.ByToken("alice-token")}, 2},
		{"others", nil, []adapter.Who{
			adapter.ByUser("bob"), adapter.ByUser("github"), adapter.ByProvider("alice"),
			adapter.BySession("b"), adapter.ByToken("bob-token"),
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := newLedger(time.Hour)
			var runs atomic.Int32
			inBubble(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
				wrapped := srv.Store(st)
				srv.Use(sessions.Sessions("sid", wrapped), func(*gin.Context) { runs.Add(1) })
				srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
					id, _ := adapter.LoggedIn(c)
					id.Provider = "github"
					return &id, nil
				})
				srv.UseOnce(func(c *gin.Context) {
					_ = sessions.Default(c).Get("it is loaded")
					for _, w := range tt.refresh {
						if err := srv.Refresh(c, w); err != nil {
							t.Error(err)
						}
					}
					for _, id := range tt.saves {
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
				header := st.login("a")
				header.Set("Authorization", "Bearer alice-token")
				b.tab(header)
				time.Sleep(time.Minute)
				if n := runs.Load(); n != tt.runs {
					t.Errorf("the chain ran %d times, want %d", n, tt.runs)
				}
			})
		})
	}
}

// TestReplayMeetsRefresh: whom a replay finds cannot be found by that yet. It may have
// read what was before, where they are refreshed meanwhile.
func TestReplayMeetsRefresh(t *testing.T) {
	for _, tt := range []struct {
		meant adapter.Who
		role  string
	}{
		{adapter.ByUser("bob"), "now"},
		{adapter.ByProvider("github"), "now"},
		{adapter.ByUser("carol"), "before"},
	} {
		t.Run(fmt.Sprint(tt.meant), func(t *testing.T) {
			st := newLedger(time.Hour)
			var user, role atomic.Value
			user.Store("")
			role.Store("before")
			inBubble(t, adapter.Config{Revalidate: -1}, func(srv *adapter.Server) {
				srv.Use(sessions.Sessions("sid", srv.Store(st)))
				srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
					_ = sessions.Default(c).Get("it is loaded")
					if user.Load() == "" {
						return nil, nil
					}
					id := &adapter.Identity{UserID: user.Load().(string), Provider: "github", Roles: []string{role.Load().(string)}}
					if role.CompareAndSwap("before", "now") {
						return id, srv.Refresh(c, tt.meant)
					}
					return id, nil
				})
			}, func(t *testing.T, b *bubble) {
				b.tab(st.login("a"))
				user.Store("bob")
				if err := b.srv.Refresh(t.Context(), adapter.BySession("a")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				for _, s := range b.srv.Here("/") {
					if id := s.Identity(); id == nil || id.UserID != "bob" || id.Roles[0] != tt.role {
						t.Errorf("the socket is %v, want bob with the role %q", id, tt.role)
					}
				}
				if n := len(b.srv.Here("/")); n != 1 {
					t.Errorf("%d sockets, want 1", n)
				}
			})
		})
	}
}
