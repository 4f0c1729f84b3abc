package adapter_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// truth is the model: who is who, and when that changed. It knows nothing of
// how the adapter finds out. Everything that happens has a moment, a number; what
// takes a while has two, between which it may have taken effect.
type truth struct {
	cfg modelConfig

	mu       sync.Mutex
	last     int // moment
	quiet    int // how often everything has come to rest
	start    time.Time
	sessions map[string]*modelSession
	accounts map[string][]*modelAccount
	revokes  []*modelRevoke
	logouts  map[int]func() // that are under way: each looks whom it may end, too
	passes   map[string][]*modelPass
	asked    map[string][]time.Time // when namespaces were asked for, by address

	trouble
	outages []span
	over    bool // the server is shutting down

	wrong   []string
	verbose bool
	trace   []string
}

// trouble is what keeps sockets from following: outages of the store, and passes
// of the chain that are held.
type trouble struct {
	busy        int
	lastBusy    time.Time
	held        int // passes, as opposed to the store failing
	lastHeld    time.Time
	outageEnded time.Time
}

// A span is what began and ended at moments; to is 0 until it has ended.
type span struct{ from, to int }

// overlaps reports whether the span has a moment in common with from to to.
func (s span) overlaps(from, to int) bool { return s.from <= to && (s.to == 0 || s.to >= from) }

func (t *truth) init(cfg modelConfig) {
	t.cfg, t.start = cfg, time.Now()
	t.sessions = make(map[string]*modelSession)
	t.accounts = map[string][]*modelAccount{}
	for _, user := range modelUsers {
		t.accounts[user] = []*modelAccount{{}}
	}
	t.logouts = make(map[int]func())
	t.passes = make(map[string][]*modelPass)
	t.asked = make(map[string][]time.Time)
}

// modelUsers are the people there are.
var modelUsers = []string{"alice", "bob"}

// A modelAccount is what the app's database has about a user, from a moment on.
type modelAccount struct {
	n    int // the n-th since the beginning
	from int
	at   time.Time
	ban  int       // the status that the bouncer answers with
	told time.Time // when Refresh had returned, if the app has called it
}

// A modelSession is all there ever was under one id.
type modelSession struct {
	id     string
	rows   []*modelRow
	ends   []*modelEnd
	writes map[string][]*modelWrite
	kept   bool      // the store could not delete it
	begun  time.Time // when the login began that made it
	login  time.Time // when that had stored it
}

// A modelRow is what the store has of a session from a moment on.
type modelRow struct {
	from    int
	at      time.Time
	present bool
	until   time.Time // the store forgets it
	ends    time.Time // when it says that it will be forgotten; zero if it does not
	user    string
	version int
	expires time.Time
	values  map[any]any
}

// A modelEnd is the end of a session by a call.
type modelEnd struct {
	span
	how     string
	begun   time.Time // of a login
	at      time.Time // of the return, or the call of a login that has not
	quiet   int       // of the return
	failed  bool      // it has not ended after all
	next    string    // the session that a login put in its place, once that is known
	user    string    // who has logged in
	address string
	old     string // the session that the login's page has found
	shown   string // and the one that its cookie named
}

type modelRevoke struct {
	span
	by    string // "user", "provider"
	value string
	at    time.Time
	quiet int
}

type modelWrite struct {
	span
	value string
	ok    bool
}

// A modelPass is a run of the chain.
type modelPass struct {
	span
	session string // that it has shown
	began   time.Time
	ended   time.Time
	good    bool
	replay  bool
}

// A modelSocket is a socket as its client knows it, and what its handlers have
// seen.
type modelSocket struct {
	conn     *modelConn
	ns       string
	asked    int
	opened   int // moment
	openedAt time.Time
	openedIn trouble
	gone     bool
	goneM    int
	goneAt   time.Time
	goneIn   trouble
	reason   adapter.Reason // what OnDisconnect got

	// what the last turn saw
	seen      bool
	lastID    string // session
	lastRow   int
	lastUser  string
	lastCount int
}

func (t *truth) tickLocked() int {
	t.last++
	return t.last
}

func (t *truth) moment() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tickLocked()
}

func (t *truth) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteLocked(format, args...)
}

func (t *truth) noteLocked(format string, args ...any) {
	if t.verbose {
		t.trace = append(t.trace, fmt.Sprintf("%10.4fs ", time.Since(t.start).Seconds())+fmt.Sprintf(format, args...))
	}
}

func (t *truth) wrongLocked(format string, args ...any) {
	t.noteLocked("WRONG: "+format, args...)
	t.wrong = append(t.wrong, fmt.Sprintf("after %v: ", time.Since(t.start))+fmt.Sprintf(format, args...))
}

func (t *truth) busyLocked(d int) {
	t.busy += d
	t.lastBusy = time.Now()
}

// ---- what happens to sessions and accounts

// rowLocked is what the store finds.
func (t *truth) rowLocked(id string) (map[any]any, bool) {
	s := t.sessions[id]
	if s == nil {
		return nil, false
	}
	r := s.rows[len(s.rows)-1]
	if !r.present || !time.Now().Before(r.until) {
		return nil, false
	}
	return r.values, true
}

func (t *truth) sessionLocked(id string) *modelSession {
	s := t.sessions[id]
	if s == nil {
		s = &modelSession{id: id, writes: make(map[string][]*modelWrite)}
		t.sessions[id] = s
	}
	return s
}

// setRowLocked is a write of the store.
func (t *truth) setRowLocked(id string, values map[any]any, until, ends time.Time) {
	s := t.sessionLocked(id)
	r := &modelRow{from: t.tickLocked(), at: time.Now(), present: values != nil, until: until, ends: ends, values: values}
	if values != nil {
		r.user, r.version, r.expires = sessionUser(valuesOf(values))
	}
	s.rows = append(s.rows, r)
	t.noteLocked("store: %s is %q, version %d, expires %s, present %v until %s", id, r.user, r.version, t.when(r.expires), r.present, t.when(until))
}

