package adapter_test

import (
	"net/http"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/backplane"
)

// TestRaceLogoutElsewhere: a handshake is in flight on one node while the session
// ends on another. The socket is refused, or closed as soon as its node hears of
// it, and the old cookie is nobody's on both.
func TestRaceLogoutElsewhere(t *testing.T) {
	var bus backplane.Memory
	store := newMemstore(t)
	there := newTrack(t, store, adapter.Config{Backplane: bus.Node()}, nil)
	here := newTrack(t, store, adapter.Config{Backplane: bus.Node()}, nil)
	there.lanes, here.points = here.lanes, handshakePoints
	here.run(raceTries(1.0/10), func(y *try) {
		cookie := y.login()
		var c *racer
		var p *sheet
		y.race(func() {
			if c, p = y.dialAt(there.engine, ws, cookie); c != nil {
				c.send(`{"type":"act","id":1}`)
			}
		}, func() { y.must("POST", "/logout", cookie, "") })
		switch {
		case c != nil:
			y.wantEnd(&ending{raceClient: c})
		case p.status == http.StatusUnauthorized:
			y.came("refused")
		default:
			y.errorf("the handshake was answered %d", p.status)
		}
		for there.srv.OpenOf(y.user) > 0 && !y.stuck.Load() {
			jostle()
		}
		y.rest()
		for _, node := range []*track{here, there} {
			if p := y.doAt(node.engine, "GET", "/me", cookie, ""); p.status != http.StatusUnauthorized {
				y.errorf("GET /me with the old cookie: %d %s, want 401", p.status, p.body.String())
			}
		}
	})
	wantAll(t, here.outcomes, "refused", "closed before open", "closed after open")
	wantMost(t, here.outcomes, "closed after an event")
}
