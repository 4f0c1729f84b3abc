package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// burst is how many messages are sent back to back.
const burst = 8

// dialers is how many connections are being opened at the same time.
const dialers = 16

// warmUp is how many connections a process has served before it is measured.
const warmUp = 100

const text = "sixty-four bytes of text, about what a line in a chat comes to.."

// What the clients send.
var (
	joinFrame = event(`{"type":"join","data":{"text":""},"id":1}`)
	echoFrame = event(`{"type":"echo","data":{"text":"` + text + `"},"id":1}`)
	sayFrame  = event(`{"type":"say","data":{"text":"` + text + `"}}`)

	burstFrames = bytes.Repeat(sayFrame, burst)
)

func event(json string) []byte { return appendFrame(nil, opText, []byte(json)) }

// A load is one server under load.
type load struct {
	o       options
	s       *server
	p       *process
	cookies []string
	res     *results
	log     *os.File
}

// measure runs one server through all phases of one round. Idle connections
// and work get a process each: a heap that has held ten thousand connections
// collects its garbage at other times than one that has not.
func measure(ctx context.Context, o options, s *server, res *results, log *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	with := func(users int, phases ...func(*load, context.Context) error) error {
		p, err := start(ctx, s, o, log)
		if err != nil {
			return err
		}
		defer p.stop()
		l := &load{o: o, s: s, p: p, res: res, log: log}
		if err := l.login(ctx, users); err != nil {
			return fmt.Errorf("log in: %w", err)
		}
		if err := l.warm(ctx); err != nil {
			return fmt.Errorf("warm up: %w", err)
		}
		for _, phase := range phases {
			if err := phase(l, ctx); err != nil {
				return err
			}
		}
		return nil
	}
	err := with(o.conns, (*load).idle)
	if err == nil {
		err = with(max(o.room, o.echo), (*load).connects, (*load).echoes, (*load).broadcasts)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx) // the child was killed; that is all err says
	}
	return err
}

// login makes n sessions, if the server has any.
func (l *load) login(ctx context.Context, n int) error {
	if !l.s.users {
		return nil
	}
	l.cookies = make([]string, n)
	hc := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: dialers}}
	defer hc.CloseIdleConnections()
	return inParallel(n, func(i int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://%s/login/%d", l.p.addr, i), nil)
		if err != nil {
			return err
		}
		resp, err := hc.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		for _, c := range resp.Cookies() {
			if c.Name == cookieName {
				l.cookies[i] = c.Name + "=" + c.Value
				return nil
			}
		}
		return fmt.Errorf("expected a cookie %q, got status %s without one", cookieName, resp.Status)
	})
}

// open dials as connection number i.
func (l *load) open(ctx context.Context, i int) (*client, error) {
	c, err := dial(ctx, l.p.addr)
	if err != nil {
		return nil, err
	}
	if err := l.shake(c, i); err != nil {
		_ = c.nc.Close()
		return nil, err
	}
	return c, nil
}

// shake makes c connection number i.
func (l *load) shake(c *client, i int) error {
	cookie := ""
	if len(l.cookies) > 0 {
		cookie = l.cookies[i%len(l.cookies)]
	}
	if err := c.shake(l.p.addr, l.s.path, cookie); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if l.s.greets {
		if _, err := c.next(); err != nil {
			return fmt.Errorf("wait for the first frame: %w", err)
		}
	}
	return nil
}

func (l *load) openAll(ctx context.Context, n int) ([]*client, error) {
	clients := make([]*client, n)
	err := inParallel(n, func(i int) (err error) {
		clients[i], err = l.open(ctx, i)
		return err
	})
	if err != nil {
		closeAll(clients)
		return nil, err
	}
	return clients, nil
}

// closeAll cuts connections.
func closeAll(clients []*client) {
	for _, c := range clients {
		if c != nil {
			_ = c.nc.Close()
		}
	}
}

// warm lets the server do a little of everything once, so that what it sets up
// only once is counted for nobody.
func (l *load) warm(ctx context.Context) error {
	clients, err := l.openAll(ctx, warmUp)
	if err != nil {
		return err
	}
	defer closeAll(clients)
	if err := join(clients); err != nil {
		return err
	}
	if err := echo(clients, 10); err != nil {
		return err
	}
	if err := say(ctx, clients, sayFrame, 1, 10); err != nil {
		return err
	}
	return inParallel(len(clients), func(i int) error { return clients[i].close() })
}