// elsewhere is what another program does to a session in the database, without a
// word: it lets it live for so long from now, or not at all.
func (t *truth) elsewhere(id string, life time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, there := t.rowLocked(id); !there {
		return
	}
	s := t.sessions[id]
	r := *s.rows[len(s.rows)-1]
	r.from, r.at, r.until = t.tickLocked(), time.Now(), time.Now().Add(life)
	s.rows = append(s.rows, &r)
	t.noteLocked("store: %s is there until %s", id, t.when(r.until))
}

func (t *truth) when(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.Sub(t.start).String()
}

type valuesOf map[any]any

func (v valuesOf) Get(key any) any { return v[key] }

func (t *truth) account(user string) *modelAccount {
	all := t.accounts[user]
	return all[len(all)-1]
}

// change changes an account, and returns what to call once the app has told the
// server, if it does.
func (t *truth) change(user string, ban int) (told func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := &modelAccount{n: len(t.accounts[user]), from: t.tickLocked(), at: time.Now(), ban: ban}
	t.accounts[user] = append(t.accounts[user], a)
	t.noteLocked("account: %s is %d, ban %d", user, a.n, ban)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		a.told = time.Now()
	}
}

// ends notes that a session is about to be ended by a call.
func (t *truth) ends(id, how string) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id == "" {
		return func() {}
	}
	e := &modelEnd{span: span{from: t.tickLocked()}, how: how}
	s := t.sessionLocked(id)
	if len(s.rows) == 0 {
		s.rows = append(s.rows, &modelRow{from: e.from, at: time.Now()})
	}
	s.ends = append(s.ends, e)
	t.noteLocked("%s of %s begins", how, id)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		e.to, e.at, e.quiet = t.tickLocked(), time.Now(), t.quiet
		t.noteLocked("%s of %s is done", how, id)
	}
}

// logsIn notes a login in the place of a session, and of those that other logins
// of the same browser have put there.
func (t *truth) logsIn(old, shown, user, address string) (e *modelEnd, done func(next string, err error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e = &modelEnd{span: span{from: t.tickLocked()}, how: "login", begun: time.Now(), at: time.Now(), user: user, address: address, old: old, shown: shown}
	if old != "" {
		s := t.sessionLocked(old)
		s.ends = append(s.ends, e)
	}
	t.noteLocked("login of %s in the place of %q begins", user, old)
	return e, func(next string, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		e.to, e.at, e.quiet = t.tickLocked(), time.Now(), t.quiet
		e.next, e.failed = next, err != nil
		t.mayReplaceLocked(e)
		t.noteLocked("login of %s in the place of %q is done: %s %v", user, old, next, err)
	}
}

// madeLocked notes the session that a login has made.
func (t *truth) madeLocked(id string, e *modelEnd) {
	s := t.sessionLocked(id)
	if !s.login.IsZero() {
		return // it is saved again
	}
	s.begun, s.login = e.at, time.Now()
	certain := t.inPlaceLocked(e.old, e.address, true)
	for _, earlier := range certain {
		earlier.ends = append(earlier.ends, e)
	}
	e.next = id
	t.mayReplaceLocked(e)
	for _, l := range t.logouts {
		l()
	}
}

// mayReplaceLocked notes a login in the place of those sessions that it may have
// replaced, too: by what its cookie showed, where its page has found nothing, as only
// some stores say what it was that had ended; and what other logins have put there
// while it was under way.
func (t *truth) mayReplaceLocked(e *modelEnd) {
	maybe := t.inPlaceLocked(e.shown, e.address, false)
	if before := t.sessions[e.shown]; before != nil && e.shown != e.old {
		maybe = append(maybe, before)
	}
	for _, s := range maybe {
		if s.id != e.next && !slices.ContainsFunc(s.ends, func(o *modelEnd) bool { return o == e || o.next == e.next }) {
			s.ends = append(s.ends, &modelEnd{span: span{from: e.from}, how: e.how, at: e.at, next: e.next, user: e.user, address: e.address})
		}
	}
}

// inPlaceLocked returns the sessions that logins from an address have put in the
// place of one, one after the other; certain are those of logins that are done, and
// of which the adapter must know.
func (t *truth) inPlaceLocked(id, address string, certain bool) (all []*modelSession) {
	for i := -1; i < len(all); i++ {
		s := t.sessions[id]
		if i >= 0 {
			s = all[i]
		}
		if s == nil {
			break
		}
		if certain && slices.ContainsFunc(s.ends, func(e *modelEnd) bool { return e.how == "login" && e.address != address }) {
			continue // of two places it keeps only the last that was taken
		}
		for _, e := range s.ends {
			if next := t.sessions[e.next]; next != nil && e.next != "" && e.how == "login" && e.address == address && !slices.Contains(all, next) && (e.to != 0 || !certain) {
				all = append(all, next)
			}
		}
	}
	return all
}

// endsToo notes that a logout may end what logins have put in the place of the
// session that it shows, or put there until it is done.
func (t *truth) endsToo(shown, address string) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := t.tickLocked()
	var known []*modelSession
	end := func() {
		for _, next := range t.inPlaceLocked(shown, address, false) {
			if !slices.Contains(known, next) {
				known = append(known, next)
				next.ends = append(next.ends, &modelEnd{span: span{from: from}, how: "logout", at: time.Now()})
			}
		}
	}
	end()
	t.logouts[from] = end
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		end()
		delete(t.logouts, from)
	}
}

// revoked notes a Revoke of a user or provider.
func (t *truth) revoked(by, value string) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &modelRevoke{span: span{from: t.tickLocked()}, by: by, value: value, at: time.Now()}
	t.revokes = append(t.revokes, r)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		r.to, r.quiet = t.tickLocked(), t.quiet
	}
}

// ---- what HTTP would have said

// nobodyLocked reports whether a page with this session may have found nobody
// from one moment to another.
func (t *truth) nobodyLocked(s *modelSession, from, to int) bool {
	return t.overLocked(s, from, to) || slices.ContainsFunc(s.rows, func(r *modelRow) bool {
		return r.user == "" && r.span(s, slices.Index(s.rows, r)).overlaps(from, to)
	})
}

