package adapter_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter"
)

// raceStores are the stores that races are run on: one that keeps sessions, and
// one that the browser keeps them for.
var raceStores = []struct {
	name     string
	open     func(*testing.T) sessions.Store
	inCookie bool
}{{"memstore", newMemstore, false}, {"cookie", newCookieStore, true}}

const engineWS = "/socket.io/?EIO=4&transport=websocket"

// A client of Socket.IO or of the plain format, as far as races need one.
type raceClient interface {
	send(text string)
	next() (string, error)
	close()
}

type polling struct {
	y      *try
	cookie string
	sid    string
	got    []string
}

func (p *polling) send(text string) { p.y.do("POST", enginePath+"&sid="+p.sid, p.cookie, text) }
func (p *polling) close()           {}

// next polls when there is nothing left of the last answer.
func (p *polling) next() (string, error) {
	if len(p.got) == 0 {
		answer := p.y.do("GET", enginePath+"&sid="+p.sid, p.cookie, "")
		if answer.status != http.StatusOK {
			return "", closed{answer.status}
		}
		p.got = strings.Split(answer.body.String(), "\x1e")
	}
	next := p.got[0]
	p.got = p.got[1:]
	return next, nil
}

func (c *racer) send(text string) { c.write(text) }

// open opens a connection; nil with the status if it is refused.
func (y *try) open(transport, cookie string, header ...string) (raceClient, int) {
	switch transport {
	case "polling":
		p := y.do("GET", enginePath, cookie, "", header...)
		if p.status != http.StatusOK {
			return nil, p.status
		}
		_, sid, _ := strings.Cut(p.body.String(), `"sid":"`)
		sid, _, _ = strings.Cut(sid, `"`)
		return &polling{y: y, cookie: cookie, sid: sid}, 0
	case "websocket":
		if c, p := y.dial(engineWS, cookie, header...); c == nil {
			return nil, p.status
		} else {
			return c, 0
		}
	}
	c, p := y.dial(ws, cookie, header...)
	if c == nil {
		return nil, p.status
	}
	return c, 0
}

// enter asks for "/" and sends an event along.
func enter(c raceClient, transport, auth string) {
	if transport == "plain" {
		c.send(`{"type":"act","id":1}`)
		return
	}
	c.send("40" + auth)
	c.send(`421["act"]`)
}

// An ending is what a client saw of a socket.
type ending struct {
	connected bool   // it was let in
	acted     bool   // its event was answered
	how       string // "refused", "41", or the close code
	frames    []string
}

// drain reads up to the socket's end.
func drain(c raceClient, transport string) (e ending) {
	defer c.close()
	for {
		m, err := c.next()
		if err != nil {
			e.how = err.Error()
			return e
		}
		e.frames = append(e.frames, m)
		switch {
		case strings.HasPrefix(m, "40{"), strings.HasPrefix(m, `{"type":"connect"`):
			e.connected = true
		case strings.HasPrefix(m, "431"), strings.HasPrefix(m, `{"type":"reply"`):
			e.acted = true
		case transport != "plain" && strings.HasPrefix(m, "44"):
			e.how = "refused"
			return e
		case transport != "plain" && m == "41":
			e.how = "41"
			return e
		}
	}
}

// wantEnd checks that a socket was ended for its session, and notes how far it
// had come.
func (y *try) wantEnd(e ending, codes ...string) {
	ok := false
	for _, code := range append(codes, "refused", "41", "closed 4409") {
		ok = ok || e.how == code
	}
	switch {
	case !ok:
		y.errorf("the socket's end: %q after %q", e.how, e.frames)
	case e.acted:
		y.came("closed after an event")
	case e.connected:
		y.came("closed after open")
	case e.how == "refused":
		y.came("refused at CONNECT")
	default:
		y.came("closed before open")
	}
}

// TestRaceLogoutHandshake: once both have been answered the socket is refused or
// closed with 4409, or DISCONNECT, in the client's sight, nobody is in the
// namespace, no handler runs from then on, and the old cookie is nobody's.
func TestRaceLogoutHandshake(t *testing.T) {
	for _, st := range raceStores {
		for _, transport := range []string{"plain", "websocket", "polling"} {
			t.Run(st.name+"/"+transport, func(t *testing.T) {
				came := races(t, 1.0/6, st.open, adapter.Config{}, nil, func(y *try) {
					cookie := y.login()
					var c raceClient
					var status int
					y.race(func() {
						if c, status = y.open(transport, cookie); c != nil {
							enter(c, transport, "")
						}
					}, func() { y.logout(cookie) })
					switch {
					case c != nil:
						y.wantEnd(drain(c, transport))
					case status == http.StatusUnauthorized:
						y.came("refused")
					default:
						y.errorf("the handshake was answered %d", status)
					}
					y.rest()
					y.wantNobody(cookie)
				})
				early := "refused at CONNECT"
				if transport == "plain" {
					early = "refused"
				}
				wantAll(t, came, early, "closed after an event")
				wantMost(t, came, "closed before open", "closed after open")
			})
		}
	}
}

// wantAll checks that windows were hit: a race that never happens proves nothing.
func wantAll(t *testing.T, came map[string]int, outcomes ...string) {
	t.Helper()
	for _, o := range outcomes {
		if came[o] == 0 {
			t.Errorf("it never came to %q: %v", o, came)
		}
	}
}

// wantMost is wantAll for windows that a thousand tries may miss.
func wantMost(t *testing.T, came map[string]int, outcomes ...string) {
	t.Helper()
	if fullRaces() {
		wantAll(t, came, outcomes...)
	}
}
