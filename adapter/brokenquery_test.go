package adapter_test

import (
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestTokenInABrokenQueryStaysOutOfLogs: what net/url cannot parse is no parameter
// to anybody, and a token in it was left where loggers write it down.
func TestTokenInABrokenQueryStaysOutOfLogs(t *testing.T) {
	var logged syncBuffer
	cfg := adapter.Config{Credentials: []adapter.Source{adapter.Query("token")}}
	srv := startBare(t, cfg, func(srv *adapter.Server) {
		srv.UseOnce(gin.LoggerWithWriter(&logged))
		srv.AllowAnonymous()
	})
	r := gin.New()
	srv.Mount(r)
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, r))
	for _, query := range []string{"token=secret7;room=1", "room=%zz&token=secret7;", "token=secret7;&token=alice", "%zz=1&token=secret7%zz", "room=7"} {
		engineDo(t, b, "GET", enginePath+"&"+query, "", nil)
	}
	got := logged.String()
	if strings.Contains(got, "secret7") {
		t.Errorf("the log has the token:\n%s", got)
	}
	if n := strings.Count(got, "GET"); n != 5 || !strings.Contains(got, "room=7") {
		t.Errorf("the log has %d lines, want 5, with what is a parameter:\n%s", n, got)
	}
}
