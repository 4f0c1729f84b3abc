package sio

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"
)

// mp makes bytes of a sketch of MessagePack: quoted words become fixstr, all
// else is hex.
func mp(t testing.TB, sketch string) []byte {
	t.Helper()
	var wire []byte
	for i, part := range strings.Split(sketch, `'`) {
		if i%2 == 1 {
			wire = append(append(wire, 0xa0|byte(len(part))), part...)
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(part, " ", ""))
		if err != nil {
			t.Fatalf("%q is no sketch: %v", sketch, err)
		}
		wire = append(wire, b...)
	}
	return wire
}

func showMessage(m Message) string { return fmt.Sprintf("%s and %x", show(m.Packet), m.Binary) }

// What socket.io-msgpack-parser 3.0.2 has written, the example of its
// documentation first.
func TestDecodeMessagePackFromTheClient(t *testing.T) {
	for _, tt := range []struct {
		name, wire string
		want       Message
	}{
		{"an event", "83a47479706502a36e7370a12fa46461746192a568656c6c6fa3796f75",
			Message{Packet: Packet{Type: Event, Namespace: "/", Data: raw(`["hello","you"]`)}}},
		{"connect, data is undefined", "83a47479706500a464617461d40000a36e7370a12f",
			Message{Packet: Packet{Type: Connect, Namespace: "/"}}},
		{"connect with a payload", "83a47479706500a46461746181a5746f6b656ea3313233a36e7370a62f61646d696e",
			Message{Packet: Packet{Type: Connect, Namespace: "/admin", Data: raw(`{"token":"123"}`)}}},
		{"disconnect", "82a47479706501a36e7370a62f61646d696e",
			Message{Packet: Packet{Type: Disconnect, Namespace: "/admin"}}},
		{"an event with options", "84a47479706502a46461746192a568656c6c6fa3796f75a76f7074696f6e7381a8636f6d7072657373c3a36e7370a12f",
			Message{Packet: Packet{Type: Event, Namespace: "/", Data: raw(`["hello","you"]`)}}},
		{"all that JSON lacks", "85a47479706502a46461746199a161d700000000e8d4a51000d4000082a175d40000a17801cb7ff8000000000000cbfff0000000000000cb3fb999999999999ac4020102c702000304a76f7074696f6e7381a8636f6d7072657373c3a269640ca36e7370a12f",
			Message{Packet{Type: Event, Namespace: "/", ID: 12, HasID: true, Attachments: 2,
				Data: raw(`["a","2001-09-09T01:46:40.000Z",null,{"x":1},null,null,0.1,` + one + `,` + two + `]`)}, [][]byte{{1, 2}, {3, 4}}}},
		{"an answer with integers of each size", "84a47479706503a2696400a4646174619bcf001fffffffffffffd3ffe0000000000001ffd0dfd1ff7fd2ffff7fffd3ffffffff7fffffffcc80cd0100ce00010000cf0000000100000000a36e7370a12f",
			Message{Packet: Packet{Type: Ack, Namespace: "/", HasID: true,
				Data: raw(`[9007199254740991,-9007199254740991,-1,-33,-129,-32769,-2147483649,128,256,65536,4294967296]`)}}},
		{"dates and escapes", "83a47479706502a36e7370a12fa46461746195a164d700ffffffffffffffffd700ffffc76e394a7400d700001eb208c2dc0000a9c3a9f09f988001225c",
			Message{Packet: Packet{Type: Event, Namespace: "/",
				Data: raw(`["d","1969-12-31T23:59:59.999Z","-000001-01-01T00:00:00.000Z","+275760-09-13T00:00:00.000Z","é😀\u0001\"\\"]`)}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeMessagePack(mp(t, tt.wire), 0)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("DecodeMessagePack(%s) = %s, %v, want %s", tt.wire, showMessage(got), err, showMessage(tt.want))
			}
		})
	}
}

