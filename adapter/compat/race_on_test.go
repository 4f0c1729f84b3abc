//go:build race

package compat

import "testing"

// skipRace leaves out code that is a data race on purpose.
func skipRace(t *testing.T) {
	t.Helper()
	t.Skip("the naive code races, which is its fault; it is run without -race")
}
