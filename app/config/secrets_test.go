package config

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestSecretsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first, err := LoadSecrets(dir, discard)
	if err != nil {
		t.Fatalf("LoadSecrets: %v", err)
	}
	for name, key := range map[string][]byte{"hash": first.SessionHash, "block": first.SessionBlock, "login": first.Login} {
		if len(bytes.Trim(key, "\x00")) == 0 {
			t.Errorf("the %s key is empty", name)
		}
	}
	wantPerm(t, dir, 0o700)
	wantPerm(t, filepath.Join(dir, secretsFile), 0o600)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v (%v), want the secrets only", entries, err)
	}

	second, err := LoadSecrets(dir, discard)
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Errorf("the second start has other secrets (%v)", err)
	}
	other, err := LoadSecrets(t.TempDir(), discard)
	if err != nil || bytes.Equal(first.SessionHash, other.SessionHash) {
		t.Errorf("another folder has the same secrets (%v)", err)
	}
}

// Processes that start together must agree, or they log each other's people out.
func TestSecretsOfConcurrentStarts(t *testing.T) {
	dir := t.TempDir()
	got := make([]Secrets, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = LoadSecrets(dir, discard); err != nil {
				t.Errorf("LoadSecrets: %v", err)
			}
		})
	}
	wg.Wait()
	for _, s := range got {
		if !reflect.DeepEqual(s, got[0]) {
			t.Fatal("two starts have different secrets")
		}
	}
}

func TestSecretsThatOthersCanReadAreRestricted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, secretsFile)
	before, err := LoadSecrets(dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o644)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	after, err := LoadSecrets(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("LoadSecrets: other secrets, or %v", err)
	}
	wantPerm(t, dir, 0o700)
	wantPerm(t, path, 0o600)
	if n := strings.Count(log.String(), "others could read"); n != 2 {
		t.Errorf("%d warnings, want one for the folder and one for the file:\n%s", n, log.String())
	}
}

func TestDamagedSecretsAreNotReplaced(t *testing.T) {
	tests := []struct{ name, content string }{
		{"empty", ""},
		{"cut off", `{"session_hash": "AAAA`},
		{"not JSON", "session_hash=AAAA"},
		{"a key is missing", `{"session_hash":"` + strings.Repeat("A", 86) + `==","login":"` + strings.Repeat("A", 43) + `="}`},
		{"a key is short", `{"session_hash":"AAAA","session_block":"AAAA","login":"AAAA"}`},
		{"unknown key", `{"session_hush":"AAAA"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), secretsFile)
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadSecrets(filepath.Dir(path), discard)
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("LoadSecrets: %v, want an error that names the file", err)
			}
			if err != nil && strings.Contains(err.Error(), "AAAA") {
				t.Errorf("the error quotes a secret: %v", err)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != tt.content {
				t.Errorf("the file was changed to %q (%v)", after, err)
			}
		})
	}
}

var discard = slog.New(slog.DiscardHandler)

func wantPerm(t testing.TB, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); runtime.GOOS != "windows" && got != want {
		t.Errorf("%s has permissions %v, want %v", path, got, want)
	}
}
