package adapter_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestATokenIsForItsSocketWhileItIsAsked: a socket with a token of its own is asked
// about by guards that take their time. Meanwhile the browser shows another cookie
// of the connection's user: the connection is not the token's, and the socket is
// not the cookie's.
func TestATokenIsForItsSocketWhileItIsAsked(t *testing.T) {
	for _, sockets := range []string{"/admin", "/ and /admin"} {
		t.Run(sockets, func(t *testing.T) {
			gate := adaptertest.NewGate()
			s := newTokenSite(t, adapter.Config{Credentials: everySource}, func(s *tokenSite) {
				s.Server.Of("/admin").Require(func(context.Context, *adapter.Socket) error {
					gate.Pass()
					return nil
				})
			})
			t.Cleanup(gate.Open)
			b := adaptertest.NewBrowser(t, s.URL)
			do := func(method, sid, jwt, body string) (int, string) {
				t.Helper()
				status, answer, _ := engineDo(t, b, method, enginePath+"&sid="+sid, body, http.Header{"Cookie": {"jwt=" + jwt}})
				return status, answer
			}
			var open struct {
				SID string `json:"sid"`
			}
			_, answer := do("GET", "", "alice", "")
			if err := json.Unmarshal([]byte(strings.TrimPrefix(answer, "0")), &open); err != nil {
				t.Fatalf("handshake: %s", answer)
			}
			if sockets != "/admin" {
				do("POST", open.SID, "alice", "40")
				do("GET", open.SID, "alice", "")
			}
			do("POST", open.SID, "alice", `40/admin,{"token":"root"}`)
			<-gate.Entered

			if status, answer := do("POST", open.SID, "alice2", "3"); status != http.StatusOK {
				t.Errorf("alice's POST with her new cookie: %d %s", status, answer)
			}
			gate.Release <- struct{}{}
			if _, answer := do("GET", open.SID, "alice2", ""); !strings.HasPrefix(answer, `40/admin,{"sid":`) {
				t.Errorf("CONNECT was answered %s", answer)
			}
			if closed, err := s.Server.Revoke(t.Context(), adapter.ByToken("root")); closed != 1 || err != nil {
				t.Errorf("root's token has %d sockets, %v, want 1", closed, err)
			}
		})
	}
}
