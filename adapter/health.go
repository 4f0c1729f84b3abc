package adapter

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// troubleFor is how long a session store counts as one that does not answer after
// it has not. Open sockets make it be asked again before that; where there are
// none, somebody has to let the next visitor in who finds out.
const troubleFor = 15 * time.Second

// A condition is how a session store has answered last.
type condition struct{ failed atomic.Pointer[failure] }

type failure struct {
	err error
	at  time.Time
}

// note takes what the store has answered, nil for an answer.
func (c *condition) note(err error) {
	switch {
	case err != nil:
		c.failed.Store(&failure{err, time.Now()})
	case c.failed.Load() != nil:
		c.failed.Store(nil)
	}
}

// trouble returns what is wrong with the store, as far as is known.
func (c *condition) trouble() error {
	if f := c.failed.Load(); f != nil && time.Since(f.at) < troubleFor {
		return f.err
	}
	return nil
}

// Health reports whether the server can do what it is there for: nil if so. It
// fails
//
//   - while the server shuts down;
//   - while a session store does not answer: one that is a Pinger is asked, of
//     another it counts how it has answered in the last 15 s. Handshakes get 503
//     then, and open sockets stay for MaxStale;
//   - while what it publishes does not come back from the backplane, which it
//     tries, for as long as ctx lasts but not longer than 5 s. A server whose
//     backplane is lost still serves its own sockets, and reaches the others
//     again by itself.
//
// It says whether to send people elsewhere, not whether to restart the program.
func (s *Server) Health(ctx context.Context) error {
	s.mu.RLock()
	draining := s.draining
	s.mu.RUnlock()
	if draining {
		return ErrShutdown
	}
	return errors.Join(s.storesHealth(ctx), s.cluster.health(ctx))
}

func (s *Server) storesHealth(ctx context.Context) (err error) {
	for _, st := range s.stores {
		if _, asks := st.inner.(Pinger); asks {
			err = errors.Join(err, st.ping(ctx))
		} else {
			err = errors.Join(err, st.answers.trouble())
		}
	}
	for _, st := range s.tokenStores {
		err = errors.Join(err, st.answers.trouble())
	}
	return err
}

func (c *cluster) health(ctx context.Context) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	err := c.troubleLocked()
	if err == nil && !c.dropped.IsZero() && time.Since(c.dropped) < beatTimeout {
		err = errDropped
	}
	started := c.started
	c.mu.Unlock()
	if err != nil || !started {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	for sequence := c.beat(); ; {
		c.mu.Lock()
		heard, echo, err := c.heard, c.echo, c.troubleLocked()
		c.mu.Unlock()
		if err != nil || heard >= sequence {
			return err
		}
		select {
		case <-echo:
		case <-ctx.Done():
			return fmt.Errorf("adapter: backplane: %w", context.Cause(ctx))
		}
	}
}
