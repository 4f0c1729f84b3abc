package adapter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gin-usher/usher/adapter/backplane"
	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// How nodes watch each other: the times of Socket.IO's own adapters.
const (
	beatEvery   = 5 * time.Second
	beatTimeout = 10 * time.Second
	retryAfter  = time.Second // after something could not be published

	publishTimeout = 5 * time.Second
	goodbyeTimeout = 2 * time.Second
)

// Bounds of what a node keeps of the cluster's messages. A queue that is full
// drops what comes next: who waits would be the one that emits, or the reader of
// the backplane, and with it everybody else.
const (
	maxQueued      = 8192 // messages on their way out, or from one node, that wait
	maxQueuedBytes = 2 * backplane.MaxBytes
	maxBatch       = 256
	maxInboxes     = 2048
	maxInBytes     = 8 * backplane.MaxBytes // from all nodes
	maxNodes       = 1024
	maxKeptEnded   = 10_000 // sessions ended here, of which nodes that come or come back are told, and as many heard of
	maxNodeName    = 256
)

// What Health says of a server that goes on alone.
var (
	errDeaf    = fmt.Errorf("adapter: backplane: expected what is published to come back within %v, nothing has", beatTimeout)
	errDropped = errors.New("adapter: backplane: messages were dropped: more come than can be handled")
)

// A cluster is what a server knows of the others and tells them. All of it runs
// on the engine's workers, on tasks that exist while there is something to do:
// one that publishes, one that looks at the time, and two for each node from
// which something has come: one for events of the servers themselves, whose
// handlers may take their time, and one for the rest.
type cluster struct {
	srv *Server
	id  string
	bus backplane.Backplane

	ctx    context.Context // ends when the node has left
	cancel context.CancelFunc

	timer engine.Timer

	mu      sync.Mutex
	started bool // messages are taken
	closed  bool

	out      []*backplane.Message
	outBytes int
	sending  bool
	quiet    chan struct{} // closed by the sender when it ends, if somebody waits for it

	sequence uint64        // of the last own beat
	heard    uint64        // of the last own beat that has come back
	heardAt  time.Time     // when it has
	echo     chan struct{} // closed, and another one made, when one comes back
	failed   error         // why the last batch could not be published
	deaf     bool          // for too long none has come back

	nodes    map[string]*node
	inboxes  map[inboxKey]*inbox
	inBytes  int                            // in all of them
	requests map[string]*request            // of this node
	serving  map[taskKey]context.CancelFunc // of others, that are being answered
	ended    []recentEnd
	heardOf  []recentEnd // on other nodes, of sessions that no store has forgotten
	untold   bool        // some of what has ended here was not told, for want of room

	changes changes
	hearing hearing
	saved   savedRows

	dropped    time.Time // when a message was, for want of room
	complained time.Time

	names nameWatch
}

// A node is another server of the cluster that is alive.
type node struct {
	seen      time.Time
	namespace string // the only one it speaks for; empty means all
}

// A recentEnd is a session that has ended.
type recentEnd struct {
	hash  sessionHash
	until time.Time
}

