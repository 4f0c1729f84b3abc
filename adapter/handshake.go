package adapter

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"hash/maphash"
	"net"
	"net/http"
	"net/url"
	"slices"
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

// maxHandshake bounds what a socket keeps of its handshake: net/http lets a
// megabyte through, which is a request's to hold and not an idle socket's.
const maxHandshake = 64 << 10

// record keeps what identifies r.
//
// Middlewares may have put into r what net/http would not have taken from a
// client. What would be read back as another request is refused.
func record(r *http.Request) (*Handshake, error) {
	uri := r.URL.RequestURI()
	if !isTarget(uri, r.URL) || !isLine(r.Host) {
		return nil, &Error{Code: CodeBadRequest, Message: "expected a request line and a Host that HTTP allows"}
	}
	b := heads.Get().(*bytes.Buffer)
	defer heads.Put(b)
	b.Reset()
	for _, part := range [...]string{r.Method, " ", uri, " HTTP/1.1\r\nHost: ", r.Host, "\r\n"} {
		b.WriteString(part)
	}
	// In order, so that equal requests are equal bytes: see admission.bind.
	var few [32]string
	names := few[:0]
	for k := range r.Header {
		switch http.CanonicalHeaderKey(k) {
		case "Cookie", "Host": // kept apart
		case "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions", "Content-Length", "Transfer-Encoding",
			"Trailer", "Cache-Control", "Pragma", "Accept-Encoding": // about the transfer, not about the client
		default:
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for _, k := range names {
		if !isToken(k) || !isLine(r.Header[k]...) {
			return nil, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("the header %.100q cannot be kept: expected a name and values that HTTP allows", k)}
		}
		for _, v := range r.Header[k] {
			b.WriteString(k)
			b.WriteString(": ")
			b.WriteString(v)
			b.WriteString("\r\n")
		}
	}
	b.WriteString("\r\n")
	cookies := strings.Join(r.Header.Values("Cookie"), "; ")
	if n := b.Len() + len(cookies); n > maxHandshake {
		return nil, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("expected at most %d bytes of headers, got %d", maxHandshake, n)}
	}
	return &Handshake{
		head:    bytes.Clone(b.Bytes()),
		cookies: cookies,
		remote:  r.RemoteAddr,
		tls:     r.TLS,
		issued:  time.Now().UnixNano(),
	}, nil
}

// isTarget reports whether uri, which stands for u, can be read back as the target
// of a request: RFC 9112, section 3.2.
func isTarget(uri string, u *url.URL) bool {
	if !isLine(uri) || strings.ContainsAny(uri, " \t") {
		return false
	}
	if u.Opaque == "" && strings.HasPrefix(uri, "/") {
		return true // a path that package url has escaped
	}
	_, err := url.ParseRequestURI(uri)
	return err == nil
}

// isLine reports whether the values can stand in one line of a request's head.
func isLine(values ...string) bool {
	for _, v := range values {
		for i := range len(v) {
			if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
				return false
			}
		}
	}
	return true
}

// isToken reports whether name is one by RFC 9110, section 5.6.2.
func isToken(name string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return name != ""
}

// Request returns the handshake as a new request with ctx, its cookies as they
// are now. It has no body.
func (h *Handshake) Request(ctx context.Context) *http.Request {
	r, err := h.parse(ctx)
	if err != nil {
		panic(err) // record takes nothing that cannot be read back
	}
	return r
}

func (h *Handshake) parse(ctx context.Context) (*http.Request, error) {
	br := readers.Get().(*bufio.Reader)
	br.Reset(bytes.NewReader(h.head))
	r, err := http.ReadRequest(br)
	br.Reset(nil) // a request without a body keeps nothing of it
	readers.Put(br)
	if err != nil {
		return nil, fmt.Errorf("adapter: recorded handshake: %w", err)
	}
	if h.cookies != "" {
		r.Header.Set("Cookie", h.cookies)
	}
	r.RemoteAddr, r.TLS = h.remote, h.tls
	return r.WithContext(ctx), nil
}

// Time is when the handshake came in.
func (h *Handshake) Time() time.Time { return time.Unix(0, h.issued) }

// RemoteAddr is the network address of the peer, which may be a proxy.
func (h *Handshake) RemoteAddr() string { return h.remote }

// Header returns a copy of the handshake's headers.
func (h *Handshake) Header() http.Header { return h.Request(context.Background()).Header }

// answered returns h as the client, which has asked for a path of a host, would send it
// again once it has the answer: with the cookies that this one sets.
func (h *Handshake) answered(path, host string, answer http.Header) *Handshake {
	set := setCookies(answer)
	return h.withCookies(slices.DeleteFunc(set, func(c *http.Cookie) bool { return !comesBack(c, path, host) }))
}

// comesBack reports whether a cookie set by the answer to a request is sent with others
// for the same path and host: RFC 6265, sections 5.1.3 and 5.1.4.
func comesBack(c *http.Cookie, path, host string) bool {
	if strings.HasPrefix(c.Path, "/") {
		rest, below := strings.CutPrefix(path, c.Path)
		if !below || rest != "" && !strings.HasPrefix(rest, "/") && !strings.HasSuffix(c.Path, "/") {
			return false
		}
	}
	domain := strings.ToLower(strings.TrimPrefix(c.Domain, "."))
	host = strings.ToLower(withoutPort(host))
	return domain == "" || host == domain || strings.HasSuffix(host, "."+domain)
}

// samePeer reports whether r comes from where the handshake came from: the same
// address and, where proxies tell of another one behind it, the same word from
// them.
func (h *Handshake) samePeer(r *http.Request) bool {
	if withoutPort(h.remote) != withoutPort(r.RemoteAddr) {
		return false
	}
	first := h.Header()
	return !slices.ContainsFunc(forwarded, func(k string) bool {
		return !slices.Equal(first.Values(k), r.Header.Values(k))
	})
}

// forwarded are the headers in which proxies tell of who is behind them.
var forwarded = []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded"}

var peerSeed = maphash.MakeSeed()

// peerOf tells by a number from where r comes, as samePeer compares it.
func peerOf(r *http.Request) uint64 {
	var h maphash.Hash
	h.SetSeed(peerSeed)
	_, _ = h.WriteString(withoutPort(r.RemoteAddr))
	for _, k := range forwarded {
		for _, v := range r.Header.Values(k) {
			_, _ = h.WriteString("\n" + k + v)
		}
	}
	return h.Sum64()
}

// withoutPort returns the host of a network address.
func withoutPort(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// withCookies returns h with the given cookies set or, where they have
// expired, removed.
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
	if gone := c.MaxAge < 0 || c.MaxAge == 0 && !c.Expires.IsZero() && c.Expires.Before(time.Now()); !gone {
		value := c.Value
		if c.Quoted {
			value = `"` + value + `"` // browsers send the quotes back
		}
		kept = append(kept, c.Name+"="+value)
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
