package adapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// answer is what a client has acknowledged an event with.
type answer struct {
	socket      *Socket // nil for one of another node
	id          string  // of the socket, as far as it is known
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
	wait := make(chan answer, 1)
	if err := s.call(m, wait); err != nil {
		return out, err
	}
	defer s.forget(m.id)
	select {
	case a := <-wait:
		return taken[Out](a)
	case <-ctx.Done():
	}
	select {
	case a := <-wait: // one that came before the end counts, whichever was seen first
		return taken[Out](a)
	default:
		return out, context.Cause(ctx)
	}
}

// A Reply is one socket's answer to CallAll.
type Reply[Out any] struct {
	Socket   *Socket // nil for a socket of another node
	SocketID string  // empty for one of another node that has not answered
	Value    Out
	Err      error // why there is no Value
}

// CallAll emits an event to the selected sockets and collects their
// acknowledgements until all are there or ctx is done. The replies of those
// that did not answer, or wrongly, have an Err; the error says that there are
// some, with how many.
//
// Sockets of other nodes are asked too. A node that ends meanwhile, or does not
// say how many sockets it has asked, is not waited for; the error says so.
func CallAll[Out any](ctx context.Context, o Op, event string, args ...any) ([]Reply[Out], error) {
	m, err := newMessage(o.ns, event, args)
	if err != nil {
		return nil, err
	}
	m.id, m.raw = o.ns.srv.calls.Add(1), o.raw
	answers, err := o.callAll(ctx, m)
	replies := make([]Reply[Out], len(answers))
	missing := 0
	for i, a := range answers {
		replies[i].Socket, replies[i].SocketID = a.socket, a.id
		if replies[i].Value, replies[i].Err = taken[Out](a); replies[i].Err != nil {
			missing++
		}
	}
	if missing > 0 {
		err = errors.Join(fmt.Errorf("%d of %d sockets did not answer", missing, len(answers)), err)
	}
	if err != nil {
		return replies, fmt.Errorf("adapter: call %q: %w", event, err)
	}
	return replies, nil
}

// callAll returns an answer for every socket that was asked, those of this node
// first. The error is about other nodes.
func (o Op) callAll(ctx context.Context, m *message) ([]answer, error) {
	var far *farCall
	var farErr error
	if c := o.cluster(); c != nil {
		far, farErr = c.call(ctx, o, m)
	}
	sockets := o.selectInto(nil)
	answers := make([]answer, len(sockets))
	at := make(map[*Socket]int, len(sockets))
	wait := make(chan answer, len(sockets))
	for i, s := range sockets {
		if err := s.call(m, wait); err != nil {
			answers[i] = answer{socket: s, id: s.id, err: err}
			continue
		}
		at[s] = i
	}
	note := func(a answer) {
		answers[at[a.socket]] = a
		delete(at, a.socket)
	}
	for over := false; !over && (len(at) > 0 || !far.done()); {
		select {
		case a := <-wait:
			note(a)
		case <-far.changed():
		case <-ctx.Done():
			over = true
		}
	}
	for len(wait) > 0 {
		note(<-wait) // those that came before the end count
	}
	for s, i := range at {
		s.forget(m.id)
		answers[i] = answer{socket: s, id: s.id, err: context.Cause(ctx)}
	}
	if far != nil {
		var rest []answer
		rest, farErr = far.end(ctx)
		answers = append(answers, rest...)
	}
	return answers, farErr
}

// call sends m, unless the socket is gone, and has its answer, or that it has
// ended without one, sent to wait, which has room for it.
func (s *Socket) call(m *message, wait chan<- answer) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	if s.asked == nil {
		s.asked = make(map[uint64]chan<- answer)
	}
	s.asked[m.id] = wait
	s.mu.Unlock()
	if err := s.send(m); err != nil && s.forget(m.id) {
		return err
	}
	return nil
}

// forget reports whether the answer with that id was still waited for.
func (s *Socket) forget(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, waits := s.asked[id]
	delete(s.asked, id)
	return waits
}

// answered is told by the reader of an acknowledgement. One that nobody waits
// for comes too late, or from a client that makes them up.
func (s *Socket) answered(id uint64, a answer) {
	s.mu.Lock()
	wait := s.asked[id]
	delete(s.asked, id)
	s.mu.Unlock()
	if wait != nil {
		a.socket, a.id = s, s.id
		wait <- a
	}
}

// unanswered tells those who wait for answers of a socket that has ended.
func (s *Socket) unanswered(asked map[uint64]chan<- answer, r Reason) {
	for _, wait := range asked {
		wait <- answer{socket: s, id: s.id, err: errors.Join(ErrClosed, r)}
	}
}

// taken decodes an answer.
func taken[Out any](a answer) (out Out, err error) {
	if a.err != nil {
		return out, a.err
	}
	if out, err = decode[Out](incoming{args: a.args, attachments: a.attachments, packed: a.packed}); err != nil {
		return out, fmt.Errorf("adapter: acknowledgement: %s", explain(err))
	}
	return out, nil
}
