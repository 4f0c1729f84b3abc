package adapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/gin-usher/usher/adapter/internal/plain"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// Events is where handlers are registered: a *Server, for "/", or a *Namespace.
type Events interface{ namespace() *Namespace }

func (n *Namespace) namespace() *Namespace { return n }

// handler is a typed handler with its types erased.
type handler struct {
	guards []Guard
	// call decodes the arguments, runs the user's function and returns its result.
	call func(ctx context.Context, s *Socket, in incoming) (out any, err error)
}

// nothing is the result of a handler that has none, as opposed to null.
type nothing struct{}

// On handles an event that is answered with nothing but its success: a client
// that asks for an acknowledgement gets an empty one, or the error.
//
// Events of one socket are handled one at a time, in the order they came. ctx
// ends when the socket does, with the Reason as its cause. Missing data leaves
// In at its zero value; data that does not fit In never reaches h.
func On[In any](t Events, event string, h func(ctx context.Context, s *Socket, in In) error, g ...Guard) {
	register(t, event, g, func(ctx context.Context, s *Socket, got incoming) (any, error) {
		in, err := decode[In](got)
		if err != nil {
			return nil, misfit(got.event, err)
		}
		return nothing{}, h(ctx, s, in)
	})
}

// Handle handles an event whose acknowledgement carries a result.
func Handle[In, Out any](t Events, event string, h func(ctx context.Context, s *Socket, in In) (Out, error), g ...Guard) {
	register(t, event, g, func(ctx context.Context, s *Socket, got incoming) (any, error) {
		in, err := decode[In](got)
		if err != nil {
			return nil, misfit(got.event, err)
		}
		return h(ctx, s, in)
	})
}

func register(t Events, event string, g []Guard, call func(context.Context, *Socket, incoming) (any, error)) {
	n := t.namespace()
	n.srv.mustBeOpen("On or Handle")
	if event == "" || len(event) > plain.MaxType || n.srv.reserved(event) {
		panic(fmt.Sprintf("adapter: event %q: expected a name of 1 to %d bytes that neither the protocol nor FirstMessage uses", event, plain.MaxType))
	}
	if n.handlers[event] != nil {
		panic(fmt.Sprintf("adapter: event %q of namespace %q has a handler already", event, n.name))
	}
	n.handlers[event] = &handler{guards: g, call: call}
}

// decode turns the arguments of an event, or of an answer, into In.
func decode[In any](got incoming) (in In, err error) {
	if several, ok := any(&in).(argBinder); ok {
		return in, several.bind(got)
	}
	if len(got.args) == 0 {
		return in, nil
	}
	if raw, ok := any(&in).(*json.RawMessage); ok && got.attachments == nil {
		*raw = got.args[0]
		return in, nil
	}
	return in, sio.Bind(got.args[0], got.attachments, &in)
}

// misfit is what the client is told of arguments that decode did not take.
func misfit(event string, err error) *Error {
	return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("event %q: %s", shortName(event), explain(err))}
}

// explain says in JSON's words what a value should have been.
func explain(err error) string {
	e, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return "the data does not fit: " + err.Error()
	}
	where := "data"
	if e.Field != "" {
		where = fmt.Sprintf("%q", e.Field)
	}
	return fmt.Sprintf("expected %s to be %s, got %s", where, jsonKind(e.Type), e.Value)
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return jsonKind(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "a boolean"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	}
	return "a number"
}

// An Event is an event from a client, as Intercept and OnAny see it.
type Event struct{ in incoming }

// Name returns the event's name.
func (e Event) Name() string { return e.in.event }

// Len returns how many arguments the event has.
func (e Event) Len() int { return len(e.in.args) }

// Bind decodes the argument at i into v, a pointer, bytes included. v stays as
// it is if there are not so many.
func (e Event) Bind(i int, v any) error {
	if i < 0 || i >= len(e.in.args) {
		return nil
	}
	if err := sio.Bind(e.in.args[i], e.in.attachments, v); err != nil {
		return misfit(e.in.event, err)
	}
	return nil
}

// JSON returns the argument at i as it came; nil if there are not so many. Where
// it had bytes there are placeholders.
func (e Event) JSON(i int) json.RawMessage {
	if i < 0 || i >= len(e.in.args) {
		return nil
	}
	return slices.Clone(e.in.args[i])
}

// WantsAnswer reports whether the client waits for an acknowledgement.
func (e Event) WantsAnswer() bool { return e.in.id != nil }

// handle runs the handler of one event.
func (n *Namespace) handle(ctx *eventContext, s *Socket, in incoming) (any, error) {
	for _, f := range n.interceptors {
		if err := f(ctx, s, Event{in}); err != nil {
			return nil, err
		}
	}
	for _, f := range n.onAny {
		f(ctx, s, Event{in})
	}
	h := n.handlers[in.event]
	if h == nil {
		if len(n.onAny) > 0 && in.id == nil {
			return nothing{}, nil
		}
		msg := fmt.Sprintf("there is no event %q here", shortName(in.event))
		if n.srv.cfg.Development {
			msg += "; there are: " + strings.Join(slices.Sorted(maps.Keys(n.handlers)), ", ")
		}
		return nil, &Error{Code: CodeEvent, Message: msg}
	}
	if len(h.guards) > 0 {
		asked := in // the copy, so that events without guards stay off the heap
		ctx.in = &asked
	}
	for _, g := range h.guards {
		if err := g(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := context.Cause(ctx); err != nil {
		// It ended while guards, which may ask a database, were at it: no handler
		// begins after a logout has returned.
		return nil, err
	}
	return h.call(ctx, s, in)
}

// eventContext is what a handler gets: the socket's lifetime, and who acts, as
// it was when the event's turn came.
type eventContext struct {
	context.Context
	socket   *Socket
	identity *Identity
	in       *incoming   // for guards of an event
	keys     map[any]any // in the place of the socket's, for whom it is to become
}

// eventContextKey finds the eventContext in contexts that were derived from it.
type eventContextKey struct{}

func (c *eventContext) Value(key any) any {
	switch k := key.(type) {
	case identityKey:
		return c.identity
	case eventContextKey:
		return c
	case string:
		// What middlewares left with c.Set, as *gin.Context has it.
		if v, ok := c.left()[k]; ok {
			return v
		}
	}
	return c.Context.Value(key)
}

func (c *eventContext) left() map[any]any {
	if c.keys != nil {
		return c.keys
	}
	return c.socket.left()
}

// shortName is the name of an event as far as errors repeat it: a client may send
// one that is as long as a message.
func shortName(event string) string {
	const most = 200
	if len(event) <= most {
		return event
	}
	return strings.ToValidUTF8(event[:most], "") + "…"
}
