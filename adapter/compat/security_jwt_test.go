package compat

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ginjwt "github.com/appleboy/gin-jwt/v3"
	"github.com/gin-gonic/gin"
	jwt "github.com/golang-jwt/jwt/v5"

	"github.com/gin-usher/usher/adapter"
)

// A tokenDoor is a server whose people appleboy/gin-jwt knows by tokens of RS256,
// with the issuer and audience that the app checks.
type tokenDoor struct {
	url string
	srv *adapter.Server
	key *rsa.PrivateKey
}

func newTokenDoor(t *testing.T) *tokenDoor {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	private, public := filepath.Join(dir, "private.pem"), filepath.Join(dir, "public.pem")
	for file, block := range map[string]*pem.Block{
		private: {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)},
		public:  {Type: "PUBLIC KEY", Bytes: publicDER(t, key)},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mw, err := ginjwt.New(&ginjwt.GinJWTMiddleware{
		Realm: "chat", SigningAlgorithm: "RS256", PrivKeyFile: private, PubKeyFile: public,
		Timeout: time.Hour, IdentityKey: "user",
		ParseOptions:  []jwt.ParserOption{jwt.WithIssuer("https://chat.example"), jwt.WithAudience("chat"), jwt.WithExpirationRequired()},
		Authenticator: func(*gin.Context) (any, error) { return nil, ginjwt.ErrFailedAuthentication },
	})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := adapter.New(adapter.Config{
		Credentials: []adapter.Source{adapter.Query("token"), adapter.Subprotocol("bearer"), adapter.AuthPayload("token"), adapter.FirstMessage()},
		Logger:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	srv.Use(mw.MiddlewareFunc())
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		user, _ := ginjwt.ExtractClaims(c)["user"].(string)
		if user == "" {
			return nil, nil
		}
		return &adapter.Identity{UserID: user}, nil
	})
	r := gin.New()
	srv.Mount(r)
	return &tokenDoor{serve(t, r, new(buffer)), srv, key}
}

