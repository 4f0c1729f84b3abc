package adapter

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
)

// When a middleware of the chain runs.
type when uint8

const (
	always when = iota // Use: handshake and every replay
	once               // UseOnce: handshake only
	each               // UseEach: handshake and every further request of the connection
)

type step struct {
	when when
	mw   gin.HandlerFunc
	mask bool // ours, for requests of sockets
}

// Methods under which the chain is registered on the user's engine. They are
// valid tokens, so a client may send them; enter answers 404 to whoever does.
const (
	methodHandshake = "USHERHANDSHAKE"
	methodReplay    = "USHERREPLAY"
	methodUpgrade   = "USHERUPGRADE" // of a connection that polls
)

// A mount is where the adapter hangs in an engine.
type mount struct {
	engine *gin.Engine
	number uint64 // of the server's mounts, from one

	probe    sync.Once
	believes bool // see gullible
}

// outcome is what a pass through the chain came to.
type outcome uint8

const (
	admitted outcome = iota
	refused          // the chain says no, or names nobody where somebody is required
	unknown          // the chain could not tell: a dead store, a panic, 5xx, 429
)

// A pass is one run of the chain and what it left behind. Nothing in it is
// Gin's, and nothing of it is kept but identity, keys and the session's id.
type pass struct {
	visit
	srv    *Server
	mount  *mount
	req    *http.Request
	sent   *Handshake // req as replays show it again, of a handshake: see amended
	unkept error      // why there is none
	w      recorder
	method string // of req, which selects the route by another one
	known  bool   // who asks: nobody is to be identified
	open   int    // the status of the answer, if it is let through
	ran    int64  // when a replay began, in Unix nanoseconds
	token  string // Authorization, as a replay shows it
	// admit decides, within the chain, about the identity that was found, so
	// that loggers and metrics of the chain see the status of a refusal.
	admit func(ctx context.Context, id *Identity) error

	keys         map[any]any   // what the chain has left, for admit
	before, once map[any]any   // see beforeOnce
	came         *http.Request // to beforeOnce

	// What the chain's end came to; concluded under visit.mu.
	over     bool // the chain has returned: a conclusion comes too late
	reached  bool // the chain let the request through to its end
	identity *Identity
	err      error // what Identify or admit said
}

type passKey struct{}

// A passContext is the context of a pass: both the pass and its visit are found
// through it.
type passContext struct {
	context.Context
	p *pass
}

func (c passContext) Value(key any) any {
	switch key.(type) {
	case passKey:
		return c.p
	case visitKey:
		return &c.p.visit
	}
	return c.Context.Value(key)
}

// register puts the chain on the user's own engine, so that trusted proxies,
// templates and 404 pages are theirs. A copy of the group with its own empty
// list of handlers keeps middlewares above the route out: they have run
// already, in Gin's own chain.
func (s *Server) register(g *gin.RouterGroup, path string) {
	private := *g
	private.Handlers = nil
	for method, has := range map[string]func(when) bool{
		methodHandshake: func(when) bool { return true },
		methodReplay:    func(w when) bool { return w == always },
		methodUpgrade:   func(w when) bool { return w == each },
	} {
		handlers := gin.HandlersChain{enter}
		once := false
		for _, l := range s.chain {
			if !has(l.when) {
				continue
			}
			if was := once; method == methodHandshake {
				if once = l.when != always; once && !was {
					handlers = append(handlers, beforeOnce)
				} else if was && !once {
					handlers = append(handlers, afterOnce)
				}
			}
			handlers = append(handlers, l.mw)
		}
		if once {
			handlers = append(handlers, afterOnce)
		}
		private.Handle(method, path, append(handlers, s.terminal)...)
	}
}

// enter is the first handler of the chain: it lets only the adapter in and gives
// the request its own method back, in the place of the one that selected the
// route.
func enter(c *gin.Context) {
	p, ok := c.Request.Context().Value(passKey{}).(*pass)
	if !ok {
		c.AbortWithStatus(http.StatusNotFound)
		return
	}
	c.Request.Method = p.method
}

