package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// TestSecurityHeaderInjection: a line break in a value that somebody else has
// chosen ends no header (CWE-113; RFC 9110, section 5.5): not in what middlewares
// write, on whichever answer it goes out, and not in what the adapter does.
func TestSecurityHeaderInjection(t *testing.T) {
	cfg := adapter.Config{
		Origins:     []string{"https://chat.example"},
		Credentials: []adapter.Source{adapter.Subprotocol("bearer"), adapter.Query("token")},
		Cookie:      "lb",
		Logger:      slog.New(slog.DiscardHandler),
	}
	log.SetOutput(io.Discard) // where net/http says what it drops
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	s := newTokenSite(t, cfg, func(s *tokenSite) {
		echo := func(c *gin.Context) {
			value := c.Query("echo")
			c.Header("X-Echo", value)
			c.Header("X-Request-Id", value)
			http.SetCookie(c.Writer, &http.Cookie{Name: "echo", Value: value, Path: value})
			c.SetCookie("gin", value, 60, "/", "", false, true)
		}
		s.Engine.Use(echo)
		s.Server.UseEach(echo)
		s.Server.UseOnce(func(c *gin.Context) {
			if to := c.Query("to"); to != "" {
				c.Redirect(http.StatusFound, to)
				c.Abort()
			}
		})
	})
	v := &victim{t: t, addr: strings.TrimPrefix(s.URL, "http://"), cookie: "jwt=alice"}
	host := []string{"Host: chat.example", "Origin: https://chat.example"}
	for name, value := range map[string]string{
		"CRLF":                       "a\r\nX-Injected: yes",
		"LF":                         "a\nX-Injected: yes",
		"CR":                         "a\rX-Injected: yes",
		"end of the head":            "a\r\n\r\n<script>",
		"folded line":                "a\r\n X-Injected: yes",
		"NUL":                        "a\x00\r\nX-Injected: yes",
		"next line":                  "a\u0085X-Injected: yes",
		"line separator":             "a\u2028X-Injected: yes",
		"letters that end in CR, LF": "a\u560d\u560aX-Injected: yes", // as whoever keeps a byte of each would have it
		"no UTF-8":                   "a\xff\r\nX-Injected: yes",
	} {
		t.Run(name, func(t *testing.T) {
			v.t = t
			in := url.QueryEscape(value)
			// net/http writes a NUL as it stands, to whoever of its handlers does.
			of := url.QueryEscape(strings.ReplaceAll(value, "\x00", ""))
			for _, r := range []struct {
				what, method, target string
				lines                []string
				status               int
			}{
				{"101", "GET", ws + "?echo=" + of, webSocket, 101},
				{"101 of Socket.IO", "GET", "/socket.io/?EIO=4&transport=websocket&echo=" + of, webSocket, 101},
				{"refusal over a WebSocket", "GET", ws + "?refusals=close&to=/x&echo=" + of, webSocket, 101},
				{"poll", "GET", enginePath + "&echo=" + of, nil, 200},
				{"preflight", "OPTIONS", enginePath + "&echo=" + of, nil, 204},
				{"redirect of a middleware", "GET", enginePath + "&to=/" + of + "&echo=" + of, nil, 401},
				{"sid", "GET", enginePath + "&sid=" + in, nil, 400},
				{"transport", "GET", "/socket.io/?EIO=4&transport=" + in, nil, 400},
				{"version", "GET", "/socket.io/?transport=polling&EIO=" + in, nil, 400},
				{"namespace", "GET", ws + "?nsp=/" + in, webSocket, 404},
				{"token", "GET", ws + "?token=" + in, webSocket, 400},
				{"file of the client", "GET", "/socket.io/socket.io" + url.PathEscape(value) + ".js", nil, 404},
			} {
				resp, body := v.ask(r.method, r.target, "", append(append([]string{}, host...), r.lines...)...)
				if resp.StatusCode != r.status {
					t.Errorf("%s: %s %s, want %d", r.what, resp.Status, body, r.status)
				}
				for k, values := range resp.Header {
					for _, value := range values {
						if k == "X-Injected" || strings.ContainsAny(value, "\r\n\x00") {
							t.Errorf("%s: the header %s: %q", r.what, k, value)
						}
					}
				}
				if strings.HasPrefix(body, "<script>") {
					t.Errorf("%s: the answer's body begins with what was to be a header: %s", r.what, body)
				}
			}
		})
	}
}

