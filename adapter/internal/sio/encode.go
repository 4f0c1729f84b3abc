package sio

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxNesting bounds the Go values that are searched for bytes, as package json
// bounds its own: what nests deeper is a cycle.
const maxNesting = 1000

var errNesting = fmt.Errorf("value nests more than %d levels deep, or contains itself", maxNesting)

// EncodeArgs writes Go values as the JSON array that is a packet's payload.
// Each []byte that package json would reach, and would write as base64, becomes
// a placeholder instead, and one of the attachments: in structs under their
// tags, maps, slices, arrays, pointers and interfaces, at any depth; so do
// named types of []byte. A nil []byte is null. The attachments are those very
// slices and not copies.
//
// What writes itself, with MarshalJSON or MarshalText, is JSON, and what it
// makes of its bytes is its own affair; json.RawMessage is such a type. A
// [4]byte is an array of numbers, as in package json. Values without bytes cost
// what json.Marshal costs.
//
// It fails where json.Marshal would; where values with bytes nest more than 1000
// levels deep; if there are more than MaxAttachments; and if besides real
// attachments there is an object that looks like a placeholder, which receivers
// would take for one and disconnect. They also disconnect at more than 10
// attachments if they have socket.io-parser 4.2.6 or later, whose option
// maxAttachments changes that.
func EncodeArgs(args ...any) (data []byte, attachments [][]byte, err error) {
	e := encoder{buf: make([]byte, 0, 64)}
	e.buf = append(e.buf, '[')
	for i, arg := range args {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		if err := e.arg(arg); err != nil {
			return nil, nil, err
		}
	}
	e.buf = append(e.buf, ']')
	if len(e.attachments) == 0 {
		return e.buf, nil, nil
	}
	if len(e.attachments) > MaxAttachments {
		return nil, nil, fmt.Errorf("value has %d attachments, at most %d are allowed", len(e.attachments), MaxAttachments)
	}
	if err := checkPlaceholders(e.buf, len(e.attachments)); err != nil {
		return nil, nil, errors.New(`value has an object with the member "_placeholder", which would be taken for an attachment`)
	}
	return e.buf, e.attachments, nil
}

type encoder struct {
	buf         []byte
	attachments [][]byte
}

func (e *encoder) arg(arg any) error {
	if s, ok := arg.(string); ok {
		e.buf = appendString(e.buf, s)
		return nil
	}
	if v := reflect.ValueOf(arg); v.IsValid() && hasBytes(v, 0) {
		return e.value(v, 0)
	}
	return e.json(arg)
}

// json lets package json write a value.
func (e *encoder) json(v any) error {
	b, err := json.Marshal(v)
	e.buf = append(e.buf, b...)
	return err
}

