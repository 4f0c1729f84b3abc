package adapter

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// randomID returns 128 random bits as text.
func randomID() string { return rand.Text() }

// A Server admits sockets and keeps them true. It embeds the namespace "/".
//
// It is set up first (Use, Identify, Of, On, …), then mounted, and not changed
// from then on. After Mount or HTTP all methods are safe for concurrent use.
type Server struct {
	*Namespace

	cfg         Config
	log         *slog.Logger
	eng         *engine.Engine
	client      []clientFile
	chain       []step
	identity    func(*gin.Context) (*Identity, error)
	stores      []*store
	tokenStores []*tokenStore
	lobby       lobby
	follow      follower
	rolling     roller
	cluster     *cluster // nil without a backplane
	ended       tombstones
	revoked     revocations
	ledger      ledger
	arriving    sync.RWMutex // see stands
	locks       keyedLocks
	mounts      atomic.Uint64
	mounted     atomic.Pointer[mount] // the last one: servers have one engine
	calls       atomic.Uint64         // ids of acknowledgements asked for
	marks       atomic.Uint64         // of sockets that can be recovered
	kept        atomic.Int64          // bytes that are kept for recovery
	warned      sync.Map              // middlewares that a warning has named

	ctx    context.Context // ends with the server
	cancel context.CancelCauseFunc

	shutdown   sync.Once
	drained    chan struct{}
	handshakes sync.WaitGroup // in flight
	live       sync.WaitGroup // sockets whose last turn has not ended

	mu         sync.RWMutex
	open       bool // may still be set up
	draining   bool
	clients    map[string]*sioConn // by the sid of Engine.IO
	namespaces map[string]*Namespace
	patterns   []*Namespace
	routes     map[string]bool // full paths of the socket routes
}

// New returns a server, or what is unsafe or contradictory in cfg.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("adapter: config: %w", err)
	}
	client, err := loadClient(cfg.Client)
	if err != nil {
		return nil, fmt.Errorf("adapter: config: Client: %w", err)
	}
	s := &Server{
		cfg:    cfg,
		client: client,
		log:    cfg.Logger,
		eng: engine.New(engine.Config{
			PingInterval: cfg.PingInterval,
			PingTimeout:  cfg.PingTimeout,
			MaxPayload:   cfg.MaxPayload,
			SendBuffer:   cfg.SendBuffer,

			Deflate: cfg.Compression,

			UpgradeTimeout: cfg.UpgradeTimeout,
		}),
		open:       true,
		drained:    make(chan struct{}),
		namespaces: make(map[string]*Namespace),
		clients:    make(map[string]*sioConn),
		routes:     make(map[string]bool),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.lobby.wheel = s.eng.Wheel()
	s.follow = follower{srv: s, began: time.Now(), bindings: make(map[string]*binding), visitors: make(map[visitorLink][]*Socket)}
	s.rolling.srv = s
	s.Namespace = s.Of("/")
	s.ledger = ledger{srv: s, kept: cfg.Endings}
	ended, err := s.load()
	if err != nil {
		return nil, fmt.Errorf("adapter: endings: %w", err)
	}
	if cfg.Backplane != nil {
		if err := s.joinCluster(cfg.Backplane, ended); err != nil {
			return nil, fmt.Errorf("adapter: backplane: %w", err)
		}
	}
	return s, nil
}

// Of returns the namespace of a name, such as "/admin", making it if needed.
//
// A name may have parameters: "/room/:id" is a pattern, and clients may ask for
// any namespace that fits it; see Namespace. After Mount no namespaces and
// patterns are added, but Of still returns what there is, and for a name that
// fits a pattern the namespace of that name, whether somebody is in it or not.
func (s *Server) Of(name string) *Namespace {
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.namespaces[name]
	if n == nil && !s.open {
		if n = s.matchLocked(name); n == nil {
			panic(fmt.Sprintf("adapter: Of(%q) after Mount: namespaces are made before", name))
		}
		return n
	}
	if n == nil {
		parts, err := parsePattern(name)
		if err == nil {
			err = sio.CheckNamespace(name)
		}
		if err != nil {
			panic(fmt.Sprintf("adapter: Of(%q): %v", name, err))
		}
		n = newNamespace(s, name)
		if n.parts = parts; parts != nil {
			s.patterns = append(s.patterns, n)
		}
		s.namespaces[name] = n
	}
	return n
}