// TestSecurityNamesInAnswersAreOurs: of what a client asks for, the answer's
// headers name what we have, in our own spelling.
func TestSecurityNamesInAnswersAreOurs(t *testing.T) {
	cfg := adapter.Config{Origins: []string{"https://chat.example"}, Credentials: []adapter.Source{adapter.Subprotocol("bearer")}, Logger: slog.New(slog.DiscardHandler)}
	s := newTokenSite(t, cfg, nil)
	v := &victim{t: t, addr: strings.TrimPrefix(s.URL, "http://"), cookie: "a=b"}
	lines := append([]string{"Host: chat.example", "Origin: https://chat.example"}, webSocket...)
	resp, body := v.ask("GET", ws, "", append(lines, "Sec-WebSocket-Protocol: evil, bearer, alice, more")...)
	if got := resp.Header["Sec-Websocket-Protocol"]; resp.StatusCode != 101 || len(got) != 1 || got[0] != "bearer" {
		t.Errorf("%s %s: subprotocol %q, want bearer", resp.Status, body, got)
	}
	if resp, _ := v.ask("GET", ws, "", append(lines, "Sec-WebSocket-Protocol: evil", "Authorization: Bearer alice")...); resp.Header.Get("Sec-Websocket-Protocol") != "" {
		t.Errorf("a subprotocol that nobody speaks is answered: %v", resp.Header)
	}
	resp, _ = v.ask("OPTIONS", enginePath, "", "Host: chat.example", "Origin: https://chat.example",
		"Access-Control-Request-Method: DELETE", "Access-Control-Request-Headers: X-Evil")
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "https://chat.example", "Access-Control-Allow-Methods": "GET, POST",
		"Access-Control-Allow-Headers": "Authorization, Content-Type", "Vary": "Origin",
	} {
		if got := resp.Header[name]; len(got) != 1 || got[0] != want {
			t.Errorf("preflight: %s: %q, want %q", name, got, want)
		}
	}
}

// TestSecurityErrorBodiesAreNoPages: what a client sent stands in answers as
// JSON or plain text that no browser renders or runs.
func TestSecurityErrorBodiesAreNoPages(t *testing.T) {
	s := openSite(t, adapter.Config{Logger: slog.New(slog.DiscardHandler)}, nil)
	b := s.NewBrowser(t, "")
	sid := engineOpen(t, b)
	const script = "<script>alert(1)</script>"
	in := url.QueryEscape(script)
	for _, tt := range []struct {
		what, method, target, body string
		header                     http.Header
		kind                       string
	}{
		{"foreign origin", "GET", enginePath, "", http.Header{"Origin": {"https://" + script}}, "application/json"},
		{"transport", "GET", "/socket.io/?EIO=4&transport=" + in, "", nil, "application/json"},
		{"sid", "GET", enginePath + "&sid=" + in, "", nil, "application/json"},
		{"namespace", "GET", ws + "?nsp=/" + in, "", nil, "application/json"},
		{"POST", "POST", enginePath + "&sid=" + sid, `420["echo","` + script + `"]`, nil, "text/html"}, // "ok", as the protocol says
		{"poll", "GET", enginePath + "&sid=" + sid, "", nil, "text/plain"},
	} {
		_, body, h := engineDo(t, b, tt.method, tt.target, tt.body, tt.header)
		if kind := h.Get("Content-Type"); !strings.HasPrefix(kind, tt.kind) {
			t.Errorf("%s: Content-Type %q, want %s", tt.what, kind, tt.kind)
		}
		if strings.Contains(body, "<script>") || tt.what == "poll" && !strings.Contains(body, "alert(1)") {
			t.Errorf("%s: %s", tt.what, body)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" && !strings.HasPrefix(tt.target, ws) {
			t.Errorf("%s: no nosniff: %v", tt.what, h)
		}
	}
}

// TestSecurityJSONPIsRefused: a script tag sends cookies and no Origin, so no
// answer is a script (the old transport of Engine.IO with a parameter j).
func TestSecurityJSONPIsRefused(t *testing.T) {
	for _, eio3 := range []bool{false, true} {
		s := openSite(t, adapter.Config{AllowEIO3: eio3, Logger: slog.New(slog.DiscardHandler)}, nil)
		b := s.NewBrowser(t, "")
		for _, path := range []string{enginePath, "/socket.io/?EIO=3&transport=polling"} {
			_, body, h := engineDo(t, b, "GET", path+"&j=0", "", nil)
			if strings.Contains(body, "___eio") || strings.Contains(h.Get("Content-Type"), "javascript") {
				t.Errorf("%s: %v %s", path, h, body)
			}
		}
	}
}

// A noted handler passes records on, and checks that their messages are the
// program's own: handlers quote attributes, and the default one no message.
type noted struct {
	slog.Handler
	t *testing.T
}

