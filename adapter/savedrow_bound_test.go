package adapter

import (
	"fmt"
	"testing"
)

// TestSavedRowsAreBounded: those that were written last are remembered, and a
// session that is written again and again has one place.
func TestSavedRowsAreBounded(t *testing.T) {
	var s savedRows
	for i := range 3 * maxSavedRows {
		s.note(savedRow{id: fmt.Sprint(i)})
		if i%100 == 0 {
			s.note(savedRow{id: "often"})
		}
	}
	if n := len(s.of); n > maxSavedRows || n < maxSavedRows*9/10 {
		t.Errorf("%d rows are remembered, want up to %d", n, maxSavedRows)
	}
	for _, id := range []string{"often", fmt.Sprint(3*maxSavedRows - 1), fmt.Sprint(3*maxSavedRows - maxSavedRows*9/10)} {
		if _, ok := s.of[hashSession(id)]; !ok {
			t.Errorf("%s was written lately and is forgotten", id)
		}
	}
}
