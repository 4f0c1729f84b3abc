package eio

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHandshake(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   Handshake
		want string
	}{
		{"of the protocol text", Handshake{"lv_VI97HAXpY6yYWAAAC", []string{"websocket"}, 25 * time.Second, 20 * time.Second, 1000000},
			`0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}`},
		// The client reads the length of upgrades: null is an exception there.
		{"without upgrades", Handshake{"a", nil, 300 * time.Millisecond, 200 * time.Millisecond, 1000},
			`0{"sid":"a","upgrades":[],"pingInterval":300,"pingTimeout":200,"maxPayload":1000}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := AppendText(nil, V4, tt.in.Packet()); string(got) != tt.want {
				t.Errorf("the handshake is %s, want %s", got, tt.want)
			}
		})
	}
}

func TestError(t *testing.T) {
	for _, tt := range []struct {
		in     *Error
		status int
		want   string
	}{
		{ErrTransport, 400, `{"code":0,"message":"Transport unknown"}`},
		{ErrSession, 400, `{"code":1,"message":"Session ID unknown"}`},
		{ErrMethod, 400, `{"code":2,"message":"Bad handshake method"}`},
		{ErrRequest, 400, `{"code":3,"message":"Bad request"}`},
		{ErrForbidden, 403, `{"code":4,"message":"Forbidden"}`},
		{ErrVersion, 400, `{"code":5,"message":"Unsupported protocol version"}`},
		{&Error{ErrForbidden.Code, "not \"you\""}, 403, `{"code":4,"message":"not \"you\""}`},
	} {
		if !strings.Contains(tt.want, strings.Trim(strconv.Quote(tt.in.Error()), `"`)) {
			t.Errorf("the error is %q, the body %s", tt.in, tt.want)
		}
		if got := tt.in.JSON(); string(got) != tt.want || tt.in.Status() != tt.status {
			t.Errorf("%v is %d %s, want %d %s", tt.in, tt.in.Status(), got, tt.status, tt.want)
		}
	}
}
