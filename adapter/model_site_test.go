package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
)

// A modelSite is a small app in virtual time, and what surrounds it: a session
// store and a table of accounts in memory, browsers, sockets over pipes, and
// gates at which a schedule can hold what is under way. All that happens to it is
// noted in its truth.
type modelSite struct {
	truth
	cfg    modelConfig
	srv    *adapter.Server
	engine *gin.Engine
	ops    sync.WaitGroup // what browsers and the app have begun

	browsers []*modelBrowser
	conns    []*modelConn

	// Guarded by truth.mu.
	failing  int // how the store fails: 0 not at all
	free     bool
	hushed   map[context.Context]bool // loads that have found nothing because the store failed
	armed    map[string]int           // holds, by the point that the next comer stops at
	held     []*modelHold
	ids      int
	versions int
	keys     int
}

// modelConfig is what differs from one interleaving to the next besides its
// operations.
type modelConfig struct {
	revalidate time.Duration
	maxStale   time.Duration
	life       time.Duration // of a session that is not saved
	tells      bool          // sessions say how long they live, by a MaxAge
	rolling    bool          // events extend sessions
	anonymous  bool          // the namespaces admit nobody
	greets     bool          // there is an OnConnect
}

// retry is how long a replay whose outcome was unknown is not repeated, at most.
func (c modelConfig) retry() time.Duration {
	if c.revalidate < 0 {
		return modelRetry
	}
	return min(modelRetry, c.revalidate)
}

func (c modelConfig) String() string {
	return fmt.Sprintf("Revalidate %v, MaxStale %v, sessions live %v and say so %v, rolling %v, anonymous %v, OnConnect %v",
		c.revalidate, c.maxStale, c.life, c.tells, c.rolling, c.anonymous, c.greets)
}

type modelBrowser struct {
	n       int
	address string
	cookie  string
	before  string // the cookie that this one has replaced
}

// How the store fails.
const (
	storeErrs   = iota + 1 // load errors and save errors
	storeHushes            // loads find nothing; Ping tells
)

var errModelStore = errors.New("connection refused")

// A modelHold is something that has stopped at a gate.
type modelHold struct {
	point string
	open  chan struct{}
}

// Points of gates. Those of the chain and of loading come for replays and for
// everything else, as "replay …" and "page …".
var modelPoints = []string{
	"page before load", "page after load", "page in chain", "page identified",
	"replay before load", "replay after load", "replay in chain", "replay identified",
	"before save", "after save", "in page", "in guard", "in handler", "in update", "in connect",
}

// delays reports whether what waits at a point may be what keeps sockets from
// following a change.
func delays(point string) bool {
	switch point {
	case "before save", "in page", "in handler", "in update", "in connect":
		return false
	}
	return true
}

// pass is called at the points; it waits there if the schedule says so, until
// the gate is opened or, unless the database driver is one that does not look,
// ctx is done.
func (w *modelSite) pass(ctx context.Context, point string) error {
	w.mu.Lock()
	if w.free || w.armed[point] == 0 {
		w.mu.Unlock()
		return nil
	}
	heeds := w.armed[point] > 1 // heeds ctx
	w.armed[point] = 0
	h := &modelHold{point, make(chan struct{})}
	w.held = append(w.held, h)
	if delays(point) {
		w.busyLocked(1)
		w.trouble.held++
		w.lastHeld = time.Now()
	}
	w.noteLocked("held %s", point)
	w.mu.Unlock()

	var done <-chan struct{}
	if heeds {
		done = ctx.Done()
	}
	var err error
	select {
	case <-h.open:
	case <-done:
		err = context.Cause(ctx)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	if delays(point) {
		w.busyLocked(-1)
		w.trouble.held--
		w.lastHeld = time.Now()
		if err != nil {
			w.outageEnded = time.Now()
		}
	}
	w.held = slices.DeleteFunc(w.held, func(o *modelHold) bool { return o == h })
	w.noteLocked("goes on %s", point)
	return err
}

// release opens the n-th gate that holds something, or all.
func (w *modelSite) release(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held) == 0 {
		return
	}
	h := w.held[n%len(w.held)]
	w.held = slices.DeleteFunc(w.held, func(o *modelHold) bool { return o == h })
	close(h.open)
}

// releaseAll opens all gates for good.
func (w *modelSite) releaseAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free = true
	for _, h := range w.held {
		close(h.open)
	}
	w.held = nil
}

