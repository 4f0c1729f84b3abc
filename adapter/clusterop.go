package adapter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/gin-usher/usher/adapter/backplane"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// This file is what becomes of an Op on its way to the other nodes, and on this
// one of theirs.

// tell has the other nodes do m to the sockets that o selects.
func (c *cluster) tell(o Op, m *backplane.Message) {
	m.Namespace, m.Selection = o.ns.name, o.selection()
	// Lost messages are the backplane's condition, which is told elsewhere.
	if err := c.send(m); errors.Is(err, backplane.ErrTooLarge) {
		c.complain("other nodes cannot be told", "", err)
	}
}

// selection is o for other nodes. The socket that it leaves out is none of
// theirs.
func (o Op) selection() backplane.Selection {
	return backplane.Selection{
		Rooms: slices.Clone(o.rooms), Except: slices.Clone(o.except), OfUser: o.toUser, User: o.user,
	}
}

// emit sends the event to the other nodes. It fails if no node could take it.
func (c *cluster) emit(o Op, m *message) error {
	e, err := m.elsewhereEvent()
	if err != nil {
		return err
	}
	err = c.send(&backplane.Message{
		Kind: backplane.Emit, Namespace: o.ns.name, Selection: o.selection(),
		Event: e, Volatile: o.volatile, Uncompressed: o.raw,
	})
	if errors.Is(err, backplane.ErrTooLarge) {
		return fmt.Errorf("adapter: emit %.200q: %w", m.event, err)
	}
	return nil // this node's sockets get it in any case
}

// elsewhereEvent returns m as other nodes get it, which is what Socket.IO's
// clients get. It is encoded here, once for all.
func (m *message) elsewhereEvent() (e backplane.Event, err error) {
	if err := m.encodeArgs(); err != nil {
		return e, err
	}
	if err := sio.CheckEvent(m.data, m.attachments); err != nil {
		return e, fmt.Errorf("adapter: emit %.200q: %w", m.event, err)
	}
	return backplane.Event{Data: m.data, Attachments: cloned(m.attachments)}, nil
}

// cloned copies attachments, which are the app's own slices: it may change them
// once Emit has returned.
func cloned(attachments [][]byte) [][]byte {
	if attachments == nil {
		return nil
	}
	all := make([][]byte, len(attachments))
	for i, a := range attachments {
		all[i] = bytes.Clone(a)
	}
	return all
}

// there returns the namespace of a name if it is on this node, else nil.
func (s *Server) there(name string) *Namespace {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.namespaces[name]
}

// opOf returns what m selects in n.
func opOf(n *Namespace, m *backplane.Message) Op {
	return Op{
		ns: n, rooms: m.Selection.Rooms, except: m.Selection.Except, toUser: m.Selection.OfUser, user: m.Selection.User,
		volatile: m.Volatile, raw: m.Uncompressed, local: true,
	}
}

// messageOf returns the event of m on its way to sockets of n. No code of the
// app runs for it: both formats are made of what has come.
func messageOf(n *Namespace, m *backplane.Message) (*message, error) {
	data := bytes.TrimSpace(m.Event.Data)
	if err := sio.CheckEvent(data, m.Event.Attachments); err != nil {
		return nil, err
	}
	name, _, err := sio.SplitEvent(data)
	if err != nil {
		return nil, err
	}
	event, err := newMessage(n, name, nil)
	if err != nil {
		return nil, err
	}
	event.data, event.attachments, event.raw = data, m.Event.Attachments, m.Uncompressed
	return event, nil
}

func (c *cluster) emitHere(m *backplane.Message) error {
	n := c.srv.there(m.Namespace)
	if n == nil {
		return nil
	}
	event, err := messageOf(n, m)
	if err != nil {
		return err
	}
	return opOf(n, m).emitHere(event)
}

// move does to this node's sockets what another has been told to.
func (c *cluster) move(m *backplane.Message) {
	n := c.srv.there(m.Namespace)
	if n == nil {
		return
	}
	switch o := opOf(n, m); m.Kind {
	case backplane.Join:
		o.Join(m.Rooms...)
	case backplane.Leave:
		o.Leave(m.Rooms...)
	case backplane.Disconnect:
		o.Disconnect()
	}
}

// A farCall is a Call of the other nodes. Nil is one of none.
type farCall struct{ *request }

// call asks the other nodes' sockets that o selects.
func (c *cluster) call(ctx context.Context, o Op, m *message) (*farCall, error) {
	e, err := m.elsewhereEvent()
	if err != nil {
		return nil, err
	}
	r, err := c.ask(ctx, &backplane.Message{
		Kind: backplane.Call, Namespace: o.ns.name, Selection: o.selection(), Event: e, Uncompressed: o.raw,
	})
	if r == nil {
		return nil, err
	}
	return &farCall{r}, nil
}

func (f *farCall) changed() <-chan struct{} {
	if f == nil {
		return nil
	}
	return f.news
}

func (f *farCall) done() bool { return f == nil || f.request.done() }

