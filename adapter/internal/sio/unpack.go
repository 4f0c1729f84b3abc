package sio

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// DecodeMessagePack parses a packet of the npm package
// socket.io-msgpack-parser: a single MessagePack map with type, nsp and, where
// the packet has them, data and id; other members are passed over. What it
// makes of data is what Decode and an Assembler make of the same packet from a
// client that writes JSON, so that all else need not know which one it was:
//
//   - a bin, and what the package writes for an ArrayBuffer, is an attachment
//     and in the JSON its placeholder;
//   - integers keep all of their 64 bits;
//   - NaN and the infinities are null, as JSON.stringify has them;
//   - a Date is its toISOString, and null where JavaScript has no such date;
//   - undefined is null in an array, and in an object no member at all;
//   - of members with the same name the last one counts.
//
// Other extensions, keys that are not strings, strings that are not UTF-8, and
// bytes after the packet are errors. It accepts what Decode accepts, within the
// same bounds: next to real attachments, an object that looks like a
// placeholder is an error, and so is a packet whose JSON and attachments have
// more than maxBytes (zero means no bound). The message keeps no reference to
// data.
func DecodeMessagePack(data []byte, maxBytes int) (Message, error) {
	u := unpacker{in: data, max: maxBytes}
	if maxBytes == 0 {
		u.max = math.MaxInt
	}
	t, err := u.next()
	if err != nil {
		return Message{}, err
	}
	if t.kind != packedMap {
		return Message{}, fmt.Errorf("expected a packet, which is a map, got %v", t.kind)
	}
	var p Packet
	var typed, named bool
	var payload []byte
	seen := make(map[string]bool, 4)
	for range t.n {
		key, err := u.key()
		if err != nil {
			return Message{}, err
		}
		switch string(key) {
		case "type", "nsp", "id", "data":
			if seen[string(key)] {
				return Message{}, fmt.Errorf("expected one member %q, got two", key)
			}
			seen[string(key)] = true
		}
		t, err := u.next()
		if err != nil {
			return Message{}, err
		}
		// Other clients than those in JavaScript write nil for what is not there.
		if t.kind == packedUndefined || t.kind == packedNil {
			continue
		}
		from, attached := len(u.out), len(u.attachments)
		if err := u.value(t, 0); err != nil {
			return Message{}, err
		}
		value := u.out[from:]
		switch string(key) {
		case "data":
			payload = slices.Clip(value)
			continue
		case "type":
			n, err := strconv.ParseUint(string(value), 10, 64)
			if err != nil || n > uint64(ConnectError) {
				return Message{}, fmt.Errorf("expected a packet type from 0 to 4, got %.20s", value)
			}
			p.Type, typed = Type(n), true
		case "nsp":
			if is := kind(value[0]); is != aString {
				return Message{}, fmt.Errorf("expected a namespace, which is a string, got %v", is)
			}
			p.Namespace, named = string(unquote(value)), true
			if err := CheckNamespace(p.Namespace); err != nil {
				return Message{}, err
			}
		case "id":
			if p.ID, err = strconv.ParseUint(string(value), 10, 64); err != nil {
				return Message{}, fmt.Errorf("expected an acknowledgement id, a whole number of 64 bits, got %.20s", value)
			}
			p.HasID = true
		}
		// Only data stays.
		u.out, u.attachments = u.out[:from], u.attachments[:attached]
	}
	switch {
	case len(u.in) > 0:
		return Message{}, fmt.Errorf("expected the end after the packet, got %d more bytes", len(u.in))
	case !typed:
		return Message{}, errors.New("expected a packet type, got none")
	case !named:
		return Message{}, errors.New("expected a namespace, got none")
	}
	p.Attachments = len(u.attachments)
	if err := p.check(payload); err != nil {
		return Message{}, fmt.Errorf("%v: %w", p.Type, err)
	}
	if p.Attachments > 0 && p.Type != Event && p.Type != Ack {
		return Message{}, fmt.Errorf("%v: expected no attachments, got %d", p.Type, p.Attachments)
	}
	p.Data = payload
	m := Message{Packet: p}
	if p.Attachments > 0 {
		m.Binary = u.attachments
	}
	return m, nil
}

// A packedKind is what a MessagePack value is.
type packedKind string

const (
	packedNil       packedKind = "nil"
	packedFalse     packedKind = "false"
	packedTrue      packedKind = "true"
	packedUint      packedKind = "an unsigned integer"
	packedInt       packedKind = "an integer"
	packedFloat     packedKind = "a float"
	packedString    packedKind = "a string"
	packedBytes     packedKind = "bytes"
	packedArray     packedKind = "an array"
	packedMap       packedKind = "a map"
	packedExt       packedKind = "an extension"
	packedFixExt    packedKind = "an extension of fixed length"
	packedDate      packedKind = "a date"
	packedUndefined packedKind = "undefined"
)

