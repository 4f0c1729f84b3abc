package adapter

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/gin-usher/usher/adapter/backplane"
)

// send queues a message for the others. It fails if the message is too large,
// if too many wait already, and, but for what nodes know each other by, while
// the backplane is lost.
func (c *cluster) send(m *backplane.Message) error {
	m.Node = c.id
	size := m.Size()
	if size > backplane.MaxBytes {
		return fmt.Errorf("%w: expected at most %d bytes, got %d", backplane.ErrTooLarge, backplane.MaxBytes, size)
	}
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return ErrShutdown
	case c.failed != nil && !vital(m.Kind):
		err := c.failed
		c.mu.Unlock()
		return err
	case len(c.out) >= maxQueued || c.outBytes+size > maxQueuedBytes:
		c.dropped = time.Now()
		c.untold = c.untold || m.Kind == backplane.SessionsEnded || m.Kind == backplane.Revoked
		c.mu.Unlock()
		c.complain("messages for other nodes were dropped: the backplane does not take them fast enough", "", nil)
		return errDropped
	}
	c.out = append(c.out, m)
	c.outBytes += size
	start := !c.sending
	c.sending = true
	c.mu.Unlock()
	if start {
		c.srv.eng.Go((*sender)(c))
	}
	return nil
}

// vital reports whether messages of a kind are sent even while the backplane is
// lost, to find out when it is back.
func vital(k backplane.Kind) bool {
	return k == backplane.Hello || k == backplane.Beat || k == backplane.Goodbye
}

// sender is the task that publishes what waits.
type sender cluster

func (s *sender) Run() {
	c := (*cluster)(s)
	for {
		c.mu.Lock()
		if len(c.out) == 0 {
			c.out, c.sending = nil, false
			if c.quiet != nil {
				close(c.quiet)
				c.quiet = nil
			}
			c.mu.Unlock()
			return
		}
		n := min(len(c.out), maxBatch)
		batch := slices.Clone(c.out[:n])
		clear(c.out[:n])
		c.out = c.out[n:]
		for _, m := range batch {
			c.outBytes -= m.Size()
		}
		c.mu.Unlock()

		ctx, cancel := context.WithTimeout(c.ctx, publishTimeout)
		err := c.publish(ctx, batch)
		cancel()
		if err != nil && c.ctx.Err() == nil {
			err = fmt.Errorf("adapter: backplane: publish: %w", err)
		}
		mended, untold := false, false
		c.condition(func() {
			mended = c.failed != nil && err == nil && !c.closed
			c.failed = err
			if untold = c.untold && err == nil && len(c.out) <= maxQueued/2; untold {
				c.untold = false
			}
		})
		switch {
		case err != nil:
			c.srv.eng.Wheel().Set(&c.timer, time.Now().Add(retryAfter), c)
		case mended:
			c.catchUp()
		case untold: // there is room again
			c.tellEnded("")
		}
	}
}

// publish hands a batch to the backplane, where nobody else recovers.
func (c *cluster) publish(ctx context.Context, batch []*backplane.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
			c.srv.log.Error("the backplane panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	return c.bus.Publish(ctx, batch)
}

// condition changes what the cluster's condition depends on, and says so once if
// it has changed.
func (c *cluster) condition(change func()) {
	c.mu.Lock()
	was := c.troubleLocked()
	change()
	is, closed := c.troubleLocked(), c.closed
	c.mu.Unlock()
	switch {
	case closed:
	case was == nil && is != nil:
		c.srv.log.Error("the backplane is lost: this server goes on alone until it is back", "error", is)
	case was != nil && is == nil:
		c.srv.log.Info("the backplane is back")
	}
}

func (c *cluster) troubleLocked() error {
	switch {
	case c.failed != nil:
		return c.failed
	case c.deaf:
		return errDeaf
	}
	return nil
}
