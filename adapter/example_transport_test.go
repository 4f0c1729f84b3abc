package adapter_test

import (
	"context"
	"fmt"
	"strings"
	"testing/fstest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// new WebSocket("wss://…/socket.io/ws") beside io("wss://…")
func ExampleServer_plainWebSocket() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	adapter.Handle(srv, "say", func(_ context.Context, s *adapter.Socket, text string) (int, error) {
		return len(text), s.Broadcast().Emit("said", text)
	})
	alice := site.Connect("alice")
	plain := site.WebSocket("bob", "/socket.io/ws")
	plain.Next() // connect

	fmt.Println(alice.EmitWithAck("say", "hello"))
	fmt.Println(plain.Next())
	plain.Send(`{"type":"say","data":"hi there","id":1}`)
	fmt.Println(plain.Next())
	fmt.Println(alice.Next())
	// Output:
	// 5
	// {"type":"said","data":"hello"}
	// {"type":"reply","id":1,"data":8}
	// said "hi there"
}

// new Server(httpServer, { connectionStateRecovery: { maxDisconnectionDuration: 120000 } })
func ExampleRecovery() {
	srv, site := newSite(adapter.Config{Recovery: adapter.Recovery{Window: 2 * time.Minute}})
	defer site.Close()
	srv.OnConnect(func(_ context.Context, s *adapter.Socket) error {
		if s.Recovered() { // socket.recovered
			fmt.Println("recovered with", s.Rooms(), s.Data().Get("color"))
			return nil
		}
		s.Data().Set("color", "red")
		return s.Join("news")
	})

	alice := site.Connect("alice")
	_ = srv.To("news").Emit("news", 1)
	fmt.Println(alice.Next())
	alice.Close()
	_ = srv.To("news").Emit("news", 2)
	alice.Reconnect()
	fmt.Println(alice.Next())
	// Output:
	// news 1
	// recovered with [news] red
	// news 2
}

// new Server(httpServer, { parser: require("socket.io-msgpack-parser") })
func ExampleParser() {
	srv, site := newSite(adapter.Config{Parser: adapter.MessagePack})
	defer site.Close()
	alice := site.WebSocket("alice", "/socket.io/?EIO=4&transport=websocket")
	alice.Next() // the handshake
	_ = alice.WriteMessage(websocket.BinaryMessage, []byte("\x82\xa4type\x00\xa3nsp\xa1/"))
	alice.Next() // connected

	_ = srv.Emit("news", "hello", 7)
	fmt.Printf("%q\n", alice.Next())
	// Output:
	// "\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x93\xa4news\xa5hello\a"
}

// new Server(httpServer, { allowEIO3: true })
func ExampleConfig_allowEIO3() {
	srv, site := newSite(adapter.Config{AllowEIO3: true})
	defer site.Close()
	v2 := site.WebSocket("alice", "/socket.io/?EIO=3&transport=websocket")
	v2.Next() // the handshake
	v2.Next() // connected, unasked
	v4 := site.Connect("bob")

	_ = srv.Emit("news", "hello")
	fmt.Println(v2.Next())
	fmt.Println(v4.Next())
	// Output:
	// 42["news","hello"]
	// news "hello"
}

// new Server(httpServer, { serveClient: true })
func ExampleConfig_serveClient() {
	dist := fstest.MapFS{ // os.DirFS("node_modules/socket.io-client/dist"), or an embed.FS
		"socket.io.min.js": {Data: []byte("/*! Socket.IO */")},
		"socket.io.js":     {Data: []byte("/*! Socket.IO, readable */")},
	}
	_, site := newSite(adapter.Config{Client: dist})
	defer site.Close()

	resp, script := site.Get("", "/socket.io/socket.io.min.js")
	fmt.Println(resp.Header.Get("Content-Type"))
	fmt.Println(script)
	// Output:
	// text/javascript; charset=utf-8
	// /*! Socket.IO */
}

// new Server(httpServer, { httpCompression: { threshold: 2048 } })
func ExampleConfig_httpCompression() {
	srv, site := newSite(adapter.Config{CompressPolls: 2048})
	defer site.Close()
	alice := site.Poll("alice")

	for _, size := range []int{1000, 3000} {
		_ = srv.Emit("text", strings.Repeat("a", size))
		resp, _ := alice.Next()
		fmt.Println(size, resp.Uncompressed)
	}
	// Output:
	// 1000 false
	// 3000 true
}

// new Server(httpServer, { perMessageDeflate: { threshold: 1024 } })
func ExampleConfig_perMessageDeflate() {
	srv, site := newSite(adapter.Config{Compression: 1024})
	defer site.Close()
	alice := site.Connect("alice")

	_ = srv.Emit("text", strings.Repeat("a", 3000))
	fmt.Println(alice.Header.Get("Sec-WebSocket-Extensions"))
	fmt.Println(len(alice.Next()))
	// Output:
	// permessage-deflate; server_no_context_takeover; client_no_context_takeover
	// 3007
}

// io.close()
func ExampleServer_Shutdown() {
	srv, site := newSite(adapter.Config{})
	defer site.Close()
	alice := site.Connect("alice")
	plain := site.WebSocket("bob", "/socket.io/ws")
	plain.Next() // connect

	ended := make(chan error)
	go func() { ended <- srv.Shutdown(context.Background()) }()
	fmt.Println(alice.Next()) // and tries to reconnect
	fmt.Println(plain.Next())
	fmt.Println(<-ended)
	// Output:
	// disconnect "transport close"
	// websocket: close 1012: restarting
	// <nil>
}
