// Package store keeps people, rooms, messages, HTTP sessions and what has to be
// remembered of those that were revoked in one SQLite file. The driver is pure
// Go: a binary and a folder are all it needs.
//
//	db, err := store.Open(ctx, "data/usher.db")
//	defer db.Close()
//	user, err := db.UpsertUser(ctx, profile)     // app.Users
//	msg, err := db.Post(ctx, draft)              // app.Messages
//	r.Use(sessions.Sessions("sid", db.Sessions(key)))
//	adapter.New(adapter.Config{Endings: db.Endings()})
//
// # Durability
//
// The file is in WAL mode with synchronous=FULL: when a write returns without
// an error it has been synced, and neither a killed process nor a power cut
// takes it back.
//
// # Concurrency
//
// Everything is safe for concurrent use. Writes share one connection, because
// SQLite has one writer and waiting in Go is cheaper than polling its lock;
// reads use a few connections of their own and never wait for a write.
//
// # Errors
//
// What a person may be told is an *app.Error: CodeNotFound, CodeInvalid, and
// CodeUnavailable when the database does not answer (disk full, locked, broken
// or closed). A cancelled context comes back as context.Canceled; one whose
// deadline passed is CodeUnavailable and still context.DeadlineExceeded to
// errors.Is. Any other error is a mistake in the program.
package store