// Each format of the specification, as the argument of an event.
func TestDecodeMessagePackFormats(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		name, wire, want string
		attachments      [][]byte
	}{
		{"nil", "c0", `null`, nil},
		{"booleans", "92 c2 c3", `[false,true]`, nil},
		{"fixint", "94 00 7f e0 ff", `[0,127,-32,-1]`, nil},
		{"uint 8", "cc ff", `255`, nil},
		{"uint 16", "cd ffff", `65535`, nil},
		{"uint 32", "ce ffffffff", `4294967295`, nil},
		{"uint 64", "cf ffffffffffffffff", `18446744073709551615`, nil},
		{"int 8", "d0 80", `-128`, nil},
		{"int 8 above zero", "d0 7f", `127`, nil},
		{"int 16", "d1 8000", `-32768`, nil},
		{"int 32", "d2 80000000", `-2147483648`, nil},
		{"int 64", "d3 8000000000000000", `-9223372036854775808`, nil},
		{"the largest int 64", "d3 7fffffffffffffff", `9223372036854775807`, nil},
		{"float 32", "ca 3fc00000", `1.5`, nil},
		{"float 32, exactly", "ca 3dcccccd", `0.10000000149011612`, nil},
		{"float 64", "cb 3fb999999999999a", `0.1`, nil},
		{"a whole float", "cb 4008000000000000", `3`, nil},
		{"minus zero", "cb 8000000000000000", `-0`, nil},
		{"a large float", "cb 4480f0cf064dd592", `1e+22`, nil},
		{"a small float", "cb 3e7ad7f29abcaf48", `1e-07`, nil},
		{"no number", "cb 7ff8000000000000", `null`, nil},
		{"no number of 32 bits", "ca 7fc00000", `null`, nil},
		{"infinite", "92 cb 7ff0000000000000 ca ff800000", `[null,null]`, nil},
		{"fixstr", "'abc'", `"abc"`, nil},
		{"an empty string", "a0", `""`, nil},
		{"str 8", "d9 03 616263", `"abc"`, nil},
		{"str 16", "da 012c" + hex.EncodeToString([]byte(long)), `"` + long + `"`, nil},
		{"str 32", "db 00000003 616263", `"abc"`, nil},
		{"escapes", "ac 00 1f 22 5c 08 0a 0c 0d 09 7f 3c 3e", `"\u0000\u001f\"\\\b\n\f\r\t` + "\x7f" + `<>"`, nil},
		{"bin 8", "c4 02 0102", one, [][]byte{{1, 2}}},
		{"no bytes", "c4 00", one, [][]byte{{}}},
		{"bin 16", "c5 0001 ff", one, [][]byte{{0xff}}},
		{"bin 32", "c6 00000001 ff", one, [][]byte{{0xff}}},
		{"ArrayBuffers", "93 c7 01 00 01 c8 0001 00 02 c9 00000001 00 03", `[` + one + `,` + two + `,{"_placeholder":true,"num":2}]`, [][]byte{{1}, {2}, {3}}},
		{"an ArrayBuffer as long as a date", "c7 08 00 0000000000000001", one, [][]byte{{0, 0, 0, 0, 0, 0, 0, 1}}},
		{"bytes, nested", "82 'a' 91 c4 01 01 'b' 81 'c' c4 01 02", `{"a":[` + one + `],"b":{"c":` + two + `}}`, [][]byte{{1}, {2}}},
		{"fixarray", "92 01 90", `[1,[]]`, nil},
		{"array 16", "dc 0002 01 02", `[1,2]`, nil},
		{"array 32", "dd 00000001 01", `[1]`, nil},
		{"fixmap", "82 'a' 01 'b' 80", `{"a":1,"b":{}}`, nil},
		{"map 16", "de 0001 'a' 01", `{"a":1}`, nil},
		{"map 32", "df 00000001 'a' 01", `{"a":1}`, nil},
		{"an odd key", "81 a2 225c 01", `{"\"\\":1}`, nil},
		{"the same key twice", "82 'a' 01 'a' 02", `{"a":1,"a":2}`, nil},
		{"undefined", "93 d40000 81 'a' d40000 83 'a' d40000 'b' 01 'c' d400ff", `[null,{},{"b":1}]`, nil},
		{"the epoch", "d700 0000000000000000", `"1970-01-01T00:00:00.000Z"`, nil},
		{"the year 0", "d700 ffffc77590fba000", `"0000-01-01T00:00:00.000Z"`, nil},
		{"the year 9999", "d700 0000e677d21fdbff", `"9999-12-31T23:59:59.999Z"`, nil},
		{"the year 10000", "d700 0000e677d21fdc00", `"+010000-01-01T00:00:00.000Z"`, nil},
		{"the last date", "d700 001eb208c2dc0000", `"+275760-09-13T00:00:00.000Z"`, nil},
		{"the first date", "d700 ffe14df73d240000", `"-271821-04-20T00:00:00.000Z"`, nil},
		{"a date too late", "d700 001eb208c2dc0001", `null`, nil},
		{"a date too early", "d700 ffe14df73d23ffff", `null`, nil},
		{"the last time of all", "d700 7fffffffffffffff", `null`, nil},
		{"what looks like a placeholder where there are no bytes", "82 '_placeholder' c3 'num' 00", one, nil},
		{"what is not marked as a placeholder", "92 82 '_placeholder' c2 'num' 00 c4 01 01", `[{"_placeholder":false,"num":0},` + one + `]`, [][]byte{{1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire := mp(t, "83 'type' 02 'nsp' '/' 'data' 92 'e'"+tt.wire)
			want := Message{Packet{Type: Event, Namespace: "/", Data: raw(`["e",` + tt.want + `]`), Attachments: len(tt.attachments)}, tt.attachments}
			got, err := DecodeMessagePack(wire, 0)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("DecodeMessagePack(%s) = %s, %v, want %s", tt.wire, showMessage(got), err, showMessage(want))
			}
		})
	}
}

