package adapter

import (
	"cmp"
	"context"
	"slices"
)

// A Member is one person in a room, however many sockets they have there.
type Member struct {
	UserID  string
	User    any // Identity.User of one of the sockets
	Sockets int
}

// Presence returns who is in the room, ordered by UserID. Anonymous sockets are
// nobody and not listed.
func (n *Namespace) Presence(ctx context.Context, room string) ([]Member, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	at := make(map[string]int)
	var members []Member
	for _, s := range n.inRoom(room) {
		id := s.Identity()
		if id == nil {
			continue
		}
		i, ok := at[id.UserID]
		if !ok {
			i = len(members)
			at[id.UserID] = i
			members = append(members, Member{UserID: id.UserID, User: id.User})
		}
		members[i].Sockets++
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.UserID, b.UserID) })
	return members, nil
}

func (n *Namespace) inRoom(room string) (all []*Socket) {
	for _, n := range n.here() {
		all = append(all, n.rooms.Select(nil, []string{room}, nil)...)
	}
	return all
}
