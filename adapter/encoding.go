package adapter

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
)

// writeBody answers with a body that is compressed if it may be, is long
// enough, and the client takes it.
func (s *Server) writeBody(c *gin.Context, kind string, body []byte, may bool) {
	h := c.Writer.Header()
	// A compressing middleware above the route either has set the header
	// already, or leaves alone what has it.
	if at := s.cfg.CompressPolls; may && at >= 0 && len(body) >= at && h.Get("Content-Encoding") == "" {
		addVary(h, "Accept-Encoding")
		if e := encodingFor(c.Request.Header.Values("Accept-Encoding")); e != nil {
			b := encoded.Get().(*bytes.Buffer)
			defer func() {
				if b.Cap() <= 64<<10 {
					encoded.Put(b)
				}
			}()
			b.Reset()
			e.encode(b, body)
			h.Set("Content-Encoding", e.name)
			body = b.Bytes()
		}
	}
	c.Data(http.StatusOK, kind, body)
}

// addVary says that the answer depends on a header of the request.
func addVary(h http.Header, name string) {
	for _, v := range h.Values("Vary") {
		for field := range strings.SplitSeq(v, ",") {
			if field = strings.TrimSpace(field); field == "*" || strings.EqualFold(field, name) {
				return
			}
		}
	}
	h.Add("Vary", name)
}

var encoded = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// An encoding is a content coding of HTTP.
type encoding struct {
	name    string
	writers sync.Pool
}

type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

// encodings in the order of our preference. What HTTP calls deflate is zlib's
// format: RFC 9110, section 8.4.1.2.
var encodings = []*encoding{
	{name: "gzip", writers: sync.Pool{New: func() any { return encoder(gzip.NewWriter(nil)) }}},
	{name: "deflate", writers: sync.Pool{New: func() any { return encoder(zlib.NewWriter(nil)) }}},
}

// encoding at the same time is bounded: it is work for a processor, and each
// writer has most of a megabyte.
var encodingSlots = make(chan struct{}, runtime.GOMAXPROCS(0))

func (e *encoding) encode(dst *bytes.Buffer, body []byte) {
	encodingSlots <- struct{}{}
	w := e.writers.Get().(encoder)
	w.Reset(dst)
	_, _ = w.Write(body) // memory takes everything
	_ = w.Close()
	e.writers.Put(w)
	<-encodingSlots
}

// encodingFor picks the encoding that the client likes best, nil for none: RFC
// 9110, section 12.5.3. Without the header we send what every client takes.
func encodingFor(accept []string) *encoding {
	var best *encoding
	bestQ := 0
	weights := acceptedEncodings(accept)
	for _, e := range encodings {
		q, named := weights[e.name]
		if !named {
			q = weights["*"]
		}
		if q > bestQ {
			best, bestQ = e, q
		}
	}
	if bestQ < weights["identity"] {
		return nil
	}
	return best
}

// acceptedEncodings reads Accept-Encoding: weights in thousandths. What makes
// no sense is not accepted.
func acceptedEncodings(accept []string) map[string]int {
	weights := make(map[string]int)
	for _, line := range accept {
		for item := range strings.SplitSeq(line, ",") {
			name, weight, weighted := strings.Cut(item, ";")
			q := 1000
			if weighted {
				q = parseWeight(weight)
			}
			if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
				weights[name] = q
			}
		}
	}
	return weights
}

// parseWeight reads q=0.5: RFC 9110, section 12.4.2.
func parseWeight(s string) int {
	name, value, _ := strings.Cut(strings.TrimSpace(s), "=")
	q, err := strconv.ParseFloat(value, 64)
	if !strings.EqualFold(name, "q") || err != nil || !(q >= 0 && q <= 1) {
		return 0
	}
	return int(q * 1000)
}
