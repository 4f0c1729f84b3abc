package adapter

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// Bounds on connections of which it is not decided yet who they are. Nobody has
// vouched for them, so they get little and not for long.
const (
	pendingInput      = 4 << 10 // bytes that one may send
	pendingAttempts   = 3       // to show a credential, one after the other
	pendingSockets    = 3       // namespaces that one may wait for
	pendingPerAddress = 20
	pendingPerServer  = 1000
)

// A pending is a connection that the chain has refused for want of a
// credential, and that may show one yet: as auth of a CONNECT, or in a first
// message. It has no room and no handler.
type pending struct {
	lobby   *lobby
	address string
	timer   engine.Timer
	end     func(engine.Cause) // the connection

	// Guarded by lobby.mu.
	input    int
	attempts int           // that were refused
	begun    int           // that were begun, but those that could not be decided
	busy     chan struct{} // closed at the end of the one that is under way
	queued   int           // that wait for that
	proven   bool          // one was not in vain
	over     bool
}

// A lobby is where pending connections are counted.
type lobby struct {
	wheel *engine.Wheel

	mu        sync.Mutex
	all       map[*pending]struct{}
	byAddress map[string]int
}

// errLobbyFull refuses one more that would wait.
var errLobbyFull = &Error{Code: CodeTooFast, Message: "too many connections wait to be authenticated; send the credential with the handshake, or try again later"}

// hasRoom reports whether one more may wait.
func (l *lobby) hasRoom(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.roomLocked(address)
}

func (l *lobby) roomLocked(address string) bool {
	return len(l.all) < pendingPerServer && l.byAddress[address] < pendingPerAddress
}

// enter lets a connection wait, or says why not. end ends it.
func (l *lobby) enter(address string, timeout time.Duration, end func(engine.Cause)) (*pending, *Error) {
	p := &pending{lobby: l, address: address, end: end}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.roomLocked(address) {
		return nil, errLobbyFull
	}
	if l.all == nil {
		l.all, l.byAddress = make(map[*pending]struct{}), make(map[string]int)
	}
	l.all[p] = struct{}{}
	l.byAddress[address]++
	l.wheel.Set(&p.timer, time.Now().Add(timeout), p)
	return p, nil
}

// prove ends the wait of who has shown a credential.
func (p *pending) prove() {
	if p == nil {
		return
	}
	p.lobby.mu.Lock()
	p.proven = true
	p.lobby.mu.Unlock()
	p.leave()
}

// leave ends the wait, however it ended. It may be called again.
func (p *pending) leave() {
	if p == nil {
		return
	}
	l := p.lobby
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.over {
		return
	}
	p.over = true
	l.wheel.Stop(&p.timer)
	delete(l.all, p)
	if l.byAddress[p.address]--; l.byAddress[p.address] == 0 {
		delete(l.byAddress, p.address)
	}
}

// Expired is the end of patience.
func (p *pending) Expired(time.Time) {
	p.lobby.mu.Lock()
	over := p.over
	p.lobby.mu.Unlock()
	if !over {
		p.end(causeOf(ReasonAuthTimeout))
		p.leave() // if it had ended before it came in
	}
}

// hears counts what the client sends, and ends it when that is too much.
func (p *pending) hears(n int) bool {
	if p == nil {
		return true
	}
	p.lobby.mu.Lock()
	p.input += n
	ok := p.input <= pendingInput || p.over
	p.lobby.mu.Unlock()
	if !ok {
		p.end(engine.Cause{Reason: engine.ReasonTooLarge, Code: closeTooLarge, Text: "authenticate first", Drop: true})
	}
	return ok
}

// try begins an attempt to authenticate, once the one that is under way has ended: a
// client may ask for several namespaces at once, each with a token. ctx is the
// socket's. Its end has to be told by tried, of which the first call counts; one that
// could not be decided is none.
func (p *pending) try(ctx context.Context) (tried func(undecided bool), e *Error) {
	if p == nil {
		return func(bool) {}, nil
	}
	l := p.lobby
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.queued >= pendingSockets {
		return nil, errManyAttempts
	}
	p.queued++
	for p.busy != nil && ctx.Err() == nil {
		busy := p.busy
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
		}
		l.mu.Lock()
	}
	p.queued--
	if ctx.Err() != nil || !p.proven && (p.over || p.begun >= pendingAttempts) {
		return nil, errManyAttempts
	}
	p.begun++
	ended := make(chan struct{})
	p.busy = ended
	return func(undecided bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if p.busy != ended {
			return
		}
		if undecided {
			p.begun--
		}
		p.busy = nil
		close(ended)
	}, nil
}

// errManyAttempts refuses one more, of a connection that is about to be closed.
var errManyAttempts = &Error{Code: CodeTooFast, Message: "too many attempts to authenticate"}

// failed counts an attempt that was refused, once the client has been told. The
// last one ends the connection.
func (p *pending) failed() {
	if p == nil {
		return
	}
	p.lobby.mu.Lock()
	p.attempts++
	end := p.attempts >= pendingAttempts && !p.over
	p.lobby.mu.Unlock()
	if end {
		c := causeOf(ReasonUnauthorized)
		c.Drop = false
		p.end(c)
	}
}

// closeAll ends every connection that waits.
func (l *lobby) closeAll(c engine.Cause) {
	l.mu.Lock()
	waiting := make([]*pending, 0, len(l.all))
	for p := range l.all {
		waiting = append(waiting, p)
	}
	l.mu.Unlock()
	for _, p := range waiting {
		p.end(c)
	}
}

// mayWait reports whether a request that the chain has refused may show a
// credential later: it has shown none, and that is what it was refused for.
func (s *Server) mayWait(p *pass, req *http.Request, plain bool) bool {
	if !s.takes(inFirstMessage) && (plain || !s.takes(inAuth)) || p.sent.authorization() != "" {
		return false
	}
	if l := p.session(); l != nil && l.base[keyUser] != nil {
		return false
	}
	if plain && req.URL.Query().Get("refusals") == "close" {
		return false // it waits to be told, not to be asked
	}
	status, _ := p.answer()
	return status == http.StatusUnauthorized
}

// address is what limits by address count. Gin believes every proxy unless the
// app says which, so that anybody could have as many addresses as he likes: then
// it is the peer's, or what a TrustedPlatform tells. An IPv6 address stands for its
// /64, which one customer has.
func (m *mount) address(c *gin.Context) string {
	address := m.clientIP(c)
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Unmap().Is4() {
		return address
	}
	network, _ := ip.Prefix(64) // an IPv6 address has one
	return network.String()
}

// clientIP is the address of a request's client as far as it can be believed: as what
// the platform tells that the app has named, or else as what its proxies do.
func (m *mount) clientIP(c *gin.Context) string {
	if platform := m.engine.TrustedPlatform; platform != "" && c.GetHeader(platform) != "" || !m.gullible() {
		return c.ClientIP()
	}
	return c.RemoteIP()
}

// gullible reports whether the engine believes what anybody says about who is
// behind him.
func (m *mount) gullible() bool {
	m.probe.Do(func() {
		c := gin.CreateTestContextOnly(&recorder{header: make(http.Header)}, m.engine)
		const peer, claim = "192.0.2.1", "198.51.100.1" // RFC 5737: nobody's
		c.Request = &http.Request{RemoteAddr: net.JoinHostPort(peer, "1"), Header: http.Header{"X-Forwarded-For": {claim}, "X-Real-Ip": {claim}}}
		m.believes = c.ClientIP() == claim
	})
	return m.believes
}
