package adapter

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/gin-usher/usher/adapter/backplane"
)

// A Member is one person in a room, however many sockets they have there.
type Member struct {
	UserID  string
	User    any // Identity.User of one of the sockets; nil if all are on other nodes
	Sockets int
}

// Presence returns who is in the room, ordered by UserID. Anonymous sockets are
// nobody and not listed. Other nodes are waited for until ctx is done, but not
// longer than 5 s: if one does not answer there is an error beside those who are
// known.
func (n *Namespace) Presence(ctx context.Context, room string) ([]Member, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	at := make(map[string]int)
	var members []Member
	count := func(id string, user any, sockets int) {
		i, ok := at[id]
		if !ok {
			i = len(members)
			at[id] = i
			members = append(members, Member{UserID: id, User: user})
		}
		members[i].Sockets += sockets
	}
	for _, s := range n.inRoom(room) {
		if id := s.Identity(); id != nil {
			count(id.UserID, id.User, 1)
		}
	}
	far, err := n.presentElsewhere(ctx, room)
	for _, who := range far {
		if who.Sockets > 0 {
			count(who.UserID, nil, who.Sockets)
		}
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.UserID, b.UserID) })
	return members, err
}

// presentElsewhere returns what the other nodes tell, each for itself.
func (n *Namespace) presentElsewhere(ctx context.Context, room string) (all []backplane.Member, err error) {
	c := n.srv.cluster
	if c == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answers, err := c.collect(ctx, &backplane.Message{
		Kind: backplane.Present, Namespace: n.name, Selection: backplane.Selection{Rooms: []string{room}},
	})
	for _, m := range answers {
		all = append(all, m.Members...)
	}
	if err != nil {
		err = fmt.Errorf("adapter: presence: %w", err)
	}
	return all, err
}

func (n *Namespace) inRoom(room string) (all []*Socket) {
	for _, n := range n.here() {
		all = append(all, n.rooms.Select(nil, []string{room}, nil)...)
	}
	return all
}
