package sio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// The functions of this file find their way in JSON without decoding it. All
// but validate take JSON that is valid.

// A valueKind is what a JSON value is, which its first byte tells.
type valueKind string

const (
	anObject valueKind = "an object"
	anArray  valueKind = "an array"
	aString  valueKind = "a string"
	aBoolean valueKind = "a boolean"
	aNull    valueKind = "null"
	aNumber  valueKind = "a number"
	nothing  valueKind = "nothing" // the end of an array or object
)

func kind(c byte) valueKind {
	switch c {
	case '{':
		return anObject
	case '[':
		return anArray
	case '"':
		return aString
	case 't', 'f':
		return aBoolean
	case 'n':
		return aNull
	case ']', '}':
		return nothing
	}
	return aNumber
}

var errDepth = fmt.Errorf("expected arrays and objects to nest at most %d deep, got more", MaxDepth)

// validate says what is wrong with data as the payload of a packet, if
// anything.
func validate(data []byte) error {
	depth, commas := 0, 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = skipString(data, i) - 1
		case '[', '{':
			if depth++; depth > MaxDepth {
				return errDepth
			}
		case ']', '}':
			depth--
		case ',':
			if depth == 1 {
				commas++
			}
		}
	}
	if !json.Valid(data) {
		return errors.New("expected valid JSON")
	}
	if commas >= MaxArgs && data[skipSpace(data, 0)] == '[' {
		return fmt.Errorf("expected at most %d arguments, got %d", MaxArgs, commas+1)
	}
	return nil
}

func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\t' || data[i] == '\n' || data[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the index after the string that begins at data[i]. Where
// it does not end it returns the end of data.
func skipString(data []byte, i int) int {
	for i++; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(data)
}

// skipValue returns the index after the value that begins at data[i].
func skipValue(data []byte, i int) int {
	depth := 0
	for i < len(data) {
		switch data[i] {
		case '"':
			if i = skipString(data, i); depth == 0 {
				return i
			}
			continue
		case '[', '{':
			depth++
		case ']', '}':
			if depth == 0 {
				return i // after a number or a word
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// unquote decodes a string, in place where it has no escapes.
func unquote(quoted []byte) []byte {
	if inner := quoted[1 : len(quoted)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is valid
	return []byte(s)
}

// elements calls f with the index of each element of the array that begins at
// data[i]. f returns the index after the element: nothing is read twice, however
// deep the array. elements returns the index after the array.
func elements(data []byte, i int, f func(at int) (next int, err error)) (next int, err error) {
	for i = skipSpace(data, i+1); data[i] != ']'; {
		if i, err = f(i); err != nil {
			return 0, err
		}
		if i = skipSpace(data, i); data[i] == ',' {
			i = skipSpace(data, i+1)
		}
	}
	return i + 1, nil
}

// members calls f with each key of the object that begins at data[i] and the
// index of its value. f returns the index after the value. The object may turn
// out to be a placeholder, in which case its number is returned, else -1.
// Placeholders have no other members, and a number below attachments. Without
// attachments nothing is one.
func members(data []byte, i, attachments int, f func(key string, at int) (next int, err error)) (next, num int, err error) {
	marked, count := false, 0
	var value []byte
	for i = skipSpace(data, i+1); data[i] != '}'; count++ {
		next := skipString(data, i)
		key := string(unquote(data[i:next]))
		at := skipSpace(data, skipSpace(data, next)+1) // after the colon
		if i, err = f(key, at); err != nil {
			return 0, -1, err
		}
		switch key {
		case "_placeholder":
			marked = data[at] == 't' // of several the last one counts, as in JavaScript
		case "num":
			value = data[at:i]
		}
		if i = skipSpace(data, i); data[i] == ',' {
			i = skipSpace(data, i+1)
		}
	}
	if !marked || attachments == 0 {
		return i + 1, -1, nil
	}
	if count != 2 || value == nil {
		return 0, -1, errors.New(`expected a placeholder to be {"_placeholder":true,"num":…}, got other members`)
	}
	if num, err = strconv.Atoi(string(value)); err != nil || num < 0 || num >= attachments {
		return 0, -1, fmt.Errorf(`expected "num" of a placeholder to be a whole number below %d, the number of attachments, got %.20s`, attachments, value)
	}
	return i + 1, num, nil
}

// checkPlaceholders makes sure that every attachment has one placeholder in
// data, and no placeholder is without one.
func checkPlaceholders(data []byte, attachments int) error {
	seen := make([]bool, attachments)
	var walk func(i int) (int, error)
	walk = func(i int) (int, error) {
		switch data[i] {
		case '[':
			return elements(data, i, walk)
		case '{':
			next, num, err := members(data, i, attachments, func(_ string, at int) (int, error) { return walk(at) })
			if err != nil || num < 0 {
				return next, err
			}
			return next, claim(seen, num)
		}
		return skipValue(data, i), nil
	}
	if _, err := walk(skipSpace(data, 0)); err != nil {
		return err
	}
	for num, ok := range seen {
		if !ok {
			return fmt.Errorf("expected one placeholder for each attachment, got none for number %d", num)
		}
	}
	return nil
}

// claim takes an attachment, which only one placeholder may do: a packet whose
// thousand placeholders stood for one big attachment would grow beyond bounds.
func claim(seen []bool, num int) error {
	if seen[num] {
		return fmt.Errorf("expected one placeholder for each attachment, got two for number %d", num)
	}
	seen[num] = true
	return nil
}
