//go:build !unix

package engine

import "errors"

// A poller exists where a readiness wait on the raw connection does; elsewhere
// connections read in the ordinary blocking way.
type poller struct{}

func (*poller) init(*Conn) bool { return false }
func (*poller) ok() bool        { return false }

func (*poller) wait(*Conn) error { return errors.ErrUnsupported }
