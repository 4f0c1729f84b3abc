package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// spareFiles is what a process has open besides its connections.
const spareFiles = 100

// raiseFileLimit raises the number of files this process may have open as far
// as it can, and fails if that is too few for n connections.
func raiseFileLimit(n int) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("raise the limit of open files to %d: %w", l.Max, err)
	}
	if need := uint64(n + spareFiles); l.Max < need {
		return fmt.Errorf("%d connections need %d open files and the hard limit is %d: raise it (ulimit -Hn) or ask for fewer (-conns %d)",
			n, need, l.Max, max(int64(l.Max)-spareFiles, 1))
	}
	return nil
}

// cpuTime returns the CPU time of this process, user and system.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// residentMemory returns the bytes of a process that are in memory. It walks
// the page tables: the counters in statm lag behind by some pages per CPU.
func residentMemory(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return residentCounter(pid)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), "Rss:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("smaps_rollup: %w", err)
		}
		return kib << 10, nil
	}
	return residentCounter(pid)
}

func residentCounter(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("read resident memory: %w", err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		return 0, fmt.Errorf("read resident memory: statm: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}
