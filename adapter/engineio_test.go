package adapter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// engineDial opens a WebSocket: for a session, or with a new one if sid is "".
func engineDial(t *testing.T, b *adaptertest.Browser, sid string) *websocket.Conn {
	t.Helper()
	path := "/socket.io/?EIO=4&transport=websocket"
	if sid != "" {
		path += "&sid=" + sid
	}
	d := websocket.Dialer{Jar: b.HTTP.Jar}
	ws, _, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(b.URL, "http")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	return ws
}

func wsWrite(t *testing.T, ws *websocket.Conn, packets ...string) {
	t.Helper()
	for _, p := range packets {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(p)); err != nil {
			t.Fatal(err)
		}
	}
}

func wsRead(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, data, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// wsClosed reads up to the end and returns the code and text of the close frame.
func wsClosed(t *testing.T, ws *websocket.Conn) (code int, text string) {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			ce, ok := err.(*websocket.CloseError)
			if !ok {
				t.Fatalf("%v, want a close frame", err)
			}
			return ce.Code, ce.Text
		}
	}
}

// engineUpgrade moves a session to a WebSocket.
func engineUpgrade(t *testing.T, b *adaptertest.Browser, sid string) *websocket.Conn {
	t.Helper()
	ws := engineDial(t, b, sid)
	wsWrite(t, ws, "2probe")
	if got := wsRead(t, ws); got != "3probe" {
		t.Fatalf("the probe was answered %q", got)
	}
	wsWrite(t, ws, "5")
	return ws
}

// hold begins a poll. Its answer is that of engineDo.
func hold(t *testing.T, b *adaptertest.Browser, sid string) (body <-chan string) {
	t.Helper()
	ch := make(chan string, 1)
	go func() {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", b.URL+enginePath+"&sid="+sid, nil)
		resp, err := b.HTTP.Do(r)
		if err != nil {
			ch <- err.Error()
			return
		}
		defer resp.Body.Close()
		data := new(strings.Builder)
		if err := resp.Write(data); err != nil {
			ch <- err.Error()
			return
		}
		_, text, _ := strings.Cut(data.String(), "\r\n\r\n")
		ch <- text
	}()
	return ch
}

// The client reads upgrades.length.
func TestEngineIOHandshake(t *testing.T) {
	s := openSite(t, adapter.Config{MaxPayload: 12345}, nil)
	b := s.NewBrowser(t, "")
	_, polled, h := engineDo(t, b, "GET", enginePath, "", nil)
	for upgrades, got := range map[string]string{`[]`: wsRead(t, engineDial(t, b, "")), `["websocket"]`: polled} {
		var open struct {
			SID string `json:"sid"`
		}
		unmarshal(t, strings.TrimPrefix(got, "0"), &open)
		want := fmt.Sprintf(`0{"sid":%q,"upgrades":%s,"pingInterval":25000,"pingTimeout":20000,"maxPayload":12345}`, open.SID, upgrades)
		if got != want || len(open.SID) < 24 { // 5 bits each
			t.Errorf("handshake %s, want %s", got, want)
		}
	}
	// Of nobody's cookies, the sticky one is for those who ask for it.
	if set := h.Values("Set-Cookie"); len(set) != 1 || !strings.HasPrefix(set[0], "usher-visitor=") {
		t.Errorf("the handshake sets the cookies %q", set)
	}
}

// Protocol 3 had binary bodies, 4 has not.
func TestEngineIORefusesBinaryPosts(t *testing.T) {
	s := openSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, nil)
	b := s.NewBrowser(t, "")
	for _, kind := range []string{"application/octet-stream", "Application/Octet-Stream; a=b"} {
		sid := engineOpen(t, b)
		status, body, _ := engineDo(t, b, "POST", enginePath+"&sid="+sid, `42["me"]`, http.Header{"Content-Type": {kind}})
		if status != http.StatusBadRequest || body != `{"code":3,"message":"Bad request"}` {
			t.Errorf("POST of %s: %d %s", kind, status, body)
		}
		if status, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil); status != http.StatusBadRequest {
			t.Errorf("the next poll: %d %s, want the session to be closed", status, body)
		}
	}
}