// What is written in more than one way.
func TestDecodeMessagePackVariants(t *testing.T) {
	event := Message{Packet: Packet{Type: Event, Namespace: "/a", ID: 7, HasID: true, Data: raw(`["e"]`)}}
	for _, tt := range []struct {
		name, wire string
		want       Message
	}{
		{"another order", "84 'data' 91 'e' 'id' 07 'nsp' '/a' 'type' 02", event},
		{"longer formats", "df00000004 d90474797065 cf0000000000000002 'id' cd0007 d9036e7370 da00022f61 'data' dd00000001 d90165", event},
		{"floats that are whole", "84 'type' cb4000000000000000 'id' ca40e00000 'nsp' '/a' 'data' 91 'e'", event},
		{"other members", "86 'x' c4 01 01 'type' 02 'id' 07 'x' 81 'y' 92 c4 00 c0 'nsp' '/a' 'data' 91 'e'", event},
		{"nil for what is not there", "84 'type' 00 'nsp' '/a' 'data' c0 'id' c0", Message{Packet: Packet{Type: Connect, Namespace: "/a"}}},
		{"undefined for what is not there", "84 'type' 01 'nsp' '/a' 'data' d40000 'id' d40000", Message{Packet: Packet{Type: Disconnect, Namespace: "/a"}}},
		{"a number for a name", "83 'type' 02 'nsp' '/a' 'data' 91 05", Message{Packet: Packet{Type: Event, Namespace: "/a", Data: raw(`[5]`)}}},
		{"the largest id", "84 'type' 03 'id' cfffffffffffffffff 'nsp' '/a' 'data' 90", Message{Packet: Packet{Type: Ack, Namespace: "/a", ID: math.MaxUint64, HasID: true, Data: raw(`[]`)}}},
		{"refused, protocol 4", "83 'type' 04 'nsp' '/a' 'data' 'no'", Message{Packet: Packet{Type: ConnectError, Namespace: "/a", Data: raw(`"no"`)}}},
		{"refused", "83 'type' 04 'nsp' '/a' 'data' 81 'message' 'no'", Message{Packet: Packet{Type: ConnectError, Namespace: "/a", Data: raw(`{"message":"no"}`)}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeMessagePack(mp(t, tt.wire), 0)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("DecodeMessagePack(%s) = %s, %v, want %s", tt.wire, showMessage(got), err, showMessage(tt.want))
			}
		})
	}
}

