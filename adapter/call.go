package adapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// answer is what a client has acknowledged an event with.
type answer struct {
	args        []json.RawMessage
	attachments [][]byte
	packed      bool
	err         error
}

// Call emits an event to s and waits for the client's acknowledgement, the
// first argument of which it decodes into Out. ctx is the timeout; without a
// deadline a client that never answers is waited for until its socket ends,
// which fails with ErrClosed. A client of the plain format may answer with an
// error, which comes back as an *Error.
//
// A handler may call its own socket: acknowledgements do not queue behind the
// events.
func Call[Out any](ctx context.Context, s *Socket, event string, args ...any) (out Out, err error) {
	m, err := newMessage(s.ns, event, args)
	if err != nil {
		return out, err
	}
	m.id = s.ns.srv.calls.Add(1)
	wait, err := s.call(m)
	if err != nil {
		return out, err
	}
	return await[Out](ctx, s, m.id, wait)
}

// A Reply is one socket's answer to CallAll.
type Reply[Out any] struct {
	Socket *Socket
	Value  Out
	Err    error // why there is no Value
}

// CallAll emits an event to the selected sockets and collects their
// acknowledgements until all are there or ctx is done. The replies of those
// that did not answer, or wrongly, have an Err; the error says that there are
// some, with how many.
func CallAll[Out any](ctx context.Context, o Op, event string, args ...any) ([]Reply[Out], error) {
	m, err := newMessage(o.ns, event, args)
	if err != nil {
		return nil, err
	}
	m.id, m.raw = o.ns.srv.calls.Add(1), o.raw
	sockets := o.selectInto(nil)
	waits := make([]chan answer, len(sockets))
	replies := make([]Reply[Out], len(sockets))
	for i, s := range sockets {
		replies[i].Socket = s
		waits[i], replies[i].Err = s.call(m)
	}
	missing := 0
	for i, s := range sockets {
		if replies[i].Err == nil {
			replies[i].Value, replies[i].Err = await[Out](ctx, s, m.id, waits[i])
		}
		if replies[i].Err != nil {
			missing++
		}
	}
	if missing > 0 {
		return replies, fmt.Errorf("adapter: call %q: %d of %d sockets did not answer", event, missing, len(sockets))
	}
	return replies, nil
}

// call sends m, unless the socket is gone, and returns where its answer will be.
func (s *Socket) call(m *message) (chan answer, error) {
	wait := make(chan answer, 1)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	if s.asked == nil {
		s.asked = make(map[uint64]chan answer)
	}
	s.asked[m.id] = wait
	s.mu.Unlock()
	if err := s.send(m); err != nil {
		s.forget(m.id)
		return nil, err
	}
	return wait, nil
}

func (s *Socket) forget(id uint64) {
	s.mu.Lock()
	delete(s.asked, id)
	s.mu.Unlock()
}

// answered is told by the reader of an acknowledgement. One that nobody waits
// for comes too late, or from a client that makes them up.
func (s *Socket) answered(id uint64, a answer) {
	s.mu.Lock()
	wait := s.asked[id]
	delete(s.asked, id)
	s.mu.Unlock()
	if wait != nil {
		wait <- a // its one
	}
}

func await[Out any](ctx context.Context, s *Socket, id uint64, wait chan answer) (out Out, err error) {
	defer s.forget(id)
	over := s.Context()
	var a answer
	select {
	case a = <-wait:
	case <-over.Done():
		err = errors.Join(ErrClosed, context.Cause(over))
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		// An answer that came before the end counts, whichever was seen first.
		select {
		case a = <-wait:
		default:
			return out, err
		}
	}
	if a.err != nil {
		return out, a.err
	}
	if out, err = decode[Out](incoming{args: a.args, attachments: a.attachments, packed: a.packed}); err != nil {
		return out, fmt.Errorf("adapter: acknowledgement: %s", explain(err))
	}
	return out, nil
}
