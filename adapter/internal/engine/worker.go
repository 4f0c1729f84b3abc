package engine

import (
	"sync"
	"sync/atomic"
)

// maxIdleWorkers bounds how many goroutines wait for work with a stack that
// has already grown.
const maxIdleWorkers = 32

// A Task is work that a goroutine runs once. A pointer type avoids the
// allocation that a closure costs per message.
type Task interface{ Run() }

// workers runs tasks on goroutines that outlive them. Reading and writing a
// WebSocket needs more stack than a new goroutine has; growing it for each
// message costs more than handing the message to a goroutine that is warm.
// There is no bound on running tasks: what they work for is bounded already.
type workers struct {
	tasks chan Task // unbuffered: a send succeeds only if a worker is idle
	idle  atomic.Int32
	stop  chan struct{}
	wg    sync.WaitGroup

	mu      sync.Mutex // orders the start of a goroutine and close
	stopped bool
}

func newWorkers() *workers {
	return &workers{tasks: make(chan Task), stop: make(chan struct{})}
}

// run starts t and returns. Once close was called it does nothing: what tasks
// work for is gone then.
func (w *workers) run(t Task) {
	select {
	case w.tasks <- t:
		return
	default:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.wg.Go(func() { w.work(t) })
	}
}

func (w *workers) work(t Task) {
	for {
		t.Run()
		if w.idle.Add(1) > maxIdleWorkers {
			w.idle.Add(-1)
			return
		}
		select {
		case t = <-w.tasks:
			w.idle.Add(-1)
		case <-w.stop:
			return
		}
	}
}

// close ends idle workers and waits for busy ones.
func (w *workers) close() {
	w.mu.Lock()
	if !w.stopped {
		w.stopped = true
		close(w.stop)
	}
	w.mu.Unlock()
	w.wg.Wait()
}