func TestDecodeMessagePackErrors(t *testing.T) {
	const (
		begin = "83 'type' 02 'nsp' '/' 'data' 92 'e'"
		ends  = "expected more bytes, got the end"
	)
	lies := func(of string, n, got int) string {
		return fmt.Sprintf("expected at least %d more bytes after the beginning of %s, got %d", n, of, got)
	}
	nested := func(n int) string { return strings.Repeat("91", n) + "90" }
	for _, tt := range []struct{ name, wire, want string }{
		{"nothing", "", ends},
		{"no map", "91 02", "expected a packet, which is a map, got an array"},
		{"the text of a packet", "30", "expected a packet, which is a map, got an unsigned integer"},
		{"an empty map", "80", "expected a packet type, got none"},
		{"no type", "81 'nsp' '/'", "expected a packet type, got none"},
		{"no namespace", "81 'type' 00", "expected a namespace, got none"},
		{"half a packet", "83 'type' 00 'nsp' '/'", ends},
		{"more than a packet", "82 'type' 00 'nsp' '/' 00", "expected the end after the packet, got 1 more bytes"},
		{"a key that is no string", "81 01 02", "expected the key of a map to be a string, got an unsigned integer"},
		{"a type that only text has", "82 'type' 05 'nsp' '/'", "expected a packet type from 0 to 4, got 5"},
		{"a type below zero", "82 'type' ff 'nsp' '/'", "expected a packet type from 0 to 4, got -1"},
		{"a fraction of a type", "82 'type' cb3ff8000000000000 'nsp' '/'", "expected a packet type from 0 to 4, got 1.5"},
		{"a string for a type", "82 'type' '2' 'nsp' '/'", `expected a packet type from 0 to 4, got "2"`},
		{"no number for a type", "82 'type' cb7ff8000000000000 'nsp' '/'", "expected a packet type from 0 to 4, got null"},
		{"two types", "83 'type' 00 'type' 02 'nsp' '/'", `expected one member "type", got two`},
		{"two payloads, one of them undefined", "84 'type' 00 'data' d40000 'data' 80 'nsp' '/'", `expected one member "data", got two`},
		{"a number for a namespace", "82 'type' 00 'nsp' 05", "expected a namespace, which is a string, got a number"},
		{"an empty namespace", "82 'type' 00 'nsp' a0", `expected a namespace that begins with /, got ""`},
		{"another namespace", "82 'type' 00 'nsp' 'admin'", `expected a namespace that begins with /, got "admin"`},
		{"a namespace with a comma", "82 'type' 00 'nsp' '/a,b'", `expected a namespace without a comma, got "/a,b"`},
		{"a namespace too long", "82 'type' 00 'nsp' da1001" + strings.Repeat("2f", MaxNamespace+1), "expected a namespace of at most 4096 bytes, got 4097"},
		{"an id below zero", "84 'type' 02 'id' ff 'nsp' '/' 'data' 91 'e'", "expected an acknowledgement id, a whole number of 64 bits, got -1"},
		{"a string for an id", "84 'type' 02 'id' '1' 'nsp' '/' 'data' 91 'e'", `expected an acknowledgement id, a whole number of 64 bits, got "1"`},
		{"connect with an id", "83 'type' 00 'id' 01 'nsp' '/'", "CONNECT: expected no acknowledgement id, got one"},
		{"connect with an array", "83 'type' 00 'nsp' '/' 'data' 90", "CONNECT: expected an object, got an array"},
		{"connect with bytes", "83 'type' 00 'nsp' '/' 'data' 81 'a' c400", "CONNECT: expected no attachments, got 1"},
		{"connect with nothing but bytes", "83 'type' 00 'nsp' '/' 'data' c400", "CONNECT: expected no attachments, got 1"},
		{"disconnect with a payload", "83 'type' 01 'nsp' '/' 'data' 80", "DISCONNECT: expected no payload, got one"},
		{"refused for no reason", "82 'type' 04 'nsp' '/'", "CONNECT_ERROR: expected a payload, got none"},
		{"an event without a payload", "82 'type' 02 'nsp' '/'", "EVENT: expected a payload, got none"},
		{"an event with a map", "83 'type' 02 'nsp' '/' 'data' 80", "EVENT: expected an array, got an object"},
		{"an event without a name", "83 'type' 02 'nsp' '/' 'data' 90", "EVENT: expected the name of an event, got an empty array"},
		{"an event named nil", "83 'type' 02 'nsp' '/' 'data' 91 c0", "EVENT: expected the name of an event, a string or a number, got null"},
		{"an event named with bytes", "83 'type' 02 'nsp' '/' 'data' 91 c40165", "EVENT: expected the name of an event, a string or a number, got an object"},
		{"a reserved name", "83 'type' 02 'nsp' '/' 'data' 91 'connect'", `EVENT: expected the name of an event, got "connect", which is reserved`},
		{"an answer without an id", "83 'type' 03 'nsp' '/' 'data' 90", "ACK: expected an acknowledgement id, got none"},
		{"an answer to nil", "84 'type' 03 'id' c0 'nsp' '/' 'data' 90", "ACK: expected an acknowledgement id, got none"},
		{"an answer that is no array", "84 'type' 03 'id' 00 'nsp' '/' 'data' 80", "ACK: expected an array, got an object"},

		{"the byte that begins nothing", begin + "c1", "expected a value, got the byte 0xc1, which begins none"},
		{"no value", begin, ends},
		{"half an integer", begin + "cf 00000000000000", ends},
		{"half a float", begin + "cb 00", ends},
		{"half a length", begin + "db 0000", ends},
		{"half an extension", begin + "c7 01", ends},
		{"half undefined", begin + "d400", ends},
		{"half a date", begin + "d700 00", ends},
		{"a string that lies", begin + "dbffffffff 61", lies("a string", math.MaxUint32, 1)},
		{"a short string that lies", begin + "a2 61", lies("a string", 2, 1)},
		{"bytes that lie", begin + "c6ffffffff", lies("bytes", math.MaxUint32, 0)},
		{"an ArrayBuffer that lies", begin + "c9ffffffff00 01", lies("bytes", math.MaxUint32, 1)},
		{"an array that lies", begin + "ddffffffff c0", lies("an array", math.MaxUint32, 1)},
		{"a map that lies", begin + "dfffffffff a0c0", lies("a map", 2*math.MaxUint32, 2)},
		{"a map that lies by one", begin + "82 a0c0", lies("a map", 4, 2)},
		{"a packet that lies", "dfffffffff", lies("a map", 2*math.MaxUint32, 0)},
		{"a string that is not UTF-8", begin + "a2 c328", "expected a string in UTF-8, got other bytes"},
		{"half a character", begin + "a3 eda080", "expected a string in UTF-8, got other bytes"},
		{"a key that is not UTF-8", begin + "81 a1 ff c0", "expected a string in UTF-8, got other bytes"},
		{"a number for a key", begin + "81 01 c0", "expected the key of a map to be a string, got an unsigned integer"},
		{"bytes for a key", begin + "81 c40161 c0", "expected the key of a map to be a string, got bytes"},
		{"an unknown extension", begin + "c7 01 05 ff", "expected a Date, undefined or an ArrayBuffer, got an extension of type 5 with 1 bytes"},
		{"a timestamp", begin + "d6 ff 00000000", "expected a Date, undefined or an ArrayBuffer, got an extension of type -1 with 4 bytes"},
		{"no extension of the package", begin + "d500 0000", "expected a Date, undefined or an ArrayBuffer, got an extension of type 0 with 2 bytes"},
		{"nested too deep", begin + nested(MaxDepth-1), errDepth.Error()},
		{"maps nested too deep", begin + strings.Repeat("81 a0", MaxDepth) + "c0", errDepth.Error()},
		{"bytes nested too deep", begin + strings.Repeat("91", MaxDepth-1) + "c400", "EVENT: " + errDepth.Error()},
		{"a nesting bomb", begin + nested(100_000), errDepth.Error()},
		{"a nesting bomb where nobody looks", "83 'x' " + nested(100_000), errDepth.Error()},
		{"too many arguments", "83 'type' 02 'nsp' '/' 'data' dc0401 'e'" + strings.Repeat("c0", MaxArgs), "EVENT: expected at most 1024 arguments, got 1025"},
		{"too many attachments", begin + "dc03e9" + strings.Repeat("c400", MaxAttachments+1), "expected at most 1000 attachments, got more"},
		{"a copy of a placeholder", begin + "92 c40101 82 '_placeholder' c3 'num' 00", "EVENT: expected one placeholder for each attachment, got two for number 0"},
		{"a copy of a placeholder, and undefined", begin + "92 83 '_placeholder' c3 'x' d40000 'num' 00 c40101", "EVENT: expected one placeholder for each attachment, got two for number 0"},
		{"a placeholder of nothing", begin + "92 82 '_placeholder' c3 'num' 01 c40101", `EVENT: expected "num" of a placeholder to be a whole number below 1, the number of attachments, got 1`},
		{"a placeholder with more", begin + "92 82 '_placeholder' c3 'x' 01 c40101", `EVENT: expected a placeholder to be {"_placeholder":true,"num":…}, got other members`},
		{"bytes for a type", "83 'type' c40101 'nsp' '/'", `expected a packet type from 0 to 4, got {"_placeholder":true`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := DecodeMessagePack(mp(t, tt.wire), 0)
			if err == nil || err.Error() != tt.want {
				t.Errorf("DecodeMessagePack(%.80s) = %s, %v, want %q", tt.wire, showMessage(m), err, tt.want)
			}
		})
	}
}

