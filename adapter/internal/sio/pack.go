package sio

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
)

// AppendMessagePack appends a packet as the npm package
// socket.io-msgpack-parser reads it: all in one, with the attachments as bin
// where their placeholders are. Data is valid JSON; with attachments it is what
// EncodeArgs made, and what is no such placeholder is an error. Without
// attachments nothing is a placeholder.
//
// Whole numbers of up to 64 bits stay exact. All others are what JSON.parse
// makes of them, a float64: beyond its range they are infinite.
func AppendMessagePack(dst []byte, p Packet, attachments [][]byte) ([]byte, error) {
	members := 2
	if p.HasID {
		members++
	}
	if p.Data != nil {
		members++
	}
	dst = append(dst, 0x80|byte(members))
	dst = appendPackedString(dst, "type")
	dst = append(dst, byte(p.Type))
	dst = appendPackedString(dst, "nsp")
	if p.Namespace == "" {
		p.Namespace = "/"
	}
	dst = appendPackedString(dst, p.Namespace)
	if p.HasID {
		dst = appendPackedString(dst, "id")
		dst = appendPackedUint(dst, p.ID)
	}
	if p.Data == nil {
		return dst, nil
	}
	dst = appendPackedString(dst, "data")
	k := packer{data: p.Data, out: dst, attachments: attachments}
	_, err := k.value(skipSpace(p.Data, 0))
	return k.out, err
}

// A packer writes JSON as MessagePack.
type packer struct {
	data        []byte
	out         []byte
	attachments [][]byte
}

// value writes the value at data[i] and returns the index after it. It descends
// no deeper than package json did, which has made or checked the data.
func (k *packer) value(i int) (int, error) {
	switch kind(k.data[i]) {
	case anArray:
		return k.array(i)
	case anObject:
		return k.object(i)
	case aString:
		next := skipString(k.data, i)
		k.out = appendPackedString(k.out, string(unquote(k.data[i:next])))
		return next, nil
	}
	next := skipValue(k.data, i)
	switch k.data[i] {
	case 'n':
		k.out = append(k.out, 0xc0)
	case 'f':
		k.out = append(k.out, 0xc2)
	case 't':
		k.out = append(k.out, 0xc3)
	default:
		k.out = appendPackedNumber(k.out, k.data[i:next])
	}
	return next, nil
}

func (k *packer) array(i int) (int, error) {
	head, n := k.begin(), 0
	next, err := elements(k.data, i, func(at int) (int, error) {
		n++
		return k.value(at)
	})
	k.end(head, n, 0x90, 0xdc)
	return next, err
}

func (k *packer) object(i int) (int, error) {
	head, n := k.begin(), 0
	next, num, err := members(k.data, i, len(k.attachments), func(key string, at int) (int, error) {
		n++
		k.out = appendPackedString(k.out, key)
		return k.value(at)
	})
	if err != nil || num < 0 {
		k.end(head, n, 0x80, 0xde)
		return next, err
	}
	b := k.attachments[num]
	k.out = appendPackedLength(k.out[:head], len(b), 0xc4, 0xc5, 0xc6)
	k.out = append(k.out, b...)
	return next, nil
}

// begin makes room for the beginning of a short array or map.
func (k *packer) begin() int {
	k.out = append(k.out, 0)
	return len(k.out) - 1
}

// end writes the beginning, now that it is known how many elements there are.
func (k *packer) end(head, n int, short, long byte) {
	if n < 16 {
		k.out[head] = short | byte(n)
		return
	}
	var b [5]byte
	k.out = slices.Replace(k.out, head, head+1, appendPackedLength(b[:0], n, 0, long, long+1)...)
}

// appendPackedLength writes the first byte of a format whose length has 1, 2 or
// 4 bytes, and the length. Where there is no format for the first, it is 0.
func appendPackedLength(dst []byte, n int, one, two, four byte) []byte {
	switch {
	case n < 1<<8 && one != 0:
		return append(dst, one, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, two), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, four), uint32(n))
}

// appendPackedString writes a string. What is not UTF-8 in it becomes U+FFFD, as
// with package json.
func appendPackedString(dst []byte, s string) []byte {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) < 32 {
		dst = append(dst, 0xa0|byte(len(s)))
	} else {
		dst = appendPackedLength(dst, len(s), 0xd9, 0xda, 0xdb)
	}
	return append(dst, s...)
}

func appendPackedNumber(dst, number []byte) []byte {
	s := string(number)
	if !bytes.ContainsAny(number, ".eE") {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return appendPackedUint(dst, n)
		}
		// There is a float -0, and no integer.
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && n != 0 {
			return appendPackedNegative(dst, n)
		}
	}
	f, _ := strconv.ParseFloat(s, 64) // infinite where it says that it is out of range
	return binary.BigEndian.AppendUint64(append(dst, 0xcb), math.Float64bits(f))
}

func appendPackedUint(dst []byte, n uint64) []byte {
	switch {
	case n < 1<<7:
		return append(dst, byte(n))
	case n < 1<<8:
		return append(dst, 0xcc, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 0xcd), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xcf), n)
}

func appendPackedNegative(dst []byte, n int64) []byte {
	switch {
	case n >= -32:
		return append(dst, byte(n))
	case n >= math.MinInt8:
		return append(dst, 0xd0, byte(n))
	case n >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, 0xd1), uint16(n))
	case n >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, 0xd2), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(n))
}
