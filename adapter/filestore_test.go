package adapter_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/gin-contrib/sessions"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter/adaptertest"
)

// fileStore is gorilla's store of files as one of gin-contrib/sessions.
type fileStore struct{ *gsessions.FilesystemStore }

func (s fileStore) Options(o sessions.Options) {
	s.FilesystemStore.Options = o.ToGorillaOptions()
}

// TestFolderOfSessionsIsGone: where the folder of the files is not there, as when a
// volume is not mounted, no file says anything. That is a dead store, and no logout
// of everybody.
func TestFolderOfSessionsIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := adaptertest.NewSite(t, quick, fileStore{gsessions.NewFilesystemStore(dir, []byte("01234567890123456789012345678901"))}, nil)
	alice, bob := s.NewBrowser(t, "alice"), s.NewBrowser(t, "bob")
	c := alice.Dial(ws)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if status, _ := alice.Get("/me"); status != http.StatusServiceUnavailable {
		t.Errorf("GET /me without the folder: %d, want 503", status)
	}
	await(t, "health to tell", func() bool { return s.Server.Health(t.Context()) != nil })
	c.Must("me", nil, nil)
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	wantUser(t, "alice", alice)
	c.Must("me", nil, nil)
	bob.MustPost("/logout")
	wantNobody(t, "bob", bob)
}
