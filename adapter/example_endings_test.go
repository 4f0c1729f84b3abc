package adapter_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"

	"github.com/gin-usher/usher/adapter"
)

// A session that lives in a cookie cannot be deleted: that it has ended is kept
// in a file, for the next process too.
func ExampleEndingsFile() {
	data, err := os.MkdirTemp("", "usher")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(data)

	endings, err := adapter.EndingsFile(filepath.Join(data, "endings"))
	if err != nil {
		log.Fatal(err)
	}
	srv, err := adapter.New(adapter.Config{Endings: endings})
	if err != nil {
		log.Fatal(err)
	}
	store := cookie.NewStore([]byte("32 random bytes, kept secret ..."))
	srv.Use(sessions.Sessions("sid", srv.Store(store)))
	fmt.Println("Logout and Revoke outlive this process")
	// Output: Logout and Revoke outlive this process
}
