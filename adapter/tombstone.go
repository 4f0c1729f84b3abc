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
	until map[string]time.Time
	sweep int // the size at which expired ones are looked for
}

func (t *tombstones) has(id string) bool {
	if id == "" {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	until, ok := t.until[id]
	return ok && time.Now().Before(until)
}

func (t *tombstones) add(id string, life time.Duration) {
	if id == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.until == nil {
		t.until, t.sweep = make(map[string]time.Time), 1024
	}
	now := time.Now()
	t.until[id] = now.Add(life)
	if len(t.until) < t.sweep {
		return
	}
	for id, until := range t.until {
		if now.After(until) {
			delete(t.until, id)
		}
	}
	// Past the bound the adapter forgets early rather than run out of memory;
	// the store has forgotten these sessions too, unless they live in cookies.
	for id := range t.until {
		if len(t.until) <= maxTombstones {
			break
		}
		delete(t.until, id)
	}
	t.sweep = max(2*len(t.until), 1024)
}
