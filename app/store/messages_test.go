package store

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-usher/usher/app"
)

func mustPost(t testing.TB, db *DB, d app.Draft) app.Message {
	t.Helper()
	m, err := db.Post(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustMessages(t testing.TB, db *DB, room string) []app.Message {
	t.Helper()
	msgs, err := db.Messages(t.Context(), room, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return msgs
}

func TestRooms(t *testing.T) {
	db := openTest(t)
	for _, r := range []app.Room{{Name: "tea", Title: "Tea"}, {Name: "a-1", Title: "First"}, {Name: "tea", Title: "Coffee"}} {
		if err := db.CreateRoom(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	want := []app.Room{{Name: "a-1", Title: "First"}, {Name: "lobby", Title: "Lobby"}, {Name: "tea", Title: "Tea"}}
	if got, err := db.Rooms(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("Rooms = %v, %v; want %v", got, err, want)
	}
	if got, err := db.Room(t.Context(), "tea"); err != nil || got != want[2] {
		t.Errorf("Room = %v, %v; want %v", got, err, want[2])
	}
	if _, err := db.Room(t.Context(), "coffee"); app.CodeOf(err) != app.CodeNotFound {
		t.Errorf("Room(coffee): %v, want %q", err, app.CodeNotFound)
	}
	for _, name := range []string{"", "Tea", "tea room", "tée", "a_b", strings.Repeat("a", 33)} {
		if err := db.CreateRoom(t.Context(), app.Room{Name: name}); app.CodeOf(err) != app.CodeInvalid {
			t.Errorf("CreateRoom(%q): %v, want %q", name, err, app.CodeInvalid)
		}
	}
}

func TestPost(t *testing.T) {
	db := openTest(t)
	ann := mustUser(t, db, "ann")
	before := time.Now().Truncate(time.Millisecond)
	const text = "  <b>hä?</b>\n\t🐸 'x' "
	m := mustPost(t, db, app.Draft{Room: "lobby", Text: text, UserID: ann.ID})
	if m.ID <= 0 || m.Room != "lobby" || m.Text != text || m.User != ann || m.At.Before(before) || m.At.After(time.Now()) {
		t.Errorf("Post = %+v", m)
	}
	if got := mustMessages(t, db, "lobby"); len(got) != 1 || got[0] != m {
		t.Errorf("stored %+v, returned %+v", got, m)
	}
}

func TestPostNonce(t *testing.T) {
	db := openTest(t)
	ann, ben := mustUser(t, db, "ann"), mustUser(t, db, "ben")
	first := mustPost(t, db, app.Draft{Room: "lobby", Text: "one", UserID: ann.ID, Nonce: "n"})
	if again := mustPost(t, db, app.Draft{Room: "lobby", Text: "changed", UserID: ann.ID, Nonce: "n"}); again != first {
		t.Errorf("repeated post = %+v, want %+v", again, first)
	}
	// The nonce is the user's own, and none is no nonce.
	want := []app.Message{
		first,
		mustPost(t, db, app.Draft{Room: "lobby", Text: "two", UserID: ben.ID, Nonce: "n"}),
		mustPost(t, db, app.Draft{Room: "lobby", Text: "same", UserID: ann.ID}),
		mustPost(t, db, app.Draft{Room: "lobby", Text: "same", UserID: ann.ID}),
	}
	if got := mustMessages(t, db, "lobby"); !slices.Equal(got, want) {
		t.Errorf("messages = %+v, want %+v", got, want)
	}
}

func TestPostErrors(t *testing.T) {
	db := openTest(t)
	ann := mustUser(t, db, "ann")
	for _, tt := range []struct {
		draft app.Draft
		want  string
	}{
		{app.Draft{Room: "nowhere", Text: "x", UserID: ann.ID}, `There is no room named "nowhere".`},
		{app.Draft{Room: "lobby", Text: "x", UserID: "nobody"}, "There is no such user."},
	} {
		_, err := db.Post(t.Context(), tt.draft)
		if app.CodeOf(err) != app.CodeNotFound || err.Error() != tt.want {
			t.Errorf("Post(%v): %v, want %q", tt.draft, err, tt.want)
		}
	}
	if got := mustMessages(t, db, "nowhere"); len(got) != 0 {
		t.Errorf("messages of a room that does not exist = %v", got)
	}
	mustPost(t, db, app.Draft{Room: "lobby", Text: "x", UserID: ann.ID})
}

func TestMessagesPages(t *testing.T) {
	db := openTest(t)
	ann := mustUser(t, db, "ann")
	if err := db.CreateRoom(t.Context(), app.Room{Name: "tea"}); err != nil {
		t.Fatal(err)
	}
	var all []app.Message
	for i := range 7 {
		all = append(all, mustPost(t, db, app.Draft{Room: "tea", Text: fmt.Sprint(i), UserID: ann.ID}))
		mustPost(t, db, app.Draft{Room: "lobby", Text: "elsewhere", UserID: ann.ID})
	}
	for _, tt := range []struct {
		name   string
		before int64
		limit  int
		want   []app.Message
	}{
		{"newest", 0, 3, all[4:]},
		{"older", all[4].ID, 3, all[1:4]},
		{"oldest", all[1].ID, 3, all[:1]},
		{"before the first", all[0].ID, 3, nil},
		{"more than there are", 0, 100, all},
		{"none", 0, 0, nil},
		{"negative", 0, -1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := db.Messages(t.Context(), "tea", tt.before, tt.limit)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("Messages(%d, %d) = %v, %v; want %v", tt.before, tt.limit, got, err, tt.want)
			}
		})
	}
}

func TestPostAtTheSameTime(t *testing.T) {
	db := openTest(t)
	const people, each = 4, 20
	var wg sync.WaitGroup
	for i := range people {
		u := mustUser(t, db, fmt.Sprint("user", i))
		for range 2 { // every post is sent twice at about the same time
			wg.Go(func() {
				for j := range each {
					if _, err := db.Post(t.Context(), app.Draft{Room: "lobby", Text: fmt.Sprint(j), UserID: u.ID, Nonce: fmt.Sprint(j)}); err != nil {
						t.Error(err)
						return
					}
					if _, err := db.Messages(t.Context(), "lobby", 0, 5); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()

	next := make(map[string]int)
	var last app.Message
	for _, m := range mustMessages(t, db, "lobby") {
		if m.Text != fmt.Sprint(next[m.User.ID]) {
			t.Fatalf("message %d of %s says %s", next[m.User.ID], m.User.Name, m.Text)
		}
		next[m.User.ID]++
		if m.ID <= last.ID || m.At.Before(last.At) {
			t.Fatalf("%+v comes after %+v", m, last)
		}
		last = m
	}
	for id, n := range next {
		if n != each {
			t.Errorf("%s has %d messages, want %d", id, n, each)
		}
	}
	if len(next) != people {
		t.Errorf("%d people posted, want %d", len(next), people)
	}
}

func BenchmarkPost(b *testing.B) {
	db := openTest(b)
	u := mustUser(b, db, "ann")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := db.Post(b.Context(), app.Draft{Room: "lobby", Text: "hello, everybody", UserID: u.ID}); err != nil {
			b.Fatal(err)
		}
	}
}
