package adapter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

const ws = "/socket.io/ws"

// rounds is how often a leak is looked for where the naive code shows one
// within tries.
const rounds = 100

// addStranger adds a page that waits in its handler, so that its pooled
// context is in use while a socket acts.
func addStranger(s *adaptertest.Site) {
	s.Engine.GET("/stranger", func(c *gin.Context) {
		c.Set("user", "stranger")
		s.Slow.Pass()
		c.String(http.StatusOK, "hello")
	})
}

// during runs f while a stranger's request is in flight, and returns the
// cookies that the stranger got.
func during(t *testing.T, s *adaptertest.Site, f func()) []*http.Cookie {
	t.Helper()
	stranger := s.NewBrowser(t, "")
	var wg sync.WaitGroup
	wg.Go(func() { stranger.Get("/stranger") })
	<-s.Slow.Entered
	f()
	s.Slow.Release <- struct{}{}
	wg.Wait()
	return stranger.Cookies()
}

func TestP01SessionUpdateReachesNoStranger(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), addStranger)
	c := s.NewBrowser(t, "alice").Dial(ws)
	for range rounds {
		if got := during(t, s, func() { c.Must("count", map[string]string{"key": "n"}, nil) }); len(got) > 0 {
			t.Fatalf("a stranger got the cookies %v", got)
		}
	}
}

// overEach runs a test for each transport, all at the same time.
func overEach(t *testing.T, test func(t *testing.T, way adaptertest.Way)) {
	t.Helper()
	var all sync.WaitGroup
	for _, tr := range adaptertest.Transports {
		all.Go(func() {
			t.Run(string(tr), func(t *testing.T) { test(t, adaptertest.Way{Transport: tr}) })
		})
	}
	all.Wait()
}

func TestP02HandlerKeepsItsOwnUser(t *testing.T) { overEach(t, handlerKeepsItsOwnUser) }

func handlerKeepsItsOwnUser(t *testing.T, way adaptertest.Way) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		addStranger(s)
		s.Server.Use(func(c *gin.Context) { c.Set("user", "alice, from a middleware") })
		adapter.Handle(s.Server, "key", func(ctx context.Context, _ *adapter.Socket, _ struct{}) (any, error) {
			return ctx.Value("user"), nil
		})
	})
	c := s.NewBrowser(t, "alice").Connect(way)
	for range rounds {
		during(t, s, func() {
			if f := c.Call("me", nil); string(f.Data) != `"alice"` {
				t.Fatalf("me = %s, want alice", f)
			}
			if f := c.Call("key", nil); string(f.Data) != `"alice, from a middleware"` {
				t.Fatalf("key = %s, want what alice's middleware set", f)
			}
		})
	}
}

func TestP02NothingOfGinIsKept(t *testing.T) { overEach(t, nothingOfGinIsKept) }

func nothingOfGinIsKept(t *testing.T, way adaptertest.Way) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.Use(func(c *gin.Context) {
			c.Set("context", c)
			c.Set("writer", c.Writer)
			c.Set("request", c.Request)
			c.Set("request context", c.Request.Context())
			c.Set("color", "blue")
		})
		adapter.Handle(s.Server, "kept", func(_ context.Context, sock *adapter.Socket, key string) (bool, error) {
			_, ok := sock.Get(key)
			return ok, nil
		})
	})
	c := s.NewBrowser(t, "alice").Connect(way)
	for _, key := range []string{"context", "writer", "request", "request context", sessions.DefaultKey} {
		if f := c.Call("kept", key); string(f.Data) != "false" {
			t.Errorf("%q outlives the handshake", key)
		}
	}
	if f := c.Call("kept", "color"); string(f.Data) != "true" {
		t.Errorf("color = %s, want it kept", f)
	}
}

func TestP08PanicInHandlerIsAnError(t *testing.T) { overEach(t, panicInHandlerIsAnError) }

