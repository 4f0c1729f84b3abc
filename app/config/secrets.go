package config

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
)

// Secrets are the keys behind the cookies. Whoever has them can pass for
// anybody who is logged in.
type Secrets struct {
	SessionHash  []byte `json:"session_hash"`  // signs the session cookie: 64 bytes
	SessionBlock []byte `json:"session_block"` // encrypts it: 32 bytes
	Login        []byte `json:"login"`         // seals the cookie of a login under way: 32 bytes
}

// secretsFile is where LoadSecrets keeps them, in the data folder.
const secretsFile = "secrets.json"

// LoadSecrets reads the secrets in dir, or makes them on the first start. A
// file that is damaged is an error and stays as it is: new secrets would log
// everybody out, and a backup may still have the old ones.
func LoadSecrets(dir string, log *slog.Logger) (Secrets, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Secrets{}, fmt.Errorf("data folder: %w", err)
	}
	if err := restrict(dir, 0o700, log); err != nil {
		return Secrets{}, fmt.Errorf("data folder: %w", err)
	}
	path := filepath.Join(dir, secretsFile)
	s, err := readSecrets(path, log)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	// Link, unlike Rename, never replaces what another process made first.
	if err := writeFile(path, newSecrets(), os.Link); err != nil && !errors.Is(err, fs.ErrExist) {
		return Secrets{}, fmt.Errorf("make secrets: %w", err)
	}
	// Read back what is there: another process may have been first.
	return readSecrets(path, log)
}

func newSecrets() Secrets {
	s := Secrets{SessionHash: make([]byte, 64), SessionBlock: make([]byte, 32), Login: make([]byte, 32)}
	for _, key := range [][]byte{s.SessionHash, s.SessionBlock, s.Login} {
		rand.Read(key) // never fails
	}
	return s
}

func readSecrets(path string, log *slog.Logger) (Secrets, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Secrets{}, fmt.Errorf("read secrets: %w", err)
	}
	if err := restrict(path, 0o600, log); err != nil {
		return Secrets{}, fmt.Errorf("read secrets: %w", err)
	}
	var s Secrets
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	// The error itself could quote a secret, so it stays out of the message.
	if d.Decode(&s) != nil || len(s.SessionHash) != 64 || len(s.SessionBlock) != 32 || len(s.Login) != 32 {
		return Secrets{}, fmt.Errorf("%s is damaged: restore it from a backup, or remove it to log everybody out and start with new secrets", path)
	}
	return s, nil
}

// writeFile puts v into the file at path in one step, which put makes of a
// temporary file: os.Link or os.Rename. The file is complete or as it was,
// whenever the machine stops.
func writeFile(path string, v any, put func(temp, path string) error) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(append(data, '\n'))
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := put(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes new names in dir survive a crash of the machine.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // folders cannot be opened for it there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// restrict takes away the permissions of path beyond perm, and says so.
func restrict(path string, perm fs.FileMode, log *slog.Logger) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if runtime.GOOS == "windows" || info.Mode().Perm()&^perm == 0 {
		return nil // Windows keeps other people out by its own lists
	}
	log.Warn("others could read this; now they cannot", "path", path, "was", info.Mode().Perm().String())
	return os.Chmod(path, perm)
}
