package adapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A Source is a place where a client may put its credential. The token is moved
// into the Authorization header of the request that the chain sees, where every
// ordinary middleware looks, and is seen nowhere else: the scheme is written as
// "Bearer" whatever the client wrote.
//
// A client that shows several is known by the Authorization header that it sent
// itself, or else by the first in the order of Config.Credentials. What comes
// later, AuthPayload and FirstMessage, is of the socket that it is sent for, and
// decides for that socket alone.
type Source struct {
	place  place
	name   string
	cookie string // of QuerySession
}

type place uint8

const (
	inQuery place = iota + 1
	inSubprotocol
	inAuth
	inFirstMessage
	inQuerySession
)

// Query takes the token from the query parameter of the given name. Browsers
// cannot set headers on a WebSocket, so this is what they have without cookies;
// but URLs end up in logs. Mount therefore refuses Query credentials below
// gin.Logger, which writes the raw query before any handler can clear it.
func Query(name string) Source { return Source{place: inQuery, name: name} }

// Subprotocol takes the token from Sec-WebSocket-Protocol, the one header that
// scripts can set: it stands behind the given name, as in
// new WebSocket(url, ["bearer", token]). The answer names the first and never
// the token. A token has to consist of what RFC 9110 allows in a token, as that
// of a JWT does.
func Subprotocol(name string) Source { return Source{place: inSubprotocol, name: name} }

// AuthPayload takes the token from the member of the given name of what a
// Socket.IO client gives as auth: io(url, {auth: {token}}). The chain runs for
// that namespace's socket with the token, and for that socket only: a token for
// "/admin" does not change who "/" is. Socket.Auth has the payload as it came,
// token included.
func AuthPayload(name string) Source { return Source{place: inAuth, name: name} }

// FirstMessage takes the token from a message "authenticate" after connecting:
// {"type":"authenticate","token":"…"} in the plain format, the event
// "authenticate" with {token} or the token itself in Socket.IO. It is answered.
//
// It may be sent again to replace a token before it expires. A socket whose
// Identity has Expires, and whose client is known by a token in Authorization,
// wherever in Credentials it stood, is sent the event "token required" with
// {"expires": RFC 3339 in UTC}: a minute before, or when half of what is left has
// passed if that is less than two minutes; once for each token. If no fresh one
// comes it ends at Expires. Of a Socket.IO connection each namespace's socket is
// told, and shows a token, for itself.
//
// Apps cannot have events of these two names then. A plain WebSocket that asks to
// be told of refusals (?refusals=close) is told at once that it has no credential,
// and does not wait for a message.
func FirstMessage() Source { return Source{place: inFirstMessage} }

// QuerySession takes the value of the session's cookie from a query parameter,
// for clients that are not browsers and cannot keep cookies: an old way of
// older stacks. Whoever learns the URL has the session, and a page could plant
// one into its visitor's socket. So it is refused to every client that sends an
// Origin or Sec-Fetch-Site, as browsers do, and a cookie that is there wins.
func QuerySession(parameter, cookie string) Source {
	return Source{place: inQuerySession, name: parameter, cookie: cookie}
}

// ofProtocol are query parameters that belong to the protocols.
var ofProtocol = []string{"EIO", "transport", "t", "sid", "b64", "j", "nsp", "refusals"}

// check says what is wrong with a source, if anything.
func (c Source) check() error {
	switch {
	case c.place == 0:
		return errors.New("expected Query, Subprotocol, AuthPayload, FirstMessage or QuerySession, got nothing")
	case c.place == inFirstMessage:
		return nil
	case c.name == "":
		return errors.New("expected a name, got none")
	case (c.place == inQuery || c.place == inQuerySession) && slices.Contains(ofProtocol, c.name):
		return fmt.Errorf("expected a query parameter that the protocol does not use, got %q", c.name)
	case c.place == inSubprotocol && !isToken(c.name):
		return fmt.Errorf("expected the name of a subprotocol, got %q", c.name)
	case c.place == inQuerySession && !isToken(c.cookie):
		return fmt.Errorf("expected the name of the session's cookie, got %q", c.cookie)
	}
	return nil
}

// inURL reports whether credentials stand in URLs.
func (c Source) inURL() bool { return c.place == inQuery || c.place == inQuerySession }

// takes reports whether a credential may stand in the given place.
func (s *Server) takes(p place) bool {
	return slices.ContainsFunc(s.cfg.Credentials, func(c Source) bool { return c.place == p })
}

// A shown is what a request shows of credentials.
type shown struct {
	req         *http.Request // with the credential where middlewares look, and nowhere else
	subprotocol string        // to be named in the answer
}

// moveCredentials returns r, or a copy whose token stands in Authorization with
// the scheme written as "Bearer": middlewares compare it as it stands, clients
// send it in any case. What is wrong with a credential does not keep it where it
// stood.
func (s *Server) moveCredentials(r *http.Request) (shown, *Error) {
	m := mover{req: r}
	header := r.Header.Get("Authorization")
	if token, ok := cutBearer(header); ok && header != "Bearer "+token {
		m.headers().Set("Authorization", "Bearer "+token)
	}
	var wrong *Error
	for _, c := range s.cfg.Credentials {
		if e := m.move(c); wrong == nil {
			wrong = e
		}
	}
	if m.token != "" && header == "" {
		m.headers().Set("Authorization", "Bearer "+m.token)
	}
	if m.query != nil {
		u := *m.req.URL
		u.RawQuery = m.query.Encode()
		m.own()
		m.req.URL, m.req.RequestURI = &u, u.RequestURI()
	}
	return shown{m.req, m.subprotocol}, wrong
}