func panicInHandlerIsAnError(t *testing.T, way adaptertest.Way) {
	var logged syncBuffer
	logger := slog.New(slog.NewTextHandler(&logged, nil))
	s := adaptertest.NewSite(t, adapter.Config{Logger: logger}, newMemstore(t), func(s *adaptertest.Site) {
		adapter.On(s.Server, "panic", func(context.Context, *adapter.Socket, struct{}) error { panic("secret detail") })
	})
	c := s.NewBrowser(t, "alice").Connect(way)
	f := c.Call("panic", nil)
	if f.Error == nil || f.Error.Code != adapter.CodeInternal {
		t.Errorf("panic = %s, want the error internal", f)
	}
	if strings.Contains(f.String(), "secret") {
		t.Errorf("the panic's text reached the client: %s", f)
	}
	if f := c.Call("me", nil); string(f.Data) != `"alice"` {
		t.Errorf("me after the panic = %s, want alice", f)
	}
	if out := logged.String(); !strings.Contains(out, "secret detail") || !strings.Contains(out, "pitfalls_test.go") {
		t.Errorf("the log has no panic with its stack: %s", out)
	}
}

// commitOnHeader is what scs does: its cookie exists only once the status is
// written through it.
type commitOnHeader struct {
	gin.ResponseWriter
}

func (w *commitOnHeader) WriteHeader(status int) {
	w.Header().Add("Set-Cookie", "committed=yes; Path=/")
	w.ResponseWriter.WriteHeader(status)
}

func TestP09HeadersReachTheUpgrade(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Engine.Use(func(c *gin.Context) {
			c.Header("X-Above", "yes")
			c.SetCookie("above", "1", 60, "/", "", false, true)
		})
		s.Server.AllowAnonymous()
		s.Server.UseEach(func(c *gin.Context) {
			c.Header("X-Chain", "yes")
			c.Header("Content-Encoding", "gzip")
			c.Header("Sec-WebSocket-Protocol", "forged")
		})
		s.Server.UseOnce(func(c *gin.Context) {
			session := sessions.Default(c)
			session.Set("visits", "1")
			if err := session.Save(); err != nil {
				t.Error(err)
			}
			c.Next()
			c.Header("X-Late", "yes")
		}, func(c *gin.Context) { c.Writer = &commitOnHeader{c.Writer} })
	})
	b := s.NewBrowser(t, "")
	_, resp, err := b.TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"X-Above", "X-Chain", "X-Late"} {
		if resp.Header.Get(name) != "yes" {
			t.Errorf("%s is not on the 101: %v", name, resp.Header)
		}
	}
	for _, name := range []string{"Content-Encoding", "Sec-WebSocket-Protocol"} {
		if got := resp.Header.Get(name); got != "" {
			t.Errorf("%s: %s is on the 101", name, got)
		}
	}
	got := make(map[string]bool)
	for _, c := range resp.Cookies() {
		got[c.Name] = true
	}
	for _, name := range []string{"above", "sid", "committed"} {
		if !got[name] {
			t.Errorf("cookie %q is not on the 101: %v", name, resp.Header["Set-Cookie"])
		}
	}
}

func TestP09CookieSetByTheHandshakeIsTheSocketsSession(t *testing.T) {
	overEach(t, cookieSetByTheHandshake)
}

func cookieSetByTheHandshake(t *testing.T, way adaptertest.Way) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.AllowAnonymous()
		s.Server.UseOnce(func(c *gin.Context) {
			session := sessions.Default(c)
			session.Set("color", "blue")
			if err := session.Save(); err != nil {
				t.Error(err)
			}
		})
	})
	b := s.NewBrowser(t, "")
	c := b.Connect(way)
	if f := c.Call("get", map[string]string{"key": "color"}); string(f.Data) != `"blue"` {
		t.Errorf("get color = %s, want blue", f)
	}
}

func TestP10LoggersSee101AndAShortHandshake(t *testing.T) {
	type line struct {
		status int
		took   time.Duration
	}
	above, inside := make(chan line, 1), make(chan line, 1)
	logger := func(to chan line) gin.HandlerFunc {
		return func(c *gin.Context) {
			if c.FullPath() != ws {
				return
			}
			start := time.Now()
			c.Next()
			to <- line{c.Writer.Status(), time.Since(start)}
		}
	}
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Engine.Use(logger(above))
		s.Server.UseOnce(logger(inside))
	})
	opened := time.Now()
	c := s.NewBrowser(t, "alice").Dial(ws)
	// Both lines are there while the socket is open: they are about the
	// handshake, not about the connection.
	for name, lines := range map[string]chan line{"above the route": above, "in the chain": inside} {
		got := <-lines
		if got.status != http.StatusSwitchingProtocols {
			t.Errorf("a logger %s saw status %d, want 101", name, got.status)
		}
		if got.took > time.Since(opened) {
			t.Errorf("a logger %s saw a handshake of %v", name, got.took)
		}
	}
	c.Must("me", nil, nil)
}

