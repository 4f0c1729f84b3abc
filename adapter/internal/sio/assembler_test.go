package sio

import (
	"bytes"
	"reflect"
	"testing"
)

// The examples of the protocol text, one connection for all.
func TestAssembler(t *testing.T) {
	var a Assembler
	for _, tt := range []struct {
		text        string
		attachments [][]byte
		want        Packet
	}{
		{`0`, nil, Packet{Type: Connect, Namespace: "/"}},
		{`51-["baz",` + one + `]`, [][]byte{{1, 2, 3, 4}}, Packet{Type: Event, Namespace: "/", Attachments: 1, Data: raw(`["baz",` + one + `]`)}},
		{`52-/admin,["baz",` + one + `,` + two + `]`, [][]byte{{1, 2}, {3, 4}}, Packet{Type: Event, Namespace: "/admin", Attachments: 2, Data: raw(`["baz",` + one + `,` + two + `]`)}},
		{`2["foo"]`, nil, Packet{Type: Event, Namespace: "/", Data: raw(`["foo"]`)}},
		{`61-15["bar",` + one + `]`, [][]byte{{}}, Packet{Type: Ack, Namespace: "/", ID: 15, HasID: true, Attachments: 1, Data: raw(`["bar",` + one + `]`)}},
		{`312[]`, nil, Packet{Type: Ack, Namespace: "/", ID: 12, HasID: true, Data: raw(`[]`)}},
	} {
		buf := []byte(tt.text)
		m, ok, err := a.Text(buf)
		clear(buf)
		for i, b := range tt.attachments {
			if err != nil || ok || !a.Pending() {
				t.Fatalf("%q before attachment %d: complete %v, pending %v, %v", tt.text, i, ok, a.Pending(), err)
			}
			buf := bytes.Clone(b)
			m, ok, err = a.Binary(buf)
			clear(buf)
		}
		if err != nil || !ok || a.Pending() {
			t.Fatalf("%q: complete %v, pending %v, %v", tt.text, ok, a.Pending(), err)
		}
		if !reflect.DeepEqual(m, Message{tt.want, tt.attachments}) {
			t.Errorf("%q became %s with %v, want %s with %v", tt.text, show(m.Packet), m.Binary, show(tt.want), tt.attachments)
		}
	}
}

func TestAssemblerErrors(t *testing.T) {
	header := `52-["a",` + one + `,` + two + `]`
	for _, tt := range []struct {
		name  string
		a     Assembler
		parts []any // strings are text
		want  string
	}{
		{"bytes of no packet", Assembler{}, []any{[]byte("world")}, "expected text, got an attachment of no packet"},
		{"bytes after a packet", Assembler{}, []any{`2["a"]`, []byte("world")}, "expected text, got an attachment of no packet"},
		{"an attachment too many", Assembler{}, []any{header, b1, b1, b1}, "expected text, got an attachment of no packet"},
		{"text in place of the first", Assembler{}, []any{header, `2["hello"]`}, "expected attachment 1 of 2, got text"},
		{"text in place of the last", Assembler{}, []any{header, b1, `2["hello"]`}, "expected attachment 2 of 2, got text"},
		{"no packet", Assembler{}, []any{`9`}, "expected a packet type from 0 to 6, got '9'"},
		{"more than allowed", Assembler{MaxAttachments: 1}, []any{header}, "expected at most 1 attachments, got 2"},
		{"text too long", Assembler{MaxBytes: 5}, []any{`2["a"]`}, "expected at most 5 bytes in a packet and its attachments, got more"},
		{"attachments too long", Assembler{MaxBytes: len(header) + 5}, []any{header, b1, b1}, "expected at most 73 bytes in a packet and its attachments, got more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, part := range tt.parts {
				var err error
				switch part := part.(type) {
				case string:
					_, _, err = tt.a.Text([]byte(part))
				case []byte:
					_, _, err = tt.a.Binary(part)
				}
				last := i == len(tt.parts)-1
				if !last && err != nil || last && (err == nil || err.Error() != tt.want) {
					t.Errorf("part %d: %v, want at the end %q", i, err, tt.want)
				}
			}
		})
	}
}

// What is allowed is allowed exactly, and anew for each packet.
func TestAssemblerBounds(t *testing.T) {
	header := `51-["a",` + one + `]`
	a := Assembler{MaxAttachments: 1, MaxBytes: len(header) + 3}
	for range 3 {
		if _, ok, err := a.Text([]byte(header)); ok || err != nil {
			t.Fatalf("the text: complete %v, %v", ok, err)
		}
		if m, ok, err := a.Binary(b1); !ok || err != nil || !bytes.Equal(m.Binary[0], b1) {
			t.Fatalf("the attachment: complete %v, %v", ok, err)
		}
	}
}

func TestConnect(t *testing.T) {
	refused := func(v Version, namespace, message, data string) Packet {
		d := raw(data)
		if data == "" {
			d = nil
		}
		p, err := Refused(v, namespace, message, d)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		name string
		p    Packet
		want string
	}{
		{"granted", Granted(V5, "/", "wZX3oN0bSVIhsaknAAAI", ""), `0{"sid":"wZX3oN0bSVIhsaknAAAI"}`},
		{"granted, with recovery", Granted(V5, "/admin", "a", "b"), `0/admin,{"sid":"a","pid":"b"}`},
		{"granted, protocol 4", Granted(V4, "/", "a", "b"), `0`},
		{"granted, protocol 4, a namespace", Granted(V4, "/admin", "a", "b"), `0/admin,`},
		{"refused", refused(V5, "/", "Not authorized", ""), `4{"message":"Not authorized"}`},
		{"refused, with data", refused(V5, "/random", InvalidNamespace, `{"code":1}`), `4/random,{"message":"Invalid namespace","data":{"code":1}}`},
		{"refused, protocol 4", refused(V4, "/admin", "Not authorized", ""), `4/admin,"Not authorized"`},
		{"refused, protocol 4, with data", refused(V4, "/", "Not authorized", `{"code":1}`), `4{"code":1}`},
		{"refused, protocol 4, with null", refused(V4, "/", "Not authorized", `null`), `4"Not authorized"`},
	} {
		wire := AppendPacket(nil, tt.p)
		if string(wire) != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, wire, tt.want)
		}
		if _, err := Decode(wire); err != nil {
			t.Errorf("%s: Decode(%q): %v", tt.name, wire, err)
		}
	}
	if _, err := Refused(V5, "/", "x", raw(`{`)); err == nil {
		t.Error("Refused takes data that is no JSON")
	}
}

func TestSplitQuery(t *testing.T) {
	for in, want := range map[string][2]string{
		"/admin?token=1234&uid=abcd": {"/admin", "token=1234&uid=abcd"},
		"/?token=a?b":                {"/", "token=a?b"},
		"/admin":                     {"/admin", ""},
	} {
		if name, query := SplitQuery(in); name != want[0] || query != want[1] {
			t.Errorf("SplitQuery(%q) = %q, %q, want %q", in, name, query, want)
		}
	}
}
