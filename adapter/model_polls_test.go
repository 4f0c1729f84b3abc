package adapter_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// modelPolls is how the client of a connection polls: with one poll and one post at
// a time, each of which shows the cookie that its browser has at that moment. It may
// go on over a WebSocket.
type modelPolls struct {
	c       *modelConn
	browser *modelBrowser
	sid     string
	visitor string // the adapter's cookie, which pages are not shown here: no login finds the connection by that
	ctx     context.Context
	cancel  context.CancelFunc
	writing chan struct{} // holds one while a post is under way, or the WebSocket takes over

	// Guarded by truth.mu.
	polling   chan struct{} // closed when the loop ends; nil if there is none
	upgrading bool
	paused    bool     // the loop is to end
	late      bool     // the next request shows the cookie before
	ws        net.Conn // carries the connection
	over      bool
	deaf      int // moment since which nothing may have been heard; 0 if it is
}

const enginePolls = "EIO=4&transport=polling"

func (w *modelSite) dialPolls(c *modelConn, b *modelBrowser) {
	p := &modelPolls{c: c, browser: b, writing: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	c.polls = p
	w.ops.Go(func() {
		rec := httptest.NewRecorder()
		w.engine.ServeHTTP(rec, c.request("GET", "/socket.io/", enginePolls, c.cookie))
		var open struct{ SID string }
		if rec.Code != http.StatusOK || json.Unmarshal(rec.Body.Bytes()[1:], &open) != nil {
			w.refused(c, rec.Code)
			return
		}
		w.mu.Lock()
		p.sid = open.SID
		for _, line := range rec.Header()["Set-Cookie"] {
			p.visitor, _, _ = strings.Cut(line, ";")
		}
		c.open = true
		p.startLocked()
		w.mu.Unlock()
		c.done.Go(p.write)
		p.hear(rec.Body.String())
	})
}

// startLocked begins to poll, if the client does not.
func (p *modelPolls) startLocked() {
	if p.polling == nil && p.sid != "" && !p.paused && !p.over && p.ws == nil {
		p.polling = make(chan struct{})
		p.c.done.Go(p.poll)
	}
}

// deafLocked reports whether the client has been refused: it will not hear that a
// socket has ended.
func (p *modelPolls) deafLocked() bool { return p != nil && p.polling == nil && p.ws == nil }

// poll is the loop. A client that is refused gives up; the schedule may tell it to
// try again.
func (p *modelPolls) poll() {
	w := p.c.w
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		close(p.polling)
		p.polling = nil
		if p.deaf == 0 {
			p.deaf = w.tickLocked()
		}
	}()
	for {
		w.mu.Lock()
		stop := p.paused || p.over || p.ws != nil
		w.mu.Unlock()
		if stop {
			return
		}
		status, body := p.ask("GET", "")
		switch {
		case status == http.StatusOK:
			p.hear(body)
		case status == statusUnknown:
			p.end()
			return
		default:
			return
		}
	}
}

// write posts what is sent.
func (p *modelPolls) write() {
	for text := range p.c.out {
		p.writing <- struct{}{}
		p.c.w.mu.Lock()
		ws := p.ws
		p.c.w.mu.Unlock()
		if ws == nil {
			p.ask("POST", text)
		} else {
			_, _ = ws.Write(textFrame(text)) // who reads sees the end
		}
		<-p.writing
	}
}

// statusUnknown is our own for the answer that there is no such connection, which
// says nothing about who may use it.
const statusUnknown = http.StatusNotFound

// ask makes a request of the connection's client.
func (p *modelPolls) ask(method, body string) (status int, answer string) {
	c := p.c
	show := p.show()
	r := p.request(method, enginePolls, show)
	if body != "" {
		r.Body = io.NopCloser(strings.NewReader(body))
	}
	rec := httptest.NewRecorder()
	c.w.engine.ServeHTTP(rec, r)
	return c.w.answeredPoll(c, show, method, rec)
}

// answeredPoll has the answer to a request of a connection checked.
func (w *modelSite) answeredPoll(c *modelConn, show *modelShow, method string, rec *httptest.ResponseRecorder) (status int, answer string) {
	status, answer = rec.Code, rec.Body.String()
	if status == http.StatusBadRequest && strings.HasPrefix(answer, `{"code":1,`) {
		status = statusUnknown
	}
	w.shown(c, show, method, status)
	return status, answer
}

// show notes what a request is about to show.
func (p *modelPolls) show() *modelShow {
	w := p.c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	show := &modelShow{began: w.tickLocked(), cookie: p.browser.cookie}
	if p.late {
		p.late, show.cookie = false, p.browser.before
	}
	p.c.shows = append(p.c.shows, show)
	return show
}

