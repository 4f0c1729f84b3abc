// Package backplanetest is the suite that every driver of package backplane has
// to pass.
package backplanetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-usher/usher/adapter/backplane"
)

// patience is how long the suite waits for what must happen.
const patience = 20 * time.Second

// Run tests a driver. open returns three nodes of one new cluster that nobody
// else is in, and that nobody has subscribed to yet. Run closes them.
func Run(t *testing.T, open func(t *testing.T) []backplane.Backplane) {
	for _, c := range []struct {
		name string
		test func(*testing.T, []*node)
	}{
		{"every kind of message arrives as it was", testKinds},
		{"a message for one node reaches that one", testTo},
		{"nothing comes back but beats", testNotBack},
		{"messages of a node keep their order", testOrder},
		{"bytes of every kind survive", testBytes},
		{"a message that is too large is refused", testTooLarge},
		{"a context that is over", testContext},
		{"a node that has closed", testClose},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, nodes(t, open(t))) })
	}
}

// A node is one end, with what has been delivered to it.
type node struct {
	backplane.Backplane
	t    *testing.T
	name string
	got  chan *backplane.Message
}

// nodes subscribes and waits until everybody hears everybody.
func nodes(t *testing.T, ends []backplane.Backplane) []*node {
	t.Helper()
	if len(ends) != 3 {
		t.Fatalf("expected 3 nodes, got %d", len(ends))
	}
	all := make([]*node, len(ends))
	for i, end := range ends {
		n := &node{Backplane: end, t: t, name: fmt.Sprintf("node-%d", i), got: make(chan *backplane.Message, 1<<16)}
		all[i] = n
		if err := end.Subscribe(n.name, func(m *backplane.Message) { n.got <- m }); err != nil {
			t.Fatalf("subscribe: %v", err)
		}
		t.Cleanup(func() {
			if err := end.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	deadline := time.After(patience)
	heard := make(map[[2]string]bool)
	for len(heard) < len(all)*len(all) {
		for _, n := range all {
			n.publish(&backplane.Message{Kind: backplane.Beat, Sequence: 1})
		}
		pause := time.After(50 * time.Millisecond)
		for waiting := true; waiting; {
			select {
			case m := <-all[0].got:
				heard[[2]string{m.Node, all[0].name}] = true
			case m := <-all[1].got:
				heard[[2]string{m.Node, all[1].name}] = true
			case m := <-all[2].got:
				heard[[2]string{m.Node, all[2].name}] = true
			case <-pause:
				waiting = false
			case <-deadline:
				t.Fatalf("after %v only these have heard each other: %v", patience, heard)
			}
			waiting = waiting && len(heard) < len(all)*len(all)
		}
	}
	return all
}

func (n *node) publish(batch ...*backplane.Message) {
	n.t.Helper()
	for _, m := range batch {
		m.Node = n.name
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	if err := n.Publish(ctx, batch); err != nil {
		n.t.Fatalf("%s: publish: %v", n.name, err)
	}
}

// next returns the next message but the beats of the beginning.
func (n *node) next() *backplane.Message {
	n.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case m := <-n.got:
			if m.Kind != backplane.Beat || m.Sequence != 1 {
				return m
			}
		case <-deadline:
			n.t.Fatalf("%s: no message in %v", n.name, patience)
		}
	}
}

func (n *node) wants(want *backplane.Message) {
	n.t.Helper()
	if got := n.next(); !same(got, want) {
		n.t.Fatalf("%s got\n%s, want\n%s", n.name, show(got), show(want))
	}
}

// same reports whether two messages say the same: JSON may be spelled in another
// way, and nothing may be an empty list.
func same(a, b *backplane.Message) bool { return show(a) == show(b) }

func show(m *backplane.Message) string {
	c := *m
	c.Event.Data = compact(c.Event.Data)
	c.Sockets = nil
	for _, s := range m.Sockets {
		s.Issued = s.Issued.Round(time.Millisecond).UTC()
		data := make(map[string]json.RawMessage)
		for k, v := range s.Data {
			data[k] = compact(v)
		}
		s.Data = data
		c.Sockets = append(c.Sockets, s)
	}
	c.Places = nil
	for _, at := range m.Places {
		at.Since = at.Since.Round(time.Millisecond).UTC()
		c.Places = append(c.Places, at)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Sprintf("%+v: %v", c, err)
	}
	text := string(b)
	for _, empty := range []string{":[]", ":{}"} {
		text = strings.ReplaceAll(text, empty, ":null")
	}
	return text
}

func compact(data json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, data) != nil {
		return data
	}
	return b.Bytes()
}

func testKinds(t *testing.T, nodes []*node) {
	selection := backplane.Selection{Rooms: []string{"red", "room *?[x] é,"}, Except: []string{"blue"}, OfUser: true, User: "ann"}
	event := backplane.Event{
		Data:        json.RawMessage(`["chat message",{"text":"héllo","n":1.5,"image":{"_placeholder":true,"num":0}},null]`),
		Attachments: [][]byte{{0, 1, 2, 255}},
	}
	answer := backplane.Event{Data: json.RawMessage(`[["a","b"]]`), Packed: true}
	failed := &backplane.Error{Code: "no", Message: "not today"}
	socket := backplane.Socket{
		ID: "s1", Namespace: "/chat", User: &backplane.User{ID: "ann", Provider: "github", Roles: []string{"admin", "editor"}},
		Rooms: []string{"red"}, Data: map[string]json.RawMessage{"name": json.RawMessage(`"Ann"`), "n": json.RawMessage(`[1,{"a":null}]`)},
		Address: "192.0.2.1:4711", Issued: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC), Path: "/socket.io/",
		Header: http.Header{"Host": {"example.org"}, "Accept-Language": {"de", "en"}},
	}
	user := backplane.Subject{Kind: "user", Hash: [32]byte{1, 255, 31: 9}}
	const ns, id = "/chat", "request-1"
	all := []*backplane.Message{
		{Kind: backplane.Hello},
		{Kind: backplane.Beat, Sequence: 7},
		{Kind: backplane.SessionsEnded, Ended: []backplane.Ended{{Session: [32]byte{1, 255, 31: 9}, For: time.Hour}, {Session: [32]byte{2}, For: time.Second}}},
		{Kind: backplane.Revoked, Revoked: []backplane.Revocation{
			{Subject: backplane.Subject{Kind: "user", Hash: [32]byte{1, 255, 31: 9}}, At: 1763737329123456789, Ago: time.Millisecond, For: 720 * time.Hour},
			{Subject: backplane.Subject{Kind: "session", Hash: [32]byte{3}}, For: time.Second},
		}},
		{Kind: backplane.Changed, Changed: []backplane.Subject{{Kind: "token", Hash: [32]byte{4, 31: 255}}, {Kind: "provider", Hash: [32]byte{5}}}},
		{Kind: backplane.Emit, Namespace: "/", Event: backplane.Event{Data: json.RawMessage(`["to everybody"]`)}},
		{Kind: backplane.Emit, Namespace: ns, Selection: selection, Event: event, Volatile: true, Uncompressed: true},
		{Kind: backplane.Emit, Namespace: ns, Selection: backplane.Selection{Rooms: []string{"one"}}, Event: event},
		{Kind: backplane.Emit, Namespace: ns, Selection: backplane.Selection{OfUser: true}, Event: event},
		{Kind: backplane.Join, Namespace: ns, Selection: selection, Rooms: []string{"green", ""}},
		{Kind: backplane.Leave, Namespace: ns, Selection: selection, Rooms: []string{"green"}},
		{Kind: backplane.Disconnect, Namespace: ns, Selection: selection},
		{Kind: backplane.ServerEvent, Namespace: ns, Event: event},
		{Kind: backplane.ServerEvent, Namespace: ns, Event: event, Request: id, Timeout: 3 * time.Second},
		{Kind: backplane.Fetch, Namespace: ns, Selection: selection, Request: id, Timeout: 3 * time.Second},
		{Kind: backplane.Present, Namespace: ns, Selection: selection, Request: id, Timeout: 3 * time.Second},
		{Kind: backplane.Call, Namespace: ns, Selection: selection, Event: event, Uncompressed: true, Request: id, Timeout: 3 * time.Second},
		{Kind: backplane.Cancel, Request: id},
		{Kind: backplane.Locate, Of: user, Request: id, Timeout: 3 * time.Second},
		{Kind: backplane.SignOut, Of: user, Places: []backplane.Place{{Handle: [32]byte{6, 31: 255}}}, Request: id, Timeout: 3 * time.Second},
		{Kind: backplane.Goodbye},
	}
	answers := []*backplane.Message{
		{Kind: backplane.Fetched, Sockets: []backplane.Socket{socket, {ID: "s2", Namespace: ns, Issued: socket.Issued}}},
		{Kind: backplane.Fetched},
		{Kind: backplane.Fetched, Err: failed},
		{Kind: backplane.PresentAnswer, Members: []backplane.Member{{UserID: "ann", Sockets: 2}, {UserID: "bob", Sockets: 1}}},
		{Kind: backplane.ServerAnswer, Event: answer},
		{Kind: backplane.ServerAnswer, Err: failed},
		{Kind: backplane.Called, Count: 2},
		{Kind: backplane.Called, Err: failed},
		{Kind: backplane.Acknowledged, Socket: "s1", Event: answer},
		{Kind: backplane.Acknowledged, Socket: "s2", Err: failed},
	}
	located := []*backplane.Message{
		{Kind: backplane.Located, Places: []backplane.Place{
			{Handle: [32]byte{7, 31: 255}, Address: "2001:db8::1", Agent: "Mozilla/5.0 (é) <&>", Since: socket.Issued, Sockets: 2},
			{Address: "192.0.2.1", Since: socket.Issued, Sockets: 1},
		}},
		{Kind: backplane.Located},
		{Kind: backplane.Located, Err: failed},
	}
	for _, m := range located {
		m.To, m.Request = nodes[1].name, id
	}
	for _, a := range answers {
		a.To, a.Namespace, a.Request = nodes[1].name, ns, id
	}
	answers = append(answers, located...)
	nodes[0].publish(append(all, answers...)...)
	for _, m := range all {
		nodes[1].wants(m)
		nodes[2].wants(m)
	}
	for _, m := range answers {
		nodes[1].wants(m)
	}
}

