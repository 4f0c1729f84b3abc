package adapter_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/memstore"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// One user on a page and on a socket, until the logout.
func ExampleServer() {
	gin.SetMode(gin.ReleaseMode)
	srv, err := adapter.New(adapter.Config{})
	if err != nil {
		log.Fatal(err)
	}
	store := srv.Store(memstore.NewStore([]byte("32 random bytes, kept secret ...")))
	srv.Use(sessions.Sessions("sid", store))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		if id, ok := adapter.LoggedIn(c); ok {
			return &id, nil
		}
		return nil, nil
	})
	adapter.Handle(srv, "greet", func(ctx context.Context, s *adapter.Socket, greeting string) (string, error) {
		id, _ := adapter.IdentityOf(ctx)
		return greeting + ", " + id.UserID + "!", nil
	})

	r := gin.New()
	srv.Mount(r)
	pages := r.Group("/", srv.HTTP()...)
	pages.POST("/login", func(c *gin.Context) { _ = srv.Login(c, adapter.Identity{UserID: "alice"}) })
	pages.POST("/logout", func(c *gin.Context) { _ = srv.Logout(c) })
	site := httptest.NewServer(r)
	defer site.Close()

	// From here on: the browser.
	jar, _ := cookiejar.New(nil)
	browser := http.Client{Jar: jar}
	dialer := websocket.Dialer{Jar: jar}
	url := "ws" + strings.TrimPrefix(site.URL, "http") + "/socket.io/ws"

	_, refused, _ := dialer.Dial(url, nil)
	fmt.Println("before login:", refused.Status)

	login, err := browser.Post(site.URL+"/login", "", nil)
	if err != nil {
		log.Fatal(err)
	}
	login.Body.Close()
	socket, _, err := dialer.Dial(url, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer socket.Close()
	_, _, _ = socket.ReadMessage() // connect
	_ = socket.WriteMessage(websocket.TextMessage, []byte(`{"type":"greet","data":"Hello","id":1}`))
	_, reply, _ := socket.ReadMessage()
	fmt.Println(string(reply))

	logout, err := browser.Post(site.URL+"/logout", "", nil)
	if err != nil {
		log.Fatal(err)
	}
	logout.Body.Close()
	_, _, err = socket.ReadMessage()
	fmt.Println(err)
	browser.CloseIdleConnections()
	_ = srv.Shutdown(context.Background())

	// Output:
	// before login: 401 Unauthorized
	// {"type":"reply","id":1,"data":"Hello, alice!"}
	// websocket: close 4409: session ended
}
