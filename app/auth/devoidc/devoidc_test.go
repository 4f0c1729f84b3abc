package devoidc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/net/html"
)

const (
	issuer   = "http://localhost:3000/dev/oidc"
	redirect = "http://localhost:3000/login/dev/callback"
	// aliceSubject is what alice has been to every database so far.
	aliceSubject = "7581553731cd5df9cb2ab96dd629c85b"
	verifier     = "a-verifier-of-forty-three-or-more-characters-."
)

var challenge = func() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}()

func newProvider(t testing.TB, change ...func(*Config)) *Provider {
	t.Helper()
	cfg := Config{Issuer: issuer, ClientID: "usher", RedirectURI: redirect}
	for _, f := range change {
		f(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// request is a valid authorization request, changed: "key=value" sets,
// "key" deletes, "+key=value" adds.
func request(changes ...string) url.Values {
	v := url.Values{
		"client_id": {"usher"}, "redirect_uri": {redirect}, "response_type": {"code"}, "scope": {"openid profile"},
		"state": {"st&te"}, "nonce": {"n0nce"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}
	return change(v, changes...)
}

func change(v url.Values, changes ...string) url.Values {
	for _, c := range changes {
		key, value, set := strings.Cut(c, "=")
		switch {
		case strings.HasPrefix(key, "+"):
			v.Add(key[1:], value)
		case set:
			v.Set(key, value)
		default:
			v.Del(key)
		}
	}
	return v
}

// get and post ask the handler for a path below the issuer.
func (p *Provider) get(path string) *httptest.ResponseRecorder {
	return p.serve(httptest.NewRequest("GET", issuer+path, nil))
}

func (p *Provider) post(path string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", issuer+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return p.serve(r)
}

func (p *Provider) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, r)
	return w
}

// redirected is the query that an answer sends to the client.
func redirected(t testing.TB, w *httptest.ResponseRecorder) url.Values {
	t.Helper()
	to := w.Header().Get("Location")
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(to, redirect+"?") {
		t.Fatalf("answer = %d to %q: %s", w.Code, to, w.Body)
	}
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

// code is a fresh code of alice for the request.
func (p *Provider) code(t testing.TB, changes ...string) string {
	t.Helper()
	v := request(changes...)
	v.Set("username", "alice")
	v.Set("decision", "allow")
	code := redirected(t, p.post("/authorize", v)).Get("code")
	if code == "" {
		t.Fatal("no code")
	}
	return code
}

func tokenForm(code string, changes ...string) url.Values {
	return change(url.Values{
		"grant_type": {"authorization_code"}, "client_id": {"usher"}, "redirect_uri": {redirect},
		"code": {code}, "code_verifier": {verifier},
	}, changes...)
}

// object decodes a JSON answer.
func object(t testing.TB, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("answer = %d %q, no JSON", w.Code, w.Body)
	}
	return v
}

func refusedToken(t testing.TB, w *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	if got := object(t, w)["error"]; w.Code != status || got != code {
		t.Errorf("token endpoint answered %d %v, want %d %s: %s", w.Code, got, status, code, w.Body)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("the answer may be cached")
	}
}

func (p *Provider) userInfoOf(token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", issuer+"/userinfo", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return p.serve(r)
}

func TestDiscovery(t *testing.T) {
	p := newProvider(t)
	doc := object(t, p.get("/.well-known/openid-configuration"))
	for key, want := range map[string]string{
		"issuer": issuer, "authorization_endpoint": issuer + "/authorize", "token_endpoint": issuer + "/token",
		"userinfo_endpoint": issuer + "/userinfo", "jwks_uri": issuer + "/jwks",
		"code_challenge_methods_supported": "[S256]", "response_types_supported": "[code]",
		"id_token_signing_alg_values_supported": "[RS256]", "subject_types_supported": "[public]",
	} {
		if got := fmt.Sprint(doc[key]); got != want {
			t.Errorf("%s = %s, want %s", key, got, want)
		}
	}
	keys := p.get("/jwks").Body.String()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(keys), &set); err != nil || len(set.Keys) != 1 || !set.Keys[0].IsPublic() || set.Keys[0].KeyID == "" {
		t.Errorf("keys = %s, %v", keys, err)
	}
	for _, private := range []string{`"d":`, `"p":`, `"q":`} {
		if strings.Contains(keys, private) {
			t.Errorf("the private key is published: %s", private)
		}
	}
}

func TestCodeFlow(t *testing.T) {
	p := newProvider(t)
	v := request()
	v.Set("username", "alice")
	v.Set("decision", "allow")
	back := redirected(t, p.post("/authorize", v))
	if back.Get("state") != "st&te" || back.Get("iss") != issuer || back.Has("error") {
		t.Errorf("answer = %v", back)
	}
	w := p.post("/token", tokenForm(back.Get("code")))
	tokens := object(t, w)
	if w.Code != http.StatusOK || tokens["token_type"] != "Bearer" || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("token endpoint answered %d %s", w.Code, w.Body)
	}
	parsed, err := jwt.ParseSigned(tokens["id_token"].(string), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	if parsed.Headers[0].KeyID != p.key.KeyID {
		t.Errorf("kid = %q, want %q", parsed.Headers[0].KeyID, p.key.KeyID)
	}
	var claims map[string]any
	if err := parsed.Claims(p.key.Public(), &claims); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"iss": issuer, "aud": "usher", "nonce": "n0nce", "name": "Alice", "preferred_username": "alice",
		"picture": issuer + "/avatar/alice.svg", "sub": Person{Username: "alice"}.subject(),
	} {
		if claims[key] != want {
			t.Errorf("claim %s = %v, want %s", key, claims[key], want)
		}
	}
	iat, exp := claims["iat"].(float64), claims["exp"].(float64)
	if age := float64(time.Now().Unix()) - iat; age < 0 || age > 60 || exp-iat != tokenLife.Seconds() {
		t.Errorf("iat = %v, exp = %v", iat, exp)
	}
	info := object(t, p.userInfoOf(tokens["access_token"].(string)))
	if info["sub"] != claims["sub"] || info["name"] != "Alice" {
		t.Errorf("userinfo = %v", info)
	}
}