// fail makes the store fail, or answer again.
func (w *modelSite) fail(how int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if (how == 0) == (w.failing == 0) {
		return
	}
	w.failing = how
	if how != 0 {
		w.outages = append(w.outages, span{from: w.tickLocked()})
		w.busyLocked(1)
	} else {
		w.outages[len(w.outages)-1].to = w.tickLocked()
		w.busyLocked(-1)
		w.outageEnded = time.Now()
	}
}

// modelStore is a session store whose cookie is the id.
type modelStore struct{ w *modelSite }

func (st modelStore) Options(sessions.Options) {}

func (st modelStore) Get(r *http.Request, name string) (*gsessions.Session, error) {
	return gsessions.GetRegistry(r).Get(st, name)
}

func (st modelStore) Ping(ctx context.Context) error {
	st.w.mu.Lock()
	defer st.w.mu.Unlock()
	if st.w.failing != 0 || st.w.hushed[ctx] {
		return errModelStore
	}
	return nil
}

func (st modelStore) New(r *http.Request, name string) (*gsessions.Session, error) {
	w := st.w
	session := gsessions.NewSession(st, name)
	session.IsNew, session.Options = true, &gsessions.Options{Path: "/"}
	if w.cfg.tells {
		session.Options.MaxAge = int(w.cfg.life / time.Second)
	}
	cookie, err := r.Cookie(name)
	if err != nil || cookie.Value == "" {
		return session, nil
	}
	if err := w.pass(r.Context(), classOf(r.Context())+" before load"); err != nil {
		return session, err
	}
	w.mu.Lock()
	failing := w.failing
	row, found := w.rowLocked(cookie.Value)
	if failing == storeHushes {
		w.hushed[r.Context()] = true
	}
	w.mu.Unlock()
	if err := w.pass(r.Context(), classOf(r.Context())+" after load"); err != nil {
		return session, err
	}
	switch {
	case failing == storeErrs:
		return session, errModelStore
	case failing == 0 && found:
		session.ID, session.IsNew, session.Values = cookie.Value, false, maps.Clone(row)
	}
	return session, nil
}

func classOf(ctx context.Context) string {
	if adapter.Replaying(ctx) {
		return "replay"
	}
	return "page"
}

func (st modelStore) Save(r *http.Request, rw http.ResponseWriter, s *gsessions.Session) error {
	w, life := st.w, st.w.cfg.life
	deletes := s.Options != nil && s.Options.MaxAge < 0
	var ends time.Time
	if s.Options != nil && s.Options.MaxAge > 0 {
		life = time.Duration(s.Options.MaxAge) * time.Second
		ends = time.Now().Add(life) // what the session says: it is not known for how long saving takes
	}
	err := w.pass(r.Context(), "before save")
	w.mu.Lock()
	if err == nil && w.failing != 0 {
		err = errModelStore
	}
	if err != nil {
		if x := w.sessions[s.ID]; x != nil && deletes {
			x.kept = true
		}
		w.mu.Unlock()
		return err
	}
	if deletes {
		w.setRowLocked(s.ID, nil, time.Time{}, time.Time{})
	} else {
		if s.ID == "" {
			w.ids++
			s.ID = fmt.Sprintf("s%d", w.ids)
		}
		w.setRowLocked(s.ID, maps.Clone(s.Values), time.Now().Add(life), ends)
		if e, _ := r.Context().Value(modelLogin{}).(*modelEnd); e != nil {
			w.madeLocked(s.ID, e)
		}
	}
	w.mu.Unlock()
	err = w.pass(r.Context(), "after save")
	if deletes {
		rw.Header().Add("Set-Cookie", "sid=; Path=/; Max-Age=0")
	} else {
		rw.Header().Add("Set-Cookie", "sid="+s.ID+"; Path=/")
	}
	return err
}

// modelLogin is where a request has the login that it makes.
type modelLogin struct{}

