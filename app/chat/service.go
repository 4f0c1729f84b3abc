package chat

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gin-usher/usher/app"
)

// Service reads and writes rooms by the rules of the chat. It is safe for
// concurrent use. Its errors are *app.Error, but for a context that ended and
// for mistakes in the program.
type Service struct {
	messages app.Messages
}

// New returns the chat kept in m.
func New(m app.Messages) *Service { return &Service{messages: m} }

// Rooms lists the rooms by name.
func (s *Service) Rooms(ctx context.Context) ([]app.Room, error) {
	return s.messages.Rooms(ctx)
}

// Room finds a room. A name that no room can have is app.CodeNotFound like any
// other that no room has.
func (s *Service) Room(ctx context.Context, name string) (app.Room, error) {
	if err := checkRoom(name); err != nil {
		return app.Room{}, err
	}
	return s.messages.Room(ctx, name)
}

// Open finds a room and its latest messages, oldest first.
func (s *Service) Open(ctx context.Context, name string) (app.Room, []app.Message, error) {
	room, err := s.Room(ctx, name)
	if err != nil {
		return app.Room{}, nil, err
	}
	messages, err := s.page(ctx, name, 0)
	if err != nil {
		return app.Room{}, nil, err
	}
	return room, messages, nil
}

// History returns the app.Latest messages of a room that come before the one
// with the id before, oldest first. Zero means the newest.
func (s *Service) History(ctx context.Context, room string, before int64) ([]app.Message, error) {
	if before < 0 {
		return nil, app.Errorf(app.CodeInvalid, "History begins before the id of a message; %d cannot be one.", before)
	}
	if _, err := s.Room(ctx, room); err != nil {
		return nil, err
	}
	return s.page(ctx, room, before)
}

// page never returns nil without an error: an empty page is [] in JSON.
func (s *Service) page(ctx context.Context, room string, before int64) ([]app.Message, error) {
	messages, err := s.messages.Messages(ctx, room, before, app.Latest)
	if messages == nil && err == nil {
		messages = []app.Message{}
	}
	return messages, err
}

// Post stores a message. White space around the text is dropped and not
// counted, that inside it is kept. When Post returns without an error the
// message is durable; posting a Nonce again returns the message that it first
// stood for.
func (s *Service) Post(ctx context.Context, d app.Draft) (app.Message, error) {
	d.Text = strings.TrimSpace(d.Text)
	if err := checkText(d.Text); err != nil {
		return app.Message{}, err
	}
	if err := checkNonce(d.Nonce); err != nil {
		return app.Message{}, err
	}
	if err := checkRoom(d.Room); err != nil {
		return app.Message{}, err
	}
	return s.messages.Post(ctx, d) // knows whether there is such a room
}

const maxRoom = 32

// checkRoom refuses names that are not [a-z0-9-]{1,32}, without repeating them:
// they come from anywhere and may be of any length.
func checkRoom(name string) error {
	if name == "" || len(name) > maxRoom || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return app.Errorf(app.CodeNotFound,
			"There is no such room: a name has 1 to %d characters, each a lower-case letter a to z, a digit or a dash.", maxRoom)
	}
	return nil
}

func checkText(text string) error {
	switch n := utf8.RuneCountInString(text); {
	case !utf8.ValidString(text):
		return app.Errorf(app.CodeInvalid, "The message is not text: it must be valid UTF-8.")
	case strings.ContainsRune(text, 0):
		return app.Errorf(app.CodeInvalid, "The message is not text: it contains a NUL character.")
	case n == 0:
		return app.Errorf(app.CodeInvalid, "The message is empty. A message has 1 to %s characters.", thousands(app.MaxText))
	case n > app.MaxText:
		return app.Errorf(app.CodeInvalid, "The message is too long. A message has 1 to %s characters, this one has %s.", thousands(app.MaxText), thousands(n))
	}
	return nil
}

func checkNonce(nonce string) error {
	switch {
	case len(nonce) > app.MaxNonce:
		return app.Errorf(app.CodeInvalid, "The nonce is too long. It may have %d bytes, this one has %d.", app.MaxNonce, len(nonce))
	case !utf8.ValidString(nonce) || strings.ContainsRune(nonce, 0):
		return app.Errorf(app.CodeInvalid, "The nonce is not text: it must be valid UTF-8 without NUL.")
	}
	return nil
}

// thousands writes n, which is below a thousand million, as people read it.
func thousands(n int) string {
	switch {
	case n >= 1_000_000:
		return fmt.Sprintf("%d,%03d,%03d", n/1_000_000, n/1000%1000, n%1000)
	case n >= 1000:
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	return fmt.Sprint(n)
}