func TestP10LoggersSeeTheStatusOfARefusal(t *testing.T) {
	statuses := make(chan int, 2)
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		seen := func(c *gin.Context) {
			c.Next()
			statuses <- c.Writer.Status()
		}
		s.Engine.Use(seen)
		s.Server.UseOnce(seen)
	})
	if _, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, nil); err == nil {
		t.Fatal("a socket without a login was admitted")
	}
	for range 2 {
		if got := <-statuses; got != http.StatusUnauthorized {
			t.Errorf("a logger saw status %d, want 401", got)
		}
	}
}

func TestP11LateWritesDoNotReachTheSocket(t *testing.T) {
	var netLog bytes.Buffer
	late := func(c *gin.Context) {
		c.Next()
		if c.FullPath() != ws {
			return
		}
		c.JSON(http.StatusOK, gin.H{"late": true})
		c.String(http.StatusOK, "late")
		c.Writer.Flush()
		c.Header("X-Late", "yes")
		c.Redirect(http.StatusFound, "/late")
	}
	gin.SetMode(gin.ReleaseMode)
	srv, err := adapter.New(adapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	srv.AllowAnonymous()
	srv.UseOnce(late)
	adapter.Handle(srv, "echo", func(_ context.Context, _ *adapter.Socket, in string) (string, error) { return in, nil })
	e := gin.New()
	e.Use(late)
	srv.Mount(e)
	ts := httptest.NewUnstartedServer(e)
	ts.Config.ErrorLog = log.New(&netLog, "", 0)
	ts.Start()
	b := adaptertest.NewBrowser(t, ts.URL)
	c := b.Dial(ws)
	for _, text := range []string{"one", "two", "three"} {
		var got string
		if c.Must("echo", text, &got); got != text {
			t.Errorf("echo = %q, want %q", got, text)
		}
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	ts.Close()
	if netLog.Len() > 0 {
		t.Errorf("net/http complains: %s", netLog.String())
	}
}

func TestP14Refusals(t *testing.T) { overEach(t, refusals) }

func refusals(t *testing.T, way adaptertest.Way) {
	path := map[adaptertest.Transport]string{
		adaptertest.Plain: ws, adaptertest.WebSocket: "/socket.io/?EIO=4&transport=websocket", adaptertest.Polling: enginePath,
	}[way.Transport]
	for _, tt := range []struct {
		name   string
		mw     gin.HandlerFunc
		status int
		body   string
	}{
		{"abort with JSON", func(c *gin.Context) { c.AbortWithStatusJSON(401, gin.H{"error": "who?"}) }, 401, `{"error":"who?"}`},
		{"JSON without abort", func(c *gin.Context) { c.JSON(401, gin.H{"error": "who?"}) }, 401, `{"error":"who?"}`},
		{"status without abort", func(c *gin.Context) { c.Status(401) }, 401, `"unauthenticated"`},
		{"abort with status", func(c *gin.Context) { c.AbortWithStatus(403) }, 403, `"forbidden"`},
		{"bare abort", func(c *gin.Context) { c.Abort() }, 403, `"forbidden"`},
		{"redirect", func(c *gin.Context) { c.Redirect(302, "/login"); c.Abort() }, 401, "/login"},
		{"teapot", func(c *gin.Context) { c.String(418, "short and stout"); c.Abort() }, 418, "short and stout"},
		{"broken", func(c *gin.Context) { c.AbortWithStatus(500) }, 500, `"unavailable"`},
		{"too many", func(c *gin.Context) { c.AbortWithStatus(429) }, 429, `"too_fast"`},
		{"panic", func(*gin.Context) { panic("broken") }, 503, `"unavailable"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, newMemstore(t), func(s *adaptertest.Site) {
				s.Server.UseOnce(func(c *gin.Context) { c.Header("X-Chain", "yes") }, tt.mw)
			})
			var status int
			var body string
			var header http.Header
			alice := s.NewBrowser(t, "alice")
			if way.Transport == adaptertest.Polling {
				status, body, header = engineDo(t, alice, "GET", path, "", nil)
			} else {
				_, resp, err := alice.TryDial(path, nil)
				if err == nil {
					t.Fatal("admitted")
				}
				got, _ := io.ReadAll(resp.Body)
				status, body, header = resp.StatusCode, string(got), resp.Header
			}
			if status != tt.status || !strings.Contains(body, tt.body) {
				t.Errorf("%d %s, want %d with %s", status, body, tt.status, tt.body)
			}
			if tt.name != "panic" && header.Get("X-Chain") != "yes" {
				t.Errorf("the chain's headers are lost: %v", header)
			}
		})
	}
}

// TestP14RefusalsAboveTheRoute: so is one without Abort by a middleware above the
// sockets' route, after which Gin goes on, and by one of UseEach before polls and posts.
func TestP14RefusalsAboveTheRoute(t *testing.T) {
	refusing := func(refuse gin.HandlerFunc) gin.HandlerFunc {
		return func(c *gin.Context) {
			if c.GetHeader("X-Refuse") != "" {
				refuse(c)
			}
		}
	}
	for name, refuse := range map[string]gin.HandlerFunc{
		"status without abort": func(c *gin.Context) { c.Status(401) },
		"JSON without abort":   func(c *gin.Context) { c.JSON(401, gin.H{"error": "who?"}) },
		"bare abort":           func(c *gin.Context) { c.Abort() },
	} {
		for _, above := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, above %v", name, above), func(t *testing.T) {
				s := openSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, func(srv *adapter.Server) {
					if !above {
						srv.UseEach(refusing(refuse))
					}
				})
				srv, site := s.Server, s.URL
				if above {
					srv = startBare(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, func(srv *adapter.Server) { srv.AllowAnonymous() })
					r := gin.New()
					r.Use(refusing(refuse))
					srv.Mount(r)
					site = adaptertest.Serve(t, r)
				}
				b := adaptertest.NewBrowser(t, site)
				header := http.Header{"X-Refuse": {"yes"}}
				if _, _, err := b.TryDial(ws, header); err == nil {
					t.Error("a plain WebSocket is admitted")
				}
				if _, body, _ := engineDo(t, b, "GET", enginePath, "", header); strings.Contains(body, `"sid"`) {
					t.Errorf("a handshake of Engine.IO: %s", body)
				}
				_, open, _ := engineDo(t, b, "GET", enginePath, "", nil)
				path := enginePath + "&sid=" + open[strings.Index(open, `:"`)+2:strings.Index(open, `",`)]
				status, body, _ := engineDo(t, b, "POST", path, "40", header)
				if bare := above && name == "bare abort"; !bare && status < 400 || strings.HasSuffix(body, "ok") {
					t.Errorf("a POST: %d %s", status, body)
				}
				engineDo(t, b, "POST", path, "40", nil)
				if status, body, _ := engineDo(t, b, "GET", path, "", nil); status != http.StatusOK || strings.Count(body, "40{") != 1 {
					t.Errorf("a poll: %d %s", status, body)
				}
				if open := srv.Open(); open != 1 {
					t.Errorf("%d sockets are open, want 1", open)
				}
			})
		}
	}
}

// TestP14LimiterIsNoDeadStore: OnRefused is told what the client is told.
func TestP14LimiterIsNoDeadStore(t *testing.T) {
	told := make(chan error, 1)
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.UseOnce(func(c *gin.Context) { c.AbortWithStatus(http.StatusTooManyRequests) })
		srv.OnRefused(func(_ context.Context, _ *adapter.Handshake, err error) { told <- err })
	})
	if _, resp, err := s.NewBrowser(t, "").TryDial(ws, nil); err == nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("%v, want 429", err)
	}
	if e, _ := errors.AsType[*adapter.Error](<-told); e == nil || e.Code != adapter.CodeTooFast {
		t.Errorf("OnRefused was told %v", e)
	}
}

func TestP14RefusalInBand(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
	c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws+"?refusals=close", nil)
	if err != nil {
		t.Fatal(err)
	}
	if f := c.Next(); f.Error == nil || f.Error.Code != adapter.CodeUnauthenticated {
		t.Errorf("first frame %s, want the error unauthenticated", f)
	}
	if code := c.Closed(); code != 4401 {
		t.Errorf("close code %d, want 4401", code)
	}
}

func TestP15Origin(t *testing.T) {
	host := func(s *adaptertest.Site) string { return strings.TrimPrefix(s.URL, "http://") }
	for _, tt := range []struct {
		name    string
		origins []string
		browser bool
		header  func(host string) http.Header
		allowed bool
	}{
		{"same host", nil, false, func(h string) http.Header { return http.Header{"Origin": {"http://" + h}} }, true},
		{"same host, upper case", nil, false, func(h string) http.Header { return http.Header{"Origin": {"HTTP://" + strings.ToUpper(h)}} }, true},
		{"https page behind a proxy", nil, false, func(h string) http.Header { return http.Header{"Origin": {"https://" + h}} }, true},
		{"foreign", nil, false, func(string) http.Header { return http.Header{"Origin": {"https://evil.example"}} }, false},
		{"null", nil, false, func(string) http.Header { return http.Header{"Origin": {"null"}} }, false},
		{"empty", nil, false, func(string) http.Header { return http.Header{"Origin": {""}} }, false},
		{"other port", nil, false, func(string) http.Header { return http.Header{"Origin": {"http://127.0.0.1:1"}} }, false},
		{"look-alike suffix", nil, false, func(h string) http.Header { return http.Header{"Origin": {"http://" + h + ".evil.example"}} }, false},
		{"look-alike prefix", nil, false, func(h string) http.Header { return http.Header{"Origin": {"http://evil" + h}} }, false},
		{"user info", nil, false, func(h string) http.Header { return http.Header{"Origin": {"http://" + h + "@evil.example"}} }, false},
		{"trailing dot", nil, false, func(h string) http.Header {
			return http.Header{"Origin": {"http://" + strings.Replace(h, ":", ".:", 1)}}
		}, false},
		{"with a path", nil, false, func(h string) http.Header { return http.Header{"Origin": {"http://" + h + "/x"}} }, false},
		{"two origins", nil, false, func(h string) http.Header { return http.Header{"Origin": {"http://" + h, "https://evil.example"}} }, false},
		{"file", nil, false, func(string) http.Header { return http.Header{"Origin": {"file://"}} }, false},
		{"extension", nil, false, func(string) http.Header { return http.Header{"Origin": {"chrome-extension://abcdef"}} }, false},
		{"no headers", nil, false, func(string) http.Header { return nil }, true},
		{"no headers, browsers only", nil, true, func(string) http.Header { return nil }, false},
		{"cross-site without Origin", nil, false, func(string) http.Header { return http.Header{"Sec-Fetch-Site": {"cross-site"}} }, false},
		{"same-site without Origin", nil, false, func(string) http.Header { return http.Header{"Sec-Fetch-Site": {"same-site"}} }, false},
		{"same-origin without Origin", nil, true, func(string) http.Header { return http.Header{"Sec-Fetch-Site": {"same-origin"}} }, true},
		{"listed", []string{"https://chat.example"}, false, func(string) http.Header { return http.Header{"Origin": {"https://chat.example"}} }, true},
		{"listed, default port", []string{"https://chat.example:443"}, false, func(string) http.Header { return http.Header{"Origin": {"https://chat.example"}} }, true},
		{"listed, other scheme", []string{"https://chat.example"}, false, func(string) http.Header { return http.Header{"Origin": {"http://chat.example"}} }, false},
		{"listed, subdomain", []string{"https://chat.example"}, false, func(string) http.Header { return http.Header{"Origin": {"https://a.chat.example"}} }, false},
		{"same host, not listed", []string{"https://chat.example"}, false, func(h string) http.Header { return http.Header{"Origin": {"http://" + h}} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := adaptertest.NewSite(t, adapter.Config{Origins: tt.origins, BrowsersOnly: tt.browser}, newMemstore(t), nil)
			_, resp, err := s.NewBrowser(t, "alice").TryDial(ws, tt.header(host(s)))
			if tt.allowed {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("admitted")
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode == http.StatusForbidden {
				if !strings.Contains(string(body), "Config.") {
					t.Errorf("the refusal names no setting: %s", body)
				}
			} else if tt.name != "two origins" {
				t.Errorf("status %s, want 403: %s", resp.Status, body)
			}
		})
	}
}

func TestP15ForeignOriginIsNeverUpgraded(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
	_, resp, err := s.NewBrowser(t, "alice").TryDial(ws+"?refusals=close", http.Header{"Origin": {"https://evil.example"}})
	if err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("%v, want 403 even for a client that asks for refusals in-band", err)
	}
}

func TestP27ChainRunsOnTheAppsOwnEngine(t *testing.T) {
	addresses := make(chan string, 2)
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		if err := s.Engine.SetTrustedProxies(nil); err != nil {
			t.Fatal(err)
		}
		s.Engine.SetHTMLTemplate(template.Must(template.New("refused").Parse(`<p>{{.}}</p>`)))
		s.Server.UseOnce(func(c *gin.Context) {
			addresses <- c.ClientIP()
			if c.FullPath() != ws {
				t.Errorf("FullPath in the chain is %q, want the socket's route", c.FullPath())
			}
			if c.Query("page") != "" {
				c.HTML(http.StatusForbidden, "refused", "with a template")
				c.Abort()
			}
		})
	})
	alice := s.NewBrowser(t, "alice")
	spoofed := http.Header{"X-Forwarded-For": {"203.0.113.7"}, "X-Real-Ip": {"203.0.113.7"}}
	if _, _, err := alice.TryDial(ws, spoofed); err != nil {
		t.Fatal(err)
	}
	if got := <-addresses; got != "127.0.0.1" {
		t.Errorf("ClientIP in the chain is %s: a header was believed that the engine does not trust", got)
	}
	_, resp, err := alice.TryDial(ws+"?page=1", nil)
	if err == nil {
		t.Fatal("admitted")
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "<p>with a template</p>" {
		t.Errorf("body %q, want the engine's template", body)
	}
}

func TestP27ChainRouteIsClosedToClients(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
	for _, method := range []string{"USHERHANDSHAKE", "USHERREPLAY"} {
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+ws, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s, want 404", method, resp.Status)
		}
	}
}

func TestP28TokenStaysOutOfLogs(t *testing.T) {
	var out syncBuffer
	tokens := make(chan string, 1)
	s := adaptertest.NewSite(t, adapter.Config{Credentials: []adapter.Source{adapter.Query("token")}}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.AllowAnonymous()
		s.Server.UseOnce(gin.LoggerWithWriter(&out), func(c *gin.Context) { tokens <- c.GetHeader("Authorization") })
	})
	if _, _, err := s.NewBrowser(t, "").TryDial(ws+"?token=SECRET&room=1", nil); err != nil {
		t.Fatal(err)
	}
	if got := <-tokens; got != "Bearer SECRET" {
		t.Errorf("Authorization in the chain is %q", got)
	}
	if got := out.String(); strings.Contains(got, "SECRET") || !strings.Contains(got, "room=1") {
		t.Errorf("the log has %q, want the query without the token", got)
	}
}

func TestP28MountRefusesALoggerAboveQueryCredentials(t *testing.T) {
	srv, err := adapter.New(adapter.Config{Credentials: []adapter.Source{adapter.Query("token")}})
	if err != nil {
		t.Fatal(err)
	}
	e := gin.New()
	e.Use(gin.Logger())
	defer func() {
		if v, _ := recover().(string); !strings.Contains(v, "gin.Logger") {
			t.Errorf("panic %q, want one that names gin.Logger", v)
		}
	}()
	srv.Mount(e)
	t.Error("Mount accepted it")
}

// A syncBuffer is a bytes.Buffer for two goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