// packedFormats are the formats with the first bytes 0xc0 to 0xdf, in the order
// of the table in the specification, and how many bytes their number has: a
// value, or the length of what follows. That of fixext is the length itself.
var packedFormats = [32]struct {
	kind packedKind
	size int
}{
	{packedNil, 0}, {}, {packedFalse, 0}, {packedTrue, 0},
	{packedBytes, 1}, {packedBytes, 2}, {packedBytes, 4},
	{packedExt, 1}, {packedExt, 2}, {packedExt, 4},
	{packedFloat, 4}, {packedFloat, 8},
	{packedUint, 1}, {packedUint, 2}, {packedUint, 4}, {packedUint, 8},
	{packedInt, 1}, {packedInt, 2}, {packedInt, 4}, {packedInt, 8},
	{packedFixExt, 1}, {packedFixExt, 2}, {packedFixExt, 4}, {packedFixExt, 8}, {packedFixExt, 16},
	{packedString, 1}, {packedString, 2}, {packedString, 4},
	{packedArray, 2}, {packedArray, 4},
	{packedMap, 2}, {packedMap, 4},
}

// A packed is the beginning of a MessagePack value.
type packed struct {
	kind packedKind
	n    uint64 // the value, the bits of a float64, the milliseconds of a date, or a length
}

// An unpacker writes MessagePack as JSON, without anything in between.
type unpacker struct {
	in          []byte // what is left
	out         []byte // JSON
	attachments [][]byte
	bytes       int // of the attachments
	max         int // of out and attachments
}

// next reads the beginning of a value. A length is never more than what is
// there: nothing is made on the word of one that lies.
func (u *unpacker) next() (t packed, err error) {
	first, err := u.number(1)
	if err != nil {
		return packed{}, err
	}
	switch {
	case first < 0x80:
		return packed{packedUint, first}, nil
	case first < 0x90:
		t = packed{packedMap, first & 0x0f}
	case first < 0xa0:
		t = packed{packedArray, first & 0x0f}
	case first < 0xc0:
		t = packed{packedString, first & 0x1f}
	case first >= 0xe0:
		return packed{packedInt, uint64(int8(first))}, nil
	default:
		if t, err = u.format(first); err != nil {
			return packed{}, err
		}
	}
	least := t.n
	switch t.kind {
	case packedString, packedBytes, packedArray:
	case packedMap:
		least *= 2
	default:
		return t, nil
	}
	if least > uint64(len(u.in)) {
		return packed{}, fmt.Errorf("expected at least %d more bytes after the beginning of %v, got %d", least, t.kind, len(u.in))
	}
	return t, nil
}

// format reads on after a first byte from 0xc0 to 0xdf.
func (u *unpacker) format(first uint64) (t packed, err error) {
	f := packedFormats[first-0xc0]
	switch t.kind = f.kind; t.kind {
	case "":
		return packed{}, fmt.Errorf("expected a value, got the byte %#x, which begins none", first)
	case packedFixExt:
		t.n = uint64(f.size)
	default:
		if t.n, err = u.number(f.size); err != nil {
			return packed{}, err
		}
	}
	switch t.kind {
	case packedInt:
		unused := 64 - 8*f.size
		t.n = uint64(int64(t.n<<unused) >> unused)
	case packedFloat:
		if f.size == 4 {
			t.n = math.Float64bits(float64(math.Float32frombits(uint32(t.n))))
		}
	case packedExt, packedFixExt:
		return u.extension(t)
	}
	return t, nil
}

// extension reads the type of an extension. notepack.io, which the package is
// built on, writes these of type 0 and no others.
func (u *unpacker) extension(t packed) (packed, error) {
	is, err := u.number(1)
	switch {
	case err != nil:
		return packed{}, err
	case is == 0 && t.kind == packedExt: // an ArrayBuffer
		return packed{packedBytes, t.n}, nil
	case is == 0 && t.n == 1:
		_, err = u.number(1)
		return packed{packedUndefined, 0}, err
	case is == 0 && t.n == 8:
		n, err := u.number(8)
		return packed{packedDate, n}, err
	}
	return packed{}, fmt.Errorf("expected a Date, undefined or an ArrayBuffer, got an extension of type %d with %d bytes", int8(is), t.n)
}

// number reads an unsigned integer.
func (u *unpacker) number(size int) (n uint64, err error) {
	if size > len(u.in) {
		return 0, errors.New("expected more bytes, got the end")
	}
	for _, c := range u.in[:size] {
		n = n<<8 | uint64(c)
	}
	u.in = u.in[size:]
	return n, nil
}

// take returns the n bytes that next has said are there.
func (u *unpacker) take(n uint64) []byte {
	b := u.in[:n]
	u.in = u.in[n:]
	return b
}

