package adapter

import (
	"sync"

	"github.com/gin-usher/usher/adapter/backplane"
)

// A nameWatch tells a backplane that wants to know which namespaces there are.
type nameWatch struct {
	bus backplane.Namespacer // nil if it does not
	srv *Server

	mu      sync.Mutex
	look    map[string]bool // names that have come or gone
	entered map[string]bool
	running bool
}

func (w *nameWatch) start(c *cluster) {
	bus, ok := c.bus.(backplane.Namespacer)
	if !ok {
		return
	}
	c.srv.mu.RLock()
	names := make(map[string]bool, len(c.srv.namespaces))
	for name := range c.srv.namespaces {
		names[name] = true
	}
	c.srv.mu.RUnlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bus, w.srv, w.look, w.entered = bus, c.srv, names, make(map[string]bool)
	w.runLocked()
}

// namespaces is told that a namespace has come or gone. The caller may hold
// locks.
func (c *cluster) namespaces(name string) {
	if c == nil {
		return
	}
	w := &c.names
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bus != nil {
		w.look[name] = true
		w.runLocked()
	}
}

func (w *nameWatch) runLocked() {
	if !w.running {
		w.running = true
		w.srv.eng.Go(w)
	}
}

// Run tells what is true by then: a name that has come and gone is not told.
func (w *nameWatch) Run() {
	for {
		w.mu.Lock()
		name, some := "", false
		for name = range w.look {
			some = true
			delete(w.look, name)
			break
		}
		if !some {
			w.running = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		w.srv.mu.RLock()
		there := w.srv.namespaces[name] != nil
		w.srv.mu.RUnlock()
		switch {
		case there && !w.entered[name]: // nobody else uses entered
			w.entered[name] = true
			w.bus.Enter(name)
		case !there && w.entered[name]:
			delete(w.entered, name)
			w.bus.Leave(name)
		}
	}
}
