package adapter_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/backplane"
)

// io.serverSideEmit("cache cleared", "users"); io.local.emit("news", …)
func ExampleNamespace_ServerSideEmit() {
	var bus backplane.Memory // between servers in one process; others go between machines
	here, hereSite := newSite(adapter.Config{Backplane: bus.Node()})
	there, thereSite := newSite(adapter.Config{Backplane: bus.Node()})
	adapter.HandleServerSide(there, "sockets?", func(context.Context, struct{}) (int, error) {
		found, err := there.Local().Sockets(context.Background())
		return len(found), err
	})
	alice := hereSite.Connect("alice")
	bob := thereSite.Connect("bob")
	for here.Nodes() < 2 || there.Nodes() < 2 {
		runtime.Gosched() // until they know of each other
	}

	answers, err := adapter.ServerSideCall[int](context.Background(), here, "sockets?")
	fmt.Println(answers, err)
	_ = here.Emit("news", "for everybody")
	_ = here.Local().Emit("news", "for those who are connected here")
	fmt.Println(alice.Next())
	fmt.Println(alice.Next())
	fmt.Println(bob.Next())
	hereSite.Close()
	thereSite.Close()
	// Output:
	// [1] <nil>
	// news "for everybody"
	// news "for those who are connected here"
	// news "for everybody"
}

// const wrap = (middleware) => (socket, next) => middleware(socket.request, {}, next)
func ExampleWrap() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	policy := adapter.Wrap(func(c *gin.Context) { // any Gin middleware: casbin, for one
		id, _ := adapter.IdentityOf(c)
		if c.Request.Method == "EVENT" && c.Request.URL.Path == "/delete" && id.UserID != "alice" {
			c.AbortWithStatusJSON(http.StatusForbidden, gin.H{"error": "only alice deletes"})
		}
	})
	adapter.On(srv, "delete", func(context.Context, *adapter.Socket, string) error { return nil }, policy)

	fmt.Println(site.Connect("alice").EmitWithAck("delete", "this"))
	fmt.Println(site.Connect("bob").EmitWithAck("delete", "this"))
	// Output:
	//
	// {"error":{"code":"forbidden","message":"only alice deletes"}}
}
