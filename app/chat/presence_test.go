package chat

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPresence(t *testing.T) {
	const ms = time.Millisecond
	type step struct {
		at         time.Duration
		verb       string
		room, user string
	}
	for _, tt := range []struct {
		name  string
		steps []step
		want  []string // room and time of each announcement
	}{
		{
			"first tab in, last tab out",
			[]step{
				{0, "enter", "lobby", "ann"}, {200 * ms, "enter", "lobby", "ann"}, {400 * ms, "enter", "lobby", "ann"},
				{600 * ms, "exit", "lobby", "ann"}, {800 * ms, "exit", "lobby", "ann"}, {1000 * ms, "exit", "lobby", "ann"},
			},
			[]string{"lobby 0s", "lobby 1s"},
		},
		{
			"two people",
			[]step{{0, "enter", "lobby", "ann"}, {200 * ms, "enter", "lobby", "ben"}, {400 * ms, "exit", "lobby", "ann"}},
			[]string{"lobby 0s", "lobby 200ms", "lobby 400ms"},
		},
		{
			"many at once",
			[]step{
				{0, "enter", "lobby", "ann"}, {0, "enter", "lobby", "ben"}, {20 * ms, "enter", "lobby", "cat"}, {99 * ms, "exit", "lobby", "ann"},
				{120 * ms, "enter", "lobby", "dan"}, {180 * ms, "enter", "lobby", "eve"},
				{350 * ms, "enter", "lobby", "fay"},
			},
			[]string{"lobby 0s", "lobby 100ms", "lobby 200ms", "lobby 350ms"},
		},
		{
			"rooms apart",
			[]step{{0, "enter", "lobby", "ann"}, {10 * ms, "enter", "attic", "ann"}, {20 * ms, "exit", "lobby", "ann"}},
			[]string{"lobby 0s", "attic 10ms", "lobby 100ms"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				told := make(chan string, 100)
				p := newPresence(func(_ context.Context, room string) {
					told <- fmt.Sprint(room, " ", time.Since(start))
				})
				for _, s := range tt.steps {
					time.Sleep(s.at - time.Since(start))
					if s.verb == "enter" {
						p.enter(s.room, s.user)
					} else {
						p.exit(s.room, s.user)
					}
					synctest.Wait()
				}
				time.Sleep(time.Second)
				synctest.Wait()
				var got []string
				for range len(told) {
					got = append(got, <-told)
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("announced %v, want %v", got, tt.want)
				}

				if len(p.again) != 0 {
					t.Errorf("announcers are left: %v", p.again)
				}
				for _, s := range tt.steps { // everybody leaves
					for p.here[s.room][s.user] > 0 {
						p.exit(s.room, s.user)
					}
				}
				if len(p.here) != 0 {
					t.Errorf("it remembers rooms that nobody is in: %v", p.here)
				}
				p.close()
			})
		})
	}
}

func TestPresenceClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started, ended := make(chan struct{}), false
		p := newPresence(func(ctx context.Context, _ string) {
			close(started)
			<-ctx.Done()
			time.Sleep(time.Second) // an announcement that is slow to stop
			ended = true
		})
		p.enter("lobby", "ann")
		<-started
		p.close()
		if !ended {
			t.Error("close did not wait for the announcement in flight")
		}
		p.exit("lobby", "ann")
		p.enter("attic", "ann")
		synctest.Wait() // a second announcement would close started again, and panic
	})
}
