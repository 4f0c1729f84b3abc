package adapter

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// An admission is what a handshake that was let through leaves behind.
type admission struct {
	mount     *mount
	identity  *Identity
	keys      map[any]any
	shake     *Handshake
	ref       sessionRef
	sessionID string
	others    []string    // sessions that were loaded besides
	ends      time.Time   // when the session expires, as far as is known
	token     string      // Authorization, as the chain saw it
	visitor   visitorLink // where nobody is named by anything
	binding   string      // which sockets of its session are identified with it
	answer    http.Header // what middlewares want on the answer
	seen      uint64      // changes before the chain ran
	ran       int64       // when the chain began to run, in Unix nanoseconds
	refusal   *Error      // why the chain refused one that may wait
	address   string      // that limits count, where some may wait
	former    *former     // what it was before a login, for a moment
}

// admit runs the chain for a handshake. decide is asked at its end, within the
// chain. If the request is not let through it is answered, and nil returned,
// unless it may wait: then the admission has the refusal, and names nobody.
func (s *Server) admit(c *gin.Context, m *mount, n *Namespace, decide func(context.Context, *admission) error) *admission {
	req, path, host := c.Request, c.Request.URL.Path, c.Request.Host
	adm := &admission{mount: m, ran: time.Now().UnixNano(), seen: s.follow.changeCount()}
	p := &pass{srv: s, mount: m, req: req}
	p.admit = func(ctx context.Context, id *Identity) error {
		if p.unkept != nil {
			return p.unkept
		}
		adm.identity, adm.keys, adm.token = id, p.keys, p.sent.authorization()
		adm.hang(p)
		adm.shake = p.sent.answered(path, host, p.w.header)
		if decide == nil {
			return nil
		}
		return decide(ctx, adm)
	}
	switch p.run(methodHandshake) {
	case unknown:
		if p.err != nil || p.w.status != http.StatusTooManyRequests {
			s.log.Warn("a handshake was refused: it cannot be checked who asks", "error", p.err, "status", p.w.status)
		}
		n.turnAway(req, p.refused())
		s.reject(c, p)
		return nil
	case refused:
		if p.unkept != nil || !s.mayWait(p, req, decide != nil) {
			n.turnAway(req, p.refused())
			s.reject(c, p)
			return nil
		}
		adm.identity, adm.keys, adm.refusal = nil, nil, p.refused()
		adm.shake = p.sent.answered(path, host, p.w.header)
	}
	if e := s.checkRivals(req.Context(), p.sent.cookies, adm); e != nil {
		n.turnAway(req, e)
		s.refuse(c, e)
		return nil
	}
	if s.takes(inAuth) || s.takes(inFirstMessage) {
		adm.address = m.address(c)
	}
	// Before the headers are read: for writers above the route, some of which
	// set theirs when they learn the status.
	c.Status(p.open)
	adm.answer = answerHeaders(c, p)
	// Middlewares may have set cookies while they unwound, or above the route.
	adm.shake = adm.shake.answered(path, host, adm.answer)
	adm.hang(p)
	adm.bind(s.cfg.Cookie)
	s.link(adm, req)
	return adm
}

// hang notes the session that the pass has found.
func (adm *admission) hang(p *pass) {
	if l := p.session(); l != nil {
		adm.sessionID, adm.ref, adm.ends, adm.others = l.id, l.ref(), l.expires, p.others(l)
	}
	if own := adm.ownSession(); own != "" && !slices.Contains(adm.others, own) {
		adm.others = append(adm.others, own)
	}
}

// ownSession returns the session that Identify has named, if that is none of a store's,
// as where a token has an id. It can be ended by it all the same.
func (adm *admission) ownSession() string {
	if id := adm.identity; id != nil && id.SessionID != adm.sessionID {
		return id.SessionID
	}
	return ""
}

// showCredentials moves the credentials of a request to where middlewares look,
// also for those above the route that look at it afterwards. Where one is wrong,
// they are out of the places where they stood all the same.
func (s *Server) showCredentials(c *gin.Context) *Error {
	sh, e := s.moveCredentials(c.Request)
	c.Request = sh.req
	if sh.subprotocol != "" {
		c.Set(subprotocolKey, sh.subprotocol)
	}
	return e
}

