//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package adapter

// lockFile does nothing where there is no flock: one process at a time, then.
func lockFile(string) (unlock func() error, err error) {
	return func() error { return nil }, nil
}

// syncFolder does nothing where folders cannot be synced.
func syncFolder(string) error { return nil }
