package adapter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter/internal/eio"
	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// beforeEngine is asked before any middleware of UseEach.
func (s *Server) beforeEngine(c *gin.Context) {
	bad := s.showCredentials(c) // first, so that nobody sees the request as it came
	if e := s.checkOrigin(c.Request); e != nil {
		s.turnAway(c.Request, e)
		protocolError(c, &eio.Error{Code: eio.ErrForbidden.Code, Message: e.Message})
		return
	}
	if e := bad; e != nil {
		s.turnAway(c.Request, e)
		protocolError(c, &eio.Error{Code: eio.ErrRequest.Code, Message: e.Message})
		return
	}
	c.Set(bareWriter, c.Writer)
}

// bareWriter is where a request keeps its writer as no middleware of UseEach has
// wrapped it: many wrappers hide that deadlines can be set.
const bareWriter = "github.com/gin-usher/usher/adapter.writer"

// onPolls makes a middleware of UseEach one of the route, for the requests that
// do not pass through the chain: polls, posts and what browsers ask before.
func onPolls(mw gin.HandlerFunc) gin.HandlerFunc {
	return func(c *gin.Context) {
		r := c.Request
		if query := r.URL.Query(); r.Method == http.MethodOptions || query.Get("sid") != "" && query.Get("transport") == "polling" {
			mw(c)
			if c.IsAborted() && !c.Writer.Written() && c.Writer.Status() == http.StatusOK {
				protocolError(c, eio.ErrForbidden) // a bare Abort; a client would believe that its packets have arrived
			}
		}
	}
}

// serveEngine is the route of Engine.IO: handshakes, polls, posts and upgrades.
func (s *Server) serveEngine(c *gin.Context, m *mount) {
	r := c.Request
	s.allowOrigin(c)
	if e := refusedAbove(c); e != nil {
		if c.Query("sid") == "" {
			s.turnAway(r, e)
		}
		return
	}
	if r.Method == http.MethodOptions {
		c.Header("Access-Control-Allow-Methods", "GET, POST")
		c.Header("Access-Control-Allow-Headers", "Authorization, Content-Type")
		c.Header("Access-Control-Max-Age", "600")
		c.AbortWithStatus(http.StatusNoContent)
		return
	}
	query := r.URL.Query()
	dialect, refused := s.dialect(query)
	if refused != nil {
		protocolError(c, refused)
		return
	}
	transport := query.Get("transport")
	if transport != "polling" && transport != "websocket" {
		protocolError(c, eio.ErrTransport)
		return
	}
	sid := query.Get("sid")
	// Polls and posts go on during a shutdown: closing their session ends them.
	if sid == "" || transport == "websocket" {
		if !s.begin() {
			protocolError(c, &eio.Error{Code: eio.ErrRequest.Code, Message: "the server is restarting"})
			return
		}
		defer s.handshakes.Done()
	}
	if sid == "" {
		s.openEngine(c, m, transport, dialect)
		return
	}
	s.mu.RLock()
	conn := s.clients[sid]
	s.mu.RUnlock()
	if conn == nil || !conn.openedAt(m, c) {
		protocolError(c, eio.ErrSession)
		return
	}
	if !conn.owns(r) {
		s.log.Warn("a request for somebody else's Engine.IO session was refused", "address", m.clientIP(c), "method", r.Method, "transport", transport)
		protocolError(c, eio.ErrForbidden)
		return
	}
	if then := conn.session.Dialect().Version(); then != dialect.Version() {
		protocolError(c, &eio.Error{Code: eio.ErrRequest.Code, Message: fmt.Sprintf("expected EIO=%d, as in the handshake", then)})
		return
	}
	switch {
	case transport == "websocket":
		conn.upgrade(c, m, dialect)
	case r.Method == http.MethodGet:
		conn.poll(c)
	case r.Method == http.MethodPost:
		conn.post(c)
	default:
		protocolError(c, eio.ErrRequest)
	}
}

// protocolError answers as the protocol says: the client shows the message.
func protocolError(c *gin.Context, e *eio.Error) {
	c.Abort()
	noSniff(c)
	c.Data(e.Status(), "application/json", e.JSON())
}

// noSniff keeps browsers from running what somebody has written as a script,
// which they do with text/plain otherwise.
func noSniff(c *gin.Context) { c.Header("X-Content-Type-Options", "nosniff") }

