package adapter_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// TestRaceLogoutRecovery: a client that was cut off comes back while its session
// ends. It is refused or closed, with all that it had missed; and once both have
// been answered what was kept of its socket is nobody's, not even of the same
// person with a new login.
func TestRaceLogoutRecovery(t *testing.T) {
	cfg := adapter.Config{Recovery: adapter.Recovery{Window: time.Minute}}
	for _, st := range raceStores {
		t.Run(st.name, func(t *testing.T) {
			came := races(t, 1.0/2, handshakePoints, st.open, cfg, nil, func(y *try) {
				cookie := y.login()
				first := y.recover(cookie, "")
				if first == nil || first.how != "" {
					y.errorf("the first connection: %+v", first)
					return
				}
				old := granted(first)
				noticed := y.number%4 != 0
				if noticed {
					first.close()
					for y.ended() == 0 {
						jostle() // the try's patience bounds it
					}
				}
				if err := y.srv.ToUser(y.user).Emit("missed", y.user); err != nil {
					y.errorf("%v", err)
				}
				var e *ending
				y.race(func() { e = y.recover(cookie, old.again()) }, func() { y.logout(cookie) })
				if e == nil {
					return
				}
				recovered := e.connected && granted(e).SID == old.SID
				y.wantEnd(e)
				if !noticed {
					first.close()
				}
				y.rest()
				y.wantNobody(cookie)
				switch {
				case recovered:
					y.came("recovered, then closed")
				case e.connected:
					y.errorf("a new socket where the old one was to be had: %q", e.frames)
				}
				if y.number%8 < 2 {
					y.answered.Store(false)
					cookie = y.login()
					again := y.recover(cookie, old.again())
					if again == nil || granted(again).SID == old.SID {
						y.errorf("after a logout and a login the old socket is recovered")
					}
					y.logout(cookie)
					y.wantEnd(again)
					y.rest()
				}
			})
			wantAll(t, came, "recovered, then closed", "refused at CONNECT", "closed before open")
		})
	}
}

// recover opens a connection that asks for what auth says.
func (y *try) recover(cookie, auth string) *ending {
	e, status := y.open("websocket", cookie)
	if e == nil {
		y.errorf("the handshake was answered %d", status)
		return nil
	}
	enter(e, "websocket", auth)
	e.read(false)
	return e
}

// ended returns how many sockets have ended.
func (y *try) ended() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.gone)
}

// A grant is what a CONNECT was answered with.
type grant struct{ SID, PID string }

func (g grant) again() string { return fmt.Sprintf(`{"pid":%q}`, g.PID) }

func granted(e *ending) (g grant) {
	for _, m := range e.frames {
		if rest, ok := strings.CutPrefix(m, "40"); ok {
			_ = json.Unmarshal([]byte(rest), &g) // or it is empty
		}
	}
	return g
}