func TestScopeWithoutProfile(t *testing.T) {
	p := newProvider(t)
	tokens := object(t, p.post("/token", tokenForm(p.code(t, "scope=openid", "nonce"))))
	parsed, err := jwt.ParseSigned(tokens["id_token"].(string), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := parsed.Claims(p.key.Public(), &claims); err != nil {
		t.Fatal(err)
	}
	info := object(t, p.userInfoOf(tokens["access_token"].(string)))
	for _, key := range []string{"name", "picture", "preferred_username", "nonce"} {
		if claims[key] != nil || info[key] != nil {
			t.Errorf("%s is told without being asked for", key)
		}
	}
	if info["sub"] == nil || info["sub"] != claims["sub"] {
		t.Errorf("subjects %v and %v", info["sub"], claims["sub"])
	}
}

// A request that is not surely the client's is answered by a page: a redirect
// would carry codes or errors to whoever wrote the URL.
func TestRedirectURIMustMatchExactly(t *testing.T) {
	p := newProvider(t)
	for _, c := range []string{
		"redirect_uri",
		"redirect_uri=",
		"redirect_uri=https://evil.example/",
		"redirect_uri=" + redirect + "/",
		"redirect_uri=" + redirect + "/../evil",
		"redirect_uri=" + redirect + "?x=1",
		"redirect_uri=" + redirect + "#x",
		"redirect_uri=" + redirect + ".evil.example",
		"redirect_uri=" + strings.TrimSuffix(redirect, "k"),
		"redirect_uri=" + strings.ToUpper(redirect),
		"redirect_uri=" + strings.Replace(redirect, "http:", "https:", 1),
		"redirect_uri=" + strings.Replace(redirect, "localhost", "127.0.0.1", 1),
		"redirect_uri=" + strings.Replace(redirect, "localhost:3000", "localhost:3000@evil.example", 1),
		"redirect_uri=" + strings.Replace(redirect, "localhost:3000", "localhost", 1),
		"redirect_uri=" + strings.Replace(redirect, "/login", "//login", 1),
		"redirect_uri=" + strings.Replace(redirect, "login", "%6cogin", 1),
		"redirect_uri= " + redirect,
		"+redirect_uri=" + redirect,
		"+redirect_uri=https://evil.example/",
		"client_id",
		"client_id=",
		"client_id=Usher",
		"client_id=evil",
		"+client_id=usher",
	} {
		t.Run(c, func(t *testing.T) {
			v := request(c)
			for _, w := range []*httptest.ResponseRecorder{
				p.get("/authorize?" + v.Encode()),
				p.post("/authorize", change(request(c), "username=alice", "decision=allow")),
				p.post("/authorize", change(request(c), "decision=deny")),
			} {
				if w.Code != http.StatusBadRequest || w.Header().Get("Location") != "" || !strings.Contains(w.Body.String(), "This login cannot go on") {
					t.Errorf("answer = %d to %q", w.Code, w.Header().Get("Location"))
				}
			}
		})
	}
}

func TestAuthorizationErrors(t *testing.T) {
	p := newProvider(t)
	for _, tt := range []struct {
		name    string
		changes []string
		want    string
	}{
		{"no response type", []string{"response_type"}, "unsupported_response_type"},
		{"implicit flow", []string{"response_type=id_token"}, "unsupported_response_type"},
		{"hybrid flow", []string{"response_type=code id_token"}, "unsupported_response_type"},
		{"fragment", []string{"response_mode=fragment"}, "invalid_request"},
		{"no scope", []string{"scope"}, "invalid_scope"},
		{"without openid", []string{"scope=profile openid2"}, "invalid_scope"},
		{"PKCE missing", []string{"code_challenge", "code_challenge_method"}, "invalid_request"},
		{"PKCE plain", []string{"code_challenge_method=plain", "code_challenge=" + verifier}, "invalid_request"},
		{"PKCE plain by default", []string{"code_challenge_method"}, "invalid_request"},
		{"PKCE lower case", []string{"code_challenge_method=s256"}, "invalid_request"},
		{"challenge short", []string{"code_challenge=abc"}, "invalid_request"},
		{"challenge padded", []string{"code_challenge=" + challenge + "="}, "invalid_request"},
		{"challenge in base64", []string{"code_challenge=" + strings.Repeat("+", 43)}, "invalid_request"},
		{"challenge twice", []string{"+code_challenge=" + challenge}, "invalid_request"},
		{"state twice", []string{"+state=x"}, "invalid_request"},
		{"nonce endless", []string{"nonce=" + strings.Repeat("n", maxParam+1)}, "invalid_request"},
		{"request object", []string{"request=eyJ"}, "request_not_supported"},
		{"request by reference", []string{"request_uri=https://evil.example"}, "request_uri_not_supported"},
		{"without asking", []string{"prompt=none"}, "login_required"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, w := range []*httptest.ResponseRecorder{
				p.get("/authorize?" + request(tt.changes...).Encode()),
				// The forms carry the request along; leaving the first page out
				// must not leave the checks out.
				p.post("/authorize", change(request(tt.changes...), "username=alice", "decision=allow")),
			} {
				back := redirected(t, w)
				if back.Get("error") != tt.want || back.Has("code") || back.Get("iss") != issuer {
					t.Errorf("answer = %v, want error %s", back, tt.want)
				}
				if tt.name != "state twice" && back.Get("state") != "st&te" {
					t.Errorf("state = %q", back.Get("state"))
				}
			}
		})
	}
}

