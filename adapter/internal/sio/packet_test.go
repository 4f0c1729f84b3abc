package sio

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func raw(s string) json.RawMessage { return json.RawMessage(s) }

const (
	one = `{"_placeholder":true,"num":0}`
	two = `{"_placeholder":true,"num":1}`
)

// Every row of the packet tables in the texts of protocol 5 and 4, as written
// by both sides.
func TestPacket(t *testing.T) {
	for _, tt := range []struct {
		name, wire string
		want       Packet
	}{
		// Connection to a namespace.
		{"connect", `0`, Packet{Type: Connect, Namespace: "/"}},
		{"connected", `0{"sid":"wZX3oN0bSVIhsaknAAAI"}`, Packet{Type: Connect, Namespace: "/", Data: raw(`{"sid":"wZX3oN0bSVIhsaknAAAI"}`)}},
		{"connect to a namespace", `0/admin,`, Packet{Type: Connect, Namespace: "/admin"}},
		{"connect with a payload", `0/admin,{"token":"123"}`, Packet{Type: Connect, Namespace: "/admin", Data: raw(`{"token":"123"}`)}},
		{"connected to a namespace", `0/admin,{"sid":"oSO0OpakMV_3jnilAAAA"}`, Packet{Type: Connect, Namespace: "/admin", Data: raw(`{"sid":"oSO0OpakMV_3jnilAAAA"}`)}},
		{"connect with a query, protocol 4", `0/admin?token=1234&uid=abcd,`, Packet{Type: Connect, Namespace: "/admin?token=1234&uid=abcd"}},
		{"refused", `4{"message":"Not authorized"}`, Packet{Type: ConnectError, Namespace: "/", Data: raw(`{"message":"Not authorized"}`)}},
		{"refused a namespace", `4/random,{"message":"Invalid namespace"}`, Packet{Type: ConnectError, Namespace: "/random", Data: raw(`{"message":"Invalid namespace"}`)}},
		{"refused, protocol 4", `4/admin,"Not authorized"`, Packet{Type: ConnectError, Namespace: "/admin", Data: raw(`"Not authorized"`)}},

		// Sending and receiving data.
		{"an event", `2["foo"]`, Packet{Type: Event, Namespace: "/", Data: raw(`["foo"]`)}},
		{"an event of a namespace", `2/admin,["bar"]`, Packet{Type: Event, Namespace: "/admin", Data: raw(`["bar"]`)}},
		{"an event with arguments", `2["message",1,"2",{"3":[true]}]`, Packet{Type: Event, Namespace: "/", Data: raw(`["message",1,"2",{"3":[true]}]`)}},
		{"bytes", `51-["baz",` + one + `]`, Packet{Type: BinaryEvent, Namespace: "/", Attachments: 1, Data: raw(`["baz",` + one + `]`)}},
		{"bytes in a namespace", `52-/admin,["baz",` + one + `,` + two + `]`, Packet{Type: BinaryEvent, Namespace: "/admin", Attachments: 2, Data: raw(`["baz",` + one + `,` + two + `]`)}},
		{"bytes with an id, protocol 4", `51-/admin,456["project:delete",` + one + `]`, Packet{Type: BinaryEvent, Namespace: "/admin", ID: 456, HasID: true, Attachments: 1, Data: raw(`["project:delete",` + one + `]`)}},
		{"a number for a name", `2[1,"a",{}]`, Packet{Type: Event, Namespace: "/", Data: raw(`[1,"a",{}]`)}},

		// Acknowledgement.
		{"an event that wants an answer", `212["foo"]`, Packet{Type: Event, Namespace: "/", ID: 12, HasID: true, Data: raw(`["foo"]`)}},
		{"an empty answer", `312[]`, Packet{Type: Ack, Namespace: "/", ID: 12, HasID: true, Data: raw(`[]`)}},
		{"an event of a namespace that wants an answer", `2/admin,13["foo"]`, Packet{Type: Event, Namespace: "/admin", ID: 13, HasID: true, Data: raw(`["foo"]`)}},
		{"an answer in a namespace", `3/admin,13["bar"]`, Packet{Type: Ack, Namespace: "/admin", ID: 13, HasID: true, Data: raw(`["bar"]`)}},
		{"bytes that want an answer", `51-14["foo",` + one + `]`, Packet{Type: BinaryEvent, Namespace: "/", ID: 14, HasID: true, Attachments: 1, Data: raw(`["foo",` + one + `]`)}},
		{"an answer", `314["bar"]`, Packet{Type: Ack, Namespace: "/", ID: 14, HasID: true, Data: raw(`["bar"]`)}},
		{"an answer with bytes", `61-15["bar",` + one + `]`, Packet{Type: BinaryAck, Namespace: "/", ID: 15, HasID: true, Attachments: 1, Data: raw(`["bar",` + one + `]`)}},
		{"an answer with bytes in a namespace, protocol 4", `61-/admin,456[` + one + `]`, Packet{Type: BinaryAck, Namespace: "/admin", ID: 456, HasID: true, Attachments: 1, Data: raw(`[` + one + `]`)}},
		{"the id 0", `20["foo"]`, Packet{Type: Event, Namespace: "/", HasID: true, Data: raw(`["foo"]`)}},
		{"the largest id", `218446744073709551615["foo"]`, Packet{Type: Event, Namespace: "/", ID: math.MaxUint64, HasID: true, Data: raw(`["foo"]`)}},

		// Disconnection from a namespace.
		{"disconnect", `1`, Packet{Type: Disconnect, Namespace: "/"}},
		{"disconnect from a namespace", `1/admin,`, Packet{Type: Disconnect, Namespace: "/admin"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Decode([]byte(tt.wire))
			if err != nil {
				t.Fatalf("Decode(%q): %v", tt.wire, err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Decode(%q) = %s, want %s", tt.wire, show(got), show(tt.want))
			}
			if wire := AppendPacket([]byte("4"), tt.want); string(wire) != "4"+tt.wire {
				t.Errorf("AppendPacket(%s) = %q, want %q", show(tt.want), wire[1:], tt.wire)
			}
		})
	}
}

func show(p Packet) string {
	id := "no id"
	if p.HasID {
		id = fmt.Sprintf("id %d", p.ID)
	}
	return fmt.Sprintf("%v of %q, %s, %d attachments, %q", p.Type, p.Namespace, id, p.Attachments, p.Data)
}

// What is written in more than one way.
func TestDecodeVariants(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1)
	for _, tt := range []struct {
		name, wire, same string
	}{
		{"connect without the comma", `0/random`, `0/random,`},
		{"disconnect without the comma", `1/custom`, `1/custom,`},
		{"the main namespace by its name", `2/,["foo"]`, `2["foo"]`},
		{"connect to the main namespace by its name", `0/`, `0`},
		{"an id with zeros before it", `2007["foo"]`, `27["foo"]`},
		{"a count with zeros before it", `5001-["a",` + one + `]`, `51-["a",` + one + `]`},
		{"the deepest payload", `2["a",` + deep + `]`, `2["a",` + deep + `]`},
		{"the most arguments", `2["a"` + strings.Repeat(",0", MaxArgs-1) + `]`, `2["a"` + strings.Repeat(",0", MaxArgs-1) + `]`},
		{"many members", `0{"a":0` + strings.Repeat(`,"b":0`, MaxArgs) + `}`, `0{"a":0` + strings.Repeat(`,"b":0`, MaxArgs) + `}`},
		{"the longest namespace", `0/` + strings.Repeat("x", MaxNamespace-1), `0/` + strings.Repeat("x", MaxNamespace-1) + `,`},
		{"what looks like a placeholder where there are no bytes", `2["a",{"_placeholder":true,"num":7}]`, `2["a",{"_placeholder":true,"num":7}]`},
		{"a placeholder with its members the other way round", `51-["a",{"num":0,"_placeholder":true}]`, `51-["a",{"num":0,"_placeholder":true}]`},
		{"a placeholder with escapes and space", `51-["a",{ "\u005fplaceholder" : true , "num" : 0 }]`, `51-["a",{ "\u005fplaceholder" : true , "num" : 0 }]`},
		{"what is not marked as a placeholder", `51-["a",{"_placeholder":false,"num":0},` + one + `]`, `51-["a",{"_placeholder":false,"num":0},` + one + `]`},
		{"placeholders out of order and nested", `52-["a",{"b":[` + two + `]},[[` + one + `]]]`, `52-["a",{"b":[` + two + `]},[[` + one + `]]]`},
		{"brackets in strings", `2["a","[[[[\"]",{"]":"}"}]`, `2["a","[[[[\"]",{"]":"}"}]`},
		{"a reserved word in other case", `2["Connect"]`, `2["Connect"]`},
		{"a reserved word as a namespace and argument", `2/connect,["a","connect"]`, `2/connect,["a","connect"]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Decode([]byte(tt.wire))
			if err != nil {
				t.Fatalf("Decode(%q): %v", tt.wire, err)
			}
			if again := AppendPacket(nil, got); string(again) != tt.same {
				t.Errorf("Decode(%q) is written as %q, want %q", tt.wire, again, tt.same)
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	const eventName = "EVENT: expected the name of an event, "
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	for _, tt := range []struct{ name, wire, want string }{
		{"nothing", ``, "expected a packet, got nothing"},
		{"a letter", `abc`, "expected a packet type from 0 to 6, got 'a'"},
		{"a type too many", `7`, "expected a packet type from 0 to 6, got '7'"},
		{"another", `999`, "expected a packet type from 0 to 6, got '9'"},

		{"no count", `5`, "expected the number of attachments and a dash"},
		{"no dash", `51`, "expected the number of attachments and a dash"},
		{"only a dash", `5-["a"]`, "expected the number of attachments and a dash"},
		{"no attachments", `50-["a"]`, "expected at least one attachment, got 0"},
		{"a letter for a count", `5a-["a"]`, "expected a digit in the number of attachments, got 'a'"},
		{"a fraction", `51.23-["a"]`, "expected a digit in the number of attachments, got '.'"},
		{"a count below zero", `5-1-["a"]`, "expected the number of attachments and a dash"},
		{"a count too large", `51001-["a"]`, "expected at most 1000 attachments, got more"},
		{"a count beyond all integers", `5` + strings.Repeat("9", 99) + `-["a"]`, "expected at most 1000 attachments, got more"},
		{"no count in an answer", `6["a"]`, "expected the number of attachments and a dash"},
		{"a count that lies", `51-["hello"]`, "BINARY_EVENT: expected one placeholder for each attachment, got none for number 0"},
		{"a count too small", `51-["hello",` + one + `,` + two + `]`, `BINARY_EVENT: expected "num" of a placeholder to be a whole number below 1, the number of attachments, got 1`},
		{"a placeholder twice", `51-["hello",` + one + `,` + one + `]`, "BINARY_EVENT: expected one placeholder for each attachment, got two for number 0"},
		{"a placeholder that is not there", `52-["hello",` + two + `]`, "BINARY_EVENT: expected one placeholder for each attachment, got none for number 0"},
		{"a string for a number", `51-["hello",{"_placeholder":true,"num":"splice"}]`, `BINARY_EVENT: expected "num" of a placeholder to be a whole number below 1, the number of attachments, got "splice"`},
		{"a fraction for a number", `51-["hello",{"_placeholder":true,"num":0.5}]`, `BINARY_EVENT: expected "num" of a placeholder to be a whole number below 1, the number of attachments, got 0.5`},
		{"a number below zero", `51-["hello",{"_placeholder":true,"num":-1}]`, `BINARY_EVENT: expected "num" of a placeholder to be a whole number below 1, the number of attachments, got -1`},
		{"no number", `51-["hello",{"_placeholder":true}]`, `BINARY_EVENT: expected a placeholder to be {"_placeholder":true,"num":…}, got other members`},
		{"more members", `51-["hello",{"_placeholder":true,"num":0,"x":[` + one + `]}]`, `BINARY_EVENT: expected a placeholder to be {"_placeholder":true,"num":…}, got other members`},

		{"a namespace too long", `0/` + strings.Repeat("x", MaxNamespace), "expected a namespace of at most 4096 bytes, got 4097"},
		{"an id too large", `218446744073709551616["a"]`, "expected an acknowledgement id of 64 bits, got more"},
		{"an id beyond all integers", `2` + strings.Repeat("9", 999) + `["a"]`, "expected an acknowledgement id of 64 bits, got more"},
		{"letters for an id", `2abc["message-with-ack",1]`, "EVENT: expected valid JSON"},
		{"an id and letters", `2/admin,1a["a"]`, "EVENT: expected valid JSON"},
		{"an id to connect", `01{}`, "CONNECT: expected no acknowledgement id, got one"},
		{"an id to disconnect", `11`, "DISCONNECT: expected no acknowledgement id, got one"},
		{"no id in an answer", `3[]`, "ACK: expected an acknowledgement id, got none"},
		{"no id in an answer with bytes", `61-[` + one + `]`, "BINARY_ACK: expected an acknowledgement id, got none"},

		{"an array to connect", `0[]`, "CONNECT: expected an object, got an array"},
		{"a string to connect", `0/admin,"invalid"`, "CONNECT: expected an object, got a string"},
		{"null to connect", `0null`, "CONNECT: expected an object, got null"},
		{"a payload to disconnect", `1/admin,{}`, "DISCONNECT: expected no payload, got one"},
		{"a number to refuse", `4/,1`, "CONNECT_ERROR: expected no acknowledgement id, got one"},
		{"an array to refuse", `4["some","data"]`, "CONNECT_ERROR: expected an object or a string, got an array"},
		{"nothing to refuse", `4`, "CONNECT_ERROR: expected a payload, got none"},
		{"no payload", `2`, "EVENT: expected a payload, got none"},
		{"a namespace that swallows the payload", `2/admin["a"]`, "EVENT: expected a payload, got none"},
		{"an object for an event", `2/admin,{}`, "EVENT: expected an array, got an object"},
		{"a boolean for an event", `2true`, "EVENT: expected an array, got a boolean"},
		{"an event without a name", `2[]`, eventName + "got an empty array"},
		{"an object for a name", `2[{"toString":"foo"}]`, eventName + "a string or a number, got an object"},
		{"a boolean for a name", `2[true,"foo"]`, eventName + "a string or a number, got a boolean"},
		{"null for a name", `2[null,"bar"]`, eventName + "a string or a number, got null"},
		{"connect", `2["connect"]`, eventName + `got "connect", which is reserved`},
		{"disconnect", `2["disconnect","123"]`, eventName + `got "disconnect", which is reserved`},
		{"disconnecting", `2["disconnecting"]`, eventName + `got "disconnecting", which is reserved`},
		{"connect_error", `2["connect_error"]`, eventName + `got "connect_error", which is reserved`},
		{"newListener", `2["newListener"]`, eventName + `got "newListener", which is reserved`},
		{"removeListener", `2["removeListener"]`, eventName + `got "removeListener", which is reserved`},
		{"a reserved name in disguise", `2["\u0063onnect"]`, eventName + `got "connect", which is reserved`},
		{"an answer that is no array", `31{}`, "ACK: expected an array, got an object"},
		{"no JSON", `2["some","data"`, "EVENT: expected valid JSON"},
		{"a string that does not end", `2/admin,"invalid`, "EVENT: expected valid JSON"},
		{"two payloads", `2["a"]["b"]`, "EVENT: expected valid JSON"},
		{"only space", `2 `, "EVENT: expected valid JSON"},
		{"a bomb", `2["a",` + deep + `]`, "EVENT: expected arrays and objects to nest at most 128 deep, got more"},
		{"a bomb that does not end", `2` + strings.Repeat(`[`, 1<<20), "EVENT: expected arrays and objects to nest at most 128 deep, got more"},
		{"a bomb of objects", `0` + strings.Repeat(`{"a":`, 200) + `0` + strings.Repeat("}", 200), "CONNECT: expected arrays and objects to nest at most 128 deep, got more"},
		{"too many arguments", `2["a"` + strings.Repeat(",0", MaxArgs) + `]`, "EVENT: expected at most 1024 arguments, got 1025"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Decode([]byte(tt.wire))
			if err == nil {
				t.Fatalf("Decode(%.100q) = %s, want an error", tt.wire, show(got))
			}
			if err.Error() != tt.want {
				t.Errorf("Decode(%.100q): %q, want %q", tt.wire, err, tt.want)
			}
		})
	}
}

// An assembled packet is written as what it came as.
func TestAppendPacketWithAttachments(t *testing.T) {
	for _, tt := range []struct {
		p    Packet
		want string
	}{
		{Packet{Type: Event, Attachments: 1, Data: raw(`["a",` + one + `]`)}, `51-["a",` + one + `]`},
		{Packet{Type: Ack, Namespace: "/admin", ID: 7, HasID: true, Attachments: 1, Data: raw(`[` + one + `]`)}, `61-/admin,7[` + one + `]`},
	} {
		if got := AppendPacket(nil, tt.p); string(got) != tt.want {
			t.Errorf("AppendPacket(%s) = %s, want %s", show(tt.p), got, tt.want)
		}
	}
}

// The connection reuses the memory of a message for the next one.
func TestDecodeCopies(t *testing.T) {
	wire := []byte(`2/admin,["foo"]`)
	p, err := Decode(wire)
	if err != nil {
		t.Fatal(err)
	}
	for i := range wire {
		wire[i] = '#'
	}
	if p.Namespace != "/admin" || string(p.Data) != `["foo"]` {
		t.Errorf("after the text has changed the packet is %s", show(p))
	}
}

func TestSplitEvent(t *testing.T) {
	for _, tt := range []struct {
		wire string
		name string
		args []string
	}{
		{`["foo"]`, "foo", nil},
		{`["chat message",{"text":"a,b]"},[1,[2]],null,-1.5e3,"x\"]"]`, "chat message", []string{`{"text":"a,b]"}`, `[1,[2]]`, `null`, `-1.5e3`, `"x\"]"`}},
		{" [ \"a\" ,\t1 , { } ]\n", "a", []string{`1`, `{ }`}},
		{`["gr\u00fc\u00df"]`, "grüß", nil},
		{`[""]`, "", nil},
		{`[12,true]`, "12", []string{`true`}},
	} {
		if _, err := Decode([]byte("2" + tt.wire)); err != nil {
			t.Errorf("Decode(%q): %v", tt.wire, err)
		}
		name, args, err := SplitEvent(raw(tt.wire))
		if err != nil || name != tt.name || fmt.Sprintf("%s", args) != fmt.Sprintf("%s", tt.args) || len(args) != len(tt.args) {
			t.Errorf("SplitEvent(%q) = %q, %q, %v, want %q, %q", tt.wire, name, args, err, tt.name, tt.args)
		}
	}
	for _, tt := range []struct{ wire, want string }{
		{`[]`, "expected the name of an event, got an empty array"},
		{`[null]`, "expected the name of an event, a string or a number, got null"},
	} {
		if name, args, err := SplitEvent(raw(tt.wire)); err == nil || err.Error() != tt.want {
			t.Errorf("SplitEvent(%q) = %q, %q, %v, want %q", tt.wire, name, args, err, tt.want)
		}
	}
}

func TestSplitArgs(t *testing.T) {
	for wire, want := range map[string][]string{`[]`: nil, `[ ]`: nil, `[1]`: {`1`}, `["a",{"b":[1,2]}]`: {`"a"`, `{"b":[1,2]}`}} {
		if args := SplitArgs(raw(wire)); fmt.Sprintf("%s", args) != fmt.Sprintf("%s", want) {
			t.Errorf("SplitArgs(%q) = %q, want %q", wire, args, want)
		}
	}
	// Appending to one argument must not reach the next.
	args := SplitArgs(raw(`[1,2]`))
	_ = append(args[0], "000"...)
	if string(args[1]) != "2" {
		t.Errorf("the second argument became %q", args[1])
	}
}

func TestCheckNamespace(t *testing.T) {
	for name, want := range map[string]string{
		"/": "", "/admin": "", "/room-12/é": "",
		"":                                      `expected a namespace that begins with /, got ""`,
		"admin":                                 `expected a namespace that begins with /, got "admin"`,
		"/a,b":                                  `expected a namespace without a comma, got "/a,b"`,
		"/" + strings.Repeat("x", MaxNamespace): "expected a namespace of at most 4096 bytes, got 4097",
	} {
		got := ""
		if err := CheckNamespace(name); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("CheckNamespace(%.20q) = %q, want %q", name, got, want)
		}
	}
}