// What a packet becomes is bounded, not only what it was.
func TestDecodeMessagePackBounds(t *testing.T) {
	const begin = "83 'type' 02 'nsp' '/' 'data' 92 'e'"
	for _, tt := range []struct {
		name, wire string
		size       int // of the JSON and the attachments
	}{
		{"false", "dc0400" + strings.Repeat("c2", 1024), len(`["e",]`) + 6*1024 + 1},
		{"control characters", "da0400" + strings.Repeat("01", 1024), len(`["e",]`) + 6*1024 + 2},
		{"control characters in a key", "81 da0400" + strings.Repeat("01", 1024) + "c0", len(`["e",{:null}]`) + 6*1024 + 2},
		{"plain text", "da03e8" + strings.Repeat("61", 1000), len(`["e",]`) + 1002},
		{"bytes", "c50400" + strings.Repeat("01", 1024), len(`["e",]`) + len(one) + 1024},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire := mp(t, begin+tt.wire)
			if _, err := DecodeMessagePack(wire, tt.size); err != nil {
				t.Errorf("within %d bytes: %v", tt.size, err)
			}
			want := fmt.Sprintf("expected at most %d bytes in a packet, as JSON, and its attachments, got more", tt.size-1)
			if _, err := DecodeMessagePack(wire, tt.size-1); err == nil || err.Error() != want {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// Bytes that say they are much, and are not, cost next to nothing.
func TestDecodeMessagePackAllocates(t *testing.T) {
	for _, wire := range []string{
		"dfffffffff",
		"83 'data' ddffffffff",
		"83 'data' dfffffffff a0 c0",
		"83 'data' dbffffffff",
		"83 'data' c6ffffffff",
		"83 'data' c9ffffffff00",
	} {
		b := mp(t, wire)
		const runs = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			if _, err := DecodeMessagePack(b, 0); err == nil {
				t.Fatal("accepted")
			}
		}
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) / runs; got > 1000 {
			t.Errorf("%s costs %d bytes", wire, got)
		}
	}
}

func TestDecodeMessagePackKeepsMemoryApart(t *testing.T) {
	wire := mp(t, "84 'type' 02 'nsp' '/a' 'data' 93 'e' 'text' c40101 'x' 'y'")
	m, err := DecodeMessagePack(wire, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := showMessage(m)
	for i := range wire {
		wire[i] = 'z'
	}
	if after := showMessage(m); after != before {
		t.Errorf("%s became %s", before, after)
	}
}

func TestAppendMessagePack(t *testing.T) {
	long := strings.Repeat("é", 20)
	for _, tt := range []struct {
		name, want  string
		p           Packet
		attachments [][]byte
	}{
		{"granted", "83 'type' 00 'nsp' '/' 'data' 81 'sid' 'x'", Packet{Type: Connect, Data: raw(`{"sid":"x"}`)}, nil},
		{"refused", "83 'type' 04 'nsp' '/a' 'data' 81 'message' 'no'", Packet{Type: ConnectError, Namespace: "/a", Data: raw(`{"message":"no"}`)}, nil},
		{"disconnect", "82 'type' 01 'nsp' '/a'", Packet{Type: Disconnect, Namespace: "/a"}, nil},
		{"an event", "83 'type' 02 'nsp' '/' 'data' 92 'hello' 'you'", Packet{Type: Event, Namespace: "/", Data: raw(` [ "hello" , "you" ] `)}, nil},
		{"an empty answer", "84 'type' 03 'nsp' '/' 'id' 00 'data' 90", Packet{Type: Ack, HasID: true, Data: raw(`[]`)}, nil},
		{"the largest id", "84 'type' 03 'nsp' '/' 'id' cfffffffffffffffff 'data' 90", Packet{Type: Ack, HasID: true, ID: math.MaxUint64, Data: raw(`[]`)}, nil},
		{"words", "83 'type' 03 'nsp' '/' 'data' 93 c0 c2 c3", Packet{Type: Ack, Data: raw(`[null,false,true]`)}, nil},
		{"whole numbers", "83 'type' 03 'nsp' '/' 'data' 9a 00 7f cc80 ccff cd0100 cdffff ce00010000 ceffffffff cf0000000100000000 cfffffffffffffffff",
			Packet{Type: Ack, Data: raw(`[0,127,128,255,256,65535,65536,4294967295,4294967296,18446744073709551615]`)}, nil},
		{"negative numbers", "83 'type' 03 'nsp' '/' 'data' 99 ff e0 d0df d080 d1ff7f d18000 d2ffff7fff d280000000 d3ffffffff7fffffff",
			Packet{Type: Ack, Data: raw(`[-1,-32,-33,-128,-129,-32768,-32769,-2147483648,-2147483649]`)}, nil},
		{"the least number", "83 'type' 03 'nsp' '/' 'data' 91 d38000000000000000", Packet{Type: Ack, Data: raw(`[-9223372036854775808]`)}, nil},
		{"floats", "83 'type' 03 'nsp' '/' 'data' 95 cb3fb999999999999a cb4008000000000000 cb4008000000000000 cb8000000000000000 cb43f0000000000000",
			Packet{Type: Ack, Data: raw(`[0.1,3.0,30E-1,-0,18446744073709551616]`)}, nil},
		{"beyond all floats", "83 'type' 03 'nsp' '/' 'data' 92 cb7ff0000000000000 cbfff0000000000000", Packet{Type: Ack, Data: raw(`[1e999,-1e999]`)}, nil},
		{"strings", "83 'type' 03 'nsp' '/' 'data' 93 a0 a4 3c22c3a9 d928" + hex.EncodeToString([]byte(long)), Packet{Type: Ack, Data: raw(`["","\u003c\"é","` + long + `"]`)}, nil},
		{"what is not UTF-8", "83 'type' 03 'nsp' '/' 'data' 91 81 a4 61efbfbd a4 efbfbd62", Packet{Type: Ack, Data: raw("[{\"a\xff\":\"\\ud800b\"}]")}, nil},
		{"an object", "83 'type' 03 'nsp' '/' 'data' 91 82 'a' 90 'b' 81 'c' c0", Packet{Type: Ack, Data: raw(`[{"a":[],"b":{"c":null}}]`)}, nil},
		{"sixteen elements", "83 'type' 03 'nsp' '/' 'data' 92 dc0010" + strings.Repeat("05", 16) + "05", Packet{Type: Ack, Data: raw(`[[5` + strings.Repeat(",5", 15) + `],5]`)}, nil},
		{"bytes", "83 'type' 02 'nsp' '/' 'data' 93 'e' c4020102 81 'x' 91 c400", Packet{Type: Event, Data: raw(`["e",` + one + `,{"x":[` + two + `]}]`), Attachments: 2}, [][]byte{{1, 2}, {}}},
		{"many bytes", "83 'type' 02 'nsp' '/' 'data' 92 'e' c50100" + strings.Repeat("07", 256), Packet{Type: Event, Data: raw(`["e",` + one + `]`)}, [][]byte{bytes.Repeat([]byte{7}, 256)}},
		{"what looks like a placeholder where there are no bytes", "83 'type' 02 'nsp' '/' 'data' 92 'e' 82 '_placeholder' c3 'num' 00", Packet{Type: Event, Data: raw(`["e",` + one + `]`)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendMessagePack([]byte("before"), tt.p, tt.attachments)
			if want := append([]byte("before"), mp(t, tt.want)...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("AppendMessagePack(%s) = %x, %v, want %x", show(tt.p), got, err, want)
			}
		})
	}
}

func TestAppendMessagePackErrors(t *testing.T) {
	for _, data := range []string{`["e",` + two + `]`, `["e",{"_placeholder":true,"num":0,"x":1}]`} {
		if got, err := AppendMessagePack(nil, Packet{Type: Event, Data: raw(data)}, [][]byte{{1}}); err == nil {
			t.Errorf("AppendMessagePack(%s) = %x, want an error", data, got)
		}
	}
}

// Arrays, maps, strings and bytes of each length around where the format
// changes come back.
func TestMessagePackLengths(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536} {
		members := make(map[string]int, n)
		for i := range n {
			members[fmt.Sprint(i)] = i
		}
		data, attachments, err := EncodeArgs("e", make([]int, n), members, strings.Repeat("x", n), bytes.Repeat([]byte{1}, n))
		if err != nil {
			t.Fatal(err)
		}
		want := Message{Packet{Type: Event, Namespace: "/", Data: data, Attachments: 1}, attachments}
		wire, err := AppendMessagePack(nil, want.Packet, want.Binary)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeMessagePack(wire, 0); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d of each came back as %.200s, %v", n, showMessage(got), err)
		}
	}
}

