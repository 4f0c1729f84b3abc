package eio

import (
	"encoding/json"
	"time"
)

// A Handshake is what the server tells in its first packet.
type Handshake struct {
	SID          string        // of the session; secret
	Upgrades     []string      // the transports that the client can move to
	PingInterval time.Duration // between two pings
	PingTimeout  time.Duration // until the answer to a ping is missed
	MaxPayload   int           // bytes the client may send at once
}

// Packet returns the Open packet. Durations are told in whole milliseconds.
func (h Handshake) Packet() Packet {
	upgrades := h.Upgrades
	if upgrades == nil {
		upgrades = []string{} // the client reads its length: null would throw there
	}
	// Strings and numbers always marshal.
	data, _ := json.Marshal(struct {
		SID          string   `json:"sid"`
		Upgrades     []string `json:"upgrades"`
		PingInterval int64    `json:"pingInterval"`
		PingTimeout  int64    `json:"pingTimeout"`
		MaxPayload   int      `json:"maxPayload"`
	}{h.SID, upgrades, h.PingInterval.Milliseconds(), h.PingTimeout.Milliseconds(), h.MaxPayload})
	return Packet{Type: Open, Data: data}
}
