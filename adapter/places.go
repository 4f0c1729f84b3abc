package adapter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gin-usher/usher/adapter/backplane"
)

// places are where one user is signed in.
type places struct {
	of  map[string]*signIn
	now time.Time
}

// A signIn is what is known of one of them.
type signIn struct {
	SessionInfo
	stored bool // by a SessionLister, which knows best
}

func newPlaces() *places { return &places{make(map[string]*signIn), time.Now()} }

// keep adds what a SessionLister tells.
func (p *places) keep(of StoredSession) {
	p.of[of.Handle] = &signIn{SessionInfo{
		Handle: of.Handle, Address: of.Address, Agent: of.Agent, Since: of.Since, Used: of.Used,
	}, true}
}

// open adds open sockets.
func (p *places) open(at SessionInfo) {
	key := at.Handle
	if key == "" {
		key = "\x00" + at.Address + "\x00" + at.Agent // no handle begins so
	}
	of := p.of[key]
	if of == nil {
		of = &signIn{SessionInfo: at}
		of.Sockets = 0
		p.of[key] = of
	}
	of.Used = p.now
	of.Sockets += at.Sockets
	if !of.stored && at.Since.Before(of.Since) {
		of.Since = at.Since
	}
}

// openHere adds the open sockets of this node.
func (p *places) openHere(s *Server, mine func(*Identity) bool) {
	for _, sock := range s.sockets() {
		if mine(sock.Identity()) {
			p.open(sock.place())
		}
	}
}

// latest returns the places, the one used last first, and not more than
// MaxSessions.
func (p *places) latest() []SessionInfo {
	all := make([]SessionInfo, 0, len(p.of))
	for _, of := range p.of {
		all = append(all, of.SessionInfo)
	}
	slices.SortFunc(all, func(a, b SessionInfo) int {
		return cmp.Or(b.Used.Compare(a.Used), b.Since.Compare(a.Since), cmp.Compare(a.Handle, b.Handle))
	})
	return all[:min(len(all), MaxSessions)]
}

// isUser tells identities of the user with an id.
func isUser(id string) func(*Identity) bool {
	return func(of *Identity) bool { return of != nil && of.UserID == id }
}

// isSubject tells identities of the user that another node means.
func isSubject(m *backplane.Message) func(*Identity) bool {
	return func(of *Identity) bool {
		return of != nil && m.Of.Kind == string(byUser) && hashOf(byUser, of.UserID) == m.Of.Hash
	}
}

// locate asks the other nodes where a user has open sockets. Besides what they
// have answered there is an error if it is not all of them.
func (s *Server) locate(ctx context.Context, userID string) (all []SessionInfo, err error) {
	c := s.cluster
	if c == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answers, err := c.collect(ctx, &backplane.Message{Kind: backplane.Locate, Of: ByUser(userID).mark().subject()})
	if err != nil {
		err = fmt.Errorf("adapter: sessions: %w", err)
	}
	now := time.Now()
	for _, m := range answers {
		for _, at := range m.Places[:min(len(m.Places), MaxSessions)] {
			if at.Sockets <= 0 || s.hasEnded(at.Handle) {
				continue // the other node is about to close them
			}
			since := at.Since
			if since.After(now) { // by another clock
				since = now
			}
			all = append(all, SessionInfo{
				Handle: handleOf(at.Handle), Address: clip(at.Address), Agent: clip(at.Agent),
				Since: since, Sockets: min(at.Sockets, maxCalled),
			})
		}
	}
	return all, err
}

// hasEnded reports whether what a handle stands for was ended.
func (s *Server) hasEnded(handle [32]byte) bool {
	return s.ended.hasHash(handle) || s.revoked.has(mark{byToken, handle})
}

// located tells another node where the user that it means has open sockets here.
func (c *cluster) located(m *backplane.Message) *backplane.Message {
	here := newPlaces()
	here.openHere(c.srv, isSubject(m))
	answer := &backplane.Message{Kind: backplane.Located}
	for _, at := range here.latest() {
		h, _ := hashOfHandle(at.Handle)
		answer.Places = append(answer.Places, backplane.Place{
			Handle: h, Address: at.Address, Agent: at.Agent, Since: at.Since, Sockets: at.Sockets,
		})
	}
	return answer
}

// signOut ends what a handle stands for, if a socket here is identified by it and
// is the user's. It returns how many sockets there were.
func (s *Server) signOut(ctx context.Context, mine func(*Identity) bool, handle string) (found bool, closed int, err error) {
	for _, sock := range s.sockets() {
		if !mine(sock.Identity()) || sock.handle() != handle {
			continue
		}
		found = true
		who := BySession(sock.SessionID())
		if who.value == "" {
			who = ByToken(sock.shake.Load().token())
		}
		if who.value == "" {
			continue // it has ended or changed meanwhile
		}
		closed, err = s.Revoke(ctx, who)
		break // all that have this handle hang on it
	}
	return found, closed, err
}

// signOutElsewhere is signOut on the other nodes: only one with a socket knows
// what the handle stands for, and can delete the session. What it ends it tells
// all others, so those that do not answer count only if none has found anything.
func (s *Server) signOutElsewhere(ctx context.Context, userID, handle string) (found bool, err error) {
	c := s.cluster
	h, ok := hashOfHandle(handle)
	if c == nil || !ok {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answers, err := c.collect(ctx, &backplane.Message{
		Kind: backplane.SignOut, Of: ByUser(userID).mark().subject(), Places: []backplane.Place{{Handle: h}},
	})
	for _, m := range answers {
		if len(m.Places) > 0 {
			return true, nil
		}
	}
	if err != nil {
		err = fmt.Errorf("adapter: end session: %w", err)
	}
	return false, err
}

// A signingOut is the task that does signOut for another node.
type signingOut struct{ *task }

func (o signingOut) Run() {
	defer o.end()
	answer := &backplane.Message{Kind: backplane.Located}
	switch found, err := o.try(); {
	case err != nil:
		o.c.srv.log.Warn("a session that another node has signed out could not be deleted", "error", err)
		answer.Err = &backplane.Error{Code: CodeUnavailable, Message: "the sockets are closed, and the session could not be deleted"}
	case found:
		answer.Places = o.m.Places
	}
	o.c.answer(o.task, o.m, answer)
}

func (o signingOut) try() (found bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("adapter: the store panicked: %v", v)
		}
	}()
	handle := handleOf(o.m.Places[0].Handle)
	if handle == "" {
		return false, nil // it is that of all sockets which have none
	}
	found, _, err = o.c.srv.signOut(o.ctx, isSubject(o.m), handle)
	return found, err
}

// signOutHere begins a signingOut.
func (c *cluster) signOutHere(t *task, m *backplane.Message) (waits bool, err error) {
	if t == nil || len(m.Places) != 1 {
		return false, errors.New("expected who asks to sign out to name one place, and what the answer refers to")
	}
	c.srv.eng.Go(signingOut{t})
	return true, nil
}
