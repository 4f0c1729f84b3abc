package adapter_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A node drives the real socket.io-client in a Node.js process. See
// testdata/node/driver.js.
type node struct {
	t     *testing.T
	in    io.WriteCloser
	lines chan told
	kept  []told // lines that nobody has waited for yet
	calls int
}

// told is one thing that the client has told.
type told struct {
	Name      string            `json:"name"`
	Kind      string            `json:"kind"`
	ID        string            `json:"id"`
	SID       string            `json:"sid"`
	Recovered bool              `json:"recovered"`
	Transport string            `json:"transport"`
	Message   string            `json:"message"`
	Data      json.RawMessage   `json:"data"`
	Context   int               `json:"context"`
	Reason    string            `json:"reason"`
	Event     string            `json:"event"`
	Args      []json.RawMessage `json:"args"`
	Call      int               `json:"call"`
	Error     string            `json:"error"`
	raw       string
}

func (l told) String() string { return l.raw }

// startNode starts Node.js with socket.io-client. Without them the test is
// skipped, unless the full test run asked for everything.
func startNode(t *testing.T) *node {
	t.Helper()
	missing := ""
	if _, err := exec.LookPath("node"); err != nil {
		missing = "node in PATH"
	} else if _, err := os.Stat(filepath.Join("testdata", "node", "node_modules", "socket.io-client")); err != nil {
		missing = "npm install in adapter/testdata/node"
	}
	if missing != "" {
		if os.Getenv("USHER_TEST") == "full" {
			t.Fatal("needs " + missing)
		}
		t.Skip("needs " + missing)
	}
	cmd := exec.Command("node", "driver.js")
	cmd.Dir = filepath.Join("testdata", "node")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, in: in, lines: make(chan told, 200_000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := bufio.NewReader(out)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			l := told{raw: strings.TrimSpace(line)}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				l.Kind = "garbage"
			}
			n.lines <- l
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		<-done
		if err := cmd.Wait(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("node: %v", err)
		}
	})
	n.await("the driver", func(l told) bool { return l.Kind == "ready" })
	return n
}

func (n *node) do(command map[string]any) {
	n.t.Helper()
	b, err := json.Marshal(command)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.in.Write(append(b, '\n')); err != nil {
		n.t.Fatal(err)
	}
}

// await returns the first line that is wanted; the others stay.
func (n *node) await(what string, want func(told) bool) told {
	n.t.Helper()
	if i := slices.IndexFunc(n.kept, want); i >= 0 {
		l := n.kept[i]
		n.kept = slices.Delete(n.kept, i, i+1)
		return l
	}
	timeout := time.After(20 * time.Second)
	for {
		select {
		case l := <-n.lines:
			if want(l) {
				return l
			}
			n.kept = append(n.kept, l)
		case <-timeout:
			n.t.Fatalf("waiting for %s: only %v", what, n.kept)
		}
	}
}

// A client is one socket.io-client.
type client struct {
	*node
	name string
}

// open opens a socket with b's cookies. transport is "polling", "websocket" or
// "upgrade", with " 3.x" or " 2.x" behind it for the client of that version.
func (n *node) open(name string, b *adaptertest.Browser, nsp, transport string, options map[string]any) *client {
	n.t.Helper()
	version := 4
	for _, old := range []int{3, 2} {
		var is bool
		if transport, is = strings.CutSuffix(transport, fmt.Sprintf(" %d.x", old)); is {
			version = old
		}
	}
	o := map[string]any{}
	headers := map[string]string{}
	for _, c := range b.Cookies() {
		headers["Cookie"] += c.Name + "=" + c.Value + "; "
	}
	if len(headers) > 0 {
		o["extraHeaders"] = headers // those of transportOptions count less in 3.x
	}
	switch transport {
	case "polling", "websocket":
		o["transports"] = []string{transport}
	}
	for k, v := range options {
		o[k] = v
	}
	n.do(map[string]any{"do": "open", "name": name, "url": b.URL + nsp, "options": o, "version": version})
	return &client{n, name}
}

func (c *client) await(kind string) told {
	c.t.Helper()
	return c.node.await(c.name+"'s "+kind, func(l told) bool { return l.Name == c.name && l.Kind == kind })
}

func (c *client) event(event string) told {
	c.t.Helper()
	return c.node.await(c.name+"'s event "+event, func(l told) bool { return l.Name == c.name && l.Kind == "event" && l.Event == event })
}

func (c *client) emit(event string, args ...any) {
	c.t.Helper()
	c.do(map[string]any{"do": "emit", "name": c.name, "event": event, "args": args})
}

// call emits with an acknowledgement and returns its arguments as JSON.
func (c *client) call(event string, args ...any) string {
	c.t.Helper()
	c.calls++
	id := c.calls
	c.do(map[string]any{"do": "emit", "name": c.name, "event": event, "args": args, "call": id})
	l := c.node.await(fmt.Sprintf("the answer to %s", event), func(l told) bool { return l.Kind == "answer" && l.Call == id })
	if l.Error != "" {
		c.t.Fatalf("%s: %s", event, l)
	}
	b, err := json.Marshal(l.Args)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}
