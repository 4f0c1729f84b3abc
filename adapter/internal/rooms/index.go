// Package rooms keeps who is in which room. It does no I/O and calls nobody.
package rooms

import (
	"slices"
	"sync"
)

// An Index maps rooms to members and back. Its zero value is empty and ready.
// All methods are safe for concurrent use.
type Index[M comparable] struct {
	mu    sync.RWMutex
	rooms map[string]*room[M]
}

// A room is a list while it is small, which most are, and gets a map from a
// member to its place when a scan would be slow.
type room[M comparable] struct {
	list  []M
	place map[M]int
}

// scanned is the size up to which a room is searched by walking its list.
const scanned = 16

func (r *room[M]) find(m M) int {
	if r.place == nil {
		return slices.Index(r.list, m)
	}
	if i, ok := r.place[m]; ok {
		return i
	}
	return -1
}

func (r *room[M]) add(m M) bool {
	if r.find(m) >= 0 {
		return false
	}
	r.list = append(r.list, m)
	if r.place != nil {
		r.place[m] = len(r.list) - 1
	} else if len(r.list) > scanned {
		r.place = make(map[M]int, 2*len(r.list))
		for i, m := range r.list {
			r.place[m] = i
		}
	}
	return true
}

func (r *room[M]) remove(m M) bool {
	i := r.find(m)
	if i < 0 {
		return false
	}
	last := len(r.list) - 1
	moved := r.list[last]
	r.list[i] = moved
	var zero M
	r.list[last] = zero
	r.list = r.list[:last]
	if r.place != nil {
		r.place[moved] = i
		delete(r.place, m)
	}
	return true
}

// Add puts m into the room and reports whether it was not there before.
func (x *Index[M]) Add(name string, m M) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rooms == nil {
		x.rooms = make(map[string]*room[M])
	}
	r := x.rooms[name]
	if r == nil {
		r = &room[M]{}
		x.rooms[name] = r
	}
	return r.add(m)
}

// Remove takes m out of the room and reports whether it was there. A room
// without members is forgotten.
func (x *Index[M]) Remove(name string, m M) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.rooms[name]
	if r == nil || !r.remove(m) {
		return false
	}
	if len(r.list) == 0 {
		delete(x.rooms, name)
	}
	return true
}

// Select appends to dst the members of any of the rooms that are in none of
// except, each once, in no particular order.
func (x *Index[M]) Select(dst []M, rooms, except []string) []M {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var barred []*room[M]
	for _, name := range except {
		if r := x.rooms[name]; r != nil {
			barred = append(barred, r)
		}
	}
	if len(rooms) == 1 && len(barred) == 0 {
		if r := x.rooms[rooms[0]]; r != nil {
			dst = append(dst, r.list...)
		}
		return dst
	}
	var seen map[M]struct{}
	if len(rooms) > 1 {
		seen = make(map[M]struct{})
	}
	for _, name := range rooms {
		r := x.rooms[name]
		if r == nil {
			continue
		}
		for _, m := range r.list {
			if slices.ContainsFunc(barred, func(b *room[M]) bool { return b.find(m) >= 0 }) {
				continue
			}
			if seen != nil {
				if _, dup := seen[m]; dup {
					continue
				}
				seen[m] = struct{}{}
			}
			dst = append(dst, m)
		}
	}
	return dst
}

// Len returns how many members the room has.
func (x *Index[M]) Len(name string) int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if r := x.rooms[name]; r != nil {
		return len(r.list)
	}
	return 0
}

// In reports whether m is in the room.
func (x *Index[M]) In(name string, m M) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := x.rooms[name]
	return r != nil && r.find(m) >= 0
}
