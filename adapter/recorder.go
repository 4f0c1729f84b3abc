package adapter

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
)

// maxRefusal bounds what is kept of a refusal's body.
const maxRefusal = 64 << 10

// A recorder is the response that the chain writes to. It is connected to
// nothing: whether and how the real response is answered is decided after the
// chain has unwound.
type recorder struct {
	header http.Header
	status int // 0 until WriteHeader
	body   bytes.Buffer
	sealed bool   // the chain's end has answered
	late   string // who wrote after that
}

var errChainHijack = errors.New("adapter: a middleware tried to hijack the handshake; the adapter upgrades the connection itself, after the chain")

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.sealed {
		// The answer is an upgrade or packets; what a middleware writes after
		// c.Next() would land in the middle of them.
		if w.late == "" {
			w.late = caller()
		}
		return len(p), nil
	}
	if room := maxRefusal - w.body.Len(); room > 0 {
		w.body.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func (w *recorder) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// Flush does nothing: there is nobody to flush to yet.
func (w *recorder) Flush() {}

func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errChainHijack }

// CloseNotify satisfies Gin's ResponseWriter, which asserts it.
func (w *recorder) CloseNotify() <-chan bool { return make(chan bool) }

// caller names the function outside of Gin, of net/http and of this package
// that called into it: the middleware to name in a warning.
func caller() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		switch {
		case strings.HasPrefix(f.Function, "github.com/gin-gonic/gin."),
			strings.HasPrefix(f.Function, "github.com/gin-gonic/gin/"),
			strings.HasPrefix(f.Function, "github.com/gin-contrib/sessions."),
			strings.HasPrefix(f.Function, "github.com/gorilla/sessions."),
			strings.HasPrefix(f.Function, "github.com/gin-usher/usher/adapter.("),
			strings.HasPrefix(f.Function, "net/http."),
			strings.HasPrefix(f.Function, "encoding/json."),
			strings.HasPrefix(f.Function, "io."), strings.HasPrefix(f.Function, "fmt."):
		default:
			return f.Function
		}
		if !more {
			return "a middleware"
		}
	}
}

// ofConnection are headers that belong to the connection or to a body, not to
// the answer of a handshake.
func ofConnection(name string) bool {
	switch name {
	case "Transfer-Encoding", "Connection", "Upgrade", "Date", "Trailer", "Keep-Alive":
		return true
	}
	return strings.HasPrefix(name, "Content-") && !strings.HasPrefix(name, "Content-Security-") ||
		strings.HasPrefix(name, "Sec-Websocket-")
}

// joinHeaders copies what the chain set over what middlewares above the route
// set. Cookies and Vary add up, every other header is replaced.
func joinHeaders(dst, src http.Header) {
	for k, vs := range src {
		switch k {
		case "Set-Cookie":
			dst[k] = append(dst[k], vs...)
			continue
		case "Vary":
			for _, v := range vs {
				if !slices.Contains(dst[k], v) {
					dst[k] = append(dst[k], v)
				}
			}
			continue
		}
		dst[k] = append([]string(nil), vs...)
	}
}

// deafWriter takes the place of a hijacked response for the middlewares above
// the route, which may still write after c.Next().
type deafWriter struct {
	header http.Header
	status int
	late   string
}

func (w *deafWriter) Header() http.Header               { return w.header }
func (w *deafWriter) WriteHeader(int)                   {}
func (w *deafWriter) WriteHeaderNow()                   {}
func (w *deafWriter) Status() int                       { return w.status }
func (w *deafWriter) Size() int                         { return 0 }
func (w *deafWriter) Written() bool                     { return true }
func (w *deafWriter) Flush()                            {}
func (w *deafWriter) Pusher() http.Pusher               { return nil }
func (w *deafWriter) CloseNotify() <-chan bool          { return make(chan bool) }
func (w *deafWriter) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func (w *deafWriter) Write(p []byte) (int, error) {
	if w.late == "" {
		w.late = caller()
	}
	return len(p), nil
}

func (w *deafWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, http.ErrHijacked
}
