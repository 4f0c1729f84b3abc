package adapter_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/gin-usher/usher/adapter"
)

// socket.handshake.auth.invitation
func ExampleSocket_Auth() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.OnConnect(func(_ context.Context, s *adapter.Socket) error {
		var auth struct{ Invitation int }
		if err := s.Auth(&auth); err != nil {
			return err
		}
		return s.Emit("your invitation", auth.Invitation)
	})

	alice := site.ConnectWith("alice", clientOptions{Auth: map[string]any{"invitation": 7}})
	fmt.Println(alice.Next())
	bob := site.ConnectWith("bob", clientOptions{Auth: map[string]any{"invitation": "seven"}})
	fmt.Println(bob.Next())
	// Output:
	// your invitation 7
	// connect_error {"message":"auth: expected \"Invitation\" to be a whole number, got string","data":{"code":"bad_request","message":"auth: expected \"Invitation\" to be a whole number, got string"}}
}

// socket.handshake.query.lang
func ExampleSocket_Query() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	srv.OnConnect(func(_ context.Context, s *adapter.Socket) error {
		return s.Join("lang:" + s.Query().Get("lang"))
	})
	alice := site.ConnectWith("alice", clientOptions{Query: "lang=de"})

	_ = srv.To("lang:en").Emit("news", "hello")
	_ = srv.To("lang:de").Emit("news", "hallo")
	fmt.Println(alice.Next())
	// Output:
	// news "hallo"
}

// socket.handshake.headers["user-agent"]
func ExampleSocket_Handshake() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.Handle(srv, "describe me", func(ctx context.Context, s *adapter.Socket, _ any) (string, error) {
		return s.Handshake().Header().Get("User-Agent") + " at " + s.Handshake().Request(ctx).URL.Path, nil
	})

	fmt.Println(site.Connect("alice").EmitWithAck("describe me"))
	// Output:
	// "Go-http-client/1.1 at /socket.io/"
}

// new Server(httpServer, { cors: { origin: "https://app.example", credentials: true } })
func ExampleConfig_cors() {
	_, site := newSite(adapter.Config{Origins: []string{"https://app.example"}})
	defer site.Close()

	for _, origin := range []string{"https://app.example", "https://evil.example"} {
		r, err := http.NewRequest(http.MethodGet, site.url("/socket.io/?EIO=4&transport=polling"), nil)
		must(err)
		r.Header.Set("Origin", origin)
		resp, err := site.browser("alice").Do(r)
		must(err)
		_ = resp.Body.Close()
		fmt.Printf("%s %q\n", resp.Status, resp.Header.Get("Access-Control-Allow-Origin"))
	}
	// Output:
	// 200 OK "https://app.example"
	// 403 Forbidden ""
}

// new Server(httpServer, { cookie: { name: "io" } })
func ExampleConfig_cookie() {
	_, site := newSite(adapter.Config{Cookie: "io"})
	defer site.Close()

	header := site.Connect("alice").Header
	c := (&http.Response{Header: header}).Cookies()[0]
	fmt.Println(c.Name, c.HttpOnly, c.SameSite == http.SameSiteLaxMode)
	// Output:
	// io true true
}
