package eio

import (
	"bytes"
	"iter"
	"strings"
	"testing"
)

// collect shows the packets of a payload and the error that ended it.
func collect(seq iter.Seq2[Packet, error]) (packets []string, err error) {
	for p, e := range seq {
		if e != nil {
			return packets, e
		}
		packets = append(packets, show(p))
	}
	return packets, nil
}

func shown(packets []Packet) (out []string) {
	for _, p := range packets {
		out = append(out, show(p))
	}
	return out
}

func same(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") }

// The examples of the two protocol texts, and what the reference makes of
// characters that are two units of UTF-16.
func TestPayload(t *testing.T) {
	open := `{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":5000}`
	for _, tt := range []struct {
		name string
		v    Version
		wire string
		want []Packet
	}{
		{"protocol 4: several", V4, "4hello\x1e2\x1e4world", []Packet{text(Message, "hello"), text(Ping, ""), text(Message, "world")}},
		{"protocol 4: text and bytes", V4, "4hello\x1ebAQIDBA==", []Packet{text(Message, "hello"), blob(1, 2, 3, 4)}},
		{"protocol 4: bytes and text", V4, "bAQIDBA==\x1e4hello", []Packet{blob(1, 2, 3, 4), text(Message, "hello")}},
		{"protocol 4: one", V4, "6", []Packet{text(Noop, "")}},
		{"protocol 4: all types", V4, "0\x1e1\x1e2probe\x1e3probe\x1e4test\x1e5\x1e6", []Packet{text(Open, ""), text(Close, ""), text(Ping, "probe"), text(Pong, "probe"), text(Message, "test"), text(Upgrade, ""), text(Noop, "")}},
		{"protocol 4: beyond ASCII", V4, "4€\x1e4😀", []Packet{text(Message, "€"), text(Message, "😀")}},
		{"protocol 3: the handshake", V3, "96:0" + open, []Packet{text(Open, open)}},
		{"protocol 3: the handshake and a connection", V3, "96:0" + open + "2:40", []Packet{text(Open, open), text(Message, "0")}},
		{"protocol 3: one", V3, "4:4hey", []Packet{text(Message, "hey")}},
		{"protocol 3: several", V3, "6:4hello6:4world", []Packet{text(Message, "hello"), text(Message, "world")}},
		{"protocol 3: close", V3, "1:1", []Packet{text(Close, "")}},
		{"protocol 3: characters, not bytes", V3, "6:4hello2:4€", []Packet{text(Message, "hello"), text(Message, "€")}},
		{"protocol 3: two units for one character", V3, "3:4😀4:4a😀2:4é", []Packet{text(Message, "😀"), text(Message, "a😀"), text(Message, "é")}},
		{"protocol 3: text and bytes", V3, "2:4€10:b4AQIDBA==", []Packet{text(Message, "€"), blob(1, 2, 3, 4)}},
		{"protocol 3: colons and digits inside", V3, "8:4[\"1:2\"]2:4x", []Packet{text(Message, `["1:2"]`), text(Message, "x")}},
		{"protocol 3: as the reference counts", V3, "2:4€3:4😀5:4a😀é10:b4AQIDBA==1:6", []Packet{text(Message, "€"), text(Message, "😀"), text(Message, "a😀é"), blob(1, 2, 3, 4), text(Noop, "")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := collect(DecodePayload(tt.v, []byte(tt.wire), Limits{}))
			if err != nil {
				t.Fatalf("DecodePayload(%q): %v", tt.wire, err)
			}
			if !same(got, shown(tt.want)) {
				t.Errorf("DecodePayload(%q) = %q, want %q", tt.wire, got, shown(tt.want))
			}
			if wire := AppendPayload([]byte("…"), tt.v, tt.want...); string(wire) != "…"+tt.wire {
				t.Errorf("AppendPayload(%q) = %q, want %q", shown(tt.want), wire[len("…"):], tt.wire)
			}
		})
	}
}

// The examples of protocol 3 for clients that can take bytes.
func TestBinaryPayload(t *testing.T) {
	long := strings.Repeat("x", 1233)
	for _, tt := range []struct {
		name string
		wire []byte
		want []Packet
	}{
		{"of the protocol text", []byte{0, 4, 255, '4', 0xe2, 0x82, 0xac, 1, 5, 255, 4, 1, 2, 3, 4}, []Packet{text(Message, "€"), blob(1, 2, 3, 4)}},
		{"of the test suite", []byte{0, 6, 255, 52, 104, 101, 108, 108, 111, 1, 5, 255, 4, 1, 2, 3, 4}, []Packet{text(Message, "hello"), blob(1, 2, 3, 4)}},
		{"no bytes", []byte{1, 1, 255, 4}, []Packet{blob()}},
		{"several digits", append([]byte{0, 1, 2, 3, 4, 255, '4'}, long...), []Packet{text(Message, long)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := collect(DecodeBinaryPayload(tt.wire, Limits{}))
			if err != nil {
				t.Fatalf("DecodeBinaryPayload(% x): %v", tt.wire, err)
			}
			if !same(got, shown(tt.want)) {
				t.Errorf("DecodeBinaryPayload(% x) = %q, want %q", tt.wire, got, shown(tt.want))
			}
			if wire := AppendBinaryPayload(nil, tt.want...); !bytes.Equal(wire, tt.wire) {
				t.Errorf("AppendBinaryPayload(%q) = % x, want % x", shown(tt.want), wire, tt.wire)
			}
		})
	}
}

func TestPayloadErrors(t *testing.T) {
	const (
		badType   = "expected a packet type from 0 to 6, got "
		badLength = "expected the length of a packet and a colon"
		badCount  = "expected the length of a packet to be that of the text after it"
		badFrame  = "expected the length of a packet and a byte of 255"
	)
	for _, tt := range []struct {
		name   string
		v      Version
		binary bool
		wire   string
		lim    Limits
		before []Packet // handed out before the error
		want   string
	}{
		{"nothing", V4, false, "", Limits{}, nil, "expected a packet, got nothing"},
		{"nothing", V3, false, "", Limits{}, nil, "expected a packet, got nothing"},
		{"nothing", V3, true, "", Limits{}, nil, "expected a packet, got nothing"},
		{"no packet", V4, false, "abc", Limits{}, nil, badType + "'a'"},
		{"no packet", V3, false, "abc", Limits{}, nil, badLength},
		{"JSON", V4, false, `["a123", "a456"]`, Limits{}, nil, badType + "'['"},
		{"the other protocol", V4, false, "6:4hello", Limits{}, []Packet{text(Noop, ":4hello")}, ""},
		{"the other protocol", V3, false, "4hello", Limits{}, nil, badLength},
		{"a good one first", V4, false, "4a\x1ex", Limits{}, []Packet{text(Message, "a")}, badType + "'x'"},
		{"a separator at the end", V4, false, "4a\x1e", Limits{}, []Packet{text(Message, "a")}, "expected a packet, got nothing"},
		{"two separators", V4, false, "4a\x1e\x1e4b", Limits{}, []Packet{text(Message, "a")}, "expected a packet, got nothing"},
		{"a good one first", V3, false, "2:4ax", Limits{}, []Packet{text(Message, "a")}, badLength},
		{"an empty packet", V3, false, "0:", Limits{}, nil, "expected a packet, got nothing"},
		{"no length", V3, false, ":4a", Limits{}, nil, badLength},
		{"a length below zero", V3, false, "-2:4a", Limits{}, nil, badLength},
		{"a length with an exponent", V3, false, "1e1:4aaaaaaaaa", Limits{}, nil, badLength},
		{"a length beyond all memory", V3, false, "99999999999999999999:4a", Limits{}, nil, badLength},
		{"a length with the most digits", V3, false, "999999999:4a", Limits{}, nil, badCount},
		{"a length too long", V3, false, "3:4a", Limits{}, nil, badCount},
		{"a length in bytes", V3, false, "4:4€", Limits{}, nil, badCount},
		{"a length that cuts a character", V3, false, "2:4😀", Limits{}, nil, badCount},
		{"not UTF-8", V4, false, "4a\x1e4\xff", Limits{}, nil, "expected UTF-8 text, got other bytes"},
		{"not UTF-8", V3, false, "2:4\xff", Limits{}, nil, "expected UTF-8 text, got other bytes"},
		{"as long as allowed", V4, false, "4hello", Limits{Bytes: 6}, []Packet{text(Message, "hello")}, ""},
		{"too long", V4, false, "4hello", Limits{Bytes: 5}, nil, "expected a payload of at most 5 bytes, got 6"},
		{"too long", V3, true, "\x00\x01\xff4", Limits{Bytes: 3}, nil, "expected a payload of at most 3 bytes, got 4"},
		{"as many as allowed", V4, false, "2\x1e2", Limits{Packets: 2}, []Packet{text(Ping, ""), text(Ping, "")}, ""},
		{"too many", V4, false, "2\x1e2\x1e2", Limits{Packets: 2}, []Packet{text(Ping, ""), text(Ping, "")}, "expected at most 2 packets in a payload, got more"},
		{"too many", V3, false, "1:21:2", Limits{Packets: 1}, []Packet{text(Ping, "")}, "expected at most 1 packets in a payload, got more"},
		{"too many", V3, true, "\x00\x01\xff2\x00\x01\xff2", Limits{Packets: 1}, []Packet{text(Ping, "")}, "expected at most 1 packets in a payload, got more"},
		{"a kind of neither", V3, true, "\x02\x01\xff2", Limits{}, nil, "expected 0 or 1 before the length of a packet, got 2"},
		{"no end of the length", V3, true, "\x00\x01", Limits{}, nil, badFrame},
		{"no length", V3, true, "\x00\xff2", Limits{}, nil, badFrame},
		{"a length beyond all memory", V3, true, "\x00" + strings.Repeat("\x09", 20) + "\xff2", Limits{}, nil, badFrame},
		{"no digit", V3, true, "\x00\x0a\xff2", Limits{}, nil, "expected a digit from 0 to 9 in the length of a packet, got 10"},
		{"a length too long", V3, true, "\x01\x05\xff\x04ab", Limits{}, nil, "expected a packet of 5 bytes, got 3"},
		{"no type", V3, true, "\x01\x00\xff", Limits{}, nil, "expected a packet, got nothing"},
		{"no text", V3, true, "\x00\x00\xff", Limits{}, nil, "expected a packet, got nothing"},
		{"a type too many", V3, true, "\x01\x01\xff\x07", Limits{}, nil, badType + "7"},
		{"text that is not UTF-8", V3, true, "\x00\x02\xff4\xff", Limits{}, nil, "expected UTF-8 text, got other bytes"},
	} {
		name := tt.name + map[bool]string{true: " in binary", false: " in protocol " + string('0'+rune(tt.v))}[tt.binary]
		t.Run(name, func(t *testing.T) {
			seq := DecodePayload(tt.v, []byte(tt.wire), tt.lim)
			if tt.binary {
				seq = DecodeBinaryPayload([]byte(tt.wire), tt.lim)
			}
			got, err := collect(seq)
			if !same(got, shown(tt.before)) {
				t.Errorf("decoding %q handed out %q, want %q", tt.wire, got, shown(tt.before))
			}
			if msg := message(err); msg != tt.want {
				t.Errorf("decoding %q: %q, want %q", tt.wire, msg, tt.want)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A reader that has had enough, after a close packet for example, stops.
func TestPayloadStops(t *testing.T) {
	for name, seq := range map[string]iter.Seq2[Packet, error]{
		"4":      DecodePayload(V4, []byte("1\x1e4a"), Limits{}),
		"3":      DecodePayload(V3, []byte("1:12:4a"), Limits{}),
		"binary": DecodeBinaryPayload([]byte("\x00\x01\xff1\x00\x02\xff4a"), Limits{}),
	} {
		n := 0
		for p, err := range seq {
			if n++; err != nil || p.Type != Close {
				t.Errorf("%s: the first packet is %s, %v, want close", name, show(p), err)
			}
			break
		}
		if n != 1 {
			t.Errorf("%s: %d packets, want 1", name, n)
		}
	}
}

// A megabyte of the smallest packets must not become a hundred megabytes.
func TestPayloadAllocates(t *testing.T) {
	body := []byte(strings.Repeat("4\x1e", 1<<19) + "4")
	packets := 0
	n := testing.AllocsPerRun(1, func() {
		packets = 0
		for _, err := range DecodePayload(V4, body, Limits{}) {
			if packets++; err != nil {
				t.Error(err)
			}
		}
	})
	if n > 10 || packets != 1<<19+1 {
		t.Errorf("DecodePayload of %d packets allocates %v times, want at most 10", packets, n)
	}
}

// FuzzDecode gives the same bytes to all decoders. What one accepts comes back
// from its encoder as it was.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "0{}", "2probe", "4hello", "b4AQIDBA==", "bAQIDBA==", "\x04\x01\x02", "4€ 😀",
		"4hello\x1e2\x1ebAQIDBA==", "6:4hello2:4€3:4😀10:b4AQIDBA==",
		"\x00\x04\xff4\xe2\x82\xac\x01\x05\xff\x04\x01\x02\x03\x04", "999999999:4", "\x00\x09\x09\xff4",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		for _, v := range []Version{V3, V4} {
			for _, binary := range []bool{false, true} {
				p, err := DecodeMessage(v, binary, wire)
				if err != nil {
					continue
				}
				encode := AppendText
				if binary {
					encode = AppendBinary
				}
				again, err := DecodeMessage(v, binary, encode(nil, v, p))
				if err != nil || show(again) != show(p) {
					t.Fatalf("protocol %d: %s came back as %s, %v", v, show(p), show(again), err)
				}
			}
			round(t, func(b []byte) iter.Seq2[Packet, error] { return DecodePayload(v, b, Limits{}) },
				func(p []Packet) []byte { return AppendPayload(nil, v, p...) }, wire)
		}
		round(t, func(b []byte) iter.Seq2[Packet, error] { return DecodeBinaryPayload(b, Limits{}) },
			func(p []Packet) []byte { return AppendBinaryPayload(nil, p...) }, wire)
	})
}

func round(t *testing.T, decode func([]byte) iter.Seq2[Packet, error], encode func([]Packet) []byte, wire []byte) {
	var packets []Packet
	size := 0
	for p, err := range decode(wire) {
		if err != nil {
			return
		}
		packets = append(packets, p)
		size += len(p.Data) + 1
	}
	if size > len(wire) {
		t.Fatalf("%d bytes became packets of %d", len(wire), size)
	}
	again, err := collect(decode(encode(packets)))
	if err != nil || !same(again, shown(packets)) {
		t.Fatalf("%q came back as %q, %v", shown(packets), again, err)
	}
}
