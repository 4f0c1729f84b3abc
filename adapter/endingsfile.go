package adapter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// EndingsFile keeps endings in the file at path, which is made if there is none,
// readable to its owner only; its folder has to exist. Beside it lies a file
// path+".lock", by which processes of one machine may share it, where the system
// has flock: one that is being replaced and the one that replaces it.
//
// Each ending is one line of about 120 bytes that is written and synced before
// Add returns; calls at the same time share a sync. Lines of what need not be
// remembered any more are dropped as the file grows. It holds a million endings
// and forgets those first that end first. A last line that was cut off by the
// end of the process was never reported as written, and is dropped. A file that
// is something else, or is damaged elsewhere, is refused.
//
// It keeps no file open, so there is nothing to close. A disk that hangs holds up
// Add, which cannot be interrupted.
func EndingsFile(path string) (Endings, error) {
	f := &endingsFile{path: path}
	// Reading it says whether it is one, and drops what is over.
	if err := f.locked(f.compact); err != nil {
		return nil, fmt.Errorf("adapter: endings file: %w", err)
	}
	return f, nil
}

const (
	// endingsHeader is the first line. The number is the format's.
	endingsHeader = "usher endings 1\n"

	maxEndingLine  = 256
	maxFileEndings = 1 << 20
	minCompact     = 4096 // lines, below which a file is left as it is
)

// endingsTable is CRC-32C's.
var endingsTable = crc32.MakeTable(crc32.Castagnoli)

type endingsFile struct {
	path string

	mu   sync.Mutex
	next *endingsBatch // takes more; nil if none waits

	working   sync.Mutex // held by who reads or writes the file
	lines     int        // in it, as far as this process knows
	compactAt int        // lines
}

// An endingsBatch is what several calls write together.
type endingsBatch struct {
	lines []byte
	count int
	done  chan struct{}
	err   error // after done
}

