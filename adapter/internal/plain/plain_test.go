package plain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecode(t *testing.T) {
	long := strings.Repeat("x", MaxType)
	for _, tt := range []struct {
		name, in string
		want     Message
	}{
		{"an event", `{"type":"chat message","data":{"text":"hi"},"id":7}`, Message{Type: "chat message", ID: raw(`7`), Data: raw(`{"text":"hi"}`)}},
		{"without an id", `{"type":"typing","data":true}`, Message{Type: "typing", Data: raw(`true`)}},
		{"without data", `{"type":"leave"}`, Message{Type: "leave"}},
		{"an id that is a string", `{"type":"leave","id":"a-1"}`, Message{Type: "leave", ID: raw(`"a-1"`)}},
		{"an id kept as it came", `{"type":"leave","id":-1.50e+3}`, Message{Type: "leave", ID: raw(`-1.50e+3`)}},
		{"an id beyond all integers", `{"type":"leave","id":12345678901234567890123}`, Message{Type: "leave", ID: raw(`12345678901234567890123`)}},
		{"the id 0", `{"type":"leave","id":0}`, Message{Type: "leave", ID: raw(`0`)}},
		{"the id null", `{"type":"leave","id":null}`, Message{Type: "leave"}},
		{"the data null", `{"type":"leave","data":null}`, Message{Type: "leave", Data: raw(`null`)}},
		{"data kept as it came", `{"type":"t","data": [1, 2.0,"\u00e9"] }`, Message{Type: "t", Data: raw(`[1, 2.0,"\u00e9"]`)}},
		{"a reply", `{"type":"reply","id":3,"data":"ok"}`, Message{Type: "reply", ID: raw(`3`), Data: raw(`"ok"`)}},
		{"a reply with an error", `{"type":"reply","id":3,"error":{"code":"x"}}`, Message{Type: "reply", ID: raw(`3`), Error: raw(`{"code":"x"}`)}},
		{"unknown members", `{"v":2,"type":"t","extra":[{}]}`, Message{Type: "t"}},
		{"escapes", `{"type":"gr\u00fc\u00df\n\ud83d\ude00"}`, Message{Type: "grüß\n😀"}},
		{"UTF-8", `{"type":"grüß 😀"}`, Message{Type: "grüß 😀"}},
		{"space around", " \n{\"type\":\"t\"}\t", Message{Type: "t"}},
		{"the longest type", `{"type":"` + long + `"}`, Message{Type: long}},
		{"the longest id", `{"type":"t","id":"` + long[:MaxID-2] + `"}`, Message{Type: "t", ID: raw(`"` + long[:MaxID-2] + `"`)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frame := []byte(tt.in)
			got, err := Decode(frame)
			if err != nil {
				t.Fatalf("Decode(%q): %v", tt.in, err)
			}
			// The engine reuses the frame's memory for the next message.
			for i := range frame {
				frame[i] = '#'
			}
			if show(got) != show(tt.want) {
				t.Errorf("Decode(%q) = %s, want %s", tt.in, show(got), show(tt.want))
			}
		})
	}
}

func raw(s string) json.RawMessage { return json.RawMessage(s) }

func show(m Message) string {
	return fmt.Sprintf("type %q id %q (%v) data %q (%v) error %q (%v)", m.Type, m.ID, m.ID == nil, m.Data, m.Data == nil, m.Error, m.Error == nil)
}

