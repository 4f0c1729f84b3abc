package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// signRaw makes a token of a header and claims as they are written, with the key
// that is believed.
func signRaw(keys *keyring, header, claims string) string {
	_, key := keys.Signing()
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(signed)))
}

// TestSecurityTokenDuplicateNames: a name that stands twice is read by one parser
// as the first and by another as the last (RFC 7515, section 4; RFC 7519,
// section 4), so it stands nowhere, whoever has signed it.
func TestSecurityTokenDuplicateNames(t *testing.T) {
	tokens, keys, now := newTokens()
	const header = `{"alg":"EdDSA","typ":"JWT","kid":"k1"}`
	good, err := json.Marshal(goodClaims(*now))
	if err != nil {
		t.Fatal(err)
	}
	claims := string(good)
	if _, err := tokens.verify(signRaw(keys, header, claims)); err != nil {
		t.Fatalf("without duplicates: %v", err)
	}
	with := func(member string) string { return strings.TrimSuffix(claims, "}") + "," + member + "}" }
	for _, bad := range []string{
		with(`"sub":"admin"`), with(`"exp":99999999999`), with(`"aud":"usher"`), with(`"iss":"` + public.String() + `"`),
	} {
		refusedToken(t, tokens, signRaw(keys, header, bad), errTokenInvalid)
	}
	for _, bad := range []string{
		`{"alg":"none","alg":"EdDSA","kid":"k1"}`, `{"alg":"EdDSA","alg":"none","kid":"k1"}`, `{"alg":"EdDSA","kid":"k0","kid":"k1"}`,
	} {
		refusedToken(t, tokens, signRaw(keys, bad, claims), errTokenInvalid)
	}
	// Nor is a name another one in other letters.
	refusedToken(t, tokens, signRaw(keys, header, strings.Replace(claims, `"sub"`, `"SUB"`, 1)), errTokenInvalid)
}

// TestSecurityTokenHeader: nothing in a header changes how its token is verified
// (RFC 8725, section 3.1), and what is said to be critical and is not understood
// is refused (RFC 7515, section 4.1.11).
func TestSecurityTokenHeader(t *testing.T) {
	tokens, keys, now := newTokens()
	good, err := json.Marshal(goodClaims(*now))
	if err != nil {
		t.Fatal(err)
	}
	claims := string(good)
	for _, alg := range []string{"none", "HS256", "RS256", "PS256", "ES256", "ES512", "Ed25519", "Ed448", "eddsa", "EdDSA ", "dir", "A256GCMKW", "null"} {
		refusedToken(t, tokens, signRaw(keys, fmt.Sprintf(`{"alg":%q,"kid":"k1"}`, alg), claims), errTokenInvalid)
	}
	for _, header := range []string{
		`{"alg":["EdDSA"],"kid":"k1"}`, `{"alg":null,"kid":"k1"}`, `{"kid":"k1"}`, `{}`, `[]`, `"EdDSA"`, ``,
		`{"alg":"EdDSA","kid":"k1","crit":["exp"],"exp":1}`, `{"alg":"EdDSA","kid":"k1","crit":["x"],"x":1}`, `{"alg":"EdDSA","kid":"k1","crit":"x"}`,
		`{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}`, `{"alg":"EdDSA","kid":{"k1":1}}`, `{"alg":"EdDSA","kid":1}`,
		`{"alg":"EdDSA","kid":"../k1"}`, `{"alg":"EdDSA","kid":"/dev/null"}`, `{"alg":"EdDSA","kid":"k1\u0000"}`, `{"alg":"EdDSA","kid":"k1' OR '1'='1"}`,
		`{"alg":"EdDSA","kid":"k1","pad":"` + strings.Repeat("x", maxToken) + `"}`,
	} {
		refusedToken(t, tokens, signRaw(keys, header, claims), errTokenInvalid)
	}
	// Keys and addresses of keys are not looked at, even beside a good signature.
	for _, more := range []string{`"jku":"https://evil.example/jwks"`, `"x5u":"https://evil.example/cert"`} {
		if _, err := tokens.verify(signRaw(keys, `{"alg":"EdDSA","kid":"k1",`+more+`}`, claims)); err != nil {
			t.Errorf("%s: %v, want it ignored", more, err)
		}
	}
}

// TestSecurityTokenOfAnotherKind: a token that is encrypted, or of an elliptic
// curve under the id of our key, is none.
func TestSecurityTokenOfAnotherKind(t *testing.T) {
	tokens, keys, now := newTokens()
	for alg, curve := range map[jose.SignatureAlgorithm]elliptic.Curve{jose.ES256: elliptic.P256(), jose.ES512: elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		refusedToken(t, tokens, sign(t, alg, key, "k1", goodClaims(*now)), errTokenInvalid)
	}
	public, _ := keys.Verifying("k1")
	enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.DIRECT, Key: []byte(public), KeyID: "k1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(goodClaims(*now))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := enc.Encrypt(body)
	if err != nil {
		t.Fatal(err)
	}
	token, err := sealed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	refusedToken(t, tokens, token, errTokenInvalid)
}
