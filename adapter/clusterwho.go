package adapter

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gin-usher/usher/adapter/backplane"
	"github.com/gin-usher/usher/adapter/internal/engine"
)

// This file is what nodes tell each other of people: who was revoked, and of
// whom something has changed. They tell hashes, never ids, tokens or cookies.

// keepEnded takes up which sessions had ended before this process began, the
// latest of them, for nodes that come or come back.
func (c *cluster) keepEnded(all []Ending) {
	ended := slices.DeleteFunc(slices.Clone(all), func(e Ending) bool { return by(e.Kind) != bySession })
	slices.SortFunc(ended, func(a, b Ending) int { return a.At.Compare(b.At) })
	for _, e := range ended[max(len(ended)-maxKeptEnded, 0):] {
		c.keep(recentEnd{e.Hash, e.Until})
	}
}

// subject is a mark for other nodes.
func (m mark) subject() backplane.Subject {
	return backplane.Subject{Kind: string(m.by), Hash: m.hash}
}

// revocationOf is a revocation as other nodes are told of it.
func revocationOf(m mark, r revocation) backplane.Revocation {
	return backplane.Revocation{
		Subject: m.subject(), At: r.at, Ago: max(time.Since(r.born), 0), For: time.Until(r.until),
	}
}

// tellRevoked tells the others of a Revoke here. If it does not get through,
// they are told when the backplane is back.
func (c *cluster) tellRevoked(m mark, r revocation) {
	if m.by == bySession {
		c.keep(recentEnd{m.hash, r.until})
	}
	_ = c.send(&backplane.Message{Kind: backplane.Revoked, Revoked: []backplane.Revocation{revocationOf(m, r)}})
}

// revokedElsewhere is Revoke for what was revoked on another node: the marks
// first, then the sockets; all but those of a session by a task, which takes
// longer than deliver may. What is told again has no effect: whoever has logged
// in since stays.
func (c *cluster) revokedElsewhere(revoked []backplane.Revocation) {
	var news []Ending
	for _, r := range revoked {
		m := mark{by(r.Kind), r.Hash}
		ago, life := min(max(r.Ago, 0), maxRemembered), min(r.For, maxRemembered)
		switch {
		case !m.by.known() || life <= 0:
		case m.by == bySession:
			if c.srv.ended.addFar(m.hash, life) {
				news = append(news, endingOfSession(m.hash, life))
				c.keepHeard(recentEnd{m.hash, time.Now().Add(life)})
				c.srv.follow.tell(m)
			}
			if id := c.srv.follow.sessionOf(m.hash); id != "" {
				c.srv.closeSession(id, ReasonRevoked)
			}
			c.saved.ended(m.hash)
		default:
			if heard, ok := c.srv.revoked.hear(m, r.At, ago, life); ok {
				news = append(news, endingOf(m, heard))
				c.hearing.revoked(m, heard.born)
			}
		}
	}
	c.srv.ledger.later(false, news...)
}

// changedElsewhere is for sessions that were saved on another node, and for its
// Refresh.
func (c *cluster) changedElsewhere(changed []backplane.Subject) {
	for _, s := range changed {
		switch m := (mark{by(s.Kind), s.Hash}); {
		case m.by == bySession:
			// Also if it has no socket here: it may have a handshake in flight.
			c.srv.follow.saved(c.srv.follow.sessionOf(m.hash), m.hash)
		case m.by.known():
			c.hearing.changed(m)
		}
	}
}

// A hearing is the task that lets what other nodes say of users, providers and
// tokens reach the sockets of this one, for which it has to look at all of them.
type hearing struct {
	c *cluster

	mu      sync.Mutex
	due     map[mark]time.Time // when it was revoked, by this node's clock; zero has only changed
	all     bool               // so many have changed that everybody is looked at
	running bool
}

// maxHearing bounds who waits for the task of a hearing because something has
// changed. Those who were revoked are bounded by how many revocations are kept.
const maxHearing = 10_000

func (h *hearing) revoked(m mark, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at.After(h.due[m]) {
		h.addLocked(m, at)
	}
}

