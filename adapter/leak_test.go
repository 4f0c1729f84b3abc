package adapter_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestEndedSocketsLeaveNothingBehind opens and ends sockets in every way while
// they join rooms, and looks into the server's own tables afterwards.
func TestEndedSocketsLeaveNothingBehind(t *testing.T) {
	users, rooms := []string{"alice", "bob", "carol"}, []string{"red", "green", "blue"}
	s := adaptertest.NewSite(t, quick, newMemstore(t), func(s *adaptertest.Site) {
		s.Server.AllowAnonymous()
		adapter.On(s.Server, "join", func(_ context.Context, sock *adapter.Socket, room string) error { return sock.Join(room) })
		adapter.On(s.Server, "bye", func(_ context.Context, sock *adapter.Socket, _ struct{}) error { return sock.Disconnect() })
	})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for j := range 12 {
				user := append(users, "")[i%4]
				b := s.NewBrowser(t, user)
				var open []*adaptertest.Conn
				for range 3 {
					c := b.Dial(ws)
					open = append(open, c)
					for _, room := range rooms {
						c.Emit("join", room)
					}
				}
				switch j % 4 {
				case 0:
					for _, c := range open {
						c.Emit("bye", nil)
					}
				case 1:
					b.MustPost("/login?user=" + users[(i+1)%3])
					b.MustPost("/logout")
				case 2:
					b.MustPost("/set?key=role&value=admin")
				}
				for _, c := range open {
					c.Close()
				}
			}
		})
	}
	wg.Wait()
	var left map[string]int
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if left = s.Server.Left(rooms, users); len(left) == 0 {
			return
		}
		s.NewBrowser(t, "").Get("/me") // lets time pass
	}
	t.Errorf("left behind: %s", fmt.Sprint(left))
}
