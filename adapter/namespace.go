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
//
// One whose name has parameters, such as "/room/:id", is a pattern: sockets are
// in the namespaces that it makes, which share its guards and handlers, exist
// while somebody is in them, and have rooms of their own. What is emitted to a
// pattern goes to all of them.
type Namespace struct {
	srv  *Server
	name string
	*conduct

	parts   pattern           // if it is one
	pattern *Namespace        // that has made this one
	params  map[string]string // what the pattern's parameters stand for
	uses    int               // sockets that are here or about to be, if there is a pattern; guarded by Server.mu

	history *history // nil without recovery

	rooms rooms.Index[*Socket]
	users rooms.Index[*Socket] // by user id

	mu      sync.RWMutex
	sockets map[string]*Socket
}

// A conduct is how a namespace behaves: what is set up before Mount. Those that
// a pattern makes share the pattern's.
type conduct struct {
	anonymous    bool
	guards       []Guard
	handlers     map[string]*handler
	serverSide   map[string]serverHandler
	interceptors []func(ctx context.Context, s *Socket, e Event) error
	onAny        []func(ctx context.Context, s *Socket, e Event)
	onOutgoing   []func(s *Socket, event string, args []any)
	onRefused    []func(ctx context.Context, h *Handshake, err error)
	onConnect    []func(ctx context.Context, s *Socket) error
	onIdentity   []func(ctx context.Context, s *Socket, old *Identity) error
	onDisconnect []func(s *Socket, r Reason)
}

func newNamespace(srv *Server, name string) *Namespace {
	n := &Namespace{
		srv: srv, name: name, sockets: make(map[string]*Socket),
		conduct: &conduct{handlers: make(map[string]*handler)},
	}
	if srv.cfg.Recovery.Window > 0 {
		n.history = &history{n: n}
	}
	return n
}

// Name returns the namespace's name: "/" or "/admin".
func (n *Namespace) Name() string { return n.name }

// Param returns what a parameter of the pattern stands for in this namespace:
// in "/room/7", made by "/room/:id", Param("id") is "7". It is "" for a name
// that the pattern does not have.
func (n *Namespace) Param(name string) string { return n.params[name] }

// AllowAnonymous admits sockets of which the chain passed and named nobody.
// Without it a namespace admits identified people only.
func (n *Namespace) AllowAnonymous() *Namespace {
	n.srv.mustBeOpen("AllowAnonymous")
	n.anonymous = true
	return n
}

// Require adds guards that are asked, in order, when a socket enters and again
// whenever its identity changes: before its next event, and if one of its handlers
// runs then, also at once. The first error refuses or ends it: for good with an *Error
// that is a decision, else so that its client tries again.
func (n *Namespace) Require(g ...Guard) *Namespace {
	n.srv.mustBeOpen("Require")
	n.guards = append(n.guards, g...)
	return n
}

// Intercept adds a function that is asked about every event from a client before
// it reaches its handler. An error refuses the event, as if the handler had
// returned it; the socket goes on.
func (n *Namespace) Intercept(f func(ctx context.Context, s *Socket, e Event) error) {
	n.srv.mustBeOpen("Intercept")
	n.interceptors = append(n.interceptors, f)
}

// OnAny adds a function that gets every event from a client that was not
// intercepted, before its handler does. An event that has no handler is then no
// error, unless the client waits for an acknowledgement.
func (n *Namespace) OnAny(f func(ctx context.Context, s *Socket, e Event)) {
	n.srv.mustBeOpen("OnAny")
	n.onAny = append(n.onAny, f)
}

// OnAnyOutgoing adds a function that sees every event on its way to a client:
// once for each socket, on the goroutine that emits, when the event is queued.
// It must not change args, which all sockets of a broadcast share.
// Acknowledgements are no events.
func (n *Namespace) OnAnyOutgoing(f func(s *Socket, event string, args []any)) {
	n.srv.mustBeOpen("OnAnyOutgoing")
	n.onOutgoing = append(n.onOutgoing, f)
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

// OnRefused adds a function that is told of whoever is not let in, with the
// *Error that he gets. Handshakes of Socket.IO, which are refused before there is
// a namespace, are told to that of "/". h is nil for a request that cannot be
// kept. It runs on the request's goroutine, or on one of its own.
func (n *Namespace) OnRefused(f func(ctx context.Context, h *Handshake, err error)) {
	n.srv.mustBeOpen("OnRefused")
	n.onRefused = append(n.onRefused, f)
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

// remove takes s out, unless one that was recovered has its place already.
func (n *Namespace) remove(s *Socket) {
	n.mu.Lock()
	if n.sockets[s.id] == s {
		delete(n.sockets, s.id)
	}
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
// given; nobody, if none are.
func (n *Namespace) To(rooms ...string) Op { return Op{ns: n}.To(rooms...) }

// In is To.
func (n *Namespace) In(rooms ...string) Op { return n.To(rooms...) }

// ToUser addresses every socket of one user.
func (n *Namespace) ToUser(id string) Op { return Op{ns: n, user: id, toUser: true} }

// Except addresses everyone who is in none of the rooms.
func (n *Namespace) Except(rooms ...string) Op { return Op{ns: n}.Except(rooms...) }

// Volatile addresses everyone, with events that are dropped for sockets that
// still have something to read.
func (n *Namespace) Volatile() Op { return Op{ns: n}.Volatile() }

// Compress addresses everyone, with events that are compressed or not.
func (n *Namespace) Compress(on bool) Op { return Op{ns: n}.Compress(on) }

// Local addresses everyone who is connected to this node.
func (n *Namespace) Local() Op { return Op{ns: n}.Local() }

// Emit sends an event to every socket of the namespace.
func (n *Namespace) Emit(event string, args ...any) error { return Op{ns: n}.Emit(event, args...) }

// Sockets returns what is known of every socket of the namespace.
func (n *Namespace) Sockets(ctx context.Context) ([]RemoteSocket, error) {
	return Op{ns: n}.Sockets(ctx)
}

// Join puts every socket of the namespace into rooms.
func (n *Namespace) Join(rooms ...string) { Op{ns: n}.Join(rooms...) }

// Leave takes every socket of the namespace out of rooms.
func (n *Namespace) Leave(rooms ...string) { Op{ns: n}.Leave(rooms...) }

// Disconnect ends every socket of the namespace.
func (n *Namespace) Disconnect() { Op{ns: n}.Disconnect() }
