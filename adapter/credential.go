package adapter

import (
	"net/http"
	"net/url"
	"strings"
)

// A Source is a place where a client may put a token. The token is moved into
// the Authorization header of the request that the chain sees, where every
// ordinary middleware looks, and is seen nowhere else.
type Source struct{ query string }

// Query takes the token from the query parameter of the given name. Browsers
// cannot set headers on a WebSocket, so this is what they have without cookies;
// but URLs end up in logs. Mount therefore refuses Query credentials below
// gin.Logger, which writes the raw query before any handler can clear it.
func Query(name string) Source { return Source{query: name} }

// moveCredentials returns r, or a copy whose token stands in Authorization with
// the scheme written as "Bearer": middlewares compare it as it stands, clients
// send it in any case. A header that the client sent itself wins over other
// places.
func (s *Server) moveCredentials(r *http.Request) (*http.Request, *Error) {
	var token string
	query := r.URL.Query()
	found := false
	for _, src := range s.cfg.Credentials {
		if src.query == "" || !query.Has(src.query) {
			continue
		}
		if token == "" {
			token = query.Get(src.query)
		}
		query.Del(src.query)
		found = true
	}
	header := r.Header.Get("Authorization")
	canonical := strings.HasPrefix(header, "Bearer ") || trimScheme(header) == header
	if !found && canonical {
		return r, nil
	}
	if strings.ContainsFunc(token, func(c rune) bool { return c < ' ' || c > '~' }) {
		// It becomes a header: no line breaks, nothing but visible ASCII.
		return nil, &Error{Code: CodeBadRequest, Message: "expected a token of visible ASCII characters"}
	}
	moved := *r
	moved.Header = r.Header.Clone()
	moved.URL = new(url.URL)
	*moved.URL = *r.URL
	if found {
		moved.URL.RawQuery = query.Encode()
	}
	moved.RequestURI = moved.URL.RequestURI()
	switch {
	case header != "" && trimScheme(header) != header:
		moved.Header.Set("Authorization", "Bearer "+trimScheme(header))
	case header == "" && token != "":
		moved.Header.Set("Authorization", "Bearer "+trimScheme(token))
	}
	return &moved, nil
}

// trimScheme drops the scheme in front of a token, in any case.
func trimScheme(token string) string {
	if len(token) > 7 && strings.EqualFold(token[:7], "bearer ") {
		return strings.TrimSpace(token[7:])
	}
	return token
}
