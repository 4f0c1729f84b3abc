package eio

import (
	"encoding/json"
	"net/http"
)

// An Error is a refused request as the protocol tells it: the JSON body
// {"code":…,"message":…}. Clients show the message.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// The errors of the protocol. ErrForbidden may be answered with a message of
// one's own: Error{ErrForbidden.Code, "…"}.
var (
	ErrTransport = &Error{0, "Transport unknown"}            // the query parameter transport is none we have
	ErrSession   = &Error{1, "Session ID unknown"}           // the query parameter sid is of no open session
	ErrMethod    = &Error{2, "Bad handshake method"}         // a handshake that is no GET
	ErrRequest   = &Error{3, "Bad request"}                  // all else, such as a sid on the wrong transport
	ErrForbidden = &Error{4, "Forbidden"}                    // the server does not want this client
	ErrVersion   = &Error{5, "Unsupported protocol version"} // the query parameter EIO is none we speak
)

func (e *Error) Error() string { return e.Message }

// Status is the HTTP status that goes with the error.
func (e *Error) Status() int {
	if e.Code == ErrForbidden.Code {
		return http.StatusForbidden
	}
	return http.StatusBadRequest
}

// JSON returns the body of the answer, which is application/json.
func (e *Error) JSON() []byte {
	body, _ := json.Marshal(e) // a number and a string always marshal
	return body
}