// Use adds middlewares that identify: sessions, guards, token checks. They run
// on the handshake and again on every replay, so they must be safe to repeat:
// what they save during a replay is discarded. Use, UseOnce and UseEach keep
// the order in which they are called, and panic on middlewares of which it is
// known that they cannot work on sockets, as Mount does.
func (s *Server) Use(mw ...gin.HandlerFunc) { s.use(always, mw) }

// UseOnce adds middlewares that run on the handshake only: loggers, metrics,
// tracing, limiters, protection against forged requests.
func (s *Server) UseOnce(mw ...gin.HandlerFunc) { s.use(once, mw) }

// UseEach adds middlewares that run on every request of a connection: CORS,
// secure headers, request ids, recovery, size limits. A plain WebSocket has one
// request, its handshake; a Socket.IO client that polls has many, and the
// upgrade to a WebSocket is one of them.
func (s *Server) UseEach(mw ...gin.HandlerFunc) { s.use(each, mw) }

func (s *Server) use(w when, mws []gin.HandlerFunc) {
	s.mustBeOpen("Use")
	for _, mw := range mws {
		if mw == nil {
			panic("adapter: Use of a nil middleware")
		}
		if m, ok := find(unfits, mw); ok {
			panic("adapter: Use, UseOnce or UseEach of " + m.name + ": " + m.why)
		}
		s.chain = append(s.chain, step{when: w, mw: mw})
		if recovers(mw) {
			s.chain = append(s.chain, step{w, maskOnPanic, true})
		}
	}
}

// Identify says how to read off what the chain left behind who this is. Nil is
// nobody. An *Error refuses; any other error means that it cannot be known now:
// a handshake or page gets 503, an open socket stays for at most MaxStale.
func (s *Server) Identify(f func(*gin.Context) (*Identity, error)) {
	s.mustBeOpen("Identify")
	if s.identity != nil {
		panic("adapter: Identify was called twice")
	}
	s.identity = f
}

// mustBeOpen panics once the server is mounted: a middleware, guard or handler
// that is added later would not apply to the sockets that are open already.
func (s *Server) mustBeOpen(what string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.open {
		panic("adapter: " + what + " after Mount or HTTP: set the server up before")
	}
}

func (s *Server) freeze() {
	if s.identity == nil && slices.ContainsFunc(s.chain, func(l step) bool { return l.when == always }) {
		panic("adapter: Use without Identify: say with srv.Identify who the chain has found")
	}
	for _, st := range s.stores {
		if st.inCookie.Load() {
			s.ledger.warn(cookieLogout)
		}
	}
	s.mu.Lock()
	s.open = false
	s.mu.Unlock()
	if s.cluster != nil {
		s.cluster.start()
	}
}

// Mount registers the socket routes on e, or on a group of e. It panics, as
// Gin does on a wrong route, on Use without Identify and on middlewares above
// the route that cannot work there: timeouts, caches of pages and compression,
// and loggers that would write the tokens of Query credentials.
func (s *Server) Mount(e *gin.Engine, at ...*gin.RouterGroup) {
	s.freeze()
	g := &e.RouterGroup
	if len(at) > 0 {
		g = at[0]
	}
	for _, h := range g.Handlers {
		s.checkAbove(h)
	}
	m := &mount{engine: e, number: s.mounts.Add(1)}
	s.mounted.Store(m)
	s.register(g, s.cfg.Path+"ws")
	g.GET(s.cfg.Path+"ws", maskOnPanic, func(c *gin.Context) { s.serveWebSocket(c, m) })
	s.register(g, s.cfg.Path)
	engine := gin.HandlersChain{maskOnPanic, s.beforeEngine}
	for _, l := range s.chain {
		if l.when == each {
			engine = append(engine, onPolls(l.mw))
		}
	}
	engine = append(engine, func(c *gin.Context) { s.serveEngine(c, m) })
	// Other methods too: their answer is an error of the protocol.
	for _, method := range []string{
		http.MethodGet, http.MethodPost, http.MethodOptions,
		http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete,
	} {
		g.Handle(method, s.cfg.Path, engine...)
	}

	paths := append(s.mountClient(g), s.cfg.Path, s.cfg.Path+"ws")

	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range paths {
		s.routes[strings.TrimSuffix(g.BasePath(), "/")+path] = true
	}
}

// checkAbove panics on middlewares that break every socket below them.
func (s *Server) checkAbove(h gin.HandlerFunc) {
	if m, ok := find(unfits, h); ok {
		panic("adapter: " + m.name + " above the socket route: " + m.why + "; or mount the sockets before r.Use")
	}
	if m, ok := find(tellers, h); ok && slices.ContainsFunc(s.cfg.Credentials, Source.inURL) {
		panic("adapter: " + m.name + " above the socket route would publish the tokens of Query credentials: mount the sockets before r.Use, or give it to srv.UseOnce")
	}
}

