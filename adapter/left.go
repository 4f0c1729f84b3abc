package adapter

import (
	"context"
	"maps"
	"net/http"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"
)

// What middlewares leave with c.Set is part of who somebody is. So handlers and
// guards see what the last run of the chain has left, and with it what UseOnce and
// UseEach have left at the handshake: they are not asked again.

// onceKey is where the values of a handshake keep those of UseOnce and UseEach.
type onceKey struct{}

// snapshotKeys copies what middlewares left with c.Set, except what is Gin's
// own and dies with the request: a session kept from a handshake writes its
// cookie into the response of whoever gets the pooled context next.
func snapshotKeys(c *gin.Context) map[any]any {
	var kept map[any]any
	// Copy takes the lock that Set takes, as a goroutine of a middleware may.
	for k, v := range c.Copy().Keys {
		switch v.(type) {
		case sessions.Session, map[string]sessions.Session, *gsessions.Session, *gsessions.Registry, *gin.Context, http.ResponseWriter, *http.Request, context.Context:
			continue
		}
		if kept == nil {
			kept = make(map[any]any)
		}
		kept[k] = v
	}
	return kept
}

// beforeOnce and afterOnce stand around middlewares of UseOnce and UseEach in the
// chain of a handshake, to tell what those leave, and what they make of the request.
func beforeOnce(c *gin.Context) {
	if p, ok := c.Request.Context().Value(passKey{}).(*pass); ok {
		p.before, p.came = snapshotKeys(c), originalOf(c.Request)
	}
}

func afterOnce(c *gin.Context) {
	p, ok := c.Request.Context().Value(passKey{}).(*pass)
	if !ok {
		return
	}
	if p.unkept == nil {
		p.sent, p.unkept = p.sent.amended(p.came, c.Request)
	}
	for k, v := range snapshotKeys(c) {
		if _, had := p.before[k]; had {
			continue // also of what it has replaced the chain decides anew
		}
		if p.once == nil {
			p.once = make(map[any]any)
		}
		p.once[k] = v
	}
}

// left returns what the pass has left.
func (p *pass) left(c *gin.Context) map[any]any {
	keys := snapshotKeys(c)
	if p.once != nil { // then it is not empty
		keys[onceKey{}] = p.once
	}
	return keys
}

// renewedKeys returns what is left where keys take the place of was: what belongs to the
// handshake stays, and the query, which is the client's.
func renewedKeys(was, keys map[any]any) map[any]any {
	once, _ := was[onceKey{}].(map[any]any)
	query, asked := was[queryKey{}]
	if once == nil && !asked {
		return keys
	}
	all := make(map[any]any, len(keys)+len(once)+2)
	maps.Copy(all, once)
	maps.Copy(all, keys)
	if once != nil {
		all[onceKey{}] = once
	}
	if asked {
		all[queryKey{}] = query
	}
	return all
}

// left returns what the chain has left with c.Set, which is not to be changed.
func (s *Socket) left() map[any]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys
}

// setLeft replaces what the chain has left.
func (s *Socket) setLeft(keys map[any]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = renewedKeys(s.keys, keys)
}
