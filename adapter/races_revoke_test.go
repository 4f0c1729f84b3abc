package adapter_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter"
)

// TestRaceRevokeConnecting: once both have been answered the socket is refused
// or closed, nobody is in the namespace, no handler runs from then on, and what
// was revoked opens nothing. ByUser ends no tokens: who shows one to a chain that
// begins after Revoke is let in.
func TestRaceRevokeConnecting(t *testing.T) {
	type who func(y *try, session string) adapter.Who
	byUser := func(y *try, _ string) adapter.Who { return adapter.ByUser(y.user) }
	bySession := func(_ *try, session string) adapter.Who { return adapter.BySession(session) }
	byToken := func(y *try, _ string) adapter.Who { return adapter.ByToken(y.user) }
	for _, tt := range []struct {
		name      string
		transport string
		shows     string // where it shows who it is
		store     func(*testing.T) sessions.Store
		who       who
	}{
		{"handshake/ByUser", "plain", "cookie", newMemstore, byUser},
		{"handshake/ByUser, cookie store", "plain", "cookie", newCookieStore, byUser},
		{"handshake/BySession", "plain", "cookie", newMemstore, bySession},
		{"handshake/BySession, cookie store", "plain", "cookie", newCookieStore, bySession},
		{"handshake/ByToken", "plain", "header", newMemstore, byToken},
		{"CONNECT/ByUser", "websocket", "cookie", newMemstore, byUser},
		{"CONNECT/BySession", "polling", "cookie", newMemstore, bySession},
		{"CONNECT/ByToken", "websocket", "header", newMemstore, byToken},
		{"auth/ByUser", "websocket", "auth", newMemstore, byUser},
		{"auth/ByToken", "websocket", "auth", newMemstore, byToken},
		{"authenticate/ByUser", "plain", "message", newMemstore, byUser},
		{"authenticate/ByToken", "plain", "message", newMemstore, byToken},
		{"authenticate/ByToken", "websocket", "message", newMemstore, byToken},
		{"fresh token/ByToken", "plain", "fresh", newMemstore, func(y *try, _ string) adapter.Who { return adapter.ByToken(y.user + "~2") }},
	} {
		t.Run(tt.name+"/"+tt.transport, func(t *testing.T) {
			cfg := adapter.Config{}
			if tt.shows == "auth" || tt.shows == "message" || tt.shows == "fresh" {
				cfg.Credentials = []adapter.Source{adapter.AuthPayload("token"), adapter.FirstMessage()}
			}
			came := races(t, 1.0/14, handshakePoints, tt.store, cfg, nil, func(y *try) {
				cookie, session, auth := "", "", ""
				var header []string
				switch tt.shows {
				case "cookie":
					cookie = y.login()
					_, session, _ = strings.Cut(y.must("GET", "/me", cookie, "").body.String(), " ")
				case "header", "fresh":
					header = []string{"Authorization", "Bearer " + y.user}
				case "auth":
					auth = `{"token":"` + y.user + `"}`
				}
				revoke := func() {
					y.ending.Store(true)
					if _, err := y.srv.Revoke(t.Context(), tt.who(y, session)); err != nil {
						y.errorf("%v", err)
					}
					y.answered.Store(true)
				}
				var e *ending
				var status int
				if tt.shows == "fresh" {
					e, _ = y.open(tt.transport, cookie, header...)
					e.readOne() // it is let in
				}
				y.race(func() {
					if e != nil {
						// Where it is refused the socket goes on with the token it has.
						e.send(`{"type":"authenticate","token":"` + y.user + `~2","id":0}`)
						for answered := false; e.how == "" && !answered; {
							e.readOne()
							answered = strings.HasPrefix(e.frames[len(e.frames)-1], `{"type":"reply","id":0`)
						}
						if e.how == "" {
							e.send(`{"type":"act","id":1}`)
							e.read(false)
						}
						return
					}
					if e, status = y.open(tt.transport, cookie, header...); e == nil {
						return
					}
					switch {
					case tt.shows == "message" && tt.transport == "plain":
						e.send(`{"type":"authenticate","token":"` + y.user + `","id":0}`)
						e.send(`{"type":"act","id":1}`)
					case tt.shows == "message":
						e.send("40")
						e.send(`420["authenticate",{"token":"` + y.user + `"}]`)
						e.send(`421["act"]`)
					default:
						enter(e, tt.transport, auth)
					}
					e.read(false)
				}, revoke)
				tokenLives := tt.shows != "cookie" && !strings.Contains(tt.name, "ByToken")
				switch {
				case e != nil:
					if tokenLives && e.acted && e.how == "" && y.late.Load() {
						y.came("let in after")
						revoke()
					}
					y.wantEnd(e)
				case status == http.StatusUnauthorized:
					y.came("refused")
				default:
					y.errorf("the handshake was answered %d", status)
				}
				y.rest()
				switch tt.shows {
				case "cookie":
					y.wantNobody(cookie)
				case "header":
					if p := y.do("GET", "/me", "", "", header...); p.status != http.StatusUnauthorized {
						y.errorf("GET /me with the token: %d %s, want 401", p.status, p.body.String())
					}
				}
			})
			wantAll(t, came, "closed after an event")
		})
	}
}
