package main

import (
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// BenchmarkHandshake compares what a handshake costs: the adapter's chain, with
// sessions and Identify, against the same middleware in front of gorilla. A
// handshake begins with the request on an open connection and ends when the
// client has the 101, and from the adapter its first frame too. The two take
// turns, so that the noise of the machine hits both; the medians are reported.
func BenchmarkHandshake(b *testing.B) {
	names := [...]string{"usher", "gorilla+sessions"}
	var loads [len(names)]*load
	for i, name := range names {
		s := serverNamed(name)
		h, err := s.build()
		if err != nil {
			b.Fatal(err)
		}
		site := httptest.NewServer(h)
		b.Cleanup(site.Close)
		loads[i] = &load{s: s, p: &process{addr: site.Listener.Addr().String()}}
		if err := loads[i].login(b.Context(), 1_000); err != nil {
			b.Fatal(err)
		}
	}
	var took [len(names)][]time.Duration
	n := 0
	for b.Loop() {
		for i := range loads {
			l := loads[(i+n)%len(loads)]
			c, err := dial(b.Context(), l.p.addr)
			if err != nil {
				b.Fatal(err)
			}
			start := time.Now()
			err = l.shake(c, n)
			took[(i+n)%len(loads)] = append(took[(i+n)%len(loads)], time.Since(start))
			if err == nil {
				err = c.close()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		n++
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2])
	}
	usher, gorilla := median(took[0]), median(took[1])
	b.ReportMetric(usher/1e3, "µs/usher")
	b.ReportMetric(gorilla/1e3, "µs/gorilla")
	b.ReportMetric(usher/gorilla, "ratio")
	b.ReportMetric(0, "ns/op") // of both, with opening and closing: of no interest
}