func TestTokenErrors(t *testing.T) {
	p := newProvider(t)
	other := "another-verifier-of-forty-three-or-more-characters"
	for _, tt := range []struct {
		name    string
		changes []string
		status  int
		want    string
	}{
		{"no code", []string{"code"}, 400, "invalid_request"},
		{"unknown code", []string{"code=x"}, 400, "invalid_grant"},
		{"verifier missing", []string{"code_verifier"}, 400, "invalid_request"},
		{"verifier wrong", []string{"code_verifier=" + other}, 400, "invalid_grant"},
		{"verifier is the challenge", []string{"code_verifier=" + challenge}, 400, "invalid_grant"},
		{"redirect_uri missing", []string{"redirect_uri"}, 400, "invalid_grant"},
		{"redirect_uri longer", []string{"redirect_uri=" + redirect + "/"}, 400, "invalid_grant"},
		{"client missing", []string{"client_id"}, 401, "invalid_client"},
		{"client unknown", []string{"client_id=evil"}, 401, "invalid_client"},
		{"client with secret", []string{"client_secret=x"}, 401, "invalid_client"},
		{"grant type", []string{"grant_type=password"}, 400, "unsupported_grant_type"},
		{"twice", []string{"+code=x"}, 400, "invalid_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refusedToken(t, p.post("/token", tokenForm(p.code(t), tt.changes...)), tt.status, tt.want)
		})
	}
	t.Run("in the query", func(t *testing.T) {
		refusedToken(t, p.post("/token?"+tokenForm(p.code(t)).Encode(), nil), 401, "invalid_client")
	})
	t.Run("verifier too short", func(t *testing.T) {
		sum := sha256.Sum256([]byte("short"))
		code := p.code(t, "code_challenge="+base64.RawURLEncoding.EncodeToString(sum[:]))
		refusedToken(t, p.post("/token", tokenForm(code, "code_verifier=short")), 400, "invalid_grant")
	})
	t.Run("too large", func(t *testing.T) {
		refusedToken(t, p.post("/token", tokenForm(strings.Repeat("x", maxBody))), 400, "invalid_request")
	})
}

