package adapter_test

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
	"github.com/gin-usher/usher/adapter/backplane"
)

// A jam is a backplane that takes its time.
type jam struct {
	backplane.Backplane
	gate atomic.Pointer[adaptertest.Gate]
}

func (j *jam) Publish(ctx context.Context, batch []*backplane.Message) error {
	if gate := j.gate.Load(); gate != nil {
		gate.Pass()
	}
	return j.Backplane.Publish(ctx, batch)
}

// TestClusterRevokeBehindAJam: a ban that found the queue to the other nodes full of
// events was never told to them.
func TestClusterRevokeBehindAJam(t *testing.T) {
	var bus backplane.Memory
	slow := &jam{Backplane: bus.Node()}
	sites := joined(t, &bus, 2, func(i int) adapter.Config {
		cfg := adapter.Config{Revalidate: -1}
		if i == 0 {
			cfg.Backplane = slow
		}
		return cfg
	}, nil)
	ann, bob, carol := sites[0].NewBrowser(t, "ann"), sites[0].NewBrowser(t, "bob"), sites[0].NewBrowser(t, "carol")
	banned, gone, stays := ann.At(sites[1]).Dial(ws), bob.At(sites[1]).Dial(ws), carol.At(sites[1]).Dial(ws)
	thief := bob.Clone().At(sites[1])

	gate := adaptertest.NewGate()
	slow.gate.Store(gate)
	defer gate.Open()
	if err := sites[0].Server.Emit("n", -1); err != nil {
		t.Fatal(err)
	}
	<-gate.Entered
	for i := range 10_000 { // more than there is room for
		if err := sites[0].Server.Emit("n", i); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sites[0].Server.Revoke(t.Context(), adapter.ByUser("ann")); err != nil {
		t.Fatal(err)
	}
	bob.MustPost("/logout")
	gate.Open()
	for who, c := range map[string]*adaptertest.Conn{"ann": banned, "bob": gone} {
		if code := c.Closed(); code != 4409 {
			t.Errorf("%s: closed with %d, want 4409", who, code)
		}
	}
	wantNobody(t, "ann", ann.At(sites[1]))
	wantNobody(t, "bob", thief)
	stays.Must("me", nil, nil)
}

// TestClusterRemembersForThoseWhoCome: nodes told those that come what had ended on
// them, and what was revoked anywhere, but not what they had been told had ended. A
// cookie was good again once the node of its logout had been replaced.
func TestClusterRemembersForThoseWhoCome(t *testing.T) {
	var bus backplane.Memory
	sites := joined(t, &bus, 2, func(int) adapter.Config { return adapter.Config{} }, nil)
	ann, bob, carol := sites[0].NewBrowser(t, "ann"), sites[0].NewBrowser(t, "bob"), sites[0].NewBrowser(t, "carol")
	out := map[string]*adaptertest.Browser{"ann, who has logged out": ann.Clone(), "bob, whose session was revoked": bob}
	c := bob.Dial(ws)
	found, err := sites[0].Server.ToUser("bob").Local().Sockets(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("bob has the sockets %v, %v", found, err)
	}
	if _, err := sites[0].Server.Revoke(t.Context(), adapter.BySession(found[0].Identity.SessionID)); err != nil {
		t.Fatal(err)
	}
	c.Closed()
	ann.MustPost("/logout")
	isNobody := func(s *adaptertest.Site, b *adaptertest.Browser) func() bool {
		return func() bool {
			status, _ := b.At(s).Get("/me")
			return status == http.StatusUnauthorized
		}
	}
	for who, b := range out {
		await(t, who+" is nobody on the other node", isNobody(sites[1], b))
	}
	if err := sites[0].Server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh := adaptertest.NewSite(t, adapter.Config{Backplane: bus.Node(), Logger: slog.New(slog.DiscardHandler)}, newCookieStore(t), nil)
	for who, b := range out {
		await(t, who+" is nobody on the new node", isNobody(fresh, b))
	}
	wantUser(t, "carol", carol.At(fresh))
}
