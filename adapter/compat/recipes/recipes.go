// Package recipes is the code of docs/identity.md: how people are identified with
// the middlewares that are commonly used for it.
package recipes

import (
	"context"

	"github.com/gin-usher/usher/adapter"
)

// A User is what the app knows of a person.
type User struct {
	Name  string
	Roles []string
}

// Ban is a handler.
func Ban(ctx context.Context, s *adapter.Socket, name string) error {
	return s.Namespace().ToUser(name).Emit("banned")
}
