package adapter

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

// TestRecoveredWhileTheOldSocketEnds: a recovered socket has the id of the one that
// it takes the place of, which may still be on its way out. Who leaves the namespace
// by that id alone takes the new one along: no broadcast reaches it any more, nor
// does Revoke.
func TestRecoveredWhileTheOldSocketEnds(t *testing.T) {
	srv, err := New(Config{Recovery: Recovery{Window: time.Minute}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = srv.Shutdown(context.Background()) }()
	n := srv.Namespace
	socket := func(asked string) *Socket {
		s := &Socket{ns: n, id: randomID(), link: deadLink{sio: &sioSocket{}}, recovery: n.recoverable(nil)}
		s.identity.Store(&Identity{UserID: "alice"})
		s.shake.Store(&Handshake{})
		s.recovery.asked = asked
		return s
	}
	old := socket("")
	if !n.history.admit(old, new(admission)) {
		t.Fatal("the first socket was not let in")
	}
	// What ended does, up to where the client can come back.
	n.history.dies(old, nil, true, ReasonTransportClose)
	again := socket(old.recovery.pid)
	if !n.history.admit(again, new(admission)) || !again.Recovered() || again.id != old.id {
		t.Fatalf("not recovered: %v, which was %v", again, old)
	}
	n.remove(old) // and what it does next
	if n.socket(again.id) != again {
		t.Error("the recovered socket cannot be found in its namespace")
	}
	n.remove(again)
	if n.socket(again.id) != nil {
		t.Error("a socket that has left can still be found")
	}
}
