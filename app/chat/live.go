package chat

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
)

const (
	// MaxRooms is the most rooms that one socket may be in.
	MaxRooms = 20

	// CodeTooFast answers people who post faster than postBurst and postRate.
	CodeTooFast app.Code = adapter.CodeTooFast
)

const (
	postBurst, postRate     = 20, 5 // messages, messages per second, of one user
	typingBurst, typingRate = 5, 2

	// remembered is how many messages back a repeated post is recognised.
	remembered = 4096
)

// Live is the chat as the open sockets see it. These are its events, with what
// a client sends → what it is answered:
//
//	join          {room}               → {room, members, messages}
//	leave         {room}               → {room}
//	chat message  {room, text, nonce?} → {id, at}
//	history       {room, before}       → {messages}
//	typing        {room}
//
// and with what a room hears:
//
//	chat message  {id, room, text, at, user, nonce?}   also its sender
//	presence      {room, members}                      when the set of people changed
//	typing        {room, user}                         others only, may be lost
//
// A refusal carries the code and message of an app.Error. A chat message is
// stored before it is answered. The order of a room is that of the ids: two
// messages posted at the same instant may be heard the other way round.
type Live struct {
	srv      *adapter.Server
	service  *Service
	log      *slog.Logger
	presence *presence
	posts    *limiter
	typings  *limiter
	told     *recent
}

// NewLive registers the events on srv, whose identities must carry an
// app.User. Close it after srv.
func NewLive(srv *adapter.Server, s *Service, log *slog.Logger) *Live {
	l := &Live{
		srv:     srv,
		service: s,
		log:     log,
		posts:   newLimiter(postBurst, postRate),
		typings: newLimiter(typingBurst, typingRate),
		told:    newRecent(remembered),
	}
	l.presence = newPresence(l.announce)
	handle(l, "join", l.join)
	handle(l, "leave", l.leave)
	handle(l, "chat message", l.post)
	handle(l, "history", l.history)
	handle(l, "typing", l.typing)
	srv.OnDisconnect(l.disconnected)
	return l
}

// Close ends the announcements of who is present and waits for one in flight.
func (l *Live) Close() { l.presence.close() }

// Members lists the people in a room, each once, by name.
func (l *Live) Members(ctx context.Context, room string) ([]app.User, error) {
	present, err := l.srv.Presence(ctx, socketRoom(room))
	if err != nil {
		return nil, &app.Error{Code: app.CodeUnavailable, Message: "Could not find out who is in the room. Please try again in a moment.", Err: err}
	}
	return members(present), nil
}

// Post stores a message of u and tells everyone in the room, whether or not u
// has a socket there.
func (l *Live) Post(ctx context.Context, u app.User, d app.Draft) (app.Message, error) {
	if !l.posts.allow(u.ID) {
		return app.Message{}, app.Errorf(CodeTooFast, "You are writing too fast. Please wait a second and try again.")
	}
	d.UserID = u.ID
	m, err := l.service.Post(ctx, d)
	if err != nil {
		return app.Message{}, err
	}
	// A repeated post is told again only if this process has not told the
	// first: it may have crashed in between, or lost the answer of the store.
	if d.Nonce == "" || l.told.add(m.ID) {
		if err := l.srv.To(socketRoom(m.Room)).Emit("chat message", posted{m, d.Nonce}); err != nil {
			// It is stored, and whoever opens the room reads it.
			l.log.ErrorContext(ctx, "chat message was stored but not broadcast", "id", m.ID, "room", m.Room, "error", err)
		}
	}
	return m, nil
}

// posted is a message on its way to a room. The nonce lets its sender
// recognise it before the answer arrives.
type posted struct {
	app.Message
	Nonce string `json:"nonce,omitempty"`
}

// roomRef is what events about a room carry.
type roomRef struct {
	Room string `json:"room"`
}

type joined struct {
	Room     string        `json:"room"`
	Members  []app.User    `json:"members"`
	Messages []app.Message `json:"messages"`
}

func (l *Live) join(ctx context.Context, s *adapter.Socket, u app.User, in roomRef) (joined, error) {
	if _, err := l.service.Room(ctx, in.Room); err != nil {
		return joined{}, err
	}
	// First into the room, then the messages: one that is posted meanwhile
	// arrives twice, with the same id. The other way round it would be lost.
	fresh := !inRoom(s, in.Room)
	if fresh {
		if n := countRooms(s); n >= MaxRooms {
			return joined{}, app.Errorf(app.CodeForbidden, "You are in %d rooms at once, which is the most there can be. Leave one first.", n)
		}
		if err := s.Join(socketRoom(in.Room)); err != nil {
			return joined{}, err
		}
		l.presence.enter(in.Room, u.ID)
	}
	out, err := l.open(ctx, in.Room)
	if err != nil && fresh {
		// Who is told that it failed must not be in the room all the same.
		return joined{}, errors.Join(err, l.leaveRoom(s, in.Room, u.ID))
	}
	return out, err
}

func (l *Live) open(ctx context.Context, room string) (joined, error) {
	messages, err := l.service.History(ctx, room, 0)
	if err != nil {
		return joined{}, err
	}
	members, err := l.Members(ctx, room)
	if err != nil {
		return joined{}, err
	}
	return joined{room, members, messages}, nil
}

