package adapter

import (
	"maps"
	"reflect"
	"time"
)

// frozen returns values as they are now. What a request changes in place later, an
// item of a slice for one, is not changed there, so that it can be told what it has
// changed. Values of which no such copy can be made are returned as they are, and
// count as changed: see unchanged.
func frozen(values map[any]any) map[any]any {
	all := maps.Clone(values)
	for k, v := range values {
		if _, text := v.(string); text {
			continue // most are
		}
		if v := reflect.ValueOf(v); v.IsValid() && !isPlain(v.Type()) {
			if same, ok := freeze(v, 0); ok {
				all[k] = same.Interface()
			}
		}
	}
	return all
}

// unchanged reports whether v is certainly what was frozen.
func unchanged(was, v any) bool {
	if _, text := v.(string); text {
		return was == v
	}
	of := reflect.ValueOf(v)
	if !of.IsValid() {
		return was == nil
	}
	if isPlain(of.Type()) {
		return was == v
	}
	_, ok := freeze(of, 0)
	return ok && reflect.DeepEqual(was, v)
}

// isPlain reports whether values of a type refer to nothing that could be changed.
func isPlain(t reflect.Type) bool {
	switch k := t.Kind(); k {
	case reflect.Array:
		return isPlain(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !isPlain(t.Field(i).Type) {
				return false
			}
		}
		return true
	default:
		return k >= reflect.Bool && k <= reflect.Complex128 || k == reflect.String
	}
}

// maxFrozen bounds how deep values are copied: one may contain itself.
const maxFrozen = 32

// freeze copies v and all that it refers to. It reports false for what has parts that
// no other package can copy.
func freeze(v reflect.Value, depth int) (same reflect.Value, ok bool) {
	t := v.Type()
	if depth > maxFrozen {
		return v, false
	}
	if isPlain(t) || t == reflect.TypeFor[time.Time]() {
		return v, true
	}
	same = reflect.New(t).Elem()
	same.Set(v)
	switch v.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); !f.IsExported() {
				if !isPlain(f.Type) {
					return v, false
				}
			} else if !freezeInto(same.Field(i), v.Field(i), depth) {
				return v, false
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			return v, true
		}
		same.Set(reflect.MakeSlice(t, v.Len(), v.Len()))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			if !freezeInto(same.Index(i), v.Index(i), depth) {
				return v, false
			}
		}
	case reflect.Map:
		if v.IsNil() {
			return v, true
		}
		same.Set(reflect.MakeMapWithSize(t, v.Len()))
		for key, item := range v.Seq2() {
			if key.Kind() == reflect.Interface {
				key = key.Elem()
			}
			item, ok := freeze(item, depth+1)
			if !ok || !key.IsValid() || !isPlain(key.Type()) {
				return v, false
			}
			same.SetMapIndex(key, item)
		}
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return v, true
		}
		item, ok := freeze(v.Elem(), depth+1)
		if !ok {
			return v, false
		}
		if v.Kind() == reflect.Pointer {
			same.Set(reflect.New(t.Elem()))
			same.Elem().Set(item)
		} else {
			same.Set(item)
		}
	default:
		return v, false
	}
	return same, true
}

func freezeInto(dst, v reflect.Value, depth int) bool {
	same, ok := freeze(v, depth+1)
	if ok {
		dst.Set(same)
	}
	return ok
}
