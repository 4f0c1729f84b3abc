package adapter

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// by is what a Who, a mark and an Ending name somebody by. These words are in
// files and in messages of other nodes.
type by string

const (
	byUser     by = "user"
	bySession  by = "session"
	byToken    by = "token"
	byProvider by = "provider"
)

// known reports whether b is one of those above: what comes from outside may be
// anything.
func (b by) known() bool { return b == byUser || b == bySession || b == byToken || b == byProvider }

// A mark is a Who without what it says: enough to know them by when they come,
// and nothing to act with. It is what is kept in memory, written down and told
// to other nodes.
type mark struct {
	by   by
	hash [sha256.Size]byte
}

// A sessionHash is the hash of a mark of a session.
type sessionHash = [sha256.Size]byte

func (w Who) mark() mark { return mark{w.by, hashOf(w.by, w.value)} }

func hashSession(id string) sessionHash { return hashOf(bySession, id) }

func hashOf(b by, value string) [sha256.Size]byte {
	var room [128]byte // most values fit, and nothing is allocated
	p := append(room[:0], "usher "...)
	p = append(p, b...)
	p = append(p, ' ')
	return sha256.Sum256(append(p, value...))
}

// revocations are what Revoke has ended by something else than a session.
//
// Two questions are asked of them, by two clocks. Whether a handshake that is
// under way began before is a question of this process, and of its clock: born.
// Whether a login came before is one of the whole cluster: each session notes
// when Login made it, and each revocation has a date, the same on every node: at.
// See clockSkew and stamp for how these stay comparable while clocks differ.
type revocations struct {
	mu    sync.RWMutex
	of    map[mark]revocation
	sweep int
}

type revocation struct {
	at    int64     // logins before it are over; Unix nanoseconds
	born  time.Time // when it was made, by this node's clock
	until time.Time
}

// maxRevocations bounds the memory of revocations.
const maxRevocations = 1 << 18

// clockSkew is how far the clocks of a cluster may lie apart. A revocation is
// dated that much later than the clock says, so that a login made before it on a
// node whose clock is fast, or in front of a clock that is set back, is before it
// all the same. It costs nothing where the revocation is known, see stamp; where
// it has not arrived yet, logins of that minute are over when it does.
const clockSkew = time.Minute

// maxAhead is how far in the future another node's revocation may be dated, but
// no further than it is remembered: logins get stamps as late as that, and must
// not be later than a revocation of when this one is forgotten. One that is
// further ahead is dated anew by each node.
const maxAhead = 48 * time.Hour

// newRevocation is one of here and now, to be remembered for life.
func newRevocation(life time.Duration) revocation {
	now := time.Now()
	return revocation{at: now.Add(clockSkew).UnixNano(), born: now, until: now.Add(life)}
}

// add notes a revocation of this node, and returns it as it is dated.
func (v *revocations) add(m mark, r revocation) revocation {
	v.mu.Lock()
	defer v.mu.Unlock()
	// Later than the stamp that a login has got because of the one before.
	r.at = max(r.at, v.of[m].at+2)
	r, _ = v.addLocked(m, r)
	return r
}

// hear notes a revocation of another node, made some time ago. It reports
// whether it is news: those that are told again, or late, are not.
func (v *revocations) hear(m mark, at int64, ago, life time.Duration) (r revocation, news bool) {
	now := time.Now()
	born := now.Add(-ago)
	switch early, late := born.UnixNano(), now.Add(min(maxAhead, life)); {
	case at < early:
		// That clock is slow by more than clockSkew. Dated by ours, it spares no
		// login from before; those that the slow node makes in the meantime are
		// not believed until it is as late there.
		at = early
	case at > late.UnixNano():
		at = born.Add(clockSkew).UnixNano()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.addLocked(m, revocation{at: at, born: born, until: now.Add(life)})
}

func (v *revocations) addLocked(m mark, r revocation) (_ revocation, news bool) {
	now := time.Now()
	if !now.Before(r.until) {
		return r, false
	}
	if v.of == nil {
		v.of, v.sweep = make(map[mark]revocation), 1024
	}
	was, had := v.of[m]
	if had && was.until.After(r.until) {
		r.until = was.until
	}
	if news = !had || r.at > was.at; !news {
		r.at, r.born = was.at, was.born
	}
	v.of[m] = r
	if len(v.of) >= v.sweep {
		v.sweep = swept(v.of, maxRevocations, func(r revocation) bool { return now.After(r.until) })
	}
	return r, news
}

// none reports whether nothing was revoked: most servers, most of the time.
func (v *revocations) none() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.of) == 0
}