func (h *hearing) changed(m mark) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.due) >= maxHearing {
		h.all = true
	} else if _, ok := h.due[m]; !ok {
		h.addLocked(m, time.Time{})
	}
}

func (h *hearing) addLocked(m mark, at time.Time) {
	if h.due == nil {
		h.due = make(map[mark]time.Time)
	}
	h.due[m] = at
	if !h.running {
		h.running = true
		h.c.srv.eng.Go(h)
	}
}

// Run closes the sockets that were there when their user was revoked, and has
// the chain decide about the others: this node may hear of it late, and who came
// since may have logged in again, or may have shown what was revoked before.
func (h *hearing) Run() {
	srv := h.c.srv
	for {
		h.mu.Lock()
		due, all := h.due, h.all
		h.due, h.all = nil, false
		if len(due) == 0 {
			h.running = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()

		revoked, kinds := make(map[mark]bool), make(map[by]bool)
		for m, at := range due {
			kinds[m.by] = true
			if !at.IsZero() {
				revoked[m] = true
			}
		}
		var again []*Socket
		if all {
			srv.follow.tell(mark{})
		} else {
			srv.follow.tell(slices.Collect(maps.Keys(due))...)
		}
		srv.settle()
		for sock := range srv.bound() {
			at, meant := time.Time{}, all
			token := ""
			if kinds[byToken] { // it is searched for
				token = sock.shake.Load().token()
			}
			for _, w := range whosOf(sock.Identity(), "", token) {
				if !kinds[w.by] || w.value == "" {
					continue
				}
				if t, ok := due[w.mark()]; ok {
					meant = true
					if t.After(at) {
						at = t
					}
				}
			}
			switch {
			case !at.IsZero() && !sock.shake.Load().Time().After(at):
				sock.close(ReasonRevoked)
			case meant:
				again = append(again, sock)
			}
		}
		srv.forgetAway(revoked)
		srv.follow.refresh(again)
	}
}

// bound returns the open sockets, and those that are bound to their credential
// but cannot be found in their namespace yet. Those that are bound afterwards have
// to be told of by follower.tell before.
func (s *Server) bound() map[*Socket]struct{} {
	all := make(map[*Socket]struct{})
	f := &s.follow
	f.mu.Lock()
	for _, first := range f.bindings {
		for b := first; b != nil; b = b.next {
			for _, sock := range b.sockets {
				all[sock] = struct{}{}
			}
		}
	}
	f.mu.Unlock()
	for _, sock := range s.sockets() {
		all[sock] = struct{}{}
	}
	return all
}

// changes tell the others of whom something has changed here. A change is told
// at once, and what follows it in the next changeGap together at its end: so a
// session that is saved a thousand times a second costs four messages.
type changes struct {
	c *cluster

	mu     sync.Mutex
	due    map[mark]struct{}
	open   bool // a gap has begun
	closed bool
	timer  engine.Timer
}

const (
	changeGap  = 250 * time.Millisecond
	maxChanges = 4096 // that wait for the end of a gap
)

func (c *changes) add(m mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due == nil {
		c.due = make(map[mark]struct{})
	}
	c.due[m] = struct{}{}
	if c.open && len(c.due) < maxChanges {
		return
	}
	c.tellLocked()
	if !c.open && !c.closed {
		c.open = true
		c.c.srv.eng.Wheel().Set(&c.timer, time.Now().Add(changeGap), c)
	}
}

// tellLocked sends what waits. If it does not get through the others notice
// within Config.Revalidate.
func (c *changes) tellLocked() {
	m := &backplane.Message{Kind: backplane.Changed, Changed: make([]backplane.Subject, 0, len(c.due))}
	for k := range c.due {
		m.Changed = append(m.Changed, k.subject())
	}
	clear(c.due)
	_ = c.c.send(m)
}

// Expired is the end of a gap.
func (c *changes) Expired(time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.open = len(c.due) > 0
	if c.open {
		c.tellLocked()
		c.c.srv.eng.Wheel().Set(&c.timer, time.Now().Add(changeGap), c)
	}
}

// close tells what waits, before the node leaves.
func (c *changes) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.c.srv.eng.Wheel().Stop(&c.timer)
	if len(c.due) > 0 {
		c.tellLocked()
	}
}
