package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gin-usher/usher/adapter"
)

// io.on("connection", (socket) => …)
func ExampleNamespace_OnConnect() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.OnConnect(func(ctx context.Context, s *adapter.Socket) error {
		if len(s.Query()["banned"]) > 0 {
			return &adapter.Error{Code: "banned", Message: "come back tomorrow"}
		}
		return s.Emit("welcome", s.Identity().UserID)
	})

	fmt.Println(site.Connect("alice").Next())
	fmt.Println(site.ConnectWith("bob", clientOptions{Query: "banned"}).Next())
	// Output:
	// welcome "alice"
	// connect_error {"message":"come back tomorrow","data":{"code":"banned","message":"come back tomorrow"}}
}

// socket.on("chat message", (text) => …)
func ExampleOn() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "chat message", func(ctx context.Context, s *adapter.Socket, text string) error {
		return srv.Emit("chat message", text)
	})

	alice, bob := site.Connect("alice"), site.Connect("bob")
	alice.Emit("chat message", "Hello")
	fmt.Println(bob.Next())
	// Output:
	// chat message "Hello"
}

// socket.on("chat message", (message, callback) => callback({ id: 7 }))
func ExampleHandle() {
	type message struct{ Room, Text string }
	type posted struct {
		ID int `json:"id"`
	}
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.Handle(srv, "chat message", func(ctx context.Context, s *adapter.Socket, in message) (posted, error) {
		return posted{ID: 7}, srv.To(in.Room).Emit("chat message", in.Text)
	})

	alice := site.Connect("alice")
	fmt.Println(alice.EmitWithAck("chat message", message{"lobby", "Hello"}))
	fmt.Println(alice.EmitWithAck("chat message", "Hello"))
	// Output:
	// {"id":7}
	// {"error":{"code":"bad_request","message":"event \"chat message\": expected data to be an object, got string"}}
}

// socket.on("chat message", (text, callback) => callback({ error }))
func ExampleError() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "chat message", func(ctx context.Context, s *adapter.Socket, text string) error {
		if text == "" {
			return &adapter.Error{Code: "empty", Message: "say something"}
		}
		return errors.New("dial tcp 10.0.0.7:5432: refused") // for the log alone
	})

	alice := site.Connect("alice")
	fmt.Println(alice.EmitWithAck("chat message", ""))
	fmt.Println(alice.EmitWithAck("chat message", "Hello"))
	alice.Emit("chat message", "")
	fmt.Println(alice.Next())
	// Output:
	// {"error":{"code":"empty","message":"say something"}}
	// {"error":{"code":"internal","message":"something went wrong on the server"}}
	// error {"error":{"code":"empty","message":"say something"},"event":"chat message"}
}

// socket.on("move", (x, y, callback) => callback(width, height))
func ExampleArgs2() {
	type point = adapter.Args2[int, int]
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.Handle(srv, "move", func(ctx context.Context, s *adapter.Socket, to point) (point, error) {
		return point{A: min(to.A, 640), B: min(to.B, 480)}, nil
	})

	fmt.Println(site.Connect("alice").EmitWithAck("move", 700, 20))
	// Output:
	// 640 20
}

// socket.use(([event, ...args], next) => …)
func ExampleNamespace_Intercept() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.Intercept(func(ctx context.Context, s *adapter.Socket, e adapter.Event) error {
		var text string
		if err := e.Bind(0, &text); err != nil || strings.Contains(text, "damn") {
			return &adapter.Error{Code: "rude", Message: "no " + e.Name() + " of that kind"}
		}
		return nil
	})
	adapter.Handle(srv, "chat message", func(context.Context, *adapter.Socket, string) (string, error) {
		return "posted", nil
	})

	alice := site.Connect("alice")
	fmt.Println(alice.EmitWithAck("chat message", "Well."))
	fmt.Println(alice.EmitWithAck("chat message", "Well, damn."))
	// Output:
	// "posted"
	// {"error":{"code":"rude","message":"no chat message of that kind"}}
}

// socket.onAny((event, ...args) => …)
func ExampleNamespace_OnAny() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.OnAny(func(ctx context.Context, s *adapter.Socket, e adapter.Event) {
		fmt.Printf("%s sent %s: %s\n", s.Identity().UserID, e.Name(), e.JSON(0))
	})
	adapter.Handle(srv, "sum", func(_ context.Context, _ *adapter.Socket, of []int) (int, error) {
		return of[0] + of[1], nil
	})

	alice := site.Connect("alice")
	alice.Emit("nobody handles this", true)
	fmt.Println("answer:", alice.EmitWithAck("sum", []int{1, 2}))
	// Output:
	// alice sent nobody handles this: true
	// alice sent sum: [1,2]
	// answer: 3
}

// socket.onAnyOutgoing((event, ...args) => …)
func ExampleNamespace_OnAnyOutgoing() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.OnAnyOutgoing(func(s *adapter.Socket, event string, args []any) {
		fmt.Println("to", s.Identity().UserID+":", event, args)
	})

	site.Connect("alice")
	_ = srv.Emit("news", "hello", 7)
	// Output:
	// to alice: news [hello 7]
}

// socket.on("disconnect", (reason) => …)
func ExampleNamespace_OnDisconnect() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	reasons := make(chan string)
	srv.OnDisconnect(func(s *adapter.Socket, r adapter.Reason) { reasons <- string(r) })

	alice := site.Connect("alice")
	alice.Disconnect()
	fmt.Println("socket.disconnect():", <-reasons)

	site.Connect("alice").Close()
	fmt.Println("a closed tab:", <-reasons)

	alice = site.Connect("alice")
	srv.ToUser("alice").Disconnect()
	fmt.Println("disconnectSockets():", <-reasons, "→", alice.Next())

	alice = site.Connect("alice")
	site.Post("alice", "/logout", "")
	fmt.Println("a logout:", <-reasons, "→", alice.Next())
	// Output:
	// socket.disconnect(): client namespace disconnect
	// a closed tab: transport close
	// disconnectSockets(): server namespace disconnect → disconnect "io server disconnect"
	// a logout: session ended → disconnect "io server disconnect"
}