// newModelSite makes a site in the bubble of the caller.
func newModelSite(cfg modelConfig) *modelSite {
	w := &modelSite{cfg: cfg, armed: make(map[string]int), hushed: make(map[context.Context]bool)}
	w.truth.init(cfg)
	srv, err := adapter.New(adapter.Config{
		Revalidate: cfg.revalidate, MaxStale: cfg.maxStale, PingInterval: time.Hour, ConnectTimeout: time.Hour,
		Rolling: cfg.rolling,
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	w.srv = srv
	srv.Use(w.observe, sessions.Sessions("sid", srv.Store(modelStore{w})), w.bounce)
	srv.Identify(w.identify)
	for _, n := range []*adapter.Namespace{srv.Namespace, srv.Of("/b")} {
		if cfg.anonymous {
			n.AllowAnonymous()
		}
		w.events(n)
	}
	w.engine = gin.New()
	srv.Mount(w.engine)
	w.pages(w.engine.Group("/", srv.HTTP()...))
	return w
}

// observe notes every pass through the chain.
func (w *modelSite) observe(c *gin.Context) {
	began, done := w.runs(c.Request, adapter.Replaying(c.Request.Context()))
	c.Set("began", began)
	c.Next()
	done(!c.IsAborted())
}

// bounce keeps out who is banned, as middlewares do.
func (w *modelSite) bounce(c *gin.Context) {
	if user, _, _ := sessionUser(sessions.Default(c)); user != "" {
		w.mu.Lock()
		ban := w.account(user).ban
		w.mu.Unlock()
		if ban != 0 {
			c.AbortWithStatus(ban)
			return
		}
	}
	if w.pass(c.Request.Context(), classOf(c.Request.Context())+" in chain") != nil {
		c.AbortWithStatus(http.StatusServiceUnavailable)
	}
}

// sessionUser reads off a session's values who it is.
func sessionUser(s interface{ Get(any) any }) (user string, version int, expires time.Time) {
	user, _ = s.Get("usher.user").(string)
	if own, has := s.Get("uid").(string); has {
		user = own // the app's own way to log in, on the same session
	}
	role, _ := s.Get("role").(string)
	v, at, _ := strings.Cut(role, ":")
	version, _ = strconv.Atoi(v)
	if n, _ := strconv.ParseInt(at, 10, 64); n != 0 {
		expires = time.Unix(0, n)
	}
	return user, version, expires
}

func (w *modelSite) identify(c *gin.Context) (*adapter.Identity, error) {
	user, version, expires := sessionUser(sessions.Default(c))
	if user == "" {
		return nil, w.pass(c.Request.Context(), classOf(c.Request.Context())+" identified")
	}
	if !expires.IsZero() && !time.Now().Before(expires) {
		return nil, &adapter.Error{Code: adapter.CodeUnauthenticated, Message: "expired"}
	}
	w.mu.Lock()
	roles := []string{strconv.Itoa(w.account(user).n), strconv.Itoa(version)}
	w.mu.Unlock()
	if err := w.pass(c.Request.Context(), classOf(c.Request.Context())+" identified"); err != nil {
		return nil, err
	}
	return &adapter.Identity{UserID: user, Provider: "test", Roles: roles, Expires: expires, User: user}, nil
}

func (w *modelSite) pages(g *gin.RouterGroup) {
	// in marks the point between loading the session and what the page does.
	in := func(c *gin.Context) { _ = w.pass(c.Request.Context(), "in page") }
	// lasts gives the session a MaxAge of its own.
	lasts := func(c *gin.Context) {
		if age, _ := strconv.Atoi(c.Query("age")); age != 0 {
			sessions.Default(c).Options(sessions.Options{Path: "/", MaxAge: age})
		}
	}
	save := func(c *gin.Context, session sessions.Session) {
		switch err := session.Save(); {
		case errors.Is(err, adapter.ErrSessionGone):
			c.String(http.StatusGone, err.Error())
		case err != nil:
			c.String(http.StatusInternalServerError, err.Error())
		default:
			c.String(http.StatusOK, sessions.Default(c).ID())
		}
	}
	g.POST("/login", in, func(c *gin.Context) {
		session := sessions.Default(c)
		old := session.ID()
		shown, _ := c.Cookie("sid")
		e, done := w.logsIn(old, shown, c.Query("user"), withoutModelPort(c.Request.RemoteAddr))
		c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), modelLogin{}, e))
		lasts(c)
		err := w.srv.Login(c, adapter.Identity{UserID: c.Query("user"), Provider: "test"})
		done(session.ID(), err)
		if err != nil {
			c.String(http.StatusInternalServerError, err.Error())
			return
		}
		if life, _ := time.ParseDuration(c.Query("for")); life != 0 {
			session.Set("role", w.newRole(life))
			save(c, session)
		}
	})
	g.POST("/logout", in, func(c *gin.Context) {
		done := w.ends(sessions.Default(c).ID(), "logout")
		shown, _ := c.Cookie("sid")
		tooDone := w.endsToo(shown, withoutModelPort(c.Request.RemoteAddr))
		if err := w.srv.Logout(c); err != nil {
			w.note("logout: %v", err)
		}
		done()
		tooDone()
	})
	g.GET("/me", func(c *gin.Context) {
		id, ok := adapter.IdentityOf(c)
		if !ok {
			c.String(http.StatusOK, "nobody")
			return
		}
		c.String(http.StatusOK, "%s %s %s", id.UserID, id.Roles[0], id.Roles[1])
	})
	g.POST("/set", in, func(c *gin.Context) {
		session := sessions.Default(c)
		done := w.writes(c.Query("key"), c.Query("value"))
		session.Set(c.Query("key"), c.Query("value"))
		save(c, session)
		done(session.ID(), c.Writer.Status() == http.StatusOK)
	})
	g.POST("/role", in, func(c *gin.Context) {
		session := sessions.Default(c)
		life, _ := time.ParseDuration(c.Query("for"))
		lasts(c)
		session.Set("role", w.newRole(life))
		save(c, session)
	})
	g.POST("/become", in, func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set("uid", c.Query("user"))
		save(c, session)
	})
	g.GET("/get", func(c *gin.Context) {
		session := sessions.Default(c)
		value, _ := session.Get(c.Query("key")).(string)
		w.reads(session.ID(), c.Query("key"), value, c.GetInt("began"))
	})
}

