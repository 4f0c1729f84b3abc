package store

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// TestEndingsInAnOlderDatabase: one of the first version keeps what it has.
func TestEndingsInAnOlderDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usher.db")
	all := migrations
	migrations = all[:1]
	db, err := Open(t.Context(), path)
	migrations = all
	if err != nil {
		t.Fatal(err)
	}
	ann := mustUser(t, db, "ann")
	if err := db.Endings().Add(t.Context(), adapter.Ending{Kind: "user"}); err == nil {
		t.Fatal("the first version has endings already")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openPath(t, path)
	if err := db.Endings().Add(t.Context(), adapter.Ending{Kind: "user", Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if got, err := db.User(t.Context(), ann.ID); err != nil || got != ann {
		t.Errorf("User = %v, %v; want %v", got, err, ann)
	}
}

func TestEndingsArePurged(t *testing.T) {
	db := openTest(t)
	add := func(n int, until time.Time) {
		t.Helper()
		var batch []adapter.Ending
		for i := range n {
			e := adapter.Ending{Kind: "session", Until: until}
			copy(e.Hash[:], fmt.Sprint(n, " ", i))
			batch = append(batch, e)
		}
		if err := db.Endings().Add(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
	add(2*purgeBatch+1, time.Now().Add(-time.Second))
	add(3, time.Now().Add(time.Hour))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		db.purge(ctx)
	}()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for n := 0; n != 3; <-again.C {
		if err := db.read.QueryRowContext(t.Context(), `SELECT count(*) FROM endings`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n < 3 {
			t.Fatalf("%d endings are left, want the three that last", n)
		}
	}
	cancel()
	<-done
	if all, err := db.Endings().All(t.Context()); err != nil || len(all) != 3 {
		t.Errorf("All = %d, %v; want 3", len(all), err)
	}
}