// overLocked reports whether a page with this session may have found none.
func (t *truth) overLocked(s *modelSession, from, to int) bool {
	if s == nil || len(s.rows) == 0 {
		return true
	}
	for _, e := range s.ends {
		if e.from <= to && !e.failed {
			return true
		}
		if e.failed && e.overlaps(from, to) {
			return true
		}
	}
	if t.revokedLocked(s, to) {
		return true
	}
	for i, r := range s.rows {
		if r.span(s, i).overlaps(from, to) && (!r.present || !r.until.After(time.Now())) {
			return true
		}
	}
	return from < s.rows[0].from
}

// revokedLocked reports whether the login of a session may have been revoked by
// then.
func (t *truth) revokedLocked(s *modelSession, by int) bool {
	return slices.ContainsFunc(t.revokes, func(r *modelRevoke) bool {
		return r.from <= by && t.isOf(r, s) && !s.begun.After(r.at)
	})
}

func (r *modelRow) span(s *modelSession, i int) span {
	sp := span{from: r.from}
	if i+1 < len(s.rows) {
		sp.to = s.rows[i+1].from
	}
	return sp
}

// isOf reports whether a revocation is of a session's login.
func (t *truth) isOf(r *modelRevoke, s *modelSession) bool {
	for _, row := range s.rows {
		if user, _ := row.values["usher.user"].(string); user != "" {
			return r.by == "provider" || r.value == user
		}
	}
	return false
}

// endedLocked reports whether a session had certainly ended before a moment.
func (t *truth) endedLocked(s *modelSession, before int) bool {
	for _, e := range s.ends {
		if e.to != 0 && e.to < before && !e.failed {
			return true
		}
	}
	for _, r := range t.revokes {
		if r.to != 0 && r.to < before && t.isOf(r, s) && s.login.Before(r.at) {
			return true
		}
	}
	return false
}

func (t *truth) bannedLocked(user string, status, from, to int) bool {
	all := t.accounts[user]
	for i, a := range all {
		sp := span{from: a.from}
		if i+1 < len(all) {
			sp.to = all[i+1].from
		}
		if a.ban == status && sp.overlaps(from, to) {
			return true
		}
	}
	return false
}

func (t *truth) failedLocked(from, to int) bool {
	return slices.ContainsFunc(t.outages, func(o span) bool { return o.overlaps(from, to) })
}

// refusalLocked reports whether HTTP may have answered so.
func (t *truth) refusalLocked(s *modelSession, status, from, to int) bool {
	switch status {
	case http.StatusServiceUnavailable:
		return t.failedLocked(from, to)
	case http.StatusUnauthorized, http.StatusForbidden:
		if s == nil {
			return false
		}
		for i, r := range s.rows {
			if !r.span(s, i).overlaps(from, to) {
				continue
			}
			if r.user != "" && t.bannedLocked(r.user, status, from, to) {
				return true
			}
			if status == http.StatusUnauthorized && !r.expires.IsZero() && !r.expires.After(time.Now()) {
				return true
			}
		}
	}
	return false
}

// answered checks that a session which has answered may have.
func (t *truth) answered(id string, began int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.sessions[id]; s != nil && t.endedLocked(s, began) {
		t.wrongLocked("session %s has answered, and had ended before", id)
	}
}

// page checks what a page has said about who it is.
func (t *truth) page(cookie string, began int, status int, body string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, s := t.tickLocked(), t.sessions[cookie]
	ok := false
	switch {
	case status != http.StatusOK:
		ok = t.refusalLocked(s, status, began, now)
	case body == "nobody":
		ok = t.nobodyLocked(s, began, now) || t.refusalLocked(s, http.StatusUnauthorized, began, now) // expired while it was asked
	default:
		f := strings.Fields(body)
		if s == nil || t.endedLocked(s, began) {
			break
		}
		n, _ := strconv.Atoi(f[1])
		account := t.accounts[f[0]]
		known := n < len(account) && account[n].from <= now && (n+1 == len(account) || account[n+1].from >= began)
		for i, r := range s.rows {
			ok = ok || known && r.span(s, i).overlaps(began, now) && r.present && r.user == f[0] && strconv.Itoa(r.version) == f[2]
		}
	}
	if !ok {
		t.wrongLocked("GET /me with session %q: %d %s, which was not so at any time meanwhile", cookie, status, body)
	}
}

// ---- reads and writes

