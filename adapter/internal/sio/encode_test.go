package sio

//lint:file-ignore SA5008 odd tags must mean here what they mean to package json

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"
)

type (
	blob  []byte
	octet byte

	// file is the usual case.
	file struct {
		Name string `json:"name"`
		Data []byte `json:"data"`
	}

	// tags uses all that a tag can say, on fields with bytes and without.
	tags struct {
		Plain    int
		Renamed  int    `json:"renamed"`
		Hidden   []byte `json:"-"`
		Dash     []byte `json:"-,"`
		private  []byte
		Empty    []byte         `json:"empty,omitempty"`
		EmptyAny any            `json:"emptyAny,omitempty"`
		EmptyPtr *file          `json:"emptyPtr,omitempty"`
		EmptyMap map[string]any `json:",omitempty"`
		EmptyArr [0]file        `json:"emptyArr,omitempty"`
		Zero     file           `json:"zero,omitzero"`
		EitherNo []byte         `json:"eitherNo,omitempty,omitzero"`
		EitherTo never          `json:"eitherTo,omitempty,omitzero"`
		ZeroAny  any            `json:"zeroAny,omitzero"`
		ZeroPtr  *never         `json:"zeroPtr,omitzero"`
		ZeroSelf always         `json:"zeroSelf,omitzero"`
		ZeroThis never          `json:"zeroThis,omitzero"`
		EmptyStr string         `json:"emptyStr,omitempty"`
		Quoted   int            `json:"quoted,string"`
		QuotedP  *int           `json:"quotedP,string"`
		QuotedB  []byte         `json:"quotedB,string"`
		Escaped  []byte         `json:"<&>"`
		Odd      []byte         `json:"a\"b"`
		Time     time.Time      `json:"time"`
		Raw      json.RawMessage
		IP       net.IP
		Array    [3]byte
		Octets   []octet
		Named    blob
	}

	always struct{ Data []byte }
	never  struct{ Data []byte }

	Base struct {
		ID   int    `json:"id"`
		Data []byte `json:"data"`
	}
	Other struct {
		ID    int
		Extra []byte
	}
	inner struct{ Inner []byte }
	deep  struct{ Base }

	embeds struct {
		Base
		*Other
		inner
		ID string // hides neither: the names differ
	}
	hides struct {
		deep        // its data is two levels down
		Data string `json:"data"`
	}
	conflict struct {
		Base2
		Rival
		Blob []byte
	}
	Rival  struct{ Data []byte }
	tagWin struct {
		Base2
		Tagged
	}
	Base2  struct{ Data []byte }
	Tagged struct {
		Bytes []byte `json:"Data"`
	}
	count struct{ N int }
	named struct {
		Base  `json:"base"`
		inner `json:"inner,omitzero"`
		count `json:"count"`
	}
	loop struct {
		*loop
		Data []byte
	}
	tree struct {
		Data []byte
		Kids []*tree          `json:",omitempty"`
		More map[string]*tree `json:",omitempty"`
	}

	// byValue and byPointer write themselves.
	byValue   struct{ Data []byte }
	byPointer struct{ Data []byte }
	key       struct{ a, b int }
	badKey    struct{}
)

func (always) IsZero() bool                    { return true }
func (*never) IsZero() bool                    { return false }
func (v byValue) MarshalJSON() ([]byte, error) { return []byte(`"by value"`), nil }
func (v *byPointer) MarshalJSON() ([]byte, error) {
	return []byte(`"by pointer"`), nil
}
func (k key) MarshalText() ([]byte, error)  { return fmt.Appendf(nil, "%d-%d", k.a, k.b), nil }
func (badKey) MarshalText() ([]byte, error) { return nil, errors.New("no key") }

func p[T any](v T) *T { return &v }

var b1, b2 = []byte{1, 2, 3}, []byte("\xff\x00 bytes")

