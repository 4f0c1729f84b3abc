package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
)

// keyring is TokenKeys in memory; the last of order signs.
type keyring struct {
	order []string
	keys  map[string]ed25519.PrivateKey
}

func newKeyring(ids ...string) *keyring {
	k := &keyring{keys: make(map[string]ed25519.PrivateKey)}
	for _, id := range ids {
		k.add(id)
	}
	return k
}

func (k *keyring) add(id string) {
	_, key, _ := ed25519.GenerateKey(nil) // fails only with its reader, and nil's does not
	k.order, k.keys[id] = append(k.order, id), key
}

func (k *keyring) Signing() (string, ed25519.PrivateKey) {
	id := k.order[len(k.order)-1]
	return id, k.keys[id]
}

func (k *keyring) Verifying(id string) (ed25519.PublicKey, bool) {
	key, ok := k.keys[id]
	if !ok {
		return nil, false
	}
	return key.Public().(ed25519.PublicKey), true
}

var public = &url.URL{Scheme: "https", Host: "chat.example.org"}

// newTokens returns tokens of the key "k1" at a time that the test sets.
func newTokens() (t *Tokens, keys *keyring, now *time.Time) {
	keys = newKeyring("k1")
	now = new(time.Now().Truncate(time.Second))
	t = NewTokens(public, keys, 10*time.Minute)
	t.now = func() time.Time { return *now }
	return t, keys, now
}

// goodClaims are those of a token that is valid at now.
func goodClaims(now time.Time) jwt.Claims {
	return jwt.Claims{
		Issuer:   public.String(),
		Subject:  "u1",
		Audience: jwt.Audience{tokenAudience},
		Expiry:   jwt.NewNumericDate(now.Add(time.Minute)),
		IssuedAt: jwt.NewNumericDate(now),
		ID:       "j1",
	}
}

// sign makes a token of claims with any algorithm and key.
func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, claims any) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// refusedToken checks that the token names nobody, and that the error tells
// nothing of it.
func refusedToken(t testing.TB, tokens *Tokens, token string, want error) {
	t.Helper()
	id, err := tokens.verify(token)
	if !errors.Is(err, want) || id.UserID != "" {
		t.Errorf("verify = %+v, %v; want %v", id, err, want)
	}
}

func TestTokenNamesItsPerson(t *testing.T) {
	tokens, _, now := newTokens()
	token, expires, err := tokens.Issue("u1")
	if err != nil {
		t.Fatal(err)
	}
	if !expires.Equal(now.Add(10 * time.Minute)) {
		t.Errorf("expires at %v, want in 10 minutes", expires)
	}
	id, err := tokens.verify(token)
	if err != nil || id.UserID != "u1" || !id.Expires.Equal(expires) {
		t.Errorf("verify = %+v, %v", id, err)
	}
	other, _, err := tokens.Issue("u1")
	if err != nil || other == token {
		t.Errorf("two tokens are the same (%v)", err)
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"iss", "sub", "aud", "exp", "iat", "jti"} {
		if claims[name] == nil {
			t.Errorf("the token has no %s: %v", name, claims)
		}
	}
	if parsed.Headers[0].KeyID != "k1" {
		t.Errorf("the token's key is %q", parsed.Headers[0].KeyID)
	}
}

func TestTokenOfARotatedKeyIsStillGood(t *testing.T) {
	tokens, keys, _ := newTokens()
	old, _, err := tokens.Issue("u1")
	if err != nil {
		t.Fatal(err)
	}
	keys.add("k2")
	fresh, _, err := tokens.Issue("u1")
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"old": old, "new": fresh} {
		if _, err := tokens.verify(token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	delete(keys.keys, "k1")
	refusedToken(t, tokens, old, errTokenInvalid)
}

func TestTokenExpires(t *testing.T) {
	tokens, _, now := newTokens()
	token, expires, err := tokens.Issue("u1")
	if err != nil {
		t.Fatal(err)
	}
	*now = expires.Add(-time.Nanosecond)
	if _, err := tokens.verify(token); err != nil {
		t.Errorf("just before: %v", err)
	}
	for _, late := range []time.Duration{0, time.Nanosecond, time.Hour} {
		*now = expires.Add(late)
		refusedToken(t, tokens, token, errTokenExpired)
	}
}

func TestTokenWithoutAlgorithmIsRefused(t *testing.T) {
	tokens, _, now := newTokens()
	payload, err := json.Marshal(goodClaims(*now))
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + alg + `","typ":"JWT","kid":"k1"}`))
		body := base64.RawURLEncoding.EncodeToString(payload)
		for _, signature := range []string{"", "AAAA"} {
			refusedToken(t, tokens, header+"."+body+"."+signature, errTokenInvalid)
		}
	}
}

