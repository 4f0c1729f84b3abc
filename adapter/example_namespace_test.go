package adapter_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/gin-usher/usher/adapter"
)

// io.of("/admin").emit("restart", 30)
func ExampleServer_Of() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	admin := srv.Of("/admin")
	adapter.Handle(admin, "uptime", func(context.Context, *adapter.Socket, any) (string, error) {
		return "3 days", nil
	})
	alice, bob := site.ConnectTo("/admin", "alice"), site.Connect("bob")

	fmt.Println(alice.EmitWithAck("uptime"))
	fmt.Println(bob.EmitWithAck("uptime"))
	_ = admin.Emit("restart", 30)
	fmt.Println(alice.Received(), bob.Received())
	// Output:
	// "3 days"
	// {"error":{"code":"unknown_event","message":"there is no event \"uptime\" here"}}
	// [restart 30] []
}

// io.of(/^\/room\/\w+$/).on("connection", (socket) => socket.nsp.name)
func ExampleServer_Of_pattern() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	rooms := srv.Of("/room/:id")
	adapter.On(rooms, "say", func(_ context.Context, s *adapter.Socket, text string) error {
		return s.Namespace().Emit("said in "+s.Namespace().Param("id"), text)
	})
	alice, bob := site.ConnectTo("/room/red", "alice"), site.ConnectTo("/room/blue", "bob")

	alice.EmitWithAck("say", "hello")
	_ = srv.Of("/room/blue").Emit("closing")
	_ = rooms.Emit("news", "to all of them")
	fmt.Println("alice:", alice.Received())
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice: [said in red "hello" news "to all of them"]
	// bob: [closing news "to all of them"]
}

// io.use((socket, next) => next(new Error("not invited")))
func ExampleNamespace_Require() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	invited := []string{"alice", "carol"}
	srv.Require(func(ctx context.Context, s *adapter.Socket) error {
		if id, ok := adapter.IdentityOf(ctx); !ok || !slices.Contains(invited, id.UserID) {
			return &adapter.Error{Code: "not_invited", Message: "not invited"}
		}
		return nil
	})
	adapter.Handle(srv, "ping", func(context.Context, *adapter.Socket, any) (string, error) { return "pong", nil })

	fmt.Println(site.Connect("alice").EmitWithAck("ping"))
	fmt.Println(site.Connect("bob").Next())
	// Output:
	// "pong"
	// connect_error {"message":"not invited","data":{"code":"not_invited","message":"not invited"}}
}

// io.of("/admin").use(…), @UseGuards(RolesGuard) @Roles("admin")
func ExampleRole() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	ban := func(_ context.Context, _ *adapter.Socket, user string) (string, error) { return "banned " + user, nil }
	adapter.Handle(srv.Of("/admin").Require(adapter.Role("admin")), "ban", ban) // to enter
	adapter.Handle(srv, "ban", ban, adapter.Role("admin"))                      // for one event

	fmt.Println(site.ConnectTo("/admin", "alice").EmitWithAck("ban", "mallory"))
	fmt.Println(site.ConnectTo("/admin", "bob").Next())
	fmt.Println(site.Connect("bob").EmitWithAck("ban", "alice"))
	// Output:
	// "banned mallory"
	// connect_error {"message":"this needs one of the roles [\"admin\"]","data":{"code":"forbidden","message":"this needs one of the roles [\"admin\"]"}}
	// {"error":{"code":"forbidden","message":"this needs one of the roles [\"admin\"]"}}
}

// if (!socket.request.user) next(new Error("unauthorized"))
func ExampleNamespace_AllowAnonymous() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.Of("/news").AllowAnonymous() // the others admit only who is logged in

	nobody := site.ConnectTo("/news", "")
	_ = srv.Of("/news").Emit("news", "hello")
	fmt.Println(nobody.Next())
	fmt.Println(site.Connect("").Next())
	// Output:
	// news "hello"
	// connect_error {"message":"log in first","data":{"code":"unauthenticated","message":"log in first"}}
}
