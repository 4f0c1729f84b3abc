package adapter_test

import (
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter"
)

// TestToNoRoomsIsNobody: a list of rooms that turns out to be empty selects nobody,
// on no node. If it were everybody, as where no rooms are asked for, what is meant
// for the members of a group would reach all others when the group has none.
func TestToNoRoomsIsNobody(t *testing.T) {
	c := openCluster(t, adapter.Config{}, nil)
	srv := c.Sites[0].Server
	conns := []interface{ Must(string, any, any) }{}
	for _, s := range c.Sites {
		conns = append(conns, s.NewBrowser(t, "alice").Dial(ws))
	}
	var none []string
	for name, op := range map[string]adapter.Op{
		"To": srv.To(none...), "In": srv.In(none...), "Op.To": srv.Volatile().To(none...), "Except and To": srv.Except("x").To(none...),
		"user": srv.ToUser("alice").To(none...),
	} {
		if err := op.Emit("secret"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		op.Join("room")
		op.Disconnect()
		if found, err := op.Sockets(t.Context()); len(found) != 0 || err != nil {
			t.Errorf("%s selects %d sockets, %v", name, len(found), err)
		}
		if answers, err := adapter.CallAll[any](t.Context(), op, "secret"); len(answers) != 0 || err != nil {
			t.Errorf("%s is answered by %d sockets, %v", name, len(answers), err)
		}
	}
	if found, err := srv.To(none...).To("room").Sockets(t.Context()); len(found) != 0 || err != nil {
		t.Errorf("%d sockets have been put into the room, %v", len(found), err)
	}
	if found, err := srv.To(none...).Except().Volatile().Sockets(t.Context()); len(found) != 0 || err != nil {
		t.Errorf("further steps select %d sockets, %v", len(found), err)
	}
	for _, conn := range conns {
		conn.Must("me", nil, nil) // it is open
	}
}

// TestToNoRoomsIsNobodyAway: the same for those who may come back.
func TestToNoRoomsIsNobodyAway(t *testing.T) {
	srv := startBare(t, adapter.Config{Recovery: adapter.Recovery{Window: time.Minute}}, nil)
	srv.KeepGhost("red")
	srv.To([]string{}...).Disconnect()
	if n := srv.Ghosts(); n != 1 {
		t.Errorf("%d sockets are away, want 1", n)
	}
}