// upgrade lets a WebSocket take over from the polls.
func (conn *sioConn) upgrade(c *gin.Context, m *mount, d engine.Dialect) {
	s := conn.srv
	p := &pass{srv: s, mount: m, req: c.Request, known: true}
	p.admit = func(context.Context, *Identity) error { return nil }
	if p.run(methodUpgrade) != admitted {
		s.reject(c, p)
		return
	}
	c.Status(http.StatusSwitchingProtocols)
	conn.bringCookie(c.Writer.Header()) // there may be no further poll
	if err := conn.session.Upgrade(c.Writer, c.Request, answerHeaders(c, p), d); err != nil {
		if errors.Is(err, engine.ErrNotWebSocket) {
			protocolError(c, eio.ErrRequest)
		}
		return
	}
	s.deafen(c)
}

// allowOrigin lets pages of listed origins read the answers of polls, unless
// the app's own CORS middleware has spoken already.
func (s *Server) allowOrigin(c *gin.Context) {
	origin := c.GetHeader("Origin")
	h := c.Writer.Header()
	if origin == "" || len(s.cfg.Origins) == 0 || h.Get("Access-Control-Allow-Origin") != "" {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	addVary(h, "Origin")
}

// openEngine is the handshake of an Engine.IO session.
func (s *Server) openEngine(c *gin.Context, m *mount, transport string, d engine.Dialect) {
	if c.Request.Method != http.MethodGet {
		protocolError(c, eio.ErrMethod)
		return
	}
	adm := s.admit(c, m, s.Namespace, nil)
	if adm == nil {
		return
	}
	conn := &sioConn{srv: s, id: randomID(), adm: adm, params: append(gin.Params(nil), c.Params...), in: sio.Assembler{MaxBytes: int(s.cfg.MaxPayload)}}
	s.stick(adm.answer, c.Request, conn.id)
	open := eio.Handshake{
		SID:          conn.id,
		PingInterval: s.cfg.PingInterval,
		PingTimeout:  s.cfg.PingTimeout,
		MaxPayload:   int(s.cfg.MaxPayload),
	}
	if adm.refusal != nil && !s.lobby.hasRoom(adm.address) {
		s.turnAway(c.Request, errLobbyFull)
		protocolError(c, &eio.Error{Code: eio.ErrForbidden.Code, Message: errLobbyFull.Message})
		return
	}
	if transport == "websocket" {
		session, err := s.eng.OpenWebSocket(c.Writer, c.Request, adm.answer, d, conn)
		if err != nil {
			if errors.Is(err, engine.ErrNotWebSocket) {
				protocolError(c, eio.ErrRequest)
			}
			return
		}
		s.deafen(c)
		conn.session = session
		if !s.addClient(conn) {
			session.Start()
			return
		}
		_ = session.Send(engine.Packet(open.Packet()))
		conn.greet()
		session.Start()
		return
	}
	open.Upgrades = []string{"websocket"}
	conn.session = s.eng.NewSession(d, conn)
	s.addClient(conn)
	for k, vs := range adm.answer {
		c.Writer.Header()[k] = vs
	}
	conn.greet()
	s.writePoll(c, d, []engine.Frame{engine.Packet(open.Packet())})
}

// addClient lists a connection. One that must wait is closed if there is no room
// for it any more.
func (s *Server) addClient(conn *sioConn) bool {
	s.mu.Lock()
	s.clients[conn.id] = conn
	s.mu.Unlock()
	if conn.adm.refusal != nil {
		if e := conn.mustShow(conn.adm); e != nil {
			conn.session.Close(engine.Cause{Reason: string(ReasonRefused), Code: closeCodeFor(e), Text: e.Code})
			return false
		}
	}
	conn.connectBy()
	return true
}

// poll answers a GET with what there is to send, when there is something.
func (conn *sioConn) poll(c *gin.Context) {
	done := holdOn(c)
	frames, err := conn.session.Poll(c.Request.Context().Done())
	done()
	switch {
	case errors.Is(err, engine.ErrOverlap):
		protocolError(c, eio.ErrRequest)
	case err != nil:
		// The session moved to its WebSocket, or is over.
		protocolError(c, eio.ErrRequest)
	case frames != nil:
		conn.bringCookie(c.Writer.Header())
		conn.srv.writePoll(c, conn.session.Dialect(), frames)
	}
}

// holdOn lifts the deadline that http.Server has set for the answer to a request
// which is held longer. When done is called the answer has as much time as any
// other. No deadline may be left behind: where the server sets none, it would
// hit whatever comes next over the same connection.
func holdOn(c *gin.Context) (done func()) {
	rc := http.NewResponseController(c.MustGet(bareWriter).(gin.ResponseWriter))
	_ = rc.SetWriteDeadline(time.Time{})
	return func() {
		server, _ := c.Request.Context().Value(http.ServerContextKey).(*http.Server)
		if server != nil && server.WriteTimeout > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(server.WriteTimeout))
		}
	}
}

