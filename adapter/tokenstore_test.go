package adapter

import (
	"context"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-usher/usher/adapter/backplane"
)

// A tokenMap is a TokenStore in memory, without the methods that take a context.
type tokenMap struct {
	deleted chan string // is told, if somebody waits

	mu   sync.Mutex
	rows map[string]tokenRow
}

type tokenRow struct {
	bytes  []byte
	expiry time.Time
}

func (m *tokenMap) Find(token string) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, found := m.rows[token]
	return row.bytes, found && time.Now().Before(row.expiry), nil
}

func (m *tokenMap) Commit(token string, b []byte, expiry time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows[token] = tokenRow{b, expiry}
	return nil
}

func (m *tokenMap) Delete(token string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.rows, token)
	select {
	case m.deleted <- token:
	default:
	}
	return nil
}

// A keptTokens is one that deletes nothing.
type keptTokens struct{ *tokenMap }

func (keptTokens) Delete(string) error { return nil }

// A tokenRequest is what a manager of scs does with a store in one request.
type tokenRequest struct {
	t        *testing.T
	store    TokenStore
	ctx      context.Context
	visit    *visit
	deadline time.Time
	values   map[string]any
}

// load begins a request that shows a token.
func load(t *testing.T, st TokenStore, token string) *tokenRequest {
	t.Helper()
	v := new(visit)
	r := &tokenRequest{t: t, store: st, ctx: v.with(t.Context()), visit: v}
	b, found, err := st.(interface {
		FindCtx(ctx context.Context, token string) ([]byte, bool, error)
	}).FindCtx(r.ctx, token)
	if err != nil || !found {
		t.Fatalf("the session is found %v, %v", found, err)
	}
	if r.deadline, r.values, err = (gobCodec{}).Decode(b); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *tokenRequest) commit(token string, expiry time.Time) {
	r.t.Helper()
	b, err := gobCodec{}.Encode(r.deadline, r.values)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.store.(interface {
		CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error
	}).CommitCtx(r.ctx, token, b, expiry); err != nil {
		r.t.Fatal(err)
	}
}

// TestTokenStoreSaveThatMeetsALogout: one node writes a session's row when another has
// deleted it, and hears of that afterwards. The tombstones hide the row, but are
// forgotten before it would be: it has to go.
func TestTokenStoreSaveThatMeetsALogout(t *testing.T) {
	var bus backplane.Memory
	node := func() *Server {
		t.Helper()
		srv, err := New(Config{Backplane: bus.Node()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := srv.Shutdown(context.Background()); err != nil {
				t.Errorf("shutdown: %v", err)
			}
		})
		srv.cluster.start()
		return srv
	}
	inner := &tokenMap{rows: make(map[string]tokenRow), deleted: make(chan string, 1)}
	here, there := node().TokenStore(inner), node().TokenStore(keptTokens{inner}) // as if it had deleted the row before
	b, err := gobCodec{}.Encode(time.Now().Add(time.Hour), map[string]any{"color": "green"})
	if err != nil {
		t.Fatal(err)
	}
	if err := here.Commit("token", b, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := there.Delete("token"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-inner.deleted:
	case <-time.After(20 * time.Second):
		t.Error("the row is there after 20 s")
	}
}

// TestTokenStoreTellsTheExpiry: a request knows until when the session lives that it
// has loaded: until its deadline or, if it is idle, until it was said at the last
// commit. The store itself tells nobody.
func TestTokenStoreTellsTheExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := srv.Shutdown(context.Background()); err != nil {
				t.Errorf("shutdown: %v", err)
			}
		}()
		inner := &tokenMap{rows: make(map[string]tokenRow)}
		st := srv.TokenStore(inner)
		begin := time.Now()
		deadline := begin.Add(time.Hour + time.Millisecond/3)
		before, err := gobCodec{}.Encode(deadline, map[string]any{"color": "green"})
		if err != nil {
			t.Fatal(err)
		}
		if err := inner.Commit("token", before, begin.Add(time.Minute)); err != nil { // before there was this server
			t.Fatal(err)
		}
		want := func(expires time.Time) *tokenRequest {
			t.Helper()
			r := load(t, st, "token")
			if l := r.visit.session(); l == nil || !l.expires.Equal(expires) {
				t.Errorf("the session expires %v, want %v", l.expires.Sub(begin), expires.Sub(begin))
			}
			return r
		}
		r := want(deadline)

		// A request that keeps it alive for ten minutes. A millisecond's part is rounded up.
		idle := begin.Add(10*time.Minute + time.Millisecond/4)
		r.commit("token", idle)
		r = want(begin.Add(10*time.Minute + time.Millisecond))
		if got := inner.rows["token"].expiry; !got.Equal(idle) {
			t.Errorf("it was committed until %v, want %v", got.Sub(begin), idle.Sub(begin))
		}

		// And one that lets it live until its deadline.
		r.commit("token", deadline)
		r = want(deadline)
		wantValues := map[string]any{"color": "green", keyExpires: r.values[keyExpires]}
		if !maps.Equal(r.values, wantValues) {
			t.Errorf("the session has %v, want %v", r.values, wantValues)
		}
	})
}
