package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"
)

// serve is the child process: one server on loopback, steered by lines on in
// and ending when in does, so that it never outlives its parent. Each line is
// answered with one line. The first line out is the server's address.
func serve(args []string, in io.Reader, out, stderr io.Writer) int {
	fs := flag.NewFlagSet(serveCommand, flag.ContinueOnError)
	fs.SetOutput(stderr)
	name := fs.String("server", "", "which server to be")
	rate := fs.Int("memprofilerate", runtime.MemProfileRate, "bytes between two samples of the heap profile")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	runtime.MemProfileRate = *rate
	if err := serveUntil(*name, in, out); err != nil {
		fmt.Fprintf(stderr, "bench: %s: %v\n", *name, err)
		return 1
	}
	return 0
}

func serveUntil(name string, in io.Reader, out io.Writer) error {
	s := serverNamed(name)
	if s == nil {
		return fmt.Errorf("there is no server %q", name)
	}
	if err := raiseFileLimit(0); err != nil {
		return err
	}
	h, err := s.build()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = (&http.Server{Handler: h, ReadHeaderTimeout: time.Minute}).Serve(l) }()
	fmt.Fprintln(out, l.Addr())

	lines := bufio.NewScanner(in)
	for lines.Scan() {
		answer, err := obey(strings.Fields(lines.Text()))
		if err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Fprintln(out, answer)
	}
	return lines.Err()
}

// obey carries out one command.
func obey(command []string) (string, error) {
	if len(command) == 0 {
		return "", fmt.Errorf("expected a command")
	}
	file := func(write func(*os.File) error) error {
		if len(command) != 2 {
			return fmt.Errorf("%s: expected a file", command[0])
		}
		f, err := os.Create(command[1])
		if err != nil {
			return err
		}
		return write(f)
	}
	switch command[0] {
	case "cpu": // microseconds so far
		used, err := cpuTime()
		return fmt.Sprint(used.Microseconds()), err
	case "gc":
		// Twice: what a sync.Pool holds survives the first collection.
		runtime.GC()
		runtime.GC()
		debug.FreeOSMemory()
		return "ok", nil
	case "memory": // what the runtime says: live heap, heap spans, stacks, goroutines
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return fmt.Sprint(m.HeapAlloc, m.HeapInuse, m.StackInuse, runtime.NumGoroutine()), nil
	case "profile":
		// Written to until "stop", or else until the process ends.
		return "ok", file(func(f *os.File) error { return pprof.StartCPUProfile(f) })
	case "stop":
		pprof.StopCPUProfile()
		return "ok", nil
	case "heap":
		return "ok", file(func(f *os.File) error {
			if err := pprof.Lookup("heap").WriteTo(f, 0); err != nil {
				return err
			}
			return f.Close()
		})
	}
	return "", fmt.Errorf("there is no command %q", command[0])
}
