package chat

import (
	"context"
	"sync"
	"time"
)

// announceEvery is the least time between two announcements about one room.
const announceEvery = 100 * time.Millisecond

// presence notices when the set of people in a room changes, and has it
// announced: the first change at once, those that follow within announceEvery
// together. It counts the sockets of this process only. A person with sockets
// on two nodes is then announced once too often, which harms nobody, while
// counting across nodes would miss changes that cross each other.
type presence struct {
	announce func(ctx context.Context, room string)

	ctx  context.Context // the life of the announcers
	stop context.CancelFunc
	wg   sync.WaitGroup // of the announcers; Add under mu, never once closed

	mu     sync.Mutex
	closed bool
	here   map[string]map[string]int // room → user → sockets
	again  map[string]bool           // rooms with an announcer → changed since its last announcement
}

func newPresence(announce func(ctx context.Context, room string)) *presence {
	ctx, stop := context.WithCancel(context.Background())
	return &presence{
		announce: announce,
		ctx:      ctx,
		stop:     stop,
		here:     make(map[string]map[string]int),
		again:    make(map[string]bool),
	}
}

// enter counts one more socket of a user in a room.
func (p *presence) enter(room, user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	users := p.here[room]
	if users == nil {
		users = make(map[string]int)
		p.here[room] = users
	}
	users[user]++
	if users[user] == 1 {
		p.changedLocked(room)
	}
}

// exit undoes one enter.
func (p *presence) exit(room, user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	users := p.here[room]
	if users[user]--; users[user] > 0 {
		return
	}
	delete(users, user)
	if len(users) == 0 {
		delete(p.here, room)
	}
	p.changedLocked(room)
}

func (p *presence) changedLocked(room string) {
	if p.closed {
		return
	}
	if _, running := p.again[room]; running {
		p.again[room] = true
		return
	}
	p.again[room] = false
	p.wg.Go(func() { p.announcer(room) })
}

// announcer announces the room's changes until there has been none for
// announceEvery, so that there is a goroutine only where people come and go.
func (p *presence) announcer(room string) {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		p.announce(p.ctx, room)
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		if !p.again[room] {
			delete(p.again, room)
			p.mu.Unlock()
			return
		}
		p.again[room] = false
		p.mu.Unlock()
	}
}

// close ends the announcers and waits for them. Nothing is announced
// afterwards.
func (p *presence) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.wg.Wait()
}
