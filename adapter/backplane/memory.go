package backplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// A Memory joins servers of one process: in tests, or where a program serves
// several sites that are one. Its zero value is ready.
//
// It keeps nothing: Publish delivers, on the goroutine that calls it.
type Memory struct {
	mu    sync.RWMutex
	nodes []*memoryNode
}

// Node returns another end of the memory, for one server.
func (b *Memory) Node() Backplane { return &memoryNode{bus: b} }

type memoryNode struct {
	bus *Memory

	publishing sync.Mutex // keeps the order of what this node publishes

	// receiving is held while a message is delivered to this node, so that none
	// is once Close has returned.
	receiving sync.RWMutex
	name      string
	deliver   func(*Message)
	closed    bool
}

func (n *memoryNode) Subscribe(node string, deliver func(*Message)) error {
	n.receiving.Lock()
	defer n.receiving.Unlock()
	switch {
	case n.closed:
		return ErrClosed
	case n.deliver != nil:
		return errors.New("backplane: this end has been subscribed: each server needs one of its own")
	}
	n.name, n.deliver = node, deliver
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	n.bus.nodes = append(n.bus.nodes, n)
	return nil
}

func (n *memoryNode) Publish(ctx context.Context, batch []*Message) error {
	n.publishing.Lock()
	defer n.publishing.Unlock()
	for _, m := range batch {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n.receiving.RLock()
		closed := n.closed
		n.receiving.RUnlock()
		if closed {
			return ErrClosed
		}
		if size := m.Size(); size > MaxBytes {
			return fmt.Errorf("%w: expected at most %d bytes, got %d", ErrTooLarge, MaxBytes, size)
		}
		n.bus.mu.RLock()
		nodes := slices.Clone(n.bus.nodes)
		n.bus.mu.RUnlock()
		for _, to := range nodes {
			if to == n && m.Kind != Beat || m.To != "" && m.To != to.name {
				continue
			}
			to.receive(m)
		}
	}
	return nil
}

func (n *memoryNode) receive(m *Message) {
	n.receiving.RLock()
	defer n.receiving.RUnlock()
	if !n.closed {
		n.deliver(m)
	}
}

func (n *memoryNode) Close() error {
	n.receiving.Lock()
	n.closed = true
	n.receiving.Unlock()
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	n.bus.nodes = slices.DeleteFunc(n.bus.nodes, func(other *memoryNode) bool { return other == n })
	return nil
}