func testTo(t *testing.T, nodes []*node) {
	one, two := &backplane.Message{Kind: backplane.Hello, To: nodes[1].name}, &backplane.Message{Kind: backplane.Hello, To: nodes[2].name}
	nodes[0].publish(one, two)
	for i, want := range []*backplane.Message{one, two} {
		got := nodes[i+1].next()
		for got.To != "" && got.To != nodes[i+1].name {
			got = nodes[i+1].next() // a driver may leave it to the node to look
		}
		if !same(got, want) {
			t.Errorf("%s got %s, want %s", nodes[i+1].name, show(got), show(want))
		}
	}
}

func testNotBack(t *testing.T, nodes []*node) {
	beat := &backplane.Message{Kind: backplane.Beat, Sequence: 2}
	nodes[0].publish(
		&backplane.Message{Kind: backplane.Hello},
		&backplane.Message{Kind: backplane.Emit, Namespace: "/", Event: backplane.Event{Data: json.RawMessage(`["e"]`)}},
		beat)
	nodes[0].wants(beat)
}

func testOrder(t *testing.T, nodes []*node) {
	const count = 500
	var publishing sync.WaitGroup
	for _, n := range nodes {
		publishing.Go(func() {
			for i := 0; i < count; {
				var batch []*backplane.Message
				for range 1 + i%7 {
					batch = append(batch, &backplane.Message{
						Node: n.name, Kind: backplane.Emit, Namespace: []string{"/", "/chat"}[i%2],
						Event: backplane.Event{Data: json.RawMessage(fmt.Sprintf(`["n",%d]`, i))},
					})
					i++
				}
				if err := n.Publish(t.Context(), batch); err != nil {
					t.Errorf("%s: publish: %v", n.name, err)
					return
				}
			}
			last := &backplane.Message{Node: n.name, Kind: backplane.Goodbye}
			if err := n.Publish(t.Context(), []*backplane.Message{last}); err != nil {
				t.Errorf("%s: publish: %v", n.name, err)
			}
		})
	}
	publishing.Wait()
	for _, n := range nodes {
		next := make(map[string]int)
		for ended := 0; ended < len(nodes)-1; {
			m := n.next()
			if m.Kind == backplane.Goodbye {
				if next[m.Node] < count {
					t.Fatalf("%s got %d messages of %s, want at least %d", n.name, next[m.Node], m.Node, count)
				}
				ended++
				continue
			}
			if want := fmt.Sprintf(`["n",%d]`, next[m.Node]); string(compact(m.Event.Data)) != want {
				t.Fatalf("%s got %s of %s, want %s", n.name, m.Event.Data, m.Node, want)
			}
			next[m.Node]++
		}
	}
}