// idle measures memory.
func (l *load) idle(ctx context.Context) error {
	n := l.o.conns
	none, err := l.p.settled()
	if err != nil {
		return err
	}
	before, err := l.p.memory()
	if err != nil {
		return err
	}
	clients, err := l.openAll(ctx, n)
	if err != nil {
		return fmt.Errorf("idle connections: %w", err)
	}
	lost, wait := attend(clients)
	defer wait()
	defer closeAll(clients)
	used, err := l.used(idle, func() error {
		select {
		case <-time.After(l.o.settle):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return err
	}
	open, err := l.p.resident()
	if err != nil {
		return err
	}
	collected, err := l.p.settled()
	if err != nil {
		return err
	}
	after, err := l.p.memory()
	if err != nil {
		return err
	}
	if gone := lost.Load(); gone > 0 {
		return fmt.Errorf("idle connections: %d of %d were lost", gone, n)
	}
	each := func(bytes int64) float64 { return float64(bytes) / 1024 / float64(n) }
	l.note(idle, each(open-none))
	l.note(idleGC, each(collected-none))
	if l.o.verbose {
		fmt.Fprintf(l.log, "  CPU %.1f%% of one while idle\n", 100*used.Seconds()/max(l.o.settle, time.Microsecond).Seconds())
		fmt.Fprintf(l.log, "  of it after GC: live heap %.2f, heap spans %.2f, stacks %.2f KiB, %.2f goroutines\n",
			each(after.heap-before.heap), each(after.spans-before.spans), each(after.stacks-before.stacks),
			float64(after.goroutines-before.goroutines)/float64(n))
	}
	if l.o.memProfile != "" {
		_, err = l.p.ask("heap " + filepath.Join(l.o.memProfile, l.s.name+".pprof"))
	}
	return err
}

// attend answers the heartbeats of clients that are idle, and counts those that
// end. wait returns when all have.
func attend(clients []*client) (lost *atomic.Int64, wait func()) {
	lost = new(atomic.Int64)
	var readers sync.WaitGroup
	for _, c := range clients {
		readers.Go(func() {
			for {
				if _, err := c.next(); err != nil {
					lost.Add(1)
					return
				}
			}
		})
	}
	return lost, readers.Wait
}

// connects measures opening and closing.
func (l *load) connects(ctx context.Context) error {
	return l.cpu(connect, l.o.connects, func() error {
		return inParallel(l.o.connects, func(i int) error {
			c, err := l.open(ctx, i)
			if err != nil {
				return err
			}
			return c.close()
		})
	})
}

// echoes measures requests and replies.
func (l *load) echoes(ctx context.Context) error {
	clients, err := l.openAll(ctx, l.o.echo)
	if err != nil {
		return fmt.Errorf("echo clients: %w", err)
	}
	defer closeAll(clients)
	return l.cpu(echoed, l.o.echo*l.o.echoes, func() error { return echo(clients, l.o.echoes) })
}

// broadcasts measures a room, message by message and in bursts.
func (l *load) broadcasts(ctx context.Context) error {
	clients, err := l.openAll(ctx, l.o.room)
	if err != nil {
		return fmt.Errorf("members of the room: %w", err)
	}
	defer closeAll(clients)
	if err := join(clients); err != nil {
		return err
	}
	deliveries := l.o.broadcasts * l.o.room
	err = l.cpu(single, deliveries, func() error { return say(ctx, clients, sayFrame, 1, l.o.broadcasts) })
	if err != nil {
		return err
	}
	return l.cpu(bursts, deliveries, func() error {
		return say(ctx, clients, burstFrames, burst, l.o.broadcasts/burst)
	})
}

// cpu notes the server's CPU time per operation during f.
func (l *load) cpu(m metric, operations int, f func() error) error {
	used, err := l.used(m, f)
	if err != nil {
		return fmt.Errorf("%s: %w", metrics[m].name, err)
	}
	l.note(m, float64(used.Nanoseconds())/1000/float64(operations))
	return nil
}

// used returns the server's CPU time during f, and writes its profile if that
// was asked for.
func (l *load) used(m metric, f func() error) (used time.Duration, err error) {
	if l.o.cpuProfile != "" {
		name := l.s.name + "-" + metrics[m].name + ".pprof"
		if _, err := l.p.ask("profile " + filepath.Join(l.o.cpuProfile, name)); err != nil {
			return 0, err
		}
		defer func() {
			_, stopErr := l.p.ask("stop")
			err = errors.Join(err, stopErr)
		}()
	}
	before, err := l.p.cpu()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := l.p.cpu()
	return after - before, err
}

func (l *load) note(m metric, v float64) {
	l.res.add(l.s, m, v)
	if l.o.verbose {
		fmt.Fprintf(l.log, "  %s %.2f %s\n", metrics[m].name, v, metrics[m].unit)
	}
}

// join puts clients into the room.
func join(clients []*client) error {
	return inParallel(len(clients), func(i int) error { return clients[i].request(joinFrame, "") })
}

// echo lets every client send n requests, each when the one before is answered.
func echo(clients []*client, n int) error {
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			for range n {
				if errs[i] = c.request(echoFrame, text); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// request sends a frame and waits for a reply that contains what is wanted.
func (c *client) request(frame []byte, want string) error {
	if err := c.send(frame); err != nil {
		return err
	}
	got, err := c.next()
	if err != nil {
		return err
	}
	if !bytes.Contains(got, []byte(`"reply"`)) || !bytes.Contains(got, []byte(want)) {
		return fmt.Errorf("expected a reply with %q, got %s", want, got)
	}
	return nil
}

// say lets the first client send frames, which are so many messages, and waits
// until all clients have them: n times.
func say(ctx context.Context, clients []*client, frames []byte, messages, n int) error {
	all := int64(messages * len(clients))
	var got atomic.Int64
	delivered := make(chan struct{}, 1)
	failed := make(chan error, len(clients))
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for range messages * n {
				m, err := c.next()
				if err == nil && !bytes.Contains(m, []byte(text)) {
					err = fmt.Errorf("expected what was said, got %s", m)
				}
				if err != nil {
					failed <- err
					return
				}
				if got.Add(1)%all == 0 {
					delivered <- struct{}{}
				}
			}
		})
	}
	for range n {
		err := clients[0].send(frames)
		if err == nil {
			select {
			case <-delivered:
				continue
			case err = <-failed:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		closeAll(clients)
		wg.Wait()
		return err
	}
	wg.Wait()
	return nil
}

// inParallel calls f for 0 to n-1 on a few goroutines and stops at the first
// error.
func inParallel(n int, f func(i int) error) error {
	var next atomic.Int64
	var once sync.Once
	var first error
	var wg sync.WaitGroup
	for range min(n, dialers) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					once.Do(func() { first = err })
					next.Store(int64(n))
				}
			}
		})
	}
	wg.Wait()
	return first
}