// newRole is the value of a session's "role" that no other session has.
func (w *modelSite) newRole(life time.Duration) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.versions++
	at := int64(0)
	if life != 0 {
		at = time.Now().Add(life).UnixNano()
	}
	return fmt.Sprintf("%d:%d", w.versions, at)
}

func (w *modelSite) events(n *adapter.Namespace) {
	of := func(s *adapter.Socket) *modelSocket { return w.socketOf(s) }
	if w.cfg.greets {
		n.OnConnect(func(ctx context.Context, s *adapter.Socket) error {
			w.turn(ctx, of(s), "OnConnect")
			return w.pass(ctx, "in connect")
		})
	}
	n.OnIdentity(func(ctx context.Context, s *adapter.Socket, _ *adapter.Identity) error {
		w.turn(ctx, of(s), "OnIdentity")
		return nil
	})
	n.OnDisconnect(func(s *adapter.Socket, r adapter.Reason) { w.disconnected(of(s), r) })
	guard := func(ctx context.Context, _ *adapter.Socket) error { return w.pass(ctx, "in guard") }
	adapter.On(n, "event", func(ctx context.Context, s *adapter.Socket, from string) error {
		w.turn(ctx, of(s), "a handler")
		if from == intruder {
			w.intruded(of(s).conn)
		}
		return w.pass(ctx, "in handler")
	}, guard)
	adapter.On(n, "set", func(ctx context.Context, s *adapter.Socket, kv string) error {
		w.turn(ctx, of(s), "a handler")
		_ = w.pass(ctx, "in handler")
		key, value, _ := strings.Cut(kv, "=")
		began, id := w.moment(), s.SessionID()
		done := w.writes(key, value)
		err := s.Session().Update(context.WithoutCancel(ctx), func(v adapter.Values) error {
			v[key] = value
			return w.pass(ctx, "in update")
		})
		if err == nil {
			w.answered(id, began)
		}
		done(id, err == nil)
		return err
	}, guard)
	adapter.On(n, "get", func(ctx context.Context, s *adapter.Socket, key string) error {
		w.turn(ctx, of(s), "a handler")
		_ = w.pass(ctx, "in handler")
		began, id := w.moment(), s.SessionID()
		got, err := s.Session().Get(context.WithoutCancel(ctx), key)
		if err == nil {
			value, _ := got.(string)
			w.reads(id, key, value, began)
		}
		return err
	}, guard)
}

func (b *modelBrowser) setLocked(cookie string) {
	if cookie != b.cookie {
		b.cookie, b.before = cookie, b.cookie
	}
}

// request makes a request of a page and returns its answer.
func (w *modelSite) request(b *modelBrowser, method, path, query string) (status int, body string) {
	r := (&http.Request{
		Method: method, URL: &url.URL{Path: path, RawQuery: query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Host: "usher.test", RemoteAddr: b.address + ":1", RequestURI: path + "?" + query,
	}).WithContext(context.Background())
	if b.cookie != "" {
		r.Header.Set("Cookie", "sid="+b.cookie)
	}
	rec := httptest.NewRecorder()
	w.engine.ServeHTTP(rec, r)
	for _, c := range rec.Header()["Set-Cookie"] {
		value, _, _ := strings.Cut(strings.TrimPrefix(c, "sid="), ";")
		w.mu.Lock()
		b.setLocked(value)
		w.mu.Unlock()
	}
	return rec.Code, rec.Body.String()
}
