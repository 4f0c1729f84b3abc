package adapter_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
)

// A track is where races are run: a server whose requests are calls and whose
// connections are memory, so that a try costs little and two things can really
// happen at once. Sockets are never looked at again by themselves, so that
// nothing but what the race is about ends one.
//
// Its lanes run tries at the same time, each with a person and a browser
// session of its own.
type track struct {
	t      *testing.T
	srv    *adapter.Server
	engine *gin.Engine
	store  sessions.Store // as it is, below all wrappers
	lanes  []*lane
	points []point // at which the second one of a try may begin

	mu       sync.Mutex
	outcomes map[string]int
}

// trackLanes is more than there are processors on a small machine, so that
// the scheduler interrupts tries at places of its own choosing.
const trackLanes = 4

type lane struct {
	*track
	index   int
	rng     *rand.Rand
	seed    uint64
	current atomic.Pointer[try]
}

// A try is one race of two.
type try struct {
	*lane
	number int
	user   string
	point  point // in the first action, at which the second one begins
	hold   bool  // and the first one waits there until the second is done
	rng    *rand.Rand

	armed    atomic.Bool // the first action is running
	once     sync.Once
	reached  chan struct{}
	finished chan struct{} // the second action is

	ending   atomic.Bool // what ends the session has begun
	late     atomic.Bool // the chain has begun after that
	answered atomic.Bool // what ends the session has been answered

	stuck atomic.Bool // it takes too long

	handled atomic.Int32 // handlers that have come to their end
	updated chan error   // what Session.Update has come to

	mu      sync.Mutex
	clients []*racer
	sockets []*adapter.Socket // that OnConnect or a handler has seen
	reasons []adapter.Reason  // of those that have ended
	gone    []*adapter.Socket // that OnDisconnect has seen
}

// A point is a place that requests and handlers pass.
type point int32

const (
	atOnce point = iota
	beforeLoad
	afterLoad
	inGuard
	afterIdentify // of the chain: its end unwinds
	afterAnswer   // of the handshake
	onConnect
	inHandler
	beforeSave
	afterSave
	dialled // by an upgrade
	probed
	switched
	afterEmit
	never // the second action begins when the first is done
)

// handshakePoints are what a handshake and its socket pass.
var handshakePoints = []point{atOnce, beforeLoad, afterLoad, inGuard, afterIdentify, afterAnswer, onConnect, inHandler, never}

// laneHeader says which lane a request belongs to.
const laneHeader = "X-Lane"

// races runs a race on a track of its own as often as it is to be run there:
// share of 10,000 times, or of 1,000 where the whole test run was not asked for.
func races(t *testing.T, share float64, points []point, store func(*testing.T) sessions.Store, cfg adapter.Config, setup func(*track), race func(*try)) map[string]int {
	t.Helper()
	tr := newTrack(t, store(t), cfg, setup)
	tr.points = points
	tr.run(raceTries(share), race)
	return tr.outcomes
}

// raceTries is a share of how often races are run.
func raceTries(share float64) int {
	n := 1_000
	if fullRaces() {
		n = 10_000
	}
	return int(float64(n)*share + 0.999)
}

func fullRaces() bool { return os.Getenv("USHER_TEST") == "full" && !testing.Short() }

