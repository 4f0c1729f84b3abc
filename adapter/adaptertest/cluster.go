package adaptertest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/backplane"
)

// A Cluster is several sites that are one: they share sessions and a backplane.
type Cluster struct {
	Sites []*Site
	lines []*line
}

// NewCluster starts a cluster of n sites in this process, on one store, and
// waits until all of them know each other. setup, if not nil, may add to each
// before it is mounted.
func NewCluster(t testing.TB, n int, cfg adapter.Config, store sessions.Store, setup func(*Site)) *Cluster {
	t.Helper()
	var bus backplane.Memory
	c := &Cluster{}
	for range n {
		l := &line{Backplane: bus.Node()}
		cfg.Backplane = l
		c.lines = append(c.lines, l)
		c.Sites = append(c.Sites, NewSite(t, cfg, store, setup))
	}
	c.Await(t, n)
	return c
}

// Await waits until every site knows of n servers, itself among them.
func (c *Cluster) Await(t testing.TB, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for i, s := range c.Sites {
		for s.Server.Nodes() != n {
			select {
			case <-again.C:
			case <-ctx.Done():
				t.Fatalf("site %d knows of %d servers, want %d", i, s.Server.Nodes(), n)
			}
		}
	}
}

// Cut cuts a site off from the others: what it publishes fails, and what they
// publish does not reach it.
func (c *Cluster) Cut(site int) { c.lines[site].cut.Store(true) }

// Mend undoes Cut.
func (c *Cluster) Mend(site int) {
	l := c.lines[site]
	l.cut.Store(false)
	l.deliver(&backplane.Message{Kind: backplane.Gap})
}

// errCut is what a site that was cut off gets when it publishes.
var errCut = errors.New("adaptertest: the site was cut off")

// A line is one end of a backplane that can be cut.
type line struct {
	backplane.Backplane
	deliver func(*backplane.Message)
	cut     atomic.Bool
}

func (l *line) Subscribe(node string, deliver func(*backplane.Message)) error {
	l.deliver = deliver
	return l.Backplane.Subscribe(node, func(m *backplane.Message) {
		if !l.cut.Load() {
			deliver(m)
		}
	})
}

func (l *line) Publish(ctx context.Context, batch []*backplane.Message) error {
	if l.cut.Load() {
		return errCut
	}
	return l.Backplane.Publish(ctx, batch)
}

// At returns the same browser at another site, with the same cookies from now on.
func (b *Browser) At(s *Site) *Browser {
	there := *b
	there.URL = s.URL
	return &there
}