func (s *Server) joinCluster(bus backplane.Backplane, ended []Ending) error {
	c := &cluster{
		srv: s, id: randomID(), bus: bus,
		echo:     make(chan struct{}),
		nodes:    make(map[string]*node),
		inboxes:  make(map[inboxKey]*inbox),
		requests: make(map[string]*request),
		serving:  make(map[taskKey]context.CancelFunc),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.changes.c, c.hearing.c, c.saved.c = c, c, c
	c.keepEnded(ended)
	s.cluster, s.follow.hashed = c, make(map[sessionHash]string)
	return bus.Subscribe(c.id, c.deliver)
}

// start takes part, once the server is set up.
func (c *cluster) start() {
	c.mu.Lock()
	if c.started || c.closed {
		c.mu.Unlock()
		return
	}
	c.started, c.heardAt = true, time.Now()
	c.mu.Unlock()
	c.names.start(c)
	_ = c.send(&backplane.Message{Kind: backplane.Hello})
	c.beat()
	c.srv.eng.Wheel().Set(&c.timer, time.Now().Add(beatEvery), c)
}

// close says goodbye and leaves.
func (c *cluster) close() {
	c.changes.close()
	_ = c.send(&backplane.Message{Kind: backplane.Goodbye})
	c.mu.Lock()
	c.closed = true
	var quiet chan struct{}
	if c.sending {
		c.quiet = make(chan struct{})
		quiet = c.quiet
	}
	requests := c.requests
	c.requests = nil
	serving := c.serving
	c.serving = nil
	c.mu.Unlock()
	for _, r := range requests {
		r.abandon()
	}
	for _, stop := range serving {
		stop()
	}
	impatient := time.AfterFunc(goodbyeTimeout, c.cancel)
	if quiet != nil {
		<-quiet
	}
	impatient.Stop()
	c.cancel()
	c.srv.eng.Wheel().Stop(&c.timer)
	if err := c.bus.Close(); err != nil {
		c.srv.log.Warn("the backplane could not be closed", "error", err)
	}
}

// complain logs what is wrong with messages, not more than once in a while.
func (c *cluster) complain(what, node string, err error) {
	now := time.Now()
	c.mu.Lock()
	silent := now.Sub(c.complained) < beatTimeout
	if !silent {
		c.complained = now
	}
	c.mu.Unlock()
	if !silent {
		c.srv.log.Warn(what, "node", node, "error", err)
	}
}

// beat tells the others that this node is there, and itself that it is heard.
func (c *cluster) beat() (sequence uint64) {
	c.mu.Lock()
	c.sequence++
	sequence = c.sequence
	c.mu.Unlock()
	_ = c.send(&backplane.Message{Kind: backplane.Beat, Sequence: sequence})
	return sequence
}

// Expired is the time for the next beat, and to look who is still there.
func (c *cluster) Expired(time.Time) { c.srv.eng.Go((*watcher)(c)) }

// watcher is the task of the timer, which has no time for it.
type watcher cluster

func (w *watcher) Run() {
	c, now := (*cluster)(w), time.Now()
	var gone []string
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	for id, n := range c.nodes {
		if now.Sub(n.seen) > beatTimeout {
			gone = append(gone, id)
		}
	}
	silent := now.Sub(c.heardAt) > beatTimeout
	c.mu.Unlock()
	for _, id := range gone {
		c.srv.log.Warn("a node of the cluster is not heard any more", "node", id)
		c.left(id)
	}
	if silent {
		c.condition(func() { c.deaf = true })
	}
	c.beat()
	c.srv.eng.Wheel().Set(&c.timer, now.Add(beatEvery), c)
}

// deliver takes a message from the backplane. It does not wait.
func (c *cluster) deliver(m *backplane.Message) {
	c.mu.Lock()
	off := !c.started || c.closed
	if n := c.nodes[m.Node]; n != nil {
		n.seen = time.Now()
	}
	c.mu.Unlock()
	if m.To != "" && m.To != c.id || off && m.Kind != backplane.SessionsEnded && m.Kind != backplane.Revoked {
		return
	}
	if size := m.Size(); size > backplane.MaxBytes || len(m.Node) > maxNodeName || len(m.Request) > maxNodeName ||
		len(m.Namespace) > sio.MaxNamespace {
		c.complain("a message of another node was dropped", "", fmt.Errorf(
			"expected at most %d bytes and names that are not longer than they can be, got %d bytes", backplane.MaxBytes, size))
		return
	}
	if m.Kind == backplane.Gap {
		c.catchUp()
		return
	}
	if m.Node == c.id {
		if m.Kind == backplane.Beat {
			c.echoed(m.Sequence)
		}
		return
	}
	switch m.Kind {
	case backplane.Hello:
		c.joined(m)
		_ = c.send(&backplane.Message{Kind: backplane.Beat, To: m.Node})
		c.tellEnded(m.Node)
	case backplane.Beat:
		c.joined(m)
	case backplane.Goodbye:
		c.left(m.Node)
	case backplane.SessionsEnded:
		c.endedElsewhere(m.Ended)
	case backplane.Revoked:
		c.revokedElsewhere(m.Revoked)
	case backplane.Changed:
		c.changedElsewhere(m.Changed)
	case backplane.Cancel:
		c.stop(m.Node, m.Request)
	case backplane.Fetched, backplane.PresentAnswer, backplane.ServerAnswer, backplane.Called, backplane.Acknowledged, backplane.Located:
		c.mu.Lock()
		r := c.requests[m.Request]
		c.mu.Unlock()
		if r != nil {
			r.answered(m)
		}
	case backplane.Emit, backplane.Join, backplane.Leave, backplane.Disconnect, backplane.Fetch, backplane.Present, backplane.Call,
		backplane.Locate, backplane.SignOut:
		c.enqueue(inboxKey{m.Node, false}, m)
	case backplane.ServerEvent:
		c.enqueue(inboxKey{m.Node, true}, m)
	}
}

// echoed is told of a beat of this node that has come back. If one before it has
// not, others may have missed more than that, and this node too.
func (c *cluster) echoed(sequence uint64) {
	c.mu.Lock()
	gap := sequence > c.heard+1
	c.mu.Unlock()
	c.condition(func() {
		c.heard, c.heardAt, c.deaf = max(c.heard, sequence), time.Now(), false
		close(c.echo)
		c.echo = make(chan struct{})
	})
	if gap {
		c.catchUp()
	}
}

// catchUp is for when messages may have been lost, in either direction. Most are
// of the moment; that sessions have ended is not.
func (c *cluster) catchUp() {
	_ = c.send(&backplane.Message{Kind: backplane.Hello})
	c.tellEnded("")
}

// joined notes that a node is there.
func (c *cluster) joined(m *backplane.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[m.Node] == nil && len(c.nodes) < maxNodes {
		c.nodes[m.Node] = &node{seen: time.Now(), namespace: m.Namespace}
	}
}

// left notes that a node is not there any more. Nobody waits for it from here
// on, and nothing is done for it.
func (c *cluster) left(id string) {
	c.mu.Lock()
	delete(c.nodes, id)
	requests := make([]*request, 0, len(c.requests))
	for _, r := range c.requests {
		requests = append(requests, r)
	}
	for k, stop := range c.serving {
		if k.node == id {
			stop()
		}
	}
	c.mu.Unlock()
	for _, r := range requests {
		r.left(id)
	}
}

// sessionEnded tells the others that a session has ended here.
func (c *cluster) sessionEnded(id string, life time.Duration) {
	c.hashEnded(hashSession(id), life)
}

// hashEnded is sessionEnded for a session of which only the hash is known.
func (c *cluster) hashEnded(h sessionHash, life time.Duration) {
	end := recentEnd{h, time.Now().Add(life)}
	c.keep(end)
	// If it does not get through, they are told when the backplane is back.
	_ = c.send(&backplane.Message{Kind: backplane.SessionsEnded, Ended: []backplane.Ended{{Session: end.hash, For: life}}})
}

// keep notes what nodes that come or come back have to be told.
func (c *cluster) keep(end recentEnd) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = keptWith(c.ended, end)
}