// Whatever EncodeArgs makes of a value comes to Bind as over JSON.
func TestMessagePackRoundTrip(t *testing.T) {
	for name, v := range values {
		data, attachments, err := EncodeArgs("event", v)
		if err != nil {
			t.Fatal(err)
		}
		wire, err := AppendMessagePack(nil, Packet{Type: Event, Namespace: "/", Data: data}, attachments)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := DecodeMessagePack(wire, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, got := boundArgs(t, data, attachments), boundArgs(t, m.Data, m.Binary)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s came back as %v, want %v", name, got, want)
		}
	}
}

func boundArgs(t *testing.T, data json.RawMessage, attachments [][]byte) (args []any) {
	t.Helper()
	if err := Bind(data, attachments, &args); err != nil {
		t.Fatalf("Bind(%s): %v", data, err)
	}
	return args
}

// FuzzDecodeMessagePack: what is accepted is what Decode would accept, and comes
// back from the encoder as it was.
func FuzzDecodeMessagePack(f *testing.F) {
	for _, sketch := range []string{
		"", "80", "83 'type' 00 'data' d40000 'nsp' '/'", "82 'type' 01 'nsp' '/a'", "83 'type' 04 'nsp' '/' 'data' 'no'",
		"84 'type' 02 'data' 92 'e' 'you' 'options' 81 'compress' c3 'nsp' '/'",
		"84 'type' 03 'id' cfffffffffffffffff 'nsp' '/' 'data' 92 c40101 81 'a' c70200 0304",
		"83 'type' 02 'nsp' '/' 'data' 99 'a' d700000000e8d4a510 d40000 82 'u' d40000 'x' 01 cb7ff8000000000000 ca3fc00000 d1ff7f d90161 dc000190",
		"83 'type' 02 'nsp' '/' 'data' 93 01 c40101 82 '_placeholder' c3 'num' 00",
		"83 'type' 02 'nsp' '/' 'data' 92 'a' dfffffffff", "83 'type' 02 'nsp' '/' 'data' 9191919191",
		"83 'type' 02 'nsp' '/' 'data' 94 'a' cbffefffffffffffff cb43f0000000000000 cb8000000000000000",
	} {
		f.Add(mp(f, sketch))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		const most = 1 << 16
		m, err := DecodeMessagePack(wire, most)
		if err != nil {
			return
		}
		size := len(m.Data)
		for _, b := range m.Binary {
			size += len(b)
		}
		if size > most || size > 6*len(wire)+31*len(m.Binary) || len(m.Binary) != m.Attachments {
			t.Fatalf("%x became %s", wire, showMessage(m))
		}
		text, err := Decode(AppendPacket(nil, m.Packet))
		switch text.Type {
		case BinaryEvent:
			text.Type = Event
		case BinaryAck:
			text.Type = Ack
		}
		if err != nil || !reflect.DeepEqual(text, m.Packet) {
			t.Fatalf("%s as text is %s, %v", show(m.Packet), show(text), err)
		}
		packed, err := AppendMessagePack(nil, m.Packet, m.Binary)
		if err != nil {
			t.Fatalf("AppendMessagePack(%s): %v", showMessage(m), err)
		}
		again, err := DecodeMessagePack(packed, most)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%s came back as %s, %v", showMessage(m), showMessage(again), err)
		}
	})
}

