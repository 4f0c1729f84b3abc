// Package plain is the JSON format of plain WebSockets: pure functions between
// bytes and messages.
//
// A client sends {"type":"chat message","data":…,"id":7}; the answer is
// {"type":"reply","id":7,"data":…} or {"type":"reply","id":7,"error":{…}}. The
// server sends {"type":…,"data":…}, with an id where it wants an answer.
package plain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Types that belong to the format itself. An app's events cannot have these
// names.
const (
	Connect = "connect" // server: the connection is ready; data is {"sid":…}
	Reply   = "reply"   // the answer to the message with the same id
	Error   = "error"   // server: something that came was wrong and had no id
)

// MaxType and MaxID bound, in bytes, what is kept of a message before anybody
// has looked at it.
const (
	MaxType = 256
	MaxID   = 64
)

// A Message is one frame from a client.
type Message struct {
	Type  string
	ID    json.RawMessage // a JSON string or number as it came; nil where no answer is wanted
	Data  json.RawMessage // nil where there is none
	Error json.RawMessage // of a reply
	Token json.RawMessage // of a message that authenticates
}

// Reserved reports whether an event name belongs to the format.
func Reserved(event string) bool { return event == Connect || event == Reply || event == Error }

// Decode parses one text frame. The message keeps no reference to frame. Its
// errors are sentences for the client's developer. When the id could be read it
// is in the message even if the rest is wrong, and nothing else is.
func Decode(frame []byte) (Message, error) {
	if !utf8.Valid(frame) {
		return Message{}, errors.New("expected UTF-8 text, got other bytes")
	}
	var in struct {
		Type  json.RawMessage `json:"type"`
		ID    json.RawMessage `json:"id"`
		Data  json.RawMessage `json:"data"`
		Error json.RawMessage `json:"error"`
		Token json.RawMessage `json:"token"`
	}
	err := json.Unmarshal(frame, &in)
	// Null is no error to package json: it leaves the struct as it is.
	if v := bytes.TrimSpace(frame); err == nil && v[0] != '{' || isTypeError(err) {
		return Message{}, fmt.Errorf(`expected an object {"type":…,"data":…}, got %s`, kind(v))
	}
	if err != nil {
		return Message{}, fmt.Errorf(`expected a JSON object {"type":…,"data":…}: %v`, err)
	}
	var m Message
	if in.ID != nil && string(in.ID) != "null" {
		if k := kind(in.ID); k != "a string" && k != "a number" {
			return m, fmt.Errorf(`expected "id" to be a number or a string, got %s`, k)
		}
		if len(in.ID) > MaxID {
			return m, fmt.Errorf(`expected "id" of at most %d bytes, got %d`, MaxID, len(in.ID))
		}
		m.ID = in.ID
	}
	if in.Type == nil {
		return m, errors.New(`expected "type", the name of the event, got none`)
	}
	if k := kind(in.Type); k != "a string" {
		return m, fmt.Errorf(`expected "type" to be a string, got %s`, k)
	}
	var event string
	if err := json.Unmarshal(in.Type, &event); err != nil {
		return m, fmt.Errorf(`expected "type" to be a string: %v`, err)
	}
	if event == "" || len(event) > MaxType {
		return m, fmt.Errorf(`expected "type" of 1 to %d bytes, got %d`, MaxType, len(event))
	}
	m.Type, m.Data, m.Error, m.Token = event, in.Data, in.Error, in.Token
	return m, nil
}

func isTypeError(err error) bool {
	_, ok := errors.AsType[*json.UnmarshalTypeError](err)
	return ok
}

// kind names the JSON type of a value for an error message.
func kind(v []byte) string {
	if len(v) == 0 {
		return "nothing"
	}
	switch v[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// AppendEvent appends {"type":event,"data":data,"id":id}; data and id are JSON
// and left out when nil.
func AppendEvent(dst []byte, event string, data, id []byte) []byte {
	dst = append(dst, `{"type":`...)
	dst = appendString(dst, event)
	return appendRest(dst, data, id)
}

// AppendReply appends the answer to the message with the given id.
func AppendReply(dst []byte, id, data []byte) []byte {
	dst = append(dst, `{"type":"reply"`...)
	return appendRest(dst, data, id)
}

// AppendError appends an error as the answer to id, or, without an id, as a
// frame of type "error" that names the event it is about, if any.
func AppendError(dst []byte, id []byte, event string, err []byte) []byte {
	if id != nil {
		dst = append(dst, `{"type":"reply","id":`...)
		dst = append(dst, id...)
	} else {
		dst = append(dst, `{"type":"error"`...)
		if event != "" {
			dst = append(dst, `,"event":`...)
			dst = appendString(dst, event)
		}
	}
	dst = append(dst, `,"error":`...)
	dst = append(dst, err...)
	return append(dst, '}')
}

func appendRest(dst, data, id []byte) []byte {
	if id != nil {
		dst = append(dst, `,"id":`...)
		dst = append(dst, id...)
	}
	if data != nil {
		dst = append(dst, `,"data":`...)
		dst = append(dst, data...)
	}
	return append(dst, '}')
}

// appendString quotes s as JSON. Names of events are almost always plain
// ASCII, which needs no encoder.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			q, _ := json.Marshal(s) // a string always marshals
			return append(dst, q...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
