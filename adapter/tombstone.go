package adapter

import (
	"maps"
	"sync"
	"time"
)

// maxTombstones bounds the memory of ended sessions, to about 150 MB.
const maxTombstones = 1 << 20

// tombstoneLife is how long an ended session is remembered where the store
// itself forgets it: longer than any HTTP request that loaded it before may
// still run. Sessions in cookies are remembered until they would expire.
const tombstoneLife = time.Hour

// tombstones are the sessions that have ended, here or on another node, by their
// hashes: what is kept of a session for a month need not be good for anything. A
// save for one of them is refused, wherever it comes from.
type tombstones struct {
	mu    sync.RWMutex
	of    map[sessionHash]tombstone
	sweep int // the size at which expired ones are looked for
}

type tombstone struct {
	until time.Time
	next  string // the session that a login has put in its place
	peer  uint64 // who has logged in, by network address
}

func (t *tombstones) has(id string) bool {
	t.mu.RLock()
	none := len(t.of) == 0
	t.mu.RUnlock()
	return id != "" && !none && t.hasHash(hashSession(id))
}

func (t *tombstones) hasHash(h sessionHash) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return time.Now().Before(t.of[h].until)
}

// add remembers a session for life, at least.
func (t *tombstones) add(id string, life time.Duration) {
	if id != "" {
		t.addFar(hashSession(id), life)
	}
}

// toldAgain is more than a message takes: by less than that an ending moves when
// another node tells of it again.
const toldAgain = time.Minute

// addFar is add for a session of which only the hash is known, as of one that has
// ended on another node. It reports whether that was news.
func (t *tombstones) addFar(h sessionHash, life time.Duration) (news bool) {
	now := time.Now()
	until := now.Add(life)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of, t.sweep = make(map[sessionHash]tombstone), 1024
	}
	of := t.of[h]
	news = until.Sub(of.until) > toldAgain
	if until.After(of.until) {
		of.until = until
	}
	t.of[h] = of
	if len(t.of) >= t.sweep {
		t.sweep = swept(t.of, maxTombstones, func(of tombstone) bool { return now.After(of.until) })
	}
	return news
}

// swept forgets what is over and, past the bound, more. It returns the size at
// which to do so again.
func swept[K comparable, V any](of map[K]V, bound int, over func(V) bool) int {
	maps.DeleteFunc(of, func(_ K, v V) bool { return over(v) })
	// Past the bound the adapter forgets early rather than run out of memory;
	// the store has forgotten these sessions too, unless they live in cookies.
	for k := range of {
		if len(of) <= bound {
			break
		}
		delete(of, k)
	}
	return min(max(2*len(of), 1024), bound+bound/8)
}

// succeeded notes that a login of a peer has put the session next in the place of
// id. It returns the one that a login of that peer had put there before, "" if
// none had: of two logins exactly one gets the other's.
func (t *tombstones) succeeded(id, next string, peer uint64) (was string) {
	h := hashSession(id)
	t.mu.Lock()
	defer t.mu.Unlock()
	of, ok := t.of[h]
	if !ok {
		return ""
	}
	if of.peer == peer && of.next != next {
		was = of.next
	}
	of.next, of.peer = next, peer
	t.of[h] = of
	return was
}

// successor returns the session that a login has put in the place of id, "" if
// none has.
func (t *tombstones) successor(id string) string {
	h := hashSession(id)
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.of[h].next
}

// maxSuccessors bounds how many logins, one after the other, one logout looks behind.
const maxSuccessors = 100

// successors returns the sessions that logins of a peer have put in the place of
// id, one after the other. From elsewhere comes who has planted the session or
// stolen it, and has no say in what has become of it.
func (t *tombstones) successors(id string, peer uint64) (ids []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for of := t.of[hashSession(id)]; of.next != "" && of.peer == peer && len(ids) < maxSuccessors; of = t.of[hashSession(of.next)] {
		ids = append(ids, of.next)
	}
	return ids
}
