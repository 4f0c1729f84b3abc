package compat

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alicebob/miniredis/v2"
	ginjwt "github.com/appleboy/gin-jwt/v3"
	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"github.com/gin-contrib/authz"
	"github.com/gin-contrib/httpsign"
	"github.com/gin-contrib/httpsign/crypto"
	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	gormsessions "github.com/gin-contrib/sessions/gorm"
	"github.com/gin-contrib/sessions/memstore"
	"github.com/gin-contrib/sessions/redis"
	"github.com/gin-gonic/gin"
	"github.com/glebarez/sqlite"
	jwt "github.com/golang-jwt/jwt/v5"
	gsessions "github.com/gorilla/sessions"
	"github.com/gorilla/websocket"
	ginadapter "github.com/gwatts/gin-adapter"
	"github.com/markbates/goth"
	"github.com/markbates/goth/gothic"
	"github.com/markbates/goth/providers/faux"
	"gorm.io/gorm"
	gormlogger "gorm.io/gorm/logger"

	"github.com/gin-usher/usher/adapter"
)

const sessionsModule = "github.com/gin-contrib/sessions"

var identifying = []row{
	{name: "gin.BasicAuth", place: use, build: buildBasicAuth,
		note: "browsers send it on WebSockets only once a page of the site has asked for it"},
	{name: "gin-contrib/sessions, cookie", module: sessionsModule, place: use, build: inSessions(newCookies),
		note: "WebSockets cannot write it (`ErrReadOnlySession`): a cookie reaches the browser with an answer of HTTP only, such as that to a poll"},
	{name: "gin-contrib/sessions, memstore", module: sessionsModule, place: use, build: inSessions(newMemory)},
	{name: "gin-contrib/sessions, redis", module: sessionsModule, place: use, build: inSessions(newRedis)},
	{name: "gin-contrib/sessions, gorm", module: sessionsModule, place: use, build: inSessions(newGorm),
		note: "it hides errors of its database: give `srv.Store` a store with a method `Ping`, or a dead database looks like a logout. Its `New` is a data race of its own wherever two requests come at a time; it writes what is there already"},
	{name: "goth with a sessions guard", module: "github.com/markbates/goth", place: use, build: buildGoth,
		note: "`gothic`'s own routes are pages: a provider redirects, which no socket follows"},
	{name: "appleboy/gin-jwt", module: "github.com/appleboy/gin-jwt/v3", place: use, build: buildJWT,
		note: "with `Config.Credentials` it takes tokens from wherever clients can put them, unmodified"},
	{name: "gin-contrib/authz (casbin)", module: "github.com/gin-contrib/authz", place: use, build: buildAuthz,
		note: "on the route it decides about `GET /socket.io/`, once for all events: `adapter.Wrap` asks it about each event"},
	{name: "gin-contrib/httpsign", module: "github.com/gin-contrib/httpsign", place: use, build: buildSignature,
		note: "a replay checks the date of the handshake again: after the validator's 30 s it answers 400, which says nothing about who it is, and after `Config.MaxStale` sockets end. Set a `DateValidator` with a larger `TimeGap`"},
	{name: "alexedwards/scs", module: "github.com/alexedwards/scs/v2", place: use, build: buildSCS,
		note: "through gwatts/gin-adapter, its store through `srv.TokenStore`. The session is in the request's context, for `Identify`, and handlers have `s.Session()`. `srv.Login` and `srv.Logout` are for gin-contrib's: `RenewToken` and `Destroy` are what sockets follow here. A commit keeps what others have written meanwhile, and `srv.Revoke` of a user ends these sessions too. With an `IdleTimeout` it writes whenever it loads; a replay's write is discarded. Wrapped by hand it needs its own `ResponseWriter` in the place of `c.Writer`, on pages too"},
}