// subprotocolKey is where a request keeps the subprotocol that the answer names.
const subprotocolKey = "github.com/gin-usher/usher/adapter.subprotocol"

// answerHeaders are what middlewares, those above the route and those of the
// chain if it has run, want on the answer.
func answerHeaders(c *gin.Context, p *pass) http.Header {
	h := c.Writer.Header().Clone()
	if p != nil {
		joinHeaders(h, p.w.header)
	}
	maps.DeleteFunc(h, func(k string, _ []string) bool { return ofConnection(k) })
	if name := c.GetString(subprotocolKey); name != "" {
		h.Set("Sec-Websocket-Protocol", name)
	}
	return h
}

// take gives a socket what its handshake has found: at once if guards are to be
// asked within the handshake, who may let others find it, and at its end.
func (s *Socket) take(adm *admission) {
	s.mu.Lock()
	s.keys = adm.keys
	s.mu.Unlock()
	if s.mount == nil {
		s.mount = adm.mount
	}
	s.shake.Store(adm.shake)
	s.identity.Store(adm.identity)
}

// begin counts a handshake in, unless the server is shutting down.
func (s *Server) begin() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.draining {
		return false
	}
	s.handshakes.Add(1)
	return true
}

// deafen keeps middlewares above the route from writing into the WebSocket.
func (s *Server) deafen(c *gin.Context) {
	deaf := &deafWriter{header: c.Writer.Header(), status: http.StatusSwitchingProtocols}
	c.Writer = deaf
}

// reject answers a handshake with what the chain or the adapter said.
func (s *Server) reject(c *gin.Context, p *pass) {
	joinHeaders(c.Writer.Header(), p.headers())
	status, own := p.answer()
	if own != nil {
		if !s.inBand(c, own) {
			sayNo(c, status, own)
		}
		return
	}
	if s.inBand(c, p.refused()) {
		return
	}
	if t := p.w.header.Get("Content-Type"); t != "" {
		c.Header("Content-Type", t)
	}
	c.Abort()
	c.Status(status)
	_, _ = c.Writer.Write(p.w.body.Bytes())
}

// refuse answers a handshake with an error.
func (s *Server) refuse(c *gin.Context, e *Error) {
	if !s.inBand(c, e) {
		sayNo(c, e.status(), e)
	}
}

// sayNo is Gin's AbortWithStatusJSON, which answers with nothing where Data cannot
// be encoded.
func sayNo(c *gin.Context, status int, e *Error) {
	c.Abort()
	c.Data(status, "application/json; charset=utf-8", e.json())
}

// refusedAbove returns why a middleware above the route, or of UseEach before a poll,
// has refused a request without Abort, and answers it: by a status or a body, which are
// refusals in the chain as well (see terminal). Gin calls the route all the same.
func refusedAbove(c *gin.Context) *Error {
	status := c.Writer.Status()
	if !c.Writer.Written() && status < http.StatusMultipleChoices {
		return nil
	}
	e := statusError(status)
	if c.Abort(); !c.Writer.Written() {
		sayNo(c, status, e)
	}
	return e
}

// inBand tells a refusal over a WebSocket that is closed at once, to clients
// that ask for it: browsers hide the status of a failed handshake from scripts.
func (s *Server) inBand(c *gin.Context, e *Error) bool {
	if c.Query("refusals") != "close" {
		return false
	}
	c.Status(http.StatusSwitchingProtocols)
	answer := answerHeaders(c, nil)
	conn, err := s.eng.Upgrade(c.Writer, c.Request, answer, nobody{})
	if err != nil {
		return !errors.Is(err, engine.ErrNotWebSocket)
	}
	s.deafen(c)
	c.Abort()
	conn.Start()
	_ = conn.Send(errorFrame(nil, "", e))
	conn.Close(engine.Cause{Reason: string(ReasonRefused), Code: closeCodeFor(e), Text: e.Code})
	return true
}

// nobody is the handler of a connection that is only told why it is refused.
type nobody struct{}

func (nobody) Receive(bool, []byte) engine.Task { return nil }
func (nobody) Closed(engine.Cause)              {}
