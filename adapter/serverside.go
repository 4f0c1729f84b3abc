package adapter

import (
	"context"
	"errors"
	"fmt"

	"github.com/gin-usher/usher/adapter/backplane"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// A serverHandler is a typed handler of an event between servers, with its types
// erased.
type serverHandler func(ctx context.Context, in incoming) (out any, err error)

// OnServerSide handles an event that another server of the cluster sends with
// ServerSideEmit.
//
// Events of one server are handled one at a time, in the order they were sent.
// Those that come while a handler runs wait, up to 8,192; more are dropped. ctx
// ends with this server, and when nobody waits for the answer any more. Data
// that does not fit In never reaches h.
func OnServerSide[In any](t Events, event string, h func(ctx context.Context, in In) error) {
	registerServerSide(t, event, func(ctx context.Context, got incoming) (any, error) {
		in, err := decode[In](got)
		if err != nil {
			return nil, misfit(event, err)
		}
		return nothing{}, h(ctx, in)
	})
}

// HandleServerSide is OnServerSide with a result, for ServerSideCall.
func HandleServerSide[In, Out any](t Events, event string, h func(ctx context.Context, in In) (Out, error)) {
	registerServerSide(t, event, func(ctx context.Context, got incoming) (any, error) {
		in, err := decode[In](got)
		if err != nil {
			return nil, misfit(event, err)
		}
		return h(ctx, in)
	})
}

func registerServerSide(t Events, event string, h serverHandler) {
	n := t.namespace()
	n.srv.mustBeOpen("OnServerSide or HandleServerSide")
	if event == "" || sio.Reserved(event) {
		panic(fmt.Sprintf("adapter: event %q: expected a name that the protocol does not use", event))
	}
	if n.serverSide[event] != nil {
		panic(fmt.Sprintf("adapter: event %q between servers has a handler in namespace %q already", event, n.name))
	}
	if n.serverSide == nil {
		n.serverSide = make(map[string]serverHandler)
	}
	n.serverSide[event] = h
}

// ServerSideEmit sends an event to every other server of the cluster, where the
// handler of OnServerSide for this namespace gets it. Without a backplane there
// is no other server. It fails if the event cannot be encoded or sent; that it
// has been handled is not confirmed.
func (n *Namespace) ServerSideEmit(event string, args ...any) error {
	c := n.srv.cluster
	if c == nil {
		return nil
	}
	m, err := n.serverEvent(event, args)
	if err == nil {
		err = c.send(m)
	}
	if err != nil {
		return fmt.Errorf("adapter: emit %.200q to servers: %w", event, err)
	}
	return nil
}

// ServerSideCall is ServerSideEmit that waits for the answers, in no particular
// order, until all are there or ctx is done. Without a deadline it waits for the
// handlers on the servers that live, but not longer than ten minutes. Beside the
// answers that have come there is an error that says which others have not, and
// why.
func ServerSideCall[Out any](ctx context.Context, t Events, event string, args ...any) ([]Out, error) {
	n := t.namespace()
	c := n.srv.cluster
	if c == nil {
		return nil, nil
	}
	m, err := n.serverEvent(event, args)
	var answers []*backplane.Message
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, maxServe)
		defer cancel()
		answers, err = c.collect(ctx, m)
	}
	var all []Out
	for _, m := range answers {
		out, e := taken[Out](answerOf(m))
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		all = append(all, out)
	}
	if err != nil {
		err = fmt.Errorf("adapter: call %.200q of servers: %w", event, err)
	}
	return all, err
}

func (n *Namespace) serverEvent(event string, args []any) (*backplane.Message, error) {
	data, attachments, err := sio.EncodeArgs(append([]any{event}, args...)...)
	if err == nil {
		err = sio.CheckEvent(data, attachments)
	}
	if err != nil {
		return nil, err
	}
	return &backplane.Message{
		Kind: backplane.ServerEvent, Namespace: n.name,
		Event: backplane.Event{Data: data, Attachments: cloned(attachments)},
	}, nil
}

// serverSideHandler returns the handler of an event. A namespace that only a
// pattern makes has the pattern's, whether somebody is in it here or not.
func (s *Server) serverSideHandler(namespace, event string) serverHandler {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.namespaces[namespace]
	if n == nil {
		n = s.matchLocked(namespace)
	}
	if n == nil {
		return nil
	}
	return n.serverSide[event]
}

// serverEvent handles an event of another server. t is nil if that does not wait
// for an answer.
func (c *cluster) serverEvent(t *task, m *backplane.Message) error {
	ctx := c.srv.ctx
	if t != nil {
		ctx = t.ctx
	}
	answer := &backplane.Message{Kind: backplane.ServerAnswer}
	out, err := c.runServerEvent(ctx, m)
	if err == nil && t != nil {
		answer.Event, err = encodeAnswer(out)
	}
	if err != nil {
		e, hidden := asError(err)
		if ctx.Err() == nil && (hidden || t == nil) {
			c.srv.log.Error("an event between servers was not handled", "node", m.Node, "error", err)
		}
		answer.Err = &backplane.Error{Code: e.Code, Message: e.Message}
	}
	c.answer(t, m, answer)
	return nil
}

func (c *cluster) runServerEvent(ctx context.Context, m *backplane.Message) (any, error) {
	bad := func(err error) error { return &Error{Code: CodeBadRequest, Message: err.Error()} }
	if err := sio.CheckEvent(m.Event.Data, m.Event.Attachments); err != nil {
		return nil, bad(err)
	}
	event, args, err := sio.SplitEvent(m.Event.Data)
	if err != nil {
		return nil, bad(err)
	}
	h := c.srv.serverSideHandler(m.Namespace, event)
	if h == nil {
		return nil, &Error{Code: CodeEvent, Message: fmt.Sprintf("there is no event %.200q between servers in namespace %.200q", event, m.Namespace)}
	}
	return h(ctx, incoming{event: event, args: args, attachments: m.Event.Attachments})
}

// encodeAnswer writes what a handler has returned as the arguments of an answer.
func encodeAnswer(out any) (backplane.Event, error) {
	data, attachments, err := sio.EncodeArgs(argsOf(out)...)
	if err != nil {
		return backplane.Event{}, fmt.Errorf("adapter: encode the answer: %w", err)
	}
	return backplane.Event{Data: data, Attachments: cloned(attachments)}, nil
}
