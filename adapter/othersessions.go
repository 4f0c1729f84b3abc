package adapter

import "slices"

// An app may keep several sessions: in two stores, or by SessionsMany. Sockets hang on
// one of them, see visit.session, and end with it; but what says who they are may be in
// another. So the chain is asked again whenever one of those that it has loaded besides
// is saved or ends. One that Identify has named is another as well.

// maxOthers bounds how many are remembered of one handshake.
const maxOthers = 8

// others are those sessions and the bindings whose chains have loaded them. Few apps
// have any. It is guarded by follower.mu.
type others struct {
	of       map[*binding][]string
	bindings map[string][]*binding // by session id
}

// others returns the ids of the sessions that were loaded besides l.
func (v *visit) others(l *loaded) (ids []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, other := range v.loaded {
		if other.id != "" && other.id != l.id && !slices.Contains(ids, other.id) && len(ids) < maxOthers {
			ids = append(ids, other.id)
		}
	}
	return ids
}

func (f *follower) noteOthersLocked(b *binding, ids []string) {
	if len(ids) == 0 || f.others.of[b] != nil {
		return // all sockets of a binding show the same cookies
	}
	if f.others.of == nil {
		f.others.of, f.others.bindings = make(map[*binding][]string), make(map[string][]*binding)
	}
	f.others.of[b] = ids
	for _, id := range ids {
		f.others.bindings[id] = append(f.others.bindings[id], b)
		if f.hashed != nil {
			f.hashed[hashSession(id)] = id
		}
	}
}

func (f *follower) forgetOthersLocked(b *binding) {
	for _, id := range f.others.of[b] {
		left := slices.DeleteFunc(f.others.bindings[id], func(other *binding) bool { return other == b })
		if f.others.bindings[id] = left; len(left) == 0 {
			delete(f.others.bindings, id)
			f.unhashLocked(id)
		}
	}
	delete(f.others.of, b)
}

// unhashLocked forgets the hash of a session that has no sockets any more.
func (f *follower) unhashLocked(id string) {
	if f.hashed != nil && f.bindings[id] == nil && len(f.others.bindings[id]) == 0 {
		delete(f.hashed, hashSession(id))
	}
}

// sinceLocked reports whether who s is may have changed since changes were counted.
func (f *follower) sinceLocked(s *Socket, seen uint64) bool {
	if seen == f.changes.count {
		return false // nothing has; most handshakes
	}
	if f.changes.since(seen, whosOf(s.Identity(), s.sessionID, s.shake.Load().token())) {
		return true
	}
	return slices.ContainsFunc(f.others.of[s.binding], func(id string) bool {
		return f.changes.since(seen, whosOf(nil, id, ""))
	})
}

// named returns the sockets of a session, also of one that Identify has named.
func (f *follower) named(sessionID string) []*Socket {
	all := f.sockets(sessionID)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.others.bindings[sessionID] {
		for _, s := range b.sockets {
			if id := s.Identity(); id != nil && id.SessionID == sessionID {
				all = append(all, s)
			}
		}
	}
	return all
}

// withdrawn is told of every session that has ended or was replaced, once those sockets
// were seen to that hang on it.
func (f *follower) withdrawn(id string, h sessionHash) {
	f.mu.Lock()
	f.changes.add(mark{bySession, h})
	found := slices.Clone(f.others.bindings[id])
	f.mu.Unlock()
	for _, b := range found {
		f.trigger(b)
	}
}
