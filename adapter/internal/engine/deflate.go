package engine

import (
	"bytes"
	"compress/flate"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Compression over WebSockets is permessage-deflate, RFC 7692, in the one form
// that suits a broadcast: no context is taken over from one message to the
// next. So a message is compressed once for everybody who gets it, and an idle
// connection keeps no window.

const (
	extension = "permessage-deflate"
	rsv1      = 0x40 // on the first frame of a compressed message: section 6
	rsv2      = 0x20
)

// offered returns r as gorilla is to see it: with an offer of compression that
// it accepts, or with none. gorilla would accept any, whatever its parameters,
// and always answers the same.
func offered(r *http.Request) (as *http.Request, ok bool) {
	for _, line := range r.Header.Values("Sec-Websocket-Extensions") {
		for offer := range strings.SplitSeq(line, ",") {
			ok = ok || acceptable(offer)
		}
	}
	as = new(http.Request)
	*as = *r
	as.Header = r.Header.Clone()
	as.Header.Del("Sec-Websocket-Extensions")
	if ok {
		as.Header.Set("Sec-Websocket-Extensions", extension)
	}
	return as, ok
}

// acceptable reports whether an offer is one that server_no_context_takeover
// and client_no_context_takeover answer: RFC 7692, section 7.1. What may be
// quoted in it needs no quotes to be valid, so commas and semicolons separate.
func acceptable(offer string) bool {
	name, rest, more := strings.Cut(offer, ";")
	if strings.TrimSpace(name) != extension {
		return false
	}
	var seen []string
	for more {
		var param string
		param, rest, more = strings.Cut(rest, ";")
		key, value, valued := strings.Cut(param, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if slices.Contains(seen, key) {
			return false
		}
		seen = append(seen, key)
		switch key {
		case "server_no_context_takeover", "client_no_context_takeover":
			if valued {
				return false
			}
		case "client_max_window_bits":
			if len(value) > 2 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			if valued && !slices.Contains([]string{"8", "9", "10", "11", "12", "13", "14", "15"}, value) {
				return false
			}
		default:
			// server_max_window_bits, too: the answer would have to keep to it,
			// and a frame that all share has a window of 15 bits.
			return false
		}
	}
	return true
}

// A deflater compresses one message at a time.
type deflater struct {
	w   *flate.Writer
	out bytes.Buffer
}

var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is valid
	}
	return &deflater{w: w}
}}

// deflateSlots bounds how many messages are compressed at the same time: it is
// work for a processor, and each deflater has most of a megabyte.
var deflateSlots = make(chan struct{}, runtime.GOMAXPROCS(0))

// deflated returns the message as those get it who have negotiated compression.
// It is made when the first of them is written to.
func (f Frame) deflated() []byte {
	f.once.Do(func() {
		deflateSlots <- struct{}{}
		defer func() { <-deflateSlots }()
		d := deflaters.Get().(*deflater)
		defer deflaters.Put(d)
		f.small = d.deflate(f)
	})
	return f.small
}

func (d *deflater) deflate(f Frame) []byte {
	_, payload := f.Payload()
	d.out.Reset()
	d.w.Reset(&d.out)
	_, _ = d.w.Write(payload) // memory takes everything
	_ = d.w.Flush()
	small := d.out.Bytes()
	small = small[:len(small)-4] // the 00 00 ff ff of the flush: section 7.2.1
	if len(small) >= len(payload) {
		return f.wire // and RSV1 says that it is not: section 6
	}
	buf := make([]byte, headroom+len(small))
	copy(buf[headroom:], small)
	if d.out.Cap() > 64<<10 {
		d.out = bytes.Buffer{}
	}
	return finish(buf, f.wire[0]&0x0f|rsv1)
}

// wire returns what c's peer gets for f.
func (c *Conn) wire(f Frame) []byte {
	if c.inflow == nil || f.raw || f.wire[0]&0x08 != 0 {
		return f.wire // control frames are never compressed: section 6
	}
	if _, payload := f.Payload(); len(payload) < c.e.cfg.Deflate {
		return f.wire
	}
	return f.deflated()
}
