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
func (y *try) open(transport, cookie string, header ...string) (*ending, int) {
	if transport == "polling" {
		p := y.do("GET", enginePath, cookie, "", header...)
		if p.status != http.StatusOK {
			return nil, p.status
		}
		_, sid, _ := strings.Cut(p.body.String(), `"sid":"`)
		sid, _, _ = strings.Cut(sid, `"`)
		return &ending{raceClient: &polling{y: y, cookie: cookie, sid: sid}}, 0
	}
	target := ws
	if transport == "websocket" {
		target = engineWS
	}
	c, p := y.dial(target, cookie, header...)
	if c == nil {
		return nil, p.status
	}
	return &ending{raceClient: c}, 0
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

// An ending is what a client saw of a socket, up to its end.
type ending struct {
	raceClient
	connected bool   // it was let in
	acted     bool   // its event was answered
	how       string // "refused", "41", or the close code; empty while it is open
	frames    []string
}

// read reads until the client's event is answered, or on to the socket's end.
func (e *ending) read(toEnd bool) {
	for e.how == "" && (toEnd || !e.acted) {
		e.readOne()
	}
}

func (e *ending) readOne() {
	m, err := e.next()
	if err != nil {
		e.how = err.Error()
	}
	e.frames = append(e.frames, m)
	switch {
	case strings.HasPrefix(m, "40{"), strings.HasPrefix(m, `{"type":"connect"`):
		e.connected = true
	case strings.HasPrefix(m, `431["`), strings.HasPrefix(m, `{"type":"reply","id":1,"data"`):
		e.acted = true
	case strings.HasPrefix(m, "44"), strings.HasPrefix(m, `430[{"error"`), strings.HasPrefix(m, `{"type":"reply","id":0,"error"`):
		e.how = "refused"
	case m == "41":
		e.how = "41"
	}
	if e.how != "" {
		e.close()
	}
}

// wantEnd reads on to the socket's end, checks that it was for its session, and
// notes how far it had come.
func (y *try) wantEnd(e *ending, codes ...string) {
	e.read(true)
	ok := false
	for _, code := range append(codes, "refused", "41", "closed 4409") {
		ok = ok || e.how == code
	}
	switch {
	case !ok:
		y.errorf("the socket's end: %q after %q", e.how, e.frames)
	case e.acted:
		y.came("closed after an event")
	case e.how == "refused":
		y.came("refused at CONNECT")
	case e.connected:
		y.came("closed after open")
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
				came := races(t, 1.0/6, handshakePoints, st.open, adapter.Config{}, nil, func(y *try) {
					cookie := y.login()
					var e *ending
					var status int
					y.race(func() {
						if e, status = y.open(transport, cookie); e != nil {
							enter(e, transport, "")
							e.read(false)
						}
					}, func() { y.logout(cookie) })
					switch {
					case e != nil:
						y.wantEnd(e)
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

// TestRaceLogoutUpgrade: a client that polls moves to a WebSocket while its
// session ends. It reads DISCONNECT, from the one or the other, and nothing behind
// it; no handler runs from then on, and nobody is in the namespace.
func TestRaceLogoutUpgrade(t *testing.T) {
	for _, st := range raceStores {
		t.Run(st.name, func(t *testing.T) {
			points := []point{atOnce, beforeLoad, afterIdentify, afterAnswer, dialled, probed, switched, inHandler}
			came := races(t, 1.0/2, points, st.open, adapter.Config{}, func(tr *track) {
				tr.srv.UseEach(tr.pass(beforeLoad, afterIdentify)) // the upgrade is one of each
			}, func(y *try) {
				cookie := y.login()
				e, status := y.open("polling", cookie)
				if e == nil {
					y.errorf("the handshake was answered %d", status)
					return
				}
				e.send("40")
				for !e.connected && e.how == "" {
					e.readOne()
				}
				poll := e.raceClient.(*polling)
				y.race(func() {
					c, p := y.dial(engineWS+"&sid="+poll.sid, cookie)
					if c == nil {
						y.came("no WebSocket")
						if p.status != http.StatusBadRequest {
							y.errorf("the upgrade was answered %d", p.status)
						}
						return
					}
					y.at(dialled)
					c.send("2probe")
					if m, err := c.next(); m != "3probe" {
						y.errorf("the probe was answered %q %v", m, err)
					}
					y.at(probed)
					if y.number%4 == 0 {
						// The client changes its mind and goes on polling.
						c.close()
					} else {
						e.raceClient = c
						c.send("5")
						y.at(switched)
					}
					e.send(`421["act"]`)
					e.read(false)
				}, func() { y.logout(cookie) })
				y.wantEnd(e)
				y.rest()
				y.wantNobody(cookie)
			})
			wantAll(t, came, "closed after an event", "closed after open")
		})
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
