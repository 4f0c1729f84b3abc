package adapter

import (
	"testing"
	"time"
)

type (
	frozenLine struct{ Item string }
	frozenCart struct {
		Lines []frozenLine
		By    map[string]*frozenLine
		At    time.Time
		count int
	}
	frozenSecret struct{ of []string }
	frozenRing   struct{ Next *frozenRing }
)

// TestFrozen: what is changed in place after a session was loaded is told from what
// is not, whatever it is.
func TestFrozen(t *testing.T) {
	cart := func() *frozenCart {
		line := &frozenLine{"pear"}
		return &frozenCart{Lines: []frozenLine{{"apple"}}, By: map[string]*frozenLine{"alice": line}, At: time.Now(), count: 1}
	}
	ring := new(frozenRing)
	ring.Next = ring
	for _, tt := range []struct {
		name   string
		value  any
		change func(v any)
		opaque bool // counts as changed in any case
	}{
		{name: "nil", value: nil},
		{name: "string", value: "a"},
		{name: "array of numbers", value: [2]int{1, 2}},
		{name: "time", value: time.Now()},
		{name: "slice", value: []string{"a", "b"}, change: func(v any) { v.([]string)[1] = "c" }},
		{name: "nil slice", value: []string(nil)},
		{name: "slice of anything", value: []any{1, []any{"a"}}, change: func(v any) { v.([]any)[1].([]any)[0] = "b" }},
		{name: "array of slices", value: [1][]int{{1}}, change: func(v any) { v.([1][]int)[0][0] = 2 }},
		{name: "map", value: map[string]any{"a": map[string]any{"b": 1}}, change: func(v any) { v.(map[string]any)["a"].(map[string]any)["b"] = 2 }},
		{name: "map of anything", value: map[any]any{"a": 1, 2: nil}, change: func(v any) { delete(v.(map[any]any), 2) }},
		{name: "pointer to a struct", value: cart(), change: func(v any) { v.(*frozenCart).By["alice"].Item = "plum" }},
		{name: "a struct's own field", value: cart(), change: func(v any) { v.(*frozenCart).count++ }},
		{name: "what nobody can look into", value: frozenSecret{[]string{"a"}}, opaque: true},
		{name: "function", value: func() {}, opaque: true},
		{name: "what contains itself", value: ring, opaque: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			values := map[any]any{"key": tt.value}
			was := frozen(values)
			if same := unchanged(was["key"], values["key"]); same == tt.opaque {
				t.Errorf("unchanged = %v before anything has happened", same)
			}
			if tt.change == nil {
				return
			}
			tt.change(values["key"])
			if unchanged(was["key"], values["key"]) {
				t.Errorf("unchanged: %v, which was %v", values["key"], was["key"])
			}
		})
	}
}
