package adapter

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
)

// Identity is who acts: on a page, or on a socket. It is made by the function
// given to Identify and not changed afterwards; a change is a new Identity.
type Identity struct {
	UserID    string
	SessionID string // set by the adapter from the chain's session, unless Identify does
	Provider  string // how the user logged in
	Roles     []string
	Expires   time.Time // when the credential ends; zero means it does not by itself
	User      any       // the app's own value, for User[T]
}

// is reports whether id names the same user as other. Two nobodies are the same.
func (id *Identity) is(other *Identity) bool {
	if id == nil || other == nil {
		return id == other
	}
	return id.UserID == other.UserID
}

// equal reports whether nothing that a handler can see has changed.
func (id *Identity) equal(other *Identity) bool {
	if id == nil || other == nil {
		return id == other
	}
	return id.UserID == other.UserID && id.SessionID == other.SessionID && id.Provider == other.Provider &&
		slices.Equal(id.Roles, other.Roles) && id.Expires.Equal(other.Expires) && reflect.DeepEqual(id.User, other.User)
}

// expired reports whether the credential has ended; nobody's never does.
func (id *Identity) expired() bool {
	return id != nil && !id.Expires.IsZero() && !time.Now().Before(id.Expires)
}

type identityKey struct{}

// ginIdentity is where a *gin.Context keeps the identity: a typed key put on
// the request's context is invisible through c.Value unless the engine has
// ContextWithFallback set.
const ginIdentity = "github.com/gin-usher/usher/adapter.identity"

// IdentityOf returns who acts in ctx: a *gin.Context behind HTTP(), its
// request's context, or a socket handler's. ok is false for nobody.
func IdentityOf(ctx context.Context) (id *Identity, ok bool) {
	if c, is := ctx.Value(gin.ContextKey).(*gin.Context); is {
		if v, has := c.Get(ginIdentity); has {
			id, _ = v.(*Identity)
			return id, id != nil
		}
	}
	id, _ = ctx.Value(identityKey{}).(*Identity)
	return id, id != nil
}

// User returns the app's own user value, Identity.User, of who acts in ctx. ok
// is false for nobody. It panics, naming both types, when the value is not a T:
// that is a mistake in the program, and a user who silently is nobody would be
// a worse one.
func User[T any](ctx context.Context) (user T, ok bool) {
	id, ok := IdentityOf(ctx)
	if !ok {
		return user, false
	}
	user, ok = id.User.(T)
	if !ok {
		panic(fmt.Sprintf("adapter: User[%s] of an Identity whose User is a %T", reflect.TypeFor[T](), id.User))
	}
	return user, true
}

// setIdentity makes id visible to everything downstream of a page request.
func setIdentity(c *gin.Context, id *Identity) {
	c.Set(ginIdentity, id)
	c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), identityKey{}, id))
}
