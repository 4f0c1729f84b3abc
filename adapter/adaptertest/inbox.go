package adaptertest

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"
)

// A Frame is one message from the server: an event, or the reply to one.
type Frame struct {
	Type  string          `json:"type"` // the event, or "reply"
	ID    json.RawMessage `json:"id"`   // a number or a string; where an answer is wanted, or given
	Data  json.RawMessage `json:"data"` // the first argument, where there may be several
	Event string          `json:"event"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	raw string
}

func (f Frame) String() string { return f.raw }

// An inbox is what has come for a client, and whether more can come. Its
// methods fail the test when what they wait for does not come, and print what
// did.
type inbox struct {
	t     testing.TB
	news  chan struct{} // something was added to frames
	ended chan struct{}
	err   error // why it has ended; read after ended

	mu     sync.Mutex
	frames []Frame
}

func newInbox(t testing.TB) inbox {
	return inbox{t: t, news: make(chan struct{}, 1), ended: make(chan struct{})}
}

func (in *inbox) add(f Frame) {
	in.mu.Lock()
	in.frames = append(in.frames, f)
	in.mu.Unlock()
	select {
	case in.news <- struct{}{}:
	default:
	}
}

// end is called once, by whoever reads from the server.
func (in *inbox) end(err error) {
	in.err = err
	close(in.ended)
}

// take removes the first frame that is wanted, if there is one.
func (in *inbox) take(want func(Frame) bool) (f Frame, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	i := slices.IndexFunc(in.frames, want)
	if i < 0 {
		return f, false
	}
	f = in.frames[i]
	in.frames = slices.Delete(in.frames, i, i+1)
	return f, true
}

// Next waits for the next frame, of whatever kind.
func (in *inbox) Next() Frame {
	in.t.Helper()
	return in.wait("a frame", func(Frame) bool { return true })
}

// Event waits for an event of the given name; other frames stay.
func (in *inbox) Event(event string) Frame {
	in.t.Helper()
	return in.wait("event "+event, func(f Frame) bool { return f.Type == event })
}

func (in *inbox) wait(what string, want func(Frame) bool) Frame {
	in.t.Helper()
	ctx, cancel := context.WithTimeout(in.t.Context(), patience)
	defer cancel()
	for ended := false; ; {
		if f, ok := in.take(want); ok {
			return f
		}
		if ended {
			in.t.Fatalf("waiting for %s: the socket ended: %v; before came %v", what, in.err, in.Rest())
		}
		select {
		case <-in.news:
		case <-in.ended:
			ended = true // once more for what came before
		case <-ctx.Done():
			in.t.Fatalf("waiting for %s: nothing in %v but %v", what, patience, in.Rest())
		}
	}
}

// awaitEnd waits until nothing more can come.
func (in *inbox) awaitEnd() error {
	in.t.Helper()
	select {
	case <-in.ended:
		return in.err
	case <-time.After(patience):
		in.t.Fatalf("the socket is still open after %v", patience)
		return nil
	}
}

// must checks a reply and stores its data in out unless it is nil.
func (in *inbox) must(event string, f Frame, out any) {
	in.t.Helper()
	if f.Error != nil {
		in.t.Fatalf("%s: %s", event, f)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(f.Data, out); err != nil {
		in.t.Fatalf("%s: %s: %v", event, f, err)
	}
}

// Rest returns the frames that have come and that nobody has waited for. After
// the end it is all that came before.
func (in *inbox) Rest() []Frame {
	in.mu.Lock()
	defer in.mu.Unlock()
	rest := in.frames
	in.frames = nil
	return rest
}
