package engine

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An alarm notes when it fires.
type alarm struct {
	Timer
	mu    sync.Mutex
	fired []time.Time
	then  func()
}

func (a *alarm) Expired(now time.Time) {
	a.mu.Lock()
	a.fired = append(a.fired, time.Now())
	a.mu.Unlock()
	if now.After(time.Now()) {
		panic("the wheel is ahead of its time")
	}
	if a.then != nil {
		a.then()
	}
}

// want fails unless a has fired once at each of the given times, and not more
// than a tick late.
func (a *alarm) want(t *testing.T, times ...time.Time) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.fired) != len(times) {
		t.Errorf("fired %d times, want %d", len(a.fired), len(times))
		return
	}
	for i, at := range times {
		if late := a.fired[i].Sub(at); late < 0 || late > tick {
			t.Errorf("fired %v late, want 0 to %v", late, tick)
		}
	}
}

func wheelTest(t *testing.T, f func(t *testing.T, w *Wheel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := NewWheel()
		defer w.Close()
		f(t, w)
	})
}

// Never early and at most a tick late, whatever the place between two ticks at
// which the wheel was made, is started and is set.
func TestWheelOnTime(t *testing.T) {
	for _, d := range []time.Duration{
		-time.Hour, 0, 1, time.Millisecond, tick - 1, tick, tick + 1, time.Second, 25 * time.Second,
		51100 * time.Millisecond, 51200 * time.Millisecond, 51300 * time.Millisecond, // around one turn
		2 * time.Minute, time.Hour,
	} {
		t.Run(d.String(), func(t *testing.T) {
			wheelTest(t, func(t *testing.T, w *Wheel) {
				for _, off := range []time.Duration{0, 1, time.Millisecond, 51 * time.Millisecond, tick - 1, tick, 77777 * time.Millisecond} {
					time.Sleep(off)
					a, b := &alarm{}, &alarm{}
					now := time.Now()
					w.Set(&a.Timer, now.Add(d), a)
					time.Sleep(30 * time.Millisecond) // b starts nothing, or is set between ticks
					w.Set(&b.Timer, now.Add(d+30*time.Millisecond), b)
					time.Sleep(max(d, 0) + 3*time.Minute)
					a.want(t, now.Add(max(d, 0)))
					b.want(t, now.Add(max(d+30*time.Millisecond, 30*time.Millisecond)))
				}
			})
		})
	}
}

// A credential that never expires is far away, not in the past.
func TestWheelFarAway(t *testing.T) {
	wheelTest(t, func(t *testing.T, w *Wheel) {
		for _, at := range []time.Time{
			time.Now().Add(1<<63 - 1),
			time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		} {
			a := &alarm{}
			w.Set(&a.Timer, at, a)
			time.Sleep(5 * time.Minute)
			a.want(t)
			w.Stop(&a.Timer)
		}
	})
}

// A time that came from the wire has no monotonic reading.
func TestWheelWallClock(t *testing.T) {
	wheelTest(t, func(t *testing.T, w *Wheel) {
		a := &alarm{}
		at := time.Now().Add(90 * time.Second).Round(0)
		w.Set(&a.Timer, at, a)
		time.Sleep(5 * time.Minute)
		a.want(t, at)
	})
}

func TestWheelMoveAndStop(t *testing.T) {
	wheelTest(t, func(t *testing.T, w *Wheel) {
		start := time.Now()
		sooner, later, stopped, again := &alarm{}, &alarm{}, &alarm{}, &alarm{}
		for _, a := range []*alarm{sooner, later, stopped, again} {
			w.Set(&a.Timer, start.Add(10*time.Second), a)
		}
		time.Sleep(time.Second)
		w.Set(&sooner.Timer, start.Add(5*time.Second), sooner)
		w.Set(&later.Timer, start.Add(100*time.Second), later)
		w.Stop(&stopped.Timer)
		w.Stop(&stopped.Timer)
		w.Stop(&again.Timer)
		w.Set(&again.Timer, start.Add(20*time.Second), again)
		var never Timer
		w.Stop(&never)
		time.Sleep(2 * time.Minute)
		sooner.want(t, start.Add(5*time.Second))
		later.want(t, start.Add(100*time.Second))
		stopped.want(t)
		again.want(t, start.Add(20*time.Second))
		// A timer that has fired can be set again.
		w.Set(&sooner.Timer, start.Add(200*time.Second), sooner)
		time.Sleep(2 * time.Minute)
		sooner.want(t, start.Add(5*time.Second), start.Add(200*time.Second))
	})
}

