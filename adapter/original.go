package adapter

import (
	"context"
	"maps"
	"net/http"
	"slices"
)

// Middlewares change the request that they are given: they move a token from a
// cookie into Authorization, take it out so that nobody logs it, rewrite the path.
// What those of Use have done they do again in a replay, to what the client shows by
// then. So a replay begins with the request as the client has sent it, which is written
// down before they see it: were it to begin with what they had made of it, a token that
// one of them had put there would go on being believed, whatever cookie somebody shows.
// What those of UseOnce and UseEach have done stays, for they are not asked again.

// originalOf returns a copy of r that is not changed with it.
func originalOf(r *http.Request) *http.Request {
	o, u := *r, *r.URL
	o.URL, o.Header = &u, maps.Clone(r.Header)
	return &o
}

// amended returns h with the changes that lead from was to is.
func (h *Handshake) amended(was, is *http.Request) (*Handshake, error) {
	headers := maps.EqualFunc(was.Header, is.Header, slices.Equal)
	if headers && *was.URL == *is.URL && was.Host == is.Host && was.RemoteAddr == is.RemoteAddr {
		return h, nil
	}
	r := h.Request(context.Background())
	for k := range was.Header {
		if _, still := is.Header[k]; !still {
			r.Header.Del(k)
		}
	}
	for k, v := range is.Header {
		if !slices.Equal(was.Header[k], v) {
			r.Header[k] = v
		}
	}
	if *was.URL != *is.URL {
		r.URL = is.URL
	}
	if was.Host != is.Host {
		r.Host = is.Host
	}
	if was.RemoteAddr != is.RemoteAddr {
		r.RemoteAddr = is.RemoteAddr
	}
	next, err := record(r)
	if err != nil {
		return nil, err
	}
	next.issued = h.issued
	return next, nil
}