func (l *Live) leave(_ context.Context, s *adapter.Socket, u app.User, in roomRef) (roomRef, error) {
	if !inRoom(s, in.Room) {
		return in, nil // that is what was asked for
	}
	return in, l.leaveRoom(s, in.Room, u.ID)
}

func (l *Live) leaveRoom(s *adapter.Socket, room, userID string) error {
	if err := s.Leave(socketRoom(room)); err != nil {
		return err // the socket is closing: disconnected takes it out of the room
	}
	l.presence.exit(room, userID)
	return nil
}

type message struct {
	Room  string `json:"room"`
	Text  string `json:"text"`
	Nonce string `json:"nonce"`
}

type accepted struct {
	ID int64     `json:"id"`
	At time.Time `json:"at"`
}

func (l *Live) post(ctx context.Context, s *adapter.Socket, u app.User, in message) (accepted, error) {
	if !inRoom(s, in.Room) {
		return accepted{}, errNotInRoom
	}
	m, err := l.Post(ctx, u, app.Draft{Room: in.Room, Text: in.Text, Nonce: in.Nonce})
	if err != nil {
		return accepted{}, err
	}
	return accepted{m.ID, m.At}, nil
}

type pageRef struct {
	Room   string `json:"room"`
	Before int64  `json:"before"`
}

type page struct {
	Messages []app.Message `json:"messages"`
}

// history needs no membership: every room's page shows the same to everyone
// who is logged in.
func (l *Live) history(ctx context.Context, _ *adapter.Socket, _ app.User, in pageRef) (page, error) {
	messages, err := l.service.History(ctx, in.Room, in.Before)
	return page{messages}, err
}

type typist struct {
	Room string   `json:"room"`
	User app.User `json:"user"`
}

func (l *Live) typing(_ context.Context, s *adapter.Socket, u app.User, in roomRef) (struct{}, error) {
	if !inRoom(s, in.Room) {
		return struct{}{}, errNotInRoom
	}
	if !l.typings.allow(u.ID) {
		return struct{}{}, nil // nobody misses one
	}
	return struct{}{}, s.To(socketRoom(in.Room)).Volatile().Emit("typing", typist{in.Room, u})
}

// disconnected takes a socket out of the rooms it was in when it ended.
func (l *Live) disconnected(s *adapter.Socket, _ adapter.Reason) {
	identity := s.Identity()
	if identity == nil {
		return // nobody, and so in no room
	}
	for _, name := range s.Rooms() {
		if room, ok := strings.CutPrefix(name, roomPrefix); ok {
			l.presence.exit(room, identity.UserID)
		}
	}
}

type here struct {
	Room    string     `json:"room"`
	Members []app.User `json:"members"`
}

// announce tells a room who is in it.
func (l *Live) announce(ctx context.Context, room string) {
	members, err := l.Members(ctx, room)
	if err == nil {
		err = l.srv.To(socketRoom(room)).Emit("presence", here{room, members})
	}
	if err != nil && ctx.Err() == nil {
		l.log.WarnContext(ctx, "presence was not announced", "room", room, "error", err)
	}
}

var errNotInRoom = app.Errorf(app.CodeForbidden, "You are not in this room. Join it first.")

// handle registers h for people who are logged in. It is the one place where
// the errors of the chat become those of the wire.
func handle[In, Out any](l *Live, event string, h func(context.Context, *adapter.Socket, app.User, In) (Out, error)) {
	adapter.Handle(l.srv, event, func(ctx context.Context, s *adapter.Socket, in In) (Out, error) {
		u, ok := adapter.User[app.User](ctx)
		if !ok {
			var none Out
			return none, l.refusal(ctx, event, u, app.Errorf(app.CodeUnauthenticated, "Please log in first."))
		}
		out, err := h(ctx, s, u, in)
		return out, l.refusal(ctx, event, u, err)
	})
}

// refusal returns what the peer may know of err, and logs what it may not. An
// error that is not an app.Error stays as it is: the adapter logs it and
// answers that something went wrong.
func (l *Live) refusal(ctx context.Context, event string, u app.User, err error) error {
	e, ok := errors.AsType[*app.Error](err)
	if !ok {
		return err
	}
	if e.Err != nil {
		l.log.ErrorContext(ctx, "event failed", "event", event, "user", u.ID, "error", err)
	}
	return &adapter.Error{Code: string(e.Code), Message: e.Message}
}

// roomPrefix keeps the rooms of the chat apart from the adapter's own, such as
// those of a user's sockets.
const roomPrefix = "room:"

func socketRoom(room string) string { return roomPrefix + room }

func inRoom(s *adapter.Socket, room string) bool {
	return slices.Contains(s.Rooms(), socketRoom(room))
}

func countRooms(s *adapter.Socket) (n int) {
	for _, name := range s.Rooms() {
		if strings.HasPrefix(name, roomPrefix) {
			n++
		}
	}
	return n
}

// members returns the people behind the sockets of a room, by name. It never
// returns nil: an empty room is [] in JSON.
func members(present []adapter.Member) []app.User {
	users := make([]app.User, 0, len(present))
	for _, m := range present {
		u, ok := m.User.(app.User)
		if !ok {
			u = app.User{ID: m.UserID}
		}
		users = append(users, u)
	}
	slices.SortFunc(users, func(a, b app.User) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return users
}
