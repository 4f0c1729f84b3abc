package adapter

import (
	"context"
	"maps"
	"net/url"

	"github.com/gin-usher/usher/adapter/internal/eio"
	"github.com/gin-usher/usher/adapter/internal/engine"
	"github.com/gin-usher/usher/adapter/internal/sio"
)

// errJSONP refuses what the clients of Engine.IO 3 do in browsers that cannot
// ask across origins. A script tag sends cookies and no Origin: any page could
// read its visitor's session.
var errJSONP = &eio.Error{Code: eio.ErrRequest.Code, Message: "JSONP is not spoken here: use polling by XMLHttpRequest, or WebSocket"}

// dialect is what a request says its client speaks.
func (s *Server) dialect(query url.Values) (engine.Dialect, *eio.Error) {
	v, ok := eio.ParseVersion(query.Get("EIO"))
	switch {
	case !ok || v == eio.V3 && !s.cfg.AllowEIO3:
		return 0, eio.ErrVersion
	case v == eio.V4:
		return engine.V4, nil
	case query.Has("j"):
		return 0, errJSONP
	case query.Get("b64") != "":
		return engine.V3Text, nil
	}
	return engine.V3, nil
}

// version is the protocol of Socket.IO that goes with that of Engine.IO.
func (conn *sioConn) version() sio.Version {
	if conn.session.Dialect().Version() == eio.V3 {
		return sio.V4
	}
	return sio.V5
}

// greet follows the open packet. Protocol 4 of Socket.IO connects each client
// to "/" unasked; later ones wait to be asked.
func (conn *sioConn) greet() {
	if conn.version() == sio.V4 {
		_ = conn.connect("/", nil) // it exists
	}
}

// splitQuery takes the name of a namespace that is asked for apart from the
// query that a client of protocol 4 puts behind it.
func (conn *sioConn) splitQuery(name string) (namespace, query string) {
	if conn.version() == sio.V4 {
		return sio.SplitQuery(name)
	}
	return name, ""
}

// queryKey is under which a socket's keys have the query of its namespace: most
// sockets have none, and pay nothing for it.
type queryKey struct{}

// setQuery keeps the query with which the namespace was asked for. It is called
// before anybody else has the socket.
func (s *Socket) setQuery(query string) {
	if query == "" {
		return
	}
	keys := make(map[any]any, len(s.keys)+1)
	maps.Copy(keys, s.keys) // which are the connection's
	keys[queryKey{}] = query
	s.keys = keys
}

// Query returns the parameters that the client has put into its URL, without
// the token that Credentials have moved. A client of Socket.IO 2 may put others
// behind the name of a namespace, io("/admin?room=7"): for the socket of that
// namespace they stand above those of the URL. They are the client's word and
// nothing more: no credential is taken from them.
func (s *Socket) Query() url.Values {
	query := s.Handshake().Request(context.Background()).URL.Query()
	if own, ok := s.left()[queryKey{}].(string); ok {
		// What cannot be parsed is left out, as in that of a URL.
		parsed, _ := url.ParseQuery(own)
		maps.Copy(query, parsed)
	}
	return query
}
