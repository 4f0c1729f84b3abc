package adapter_test

import (
	"net/http"
	"sync"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter/adaptertest"
)

// tries bounds the search for a leak in naive code. Gin's contexts are pooled
// per processor, so a given try may miss.
const tries = 300

// naive is what people write without the adapter: upgrade in a route, keep the
// context or the session, return. Its leaks show that the tests of the adapter
// look where the danger is.
type naive struct {
	URL    string
	gate   *adaptertest.Gate
	events chan func(c *gin.Context, s sessions.Session) string
}

func newNaive(t *testing.T) *naive {
	t.Helper()
	return newNaiveOn(t, newMemstore(t))
}

func newNaiveOn(t *testing.T, st sessions.Store) *naive {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	n := &naive{gate: adaptertest.NewGate(), events: make(chan func(*gin.Context, sessions.Session) string)}
	e := gin.New()
	e.Use(sessions.Sessions("sid", st))
	e.POST("/login", func(c *gin.Context) {
		s := sessions.Default(c)
		s.Set("user", c.Query("user"))
		_ = s.Save()
	})
	e.POST("/set", func(c *gin.Context) {
		s := sessions.Default(c)
		s.Set(c.Query("key"), c.Query("value"))
		_ = s.Save()
	})
	e.POST("/logout", func(c *gin.Context) {
		s := sessions.Default(c)
		s.Options(sessions.Options{Path: "/", MaxAge: -1})
		_ = s.Save()
	})
	e.GET("/me", func(c *gin.Context) {
		user, _ := sessions.Default(c).Get("user").(string)
		c.String(http.StatusOK, user)
	})
	e.GET("/stranger", func(c *gin.Context) {
		c.Set("user", "stranger")
		n.gate.Pass()
		c.String(http.StatusOK, "hello")
	})
	var up websocket.Upgrader
	var wg sync.WaitGroup
	e.GET("/socket", func(c *gin.Context) {
		s := sessions.Default(c)
		c.Set("user", s.Get("user"))
		ws, err := up.Upgrade(c.Writer, c.Request, nil)
		if err != nil {
			return
		}
		wg.Go(func() {
			defer ws.Close()
			for {
				if _, _, err := ws.ReadMessage(); err != nil {
					return
				}
				answer := (<-n.events)(c, s)
				if ws.WriteMessage(websocket.TextMessage, []byte(`{"type":"`+answer+`"}`)) != nil {
					return
				}
			}
		})
	})
	n.URL = adaptertest.Serve(t, e)
	t.Cleanup(wg.Wait)
	return n
}

// do lets the socket's goroutine run f and returns its answer.
func (n *naive) do(c *adaptertest.Conn, f func(*gin.Context, sessions.Session) string) string {
	c.Raw("do")
	n.events <- f
	return c.Next().Type
}