// hurry gives a body as long to arrive as a client may be silent, unless
// http.Server has set a limit: a byte now and then would hold a goroutine for
// ever, whatever becomes of the session.
func hurry(c *gin.Context, patience time.Duration) (received func()) {
	if server, _ := c.Request.Context().Value(http.ServerContextKey).(*http.Server); server != nil && server.ReadTimeout > 0 {
		return func() {}
	}
	rc := http.NewResponseController(c.MustGet(bareWriter).(gin.ResponseWriter))
	_ = rc.SetReadDeadline(time.Now().Add(patience))
	return func() { _ = rc.SetReadDeadline(time.Time{}) }
}

func (s *Server) writePoll(c *gin.Context, d engine.Dialect, frames []engine.Frame) {
	c.Header("Cache-Control", "no-store")
	noSniff(c)
	kind := "text/plain; charset=UTF-8"
	body, binary := d.AppendPoll(nil, frames)
	if binary {
		kind = "application/octet-stream"
	}
	s.writeBody(c, kind, body, slices.ContainsFunc(frames, engine.Frame.Compressible))
}

// post takes packets from a client that polls.
func (conn *sioConn) post(c *gin.Context) {
	version := conn.session.Dialect().Version()
	kind, _, _ := mime.ParseMediaType(c.GetHeader("Content-Type"))
	binary := kind == "application/octet-stream"
	if binary && version != eio.V3 {
		// Protocol 3 has such bodies. In 4 bytes come as base64.
		conn.session.Close(engine.Cause{Reason: engine.ReasonTransportError, Err: errors.New("expected a POST of text, got application/octet-stream")})
		protocolError(c, eio.ErrRequest)
		return
	}
	if err := conn.session.BeginPost(); err != nil {
		protocolError(c, eio.ErrRequest)
		return
	}
	defer conn.session.EndPost()
	limit := conn.srv.cfg.MaxPayload
	if conn.waits.Load() != nil {
		limit = pendingInput
	}
	received := hurry(c, conn.srv.cfg.PingInterval+conn.srv.cfg.PingTimeout)
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, limit))
	received()
	if err != nil {
		if c.Writer.Written() {
			// A middleware that bounds the body has answered already.
			conn.session.Close(engine.Cause{Reason: engine.ReasonTooLarge, Err: err})
			c.Abort()
			return
		}
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			conn.session.Close(engine.Cause{Reason: engine.ReasonTooLarge, Err: err})
			c.AbortWithStatusJSON(http.StatusRequestEntityTooLarge, &eio.Error{Code: eio.ErrRequest.Code,
				Message: fmt.Sprintf("expected at most %d bytes at once", limit)})
			return
		}
		// What it said is lost, and nothing may come after it.
		conn.session.Close(engine.Cause{Reason: engine.ReasonTransportError, Err: err})
		protocolError(c, eio.ErrRequest)
		return
	}
	packets := eio.DecodePayload(version, body, eio.Limits{})
	if binary {
		packets = eio.DecodeBinaryPayload(body, eio.Limits{})
	}
	done := holdOn(c)
	err = conn.session.Post(packets)
	done()
	if err != nil {
		e := *eio.ErrRequest
		if !errors.Is(err, engine.ErrClosed) {
			e.Message = err.Error()
		}
		protocolError(c, &e)
		return
	}
	c.Header("Cache-Control", "no-store")
	noSniff(c)
	c.Data(http.StatusOK, "text/html", []byte("ok"))
}
