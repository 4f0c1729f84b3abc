package adapter

import (
	"net/http"

	"github.com/gin-usher/usher/adapter/internal/engine"
)

// Reason says why a socket ended: the cause of its context, and what
// OnDisconnect gets. Where Socket.IO has a word, it is that word.
type Reason string

// Reasons a socket ends for.
const (
	ReasonClient         Reason = "client namespace disconnect"   // the client said goodbye
	ReasonServer         Reason = "server namespace disconnect"   // Socket.Disconnect
	ReasonTransportClose Reason = engine.ReasonTransportClose     // the connection was closed
	ReasonTransportError Reason = engine.ReasonTransportError     // the connection broke
	ReasonPingTimeout    Reason = engine.ReasonPingTimeout        // no sign of life in time
	ReasonSlow           Reason = engine.ReasonSlow               // read too slowly what was sent
	ReasonTooLarge       Reason = engine.ReasonTooLarge           // sent more than Config.MaxPayload in a message
	ReasonParse          Reason = "parse error"                   // sent too many frames that make no sense
	ReasonShutdown       Reason = "server shutting down"          // Server.Shutdown
	ReasonRefused        Reason = "refused"                       // OnConnect or a guard said no
	ReasonUnauthorized   Reason = "unauthenticated"               // the chain names nobody any more
	ReasonForbidden      Reason = "forbidden"                     // the chain, or a guard of the namespace, refuses now
	ReasonSessionEnded   Reason = "session ended"                 // logout, or another user on the same session
	ReasonAuthTimeout    Reason = "authentication timeout"        // no credential in time
	ReasonRevoked        Reason = "revoked"                       // Server.Revoke
	ReasonExpired        Reason = "credential expired"            // Identity.Expires has passed, or the session has expired in its store
	ReasonStale          Reason = "identity could not be checked" // for longer than Config.MaxStale, or by a guard that failed when it had changed
)

// Error makes a Reason usable as the cause of a context. It is the word itself,
// which is also what printing a Reason gives.
func (r Reason) Error() string { return string(r) }

// Close codes, RFC 6455 section 7.4: 4000–4999 are ours to define. After the
// codes marked final a client must not reconnect by itself: it would get the
// same answer, or the wrong user.
const (
	closeRefused     = 4403 // final
	closeNobody      = 4401 // final: log in first
	closeAuthTimeout = 4408 // get a credential, then reconnect
	closeSession     = 4409 // final: ask the page who is logged in now, then reconnect
	closeExpired     = 4410 // final: get a fresh credential, then reconnect
	closeTooFast     = 4429 // reconnect later
	closePolicy      = 1008
	closeTooLarge    = 1009
	closeRestart     = 1012 // reconnect
	closeTryLater    = 1013 // reconnect later
	closeNormal      = 1000
)

// causes is how each reason that starts on this side ends the connection.
var causes = map[Reason]engine.Cause{
	ReasonServer:       {Code: closeNormal, Text: "disconnected by the server"},
	ReasonParse:        {Code: closePolicy, Text: "too many bad frames"},
	ReasonSlow:         {Code: closePolicy, Text: "too slow", Drop: true},
	ReasonShutdown:     {Code: closeRestart, Text: "restarting"},
	ReasonRefused:      {Code: closeRefused, Text: "refused"},
	ReasonUnauthorized: {Code: closeNobody, Text: "unauthenticated", Drop: true},
	ReasonForbidden:    {Code: closeRefused, Text: "forbidden", Drop: true},
	ReasonRevoked:      {Code: closeSession, Text: "revoked", Drop: true},
	ReasonAuthTimeout:  {Code: closeAuthTimeout, Text: "authentication timeout", Drop: true},
	ReasonSessionEnded: {Code: closeSession, Text: "session ended", Drop: true},
	ReasonExpired:      {Code: closeExpired, Text: "credential expired", Drop: true},
	ReasonStale:        {Code: closeTryLater, Text: "identity could not be checked", Drop: true},
}

func causeOf(r Reason) engine.Cause {
	c := causes[r]
	c.Reason = string(r)
	return c
}

// closeCodeFor is the in-band form of a refused handshake.
func closeCodeFor(e *Error) int {
	switch e.Code {
	case CodeUnauthenticated:
		return closeNobody
	case CodeSessionEnded:
		return closeSession
	case CodeExpired:
		return closeExpired
	case CodeTooFast:
		return closeTooFast
	case CodeUnavailable, CodeInternal:
		return closeTryLater
	}
	switch e.http {
	case http.StatusUnauthorized:
		return closeNobody
	case http.StatusTooManyRequests:
		return closeTooFast
	}
	return closeRefused
}
