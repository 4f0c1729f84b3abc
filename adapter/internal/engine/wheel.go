package engine

import (
	"sync"
	"time"
)

// tick is the grain of the wheel: a timer fires at most this much late and
// never early.
const tick = 100 * time.Millisecond

// slots makes one turn of the wheel 51.2 s: longer than a heartbeat, so the
// common timer is found on the first pass of its slot.
const slots = 512

// A Wheel keeps all timers of one server on one goroutine, which exists only
// while a timer is set. A connection embeds its Timer, so that setting one
// allocates nothing: four runtime timers for each of 10,000 sockets would cost
// more memory than the sockets' own state.
type Wheel struct {
	start time.Time

	mu      sync.Mutex
	slot    [slots]Timer // list heads
	count   int
	done    int64 // the last tick that was fired
	running bool
	closed  bool
	wg      sync.WaitGroup
}

// A Timer is an entry of a Wheel. Its zero value is a timer that is not set.
type Timer struct {
	prev, next *Timer
	at         int64
	expirer    Expirer
}

// An Expirer is told when its timer fires. Expired runs on the wheel's
// goroutine and must not block. A timer that is stopped or moved while it
// fires may still call Expired once: look at the state, not at the call.
type Expirer interface{ Expired(now time.Time) }

// NewWheel returns an empty wheel.
func NewWheel() *Wheel { return &Wheel{start: time.Now()} }

// Set makes t fire at the given time, moving it if it was set already.
func (w *Wheel) Set(t *Timer, at time.Time, e Expirer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.setLocked(t, at, e)
}

// SetBefore makes t fire at the given time, unless it fires before.
func (w *Wheel) SetBefore(t *Timer, at time.Time, e Expirer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.next == nil || t.at > w.tickOf(at) {
		w.setLocked(t, at, e)
	}
}

// tickOf is the tick at which a timer for a time fires: rounded up, so that none
// fires early.
func (w *Wheel) tickOf(at time.Time) int64 {
	// Divided first, as the longest Duration, which stands for any time further
	// away, has no room.
	d := at.Sub(w.start)
	n := int64(d / tick)
	if d%tick > 0 {
		n++
	}
	return n
}

func (w *Wheel) setLocked(t *Timer, at time.Time, e Expirer) {
	if w.closed {
		return
	}
	w.unlinkLocked(t)
	if w.count == 0 {
		// The wheel stood still; what has passed holds no timer.
		w.done = int64(time.Since(w.start) / tick)
	}
	t.at, t.expirer = max(w.tickOf(at), w.done+1), e
	head := &w.slot[t.at%slots]
	if head.next == nil {
		head.next, head.prev = head, head
	}
	t.prev, t.next = head.prev, head
	t.prev.next, t.next.prev = t, t
	w.count++
	if !w.running {
		w.running = true
		w.wg.Go(w.run)
	}
}

// Stop takes t off the wheel.
func (w *Wheel) Stop(t *Timer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlinkLocked(t)
}

func (w *Wheel) unlinkLocked(t *Timer) {
	if t.next == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.prev, t.next = nil, nil
	w.count--
}

// Close stops the wheel and waits for it. No timer fires afterwards.
func (w *Wheel) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wg.Wait()
}

func (w *Wheel) run() {
	// On the beat that Set rounds to: then rounding is the only delay.
	t := time.NewTicker(tick - time.Since(w.start)%tick)
	defer t.Stop()
	aligned := false
	type due struct {
		e  Expirer
		at time.Time
	}
	var fired []due
	for range t.C {
		if !aligned {
			t.Reset(tick)
			aligned = true
		}
		w.mu.Lock()
		if w.closed || w.count == 0 {
			w.running = false
			w.mu.Unlock()
			return
		}
		now := time.Now()
		for last := int64(now.Sub(w.start) / tick); w.done < last; {
			w.done++
			head := &w.slot[w.done%slots]
			for t := head.next; t != nil && t != head; {
				next := t.next
				if t.at <= w.done {
					w.unlinkLocked(t)
					fired = append(fired, due{t.expirer, now})
				}
				t = next
			}
		}
		w.mu.Unlock()
		for i, d := range fired {
			d.e.Expired(d.at)
			fired[i] = due{}
		}
		fired = fired[:0]
	}
}
