package adapter_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/adapter/adaptertest"
)

// TestLoginWhileAPollIsChecked: a poll that shows another cookie of the app's has the
// chain asked. A login that came in between had the connection bound back to the
// session that was over by then, and closed.
func TestLoginWhileAPollIsChecked(t *testing.T) {
	var held atomic.Bool
	gate := adaptertest.NewGate()
	defer gate.Open()
	s := adaptertest.NewSite(t, adapter.Config{}, newMemstore(t), func(s *adaptertest.Site) {
		s.Amend = func(*adapter.Identity) {
			if held.Swap(false) {
				gate.Pass()
			}
		}
	})
	alice := s.NewBrowser(t, "alice")
	sid := "&sid=" + engineOpen(t, alice)
	cookie := ""
	for _, c := range alice.Cookies() {
		cookie += c.Name + "=" + c.Value + "; "
	}
	early := s.NewBrowser(t, "") // the same client, with the cookies of that moment
	post := func(b *adaptertest.Browser, header http.Header) {
		t.Helper()
		if status, body, _ := engineDo(t, b, "POST", enginePath+sid, `421["me",null]`, header); status != http.StatusOK {
			t.Errorf("POST: %d %s", status, body)
		}
	}
	held.Store(true)
	var checked sync.WaitGroup
	checked.Go(func() { post(early, http.Header{"Cookie": {cookie + "theme=dark"}}) })
	<-gate.Entered
	alice.MustPost("/login?user=alice")
	gate.Release <- struct{}{}
	checked.Wait()

	if _, body, _ := engineDo(t, alice, "GET", enginePath+sid, "", nil); body != `431["alice"]` {
		t.Errorf("the poll after the login was answered %s", body)
	}
	post(alice, nil)
	if _, body, _ := engineDo(t, alice, "GET", enginePath+sid, "", nil); body != `431["alice"]` {
		t.Errorf("the next poll was answered %s", body)
	}
}
