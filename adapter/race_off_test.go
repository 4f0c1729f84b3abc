//go:build !race

package adapter_test

import "testing"

func skipRace(*testing.T) {}