// HTTP returns the chain of Use for page routes, which then know the same
// people as sockets do: r.Group("/", srv.HTTP()...). It identifies and refuses
// nobody; IdentityOf and User say who it is. Requests of the socket routes pass
// through untouched, so it may also be used above them.
func (s *Server) HTTP() gin.HandlersChain {
	s.freeze()
	chain := gin.HandlersChain{s.onPages(s.pageVisit)}
	for _, l := range s.chain {
		if l.when == always && !l.mask {
			chain = append(chain, s.onPages(l.mw))
		}
	}
	return append(chain, s.onPages(s.identifyPage))
}

func (s *Server) onPages(mw gin.HandlerFunc) gin.HandlerFunc {
	return func(c *gin.Context) {
		s.mu.RLock()
		socket := s.routes[c.FullPath()]
		s.mu.RUnlock()
		if !socket {
			mw(c)
		}
	}
}

// identifyPage is the end of the chain on a page.
func (s *Server) identifyPage(c *gin.Context) {
	v := visitOf(c.Request.Context())
	id, err := s.identify(c, v)
	if v.hasLapsed() {
		err = nil // nobody, who may log in again
	}
	if v.failure() != nil {
		err = v.failure()
	}
	if err != nil {
		e := s.refusal(err)
		if e.Code == CodeUnavailable {
			s.log.Warn("a page was refused: it cannot be checked who asks", "error", err)
		}
		_ = c.Error(err)
		c.Abort()
		s.cfg.Refuse(c, e.status(), e)
		return
	}
	setIdentity(c, id)
	if v.page {
		s.lookAgain(c, v, id)
	}
}

// serveWebSocket is the whole handshake of a plain JSON WebSocket.
func (s *Server) serveWebSocket(c *gin.Context, m *mount) {
	bad := s.showCredentials(c) // first, so that nobody sees the request as it came
	if e := s.checkOrigin(c.Request); e != nil {
		s.turnAway(c.Request, e)
		c.AbortWithStatusJSON(e.status(), e)
		return
	}
	if e := bad; e != nil {
		s.turnAway(c.Request, e)
		s.refuse(c, e)
		return
	}
	if e := refusedAbove(c); e != nil {
		s.turnAway(c.Request, e)
		return
	}
	r := c.Request
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		if r.ProtoMajor == 1 { // RFC 9113, section 8.2.2: in HTTP/2 it is an error that clients end the stream for
			c.Header("Upgrade", "websocket")
		}
		c.AbortWithStatusJSON(http.StatusUpgradeRequired, &Error{Code: CodeBadRequest, Message: "expected a WebSocket handshake, got an ordinary request"})
		return
	}
	if !s.begin() {
		e := &Error{Code: CodeUnavailable, Message: "the server is restarting; try again in a moment"}
		c.AbortWithStatusJSON(e.status(), e)
		return
	}
	defer s.handshakes.Done()
	name := "/"
	if r.URL.RawQuery != "" {
		name = cmp.Or(r.URL.Query().Get("nsp"), name)
	}
	ns := s.enter(name)
	if ns == nil {
		e := &Error{Code: CodeNamespace, Message: fmt.Sprintf("there is no namespace %.200q", name)}
		s.turnAway(r, e)
		s.refuse(c, e)
		return
	}
	both := &plainSocket{}
	sock, link := &both.socket, &both.conn
	sock.ns, sock.id = ns, randomID()
	link.socket, sock.link = sock, link
	opened := false
	defer func() {
		if !opened {
			sock.ended(ReasonRefused) // and leaves the namespace, and what guards have joined
		}
	}()
	adm := s.admit(c, m, ns, func(ctx context.Context, adm *admission) error {
		if err := ns.admits(adm.identity); err != nil || len(ns.guards) == 0 {
			return err
		}
		sock.take(adm)
		sock.ref, sock.sessionID = adm.ref, adm.sessionID // guards may ask for the session
		sock.opening.Store(true)                          // what they send is held back
		return ns.guard(&eventContext{Context: ctx, socket: sock, identity: adm.identity, keys: adm.keys}, sock)
	})
	if adm == nil {
		return
	}
	sock.take(adm)
	if adm.refusal != nil {
		sock.undo()
		var e *Error
		if link.waits, e = s.lobby.enter(adm.address, s.cfg.AuthTimeout, link.end); e != nil {
			ns.turnAway(r, e)
			s.refuse(c, e)
			return
		}
		defer func() {
			if !opened {
				link.waits.leave()
			}
		}()
	}
	conn, err := s.eng.Upgrade(c.Writer, r, adm.answer, link)
	if err != nil {
		s.upgradeFailed(c, err)
		return
	}
	s.deafen(c)
	opened = true
	link.opened(conn)
	if adm.refusal != nil {
		sock.waiting.Store(true)
		sock.opening.Store(true)
		conn.Limit(pendingInput)
		conn.Start()
		return
	}
	s.follow.add(sock, adm)
	if !sock.start(adm, nil) {
		s.follow.remove(sock)
	}
	conn.Start()
}