// A second use of a code ends what the first one gave: one of the two is a thief.
func TestCodeReuseRevokes(t *testing.T) {
	p := newProvider(t)
	code := p.code(t)
	token := object(t, p.post("/token", tokenForm(code)))["access_token"].(string)
	if w := p.userInfoOf(token); w.Code != http.StatusOK {
		t.Fatalf("userinfo answered %d", w.Code)
	}
	refusedToken(t, p.post("/token", tokenForm(code)), 400, "invalid_grant")
	if w := p.userInfoOf(token); w.Code != http.StatusUnauthorized {
		t.Errorf("userinfo answered %d after the code was used twice", w.Code)
	}
}

// The verifier cannot be guessed twice.
func TestFailedExchangeSpendsTheCode(t *testing.T) {
	p := newProvider(t)
	code := p.code(t)
	refusedToken(t, p.post("/token", tokenForm(code, "code_verifier="+strings.Repeat("x", 43))), 400, "invalid_grant")
	refusedToken(t, p.post("/token", tokenForm(code)), 400, "invalid_grant")
}

func TestGrantsExpire(t *testing.T) {
	p := newProvider(t)
	now := time.Now()
	p.grants.now = func() time.Time { return now }
	late, code := p.code(t), p.code(t)
	token := object(t, p.post("/token", tokenForm(code)))["access_token"].(string)
	now = now.Add(codeLife + time.Second)
	refusedToken(t, p.post("/token", tokenForm(late)), 400, "invalid_grant")
	if w := p.userInfoOf(token); w.Code != http.StatusOK {
		t.Errorf("userinfo answered %d after a minute", w.Code)
	}
	now = now.Add(tokenLife)
	if w := p.userInfoOf(token); w.Code != http.StatusUnauthorized {
		t.Errorf("userinfo answered %d with an expired token", w.Code)
	}
	p.code(t)
	if n := len(p.grants.byCode) + len(p.grants.byToken); n != 1 {
		t.Errorf("%d codes and tokens remembered, want 1", n)
	}
}

func TestGrantsAreBounded(t *testing.T) {
	g := newGrants(time.Now)
	first := g.add(grant{})
	for range maxGrants {
		g.add(grant{})
	}
	if len(g.byCode) != maxGrants || len(g.fifo) != maxGrants {
		t.Errorf("%d grants, want %d", len(g.byCode), maxGrants)
	}
	if _, ok := g.redeem(first, func(grant) bool { return true }); ok {
		t.Error("the oldest code outlived the bound")
	}
}

func TestUserInfoRefuses(t *testing.T) {
	p := newProvider(t)
	token := object(t, p.post("/token", tokenForm(p.code(t))))["access_token"].(string)
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer x", "Basic " + token, token} {
		r := httptest.NewRequest("GET", issuer+"/userinfo?access_token="+token, nil)
		r.Header.Set("Authorization", header)
		w := p.serve(r)
		if w.Code != http.StatusUnauthorized || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("Authorization %q: %d", header, w.Code)
		}
	}
}

// The pages, as a browser without JavaScript walks through them.
func TestPages(t *testing.T) {
	p := newProvider(t)
	login := p.get("/authorize?" + request().Encode())
	page := parse(t, login)
	if page.ids["username"] != "input" || page.ids["continue"] != "button" || page.ids["cancel"] != "button" {
		t.Errorf("ids of the login page: %v", page.ids)
	}
	if want := []string{"alice", "bob", "carol", "dave"}; !slices.Equal(page.people, want) {
		t.Errorf("people = %v, want %v", page.people, want)
	}
	if page.hidden.Encode() != request().Encode() {
		t.Errorf("the form carries %v, want %v", page.hidden, request())
	}

	consent := p.post("/authorize", change(page.hidden, "username=", "person=alice"))
	page = parse(t, consent)
	if !strings.Contains(consent.Body.String(), "Alice wants to sign in to Usher chat") || page.ids["allow"] != "button" || page.ids["cancel"] != "button" {
		t.Errorf("consent page: %s", consent.Body)
	}
	if strings.Contains(consent.Body.String(), "<script") || strings.Contains(consent.Body.String(), "style=") {
		t.Error("the page needs more than its policy allows")
	}
	if back := redirected(t, p.post("/authorize", change(page.hidden, "decision=deny"))); back.Get("error") != "access_denied" || back.Get("state") != "st&te" {
		t.Errorf("cancelled = %v", back)
	}
	if back := redirected(t, p.post("/authorize", change(page.hidden, "decision=allow"))); back.Get("code") == "" {
		t.Errorf("allowed = %v", back)
	}

	for _, w := range []*httptest.ResponseRecorder{login, consent} {
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(csp, "form-action 'self' http://localhost:3000") || !strings.Contains(csp, "frame-ancestors 'none'") ||
			!strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("policy = %s", csp)
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("headers = %v", w.Header())
		}
	}
	css := p.get("/style.css")
	if css.Code != http.StatusOK || css.Header().Get("Content-Type") != "text/css; charset=utf-8" || css.Body.Len() == 0 {
		t.Errorf("style sheet: %d %s", css.Code, css.Header())
	}
}