// Add implements Endings. The first of the calls that come while another batch
// is written writes for all of them.
func (f *endingsFile) Add(ctx context.Context, endings ...Ending) error {
	if len(endings) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	var lines []byte
	for _, e := range endings {
		if !by(e.Kind).known() {
			return fmt.Errorf("adapter: endings file: expected the kind session, user, token or provider, got %.40q", e.Kind)
		}
		lines = appendEnding(lines, e)
	}
	f.mu.Lock()
	b := f.next
	first := b == nil
	if first {
		b = &endingsBatch{done: make(chan struct{})}
		f.next = b
	}
	b.lines = append(b.lines, lines...)
	b.count += len(endings)
	f.mu.Unlock()
	if first {
		f.working.Lock()
		f.mu.Lock()
		f.next = nil // whoever comes now is in the next
		f.mu.Unlock()
		b.err = f.lockedHere(func() error { return f.write(b) })
		f.working.Unlock()
		close(b.done)
	}
	select {
	case <-b.done:
		if b.err != nil {
			return fmt.Errorf("adapter: endings file: %w", b.err)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// All implements Endings.
func (f *endingsFile) All(ctx context.Context) ([]Ending, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	var all []Ending
	err := f.locked(func() error {
		of, err := f.read()
		for _, e := range of {
			all = append(all, e)
		}
		if errors.Is(err, errTorn) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("adapter: endings file: %w", err)
	}
	return all, nil
}

// locked runs do while nobody else has the file.
func (f *endingsFile) locked(do func() error) error {
	f.working.Lock()
	defer f.working.Unlock()
	return f.lockedHere(do)
}

// lockedHere is locked for who holds working: it keeps other processes out.
func (f *endingsFile) lockedHere(do func() error) (err error) {
	unlock, err := lockFile(f.path + ".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return do()
}

// write appends a batch and syncs it. What it could not write as a whole it takes
// back, so that the next batch does not stand behind half a line.
func (f *endingsFile) write(b *endingsBatch) (err error) {
	if f.lines >= f.compactAt {
		if err := f.compact(); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) { // somebody has removed it: what it held is known here no more than there
		if err = f.replace(nil); err == nil {
			file, err = os.OpenFile(f.path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := cutTorn(file)
	if err != nil {
		return err
	}
	if _, err = file.WriteAt(b.lines, size); err == nil {
		err = file.Sync()
	}
	if err != nil {
		return errors.Join(err, file.Truncate(size))
	}
	f.lines += b.count
	return nil
}

// cutTorn takes a last line off that was cut off when a process ended while it
// wrote, and returns what the size is then.
func cutTorn(file *os.File) (size int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	size = info.Size()
	tail := make([]byte, min(size, maxEndingLine))
	if _, err := file.ReadAt(tail, size-int64(len(tail))); err != nil {
		return 0, err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	switch {
	case whole == 0:
		return 0, fmt.Errorf("%s: expected lines, found none in the last %d bytes", file.Name(), len(tail))
	case whole < len(tail):
		size -= int64(len(tail) - whole)
		return size, file.Truncate(size)
	}
	return size, nil
}

// compact rewrites the file with what is to be remembered, if that is worth it,
// or if it is not whole.
func (f *endingsFile) compact() error {
	of, err := f.read()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errTorn) {
		err = f.replace(of)
	} else if err == nil && f.lines >= minCompact && f.lines >= 2*len(of) {
		err = f.replace(of)
	}
	if err != nil {
		return err
	}
	f.compactAt = max(2*len(of), minCompact)
	return nil
}

// errTorn says that the end of the file was cut off. What stands before is fine.
var errTorn = errors.New("the last line was cut off")

// endingKey is what there is one Ending of.
type endingKey struct {
	kind by
	hash [32]byte
}

// read returns what the file says and is not over, and counts its lines.
func (f *endingsFile) read() (map[endingKey]Ending, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 64<<10)
	header, err := r.Peek(len(endingsHeader))
	if err != nil && err != io.EOF {
		return nil, err
	}
	if string(header) != endingsHeader {
		if bytes.HasPrefix([]byte(endingsHeader), header) {
			return nil, errTorn // made, and never written to
		}
		return nil, fmt.Errorf("%s: expected a file that begins with %q, got %q", f.path, endingsHeader, header)
	}
	_, _ = r.Discard(len(endingsHeader))

	of, now := make(map[endingKey]Ending), time.Now()
	f.lines = 0
	damaged := 0 // the line that is not one, which only the last may be
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return nil, err
		}
		if len(line) == 0 {
			break
		}
		f.lines++
		e, ok := parseEnding(line)
		switch {
		case damaged > 0:
			return nil, fmt.Errorf("%s: line %d is damaged: expected kind, hash, two times and a checksum; "+
				"restore the file, or remove the line and what it stands for is forgotten", f.path, damaged)
		case !ok:
			damaged = f.lines + 1 // the header is the first
		case now.Before(e.Until):
			remember(of, e)
		}
	}
	trim(of, maxFileEndings)
	if damaged > 0 {
		return of, errTorn
	}
	return of, nil
}

// remember puts e into of, on top of what is there.
func remember(of map[endingKey]Ending, e Ending) {
	k := endingKey{by(e.Kind), e.Hash}
	if was, ok := of[k]; ok {
		if was.At.After(e.At) {
			e.At = was.At
		}
		if was.Until.After(e.Until) {
			e.Until = was.Until
		}
	}
	of[k] = e
	if len(of) > 2*maxFileEndings {
		trim(of, maxFileEndings)
	}
}

// trim forgets what would be forgotten first, down to n.
func trim(of map[endingKey]Ending, n int) {
	if len(of) <= n {
		return
	}
	untils := make([]int64, 0, len(of))
	for _, e := range of {
		untils = append(untils, e.Until.UnixNano())
	}
	slices.Sort(untils)
	least, more := untils[len(untils)-n], len(of)-n
	for k, e := range of {
		if more > 0 && e.Until.UnixNano() <= least {
			delete(of, k)
			more--
		}
	}
}

// replace puts a file with these endings in the place of the one there is, if
// there is one, all at once.
func (f *endingsFile) replace(of map[endingKey]Ending) (err error) {
	text := []byte(endingsHeader)
	for _, e := range of {
		text = appendEnding(text, e)
	}
	temp := f.path + ".new" // nobody else has the lock
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	file, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, f.path); err != nil {
		return err
	}
	f.lines = len(of)
	return syncFolder(filepath.Dir(f.path))
}

// appendEnding writes a line: kind, hash, the two times in Unix nanoseconds, and
// the CRC-32C of all that.
func appendEnding(b []byte, e Ending) []byte {
	begin := len(b)
	b = append(b, e.Kind...)
	b = append(b, ' ')
	b = hex.AppendEncode(b, e.Hash[:])
	b = append(b, ' ')
	b = strconv.AppendInt(b, e.At.UnixNano(), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, e.Until.UnixNano(), 10)
	sum := crc32.Checksum(b[begin:], endingsTable)
	return fmt.Appendf(b, " %08x\n", sum)
}

// parseEnding reads a line, and reports whether it is one.
func parseEnding(line []byte) (e Ending, ok bool) {
	line, whole := bytes.CutSuffix(line, []byte("\n"))
	at := bytes.LastIndexByte(line, ' ')
	if !whole || at < 0 || string(line[at+1:]) != fmt.Sprintf("%08x", crc32.Checksum(line[:at], endingsTable)) {
		return e, false
	}
	fields := bytes.Split(line[:at], []byte(" "))
	if len(fields) != 4 || !by(fields[0]).known() || len(fields[1]) != 2*len(e.Hash) {
		return e, false
	}
	e.Kind = string(fields[0])
	if _, err := hex.Decode(e.Hash[:], fields[1]); err != nil {
		return e, false
	}
	for i, t := range []*time.Time{&e.At, &e.Until} {
		n, err := strconv.ParseInt(string(fields[2+i]), 10, 64)
		if err != nil {
			return e, false
		}
		*t = time.Unix(0, n)
	}
	return e, true
}