func testBytes(t *testing.T, nodes []*node) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	events := []backplane.Event{
		{Data: json.RawMessage(`["empty",{"_placeholder":true,"num":0}]`), Attachments: [][]byte{{}}},
		{Data: json.RawMessage(`["every",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`), Attachments: [][]byte{every, []byte("text")}},
		{Data: json.RawMessage(`["large",{"_placeholder":true,"num":0}]`), Attachments: [][]byte{bytes.Repeat(every, 1<<14)}},
		{Data: json.RawMessage(`["text","😀 \u0000 \ud800 <&> ` + strings.Repeat("é", 1<<18) + `"]`)},
		{Data: json.RawMessage(`[7,12345678901234567890,-0.1e-7,true,[[],{}]]`)},
	}
	for _, e := range events {
		m := &backplane.Message{Kind: backplane.Emit, Namespace: "/", Event: e}
		nodes[0].publish(m)
		for _, n := range nodes[1:] {
			got := n.next()
			if len(got.Event.Attachments) != len(e.Attachments) || len(e.Attachments) > 0 && !reflect.DeepEqual(got.Event.Attachments, e.Attachments) {
				t.Errorf("%s: the attachments of %.20s are not as they were", n.name, e.Data)
			}
			if !sameJSON(got.Event.Data, e.Data) {
				t.Errorf("%s got %.100s, want %.100s", n.name, got.Event.Data, e.Data)
			}
		}
	}
}

