package adapter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// A tokenView is what a visit knows of a session of a TokenStore that it has
// loaded or made.
type tokenView struct {
	deadline time.Time // as the manager has it
	login    login     // as it is stored
	saved    time.Time // when the visit has committed it first; zero if it has not
	fresh    bool      // nothing in it is from a session of before
	refused  bool      // it was ended by the visit itself: see believe
}

// load returns a session as it is now.
func (st *tokenStore) load(ctx context.Context, token string) (*tokenSession, error) {
	if st.srv.ended.has(token) {
		return nil, ErrSessionGone
	}
	b, found, err := st.find(ctx, token)
	if err != nil {
		return nil, fmt.Errorf("adapter: load session: %w", err)
	}
	if !found {
		return nil, ErrSessionGone
	}
	got, err := st.decode(b)
	if err != nil {
		return nil, err
	}
	if st.srv.revoked.login(got.values) {
		return nil, ErrSessionGone
	}
	return got, nil
}

// update is Session.Update, with the lock of the session held. The session ends
// when it would have ended without.
func (st *tokenStore) update(ctx context.Context, token string, f func(Values) error) error {
	got, err := st.load(ctx, token)
	if err != nil {
		return err
	}
	values := Values(maps.Clone(got.values))
	if err := f(values); err != nil {
		return err
	}
	if err := checkOwn(got.values, values); err != nil {
		return err
	}
	if st.srv.revoked.login(got.values) { // meanwhile
		return ErrSessionGone
	}
	next := &tokenSession{got.deadline, values}
	if hasOwn(got.values) && !hasOwn(values) {
		next.begin()
	}
	return st.write(ctx, token, next, got.expires())
}

// touch lets a session live for as long again as it may be idle, but not beyond its
// deadline. life is zero for one that may be idle until then.
func (st *tokenStore) touch(ctx context.Context, token string) (life time.Duration, ends time.Time, err error) {
	got, err := st.load(ctx, token)
	if err != nil {
		return 0, ends, err
	}
	ms, _ := got.values[keyIdle].(string)
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || n <= 0 {
		return 0, ends, nil
	}
	life = time.Duration(n) * time.Millisecond
	if ends = time.Now().Add(life); got.deadline.Before(ends) {
		ends = got.deadline
	}
	return life, ends, st.write(ctx, token, got, ends)
}

// save writes what a visit commits, where l is the session as it knows it and stored
// as the store does, nil if they do not. It returns what the visit knows from then on.
func (st *tokenStore) save(ctx context.Context, l *loaded, stored *tokenSession, token string, b []byte, expiry time.Time) (now *loaded, err error) {
	now = &loaded{tokens: st, id: token}
	seen, err := st.decode(b)
	if err != nil {
		return now, st.put(ctx, token, b, expiry) // of another codec, and the manager's alone
	}
	began := time.Now()
	next, fresh, err := st.next(visitOf(ctx), l, seen, stored)
	if err != nil {
		return nil, err
	}
	delete(next.values, keyIdle)
	if idle := expiry.Sub(began); expiry.Before(seen.deadline) && idle > 0 {
		next.values[keyIdle] = strconv.FormatInt(idle.Milliseconds(), 10)
	}
	if l != nil && l.view != nil && !l.view.saved.IsZero() {
		began, fresh = l.view.saved, fresh || l.view.fresh
	}
	if !next.deadline.Equal(seen.deadline) {
		// Another request has changed it, and has named an expiry that goes with it.
		expiry = stored.expires()
	}
	if o := visitOf(ctx).ownerFor(st); o != nil {
		o.sign(next, fresh)
	}
	if st.srv.revoked.login(next.values) {
		return nil, ErrSessionGone
	}
	if err := st.write(ctx, token, next, expiry); err != nil {
		return nil, err
	}
	now.base, now.expires = seen.values, expiry
	now.view = &tokenView{deadline: seen.deadline, login: loginOf(next.values), saved: began, fresh: fresh}
	return now, nil
}

