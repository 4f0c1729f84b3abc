package config

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// tokenKeys loads the keys in dir, at a time that the test sets.
func tokenKeys(t testing.TB, dir string, now *time.Time) *TokenKeys {
	t.Helper()
	k, err := LoadTokenKeys(dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	k.now = func() time.Time { return *now }
	return k
}

// wantTrust checks whether what the key signs is believed.
func wantTrust(t testing.TB, k *TokenKeys, id string, key ed25519.PrivateKey, want bool) {
	t.Helper()
	public, ok := k.Verifying(id)
	if ok != want || ok && !ed25519.Verify(public, []byte("x"), ed25519.Sign(key, []byte("x"))) {
		t.Errorf("the key %s is believed: %t, want %t", id, ok, want)
	}
}

func TestTokenKeysAreKept(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	id, key := tokenKeys(t, dir, &now).Signing()
	wantPerm(t, filepath.Join(dir, tokenKeysFile), 0o600)
	again := tokenKeys(t, dir, &now)
	if other, same := again.Signing(); other != id || !bytes.Equal(same, key) {
		t.Error("the second start signs with another key")
	}
	wantTrust(t, again, id, key, true)
	wantTrust(t, again, "", key, false)
	wantTrust(t, again, "unknown", key, false)
	if other, _ := tokenKeys(t, t.TempDir(), &now).Signing(); other == id {
		t.Error("another folder has the same key")
	}
}

// An old key goes on to verify until nothing that it has signed can be valid,
// and no longer: what is signed with it then was signed by a thief.
func TestTokenKeysRotate(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	k := tokenKeys(t, dir, &now)
	first, firstKey := k.Signing()
	now = now.Add(tokenKeyAge - time.Hour)
	if id, _ := k.Signing(); id != first {
		t.Error("the key was replaced too early")
	}
	now = now.Add(time.Hour)
	second, secondKey := k.Signing()
	if second == first || bytes.Equal(firstKey, secondKey) {
		t.Fatal("the key was not replaced")
	}
	wantPerm(t, filepath.Join(dir, tokenKeysFile), 0o600)
	for _, k := range []*TokenKeys{k, tokenKeys(t, dir, &now)} {
		if id, _ := k.Signing(); id != second {
			t.Errorf("signs with %s, want the new key", id)
		}
		wantTrust(t, k, first, firstKey, true)
		wantTrust(t, k, second, secondKey, true)
	}
	now = now.Add(MaxTokenLife + time.Minute)
	wantTrust(t, k, first, firstKey, false)
	wantTrust(t, k, second, secondKey, true)
	now = now.Add(tokenKeyAge)
	if id, _ := k.Signing(); id == second {
		t.Error("the second key was not replaced")
	}
	if data, err := os.ReadFile(filepath.Join(dir, tokenKeysFile)); err != nil || strings.Contains(string(data), first) || !strings.Contains(string(data), second) {
		t.Errorf("the file keeps other keys than the last two (%v)", err)
	}
}

func TestTokenKeysThatCannotBeWrittenGoOn(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	k := tokenKeys(t, dir, &now)
	id, key := k.Signing()
	if err := os.Remove(filepath.Join(dir, tokenKeysFile)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * tokenKeyAge)
	if other, _ := k.Signing(); other != id {
		t.Errorf("signs with %s, which nobody will know after a restart", other)
	}
	wantTrust(t, k, id, key, true)
}

func TestTokenKeysOfConcurrentUse(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	k := tokenKeys(t, dir, &now)
	now = now.Add(tokenKeyAge)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				id, key := k.Signing()
				wantTrust(t, k, id, key, true)
			}
		})
	}
	wg.Wait()
	if n := len(*k.keys.Load()); n != 2 {
		t.Errorf("%d keys, want the old one and one new one", n)
	}
}

func TestDamagedTokenKeysAreNotReplaced(t *testing.T) {
	for name, content := range map[string]string{
		"empty":       "",
		"no key":      "[]",
		"cut off":     `[{"id": "AAAA`,
		"short seed":  `[{"id":"k","seed":"AAAA","made":"2026-01-01T00:00:00Z"}]`,
		"no time":     `[{"id":"k","seed":"` + strings.Repeat("A", 43) + `="}]`,
		"unknown key": `[{"id":"k","sead":"AAAA"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tokenKeysFile)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadTokenKeys(filepath.Dir(path), discard)
			if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "AAAA") {
				t.Errorf("LoadTokenKeys: %v, want an error that names the file and quotes nothing", err)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != content {
				t.Errorf("the file was changed to %q (%v)", after, err)
			}
		})
	}
}