func newTrack(t *testing.T, store sessions.Store, cfg adapter.Config, setup func(*track)) *track {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	cfg.Revalidate = -1
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	srv, err := adapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tr := &track{t: t, srv: srv, engine: gin.New(), store: store, outcomes: make(map[string]int)}
	seed := rand.Uint64()
	if s := os.Getenv("USHER_RACE_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("USHER_RACE_SEED: %v", err)
		}
	}
	for i := range trackLanes {
		tr.lanes = append(tr.lanes, &lane{track: tr, index: i, seed: seed, rng: rand.New(rand.NewPCG(seed, uint64(i)))})
	}
	srv.Use(tr.pass(beforeLoad, afterIdentify), sessions.Sessions("sid", srv.Store(&jostledStore{store, tr})))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		if token, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer "); ok {
			tr.at(c.Request, afterLoad)
			user, _, _ := strings.Cut(token, "~") // who may have several
			return &adapter.Identity{UserID: user}, nil
		}
		id, ok := adapter.LoggedIn(c)
		tr.at(c.Request, afterLoad)
		if !ok {
			return nil, nil
		}
		return &id, nil
	})
	srv.Require(func(_ context.Context, s *adapter.Socket) error {
		if y := tr.tryOf(s); y != nil {
			y.at(inGuard)
		}
		return nil
	})
	srv.OnConnect(func(ctx context.Context, s *adapter.Socket) error {
		tr.saw(ctx, s, onConnect)
		return nil
	})
	srv.OnDisconnect(func(s *adapter.Socket, r adapter.Reason) {
		if y := tr.tryOf(s); y != nil {
			y.mu.Lock()
			y.reasons, y.gone = append(y.reasons, r), append(y.gone, s)
			y.mu.Unlock()
		}
	})
	adapter.Handle(srv, "act", func(ctx context.Context, s *adapter.Socket, _ any) (string, error) {
		tr.saw(ctx, s, inHandler)
		user := ""
		if id, ok := adapter.IdentityOf(ctx); ok {
			user = id.UserID
		}
		return user, nil
	})
	if setup != nil {
		setup(tr)
	}
	tr.engine.Use(func(c *gin.Context) {
		c.Next()
		tr.at(c.Request, afterAnswer)
	})
	srv.Mount(tr.engine)
	tr.pages(tr.engine.Group("/", srv.HTTP()...))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return tr
}

func (tr *track) pages(g *gin.RouterGroup) {
	answer := func(c *gin.Context, err error) {
		switch {
		case errors.Is(err, adapter.ErrSessionGone):
			c.Status(http.StatusGone)
		case err != nil:
			tr.t.Errorf("%s: %v", c.Request.URL, err)
			c.Status(http.StatusInternalServerError)
		}
	}
	g.POST("/login", func(c *gin.Context) {
		answer(c, tr.srv.Login(c, adapter.Identity{UserID: c.Query("user"), Provider: "test"}))
	})
	g.POST("/logout", func(c *gin.Context) { answer(c, tr.srv.Logout(c)) })
	g.POST("/set", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set(c.Query("key"), "set")
		answer(c, session.Save())
	})
	g.GET("/me", func(c *gin.Context) {
		if id, ok := adapter.IdentityOf(c); ok {
			c.String(http.StatusOK, id.UserID+" "+id.SessionID)
			return
		}
		c.Status(http.StatusUnauthorized)
	})
	g.GET("/get", func(c *gin.Context) {
		value, _ := sessions.Default(c).Get(c.Query("key")).(string)
		c.String(http.StatusOK, value)
	})
}

// run runs the race n times, and says what has come of it.
func (tr *track) run(n int, race func(*try)) {
	tr.t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, l := range tr.lanes {
		wg.Go(func() {
			for !tr.t.Failed() {
				number := int(next.Add(1))
				if number > n {
					return
				}
				l.try(number, race)
			}
		})
	}
	wg.Wait()
	if tr.t.Failed() {
		tr.t.Logf("seed: USHER_RACE_SEED=%d", tr.lanes[0].seed)
	}
	tr.t.Logf("%d tries: %v", n, tr.outcomes)
}

func (l *lane) try(number int, race func(*try)) {
	y := &try{
		lane: l, number: number, user: fmt.Sprintf("%d.%d.", l.index, number),
		point: l.points[l.rng.IntN(len(l.points))], hold: l.rng.IntN(3) == 0,
		rng:     rand.New(rand.NewPCG(l.rng.Uint64(), 0)),
		reached: make(chan struct{}), finished: make(chan struct{}), updated: make(chan error, 1),
	}
	stuck := time.AfterFunc(patience, y.giveUp)
	defer stuck.Stop()
	l.current.Store(y)
	race(y)
}

// giveUp lets a try end that waits for what does not happen.
func (y *try) giveUp() {
	y.errorf("what must happen has not within %v; %d sockets are open", patience, y.srv.OpenOf(y.user))
	y.stuck.Store(true)
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, c := range y.clients {
		c.close()
	}
}

