package adapter

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter/backplane"
)

// Config is what New takes. The zero value is safe and complete.
type Config struct {
	// Path is where sockets live; it begins and ends with a slash. Plain JSON
	// WebSockets connect to Path+"ws". Empty means "/socket.io/".
	Path string

	// Origins lists the origins (scheme://host[:port], exactly) whose pages may
	// open sockets. Empty means pages of the same host only. There is no
	// wildcard: a socket carries its user's cookies, so "any origin" would let
	// every page on the web act as that user.
	Origins []string

	// BrowsersOnly refuses handshakes that carry neither Origin nor
	// Sec-Fetch-Site. Such clients are not browsers (or are same-origin GETs),
	// so they cannot be tricked into sending somebody's cookies.
	BrowsersOnly bool

	// Credentials are places besides headers and cookies where a token may
	// stand. Each is moved into the Authorization header that the chain sees.
	Credentials []Source

	// AuthTimeout is how long a connection may take to show who it is, where
	// Credentials have AuthPayload or FirstMessage. Zero means 5s.
	AuthTimeout time.Duration

	// Revalidate is the time between replays of the chain for an idle session,
	// spread evenly. Zero means 30s; negative means never, so that only saves,
	// logouts and expiries are noticed.
	Revalidate time.Duration

	// MaxStale is how long an identity may outlive a store that does not
	// answer. Zero means 5 minutes; negative means not at all.
	MaxStale time.Duration

	// Rolling keeps sessions alive that are used over sockets only. A session in a
	// store of Server.Store lives for its MaxAge again, and one of Server.TokenStore for
	// its manager's IdleTimeout, when a client sends an event, at most once a minute, or
	// twice in a life of less than two; heartbeats, acknowledgements and "authenticate"
	// do not count. Nothing else about it changes.
	//
	// It is off because it makes the life of a session depend on its use: an app
	// whose sessions are to end some time after the login, whatever happens, would
	// have that taken away silently. A browser's cookie keeps its own MaxAge, which
	// only answers over HTTP extend: when it has ended, open sockets go on, and the
	// next request is nobody's. Sessions that lie in the cookie are extended over
	// connections of Socket.IO that poll: a poll brings the browser the new one.
	Rolling bool

	// Recovery lets Socket.IO clients that were cut off come back to what they
	// had. Zero is off.
	Recovery Recovery

	// Backplane joins this server with others to one cluster: what is emitted to
	// a room reaches the sockets in it wherever they are connected. It belongs to
	// this server alone, whose Shutdown closes it. Nil means that there are no
	// others.
	Backplane backplane.Backplane

	// Endings remembers what has ended when this process does: logouts of
	// sessions that live in cookies, and all that Revoke ends. Without it those
	// are valid again after a restart. New loads it, and fails if that fails. The
	// server does not close it. See EndingsFile.
	Endings Endings

	// Parser is how packets of Socket.IO are written: JSON by default, or
	// MessagePack for clients with socket.io-msgpack-parser. Plain WebSockets
	// speak JSON in either case.
	Parser Parser

	PingInterval time.Duration // between heartbeats; zero means 25s
	PingTimeout  time.Duration // without a sign of life after a ping; zero means 20s

	// UpgradeTimeout is how long a Socket.IO client that polls may take to move
	// to a WebSocket it has opened. Zero means 10s.
	UpgradeTimeout time.Duration

	// ConnectTimeout is how long a Socket.IO connection may exist without
	// asking for a namespace. Zero means 45s.
	ConnectTimeout time.Duration

	// AllowEIO3 lets clients of Socket.IO v2 in, which speak Engine.IO 3. They
	// are refused otherwise, as on Node.js: it is one more protocol to attack,
	// for clients that nobody maintains. JSONP is refused in either case: a
	// script tag sends cookies and no Origin.
	AllowEIO3 bool

	// MaxPayload is the size in bytes of a message from a client. Zero means
	// 1,000,000. A larger message closes the connection with 1009.
	MaxPayload int64

	// SendBuffer is how many bytes may wait for a client that reads slowly
	// before it is closed. Zero means 1 MiB.
	SendBuffer int

	// CompressPolls is the size in bytes from which answers to Socket.IO polls
	// are compressed, with gzip or deflate, for clients that accept it. Zero
	// means 1024; negative means never, which is the choice where one answer may
	// hold both a secret and what a stranger wrote: its length then tells the
	// stranger how much the two have in common (the BREACH attack).
	CompressPolls int

	// Compression is the size in bytes from which messages to WebSockets, plain
	// and Socket.IO's, are compressed (permessage-deflate, RFC 7692), for clients
	// that offer it, as browsers do; 1024 is a sensible size. An event is
	// compressed once for everybody who gets it. What clients send may be
	// compressed too, and MaxPayload bounds what it inflates to. Zero means
	// never. What CompressPolls says about secrets holds here too.
	Compression int

	// Client holds the browser's client, as the folder dist of npm's
	// socket.io-client does: the files socket.io*.js and their maps at its root
	// are served below Path (/socket.io/socket.io.js), to everybody. They are
	// read once, by New. Nil serves none.
	Client fs.FS

	// Cookie names a cookie that carries the sid of a Socket.IO connection, set
	// once, with the answer to its handshake: for load balancers that send
	// requests with the same cookie to the same server. It is never read here.
	// It is Secure over TLS, and where X-Forwarded-Proto says https. Empty sets
	// none.
	Cookie string

	// Refuse answers a page request that HTTP() refuses: 503 while a session
	// store does not answer, or what Identify returned. Nil means the error as
	// JSON. It runs where any other handler would; it need not abort.
	Refuse func(c *gin.Context, status int, e *Error)

	// Development makes error messages name what exists: the events of a
	// namespace, for one.
	Development bool

	// Logger gets warnings and errors. Nil means slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Revalidate, 30*time.Second)
	def(&c.MaxStale, 5*time.Minute)
	def(&c.PingInterval, 25*time.Second)
	def(&c.PingTimeout, 20*time.Second)
	def(&c.UpgradeTimeout, 10*time.Second)
	def(&c.ConnectTimeout, 45*time.Second)
	def(&c.AuthTimeout, 5*time.Second)
	if c.Path == "" {
		c.Path = "/socket.io/"
	}
	if c.MaxPayload == 0 {
		c.MaxPayload = 1_000_000
	}
	if c.SendBuffer == 0 {
		c.SendBuffer = 1 << 20
	}
	if c.Recovery.Packets == 0 {
		c.Recovery.Packets = 1000
	}
	if c.Recovery.Bytes == 0 {
		c.Recovery.Bytes = c.SendBuffer / 2
	}
	if c.Recovery.Total == 0 {
		c.Recovery.Total = 64 << 20
	}
	if c.CompressPolls == 0 {
		c.CompressPolls = 1024
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Refuse == nil {
		c.Refuse = func(c *gin.Context, status int, e *Error) { c.JSON(status, e) }
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !strings.HasPrefix(c.Path, "/") || !strings.HasSuffix(c.Path, "/") || strings.ContainsAny(c.Path, "?#:*") {
		bad("Path: expected a path that begins and ends with a slash, got %q", c.Path)
	}
	if c.PingInterval < time.Second || c.PingTimeout < time.Second {
		bad("PingInterval and PingTimeout: expected at least 1s, got %v and %v", c.PingInterval, c.PingTimeout)
	}
	if c.UpgradeTimeout < time.Second || c.ConnectTimeout < time.Second || c.AuthTimeout < time.Second {
		bad("UpgradeTimeout, ConnectTimeout and AuthTimeout: expected at least 1s, got %v, %v and %v", c.UpgradeTimeout, c.ConnectTimeout, c.AuthTimeout)
	}
	for i, source := range c.Credentials {
		if err := source.check(); err != nil {
			bad("Credentials[%d]: %w", i, err)
		}
	}
	if c.MaxPayload < 0 || c.MaxPayload > 1<<30 {
		bad("MaxPayload: expected 1 to %d bytes, got %d", 1<<30, c.MaxPayload)
	}
	if c.SendBuffer < 0 {
		bad("SendBuffer: expected a positive number of bytes, got %d", c.SendBuffer)
	}
	if r := c.Recovery; r.Window < 0 || r.Packets < 0 || r.Bytes < 0 || r.Bytes > c.SendBuffer || r.Total < 0 {
		bad("Recovery: expected nothing negative, and at most SendBuffer (%d) for Bytes, got %+v", c.SendBuffer, r)
	}
	if c.Cookie != "" && !isToken(c.Cookie) {
		// RFC 6265, section 4.1.1.
		bad("Cookie: expected a name without spaces, separators and control characters, got %q", c.Cookie)
	}
	if c.Compression < 0 {
		bad("Compression: expected a positive number of bytes, or 0 for none, got %d", c.Compression)
	}
	if c.Parser != JSON && c.Parser != MessagePack {
		bad("Parser: expected JSON or MessagePack, got %v", c.Parser)
	}
	for i, o := range c.Origins {
		n, err := parseOrigin(o)
		if err != nil {
			bad("Origins[%d]: %w", i, err)
			continue
		}
		if i == 0 {
			c.Origins = append([]string(nil), c.Origins...)
		}
		c.Origins[i] = n
	}
	return c, errors.Join(errs...)
}

// parseOrigin checks and normalises one origin: RFC 6454, sections 4 and 6.2.
func parseOrigin(o string) (string, error) {
	if strings.Contains(o, "*") {
		return "", errors.New(`"*" would let every page on the web open sockets as whoever visits it; list the origins you serve`)
	}
	u, err := url.Parse(o)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" ||
		u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("expected scheme://host[:port], got %q", o)
	}
	if !isASCII(u.Host) {
		return "", fmt.Errorf("expected the host in punycode (xn--…), as browsers send it, got %q", o)
	}
	return u.Scheme + "://" + canonicalHost(u.Scheme, u.Host), nil
}
