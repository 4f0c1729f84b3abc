package engine

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// A worker that has finished takes the next task, with its stack as it grew.
func TestWorkersReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers()
		defer w.close()
		for range 1000 {
			ran := false
			w.run(task(func() { ran = true }))
			synctest.Wait()
			if !ran {
				t.Fatal("a task did not run")
			}
			if n := w.idle.Load(); n != 1 {
				t.Fatalf("%d workers, want the same one again", n)
			}
		}
	})
}

// Any number of tasks runs at once; afterwards a bounded number of workers is
// kept.
func TestWorkersKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers()
		defer w.close()
		for range 3 {
			var running atomic.Int32
			release := make(chan struct{})
			for range 500 {
				w.run(task(func() {
					running.Add(1)
					<-release
				}))
			}
			synctest.Wait()
			if n := running.Load(); n != 500 {
				t.Errorf("%d tasks run, want 500 at once", n)
			}
			if n := w.idle.Load(); n != 0 {
				t.Errorf("%d idle workers while all are busy", n)
			}
			close(release)
			synctest.Wait()
			if n := w.idle.Load(); n != maxIdleWorkers {
				t.Errorf("%d idle workers are kept, want %d", n, maxIdleWorkers)
			}
		}
	})
}

func TestWorkersClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers()
		release := make(chan struct{})
		finished := false
		w.run(task(func() {
			<-release
			finished = true
		}))
		w.run(task(func() {}))
		synctest.Wait()
		closed := make(chan struct{})
		go func() {
			w.close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("close did not wait for a busy worker")
		default:
		}
		w.run(task(func() { t.Error("a task ran after close") }))
		close(release)
		<-closed
		if !finished {
			t.Error("the busy worker did not finish")
		}
		w.close()
	})
}

// Starting a goroutine while the last one ends is a misuse of a WaitGroup that
// only the race detector sees.
func TestWorkersRunWhileClosing(t *testing.T) {
	for range 200 {
		w := newWorkers()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 4 {
					w.run(task(func() {}))
				}
			})
		}
		wg.Go(w.close)
		wg.Wait()
		w.close()
	}
}
