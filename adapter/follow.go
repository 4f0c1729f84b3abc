package adapter

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// A follower keeps identities true: it knows which sockets hang on which
// credential and replays the chain for them when the answer may have changed.
type follower struct {
	srv   *Server
	began time.Time

	mu       sync.Mutex
	bindings map[string]*binding    // lists, by session id or else by key
	hashed   map[sessionHash]string // ids of those sessions; nil without a cluster
	visitors map[visitorLink][]*Socket
	others   others
	changes  changeLog  // of whom, for those who are being looked at
	queue    []*binding // wait for a runner
	runners  int
	closed   bool
}

// now is the time since the server was made: a third of a time.Time, of which
// every binding keeps two.
func (f *follower) now() time.Duration { return time.Since(f.began) }

// A binding is all sockets of one credential: they are identified together, by
// one run of the chain. Its fields are guarded by follower.mu.
type binding struct {
	f         *follower
	key       string
	sessionID string
	visitor   visitorLink // of the one socket, where it is nobody's
	timer     engine.Timer
	next      *binding // of the same session
	sockets   []*Socket
	renewed   *http.Cookie // of the session, which the next replay is to show: see follower.recookieLater

	ran     time.Duration // start of the last replay, or the handshake, by follower.now
	ends    time.Duration // when the session expires in its store, as far as is known; zero if it is not
	stale   time.Duration // when the first replay was asked for whose outcome is unknown; zero if it is known
	asked   time.Duration // since when it is queued or running
	queued  bool
	running bool
	again   bool // something changed while it ran
}

// bind finds out which sockets are identified with this one: those of the same
// session or token whose requests a chain cannot tell apart. It may look at
// anything: a tenant in the path, a key in a header or cookie, the peer's address.
// Were such sockets bound together, each replay would make them all who the first of
// them is. Anonymous sockets without any credential have an empty key and a binding
// each. sticky is the cookie by which load balancers keep connections apart.
func (adm *admission) bind(sticky string) {
	if adm.sessionID == "" && adm.token == "" {
		return
	}
	line, headers, _ := bytes.Cut(adm.shake.head, []byte("\r\n"))
	target, query, _ := strings.Cut(string(bytes.TrimSuffix(line, []byte(" HTTP/1.1"))), "?")
	if query != "" {
		values, _ := url.ParseQuery(query)
		for _, k := range [...]string{"EIO", "transport", "t", "sid", "b64", "nsp", "refusals"} {
			values.Del(k) // the protocol's own
		}
		query = values.Encode()
	}
	certificate := ""
	if state := adm.shake.tls; state != nil && len(state.PeerCertificates) > 0 {
		certificate = string(state.PeerCertificates[0].Raw)
	}
	// Of the session the id is known, and its cookie may be signed anew each time;
	// unless it is in there, where that of a tab which was opened before a page
	// changed it is another one.
	session := ""
	if adm.ref.store != nil && !adm.ref.store.inCookie.Load() {
		session = adm.ref.name
	}
	b := heads.Get().(*bytes.Buffer)
	defer heads.Put(b)
	b.Reset()
	b.Write(binary.AppendUvarint(b.AvailableBuffer(), adm.mount.number))
	for _, part := range [...]string{target, query, withoutPort(adm.shake.remote), certificate} {
		b.Write(binary.AppendUvarint(b.AvailableBuffer(), uint64(len(part)))) // no part can pass for two
		b.WriteString(part)
	}
	for part := range strings.SplitSeq(adm.shake.cookies, ";") {
		part = strings.TrimSpace(part)
		switch name, _, _ := strings.Cut(part, "="); name {
		case session, sticky, visitorCookie, "__Host-" + visitorCookie: // no chain's business
		default:
			b.WriteString(part)
			b.WriteByte(';') // there is none in a cookie
		}
	}
	b.WriteByte('\n')
	b.Write(headers)
	sum := sha256.Sum256(b.Bytes())
	adm.binding = "\x00" + string(sum[:16]) // no session's id begins so
}

// close stops replays; one that is running ends with its context.
func (f *follower) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// add binds s to the credential of its handshake. Whoever ends the session from
// here on finds the socket; whoever did before has left a tombstone, which is
// for the caller to look at. If the session was saved since the chain ran, it may
// have changed between then and now, and the socket is looked at again.
func (f *follower) add(s *Socket, adm *admission) {
	f.mu.Lock()
	b := f.hangLocked(s, adm)
	s.checked = f.now()
	changed := f.sinceLocked(s, adm.seen)
	f.mu.Unlock()
	if changed || !adm.ends.IsZero() && !time.Now().Before(adm.ends) { // or it has expired meanwhile
		f.trigger(b)
	}
}

