package adapter

import (
	"context"
	"net/http"
	"strings"
)

// maxRivals is how many more values of cookies a handshake may bring than there
// are names: each is a run of the chain.
const maxRivals = 4

// checkRivals refuses a handshake whose cookies name two people. Pages of
// neighbours, https://evil.example.org beside https://chat.example.org, may set
// cookies for the whole domain and for one path, and browsers send those of the
// longer path first (RFC 6265, sections 5.4 and 8.6): with one for the sockets'
// path, the pages would be one person's and the sockets the attacker's. Which of
// the two is meant, no server can tell; so neither is let in. Values that name
// nobody are let be, as leftovers of an older path are.
func (s *Server) checkRivals(ctx context.Context, cookies string, adm *admission) *Error {
	if adm.identity == nil {
		return nil
	}
	rivals := rivalCookies(cookies)
	if len(rivals) > maxRivals {
		return &Error{Code: CodeBadRequest, Message: "expected each cookie once, got many values for the same names"}
	}
	for _, rival := range rivals {
		other, e := s.present(ctx, adm.shake, adm.mount, func(h http.Header) {
			h.Set("Cookie", rival+"; "+h.Get("Cookie")) // the first is the one that counts
		})
		switch {
		case e != nil && e.status() >= http.StatusInternalServerError:
			return e
		case e == nil && other.identity != nil && !other.identity.is(adm.identity):
			name, _, _ := strings.Cut(rival, "=")
			return &Error{Code: CodeBadRequest, Message: "the cookies of this request name two people: expected one cookie " + name}
		}
	}
	return nil
}

// rivalCookies returns those of a Cookie header that have a name which another one
// before them has, and another value.
func rivalCookies(header string) (rivals []string) {
	if !strings.Contains(header, ";") {
		return nil
	}
	r := &http.Request{Header: http.Header{"Cookie": {header}}}
	first := make(map[string]string)
	for _, c := range r.Cookies() {
		if value, has := first[c.Name]; !has {
			first[c.Name] = c.Value
		} else if value != c.Value {
			rivals = append(rivals, patchCookie("", c))
		}
		if len(rivals) > maxRivals {
			break
		}
	}
	return rivals
}
