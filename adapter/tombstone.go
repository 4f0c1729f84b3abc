package adapter

import (
	"crypto/sha256"
	"maps"
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
	mu  sync.RWMutex
	of  map[string]tombstone
	far map[sessionHash]time.Time // until when, of those that other nodes have told of

	sweep, sweepFar int // the sizes at which expired ones are looked for
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
	if of, ok := t.of[id]; ok && time.Now().Before(of.until) {
		return true
	}
	return len(t.far) > 0 && time.Now().Before(t.far[hashSession(id)])
}

// hasHash is has for a session of which only the hash is known, as far as that is
// remembered.
func (t *tombstones) hasHash(h sessionHash) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return time.Now().Before(t.far[h])
}

// A sessionHash is what one node tells another of a session: enough to know it
// by, and nothing to act with.
type sessionHash [sha256.Size]byte

func hashSession(id string) sessionHash { return sha256.Sum256([]byte("usher session " + id)) }

// addFar is add for a session that has ended on another node.
func (t *tombstones) addFar(h sessionHash, life time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.far == nil {
		t.far, t.sweepFar = make(map[sessionHash]time.Time), 1024
	}
	t.far[h] = now.Add(life)
	if len(t.far) >= t.sweepFar {
		t.sweepFar = swept(t.far, func(until time.Time) bool { return now.After(until) })
	}
}

// swept forgets what is over and, past the bound, more. It returns the size at
// which to do so again.
func swept[K comparable, V any](of map[K]V, over func(V) bool) int {
	maps.DeleteFunc(of, func(_ K, v V) bool { return over(v) })
	// Past the bound the adapter forgets early rather than run out of memory;
	// the store has forgotten these sessions too, unless they live in cookies.
	for k := range of {
		if len(of) <= maxTombstones {
			break
		}
		delete(of, k)
	}
	return max(2*len(of), 1024)
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
	t.sweep = swept(t.of, func(of tombstone) bool { return now.After(of.until) })
}
