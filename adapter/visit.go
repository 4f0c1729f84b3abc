package adapter

import (
	"context"
	"slices"
	"sync"
)

// A visit is one pass of a request through identifying middlewares: a
// handshake, a replay or a page. It rides in the request's context, where the
// store wrapper finds it and leaves what only a store can know: which sessions
// were loaded, and whether the store answered at all.
type visit struct {
	replay bool   // saves are discarded
	page   bool   // renewals are followed at its end
	peer   uint64 // who asks for it, by network address

	mu       sync.Mutex
	storeErr error
	loaded   []*loaded
	lapsed   bool     // it has found somebody who has expired
	saves    []string // who tried to save during a replay
	renewals []*renewal
	user     string // whose the renewed session is
	owner    *owner // whose one is that is saved from now on
}

type visitKey struct{}

func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

func (v *visit) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, visitKey{}, v)
}

func (v *visit) addLoaded(l *loaded) {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.loaded = append(v.loaded, l)
}

// fail notes that a store did not answer. The first failure is kept.
func (v *visit) fail(err error) {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.storeErr == nil {
		v.storeErr = err
	}
}

// addSave notes who tried to save during a replay.
func (v *visit) addSave(by string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.saves = append(v.saves, by)
}

// lapse notes that who was found has expired.
func (v *visit) lapse() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lapsed = true
}

func (v *visit) hasLapsed() bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lapsed
}

func (v *visit) failure() error {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.storeErr
}

// session returns the session that names a user, among those that were loaded
// and have, or have been given, an id; or else the first of them. The sockets
// of a visit end with this session.
func (v *visit) session() (found *loaded) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, l := range v.loaded {
		if l.id == "" {
			continue
		}
		if l.base[keyUser] != nil {
			return l
		}
		if found == nil {
			found = l
		}
	}
	return found
}

// loadedOf returns the session of that name as the request of ctx found it, maybe
// through another copy of the request; nil if it did not load it.
func loadedOf(ctx context.Context, st *store, name string) *loaded {
	if l, ok := ctx.Value(loadedKey{st, name}).(*loaded); ok {
		return l
	}
	v := visitOf(ctx)
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, l := range slices.Backward(v.loaded) {
		if l.store == st && l.name == name {
			return l
		}
	}
	return nil
}

// Replaying reports whether ctx belongs to a replay of the chain, for the rare
// middleware that must know: nobody waits for the answer then, and what it
// writes goes nowhere.
func Replaying(ctx context.Context) bool {
	v := visitOf(ctx)
	return v != nil && v.replay
}
