package adapter_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// TestRaceEndHandler: a handler is running while the session ends, by a logout or
// by Revoke. Its context ends with the reason; from the answer on, what it emits
// fails and nothing of it arrives, what it returns is not sent, and its Session is
// gone.
func TestRaceEndHandler(t *testing.T) {
	for _, end := range []struct {
		name   string
		reason adapter.Reason
		do     func(y *try, cookie string)
	}{
		{"logout", adapter.ReasonSessionEnded, (*try).logout},
		{"Revoke", adapter.ReasonRevoked, func(y *try, _ string) {
			if _, err := y.srv.Revoke(y.t.Context(), adapter.ByUser(y.user)); err != nil {
				y.errorf("%v", err)
			}
			y.answered.Store(true)
		}},
	} {
		for _, st := range raceStores {
			for _, transport := range []string{"plain", "websocket", "polling"} {
				t.Run(end.name+"/"+st.name+"/"+transport, func(t *testing.T) {
					came := races(t, 1.0/6, []point{atOnce, inHandler, inHandler, afterEmit}, st.open, adapter.Config{}, func(tr *track) {
						adapter.Handle(tr.srv, "work", func(ctx context.Context, s *adapter.Socket, _ any) (string, error) {
							tr.saw(ctx, s, inHandler)
							y := tr.tryOf(s)
							y.emits(s)
							y.worked(ctx, s, end.reason, st.inCookie && transport != "polling")
							return "late", nil
						})
					}, func(y *try) { y.endHandler(transport, end.do) })
					wantAll(t, came, "before it emitted")
					wantMost(t, came, "before the handler", "while it emitted", "after it emitted")
				})
			}
		}
	}
}

// endHandler races the end of a session with an event.
func (y *try) endHandler(transport string, end func(y *try, cookie string)) {
	cookie := y.login()
	e, status := y.open(transport, cookie)
	if e == nil {
		y.errorf("the handshake was answered %d", status)
		return
	}
	enter(e, transport, "")
	e.read(false)
	y.race(func() {
		if transport == "plain" {
			e.send(`{"type":"work","id":2}`)
		} else {
			e.send(`422["work"]`)
		}
		e.read(true) // the handler waits for its end
	}, func() { end(y, cookie) })
	y.wantEnd(e)
	y.rest()
	news := 0
	for _, m := range e.frames {
		switch {
		case strings.Contains(m, `news`) && strings.Contains(m, "true"):
			y.errorf("what was emitted after the end has arrived: %s", m)
		case strings.Contains(m, "news"):
			news++
		case strings.Contains(m, "late"):
			y.errorf("what the handler returned after the end has arrived: %s", m)
		}
	}
	switch {
	case y.handled.Load() == 0:
		y.came("before the handler")
	case news == 0:
		y.came("before it emitted")
	case news == emitted:
		y.came("after it emitted")
	default:
		y.came("while it emitted")
	}
	y.wantNobody(cookie)
}

// emitted is how often the handler emits.
const emitted = 4

// emits is a handler's work. Each event tells whether the end was answered before
// it was emitted: one that was emitted meanwhile may be either.
func (y *try) emits(s *adapter.Socket) {
	for range emitted {
		late := y.answered.Load()
		jostle()
		err := s.Emit("news", late)
		if late && !errors.Is(err, adapter.ErrClosed) {
			y.errorf("Emit after the end: %v, want ErrClosed", err)
		}
	}
	y.at(afterEmit)
}

// worked is the end of a handler that has outlived its socket.
func (y *try) worked(ctx context.Context, s *adapter.Socket, want adapter.Reason, readOnly bool) {
	y.handled.Add(1)
	select {
	case <-ctx.Done():
	case <-time.After(patience):
	}
	if cause := context.Cause(ctx); cause != want {
		y.errorf("the cause of the handler's context is %v, want %v", cause, want)
	}
	if err := s.Emit("news", true); !errors.Is(err, adapter.ErrClosed) {
		y.errorf("Emit after the socket's end: %v, want ErrClosed", err)
	}
	if err := s.Join("room"); !errors.Is(err, adapter.ErrClosed) {
		y.errorf("Join after the socket's end: %v, want ErrClosed", err)
	}
	// Although it does not heed its context.
	free := context.WithoutCancel(ctx)
	gone := adapter.ErrSessionGone
	if readOnly {
		gone = adapter.ErrReadOnlySession
	}
	if err := s.Session().Update(free, func(v adapter.Values) error { v["back"] = "again"; return nil }); !errors.Is(err, gone) {
		y.errorf("Update after the end: %v, want %v", err, gone)
	}
	if _, err := s.Session().Get(free, "back"); !errors.Is(err, adapter.ErrSessionGone) {
		y.errorf("Get after the end: %v, want ErrSessionGone", err)
	}
}
