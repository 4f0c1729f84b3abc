package adapter

import (
	"maps"
	"sync"
)

// Data is what the app keeps with a socket for as long as it lives. It is safe
// for concurrent use.
type Data struct {
	mu     sync.RWMutex
	values map[string]any
}

// Get returns the value of key, nil if there is none.
func (d *Data) Get(key string) any {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.values[key]
}

// Set sets the value of key.
func (d *Data) Set(key string, value any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.values == nil {
		d.values = make(map[string]any)
	}
	d.values[key] = value
}

// Delete removes key.
func (d *Data) Delete(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.values, key)
}

// All returns a copy of everything; nil if there is nothing.
func (d *Data) All() map[string]any {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return maps.Clone(d.values)
}
