package adapter_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/gin-usher/usher/adapter"
)

// socket.join("room"), socket.leave("room"), socket.rooms
func ExampleSocket_Join() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.Handle(srv, "move to", func(_ context.Context, s *adapter.Socket, room string) ([]string, error) {
		if err := s.Leave(s.Rooms()...); err != nil {
			return nil, err
		}
		err := s.Join(room)
		return s.Rooms(), err
	})

	alice := site.Connect("alice")
	fmt.Println(alice.EmitWithAck("move to", "kitchen"))
	fmt.Println(alice.EmitWithAck("move to", "garden"))
	// Output:
	// ["kitchen"]
	// ["garden"]
}

// const sockets = await io.in("room").fetchSockets()
func ExampleOp_Sockets() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.OnConnect(func(_ context.Context, s *adapter.Socket) error {
		s.Data().Set("color", map[string]string{"alice": "red", "bob": "blue"}[s.Identity().UserID])
		return s.Join("room")
	})
	alice, bob := site.Connect("alice"), site.Connect("bob")

	sockets, err := srv.To("room").Sockets(context.Background())
	for _, s := range sockets {
		_ = s.Emit("your color", s.Data["color"], s.Rooms)
	}
	fmt.Println(len(sockets), err)
	fmt.Println("alice:", alice.Next())
	fmt.Println("bob:", bob.Next())
	// Output:
	// 2 <nil>
	// alice: your color "red" ["room"]
	// bob: your color "blue" ["room"]
}

// io.in("lobby").socketsJoin("game")
func ExampleOp_Join() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "join", joinRooms)
	alice, bob := site.Connect("alice"), site.Connect("bob")
	alice.EmitWithAck("join", []string{"lobby"})

	srv.To("lobby").Join("game")
	_ = srv.To("game").Emit("start")
	fmt.Println("alice:", alice.Received())
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice: [start]
	// bob: []
}

// io.in("game").socketsLeave("game")
func ExampleOp_Leave() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	alice, bob := site.Connect("alice"), site.Connect("bob")
	srv.Join("game")

	srv.ToUser("bob").Leave("game")
	_ = srv.To("game").Emit("your turn")
	fmt.Println("alice:", alice.Received())
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice: [your turn]
	// bob: []
}

// io.in("room").disconnectSockets()
func ExampleOp_Disconnect() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "join", joinRooms)
	alice, bob := site.Connect("alice"), site.Connect("bob")
	alice.EmitWithAck("join", []string{"room"})

	srv.To("room").Disconnect()
	fmt.Println("alice:", alice.Next())
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice: disconnect "io server disconnect"
	// bob: []
}

// socket.disconnect()
func ExampleSocket_Disconnect() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "quit", func(_ context.Context, s *adapter.Socket, _ any) error {
		_ = s.Emit("bye")
		return s.Disconnect()
	})

	alice := site.Connect("alice")
	alice.Emit("quit")
	fmt.Println(alice.Next())
	fmt.Println(alice.Next())
	// Output:
	// bye
	// disconnect "io server disconnect"
}

// Who is online: a Set of user ids, filled on "connection" and "disconnect"
func ExampleNamespace_Presence() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.OnConnect(func(_ context.Context, s *adapter.Socket) error { return s.Join("lobby") })
	for _, user := range []string{"bob", "alice", "alice"} {
		site.Connect(user)
	}

	members, err := srv.Presence(context.Background(), "lobby")
	for _, m := range members {
		fmt.Println(m.User.(account).Name, m.Sockets)
	}
	fmt.Println(err)
	// Output:
	// Alice 2
	// Bob 1
	// <nil>
}

// socket.data.color = "red"
func ExampleData() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "like", func(_ context.Context, s *adapter.Socket, what string) error {
		liked, _ := s.Data().Get("liked").([]string)
		s.Data().Set("liked", append(slices.Clone(liked), what))
		return nil
	})
	adapter.Handle(srv, "liked", func(_ context.Context, s *adapter.Socket, _ any) (any, error) {
		return s.Data().Get("liked"), nil
	})

	alice := site.Connect("alice")
	alice.Emit("like", "tea")
	alice.Emit("like", "rain")
	fmt.Println(alice.EmitWithAck("liked"))
	// Output:
	// ["tea","rain"]
}
