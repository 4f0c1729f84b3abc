package adapter

import (
	"sync"
	"time"
)

// maxTombstones bounds the memory of ended sessions, to about 100 MB.
const maxTombstones = 1 << 20

// tombstoneLife is how long an ended session is remembered where the store
// itself forgets it: longer than any HTTP request that loaded it before may
// still run. Sessions in cookies are remembered until they would expire.
const tombstoneLife = time.Hour

// tombstones are the ids of sessions that have ended. A save for one of them
// is refused, wherever it comes from.
type tombstones struct {
	mu    sync.RWMutex
	of    map[string]tombstone
	sweep int // the size at which expired ones are looked for
}

type tombstone struct {
	until time.Time
	next  string // the session that a login has put in its place
}

func (t *tombstones) has(id string) bool {
	if id == "" {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	of, ok := t.of[id]
	return ok && time.Now().Before(of.until)
}

// succeeded notes that a login has put the session next in the place of id.
func (t *tombstones) succeeded(id, next string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of, ok := t.of[id]; ok {
		of.next = next
		t.of[id] = of
	}
}

// successor returns the session that a login has put in the place of id, "" if
// none has.
func (t *tombstones) successor(id string) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.of[id].next
}

func (t *tombstones) add(id string, life time.Duration) {
	if id == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of, t.sweep = make(map[string]tombstone), 1024
	}
	now := time.Now()
	t.of[id] = tombstone{now.Add(life), t.of[id].next}
	if len(t.of) < t.sweep {
		return
	}
	for id, of := range t.of {
		if now.After(of.until) {
			delete(t.of, id)
		}
	}
	// Past the bound the adapter forgets early rather than run out of memory;
	// the store has forgotten these sessions too, unless they live in cookies.
	for id := range t.of {
		if len(t.of) <= maxTombstones {
			break
		}
		delete(t.of, id)
	}
	t.sweep = max(2*len(t.of), 1024)
}
