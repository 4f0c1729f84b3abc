package adapter

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"
)

// Wrap makes a Gin middleware a guard: of a namespace, in Require, or of one
// event, in On or Handle. Whatever it does to refuse a request refuses the
// socket or the event, in the form that a refusal has everywhere.
//
// It sees the handshake's request, headers, cookies and address included, with
// the method EVENT, the path /<namespace>/<event> and the event's first argument
// as a JSON body; for a namespace it is CONNECT and /<namespace>. So rules by
// path decide about each event, where on the handshake's own path one that
// allows the handshake would allow them all. Values that the chain has left with
// c.Set are there, and IdentityOf and User say who acts.
//
// c.Next returns at once, and what the middleware sets is gone when it returns:
// a guard decides and does nothing else. Headers and cookies that it writes go
// nowhere. A session of gin-contrib is not there; use Socket.Session, or what
// the chain has made of it.
func Wrap(mw gin.HandlerFunc) Guard {
	if mw == nil {
		panic("adapter: Wrap of a nil middleware")
	}
	return func(ctx context.Context, s *Socket) error {
		p := &pass{srv: s.ns.srv, mount: s.mount}
		p.w.header = make(http.Header)
		c := gin.CreateTestContextOnly(&p.w, s.mount.engine)
		if e, ok := ctx.Value(eventContextKey{}).(*eventContext); ok {
			p.req, c.Keys = s.synthetic(ctx, e.in), maps.Clone(e.left())
		} else {
			p.req, c.Keys = s.synthetic(ctx, nil), maps.Clone(s.left())
		}
		c.Request = p.req
		if id, ok := IdentityOf(ctx); ok {
			setIdentity(c, id)
		}
		mw(c)
		if c.IsAborted() || c.Writer.Written() || c.Writer.Status() >= http.StatusMultipleChoices {
			c.Writer.WriteHeaderNow()
			return p.refused()
		}
		return nil
	}
}

// synthetic is the request that a wrapped middleware sees, about an event or, where
// there is none, about the namespace.
func (s *Socket) synthetic(ctx context.Context, in *incoming) *http.Request {
	r := s.shake.Load().Request(ctx)
	path, method := s.ns.name, http.MethodConnect
	r.Body, r.ContentLength = http.NoBody, 0
	if in != nil {
		method = "EVENT"
		path = strings.TrimSuffix(path, "/") + "/" + in.event
		if len(in.args) > 0 {
			r.Body = io.NopCloser(bytes.NewReader(in.args[0]))
			r.ContentLength = int64(len(in.args[0]))
			r.Header.Set("Content-Type", "application/json")
		}
	}
	r.Method = method
	r.URL = &url.URL{Path: path, RawQuery: r.URL.RawQuery}
	r.RequestURI = r.URL.RequestURI()
	return r
}