// loggedIn reads off what Server.Login has stored.
func loggedIn(c *gin.Context) (*adapter.Identity, error) {
	id, ok := adapter.LoggedIn(c)
	if !ok {
		return nil, nil
	}
	return &id, nil
}

// lookUser returns the user of a socket.
func lookUser(ctx context.Context, _ *adapter.Socket) string {
	id, ok := adapter.IdentityOf(ctx)
	if !ok {
		return "nobody"
	}
	return id.UserID
}

// withHeader returns what puts a header on requests.
func withHeader(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func nothing(*http.Request) {}

func basic(user, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

func buildBasicAuth(*testing.T, *adapter.Server) *fixture {
	return &fixture{
		mw: []gin.HandlerFunc{gin.BasicAuth(gin.Accounts{"alice": "secret"})},
		identify: func(c *gin.Context) (*adapter.Identity, error) {
			user := c.GetString(gin.AuthUserKey)
			if user == "" {
				return nil, nil
			}
			return &adapter.Identity{UserID: user}, nil
		},
		dress:     basic("alice", "secret"),
		strangers: []func(*http.Request){nothing, basic("alice", "wrong"), withHeader("Authorization", "Basic !")},
		look:      lookUser, want: "alice",
	}
}

// A counted store counts what is saved in it.
type counted struct {
	sessions.Store
	n atomic.Int64
}

func (c *counted) Save(r *http.Request, w http.ResponseWriter, s *gsessions.Session) error {
	c.n.Add(1)
	return c.Store.Save(r, w, s)
}

func (c *counted) saves() int { return int(c.n.Load()) }

func count(st sessions.Store) *counted {
	st.Options(sessions.Options{Path: "/", MaxAge: 3600, HttpOnly: true})
	return &counted{Store: st}
}

func newCookies(*testing.T) *counted { return count(cookie.NewStore([]byte(key))) }

func newMemory(*testing.T) *counted { return count(memstore.NewStore([]byte(key))) }

func newRedis(t *testing.T) *counted {
	t.Helper()
	st, err := redis.NewStore(4, "tcp", miniredis.RunT(t).Addr(), "", "", []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return count(st)
}

func newGorm(t *testing.T) *counted {
	t.Helper()
	db, err := gorm.Open(sqlite.Open(filepath.Join(t.TempDir(), "sessions.db")+"?_pragma=busy_timeout(10000)"), &gorm.Config{
		Logger: gormlogger.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
	return count(&oneByOne{Store: gormsessions.NewStore(db, false, []byte(key))})
}

// oneByOne uses a store for one session at a time: gormstore's New sets the age
// of its codecs each time, to what it is, which is a data race of its own.
type oneByOne struct {
	sessions.Store
	mu sync.Mutex
}

func (o *oneByOne) New(r *http.Request, name string) (*gsessions.Session, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Store.New(r, name)
}

func (o *oneByOne) Save(r *http.Request, w http.ResponseWriter, s *gsessions.Session) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Store.Save(r, w, s)
}

// inSessions builds gin-contrib/sessions on a store.
func inSessions(open func(*testing.T) *counted) func(*testing.T, *adapter.Server) *fixture {
	return func(t *testing.T, srv *adapter.Server) *fixture {
		st := open(t)
		return &fixture{
			mw:       []gin.HandlerFunc{sessions.Sessions("sid", srv.Store(st))},
			identify: loggedIn,
			pages: func(g *gin.RouterGroup) {
				g.POST("/login", func(c *gin.Context) {
					if err := srv.Login(c, adapter.Identity{UserID: "alice"}); err != nil {
						c.String(http.StatusInternalServerError, err.Error())
					}
				})
			},
			login: func(b *browser) {
				if a := b.post("/login", ""); a.status != http.StatusOK {
					b.t.Fatalf("login: %d %s", a.status, a.body)
				}
			},
			strangers: []func(*http.Request){nothing, withHeader("Cookie", "sid=forged"), withHeader("Cookie", "sid="+base64.URLEncoding.EncodeToString([]byte("1|forged|forged")))},
			look:      lookUser, want: "alice",
			kept: st.saves,
		}
	}
}

// provider is what gothic, which knows one set of providers in the process, is
// asked for here.
func init() {
	goth.UseProviders(&faux.Provider{})
	gothic.Store = gsessions.NewCookieStore([]byte(key))
}

func buildGoth(t *testing.T, srv *adapter.Server) *fixture {
	st := newMemory(t)
	return &fixture{
		mw:       []gin.HandlerFunc{sessions.Sessions("sid", srv.Store(st))},
		identify: loggedIn,
		pages: func(g *gin.RouterGroup) {
			g.GET("/auth", func(c *gin.Context) { gothic.BeginAuthHandler(c.Writer, c.Request) })
			g.GET("/auth/callback", func(c *gin.Context) {
				user, err := gothic.CompleteUserAuth(c.Writer, c.Request)
				if err == nil {
					err = srv.Login(c, adapter.Identity{UserID: user.UserID, Provider: user.Provider})
				}
				if err != nil {
					c.String(http.StatusUnauthorized, err.Error())
				}
			})
		},
		login: func(b *browser) {
			begin := b.get("/auth?provider=faux")
			to, err := url.Parse(begin.header.Get("Location"))
			if begin.status != http.StatusTemporaryRedirect || err != nil {
				b.t.Fatalf("begin: %d %v %v", begin.status, begin.header, err)
			}
			if a := b.get("/auth/callback?provider=faux&state=" + url.QueryEscape(to.Query().Get("state"))); a.status != http.StatusOK {
				b.t.Fatalf("callback: %d %s", a.status, a.body)
			}
		},
		strangers: []func(*http.Request){nothing, withHeader("Cookie", "sid=forged")},
		look:      lookUser, want: "id",
		kept: st.saves,
	}
}

func buildJWT(t *testing.T, _ *adapter.Server) *fixture {
	mw, err := ginjwt.New(&ginjwt.GinJWTMiddleware{
		Realm: "chat", Key: []byte(key), Timeout: time.Hour, IdentityKey: "user",
		Authenticator: func(*gin.Context) (any, error) { return nil, ginjwt.ErrFailedAuthentication },
		PayloadFunc:   func(user any) jwt.MapClaims { return jwt.MapClaims{"user": user} },
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := mw.TokenGenerator(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"user": "alice", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{
		mw: []gin.HandlerFunc{mw.MiddlewareFunc()},
		identify: func(c *gin.Context) (*adapter.Identity, error) {
			user, _ := ginjwt.ExtractClaims(c)["user"].(string)
			if user == "" {
				return nil, nil
			}
			return &adapter.Identity{UserID: user}, nil
		},
		dress: withHeader("Authorization", "Bearer "+token.AccessToken),
		strangers: []func(*http.Request){
			nothing, withHeader("Authorization", "Bearer "+forged), withHeader("Authorization", "Bearer "+token.AccessToken[:len(token.AccessToken)-4]),
		},
		look: lookUser, want: "alice",
	}
}

// policy is what casbin decides by: who may do what where.
const policy = `
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && keyMatch(r.obj, p.obj) && (r.act == p.act || p.act == "*")
`

// enforcer returns a casbin with rules "who where what".
func enforcer(t *testing.T, rules ...string) *casbin.Enforcer {
	t.Helper()
	m, err := model.NewModelFromString(policy)
	if err != nil {
		t.Fatal(err)
	}
	e, err := casbin.NewEnforcer(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		who, rest, _ := strings.Cut(rule, " ")
		where, what, _ := strings.Cut(rest, " ")
		if _, err := e.AddPolicy(who, where, what); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func buildAuthz(t *testing.T, srv *adapter.Server) *fixture {
	f := buildBasicAuth(t, srv)
	f.before = f.mw
	f.mw = []gin.HandlerFunc{authz.NewAuthorizer(enforcer(t, "alice /page GET", "alice /socket.io/* *"))}
	f.strangers = append(f.strangers, basic("mallory", "secret"))
	return f
}

func buildSignature(*testing.T, *adapter.Server) *fixture {
	sign := func(r *http.Request, secret string) {
		r.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
		target := fmt.Sprintf("(request-target): %s %s\ndate: %s\ndigest: ", strings.ToLower(r.Method), r.URL.RequestURI(), r.Header.Get("Date"))
		signature, _ := new(crypto.HmacSha256).Sign(target, secret)
		r.Header.Set("Authorization", fmt.Sprintf(`Signature keyId="alice",algorithm="hmac-sha256",headers="(request-target) date digest",signature="%s"`, base64.StdEncoding.EncodeToString(signature)))
	}
	signatures := httpsign.NewAuthenticator(httpsign.Secrets{"alice": {Key: "secret", Algorithm: new(crypto.HmacSha256)}})
	return &fixture{
		mw: []gin.HandlerFunc{signatures.Authenticated()},
		identify: func(c *gin.Context) (*adapter.Identity, error) {
			if _, by, ok := strings.Cut(c.GetHeader("Authorization"), `keyId="`); ok {
				by, _, _ = strings.Cut(by, `"`)
				return &adapter.Identity{UserID: by}, nil
			}
			return nil, nil
		},
		dress: func(r *http.Request) {
			if r.Method == http.MethodGet && r.URL.Query().Get("sid") == "" {
				sign(r, "secret") // polls belong to a handshake that was signed
			}
		},
		strangers: []func(*http.Request){nothing, func(r *http.Request) { sign(r, "wrong") }},
		look:      lookUser, want: "alice",
	}
}

func buildSCS(t *testing.T, srv *adapter.Server) *fixture {
	m := scs.New()
	m.Store = srv.TokenStore(m.Store)
	return &fixture{
		mw: []gin.HandlerFunc{ginadapter.Wrap(m.LoadAndSave), func(c *gin.Context) {
			if !adapter.Replaying(c.Request.Context()) {
				m.Put(c.Request.Context(), "seen", time.Now().Unix()) // so that there is a cookie to carry
			}
		}},
		identify: func(c *gin.Context) (*adapter.Identity, error) {
			if user := m.GetString(c.Request.Context(), "user"); user != "" {
				return &adapter.Identity{UserID: user}, nil
			}
			return nil, nil
		},
		pages: func(g *gin.RouterGroup) {
			g.POST("/login", func(c *gin.Context) {
				if err := m.RenewToken(c.Request.Context()); err != nil {
					t.Error(err)
				}
				m.Put(c.Request.Context(), "user", "alice")
				c.String(http.StatusOK, "welcome")
			})
			g.POST("/logout", func(c *gin.Context) {
				if err := m.Destroy(c.Request.Context()); err != nil {
					t.Error(err)
				}
				c.String(http.StatusOK, "bye")
			})
		},
		login: func(b *browser) {
			if a := b.post("/login", ""); a.status != http.StatusOK {
				b.t.Fatalf("login: %d %s", a.status, a.body)
			}
		},
		strangers: []func(*http.Request){nothing, func(r *http.Request) {
			if r.URL.Query().Get("sid") == "" {
				r.Header.Set("Cookie", "session=forged") // which the answer replaces, as browsers do
			}
		}},
		look: lookUser, want: "alice",
		also: func(t *testing.T, s *site) {
			sock := s.open(t, transports[0], "")
			if a := sock.b.post("/logout", ""); a.status != http.StatusOK {
				t.Fatalf("logout: %d %s", a.status, a.body)
			}
			_, _, err := sock.ws.ReadMessage()
			if e, ok := errors.AsType[*websocket.CloseError](err); !ok || e.Code != 4409 {
				t.Errorf("after the logout the socket ended with %v, want 4409", err)
			}
		},
	}
}
