package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gin-usher/usher/app"
)

func TestOIDC(t *testing.T) {
	i := newIssuer(t)
	s := newSite(t, i.provider(t))
	b := s.browser(t)
	challenge := ""
	i.token = func(_ http.ResponseWriter, r *http.Request) bool {
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		challenge = base64.RawURLEncoding.EncodeToString(sum[:])
		return false
	}
	at := b.begin("/login/oidc")
	i.nonce = at.Query().Get("nonce")
	b.get("/login/oidc/callback?code=the-code&state=" + at.Query().Get("state")).location(t)

	if want := at.Query().Get("code_challenge"); challenge != want || want == "" {
		t.Errorf("challenge of the verifier = %q, want %q", challenge, want)
	}
	if i.posted.Get("code") != "the-code" || i.posted.Get("grant_type") != "authorization_code" || i.posted.Get("redirect_uri") != s.url.String()+"/login/oidc/callback" {
		t.Errorf("token request = %v", i.posted)
	}
	// RFC 6749, 2.3.1: form-encoded inside Basic.
	if id, err := url.QueryUnescape(i.basic[0]); id != clientID || err != nil {
		t.Errorf("client id = %q", i.basic[0])
	}
	if pw, err := url.QueryUnescape(i.basic[1]); pw != secret || err != nil {
		t.Errorf("client secret = %q", i.basic[1])
	}
	want := app.Profile{Provider: "oidc", Subject: "subject-1", Name: "Ada Lovelace", Avatar: "https://pictures.example/ada.png"}
	if got := s.users.last(t); got != want {
		t.Errorf("profile = %+v, want %+v", got, want)
	}
}

// Whatever is wrong with the ID token, nobody is logged in.
func TestIDTokenRefused(t *testing.T) {
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	set := func(key string, value any) func(*fakeIssuer) {
		return func(i *fakeIssuer) { i.claims = func(c map[string]any) { c[key] = value } }
	}
	sign := func(f func(t testing.TB, claims map[string]any) string) func(*fakeIssuer) {
		return func(i *fakeIssuer) { i.sign = f }
	}
	for name, change := range map[string]func(*fakeIssuer){
		"nonce mismatch":        set("nonce", "of-another-login"),
		"nonce missing":         func(i *fakeIssuer) { i.claims = func(c map[string]any) { delete(c, "nonce") } },
		"nonce empty":           set("nonce", ""),
		"wrong issuer":          set("iss", "https://evil.example"),
		"issuer with slash":     func(i *fakeIssuer) { i.claims = func(c map[string]any) { c["iss"] = i.url + "/" } },
		"wrong audience":        set("aud", "another client"),
		"several audiences":     set("aud", []string{clientID, "another client"}),
		"other authorized":      set("azp", "another client"),
		"expired":               set("exp", time.Now().Add(-time.Second).Unix()),
		"without expiry":        func(i *fakeIssuer) { i.claims = func(c map[string]any) { delete(c, "exp") } },
		"not yet valid":         set("nbf", time.Now().Add(time.Hour).Unix()),
		"subject empty":         set("sub", ""),
		"subject endless":       set("sub", strings.Repeat("s", 256)),
		"missing":               sign(func(testing.TB, map[string]any) string { return "" }),
		"garbage":               sign(func(testing.TB, map[string]any) string { return "a.b.c" }),
		"signed by another key": sign(func(t testing.TB, c map[string]any) string { return signed(t, jose.RS256, stranger, c) }),
		"signed with the client secret": sign(func(t testing.TB, c map[string]any) string {
			return signed(t, jose.HS256, []byte(secret+strings.Repeat("0", 32)), c)
		}),
		"signed with the public key as secret": sign(func(t testing.TB, c map[string]any) string {
			return signed(t, jose.HS256, x509.MarshalPKCS1PublicKey(&issuerKey().PublicKey), c)
		}),
		"alg none": sign(func(t testing.TB, c map[string]any) string { return unsigned(t, "none", c) }),
		"alg None": sign(func(t testing.TB, c map[string]any) string { return unsigned(t, "None", c) }),
		"signature cut off": sign(func(t testing.TB, c map[string]any) string {
			token := signed(t, jose.RS256, issuerKey(), c)
			return token[:strings.LastIndex(token, ".")+1]
		}),
		"claims changed after signing": sign(func(t testing.TB, c map[string]any) string {
			parts := strings.Split(signed(t, jose.RS256, issuerKey(), c), ".")
			c["sub"] = "somebody-else"
			parts[1] = strings.Split(unsigned(t, "none", c), ".")[1]
			return strings.Join(parts, ".")
		}),
		"key of another issuer in the header": sign(func(t testing.TB, c map[string]any) string {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: stranger}, &jose.SignerOptions{EmbedJWK: true})
			if err != nil {
				t.Fatal(err)
			}
			payload, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			jws, err := signer.Sign(payload)
			if err != nil {
				t.Fatal(err)
			}
			token, err := jws.CompactSerialize()
			if err != nil {
				t.Fatal(err)
			}
			return token
		}),
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t)
			change(i)
			s := newSite(t, i.provider(t))
			i.login(s.browser(t)).refused(t, app.CodeForbidden)
			if len(s.logins()) != 0 || len(s.users.profiles) != 0 {
				t.Error("somebody was logged in")
			}
		})
	}
}

