package main

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestMain lets the test's own program be the servers that run starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		os.Exit(serve(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	if err := raiseFileLimit(0); err != nil {
		t.Skip(err)
	}
	profiles := t.TempDir()
	log, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var out bytes.Buffer
	err = run(t.Context(), []string{
		"-rounds", "1", "-conns", "200", "-connects", "20", "-echo", "5", "-echoes", "10",
		"-room", "20", "-broadcasts", "16", "-settle", "1ms", "-timeout", "1m", "-v",
		"-cpuprofile", profiles, "-heapprofile", profiles,
	}, &out, log)
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("run: %v\n%s", err, said)
	}

	blocks := strings.Split(out.String(), "\n\n")
	if len(blocks) != 5 {
		t.Fatalf("expected a heading, three tables and a legend, got\n%s", &out)
	}
	for i, title := range []string{"server", "× gorilla", "× gorilla-lean"} {
		rows := strings.Split(blocks[i+1], "\n")
		if !strings.HasPrefix(rows[0], title+" ") || len(rows) != 1+len(servers) {
			t.Fatalf("table %q: expected a row for each of %d servers, got\n%s", title, len(servers), blocks[i+1])
		}
		for j, row := range rows[1:] {
			checkRow(t, servers[j].name, row)
		}
	}
	for _, s := range servers {
		for _, name := range []string{".pprof", "-idle.pprof", "-connect+close.pprof", "-echo.pprof", "-broadcast.pprof", "-burst.pprof"} {
			if f, err := os.Stat(profiles + "/" + s.name + name); err != nil || f.Size() == 0 {
				t.Errorf("profile of %s: %v, %v", s.name, f, err)
			}
		}
	}
}

// checkRow wants a name and positive figures.
func checkRow(t *testing.T, name, row string) {
	t.Helper()
	cells := strings.Fields(row)
	if len(cells) != 1+int(metricCount) || cells[0] != name {
		t.Errorf("expected %s and %d figures, got %q", name, metricCount, row)
		return
	}
	for m, cell := range cells[1:] {
		// With so few connections garbage may outweigh what they hold.
		if v, err := strconv.ParseFloat(cell, 64); err != nil || v <= 0 && metric(m) != idle && metric(m) != idleGC {
			t.Errorf("%s of %s: expected a positive number, got %q", metrics[m].name, name, cell)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args    string
		wantErr string
	}{
		{"-servers=nginx", `there is no "nginx"; there are usher, usher-anonymous, gorilla, gorilla\+sessions, gorilla-lean`},
		{"-rounds=2", "expected an odd number"},
		{"-conns=0", "-conns: expected at least 1"},
		{"-broadcasts=12", "expected a multiple of 8"},
		{"usher", "expected only flags"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			_, err := parse([]string{tt.args}, t.Output())
			if err == nil || !regexp.MustCompile(tt.wantErr).MatchString(err.Error()) {
				t.Errorf("parse(%q) = %v, want an error with %q", tt.args, err, tt.wantErr)
			}
		})
	}

	t.Run("quick yields to what is said", func(t *testing.T) {
		o, err := parse([]string{"-quick", "-conns=5", "-servers=gorilla,usher,gorilla"}, t.Output())
		if err != nil {
			t.Fatal(err)
		}
		if o.rounds != 1 || o.conns != 5 || !slices.Equal(o.servers, []*server{serverNamed("gorilla"), serverNamed("usher")}) {
			t.Errorf("parse = %+v, want one round, 5 connections, gorilla and usher", o)
		}
	})
}

func TestFileLimit(t *testing.T) {
	if err := raiseFileLimit(0); err != nil {
		t.Skip(err)
	}
	err := raiseFileLimit(1 << 40)
	if err == nil || !strings.Contains(err.Error(), "-conns") {
		t.Errorf("raiseFileLimit for too many = %v, want an error that names -conns", err)
	}
}

// A server must not outlive the process that steers it, however that ended.
func TestServeEndsWithItsInput(t *testing.T) {
	if err := raiseFileLimit(0); err != nil {
		t.Skip(err)
	}
	var out, log bytes.Buffer
	code := serve([]string{"-server", "gorilla"}, strings.NewReader("cpu\nfly\n"), &out, &log)
	if code != 0 {
		t.Errorf("serve = %d, want 0: %s", code, &log)
	}
	if !regexp.MustCompile(`^127\.0\.0\.1:\d+\n\d+\nerror: there is no command "fly"\n$`).MatchString(out.String()) {
		t.Errorf("expected an address, a time and an error, got %q", out.String())
	}
}

func TestMedian(t *testing.T) {
	r := newResults([]*server{byHand})
	for _, v := range []float64{30, 10, 20} {
		r.add(byHand, echoed, v)
	}
	if got := r.median(byHand, echoed); got != 20 {
		t.Errorf("median = %v, want 20", got)
	}
	if got := r.spread(byHand, echoed); got != 1 {
		t.Errorf("spread = %v, want 1", got)
	}
}