// text returns the bytes of a string.
func (u *unpacker) text(n uint64) ([]byte, error) {
	b := u.take(n)
	if !utf8.Valid(b) {
		return nil, errors.New("expected a string in UTF-8, got other bytes")
	}
	return b, nil
}

func (u *unpacker) key() ([]byte, error) {
	t, err := u.next()
	if err != nil {
		return nil, err
	}
	if t.kind != packedString {
		return nil, fmt.Errorf("expected the key of a map to be a string, got %v", t.kind)
	}
	return u.text(t.n)
}

// value writes the value that begins with t.
func (u *unpacker) value(t packed, depth int) error {
	switch t.kind {
	case packedNil, packedUndefined:
		u.out = append(u.out, "null"...)
	case packedFalse, packedTrue:
		u.out = strconv.AppendBool(u.out, t.kind == packedTrue)
	case packedUint:
		u.out = strconv.AppendUint(u.out, t.n, 10)
	case packedInt:
		u.out = strconv.AppendInt(u.out, int64(t.n), 10)
	case packedFloat:
		u.out = appendFloat(u.out, math.Float64frombits(t.n))
	case packedDate:
		u.out = appendDate(u.out, int64(t.n))
	case packedString:
		b, err := u.text(t.n)
		if err != nil {
			return err
		}
		return u.quote(b)
	case packedBytes:
		return u.attach(u.take(t.n))
	case packedArray:
		return u.array(t.n, depth+1)
	case packedMap:
		return u.object(t.n, depth+1)
	}
	return u.bounded()
}

func (u *unpacker) array(n uint64, depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	u.out = append(u.out, '[')
	for i := range n {
		if i > 0 {
			u.out = append(u.out, ',')
		}
		t, err := u.next()
		if err != nil {
			return err
		}
		if err := u.value(t, depth); err != nil {
			return err
		}
	}
	u.out = append(u.out, ']')
	return u.bounded()
}

func (u *unpacker) object(n uint64, depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	u.out = append(u.out, '{')
	first := true
	for range n {
		key, err := u.key()
		if err != nil {
			return err
		}
		t, err := u.next()
		if err != nil {
			return err
		}
		if t.kind == packedUndefined {
			continue
		}
		if !first {
			u.out = append(u.out, ',')
		}
		first = false
		if err := u.quote(key); err != nil {
			return err
		}
		u.out = append(u.out, ':')
		if err := u.value(t, depth); err != nil {
			return err
		}
	}
	u.out = append(u.out, '}')
	return u.bounded()
}

// attach writes a placeholder for a copy of b. Two bytes become thirty, a
// thousand times at most.
func (u *unpacker) attach(b []byte) error {
	if len(u.attachments) == MaxAttachments {
		return fmt.Errorf("expected at most %d attachments, got more", MaxAttachments)
	}
	u.out = appendPlaceholder(u.out, len(u.attachments))
	u.bytes += len(b)
	if err := u.bounded(); err != nil {
		return err
	}
	// A copy of nothing is nil, but these are bytes.
	u.attachments = append(u.attachments, append([]byte{}, b...))
	return nil
}

// bounded fails if there is too much. One byte becomes at most six: false and a
// comma, or an escape. Whoever has that much to say in JSON is refused it in
// JSON too, so that memory has the same bound either way.
func (u *unpacker) bounded() error {
	if len(u.out) > u.max-u.bytes {
		return fmt.Errorf("expected at most %d bytes in a packet, as JSON, and its attachments, got more", u.max)
	}
	return nil
}

// quote writes text as JSON.stringify does: with the escapes that have to be.
func (u *unpacker) quote(text []byte) error {
	u.out = append(u.out, '"')
	from := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		u.out = append(u.out, text[from:i]...)
		u.out = appendEscape(u.out, c)
		if err := u.bounded(); err != nil {
			return err
		}
		from = i + 1
	}
	u.out = append(u.out, text[from:]...)
	u.out = append(u.out, '"')
	return u.bounded()
}

func appendEscape(dst []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
}

// appendFloat writes f as JSON.stringify does: ECMA-262, Number::toString.
func appendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, 64)
}

// appendDate writes a time in milliseconds as JSON.stringify writes a Date:
// ECMA-262, Date Time String Format.
func appendDate(dst []byte, ms int64) []byte {
	const most = 8.64e15 // 100,000,000 days, the range of a Date
	if ms < -most || ms > most {
		return append(dst, "null"...)
	}
	t := time.UnixMilli(ms).UTC()
	dst = append(dst, '"')
	if year := t.Year(); year < 0 || year > 9999 {
		dst = fmt.Appendf(dst, "%+07d", year)
	} else {
		dst = fmt.Appendf(dst, "%04d", year)
	}
	return t.AppendFormat(dst, `-01-02T15:04:05.000Z"`)
}
