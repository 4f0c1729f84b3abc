package compat

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestJWTFromEverySource: appleboy/gin-jwt as it is takes its token from wherever
// a client can put it.
func TestJWTFromEverySource(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	srv, err := adapter.New(adapter.Config{
		Credentials: []adapter.Source{adapter.Query("token"), adapter.Subprotocol("bearer"), adapter.AuthPayload("token"), adapter.FirstMessage()},
		Logger:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	f := buildJWT(t, srv)
	srv.Use(f.mw...)
	srv.Identify(f.identify)
	adapter.Handle(srv, "me", func(ctx context.Context, _ *adapter.Socket, _ any) (string, error) {
		id, _ := adapter.IdentityOf(ctx)
		return id.UserID, nil
	})
	r := gin.New()
	srv.Mount(r)
	b := adaptertest.NewBrowser(t, adaptertest.Serve(t, r))
	t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	dressed, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, b.URL, nil)
	f.dress(dressed)
	token := strings.TrimPrefix(dressed.Header.Get("Authorization"), "Bearer ")

	for _, tt := range []struct {
		place, query, first, connect string
		header                       http.Header
	}{
		{place: "header", header: http.Header{"Authorization": {"bearer " + token}}},
		{place: "query", query: "token=" + token},
		{place: "subprotocol", header: http.Header{"Sec-Websocket-Protocol": {"bearer, " + token}}},
		{place: "first message", first: token},
		{place: "auth", connect: `{"token":"` + token + `"}`},
	} {
		t.Run(tt.place, func(t *testing.T) {
			if tt.connect == "" {
				c, _, err := b.TryDial(plainPath+"?"+tt.query, tt.header)
				if err != nil {
					t.Fatal(err)
				}
				if tt.first != "" {
					c.Raw(`{"type":"authenticate","token":"` + tt.first + `","id":1}`)
					if f := c.Event("reply"); f.Error != nil {
						t.Fatalf("authenticate: %s", f)
					}
				}
				c.Event("connect")
				var me string
				if c.Must("me", nil, &me); me != f.want {
					t.Errorf("plain: me = %q, want %q", me, f.want)
				}
			}
			ws, _, err := websocket.DefaultDialer.DialContext(t.Context(),
				"ws"+strings.TrimPrefix(b.URL, "http")+enginePath+"?EIO=4&transport=websocket&"+tt.query, tt.header)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			s := &socket{b: newBrowser(t, b.URL, func(*http.Request) {}), ws: ws}
			s.next() // the open packet
			s.write("40" + tt.connect)
			if got := s.next(); !strings.HasPrefix(got, `40{"sid":`) {
				t.Fatalf("CONNECT was answered %s", got)
			}
			if tt.first != "" {
				s.write(`420["authenticate",{"token":"` + tt.first + `"}]`)
				if got := s.next(); got != "430[]" {
					t.Fatalf("authenticate = %s", got)
				}
			}
			s.write(`421["me"]`)
			if got := s.next(); got != `431["`+f.want+`"]` {
				t.Errorf("Socket.IO: me = %s, want %s", got, f.want)
			}
		})
	}
}
