package sio

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
)

// shout decodes itself, from a JSON string.
type shout string

func (s *shout) UnmarshalJSON(b []byte) error { *s = shout("json " + string(b)); return nil }

// word decodes itself, from text.
type word string

func (w *word) UnmarshalText(b []byte) error { *w = word("text " + string(b)); return nil }

type (
	upload struct {
		Name   string            `json:"name"`
		Data   []byte            `json:"data"`
		Named  blob              `json:"named"`
		Ptr    *[]byte           `json:"ptr"`
		Any    any               `json:"any"`
		Raw    json.RawMessage   `json:"raw"`
		Shout  shout             `json:"shout"`
		Word   *word             `json:"word"`
		List   [][]byte          `json:"list"`
		Array  [2][]byte         `json:"array"`
		Map    map[string]blob   `json:"map"`
		Anys   map[string][]any  `json:"anys"`
		Inner  *upload           `json:"inner"`
		Kids   []upload          `json:"kids"`
		Files  map[string]upload `json:"files"`
		Number int               `json:"number"`
	}
	embedding struct {
		*Base
		inner
	}
	self *self
)

func TestBind(t *testing.T) {
	attachments := [][]byte{{1, 2}, {}, []byte("three")}
	const three = `{"_placeholder":true,"num":2}`
	for _, tt := range []struct {
		name, data string
		into       any // a pointer to the zero value
		want       any // what it then points to
	}{
		{"bytes", one, new([]byte), []byte{1, 2}},
		{"no bytes", two, new([]byte), []byte{}},
		{"space around", " \n" + one + " ", new([]byte), []byte{1, 2}},
		{"named", one, new(blob), blob{1, 2}},
		{"octets", one, new([]octet), []octet{1, 2}},
		{"a pointer", one, new(*[]byte), p([]byte{1, 2})},
		{"a string is base64", `[` + one + `,"AQID"]`, new([][]byte), [][]byte{{1, 2}, {1, 2, 3}}},
		{"null", `[` + one + `,null]`, new([][]byte), [][]byte{{1, 2}, nil}},
		{"any", one, new(any), []byte{1, 2}},
		{"any, no bytes", two, new(any), []byte{}},
		{"any, nested", `{"a":[1,` + one + `,{"b":` + two + `}],"c":"x"}`, new(any), map[string]any{"a": []any{1.0, []byte{1, 2}, map[string]any{"b": []byte{}}}, "c": "x"}},
		{"any, without bytes", `{"a":[null,true,{"_placeholder":false,"num":0}]}`, new(any), map[string]any{"a": []any{nil, true, map[string]any{"_placeholder": false, "num": 0.0}}}},
		{"a map of any", `{"a":` + one + `,"b":[` + two + `]}`, new(map[string]any), map[string]any{"a": []byte{1, 2}, "b": []any{[]byte{}}}},
		{"a list of any", `[` + one + `,{"a":` + two + `}]`, new([]any), []any{[]byte{1, 2}, map[string]any{"a": []byte{}}}},
		{"an array of any", `[` + one + `]`, new([2]any), [2]any{[]byte{1, 2}, nil}},
		{"a map of bytes", `{"a":` + one + `,"b":` + two + `}`, new(map[string][]byte), map[string][]byte{"a": {1, 2}, "b": {}}},
		{"raw JSON", `[` + one + `]`, new(json.RawMessage), raw(`["AQI="]`)},
		{"what decodes itself", three, new(shout), shout(`json "dGhyZWU="`)},
		{"what decodes itself, with bytes inside", `{"a":[` + three + `]}`, new(shout), shout(`json {"a":["dGhyZWU="]}`)},
		{"what decodes itself from text", three, new(word), word("text dGhyZWU=")},
		{"a struct", `{"name":"a.txt","data":` + one + `,"any":{"x":` + three + `},"list":[` + two + `]}`, new(upload),
			upload{Name: "a.txt", Data: []byte{1, 2}, Any: map[string]any{"x": []byte("three")}, List: [][]byte{{}}}},
		{"other kinds of fields", `{"named":` + one + `,"ptr":` + two + `,"word":` + three + `}`, new(upload),
			upload{Named: blob{1, 2}, Ptr: p([]byte{}), Word: p(word("text dGhyZWU="))}},
		{"collections", `{"array":[` + one + `],"map":{"k":` + two + `},"anys":{"k":[0,` + three + `]}}`, new(upload),
			upload{Array: [2][]byte{{1, 2}, nil}, Map: map[string]blob{"k": {}}, Anys: map[string][]any{"k": {0.0, []byte("three")}}}},
		{"structs in structs", `{"inner":{"any":` + one + `},"kids":[{},{"data":` + two + `}],"files":{"f":{"any":[` + three + `]}}}`, new(upload),
			upload{Inner: &upload{Any: []byte{1, 2}}, Kids: []upload{{}, {Data: []byte{}}}, Files: map[string]upload{"f": {Any: []any{[]byte("three")}}}}},
		{"names in other case", `{"DATA":` + one + `,"Any":` + two + `}`, new(upload), upload{Data: []byte{1, 2}, Any: []byte{}}},
		{"the exact name first", `{"ID":1,"id":2,"data":` + one + `}`, new(embedding), embedding{Base: &Base{ID: 2, Data: []byte{1, 2}}}},
		{"embedded", `{"data":` + one + `,"Inner":` + two + `}`, new(embedding), embedding{Base: &Base{Data: []byte{1, 2}}, inner: inner{[]byte{}}}},
		{"members without a field", `{"x":` + one + `,"y":[` + two + `],"z":` + three + `,"name":"n"}`, new(upload), upload{Name: "n"}},
		{"escaped keys", `{"d\u0061ta":` + one + `,"a<\u0022>":{"b":` + two + `}}`, new(upload), upload{Data: []byte{1, 2}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := Bind(raw(tt.data), attachments, tt.into); err != nil {
				t.Fatalf("Bind(%s): %v", tt.data, err)
			}
			if got := reflect.ValueOf(tt.into).Elem().Interface(); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Bind(%s) = %#v, want %#v", tt.data, got, tt.want)
			}
		})
	}
}

