package chat

import "sync"

// recent remembers the last ids it was given.
type recent struct {
	mu   sync.Mutex
	ids  map[int64]struct{}
	ring []int64 // the same ids, to forget the oldest
	next int
}

func newRecent(size int) *recent {
	return &recent{ids: make(map[int64]struct{}, size), ring: make([]int64, size)}
}

// add reports whether id is new.
func (r *recent) add(id int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.ids[id]; known {
		return false
	}
	delete(r.ids, r.ring[r.next])
	r.ids[id] = struct{}{}
	r.ring[r.next] = id
	r.next = (r.next + 1) % len(r.ring)
	return true
}
