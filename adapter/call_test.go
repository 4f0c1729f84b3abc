package adapter_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

func TestCallWaitsForTheClientsAnswer(t *testing.T) {
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		// A handler that asks its own client, in the middle of an event.
		adapter.Handle(srv, "ask me", func(ctx context.Context, sock *adapter.Socket, _ any) (string, error) {
			return adapter.Call[string](ctx, sock, "your name?", 1, "two")
		})
		adapter.Handle(srv, "ask all", func(ctx context.Context, _ *adapter.Socket, _ any) (int, error) {
			replies, err := adapter.CallAll[string](ctx, srv.To("red"), "here?")
			return len(replies), err
		})
	})
	c := s.NewBrowser(t, "").Dial(ws)
	c.Raw(`{"type":"ask me","id":1}`)
	question := c.Event("your name?")
	if string(question.Data) != `[1,"two"]` {
		t.Errorf("the question is %s", question)
	}
	c.Raw(`{"type":"reply","id":` + string(question.ID) + `,"data":"Alice"}`)
	if f := c.Event("reply"); string(f.Data) != `"Alice"` {
		t.Errorf("ask me = %s", f)
	}

	c.Raw(`{"type":"ask me","id":2}`)
	question = c.Event("your name?")
	c.Raw(`{"type":"reply","id":` + string(question.ID) + `,"error":{"code":"secret","message":"I will not say"}}`)
	if f := c.Event("reply"); f.Error == nil || f.Error.Code != "secret" {
		t.Errorf("ask me, refused = %s", f)
	}

	c.Must("join", text{Room: "red"}, nil)
	c.Raw(`{"type":"ask all","id":3}`)
	c.Raw(`{"type":"reply","id":` + string(c.Event("here?").ID) + `,"data":"yes"}`)
	if f := c.Event("reply"); string(f.Data) != "1" {
		t.Errorf("ask all = %s", f)
	}
	// Answers that nobody has asked for.
	c.Raw(`{"type":"reply","id":999,"data":1}`)
	c.Raw(`{"type":"reply","id":"x"}`)
	if f := c.Next(); f.Error == nil || f.Error.Code != adapter.CodeBadRequest {
		t.Errorf("a reply without a number: %s", f)
	}
}

func TestCallEndsWithItsContextAndItsSocket(t *testing.T) {
	errs := make(chan error, 2)
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.On(srv, "ask me", func(ctx context.Context, sock *adapter.Socket, impatient bool) error {
			if impatient {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
			}
			_, err := adapter.Call[string](ctx, sock, "question")
			errs <- err
			return nil
		})
	})
	c := s.NewBrowser(t, "").Dial(ws)
	c.Must("ask me", true, nil)
	if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Call with a timeout: %v", err)
	}
	c.Event("question")
	c.Emit("ask me", false)
	c.Event("question")
	c.Close()
	if err := <-errs; !errors.Is(err, adapter.ErrClosed) && !errors.Is(err, adapter.ReasonTransportClose) {
		t.Errorf("Call of a socket that ends: %v", err)
	}
}

func TestSocketIOAnswersCalls(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
			adapter.Handle(srv, "ask me", func(ctx context.Context, sock *adapter.Socket, in any) (string, error) {
				return adapter.Call[string](ctx, sock, "question", in)
			})
		})
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, nil)
		c.await("connect")
		if got := c.call("ask me", "what?"); got != `["ack of question"]` {
			t.Errorf("ask me = %s", got)
		}
	})
}

func TestCallAllTellsWhoDidNotAnswer(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	var conns []*adaptertest.Conn
	for range 2 {
		c := s.NewBrowser(t, "").Dial(ws)
		c.Must("join", text{Room: "red"}, nil)
		conns = append(conns, c)
	}
	type result struct {
		replies []adapter.Reply[int]
		err     error
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan result, 1)
	go func() {
		replies, err := adapter.CallAll[int](ctx, s.Server.To("red"), "how many?")
		done <- result{replies, err}
	}()
	conns[0].Raw(`{"type":"reply","id":` + string(conns[0].Event("how many?").ID) + `,"data":3}`)
	conns[0].Must("echo", 1, nil) // the answer has been read by now
	conns[1].Event("how many?")
	cancel()
	got := <-done
	answered := 0
	for _, r := range got.replies {
		if r.Err == nil && r.Value == 3 {
			answered++
		}
	}
	if got.err == nil || len(got.replies) != 2 || answered != 1 {
		t.Errorf("CallAll = %+v, %v; want one answer and one error", got.replies, got.err)
	}
}
