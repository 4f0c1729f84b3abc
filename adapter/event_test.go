package adapter_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/gin-usher/usher/adapter"
)

func TestCatchAllListeners(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		var mu sync.Mutex
		var in, out []string
		s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
			srv.OnAny(func(_ context.Context, _ *adapter.Socket, e adapter.Event) {
				mu.Lock()
				defer mu.Unlock()
				var second []byte
				if err := e.Bind(1, &second); err != nil {
					t.Error(err)
				}
				in = append(in, fmt.Sprintf("%s %d %s %v %v", e.Name(), e.Len(), e.JSON(0), second, e.WantsAnswer()))
			})
			srv.OnAnyOutgoing(func(_ *adapter.Socket, event string, args []any) {
				mu.Lock()
				defer mu.Unlock()
				out = append(out, fmt.Sprint(event, args))
			})
			adapter.On(srv, "greet", func(_ context.Context, sock *adapter.Socket, name string) error {
				if err := sock.Emit("greeting", "hello", name); err != nil {
					return err
				}
				return srv.Emit("greeted", name)
			})
		})
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, nil)
		c.await("connect")
		c.emit("nobody listens", 1, map[string]string{"$bytes": "AQID"})
		if got := c.call("greet", "Ann"); got != "[]" {
			t.Errorf("greet = %s", got)
		}
		c.event("greeted")
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"nobody listens 2 1 [1 2 3] false", `greet 1 "Ann" [] true`}; !slices.Equal(in, want) {
			t.Errorf("OnAny saw %q, want %q", in, want)
		}
		if want := []string{"greeting[hello Ann]", "greeted[Ann]"}; !slices.Equal(out, want) {
			t.Errorf("OnAnyOutgoing saw %q, want %q", out, want)
		}
	})
}

func TestInterceptRefusesEvents(t *testing.T) {
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, func(srv *adapter.Server) {
			srv.OnAny(func(_ context.Context, _ *adapter.Socket, e adapter.Event) {
				if e.Name() == "echo" && string(e.JSON(0)) == `"bad"` {
					t.Error("OnAny got what was refused")
				}
			})
			srv.Intercept(func(_ context.Context, _ *adapter.Socket, e adapter.Event) error {
				var word string
				if err := e.Bind(0, &word); err != nil {
					return err
				}
				if word == "bad" {
					return &adapter.Error{Code: "language", Message: "mind your language"}
				}
				return nil
			})
		})
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, nil)
		c.await("connect")
		for word, want := range map[any]string{
			"good": `["good"]`,
			"bad":  `[{"error":{"code":"language","message":"mind your language"}}]`,
			7:      `[{"error":{"code":"bad_request","message":"event \"echo\": expected data to be a string, got number"}}]`,
		} {
			if got := c.call("echo", word); got != want {
				t.Errorf("echo %v = %s, want %s", word, got, want)
			}
		}
	})
}

func TestSeveralArguments(t *testing.T) {
	setup := func(srv *adapter.Server) {
		adapter.Handle(srv, "swap", func(_ context.Context, _ *adapter.Socket, in adapter.Args2[string, int]) (adapter.Args2[int, string], error) {
			return adapter.Args2[int, string]{A: in.B, B: in.A}, nil
		})
		adapter.Handle(srv, "three", func(ctx context.Context, s *adapter.Socket, in adapter.Args3[string, []byte, map[string]int]) (string, error) {
			back, err := adapter.Call[adapter.Args3[string, string, int]](ctx, s, "question", in.A, len(in.B))
			return fmt.Sprint(in, back), err
		})
	}
	transports(t, func(t *testing.T, transport string) {
		n := startNode(t)
		s := openSite(t, adapter.Config{}, setup)
		c := n.open("c", s.NewBrowser(t, ""), "/", transport, nil)
		c.await("connect")
		for _, tt := range []struct {
			args []any
			want string
		}{
			{[]any{"a", 1}, `[1,"a"]`},
			{[]any{"a"}, `[0,"a"]`},
			{nil, `[0,""]`},
			{[]any{"a", 1, "more"}, `[1,"a"]`},
			{[]any{1, "a"}, `[{"error":{"code":"bad_request","message":"event \"swap\": expected data to be a string, got number"}}]`},
		} {
			if got := c.call("swap", tt.args...); got != tt.want {
				t.Errorf("swap %v = %s, want %s", tt.args, got, tt.want)
			}
		}
		// The driver acknowledges with "ack of question" and the arguments.
		if got := c.call("three", "x", map[string]string{"$bytes": "AQI="}, map[string]int{"y": 3}); got != `["{x [1 2] map[y:3]} {ack of question x 2}"]` {
			t.Errorf("three = %s", got)
		}
	})
	t.Run("plain", func(t *testing.T) {
		s := openSite(t, adapter.Config{}, setup)
		c := s.NewBrowser(t, "").Dial(ws)
		var swapped []any
		c.Must("swap", []any{"a", 1, "more"}, &swapped)
		if fmt.Sprint(swapped) != "[1 a]" {
			t.Errorf("swap = %v", swapped)
		}
		if f := c.Call("swap", "a"); f.Error == nil || f.Error.Code != adapter.CodeBadRequest {
			t.Errorf("swap without an array = %s", f)
		}
		c.Raw(`{"type":"three","data":["x"],"id":99}`)
		c.Raw(`{"type":"reply","id":` + string(c.Event("question").ID) + `,"data":["yes","no",2]}`)
		if f := c.Event("reply"); string(f.Data) != `"{x [] map[]} {yes no 2}"` {
			t.Errorf("three = %s", f)
		}
	})
}
