package adapter_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	gsessions "github.com/gorilla/sessions"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// A listingStore is a session store that is a SessionLister.
type listingStore struct {
	sessions.Store

	mu   sync.Mutex
	kept map[string]keptSession // by handle
	fail error
}

type keptSession struct {
	id string
	adapter.StoredSession
}

func newListingStore(t *testing.T) *listingStore {
	return &listingStore{Store: newMemstore(t), kept: make(map[string]keptSession)}
}

func (l *listingStore) Save(r *http.Request, w http.ResponseWriter, s *gsessions.Session) error {
	if err := l.Store.Save(r, w, s); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if of := adapter.StoredSessionOf(s.ID, s.Values); s.Options.MaxAge < 0 {
		delete(l.kept, adapter.SessionHandle(s.ID))
	} else {
		of.Used = time.Now()
		l.kept[of.Handle] = keptSession{s.ID, of}
	}
	return nil
}

func (l *listingStore) UserSessions(_ context.Context, userID string, limit int) (found []adapter.StoredSession, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.kept {
		if k.UserID == userID {
			found = append(found, k.StoredSession)
		}
	}
	slices.SortFunc(found, func(a, b adapter.StoredSession) int { return b.Used.Compare(a.Used) })
	return found[:min(len(found), limit)], l.fail
}

func (l *listingStore) EndUserSession(_ context.Context, userID, handle string) (bool, error) {
	l.mu.Lock()
	k, ok := l.kept[handle]
	l.mu.Unlock()
	if !ok || k.UserID != userID {
		return false, l.fail
	}
	gone := gsessions.NewSession(l.Store, "sid")
	gone.ID, gone.Options = k.id, &gsessions.Options{MaxAge: -1}
	return true, l.Save(&http.Request{Header: make(http.Header)}, discard{}, gone)
}

// discard is a response that nobody reads.
type discard struct{}

func (discard) Header() http.Header         { return make(http.Header) }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// agent is a browser that says which one it is.
type agent struct {
	http.RoundTripper
	name string
}

func (a agent) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("User-Agent", a.name)
	return a.RoundTripper.RoundTrip(r)
}

// logInWith logs somebody in with a browser of a name.
func logInWith(t *testing.T, s *adaptertest.Site, user, name string) *adaptertest.Browser {
	t.Helper()
	b := s.NewBrowser(t, "")
	b.HTTP.Transport = agent{b.HTTP.Transport, name}
	b.MustPost("/login?user=" + user)
	return b
}