// hasBytes reports whether v holds bytes right now, so that the many values
// that could but do not go to package json in one piece.
func hasBytes(v reflect.Value, depth int) bool {
	h := toJSON.holds(v.Type())
	switch {
	case !h.bytes && !h.iface:
		return false
	case depth > maxNesting:
		return true // to let the encoder fail
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		return !v.IsNil() && hasBytes(v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		if isBytes(v.Type()) {
			return !v.IsNil()
		}
		for i := range v.Len() {
			if hasBytes(v.Index(i), depth+1) {
				return true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if hasBytes(it.Value(), depth+1) {
				return true
			}
		}
	case reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			if x, ok := f.in(v); ok && hasBytes(x, depth+1) {
				return true
			}
		}
	}
	return false
}

func (e *encoder) value(v reflect.Value, depth int) error {
	if h := toJSON.holds(v.Type()); !h.bytes && !h.iface && v.CanInterface() {
		return e.json(v.Interface())
	}
	if depth > maxNesting {
		return errNesting
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			e.null()
			return nil
		}
		return e.value(v.Elem(), depth+1)
	case reflect.Map:
		return e.mapping(v, depth)
	case reflect.Struct:
		return e.object(v, depth)
	}
	if v.Kind() == reflect.Slice && v.IsNil() {
		e.null()
		return nil
	}
	if isBytes(v.Type()) {
		e.buf = appendPlaceholder(e.buf, len(e.attachments))
		e.attachments = append(e.attachments, v.Bytes())
		return nil
	}
	e.buf = append(e.buf, '[')
	for i := range v.Len() {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		if err := e.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	e.buf = append(e.buf, ']')
	return nil
}

// appendPlaceholder writes what stands for an attachment.
func appendPlaceholder(dst []byte, num int) []byte {
	dst = append(dst, `{"_placeholder":true,"num":`...)
	dst = strconv.AppendInt(dst, int64(num), 10)
	return append(dst, '}')
}

func (e *encoder) null() { e.buf = append(e.buf, "null"...) }

func (e *encoder) object(v reflect.Value, depth int) error {
	e.buf = append(e.buf, '{')
	first := true
	comma := func() {
		if !first {
			e.buf = append(e.buf, ',')
		}
		first = false
	}
	for _, f := range fieldsOf(v.Type()) {
		x, ok := f.in(v)
		if !ok {
			continue
		}
		if h := toJSON.holds(f.typ); !h.bytes && !h.iface && !f.hidden {
			member, err := f.alone(x)
			if err != nil {
				return err
			}
			if len(member) > 0 {
				comma()
				e.buf = append(e.buf, member...)
			}
			continue
		}
		if f.omitted(x) {
			continue
		}
		comma()
		e.buf = appendString(e.buf, f.name)
		e.buf = append(e.buf, ':')
		if err := e.value(x, depth+1); err != nil {
			return err
		}
	}
	e.buf = append(e.buf, '}')
	return nil
}

// alone lets package json write a field, and returns its key and value, or
// nothing if it is to be left out.
func (f field) alone(v reflect.Value) ([]byte, error) {
	s := reflect.New(f.single())
	s.Elem().Field(0).Set(v)
	if !v.CanAddr() {
		s = s.Elem() // package json could not call the methods of pointers either
	}
	b, err := json.Marshal(s.Interface())
	if err != nil {
		return nil, err
	}
	return b[1 : len(b)-1], nil
}

// mapping writes a map in the order of its keys.
func (e *encoder) mapping(m reflect.Value, depth int) error {
	if m.IsNil() {
		e.null()
		return nil
	}
	type entry struct {
		key   string
		value reflect.Value
	}
	entries := make([]entry, 0, m.Len())
	for it := m.MapRange(); it.Next(); {
		key, err := mapKey(it.Key())
		if err != nil {
			return err
		}
		entries = append(entries, entry{key, it.Value()})
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	e.buf = append(e.buf, '{')
	for i, x := range entries {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.buf = appendString(e.buf, x.key)
		e.buf = append(e.buf, ':')
		if err := e.value(x.value, depth+1); err != nil {
			return err
		}
	}
	e.buf = append(e.buf, '}')
	return nil
}

// mapKey writes the key of a map as package json does.
func mapKey(k reflect.Value) (string, error) {
	if k.Kind() == reflect.String {
		return k.String(), nil
	}
	if m, ok := k.Interface().(encoding.TextMarshaler); ok {
		if k.Kind() == reflect.Pointer && k.IsNil() {
			return "", nil
		}
		b, err := m.MarshalText()
		return string(b), err
	}
	switch {
	case k.CanInt():
		return strconv.FormatInt(k.Int(), 10), nil
	case k.CanUint():
		return strconv.FormatUint(k.Uint(), 10), nil
	}
	return "", &json.UnsupportedTypeError{Type: k.Type()}
}

// appendString quotes s as package json does. Most strings are plain ASCII,
// which needs no encoder.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c >= utf8.RuneSelf, c == '"', c == '\\', c == '<', c == '>', c == '&':
			q, _ := json.Marshal(s) // a string always marshals
			return append(dst, q...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
