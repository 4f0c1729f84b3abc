package adapter_test

import (
	"errors"
	"io"
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
	if status, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil); body != "1" {
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