func mustSessions(t *testing.T, s *adapter.Server, user string) []adapter.SessionInfo {
	t.Helper()
	all, err := s.Sessions(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSessionsOfAUser(t *testing.T) {
	store := newListingStore(t)
	s := adaptertest.NewSite(t, adapter.Config{}, store, nil)
	began := time.Now()
	phone := logInWith(t, s, "alice", "Phone")
	logInWith(t, s, "alice", "Laptop")
	bob := logInWith(t, s, "bob", strings.Repeat("é", 5000))
	logInWith(t, s, "alice", "Desk")
	first, second := phone.Dial(ws), phone.Dial(ws)

	all := mustSessions(t, s.Server, "alice")
	var agents []string
	for _, of := range all {
		agents = append(agents, of.Agent)
		if of.Address != "127.0.0.1" || of.Since.Before(began) || time.Now().Before(of.Since) || of.Used.Before(of.Since) || of.Handle == "" {
			t.Errorf("%+v is not a session of this test", of)
		}
	}
	// That of the open sockets, then by their last use.
	if want := []string{"Phone", "Desk", "Laptop"}; !slices.Equal(agents, want) || all[0].Sockets != 2 || all[1].Sockets != 0 {
		t.Fatalf("alice is signed in at %+v, want %v with two sockets on the first", all, want)
	}
	sockets, err := s.Server.ToUser("alice").Sockets(t.Context())
	if err != nil || len(sockets) != 2 {
		t.Fatalf("alice has %d sockets, %v; want 2", len(sockets), err)
	}
	id := sockets[0].Identity.SessionID
	if all[0].Handle != adapter.SessionHandle(id) || strings.Contains(all[0].Handle, id) {
		t.Errorf("the handle of session %q is %q, want the hash of it", id, all[0].Handle)
	}
	if of := mustSessions(t, s.Server, "bob"); len(of) != 1 || len(of[0].Agent) > 200 {
		t.Errorf("bob is signed in at %d places with an agent of %d bytes, want 1 and at most 200", len(of), len(of[0].Agent))
	}

	// Another user's handle is nothing to bob, and neither is what is none.
	for _, handle := range []string{all[0].Handle, all[1].Handle, "", "x", id} {
		if n, err := s.Server.RevokeSession(t.Context(), "bob", handle); n != 0 || !errors.Is(err, adapter.ErrUnknownSession) {
			t.Errorf("RevokeSession(bob, %q) = %d, %v; want ErrUnknownSession", handle, n, err)
		}
	}
	if n, err := s.Server.RevokeSession(t.Context(), "alice", all[2].Handle); n != 0 || err != nil {
		t.Errorf("RevokeSession of the laptop = %d, %v; want no socket", n, err)
	}
	first.Must("me", nil, new(string))

	if n, err := s.Server.RevokeSession(t.Context(), "alice", all[0].Handle); n != 2 || err != nil {
		t.Errorf("RevokeSession = %d, %v; want 2 sockets", n, err)
	}
	for _, c := range []*adaptertest.Conn{first, second} {
		if code := c.Closed(); code != 4409 {
			t.Errorf("closed with %d, want 4409", code)
		}
	}
	if status, _ := phone.Get("/me"); status != http.StatusUnauthorized {
		t.Errorf("GET /me of a session that was ended: %d, want 401", status)
	}
	if n, err := s.Server.RevokeSession(t.Context(), "alice", all[0].Handle); !errors.Is(err, adapter.ErrUnknownSession) {
		t.Errorf("RevokeSession once more = %d, %v; want ErrUnknownSession", n, err)
	}
	if left := mustSessions(t, s.Server, "alice"); len(left) != 1 || left[0].Agent != "Desk" {
		t.Errorf("alice is signed in at %+v, want the desk", left)
	}

	// What a revocation has ended is not listed, whatever the store has.
	if _, err := s.Server.Revoke(t.Context(), adapter.ByUser("alice")); err != nil {
		t.Fatal(err)
	}
	if left := mustSessions(t, s.Server, "alice"); len(left) != 0 {
		t.Errorf("after Revoke alice is signed in at %+v", left)
	}
	bob.MustPost("/logout")
	if left := mustSessions(t, s.Server, "bob"); len(left) != 0 {
		t.Errorf("after the logout bob is signed in at %+v", left)
	}
	store.fail = errors.New("down")
	if _, err := s.Server.Sessions(t.Context(), "bob"); !errors.Is(err, store.fail) {
		t.Errorf("Sessions of a store that is down: %v, want its error", err)
	}
	if _, err := s.Server.RevokeSession(t.Context(), "bob", "x"); !errors.Is(err, store.fail) || errors.Is(err, adapter.ErrUnknownSession) {
		t.Errorf("RevokeSession with a store that is down: %v, want its error", err)
	}
	if _, err := s.Server.Sessions(t.Context(), ""); err == nil {
		t.Error("Sessions of nobody have no error")
	}
}

// TestRevokeSessionWithoutSockets: a request that is under way when its session is
// ended from another device must not bring it back.
func TestRevokeSessionWithoutSockets(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newListingStore(t), nil)
	b := logInWith(t, s, "alice", "Phone")
	late := make(chan int, 1)
	go func() {
		status, _ := b.Clone().Post("/slow?key=k&value=v", nil)
		late <- status
	}()
	<-s.Slow.Entered
	handle := mustSessions(t, s.Server, "alice")[0].Handle
	if n, err := s.Server.RevokeSession(t.Context(), "alice", handle); n != 0 || err != nil {
		t.Errorf("RevokeSession = %d, %v; want no socket and no error", n, err)
	}
	s.Slow.Release <- struct{}{}
	if status := <-late; status != http.StatusGone {
		t.Errorf("the late save was answered %d, want 410", status)
	}
	if status, _ := b.Get("/me"); status != http.StatusUnauthorized {
		t.Errorf("GET /me: %d, want 401", status)
	}
}

// TestSessionsOfTokens: who shows a token has no session, and is signed in all the
// same.
func TestSessionsOfTokens(t *testing.T) {
	s := newTokenSite(t, adapter.Config{Credentials: everySource}, nil)
	dial := func(token string) *adaptertest.Conn {
		t.Helper()
		c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, http.Header{"Authorization": {"Bearer " + token}, "User-Agent": {"Robot " + token}})
		if err != nil {
			t.Fatal(err)
		}
		c.Event("connect")
		return c
	}
	one, two, other := dial("alice1"), dial("alice1"), dial("alice2")
	all := mustSessions(t, s.Server, "alice")
	slices.SortFunc(all, func(a, b adapter.SessionInfo) int { return strings.Compare(a.Agent, b.Agent) })
	if len(all) != 2 || all[0].Sockets != 2 || all[0].Agent != "Robot alice1" || all[1].Sockets != 1 || all[1].Address != "127.0.0.1" {
		t.Fatalf("alice is signed in at %+v, want a place for each token", all)
	}
	if n, err := s.Server.RevokeSession(t.Context(), "bob", all[0].Handle); n != 0 || !errors.Is(err, adapter.ErrUnknownSession) {
		t.Errorf("RevokeSession by bob = %d, %v; want ErrUnknownSession", n, err)
	}
	if n, err := s.Server.RevokeSession(t.Context(), "alice", all[0].Handle); n != 2 || err != nil {
		t.Errorf("RevokeSession = %d, %v; want 2 sockets", n, err)
	}
	one.Closed()
	two.Closed()
	other.Must("me", nil, new(string))
	if _, resp, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, http.Header{"Authorization": {"Bearer alice1"}}); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the token still opens sockets: %v", err)
	}

	// A cookie of the app's own is neither a session nor a token: shown, but
	// there is nothing to end.
	c, _, err := adaptertest.NewBrowser(t, s.URL).TryDial(ws, http.Header{"Cookie": {"jwt=bob"}})
	if err != nil {
		t.Fatal(err)
	}
	c.Event("connect")
	if all := mustSessions(t, s.Server, "bob"); len(all) != 1 || all[0].Handle != "" || all[0].Sockets != 1 {
		t.Errorf("bob is signed in at %+v, want one place without a handle", all)
	}
}