func TestTypeString(t *testing.T) {
	var got []string
	for p := Connect; p <= BinaryAck+1; p++ {
		got = append(got, p.String())
	}
	want := []string{"CONNECT", "DISCONNECT", "EVENT", "ACK", "CONNECT_ERROR", "BINARY_EVENT", "BINARY_ACK", "type 7"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the types are %q, want %q", got, want)
	}
}

// Deep nesting may not make the same bytes be read at every level.
func TestPlaceholdersAreReadOnce(t *testing.T) {
	body := `"` + strings.Repeat("x", 1<<20) + `"`
	flat := []byte(`51-["a",` + one + `,` + body + `]`)
	deep := []byte(`51-["a",` + one + `,` + strings.Repeat(`{"a":`, 120) + body + strings.Repeat("}", 120) + `]`)
	shortest := func(wire []byte) time.Duration {
		best := time.Hour
		for range 5 {
			start := time.Now()
			if _, err := Decode(wire); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	if d, f := shortest(deep), shortest(flat); d > 20*f {
		t.Errorf("a megabyte 120 levels deep takes %v, at the top %v", d, f)
	}
}

const event = `2["chat message",{"room":"lobby","text":"hi"}]`

func BenchmarkDecode(b *testing.B) {
	wire := []byte(event)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(wire); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeAndSplit(b *testing.B) {
	wire := []byte(event)
	b.ReportAllocs()
	for b.Loop() {
		p, err := Decode(wire)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := SplitEvent(p.Data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	msg := struct {
		Room string `json:"room"`
		Text string `json:"text"`
	}{"lobby", "hi"}
	dst := make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		data, attachments, err := EncodeArgs("chat message", msg)
		if err != nil {
			b.Fatal(err)
		}
		dst = AppendPacket(dst[:0], Packet{Type: Event, Data: data, Attachments: len(attachments)})
	}
}
