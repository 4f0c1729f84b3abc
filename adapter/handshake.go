package adapter

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A Handshake is the first request of a connection as it was when it was
// admitted: what remains of it once the handshake is over. It is immutable.
//
// It keeps bytes and parses them again when somebody asks: a parsed browser
// request is three times the size, and most sockets never look.
type Handshake struct {
	head    []byte // request line and headers without Cookie
	cookies string // the Cookie header, patched with what was set since
	remote  string
	tls     *tls.ConnectionState
	issued  int64 // Unix nanoseconds
}

// Buffers that are needed only while a handshake is written down or read.
var (
	heads   = sync.Pool{New: func() any { return new(bytes.Buffer) }}
	readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
)

// record keeps what identifies r. Set-Cookie headers that the answer carries
// are patched in: from now on the browser sends those.
func record(r *http.Request, answer http.Header) *Handshake {
	b := heads.Get().(*bytes.Buffer)
	defer heads.Put(b)
	b.Reset()
	for _, part := range [...]string{r.Method, " ", r.URL.RequestURI(), " HTTP/1.1\r\nHost: ", r.Host, "\r\n"} {
		b.WriteString(part)
	}
	for k, vs := range r.Header {
		switch k {
		case "Cookie": // kept apart
			continue
		case "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions", "Connection", "Content-Length",
			"Cache-Control", "Pragma", "Accept-Encoding":
			continue // about the transfer, not about the client
		}
		for _, v := range vs {
			b.WriteString(k)
			b.WriteString(": ")
			b.WriteString(v)
			b.WriteString("\r\n")
		}
	}
	b.WriteString("\r\n")
	h := &Handshake{
		head:    bytes.Clone(b.Bytes()),
		cookies: strings.Join(r.Header.Values("Cookie"), "; "),
		remote:  r.RemoteAddr,
		tls:     r.TLS,
		issued:  time.Now().UnixNano(),
	}
	return h.withCookies(setCookies(answer))
}

// Request returns the handshake as a new request with ctx, its cookies as they
// are now. It has no body.
func (h *Handshake) Request(ctx context.Context) *http.Request {
	br := readers.Get().(*bufio.Reader)
	br.Reset(bytes.NewReader(h.head))
	r, err := http.ReadRequest(br)
	br.Reset(nil) // a request without a body keeps nothing of it
	readers.Put(br)
	if err != nil {
		// These bytes were written from a request that had been parsed before.
		panic(fmt.Sprintf("adapter: recorded handshake: %v", err))
	}
	if h.cookies != "" {
		r.Header.Set("Cookie", h.cookies)
	}
	r.RemoteAddr, r.TLS = h.remote, h.tls
	return r.WithContext(ctx)
}

// Time is when the handshake came in.
func (h *Handshake) Time() time.Time { return time.Unix(0, h.issued) }

// RemoteAddr is the network address of the peer, which may be a proxy.
func (h *Handshake) RemoteAddr() string { return h.remote }

// Header returns a copy of the handshake's headers.
func (h *Handshake) Header() http.Header { return h.Request(context.Background()).Header }

// withCookies returns h with the given cookies set or, where MaxAge is
// negative, removed.
func (h *Handshake) withCookies(set []*http.Cookie) *Handshake {
	if len(set) == 0 {
		return h
	}
	patched := *h
	for _, c := range set {
		patched.cookies = patchCookie(patched.cookies, c)
	}
	return &patched
}

// patchCookie returns a Cookie header with c put in the place of any cookie of
// its name.
func patchCookie(header string, c *http.Cookie) string {
	var kept []string
	for part := range strings.SplitSeq(header, ";") {
		part = strings.TrimSpace(part)
		name, _, _ := strings.Cut(part, "=")
		if part != "" && strings.TrimSpace(name) != c.Name {
			kept = append(kept, part)
		}
	}
	if c.MaxAge >= 0 {
		kept = append(kept, c.Name+"="+c.Value)
	}
	return strings.Join(kept, "; ")
}

// setCookies parses the Set-Cookie headers of an answer.
func setCookies(h http.Header) []*http.Cookie {
	if len(h["Set-Cookie"]) == 0 {
		return nil
	}
	return (&http.Response{Header: h}).Cookies()
}
