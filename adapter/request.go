package adapter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gin-usher/usher/adapter/backplane"
)

// requestTimeout is how long the other nodes are waited for where the question
// is the nodes' own, and not one for clients or handlers.
const requestTimeout = 5 * time.Second

// Bounds of the answers to one request.
const (
	maxAnswers = 64 << 20 // bytes
	maxCalled  = 200_000  // sockets of one node
)

// errNodeGone is why there is no answer of a node that has ended meanwhile.
var errNodeGone = errors.New("adapter: the node has left the cluster")

// A request is a question to the other nodes, until everything is answered or
// nobody waits any more.
type request struct {
	c    *cluster
	kind backplane.Kind
	id   string
	news chan struct{} // has room for one: something has changed

	mu      sync.Mutex
	waiting map[string]int // by node, how many answers are still to come; silentNode if it has said nothing
	counted int            // nodes that are to answer besides, which are not known by name
	answers []*backplane.Message
	size    int
	asked   int // nodes
	missing int // nodes that will not answer
	lost    int // answers of sockets that will not come
	errs    []error
	over    bool // nobody waits any more
}

// silentNode stands for an unknown number of answers.
const silentNode = -1

// ask sends a request to the other nodes. The result is nil if there are none,
// which is no error.
func (c *cluster) ask(ctx context.Context, m *backplane.Message) (*request, error) {
	r := &request{
		c: c, kind: m.Kind, id: randomID(),
		news:    make(chan struct{}, 1),
		waiting: make(map[string]int),
	}
	m.Request = r.id
	if deadline, ok := ctx.Deadline(); ok {
		m.Timeout = max(time.Until(deadline), time.Millisecond)
	}
	count := 0
	// What is about the servers as a whole only those ask and answer that speak
	// for all namespaces, and they send beats.
	if counter, ok := c.bus.(backplane.Counter); ok && m.Namespace != "" {
		var err error
		if count, err = counter.Count(ctx, m.Namespace); err != nil {
			return nil, fmt.Errorf("adapter: backplane: count nodes: %w", err)
		}
	}
	c.mu.Lock()
	for id, n := range c.nodes {
		if n.namespace == "" || n.namespace == m.Namespace {
			r.waiting[id] = silentNode
		}
	}
	r.counted = min(max(count-len(r.waiting), 0), maxNodes)
	r.asked = len(r.waiting) + r.counted
	if r.asked == 0 {
		err := c.failed
		c.mu.Unlock()
		return nil, err
	}
	if c.closed {
		c.mu.Unlock()
		return nil, ErrShutdown
	}
	c.requests[r.id] = r
	c.mu.Unlock()
	if err := c.send(m); err != nil {
		c.forget(r)
		return nil, err
	}
	return r, nil
}

func (c *cluster) forget(r *request) {
	c.mu.Lock()
	delete(c.requests, r.id)
	c.mu.Unlock()
}

// collect asks and returns what the nodes have answered, and an error if it is
// not all of them.
func (c *cluster) collect(ctx context.Context, m *backplane.Message) ([]*backplane.Message, error) {
	r, err := c.ask(ctx, m)
	if r == nil {
		return nil, err
	}
	for !r.done() {
		select {
		case <-r.news:
			continue
		case <-ctx.Done():
		}
		break
	}
	return r.end(ctx)
}

// answered takes an answer.
func (r *request) answered(m *backplane.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	left, known := r.waiting[m.Node]
	switch m.Kind {
	case backplane.Acknowledged:
		if r.kind != backplane.Call || left <= 0 {
			return // more than it has announced
		}
		r.waiting[m.Node]--
	case answerTo(r.kind):
		if !known || left != silentNode {
			if r.counted == 0 {
				return // it has answered, or was not asked
			}
			r.counted--
			left = max(left, 0)
		} else {
			left = 0
		}
		r.waiting[m.Node] = left
		switch {
		case m.Err != nil:
			r.failLocked(m.Err)
			r.noteLocked()
			return
		case m.Kind == backplane.Called && (m.Count < 0 || m.Count > maxCalled):
			r.failLocked(fmt.Errorf("expected at most %d sockets to be called, got %d", maxCalled, m.Count))
		case m.Kind == backplane.Called:
			r.waiting[m.Node] += m.Count
		}
	default:
		return
	}
	if r.size += m.Size(); r.size <= maxAnswers {
		r.answers = append(r.answers, m)
	} else if m.Kind == backplane.Acknowledged {
		r.lost++
	} else {
		r.failLocked(fmt.Errorf("expected at most %d bytes of answers, got more", maxAnswers))
	}
	r.noteLocked()
}

// failLocked notes that a node has not answered, and why.
func (r *request) failLocked(why error) {
	r.missing++
	r.errs = append(r.errs, why)
}

// answerTo is the kind of a node's answer to a request.
func answerTo(k backplane.Kind) backplane.Kind {
	switch k {
	case backplane.Fetch:
		return backplane.Fetched
	case backplane.Present:
		return backplane.PresentAnswer
	case backplane.ServerEvent:
		return backplane.ServerAnswer
	case backplane.Call:
		return backplane.Called
	case backplane.Locate, backplane.SignOut:
		return backplane.Located
	}
	return 0
}

// left is told that a node has ended.
func (r *request) left(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	r.leftLocked(node)
	r.noteLocked()
}

func (r *request) leftLocked(node string) {
	switch left := r.waiting[node]; {
	case left == silentNode:
		r.failLocked(errNodeGone)
	case left > 0:
		r.lost += left
	}
	delete(r.waiting, node)
}

// abandon is told that this node leaves the cluster.
func (r *request) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	for node := range r.waiting {
		r.leftLocked(node)
	}
	r.missing += r.counted
	r.counted = 0
	r.noteLocked()
}

func (r *request) noteLocked() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// done reports whether nothing is left to wait for.
func (r *request) done() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.doneLocked()
}

func (r *request) doneLocked() bool {
	for _, left := range r.waiting {
		if left != 0 {
			return false
		}
	}
	return r.counted == 0
}

// unanswered returns how many sockets have been asked and will not answer. It is
// known once the request has ended.
func (r *request) unanswered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// end stops waiting, because everything is answered or ctx is done.
func (r *request) end(ctx context.Context) ([]*backplane.Message, error) {
	r.c.forget(r)
	answers, unfinished, err := r.conclude(ctx)
	if unfinished && (r.kind == backplane.Call || r.kind == backplane.ServerEvent) {
		_ = r.c.send(&backplane.Message{Kind: backplane.Cancel, Request: r.id})
	}
	return answers, err
}

func (r *request) conclude(ctx context.Context) (answers []*backplane.Message, unfinished bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	if unfinished = !r.doneLocked(); unfinished {
		r.errs = append(r.errs, context.Cause(ctx))
		for _, left := range r.waiting {
			if left == silentNode {
				r.missing++
			} else {
				r.lost += left
			}
		}
		r.missing += r.counted
	}
	if r.missing > 0 {
		err = fmt.Errorf("%d of %d other nodes did not answer: %w", r.missing, r.asked, errors.Join(r.errs...))
	}
	return r.answers, unfinished, err
}
