package adapter

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gin-usher/usher/adapter/backplane"
)

// A RemoteSocket is what is known of a socket at one moment, wherever it is
// connected. Its methods act on the socket as it is by then, and do nothing once
// it is gone.
//
// Of a socket on another node it is what that node tells, and nothing to act
// with in its place: its Identity has UserID, Provider and Roles only, its
// Handshake neither cookies nor other credentials nor a query, and the values of
// its Data are what JSON makes of them.
type RemoteSocket struct {
	ID        string
	Identity  *Identity // nil is nobody
	Handshake *Handshake
	Rooms     []string
	Data      map[string]any
	ns        *Namespace
}

// Sockets returns what is known of the selected sockets. Other nodes are waited
// for until ctx is done, but not longer than 5 s: if one does not answer there
// is an error beside those that are known.
func (o Op) Sockets(ctx context.Context) ([]RemoteSocket, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	var all []RemoteSocket
	for _, s := range o.selectInto(nil) {
		all = append(all, RemoteSocket{
			ID: s.id, Identity: s.Identity(), Handshake: s.Handshake(), Rooms: s.Rooms(), Data: s.Data().All(), ns: s.ns,
		})
	}
	c := o.cluster()
	if c == nil {
		return all, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answers, err := c.collect(ctx, &backplane.Message{Kind: backplane.Fetch, Namespace: o.ns.name, Selection: o.selection()})
	for _, m := range answers {
		for i := range m.Sockets {
			all = append(all, o.ns.remote(&m.Sockets[i]))
		}
	}
	if err != nil {
		err = fmt.Errorf("adapter: sockets: %w", err)
	}
	return all, err
}

// told is what other nodes are told of a socket.
func (s *Socket) told() backplane.Socket {
	shake := s.Handshake()
	r := shake.Request(context.Background())
	t := backplane.Socket{
		ID: s.id, Namespace: s.ns.name, Rooms: s.Rooms(), Address: shake.remote, Issued: shake.Time(),
		Path: r.URL.EscapedPath(), Header: withoutCredentials(r.Header),
	}
	t.Header.Set("Host", r.Host)
	if id := s.Identity(); id != nil {
		t.User = &backplane.User{ID: id.UserID, Provider: id.Provider, Roles: id.Roles}
	}
	for key, value := range s.Data().All() {
		if b, err := json.Marshal(value); err == nil {
			if t.Data == nil {
				t.Data = make(map[string]json.RawMessage)
			}
			t.Data[key] = b
		}
	}
	return t
}

// withoutCredentials returns the headers that tell nothing to act with: those
// whose names do not say that they might.
func withoutCredentials(h http.Header) http.Header {
	kept := make(http.Header, len(h))
	for name, values := range h {
		if !mayBeCredential(name) {
			kept[name] = values
		}
	}
	return kept
}

var credentialWords = []string{
	"auth", "cookie", "token", "secret", "key", "session", "password", "credential", "jwt", "csrf", "xsrf", "signature",
	"client-cert",
	"sec-websocket-protocol", // where browsers put a token
	"referer",                // whose query may hold one
}

func mayBeCredential(header string) bool {
	header = strings.ToLower(header)
	return slices.ContainsFunc(credentialWords, func(word string) bool { return strings.Contains(header, word) })
}

// remote is what a node tells of one of its sockets, for use on this one. n is
// what was asked.
func (n *Namespace) remote(t *backplane.Socket) RemoteSocket {
	r := RemoteSocket{ID: t.ID, Rooms: t.Rooms, Handshake: handshakeOf(t), ns: n}
	if n.parts != nil {
		if params, ok := n.parts.match(t.Namespace); ok {
			r.ns = n.made(t.Namespace, params)
		}
	}
	if t.User != nil {
		r.Identity = &Identity{UserID: t.User.ID, Provider: t.User.Provider, Roles: t.User.Roles}
	}
	for key, raw := range t.Data {
		var value any
		if json.Unmarshal(raw, &value) == nil {
			if r.Data == nil {
				r.Data = make(map[string]any, len(t.Data))
			}
			r.Data[key] = value
		}
	}
	return r
}

// handshakeOf makes a handshake of what another node tells of it. If HTTP would
// not have let it through, only the address and the time are left.
func handshakeOf(t *backplane.Socket) *Handshake {
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/"}, Host: t.Header.Get("Host"), Header: withoutCredentials(t.Header)}
	if u, err := url.ParseRequestURI(t.Path); err == nil {
		r.URL.Path, r.URL.RawPath = u.Path, u.RawPath
	}
	r.Header.Del("Host")
	shake, err := record(r)
	if err != nil {
		shake = &Handshake{head: []byte("GET / HTTP/1.1\r\nHost: \r\n\r\n")}
	}
	shake.remote, shake.issued = t.Address, t.Issued.UnixNano()
	return shake
}

// Emit queues an event for the socket.
func (r RemoteSocket) Emit(event string, args ...any) error {
	return r.ns.To(r.ID).Emit(event, args...)
}

// Join puts the socket into rooms.
func (r RemoteSocket) Join(rooms ...string) { r.ns.To(r.ID).Join(rooms...) }

// Leave takes the socket out of rooms.
func (r RemoteSocket) Leave(rooms ...string) { r.ns.To(r.ID).Leave(rooms...) }

// Disconnect ends the socket.
func (r RemoteSocket) Disconnect() { r.ns.To(r.ID).Disconnect() }