// The values that the tests encode. All but those of the first kind have bytes.
var values = map[string]any{
	"nil":              nil,
	"a string":         `he said "<é>"`,
	"a number":         1.5,
	"a struct":         struct{ A, B int }{1, 2},
	"a map":            map[string]any{"b": []any{1, "x", nil}, "a": 2},
	"raw JSON":         json.RawMessage(`{"a": [1, "AQID"]}`),
	"by value":         byValue{b1},
	"by pointer":       &byPointer{b1},
	"nil bytes":        []byte(nil),
	"nil bytes inside": file{Name: "x"},
	"an array":         [3]byte{1, 2, 3},
	"a time":           time.Unix(0, 0).UTC(),
	"an address":       net.IPv4(1, 2, 3, 4),

	"bytes":            b1,
	"no bytes":         []byte{},
	"named":            blob(b1),
	"octets":           []octet{1, 2},
	"a file":           file{"a.txt", b1},
	"a pointer":        &file{"a.txt", b1},
	"pointers":         p(p(b1)),
	"a list":           []any{"a", b1, nil, file{"b", b2}, []byte(nil)},
	"lists of bytes":   [][]byte{b1, nil, {}, b2},
	"an array of them": [2]any{b1, 1},
	"maps":             map[string]any{"z": b1, "a": map[string][]byte{"x": b2, "": nil}, "<": 1},
	"maps by int":      map[int]any{10: b1, 9: "x", -1: nil},
	"maps by uint":     map[uint8][]byte{10: b1, 9: b2},
	"maps by text":     map[key]any{{1, 2}: b1, {0, 5}: 2},
	"maps by pointer":  map[*key]any{nil: b1, {0, 5}: 2},
	"nil map inside":   []any{b1, map[string]any(nil), []any(nil), (*file)(nil), error(nil)},
	"all tags":         tags{Plain: 1, Renamed: 2, Hidden: b1, Dash: b1, private: b1, Quoted: 7, QuotedP: p(8), QuotedB: b1, Escaped: b1, Odd: b2, IP: net.IPv4(1, 2, 3, 4), Octets: []octet{1}, Named: blob(b1), EmptyStr: "x"},
	"all tags, full":   &tags{Empty: b1, EmptyAny: b1, EmptyPtr: &file{"x", b2}, EmptyMap: map[string]any{"x": b1}, Zero: file{"y", b1}, ZeroAny: b2, ZeroPtr: &never{b1}, ZeroThis: never{}, ZeroSelf: always{b1}, Raw: json.RawMessage(`[1]`)},
	"all tags, zero":   []any{tags{EmptyMap: map[string]any{}}, b1},
	"embedded":         embeds{Base{1, b1}, &Other{2, b2}, inner{b1}, "id"},
	"embedded nil":     embeds{Base: Base{1, b1}},
	"hidden":           hides{deep{Base{1, b1}}, "data"},
	"hidden, any":      []any{hides{deep{Base{1, b1}}, "data"}, b1},
	"conflict":         conflict{Base2{b1}, Rival{b2}, b1},
	"a tag wins":       tagWin{Base2{b1}, Tagged{b2}},
	"named embedded":   named{Base{1, b1}, inner{b2}, count{3}},
	"named and zero":   named{Base{1, b1}, inner{}, count{}},
	"embeds itself":    loop{&loop{nil, b2}, b1},
	"a tree":           tree{b1, []*tree{{Data: b2}, {Kids: []*tree{nil}}}, map[string]*tree{"a": {Data: b1}}},
	"writes itself":    []any{b1, byValue{b1}, byPointer{b1}, &byPointer{b1}},
	"addressable":      []any{b1, &struct{ P byPointer }{byPointer{b1}}, &[]byPointer{{b1}}},
	"not addressable":  []any{b1, struct{ P struct{ N int } }{}, map[string]struct{ A int }{"x": {1}}},
	"shared":           []any{b1, b1},
}

// Wherever bytes are, the JSON is the one of package json but for them.
func TestEncodeArgs(t *testing.T) {
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			data, attachments, err := EncodeArgs("event", v)
			if err != nil {
				t.Fatal(err)
			}
			want, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if got := inline(data, attachments); got != `["event",`+string(want)+`]` {
				t.Errorf("EncodeArgs(%#v) = %s with %q\nis %s\nwant %s", v, data, attachments, got, want)
			}
			if _, err := Decode(AppendPacket(nil, Packet{Type: Event, Data: data, Attachments: len(attachments)})); err != nil {
				t.Errorf("the other side: %v", err)
			}
		})
	}
}

// inline writes the attachments into data the way package json does.
func inline(data []byte, attachments [][]byte) string {
	s := string(data)
	for i, b := range attachments {
		s = strings.Replace(s, fmt.Sprintf(`{"_placeholder":true,"num":%d}`, i), `"`+base64.StdEncoding.EncodeToString(b)+`"`, 1)
	}
	return s
}

