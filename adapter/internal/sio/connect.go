package sio

import (
	"encoding/json"
	"strings"
)

// A Version is a revision of the protocol. It follows from that of Engine.IO:
// EIO=3 carries protocol 4 and EIO=4 protocol 5.
//
// Protocol 4 is how socket.io-client 1 and 2 speak. Its packets are those of
// protocol 5, and these are the differences: the server connects each client to
// "/" unasked, before anything else; CONNECT has no payload, and a client's
// query comes with the namespace instead; the payload of an error is anything,
// as a rule a string.
type Version int

// The protocols of socket.io-client 1 and 2, and of 3 and 4.
const (
	V4 Version = 4
	V5 Version = 5
)

// Granted returns the packet that grants a namespace. sid is the id of the
// socket; pid is the secret with which it can be recovered and may be empty. A
// client of protocol 4 learns neither.
func Granted(v Version, namespace, sid, pid string) Packet {
	p := Packet{Type: Connect, Namespace: namespace}
	if v == V4 {
		return p
	}
	// Strings always marshal.
	p.Data, _ = json.Marshal(struct {
		SID string `json:"sid"`
		PID string `json:"pid,omitempty"`
	}{sid, pid})
	return p
}

// InvalidNamespace is the message of a refusal that all servers send.
const InvalidNamespace = "Invalid namespace"

// Refused returns the packet that refuses a namespace. data is JSON and may be
// nil. A client of protocol 4 gets the data, or if there is none the message.
func Refused(v Version, namespace, message string, data json.RawMessage) (Packet, error) {
	var payload any = struct {
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data,omitempty"`
	}{message, data}
	switch {
	case v == V4 && data != nil && string(data) != "null":
		payload = data
	case v == V4:
		payload = message
	}
	b, err := json.Marshal(payload)
	return Packet{Type: ConnectError, Namespace: namespace, Data: b}, err
}

// SplitQuery splits the namespace of a packet of protocol 4 into its name and
// the query that the client put there, which is what it has for a payload.
func SplitQuery(namespace string) (name, query string) {
	name, query, _ = strings.Cut(namespace, "?")
	return name, query
}