// keepHeard notes what nodes that come have to be told besides: the one on which it
// has ended may not be there any more.
func (c *cluster) keepHeard(end recentEnd) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heardOf = keptWith(c.heardOf, end)
}

func keptWith(ends []recentEnd, end recentEnd) []recentEnd {
	if len(ends) >= maxKeptEnded {
		ends = slices.Delete(ends, 0, maxKeptEnded/10)
	}
	return append(ends, end)
}

// tellEnded tells one node, or all, which sessions have ended lately, and what was
// revoked, here or elsewhere.
func (c *cluster) tellEnded(to string) {
	now := time.Now()
	m := &backplane.Message{Kind: backplane.SessionsEnded, To: to}
	c.mu.Lock()
	for _, ends := range [...]*[]recentEnd{&c.ended, &c.heardOf} {
		*ends = slices.DeleteFunc(*ends, func(e recentEnd) bool { return !now.Before(e.until) })
		for _, e := range *ends {
			m.Ended = append(m.Ended, backplane.Ended{Session: e.hash, For: e.until.Sub(now)})
		}
	}
	c.mu.Unlock()
	if len(m.Ended) > 0 {
		_ = c.send(m)
	}
	m = &backplane.Message{Kind: backplane.Revoked, To: to}
	for k, r := range c.srv.revoked.latest(maxKeptEnded) {
		m.Revoked = append(m.Revoked, revocationOf(k, r))
	}
	if len(m.Revoked) > 0 {
		_ = c.send(m)
	}
}

// maxRemembered bounds how long another node may have a session remembered.
const maxRemembered = 400 * 24 * time.Hour

// endedElsewhere makes sure that sessions which have ended on another node are
// not used on this one: first the tombstone, then the sockets, as at home.
func (c *cluster) endedElsewhere(ended []backplane.Ended) {
	var lasting []Ending
	for _, e := range ended {
		life := min(e.For, maxRemembered)
		if life <= 0 {
			continue
		}
		news := c.srv.ended.addFar(e.Session, life)
		if news {
			c.srv.follow.tell(mark{bySession, e.Session}) // also those that it has no socket of yet
		}
		if news && life > tombstoneLife {
			// Its store has not forgotten it. Each node writes down what it is
			// told: the other may keep its endings where this one cannot read.
			lasting = append(lasting, endingOfSession(e.Session, life))
			c.keepHeard(recentEnd{e.Session, time.Now().Add(life)})
		}
		if id := c.srv.follow.sessionOf(e.Session); id != "" {
			c.srv.closeSession(id, ReasonSessionEnded)
		}
		c.saved.ended(e.Session)
	}
	c.srv.ledger.later(false, lasting...)
}

// Nodes returns how many servers the cluster has as far as this one knows, at
// least itself.
func (s *Server) Nodes() int {
	c := s.cluster
	if c == nil {
		return 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 1
	for _, other := range c.nodes {
		if other.namespace == "" {
			n++
		}
	}
	return n
}
