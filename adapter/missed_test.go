package adapter

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter/backplane"
)

func quietServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return srv
}

// TestRevokedElsewhereWhileASocketIsAdopted: a socket that was becoming a user's, of
// which it had been decided that it may and not yet noted, was not found when another
// node's Revoke of the user came in between. Nobody looked again.
func TestRevokedElsewhereWhileASocketIsAdopted(t *testing.T) {
	var bus backplane.Memory
	srv := quietServer(t, Config{Backplane: bus.Node()})
	l := closeLink{closed: make(chan Reason, 1)}
	sock := &Socket{ns: srv.Namespace, id: "one", link: l}
	sock.shake.Store(&Handshake{issued: time.Now().UnixNano()})
	srv.add(sock)
	defer srv.remove(sock)

	srv.arriving.RLock() // as adopt does, between asking and noting
	if _, news := srv.revoked.hear(ByUser("ann").mark(), time.Now().UnixNano(), 0, time.Hour); !news {
		t.Fatal("a revocation is no news")
	}
	h := &srv.cluster.hearing
	h.mu.Lock()
	h.due, h.running = map[mark]time.Time{ByUser("ann").mark(): time.Now().Add(time.Second)}, true
	h.mu.Unlock()
	heard := make(chan struct{})
	go func() {
		h.Run()
		close(heard)
	}()
	for waits := false; !waits; { // it waits, or has looked
		select {
		case <-heard:
			waits = true
		default:
			if waits = !srv.arriving.TryRLock(); !waits {
				srv.arriving.RUnlock()
				runtime.Gosched()
			}
		}
	}
	sock.identity.Store(&Identity{UserID: "ann"})
	srv.arriving.RUnlock()
	<-heard
	select {
	case r := <-l.closed:
		if r != ReasonRevoked {
			t.Errorf("closed with %q, want %q", r, ReasonRevoked)
		}
	default:
		t.Error("the socket was not closed")
	}
}

// TestNothingIsLeftOfASocketThatEndsTwice: one whose connection was lost while it came
// in, and whose session had ended, was looked at by replays for ever.
func TestNothingIsLeftOfASocketThatEndsTwice(t *testing.T) {
	srv := quietServer(t, Config{})
	s := &sioSocket{conn: &sioConn{srv: srv}}
	shake := &Handshake{head: []byte("GET / HTTP/1.1\r\nHost: usher.test\r\n\r\n")}
	s.socket.ns, s.socket.link, s.socket.closed = srv.Namespace, s, true
	s.socket.shake.Store(shake)
	srv.ended.add("session", time.Hour)
	s.decide(&admission{shake: shake, sessionID: "session", binding: "b"})
	if left := srv.Left(nil, nil); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRevokeOfWhoIsJustCutOff: a socket that was on its way out when its user was
// revoked could be recovered by its client at the user's next login.
func TestRevokeOfWhoIsJustCutOff(t *testing.T) {
	srv := quietServer(t, Config{Recovery: Recovery{Window: time.Minute}})
	for who, revoked := range map[Who]*Socket{
		ByUser("ann"):      {},
		ByProvider("oidc"): {},
		ByToken("t"):       {},
	} {
		shake := &Handshake{head: []byte("GET / HTTP/1.1\r\nHost: usher.test\r\nAuthorization: Bearer t\r\n\r\n")}
		for _, sock := range []*Socket{revoked, {}} {
			sock.ns, sock.id, sock.recovery = srv.Namespace, randomID(), srv.recoverable(nil)
			sock.identity.Store(&Identity{UserID: "ann", Provider: "oidc"})
			sock.shake.Store(shake)
			srv.history.dies(sock, nil, true, ReasonTransportClose)
			if sock == revoked {
				if n := srv.Ghosts(); n != 1 {
					t.Errorf("%v: %d are away, want 1", who, n)
				}
				if _, err := srv.Revoke(t.Context(), who); err != nil {
					t.Fatal(err)
				}
			}
			if n := srv.Ghosts(); n != 0 {
				t.Errorf("%v: %d are away after the Revoke, want none", who, n)
			}
		}
		srv.revoked.mu.Lock()
		clear(srv.revoked.of)
		srv.revoked.mu.Unlock()
	}
}
