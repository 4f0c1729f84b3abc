package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A story is a site where everything goes wrong that can, and everything that it
// writes anywhere: logs of the adapter, of the standard library and of Gin, in
// debug mode, and the bodies of refusals.
type story struct {
	t      *testing.T
	URL    string
	server *adapter.Server
	engine *gin.Engine
	out    *syncBuffer

	mu      sync.Mutex
	secrets map[string]string // the value to what it is
	hidden  bool              // the sids of Engine.IO are secrets, too
}

// secret notes what must not be written.
func (s *story) secret(what, value string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[value] = what
	return value
}

// newStory starts a site with sessions and tokens ("good…" is alice's). above adds
// what stands above the route of sockets, chain what stands in their chain.
func newStory(t *testing.T, sources []adapter.Source, above func(*gin.Engine), chain func(*adapter.Server)) *story {
	t.Helper()
	s := &story{t: t, out: new(syncBuffer), secrets: make(map[string]string)}
	mode, stdout, stderr := gin.Mode(), gin.DefaultWriter, gin.DefaultErrorWriter
	std, flags, def := log.Writer(), log.Flags(), slog.Default()
	t.Cleanup(func() {
		gin.SetMode(mode)
		gin.DefaultWriter, gin.DefaultErrorWriter = stdout, stderr
		slog.SetDefault(def)
		log.SetOutput(std)
		log.SetFlags(flags)
	})
	gin.DefaultWriter, gin.DefaultErrorWriter = s.out, s.out
	gin.SetMode(gin.DebugMode)
	slog.SetDefault(slog.New(slog.NewTextHandler(s.out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	log.SetOutput(s.out)

	srv, err := adapter.New(adapter.Config{Credentials: sources, Revalidate: 300 * time.Millisecond, AuthTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s.server, s.engine = srv, gin.New()
	above(s.engine)
	chain(srv)
	srv.Use(sessions.Sessions("sid", srv.Store(newMemstore(t))), func(c *gin.Context) {
		token, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
		switch {
		case ok && !strings.HasPrefix(token, "good"):
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"message": "not this token"})
		case ok:
			c.Set("token", token)
		}
		switch when := c.GetHeader("X-Panic"); {
		case when == "middleware", when == "replay" && adapter.Replaying(c.Request.Context()):
			panic("a mistake in a middleware: " + when)
		case when == "abort":
			panic(http.ErrAbortHandler)
		}
	})
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		if c.GetString("token") != "" {
			return &adapter.Identity{UserID: "alice"}, nil
		}
		id, ok := adapter.LoggedIn(c)
		if !ok {
			return nil, nil
		}
		s.secret("session id", id.SessionID)
		return &id, nil
	})
	// An app that logs what it has at hand.
	srv.OnRefused(func(ctx context.Context, h *adapter.Handshake, err error) {
		slog.Info("app: refused", "handshake", h, "url", h.Request(ctx).URL, "protocol", h.Header()["Sec-Websocket-Protocol"], "error", err)
		log.Printf("app: refused %v %v", h, err)
		panic("a mistake in OnRefused")
	})
	srv.OnConnect(func(ctx context.Context, sock *adapter.Socket) error {
		id, _ := adapter.IdentityOf(ctx)
		slog.Info("app: connected", "socket", sock, "handshake", sock.Handshake(), "identity", id)
		log.Printf("app: connected %+v %v", sock, sock.Handshake())
		return nil
	})
	adapter.Handle(srv, "me", func(ctx context.Context, _ *adapter.Socket, _ any) (string, error) {
		id, _ := adapter.IdentityOf(ctx)
		return id.UserID, nil
	})
	adapter.On(srv, "panic", func(context.Context, *adapter.Socket, any) error { panic("a mistake in a handler") })
	adapter.On(srv, "fail", func(context.Context, *adapter.Socket, any) error { return errors.New("a store is down") })
	srv.Mount(s.engine)
	pages := s.engine.Group("/", srv.HTTP()...)
	pages.POST("/login", func(c *gin.Context) { _ = srv.Login(c, adapter.Identity{UserID: c.Query("user")}) })
	pages.POST("/logout", func(c *gin.Context) { _ = srv.Logout(c) })
	pages.GET("/me", func(c *gin.Context) {
		id, ok := adapter.IdentityOf(c)
		slog.Info("app: page", "identity", id)
		if !ok {
			c.AbortWithStatus(http.StatusUnauthorized)
		}
	})

	server := httptest.NewUnstartedServer(s.engine)
	server.Config.ErrorLog = log.New(s.out, "", 0)
	server.Start()
	s.URL = server.URL
	t.Cleanup(func() {
		_ = srv.Shutdown(context.Background())
		server.Close()
	})
	return s
}

// login returns a browser that is logged in.
func (s *story) login(user string) *adaptertest.Browser {
	b := adaptertest.NewBrowser(s.t, s.URL)
	b.MustPost("/login?user=" + user)
	for _, c := range b.Cookies() {
		s.secret("cookie", c.Value)
	}
	return b
}

// refused opens a plain WebSocket that is not let in, and keeps the answer.
func (s *story) refused(b *adaptertest.Browser, query string, h http.Header) {
	s.t.Helper()
	c, resp, err := b.TryDial(ws+query, h)
	switch {
	case err == nil: // it is told in-band
		c.Closed()
		for _, f := range c.Rest() {
			fmt.Fprintln(s.out, "frame:", f)
		}
	case resp != nil:
		body, _ := io.ReadAll(resp.Body)
		fmt.Fprintln(s.out, "body:", resp.Status, string(body), resp.Header.Get("Sec-Websocket-Protocol"))
	}
}

// polls tells the story over polling: the last of connects is let in.
func (s *story) polls(b, stranger *adaptertest.Browser, header http.Header, connects ...string) {
	s.t.Helper()
	do := func(b *adaptertest.Browser, method, path, body string, header http.Header) string {
		s.t.Helper()
		status, answer, _ := engineDo(s.t, b, method, path, body, header)
		if status != http.StatusOK {
			fmt.Fprintln(s.out, "body:", status, answer)
		}
		return answer
	}
	_, rest, ok := strings.Cut(do(b, "GET", enginePath, "", header), `"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	if !ok || sid == "" {
		s.t.Fatal("no sid")
	}
	if s.hidden {
		s.secret("Engine.IO sid", sid)
	}
	path := enginePath + "&sid=" + sid
	ask := func(packets, want string) {
		s.t.Helper()
		do(b, "POST", path, packets, header)
		for got := ""; !strings.Contains(got, want); fmt.Fprintln(s.out, "packets:", strings.ReplaceAll(got, sid, "…")) {
			if got = do(b, "GET", path, "", header); got == "" {
				s.t.Fatalf("no answer to %s", packets)
			}
		}
	}
	for i, connect := range connects {
		if i+1 < len(connects) {
			ask(connect, "44{")
		} else {
			ask(connect, `40{"sid":`)
		}
	}
	ask(`42["panic"]`+"\x1e"+`42["fail",1]`+"\x1e"+`421["me"]`, `431["alice"]`)
	if stranger != nil {
		do(stranger, "GET", path, "", nil)
		do(stranger, "POST", path, "2", nil)
	}
	do(b, "PUT", path, "", header)
	do(b, "GET", enginePath+"&sid=unknown", "", header)
	do(b, "GET", strings.Replace(path, "EIO=4", "EIO=9", 1), "", header)
	do(b, "POST", path, `42["me`, header)
	do(b, "GET", path, "", header)
}

func (s *story) tell(sources []adapter.Source) {
	t := s.t
	takes := func(c adapter.Source) bool {
		for _, source := range sources {
			if source == c {
				return true
			}
		}
		return false
	}
	alice, bob, nobody := s.login("alice"), s.login("bob"), adaptertest.NewBrowser(t, s.URL)
	good := func(where string) string { return s.secret("token in "+where, "good-"+where+"-7sZk2") }
	bad := func(where string) string { return s.secret("bad token in "+where, "bad-"+where+"-9xQp4") }
	evil := func(h http.Header) http.Header {
		h = h.Clone()
		h.Set("Origin", "https://evil.example")
		return h
	}
	with := func(k, v string) http.Header { return http.Header{k: {v}} }
	opened := func(b *adaptertest.Browser, query string, h http.Header) {
		t.Helper()
		c, resp, err := b.TryDial(ws+query, h)
		if err != nil {
			t.Fatal(err, resp)
		}
		c.Must("me", nil, nil)
		c.Call("panic", nil)
		c.Call("fail", nil)
		c.Call("nothing", nil)
		c.Close()
	}

	// In a header, or a cookie.
	opened(alice, "", nil)
	s.refused(nobody, "?refusals=close", nil)
	s.refused(nobody, "?refusals=close", with("Cookie", "sid="+bad("cookie")))
	alice.Get("/me")
	nobody.Get("/me")
	for _, scheme := range []string{"Bearer ", "bearer "} {
		opened(nobody, "", with("Authorization", scheme+good("header")))
		s.refused(nobody, "", with("Authorization", scheme+bad("header")))
		s.refused(nobody, "?refusals=close", with("Authorization", scheme+bad("header")))
		s.refused(nobody, "", evil(with("Authorization", scheme+good("header"))))
		engineDo(t, nobody, "GET", "/me", "", with("Authorization", scheme+good("page")))
		engineDo(t, nobody, "GET", "/me", "", with("Authorization", scheme+bad("page")))
		engineDo(t, nobody, "GET", "/nowhere", "", with("Authorization", scheme+good("page")))
		engineDo(t, nobody, "GET", ws, "", with("Authorization", scheme+good("page")))
	}

	// In the subprotocol.
	opened(nobody, "", with("Sec-Websocket-Protocol", "bearer, "+good("subprotocol")))
	s.refused(nobody, "", with("Sec-Websocket-Protocol", "bearer, "+bad("subprotocol")))
	s.refused(nobody, "", evil(with("Sec-Websocket-Protocol", "bearer, "+good("subprotocol"))))
	s.refused(nobody, "", with("Sec-Websocket-Protocol", "bearer, "+good("subprotocol")+", bearer, "+bad("subprotocol twice")))
	s.refused(nobody, "", with("Sec-Websocket-Protocol", "bearer, "+good("subprotocol")+strings.Repeat("x", 9000)))
	s.refused(nobody, "?refusals=close", with("Sec-Websocket-Protocol", "x, bearer, "+bad("subprotocol")))
	s.refused(nobody, "?refusals=close", with("Sec-Websocket-Protocol", "bearer"))

	// In the query.
	if takes(adapter.Query("token")) {
		opened(nobody, "?token="+good("query"), nil)
		s.refused(nobody, "?token="+bad("query"), nil)
		s.refused(nobody, "?token="+good("query")+"&token="+bad("query twice")+"%20", evil(http.Header{}))
		s.refused(nobody, "?token="+good("query"), evil(http.Header{}))
		s.refused(nobody, "?token="+good("query")+"%0d%0a", nil)
		s.refused(nobody, "?refusals=close&token=two%20"+bad("query"), nil)
		value := url.QueryEscape(alice.Cookies()[0].Value)
		opened(nobody, "?session="+value, nil)
		s.refused(nobody, "?session="+value, with("Origin", s.URL))
		s.refused(nobody, "?session="+value, evil(http.Header{}))
		s.refused(nobody, "?session="+bad("session")+"%3b", nil)
		engineDo(t, nobody, "GET", enginePath+"&token="+good("query"), "", nil)
		engineDo(t, nobody, "GET", enginePath+"&token="+bad("query"), "", evil(http.Header{}))
	}

	// In a first message.
	c, _, err := nobody.TryDial(ws, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Raw(`{"type":"authenticate","token":"` + bad("message") + `","id":1}`)
	fmt.Fprintln(s.out, c.Event("reply"))
	c.Raw(`{"type":"authenticate","token":"` + bad("broken message") + `"`)
	fmt.Fprintln(s.out, c.Event("error"))
	c.Raw(`{"type":"authenticate","token":"` + good("message") + `","id":1}`)
	fmt.Fprintln(s.out, c.Event("reply"))
	c.Must("me", nil, nil)
	c.Raw(`{"type":"authenticate","token":"` + bad("message") + `","id":1}`)
	fmt.Fprintln(s.out, c.Event("reply"))

	// Socket.IO: by polling with each, and over a WebSocket.
	s.polls(alice, bob, nil, "40")
	s.polls(nobody, nil, with("Authorization", "Bearer "+good("header")), "40")
	s.polls(nobody, nil, nil, `40{"token":"`+good("auth")+`"}`)
	s.polls(nobody, nil, nil, `40{"token":"`+bad("auth")+`"}`, `40{"token":"`+good("auth")+`"}`)
	conn := engineDial(t, nobody, "")
	_, open, _ := conn.ReadMessage()
	if _, rest, ok := strings.Cut(string(open), `"sid":"`); ok && s.hidden {
		sid, _, _ := strings.Cut(rest, `"`)
		s.secret("Engine.IO sid", sid)
	}
	wsWrite(t, conn, `40`, `420["authenticate",{"token":"`+bad("event")+`"}]`, `421["authenticate",{"token":"`+good("event")+`"}]`, `422["me"]`, `42["panic"]`, `42["authenticate"`)
	for {
		_, got, err := conn.ReadMessage()
		if err != nil {
			if !websocket.IsCloseError(err) && !websocket.IsUnexpectedCloseError(err) {
				t.Fatal(err)
			}
			break
		}
		if strings.HasPrefix(string(got), "43") || strings.HasPrefix(string(got), "44") {
			fmt.Fprintln(s.out, "packet:", string(got))
		}
	}

	// And with mistakes.
	for _, when := range []string{"middleware", "abort"} {
		for _, h := range []http.Header{
			{"Authorization": {"Bearer " + good("panic")}},
			{"Sec-Websocket-Protocol": {"bearer, " + good("panic")}},
			{},
		} {
			h.Set("X-Panic", when)
			s.refused(alice, "", h)
			if when == "middleware" {
				status, body, _ := engineDo(t, alice, "GET", enginePath, "", h)
				fmt.Fprintln(s.out, "body:", status, body)
			}
		}
	}
	c, _, err = alice.TryDial(ws, http.Header{"X-Panic": {"replay"}, "Authorization": {"Bearer " + good("replay")}})
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(s.out.String(), "a mistake in a middleware: replay") {
		c.Must("me", nil, nil)
	}
	alice.MustPost("/logout")
}

// TestSecretsReachNoOutput: tokens, cookies and ids of sessions are in no log, no
// panic's report and no refusal, from wherever they came and whatever goes wrong;
// and neither are Engine.IO's sids, but where Gin's logger writes the URLs of
// polls, in which the protocol has them.
func TestSecretsReachNoOutput(t *testing.T) {
	inHeaders := []adapter.Source{adapter.Subprotocol("bearer"), adapter.AuthPayload("token"), adapter.FirstMessage()}
	everywhere := append([]adapter.Source{adapter.Query("token"), adapter.QuerySession("session", "sid")}, inHeaders...)
	for _, tt := range []struct {
		name    string
		sources []adapter.Source
		hidden  bool
		above   func(*gin.Engine)
		chain   func(*adapter.Server)
		want    []string // that the story has been told
	}{
		{"gin.Default above the routes", inHeaders, false,
			func(e *gin.Engine) { e.Use(gin.Logger(), gin.Recovery()) },
			func(*adapter.Server) {},
			[]string{"[GIN] ", "net/http: abort Handler", "Cookie: *"}},
		{"gin.Recovery above, loggers in the chain", everywhere, true,
			func(e *gin.Engine) { e.Use(gin.Recovery()) },
			func(srv *adapter.Server) {
				srv.UseOnce(gin.Logger())
				srv.UseEach(gin.Recovery())
			},
			[]string{"[GIN] ", "[Recovery]", "Authorization: *", "Cookie: *"}},
		{"nothing of Gin's", everywhere, true,
			func(*gin.Engine) {},
			func(*adapter.Server) {},
			[]string{"a middleware panicked"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory(t, tt.sources, tt.above, tt.chain)
			s.hidden = tt.hidden
			s.tell(tt.sources)
			if err := s.server.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			out := s.out.String()
			for _, want := range append(tt.want, "a mistake in a handler", "a mistake in a middleware", "a mistake in OnRefused",
				"app: refused", "app: connected", "socket accepted", "handshake refused", "not this token") {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q: the story is not what it was", want)
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.secrets) < 20 {
				t.Errorf("only %d secrets: %v", len(s.secrets), s.secrets)
			}
			for value, what := range s.secrets {
				for line := range strings.Lines(out) {
					if strings.Contains(line, value) {
						t.Errorf("%s was written: %s", what, line)
						break
					}
				}
			}
		})
	}
}
