package adapter

import (
	"context"
	"log/slog"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
)

type Config struct {
	Path         string
	Origins      []string
	Revalidate   time.Duration
	MaxStale     time.Duration
	PingInterval time.Duration
	PingTimeout  time.Duration
	MaxPayload   int64
	SendBuffer   int
	Development  bool
	Logger       *slog.Logger
	// Refuse answers a page request that HTTP() refuses (503 when a session store does not answer). nil = JSON.
	Refuse func(c *gin.Context, status int, e *Error)
}

type Server struct{ *Namespace }

func New(Config) (*Server, error)                                  { panic("stub") }
func (s *Server) Store(st sessions.Store) sessions.Store           { panic("stub") }
func (s *Server) Use(mw ...gin.HandlerFunc)                        { panic("stub") }
func (s *Server) UseOnce(mw ...gin.HandlerFunc)                    { panic("stub") }
func (s *Server) UseEach(mw ...gin.HandlerFunc)                    { panic("stub") }
func (s *Server) Identify(f func(*gin.Context) (*Identity, error)) { panic("stub") }
func (s *Server) Mount(e *gin.Engine, at ...*gin.RouterGroup)      { panic("stub") }
func (s *Server) HTTP() gin.HandlersChain                          { panic("stub") }
func (s *Server) Of(name string) *Namespace                        { panic("stub") }
func (s *Server) Login(c *gin.Context, id Identity) error          { panic("stub") }
func (s *Server) Logout(c *gin.Context) error                      { panic("stub") }
func (s *Server) Shutdown(ctx context.Context) error               { panic("stub") }

// Login stores Identity.UserID and Provider in the new session; LoggedIn reads them back (for Identify).
func LoggedIn(c *gin.Context) (id Identity, ok bool) { panic("stub") }

type Identity struct {
	UserID, SessionID, Provider string
	Roles                       []string
	Expires                     time.Time
	User                        any
}

func User[T any](ctx context.Context) (T, bool)        { panic("stub") }
func IdentityOf(ctx context.Context) (*Identity, bool) { panic("stub") }

type Namespace struct{}

func (n *Namespace) namespace() *Namespace { return n }

type Events interface{ namespace() *Namespace }
type Guard func(ctx context.Context, s *Socket) error
type Reason string
type Member struct {
	UserID  string
	User    any
	Sockets int
}

func (n *Namespace) AllowAnonymous() *Namespace                                  { panic("stub") }
func (n *Namespace) Require(g ...Guard) *Namespace                               { panic("stub") }
func (n *Namespace) OnConnect(f func(ctx context.Context, s *Socket) error)      { panic("stub") }
func (n *Namespace) OnDisconnect(f func(s *Socket, r Reason))                    { panic("stub") }
func (n *Namespace) To(rooms ...string) Op                                       { panic("stub") }
func (n *Namespace) ToUser(id string) Op                                         { panic("stub") }
func (n *Namespace) Emit(event string, args ...any) error                        { panic("stub") }
func (n *Namespace) Presence(ctx context.Context, room string) ([]Member, error) { panic("stub") }

type Op struct{}

func (o Op) To(rooms ...string) Op                { panic("stub") }
func (o Op) Except(rooms ...string) Op            { panic("stub") }
func (o Op) Volatile() Op                         { panic("stub") }
func (o Op) Emit(event string, args ...any) error { panic("stub") }

type Socket struct{}

func (s *Socket) ID() string                           { panic("stub") }
func (s *Socket) Identity() *Identity                  { panic("stub") } // nil = anonymous
func (s *Socket) Context() context.Context             { panic("stub") }
func (s *Socket) Rooms() []string                      { panic("stub") } // still filled in OnDisconnect
func (s *Socket) Emit(event string, args ...any) error { panic("stub") }
func (s *Socket) Join(rooms ...string) error           { panic("stub") }
func (s *Socket) Leave(rooms ...string) error          { panic("stub") }
func (s *Socket) To(rooms ...string) Op                { panic("stub") } // everyone in rooms but this socket
func (s *Socket) Disconnect() error                    { panic("stub") }

func On[In any](t Events, event string, h func(ctx context.Context, s *Socket, in In) error, g ...Guard) {
	panic("stub")
}
func Handle[In, Out any](t Events, event string, h func(ctx context.Context, s *Socket, in In) (Out, error), g ...Guard) {
	panic("stub")
}

// Error is what a peer sees of a refusal; returned by a handler it becomes the reply's error.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data,omitempty"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }
