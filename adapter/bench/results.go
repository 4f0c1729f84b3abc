package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"unicode/utf8"
)

// A metric is a column of the table.
type metric int

const (
	idle metric = iota
	idleGC
	connect
	echoed
	single
	bursts
	metricCount
)

var metrics = [metricCount]struct{ name, unit string }{
	idle:    {"idle", "KiB"},
	idleGC:  {"after GC", "KiB"},
	connect: {"connect+close", "µs"},
	echoed:  {"echo", "µs"},
	single:  {"broadcast", "µs"},
	bursts:  {"burst", "µs"},
}

// results are all figures of a run: one for each round.
type results struct {
	servers []*server
	values  map[*server]*[metricCount][]float64
}

func newResults(servers []*server) *results {
	r := &results{servers: servers, values: make(map[*server]*[metricCount][]float64)}
	for _, s := range servers {
		r.values[s] = new([metricCount][]float64)
	}
	return r
}

func (r *results) add(s *server, m metric, v float64) {
	r.values[s][m] = append(r.values[s][m], v)
}

func (r *results) median(s *server, m metric) float64 {
	v := slices.Sorted(slices.Values(r.values[s][m]))
	return v[len(v)/2]
}

// spread is how far the rounds lie apart, as a part of their median.
func (r *results) spread(s *server, m metric) float64 {
	v := r.values[s][m]
	return (slices.Max(v) - slices.Min(v)) / r.median(s, m)
}

// print writes the figures and how they compare.
func (r *results) print(w io.Writer, o options) {
	fmt.Fprintf(w, "%d idle connections, %d echo clients, %d in the room; medians of %d rounds; %s, %d CPUs\n",
		o.conns, o.echo, o.room, o.rounds, runtime.Version(), runtime.NumCPU())
	fmt.Fprintln(w, "memory per connection; CPU time of the server per operation; broadcast and burst per delivery")
	fmt.Fprintln(w)
	r.table(w, "server", true, func(s *server, m metric) string {
		return fmt.Sprintf("%.1f", r.median(s, m))
	})
	for _, base := range []*server{byHand, lean} {
		if !slices.Contains(r.servers, base) {
			continue
		}
		fmt.Fprintln(w)
		r.table(w, "× "+base.name, false, func(s *server, m metric) string {
			return fmt.Sprintf("%.2f", r.median(s, m)/r.median(base, m))
		})
	}
	fmt.Fprintln(w)
	for _, s := range r.servers {
		fmt.Fprintf(w, "%s: %s\n", s.name, s.about)
	}
	if o.rounds > 1 {
		s, m := r.servers[0], idle
		for _, other := range r.servers {
			for om := range metricCount {
				if r.spread(other, om) > r.spread(s, m) {
					s, m = other, om
				}
			}
		}
		fmt.Fprintf(w, "\nThe rounds differ most in %s of %s: by %.0f%% of the median.\n", metrics[m].name, s.name, 100*r.spread(s, m))
	}
}

func (r *results) table(w io.Writer, title string, units bool, cell func(*server, metric) string) {
	first := utf8.RuneCountInString(title)
	for _, s := range r.servers {
		first = max(first, len(s.name))
	}
	var heads [metricCount]string
	fmt.Fprintf(w, "%-*s", first, title)
	for m := range metricCount {
		// As wide in every table of the run, with or without the unit.
		heads[m] = metrics[m].name + " " + metrics[m].unit
		head := metrics[m].name
		if units {
			head = heads[m]
		}
		fmt.Fprintf(w, "  %*s", utf8.RuneCountInString(heads[m]), head)
	}
	fmt.Fprintln(w)
	for _, s := range r.servers {
		fmt.Fprintf(w, "%-*s", first, s.name)
		for m := range metricCount {
			fmt.Fprintf(w, "  %*s", utf8.RuneCountInString(heads[m]), cell(s, m))
		}
		fmt.Fprintln(w)
	}
}