func (y *try) errorf(format string, args ...any) {
	y.t.Helper()
	y.t.Errorf("try %d (point %d, hold %v): %s", y.number, y.point, y.hold, fmt.Sprintf(format, args...))
}

// came counts an outcome.
func (y *try) came(outcome string) {
	y.track.mu.Lock()
	defer y.track.mu.Unlock()
	y.outcomes[outcome]++
}

// race runs first, and second from the try's point on.
func (y *try) race(first, second func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	if y.point == atOnce {
		y.once.Do(func() { close(y.reached) })
	}
	y.armed.Store(true)
	spins := max(y.rng.IntN(4000)-2000, 0)
	wg.Go(func() {
		select {
		case <-y.reached:
		case <-done: // it has not passed there
		}
		spin(spins)
		second()
		close(y.finished)
	})
	first()
	y.armed.Store(false)
	close(done)
	wg.Wait()
}

// at is called where a request passes a point.
func (tr *track) at(r *http.Request, p point) *try {
	i, err := strconv.Atoi(r.Header.Get(laneHeader))
	if err != nil {
		return nil // the adapter's own
	}
	y := tr.lanes[i].current.Load()
	y.at(p)
	return y
}

// at lets the other one begin, and may let it run ahead.
func (y *try) at(p point) {
	if p != y.point || !y.armed.Load() {
		jostle()
		return
	}
	first := false
	y.once.Do(func() { first = true; close(y.reached) })
	if !first {
		jostle()
		return
	}
	// Within a save the session is locked: the other one may have to wait for it.
	if y.hold && p != beforeSave && p != afterSave {
		<-y.finished
		return
	}
	for range rand.IntN(4) {
		runtime.Gosched()
	}
	spin(rand.IntN(3000))
}

// jostle moves what happens at the same time against each other.
func jostle() {
	switch rand.IntN(4) {
	case 0:
		runtime.Gosched()
	case 1:
		spin(rand.IntN(500))
	}
}

var spun atomic.Uint64

func spin(n int) {
	for range n / 8 {
		spun.Add(1)
	}
}

// pass is a middleware with a point before and one after the rest of the chain.
func (tr *track) pass(before, after point) gin.HandlerFunc {
	return func(c *gin.Context) {
		if y := tr.at(c.Request, before); y != nil {
			y.late.Store(y.ending.Load())
		}
		c.Next()
		tr.at(c.Request, after)
	}
}

// saw notes that a handler has started, and checks that it may.
func (tr *track) saw(ctx context.Context, s *adapter.Socket, p point) {
	y := tr.tryOf(s)
	if y == nil {
		// Of an earlier try: it was about to start when the socket ended, which
		// it sees.
		if ctx.Err() == nil {
			tr.t.Errorf("a handler runs for %s, whose try is over", s.Identity().UserID)
		}
		return
	}
	// In this order: what has been answered has ended the context before.
	if answered := y.answered.Load(); answered && !y.late.Load() && ctx.Err() == nil {
		y.errorf("a handler runs after the end was answered, and its context goes on")
	}
	y.mu.Lock()
	if slices.Contains(y.gone, s) {
		defer y.errorf("a handler runs after OnDisconnect")
	}
	if !slices.Contains(y.sockets, s) {
		y.sockets = append(y.sockets, s)
	}
	y.mu.Unlock()
	y.at(p)
}

// tryOf returns the try whose person, or whose anonymous browser, s is; nil if
// that is over.
func (tr *track) tryOf(s *adapter.Socket) *try {
	i, err := strconv.Atoi(s.Handshake().Header().Get(laneHeader))
	if err != nil {
		tr.t.Error(err)
		return nil
	}
	y := tr.lanes[i].current.Load()
	if id := s.Identity(); id != nil && !strings.HasPrefix(id.UserID, y.user) {
		return nil
	}
	return y
}