// A typed name that is a demo person's is that person; what is asked for
// consent is what is consented to.
func TestTypedNames(t *testing.T) {
	p := newProvider(t, func(cfg *Config) { cfg.People = []Person{{"al", "Alice Liddell"}} })
	for typed, want := range map[string]Person{
		"al": {"al", "Alice Liddell"}, " AL ": {"al", "Alice Liddell"},
		"Zoë": {"zoë", "Zoë"}, "Zoe\u0308": {"zoë", "Zoë"}, "ｂｏｂ": {"bob", "bob"}, "O'Brien Jr.": {"o'brien jr.", "O'Brien Jr."},
	} {
		page := parse(t, p.post("/authorize", request("username="+typed)))
		code := redirected(t, p.post("/authorize", change(page.hidden, "decision=allow"))).Get("code")
		info := object(t, p.userInfoOf(object(t, p.post("/token", tokenForm(code)))["access_token"].(string)))
		if info["name"] != want.Name || info["preferred_username"] != want.Username || info["sub"] != want.subject() {
			t.Errorf("%q became %v, want %+v", typed, info, want)
		}
	}
}

func TestNameRefused(t *testing.T) {
	p := newProvider(t)
	for _, typed := range []string{
		"", " ", ".", "-x", "a  b", "<script>", "a/b", "a\x00b", "a\nb", "a\u202eb", "a\u200bb", "a@b", "\xff", "a\xff", "😀", "\u0301a",
		strings.Repeat("x", 41), strings.Repeat("x", 10_000),
	} {
		for _, step := range []string{"continue", "allow"} {
			w := p.post("/authorize", change(request(), "username="+typed, "decision="+step))
			if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "A name has 1 to 40") || strings.Contains(w.Body.String(), "<script>") {
				t.Errorf("%.50q on %s answered %d", typed, step, w.Code)
			}
		}
	}
	if w := p.post("/authorize", request("username="+strings.Repeat("é", 40))); w.Code != http.StatusOK {
		t.Errorf("a name of 40 characters answered %d", w.Code)
	}
}

// The same name is the same person, whoever signs: processes come and go.
func TestSubjectOutlivesTheProcess(t *testing.T) {
	subject := func(p *Provider) any {
		return object(t, p.userInfoOf(object(t, p.post("/token", tokenForm(p.code(t))))["access_token"].(string)))["sub"]
	}
	before, after := newProvider(t), newProvider(t)
	if before.key.KeyID == after.key.KeyID {
		t.Error("two processes have the same key id")
	}
	if s := subject(before); s == nil || s != subject(after) {
		t.Errorf("subjects %v and %v", s, subject(after))
	}
	// The people of existing databases hang on this value.
	if got := (Person{Username: "alice"}).subject(); got != aliceSubject {
		t.Errorf("subject of alice = %s, want %s", got, aliceSubject)
	}
}

