package adapter

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/gin-usher/usher/adapter/backplane"
)

// Bounds of what is done for other nodes.
const (
	maxServing = 4096             // requests at the same time
	maxServe   = 10 * time.Minute // for one, however long the other waits
)

// An inboxKey is whose messages are in an inbox, and which.
type inboxKey struct {
	node   string
	events bool // those of the servers, else all others
}

// A taskKey is a request of another node.
type taskKey struct{ node, request string }

// An inbox is the task that handles, in order, what has come from one node. It
// is listed while it runs.
type inbox struct {
	c     *cluster
	key   inboxKey
	queue []*backplane.Message // guarded by cluster.mu
	bytes int
}

// enqueue puts a message into an inbox, unless that is full.
func (c *cluster) enqueue(k inboxKey, m *backplane.Message) {
	size := m.Size()
	c.mu.Lock()
	in := c.inboxes[k]
	full := in == nil && len(c.inboxes) >= maxInboxes ||
		in != nil && (len(in.queue) >= maxQueued || in.bytes+size > maxQueuedBytes) ||
		c.inBytes+size > maxInBytes
	if full {
		c.dropped = time.Now()
		c.mu.Unlock()
		c.complain("messages of another node were dropped: it sends faster than this one handles them", m.Node, nil)
		return
	}
	start := in == nil
	if start {
		in = &inbox{c: c, key: k}
		c.inboxes[k] = in
	}
	in.queue = append(in.queue, m)
	in.bytes += size
	c.inBytes += size
	c.mu.Unlock()
	if start {
		c.srv.eng.Go(in)
	}
}

// stop is told that another node does not wait for an answer any more.
func (c *cluster) stop(node, request string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.serving[taskKey{node, request}]; cancel != nil {
		cancel()
	}
	for _, events := range []bool{false, true} {
		if in := c.inboxes[inboxKey{node, events}]; in != nil {
			for i, m := range in.queue {
				if m.Request == request {
					in.queue[i] = &backplane.Message{Kind: backplane.Cancel} // handled by nobody
					freed := m.Size() - in.queue[i].Size()
					in.bytes -= freed
					c.inBytes -= freed
				}
			}
		}
	}
}

// Run handles messages until none is left.
func (in *inbox) Run() {
	c := in.c
	for {
		c.mu.Lock()
		if len(in.queue) == 0 || c.closed {
			delete(c.inboxes, in.key)
			c.mu.Unlock()
			return
		}
		m := in.queue[0]
		in.queue[0] = nil
		in.queue = in.queue[1:]
		in.bytes -= m.Size()
		c.inBytes -= m.Size()
		task, err := c.taskLocked(m)
		c.mu.Unlock()
		if err == nil {
			err = c.handle(task, m)
		}
		if err != nil {
			c.complain("a message of another node was dropped", m.Node, err)
		}
	}
}

// A task is a request that is being answered. It is nil for what is no request.
type task struct {
	c   *cluster
	m   *backplane.Message
	ctx context.Context // is canceled when nobody waits
	end context.CancelFunc
}

// taskLocked begins a task for what may take a while. From here on a Cancel
// finds it.
func (c *cluster) taskLocked(m *backplane.Message) (*task, error) {
	if m.Request == "" || m.Kind != backplane.Call && m.Kind != backplane.ServerEvent && m.Kind != backplane.SignOut {
		return nil, nil
	}
	k := taskKey{m.Node, m.Request}
	if c.serving[k] != nil || len(c.serving) >= maxServing {
		return nil, fmt.Errorf("expected at most %d requests at the same time, and each of them once", maxServing)
	}
	wait := min(m.Timeout, maxServe)
	if wait <= 0 {
		wait = maxServe
	}
	// What clients answer ends with their sockets, what handlers and stores do with
	// the server.
	parent := c.ctx
	if m.Kind != backplane.Call {
		parent = c.srv.ctx
	}
	ctx, cancel := context.WithTimeout(parent, wait)
	c.serving[k] = cancel
	return &task{c, m, ctx, func() {
		cancel()
		c.mu.Lock()
		delete(c.serving, k)
		c.mu.Unlock()
	}}, nil
}

// handle does what a message says. An error is about the message.
func (c *cluster) handle(t *task, m *backplane.Message) (err error) {
	waits := false // the task goes on
	defer func() {
		if v := recover(); v != nil {
			c.srv.log.Error("handling a message of another node panicked", "panic", v, "stack", string(debug.Stack()))
			c.answer(t, m, &backplane.Message{Kind: answerTo(m.Kind), Err: &backplane.Error{
				Code: CodeInternal, Message: "something went wrong on the server",
			}})
			waits = false
		}
		if t != nil && !waits {
			t.end()
		}
	}()
	switch m.Kind {
	case backplane.Emit:
		return c.emitHere(m)
	case backplane.Join, backplane.Leave, backplane.Disconnect:
		c.move(m)
	case backplane.Fetch:
		c.answer(t, m, c.fetched(m))
	case backplane.Present:
		c.answer(t, m, c.present(m))
	case backplane.Call:
		waits, err = c.callHere(t, m)
		return err
	case backplane.ServerEvent:
		return c.serverEvent(t, m)
	case backplane.Locate:
		c.answer(t, m, c.located(m))
	case backplane.SignOut:
		waits, err = c.signOutHere(t, m)
		return err
	}
	return nil
}

// answer sends the answer to a request, or, where it cannot be sent, why not.
func (c *cluster) answer(t *task, m, answer *backplane.Message) {
	if m.Request == "" || t != nil && context.Cause(t.ctx) == context.Canceled {
		return // nobody waits
	}
	answer.To, answer.Namespace, answer.Request = m.Node, m.Namespace, m.Request
	if err := c.send(answer); err != nil {
		_ = c.send(&backplane.Message{
			Kind: answer.Kind, To: m.Node, Namespace: m.Namespace, Request: m.Request,
			Socket: answer.Socket, Count: answer.Count,
			Err: &backplane.Error{Code: CodeUnavailable, Message: err.Error()},
		})
	}
}