// unsigned is claims as a JWT with an algorithm's name and no signature.
func unsigned(t testing.TB, alg string, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"`+alg+`","kid":"k"}`)) + "." + enc(payload) + "."
}

// RFC 9207: an answer that names another issuer is not spent at ours.
func TestIssuerOfAnswer(t *testing.T) {
	for _, tt := range []struct {
		name, iss string
		promised  bool
		ok        bool
	}{
		{"none, none promised", "", false, true},
		{"right", "own", true, true},
		{"wrong", "&iss=https://evil.example", false, false},
		{"promised and missing", "", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := newIssuer(t)
			i.discovery = func(doc map[string]any) { doc["authorization_response_iss_parameter_supported"] = tt.promised }
			s := newSite(t, i.provider(t))
			iss := tt.iss
			if iss == "own" {
				iss = "&iss=" + url.QueryEscape(i.url)
			}
			a := i.login(s.browser(t), iss)
			if tt.ok {
				a.location(t)
				return
			}
			a.refused(t, app.CodeForbidden)
			if i.posted != nil {
				t.Error("the code was spent")
			}
		})
	}
}

func TestSubjectQualifiedByIssuer(t *testing.T) {
	i := newIssuer(t)
	s := newSite(t, i.provider(t, func(cfg *OIDCConfig) { cfg.QualifySubject = true }))
	i.login(s.browser(t)).location(t)
	if got, want := s.users.last(t).Subject, i.url+"#subject-1"; got != want {
		t.Errorf("subject = %q, want %q", got, want)
	}
}

func TestUserInfoFallback(t *testing.T) {
	bare := func(c map[string]any) { delete(c, "name"); delete(c, "picture") }
	for _, tt := range []struct {
		name     string
		claims   func(map[string]any)
		userInfo map[string]any
		refused  app.Code
		want     app.Profile
	}{
		{"asked for what is missing", bare,
			map[string]any{"sub": "subject-1", "name": "Ada L.", "picture": "https://p.example/a.png"}, "",
			app.Profile{Provider: "oidc", Subject: "subject-1", Name: "Ada L.", Avatar: "https://p.example/a.png"}},
		{"the ID token wins", func(c map[string]any) { delete(c, "picture") },
			map[string]any{"sub": "subject-1", "name": "Not Ada", "picture": "https://p.example/a.png"}, "",
			app.Profile{Provider: "oidc", Subject: "subject-1", Name: "Ada Lovelace", Avatar: "https://p.example/a.png"}},
		{"no name anywhere", bare, map[string]any{"sub": "subject-1", "preferred_username": "ada"}, "",
			app.Profile{Provider: "oidc", Subject: "subject-1", Name: "ada"}},
		{"no endpoint", bare, nil, "",
			app.Profile{Provider: "oidc", Subject: "subject-1", Name: "Someone"}},
		{"about somebody else", bare, map[string]any{"sub": "subject-2", "name": "Eve"}, app.CodeForbidden, app.Profile{}},
		{"about nobody", bare, map[string]any{"name": "Eve"}, app.CodeForbidden, app.Profile{}},
		{"of the wrong type", bare, map[string]any{"sub": "subject-1", "name": []int{1}}, app.CodeUnavailable, app.Profile{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := newIssuer(t)
			i.claims, i.userInfo = tt.claims, tt.userInfo
			s := newSite(t, i.provider(t))
			a := i.login(s.browser(t))
			if tt.refused != "" {
				a.refused(t, tt.refused)
				return
			}
			a.location(t)
			if got := s.users.last(t); got != tt.want {
				t.Errorf("profile = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestProviderDown(t *testing.T) {
	public := &url.URL{Scheme: "http", Host: "localhost:3000"}
	addr := freeAddress(t)
	p, err := OIDC(OIDCConfig{Name: "oidc", Label: "Example", Issuer: "http://" + addr, PublicURL: public, ClientID: clientID})
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(*url.URL) []Provider { return []Provider{p} })
	b := s.browser(t)
	if msg := b.get("/login/oidc").refused(t, app.CodeUnavailable); !strings.Contains(msg, "Example") {
		t.Errorf("message %q does not name the provider", msg)
	}
	if len(b.cookies("/login/oidc")) != 0 {
		t.Error("a login that did not begin left a cookie")
	}

	// It comes up, and is asked again.
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	i := &fakeIssuer{url: "http://" + addr, key: issuerKey()}
	server := httptest.Server{Listener: l, Config: &http.Server{Handler: i.handler(t)}}
	server.Start()
	defer server.Close()
	i.login(b).location(t)

	// It goes down between Begin and Callback.
	state := b.begin("/login/oidc").Query().Get("state")
	server.CloseClientConnections()
	server.Close()
	b.get("/login/oidc/callback?code=c&state="+state).refused(t, app.CodeUnavailable)
}

func TestProviderFails(t *testing.T) {
	respond := func(status int, contentType, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	for _, tt := range []struct {
		name  string
		token func(http.ResponseWriter, *http.Request) bool
		want  app.Code
	}{
		{"code expired", respond(400, "application/json", `{"error":"invalid_grant"}`), app.CodeInvalid},
		{"secret wrong", respond(401, "application/json", `{"error":"invalid_client"}`), app.CodeInternal},
		{"down for maintenance", respond(503, "text/html", "<h1>back soon</h1>"), app.CodeUnavailable},
		{"too many", respond(429, "application/json", `{}`), app.CodeUnavailable},
		{"no ID token", respond(200, "application/json", `{"access_token":"a","token_type":"Bearer"}`), app.CodeForbidden},
		{"endless", respond(200, "application/json", `{"access_token":"a","id_token":"`+strings.Repeat("x", maxAnswer)+`"}`), app.CodeInternal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := newIssuer(t)
			i.token = tt.token
			s := newSite(t, i.provider(t))
			a := i.login(s.browser(t))
			a.refused(t, tt.want)
			if strings.Contains(a.body, "back soon") || len(a.body) > 1000 {
				t.Errorf("the provider's page is in the error: %.500s", a.body)
			}
		})
	}
}

// The token request holds a code and a secret, so it goes nowhere else.
func TestRedirectOfProviderRefused(t *testing.T) {
	var reached atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer elsewhere.Close()
	i := newIssuer(t)
	i.token = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		return true
	}
	s := newSite(t, i.provider(t))
	i.login(s.browser(t)).refused(t, app.CodeUnavailable)
	if reached.Load() {
		t.Error("the secret went where the redirect led")
	}
}

func TestKeysDown(t *testing.T) {
	i := newIssuer(t)
	i.jwks = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	s := newSite(t, i.provider(t))
	i.login(s.browser(t)).refused(t, app.CodeUnavailable)
}

// A provider that accepts and says nothing costs one login its timeout.
func TestProviderStalls(t *testing.T) {
	i := newIssuer(t)
	i.token = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	s := newSite(t, i.provider(t, func(cfg *OIDCConfig) { cfg.Timeout = 300 * time.Millisecond }))
	i.login(s.browser(t)).refused(t, app.CodeUnavailable)
}

func TestDiscoveryRefused(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"other issuer":       func(doc map[string]any) { doc["issuer"] = "https://evil.example" },
		"token in the clear": func(doc map[string]any) { doc["token_endpoint"] = "http://idp.example/token" },
		"keys in the clear":  func(doc map[string]any) { doc["jwks_uri"] = "http://idp.example/jwks" },
		"script":             func(doc map[string]any) { doc["authorization_endpoint"] = "javascript:alert(1)" },
		"no endpoint":        func(doc map[string]any) { delete(doc, "authorization_endpoint") },
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t)
			i.discovery = change
			s := newSite(t, i.provider(t))
			s.browser(t).get("/login/oidc").refused(t, app.CodeUnavailable)
		})
	}
}

// Many first logins ask the issuer once.
func TestDiscoveryIsShared(t *testing.T) {
	i := newIssuer(t)
	inside, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	i.discovery = func(map[string]any) {
		once.Do(func() { close(inside) })
		<-release
	}
	s := newSite(t, i.provider(t))
	p := s.providers[0].Provider.(*oidcProvider)
	var wg sync.WaitGroup
	begin := func() {
		if _, err := p.BeginAuth("state"); err != nil {
			t.Error(err)
		}
	}
	wg.Go(begin)
	<-inside
	for range 8 {
		wg.Go(begin)
	}
	close(release)
	wg.Wait()
	if i.asked != 1 {
		t.Errorf("the issuer was asked %d times, want 1", i.asked)
	}
}

// RFC 6749 leaves it to the server where the secret goes, and a wrong guess
// costs the code.
func TestClientAuthentication(t *testing.T) {
	i := newIssuer(t)
	i.discovery = func(doc map[string]any) {
		doc["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
	}
	s := newSite(t, i.provider(t))
	i.login(s.browser(t)).location(t)
	if i.posted.Get("client_secret") != secret || i.basic[0] != "" {
		t.Errorf("secret in the form: %q, user in the header: %q", i.posted.Get("client_secret"), i.basic[0])
	}
}

func TestOIDCRefuses(t *testing.T) {
	public := &url.URL{Scheme: "https", Host: "chat.example"}
	good := OIDCConfig{Name: "oidc", Issuer: "https://idp.example", PublicURL: public, ClientID: "c"}
	if _, err := OIDC(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*OIDCConfig){
		"issuer in the clear": func(c *OIDCConfig) { c.Issuer = "http://idp.example" },
		"no issuer":           func(c *OIDCConfig) { c.Issuer = "" },
		"no URL":              func(c *OIDCConfig) { c.Issuer = "idp.example" },
		"no client":           func(c *OIDCConfig) { c.ClientID = "" },
		"name with slash":     func(c *OIDCConfig) { c.Name = "../evil" },
		"no public URL":       func(c *OIDCConfig) { c.PublicURL = nil },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			if _, err := OIDC(cfg); err == nil || !strings.HasPrefix(err.Error(), "auth: ") {
				t.Errorf("OIDC = %v, want an error", err)
			}
		})
	}
}

// What goes into the browser's cookie holds no token, before or after.
func TestSessionKeepsNoToken(t *testing.T) {
	i := newIssuer(t)
	s := newSite(t, i.provider(t))
	p := s.providers[0].Provider.(*oidcProvider)
	session, err := p.BeginAuth("state")
	if err != nil {
		t.Fatal(err)
	}
	i.nonce = session.(*oidcSession).Nonce
	if _, err := session.Authorize(p, url.Values{"code": {"c"}}); err != nil {
		t.Fatal(err)
	}
	u, err := p.FetchUser(session)
	if err != nil {
		t.Fatal(err)
	}
	if u.AccessToken != "" || u.RefreshToken != "" || u.IDToken != "" {
		t.Errorf("tokens in %+v", u)
	}
	var kept map[string]string
	if err := json.Unmarshal([]byte(session.Marshal()), &kept); err != nil || len(kept) != 2 || kept["Nonce"] == "" || kept["Verifier"] == "" {
		t.Errorf("session keeps %s, %v", session.Marshal(), err)
	}
}