// upgradeFailed answers a request that asked for a WebSocket in a wrong way.
func (s *Server) upgradeFailed(c *gin.Context, err error) {
	if errors.Is(err, engine.ErrNotWebSocket) {
		c.AbortWithStatusJSON(http.StatusBadRequest, &Error{Code: CodeBadRequest, Message: "expected a WebSocket handshake: " + err.Error()})
	}
}

// sessionSaved and closeSession are how the store's events reach sockets.
func (s *Server) sessionSaved(id string) {
	m := BySession(id).mark()
	s.follow.saved(id, m.hash)
	if s.cluster != nil {
		s.cluster.changes.add(m)
	}
}

func (s *Server) closeSession(id string, r Reason) {
	for _, sock := range s.follow.named(id) {
		sock.close(r)
	}
	if id != "" {
		s.follow.withdrawn(id, hashSession(id))
	}
}

// followLogin takes the sockets of a session along to its new id: those of the
// same user or of nobody, if they were opened from where r comes from. All that
// the others have shown is a cookie, which may have been planted in the browser
// that logs in now, or stolen from it: a new session id would protect nothing
// if their sockets came along. It returns the session that a login of that peer
// had put in the place of from before, "" if none had.
func (s *Server) followLogin(r *http.Request, from, to, userID string, cookie *http.Cookie) (was string) {
	s.settle()
	for _, sock := range s.follow.sockets(from) {
		if id := sock.Identity(); id != nil && id.UserID != userID || !sock.shake.Load().samePeer(r) {
			sock.close(ReasonSessionEnded)
		}
	}
	if from != "" {
		was = s.ended.succeeded(from, to, peerOf(r))
		s.follow.move(from, to, cookie)
		s.follow.withdrawn(from, hashSession(from))
	}
	return was
}

// connections returns every Socket.IO connection.
func (s *Server) connections() []*sioConn {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.clients))
}

// sockets returns every open socket.
func (s *Server) sockets() (all []*Socket) {
	for _, n := range s.spaces() {
		all = append(all, n.all()...)
	}
	return all
}

// spaces returns all namespaces that exist.
func (s *Server) spaces() []*Namespace {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.AppendSeq(make([]*Namespace, 0, len(s.namespaces)), maps.Values(s.namespaces))
}

// Shutdown refuses new sockets, closes the open ones with 1012 (clients
// reconnect, to wherever they are sent), spread over up to a second so that
// they do not all come back at once, and waits until their handlers have
// finished and everything the server has started has ended. When ctx is done
// first it returns its error; what is left ends by itself.
//
// It may be called again, to wait on.
func (s *Server) Shutdown(ctx context.Context) error {
	s.shutdown.Do(func() {
		s.mu.Lock()
		s.draining, s.open = true, false
		s.mu.Unlock()
		s.cancel(ErrShutdown)
		s.follow.close()
		go s.drain()
	})
	select {
	case <-s.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("adapter: shutdown: %w", context.Cause(ctx))
	}
}

// drain closes what is open and waits for it.
func (s *Server) drain() {
	defer close(s.drained)
	s.handshakes.Wait() // from here on there is no new socket
	const batch = 100
	open := s.sockets()
	pause := time.NewTicker(max(time.Second*batch/time.Duration(len(open)+batch), time.Millisecond))
	defer pause.Stop()
	for i, sock := range open {
		if i%batch == batch-1 {
			<-pause.C
		}
		sock.close(ReasonShutdown)
	}
	s.lobby.closeAll(causeOf(ReasonShutdown))
	for _, conn := range s.connections() {
		conn.session.Close(causeOf(ReasonShutdown)) // with no socket, or none yet
	}
	s.live.Wait()
	if s.cluster != nil {
		s.cluster.close()
	}
	s.ledger.close()
	s.eng.Close()
}
