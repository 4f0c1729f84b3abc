package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// const size = await socket.timeout(5000).emitWithAck("which size?", "pizza")
func ExampleCall() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.Handle(srv, "order", func(ctx context.Context, s *adapter.Socket, dish string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		size, err := adapter.Call[string](ctx, s, "which size?", dish)
		if err != nil {
			return "", err
		}
		return "a " + size + " " + dish, nil
	})

	alice := site.Connect("alice")
	alice.On("which size?", func(string) any { return "large" })
	fmt.Println(alice.EmitWithAck("order", "pizza"))
	// Output:
	// "a large pizza"
}

// socket.timeout(10).emit("are you there?", (err) => …)
func ExampleCall_timeout() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.Handle(srv, "order", func(ctx context.Context, s *adapter.Socket, dish string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		_, err := adapter.Call[bool](ctx, s, "are you there?")
		if errors.Is(err, context.DeadlineExceeded) {
			return "no answer", nil
		}
		return "an answer", err
	})

	fmt.Println(site.Connect("alice").EmitWithAck("order", "pizza"))
	// Output:
	// "no answer"
}

// io.to("room").timeout(5000).emitWithAck("tea or coffee?")
func ExampleCallAll() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	alice, bob, carol := site.Connect("alice"), site.Connect("bob"), site.Connect("carol")
	alice.On("tea or coffee?", func(string) any { return "tea" })
	bob.On("tea or coffee?", func(string) any { return "coffee" })
	carol.On("tea or coffee?", func(string) any { carol.Disconnect(); return nil })

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	srv.Join("room")
	replies, err := adapter.CallAll[string](ctx, srv.To("room"), "tea or coffee?")
	var answers []string
	for _, r := range replies {
		if r.Err == nil {
			answers = append(answers, r.Socket.Identity().UserID+" wants "+r.Value)
		}
	}
	slices.Sort(answers)
	fmt.Println(answers, err)
	// Output:
	// [alice wants tea bob wants coffee] adapter: call "tea or coffee?": 1 of 3 sockets did not answer
}
