package chat

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// allowed counts how many of n events a key may have at once.
func allowed(l *limiter, key string, n int) (count int) {
	for range n {
		if l.allow(key) {
			count++
		}
	}
	return count
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(20, 5)
		if got := allowed(l, "ann", 30); got != 20 {
			t.Errorf("%d of 30 at once, want the burst of 20", got)
		}
		if got := allowed(l, "ben", 30); got != 20 {
			t.Errorf("%d of another key's 30, want 20", got)
		}
		time.Sleep(199 * time.Millisecond)
		if got := allowed(l, "ann", 1); got != 0 {
			t.Error("one too early")
		}
		time.Sleep(time.Millisecond)
		if got := allowed(l, "ann", 2); got != 1 {
			t.Errorf("%d after 200 ms, want 1", got)
		}
		time.Sleep(time.Second)
		if got := allowed(l, "ann", 30); got != 5 {
			t.Errorf("%d after another second, want 5", got)
		}
		time.Sleep(time.Hour)
		if got := allowed(l, "ann", 30); got != 20 {
			t.Errorf("%d after an hour, want no more than the burst of 20", got)
		}
	})
}

func TestLimiterForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(20, 5)
		most := 0
		for i := range 10_000 {
			l.allow(fmt.Sprint(i))
			time.Sleep(10 * time.Millisecond)
			most = max(most, len(l.buckets))
		}
		// A burst takes four seconds to come back: two such spans at 100 a second.
		if most > 800 {
			t.Errorf("it held %d keys at once, want at most 800", most)
		}
	})
}