func (n noted) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "forged") {
		n.t.Errorf("a client has written into the message %q", r.Message)
	}
	return n.Handler.Handle(ctx, r)
}

// TestSecurityLogInjection: whoever chooses a name cannot write a line of the log
// (CWE-117).
func TestSecurityLogInjection(t *testing.T) {
	const forged = "x\r\ntime=2026-01-01T00:00:00Z level=INFO msg=forged user=admin\x1b[2J\u2028"
	var out syncBuffer
	cfg := adapter.Config{Logger: slog.New(noted{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}), t})}
	s := openSite(t, cfg, func(srv *adapter.Server) {
		srv.UseOnce(gin.LoggerWithWriter(&out))
		adapter.On(srv, "fail", func(_ context.Context, _ *adapter.Socket, in string) error { return errors.New(in) })
		adapter.On(srv, "panic", func(_ context.Context, _ *adapter.Socket, in string) error { panic(in) })
		adapter.On(srv, forged, func(context.Context, *adapter.Socket, any) error { panic("a bug") })
	})
	in := url.QueryEscape(forged)
	b := s.NewBrowser(t, "")
	b.MustPost("/login?user=" + in)
	b.Get(ws + "?nsp=/" + in)
	b.Get("/socket.io/?EIO=4&transport=" + in)
	engineDo(t, b, "GET", enginePath, "", http.Header{"Origin": {"https://" + url.PathEscape(forged)}})
	c := b.Dial(ws + "?x=" + in)
	for _, event := range []string{"fail", "panic", forged, forged + "unknown"} {
		c.Call(event, forged)
	}
	name, err := json.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	c.Raw(`{"type":` + string(name) + `,"data":1,"id":` + string(name) + `}`)
	sid := engineOpen(t, b)
	engineDo(t, b, "POST", enginePath+"&sid="+sid, "40/"+forged+",", nil)
	b.MustPost("/logout")
	c.Closed()

	own := regexp.MustCompile(`^(time=\S+ level=[A-Z]+ msg=|\[GIN\] )`)
	logged := out.String()
	for line := range strings.Lines(logged) {
		if !own.MatchString(line) || strings.Contains(line, "\x1b") || strings.HasPrefix(line, "time=2026-01-01") {
			t.Errorf("a line that is not ours: %q", line)
		}
	}
	if n := strings.Count(logged, "msg=forged"); n < 5 {
		t.Errorf("the names are in the log %d times: the test tries less than it says\n%s", n, logged)
	}
}

// TestSecurityPrototypePollution: names that mean something in JavaScript mean
// nothing here, and reach others as the data that they are.
func TestSecurityPrototypePollution(t *testing.T) {
	type rights struct {
		Admin bool `json:"admin"`
	}
	s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		adapter.Handle(srv, "rights", func(_ context.Context, _ *adapter.Socket, in rights) (rights, error) { return in, nil })
	})
	const hostile = `{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}},"toString":1}`
	b := s.NewBrowser(t, "")
	c := b.Dial(ws)
	if f := c.Call("echo", json.RawMessage(hostile)); !sameJSON(t, string(f.Data), hostile) {
		t.Errorf("echo = %s", f)
	}
	if f := c.Call("rights", json.RawMessage(hostile)); string(f.Data) != `{"admin":false}` {
		t.Errorf("rights = %s", f)
	}
	// As the envelope's own members, too.
	c.Raw(`{"__proto__":{"type":"connect"},"type":"rights","id":"__proto__","data":{}}`)
	if f := c.Event("reply"); string(f.ID) != `"__proto__"` || string(f.Data) != `{"admin":false}` {
		t.Errorf("rights = %s", f)
	}
	for _, name := range []string{"__proto__", "constructor", "hasOwnProperty"} {
		if f := c.Call(name, nil); f.Error == nil || f.Error.Code != adapter.CodeEvent {
			t.Errorf("the event %s is answered %s", name, f)
		}
		c.Must("join", map[string]string{"room": name}, nil)
	}

	sid := engineOpen(t, b)
	engineDo(t, b, "POST", enginePath+"&sid="+sid, `421["echo",`+hostile+`]`, nil)
	_, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil)
	if data, ok := strings.CutPrefix(body, "431"); !ok || !sameJSON(t, data, "["+hostile+"]") {
		t.Errorf("Socket.IO: echo = %s", body)
	}
	engineDo(t, b, "POST", enginePath+"&sid="+sid, `422["rights",`+hostile+`]`, nil)
	if _, body, _ := engineDo(t, b, "GET", enginePath+"&sid="+sid, "", nil); body != `432[{"admin":false}]` {
		t.Errorf("Socket.IO: rights = %s", body)
	}
}