// The wheel's lock is not held while a timer fires.
func TestWheelInsideFire(t *testing.T) {
	wheelTest(t, func(t *testing.T, w *Wheel) {
		start := time.Now()
		self, other, periodic := &alarm{}, &alarm{}, &alarm{}
		self.then = func() {
			w.Stop(&self.Timer)
			w.Stop(&other.Timer)
		}
		n := 0
		periodic.then = func() {
			if n++; n < 5 {
				w.Set(&periodic.Timer, time.Now().Add(time.Second), periodic)
			}
		}
		w.Set(&self.Timer, start.Add(time.Second), self)
		w.Set(&other.Timer, start.Add(2*time.Second), other)
		w.Set(&periodic.Timer, start.Add(time.Second), periodic)
		time.Sleep(time.Minute)
		self.want(t, start.Add(time.Second))
		other.want(t)
		var times []time.Time
		for i := range 5 {
			times = append(times, start.Add(time.Duration(i+1)*time.Second))
		}
		periodic.want(t, times...)
	})
}

// Thousands of timers, set, moved and stopped at random, against what was
// asked for last.
func TestWheelRandom(t *testing.T) {
	wheelTest(t, func(t *testing.T, w *Wheel) {
		rnd := rand.New(rand.NewPCG(1, 2))
		alarms := make([]alarm, 5000)
		due := make(map[*alarm]time.Time)
		for range 4 {
			for i := range alarms {
				a := &alarms[i]
				at := time.Now().Add(time.Duration(rnd.Int64N(int64(3 * time.Minute))))
				switch rnd.IntN(4) {
				case 0:
					w.Stop(&a.Timer)
					if len(a.fired) == 0 {
						delete(due, a)
					}
				default:
					if len(a.fired) == 0 {
						w.Set(&a.Timer, at, a)
						due[a] = at
					}
				}
			}
			time.Sleep(time.Duration(rnd.Int64N(int64(30 * time.Second))))
			synctest.Wait()
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		for i := range alarms {
			if at, ok := due[&alarms[i]]; ok {
				alarms[i].want(t, at)
			} else {
				alarms[i].want(t)
			}
		}
	})
}

// running reports whether a wheel has a goroutine.
func running() bool {
	buf := make([]byte, 1<<20)
	return strings.Contains(string(buf[:runtime.Stack(buf, true)]), ".(*Wheel).run")
}

func TestWheelGoroutine(t *testing.T) {
	wheelTest(t, func(t *testing.T, w *Wheel) {
		for range 3 {
			if running() {
				t.Error("an empty wheel has a goroutine")
			}
			fires, stops := &alarm{}, &alarm{}
			start := time.Now()
			w.Set(&fires.Timer, start.Add(time.Second), fires)
			w.Set(&stops.Timer, start.Add(time.Hour), stops)
			synctest.Wait()
			if !running() {
				t.Error("a wheel with timers has no goroutine")
			}
			w.Stop(&stops.Timer)
			time.Sleep(time.Second + 2*tick)
			synctest.Wait()
			fires.want(t, start.Add(time.Second))
		}
	})
}

func TestWheelClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWheel()
		a := &alarm{}
		w.Set(&a.Timer, time.Now().Add(time.Second), a)
		w.Close()
		w.Close()
		w.Set(&a.Timer, time.Now().Add(time.Second), a)
		w.Stop(&a.Timer)
		time.Sleep(time.Minute)
		a.want(t)
	})
}

// For the race detector: everybody at once.
func TestWheelConcurrent(t *testing.T) {
	wheelTest(t, func(t *testing.T, w *Wheel) {
		alarms := make([]alarm, 50)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), 0))
				for range 500 {
					a := &alarms[rnd.IntN(len(alarms))]
					if rnd.IntN(3) == 0 {
						w.Stop(&a.Timer)
					} else {
						w.Set(&a.Timer, time.Now().Add(time.Duration(rnd.Int64N(int64(time.Second)))), a)
					}
					time.Sleep(time.Duration(rnd.Int64N(int64(10 * time.Millisecond))))
				}
			})
		}
		wg.Wait()
		time.Sleep(2 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.count != 0 {
			t.Errorf("%d timers are left, want none", w.count)
		}
	})
}

// SetBefore moves a timer to an earlier time only, and sets one that is not set.
func TestWheelSetBefore(t *testing.T) {
	wheelTest(t, func(t *testing.T, w *Wheel) {
		now := time.Now()
		var later, earlier, unset alarm
		w.Set(&later.Timer, now.Add(time.Second), &later)
		w.SetBefore(&later.Timer, now.Add(time.Minute), &later)
		w.Set(&earlier.Timer, now.Add(time.Minute), &earlier)
		w.SetBefore(&earlier.Timer, now.Add(time.Second), &earlier)
		w.SetBefore(&unset.Timer, now.Add(time.Second), &unset)
		time.Sleep(2 * time.Minute)
		for _, a := range []*alarm{&later, &earlier, &unset} {
			a.want(t, now.Add(time.Second))
		}
	})
}
