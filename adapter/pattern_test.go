package adapter_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

func TestPatternNames(t *testing.T) {
	for _, tt := range []struct{ pattern, name, want string }{
		{"/room/:id", "/room/7", "map[id:7]"},
		{"/room/:id", "/room/", ""},
		{"/room/:id", "/room", ""},
		{"/room/:id", "/room/7/8", ""},
		{"/room/:id", "/rooms/7", ""},
		{"/room/:id", "room/7", ""},
		{"/room-:id", "/room-7", "map[id:7]"},
		{"/room-:id", "/room-", ""},
		{"/:a/x/:b", "/1/x/2", "map[a:1 b:2]"},
		{"/:a/x/:b", "/1/y/2", ""},
		{"/:a", "/" + strings.Repeat("x", 255), ""},
		{"/:a", "/", ""},
		{"/:a", "", ""},
	} {
		params, ok, err := adapter.MatchPattern(tt.pattern, tt.name)
		got := ""
		if ok {
			got = fmt.Sprint(params)
		}
		if err != nil || got != tt.want {
			t.Errorf("%q in %q: %q, %v; want %q", tt.name, tt.pattern, got, err, tt.want)
		}
	}
	for _, bad := range []string{"/:", "/:a/:a", "/:a:b"} {
		if _, _, err := adapter.MatchPattern(bad, "/x"); err == nil {
			t.Errorf("the pattern %q was taken", bad)
		}
	}
}

// patternSite has namespaces "/room/:id" that admit anybody.
func patternSite(t *testing.T, setup func(*adapter.Namespace)) *adaptertest.Site {
	t.Helper()
	return openSite(t, adapter.Config{}, func(srv *adapter.Server) {
		room := srv.Of("/room/:id").AllowAnonymous()
		adapter.Handle(room, "where", func(_ context.Context, s *adapter.Socket, _ any) ([]string, error) {
			return []string{s.Namespace().Name(), s.Namespace().Param("id")}, nil
		})
		adapter.On(room, "join", func(_ context.Context, s *adapter.Socket, in text) error { return s.Join(in.Room) })
		adapter.On(room, "shout", func(_ context.Context, s *adapter.Socket, in string) error {
			return s.Namespace().Emit("shouted", in)
		})
		if setup != nil {
			setup(room)
		}
	})
}

func TestNamespacesByPattern(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := patternSite(t, nil)
		seven := n.open("seven", s.NewBrowser(t, ""), "/room/7", transport, nil)
		also := n.open("also seven", s.NewBrowser(t, ""), "/room/7", transport, nil)
		eight := n.open("eight", s.NewBrowser(t, ""), "/room/8", transport, nil)
		for _, c := range []*client{seven, also, eight} {
			c.await("connect")
		}
		if got := seven.call("where"); got != `[["/room/7","7"]]` {
			t.Errorf("where = %s", got)
		}
		seven.emit("shout", "to seven")
		if l := also.event("shouted"); string(l.Args[0]) != `"to seven"` {
			t.Errorf("%s", l)
		}
		eight.emit("shout", "to eight")
		if l := eight.event("shouted"); string(l.Args[0]) != `"to eight"` {
			t.Errorf("eight got what was for seven: %s", l)
		}
		if l := seven.event("shouted"); string(l.Args[0]) != `"to seven"` {
			t.Errorf("%s", l)
		}
		// The pattern stands for all that it has made; a name for the one of now.
		if err := s.Server.Of("/room/:id").Emit("all", 1); err != nil {
			t.Error(err)
		}
		if err := s.Server.Of("/room/7").To(also.call("where")).Emit("nobody", 1); err != nil {
			t.Error(err)
		}
		if err := s.Server.Of("/room/8").Emit("one", 2); err != nil {
			t.Error(err)
		}
		for _, c := range []*client{seven, also, eight} {
			c.event("all")
		}
		eight.event("one")

		c := n.open("pattern", s.NewBrowser(t, ""), "/room/:id", transport, nil)
		if l := c.await("connect_error"); l.Message != "Invalid namespace" {
			t.Errorf("the pattern itself: %s", l)
		}
	})
}

// TestEmptyNamespacesOfAPatternAreForgotten: clients choose the names, so what
// is left behind would grow for ever.
func TestEmptyNamespacesOfAPatternAreForgotten(t *testing.T) {
	gone := make(chan string, 100)
	s := patternSite(t, func(room *adapter.Namespace) {
		room.Require(func(_ context.Context, s *adapter.Socket) error {
			if s.Namespace().Param("id") == "closed" {
				return &adapter.Error{Code: "closed", Message: "closed today"}
			}
			return nil
		})
		room.OnDisconnect(func(s *adapter.Socket, _ adapter.Reason) { gone <- s.Namespace().Name() })
	})
	for i := range 10 {
		b := s.NewBrowser(t, "")
		path := fmt.Sprintf("%s?nsp=/room/%d", ws, i)
		a, c := b.Dial(path), b.Dial(path)
		a.Must("join", text{Room: "red"}, nil)
		a.Close()
		<-gone
		c.Must("join", text{Room: "red"}, nil)
		if members := len(s.Server.Here("/room/" + fmt.Sprint(i))); members != 1 {
			t.Errorf("%d sockets in /room/%d, want 1", members, i)
		}
		c.Close()
		<-gone
		if _, resp, err := b.TryDial(ws+"?nsp=/room/closed", nil); err == nil || resp.StatusCode != 403 {
			t.Errorf("a closed room: %v", err)
		}
	}
	s.Server.Settle()
	if made := s.Server.Made(); len(made) > 0 {
		t.Errorf("left behind: %v", made)
	}
}