// sameJSON compares values as JavaScript has them.
func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func testTooLarge(t *testing.T, nodes []*node) {
	m := &backplane.Message{
		Node: nodes[0].name, Kind: backplane.Emit, Namespace: "/",
		Event: backplane.Event{Data: json.RawMessage(`["e",{"_placeholder":true,"num":0}]`), Attachments: [][]byte{make([]byte, backplane.MaxBytes)}},
	}
	if err := nodes[0].Publish(t.Context(), []*backplane.Message{m}); !errors.Is(err, backplane.ErrTooLarge) {
		t.Errorf("Publish of more than MaxBytes = %v, want ErrTooLarge", err)
	}
	next := &backplane.Message{Kind: backplane.Hello}
	nodes[0].publish(next)
	nodes[1].wants(next)
}

func testContext(t *testing.T, nodes []*node) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := &backplane.Message{Node: nodes[0].name, Kind: backplane.Goodbye}
	if err := nodes[0].Publish(ctx, []*backplane.Message{m}); !errors.Is(err, context.Canceled) {
		t.Errorf("Publish with a context that is over = %v, want %v", err, context.Canceled)
	}
	next := &backplane.Message{Kind: backplane.Hello}
	nodes[0].publish(next)
	for got := nodes[1].next(); !same(got, next); got = nodes[1].next() {
		if !same(got, m) { // it may arrive all the same
			t.Fatalf("%s got %s", nodes[1].name, show(got))
		}
	}
}

func testClose(t *testing.T, nodes []*node) {
	if err := nodes[2].Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	for len(nodes[2].got) > 0 {
		<-nodes[2].got
	}
	if err := nodes[2].Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	m := &backplane.Message{Node: nodes[2].name, Kind: backplane.Hello}
	if err := nodes[2].Publish(t.Context(), []*backplane.Message{m}); !errors.Is(err, backplane.ErrClosed) {
		t.Errorf("Publish after Close = %v, want ErrClosed", err)
	}
	next := &backplane.Message{Kind: backplane.Hello}
	nodes[0].publish(next)
	nodes[1].wants(next)
	if n := len(nodes[2].got); n > 0 {
		t.Errorf("%d messages delivered after Close", n)
	}
}