func TestCrossSitePostRefused(t *testing.T) {
	p := newProvider(t)
	for header, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		r := httptest.NewRequest("POST", issuer+"/authorize", strings.NewReader(change(request(), "username=alice", "decision=allow").Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set(header, value)
		if w := p.serve(r); w.Code != http.StatusForbidden {
			t.Errorf("%s: %s answered %d", header, value, w.Code)
		}
	}
}

func TestAvatar(t *testing.T) {
	p := newProvider(t)
	for path, initial := range map[string]string{"/avatar/alice.svg": "A", "/avatar/zo%C3%AB.svg": "Z", "/avatar/%C3%A9a.svg": "É", "/avatar/7.svg": "7"} {
		w := p.get(path)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "image/svg+xml" || w.Header().Get("X-Content-Type-Options") != "nosniff" ||
			!strings.Contains(w.Header().Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		if err := wellFormed(w.Body.String()); err != nil || !strings.Contains(w.Body.String(), ">"+initial+"</text>") {
			t.Errorf("%s = %s, %v", path, w.Body, err)
		}
	}
	if p.get("/avatar/alice.svg").Body.String() != p.get("/avatar/ALICE.svg").Body.String() {
		t.Error("one person, two pictures")
	}
	for _, path := range []string{"/avatar/alice", "/avatar/.svg", "/avatar/%3Cscript%3E.svg", "/avatar/a%2Fb.svg"} {
		if w := p.get(path); w.Code != http.StatusNotFound {
			t.Errorf("%s answered %d", path, w.Code)
		}
	}
}

func wellFormed(doc string) error {
	d := xml.NewDecoder(strings.NewReader(doc))
	for {
		if _, err := d.Token(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		public, listen string
		real           int
		reason         string // "" = allowed
	}{
		{"http://localhost:3000", "127.0.0.1:3000", 0, ""},
		{"http://127.0.0.1:3000", "localhost:3000", 0, ""},
		{"http://[::1]:3000", "[::1]:3000", 0, ""},
		{"https://chat.localhost", "127.8.0.1:3000", 0, ""},
		{"http://localhost:3000", "127.0.0.1:3000", 1, "real provider"},
		{"http://localhost:3000", ":3000", 0, "listens on"},
		{"http://localhost:3000", "0.0.0.0:3000", 0, "listens on"},
		{"http://localhost:3000", "[::]:3000", 0, "listens on"},
		{"http://localhost:3000", "192.168.1.5:3000", 0, "listens on"},
		{"http://localhost:3000", "localhost.evil.example:3000", 0, "listens on"},
		{"https://chat.example", "127.0.0.1:3000", 0, "public URL"},
		{"https://127.0.0.1.evil.example", "127.0.0.1:3000", 0, "public URL"},
		{"http://192.168.1.5:3000", "127.0.0.1:3000", 0, "public URL"},
		{"http://localhost:3000", "3000", 0, "listen address"},
	} {
		public, err := url.Parse(tt.public)
		if err != nil {
			t.Fatal(err)
		}
		err = Check(public, tt.listen, tt.real)
		if tt.reason == "" && err != nil || tt.reason != "" && (err == nil || !strings.Contains(err.Error(), tt.reason)) {
			t.Errorf("Check(%s, %s, %d) = %v, want %q", tt.public, tt.listen, tt.real, err, tt.reason)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no issuer":            func(c *Config) { c.Issuer = "" },
		"issuer with slash":    func(c *Config) { c.Issuer += "/" },
		"issuer with query":    func(c *Config) { c.Issuer += "?x" },
		"no redirect":          func(c *Config) { c.RedirectURI = "" },
		"redirect is a path":   func(c *Config) { c.RedirectURI = "/callback" },
		"redirect to script":   func(c *Config) { c.RedirectURI = "javascript:alert(1)" },
		"redirect to fragment": func(c *Config) { c.RedirectURI += "#x" },
		"no client":            func(c *Config) { c.ClientID = "" },
		"person without name":  func(c *Config) { c.People = []Person{{"alice", ""}} },
		"person without id":    func(c *Config) { c.People = []Person{{"", "Alice"}} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Issuer: issuer, ClientID: "usher", RedirectURI: redirect}
			change(&cfg)
			if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), "devoidc: ") {
				t.Errorf("New = %v, want an error", err)
			}
		})
	}
}

// page is what a test looks for in HTML.
type page struct {
	ids    map[string]string // id → element
	hidden url.Values
	people []string // values of the buttons
}

func parse(t testing.TB, w *httptest.ResponseRecorder) page {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(w.Body.String()))
	if err != nil {
		t.Fatal(err)
	}
	found := page{ids: make(map[string]string), hidden: make(url.Values)}
	for n := range doc.Descendants() {
		attr := make(map[string]string)
		for _, a := range n.Attr {
			attr[a.Key] = a.Val
		}
		if attr["id"] != "" {
			found.ids[attr["id"]] = n.Data
		}
		if attr["type"] == "hidden" {
			found.hidden.Set(attr["name"], attr["value"])
		}
		if attr["class"] == "person" {
			found.people = append(found.people, attr["value"])
		}
	}
	return found
}
