package adapter_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestSecurityDecompressionBomb: what a message inflates to counts, and a body is
// not inflated at all (CWE-409; RFC 7692, section 8 leaves it to us).
func TestSecurityDecompressionBomb(t *testing.T) {
	bomb := bytes.Repeat([]byte(" "), 64<<20) // 64 KiB on the wire
	s := openSite(t, adapter.Config{Compression: 1024}, nil)
	for name, path := range map[string]string{"plain": ws, "Socket.IO": "/socket.io/?EIO=4&transport=websocket"} {
		t.Run(name, func(t *testing.T) {
			d := websocket.Dialer{EnableCompression: true}
			c, _, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http")+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.WriteMessage(websocket.TextMessage, bomb) // fails if the server hangs up before it is all there
			for {
				if _, _, err = c.ReadMessage(); err != nil {
					break
				}
			}
			if !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
				t.Errorf("closed with %v, want %d", err, websocket.CloseMessageTooBig)
			}
		})
	}
	t.Run("POST", func(t *testing.T) {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if _, err := w.Write(append([]byte(`42["echo","`), bomb...)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		b := s.NewBrowser(t, "")
		sid := engineOpen(t, b)
		for _, encoding := range []string{"gzip", "deflate", "gzip, gzip"} {
			status, body, _ := engineDo(t, b, "POST", enginePath+"&sid="+sid, packed.String(), http.Header{"Content-Encoding": {encoding}})
			if status != http.StatusBadRequest {
				t.Errorf("%s: %d %s, want 400: the bytes are no packet", encoding, status, body)
			}
		}
	})
}

// TestSecuritySlowPost: a body that never ends holds nothing for longer than a
// client may be silent (slowloris, CWE-400).
func TestSecuritySlowPost(t *testing.T) {
	inBubble(t, adapter.Config{}, nil, func(t *testing.T, b *bubble) {
		sid := b.connected()
		body, slowly := io.Pipe()
		began := time.Now()
		answer := b.send(context.Background(), "POST", sid, body)
		go func() {
			for range 1000 { // a byte a second
				if _, err := slowly.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		p := <-answer
		_ = body.Close()
		if took := p.at.Sub(began); p.status == http.StatusOK || took > 46*time.Second {
			t.Errorf("answered %v after %v, want an error after 45s", p, took)
		}
		b.wantUnknown(sid)
	})
}

// TestSecurityConnectFlood: each CONNECT runs the chain, for which no limiter of the
// handshake is asked. A connection that has been let in must not guess tokens, or
// keep the database busy, as fast as it can write.
func TestSecurityConnectFlood(t *testing.T) {
	for name, auth := range map[string]string{"guessed tokens": `,{"token":"guess"}`, "as nobody": ","} {
		t.Run(name, func(t *testing.T) {
			var runs atomic.Int64
			cfg := adapter.Config{Credentials: []adapter.Source{adapter.AuthPayload("token")}}
			inBubble(t, cfg, func(srv *adapter.Server) {
				srv.Use(func(c *gin.Context) {
					runs.Add(1)
					if c.GetHeader("Authorization") != "" {
						c.AbortWithStatus(http.StatusUnauthorized)
					}
				})
				srv.Identify(func(*gin.Context) (*adapter.Identity, error) { return nil, nil })
				srv.Of("/admin")
			}, func(t *testing.T, b *bubble) {
				w := b.online()
				time.Sleep(2 * time.Second) // what the handshake has found is not good for longer
				for range 1000 {
					_ = w.WriteMessage(websocket.TextMessage, []byte("40/admin"+auth))
					if _, m, err := w.ReadMessage(); err != nil {
						if !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
							t.Errorf("closed with %v, want 1008", err)
						}
						break
					} else if !strings.HasPrefix(string(m), "44/admin,") {
						t.Fatalf("CONNECT was answered %s", m)
					}
				}
				if n := runs.Load(); n > 250 {
					t.Errorf("one connection has run the chain %d times in a moment", n)
				}
			})
		})
	}
}

// TestSecurityRebindFlood: a poll with another credential than the connection's runs
// the chain, for which no limiter of the handshake is asked. Whoever knows a sid, his
// own for one, must not guess tokens or keep the database busy with it; and the owner
// goes on.
func TestSecurityRebindFlood(t *testing.T) {
	var runs atomic.Int64
	s := newTokenSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, func(s *tokenSite) {
		s.Server.Use(func(*gin.Context) { runs.Add(1) })
	})
	b := adaptertest.NewBrowser(t, s.URL)
	header := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	_, open, _ := engineDo(t, b, "GET", enginePath, "", header("alice"))
	path := enginePath + "&sid=" + open[strings.Index(open, `:"`)+2:strings.Index(open, `",`)]
	for i := range 500 { // whose cookies change with every answer is no guesser
		h := header("alice")
		h.Set("Cookie", fmt.Sprintf("csrf=%d", i))
		if status, body, _ := engineDo(t, b, "POST", path, "6", h); status != http.StatusOK {
			t.Fatalf("the owner's POST: %d %s", status, body)
		}
	}
	runs.Store(0)
	for range 500 {
		if status, body, _ := engineDo(t, b, "POST", path, "6", header("guess")); status != http.StatusForbidden {
			t.Fatalf("a POST with another's token: %d %s", status, body)
		}
	}
	if n := runs.Load(); n > 300 {
		t.Errorf("one connection has run the chain %d times in a moment", n)
	}
	owner := header("alice")
	owner.Set("Cookie", "csrf=499")
	if status, body, _ := engineDo(t, b, "POST", path, "6", owner); status != http.StatusOK {
		t.Errorf("the owner's POST: %d %s", status, body)
	}
}
