// Package backplane is what carries messages between the servers of a cluster:
// the interface that drivers implement, the messages, and a driver for several
// servers in one process.
//
// What a cluster does with the messages (requests and their answers, timeouts,
// who is alive) is built once, in package adapter. A driver moves them, and owns
// their form on its wire: that of the Redis adapters of Socket.IO, say, so that
// servers in Go and on Node.js are one cluster. Package backplanetest is the
// suite that a driver has to pass.
package backplane

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"
)

// MaxBytes is the size of a message, by Message.Size, that every driver carries.
// A larger one is refused with ErrTooLarge by who publishes it and dropped by
// who receives it.
const MaxBytes = 16 << 20

var (
	// ErrClosed is returned by a backplane that was closed.
	ErrClosed = net.ErrClosed
	// ErrTooLarge is returned for a message of more than MaxBytes.
	ErrTooLarge = errors.New("backplane: message is too large")
)

// A Backplane is one node's end of what joins the nodes of a cluster. Its
// methods are safe for concurrent use. Nobody changes a message once it was
// published: not who publishes it, not the driver, not who receives it.
//
//   - Order: what one node publishes reaches each other node in that order, and
//     once. Between the messages of different nodes there is no order.
//   - To whom: a message goes to every other node of the cluster that has
//     subscribed, or to the one that its To names. It does not come back to the
//     node that has published it, except a Beat for everybody: that is how a node
//     knows that it is heard.
//   - Loss: delivery is not confirmed. While a driver is cut off from the others
//     Publish fails, and what they publish meanwhile is lost; it reconnects by
//     itself, delivers a Gap, and goes on with what is published from then on. A
//     message arrives whole or not at all.
//   - Bounds: a driver keeps no message after Publish has returned, but for what
//     is on its way in buffers of a fixed size.
//
// A driver whose peers know other messages than these translates those it can,
// and carries the rest among its own kind. What it has no way to carry at all it
// drops, and says so in its documentation.
type Backplane interface {
	// Subscribe names the node that this end is, and who gets the messages for
	// it. It is called once, before Publish, and returns without waiting for the
	// network: until the driver is connected nothing is delivered. An error says
	// that this end cannot be used at all.
	//
	// deliver does not wait, and does not call the backplane. Messages of one
	// node are delivered one after the other.
	Subscribe(node string, deliver func(*Message)) error

	// Publish hands over messages, in order, and returns when they are on their
	// way, or ctx is done. After an error some of them may still arrive. Two
	// calls at once have no order.
	Publish(ctx context.Context, batch []*Message) error

	// Close leaves the cluster. When it has returned nothing is delivered any
	// more, and everything the driver has started has ended. It may be called
	// again.
	Close() error
}

// A Namespacer is a Backplane with a channel for each namespace. It is told
// which ones exist on its node, as they come and go, and hears of no other; what
// is published for other namespaces it carries all the same.
type Namespacer interface {
	Backplane
	// Enter and Leave alternate for each name. They do not wait, and after Close
	// they do nothing.
	Enter(namespace string)
	Leave(namespace string)
}

// A Counter is a Backplane with nodes that send no Beat: they can only be
// counted.
type Counter interface {
	Backplane
	// Count returns how many other nodes are going to answer a request for the
	// namespace, those that send beats included.
	Count(ctx context.Context, namespace string) (int, error)
}

// A Kind is what a message is for. It says which of its fields mean something.
type Kind uint8

// What nodes tell each other. In brackets: the fields besides Kind, Node, To and
// Namespace.
const (
	// Hello is the first message of a node, or the first after it was cut off.
	// The others answer with a Beat, and tell it what has ended: SessionsEnded, Revoked.
	Hello Kind = iota + 1
	// Beat says that a node is there. One with a Namespace speaks for that only.
	// [Sequence]
	Beat
	// Goodbye says that a node leaves.
	Goodbye
	// SessionsEnded says that nobody may act on these sessions any more. It has
	// no Namespace. [Ended]
	SessionsEnded
	// Revoked says that what was shown before, by a user's login or with a token,
	// counts for nothing any more. It has no Namespace. [Revoked]
	Revoked
	// Changed says that what is known of somebody may have changed: a session was
	// saved, or the app has said so. It has no Namespace. [Changed]
	Changed

	// Emit is an event for the selected sockets. [Selection, Event, Volatile,
	// Uncompressed]
	Emit
	// Join puts the selected sockets into Rooms. [Selection, Rooms]
	Join
	// Leave takes the selected sockets out of Rooms. [Selection, Rooms]
	Leave
	// Disconnect ends the selected sockets. [Selection]
	Disconnect
	// ServerEvent is an event for the servers themselves. With a Request it wants
	// an answer. [Event, Request, Timeout]
	ServerEvent

	// Fetch asks for the selected sockets. [Selection, Request, Timeout]
	Fetch
	// Present asks who is in a room. [Selection, Request, Timeout]
	Present
	// Call is an event that the selected sockets are to acknowledge. [Selection,
	// Event, Uncompressed, Request, Timeout]
	Call
	// Cancel says that nobody waits for the answers to a request any more.
	// [Request]
	Cancel

	// Fetched answers Fetch. [Request, Sockets, Err]
	Fetched
	// PresentAnswer answers Present. [Request, Members, Err]
	PresentAnswer
	// ServerAnswer answers a ServerEvent; the arguments of its Event have no name
	// before them. [Request, Event, Err]
	ServerAnswer
	// Called answers Call at once, with how many sockets will. Each of them is
	// followed by an Acknowledged. [Request, Count, Err]
	Called
	// Acknowledged is one socket's answer to a Call; the arguments of its Event
	// have no name before them. [Request, Socket, Event, Err]
	Acknowledged

	// Locate asks the servers where a user has open sockets. It has no Namespace:
	// only nodes that speak for all of them are waited for. [Of, Request, Timeout]
	Locate
	// SignOut asks the servers to end what the one of Places stands for, if a
	// socket of the user is identified by it. It has no Namespace either. [Of,
	// Places, Request, Timeout]
	SignOut
	// Located answers both, with what was found. [Request, Places, Err]
	Located

	// Gap is delivered by the driver itself, when it has been cut off and is back:
	// messages may have been missed. It is never published. []
	Gap
)