// A verifier that takes the algorithm from the token takes the public key, which
// everybody may know, for the secret of an HMAC.
func TestTokenSignedWithThePublicKeyIsRefused(t *testing.T) {
	tokens, keys, now := newTokens()
	key, _ := keys.Verifying("k1")
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{key, der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})} {
		for alg, size := range map[jose.SignatureAlgorithm]int{jose.HS256: 32, jose.HS384: 48, jose.HS512: 64} {
			if len(secret) < size {
				continue // go-jose refuses to sign; HS256 has the bare key
			}
			refusedToken(t, tokens, sign(t, alg, secret, "k1", goodClaims(*now)), errTokenInvalid)
		}
	}
}

func TestTokenOfAnotherAlgorithmIsRefused(t *testing.T) {
	tokens, _, now := newTokens()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.PS256} {
		refusedToken(t, tokens, sign(t, alg, key, "k1", goodClaims(*now)), errTokenInvalid)
	}
}

func TestTokenOfAnUnknownKeyIsRefused(t *testing.T) {
	tokens, keys, now := newTokens()
	_, key := keys.Signing()
	for _, kid := range []string{"k0", "../k1", strings.Repeat("k", 1000), ""} {
		refusedToken(t, tokens, sign(t, jose.EdDSA, key, kid, goodClaims(*now)), errTokenInvalid)
	}
	stranger := newKeyring("k1")
	refusedToken(t, tokens, sign(t, jose.EdDSA, stranger.keys["k1"], "k1", goodClaims(*now)), errTokenInvalid)
}

