package adapter

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/gin-usher/usher/adapter/internal/sio"
)

// Args2 is two arguments: as In of On and Handle those of the event, as Out of
// Handle those of the acknowledgement, as Out of Call those of the client's.
// Socket.IO has them side by side, the plain format as an array. What is
// missing leaves a zero value.
type Args2[A, B any] struct {
	A A
	B B
}

// Args3 is three arguments; see Args2.
type Args3[A, B, C any] struct {
	A A
	B B
	C C
}

// An argList is several arguments on their way out, an argBinder on their way in.
type (
	argList   interface{ list() []any }
	argBinder interface{ bind(incoming) error }
)

// argsOf returns what a handler has returned as the arguments of an answer.
func argsOf(out any) []any {
	switch out := out.(type) {
	case nothing:
		return nil
	case argList:
		return out.list()
	}
	return []any{out}
}

func (a Args2[A, B]) list() []any    { return []any{a.A, a.B} }
func (a Args3[A, B, C]) list() []any { return []any{a.A, a.B, a.C} }

func (a *Args2[A, B]) bind(in incoming) error    { return bindAll(in, &a.A, &a.B) }
func (a *Args3[A, B, C]) bind(in incoming) error { return bindAll(in, &a.A, &a.B, &a.C) }

func bindAll(in incoming, to ...any) error {
	args := in.args
	if in.packed && len(args) == 1 {
		var err error
		if args, err = unpack(args[0], len(to)); err != nil {
			return err
		}
	}
	for i, v := range to[:min(len(to), len(args))] {
		if err := sio.Bind(args[i], in.attachments, v); err != nil {
			return err
		}
	}
	return nil
}

// unpack returns the first n elements of an array.
func unpack(array json.RawMessage, n int) (args []json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(array))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("expected an array of arguments")
	}
	for len(args) < n && d.More() {
		var arg json.RawMessage
		if err := d.Decode(&arg); err != nil {
			return nil, err
		}
		args = append(args, arg)
	}
	return args, nil
}
