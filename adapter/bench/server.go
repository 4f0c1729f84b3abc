package main

import (
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"
)

// A server is one row of the table.
type server struct {
	name  string
	about string
	path  string // of the WebSocket
	// users says that a connection needs the cookie of a login.
	users bool
	// greets says that the server speaks first.
	greets bool
	build  func() (http.Handler, error)
}

// The servers, and the two that all others are compared with.
var (
	byHand = &server{
		name: "gorilla", about: "gorilla/websocket in a Gin route: default buffers, a handler that blocks",
		path: "/ws", build: func() (http.Handler, error) { return newGorilla(gorillaOptions{}), nil },
	}
	lean = &server{
		name: "gorilla-lean", about: "the same with a handler that returns, small and shared buffers, prepared messages",
		path: "/ws", build: func() (http.Handler, error) { return newGorilla(gorillaOptions{lean: true}), nil },
	}
	servers = []*server{
		{
			name: "usher", about: "package adapter behind gin-contrib/sessions, everybody logged in",
			path: "/socket.io/ws", users: true, greets: true,
			build: func() (http.Handler, error) { return newUsher(true) },
		},
		{
			name: "usher-anonymous", about: "package adapter without sessions",
			path: "/socket.io/ws", greets: true,
			build: func() (http.Handler, error) { return newUsher(false) },
		},
		byHand,
		{
			name: "gorilla+sessions", about: "gorilla behind gin-contrib/sessions; the user is read once",
			path: "/ws", users: true,
			build: func() (http.Handler, error) { return newGorilla(gorillaOptions{users: true}), nil },
		},
		lean,
	}
)

func serverNamed(name string) *server {
	for _, s := range append(slices.Clip(servers), bounded) {
		if s.name == name {
			return s
		}
	}
	return nil
}

func serverNames() []string {
	names := make([]string, len(servers))
	for i, s := range servers {
		names[i] = s.name
	}
	return names
}

// newEngine is what all servers have in common.
func newEngine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Use(gin.Recovery())
	return r
}

// cookieName is that of the session's cookie.
const cookieName = "sid"

// sessionKey signs the session cookies of a process that lives for seconds.
var sessionKey = []byte("0123456789abcdef0123456789abcdef")

// A note is the data of every event: "echo" answers with it, "say" sends it to
// all who have sent "join".
type note struct {
	Text string `json:"text"`
}
