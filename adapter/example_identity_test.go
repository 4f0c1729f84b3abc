package adapter_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// io.engine.use(passport.authenticate("jwt", { session: false }))
func ExampleServer_Use() {
	srv, err := adapter.New(adapter.Config{Credentials: []adapter.Source{adapter.Query("token")}})
	must(err)
	srv.Use(func(c *gin.Context) { // any middleware that looks at the request
		if c.GetHeader("Authorization") != "Bearer alices-token" {
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"error": "no token"})
			return
		}
		c.Set("user", "alice")
	})
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		return &adapter.Identity{UserID: c.GetString("user")}, nil
	})
	site := siteOf(srv)
	defer site.Close()

	_, refused := site.Get("", "/socket.io/?EIO=4&transport=polling")
	fmt.Println(refused)
	alice := site.ConnectWith("", clientOptions{Query: "token=alices-token"})
	_ = srv.ToUser("alice").Emit("news", "hello")
	fmt.Println(alice.Next())
	// Output:
	// {"error":"no token"}
	// news "hello"
}

// io.engine.on("initial_headers", (headers, request) => headers["x-region"] = "eu")
func ExampleServer_UseOnce() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.UseOnce(func(c *gin.Context) { c.Header("X-Region", "eu") })

	polling := site.Poll("alice")
	fmt.Printf("handshake: %q\n", polling.Header.Get("X-Region"))
	_ = srv.Emit("news", "hello")
	resp, _ := polling.Next()
	fmt.Printf("a poll: %q\n", resp.Header.Get("X-Region"))
	fmt.Printf("WebSocket: %q\n", site.Connect("alice").Header.Get("X-Region"))
	// Output:
	// handshake: "eu"
	// a poll: ""
	// WebSocket: "eu"
}

// io.engine.on("headers", (headers, request) => …), io.engine.use(helmet())
func ExampleServer_UseEach() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.UseEach(func(c *gin.Context) { c.Header("Referrer-Policy", "no-referrer") })

	polling := site.Poll("alice")
	fmt.Println("handshake:", polling.Header.Get("Referrer-Policy"))
	_ = srv.Emit("news", "hello")
	resp, _ := polling.Next()
	fmt.Println("a poll:", resp.Header.Get("Referrer-Policy"))
	// Output:
	// handshake: no-referrer
	// a poll: no-referrer
}

// socket.request.user
func ExampleUser() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.Handle(srv, "who am I?", func(ctx context.Context, _ *adapter.Socket, _ any) (string, error) {
		user, _ := adapter.User[account](ctx)
		return user.Name, nil
	})
	site.Pages().GET("/me", func(c *gin.Context) {
		user, ok := adapter.User[account](c) // req.user
		c.String(http.StatusOK, "%s %t", user.Name, ok)
	})

	fmt.Println(site.Connect("alice").EmitWithAck("who am I?"))
	_, page := site.Get("alice", "/me")
	fmt.Println(page)
	_, page = site.Get("", "/me")
	fmt.Println(page)
	// Output:
	// "Alice"
	// Alice true
	//  false
}

// socket.request.session.reload(() => { session.count++; session.save() })
func ExampleSession() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.On(srv, "add", func(ctx context.Context, s *adapter.Socket, what string) error {
		return s.Session().Update(ctx, func(v adapter.Values) error {
			cart, _ := v["cart"].(string)
			v["cart"] = cart + "/" + what
			return nil
		})
	})
	adapter.Handle(srv, "cart", func(ctx context.Context, s *adapter.Socket, _ any) (any, error) {
		return s.Session().Get(ctx, "cart")
	})
	site.Pages().POST("/empty", func(c *gin.Context) {
		session := sessions.Default(c) // req.session
		fmt.Println("emptied:", session.Get("cart"))
		session.Delete("cart")
		must(session.Save())
	})

	alice := site.Connect("alice")
	alice.EmitWithAck("add", "tea")
	alice.EmitWithAck("add", "milk")
	site.Post("alice", "/empty", "")
	fmt.Println("cart:", alice.EmitWithAck("cart"))
	// Output:
	// emptied: /tea/milk
	// cart: null
}

// req.session.regenerate(() => { req.session.user = user }), with a socket open
func ExampleServer_Login() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	changes := make(chan string, 1)
	srv.AllowAnonymous().OnIdentity(func(ctx context.Context, s *adapter.Socket, old *adapter.Identity) error {
		changes <- fmt.Sprintf("%v is %s now", old, s.Identity().UserID)
		return nil
	})
	site.Pages().POST("/cart", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set("cart", "tea")
		must(session.Save())
	})
	site.Pages().POST("/signup", func(c *gin.Context) {
		must(srv.Login(c, adapter.Identity{UserID: "dave"}))
	})

	site.Post("", "/cart", "") // nobody, but with a session that the socket hangs on
	visitor := site.Connect("")
	site.Post("", "/signup", "")
	fmt.Println(receive(changes, "OnIdentity"))
	_ = srv.ToUser("dave").Emit("welcome")
	fmt.Println(visitor.Next())
	// Output:
	// <nil> is dave now
	// welcome
}

// io.in("session:" + req.session.id).disconnectSockets(); req.session.destroy()
func ExampleServer_Logout() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	site.Pages().POST("/goodbye", func(c *gin.Context) {
		must(srv.Logout(c))
	})

	alice, bob := site.Connect("alice"), site.Connect("bob")
	site.Post("alice", "/goodbye", "")
	fmt.Println("alice:", alice.Next())
	fmt.Println("bob:", bob.Received())
	// Output:
	// alice: disconnect "io server disconnect"
	// bob: []
}
