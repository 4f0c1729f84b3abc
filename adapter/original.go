package adapter

import (
	"maps"
	"net/http"
	"slices"
)

// Middlewares change the request that they are given: they move a token from a
// cookie into Authorization, take it out so that nobody logs it, rewrite the path.
// What those of Use have done they do again in a replay, to what the client shows by
// then. So a replay begins with the request as the client has sent it: were it to
// begin with what they had made of it, a token that one of them had put there would
// go on being believed, whatever cookie somebody shows. What those of UseOnce and
// UseEach have done stays, for they are not asked again.

// originalOf returns a copy of r that is not changed with it.
func originalOf(r *http.Request) *http.Request {
	o, u := *r, *r.URL
	o.URL, o.Header = &u, maps.Clone(r.Header)
	return &o
}

// take makes in o the changes that lead from was to is.
func take(o, was, is *http.Request) {
	for k := range was.Header {
		if _, still := is.Header[k]; !still {
			delete(o.Header, k)
		}
	}
	for k, v := range is.Header {
		if !slices.Equal(was.Header[k], v) {
			o.Header[k] = v
		}
	}
	if *was.URL != *is.URL {
		u := *is.URL
		o.URL = &u
	}
	if was.Host != is.Host {
		o.Host = is.Host
	}
}
