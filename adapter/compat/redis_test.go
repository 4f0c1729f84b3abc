package compat

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	redisstore "github.com/gin-contrib/sessions/redis"
	"github.com/gomodule/redigo/redis"
)

// A redisServer is a redis-server of one test's own, on a free port.
type redisServer struct {
	t    *testing.T
	addr string
	args []string

	mu  sync.Mutex
	cmd *exec.Cmd // nil while it is down
}

// startRedis starts a redis-server that ends with the test. One that keeps its
// data has them after down and up. Without the program the test is skipped,
// unless the full test run asked for everything.
func startRedis(t *testing.T, keeps bool) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("USHER_TEST") == "full" {
			t.Fatal("needs redis-server in PATH")
		}
		t.Skip("needs redis-server in PATH")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(free.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	appendonly := "no"
	if keeps {
		appendonly = "yes"
	}
	s := &redisServer{t: t, addr: free.Addr().String(), args: []string{
		"--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(),
		"--save", "", "--appendonly", appendonly, "--appendfsync", "always",
	}}
	s.up()
	t.Cleanup(s.down)
	return s
}

// up starts the server and waits until it takes connections.
func (s *redisServer) up() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := exec.Command("redis-server", s.args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	var said strings.Builder
	for !strings.Contains(said.String(), "Ready to accept connections") {
		line, err := lines.ReadString('\n')
		said.WriteString(line)
		if err != nil {
			_ = cmd.Wait()
			s.t.Fatalf("redis-server %v: %v:\n%s", s.args, err, said.String())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }() // ends with the process
	s.cmd = cmd
}

// down kills the server.
func (s *redisServer) down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // also while it is stopped
	_ = s.cmd.Wait()
	s.cmd = nil
}

// stop freezes the server: it takes connections, and answers nothing.
func (s *redisServer) stop() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
}

// sessions returns a store on the server as apps make it, without timeouts.
func (s *redisServer) sessions(life time.Duration) sessions.Store {
	s.t.Helper()
	st, err := redisstore.NewStore(10, "tcp", s.addr, "", "", []byte(key))
	if err != nil {
		s.t.Fatal(err)
	}
	return lasting(st, life)
}

// impatient returns a store on the server that waits for a second.
func (s *redisServer) impatient(life time.Duration) sessions.Store {
	s.t.Helper()
	pool := &redis.Pool{MaxIdle: 10, Dial: func() (redis.Conn, error) {
		return redis.Dial("tcp", s.addr, redis.DialConnectTimeout(time.Second), redis.DialReadTimeout(time.Second), redis.DialWriteTimeout(time.Second))
	}}
	s.t.Cleanup(func() { _ = pool.Close() })
	st, err := redisstore.NewStoreWithPool(pool, []byte(key))
	if err != nil {
		s.t.Fatal(err)
	}
	return lasting(st, life)
}

// lasting has a store keep sessions for life, and say so to browsers.
func lasting(st sessions.Store, life time.Duration) sessions.Store {
	seconds := int(life.Seconds())
	st.Options(sessions.Options{Path: "/", MaxAge: seconds})
	if signed, ok := st.(interface{ MaxAge(seconds int) }); ok {
		// What is signed is believed for as long as its codec says.
		signed.MaxAge(seconds)
	}
	return st
}