func TestBindErrors(t *testing.T) {
	for _, tt := range []struct {
		name, data string
		into       any
		want       string
	}{
		{"out of range", two, new([]byte), `expected "num" of a placeholder to be a whole number below 1, the number of attachments, got 1`},
		{"out of range where nothing is decoded", `{"x":` + two + `}`, new(upload), `expected "num" of a placeholder to be a whole number below 1, the number of attachments, got 1`},
		{"twice", `[` + one + `,` + one + `]`, new([][]byte), "expected one placeholder for each attachment, got two for number 0"},
		{"twice, any", `[` + one + `,` + one + `]`, new(any), "expected one placeholder for each attachment, got two for number 0"},
		{"more members", `{"_placeholder":true,"num":0,"a":1}`, new(any), `expected a placeholder to be {"_placeholder":true,"num":…}, got other members`},
		{"for a string", `{"name":` + one + `}`, new(upload), "json: cannot unmarshal binary data into Go struct field .name of type string"},
		{"for a number deep down", `{"kids":[{"inner":{"number":` + one + `}}]}`, new(upload), "json: cannot unmarshal binary data into Go struct field .kids.inner.number of type int"},
		{"for a struct", one, new(upload), "json: cannot unmarshal binary data into Go value of type sio.upload"},
		{"for a map", one, new(map[string]any), "json: cannot unmarshal binary data into Go value of type map[string]interface {}"},
		{"for a list", one, new([]int), "json: cannot unmarshal binary data into Go value of type []int"},
		{"for a pointer to itself", one, new(self), "json: cannot unmarshal binary data into Go value of type sio.self"},
		{"no JSON", `{`, new(any), "unexpected end of JSON input"},
		{"nothing", ``, new(any), "unexpected end of JSON input"},
		{"other JSON", `"x"`, new(int), "json: cannot unmarshal string into Go value of type int"},
		{"no pointer", one, 5, "json: Unmarshal(non-pointer int)"},
		{"nil", one, nil, "json: Unmarshal(nil)"},
		{"a nil pointer", one, (*upload)(nil), "json: Unmarshal(nil *sio.upload)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Bind(raw(tt.data), [][]byte{{1}}, tt.into)
			if err == nil || err.Error() != tt.want {
				t.Errorf("Bind(%s) into %T: %v, want %q", tt.data, tt.into, err, tt.want)
			}
		})
	}
}

