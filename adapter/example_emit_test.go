package adapter_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gin-usher/usher/adapter"
)

// socket.emit("hello", 1, "2", { three: 3 })
func ExampleSocket_Emit() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.OnConnect(func(_ context.Context, s *adapter.Socket) error {
		return s.Emit("hello", 1, "2", map[string]int{"three": 3})
	})

	fmt.Println(site.Connect("alice").Next())
	// Output:
	// hello 1 "2" {"three":3}
}

// socket.emit("image", { name, data: Buffer.from(…) })
func ExampleSocket_Emit_binary() {
	type image struct {
		Name string `json:"name"`
		Data []byte `json:"data"`
	}
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "mirror", func(_ context.Context, s *adapter.Socket, in image) error {
		slices.Reverse(in.Data)
		return s.Emit("mirrored", in)
	})

	alice := site.Connect("alice")
	alice.Emit("mirror", image{"a.png", []byte{1, 2, 3}})
	fmt.Println(alice.Next())
	// Output:
	// mirrored {"name":"a.png","data":<Buffer 03 02 01>}
}

// io.emit("news", "hello")
func ExampleNamespace_Emit() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	alice, bob := site.Connect("alice"), site.Connect("bob")

	_ = srv.Emit("news", "hello")
	fmt.Println("alice:", alice.Next())
	fmt.Println("bob:", bob.Next())
	// Output:
	// alice: news "hello"
	// bob: news "hello"
}

// io.to("sports").to("weather").emit("news", "rain stopped play")
func ExampleOp_Emit() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "join", joinRooms)
	alice, bob := site.Connect("alice"), site.Connect("bob")
	alice.EmitWithAck("join", []string{"sports", "weather"})

	_ = srv.To("sports").To("weather").Emit("news", "rain stopped play")
	fmt.Println("alice:", alice.Received()) // once
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice: [news "rain stopped play"]
	// bob: []
}

// io.to("room").except("muted").emit("news", "hello")
func ExampleOp_Except() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "join", joinRooms)
	alice, bob := site.Connect("alice"), site.Connect("bob")
	alice.EmitWithAck("join", []string{"room"})
	bob.EmitWithAck("join", []string{"room", "muted"})

	_ = srv.To("room").Except("muted").Emit("news", "hello")
	fmt.Println("alice:", alice.Received())
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice: [news "hello"]
	// bob: []
}

// socket.to("room").emit("said", text)
func ExampleSocket_To() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "join", joinRooms)
	adapter.On(srv, "say", func(ctx context.Context, s *adapter.Socket, text string) error {
		return s.To("room").Emit("said", text)
	})
	alice, bob := site.Connect("alice"), site.Connect("bob")
	alice.EmitWithAck("join", []string{"room"})
	bob.EmitWithAck("join", []string{"room"})

	alice.EmitWithAck("say", "hello")
	fmt.Println("alice:", alice.Received())
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice: []
	// bob: [said "hello"]
}

// socket.broadcast.emit("said", text)
func ExampleSocket_Broadcast() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "say", func(ctx context.Context, s *adapter.Socket, text string) error {
		return s.Broadcast().Emit("said", text)
	})
	alice, bob := site.Connect("alice"), site.Connect("bob")

	alice.EmitWithAck("say", "hello")
	fmt.Println("alice:", alice.Received())
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice: []
	// bob: [said "hello"]
}

// io.to("user:" + id).emit("message", "for you")
func ExampleNamespace_ToUser() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	laptop, phone, bob := site.Connect("alice"), site.Connect("alice"), site.Connect("bob")

	_ = srv.ToUser("alice").Emit("message", "for you")
	fmt.Println("alice's laptop:", laptop.Received())
	fmt.Println("alice's phone:", phone.Received())
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice's laptop: [message "for you"]
	// alice's phone: [message "for you"]
	// bob: []
}

// socket.volatile.emit("position", { x: 1 })
func ExampleOp_Volatile() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	alice := site.Poll("alice") // has not asked for anything more yet

	_ = srv.Emit("turn", "left")
	_ = srv.Volatile().Emit("position", 1) // something waits for her already
	_, got := alice.Next()
	fmt.Println(got)
	// Output:
	// 42["turn","left"]
}

// socket.compress(false).emit("image", data)
func ExampleOp_Compress() {
	srv, site := newSite(adapter.Config{CompressPolls: 1024})
	defer site.Close()
	alice := site.Poll("alice")
	large := strings.Repeat("a", 1<<20)

	_ = srv.Emit("text", large)
	resp, got := alice.Next()
	fmt.Println("compressed:", resp.Uncompressed, len(got) > 1<<20)
	_ = srv.Compress(false).Emit("image", large)
	resp, got = alice.Next()
	fmt.Println("compressed:", resp.Uncompressed, len(got) > 1<<20)
	// Output:
	// compressed: true true
	// compressed: false true
}
