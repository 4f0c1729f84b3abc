package adapter

import (
	"context"
	"fmt"
	"net/http"
	"time"

	gsessions "github.com/gorilla/sessions"
)

// dropLater returns what deletes a session by its id, where the store has ids: later,
// when sockets that have its cookie now may be closed or follow another session. Some
// stores find a session by its cookie alone (gorm's does): that of a socket on it.
// Without one their row stays, behind its tombstone.
func (st *store) dropLater(id string) func(context.Context) error {
	if st.inCookie.Load() {
		return func(context.Context) error { return nil } // the tombstone is all there is
	}
	header := make(http.Header)
	name := "session"
	for _, sock := range st.srv.follow.sockets(id) {
		if ref, _ := sock.session(); ref.store == st {
			name = ref.name
			header.Set("Cookie", sock.shake.Load().cookies)
			break
		}
	}
	return func(ctx context.Context) error { return st.dropRow(ctx, name, id, header) }
}

// dropRow deletes a session, with the header by which some stores find it.
func (st *store) dropRow(ctx context.Context, name, id string, header http.Header) error {
	gone := gsessions.NewSession(st.inner, name)
	gone.ID, gone.Options = id, expired(nil)
	return st.drop((&http.Request{Header: header}).WithContext(ctx), &nullWriter{}, gone)
}

// drop deletes a session, and has its cookie taken back in the answer w.
func (st *store) drop(r *http.Request, w http.ResponseWriter, session *gsessions.Session) error {
	ctx, cancel := outlasting(r.Context())
	defer cancel()
	err := st.inner.Save(r.WithContext(ctx), w, session)
	if err == nil {
		err = st.ping(ctx)
	}
	if err != nil {
		return fmt.Errorf("adapter: delete session: %w", err)
	}
	return nil
}

// outlasting returns the context in which a session is deleted: it ends dropTimeout
// later than ctx. A session is deleted also if whoever has asked for it has gone: a
// browser that is closed behind its logout, a handler whose own socket hangs on it.
func outlasting(ctx context.Context) (context.Context, context.CancelFunc) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		late := time.NewTimer(dropTimeout)
		defer late.Stop()
		select {
		case <-late.C:
			cancel()
		case <-lasting.Done():
		}
	})
	return lasting, func() {
		stop()
		cancel()
	}
}
