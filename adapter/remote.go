package adapter

import (
	"context"
)

// A RemoteSocket is what is known of a socket at one moment, wherever it is
// connected. Its methods act on the socket as it is by then, and do nothing once
// it is gone.
type RemoteSocket struct {
	ID        string
	Identity  *Identity // nil is nobody
	Handshake *Handshake
	Rooms     []string
	Data      map[string]any
	ns        *Namespace
}

// Sockets returns what is known of the selected sockets.
func (o Op) Sockets(ctx context.Context) ([]RemoteSocket, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	var all []RemoteSocket
	for _, s := range o.selectInto(nil) {
		all = append(all, RemoteSocket{
			ID: s.id, Identity: s.Identity(), Handshake: s.Handshake(), Rooms: s.Rooms(), Data: s.Data().All(), ns: s.ns,
		})
	}
	return all, nil
}

// Emit queues an event for the socket.
func (r RemoteSocket) Emit(event string, args ...any) error {
	return r.ns.To(r.ID).Emit(event, args...)
}

// Join puts the socket into rooms.
func (r RemoteSocket) Join(rooms ...string) { r.ns.To(r.ID).Join(rooms...) }

// Leave takes the socket out of rooms.
func (r RemoteSocket) Leave(rooms ...string) { r.ns.To(r.ID).Leave(rooms...) }

// Disconnect ends the socket.
func (r RemoteSocket) Disconnect() { r.ns.To(r.ID).Disconnect() }
