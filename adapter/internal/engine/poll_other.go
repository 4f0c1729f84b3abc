//go:build !unix

package engine

import "net"

// poller exists where a readiness wait on the raw connection does; elsewhere
// connections read in the ordinary blocking way.
type poller struct{}

func newPoller(*Conn, net.Conn) *poller { return nil }

func (*poller) wait() (*[]byte, int, error) { panic("unreachable: newPoller returned nil") }
