package rooms

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

func TestIndex(t *testing.T) {
	var x Index[int]
	steps := []struct {
		name string
		got  any
		want any
	}{
		{"Len of no room", x.Len("a"), 0},
		{"In no room", x.In("a", 1), false},
		{"Remove from no room", x.Remove("a", 1), false},
		{"Add", x.Add("a", 1), true},
		{"Add again", x.Add("a", 1), false},
		{"Add to another room", x.Add("b", 1), true},
		{"Add another", x.Add("a", 2), true},
		{"Add a third", x.Add("a", 3), true},
		{"the empty name is a room too", x.Add("", 9), true},
		{"Len", x.Len("a"), 3},
		{"In", x.In("a", 2), true},
		{"not In", x.In("b", 2), false},
		{"Remove who is not there", x.Remove("b", 2), false},
		{"Remove", x.Remove("a", 1), true},
		{"Remove again", x.Remove("a", 1), false},
		{"Len afterwards", x.Len("a"), 2},
		{"the other room", x.In("b", 1), true},
		{"Remove the last", x.Remove("b", 1), true},
		{"the room is forgotten", slices.Sorted(maps.Keys(x.rooms)), []string{"", "a"}},
	}
	for _, s := range steps { // each ran when the list was made, in order
		if fmt.Sprint(s.got) != fmt.Sprint(s.want) {
			t.Errorf("%s: %v, want %v", s.name, s.got, s.want)
		}
	}
}

func TestSelect(t *testing.T) {
	var x Index[int]
	for i := range 100 {
		x.Add("all", i)
		if i%2 == 0 {
			x.Add("even", i)
		}
		if i%3 == 0 {
			x.Add("third", i)
		}
	}
	x.Add("few", 1)
	x.Add("few", 6)
	for _, tt := range []struct {
		name          string
		rooms, except []string
		want          func(i int) bool
	}{
		{"one room", []string{"even"}, nil, func(i int) bool { return i%2 == 0 }},
		{"a small room", []string{"few"}, nil, func(i int) bool { return i == 1 || i == 6 }},
		{"each once", []string{"even", "third", "even"}, nil, func(i int) bool { return i%2 == 0 || i%3 == 0 }},
		{"except", []string{"all"}, []string{"even"}, func(i int) bool { return i%2 != 0 }},
		{"except a small room", []string{"all"}, []string{"few"}, func(i int) bool { return i != 1 && i != 6 }},
		{"except two", []string{"all"}, []string{"even", "third"}, func(i int) bool { return i%2 != 0 && i%3 != 0 }},
		{"several except several", []string{"even", "third"}, []string{"few", "no such room"}, func(i int) bool { return i != 6 && (i%2 == 0 || i%3 == 0) }},
		{"except itself", []string{"few"}, []string{"few"}, func(int) bool { return false }},
		{"no such room", []string{"none"}, nil, func(int) bool { return false }},
		{"no such room and one", []string{"none", "few"}, nil, func(i int) bool { return i == 1 || i == 6 }},
		{"no rooms", nil, nil, func(int) bool { return false }},
		{"no rooms but exceptions", nil, []string{"few"}, func(int) bool { return false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := []int{-1}
			for i := range 100 {
				if tt.want(i) {
					want = append(want, i)
				}
			}
			got := x.Select([]int{-1}, tt.rooms, tt.except)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("Select = %v, want %v", got, want)
			}
		})
	}
}

// What Select returned is the caller's: later changes of the room are not seen
// through it.
func TestSelectCopies(t *testing.T) {
	var x Index[int]
	for i := range 3 {
		x.Add("a", i)
	}
	got := x.Select(nil, []string{"a"}, nil)
	want := slices.Clone(got)
	got[0] = 99
	x.Remove("a", 0)
	x.Add("a", 7)
	if !slices.Equal(got[1:], want[1:]) || x.In("a", 99) {
		t.Errorf("Select = %v, and the room has %v; want two things apart", got, x.Select(nil, []string{"a"}, nil))
	}
}