// The header may bring a key along (jwk), or the address of one (jku): neither is
// looked at.
func TestTokenWithAKeyOfItsOwnIsRefused(t *testing.T) {
	tokens, _, now := newTokens()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, (&jose.SignerOptions{EmbedJWK: true}).
		WithHeader("kid", "k1").WithHeader("jku", "https://evil.example/jwks"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(goodClaims(*now)).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	refusedToken(t, tokens, token, errTokenInvalid)
}

// claimsRefused signs claims with the right key.
func claimsRefused(t *testing.T, want error, change func(*jwt.Claims, time.Time)) {
	t.Helper()
	tokens, keys, now := newTokens()
	id, key := keys.Signing()
	claims := goodClaims(*now)
	if _, err := tokens.verify(sign(t, jose.EdDSA, key, id, claims)); err != nil {
		t.Fatalf("before the change: %v", err)
	}
	change(&claims, *now)
	refusedToken(t, tokens, sign(t, jose.EdDSA, key, id, claims), want)
}

func TestTokenOfAnotherIssuerIsRefused(t *testing.T) {
	for _, issuer := range []string{"https://evil.example", "http://chat.example.org", "https://chat.example.org/", "https://chat.example.org.evil.example", ""} {
		claimsRefused(t, errTokenInvalid, func(c *jwt.Claims, _ time.Time) { c.Issuer = issuer })
	}
}

func TestTokenForSomebodyElseIsRefused(t *testing.T) {
	for _, audience := range []jwt.Audience{nil, {""}, {"Usher"}, {"usher2"}, {"another", "one"}} {
		claimsRefused(t, errTokenInvalid, func(c *jwt.Claims, _ time.Time) { c.Audience = audience })
	}
}

func TestTokenOfYesterdayIsRefused(t *testing.T) {
	claimsRefused(t, errTokenExpired, func(c *jwt.Claims, now time.Time) {
		c.IssuedAt, c.Expiry = jwt.NewNumericDate(now.Add(-24*time.Hour)), jwt.NewNumericDate(now.Add(-time.Second))
	})
}

func TestTokenWithoutEndIsRefused(t *testing.T) {
	claimsRefused(t, errTokenInvalid, func(c *jwt.Claims, _ time.Time) { c.Expiry = nil })
}

func TestTokenOfTomorrowIsRefused(t *testing.T) {
	claimsRefused(t, errTokenInvalid, func(c *jwt.Claims, now time.Time) { c.NotBefore = jwt.NewNumericDate(now.Add(time.Second)) })
	claimsRefused(t, errTokenInvalid, func(c *jwt.Claims, now time.Time) { c.IssuedAt = jwt.NewNumericDate(now.Add(time.Second)) })
	claimsRefused(t, errTokenInvalid, func(c *jwt.Claims, _ time.Time) { c.IssuedAt = nil })
}

func TestTokenOfNobodyIsRefused(t *testing.T) {
	claimsRefused(t, errTokenInvalid, func(c *jwt.Claims, _ time.Time) { c.Subject = "" })
}

func TestTamperedTokenIsRefused(t *testing.T) {
	tokens, _, now := newTokens()
	token, _, err := tokens.Issue("u1")
	if err != nil {
		t.Fatal(err)
	}
	other := goodClaims(*now)
	other.Subject = "u2"
	payload, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	swapped := parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + parts[2]
	for _, bad := range []string{
		swapped, parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".", "." + parts[1] + "." + parts[2],
		token + ".", token + "A", " " + token, "", ".", "..", "alice", strings.Repeat("a", maxToken+1),
		`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
	} {
		refusedToken(t, tokens, bad, errTokenInvalid)
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range len(token) {
		b := []byte(token)
		if b[i] == '.' {
			continue
		}
		b[i] = alphabet[(strings.IndexByte(alphabet, b[i])+32)%64] // also in bits that count at the end
		if _, err := tokens.verify(string(b)); err == nil {
			t.Fatalf("the token is still good with %q at %d", b[i], i)
		}
	}
}

// bearer sends a request through Bearer and asks whose it is.
func bearer(t *testing.T, a *Auth, tokens *Tokens, authorization string) (*httptest.ResponseRecorder, *adapter.Identity) {
	t.Helper()
	var id *adapter.Identity
	e := gin.New()
	e.GET("/", tokens.Bearer, func(c *gin.Context) {
		var err error
		if id, err = a.Identity(c); err != nil {
			t.Error(err)
		}
	})
	r := httptest.NewRequest("GET", "/", nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	return w, id
}

func TestBearer(t *testing.T) {
	s := newSite(t, devProvider(t))
	u, err := s.users.UpsertUser(t.Context(), app.Profile{Provider: "dev", Subject: "s", Name: "Alice"})
	if err != nil {
		t.Fatal(err)
	}
	tokens, _, now := newTokens()
	token, expires, err := tokens.Issue(u.ID)
	if err != nil {
		t.Fatal(err)
	}
	gone, _, err := tokens.Issue("no such person")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		authorization string
		status        int
		user          string
	}{
		"token":               {"Bearer " + token, 200, u.ID},
		"scheme in any case":  {"bEARER  " + token, 200, u.ID},
		"nobody":              {"", 200, ""},
		"another scheme":      {"Basic YWxpY2U6", 200, ""},
		"bad token":           {"Bearer " + token + "x", 401, ""},
		"no token":            {"Bearer", 401, ""},
		"person who has left": {"Bearer " + gone, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, id := bearer(t, s.Auth, tokens, tt.authorization)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			switch {
			case tt.user == "" && id != nil, tt.user != "" && (id == nil || id.UserID != tt.user):
				t.Errorf("identity = %+v, want %q", id, tt.user)
			case id != nil && (id.User != u || !id.Expires.Equal(expires)):
				t.Errorf("identity = %+v, want %+v until %v", id, u, expires)
			}
			if tt.status == 401 && (w.Header().Get("WWW-Authenticate") == "" || !strings.Contains(w.Body.String(), `"code":"unauthenticated"`)) {
				t.Errorf("refused with %v %s", w.Header(), w.Body)
			}
			if strings.Contains(w.Body.String(), token) {
				t.Errorf("the answer has the token: %s", w.Body)
			}
		})
	}
	*now = expires
	if w, _ := bearer(t, s.Auth, tokens, "Bearer "+token); w.Code != 401 || !strings.Contains(w.Body.String(), "expired") {
		t.Errorf("an expired token: %d %s", w.Code, w.Body)
	}
}

func TestTokenLogin(t *testing.T) {
	s := newSite(t, devProvider(t))
	tokens, _, now := newTokens()
	s.engine.POST("/api/login", s.TokenLogin(tokens, func(user string) (app.Profile, error) {
		if user != "alice" {
			return app.Profile{}, errors.New("nobody")
		}
		return app.Profile{Provider: "dev", Subject: "s", Name: " Alice\n", Avatar: s.url.String() + "/a.svg"}, nil
	}))
	login := func(kind, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/api/login", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		s.engine.ServeHTTP(w, r)
		return w
	}
	w := login("application/json; charset=utf-8", `{"user":"alice"}`)
	var got struct {
		Token   string
		Expires time.Time
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("answer = %d %s", w.Code, w.Body)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("the answer may be cached")
	}
	id, err := tokens.verify(got.Token)
	if err != nil || !id.Expires.Equal(got.Expires) || !got.Expires.Equal(now.Add(10*time.Minute)) {
		t.Errorf("verify = %+v, %v; the answer says until %v", id, err, got.Expires)
	}
	if u, err := s.users.User(context.Background(), id.UserID); err != nil || u.Name != "Alice" || u.Avatar != "/a.svg" {
		t.Errorf("the person is %+v, %v", u, err)
	}
	for name, tt := range map[string]struct{ kind, body string }{
		"form":               {"application/x-www-form-urlencoded", "user=alice"},
		"JSON as plain text": {"text/plain", `{"user":"alice"}`},
		"no type":            {"", `{"user":"alice"}`},
		"nobody":             {"application/json", `{}`},
		"stranger":           {"application/json", `{"user":"mallory"}`},
		"no JSON":            {"application/json", `user=alice`},
		"too long":           {"application/json", `{"pad":"` + strings.Repeat("x", maxLoginBody) + `","user":"alice"}`},
	} {
		if w := login(tt.kind, tt.body); w.Code != http.StatusBadRequest || strings.Contains(w.Body.String(), "token\":") {
			t.Errorf("%s: %d %s, want 400", name, w.Code, w.Body)
		}
	}
	s.users.err = errors.New("down")
	if w := login("application/json", `{"user":"alice"}`); w.Code != http.StatusServiceUnavailable {
		t.Errorf("without the database: %d %s, want 503", w.Code, w.Body)
	}
}
