package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestP10LoggersSeeTheStatusOfAPoll: the handshake of a client that polls is
// answered 200, and loggers in the chain were told 101.
func TestP10LoggersSeeTheStatusOfAPoll(t *testing.T) {
	statuses := make(chan int, 1)
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.UseOnce(func(c *gin.Context) {
			c.Next()
			_, _ = c.Writer.WriteString("late") // it must not stand among the packets
			statuses <- c.Writer.Status()
		})
	})
	engineOpen(t, s.NewBrowser(t, ""))
	if got := <-statuses; got != http.StatusOK {
		t.Errorf("a logger saw status %d, want 200", got)
	}
}

// TestP09HeadersOfWritersAboveTheRoute: a writer above the route that sets its
// cookie when it learns the status (scs) was told too late for the 101.
func TestP09HeadersOfWritersAboveTheRoute(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.AllowAnonymous()
		s.Engine.Use(func(c *gin.Context) { c.Writer = &commitOnHeader{c.Writer} })
	})
	b := s.NewBrowser(t, "")
	committed := func(h http.Header) bool {
		return slices.Contains(h.Values("Set-Cookie"), "committed=yes; Path=/")
	}
	for _, path := range []string{ws, ws + "?refusals=close&nsp=/none"} {
		_, resp, err := b.TryDial(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !committed(resp.Header) {
			t.Errorf("%s: the cookie is not on the 101: %v", path, resp.Header)
		}
	}
	if _, _, h := engineDo(t, b, "GET", enginePath, "", nil); !committed(h) {
		t.Errorf("the cookie is not on the first poll: %v", h)
	}
}

// TestBodyThatAMiddlewareHasAnswered: a middleware that bounds the body writes
// its 413 while the body is read, and ours came behind it.
func TestBodyThatAMiddlewareHasAnswered(t *testing.T) {
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.UseEach(func(c *gin.Context) {
			c.Request.Body = &answeringBody{c.Request.Body, c}
		})
	})
	b := s.NewBrowser(t, "")
	sid := engineOpen(t, b)
	status, body, _ := engineDo(t, b, "POST", enginePath+"&sid="+sid, `42["`+strings.Repeat("x", 100)+`"]`, nil)
	if status != http.StatusRequestEntityTooLarge || body != "too large" {
		t.Errorf("a POST over the limit: %d %q, want 413", status, body)
	}
	if status, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil); body != "1" && status != http.StatusBadRequest {
		t.Errorf("the poll after it: %d %q, want the end of the session", status, body)
	}
}

type answeringBody struct {
	io.ReadCloser
	c *gin.Context
}

func (b *answeringBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 10 {
		b.c.String(http.StatusRequestEntityTooLarge, "too large")
		b.c.Abort()
		return 0, errors.New("too large")
	}
	return n, err
}

// TestP16HandlersOutliveTheHandshake: what Gin offers for goroutines, c.Copy, has
// a request whose context has ended, no writer, and 64 calls of Next. A handler's
// context lives, and a wrapped middleware calls Next as often as events come.
func TestP16HandlersOutliveTheHandshake(t *testing.T) {
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.Use(func(c *gin.Context) { c.Set("color", "blue") })
		adapter.Handle(srv, "alive", func(ctx context.Context, _ *adapter.Socket, _ struct{}) (any, error) {
			return ctx.Value("color"), ctx.Err()
		}, adapter.Wrap(func(c *gin.Context) {
			c.Header("X-Seen", "yes")
			c.SetCookie("seen", "yes", 60, "/", "", false, true)
			c.Next()
			if err := c.Request.Context().Err(); err != nil {
				t.Errorf("the context of a guard's request has ended: %v", err)
			}
		}))
	})
	c := s.NewBrowser(t, "").Dial(ws)
	for range 100 {
		if f := c.Call("alive", nil); string(f.Data) != `"blue"` {
			t.Fatalf("alive = %s, want blue", f)
		}
	}
}

// TestP21FailureIsNoAdmission: a middleware that notes its failure and goes on,
// as recipes for Socket.IO do, has named nobody, and nobody is not let in.
func TestP21FailureIsNoAdmission(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.Use(func(c *gin.Context) {
			if _, err := c.Cookie("sid"); err != nil {
				_ = c.Error(err) // accept(null, false)
			}
			c.Next()
		})
	})
	for name, cookie := range map[string]string{"no cookie": "", "a forged one": "sid=forged", "an empty one": "sid="} {
		b := s.NewBrowser(t, "")
		header := http.Header{}
		if cookie != "" {
			header.Set("Cookie", cookie)
		}
		_, resp, err := b.TryDial(ws, header)
		if err == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s, plain: %v, want 401", name, err)
		}
		// Socket.IO says so in answer to the CONNECT.
		_, body, _ := engineDo(t, b, "GET", enginePath, "", header)
		var open struct{ SID string }
		if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "0")), &open); err != nil {
			t.Fatalf("%s: %s", name, body)
		}
		path := enginePath + "&sid=" + open.SID
		engineDo(t, b, "POST", path, "40", header)
		if _, body, _ := engineDo(t, b, "GET", path, "", header); !strings.HasPrefix(body, "44") || !strings.Contains(body, adapter.CodeUnauthenticated) {
			t.Errorf("%s, Socket.IO: %s, want a connect_error", name, body)
		}
	}
}

// TestP06OldCookieIsNobodyAfterLogout: a session that lives in a cookie cannot be
// deleted, only remembered as ended.
func TestP06OldCookieIsNobodyAfterLogout(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newCookieStore(t), nil)
	alice := s.NewBrowser(t, "alice")
	thief := alice.Clone()
	alice.MustPost("/logout")
	if status, body := thief.Get("/me"); status != http.StatusUnauthorized {
		t.Errorf("GET /me with the old cookie: %d %s, want 401", status, body)
	}
	if _, resp, err := thief.TryDial(ws, nil); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a socket with the old cookie: %v, want 401", err)
	}
}
