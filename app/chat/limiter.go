package chat

import (
	"sync"
	"time"
)

// limiter is a token bucket per key: burst events at once, then rate a second.
// It keeps nothing of keys that have been quiet for long enough to have their
// whole burst back, so it holds at most those of the last two such spans.
type limiter struct {
	burst float64
	rate  float64

	mu      sync.Mutex
	buckets map[string]bucket
	swept   time.Time
}

type bucket struct {
	tokens float64 // at the time at
	at     time.Time
}

func newLimiter(burst, rate float64) *limiter {
	return &limiter{burst: burst, rate: rate, buckets: make(map[string]bucket), swept: time.Now()}
}

// allow takes a token of key and reports whether there was one.
func (l *limiter) allow(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.sweepLocked(now)
	b, ok := l.buckets[key]
	if !ok {
		b = bucket{l.burst, now}
	}
	b.tokens, b.at = min(l.burst, b.tokens+now.Sub(b.at).Seconds()*l.rate), now
	allowed := b.tokens >= 1
	if allowed {
		b.tokens--
	}
	l.buckets[key] = b
	return allowed
}

func (l *limiter) sweepLocked(now time.Time) {
	refill := time.Duration(l.burst / l.rate * float64(time.Second))
	if now.Sub(l.swept) < refill {
		return
	}
	l.swept = now
	for key, b := range l.buckets {
		if now.Sub(b.at) >= refill {
			delete(l.buckets, key)
		}
	}
}
