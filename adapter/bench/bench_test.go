package main

import (
	"net/http/httptest"
	"testing"
)

// BenchmarkHandshake is the time from a connection to the end of its closing
// handshake, on both sides: the adapter's chain, with sessions and Identify,
// against the same middleware in front of gorilla.
func BenchmarkHandshake(b *testing.B) {
	for _, name := range []string{"usher", "gorilla+sessions"} {
		b.Run(name, func(b *testing.B) {
			s := serverNamed(name)
			h, err := s.build()
			if err != nil {
				b.Fatal(err)
			}
			site := httptest.NewServer(h)
			b.Cleanup(site.Close)
			l := &load{s: s, p: &process{addr: site.Listener.Addr().String()}}
			if err := l.login(b.Context(), 1_000); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				c, err := l.open(b.Context(), i)
				if err == nil {
					err = c.close()
				}
				if err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
