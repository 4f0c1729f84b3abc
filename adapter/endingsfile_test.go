package adapter_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// openEndings opens the file of endings at path.
func openEndings(t *testing.T, path string) adapter.Endings {
	t.Helper()
	e, err := adapter.EndingsFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEndingsFile(t *testing.T) {
	adaptertest.Endings(t, func(t *testing.T) func() adapter.Endings {
		path := filepath.Join(t.TempDir(), "endings")
		return func() adapter.Endings { return openEndings(t, path) }
	})
}

// someEnding is an ending of a session that lasts for life.
func someEnding(value string, life time.Duration) adapter.Ending {
	now := time.Now()
	return adapter.Ending{Kind: "session", Hash: sha256.Sum256([]byte(value)), At: now, Until: now.Add(life)}
}

func addEndings(t *testing.T, to adapter.Endings, all ...adapter.Ending) {
	t.Helper()
	if err := to.Add(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
}

func countEndings(t *testing.T, in adapter.Endings) int {
	t.Helper()
	all, err := in.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestEndingsFileTorn(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	e := openEndings(t, whole)
	for _, value := range []string{"a", "b", "c"} {
		addEndings(t, e, someEnding(value, time.Hour))
	}
	text, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	if len(lines) != 5 {
		t.Fatalf("the file is %q, want a header and three lines", text)
	}

	t.Run("cut off at every byte", func(t *testing.T) {
		for n := range len(text) {
			path := filepath.Join(dir, fmt.Sprint("cut", n))
			if err := os.WriteFile(path, text[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			want := max(bytes.Count(text[:n], []byte("\n"))-1, 0)
			e := openEndings(t, path)
			if got := countEndings(t, e); got != want {
				t.Fatalf("of %d bytes: %d endings, want %d", n, got, want)
			}
			addEndings(t, e, someEnding("d", time.Hour))
			if got := countEndings(t, openEndings(t, path)); got != want+1 {
				t.Fatalf("of %d bytes, and one more: %d endings, want %d", n, got, want+1)
			}
		}
	})
	t.Run("cut off by another process meanwhile", func(t *testing.T) {
		path := filepath.Join(dir, "meanwhile")
		e := openEndings(t, path)
		addEndings(t, e, someEnding("a", time.Hour))
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("session 0123"); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if got := countEndings(t, e); got != 1 {
			t.Errorf("%d endings, want 1", got)
		}
		addEndings(t, e, someEnding("b", time.Hour))
		if got := countEndings(t, openEndings(t, path)); got != 2 {
			t.Errorf("%d endings, want 2", got)
		}
	})
	t.Run("zeros at the end", func(t *testing.T) {
		path := filepath.Join(dir, "zeros")
		if err := os.WriteFile(path, append(bytes.Clone(text), make([]byte, 300)...), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := countEndings(t, openEndings(t, path)); got != 3 {
			t.Errorf("%d endings, want 3", got)
		}
	})
	for what, change := range map[string]func(b []byte){
		"a changed digit": func(b []byte) { b[len(lines[0])+20] ^= 1 },
		"a lost line end": func(b []byte) { b[len(lines[0])+len(lines[1])-1] = ' ' },
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(dir, what)
			damaged := bytes.Clone(text)
			change(damaged)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := adapter.EndingsFile(path)
			if err == nil || !strings.Contains(err.Error(), "line 2 is damaged") {
				t.Errorf("EndingsFile = %v, want the line that is damaged", err)
			}
			if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, damaged) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

func TestEndingsFileOfSomethingElse(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{"usher endings 2\n", "<!doctype html>", "\x7fELF", strings.Repeat("x", 1<<20)} {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := adapter.EndingsFile(path); err == nil || !strings.Contains(err.Error(), "expected a file that begins with") {
			t.Errorf("EndingsFile of %.20q = %v", text, err)
		}
		if kept, err := os.ReadFile(path); err != nil || string(kept) != text {
			t.Errorf("%.20q was changed: %v", text, err)
		}
	}
	if _, err := adapter.EndingsFile(dir); err == nil {
		t.Error("EndingsFile of a folder: no error")
	}
	if _, err := adapter.EndingsFile(filepath.Join(dir, "none", "endings")); err == nil {
		t.Error("EndingsFile in a folder that does not exist: no error")
	}
	e := openEndings(t, filepath.Join(dir, "endings"))
	for _, kind := range []string{"", "planet", "user x", "user\n"} {
		odd := someEnding("a", time.Hour)
		odd.Kind = kind
		if err := e.Add(t.Context(), odd); err == nil {
			t.Errorf("Add of kind %q: no error", kind)
		}
	}
}

// TestEndingsFileIsBounded: what is over goes as the file grows, at work and at
// the start.
func TestEndingsFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endings")
	e := openEndings(t, path)
	addEndings(t, e, someEnding("lasting", time.Hour))
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("the file's mode is %v", mode)
		}
		return info.Size()
	}
	var most int64
	for i := range 30 {
		var batch []adapter.Ending
		for j := range 1000 {
			batch = append(batch, someEnding(fmt.Sprint(i, " ", j), time.Nanosecond))
		}
		addEndings(t, e, batch...)
		most = max(most, size())
	}
	if most > 6000*130 {
		t.Errorf("the file has grown to %d bytes, want it compacted at about 4096 lines", most)
	}
	if got := countEndings(t, e); got != 1 {
		t.Errorf("%d endings are left, want the one that lasts", got)
	}
}

// TestEndingsFileFailsAndRecovers: what cannot be written is an error, and leaves
// no half line in the way of what comes next.
func TestEndingsFileFailsAndRecovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "endings")
	e := openEndings(t, path)
	addEndings(t, e, someEnding("a", time.Hour))
	if err := os.Rename(dir, dir+" is away"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Add(t.Context(), someEnding("b", time.Hour)); err == nil {
			t.Fatal("Add without a folder: no error")
		}
	}
	if err := os.Rename(dir+" is away", dir); err != nil {
		t.Fatal(err)
	}
	addEndings(t, e, someEnding("c", time.Hour))
	if got := countEndings(t, openEndings(t, path)); got != 2 {
		t.Errorf("%d endings, want 2", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	addEndings(t, e, someEnding("d", time.Hour))
	if got := countEndings(t, e); got != 1 {
		t.Errorf("%d endings after the file was removed, want the one that came later", got)
	}
}

func FuzzParseEnding(f *testing.F) {
	e := someEnding("a", time.Hour)
	for _, kind := range []string{"session", "user", "token", "provider"} {
		e.Kind = kind
		f.Add(adapter.AppendEnding(nil, e))
	}
	f.Add([]byte("session  1 2 00000000\n"))
	f.Add(make([]byte, 300))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, ok := adapter.ParseEnding(line)
		if !ok {
			return
		}
		again, ok := adapter.ParseEnding(adapter.AppendEnding(nil, e))
		if !ok || again.Kind != e.Kind || again.Hash != e.Hash || !again.At.Equal(e.At) || !again.Until.Equal(e.Until) {
			t.Errorf("%q is %+v, and written again %+v", line, e, again)
		}
	})
}
