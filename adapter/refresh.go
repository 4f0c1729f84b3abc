package adapter

import (
	"context"
	"errors"
)

// Refresh has the chain replayed for the sockets that are meant, on every node
// of the cluster, because what it would say has changed where the adapter cannot
// see it: roles in a database, for one. It returns at once; identity, rooms and
// guards follow within a quarter of a second, on other nodes within half a
// second, and nobody is disconnected who may stay. A node that cannot be reached
// notices within Config.Revalidate.
func (s *Server) Refresh(ctx context.Context, w Who) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if w.value == "" {
		return errors.New("adapter: Refresh: expected a user, session, token or provider, got none")
	}
	if m := w.mark(); w.by == bySession {
		s.follow.saved(w.value, m.hash)
	} else {
		s.follow.tell(m) // before it looks: those that it cannot find yet see it
		s.follow.refresh(s.socketsOf(w))
	}
	if s.cluster != nil {
		s.cluster.changes.add(w.mark())
	}
	return nil
}

// tell notes of whom something has changed, the zero mark is everybody, for those
// that are being looked at, in a handshake or a replay: by whom they will turn out to
// be, they cannot be found yet.
func (f *follower) tell(who ...mark) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range who {
		f.changes.add(m)
	}
}

// refresh has sockets looked at again.
func (f *follower) refresh(sockets []*Socket) {
	bindings := make(map[*binding]struct{})
	f.mu.Lock()
	for _, s := range sockets {
		if s.binding != nil {
			bindings[s.binding] = struct{}{}
		}
	}
	f.mu.Unlock()
	for b := range bindings {
		f.trigger(b)
	}
}
