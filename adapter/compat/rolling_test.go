package compat

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/redis"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// redisToucher extends sessions in Redis by Redis's own means, so that a touch
// neither undoes what another server saves nor brings back what it ends.
type redisToucher struct{ redis.Store }

func (s redisToucher) Touch(_ context.Context, id string, maxAge int) error {
	st, err := redis.GetRedisStore(s.Store)
	if err != nil {
		return err
	}
	conn := st.Pool.Get()
	defer conn.Close()
	_, err = conn.Do("EXPIRE", "session_"+id, maxAge)
	return err
}

// TestRollingInRedis: an event over a socket gives the session its whole life
// again, and nothing brings a session back that Redis has forgotten.
func TestRollingInRedis(t *testing.T) {
	for name, as := range map[string]func(redis.Store) sessions.Store{
		"saved":   func(st redis.Store) sessions.Store { return st },
		"touched": func(st redis.Store) sessions.Store { return redisToucher{st} },
	} {
		t.Run(name, func(t *testing.T) {
			db := miniredis.RunT(t)
			st, err := redis.NewStore(4, "tcp", db.Addr(), "", "", []byte(key))
			if err != nil {
				t.Fatal(err)
			}
			st.Options(sessions.Options{Path: "/", MaxAge: 600})
			s := adaptertest.NewSite(t, adapter.Config{Rolling: true, Revalidate: -1}, as(st), nil)
			alice, bob := s.NewBrowser(t, "alice"), s.NewBrowser(t, "bob")
			alice.MustPost("/set?key=color&value=blue")
			used, forgotten := alice.Dial("/socket.io/ws"), bob.Dial("/socket.io/ws")
			sessionOf := func(user string) string {
				found, err := s.Server.ToUser(user).Sockets(t.Context())
				if err != nil || len(found) != 1 {
					t.Fatalf("%s has %d sockets, %v", user, len(found), err)
				}
				return "session_" + found[0].Identity.SessionID
			}
			hers, his := sessionOf("alice"), sessionOf("bob")
			db.FastForward(500 * time.Second)
			db.Del(his)
			forgotten.Must("me", nil, nil)
			for until := time.Now().Add(10 * time.Second); db.TTL(hers) != 600*time.Second; {
				if time.Now().After(until) {
					t.Fatalf("in use the session has %v, want 10m", db.TTL(hers))
				}
				used.Must("me", nil, nil)
			}
			if _, got := alice.Get("/get?key=color"); got != "blue" {
				t.Errorf("color = %q after a touch, want blue", got)
			}
			if db.Exists(his) {
				t.Error("a forgotten session is back")
			}
		})
	}
}
