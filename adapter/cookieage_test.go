package adapter_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// TestPagesKeepTheCookieOfSocketsFresh: most stores sign when a cookie was made, and
// believe it for as long as a session lives. Pages that a visitor uses renew it in the
// browser; a socket that was open all the while went on with that of its handshake, and
// was closed when this one was too old.
func TestPagesKeepTheCookieOfSocketsFresh(t *testing.T) {
	st := newLedger(10 * time.Minute)
	var runs atomic.Int32
	inBubble(t, adapter.Config{}, rolls(st, &runs), func(t *testing.T, b *bubble) {
		engine := gin.New()
		engine.Group("/", b.srv.HTTP()...).POST("/use", func(c *gin.Context) {
			session := sessions.Default(c)
			session.Set("used", time.Now().String())
			if err := session.Save(); err != nil {
				t.Error(err)
			}
		})
		header := st.login("a")
		first, second := b.tab(header), b.tab(http.Header{"Cookie": header["Cookie"], "X-Tab": {"2"}})
		for range 6 {
			time.Sleep(4 * time.Minute)
			r, w := httptest.NewRequest(http.MethodPost, "/use", nil), httptest.NewRecorder()
			r.Header = http.Header{"Cookie": header["Cookie"]}
			engine.ServeHTTP(w, r)
			set := w.Result().Cookies()
			if len(set) != 1 {
				t.Fatalf("a page that saves has set %v", set)
			}
			header = http.Header{"Cookie": {set[0].Name + "=" + set[0].Value}}
			first.echo()
			second.echo()
		}
		// Once nobody uses it the session ends, and they with it.
		time.Sleep(10 * time.Minute)
		for _, c := range []*tab{first, second} {
			if err := <-c.ended; !websocket.IsCloseError(err, 4410) {
				t.Errorf("ended with %v, want 4410", err)
			}
		}
	})
}
