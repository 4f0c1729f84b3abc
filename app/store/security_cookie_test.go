package store

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/securecookie"
)

// refusedCookie checks that a cookie opens no session, and is told from a
// database that does not answer.
func refusedCookie(t *testing.T, b *browser, what, value string) {
	t.Helper()
	b.cookie = &http.Cookie{Name: "sid", Value: value}
	s, err := b.load()
	if s == nil || !s.IsNew || s.ID != "" || len(s.Values) != 0 {
		t.Errorf("%s: session %+v, want a new one", what, s)
	}
	if decode, ok := errors.AsType[securecookie.Error](err); !ok || !decode.IsDecode() {
		t.Errorf("%s: %v, want the error of a forged cookie", what, err)
	}
}

// TestSecurityForgedCookie: no bit of a cookie may change, and none be missing.
func TestSecurityForgedCookie(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	db := openTest(t)
	b := newBrowser(t, db)
	b.set("user", "alice")
	good := b.cookie.Value
	for n := range len(good) {
		if n > 0 {
			refusedCookie(t, b, "cut", good[:n])
		}
		for bit := range 6 {
			at := strings.IndexByte(alphabet, good[n])
			if at < 0 || n == len(good)-1 || good[n+1] == '=' {
				continue // the last letter has bits that count for nothing
			}
			changed := []byte(good)
			changed[n] = alphabet[at^1<<bit]
			refusedCookie(t, b, "another bit", string(changed))
		}
	}
	refusedCookie(t, b, "doubled", good+good)
	refusedCookie(t, b, "oversize", good+strings.Repeat("A", 64<<10))
	b.cookie = &http.Cookie{Name: "sid", Value: good}
	if got := b.get("user"); got != "alice" {
		t.Errorf("the true one has %v", got)
	}
}

// TestSecurityRemovedSecret: what only a key that was taken away has signed is
// forged.
func TestSecurityRemovedSecret(t *testing.T) {
	db := openTest(t)
	b := newBrowser(t, db)
	b.set("user", "alice")
	old := b.cookie.Value
	fresh := bytes.Repeat([]byte("k"), 32)
	b.store = db.Sessions(fresh, nil, testKey, nil)
	if got := b.get("user"); got != "alice" {
		t.Errorf("with the old key beside the new one the session has %v", got)
	}
	b.store = db.Sessions(fresh)
	refusedCookie(t, b, "old key", old)
}

// TestSecuritySessionPuzzling: the cookie of another app on the same database is
// forged here, for its name or for its key.
func TestSecuritySessionPuzzling(t *testing.T) {
	db := openTest(t)
	b := newBrowser(t, db)
	b.set("user", "admin")
	value := b.cookie.Value
	r := b.request()
	r.Header.Set("Cookie", "other="+value)
	if s, err := b.store.New(r, "other"); err == nil || !s.IsNew {
		t.Errorf("under another name: %+v, %v", s, err)
	}
	b.store = db.Sessions([]byte("the key of another app, 32 bytes"))
	refusedCookie(t, b, "another key", value)
}
