package adapter

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// authenticateEvent is the message of FirstMessage.
const authenticateEvent = "authenticate"

// authenticate takes the credential of a first message, or a fresh one of a
// socket that is open already. It is a turn of the socket's.
func (s *Socket) authenticate(in incoming) {
	srv := s.ns.srv
	if !s.waiting.Load() && s.tooManyTokens() {
		s.link.fail(in, &Error{Code: CodeTooFast, Message: fmt.Sprintf("expected at most %d tokens in %d seconds", maxTokens, paceWindow)})
		return
	}
	p := s.link.pending()
	tried, e := p.try(s.Context())
	if e != nil {
		s.link.fail(in, e)
		return
	}
	defer tried(false)
	if !srv.begin() {
		return // everything is about to be closed
	}
	defer srv.handshakes.Done()
	token, e := tokenOf(in)
	var adm *admission
	if e == nil {
		adm, e = srv.present(srv.ctx, s.shake.Load(), s.mount, func(h http.Header) { h.Set("Authorization", "Bearer "+token) })
	}
	if e == nil {
		e = s.mayBecome(adm)
	}
	tried(e != nil && e.undecided()) // before the answer, behind which the client may try again
	if e != nil {
		if s.waiting.Load() {
			s.undo()
		}
		s.denyToken(in, e)
		if e.undecided() {
			return
		}
		p.failed()
		if p == nil && s.failed() {
			s.close(ReasonUnauthorized)
		}
		return
	}
	s.become(adm) // before the answer: what the client sends behind it is for who it is now
	if !s.isClosed() {
		_ = s.link.reply(in, nothing{})
	}
}

// tokenOf returns the token of a first message: {token}, or the token itself.
func tokenOf(in incoming) (string, *Error) {
	var token string
	if len(in.args) > 0 && json.Unmarshal(in.args[0], &token) != nil {
		var members struct{ Token string }
		if json.Unmarshal(in.args[0], &members) == nil {
			token = members.Token
		}
	}
	if token == "" {
		return "", &Error{Code: CodeBadRequest, Message: `expected a "token"`}
	}
	return cleanToken(token)
}

// mayBecome decides whether the socket may be who adm says.
func (s *Socket) mayBecome(adm *admission) *Error {
	old, id := s.Identity(), adm.identity
	if err := s.ns.admits(id); err != nil {
		return s.visible(err, authenticateEvent)
	}
	switch {
	case s.ns.srv.over(adm):
		return &Error{Code: CodeSessionEnded, Message: "this session has ended; log in again"}
	case old != nil && !old.is(id):
		// Two people never share a socket.
		return &Error{Code: CodeForbidden, Message: "this socket is somebody else's; connect again"}
	}
	ctx := &eventContext{Context: s.Context(), socket: s, identity: id, keys: renewedKeys(s.left(), adm.keys)}
	let := false
	if s.waiting.Load() {
		// Guards may ask the socket as well as ctx, as they may within a handshake.
		was := s.pose(&admission{identity: id, keys: ctx.keys, shake: adm.shake, ref: adm.ref, sessionID: adm.sessionID})
		defer func() {
			if !let {
				s.pose(was)
			}
		}()
	}
	if err := s.ns.guard(ctx, s); err != nil {
		return s.visible(err, authenticateEvent)
	}
	let = true
	return nil
}

// pose gives a socket that waits, and that nobody can find therefore, what adm has
// found, and returns what it had.
func (s *Socket) pose(adm *admission) (was *admission) {
	was = &admission{identity: s.identity.Swap(adm.identity), shake: s.shake.Swap(adm.shake)}
	s.mu.Lock()
	was.keys, s.keys = s.keys, adm.keys
	s.mu.Unlock()
	f := &s.ns.srv.follow
	f.mu.Lock()
	was.ref, was.sessionID = s.ref, s.sessionID
	s.ref, s.sessionID = adm.ref, adm.sessionID
	f.mu.Unlock()
	return was
}

// become makes the socket that of who adm says, and opens it if it has waited.
func (s *Socket) become(adm *admission) {
	srv := s.ns.srv
	if !s.waiting.Load() {
		s.link.proven()
		srv.follow.rebind(s, adm)
		if srv.over(adm) {
			// Who has ended it since it was asked may have looked for its sockets
			// before this was one of them.
			s.close(ReasonSessionEnded)
			return
		}
		s.forgive()
		s.setIdentity(adm, ReasonSessionEnded)
		return
	}
	s.setLeft(adm.keys)
	s.shake.Store(adm.shake)
	s.identity.Store(adm.identity)
	s.waiting.Store(false)
	s.link.proven()
	srv.follow.add(s, adm)
	if !s.start(adm, nil) {
		srv.follow.remove(s)
	}
}

// maxTokens within paceWindow are all that an open socket may show, good ones too: each
// runs the chain, without those of its middlewares that limit handshakes.
const maxTokens = 20

// tooManyTokens counts one more.
func (s *Socket) tooManyTokens() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens.add() > maxTokens
}

// forgive forgets what an open socket has shown in vain before what it shows now.
func (s *Socket) forgive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = 0
}

// failed counts what an open socket shows in vain, one after the other.
func (s *Socket) failed() (tooOften bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures++
	return s.failures >= pendingAttempts
}

// present asks the chain who it is that connected with a handshake, if its
// credentials are changed.
func (s *Server) present(ctx context.Context, was *Handshake, m *mount, change func(http.Header)) (*admission, *Error) {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	like := was.Request(ctx)
	change(like.Header)
	now := &admission{mount: m, ran: time.Now().UnixNano(), seen: s.follow.changeCount(), token: like.Header.Get("Authorization")}
	var err error
	if now.shake, err = record(like); err != nil {
		return nil, s.refusal(err)
	}
	now.shake.issued = was.issued
	p := s.newReplay(m)
	p.req = like
	switch p.run(methodReplay) {
	case unknown:
		return nil, s.refusal(p.err)
	case refused:
		return nil, p.refused()
	}
	now.identity, now.keys = p.identity, p.keys
	now.hang(p)
	if now.isNobody() {
		now.visitor = visitorOf(like)
	}
	now.bind(s.cfg.Cookie)
	return now, nil
}
