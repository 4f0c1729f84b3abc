package eio

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
)

// text and blob shorten the tables.
func text(t Type, data string) Packet { return Packet{Type: t, Data: []byte(data)} }
func blob(data ...byte) Packet        { return Packet{Type: Message, Binary: true, Data: data} }

func show(p Packet) string {
	if p.Binary {
		return fmt.Sprintf("%v % x", p.Type, p.Data)
	}
	return fmt.Sprintf("%v %q", p.Type, p.Data)
}

// Every row of the packet tables in the two protocol texts, and their examples.
func TestMessage(t *testing.T) {
	both := []Version{V3, V4}
	for _, tt := range []struct {
		name string
		v    []Version
		wire string
		want Packet
	}{
		{"open", both, `0{"sid":"lv_VI97HAXpY6yYWAAAC"}`, text(Open, `{"sid":"lv_VI97HAXpY6yYWAAAC"}`)},
		{"close", both, "1", text(Close, "")},
		{"ping", both, "2", text(Ping, "")},
		{"the question before an upgrade", both, "2probe", text(Ping, "probe")},
		{"pong", both, "3", text(Pong, "")},
		{"its answer", both, "3probe", text(Pong, "probe")},
		{"message", both, "4hello", text(Message, "hello")},
		{"a message without data", both, "4", text(Message, "")},
		{"a message beyond ASCII", both, "4€ 😀", text(Message, "€ 😀")},
		{"a message that begins like base64", both, "4bAQID", text(Message, "bAQID")},
		{"upgrade", both, "5", text(Upgrade, "")},
		{"noop", both, "6", text(Noop, "")},
		{"base64", []Version{V4}, "bAQIDBA==", blob(1, 2, 3, 4)},
		{"no bytes as base64", []Version{V4}, "b", blob()},
		{"base64 with its type", []Version{V3}, "b4AQIDBA==", blob(1, 2, 3, 4)},
		{"no bytes as base64 with its type", []Version{V3}, "b4", blob()},
	} {
		for _, v := range tt.v {
			t.Run(fmt.Sprintf("%s/%d", tt.name, v), func(t *testing.T) {
				got, err := DecodeMessage(v, false, []byte(tt.wire))
				if err != nil {
					t.Fatalf("DecodeMessage(%q): %v", tt.wire, err)
				}
				if show(got) != show(tt.want) {
					t.Errorf("DecodeMessage(%q) = %s, want %s", tt.wire, show(got), show(tt.want))
				}
				if wire := AppendText([]byte("…"), v, tt.want); string(wire) != "…"+tt.wire {
					t.Errorf("AppendText(%s) = %q, want %q", show(tt.want), wire[len("…"):], tt.wire)
				}
			})
		}
	}
}

func TestBinaryMessage(t *testing.T) {
	for _, tt := range []struct {
		name string
		v    Version
		wire []byte
		want Packet
	}{
		{"protocol 4, the bytes as they are", V4, []byte{1, 2, 3, 4}, blob(1, 2, 3, 4)},
		{"protocol 4, no bytes", V4, []byte{}, blob()},
		{"protocol 3, the type before the bytes", V3, []byte{4, 0, 1, 2, 3, 4, 5}, blob(0, 1, 2, 3, 4, 5)},
		{"protocol 3, no bytes", V3, []byte{4}, blob()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeMessage(tt.v, true, tt.wire)
			if err != nil {
				t.Fatalf("DecodeMessage(% x): %v", tt.wire, err)
			}
			if show(got) != show(tt.want) {
				t.Errorf("DecodeMessage(% x) = %s, want %s", tt.wire, show(got), show(tt.want))
			}
			if wire := AppendBinary([]byte{9}, tt.v, tt.want); !bytes.Equal(wire, append([]byte{9}, tt.wire...)) {
				t.Errorf("AppendBinary(%s) = % x, want % x", show(tt.want), wire[1:], tt.wire)
			}
		})
	}
}

func TestMessageErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		v      Version
		binary bool
		wire   string
		want   string
	}{
		{"nothing", V4, false, "", "expected a packet, got nothing"},
		{"nothing", V3, false, "", "expected a packet, got nothing"},
		{"no bytes at all", V3, true, "", "expected a packet, got nothing"},
		{"a letter", V4, false, "abc", "expected a packet type from 0 to 6, got 'a'"},
		{"a letter", V3, false, "abc", "expected a packet type from 0 to 6, got 'a'"},
		{"a type too many", V4, false, "7", "expected a packet type from 0 to 6, got '7'"},
		{"JSON", V4, false, "{}", "expected a packet type from 0 to 6, got '{'"},
		{"the separator", V4, false, "\x1e", `expected a packet type from 0 to 6, got '\x1e'`},
		{"no type", V3, false, "b", `expected a packet type after "b", got nothing`},
		{"a letter for a type", V3, false, "bAQIDBA==", "expected a packet type from 0 to 6, got 'A'"},
		{"a digit for a type", V3, true, "4abc", "expected a packet type from 0 to 6, got 52"},
		{"no base64", V4, false, "b?", `expected base64 after "b": illegal base64 data at input byte 0`},
		{"base64 cut off", V4, false, "bAQIDBA=", `expected base64 after "b": illegal base64 data at input byte 7`},
		{"not UTF-8", V4, false, "4\xff", "expected UTF-8 text, got other bytes"},
		{"not UTF-8", V3, false, "4\xff", "expected UTF-8 text, got other bytes"},
	} {
		t.Run(fmt.Sprintf("%s/%d", tt.name, tt.v), func(t *testing.T) {
			got, err := DecodeMessage(tt.v, tt.binary, []byte(tt.wire))
			if err == nil {
				t.Fatalf("DecodeMessage(%q) = %s, want an error", tt.wire, show(got))
			}
			if err.Error() != tt.want {
				t.Errorf("DecodeMessage(%q): %q, want %q", tt.wire, err, tt.want)
			}
		})
	}
}

func TestParseVersion(t *testing.T) {
	for s, want := range map[string]Version{"3": V3, "4": V4, "": 0, "abc": 0, "2": 0, "5": 0, "04": 0, "4.0": 0} {
		if v, ok := ParseVersion(s); v != want || ok != (want != 0) {
			t.Errorf("ParseVersion(%q) = %v, %v, want %v", s, v, ok, want)
		}
	}
}

func TestTypeString(t *testing.T) {
	var got []string
	for p := Open; p <= Noop+1; p++ {
		got = append(got, p.String())
	}
	want := []string{"open", "close", "ping", "pong", "message", "upgrade", "noop", "type 7"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the types are %q, want %q", got, want)
	}
}

// A text message is decoded where it lies: echo costs no memory here.
func TestDecodeAllocates(t *testing.T) {
	wire := []byte(`42["chat message",{"room":"lobby","text":"hi"}]`)
	n := testing.AllocsPerRun(100, func() {
		if _, err := DecodeMessage(V4, false, wire); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("DecodeMessage of text allocates %v times, want 0", n)
	}
}

func BenchmarkDecodeMessage(b *testing.B) {
	wire := []byte(`42["chat message",{"room":"lobby","text":"hi"}]`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeMessage(V4, false, wire); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendText(b *testing.B) {
	p := text(Message, `2["chat message",{"room":"lobby","text":"hi"}]`)
	dst := make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendText(dst[:0], V4, p)
	}
}
