package chat

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gin-usher/usher/app"
	"github.com/gin-usher/usher/app/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t testing.TB) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), filepath.Join(t.TempDir(), "usher.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func addUser(t testing.TB, db *store.DB, name string) app.User {
	t.Helper()
	u, err := db.UpsertUser(t.Context(), app.Profile{Provider: "test", Subject: name, Name: name, Avatar: "/" + name + ".png"})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func addRoom(t testing.TB, db *store.DB, name string) {
	t.Helper()
	if err := db.CreateRoom(t.Context(), app.Room{Name: name, Title: name}); err != nil {
		t.Fatal(err)
	}
}

func TestServicePost(t *testing.T) {
	db := openStore(t)
	ann := addUser(t, db, "ann")
	s := New(db)
	full := strings.Repeat("🐸", app.MaxText) // characters, not bytes
	for _, tt := range []struct {
		name, text, want string
	}{
		{"plain", "hello", "hello"},
		{"one character", "ß", "ß"},
		{"space around", "\n\t hello \u00a0\r\n", "hello"},
		{"space inside", "a\n\n  b\tc", "a\n\n  b\tc"},
		{"markup", "<b>hi</b> & bye", "<b>hi</b> & bye"},
		{"as long as can be", full, full},
		{"as long as can be, and space", " " + full + "\n", full},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := s.Post(t.Context(), app.Draft{Room: "lobby", Text: tt.text, UserID: ann.ID})
			if err != nil {
				t.Fatal(err)
			}
			if m.Text != tt.want || m.User != ann || m.Room != "lobby" || m.ID == 0 || m.At.IsZero() {
				t.Errorf("Post = %+v", m)
			}
			if stored, err := s.History(t.Context(), "lobby", 0); err != nil || stored[len(stored)-1] != m {
				t.Errorf("History ends with something else than %+v: %v, %v", m, stored, err)
			}
		})
	}
}

func TestServicePostRefuses(t *testing.T) {
	db := openStore(t)
	ann := addUser(t, db, "ann")
	s := New(db)
	for _, tt := range []struct {
		name  string
		draft app.Draft
		code  app.Code
		want  string // in the message
	}{
		{"empty", app.Draft{Room: "lobby"}, app.CodeInvalid, "1 to 4,000"},
		{"only space", app.Draft{Room: "lobby", Text: " \n\t\u3000"}, app.CodeInvalid, "1 to 4,000"},
		{"too long", app.Draft{Room: "lobby", Text: strings.Repeat("ä", 4001)}, app.CodeInvalid, "1 to 4,000 characters, this one has 4,001"},
		{"much too long", app.Draft{Room: "lobby", Text: strings.Repeat("ä", 1_000_050)}, app.CodeInvalid, "has 1,000,050"},
		{"not UTF-8", app.Draft{Room: "lobby", Text: "a\xffb"}, app.CodeInvalid, "UTF-8"},
		{"NUL", app.Draft{Room: "lobby", Text: "a\x00b"}, app.CodeInvalid, "NUL"},
		{"long nonce", app.Draft{Room: "lobby", Text: "x", Nonce: strings.Repeat("n", 65)}, app.CodeInvalid, "may have 64 bytes, this one has 65"},
		{"binary nonce", app.Draft{Room: "lobby", Text: "x", Nonce: "\xff"}, app.CodeInvalid, "nonce"},
		{"no room", app.Draft{Text: "x"}, app.CodeNotFound, "no such room"},
		{"impossible room", app.Draft{Room: "The Lobby", Text: "x"}, app.CodeNotFound, "1 to 32 characters"},
		{"unknown room", app.Draft{Room: "kitchen", Text: "x"}, app.CodeNotFound, `no room named "kitchen"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.draft.UserID = ann.ID
			m, err := s.Post(t.Context(), tt.draft)
			if app.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Post = %v, %v; want %q and %q", m, err, tt.code, tt.want)
			}
		})
	}
	if stored, err := s.History(t.Context(), "lobby", 0); err != nil || len(stored) != 0 {
		t.Errorf("stored %v, %v; want nothing", stored, err)
	}
}

func TestServiceNonceLimit(t *testing.T) {
	db := openStore(t)
	ann := addUser(t, db, "ann")
	d := app.Draft{Room: "lobby", Text: "x", UserID: ann.ID, Nonce: strings.Repeat("n", app.MaxNonce)}
	first, err := New(db).Post(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := New(db).Post(t.Context(), d); err != nil || again != first {
		t.Errorf("repeated post = %+v, %v; want %+v", again, err, first)
	}
}

func TestServiceOpenAndHistory(t *testing.T) {
	db := openStore(t)
	ann := addUser(t, db, "ann")
	s := New(db)

	room, messages, err := s.Open(t.Context(), "lobby")
	if err != nil || room != (app.Room{Name: "lobby", Title: "Lobby"}) {
		t.Errorf("Open = %v, %v", room, err)
	}
	if messages == nil || len(messages) != 0 {
		t.Errorf("messages of an empty room = %#v, want an empty list", messages)
	}

	var all []app.Message
	for i := range app.Latest + 7 {
		m, err := db.Post(t.Context(), app.Draft{Room: "lobby", Text: fmt.Sprint(i), UserID: ann.ID})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	_, messages, err = s.Open(t.Context(), "lobby")
	if err != nil || !slices.Equal(messages, all[7:]) {
		t.Errorf("Open shows %v, %v; want the latest %d", messages, err, app.Latest)
	}
	older, err := s.History(t.Context(), "lobby", messages[0].ID)
	if err != nil || !slices.Equal(older, all[:7]) {
		t.Errorf("History = %v, %v; want the first 7", older, err)
	}
	if none, err := s.History(t.Context(), "lobby", older[0].ID); err != nil || none == nil || len(none) != 0 {
		t.Errorf("History before the first = %#v, %v; want an empty list", none, err)
	}

	for _, name := range []string{"", "kitchen", "LOBBY", "../lobby", strings.Repeat("a", 33)} {
		if _, _, err := s.Open(t.Context(), name); app.CodeOf(err) != app.CodeNotFound {
			t.Errorf("Open(%q): %v, want %q", name, err, app.CodeNotFound)
		}
		if _, err := s.History(t.Context(), name, 0); app.CodeOf(err) != app.CodeNotFound {
			t.Errorf("History(%q): %v, want %q", name, err, app.CodeNotFound)
		}
	}
	if _, err := s.History(t.Context(), "lobby", -1); app.CodeOf(err) != app.CodeInvalid {
		t.Errorf("History(-1): %v, want %q", err, app.CodeInvalid)
	}
}

func TestServiceRooms(t *testing.T) {
	db := openStore(t)
	addRoom(t, db, "attic")
	rooms, err := New(db).Rooms(t.Context())
	if want := []app.Room{{Name: "attic", Title: "attic"}, {Name: "lobby", Title: "Lobby"}}; err != nil || !slices.Equal(rooms, want) {
		t.Errorf("Rooms = %v, %v; want %v", rooms, err, want)
	}
}

func TestServiceWithoutStore(t *testing.T) {
	db := openStore(t)
	ann := addUser(t, db, "ann")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := New(db)
	_, _, openErr := s.Open(t.Context(), "lobby")
	_, historyErr := s.History(t.Context(), "lobby", 0)
	_, postErr := s.Post(t.Context(), app.Draft{Room: "lobby", Text: "x", UserID: ann.ID})
	for _, err := range []error{openErr, historyErr, postErr} {
		if app.CodeOf(err) != app.CodeUnavailable {
			t.Errorf("error = %v, want %q", err, app.CodeUnavailable)
		}
	}
}
