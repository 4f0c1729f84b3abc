package sio

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// This file knows which parts of a Go type package json would write, and which
// of them can hold bytes: all else of a value is left to package json.

var (
	jsonMarshaler   = reflect.TypeFor[json.Marshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	isZeroer        = reflect.TypeFor[interface{ IsZero() bool }]()
)

// implements reports whether t or a pointer to it has the methods of one of the
// interfaces.
func implements(t reflect.Type, of ...reflect.Type) bool {
	return slices.ContainsFunc(of, func(i reflect.Type) bool {
		return t.Implements(i) || t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && reflect.PointerTo(t).Implements(i)
	})
}

// isBytes reports whether package json writes t as base64.
func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 && !implements(t.Elem(), jsonMarshaler, textMarshaler)
}

// A holding tells what a value of a type may hold, at any depth.
type holding struct{ bytes, iface bool }

// A direction is one of the two ways between JSON and Go.
type direction struct {
	opaque   []reflect.Type // interfaces of types that do it on their own
	holdings sync.Map       // of reflect.Type to holding
}

var (
	toJSON   = &direction{opaque: []reflect.Type{jsonMarshaler, textMarshaler}}
	fromJSON = &direction{opaque: []reflect.Type{jsonUnmarshaler, textUnmarshaler}}
)

// holds tells what package json would reach in values of type t.
func (d *direction) holds(t reflect.Type) holding {
	if h, ok := d.holdings.Load(t); ok {
		return h.(holding)
	}
	h := d.reach(t, map[reflect.Type]bool{})
	d.holdings.Store(t, h)
	return h
}

// reach looks at each type that t is made of once, so that recursive types end.
func (d *direction) reach(t reflect.Type, seen map[reflect.Type]bool) (h holding) {
	if seen[t] || implements(t, d.opaque...) {
		return h
	}
	seen[t] = true
	join := func(o holding) { h.bytes, h.iface = h.bytes || o.bytes, h.iface || o.iface }
	switch t.Kind() {
	case reflect.Interface:
		h.iface = true
	case reflect.Slice:
		if isBytes(t) {
			h.bytes = true
			return h
		}
		join(d.reach(t.Elem(), seen))
	case reflect.Array, reflect.Pointer, reflect.Map:
		join(d.reach(t.Elem(), seen))
	case reflect.Struct:
		for _, f := range fieldsOf(t) {
			join(d.reach(f.typ, seen))
		}
	}
	return h
}

// A field is a member of the object that a struct becomes.
type field struct {
	name      string
	typ       reflect.Type
	index     []int // as for reflect.Value.FieldByIndex
	tagged    bool
	hidden    bool // of an unexported type: package json writes its fields, but its value is out of reach
	omitEmpty bool
	omitZero  bool

	// single is a struct with this field only. What has no bytes is written as
	// one by package json, so that the options mean what they mean there.
	single func() reflect.Type
}

var fieldsCache sync.Map // of reflect.Type to []field

// fieldsOf returns the fields of a struct type as package json sees them, in
// its order: those of embedded structs are fields of the outer one, and of
// several with the same name the least deep one counts, or the only one of
// these with a tag, or none.
func fieldsOf(t reflect.Type) []field {
	if f, ok := fieldsCache.Load(t); ok {
		return f.([]field)
	}
	byName := map[string][]field{}
	collect(t, nil, []reflect.Type{t}, byName)
	var fields []field
	for _, same := range byName {
		if f, ok := dominant(same); ok {
			fields = append(fields, f)
		}
	}
	slices.SortFunc(fields, func(a, b field) int { return slices.Compare(a.index, b.index) })
	fieldsCache.Store(t, fields)
	return fields
}

// collect adds the fields of t, a struct that lies at index within the outer
// one. path holds the types on the way there: one that embeds itself has no
// fields there that are not hidden by those above.
func collect(t reflect.Type, index []int, path []reflect.Type, byName map[string][]field) {
	for i := range t.NumField() {
		sf := t.Field(i)
		inner := sf.Type
		if inner.Kind() == reflect.Pointer && inner.Name() == "" {
			inner = inner.Elem()
		}
		embedded := sf.Anonymous && inner.Kind() == reflect.Struct
		tag := sf.Tag.Get("json")
		if tag == "-" || !sf.IsExported() && !embedded {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if !validName(name) {
			name = ""
		}
		at := slices.Concat(index, []int{i})
		if embedded && name == "" {
			if !slices.Contains(path, inner) {
				collect(inner, at, append(slices.Clip(path), inner), byName)
			}
			continue
		}
		f := field{name: name, typ: sf.Type, index: at, tagged: name != "", hidden: !sf.IsExported()}
		if name == "" {
			f.name = sf.Name
		}
		for option := range strings.SplitSeq(options, ",") {
			switch option {
			case "omitempty":
				f.omitEmpty = true
			case "omitzero":
				f.omitZero = true
			}
		}
		if !f.hidden {
			alone := reflect.StructField{Name: sf.Name, Type: sf.Type, Tag: sf.Tag}
			f.single = sync.OnceValue(func() reflect.Type { return reflect.StructOf([]reflect.StructField{alone}) })
		}
		byName[f.name] = append(byName[f.name], f)
	}
}

func dominant(same []field) (field, bool) {
	depth := len(slices.MinFunc(same, func(a, b field) int { return len(a.index) - len(b.index) }).index)
	same = slices.DeleteFunc(same, func(f field) bool { return len(f.index) > depth })
	if len(same) > 1 {
		same = slices.DeleteFunc(same, func(f field) bool { return !f.tagged })
	}
	if len(same) != 1 {
		return field{}, false
	}
	return same[0], true
}

// validName is what package json accepts as the name in a tag.
func validName(s string) bool {
	for _, c := range s {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return s != ""
}

// in returns the field of a struct value. ok is false where an embedded pointer
// on the way is nil.
func (f field) in(v reflect.Value) (value reflect.Value, ok bool) {
	for i, x := range f.index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return reflect.Value{}, false
			}
			v = v.Elem()
		}
		v = v.Field(x)
	}
	return v, true
}

// omitted reports whether the options leave out a field that may hold bytes.
func (f field) omitted(v reflect.Value) bool {
	return f.omitEmpty && isEmpty(v) || f.omitZero && isZero(v)
}

// isEmpty is what omitempty asks, of the kinds that may hold bytes.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.Array:
		return v.Len() == 0
	case reflect.Interface, reflect.Pointer:
		return v.IsNil()
	}
	return false
}

// isZero is what omitzero asks: the method IsZero if there is one.
func isZero(v reflect.Value) bool {
	if (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && v.IsNil() {
		return true
	}
	z := v
	if t := v.Type(); v.CanInterface() && !t.Implements(isZeroer) && reflect.PointerTo(t).Implements(isZeroer) {
		z = reflect.New(t)
		z.Elem().Set(v)
	}
	if z.CanInterface() && z.Type().Implements(isZeroer) {
		return z.Interface().(interface{ IsZero() bool }).IsZero()
	}
	return v.IsZero()
}