// A POST that breaks off has lost something, so nothing may follow it.
func TestEngineIOBrokenPostCloses(t *testing.T) {
	gone := make(chan adapter.Reason, 1)
	s := openSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, func(srv *adapter.Server) {
		srv.OnDisconnect(func(_ *adapter.Socket, r adapter.Reason) { gone <- r })
	})
	b := s.NewBrowser(t, "")
	sid := engineOpen(t, b)
	r := httptest.NewRequest("POST", enginePath+"&sid="+sid, &brokenBody{strings.NewReader(`42["echo",1]`)})
	for _, c := range b.Cookies() {
		r.AddCookie(c)
	}
	s.Engine.ServeHTTP(httptest.NewRecorder(), r)
	if r := <-gone; r != adapter.ReasonTransportError {
		t.Errorf("reason %q, want %q", r, adapter.ReasonTransportError)
	}
}

type brokenBody struct{ *strings.Reader }

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.Len() == 0 {
		return 0, http.ErrHandlerTimeout
	}
	return b.Reader.Read(p)
}

func TestEngineIOSecondWebSocket(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	b := s.NewBrowser(t, "")
	sid := engineOpen(t, b)
	first := engineUpgrade(t, b, sid)
	wsWrite(t, first, `420["echo",1]`)
	if got := wsRead(t, first); got != `430[1]` {
		t.Errorf("over the first: %s", got)
	}
	if code, _ := wsClosed(t, engineDial(t, b, sid)); code != websocket.CloseNormalClosure {
		t.Errorf("the second was closed with %d, want %d", code, websocket.CloseNormalClosure)
	}
	wsWrite(t, first, `421["echo",2]`)
	if got := wsRead(t, first); got != `431[2]` {
		t.Errorf("over the first: %s", got)
	}
	if status, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil); status != http.StatusBadRequest || body != `{"code":3,"message":"Bad request"}` {
		t.Errorf("a poll after the upgrade: %d %s", status, body)
	}
}

// What a WebSocket has carried is forgotten with it; what polls carried is kept
// for a last poll.
func TestEngineIOSessionsAreForgotten(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	b := s.NewBrowser(t, "")
	unknown := func(sid string) bool {
		_, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil)
		return body == `{"code":1,"message":"Session ID unknown"}`
	}
	alone := engineDial(t, b, "")
	var open struct {
		SID string `json:"sid"`
	}
	unmarshal(t, strings.TrimPrefix(wsRead(t, alone), "0"), &open)
	sid := engineOpen(t, b)
	upgraded := engineUpgrade(t, b, sid)
	wsWrite(t, upgraded, `420["echo",1]`)
	wsRead(t, upgraded)
	for id, ws := range map[string]*websocket.Conn{open.SID: alone, sid: upgraded} {
		if unknown(id) {
			t.Fatal("an open session is unknown")
		}
		start := time.Now()
		wsWrite(t, ws, "1")
		wsClosed(t, ws)
		for !unknown(id) {
			if time.Since(start) > 4*time.Second { // a last poll would have 5
				t.Fatal("a session outlives its WebSocket")
			}
		}
	}
}

func TestSocketIONamespacesWithoutComma(t *testing.T) {
	gone := make(chan string, 2)
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		custom := srv.Of("/custom").AllowAnonymous()
		custom.OnDisconnect(func(sock *adapter.Socket, r adapter.Reason) { gone <- sock.Namespace().Name() + " " + string(r) })
	})
	ws := engineDial(t, s.NewBrowser(t, ""), "")
	wsRead(t, ws)
	wsWrite(t, ws, "40/random")
	if got := wsRead(t, ws); got != `44/random,{"message":"Invalid namespace"}` {
		t.Errorf("40/random was answered %s", got)
	}
	wsWrite(t, ws, "40/custom")
	if got := wsRead(t, ws); !strings.HasPrefix(got, `40/custom,{"sid":`) {
		t.Errorf("40/custom was answered %s", got)
	}
	wsWrite(t, ws, "41/custom")
	if got := <-gone; got != "/custom client namespace disconnect" {
		t.Errorf("41/custom: %s", got)
	}
}

