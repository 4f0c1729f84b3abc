package sio

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"
)

// FuzzDecode: what is accepted comes back from its encoder as it was, and can
// be taken apart and bound without surprises.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "0", `0{"sid":"a"}`, "0/admin,", "0/random", "1/custom", `4{"message":"Not authorized"}`, `4/admin,"no"`,
		event, `2/admin,13["foo"]`, `3/admin,13["bar"]`, `2[1,"a",{}]`, `218446744073709551616["a"]`,
		`51-["baz",` + one + `]`, `52-/admin,["baz",` + one + `,` + two + `]`, `61-15["bar",` + one + `]`,
		`51-["a",{"name":"x","any":[` + one + `],"data":"AQID"}]`, `51-["a",{"data":` + one + `,"kids":[{}]}]`,
		`2["\u0063onnect"]`, `2[[[[[[`, `51-[{"_placeholder":true,"num":0,"num":1}]`, `2 [ "a" , -1.5e3 ] `,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		p, err := Decode(wire)
		if err != nil {
			return
		}
		if len(p.Data)+len(p.Namespace) > len(wire)+1 || p.Attachments > MaxAttachments {
			t.Fatalf("%q became %s", wire, show(p))
		}
		again, err := Decode(AppendPacket(nil, p))
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%s came back as %s, %v", show(p), show(again), err)
		}

		if !utf8.Valid(wire) {
			return // only Engine.IO's text comes here
		}
		attachments := make([][]byte, p.Attachments)
		for i := range attachments {
			attachments[i] = []byte{byte(i), 0xff}
		}
		args := []json.RawMessage{p.Data}
		switch p.Type {
		case Connect, Disconnect, ConnectError:
			if p.Data == nil {
				return
			}
		case Ack, BinaryAck:
			args = SplitArgs(p.Data)
		default:
			name, rest, err := SplitEvent(p.Data)
			if err != nil || Reserved(name) {
				t.Fatalf("SplitEvent(%q) = %q, %v", p.Data, name, err)
			}
			args = rest
		}
		if len(args) > MaxArgs {
			t.Fatalf("%d arguments", len(args))
		}
		var got []any
		for _, arg := range args {
			got = append(got, bind(t, arg, attachments))
		}
		if len(attachments) > 0 {
			roundTrip(t, got)
		}
	})
}

// bind decodes an argument into any. Into raw JSON and into a struct the same
// must come of it, by a different way each.
func bind(t *testing.T, arg json.RawMessage, attachments [][]byte) (v any) {
	if !json.Valid(arg) {
		t.Fatalf("the argument %q is no JSON", arg)
	}
	if err := Bind(arg, attachments, &v); err != nil {
		var plain any
		if json.Unmarshal(arg, &plain) == nil {
			t.Fatalf("Bind(%q): %v", arg, err)
		}
		return nil // a number beyond all floats
	}
	if len(attachments) > 0 && marked(v) {
		t.Fatalf("Bind(%q) left a placeholder: %v", arg, v)
	}
	var text json.RawMessage
	if err := Bind(arg, attachments, &text); err != nil {
		t.Fatalf("Bind(%q) into raw JSON: %v", arg, err)
	}
	var fromText any
	if err := json.Unmarshal(text, &fromText); err != nil {
		t.Fatalf("Bind(%q) made %q: %v", arg, text, err)
	}
	if got, want := marshal(t, v), marshal(t, fromText); got != want {
		t.Fatalf("Bind(%q) = %s, as raw JSON %s", arg, got, want)
	}
	var got, want upload
	if Bind(arg, attachments, &got) != nil {
		return v
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatalf("Bind(%q) into a struct, but not %s: %v", arg, text, err)
	}
	// They keep the text as it came, with the space in it.
	got.Raw, want.Raw, got.Shout, want.Shout = nil, nil, "", ""
	if g, w := marshal(t, got), marshal(t, want); g != w {
		t.Fatalf("Bind(%q) = %s, want %s", arg, g, w)
	}
	return v
}

func marshal(t *testing.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%v: %v", v, err)
	}
	return string(b)
}

// marked reports whether a placeholder is left in v.
func marked(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if marked(x) {
				return true
			}
		}
	case map[string]any:
		if v["_placeholder"] == true {
			return true
		}
		for _, x := range v {
			if marked(x) {
				return true
			}
		}
	}
	return false
}

// roundTrip sends values the other way.
func roundTrip(t *testing.T, args []any) {
	data, attachments, err := EncodeArgs(args...)
	if err != nil {
		t.Fatalf("EncodeArgs(%v): %v", args, err)
	}
	split := SplitArgs(data)
	if len(split) != len(args) {
		t.Fatalf("%v became %s", args, data)
	}
	for i, want := range args {
		var got any
		if err := Bind(split[i], attachments, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v came back as %v, %v", want, got, err)
		}
	}
}