// The sentences are what the developer of a client reads.
func TestDecodeErrors(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		id       string // that the message has all the same
		want     string
	}{
		{"nothing", ``, "", `expected a JSON object {"type":…,"data":…}: unexpected end of JSON input`},
		{"no JSON", `hello`, "", `expected a JSON object {"type":…,"data":…}: invalid character 'h' looking for beginning of value`},
		{"cut off", `{"type":"t"`, "", `expected a JSON object {"type":…,"data":…}: unexpected end of JSON input`},
		{"two objects", `{"type":"t"}{}`, "", `expected a JSON object {"type":…,"data":…}: invalid character '{' after top-level value`},
		{"not UTF-8", "{\"type\":\"\xff\"}", "", `expected UTF-8 text, got other bytes`},
		{"an array", ` ["chat message",{}]`, "", `expected an object {"type":…,"data":…}, got an array`},
		{"a string", `"chat message"`, "", `expected an object {"type":…,"data":…}, got a string`},
		{"a number", `42`, "", `expected an object {"type":…,"data":…}, got a number`},
		{"a negative number", `-1`, "", `expected an object {"type":…,"data":…}, got a number`},
		{"a boolean", `true`, "", `expected an object {"type":…,"data":…}, got a boolean`},
		{"null", ` null `, "", `expected an object {"type":…,"data":…}, got null`},
		{"no type", `{"data":1,"id":7}`, "7", `expected "type", the name of the event, got none`},
		{"an empty object", `{}`, "", `expected "type", the name of the event, got none`},
		{"a type that is null", `{"type":null,"id":7}`, "7", `expected "type" to be a string, got null`},
		{"a type that is a number", `{"type":1,"id":"a"}`, `"a"`, `expected "type" to be a string, got a number`},
		{"a type that is an object", `{"type":{"type":"t"}}`, "", `expected "type" to be a string, got an object`},
		{"a type that is an array", `{"type":["t"]}`, "", `expected "type" to be a string, got an array`},
		{"a type that is a boolean", `{"type":false}`, "", `expected "type" to be a string, got a boolean`},
		{"an empty type", `{"type":"","id":7}`, "7", `expected "type" of 1 to 256 bytes, got 0`},
		{"a long type", `{"type":"` + strings.Repeat("x", 257) + `","id":7}`, "7", `expected "type" of 1 to 256 bytes, got 257`},
		{"a type that is long in bytes", `{"type":"` + strings.Repeat("é", 129) + `"}`, "", `expected "type" of 1 to 256 bytes, got 258`},
		{"an id that is an object", `{"type":"t","id":{}}`, "", `expected "id" to be a number or a string, got an object`},
		{"an id that is an array", `{"type":"t","id":[7]}`, "", `expected "id" to be a number or a string, got an array`},
		{"an id that is a boolean", `{"type":"t","id":true}`, "", `expected "id" to be a number or a string, got a boolean`},
		{"a long id", `{"type":"t","id":"` + strings.Repeat("x", 63) + `"}`, "", `expected "id" of at most 64 bytes, got 65`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Decode([]byte(tt.in))
			if err == nil || err.Error() != tt.want {
				t.Errorf("Decode(%q): %v, want %s", tt.in, err, tt.want)
			}
			if string(m.ID) != tt.id {
				t.Errorf("Decode(%q) has the id %q, want %q", tt.in, m.ID, tt.id)
			}
			if m.Type != "" || m.Data != nil || m.Error != nil {
				t.Errorf("Decode(%q) = %s, want nothing but the id", tt.in, show(m))
			}
		})
	}
}

// Nested as deep as a frame of 1 MB allows, and still an error and no more.
func TestDecodeDeep(t *testing.T) {
	in := `{"type":"t","data":` + strings.Repeat("[", 1<<20)
	if _, err := Decode([]byte(in)); err == nil || !strings.Contains(err.Error(), "exceeded max depth") {
		t.Errorf("Decode = %v, want an error about the depth", err)
	}
}

func TestReserved(t *testing.T) {
	for event, want := range map[string]bool{"connect": true, "reply": true, "error": true, "Connect": false, "chat message": false, "": false} {
		if got := Reserved(event); got != want {
			t.Errorf("Reserved(%q) = %v, want %v", event, got, want)
		}
	}
}