// A member that has left is not kept from the garbage collector by its place.
func TestRemoveForgets(t *testing.T) {
	var x Index[*int]
	a, b := new(int), new(int)
	x.Add("a", a)
	x.Add("a", b)
	x.Remove("a", a)
	if list := x.rooms["a"].list; list[:2][1] != nil {
		t.Error("the list still holds a member behind its end")
	}
}

// The index against sets in maps, over random steps.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var x Index[int]
		model := make(map[string]map[int]bool)
		members := 5 + rnd.IntN(60) // rooms around the size at which they get a map
		name := func() string { return fmt.Sprint("room ", rnd.IntN(6)) }
		names := func(n int) (all []string) {
			for range rnd.IntN(n) {
				all = append(all, name())
			}
			return all
		}
		in := func(m int, rooms []string) bool {
			return slices.ContainsFunc(rooms, func(r string) bool { return model[r][m] })
		}
		for step := range 4000 {
			r, m := name(), rnd.IntN(members)
			switch rnd.IntN(6) {
			case 0, 1, 2:
				if got, want := x.Add(r, m), !model[r][m]; got != want {
					t.Fatalf("seed %d step %d: Add(%q, %d) = %v, want %v", seed, step, r, m, got, want)
				}
				if model[r] == nil {
					model[r] = make(map[int]bool)
				}
				model[r][m] = true
			case 3, 4:
				if got, want := x.Remove(r, m), model[r][m]; got != want {
					t.Fatalf("seed %d step %d: Remove(%q, %d) = %v, want %v", seed, step, r, m, got, want)
				}
				if delete(model[r], m); len(model[r]) == 0 {
					delete(model, r)
				}
			case 5:
				rooms, except := names(4), names(3)
				var want []int
				for m := range members {
					if in(m, rooms) && !in(m, except) {
						want = append(want, m)
					}
				}
				got := x.Select(nil, rooms, except)
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d step %d: Select(%q, %q) = %v, want %v", seed, step, rooms, except, got, want)
				}
			}
			if got, want := x.Len(r), len(model[r]); got != want {
				t.Fatalf("seed %d step %d: Len(%q) = %d, want %d", seed, step, r, got, want)
			}
			if got, want := x.In(r, m), model[r][m]; got != want {
				t.Fatalf("seed %d step %d: In(%q, %d) = %v, want %v", seed, step, r, m, got, want)
			}
			if len(x.rooms) != len(model) {
				t.Fatalf("seed %d step %d: %d rooms, want %d", seed, step, len(x.rooms), len(model))
			}
		}
	}
}

// Everybody at once, for the race detector; each member's own rooms are as it
// left them.
func TestConcurrent(t *testing.T) {
	var x Index[int]
	var wg sync.WaitGroup
	for m := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(m), 1))
			var in [4]bool
			for range 2000 {
				r := rnd.IntN(len(in))
				room := fmt.Sprint(r)
				switch rnd.IntN(3) {
				case 0:
					if x.Add(room, m) == in[r] {
						t.Errorf("member %d: Add to room %d, in it %v", m, r, in[r])
					}
					in[r] = true
				case 1:
					if x.Remove(room, m) != in[r] {
						t.Errorf("member %d: Remove from room %d, in it %v", m, r, in[r])
					}
					in[r] = false
				case 2:
					got := x.Select(nil, []string{room, "0"}, []string{"3"})
					if slices.Contains(got, m) != ((in[r] || in[0]) && !in[3]) {
						t.Errorf("member %d: Select(%d) = %v, in rooms %v", m, r, got, in)
					}
				}
			}
			for r := range in {
				x.Remove(fmt.Sprint(r), m)
			}
		})
	}
	wg.Wait()
	if len(x.rooms) != 0 {
		t.Errorf("%d rooms are left, want none", len(x.rooms))
	}
}

func BenchmarkSelect(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var x Index[int]
			for i := range n {
				x.Add("room", i)
			}
			var dst []int
			b.ReportAllocs()
			for b.Loop() {
				dst = x.Select(dst[:0], []string{"room"}, nil)
			}
		})
	}
}
