package adapter_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// TestRaceTwoLogins: two people, or one twice, log in at the same time in a
// browser that has a session, and an open socket of nobody or of one of them. Once both have been
// answered one session is left, whichever cookie the browser has kept: the other
// cookie is nobody's, no socket is anybody's but that session's user's, every
// socket that is open hangs on that session, and its logout leaves none. In
// virtual time, for the replays that promote sockets.
func TestRaceTwoLogins(t *testing.T) {
	for _, st := range raceStores {
		for _, transport := range []string{"plain", "websocket", "polling"} {
			t.Run(st.name+"/"+transport, func(t *testing.T) {
				var came map[string]int
				synctest.Test(t, func(t *testing.T) {
					came = races(t, 1.0/6, savePoints, st.open, adapter.Config{}, func(tr *track) {
						tr.srv.AllowAnonymous()
					}, func(y *try) { y.twoLogins(transport) })
				})
				wantAll(t, came, "somebody else", "the same person", "promoted", "closed")
			})
		}
	}
}

func (y *try) twoLogins(transport string) {
	users := [2]string{y.user + "a", y.user + "b"}
	target := "/set?key=cart"
	if y.number%5 == 0 {
		target = "/login?user=" + users[0] // somebody is logged in already
	}
	visitor := y.must("POST", target, "", "").cookie("")
	e, status := y.open(transport, visitor)
	if e == nil {
		y.errorf("the handshake was answered %d", status)
		return
	}
	enter(e, transport, "")
	e.read(false)

	if y.number%2 == 0 {
		users[1] = users[0]
		y.came("the same person")
	} else {
		y.came("somebody else")
	}
	var cookies [2]string
	log := func(i int) func() {
		return func() { cookies[i] = y.must("POST", "/login?user="+users[i], visitor, "").cookie("") }
	}
	y.race(log(0), log(1))
	time.Sleep(time.Second) // for what is replayed

	y.wantNobody(visitor)
	left, user, session := "", "", ""
	for _, c := range cookies {
		p := y.do("GET", "/me", c, "")
		if p.status != http.StatusOK {
			continue
		}
		if left != "" {
			y.errorf("both logins have left a session")
		}
		left = c
		user, session, _ = strings.Cut(p.body.String(), " ")
	}
	if left == "" {
		y.errorf("both logins have left nobody")
	}
	for _, s := range y.seen() {
		switch id := s.Identity(); {
		case s.AtRest():
			y.came("closed")
		case id == nil:
			y.errorf("a socket is nobody's after a login")
		case id.UserID != user, id.SessionID != session, s.SessionID() != session:
			y.errorf("a socket is %s's, on session %s with %s, and the browser's session is %s of %s", id.UserID, s.SessionID(), id.SessionID, session, user)
		default:
			y.came("promoted")
		}
	}
	if p, ok := e.raceClient.(*polling); ok {
		p.cookie = left
	}
	y.logout(left)
	// A client that polls shows the new cookie, with which it may not have the
	// connection of somebody else.
	y.wantEnd(e, "closed 403")
	for _, s := range y.seen() {
		for !s.AtRest() {
			jostle()
		}
	}
	y.wantNobody(left)
}

// seen returns the sockets that handlers have seen.
func (y *try) seen() []*adapter.Socket {
	y.mu.Lock()
	defer y.mu.Unlock()
	return append([]*adapter.Socket(nil), y.sockets...)
}