func publicDER(t *testing.T, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// places are where a token may stand; open reports whether it lets a socket in.
var places = []struct {
	name string
	open func(b *browser, token string) bool
}{
	{"header", func(b *browser, token string) bool {
		b.dress = withHeader("Authorization", "Bearer "+token)
		return b.letsIn(plainPath, "")
	}},
	{"query", func(b *browser, token string) bool { return b.letsIn(plainPath+"?token="+token, "") }},
	{"subprotocol", func(b *browser, token string) bool {
		b.dress = withHeader("Sec-Websocket-Protocol", "bearer, "+token)
		return b.letsIn(plainPath, "")
	}},
	{"first message", func(b *browser, token string) bool {
		return b.letsIn(plainPath, `{"type":"authenticate","token":"`+token+`","id":1}`)
	}},
	{"auth", func(b *browser, token string) bool {
		return b.letsIn(enginePath+"?EIO=4&transport=websocket", `40{"token":"`+token+`"}`)
	}},
}

// letsIn opens a WebSocket, says first, and reports whether it is told that it is
// connected.
func (b *browser) letsIn(path, first string) bool {
	b.t.Helper()
	ws, _ := b.dial(path)
	if ws == nil {
		return false
	}
	defer ws.Close()
	s := &socket{b: b, ws: ws}
	if first != "" {
		if strings.HasPrefix(path, enginePath+"?") {
			s.next() // the open packet
		}
		s.write(first)
	}
	for {
		_, text, err := ws.ReadMessage()
		switch got := string(text); {
		case err != nil, strings.HasPrefix(got, "44"), strings.Contains(got, `"error"`):
			return false
		case strings.HasPrefix(got, `40{"sid":`), strings.Contains(got, `"connect"`):
			return true
		}
	}
}

// TestSecurityJWT: every forged, stale and misdirected token is refused by an
// unmodified JWT middleware, wherever the token stands (RFC 8725).
func TestSecurityJWT(t *testing.T) {
	door := newTokenDoor(t)
	now := time.Now()
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{
			"user": "alice", "iss": "https://chat.example", "aud": "chat", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "orig_iat": now.Unix(),
		}
		if change != nil {
			change(c)
		}
		return c
	}
	sign := func(method jwt.SigningMethod, key any, c jwt.MapClaims, header ...string) string {
		t.Helper()
		token := jwt.NewWithClaims(method, c)
		for i := 0; i < len(header); i += 2 {
			token.Header[header[i]] = header[i+1]
		}
		text, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	set := func(name string, value any) jwt.MapClaims {
		return claims(func(c jwt.MapClaims) { c[name] = value })
	}
	good := sign(jwt.SigningMethodRS256, door.key, claims(nil))
	parts := strings.Split(good, ".")
	der := publicDER(t, door.key)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(header string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "." + parts[2]
	}
	flipped := []byte(good)
	flipped[len(parts[0])+5] ^= 1

	for _, tt := range []struct{ name, token string }{
		{"expired", sign(jwt.SigningMethodRS256, door.key, set("exp", now.Add(-time.Minute).Unix()))},
		{"without end", sign(jwt.SigningMethodRS256, door.key, claims(func(c jwt.MapClaims) { delete(c, "exp") }))},
		{"not yet valid", sign(jwt.SigningMethodRS256, door.key, set("nbf", now.Add(time.Hour).Unix()))},
		{"wrong audience", sign(jwt.SigningMethodRS256, door.key, set("aud", "shop"))},
		{"no audience", sign(jwt.SigningMethodRS256, door.key, claims(func(c jwt.MapClaims) { delete(c, "aud") }))},
		{"wrong issuer", sign(jwt.SigningMethodRS256, door.key, set("iss", "https://evil.example"))},
		{"algorithm none", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(nil))},
		{"HS256 with the public key", sign(jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), claims(nil))},
		{"HS256 with its DER", sign(jwt.SigningMethodHS256, der, claims(nil))},
		{"another RSA algorithm", sign(jwt.SigningMethodRS512, door.key, claims(nil))},
		{"PS256", sign(jwt.SigningMethodPS256, door.key, claims(nil))},
		{"ES256", sign(jwt.SigningMethodES256, curve, claims(nil))},
		{"EdDSA", sign(jwt.SigningMethodEdDSA, edwards, claims(nil))},
		{"another key", sign(jwt.SigningMethodRS256, stranger, claims(nil))},
		{"another key by jku", sign(jwt.SigningMethodRS256, stranger, claims(nil), "jku", "https://evil.example/jwks", "kid", "../../dev/null")},
		{"header says none", raw(`{"alg":"none"}`)},
		{"header says HS256", raw(`{"alg":"HS256"}`)},
		{"no signature", parts[0] + "." + parts[1] + "."},
		{"another payload", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"user":"admin","exp":99999999999}`)) + "." + parts[2]},
		{"a bit", string(flipped)},
		{"cut", good[:len(good)-10]},
		{"huge", good + strings.Repeat("A", 60<<10)},
		{"of nobody", sign(jwt.SigningMethodRS256, door.key, claims(func(c jwt.MapClaims) { delete(c, "user") }))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, p := range places {
				if p.open(newBrowser(t, door.url, nil), tt.token) {
					t.Errorf("from %s: let in", p.name)
				}
			}
		})
	}
	for _, p := range places {
		if !p.open(newBrowser(t, door.url, nil), good) {
			t.Errorf("the true one from %s: refused", p.name)
		}
	}
}

// TestSecurityRevokedTokenRespelled: the last letter of a signature has bits that
// decoders ignore, so a token that was revoked has other spellings that verify.
func TestSecurityRevokedTokenRespelled(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	door := newTokenDoor(t)
	issue := func(id string) string {
		token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
			"user": "alice", "iss": "https://chat.example", "aud": "chat", "exp": time.Now().Add(time.Hour).Unix(), "jti": id,
		}).SignedString(door.key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	token, other := issue("1"), issue("2")
	last := strings.IndexByte(alphabet, token[len(token)-1])
	spelled := func(i int) string { return token[:len(token)-1] + string(alphabet[last&^15|i]) }
	for i := range 16 {
		if !places[0].open(newBrowser(t, door.url, nil), spelled(i)) {
			t.Fatalf("%q is no other spelling: the test tries less than it says", alphabet[last&^15|i])
		}
	}
	if _, err := door.srv.Revoke(t.Context(), adapter.ByToken(spelled(15-last&15))); err != nil {
		t.Fatal(err)
	}
	for i := range 16 {
		for _, p := range places {
			if p.open(newBrowser(t, door.url, nil), spelled(i)) {
				t.Errorf("spelling %d from %s: let in", i, p.name)
			}
		}
	}
	for _, p := range places {
		if !p.open(newBrowser(t, door.url, nil), other) {
			t.Errorf("another token of hers from %s: refused", p.name)
		}
	}
}