// hangLocked binds s to what adm has found.
func (f *follower) hangLocked(s *Socket, adm *admission) *binding {
	b := f.bindLocked(s, adm.sessionID, adm.binding, adm.ends)
	s.ref = adm.ref
	f.noteOthersLocked(b, adm.others)
	b.dueLocked(time.Unix(0, adm.ran))
	if adm.visitor != "" {
		b.visitor = adm.visitor
		f.visitors[adm.visitor] = append(f.visitors[adm.visitor], s)
	}
	return b
}

// catchUp has s looked at again if since it was seen something has changed that
// it could not be told of, as it could not be found in its namespace.
func (f *follower) catchUp(s *Socket, seen uint64) {
	if f.missed(s, seen) {
		f.recheck(s)
	}
}

// recheck has s looked at again.
func (f *follower) recheck(s *Socket) {
	f.mu.Lock()
	b := s.binding
	f.mu.Unlock()
	if b != nil {
		f.trigger(b)
	}
}

// supersede reports whether what a run of the chain has found, which began at a
// time and loaded a session, is newer than what s is known by: whether it began
// when that had ended, and s has not gone on to another session meanwhile. Of two
// runs that overlap, nobody can tell which has seen the later truth. The first
// counts, and a third decides.
func (f *follower) supersede(s *Socket, sessionID string, began time.Duration) bool {
	f.mu.Lock()
	newer := began >= s.checked && s.sessionID == sessionID
	if newer {
		s.checked = f.now()
	}
	f.mu.Unlock()
	if !newer {
		f.recheck(s)
	}
	return newer
}

func (f *follower) bindLocked(s *Socket, sessionID, key string, ends time.Time) *binding {
	var b *binding
	if key != "" {
		for b = f.bindings[group(sessionID, key)]; b != nil && b.key != key; b = b.next {
		}
	}
	if b == nil {
		b = &binding{f: f, key: key, sessionID: sessionID, ran: f.now()}
		b.extendLocked(ends)
		if key != "" {
			b.next = f.bindings[group(sessionID, key)]
			f.bindings[group(sessionID, key)] = b
			if f.hashed != nil && sessionID != "" && b.next == nil {
				f.hashed[hashSession(sessionID)] = sessionID
			}
		}
		// The first interval is a random part of one, so that sockets that
		// came together are not replayed together for ever.
		wait := time.Duration(0)
		if every := f.srv.cfg.Revalidate; every > 0 {
			wait = every/2 + rand.N(every/2+1)
		}
		if wait = b.untilEndLocked(wait); wait > 0 {
			f.srv.eng.Wheel().Set(&b.timer, time.Now().Add(wait), b)
		}
	} else {
		b.extendLocked(ends)
		b.watchLocked()
	}
	b.sockets = append(b.sockets, s)
	s.binding, s.sessionID = b, sessionID
	return b
}

// dueLocked has the binding replayed no later than if it had been bound when the chain
// has said who its socket is. That may be a moment ago; of what is longer ago the chain
// is asked again, see Socket.ask.
func (b *binding) dueLocked(ran time.Time) {
	every := b.f.srv.cfg.Revalidate
	if age := time.Since(ran); every > 0 && age > every/10 && age <= freshFor && !b.queued && !b.running {
		b.f.srv.eng.Wheel().SetBefore(&b.timer, time.Now().Add(max(every-age, 0)), b)
	}
}

// endGrain is by how much a session may be there for longer than was noted: stores
// count in whole seconds, each in its own way. One that is there still has been
// extended where nobody tells of it, and nothing is known of its end any more.
const endGrain = 3 * time.Second

// toldLocked notes what the session itself says of when it expires, as a replay has
// read it: a page may have given it less than it had. Only under a Toucher that is
// not the last word.
func (b *binding) toldLocked(l *loaded) {
	touched := false
	if l.store != nil && b.f.srv.cfg.Rolling {
		_, touched = l.store.inner.(Toucher)
	}
	if !touched {
		b.ends = 0
	}
	b.extendLocked(l.expires)
}

// extendLocked notes when the binding's session expires. Later is truer: where a
// store extends sessions without writing them, what they say is the least.
func (b *binding) extendLocked(ends time.Time) {
	if at := ends.Sub(b.f.began); !ends.IsZero() && at > b.ran-endGrain {
		b.ends = max(b.ends, at)
	}
}

// untilEndLocked returns how long to wait for the next replay, if else it would be
// after wait, or never where that is zero: no longer than until the session expires.
func (b *binding) untilEndLocked(wait time.Duration) time.Duration {
	if b.ends == 0 {
		return wait
	}
	left := b.ends - b.f.now()
	if left <= 0 {
		left = endGrain / 3 // it should be over
	}
	if left = max(left, replayGap); wait > 0 {
		left = min(left, wait)
	}
	return left
}

