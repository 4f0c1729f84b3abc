package store

import (
	"sync"
	"testing"

	"github.com/gin-usher/usher/app"
)

// mustUser stores a person who is called what their subject says.
func mustUser(t testing.TB, db *DB, subject string) app.User {
	t.Helper()
	u, err := db.UpsertUser(t.Context(), app.Profile{Provider: "test", Subject: subject, Name: subject})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestUpsertUser(t *testing.T) {
	db := openTest(t)
	upsert := func(p app.Profile) app.User {
		t.Helper()
		u, err := db.UpsertUser(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if u.Name != p.Name || u.Avatar != p.Avatar {
			t.Errorf("UpsertUser(%v) = %v", p, u)
		}
		if got, err := db.User(t.Context(), u.ID); err != nil || got != u {
			t.Errorf("User = %v, %v; want %v", got, err, u)
		}
		return u
	}

	ann := upsert(app.Profile{Provider: "github", Subject: "1", Name: "Ann", Avatar: "https://example.com/a.png"})
	if len(ann.ID) < 26 { // 128 bits in base32
		t.Errorf("id %q can be guessed", ann.ID)
	}
	if again := upsert(app.Profile{Provider: "github", Subject: "1", Name: "Ann", Avatar: "https://example.com/a.png"}); again != ann {
		t.Errorf("second login = %v, want %v", again, ann)
	}
	if renamed := upsert(app.Profile{Provider: "github", Subject: "1", Name: "Anna"}); renamed.ID != ann.ID {
		t.Errorf("renaming changed the id from %s to %s", ann.ID, renamed.ID)
	}
	// A subject means something only together with its provider.
	if other := upsert(app.Profile{Provider: "google", Subject: "1", Name: "Ann"}); other.ID == ann.ID {
		t.Error("people of two providers became one")
	}
}

func TestUpsertUserAtTheSameTime(t *testing.T) {
	db := openTest(t)
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			u, err := db.UpsertUser(t.Context(), app.Profile{Provider: "test", Subject: "ann", Name: "Ann"})
			if err != nil {
				t.Error(err)
			}
			ids[i] = u.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("one person got the ids %v", ids)
		}
	}
}

func TestUserErrors(t *testing.T) {
	db := openTest(t)
	if _, err := db.User(t.Context(), "nobody"); app.CodeOf(err) != app.CodeNotFound {
		t.Errorf("User(nobody): %v, want %q", err, app.CodeNotFound)
	}
	for _, p := range []app.Profile{{Provider: "github"}, {Subject: "1"}} {
		if _, err := db.UpsertUser(t.Context(), p); app.CodeOf(err) != app.CodeInvalid {
			t.Errorf("UpsertUser(%v): %v, want %q", p, err, app.CodeInvalid)
		}
	}
}
