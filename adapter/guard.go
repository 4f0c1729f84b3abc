package adapter

import (
	"context"
	"fmt"
	"slices"
)

// A Guard decides whether a socket may enter a namespace or an event. An
// *Error reaches the client as it is; any other error as "internal".
//
// What a guard sends is held back until the socket is in, and is dropped with the
// rooms that it has joined if it is not let in; OnConnect is the place for both.
type Guard func(ctx context.Context, s *Socket) error

// Role admits those who have one of the roles.
func Role(roles ...string) Guard {
	return func(ctx context.Context, s *Socket) error {
		id, ok := IdentityOf(ctx)
		if !ok {
			return &Error{Code: CodeUnauthenticated, Message: "log in first"}
		}
		if slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(id.Roles, r) }) {
			return nil
		}
		return &Error{Code: CodeForbidden, Message: fmt.Sprintf("this needs one of the roles %q", roles)}
	}
}