func (t *truth) writes(key, value string) (done func(id string, ok bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wr := &modelWrite{span: span{from: t.tickLocked()}, value: value}
	return func(id string, ok bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		wr.to, wr.ok = t.tickLocked(), ok
		t.noteLocked("write of %s=%s into %s: %v", key, value, id, ok)
		if id != "" {
			s := t.sessionLocked(id)
			s.writes[key] = append(s.writes[key], wr)
			if ok && t.endedLocked(s, wr.from) {
				t.wrongLocked("session %s has taken %s=%s, and had ended before", id, key, value)
			}
		}
	}
}

// reads checks a value that was read since the moment began.
func (t *truth) reads(id, key, value string, began int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[id]
	if s == nil {
		return
	}
	t.noteLocked("read of %s in %s: %q", key, id, value)
	if t.endedLocked(s, began) {
		t.wrongLocked("session %s has answered, and had ended before", id)
	}
	t.valueLocked(s, key, value, began)
}

func (t *truth) valueLocked(s *modelSession, key, value string, began int) {
	var from *modelWrite
	for _, wr := range s.writes[key] {
		if wr.value == value {
			from = wr
		}
	}
	if from == nil && value != "" {
		return // of a write that is under way
	}
	for _, wr := range s.writes[key] {
		if wr.ok && wr.to < began && wr != from && (from == nil || from.to < wr.from) {
			t.wrongLocked("session %s has %q for %s, but %q was accepted after it", s.id, value, key, wr.value)
		}
	}
}

// ---- what sockets do

// runs notes a pass of the chain.
func (t *truth) runs(r *http.Request, replay bool) (began int, done func(good bool)) {
	cookie := ""
	if c, err := r.Cookie("sid"); err == nil {
		cookie = c.Value
	}
	key := r.URL.Path + r.Header.Get("Upgrade") + " " + withoutModelPort(r.RemoteAddr) + " " + cookie
	show, _ := r.Context().Value(modelShow{}).(*modelShow)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &modelPass{span: span{from: t.tickLocked()}, session: cookie, began: time.Now(), replay: replay && show == nil}
	if show != nil {
		show.asked.from = p.from
	}
	t.passes[key] = append(t.passes[key], p)
	t.noteLocked("pass %s, replay %v, begins", key, replay)
	return p.from, func(good bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		p.to, p.ended, p.good = t.tickLocked(), time.Now(), good
		if show != nil {
			show.asked.to, show.at = p.to, p.ended
		}
		t.noteLocked("pass %s, replay %v, is done: %v", key, replay, good)
	}
}

// passesOf are the passes that may have been a socket's.
func (t *truth) passesOf(k *modelSocket) (all []*modelPass) {
	path := "/socket.io/wswebsocket"
	switch {
	case k.conn.polls != nil:
		path = "/socket.io/"
	case k.conn.socketIO:
		path = "/socket.io/websocket"
	}
	for _, id := range append(idsOf(t.chainLocked(k)), k.conn.cookie) {
		all = append(all, t.passes[path+" "+k.conn.address+" "+id]...)
	}
	return all
}

func idsOf(chain []*modelSession) (ids []string) {
	for _, s := range chain {
		ids = append(ids, s.id)
	}
	return ids
}

// chainLocked are the sessions that a socket's connection may ever have been bound
// to, that of the handshake first.
func (t *truth) chainLocked(k *modelSocket) []*modelSession { return t.boundLocked(k.conn, 0) }

// followedLocked is the session that a cookie names and, behind it, those that logins
// have put in its place for sockets from an address: several, if they came at once.
func (t *truth) followedLocked(cookie, address string) (chain []*modelSession) {
	if s := t.sessions[cookie]; s != nil {
		chain = append(chain, s)
	}
	for i := 0; i < len(chain); i++ {
		for _, e := range chain[i].ends {
			if next := t.sessions[e.next]; next != nil && e.address == address && !slices.Contains(chain, next) {
				chain = append(chain, next)
			}
		}
	}
	return chain
}

// grain is how late a timer may be, see engine.Wheel; slack is for the schedule's
// own steps.
const (
	modelGrain = 100 * time.Millisecond
	modelSlack = time.Millisecond
)

// Bounds of the library.
const (
	modelGap      = 250 * time.Millisecond
	modelRetry    = 5 * time.Second // or Config.Revalidate, where that is less
	modelTimeout  = 10 * time.Second
	modelEndGrain = 3 * time.Second // for which a session may outlive what it says, until it is not believed
)

// follows is how long a socket may take to follow what has changed at a time. It
// is not held against the adapter while replays cannot come through.
func (t *truth) lateLocked(since time.Time, told bool) bool {
	return t.late(t.trouble, time.Now(), since, told)
}

func (t *truth) late(now trouble, at, since time.Time, told bool) bool {
	if now.busy > 0 {
		return false
	}
	bound := modelGap
	switch {
	case told:
	case t.cfg.revalidate < 0:
		return false
	default:
		bound = t.cfg.revalidate + t.cfg.revalidate/10
	}
	if now.outageEnded.After(since) {
		bound = max(bound, t.cfg.retry())
	}
	if now.lastBusy.After(since) {
		since = now.lastBusy
		if !told {
			bound = max(bound, t.cfg.retry())
		}
	}
	return at.Sub(since) > bound+modelGrain+modelSlack
}

// forgottenLateLocked reports whether sockets should know by now that the store
// has forgotten a session. They are told by nobody; but where it says when it ends
// they look then, and for a while after, once a second.
func (t *truth) forgottenLateLocked(r *modelRow) bool {
	end, kept := r.ends, r.until.Sub(r.ends)
	if r.ends.IsZero() || kept > modelEndGrain {
		return t.lateLocked(r.until, false)
	}
	if kept > 0 {
		end = r.until.Add(modelEndGrain / 3)
	} else if t.lateLocked(r.until, false) {
		return true
	}
	if again := t.lastBusy.Add(modelEndGrain / 3); t.busyAt(r.at) && t.lastBusy.After(r.ends) && again.After(end) {
		end = again // one was under way at the end
	}
	return t.lateLocked(end, true)
}

// turn checks who acts in a turn of a socket.
func (t *truth) turn(ctx context.Context, k *modelSocket, where string) {
	id, _ := adapter.IdentityOf(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	who := "nobody"
	if id != nil {
		who = fmt.Sprint(id.UserID, " ", id.Roles, " of ", id.SessionID)
	}
	t.noteLocked("%v: %s as %s", k, where, who)
	t.tickLocked()
	if why := t.mayActLocked(k, id); why != "" {
		t.wrongLocked("%s of %v ran as %s: %s", where, k, who, why)
	}
	if why := t.orderLocked(k, id); why != "" {
		t.wrongLocked("%s of %v ran as %s: %s", where, k, who, why)
	}
}

func (k *modelSocket) String() string {
	kind := "plain"
	switch {
	case k.conn.polls != nil:
		kind = "polls"
	case k.conn.socketIO:
		kind = "Socket.IO"
	}
	return fmt.Sprintf("socket %d%s (%s)", k.conn.n, strings.TrimSuffix(k.ns, "/"), kind)
}

// restLocked reports whether everything was at rest once since.
func (t *truth) restLocked(quiet int, at time.Time) bool {
	return t.quiet > quiet || time.Now().After(at)
}

// mayActLocked is the first promise: nobody acts whom HTTP would have refused for
// longer than the bound.
func (t *truth) mayActLocked(k *modelSocket, id *adapter.Identity) (why string) {
	chain := t.chainLocked(k)
	if len(chain) == 0 {
		if id != nil {
			return "it has shown no session"
		}
		return ""
	}
	if id == nil {
		return t.mayBeNobodyLocked(k, chain)
	}
	at := slices.IndexFunc(chain, func(s *modelSession) bool { return s.id == id.SessionID })
	if at < 0 {
		return "that is not its session"
	}
	s := chain[at]
	if left, certain := t.leavesLocked(k.conn, s); !left.IsZero() {
		switch late := t.lateLocked(left, true); {
		case late && certain:
			return fmt.Sprintf("its connection has left session %s long ago", s.id)
		case !late:
			return "" // it is on its way to another session of the same user
		}
	}
	for _, e := range s.ends {
		switch {
		case e.to == 0 || e.failed || !t.restLocked(e.quiet, e.at):
		case e.how != "login" || e.address != k.conn.address || e.user != id.UserID:
			if slices.ContainsFunc(s.ends, func(l *modelEnd) bool {
				return l.from < e.to && l.how == "login" && l.address == k.conn.address && l.user == id.UserID
			}) {
				continue // it had gone on to the next by then
			}
			return fmt.Sprintf("session %s ended (%s) before", s.id, e.how)
		case t.lateLocked(e.at, true):
			return fmt.Sprintf("session %s was replaced by %s long ago", s.id, e.next)
		}
	}
	for _, r := range t.revokes {
		if r.to == 0 || !t.restLocked(r.quiet, r.at) || !t.isOf(r, s) || !s.login.Before(r.at) {
			continue
		}
		// Whom the app has made another than Login's on the same session, as those
		// do that let a supporter act for a customer, Revoke does not find at once.
		if r.by == "provider" || r.value == id.UserID || t.lateLocked(r.at, false) {
			return fmt.Sprintf("%s %s was revoked before", r.by, r.value)
		}
	}
	if !id.Expires.IsZero() {
		late := time.Since(id.Expires)
		if t.busy > 0 || t.lastBusy.Equal(time.Now()) {
			// A guard was held in the same turn, and the end may have been put off.
			late -= modelGrain + modelSlack
			if s.rows[len(s.rows)-1].expires.After(id.Expires) || s.rows[len(s.rows)-1].expires.IsZero() {
				late = -1
			}
		}
		if late >= 0 {
			return "it has expired"
		}
	}
	if why := t.rowLate(s, id); why != "" {
		return why
	}
	n, _ := strconv.Atoi(id.Roles[0])
	for _, a := range t.accounts[id.UserID][n+1:] {
		if since, told := a.at, false; t.lateLocked(since, told) {
			return fmt.Sprintf("the account has been changed to %d", a.n)
		}
		if !a.told.IsZero() && t.lateLocked(a.told, true) {
			return fmt.Sprintf("the server was told of account %d", a.n)
		}
	}
	return t.staleLocked(k)
}

// mayBeNobodyLocked is mayActLocked for a turn of nobody.
func (t *truth) mayBeNobodyLocked(k *modelSocket, chain []*modelSession) (why string) {
	s := chain[0]
	if s.id != k.conn.cookie {
		return "" // a nobody who came without a session
	}
	if k.opened == 0 {
		if !t.nobodyLocked(s, k.conn.dialed, t.last) {
			return fmt.Sprintf("session %s has always been somebody's", s.id)
		}
		return ""
	}
	if !t.aliveLocked(s, k) {
		return "" // it hangs on no session
	}
	for _, e := range s.ends {
		if e.to == 0 || e.failed || !t.restLocked(e.quiet, e.at) {
			continue
		}
		if e.how != "login" || e.address != k.conn.address {
			if slices.ContainsFunc(s.ends, func(l *modelEnd) bool {
				return l.from < e.to && l.how == "login" && l.address == k.conn.address
			}) {
				continue
			}
			return fmt.Sprintf("session %s ended (%s) before", s.id, e.how)
		}
		if next := t.sessions[e.next]; t.lateLocked(e.at, true) && !t.nobodyLocked(next, t.last, t.last) {
			return fmt.Sprintf("session %s was replaced by %s long ago", s.id, e.next)
		}
		return ""
	}
	if t.nobodyLocked(s, t.last, t.last) {
		return "" // again
	}
	return t.rowLate(s, nil)
}

// aliveLocked reports whether a session certainly was there from the dialing of a
// socket until it was open.
func (t *truth) aliveLocked(s *modelSession, k *modelSocket) bool {
	for _, e := range s.ends {
		if e.from <= k.opened {
			return false
		}
	}
	for id, before := range t.sessions {
		// A logout may be about to end what a login has put in its session's place.
		if slices.ContainsFunc(before.ends, func(e *modelEnd) bool { return e.how == "logout" && e.from <= k.opened }) &&
			slices.Contains(t.inPlaceLocked(id, k.conn.address, false), s) {
			return false
		}
	}
	for _, r := range t.revokes {
		if r.from <= k.opened && t.isOf(r, s) {
			return false
		}
	}
	for i, r := range s.rows {
		if r.span(s, i).overlaps(k.conn.dialed, k.opened) && (!r.present || !r.until.After(k.openedAt)) {
			return false
		}
	}
	return len(s.rows) > 0 && s.rows[0].from < k.conn.dialed
}

// rowLate looks for a row that the socket should have followed to.
func (t *truth) rowLate(s *modelSession, id *adapter.Identity) (why string) {
	user, version := "", ""
	if id != nil {
		user, version = id.UserID, id.Roles[1]
	}
	found := false
	for i, r := range s.rows {
		if r.present && r.user == user && (id == nil || strconv.Itoa(r.version) == version) {
			found = true
			until := r.until
			if i+1 < len(s.rows) && s.rows[i+1].at.Before(until) {
				until = s.rows[i+1].at
			}
			why = ""
			if id != nil && !time.Now().Before(r.until) && until.Equal(r.until) && t.forgottenLateLocked(r) {
				why = fmt.Sprintf("the store has forgotten %s", s.id)
			}
			continue
		}
		if found && why == "" && r.present && t.lateLocked(r.at, true) {
			why = fmt.Sprintf("session %s is %q, version %d, by now", s.id, r.user, r.version)
		}
	}
	if !found && id != nil {
		return fmt.Sprintf("session %s never was that", s.id)
	}
	return why
}

// staleLocked is the bound on a store that does not answer.
func (t *truth) staleLocked(k *modelSocket) (why string) {
	if t.cfg.revalidate < 0 || k.opened == 0 {
		return ""
	}
	good, took := k.openedAt, time.Duration(0)
	for _, p := range t.passesOf(k) {
		if p.good && p.replay && p.began.After(good) {
			good, took = p.began, p.ended.Sub(p.began)
		}
	}
	for _, s := range t.chainLocked(k) {
		for _, e := range s.ends {
			if e.how == "login" && e.to != 0 && e.at.After(good) {
				good, took = e.at, 0 // whom it follows
			}
		}
	}
	bound := t.cfg.revalidate + t.cfg.revalidate/10 + modelGrain + modelSlack
	if !t.lastBusy.Before(good) || t.busy > 0 {
		stale := max(t.cfg.maxStale, 0)
		if t.trouble.held > 0 || !t.lastHeld.Before(good) {
			stale += modelTimeout // before it is known that it hangs
		}
		// The next one is due when that one has ended, which was held itself.
		bound += min(took, modelTimeout+stale) + stale + 2*modelGrain + modelSlack
	}
	if in := k.openedIn; in.busy > 0 || in.lastBusy.Add(t.cfg.retry()).After(k.openedAt) {
		bound += 2 * t.cfg.retry() // it has come to others that wait for a retry
	}
	if time.Since(good) > bound {
		return fmt.Sprintf("it was last checked %v ago", time.Since(good))
	}
	return ""
}

// orderLocked is that no turn sees an older identity than the one before.
func (t *truth) orderLocked(k *modelSocket, id *adapter.Identity) (why string) {
	if id == nil {
		if k.seen {
			return "it was " + k.lastUser + " before"
		}
		return ""
	}
	n, _ := strconv.Atoi(id.Roles[0])
	row := -1
	if s := t.sessions[id.SessionID]; s != nil {
		row = slices.IndexFunc(s.rows, func(r *modelRow) bool {
			return r.present && r.user == id.UserID && strconv.Itoa(r.version) == id.Roles[1]
		})
	}
	switch {
	case !k.seen:
	case id.UserID != k.lastUser:
		why = "it was " + k.lastUser + " before"
	case n < k.lastCount:
		why = fmt.Sprintf("a turn before has seen account %d", k.lastCount)
	case t.beforeLocked(id.SessionID, k.lastID) && !t.beforeLocked(k.lastID, id.SessionID):
		why = "a turn before has seen session " + k.lastID
	case id.SessionID == k.lastID && row < k.lastRow:
		why = fmt.Sprintf("a turn before has seen version %d of the session", t.sessions[id.SessionID].rows[k.lastRow].version)
	}
	k.seen, k.lastUser, k.lastCount, k.lastID, k.lastRow = true, id.UserID, n, id.SessionID, row
	return why
}

// beforeLocked reports whether logins have put one session in the place of
// another, one after the other. Of those that came at once, either may be before.
func (t *truth) beforeLocked(id, later string) bool {
	all := []string{id}
	for i := 0; i < len(all); i++ {
		s := t.sessions[all[i]]
		if s == nil {
			continue
		}
		for _, e := range s.ends {
			if e.next == later {
				return id != later
			}
			if t.sessions[e.next] != nil && !slices.Contains(all, e.next) {
				all = append(all, e.next)
			}
		}
	}
	return false
}

// ---- ends of sockets

func (t *truth) openedLocked(k *modelSocket) {
	k.opened, k.openedAt, k.openedIn = t.tickLocked(), time.Now(), t.trouble
	t.noteLocked("%v is open", k)
}

// overdue looks for sockets that should have ended, whether they do anything or
// not.
func (t *truth) overdue(conns []*modelConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range conns {
		for _, k := range c.sockets {
			if k.opened == 0 || k.gone || c.left || c.polls.deafLocked() {
				continue
			}
			chain := t.chainLocked(k)
			if len(chain) != 1 || chain[0].id != c.cookie || !t.aliveLocked(chain[0], k) {
				continue
			}
			s := chain[0]
			for _, e := range s.ends {
				if e.to != 0 && !e.failed {
					t.wrongLocked("%v is open, and session %s has ended (%s)", k, s.id, e.how)
				}
			}
			r := s.rows[len(s.rows)-1]
			forgotten := !time.Now().Before(r.until) && (!t.lastBusy.Before(r.at) || k.lastUser != r.user)
			if t.cfg.anonymous && (forgotten || !t.outageEnded.Before(r.at)) {
				continue // it may have been nobody's before and after, and nobody has seen it meanwhile
			}
			if len(s.ends) == 0 && !t.revokedLocked(s, t.last) && r.user != "" && !r.expires.IsZero() && time.Since(r.expires) > modelGrain+modelSlack && t.lateLocked(r.at, true) {
				t.wrongLocked("%v is open, and session %s has expired", k, s.id)
			}
			if len(s.ends) == 0 && r.user != "" && r.present && !time.Now().Before(r.until) && t.forgottenLateLocked(r) {
				t.wrongLocked("%v is open, and the store has forgotten session %s", k, s.id)
			}
		}
	}
}

// goneLocked notes when a socket has ended.
func (t *truth) goneLocked(k *modelSocket) {
	if k != nil && !k.gone {
		k.gone, k.goneM, k.goneAt, k.goneIn = true, t.tickLocked(), time.Now(), t.trouble
		t.noteLocked("%v is gone", k)
	}
}

// disconnected checks the reason of a socket's end.
func (t *truth) disconnected(k *modelSocket, r adapter.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.goneLocked(k)
	k.reason = r
	t.noteLocked("%v: OnDisconnect %s", k, r)
	if !t.justLocked(k, r) {
		t.wrongLocked("%v was closed: %q, for which there was no reason", k, r)
	}
}

// codes are the close codes of reasons.
var modelCodes = map[adapter.Reason]int{
	adapter.ReasonSessionEnded: 4409, adapter.ReasonRevoked: 4409, adapter.ReasonExpired: 4410,
	adapter.ReasonUnauthorized: 4401, adapter.ReasonForbidden: 4403, adapter.ReasonStale: 1013, adapter.ReasonShutdown: 1012,
}

// cut notes the end of a connection.
func (t *truth) cut(c *modelConn, code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.polls != nil && (code == 1000 || code == 1008) {
		code = 0 // it was over when the WebSocket was to take over
	}
	c.open, c.code = false, code
	t.noteLocked("connection %d is closed with %d", c.n, code)
	for _, k := range c.sockets {
		t.goneLocked(k)
	}
	if code == 1006 && !c.left && !t.over {
		t.wrongLocked("connection %d was cut without a word", c.n)
	}
	if !c.socketIO && code != 1006 && c.sockets["/"].reason == "" && c.sockets["/"].opened == 0 {
		// It was ended before it was open: nobody else is told.
		t.refusedLocked(c.sockets["/"], code)
	}
}

// wordsLocked checks that the client was told what OnDisconnect was.
func (t *truth) wordsLocked(c *modelConn) {
	if c.code == 0 || c.code == 1006 || c.left || t.over && c.code == modelCodes[adapter.ReasonShutdown] {
		return
	}
	told, any := false, false
	for _, k := range c.sockets {
		if k.reason == "" && k.opened == 0 {
			return // it may have been the last, and nobody is told of it
		}
		any = any || k.reason != ""
		told = told || k.reason != "" && modelCodes[k.reason] == c.code
	}
	if any && !told {
		t.wrongLocked("connection %d was closed with %d, which is the code of none of its sockets' reasons", c.n, c.code)
	}
}

// justLocked reports whether there was a reason to end a socket.
func (t *truth) justLocked(k *modelSocket, r adapter.Reason) bool {
	from, to := k.goneM, k.goneM
	for _, p := range t.passesOf(k) {
		if p.to == 0 || !p.ended.Before(k.goneAt) {
			from = min(from, p.from)
		}
	}
	if p := k.conn.polls; p != nil && p.deaf != 0 {
		from = min(from, p.deaf) // its client may have heard too late of it
	}
	chain := t.boundLocked(k.conn, from)
	switch r {
	case adapter.ReasonTransportClose, adapter.ReasonTransportError:
		return k.conn.left || t.intrudesLocked(k.conn)
	case adapter.ReasonShutdown:
		return t.over
	case adapter.ReasonSessionEnded:
		return slices.ContainsFunc(chain, func(s *modelSession) bool { return t.endsLocked(k, s, from, to) })
	case adapter.ReasonRevoked:
		for _, s := range chain {
			for _, e := range s.ends {
				if e.how == "revoke" && e.from <= to {
					return true
				}
			}
			for _, r := range t.revokes {
				if r.from <= to && (r.to == 0 || r.to >= k.conn.dialed) && (r.by == "provider" || slices.ContainsFunc(s.rows, func(row *modelRow) bool { return row.user == r.value })) {
					return true
				}
			}
		}
	case adapter.ReasonUnauthorized:
		return slices.ContainsFunc(chain, func(s *modelSession) bool {
			return t.refusalLocked(s, http.StatusUnauthorized, from, to) || t.anotherLocked(k, s, from, to)
		})
	case adapter.ReasonForbidden:
		return slices.ContainsFunc(chain, func(s *modelSession) bool { return t.refusalLocked(s, http.StatusForbidden, from, to) })
	case adapter.ReasonExpired:
		// Also as who it was before its connection was bound to another session of
		// theirs, until the chain has been asked about that.
		for _, s := range t.chainLocked(k) {
			for i, row := range s.rows {
				if i+1 == len(s.rows) && row.present && !row.until.After(k.goneAt) {
					return true // it has, whether it has said so or not
				}
				if row.expires.IsZero() || row.expires.After(k.goneAt) {
					continue
				}
				// Extended just now, which the socket may not know yet; less so if a
				// login takes it along before the chain has been asked about that.
				if i+1 == len(s.rows) || !s.rows[i+1].present {
					return true
				}
				since := s.rows[i+1].at
				for _, e := range s.ends {
					if e.how == "login" && e.to != 0 && e.from <= to && e.at.After(since) {
						since = e.at
					}
				}
				if !t.late(k.goneIn, k.goneAt, since, true) {
					return true
				}
			}
			if t.saidLocked(k, s, from, to) {
				return true
			}
		}
	case adapter.ReasonStale:
		good := k.conn.dialedAt
		for _, p := range t.passesOf(k) {
			// Of what ends at once, either may come first; and those of a namespace
			// that is asked for late are not for the others, which end with it.
			if !p.ended.Before(k.goneAt) || len(k.conn.sockets) > 1 || len(chain) > 1 || slices.ContainsFunc(t.asked[k.conn.address], p.began.Equal) {
				continue
			}
			if s := t.sessions[p.session]; s != nil && slices.ContainsFunc(s.ends, func(e *modelEnd) bool { return e.how == "login" && e.from <= p.to }) {
				continue // the socket had gone on to the next by then
			}
			// Those of sockets without a session are each one's own.
			if p.good && p.replay && p.ended.After(good) && len(chain) > 0 && t.aliveLocked(chain[0], k) &&
				!t.nobodyLocked(chain[len(chain)-1], k.goneM, k.goneM) {
				good = p.ended
			}
		}
		return (k.goneIn.busy > 0 || k.goneIn.lastBusy.After(good)) && k.goneAt.Sub(good) >= t.cfg.maxStale
	}
	return false
}

// endsLocked reports whether a socket had to end because its session did, or
// became another's.
func (t *truth) endsLocked(k *modelSocket, s *modelSession, from, to int) bool {
	for _, e := range s.ends {
		if e.from > to || e.failed && e.to < from {
			continue
		}
		mine := e.how == "login" && e.address == k.conn.address && k.opened != 0 && k.opened < e.from
		for _, r := range s.rows {
			mine = mine && (r.user == "" || r.user == e.user)
		}
		if !mine {
			return true
		}
	}
	for _, r := range t.revokes {
		if r.from <= to && t.isOf(r, s) && !s.begun.After(r.at) {
			return true
		}
	}
	for i, r := range s.rows {
		if r.span(s, i).overlaps(from, to) && !r.until.After(k.goneAt) && !r.toldLocked(k) {
			return true // the store has forgotten it
		}
		if r.span(s, i).overlaps(from, to) && !r.present && len(s.ends) == 0 {
			return true
		}
	}
	return t.anotherLocked(k, s, from, to)
}

// saidLocked reports whether a socket may have ended because its session is over
// that said so before: as far as the socket has heard, and if the store does not say
// otherwise.
func (t *truth) saidLocked(k *modelSocket, s *modelSession, from, to int) bool {
	gone := t.revokedLocked(s, to) || slices.ContainsFunc(s.rows, func(r *modelRow) bool {
		return r.span(s, slices.Index(s.rows, r)).overlaps(from, to) && !r.until.After(k.goneAt)
	})
	for i, r := range s.rows {
		if r.ends.IsZero() || r.ends.After(k.goneAt) || !gone && !k.goneIn.busyAt(r.ends) {
			continue
		}
		if i+1 == len(s.rows) || !t.late(k.goneIn, k.goneAt, s.rows[i+1].at, true) || k.goneIn.busyAt(s.rows[i+1].at) {
			return true
		}
	}
	return false
}

// toldLocked reports whether a socket certainly knew that the session was to end
// before it did.
func (r *modelRow) toldLocked(k *modelSocket) bool {
	return !r.ends.IsZero() && k.goneAt.Sub(r.ends) >= time.Millisecond && r.until.Sub(r.ends) <= modelEndGrain && !k.goneIn.busyAt(r.at)
}

// busyAt reports whether there was trouble at a time or later.
func (in trouble) busyAt(at time.Time) bool { return in.busy > 0 || !in.lastBusy.Before(at) }

// anotherLocked reports whether the session had become another's, or nobody's.
func (t *truth) anotherLocked(k *modelSocket, s *modelSession, from, to int) bool {
	for i, r := range s.rows {
		if !r.present || !r.span(s, i).overlaps(from, to) {
			continue
		}
		for _, before := range s.rows[:i] {
			if before.user != "" && before.user != r.user {
				return true
			}
		}
	}
	return false
}

// refused checks the answer to a handshake.
func (t *truth) refused(c *modelConn, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, s := t.tickLocked(), t.sessions[c.cookie]
	t.noteLocked("connection %d is refused with %d", c.n, status)
	if t.over || t.refusalLocked(s, status, c.dialed, now) {
		return
	}
	if status == http.StatusUnauthorized && !t.cfg.anonymous && t.nobodyLocked(s, c.dialed, now) {
		return
	}
	t.wrongLocked("the handshake of connection %d, with session %q, was refused with %d", c.n, c.cookie, status)
}

// deniedLocked checks the answer to a CONNECT.
func (t *truth) deniedLocked(k *modelSocket, text string) {
	t.goneLocked(k)
	t.noteLocked("%v is refused: %s", k, text)
	code := 0
	for word, c := range map[string]int{
		`"unauthenticated"`: 4401, `"forbidden"`: 4403, `"session_ended"`: 4409, `"expired"`: 4410, `"unavailable"`: 1013,
	} {
		if strings.Contains(text, word) {
			code = c
		}
	}
	t.refusedLocked(k, code)
}

// refusedLocked checks why a socket was never open.
func (t *truth) refusedLocked(k *modelSocket, code int) {
	from, to := k.conn.dialed, t.tickLocked()
	ok := t.over
	for _, s := range append(t.chainLocked(k), t.sessions[k.conn.cookie]) {
		switch code {
		case 4401:
			ok = ok || t.refusalLocked(s, http.StatusUnauthorized, from, to) || !t.cfg.anonymous && t.nobodyLocked(s, from, to)
		case 4403:
			ok = ok || t.refusalLocked(s, http.StatusForbidden, from, to)
		case 4409:
			ok = ok || t.nobodyLocked(s, from, to) || s != nil && t.anotherLocked(k, s, from, to)
			for _, r := range t.revokes {
				ok = ok || r.overlaps(from, to)
			}
		case 4410:
			ok = ok || t.refusalLocked(s, http.StatusUnauthorized, from, to)
			ok = ok || s != nil && slices.ContainsFunc(s.rows, func(r *modelRow) bool { return !r.ends.IsZero() && !r.ends.After(time.Now()) })
		case 1013:
			ok = ok || t.failedLocked(from, to) || t.busy > 0 || t.lastBusy.After(t.start)
		}
	}
	if !ok {
		t.wrongLocked("%v was refused with %d, for which there was no reason", k, code)
	}
}

// finish checks what has to be true when everything is at rest.
func (t *truth) finish(conns []*modelConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.tickLocked()
	for id, s := range t.sessions {
		row, there := t.rowLocked(id)
		ended := slices.ContainsFunc(s.ends, func(e *modelEnd) bool { return e.to != 0 && !e.failed })
		if there && ended && !s.kept {
			t.wrongLocked("session %s has ended and is in the store", id)
		}
		if !there || t.endedLocked(s, now) {
			continue
		}
		for key := range s.writes {
			value, _ := row[key].(string)
			t.valueLocked(s, key, value, now)
		}
	}
	for _, c := range conns {
		t.wordsLocked(c)
	}
}
