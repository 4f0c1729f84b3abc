// Package app holds the words of the chat: its people, rooms and messages,
// the stores they are kept in, and the errors everything above speaks.
// Packages below app/ depend on this one and never on each other's insides.
package app

import (
	"context"
	"time"
)

// User is a person who has logged in at least once.
type User struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Avatar string `json:"avatar"` // an absolute http(s) URL or a local path; may be empty
}

// Profile is what an identity provider says about a person: all the login
// flow keeps. Tokens of the provider are never stored.
type Profile struct {
	Provider string // "github", "google", "oidc", "dev"
	Subject  string // the provider's own, stable id of the person
	Name     string
	Avatar   string
}

// Room is a place to talk.
type Room struct {
	Name  string `json:"name"`  // in URLs: [a-z0-9-]{1,32}
	Title string `json:"title"` // for people
}

// Message is one stored chat message.
type Message struct {
	ID   int64     `json:"id"` // grows by time within the whole database
	Room string    `json:"room"`
	Text string    `json:"text"`
	At   time.Time `json:"at"`
	User User      `json:"user"`
}

// Draft is a message on its way into the store. Nonce is chosen by the client
// and may be empty; posting the same Nonce by the same user again stores
// nothing and returns the first message, so a client may safely repeat a post
// whose answer it never saw.
type Draft struct {
	Room   string
	Text   string
	UserID string
	Nonce  string
}

// Limits of what people may write.
const (
	MaxText  = 4000 // characters (not bytes) of one message
	MaxNonce = 64   // bytes
	Latest   = 50   // messages shown when a room is opened
)

// Users keeps people. Implementations are safe for concurrent use and return
// *Error with CodeNotFound or CodeUnavailable.
type Users interface {
	// UpsertUser finds the person by Provider and Subject, or adds them, and
	// brings name and avatar up to date.
	UpsertUser(ctx context.Context, p Profile) (User, error)
	// User finds a person by id.
	User(ctx context.Context, id string) (User, error)
}

// Messages keeps rooms and what was said in them.
type Messages interface {
	// Rooms lists the rooms by name.
	Rooms(ctx context.Context) ([]Room, error)
	// Room finds a room by name.
	Room(ctx context.Context, name string) (Room, error)
	// CreateRoom adds a room; one that exists already is left as it is.
	CreateRoom(ctx context.Context, r Room) error
	// Post stores d. When it returns without an error the message survives a
	// crash of the process and of the machine.
	Post(ctx context.Context, d Draft) (Message, error)
	// Messages returns up to limit messages of a room with an id below before
	// (0 means the newest), oldest first.
	Messages(ctx context.Context, room string, before int64, limit int) ([]Message, error)
}