// A mover moves the credentials of one request, of which it makes a copy when
// there is something to change.
type mover struct {
	req         *http.Request
	owned       bool
	query       url.Values // changed; nil if it is not
	token       string
	subprotocol string
}

func (m *mover) own() {
	if !m.owned {
		r := *m.req
		r.Header = m.req.Header.Clone()
		m.req, m.owned = &r, true
	}
}

func (m *mover) headers() http.Header {
	m.own()
	return m.req.Header
}

// move takes the credential out of the place that c names.
func (m *mover) move(c Source) *Error {
	switch c.place {
	case inQuery:
		if token, ok := m.cutQuery(c.name); ok {
			return m.take(token)
		}
	case inQuerySession:
		value, ok := m.cutQuery(c.name)
		if !ok {
			return nil
		}
		if m.req.Header.Get("Origin") != "" || m.req.Header.Get("Sec-Fetch-Site") != "" {
			return &Error{Code: CodeForbidden, Message: fmt.Sprintf("a session in the query parameter %q is for clients that are not browsers: they send Origin or Sec-Fetch-Site", c.name)}
		}
		if _, err := m.req.Cookie(c.cookie); err == nil || value == "" {
			return nil
		}
		if !isCookieValue(value) {
			return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("expected the value of a cookie in the query parameter %q", c.name)}
		}
		m.headers()
		m.req.AddCookie(&http.Cookie{Name: c.cookie, Value: value})
	case inSubprotocol:
		lines := m.req.Header.Values("Sec-Websocket-Protocol")
		names := strings.Split(strings.Join(lines, ","), ",")
		for i := range names {
			names[i] = strings.TrimSpace(names[i])
		}
		at := slices.Index(names, c.name)
		if at < 0 {
			return nil
		}
		if at+1 == len(names) {
			return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("expected a token behind the subprotocol %q", c.name)}
		}
		token := names[at+1]
		m.subprotocol = c.name
		names = slices.Delete(names, at+1, at+2)
		if slices.Contains(names[at+1:], c.name) {
			m.headers().Set("Sec-Websocket-Protocol", c.name) // without the other token, wherever it ends
			return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("expected the subprotocol %q once", c.name)}
		}
		m.headers().Set("Sec-Websocket-Protocol", strings.Join(names, ", "))
		return m.take(token)
	}
	return nil
}

// cutQuery takes a parameter out of the query.
func (m *mover) cutQuery(name string) (value string, ok bool) {
	query := m.query
	if query == nil {
		query = m.req.URL.Query()
	}
	if !query.Has(name) {
		return "", false
	}
	value = query.Get(name)
	query.Del(name)
	m.query = query
	return value, true
}

// take keeps the first token.
func (m *mover) take(token string) *Error {
	token, e := cleanToken(token)
	if m.token == "" {
		m.token = token
	}
	return e
}

// cleanToken returns a token without the scheme that clients put in front of it.
// It becomes a header: no line breaks, nothing but visible ASCII.
func cleanToken(token string) (string, *Error) {
	if bare, ok := cutBearer(token); ok {
		token = bare
	}
	if len(token) > maxToken || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", &Error{Code: CodeBadRequest, Message: fmt.Sprintf("expected a token of at most %d visible ASCII characters", maxToken)}
	}
	return token, nil
}

// maxToken is in bytes: what servers commonly take as one header.
const maxToken = 8 << 10

// cutBearer returns what stands behind the scheme "Bearer", in any case.
func cutBearer(token string) (bare string, ok bool) {
	if len(token) > 7 && strings.EqualFold(token[:6], "bearer") && (token[6] == ' ' || token[6] == '\t') {
		return strings.TrimSpace(token[7:]), true
	}
	return token, false
}

// bareToken returns the token of an Authorization header, "" if it has a scheme that
// is not "Bearer". Many middlewares take one without a scheme too.
func bareToken(authorization string) string {
	token, ok := cutBearer(authorization)
	if !ok && strings.ContainsAny(token, " \t") {
		return ""
	}
	return token
}

// authToken returns the token of a CONNECT's auth.
func (s *Server) authToken(auth json.RawMessage) (token string, e *Error) {
	if auth == nil {
		return "", nil
	}
	for _, c := range s.cfg.Credentials {
		if c.place != inAuth {
			continue
		}
		var members map[string]json.RawMessage
		if json.Unmarshal(auth, &members) != nil || members[c.name] == nil {
			continue
		}
		if json.Unmarshal(members[c.name], &token) != nil {
			return "", &Error{Code: CodeBadRequest, Message: fmt.Sprintf("expected auth.%s to be a string", c.name)}
		}
		if token != "" {
			return cleanToken(token)
		}
	}
	return "", nil
}

// isCookieValue reports whether value is one by RFC 6265, section 4.1.1.
func isCookieValue(value string) bool {
	return !strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`",;\`, c) })
}