// TestSocketIOEventsRightAfterConnect: a client need not wait for the answer
// to CONNECT, and OnConnect may take its time.
func TestSocketIOEventsRightAfterConnect(t *testing.T) {
	const count = 200
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.OnConnect(func(_ context.Context, sock *adapter.Socket) error { return sock.Emit("welcome") })
	})
	b := s.NewBrowser(t, "")
	packets := []string{"40"}
	want := []string{`42["welcome"]`}
	for i := range count {
		packets = append(packets, fmt.Sprintf(`42%d["echo",%d]`, i, i))
		want = append(want, fmt.Sprintf(`43%d[%d]`, i, i))
	}
	t.Run("websocket", func(t *testing.T) {
		ws := engineDial(t, b, "")
		wsRead(t, ws)
		wsWrite(t, ws, packets...)
		if got := wsRead(t, ws); !strings.HasPrefix(got, `40{"sid":`) {
			t.Fatalf("first came %s", got)
		}
		for _, w := range want {
			if got := wsRead(t, ws); got != w {
				t.Fatalf("got %s, want %s", got, w)
			}
		}
	})
	t.Run("polling", func(t *testing.T) {
		_, body, _ := engineDo(t, b, "GET", enginePath, "", nil)
		var open struct {
			SID string `json:"sid"`
		}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "0")), &open); err != nil {
			t.Fatal(err)
		}
		if status, _, _ := engineDo(t, b, "POST", enginePath+"&sid="+open.SID, strings.Join(packets, "\x1e"), nil); status != http.StatusOK {
			t.Fatalf("POST: %d", status)
		}
		var got []string
		for len(got) < 1+len(want) {
			_, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+open.SID, "", nil)
			got = append(got, strings.Split(body, "\x1e")...)
		}
		if !strings.HasPrefix(got[0], `40{"sid":`) || !slices.Equal(got[1:], want) {
			t.Errorf("got %q", got)
		}
	})
}

// The deadlines of http.Server are for requests that are answered at once.
func TestEngineIOHeldPollSurvivesServerTimeouts(t *testing.T) {
	s := openSite(t, adapter.Config{PingInterval: time.Second}, nil)
	front := httptest.NewUnstartedServer(s.Engine)
	front.Config.ReadTimeout = 200 * time.Millisecond
	front.Config.WriteTimeout = 200 * time.Millisecond
	front.Start()
	defer front.Close()
	b := adaptertest.NewBrowser(t, front.URL)
	sid := engineOpen(t, b)
	for range 2 {
		if status, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil); status != http.StatusOK || body != "2" {
			t.Fatalf("a poll that was held for a second: %d %q, want a ping", status, body)
		}
		if status, _, _ := engineDo(t, b, "POST", enginePath+"&sid="+sid, "3", nil); status != http.StatusOK {
			t.Fatalf("POST: %d", status)
		}
	}
}

func TestEngineIOShutdownAnswersHeldPolls(t *testing.T) {
	s := openSite(t, adapter.Config{}, nil)
	b := s.NewBrowser(t, "")
	var polls []<-chan string
	for range 5 {
		polls = append(polls, hold(t, b, engineOpen(t, b)))
	}
	if err := s.Server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range polls {
		if got := <-p; got != "1" {
			t.Errorf("a held poll was answered %q, want a close packet", got)
		}
	}
	if status, body, _ := engineDo(t, b, "GET", enginePath, "", nil); status != http.StatusBadRequest || !strings.Contains(body, "restarting") {
		t.Errorf("a handshake after the shutdown: %d %s", status, body)
	}
}

// MaxPayload bounds a packet and its attachments together: each of them alone
// would fit.
func TestSocketIOAttachmentsAreBounded(t *testing.T) {
	s := openSite(t, adapter.Config{MaxPayload: 1000, Logger: slog.New(slog.DiscardHandler)}, nil)
	ws := engineDial(t, s.NewBrowser(t, ""), "")
	wsWrite(t, ws, "40", `453-["echo",[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]]`)
	for range 3 {
		if err := ws.WriteMessage(websocket.BinaryMessage, make([]byte, 400)); err != nil {
			t.Fatal(err)
		}
	}
	if code, text := wsClosed(t, ws); code != websocket.ClosePolicyViolation || text != "parse error" {
		t.Errorf("closed with %d %q", code, text)
	}
}

