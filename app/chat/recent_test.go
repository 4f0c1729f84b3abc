package chat

import "testing"

func TestRecent(t *testing.T) {
	r := newRecent(3)
	for _, tt := range []struct {
		id   int64
		want bool
	}{
		{1, true}, {1, false}, {2, true}, {3, true}, {1, false}, // all three are known
		{4, true}, {2, false}, {3, false}, {1, true}, // 4 took the place of 1, and 1 that of 2
		{2, true}, {4, false}, {3, true},
	} {
		if got := r.add(tt.id); got != tt.want {
			t.Errorf("add(%d) = %t, want %t; it remembers %v", tt.id, got, tt.want, r.ring)
		}
	}
	if len(r.ids) != 3 {
		t.Errorf("it remembers %d ids, want 3", len(r.ids))
	}
}