// rest waits until no socket of the try is open, and none that a handler has run
// for has a turn left.
func (y *try) rest() {
	for {
		y.mu.Lock()
		sockets := slices.Clone(y.sockets)
		y.mu.Unlock()
		if y.stuck.Load() || !slices.ContainsFunc(sockets, func(s *adapter.Socket) bool { return !s.AtRest() }) && y.srv.OpenOf(y.user) == 0 {
			return
		}
		runtime.Gosched() // the try's patience bounds it
	}
}

// A jostledStore is a store that takes its time, now and then.
type jostledStore struct {
	sessions.Store
	tr *track
}

func (s *jostledStore) New(r *http.Request, name string) (*gsessions.Session, error) {
	jostle()
	defer jostle()
	return s.Store.New(r, name)
}

func (s *jostledStore) Save(r *http.Request, w http.ResponseWriter, session *gsessions.Session) error {
	s.tr.at(r, beforeSave)
	err := s.Store.Save(r, w, session)
	s.tr.at(r, afterSave)
	return err
}

// A sheet is the answer to a request.
type sheet struct {
	header http.Header
	status int
	body   bytes.Buffer
	client *racer // of a WebSocket
}

func (p *sheet) Header() http.Header         { return p.header }
func (p *sheet) Write(b []byte) (int, error) { p.WriteHeader(http.StatusOK); return p.body.Write(b) }
func (p *sheet) WriteHeader(status int) {
	if p.status == 0 {
		p.status = status
	}
}
func (p *sheet) Flush() {}

// Hijack gives the server its end of a connection in memory.
func (p *sheet) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	up, down := newStream(), newStream()
	p.client = &racer{in: down, out: up}
	nc := memory{up, down}
	return nc, bufio.NewReadWriter(bufio.NewReaderSize(nc, 16), bufio.NewWriterSize(nc, 16)), nil
}

// cookie is the session cookie after this answer, for a browser that had one.
func (p *sheet) cookie(had string) string {
	for _, set := range p.header["Set-Cookie"] {
		value, attributes, _ := strings.Cut(strings.TrimPrefix(set, "sid="), ";")
		had = value
		if strings.Contains(attributes, "Max-Age=0") {
			had = ""
		}
	}
	return had
}

// do makes a request of the try's browser, at once and without a network.
func (y *try) do(method, target, cookie, body string, header ...string) *sheet {
	return y.doAt(y.engine, method, target, cookie, body, header...)
}

