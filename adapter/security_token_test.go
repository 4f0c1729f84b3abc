package adapter_test

import (
	"net/http"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestSecurityRevokedTokenRespaced: however a client writes its Authorization,
// the token is the same one, and its sockets end when it is revoked.
func TestSecurityRevokedTokenRespaced(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Revalidate: -1}, nil)
	spellings := []string{"Bearer alice", "bearer alice", "BEARER alice", "Bearer  alice", "bEaReR    alice", "Bearer alice  ", "Bearer \talice"}
	var open []*adaptertest.Conn
	for _, spelling := range spellings {
		c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, http.Header{"Authorization": {spelling}})
		if err != nil {
			t.Fatalf("%q: %v", spelling, err)
		}
		var me string
		if c.Must("me", nil, &me); me != "alice" {
			t.Errorf("%q is %q, want alice", spelling, me)
		}
		open = append(open, c)
	}
	if n, err := s.Server.Revoke(t.Context(), adapter.ByToken("alice")); n != len(spellings) || err != nil {
		t.Errorf("Revoke = %d, %v; want %d sockets", n, err, len(spellings))
	}
	for i, c := range open {
		if code := c.Closed(); code < 4400 {
			t.Errorf("%q: closed with %d", spellings[i], code)
		}
		if _, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, http.Header{"Authorization": {spellings[i]}}); err == nil {
			t.Errorf("%q is let in after Revoke", spellings[i])
		}
	}
}