// terminal is the last handler of the chain: what it is called with is what
// the middlewares made of the request.
func (s *Server) terminal(c *gin.Context) {
	p, ok := c.Request.Context().Value(passKey{}).(*pass)
	if !ok {
		s.log.Error("a middleware replaced the request by one without its context: nobody can be identified; use c.Request.WithContext on a context derived from it")
		e := s.refusal(errLostContext)
		c.AbortWithStatusJSON(e.status(), e)
		return
	}
	if c.Writer.Written() || c.Writer.Status() >= http.StatusMultipleChoices {
		return // refused without Abort
	}
	var id *Identity
	var err error
	if !p.known {
		id, err = s.identify(c, &p.visit)
	}
	if err == nil {
		p.keys = p.left(c)
		err = p.admit(c.Request.Context(), id)
	}
	if p.failure() != nil {
		err = p.failure()
	}
	if !p.conclude(id, err) {
		return
	}
	if err != nil {
		e := s.refusal(err)
		c.AbortWithStatusJSON(e.status(), e)
		return
	}
	// Through the topmost writer, so that one which acts on the status (scs
	// commits its cookie, loggers note it) sees the real answer's.
	c.Writer.WriteHeader(p.open)
	c.Writer.WriteHeaderNow()
	p.w.sealed = true
}

// statusOpen is the status of the answer to a handshake that is let through.
func statusOpen(r *http.Request) int {
	if websocket.IsWebSocketUpgrade(r) {
		return http.StatusSwitchingProtocols
	}
	return http.StatusOK // of the first poll
}

// errLostContext is why nobody is known where a middleware has cut the request
// off from its context, in which the adapter finds what the stores said.
var errLostContext = errors.New("adapter: a middleware replaced the request by one without its context")

// conclude notes what the chain's end came to, all at once: a middleware may run
// the rest of the chain on a goroutine and return before it is done (timeouts
// do), and a pass whose end was begun but not decided must not count as one
// that admits. It reports false if the chain has returned already.
func (p *pass) conclude(id *Identity, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	p.reached, p.identity, p.err = true, id, err
	return true
}

// finish is the end of the chain: nothing is concluded from here on.
func (p *pass) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

// identify finds out who the chain found.
func (s *Server) identify(c *gin.Context, v *visit) (*Identity, error) {
	if v == nil {
		return nil, errLostContext
	}
	id, err := s.ask(c)
	if id == nil {
		return nil, err
	}
	if id.expired() {
		v.lapse()
		return nil, &Error{Code: CodeExpired, Message: "this login has expired; log in again"}
	}
	l := v.session()
	if l != nil && l.view != nil {
		if err := l.tokens.believe(c.Request.Context(), l, id); err != nil {
			return nil, err
		}
	}
	if l != nil {
		id.SessionID = cmp.Or(id.SessionID, l.id)
	}
	if (l == nil || id.SessionID != l.id) && s.ended.has(id.SessionID) { // no store says so
		return nil, &Error{Code: CodeUnauthenticated, Message: "this session has ended; log in again"}
	}
	return id, nil
}

// ask asks the app who the chain found.
func (s *Server) ask(c *gin.Context) (*Identity, error) {
	if s.identity == nil {
		return nil, nil
	}
	found, err := s.identity(c)
	if err != nil || found == nil {
		return nil, err
	}
	if s.revoked.token(c.GetHeader("Authorization")) {
		return nil, &Error{Code: CodeUnauthenticated, Message: "this token was revoked"}
	}
	id := *found
	if id.UserID == "" {
		return nil, errors.New("adapter: Identify returned an Identity without a UserID; nobody is nil")
	}
	return &id, nil
}

// refusal is the peer's view of why a pass failed.
func (s *Server) refusal(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeUnavailable, Message: "it cannot be checked right now who you are; try again in a moment"}
}

// run sends p.req through the chain under the given method. A panic in the
// chain is the outcome unknown, and the chain's own recovery, if it has one,
// sees it first.
func (p *pass) run(method string) (o outcome) {
	if n := len(p.srv.chain); n > 0 {
		growStack(n)
	}
	if method == methodHandshake {
		p.sent, p.unkept = record(p.req)
	}
	p.open, p.method = statusOpen(p.req), p.req.Method
	p.req = p.req.WithContext(passContext{p.req.Context(), p})
	p.req.Method = method // until enter
	p.w.header = make(http.Header)

	// A context of our own, which never enters the engine's pool: nothing that
	// a middleware keeps of it can end up in somebody else's response.
	c := gin.CreateTestContextOnly(&p.w, p.mount.engine)
	c.Request = p.req

	defer func() {
		if v := recover(); v != nil {
			p.finish()
			if v == http.ErrAbortHandler && !p.replay {
				panic(v) // for net/http; behind a replay there is none
			}
			p.srv.log.Error("a middleware panicked", "panic", v, "replay", p.replay, "stack", string(debug.Stack()))
			p.err = fmt.Errorf("a middleware panicked: %v", v)
			p.w = recorder{header: make(http.Header)}
			o = unknown
		}
	}()
	p.mount.engine.HandleContext(c)
	p.finish()
	if p.w.late != "" {
		p.srv.log.Debug("a middleware wrote after the handshake was answered; it is not sent", "middleware", p.w.late)
	}
	return p.judge()
}

