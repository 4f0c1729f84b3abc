package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// A process is a server in a child process, as its parent sees it.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

// start runs a server until stop is called, or ctx is done.
func start(ctx context.Context, s *server, o options, stderr *os.File) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{serveCommand, "-server", s.name}
	if o.memProfile != "" {
		args = append(args, "-memprofilerate", "512")
	}
	p := &process{cmd: exec.CommandContext(ctx, self, args...)}
	p.cmd.Stderr = stderr
	p.cmd.WaitDelay = 5 * time.Second
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.addr, err = p.line()
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("start server: %w", err)
	}
	return p, nil
}

// stop kills the process and waits for its end.
func (p *process) stop() {
	_ = p.in.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // "killed", as it should be
}

func (p *process) line() (string, error) {
	s, err := p.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

// ask sends a command and returns the answer.
func (p *process) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		return "", fmt.Errorf("ask %q: %w", command, err)
	}
	answer, err := p.line()
	if err != nil {
		return "", fmt.Errorf("ask %q: %w", command, err)
	}
	if what, failed := strings.CutPrefix(answer, "error: "); failed {
		return "", fmt.Errorf("ask %q: %s", command, what)
	}
	return answer, nil
}

// cpu returns the CPU time that the process has used so far.
func (p *process) cpu() (time.Duration, error) {
	s, err := p.ask("cpu")
	if err != nil {
		return 0, err
	}
	us, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(us) * time.Microsecond, err
}

// settled returns the resident memory after a garbage collection.
func (p *process) settled() (int64, error) {
	if _, err := p.ask("gc"); err != nil {
		return 0, err
	}
	return p.resident()
}

func (p *process) resident() (int64, error) { return residentMemory(p.cmd.Process.Pid) }

// memory is what the process's runtime says about it.
type memory struct{ heap, spans, stacks, goroutines int64 }

func (p *process) memory() (m memory, err error) {
	s, err := p.ask("memory")
	if err != nil {
		return m, err
	}
	_, err = fmt.Sscan(s, &m.heap, &m.spans, &m.stacks, &m.goroutines)
	return m, err
}
