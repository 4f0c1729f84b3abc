package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// fakeIssuer is an OpenID Connect issuer that answers what a test makes it
// answer. It has no pages: tests call back with any code.
type fakeIssuer struct {
	url string
	key *rsa.PrivateKey

	// Set before the first request.
	discovery func(map[string]any)                                   // changes the document
	claims    func(map[string]any)                                   // changes the ID token's claims
	sign      func(t testing.TB, claims map[string]any) string       // replaces the signature
	userInfo  map[string]any                                         // nil = no such endpoint
	token     func(w http.ResponseWriter, r *http.Request) (ok bool) // answers instead
	jwks      http.HandlerFunc                                       // answers instead

	mu     sync.Mutex
	nonce  string
	posted url.Values // of the last token request
	basic  [2]string
	asked  int // discovery requests
}

var issuerKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

const secret, clientID = "s3cret:&", "a client"

// newIssuer starts an issuer; tests may set its fields before they log in.
func newIssuer(t testing.TB) *fakeIssuer {
	t.Helper()
	i := &fakeIssuer{key: issuerKey()}
	server := httptest.NewUnstartedServer(i.handler(t))
	i.url = "http://" + server.Listener.Addr().String()
	server.Start()
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		server.Close()
	})
	return i
}

func (i *fakeIssuer) handler(t testing.TB) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		i.asked++
		i.mu.Unlock()
		doc := map[string]any{
			"issuer": i.url, "authorization_endpoint": i.url + "/authorize", "token_endpoint": i.url + "/token", "jwks_uri": i.url + "/jwks",
			// A careless issuer offers these too.
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		}
		if i.userInfo != nil {
			doc["userinfo_endpoint"] = i.url + "/userinfo"
		}
		if i.discovery != nil {
			i.discovery(doc)
		}
		answerJSON(w, doc)
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		if i.jwks != nil {
			i.jwks(w, r)
			return
		}
		answerJSON(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer access" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		answerJSON(w, i.userInfo)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		i.mu.Lock()
		i.posted = r.PostForm
		i.basic[0], i.basic[1], _ = r.BasicAuth()
		nonce := i.nonce
		i.mu.Unlock()
		if i.token != nil && i.token(w, r) {
			return
		}
		claims := map[string]any{
			"iss": i.url, "sub": "subject-1", "aud": clientID, "nonce": nonce,
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
			"name": "Ada Lovelace", "picture": "https://pictures.example/ada.png",
		}
		if i.claims != nil {
			i.claims(claims)
		}
		var idToken string
		if i.sign != nil {
			idToken = i.sign(t, claims)
		} else {
			idToken = signed(t, jose.RS256, i.key, claims)
		}
		answerJSON(w, map[string]any{"access_token": "access", "token_type": "Bearer", "expires_in": 60, "refresh_token": "refresh", "id_token": idToken})
	})
	return mux
}

// signed is claims as a JWT of the issuer's key id.
func signed(t testing.TB, alg jose.SignatureAlgorithm, key any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// provider is a client of the issuer.
func (i *fakeIssuer) provider(t testing.TB, change ...func(*OIDCConfig)) func(*url.URL) []Provider {
	return func(public *url.URL) []Provider {
		cfg := OIDCConfig{Name: "oidc", Label: "Example", Issuer: i.url, PublicURL: public, ClientID: clientID, ClientSecret: secret}
		for _, f := range change {
			f(&cfg)
		}
		p, err := OIDC(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return []Provider{p}
	}
}

// login begins at the site and calls back with a code, as the issuer's pages
// would make the browser do.
func (i *fakeIssuer) login(b *browser, extra ...string) answer {
	b.t.Helper()
	q := b.begin("/login/oidc").Query()
	i.mu.Lock()
	i.nonce = q.Get("nonce")
	i.mu.Unlock()
	to := "/login/oidc/callback?code=the-code&state=" + q.Get("state")
	for _, e := range extra {
		to += e
	}
	return b.get(to)
}