func TestAppend(t *testing.T) {
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"event", AppendEvent(nil, "chat message", raw(`{"a":1}`), nil), `{"type":"chat message","data":{"a":1}}`},
		{"event that wants an answer", AppendEvent(nil, "ask", raw(`1`), raw(`7`)), `{"type":"ask","id":7,"data":1}`},
		{"event without data", AppendEvent(nil, "ping", nil, nil), `{"type":"ping"}`},
		{"event with a name to be quoted", AppendEvent(nil, "a\"b\\c\n", nil, nil), `{"type":"a\"b\\c\n"}`},
		{"event with a name in German", AppendEvent(nil, "grüß", raw(`null`), nil), `{"type":"grüß","data":null}`},
		{"connect", AppendEvent(nil, Connect, raw(`{"sid":"x"}`), nil), `{"type":"connect","data":{"sid":"x"}}`},
		{"behind other bytes", AppendEvent([]byte("0123456789"), "t", nil, nil), `0123456789{"type":"t"}`},
		{"reply", AppendReply(nil, raw(`7`), raw(`{"ok":true}`)), `{"type":"reply","id":7,"data":{"ok":true}}`},
		{"reply without data", AppendReply(nil, raw(`"a"`), nil), `{"type":"reply","id":"a"}`},
		{"error as the answer", AppendError(nil, raw(`7`), "chat message", raw(`{"code":"x"}`)), `{"type":"reply","id":7,"error":{"code":"x"}}`},
		{"error about an event", AppendError(nil, nil, "chat message", raw(`{"code":"x"}`)), `{"type":"error","event":"chat message","error":{"code":"x"}}`},
		{"error about an event to be quoted", AppendError(nil, nil, `"`, raw(`{}`)), `{"type":"error","event":"\"","error":{}}`},
		{"error about nothing known", AppendError(nil, nil, "", raw(`{"code":"x"}`)), `{"type":"error","error":{"code":"x"}}`},
	} {
		if string(tt.got) != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, tt.got, tt.want)
		}
	}
}

// Names of events are the app's, and whatever they are, the frame is JSON.
func TestAppendAnyName(t *testing.T) {
	for r := rune(0); r < 0x300; r++ {
		name := string(r) + "x"
		var got struct{ Type string }
		frame := AppendEvent(nil, name, nil, nil)
		if err := json.Unmarshal(frame, &got); err != nil || got.Type != name {
			t.Errorf("AppendEvent(%q) = %s, which is %q, %v", name, frame, got.Type, err)
		}
	}
	if frame := AppendEvent(nil, "\xff", nil, nil); !json.Valid(frame) || !utf8.Valid(frame) {
		t.Errorf("AppendEvent with a name that is no UTF-8 = %q, want JSON", frame)
	}
}

// What was decoded and is encoded again is the same message.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"type":"chat message","data":{"text":"hi"},"id":7}`,
		`{"type":"reply","id":"a","error":{"code":"x","message":"y"}}`,
		`{"type":"\ud800","data":[1,2.0,"\u00e9",null]}`,
		`{"type":"t","type":"u","ID":1,"id":null}`,
		`{"type":"<&>\u2028","data":null}`,
		` [1] `, `null`, `{}`, `{"id":{}}`, "\xff", `"`, `{"type":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		m, err := Decode(frame)
		if !bytes.Equal(frame, before) {
			t.Fatal("Decode wrote to the frame")
		}
		if len(m.ID) > MaxID || len(m.Type) > MaxType || len(m.Data) > len(frame) || len(m.Error) > len(frame) {
			t.Fatalf("Decode(%q) = %s: beyond all bounds", frame, show(m))
		}
		if m.ID != nil && !json.Valid(AppendError(nil, m.ID, m.Type, []byte(`{}`))) {
			t.Fatalf("the error that answers %q is not JSON", frame)
		}
		if err != nil {
			if m.Type != "" || m.Data != nil || m.Error != nil {
				t.Fatalf("Decode(%q) = %s with %v, want nothing but the id", frame, show(m), err)
			}
			return
		}
		again := AppendEvent(nil, m.Type, m.Data, m.ID)
		if m.Error != nil {
			again = append(again[:len(again)-1], `,"error":`...)
			again = append(append(again, m.Error...), '}')
		}
		got, err := Decode(again)
		if err != nil || show(got) != show(m) {
			t.Fatalf("Decode(%q) = %s; encoded as %q it is %s, %v", frame, show(m), again, show(got), err)
		}
	})
}
