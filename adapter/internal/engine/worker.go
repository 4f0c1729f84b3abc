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
	wg    sync.WaitGroup
	stop  chan struct{}
}

func newWorkers() *workers {
	return &workers{tasks: make(chan Task), stop: make(chan struct{})}
}

// run starts t and returns.
func (w *workers) run(t Task) {
	select {
	case w.tasks <- t:
	default:
		w.wg.Add(1)
		go w.work(t)
	}
}

func (w *workers) work(t Task) {
	defer w.wg.Done()
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
	close(w.stop)
	w.wg.Wait()
}