// What the test above would also accept if nothing became an attachment.
func TestAttachments(t *testing.T) {
	for name, want := range map[string][][]byte{
		"a map":            nil,
		"raw JSON":         nil,
		"by value":         nil,
		"by pointer":       nil,
		"nil bytes":        nil,
		"nil bytes inside": nil,
		"an array":         nil,
		"an address":       nil,
		"bytes":            {b1},
		"no bytes":         {{}},
		"named":            {b1},
		"octets":           {{1, 2}},
		"pointers":         {b1},
		"a list":           {b1, b2},
		"lists of bytes":   {b1, {}, b2},
		"maps":             {b2, b1},
		"all tags":         {b1, b1, b1, b2, {1}, b1},
		"all tags, full":   {b1, b1, b2, b1, b1, b2, b1},
		"embedded":         {b1, b2, b1},
		"hidden":           nil,
		"conflict":         {b1},
		"a tag wins":       {b2},
		"named embedded":   {b1, b2},
		"embeds itself":    {b1},
		"a tree":           {b1, b2, b1},
		"shared":           {b1, b1},
	} {
		v, ok := values[name]
		if !ok {
			t.Fatalf("there is no value %q", name)
		}
		if _, got, err := EncodeArgs(v); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the attachments of %s are %v, %v, want %v", name, got, err, want)
		}
	}
}

func TestEncodeArgsWire(t *testing.T) {
	data, attachments, err := EncodeArgs("baz", []byte{1, 2}, map[string]any{"b": []any{[]byte{3, 4}}})
	const want = `["baz",` + one + `,{"b":[` + two + `]}]`
	if err != nil || string(data) != want || !reflect.DeepEqual(attachments, [][]byte{{1, 2}, {3, 4}}) {
		t.Errorf("EncodeArgs = %s, %v, %v, want %s", data, attachments, err, want)
	}
	if data, attachments, err := EncodeArgs(); string(data) != "[]" || attachments != nil || err != nil {
		t.Errorf("EncodeArgs() = %s, %v, %v, want []", data, attachments, err)
	}
}

func TestEncodeArgsErrors(t *testing.T) {
	cycle := map[string]any{}
	cycle["self"] = cycle
	chain := &tree{}
	for range 2 * maxNesting {
		chain = &tree{Data: b1, Kids: []*tree{chain}}
	}
	many := make([][]byte, MaxAttachments+1)
	for i := range many {
		many[i] = b1
	}
	const notPlaceholder = `value has an object with the member "_placeholder", which would be taken for an attachment`
	for _, tt := range []struct {
		name string
		args []any
		want string
	}{
		{"a function", []any{func() {}}, "json: unsupported type: func()"},
		{"a function next to bytes", []any{map[string]any{"a": b1, "f": func() {}}}, "json: unsupported type: func()"},
		{"no number", []any{b1, struct {
			F float64
			B []byte
		}{math.NaN(), b1}}, "json: unsupported value: NaN"},
		{"bad JSON", []any{[]any{b1, json.RawMessage(`{`)}}, "json: error calling MarshalJSON for type json.RawMessage: unexpected end of JSON input"},
		{"a key that fails", []any{map[badKey]any{{}: b1}}, "no key"},
		{"a key of no kind", []any{map[struct{ A int }]any{{}: b1}}, "json: unsupported type: struct { A int }"},
		{"what contains itself", []any{cycle}, errNesting.Error()},
		{"a long chain", []any{chain}, errNesting.Error()},
		{"too many attachments", []any{many}, "value has 1001 attachments, at most 1000 are allowed"},
		// It would reach every client of a room as an attachment that is not
		// there, and they disconnect.
		{"somebody's placeholder", []any{b1, json.RawMessage(`{"_placeholder":true,"num":9}`)}, notPlaceholder},
		{"somebody's copy of a placeholder", []any{b1, map[string]any{"_placeholder": true, "num": 0}}, notPlaceholder},
		{"somebody's placeholder with more", []any{b1, map[string]any{"_placeholder": true, "x": 0}}, notPlaceholder},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, _, err := EncodeArgs(tt.args...)
			if err == nil || err.Error() != tt.want {
				t.Errorf("EncodeArgs = %s, %v, want %q", data, err, tt.want)
			}
		})
	}
	// Without bytes nobody takes it for a placeholder.
	if data, _, err := EncodeArgs(map[string]any{"_placeholder": true}); err != nil || string(data) != `[{"_placeholder":true}]` {
		t.Errorf("EncodeArgs = %s, %v", data, err)
	}
}

// The attachments are the caller's bytes.
func TestEncodeArgsDoesNotCopy(t *testing.T) {
	big := make([]byte, 1<<20)
	_, attachments, err := EncodeArgs(file{"big", big})
	if err != nil || len(attachments) != 1 || &attachments[0][0] != &big[0] {
		t.Errorf("the attachment is a copy, %v", err)
	}
}

func BenchmarkEncodeBytes(b *testing.B) {
	v := file{"a.png", bytes.Repeat([]byte{1}, 1000)}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := EncodeArgs("file", v); err != nil {
			b.Fatal(err)
		}
	}
}
