package sio

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
)

// Bind decodes data, which is one of the arguments of a packet that Decode
// accepted, into what v points to, as json.Unmarshal does. Placeholders become
// the attachments they stand for:
//
//   - a []byte of their own in place of a []byte, or a named type of it;
//   - the attachment itself, as []byte, in place of an interface;
//   - base64 in a JSON string for what decodes itself, with UnmarshalJSON or
//     UnmarshalText, json.RawMessage for one.
//
// In place of anything else they are a *json.UnmarshalTypeError. In members
// that nothing is decoded from they are skipped. A JSON string in place of a
// []byte is base64, as in package json. Without attachments nothing is a
// placeholder. What an interface in v holds beforehand is replaced.
//
// A number out of range, or used twice within data, is an error; that no
// attachment of the packet is left over has been checked by Decode.
func Bind(data json.RawMessage, attachments [][]byte, v any) error {
	if len(attachments) == 0 {
		return json.Unmarshal(data, v)
	}
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return &json.InvalidUnmarshalError{Type: reflect.TypeOf(v)}
	}
	b := binder{data: data, attachments: attachments, used: make([]bool, len(attachments))}
	if !json.Valid(data) {
		return json.Unmarshal(data, v) // which says what is wrong
	}
	if _, err := b.value(skipSpace(data, 0), target.Type()); err != nil {
		return err
	}
	if err := json.Unmarshal(b.out, v); err != nil {
		return err
	}
	if fromJSON.holds(target.Type()).iface {
		b.restore(target, 0)
	}
	return nil
}

// A binder copies data to out and on the way rewrites the placeholders as what
// package json makes the right thing of.
type binder struct {
	data        []byte
	out         []byte
	attachments [][]byte
	used        []bool
	path        []string // of object members down to the value at hand
}

// opaqueTarget stands for the inside of what decodes itself.
var opaqueTarget = reflect.TypeFor[json.RawMessage]()

// value copies the value at data[i], which will be decoded into a t, and
// returns the index after it. Of nil nothing is known: it is skipped.
func (b *binder) value(i int, t reflect.Type) (int, error) {
	t = target(t)
	switch b.data[i] {
	case '[':
		return b.array(i, t)
	case '{':
		return b.object(i, t)
	}
	next := skipValue(b.data, i)
	b.out = append(b.out, b.data[i:next]...)
	return next, nil
}

// target follows pointers to what is decoded into, and makes one type of all
// that decode themselves.
func target(t reflect.Type) reflect.Type {
	if t == nil {
		return nil
	}
	for range maxNesting { // a type may be a pointer to itself
		if implements(t, fromJSON.opaque...) {
			return opaqueTarget
		}
		if t.Kind() != reflect.Pointer {
			break
		}
		t = t.Elem()
	}
	return t
}

// element is the type of what an array or object of t holds.
func element(t reflect.Type) reflect.Type {
	switch {
	case t == nil, t == opaqueTarget:
		return t
	case t.Kind() == reflect.Interface:
		return t
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Array, t.Kind() == reflect.Map:
		return t.Elem()
	}
	return nil // package json will fail
}

func (b *binder) array(i int, t reflect.Type) (int, error) {
	b.out = append(b.out, '[')
	first := true
	next, err := elements(b.data, i, func(at int) (int, error) {
		if !first {
			b.out = append(b.out, ',')
		}
		first = false
		return b.value(at, element(t))
	})
	b.out = append(b.out, ']')
	return next, err
}

func (b *binder) object(i int, t reflect.Type) (int, error) {
	start := len(b.out)
	b.out = append(b.out, '{')
	first := true
	next, num, err := members(b.data, i, len(b.attachments), func(key string, at int) (int, error) {
		if !first {
			b.out = append(b.out, ',')
		}
		first = false
		b.out = appendString(b.out, key)
		b.out = append(b.out, ':')
		inner := element(t)
		if t != nil && t.Kind() == reflect.Struct {
			inner = member(t, key)
		}
		b.path = append(b.path, key)
		next, err := b.value(at, inner)
		b.path = b.path[:len(b.path)-1]
		return next, err
	})
	b.out = append(b.out, '}')
	if err != nil || num < 0 {
		return next, err
	}
	if err := claim(b.used, num); err != nil {
		return 0, err
	}
	switch {
	case t == nil, t.Kind() == reflect.Interface:
		return next, nil // restore will find it
	case t == opaqueTarget, isBytes(t):
		b.out = append(b.out[:start], '"')
		b.out = base64.StdEncoding.AppendEncode(b.out, b.attachments[num])
		b.out = append(b.out, '"')
		return next, nil
	}
	return 0, &json.UnmarshalTypeError{Value: "binary data", Type: t, Offset: int64(i), Field: strings.Join(b.path, ".")}
}

// member is the type of the field that package json decodes a member into.
func member(t reflect.Type, key string) reflect.Type {
	var folded reflect.Type
	for _, f := range fieldsOf(t) {
		if f.name == key {
			return f.typ
		}
		if folded == nil && strings.EqualFold(f.name, key) {
			folded = f.typ
		}
	}
	return folded
}

// restore puts the attachments into the interfaces that v holds.
func (b *binder) restore(v reflect.Value, depth int) {
	if depth > maxNesting || !fromJSON.holds(v.Type()).iface {
		return
	}
	switch v.Kind() {
	case reflect.Interface:
		if !v.IsNil() && v.CanSet() {
			v.Set(reflect.ValueOf(b.restored(v.Interface())))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			b.restore(v.Elem(), depth+1)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			b.restore(v.Index(i), depth+1)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			// The values of a map cannot be changed where they are.
			x := reflect.New(v.Type().Elem()).Elem()
			x.Set(it.Value())
			b.restore(x, depth+1)
			v.SetMapIndex(it.Key(), x)
		}
	case reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			if x, ok := f.in(v); ok {
				b.restore(x, depth+1)
			}
		}
	}
}

// restored replaces placeholders in what package json made for an interface.
func (b *binder) restored(v any) any {
	switch v := v.(type) {
	case []any:
		for i, x := range v {
			v[i] = b.restored(x)
		}
	case map[string]any:
		if num, ok := v["num"].(float64); ok && v["_placeholder"] == true && 0 <= num && int(num) < len(b.attachments) {
			return b.attachments[int(num)]
		}
		for k, x := range v {
			v[k] = b.restored(x)
		}
	}
	return v
}
