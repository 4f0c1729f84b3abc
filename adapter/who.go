package adapter

import (
	"bytes"
	"slices"
	"strings"
)

// Who says whose sockets and sessions are meant. Its zero value is nobody's.
type Who struct {
	by    by
	value string
}

// ByUser is everything of one user.
func ByUser(id string) Who { return Who{byUser, id} }

// BySession is one session, by Identity.SessionID.
func BySession(id string) Who { return Who{bySession, id} }

// ByToken is everything that was opened with one token: what stands in
// Authorization, with "Bearer" in front or without.
func ByToken(token string) Who {
	token, _ = cutBearer(token)
	return Who{byToken, withoutSignature(token)}
}

// ByProvider is everybody who has logged in with one provider.
func ByProvider(name string) Who { return Who{byProvider, name} }

// whos are all by which one socket may be meant, those that it has none of without
// a value.
type whos [4]Who

func whosOf(id *Identity, sessionID, token string) whos {
	all := whos{BySession(sessionID), ByToken(token)}
	if id != nil {
		all[2], all[3] = ByUser(id.UserID), ByProvider(id.Provider)
	}
	return all
}

// withoutSignature returns what is signed of a JWT, and any other token as it is.
// The signature can be written in several ways that verify: base64 of most sizes
// ends in bits that decoders ignore (RFC 4648, section 3.5), and those of elliptic
// curves have twins. What is signed has one.
func withoutSignature(token string) string {
	if at := strings.LastIndexByte(token, '.'); strings.HasPrefix(token, "ey") && strings.Count(token, ".") == 2 {
		return token[:at]
	}
	return token
}

// authorization returns what the handshake shows in Authorization, "" if nothing.
func (h *Handshake) authorization() string {
	_, rest, _ := bytes.Cut(h.head, []byte("\r\nAuthorization: "))
	line, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(line)
}

// token returns the token that the handshake shows there, "" if none.
func (h *Handshake) token() string { return bareToken(h.authorization()) }

// socketsOf returns the open sockets that are meant.
func (s *Server) socketsOf(w Who) (found []*Socket) {
	var meant func(*Socket) bool
	switch w.by {
	case bySession:
		return s.follow.named(w.value)
	case byUser:
		for _, n := range s.spaces() {
			found = n.users.Select(found, []string{w.value}, nil)
		}
		return found
	case byProvider:
		meant = func(sock *Socket) bool { id := sock.Identity(); return id != nil && id.Provider == w.value }
	case byToken:
		meant = func(sock *Socket) bool { return withoutSignature(sock.shake.Load().token()) == w.value }
	}
	return slices.DeleteFunc(s.sockets(), func(sock *Socket) bool { return meant == nil || !meant(sock) })
}