// next is what a commit comes to, where seen is the session as the visit has it
// and stored as the store does, nil if it has none. fresh says that nothing in it is
// from a session of before.
func (st *tokenStore) next(v *visit, l *loaded, seen, stored *tokenSession) (next *tokenSession, fresh bool, err error) {
	next = &tokenSession{seen.deadline, maps.Clone(seen.values)}
	if v == nil || l == nil && stored != nil || l != nil && l.view == nil {
		next.trust(stored)
		return next, false, nil
	}
	from := v.sources(st, l)
	own, err := inherit(from, seen.values)
	if err != nil {
		return nil, false, err
	}
	cleared := own == nil && hasOwn(from...)
	if !cleared && slices.ContainsFunc(from, st.srv.revoked.login) {
		return nil, false, ErrSessionGone
	}
	switch {
	case l != nil && stored != nil:
		next.values = rebased(stored.values, l.base, seen.values)
		if seen.deadline.Equal(l.view.deadline) {
			next.deadline = stored.deadline // which another request may have changed
		}
		own = ownOf(stored.values)
	case own != nil:
		// The token is new, and what was in the session under its old one goes along.
		if base, was := v.carried(st); was != nil {
			next.values = rebased(was.values, base, seen.values)
		}
	}
	dropOwn(next.values)
	if fresh = cleared || len(from) == 0; fresh {
		next.begin()
	} else {
		maps.Copy(next.values, own)
	}
	return next, fresh, nil
}

// trust gives a session of which nobody knows what was loaded the adapter's own
// values that are stored. Of one that is not stored, all that can be believed is
// that it is older than now.
func (s *tokenSession) trust(stored *tokenSession) {
	claimed := loginOf(s.values).at
	dropOwn(s.values)
	if stored != nil {
		maps.Copy(s.values, ownOf(stored.values))
		return
	}
	s.begin()
	if claimed != 0 && claimed < time.Now().UnixNano() {
		s.values[keyAt] = strconv.FormatInt(claimed, 10)
	}
}

// begin notes since when there is what is in the session. Whose it is is noted
// when that is known.
func (s *tokenSession) begin() {
	s.values[keyAt] = strconv.FormatInt(time.Now().UnixNano(), 10)
}

// inherit returns which of the adapter's own values a commit keeps of the sessions
// whose values have come into it; none if they are all gone. They have to be as they
// were, as for checkOwn. MergeSession of scs puts one session's values into another's;
// then it is not known whose the result is, and it is as old as the oldest.
func inherit(from []map[any]any, values map[any]any) (own map[any]any, err error) {
	switch {
	case len(from) == 0:
		return nil, checkOwn(nil, values)
	case !hasOwn(values):
		return nil, nil
	case len(from) == 1:
		return ownOf(values), checkOwn(from[0], values)
	}
	for k, v := range ownOf(values) {
		if !slices.ContainsFunc(from, func(base map[any]any) bool { return base[k] != nil && unchanged(base[k], v) }) {
			return nil, checkOwn(nil, map[any]any{k: v})
		}
	}
	oldest := slices.MinFunc(from, func(a, b map[any]any) int { return cmp.Compare(loginOf(a).at, loginOf(b).at) })
	return map[any]any{keyAt: strconv.FormatInt(loginOf(oldest).at, 10)}, nil
}

// rebased returns stored with the changes that lead from base to seen.
func rebased(stored, base, seen map[any]any) map[any]any {
	values := maps.Clone(stored)
	rebase(values, base, seen)
	return values
}

// write keeps a session until it expires. The session's lock is held.
func (st *tokenStore) write(ctx context.Context, token string, s *tokenSession, expiry time.Time) error {
	if expiry.IsZero() {
		return errors.New("adapter: save session: its codec gives no deadline")
	}
	noteExpiry(s.values, expiry)
	b, err := st.encode(s)
	if err != nil {
		return err
	}
	return st.put(ctx, token, b, expiry)
}

// put stores the bytes of a session, unless it has ended or does so meanwhile.
func (st *tokenStore) put(ctx context.Context, token string, b []byte, expiry time.Time) error {
	if st.srv.ended.has(token) {
		return ErrSessionGone
	}
	for life := int64(time.Until(expiry)); ; {
		longest := st.life.Load()
		if life <= longest || st.life.CompareAndSwap(longest, life) {
			break
		}
	}
	err := st.commit(ctx, token, b, expiry)
	st.note(token)
	if st.srv.ended.has(token) {
		// What was written must not stay, nor what has failed and may be there all the
		// same. The deletion that ended the session may have come before the write.
		return errors.Join(ErrSessionGone, st.outlive(ctx, token, st.drop(ctx, token)))
	}
	if err != nil {
		return fmt.Errorf("adapter: save session: %w", err)
	}
	return nil
}