// Without attachments what looks like a placeholder is an object like others.
func TestBindWithoutAttachments(t *testing.T) {
	var v any
	if err := Bind(raw(two), nil, &v); err != nil || !reflect.DeepEqual(v, map[string]any{"_placeholder": true, "num": 1.0}) {
		t.Errorf("Bind(%s) = %v, %v", two, v, err)
	}
}

// What v holds already is not lost, and not searched without end.
func TestBindIntoOldValues(t *testing.T) {
	type node struct {
		Next *node
		Any  any
		Data []byte
	}
	v := &node{Any: map[string]any{"_placeholder": true, "num": 7.0}}
	v.Next = v
	if err := Bind(raw(`{"data":`+one+`}`), [][]byte{b1}, v); err != nil || !bytes.Equal(v.Data, b1) || v.Next != v {
		t.Errorf("Bind into a ring: %v, %v", v.Data, err)
	}
	if want := map[string]any{"_placeholder": true, "num": 7.0}; !reflect.DeepEqual(v.Any, want) {
		t.Errorf("the old value became %v, want %v", v.Any, want)
	}
}

// All that Encode makes of a value comes back the way package json has it.
func TestBindWhatWasEncoded(t *testing.T) {
	for name, v := range values {
		if v == nil {
			continue
		}
		data, attachments, err := EncodeArgs(v)
		if err != nil {
			t.Fatal(err)
		}
		arg := SplitArgs(data)[0]
		got, want := reflect.New(reflect.TypeOf(v)), reflect.New(reflect.TypeOf(v))
		errGot := Bind(arg, attachments, got.Interface())
		errWant := json.Unmarshal([]byte(inline(arg, attachments)), want.Interface())
		if (errGot == nil) != (errWant == nil) {
			t.Errorf("%s: Bind(%s): %v, package json: %v", name, arg, errGot, errWant)
			continue
		}
		if g, w := fmt.Sprintf("%#v", plainly(got)), fmt.Sprintf("%#v", plainly(want)); g != w {
			t.Errorf("%s: Bind(%s) = %s, want %s", name, arg, g, w)
		}
	}
}

// plainly turns a value into maps and lists, in which bytes are base64.
func plainly(v reflect.Value) (plain any) {
	b, err := json.Marshal(v.Interface())
	if err == nil {
		err = json.Unmarshal(b, &plain)
	}
	if err != nil {
		return err
	}
	return plain
}

func TestBindKeepsMemoryApart(t *testing.T) {
	attachment := []byte{1, 2, 3}
	var into []byte
	if err := Bind(raw(one), [][]byte{attachment}, &into); err != nil {
		t.Fatal(err)
	}
	attachment[0] = 9
	if base64.StdEncoding.EncodeToString(into) != "AQID" {
		t.Errorf("the value changed with the attachment: %v", into)
	}
}

func BenchmarkBind(b *testing.B) {
	data := raw(`{"name":"a.png","data":` + one + `}`)
	attachments := [][]byte{bytes.Repeat([]byte{1}, 1000)}
	b.ReportAllocs()
	for b.Loop() {
		var v file
		if err := Bind(data, attachments, &v); err != nil {
			b.Fatal(err)
		}
	}
}