// find returns the last revocation of a Who.
func (v *revocations) find(w Who) (revocation, bool) {
	if w.value == "" {
		return revocation{}, false
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if len(v.of) == 0 {
		return revocation{}, false // before anything is hashed
	}
	r, ok := v.of[w.mark()]
	return r, ok && time.Now().Before(r.until)
}

// has reports whether what a mark stands for was revoked.
func (v *revocations) has(m mark) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	r, ok := v.of[m]
	return ok && time.Now().Before(r.until)
}

// stamp is the time that a login gets: now, but after every revocation of who
// logs in that is known here. So whoever is let in after a Revoke stays in on
// every node, whatever their clocks say.
func (v *revocations) stamp(user, provider string) int64 {
	at := time.Now().UnixNano()
	for _, w := range [...]Who{ByUser(user), ByProvider(provider)} {
		if r, ok := v.find(w); ok {
			at = max(at, r.at+1)
		}
	}
	return at
}

// A login is whose a session is, by its own values, and since when. Of one in a
// TokenStore that is nobody's yet, only the time is known.
type login struct {
	user, provider string
	at             int64 // Unix nanoseconds; 0 is before everything
}

func loginOf(values map[any]any) (l login) {
	l.user, _ = values[keyUser].(string)
	l.provider, _ = values[keyProvider].(string)
	text, _ := values[keyAt].(string)
	l.at, _ = strconv.ParseInt(text, 10, 64)
	return l
}

// login reports whether the login that a session notes was revoked since.
func (v *revocations) login(values map[any]any) bool {
	return !v.none() && v.ends(loginOf(values))
}

// ends reports whether a login was revoked since.
func (v *revocations) ends(l login) bool {
	if l.user == "" {
		return false
	}
	for _, w := range [...]Who{ByUser(l.user), ByProvider(l.provider)} {
		if r, ok := v.find(w); ok && r.at > l.at {
			return true
		}
	}
	return false
}

// token reports whether the token of a request was revoked, whenever.
func (v *revocations) token(authorization string) bool {
	_, ok := v.find(ByToken(bareToken(authorization)))
	return ok
}

// since reports whether w was revoked after t, a time of this node. One that is
// heard of late may have been before: then its user may have logged in again.
func (v *revocations) since(w Who, t time.Time) bool {
	r, ok := v.find(w)
	return ok && r.born.After(t)
}

// anySince reports whether who has logged in was revoked after t.
func (v *revocations) anySince(l login, t time.Time) bool {
	return v.since(ByUser(l.user), t) || v.since(ByProvider(l.provider), t)
}

// latest returns what other nodes are told: no more than limit, the latest.
func (v *revocations) latest(limit int) map[mark]revocation {
	now := time.Now()
	v.mu.RLock()
	all := maps.Clone(v.of)
	v.mu.RUnlock()
	maps.DeleteFunc(all, func(_ mark, r revocation) bool { return !now.Before(r.until) })
	if len(all) <= limit {
		return all
	}
	births := make([]time.Time, 0, len(all))
	for _, r := range all {
		births = append(births, r.born)
	}
	slices.SortFunc(births, time.Time.Compare)
	first := births[len(births)-limit]
	maps.DeleteFunc(all, func(_ mark, r revocation) bool { return r.born.Before(first) })
	return all
}
