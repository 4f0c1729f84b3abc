package adapter

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/gin-usher/usher/adapter/backplane"
	"github.com/gin-usher/usher/adapter/internal/engine"
)

// A deadLink drops what it is sent.
type deadLink struct {
	link
	plain *plainConn // encodes, unless it is nil
	sio   *sioSocket
}

func (l deadLink) encode(m *message) ([]engine.Frame, error) {
	if l.plain != nil {
		return l.plain.encode(m)
	}
	return l.sio.encode(m)
}

func (l deadLink) send([]engine.Frame, bool) error { return nil }

// BenchmarkBroadcast is what Emit costs before the first byte is written:
// encoding, and choosing whom it is for. Without a backplane there is nothing
// more to it; with one, the event is put into its queue besides.
func BenchmarkBroadcast(b *testing.B) {
	for _, with := range []string{"alone", "backplane"} {
		for _, sockets := range []int{1, 100, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", with, sockets), func(b *testing.B) {
				cfg := Config{Logger: slog.New(slog.DiscardHandler)}
				if with == "backplane" {
					cfg.Backplane = new(backplane.Memory).Node()
				}
				broadcast(b, cfg, sockets)
			})
		}
	}
}

func broadcast(b *testing.B, cfg Config, sockets int) {
	srv, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = srv.Shutdown(context.Background()) }()
	links := []deadLink{{plain: &plainConn{}}, {sio: &sioSocket{}}}
	for i := range sockets {
		s := &Socket{ns: srv.Namespace, id: fmt.Sprint(i), link: links[i%2]}
		srv.add(s)
		srv.rooms.Add("room", s)
	}
	defer clear(srv.Namespace.sockets) // none of them can be closed
	value := map[string]any{"room": "room", "text": "a chat message of ordinary length", "n": 1}
	room := srv.To("room")
	b.ReportAllocs()
	for b.Loop() {
		if err := room.Emit("chat message", value); err != nil {
			b.Fatal(err)
		}
	}
}