// watchLocked has the binding replayed when its session expires.
func (b *binding) watchLocked() {
	if wait := b.untilEndLocked(0); wait > 0 && !b.queued && !b.running {
		b.f.srv.eng.Wheel().SetBefore(&b.timer, time.Now().Add(wait), b)
	}
}

// hasEndedLocked reports whether the session should be over by now.
func (b *binding) hasEndedLocked() bool { return b.ends != 0 && b.f.now() >= b.ends }

// remove takes s off its binding.
func (f *follower) remove(s *Socket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unbindLocked(s)
}

func (f *follower) unbindLocked(s *Socket) {
	b := s.binding
	if b == nil {
		return
	}
	s.binding = nil
	if b.visitor != "" {
		f.visitors[b.visitor] = slices.DeleteFunc(f.visitors[b.visitor], func(other *Socket) bool { return other == s })
		if len(f.visitors[b.visitor]) == 0 {
			delete(f.visitors, b.visitor)
		}
	}
	for i, other := range b.sockets {
		if other == s {
			last := len(b.sockets) - 1
			b.sockets[i], b.sockets[last] = b.sockets[last], nil
			b.sockets = b.sockets[:last]
			break
		}
	}
	if len(b.sockets) == 0 {
		f.srv.eng.Wheel().Stop(&b.timer)
		f.forgetOthersLocked(b)
		f.forgetLocked(b)
	}
}

func (f *follower) forgetLocked(b *binding) {
	if b.key == "" {
		return
	}
	g := group(b.sessionID, b.key)
	if f.bindings[g] == b {
		if b.next == nil {
			delete(f.bindings, g)
			f.unhashLocked(b.sessionID)
		} else {
			f.bindings[g] = b.next
		}
		return
	}
	for p := f.bindings[g]; p != nil; p = p.next {
		if p.next == b {
			p.next = b.next
			return
		}
	}
}

// group is where a binding is listed: with the others of its session, so that
// ending a session finds them all.
func group(sessionID, key string) string { return cmp.Or(sessionID, key) }

func (f *follower) changeCount() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes.count
}

// missed reports whether who s is may have changed since the changes were counted.
func (f *follower) missed(s *Socket, seen uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sinceLocked(s, seen)
}

// ofSessionLocked returns the bindings of one session, whatever else their
// requests carried.
func (f *follower) ofSessionLocked(id string) (found []*binding) {
	for b := f.bindings[id]; b != nil && id != ""; b = b.next {
		found = append(found, b)
	}
	return found
}

// saved is told of every save of a session, by its hash, and by its id if it may
// have sockets here.
func (f *follower) saved(id string, h sessionHash) {
	f.mu.Lock()
	f.changes.add(mark{bySession, h})
	found := append(f.ofSessionLocked(id), f.others.bindings[id]...)
	f.mu.Unlock()
	for _, b := range found {
		f.trigger(b)
	}
}

// sockets returns the sockets of a session.
func (f *follower) sockets(sessionID string) []*Socket {
	if sessionID == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*Socket
	for _, b := range f.ofSessionLocked(sessionID) {
		all = append(all, b.sockets...)
	}
	return all
}

// sessionOf returns the id of the session with a hash, "" if it has no sockets.
func (f *follower) sessionOf(h sessionHash) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hashed[h]
}

// move lets the sockets of one session follow it to its new id.
func (f *follower) move(from, to string, cookie *http.Cookie) {
	f.mu.Lock()
	moved := make(map[*binding]struct{})
	for _, b := range f.ofSessionLocked(from) {
		besides := f.others.of[b]
		for _, s := range append([]*Socket(nil), b.sockets...) {
			shake := s.shake.Load().withCookies([]*http.Cookie{cookie})
			s.shake.Store(shake)
			if over, ok := s.link.(*sioSocket); ok {
				over.follow(to, shake)
			}
			ran := b.ran
			f.unbindLocked(s)
			now := f.bindLocked(s, to, b.key, time.Time{})
			f.noteOthersLocked(now, besides)
			now.inherit(ran)
			moved[now] = struct{}{}
		}
	}
	f.mu.Unlock()
	for b := range moved {
		f.trigger(b)
	}
}

// inherit lets a binding that was made for one socket be replayed as soon as the
// one that it had before could have been.
func (b *binding) inherit(ran time.Duration) {
	if len(b.sockets) == 1 {
		b.ran = ran
	}
}

// rebind binds s to another credential of its user, and has it looked at.
func (f *follower) rebind(s *Socket, adm *admission) {
	f.mu.Lock()
	if s.binding == nil { // it has ended
		f.mu.Unlock()
		return
	}
	s.shake.Store(adm.shake)
	ran := s.binding.ran
	f.unbindLocked(s)
	b := f.hangLocked(s, adm)
	b.inherit(ran)
	f.mu.Unlock()
	f.trigger(b)
}
