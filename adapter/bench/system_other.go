//go:build !linux

package main

import (
	"errors"
	"time"
)

var errLinux = errors.New("the measurements read Linux's /proc and run on Linux only")

func raiseFileLimit(int) error              { return errLinux }
func cpuTime() (time.Duration, error)       { return 0, errLinux }
func residentMemory(pid int) (int64, error) { return 0, errLinux }
