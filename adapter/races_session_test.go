package adapter_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/gin-usher/usher/adapter"
)

// savePoints are what a page passes that saves its session.
var savePoints = []point{atOnce, beforeLoad, afterLoad, beforeSave, afterSave, afterIdentify}

// TestRaceLogoutSave: a page that has loaded the session saves it while it ends.
// Once both have been answered neither the old cookie nor the one that the save
// has answered with is anybody's, the store has no such session, and the sockets
// are closed.
func TestRaceLogoutSave(t *testing.T) {
	for _, st := range raceStores {
		t.Run(st.name, func(t *testing.T) {
			came := races(t, 1.0/2, savePoints, st.open, adapter.Config{}, nil, func(y *try) {
				cookie := y.login()
				var e *ending
				if y.rng.IntN(2) == 0 {
					e, _ = y.open("plain", cookie)
				}
				var saved *sheet
				y.race(func() { saved = y.do("POST", "/set?key=late", cookie, "") }, func() { y.logout(cookie) })
				switch saved.status {
				case http.StatusOK:
					y.came("saved")
				case http.StatusGone:
					y.came("gone")
				default:
					y.errorf("the save was answered %d", saved.status)
				}
				if e != nil {
					y.wantEnd(e)
				}
				y.rest()
				// A page that came after the logout has saved a session of nobody.
				y.wantNobody(cookie)
				y.wantNobody(saved.cookie(cookie))
				if p := y.must("GET", "/get?key=late", cookie, ""); p.body.Len() > 0 {
					y.errorf("what was saved late is there: %s", p.body.String())
				}
				if !st.inCookie {
					y.wantNoRow(cookie)
				}
			})
			wantAll(t, came, "saved", "gone")
		})
	}
}

// TestRaceSessionMerge: a page and a socket change different keys of one session
// at the same time, and both keep theirs; and where it ends meanwhile, neither
// brings it back.
func TestRaceSessionMerge(t *testing.T) {
	came := races(t, 1, append([]point{inHandler}, savePoints...), newMemstore, adapter.Config{}, func(tr *track) {
		adapter.Handle(tr.srv, "set", func(ctx context.Context, s *adapter.Socket, key string) (string, error) {
			y := tr.tryOf(s)
			err := s.Session().Update(context.WithoutCancel(ctx), func(v adapter.Values) error {
				y.at(inHandler)
				v[key] = "set"
				return nil
			})
			if err != nil && !errors.Is(err, adapter.ErrSessionGone) {
				y.errorf("Update: %v", err)
			}
			if err != nil && !y.ending.Load() {
				y.errorf("Update without a logout: %v", err)
			}
			y.updated <- err
			return "", err
		})
	}, func(y *try) {
		cookie := y.login()
		e, status := y.open("plain", cookie)
		if e == nil {
			y.errorf("the handshake was answered %d", status)
			return
		}
		e.send(`{"type":"act","id":1}`)
		e.read(false)
		ends := y.rng.IntN(2) == 0
		y.ending.Store(ends)
		// The socket's event is handled beside the page, or has to wait for it.
		e.send(`{"type":"set","data":"socket"}`)
		var saved *sheet
		y.race(func() { saved = y.do("POST", "/set?key=page", cookie, "") }, func() {
			if ends {
				y.logout(cookie)
			}
		})
		if !ends {
			if err := <-y.updated; err != nil || saved.status != http.StatusOK {
				y.errorf("the page was answered %d, the socket %v", saved.status, err)
			}
			for _, key := range []string{"page", "socket"} {
				if p := y.must("GET", "/get?key="+key, cookie, ""); p.body.String() != "set" {
					y.errorf("%s is lost", key)
				}
			}
			y.came("both kept")
			y.logout(cookie)
		}
		y.wantEnd(e)
		y.rest()
		if ends {
			outcome := "the page was late"
			if saved.status == http.StatusOK {
				outcome = "the page was in time"
			}
			select {
			case err := <-y.updated:
				if err != nil {
					outcome += ", the socket was late"
				} else {
					outcome += ", the socket was in time"
				}
			default:
				outcome += ", the socket had ended"
			}
			y.came(outcome)
		}
		y.wantNobody(cookie)
		y.wantNoRow(cookie)
	})
	wantAll(t, came, "both kept", "the page was late, the socket was in time", "the page was in time, the socket was in time")
	wantMost(t, came, "the page was late, the socket was late", "the page was in time, the socket was late")
}
