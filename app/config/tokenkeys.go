package config

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxTokenLife bounds how long a token may be valid, and so how long a key
	// is believed after it has been replaced.
	MaxTokenLife = 24 * time.Hour
	// tokenKeyAge is how long a key signs.
	tokenKeyAge = 30 * 24 * time.Hour
)

// tokenKeysFile is where LoadTokenKeys keeps them, in the data folder. They are
// not among the secrets because these are written once, and keys are replaced.
const tokenKeysFile = "token-keys.json"

// TokenKeys are the keys that sign tokens, and those that have signed tokens
// which may still be valid. A key that has signed for 30 days is replaced by a
// new one when the next token is issued, without a restart, and is believed for
// MaxTokenLife after that. Who wants it sooner removes the file and restarts the
// program: that ends all tokens at once, and no session.
//
// It is safe for concurrent use.
type TokenKeys struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	keys     atomic.Pointer[[]tokenKey] // the oldest first, at least one
	rotating sync.Mutex                 // only tried: who does not get it signs with the old key
}

type tokenKey struct {
	ID   string    `json:"id"`
	Seed []byte    `json:"seed"` // of Ed25519: RFC 8032, section 5.1.5
	Made time.Time `json:"made"`
}

// LoadTokenKeys reads the keys in dir, which LoadSecrets has made, or makes one
// on the first start. A file that is damaged is an error and stays as it is.
func LoadTokenKeys(dir string, log *slog.Logger) (*TokenKeys, error) {
	k := &TokenKeys{path: filepath.Join(dir, tokenKeysFile), log: log, now: time.Now}
	keys, err := k.read()
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeFile(k.path, []tokenKey{k.newKey()}, os.Link); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make token keys: %w", err)
		}
		keys, err = k.read() // another process may have been first
	}
	if err != nil {
		return nil, err
	}
	k.keys.Store(&keys)
	return k, nil
}

func (k *TokenKeys) newKey() tokenKey {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails
	return tokenKey{ID: rand.Text(), Seed: seed, Made: k.now().UTC().Truncate(time.Second)}
}

func (k *TokenKeys) read() ([]tokenKey, error) {
	data, err := os.ReadFile(k.path)
	if err != nil {
		return nil, fmt.Errorf("read token keys: %w", err)
	}
	if err := restrict(k.path, 0o600, k.log); err != nil {
		return nil, fmt.Errorf("read token keys: %w", err)
	}
	var keys []tokenKey
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	// The error itself could quote a key, so it stays out of the message.
	if d.Decode(&keys) != nil || len(keys) == 0 || slices.ContainsFunc(keys, func(key tokenKey) bool {
		return key.ID == "" || len(key.Seed) != ed25519.SeedSize || key.Made.IsZero()
	}) {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup, or remove it, which ends all tokens that were issued", k.path)
	}
	return keys, nil
}

// Signing returns the key to sign with, and the id by which Verifying knows it.
func (k *TokenKeys) Signing() (id string, key ed25519.PrivateKey) {
	keys := *k.keys.Load()
	newest := keys[len(keys)-1]
	if k.now().Sub(newest.Made) >= tokenKeyAge && k.rotating.TryLock() {
		defer k.rotating.Unlock()
		rotated, err := k.rotate()
		if err != nil {
			k.log.Error("token keys could not be rotated; the old one goes on", "error", err)
		} else {
			newest = rotated
		}
	}
	return newest.ID, ed25519.NewKeyFromSeed(newest.Seed)
}

// rotate adds a key, unless another process has, and forgets those that nothing
// valid is signed with any more.
func (k *TokenKeys) rotate() (tokenKey, error) {
	keys, err := k.read()
	if err != nil {
		return tokenKey{}, err
	}
	newest := keys[len(keys)-1]
	if k.now().Sub(newest.Made) >= tokenKeyAge {
		newest = k.newKey()
		// Of the old ones the last alone has signed in the last 30 days.
		keys = []tokenKey{keys[len(keys)-1], newest}
		if err := writeFile(k.path, keys, os.Rename); err != nil {
			return tokenKey{}, fmt.Errorf("write token keys: %w", err)
		}
	}
	k.keys.Store(&keys)
	return newest, nil
}

// Verifying returns the key of that id. ok is false for one that is unknown, and
// for one that was replaced so long ago that whoever signs with it has stolen it.
func (k *TokenKeys) Verifying(id string) (key ed25519.PublicKey, ok bool) {
	keys := *k.keys.Load()
	i := slices.IndexFunc(keys, func(key tokenKey) bool { return key.ID == id })
	if i < 0 || i+1 < len(keys) && k.now().Sub(keys[i+1].Made) > MaxTokenLife {
		return nil, false
	}
	return ed25519.NewKeyFromSeed(keys[i].Seed).Public().(ed25519.PublicKey), true
}
