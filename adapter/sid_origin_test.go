package adapter_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
)

// Whose sid is it? One test for each sentence that answers it:
//
//	every request's origin is checked ............ TestP20OriginIsCheckedOnEveryRequest, TestP20ForeignOriginIsNotUpgraded
//	no Origin means our own host ................. TestP20NoOriginMeansOurHost
//	origins have to match the handshake's ........ TestP20OriginsMatchTheHandshakes
//	the bound credential passes .................. TestP20TokenOfTheHandshakeCounts, TestP20CookieOfAnyKindIsNeeded
//	another one of the same user passes .......... TestP20SessionMayBeRenewed, TestP20TokenOfTheHandshakeCounts
//	the recorded successor passes ................ TestP20SuccessorOfNobody
//	anybody else gets 403, the owner is untouched . TestP20SidAloneIsNoCredential, TestP20NobodysConnectionIsNotForTheTaking
//	bound by cookie and no cookie now: 403 ....... TestP20CookieOfAnyKindIsNeeded, TestP20SidAloneIsNoCredential
//	bound by token and no token now: passes ...... TestP20TokenOfTheHandshakeCounts, TestP20TokenOfTheJWTGuide
//	and replays keep the handshake's token ....... TestP20ReplaysKeepTheHandshakesToken
//
// TestP20NodeClient… and TestP20Browser tell the same with the real client.

// dialFrom tries to open a WebSocket with headers and returns the status.
func (b *bubble) dialFrom(sid string, header http.Header) int {
	b.t.Helper()
	d := websocket.Dialer{NetDialContext: b.pipes.dial}
	ws, resp, err := d.Dial("ws://usher.test/socket.io/?EIO=4&transport=websocket&sid="+sid, header)
	if resp == nil {
		b.t.Fatal(err)
	}
	if err == nil {
		_ = ws.Close()
	}
	return resp.StatusCode
}

func TestP20ForeignOriginIsNotUpgraded(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		held := b.hold(sid)
		for _, origin := range []string{"https://evil.example", "null", "http://usher.test.evil.example", "http://usher.test:81"} {
			if status := b.dialFrom(sid, http.Header{"Origin": {origin}}); status != http.StatusForbidden {
				t.Errorf("an upgrade from %s: %d, want 403", origin, status)
			}
		}
		b.post(sid, `421["echo","unharmed"]`)
		b.wantPolled("the held poll", <-held, http.StatusOK, `431["unharmed"]`)
	})
}

// Browsers send no Origin with a GET to the page's own host; they do with a
// POST and a WebSocket, and that says Sec-Fetch-Site of the GET only.
func TestP20NoOriginMeansOurHost(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		get := http.Header{"Sec-Fetch-Site": {"same-origin"}}
		post := http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"http://usher.test"}}
		_, body, _ := engineDo(t, b.Browser, "GET", enginePath, "", get)
		var open struct{ SID string }
		unmarshal(t, body[1:], &open)
		path := enginePath + "&sid=" + open.SID
		if status, body, _ := engineDo(t, b.Browser, "POST", path, "40", post); status != http.StatusOK {
			t.Errorf("the page's POST: %d %s", status, body)
		}
		if status, body, _ := engineDo(t, b.Browser, "GET", path, "", get); status != http.StatusOK {
			t.Errorf("the page's poll: %d %s", status, body)
		}
		for _, site := range []string{"cross-site", "same-site"} {
			if status, body, _ := engineDo(t, b.Browser, "GET", path, "", http.Header{"Sec-Fetch-Site": {site}}); status != http.StatusForbidden {
				t.Errorf("a poll without Origin from a page of %s: %d %s, want 403", site, status, body)
			}
		}
		if status := b.dialFrom(open.SID, http.Header{"Origin": {"http://usher.test"}}); status != http.StatusSwitchingProtocols {
			t.Errorf("the page's upgrade: %d, want 101", status)
		}
	})
}

// A page of one listed origin has no business in the connection of another's.
func TestP20OriginsMatchTheHandshakes(t *testing.T) {
	const own, shop, chat = "http://usher.test", "https://shop.example", "https://chat.example"
	for _, tt := range []struct {
		name       string
		listed     []string
		then, now  string
		wantStatus int
	}{
		{"the same page", []string{shop, chat}, shop, shop, 200},
		{"another page", []string{shop, chat}, shop, chat, 403},
		{"our own page", []string{own, shop}, "", own, 200},
		{"another than our own", []string{own, shop}, "", shop, 403},
		{"our own in another's", []string{own, shop}, shop, "", 403},
		{"no browser at all", []string{own, shop}, "", "", 200},
		{"a proxy has renamed the host", []string{chat}, "", chat, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, adapter.Config{Origins: tt.listed}, nil, func(t *testing.T, b *bubble) {
				from := func(origin string) http.Header {
					if origin == "" {
						return nil
					}
					return http.Header{"Origin": {origin}}
				}
				_, body, _ := engineDo(t, b.Browser, "GET", enginePath, "", from(tt.then))
				var open struct{ SID string }
				unmarshal(t, body[1:], &open)
				path := enginePath + "&sid=" + open.SID
				if status, body, _ := engineDo(t, b.Browser, "POST", path, "40", from(tt.now)); status != tt.wantStatus {
					t.Errorf("POST: %d %s, want %d", status, body, tt.wantStatus)
				}
				engineDo(t, b.Browser, "POST", path, "40", from(tt.then))
				if status, body, _ := engineDo(t, b.Browser, "GET", path, "", from(tt.now)); status != tt.wantStatus {
					t.Errorf("GET: %d %s, want %d", status, body, tt.wantStatus)
				}
				want := tt.wantStatus
				if want == http.StatusOK {
					want = http.StatusSwitchingProtocols
				}
				if status := b.dialFrom(open.SID, from(tt.now)); status != want {
					t.Errorf("upgrade: %d, want %d", status, want)
				}
			})
		})
	}
}

// The connection stays that of its token after an upgrade without it.
func TestP20ReplaysKeepTheHandshakesToken(t *testing.T) {
	var mu sync.Mutex
	var tokens []string
	inBubble(t, adapter.Config{Revalidate: 10 * time.Second}, func(srv *adapter.Server) {
		srv.Use(func(c *gin.Context) {
			mu.Lock()
			defer mu.Unlock()
			tokens = append(tokens, c.GetHeader("Authorization"))
		})
		srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
			return &adapter.Identity{UserID: strings.TrimPrefix(c.GetHeader("Authorization"), "Bearer ")}, nil
		})
		adapter.Handle(srv, "me", func(_ context.Context, s *adapter.Socket, _ any) (string, error) { return s.Identity().UserID, nil })
	}, func(t *testing.T, b *bubble) {
		token := http.Header{"Authorization": {"bearer alice"}}
		_, body, _ := engineDo(t, b.Browser, "GET", enginePath, "", token)
		var open struct{ SID string }
		unmarshal(t, body[1:], &open)
		engineDo(t, b.Browser, "POST", enginePath+"&sid="+open.SID, "40", token)
		engineDo(t, b.Browser, "GET", enginePath+"&sid="+open.SID, "", token)
		w := b.probe(open.SID)
		w.write("5")
		synctest.Wait()
		time.Sleep(21 * time.Second)
		w.write(`421["me"]`)
		w.want(`431["alice"]`)
		mu.Lock()
		defer mu.Unlock()
		if len(tokens) < 3 {
			t.Errorf("the chain saw %q, want the handshake's token at least three times", tokens)
		}
		for _, token := range tokens {
			if token != "Bearer alice" {
				t.Errorf("the chain saw %q", token)
			}
		}
	})
}
