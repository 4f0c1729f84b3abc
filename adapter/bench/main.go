// Command bench measures what a connection and a message cost the server, for
// package adapter and for WebSockets written by hand, side by side in one run:
//
//	go run ./adapter/bench
//
// Every server runs in a process of its own and this process is its load. The
// servers take turns within each round, so that whatever else the machine does
// hits all of them; compare rows of one run, never absolute figures of two.
//
// All servers do the same work: they decode {"type","data","id"} and the data
// in it, and encode the answer. Connections carry the headers of a browser, and
// where a server has sessions each connection has a session of its own, made
// beforehand through a login route and not counted as the connection's memory.
//
// The columns:
//
//   - idle KiB: resident memory per connection, above the same process without
//     connections, once all are open and -settle has passed
//   - after GC: the same after a collection that returns memory to the system
//   - connect+close: handshake, first frame if there is one, closing handshake
//   - echo: a request and its reply, many clients at once
//   - broadcast: one delivery of one message to a room, the next message being
//     sent when everybody has it
//   - burst: one delivery when 8 messages are sent back to back
//
// All but memory is CPU time of the server process, user and system.
//
// With -bounds it measures instead how far open sockets lag behind what pages
// have answered.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// serveCommand is the hidden first argument that makes this program a server.
const serveCommand = "serve"

func main() {
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		os.Exit(serve(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	servers    []*server
	rounds     int
	conns      int
	connects   int
	echo       int
	echoes     int
	room       int
	broadcasts int
	settle     time.Duration
	timeout    time.Duration
	cpuProfile string
	memProfile string
	verbose    bool
	bounds     bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	names := fs.String("servers", strings.Join(serverNames(), ","), "which servers to measure")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds, an odd number; the table shows medians")
	fs.IntVar(&o.conns, "conns", 10_000, "idle connections")
	fs.IntVar(&o.connects, "connects", 2_000, "connections to open and close for connect+close")
	fs.IntVar(&o.echo, "echo", 200, "clients that send requests at the same time")
	fs.IntVar(&o.echoes, "echoes", 200, "requests of each of them")
	fs.IntVar(&o.room, "room", 1_000, "clients in the room that is broadcast to")
	fs.IntVar(&o.broadcasts, "broadcasts", 80, "messages to the room, sent one by one and then again in bursts of 8")
	fs.DurationVar(&o.settle, "settle", 2*time.Second, "how long connections are idle before memory is read; more than the 25s between heartbeats shows what is left after one")
	fs.DurationVar(&o.timeout, "timeout", 3*time.Minute, "the most that one server may take in one round")
	fs.StringVar(&o.cpuProfile, "cpuprofile", "", "folder for a CPU profile of each server and phase (of the last round)")
	fs.StringVar(&o.memProfile, "heapprofile", "", "folder for a heap profile of each server with idle connections (of the last round); slows everything down")
	fs.BoolVar(&o.verbose, "v", false, "print every figure as it is measured, where the memory of idle connections is, and what heartbeats and replays cost")
	fs.BoolVar(&o.bounds, "bounds", false, "measure how far sockets lag behind pages instead: logout, login and roles, with others' sockets open")
	quick := fs.Bool("quick", false, "small numbers, one round: a look, not a measurement")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("expected only flags, got %q", fs.Arg(0))
	}
	if *quick {
		set := make(map[string]bool)
		fs.Visit(func(f *flag.Flag) { set[f.Name] = true })
		for name, value := range map[string]string{
			"rounds": "1", "conns": "2000", "connects": "500", "echo": "50",
			"echoes": "100", "room": "200", "broadcasts": "40", "settle": "500ms",
		} {
			if !set[name] {
				if err := fs.Set(name, value); err != nil {
					return o, err
				}
			}
		}
	}
	for name := range strings.SplitSeq(*names, ",") {
		s := serverNamed(strings.TrimSpace(name))
		if s == nil {
			return o, fmt.Errorf("-servers: there is no %q; there are %s", name, strings.Join(serverNames(), ", "))
		}
		if !slices.Contains(o.servers, s) {
			o.servers = append(o.servers, s)
		}
	}
	if o.rounds < 1 || o.rounds%2 == 0 {
		return o, fmt.Errorf("-rounds: expected an odd number, got %d", o.rounds)
	}
	for name, n := range map[string]int{"conns": o.conns, "connects": o.connects, "echo": o.echo, "echoes": o.echoes, "room": o.room} {
		if n < 1 {
			return o, fmt.Errorf("-%s: expected at least 1, got %d", name, n)
		}
	}
	if o.broadcasts < burst || o.broadcasts%burst != 0 {
		return o, fmt.Errorf("-broadcasts: expected a multiple of %d, got %d", burst, o.broadcasts)
	}
	return o, nil
}

// run measures all servers and prints the tables. stderr is a file because the
// servers' processes write to it too.
func run(ctx context.Context, args []string, stdout io.Writer, stderr *os.File) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.bounds {
		return bounds(ctx, o, stdout, stderr)
	}
	if err := raiseFileLimit(max(o.conns, o.room, o.echo)); err != nil {
		return err
	}
	for _, dir := range []string{o.cpuProfile, o.memProfile} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
	}
	res := newResults(o.servers)
	for round := range o.rounds {
		for _, s := range o.servers {
			fmt.Fprintf(stderr, "round %d of %d: %s\n", round+1, o.rounds, s.name)
			if err := measure(ctx, o, s, res, stderr); err != nil {
				return fmt.Errorf("%s, round %d: %w", s.name, round+1, err)
			}
		}
	}
	res.print(stdout, o)
	return nil
}
