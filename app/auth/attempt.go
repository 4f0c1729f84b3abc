package auth

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/securecookie"
)

const (
	attemptLife = 10 * time.Minute // to type a password and find the phone with the second factor
	maxAttempts = 5                // logins under way in the tabs of one browser
	maxUsed     = 10_000           // used states remembered
)

// attempt is a login under way: what must survive the visit to the provider.
type attempt struct {
	State    string
	Provider string
	Session  string // goth's: for our providers, nonce and PKCE verifier
	Next     string // checked by localPath
	Started  time.Time
}

// attempts keeps logins under way in cookies of the browsers that began them,
// encrypted and signed. Each has a cookie of its own, named by its state, so
// that parallel tabs do not overwrite one another; a browser keeps at most
// maxAttempts, and the oldest makes room.
//
// A used state is remembered until its cookie has expired, because a deleted
// cookie is only a request to the browser: whoever copied the cookie and the
// callback's URL could present both again. The memory is this process's and
// bounded, the oldest going first; behind it, the provider's codes are
// single-use too.
type attempts struct {
	codecs []securecookie.Codec
	secure bool
	prefix string // of cookie names
	path   string
	now    func() time.Time

	mu   sync.Mutex
	used map[string]time.Time // cookie name → when it may be forgotten
	fifo []string             // keys of used, oldest first
}

func newAttempts(keys [][]byte, secure bool, now func() time.Time) (*attempts, error) {
	if len(keys) == 0 {
		keys = [][]byte{securecookie.GenerateRandomKey(32)}
	}
	a := &attempts{secure: secure, now: now, used: make(map[string]time.Time)}
	if secure {
		// __Host- promises that no sibling domain planted the cookie, which
		// would log a victim in as the attacker. It demands Path=/, so other
		// requests carry the cookie too, for ten minutes at the most.
		a.prefix, a.path = "__Host-login-", "/"
	} else {
		a.prefix, a.path = "login-", "/login/"
	}
	for i, key := range keys {
		if len(key) < 32 {
			return nil, fmt.Errorf("auth: key %d has %d bytes, want at least 32", i, len(key))
		}
		// Derived, so that a secret which also serves the session store seals
		// nothing that could be taken for one of its cookies.
		derived, err := hkdf.Key(sha256.New, key, nil, "usher login cookie", 64)
		if err != nil {
			return nil, fmt.Errorf("auth: derive cookie key: %w", err)
		}
		codec := securecookie.New(derived[:32], derived[32:])
		codec.SetSerializer(securecookie.NopEncoder{})
		codec.MaxAge(int(attemptLife.Seconds()))
		a.codecs = append(a.codecs, codec)
	}
	return a, nil
}

// save gives the browser the cookie of at, which starts now.
func (a *attempts) save(w http.ResponseWriter, r *http.Request, at attempt) error {
	at.Started = a.now()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // \u0026 for every & of a query would not fit into a cookie
	if err := enc.Encode(at); err != nil {
		return fmt.Errorf("encode attempt: %w", err)
	}
	name := a.cookieName(at.State)
	value, err := securecookie.EncodeMulti(name, buf.Bytes(), a.codecs...)
	if err != nil {
		return fmt.Errorf("seal attempt: %w", err)
	}
	a.prune(w, r)
	a.setCookie(w, name, value, int(attemptLife.Seconds()))
	return nil
}

// prune deletes the oldest attempts of the browser until there is room for one
// more. Cookies that cannot be opened are let be: on localhost they may belong
// to another program, and they expire by themselves.
func (a *attempts) prune(w http.ResponseWriter, r *http.Request) {
	type aged struct {
		name    string
		started time.Time
	}
	var kept []aged
	for _, cookie := range r.Cookies() {
		if !strings.HasPrefix(cookie.Name, a.prefix) {
			continue
		}
		at, err := a.open(cookie)
		if err == nil {
			kept = append(kept, aged{cookie.Name, at.Started})
		}
	}
	slices.SortFunc(kept, func(x, y aged) int { return x.started.Compare(y.started) })
	for len(kept) >= maxAttempts {
		a.setCookie(w, kept[0].name, "", -1)
		kept = kept[1:]
	}
}

// take returns the attempt that state belongs to and ends it: the cookie is
// deleted, and the state is never taken again.
func (a *attempts) take(w http.ResponseWriter, r *http.Request, state string) (attempt, error) {
	if state == "" {
		return attempt{}, errors.New("no state")
	}
	name := a.cookieName(state)
	cookie, err := r.Cookie(name)
	if err != nil {
		return attempt{}, errors.New("no cookie for this state")
	}
	a.setCookie(w, name, "", -1)
	at, err := a.open(cookie)
	if err != nil {
		return attempt{}, err
	}
	// The name is a hash of the state, but it is the sealed copy that counts.
	if subtle.ConstantTimeCompare([]byte(at.State), []byte(state)) != 1 {
		return attempt{}, errors.New("wrong state")
	}
	if !a.use(name) {
		return attempt{}, errors.New("state was used before")
	}
	return at, nil
}

// open unseals a cookie that has not expired.
func (a *attempts) open(cookie *http.Cookie) (attempt, error) {
	var at attempt
	var raw []byte
	if err := securecookie.DecodeMulti(cookie.Name, cookie.Value, &raw, a.codecs...); err != nil {
		return at, fmt.Errorf("open attempt: %w", err)
	}
	if err := json.Unmarshal(raw, &at); err != nil {
		return at, fmt.Errorf("decode attempt: %w", err)
	}
	if a.now().Sub(at.Started) > attemptLife {
		return at, errors.New("attempt expired")
	}
	return at, nil
}

// use reports whether this is the first use of the state behind name.
func (a *attempts) use(name string) bool {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.fifo) > 0 && (len(a.fifo) >= maxUsed || now.After(a.used[a.fifo[0]])) {
		delete(a.used, a.fifo[0])
		a.fifo = a.fifo[1:]
	}
	if _, ok := a.used[name]; ok {
		return false
	}
	// The attempt began before now, so it expires before this does.
	a.used[name] = now.Add(attemptLife)
	a.fifo = append(a.fifo, name)
	return true
}

// cookieName hashes the state: it is a secret of the browser, and names of
// cookies end up in more logs than their values.
func (a *attempts) cookieName(state string) string {
	sum := sha256.Sum256([]byte(state))
	return a.prefix + hex.EncodeToString(sum[:16])
}

func (a *attempts) setCookie(w http.ResponseWriter, name, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name:     name,
		Value:    value,
		Path:     a.path,
		MaxAge:   maxAge,
		Secure:   a.secure,
		HttpOnly: true,
		// Lax, not Strict: the callback is a navigation that comes from the
		// provider's site.
		SameSite: http.SameSiteLaxMode,
	})
}