func (p *modelPolls) request(method, query string, show *modelShow) *http.Request {
	r := p.c.request(method, "/socket.io/", query+"&sid="+p.sid, show.cookie)
	switch sid := r.Header.Get("Cookie"); {
	case p.visitor == "":
	case sid == "":
		r.Header.Set("Cookie", p.visitor)
	default:
		r.Header.Set("Cookie", sid+"; "+p.visitor)
	}
	return r.WithContext(context.WithValue(p.ctx, modelShow{}, show))
}

// hear takes the packets of an answer.
func (p *modelPolls) hear(body string) {
	for packet := range strings.SplitSeq(body, "\x1e") {
		if packet == "1" {
			p.end()
			return
		}
		p.c.hear(packet)
	}
	p.c.w.mu.Lock()
	p.deaf = 0
	p.c.w.mu.Unlock()
}

// end is the server's word that it is over.
func (p *modelPolls) end() {
	w := p.c.w
	w.mu.Lock()
	p.over = true
	w.mu.Unlock()
	w.cut(p.c, 0) // polls know no codes
}

// cut ends it as a network does.
func (p *modelPolls) cut() {
	p.c.w.mu.Lock()
	p.over = true
	ws := p.ws
	p.c.w.mu.Unlock()
	p.cancel()
	if ws != nil {
		_ = ws.Close()
	}
}

// poll has a client poll again that has given up, or lets its next request be late.
func (w *modelSite) poll(n int, late bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.conn(n); c != nil && c.polls != nil {
		c.polls.late = late
		c.polls.startLocked()
	}
}

// upgrade has a client that polls go on over a WebSocket.
func (w *modelSite) upgrade(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.conn(n)
	if c == nil || c.polls == nil || c.polls.sid == "" || c.polls.upgrading || c.polls.over {
		return
	}
	c.polls.upgrading = true
	c.done.Go(c.polls.upgrade)
}

func (p *modelPolls) upgrade() {
	w := p.c.w
	here, there := net.Pipe()
	show := p.show()
	r := p.request("GET", "EIO=4&transport=websocket", show)
	asWebSocket(r)
	p.c.done.Go(func() {
		rw := &modelUpgrade{ResponseRecorder: httptest.NewRecorder(), conn: there}
		w.engine.ServeHTTP(rw, r)
		if rw.hijacked {
			rw.Code = http.StatusSwitchingProtocols
		} else {
			_ = there.Close()
		}
		w.answeredPoll(p.c, show, "upgrade", rw.ResponseRecorder)
	})
	br := bufio.NewReaderSize(here, 512)
	if !p.probe(br, here) {
		// It goes on polling.
		_ = here.Close()
		w.mu.Lock()
		p.upgrading, p.paused = false, false
		p.startLocked()
		w.mu.Unlock()
		return
	}
	p.c.listen(br)
	_ = here.Close()
}

// probe asks whether the WebSocket may take over, and lets it.
func (p *modelPolls) probe(br *bufio.Reader, ws net.Conn) (ok bool) {
	began := time.Now()
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return false
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	if _, err := ws.Write(textFrame("2probe")); err != nil {
		return false
	}
	if _, data, err := readModelFrame(br); err != nil || string(data) != "3probe" {
		return false
	}
	w := p.c.w
	w.mu.Lock()
	p.paused = true
	polling := p.polling
	w.mu.Unlock()
	if polling != nil {
		<-polling
	}
	p.writing <- struct{}{}
	defer func() { <-p.writing }()
	if time.Since(began) > 5*time.Second {
		return false // the server does not wait for ever
	}
	w.mu.Lock()
	over := p.over
	if !over {
		p.ws = ws
	}
	w.mu.Unlock()
	if over {
		return false
	}
	_, err := ws.Write(textFrame("5"))
	return err == nil || !over
}

// modelIntruders are what those have who have read the id of a connection in a log.
var modelIntruders = []string{"no cookie", "its own cookie", "a made-up cookie"}

// intruder is what they send.
const intruder = "intruder"

// intrude lets somebody in browser b try to use a connection that is certainly not
// theirs.
func (w *modelSite) intrude(n int, b *modelBrowser, choice int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.conn(n)
	if c == nil || c.polls == nil || c.polls.sid == "" {
		return
	}
	for _, method := range []string{"GET", "POST"} {
		show := &modelShow{began: w.tickLocked(), cookie: []string{"", b.cookie, "s99"}[choice], intrudes: true}
		if w.mayOwnLocked(c, show) {
			continue
		}
		c.shows = append(c.shows, show)
		r := c.request(method, "/socket.io/", enginePolls+"&sid="+c.polls.sid, show.cookie)
		r.RemoteAddr = b.address + ":1"
		if method == "POST" {
			r.Body = io.NopCloser(strings.NewReader(fmt.Sprintf(`42["event",%q]`, intruder)))
		}
		r = r.WithContext(context.WithValue(context.Background(), modelShow{}, show))
		w.ops.Go(func() {
			rec := httptest.NewRecorder()
			w.engine.ServeHTTP(rec, r)
			w.answeredPoll(c, show, "intruder's "+method, rec)
		})
	}
}
