package adaptertest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// Endings is the suite that every adapter.Endings passes. newPlace makes a new
// place to keep endings in; what it returns opens that place, once more with each
// call, as after a restart, while those opened before may be in use.
func Endings(t *testing.T, newPlace func(t *testing.T) (open func() adapter.Endings)) {
	begin := time.Now()
	ending := func(kind, value string, at, until time.Duration) adapter.Ending {
		return adapter.Ending{Kind: kind, Hash: sha256.Sum256([]byte(value)), At: begin.Add(at), Until: begin.Add(until)}
	}
	add := func(t *testing.T, to adapter.Endings, all ...adapter.Ending) {
		t.Helper()
		if err := to.Add(t.Context(), all...); err != nil {
			t.Fatalf("Add: %v", err)
		}
	}
	// wants compares what is remembered with want, which lasts an hour and more:
	// what is over may be there or not.
	wants := func(t *testing.T, from adapter.Endings, want ...adapter.Ending) {
		t.Helper()
		all, err := from.All(t.Context())
		if err != nil {
			t.Fatalf("All: %v", err)
		}
		got := make(map[string]string)
		for _, e := range all {
			if e.Until.Before(begin.Add(time.Minute)) {
				continue
			}
			key := fmt.Sprintf("%s %x", e.Kind, e.Hash[:4])
			if got[key] != "" {
				t.Errorf("All has %s twice", key)
			}
			got[key] = fmt.Sprint(e.At.Sub(begin), " ", e.Until.Sub(begin).Round(time.Second))
		}
		wanted := make(map[string]string)
		for _, e := range want {
			wanted[fmt.Sprintf("%s %x", e.Kind, e.Hash[:4])] = fmt.Sprint(e.At.Sub(begin), " ", e.Until.Sub(begin))
		}
		if !maps.Equal(got, wanted) {
			t.Errorf("All = %v, want %v", got, wanted)
		}
	}
	const hour = time.Hour

	t.Run("a new place is empty", func(t *testing.T) {
		wants(t, newPlace(t)())
	})
	t.Run("what was added is there after a restart", func(t *testing.T) {
		open := newPlace(t)
		first := open()
		all := []adapter.Ending{
			ending("session", "a", 0, hour), ending("user", "a", time.Minute+1, 2*hour),
			ending("token", "b", -hour-7, 720*hour), ending("provider", "c", 0, hour),
		}
		add(t, first)
		add(t, first, all[0])
		add(t, first, all[1:]...)
		wants(t, first, all...)
		wants(t, open(), all...)
	})
	t.Run("an ending that is added again is as late as it ever was", func(t *testing.T) {
		open := newPlace(t)
		first := open()
		add(t, first, ending("user", "a", 5, 2*hour))
		add(t, first, ending("user", "a", 3, hour), ending("user", "a", 4, 3*hour))
		wants(t, first, ending("user", "a", 5, 3*hour))
		again := open()
		add(t, again, ending("user", "a", 9, hour))
		wants(t, open(), ending("user", "a", 9, 3*hour))
	})
	t.Run("what is over does no harm", func(t *testing.T) {
		open := newPlace(t)
		first := open()
		add(t, first, ending("session", "a", -2*hour, -hour), ending("session", "b", 0, hour))
		wants(t, first, ending("session", "b", 0, hour))
		add(t, open(), ending("session", "a", 0, hour))
		wants(t, open(), ending("session", "a", 0, hour), ending("session", "b", 0, hour))
	})
	t.Run("many at once", func(t *testing.T) {
		open := newPlace(t)
		ends := []adapter.Endings{open(), open()}
		const writers, each = 8, 20
		var all []adapter.Ending
		var wg sync.WaitGroup
		for i := range writers {
			var own []adapter.Ending
			for j := range each {
				own = append(own, ending("session", fmt.Sprint(i, " ", j), time.Duration(j), hour+time.Duration(i)*time.Second))
			}
			all = append(all, own...)
			wg.Go(func() {
				for part := range slices.Chunk(own, 1+i%3) {
					if err := ends[i%2].Add(t.Context(), part...); err != nil {
						t.Errorf("Add: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		wants(t, open(), all...)
	})
	t.Run("a context that is over", func(t *testing.T) {
		to := newPlace(t)()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := to.Add(ctx, ending("session", "a", 0, hour)); err == nil {
			t.Error("Add with a context that is over: no error")
		}
		if _, err := to.All(ctx); err == nil {
			t.Error("All with a context that is over: no error")
		}
		add(t, to, ending("session", "b", 0, hour))
	})
}