// chainStack is how much of the stack a run of the chain is given room for:
// session stores decode, and decoders are deep.
const chainStack = 8 << 10

// growStack makes room on the goroutine's stack, which begins small and doubles
// whenever it is full. All frames on it are copied and adjusted then: of a
// handshake that loads a session that was a tenth. To grow it once, as long as it
// is shallow, costs next to nothing.
//
//go:noinline
func growStack(n int) byte {
	var room [chainStack]byte // whatever the compiler knows of n, it is used
	return room[n%chainStack]
}

// judge reads the outcome off what the chain left behind.
func (p *pass) judge() outcome {
	if err := p.failure(); err != nil {
		// Whatever the chain concluded, it concluded from a session that could
		// not be loaded: an unmodified middleware takes a dead store for a
		// logout.
		p.err = err
		return unknown
	}
	if p.reached {
		switch {
		case p.err == nil:
			return admitted
		case p.definite():
			return refused
		}
		return unknown
	}
	switch status := p.w.status; {
	case status >= 500 || status == http.StatusTooManyRequests:
		return unknown
	case p.replay && status >= 400 && status != http.StatusUnauthorized && status != http.StatusForbidden:
		// On a replay, "not found" or "conflict" says nothing about who it is.
		return unknown
	}
	return refused
}

// definite reports whether p.err is a decision rather than a failure.
func (p *pass) definite() bool {
	e, ok := errors.AsType[*Error](p.err)
	return ok && e.status() < 500 && e.status() != http.StatusTooManyRequests
}

// answer turns a pass that was not admitted into status, headers and body. A
// nil Error means the chain's own answer is to be sent.
func (p *pass) answer() (status int, own *Error) {
	switch {
	case p.err != nil:
		e := p.srv.refusal(p.err)
		return e.status(), e
	case p.w.status >= 300 && p.w.status < 400:
		// RFC 6455, section 4.1, lets clients follow redirects; none does.
		return http.StatusUnauthorized, &Error{Code: CodeUnauthenticated, Message: fmt.Sprintf(
			"log in first: a middleware answered with a redirect to %.200q, which no WebSocket client follows", withoutQuery(p.w.header.Get("Location")))}
	case p.w.status < 300 && !p.reached && p.w.body.Len() == 0:
		return http.StatusForbidden, &Error{Code: CodeForbidden, Message: "a middleware stopped the request without saying why"}
	case p.w.body.Len() == 0:
		return p.w.status, statusError(p.w.status)
	}
	return max(p.w.status, http.StatusOK), nil
}

// withoutQuery returns where a redirect leads without what it brings along: states,
// hints and tokens, which are not for logs.
func withoutQuery(location string) string {
	if at := strings.IndexAny(location, "?#"); at >= 0 {
		return location[:at]
	}
	return location
}

// refused is the answer as an Error, for those who get no HTTP answer.
func (p *pass) refused() *Error {
	status, own := p.answer()
	if own != nil {
		return own
	}
	e := statusError(status)
	var said struct{ Code, Message, Error any }
	if json.Unmarshal(p.w.body.Bytes(), &said) != nil {
		return e
	}
	// What middlewares commonly write: {"code","message"}, or {"error"}.
	if code, ok := said.Code.(string); ok && code != "" {
		e.Code, e.http = code, status
	}
	for _, text := range []any{said.Message, said.Error} {
		if text, ok := text.(string); ok && text != "" {
			e.Message = text
			break
		}
	}
	return e
}

// statusError is the Error for an answer of the chain that is only a status.
func statusError(status int) *Error {
	switch {
	case status == http.StatusUnauthorized:
		return &Error{Code: CodeUnauthenticated, Message: "log in first"}
	case status == http.StatusTooManyRequests:
		return &Error{Code: CodeTooFast, Message: "too many requests; try again later"}
	case status >= 500:
		return &Error{Code: CodeUnavailable, Message: "the server cannot answer this now; try again in a moment"}
	}
	return &Error{Code: CodeForbidden, Message: fmt.Sprintf("refused with status %d", status)}
}

// headers returns what the chain set and the real answer should carry.
func (p *pass) headers() http.Header {
	h := maps.Clone(p.w.header)
	maps.DeleteFunc(h, func(k string, _ []string) bool { return ofConnection(k) })
	return h
}