// TestSessionsOfOtherStores: of a store that cannot list its sessions, those with
// open sockets are known, and nothing is written for the others.
func TestSessionsOfOtherStores(t *testing.T) {
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), nil)
	b := logInWith(t, s, "alice", "Phone")
	if all := mustSessions(t, s.Server, "alice"); len(all) != 0 {
		t.Errorf("alice is signed in at %+v, want none that is known", all)
	}
	c := b.Dial(ws)
	all := mustSessions(t, s.Server, "alice")
	if len(all) != 1 || all[0].Sockets != 1 {
		t.Fatalf("alice is signed in at %+v, want the one with a socket", all)
	}
	var address any
	if c.Must("get", map[string]string{"key": "usher.address"}, &address); address != nil {
		t.Errorf("a session of a store that does not list has the address %v", address)
	}
	if n, err := s.Server.RevokeSession(t.Context(), "alice", all[0].Handle); n != 1 || err != nil {
		t.Errorf("RevokeSession = %d, %v; want 1 socket", n, err)
	}
	if code := c.Closed(); code != 4409 {
		t.Errorf("closed with %d, want 4409", code)
	}
	if status, _ := b.Get("/me"); status != http.StatusUnauthorized {
		t.Errorf("GET /me: %d, want 401", status)
	}
}
