package adapter_test

import (
	"net/http"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestSecurityVisitorLogsInTwice: who presses the button twice on a first visit logs
// in twice without a session. The browser keeps one of the two cookies; the sockets had
// followed the other session, which no logout ended any more.
func TestSecurityVisitorLogsInTwice(t *testing.T) {
	for _, st := range raceStores {
		for _, second := range []string{"alice", "bob"} {
			t.Run(st.name+"/"+second, func(t *testing.T) {
				s := adaptertest.NewSite(t, adapter.Config{}, st.open(t), func(s *adaptertest.Site) { s.Server.AllowAnonymous() })
				first := s.NewBrowser(t, "")
				c := first.Dial(ws)
				browser := first.Clone() // as it was when it sent the second request
				first.MustPost("/login?user=alice")
				become(t, c, "alice")
				browser.MustPost("/login?user=" + second)
				if status, body := first.Get("/me"); status != http.StatusUnauthorized {
					t.Errorf("GET /me with the first cookie: %d %s, want 401", status, body)
				}
				if second == "alice" {
					become(t, c, "alice")
					browser.MustPost("/logout")
				}
				if code := c.Closed(); code != 4409 {
					t.Errorf("closed with %d, want 4409", code)
				}
			})
		}
	}
}