// FuzzMessagePack: what comes as text goes through MessagePack unchanged, but
// for how it is written.
func FuzzMessagePack(f *testing.F) {
	for _, s := range []string{
		"0", `0/admin,{"token":"x"}`, "1/custom", `4{"message":"no"}`, event, `218446744073709551615["a"]`,
		`52-/admin,["baz",` + one + `,{"a":[` + two + `]}]`, `61-15["bar",` + one + `]`, `3/admin,13[-0,1e400,1.5,18446744073709551616,-9223372036854775808]`,
		`2["a",{"_placeholder":true,"num":7}]`, `2["\u0063onnec\ud800"]`, `2 [ "a" , -1.5e3 ] `,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		p, err := Decode(wire)
		if err != nil || !utf8.Valid(wire) || CheckNamespace(p.Namespace) != nil {
			return
		}
		var attachments [][]byte
		for i := range p.Attachments {
			attachments = append(attachments, []byte{byte(i), 0xff})
		}
		switch p.Type {
		case BinaryEvent:
			p.Type = Event
		case BinaryAck:
			p.Type = Ack
		}
		var want any
		if p.Data != nil && Bind(p.Data, attachments, &want) != nil {
			return // a number beyond all floats, which becomes null, and is no name
		}
		packed, err := AppendMessagePack(nil, p, attachments)
		if err != nil {
			t.Fatalf("AppendMessagePack(%s): %v", show(p), err)
		}
		m, err := DecodeMessagePack(packed, 0)
		if err != nil {
			t.Fatalf("%s came back as %x: %v", show(p), packed, err)
		}
		var got any
		if m.Data != nil {
			if err := Bind(m.Data, m.Binary, &got); err != nil {
				t.Fatalf("%s came back as %s: %v", show(p), showMessage(m), err)
			}
		}
		p.Data, m.Data = nil, nil
		if !reflect.DeepEqual(m.Packet, p) || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s with %v came back as %s with %v", show(p), want, showMessage(m), got)
		}
	})
}

func BenchmarkDecodeMessagePack(b *testing.B) {
	wire := mp(b, "84 'type' 02 'data' 92 'chat message' 82 'room' 'lobby' 'text' 'Hello, everybody here' 'options' 81 'compress' c3 'nsp' '/'")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeMessagePack(wire, 0); err != nil {
			b.Fatal(err)
		}
	}
}
