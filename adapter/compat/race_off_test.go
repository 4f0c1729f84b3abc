//go:build !race

package compat

import "testing"

func skipRace(*testing.T) {}