// A Message is what one node tells others.
type Message struct {
	Kind      Kind
	Node      string // that has published it
	To        string // the only node that it is for; empty means every other
	Namespace string // "/chat"; empty where it is about the server as a whole

	// Request is common to a request and its answers, and unique in the cluster.
	Request string
	// Timeout is how long the node that asks is going to wait; zero means that it
	// will say so with a Cancel.
	Timeout time.Duration

	Selection    Selection
	Rooms        []string
	Event        Event
	Volatile     bool // may be dropped for sockets that have something to read
	Uncompressed bool // is not to be compressed

	Sequence uint64
	Ended    []Ended
	Revoked  []Revocation
	Changed  []Subject
	Of       Subject
	Places   []Place
	Sockets  []Socket
	Members  []Member
	Count    int
	Socket   string // the id of one; empty where it is not known
	Err      *Error // why there is no answer
}

// A Selection is which sockets of a namespace a message is about. The zero value
// is all of them.
type Selection struct {
	Rooms  []string // rooms and ids of sockets: those in any of them
	Except []string // but not those in any of these
	OfUser bool     // and only those of User
	User   string
}

// An Event is the name of an event and its arguments, as a packet of Socket.IO
// has them.
type Event struct {
	Data        json.RawMessage // an array; {"_placeholder":true,"num":0} stands for an attachment
	Attachments [][]byte

	// Packed says that the client's format has room for one argument only: if
	// several are expected, the one is an array of them.
	Packed bool
}

// An Ended is a session that has ended.
type Ended struct {
	Session [32]byte      // a hash of its id
	For     time.Duration // how long it has to be remembered
}

// A Subject is whom a message is about: enough to know them by where they are,
// and nothing to act with.
type Subject struct {
	Kind string   // "session", "user", "token" or "provider"
	Hash [32]byte // of which
}

// A Revocation is what nobody may act on any more.
type Revocation struct {
	Subject
	At  int64         // which logins came before: Unix nanoseconds by a clock of the cluster
	Ago time.Duration // how long before this message it was
	For time.Duration // how long it has to be remembered
}

// A Socket is what a node tells of one of its sockets. Credentials are not among
// it.
type Socket struct {
	ID        string
	Namespace string
	User      *User // nil is nobody
	Rooms     []string
	Data      map[string]json.RawMessage
	Address   string // of the peer
	Issued    time.Time
	Path      string // of the handshake
	Header    http.Header
}

// A Place is what a node tells of the sockets that a user has open with one
// session, or one token. Address and Agent are the person's own data: they are
// told to the node that asks, for the page on which the person reads them.
type Place struct {
	Handle  [32]byte // a hash of the session's id, or of the token; zero if there is neither
	Address string   // network address of the client
	Agent   string   // its User-Agent
	Since   time.Time
	Sockets int
}

// A User is who acts on a socket.
type User struct {
	ID       string
	Provider string
	Roles    []string
}

// A Member is one person in a room and how many sockets they have there.
type Member struct {
	UserID  string
	Sockets int
}

// An Error is why a node or a socket has not answered.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Size is what the message counts for: about what it takes in memory.
func (m *Message) Size() int {
	n := 480 + len(m.Node) + len(m.To) + len(m.Namespace) + len(m.Request) + len(m.Socket) +
		sizeOf(m.Rooms) + sizeOf(m.Selection.Rooms) + sizeOf(m.Selection.Except) + len(m.Selection.User) +
		len(m.Event.Data) + 40*len(m.Ended) + 88*len(m.Revoked) + 64*len(m.Changed) + len(m.Of.Kind)
	for i := range m.Places {
		n += 120 + len(m.Places[i].Address) + len(m.Places[i].Agent)
	}
	for _, a := range m.Event.Attachments {
		n += 24 + len(a)
	}
	for i := range m.Sockets {
		n += m.Sockets[i].Size()
	}
	for _, who := range m.Members {
		n += 24 + len(who.UserID)
	}
	if m.Err != nil {
		n += 32 + len(m.Err.Code) + len(m.Err.Message)
	}
	return n
}

// Size is the socket's part of Message.Size.
func (s *Socket) Size() int {
	n := 200 + len(s.ID) + len(s.Namespace) + sizeOf(s.Rooms) + len(s.Address) + len(s.Path)
	if s.User != nil {
		n += 64 + len(s.User.ID) + len(s.User.Provider) + sizeOf(s.User.Roles)
	}
	for k, v := range s.Data {
		n += 64 + len(k) + len(v)
	}
	for k, v := range s.Header {
		n += 64 + len(k) + sizeOf(v)
	}
	return n
}

func sizeOf(list []string) int {
	n := 16 * len(list)
	for _, s := range list {
		n += len(s)
	}
	return n
}
