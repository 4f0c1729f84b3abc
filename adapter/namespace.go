package adapter

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/gin-usher/usher/adapter/internal/rooms"
)

// A Namespace is a set of sockets with its own events, rooms and guards. It is
// set up before Mount; On, Require and the like panic afterwards.
type Namespace struct {
	srv  *Server
	name string

	anonymous    bool
	guards       []Guard
	handlers     map[string]*handler
	onConnect    []func(ctx context.Context, s *Socket) error
	onIdentity   []func(ctx context.Context, s *Socket, old *Identity) error
	onDisconnect []func(s *Socket, r Reason)

	rooms rooms.Index[*Socket]
	users rooms.Index[*Socket] // by user id

	mu      sync.RWMutex
	sockets map[string]*Socket
}

func newNamespace(srv *Server, name string) *Namespace {
	return &Namespace{srv: srv, name: name, handlers: make(map[string]*handler), sockets: make(map[string]*Socket)}
}

// Name returns the namespace's name: "/" or "/admin".
func (n *Namespace) Name() string { return n.name }

// AllowAnonymous admits sockets of which the chain passed and named nobody.
// Without it a namespace admits identified people only.
func (n *Namespace) AllowAnonymous() *Namespace {
	n.srv.mustBeOpen("AllowAnonymous")
	n.anonymous = true
	return n
}

// Require adds guards that are asked, in order, when a socket enters and again
// whenever its identity changes. The first error refuses or ends it.
func (n *Namespace) Require(g ...Guard) *Namespace {
	n.srv.mustBeOpen("Require")
	n.guards = append(n.guards, g...)
	return n
}

// OnConnect adds a function that runs as the first item of each socket, before
// any of its events. What it emits reaches the client after the connect frame.
// An error refuses the socket: the client gets the error and is closed.
func (n *Namespace) OnConnect(f func(ctx context.Context, s *Socket) error) {
	n.srv.mustBeOpen("OnConnect")
	n.onConnect = append(n.onConnect, f)
}

// OnIdentity adds a function that runs, in order with the socket's events,
// after its identity has changed: to re-key rooms of the app's own. An error
// ends the socket.
func (n *Namespace) OnIdentity(f func(ctx context.Context, s *Socket, old *Identity) error) {
	n.srv.mustBeOpen("OnIdentity")
	n.onIdentity = append(n.onIdentity, f)
}

// OnDisconnect adds a function that runs once and last for each socket that
// OnConnect has let in. The socket is out of its rooms by then; Rooms still
// lists them.
func (n *Namespace) OnDisconnect(f func(s *Socket, r Reason)) {
	n.srv.mustBeOpen("OnDisconnect")
	n.onDisconnect = append(n.onDisconnect, f)
}

// admits is the rule about nobody.
func (n *Namespace) admits(id *Identity) error {
	if id == nil && !n.anonymous {
		return &Error{Code: CodeUnauthenticated, Message: "log in first"}
	}
	return nil
}

// guard asks the namespace's guards.
func (n *Namespace) guard(ctx context.Context, s *Socket) error {
	for _, g := range n.guards {
		if err := g(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (n *Namespace) add(s *Socket) {
	n.mu.Lock()
	n.sockets[s.id] = s
	n.mu.Unlock()
}

func (n *Namespace) remove(s *Socket) {
	n.mu.Lock()
	delete(n.sockets, s.id)
	n.mu.Unlock()
}

func (n *Namespace) socket(id string) *Socket {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.sockets[id]
}

func (n *Namespace) all() []*Socket {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.AppendSeq(make([]*Socket, 0, len(n.sockets)), maps.Values(n.sockets))
}

// To addresses everyone in any of the rooms, and the sockets whose ids are
// given.
func (n *Namespace) To(rooms ...string) Op { return Op{ns: n}.To(rooms...) }

// ToUser addresses every socket of one user.
func (n *Namespace) ToUser(id string) Op { return Op{ns: n, user: id, toUser: true} }

// Except addresses everyone who is in none of the rooms.
func (n *Namespace) Except(rooms ...string) Op { return Op{ns: n}.Except(rooms...) }

// Volatile addresses everyone, with events that are dropped for sockets that
// still have something to read.
func (n *Namespace) Volatile() Op { return Op{ns: n}.Volatile() }

// Compress addresses everyone, with events that are compressed or not.
func (n *Namespace) Compress(on bool) Op { return Op{ns: n}.Compress(on) }

// Emit sends an event to every socket of the namespace.
func (n *Namespace) Emit(event string, args ...any) error { return Op{ns: n}.Emit(event, args...) }