// A client that connects and never polls does not fill the server's memory.
func TestSocketIOSlowPoller(t *testing.T) {
	gone := make(chan adapter.Reason, 1)
	s := openSite(t, adapter.Config{SendBuffer: 10_000}, func(srv *adapter.Server) {
		srv.OnDisconnect(func(_ *adapter.Socket, r adapter.Reason) { gone <- r })
	})
	b := s.NewBrowser(t, "")
	sid := engineOpen(t, b)
	for range 100 {
		if err := s.Server.Emit("news", strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-gone; r != adapter.ReasonSlow {
		t.Errorf("reason %q, want %q", r, adapter.ReasonSlow)
	}
	if _, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil); body != "1" {
		t.Errorf("the poll was answered %q, want a close packet and nothing else", body)
	}
}

// TestHeadersOfEveryAnswer: what the reference has the events "initial_headers"
// and "headers" for, middlewares do here.
func TestHeadersOfEveryAnswer(t *testing.T) {
	var handshakes, requests atomic.Int32
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		srv.UseOnce(func(c *gin.Context) {
			handshakes.Add(1)
			c.Header("X-Initial", "yes")
		})
		srv.UseEach(func(c *gin.Context) {
			requests.Add(1)
			c.Header("X-Each", "yes")
			if c.GetHeader("X-Evil") != "" {
				c.AbortWithStatus(http.StatusTeapot)
			}
		})
	})
	b := s.NewBrowser(t, "")
	_, body, h := engineDo(t, b, "GET", enginePath, "", nil)
	if h.Get("X-Initial") == "" || len(h.Values("X-Each")) != 1 {
		t.Errorf("handshake: %v", h)
	}
	var open struct{ SID string }
	if err := json.Unmarshal([]byte(body[1:]), &open); err != nil {
		t.Fatal(err)
	}
	path := enginePath + "&sid=" + open.SID
	for _, r := range []struct{ method, body string }{{"POST", "40"}, {"GET", ""}, {"OPTIONS", ""}} {
		_, _, h := engineDo(t, b, r.method, path, r.body, nil)
		if h.Get("X-Initial") != "" || len(h.Values("X-Each")) != 1 {
			t.Errorf("%s: %v", r.method, h)
		}
	}
	if status, _, _ := engineDo(t, b, "POST", path, `42["echo"]`, http.Header{"X-Evil": {"yes"}}); status != http.StatusTeapot {
		t.Errorf("a POST that a middleware refuses: %d", status)
	}
	up := "ws" + strings.TrimPrefix(s.URL, "http") + "/socket.io/?EIO=4&transport=websocket&sid=" + open.SID
	d := websocket.Dialer{Jar: b.HTTP.Jar}
	if _, resp, err := d.DialContext(t.Context(), up, http.Header{"X-Evil": {"yes"}}); err == nil || resp.StatusCode != http.StatusTeapot {
		t.Errorf("an upgrade that a middleware refuses: %v", err)
	}
	c, resp, err := d.DialContext(t.Context(), up, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if resp.Header.Get("X-Initial") != "" || len(resp.Header.Values("X-Each")) != 1 {
		t.Errorf("upgrade: %v", resp.Header)
	}
	if a, b := handshakes.Load(), requests.Load(); a != 1 || b != 7 {
		t.Errorf("UseOnce ran %d times and UseEach %d, want 1 and 7", a, b)
	}
}

// TestHeadersOfCORSAreNotDoubled: browsers refuse an answer that allows its
// origin twice.
func TestHeadersOfCORSAreNotDoubled(t *testing.T) {
	cors := func(c *gin.Context) {
		c.Header("Access-Control-Allow-Origin", c.GetHeader("Origin"))
		c.Header("Access-Control-Allow-Credentials", "true")
		c.Writer.Header().Add("Vary", "Origin")
		if c.Request.Method == http.MethodOptions {
			c.Header("Access-Control-Allow-Methods", "GET, POST")
			c.AbortWithStatus(http.StatusNoContent)
		}
	}
	for _, where := range []string{"in UseEach", "in UseOnce", "above the route"} {
		t.Run(where, func(t *testing.T) {
			srv, err := adapter.New(adapter.Config{Origins: []string{"https://chat.example"}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
			srv.AllowAnonymous()
			r := gin.New()
			switch where {
			case "in UseEach":
				srv.UseEach(cors)
			case "in UseOnce":
				srv.UseOnce(cors)
			default:
				r.Use(cors)
			}
			srv.Mount(r)
			b := adaptertest.NewBrowser(t, adaptertest.Serve(t, r))
			origin := http.Header{"Origin": {"https://chat.example"}}
			_, body, h := engineDo(t, b, "GET", enginePath, "", origin)
			headers := []http.Header{h}
			var open struct{ SID string }
			if err := json.Unmarshal([]byte(body[1:]), &open); err != nil {
				t.Fatal(err)
			}
			for _, r := range []struct{ method, body string }{{"POST", "40"}, {"GET", ""}, {"OPTIONS", ""}} {
				_, _, h := engineDo(t, b, r.method, enginePath+"&sid="+open.SID, r.body, origin)
				headers = append(headers, h)
			}
			for i, h := range headers {
				for _, k := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Vary"} {
					if len(h.Values(k)) != 1 {
						t.Errorf("answer %d: %s is %q, want it once", i, k, h.Values(k))
					}
				}
			}
		})
	}
}