// open opens a socket of alice's whose handler has returned.
func (n *naive) open(t *testing.T) (*adaptertest.Browser, *adaptertest.Conn) {
	t.Helper()
	alice := adaptertest.NewBrowser(t, n.URL)
	alice.MustPost("/login?user=alice")
	c, _, err := alice.TryDial("/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	return alice, c
}

// during runs f while a stranger's request is in flight, and returns the
// cookies that the stranger got.
func (n *naive) during(t *testing.T, f func()) (cookies []*http.Cookie) {
	t.Helper()
	stranger := adaptertest.NewBrowser(t, n.URL)
	var wg sync.WaitGroup
	wg.Go(func() { stranger.Get("/stranger") })
	<-n.gate.Entered
	f()
	n.gate.Release <- struct{}{}
	wg.Wait()
	return stranger.Cookies()
}

func TestP01NaiveSessionSaveLogsStrangersIn(t *testing.T) {
	skipRace(t)
	n := newNaive(t)
	_, c := n.open(t)
	for range tries {
		got := n.during(t, func() {
			n.do(c, func(_ *gin.Context, s sessions.Session) string {
				s.Set("seen", "yes")
				_ = s.Save()
				return "saved"
			})
		})
		if len(got) > 0 {
			return
		}
	}
	t.Fatalf("no stranger was logged in within %d tries: this test no longer shows the danger", tries)
}

func TestP02NaiveContextBecomesSomebodyElse(t *testing.T) {
	skipRace(t)
	n := newNaive(t)
	_, c := n.open(t)
	for range tries {
		var user string
		n.during(t, func() {
			user = n.do(c, func(c *gin.Context, _ sessions.Session) string { return c.GetString("user") })
		})
		if user == "stranger" {
			return
		}
	}
	t.Fatalf("alice's context stayed hers for %d tries: this test no longer shows the danger", tries)
}

func TestP03NaiveSessionIsStale(t *testing.T) {
	n := newNaive(t)
	alice, c := n.open(t)
	alice.MustPost("/set?key=role&value=admin")
	read := func(key string) string {
		return n.do(c, func(_ *gin.Context, s sessions.Session) string {
			v, _ := s.Get(key).(string)
			return "is " + v
		})
	}
	if got := read("role"); got != "is " {
		t.Errorf("role %q: the naive session saw the change", got)
	}
	alice.MustPost("/logout")
	if got := read("user"); got != "is alice" {
		t.Errorf("user %q: the naive session saw the logout", got)
	}
}

func TestP04NaiveSaveBringsSessionBack(t *testing.T) {
	n := newNaive(t)
	alice, c := n.open(t)
	thief := alice.Clone()
	alice.MustPost("/logout")
	if _, user := thief.Get("/me"); user != "" {
		t.Fatalf("user %q right after logout", user)
	}
	n.do(c, func(_ *gin.Context, s sessions.Session) string {
		s.Set("seen", "yes")
		s.Options(sessions.Options{Path: "/", MaxAge: 3600})
		_ = s.Save()
		return "saved"
	})
	if _, user := thief.Get("/me"); user != "alice" {
		t.Errorf("the old cookie is %q, want alice: this test no longer shows the danger", user)
	}
}

func TestP06NaiveCookieOutlivesLogout(t *testing.T) {
	n := newNaiveOn(t, newCookieStore(t))
	alice, _ := n.open(t)
	thief := alice.Clone()
	alice.MustPost("/logout")
	if _, user := thief.Get("/me"); user != "alice" {
		t.Errorf("the old cookie is %q, want alice: this test no longer shows the danger", user)
	}
}

func TestP16NaiveCopyIsGoodForLittle(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	kept := make(chan *gin.Context, 1)
	e := gin.New()
	e.GET("/", func(c *gin.Context) { kept <- c.Copy() })
	if status, _ := adaptertest.NewBrowser(t, adaptertest.Serve(t, e)).Get("/"); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	c := <-kept
	<-c.Request.Context().Done()
	for name, f := range map[string]func(){
		"Header":    func() { c.Header("X-Seen", "yes") },
		"SetCookie": func() { c.SetCookie("seen", "yes", 60, "/", "", false, true) },
		"many Next": func() {
			for range 100 {
				c.Next()
			}
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s did not panic: this test no longer shows the danger", name)
				}
			}()
			f()
		}()
	}
}

func TestP21NaiveUpgradeAdmitsAnybody(t *testing.T) {
	n := newNaive(t)
	for name, header := range map[string]http.Header{"no cookie": nil, "a forged one": {"Cookie": {"sid=forged"}}} {
		c, _, err := adaptertest.NewBrowser(t, n.URL).TryDial("/socket", header)
		if err != nil {
			t.Errorf("%s: %v: this test no longer shows the danger", name, err)
			continue
		}
		if user := n.do(c, func(_ *gin.Context, s sessions.Session) string { v, _ := s.Get("user").(string); return "is " + v }); user != "is " {
			t.Errorf("%s: user %q", name, user)
		}
	}
}

func TestP23NaiveLoginKeepsPlantedSession(t *testing.T) {
	n := newNaive(t)
	attacker := adaptertest.NewBrowser(t, n.URL)
	attacker.MustPost("/set?key=planted&value=evil")
	bob := attacker.Clone()
	bob.MustPost("/login?user=bob")
	if _, user := attacker.Get("/me"); user != "bob" {
		t.Errorf("the planted cookie is %q, want bob: this test no longer shows the danger", user)
	}
}