// end returns the answers of the sockets that the nodes have counted, and an
// error if nodes have not said how many theirs are.
func (f *farCall) end(ctx context.Context) (answers []answer, err error) {
	got, err := f.request.end(ctx)
	for _, m := range got {
		if m.Kind == backplane.Acknowledged {
			answers = append(answers, answerOf(m))
		}
	}
	why := context.Cause(ctx)
	if why == nil {
		why = errNodeGone
	}
	for range f.unanswered() {
		answers = append(answers, answer{err: why})
	}
	return answers, err
}

// answerOf reads an answer of another node.
func answerOf(m *backplane.Message) answer {
	a := answer{id: m.Socket, attachments: m.Event.Attachments, packed: m.Event.Packed}
	if m.Err != nil {
		a.err = errorOf(m.Err)
		return a
	}
	if err := sio.CheckAnswer(m.Event.Data, m.Event.Attachments); err != nil {
		a.err = fmt.Errorf("adapter: answer of another node: %w", err)
		return a
	}
	a.args = sio.SplitArgs(m.Event.Data)
	return a
}

// errorOf is the error that another node has answered with.
func errorOf(e *backplane.Error) error {
	if e.Code == codeClosed {
		return ErrClosed
	}
	return &Error{Code: e.Code, Message: e.Message}
}

// codeClosed is what nodes tell each other of a socket that ended before it
// answered.
const codeClosed = "closed"

// callHere asks sockets of this node for another. waits says that their answers
// are still to come.
func (c *cluster) callHere(t *task, m *backplane.Message) (waits bool, err error) {
	if t == nil {
		return false, errors.New("expected a call to say what its answers refer to")
	}
	n := c.srv.there(m.Namespace)
	if n == nil {
		c.answer(t, m, &backplane.Message{Kind: backplane.Called})
		return false, nil
	}
	event, err := messageOf(n, m)
	if err != nil {
		c.answer(t, m, &backplane.Message{Kind: backplane.Called, Err: &backplane.Error{Code: CodeBadRequest, Message: err.Error()}})
		return false, nil
	}
	event.id = c.srv.calls.Add(1)
	sockets := opOf(n, m).selectInto(nil)
	w := &callWait{task: t, id: event.id, wait: make(chan answer, len(sockets))}
	for _, s := range sockets {
		if s.call(event, w.wait) == nil {
			w.sockets = append(w.sockets, s)
		}
	}
	c.answer(t, m, &backplane.Message{Kind: backplane.Called, Count: len(w.sockets)})
	c.srv.eng.Go(w)
	return true, nil
}

// A callWait is the task that passes on the answers to a call of another node.
type callWait struct {
	*task
	id      uint64
	sockets []*Socket
	wait    chan answer
}

func (w *callWait) Run() {
	defer w.end()
	for range w.sockets {
		select {
		case a := <-w.wait:
			w.c.answer(w.task, w.m, acknowledged(a))
		case <-w.ctx.Done():
			for _, s := range w.sockets {
				if s.forget(w.id) {
					w.c.answer(w.task, w.m, acknowledged(answer{id: s.id, err: errLate}))
				}
			}
			return
		}
	}
}

// errLate is what a node that waits without an end is told in the end.
var errLate = &Error{Code: CodeUnavailable, Message: "the socket has not answered in time"}

// acknowledged is a client's answer for another node.
func acknowledged(a answer) *backplane.Message {
	m := &backplane.Message{Kind: backplane.Acknowledged, Socket: a.id}
	if e, ok := errors.AsType[*Error](a.err); ok {
		m.Err = &backplane.Error{Code: e.Code, Message: e.Message}
	} else if a.err != nil {
		m.Err = &backplane.Error{Code: codeClosed, Message: "the socket has ended"}
	} else {
		m.Event = backplane.Event{Data: joined(a.args), Attachments: a.attachments, Packed: a.packed}
	}
	return m
}

// joined returns values as one array.
func joined(values []json.RawMessage) json.RawMessage {
	array := []byte{'['}
	for i, v := range values {
		if i > 0 {
			array = append(array, ',')
		}
		array = append(array, v...)
	}
	return append(array, ']')
}

// fetched tells what another node asks for of the sockets it selects.
func (c *cluster) fetched(m *backplane.Message) *backplane.Message {
	answer := &backplane.Message{Kind: backplane.Fetched}
	if n := c.srv.there(m.Namespace); n != nil {
		for _, s := range opOf(n, m).selectInto(nil) {
			answer.Sockets = append(answer.Sockets, s.told())
		}
	}
	return answer
}

// present tells another node who is in the room that it asks for.
func (c *cluster) present(m *backplane.Message) *backplane.Message {
	answer := &backplane.Message{Kind: backplane.PresentAnswer}
	if n := c.srv.there(m.Namespace); n != nil {
		at := make(map[string]int)
		for _, s := range opOf(n, m).selectInto(nil) {
			id := s.Identity()
			if id == nil {
				continue
			}
			i, ok := at[id.UserID]
			if !ok {
				i = len(answer.Members)
				at[id.UserID] = i
				answer.Members = append(answer.Members, backplane.Member{UserID: id.UserID})
			}
			answer.Members[i].Sockets++
		}
	}
	return answer
}
