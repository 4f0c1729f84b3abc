package adapter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/memstore"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// What the examples share: a site whose people have sessions, their browsers,
// clients that poll, and, in example_client_test.go, one like socket.io-client.

// An account is what the site knows of somebody who is logged in.
type account struct{ Name string }

// An exampleSite is a Gin app around a server. It is mounted when it is first
// used, so that an example can set its server up before.
type exampleSite struct {
	srv      *adapter.Server
	engine   *gin.Engine
	pages    *gin.RouterGroup
	server   *httptest.Server
	browsers map[string]*http.Client // by user; "" is nobody's
	open     []io.Closer
}

// joinRooms is what most of the examples with rooms let their clients do.
func joinRooms(_ context.Context, s *adapter.Socket, rooms []string) error { return s.Join(rooms...) }

// must ends the examples, which have no better place to say that they failed.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// newSite returns a server with sessions and its site. Alice is an admin.
func newSite(cfg adapter.Config) (*adapter.Server, *exampleSite) {
	gin.SetMode(gin.ReleaseMode)
	cfg.Logger = slog.New(slog.DiscardHandler)
	srv, err := adapter.New(cfg)
	must(err)
	store := srv.Store(memstore.NewStore([]byte("32 random bytes, kept secret ...")))
	srv.Use(sessions.Sessions("sid", store))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id, ok := adapter.LoggedIn(c)
		if !ok {
			return nil, nil
		}
		id.User = account{Name: strings.ToUpper(id.UserID[:1]) + id.UserID[1:]}
		if id.UserID == "alice" {
			id.Roles = []string{"admin"}
		}
		return &id, nil
	})
	return srv, siteOf(srv)
}

// siteOf returns the site of a server.
func siteOf(srv *adapter.Server) *exampleSite {
	return &exampleSite{srv: srv, engine: gin.New(), browsers: make(map[string]*http.Client)}
}

// Pages returns where the routes of pages belong. From then on the server is set
// up.
func (s *exampleSite) Pages() *gin.RouterGroup {
	if s.pages == nil {
		s.srv.Mount(s.engine)
		s.pages = s.engine.Group("/", s.srv.HTTP()...)
		s.pages.POST("/login", func(c *gin.Context) {
			must(s.srv.Login(c, adapter.Identity{UserID: c.Query("user")}))
		})
		s.pages.POST("/logout", func(c *gin.Context) { must(s.srv.Logout(c)) })
	}
	return s.pages
}

// url returns the URL of a path, once the site runs.
func (s *exampleSite) url(path string) string {
	if s.server == nil {
		s.Pages()
		s.server = httptest.NewServer(s.engine)
	}
	return s.server.URL + path
}

// Close closes what clients have opened, and ends the server.
func (s *exampleSite) Close() {
	for _, c := range s.open {
		_ = c.Close()
	}
	must(s.srv.Shutdown(context.Background()))
	if s.server != nil {
		s.server.Close()
	}
	for _, b := range s.browsers {
		b.CloseIdleConnections()
	}
}

// browser returns the browser of a user, who is logged in there.
func (s *exampleSite) browser(user string) *http.Client {
	if b := s.browsers[user]; b != nil {
		return b
	}
	jar, err := cookiejar.New(nil)
	must(err)
	s.browsers[user] = &http.Client{Jar: jar, Transport: &http.Transport{}, Timeout: patience}
	if user != "" {
		s.Post(user, "/login?user="+user, "")
	}
	return s.browsers[user]
}

// Get opens a page in the browser of a user.
func (s *exampleSite) Get(user, path string) (*http.Response, string) {
	return s.do(user, http.MethodGet, path, "")
}

// Post sends to a page from the browser of a user.
func (s *exampleSite) Post(user, path, body string) (*http.Response, string) {
	return s.do(user, http.MethodPost, path, body)
}

func (s *exampleSite) do(user, method, path, body string) (*http.Response, string) {
	r, err := http.NewRequest(method, s.url(path), strings.NewReader(body))
	must(err)
	resp, err := s.browser(user).Do(r)
	must(err)
	defer resp.Body.Close()
	var answer bytes.Buffer
	_, err = answer.ReadFrom(resp.Body)
	must(err)
	return resp, answer.String()
}

// A rawSocket is a WebSocket as it is.
type rawSocket struct{ *websocket.Conn }

// WebSocket opens a WebSocket from the browser of a user.
func (s *exampleSite) WebSocket(user, path string) rawSocket {
	conn, resp, err := s.dial(user, path)
	must(err)
	_ = resp.Body.Close()
	s.open = append(s.open, conn)
	return rawSocket{conn}
}

func (s *exampleSite) dial(user, path string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{Jar: s.browser(user).Jar, HandshakeTimeout: patience, EnableCompression: true}
	return dialer.Dial("ws"+strings.TrimPrefix(s.url(path), "http"), nil)
}

// Send sends a text message.
func (s rawSocket) Send(text string) {
	must(s.WriteMessage(websocket.TextMessage, []byte(text)))
}

// Next returns the next message.
func (s rawSocket) Next() string {
	_, message, err := s.ReadMessage()
	if err != nil {
		return err.Error()
	}
	return string(message)
}

// A pollingClient has no WebSocket.
type pollingClient struct {
	site       *exampleSite
	user, path string
	Header     http.Header // of the answer to the handshake
}

// Poll connects a user who has no WebSocket.
func (s *exampleSite) Poll(user string) *pollingClient {
	c := &pollingClient{site: s, user: user, path: "/socket.io/?EIO=4&transport=polling"}
	resp, opened := s.Get(user, c.path)
	c.Header = resp.Header
	var open struct{ SID string }
	must(json.Unmarshal([]byte(strings.TrimPrefix(opened, "0")), &open))
	c.path += "&sid=" + open.SID
	s.Post(user, c.path, "40")
	c.Next()
	return c
}

// Next polls once.
func (c *pollingClient) Next() (*http.Response, string) { return c.site.Get(c.user, c.path) }