func (y *try) doAt(h http.Handler, method, target, cookie, body string, header ...string) *sheet {
	path, query, _ := strings.Cut(target, "?")
	r := &http.Request{
		Method: method, URL: &url.URL{Path: path, RawQuery: query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{laneHeader: {strconv.Itoa(y.index)}}, Body: http.NoBody, Host: "usher.test", RemoteAddr: "192.0.2.1:1234",
	}
	if body != "" {
		r.Body = readCloser{strings.NewReader(body)}
	}
	if cookie != "" {
		r.Header["Cookie"] = []string{"sid=" + cookie}
	}
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = []string{header[i+1]}
	}
	p := &sheet{header: make(http.Header)}
	h.ServeHTTP(p, r.WithContext(y.t.Context()))
	if p.client != nil {
		y.mu.Lock()
		y.clients = append(y.clients, p.client)
		y.mu.Unlock()
	}
	return p
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// must is do for what has to be answered 200.
func (y *try) must(method, target, cookie, body string, header ...string) *sheet {
	p := y.do(method, target, cookie, body, header...)
	if p.status != http.StatusOK && p.status != 0 {
		y.errorf("%s %s: %d %s", method, target, p.status, p.body.String())
	}
	return p
}

// login returns the cookie of the try's person.
func (y *try) login() string { return y.must("POST", "/login?user="+y.user, "", "").cookie("") }

// logout ends the session, and notes when that is answered.
func (y *try) logout(cookie string) {
	y.must("POST", "/logout", cookie, "")
	y.answered.Store(true)
}

// wantNobody checks that a cookie is nobody's.
func (y *try) wantNobody(cookie string) {
	if p := y.do("GET", "/me", cookie, ""); p.status != http.StatusUnauthorized {
		y.errorf("GET /me with the old cookie: %d %s, want 401", p.status, p.body.String())
	}
}

// wantNoRow checks that the store itself has no session for a cookie any more.
func (y *try) wantNoRow(cookie string) {
	s, err := y.store.New(&http.Request{Header: http.Header{"Cookie": {"sid=" + cookie}}}, "sid")
	if err == nil && !s.IsNew {
		y.errorf("the ended session is in the store: %v", s.Values)
	}
}

// A stream is one direction of a connection: writing never waits.
type stream struct {
	mu     sync.Mutex
	more   sync.Cond
	buf    []byte
	closed bool
}

func newStream() *stream {
	s := &stream{}
	s.more.L = &s.mu
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) == 0 {
		if s.closed {
			return 0, net.ErrClosed
		}
		s.more.Wait()
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	s.buf = append(s.buf, p...)
	s.more.Broadcast()
	return len(p), nil
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.more.Broadcast()
}

// memory is the server's end of a connection.
type memory struct{ in, out *stream }

func (m memory) Read(p []byte) (int, error)     { return m.in.Read(p) }
func (m memory) Write(p []byte) (int, error)    { return m.out.Write(p) }
func (m memory) Close() error                   { m.in.close(); m.out.close(); return nil }
func (memory) LocalAddr() net.Addr              { return pipeAddr{} }
func (memory) RemoteAddr() net.Addr             { return pipeAddr{} }
func (memory) SetDeadline(time.Time) error      { return nil } // nothing here waits for a peer
func (memory) SetReadDeadline(time.Time) error  { return nil }
func (memory) SetWriteDeadline(time.Time) error { return nil }

// A racer is a client's end of a WebSocket.
type racer struct {
	in, out *stream
	buf     []byte // of in
	greeted bool   // the answer to the handshake was read
}

// closed is how a WebSocket has ended: the close frame's, or 1006 for none.
type closed struct{ code int }

func (c closed) Error() string { return "closed " + strconv.Itoa(c.code) }

// fill waits until there are n bytes.
func (c *racer) fill(n int) bool {
	for len(c.buf) < n {
		var chunk [512]byte
		m, err := c.in.Read(chunk[:])
		c.buf = append(c.buf, chunk[:m]...)
		if err != nil {
			return false
		}
	}
	return true
}

// next returns the next message, or how the connection has ended.
func (c *racer) next() (string, error) {
	for !c.greeted {
		if i := bytes.Index(c.buf, []byte("\r\n\r\n")); i >= 0 {
			c.buf, c.greeted = c.buf[i+4:], true
		} else if !c.fill(len(c.buf) + 1) {
			return "", closed{1006}
		}
	}
	if !c.fill(2) {
		return "", closed{1006}
	}
	size, head := int(c.buf[1]), 2
	if size == 126 {
		if !c.fill(4) {
			return "", closed{1006}
		}
		size, head = int(binary.BigEndian.Uint16(c.buf[2:])), 4
	}
	if !c.fill(head + size) {
		return "", closed{1006}
	}
	opcode, data := c.buf[0]&0x0f, string(c.buf[head:head+size])
	c.buf = c.buf[head+size:]
	if opcode == 8 {
		c.close()
		if len(data) < 2 {
			return "", closed{1005}
		}
		return "", closed{int(binary.BigEndian.Uint16([]byte(data)))}
	}
	return data, nil
}

// write sends a message, masked with zeros.
func (c *racer) write(text string) {
	frame := []byte{0x81, byte(0x80 | len(text)), 0, 0, 0, 0}
	if len(text) > 125 {
		frame = []byte{0x81, 0x80 | 126, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0}
	}
	_, _ = c.out.Write(append(frame, text...))
}

func (c *racer) close() {
	c.in.close()
	c.out.close()
}

// dial opens a WebSocket; nil, with the answer, if it is refused.
func (y *try) dial(target, cookie string, header ...string) (*racer, *sheet) {
	return y.dialAt(y.engine, target, cookie, header...)
}

func (y *try) dialAt(h http.Handler, target, cookie string, header ...string) (*racer, *sheet) {
	p := y.doAt(h, "GET", target, cookie, "", append(header, "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-Websocket-Version", "13", "Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")...)
	return p.client, p
}
