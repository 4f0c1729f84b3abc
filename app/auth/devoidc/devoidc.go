package devoidc

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Config configures the provider and its one client.
type Config struct {
	// Issuer is the URL under which browsers and the client reach the handler.
	Issuer string
	// ClientID and RedirectURI are the client's; the URI must match exactly.
	ClientID    string
	RedirectURI string
	// AppName is what the pages call the client. Empty means "Usher chat".
	AppName string
	// People are offered to click. Nil means Alice, Bob, Carol and Dave.
	People []Person
}

// Provider is an OpenID Connect provider.
type Provider struct {
	cfg      Config
	path     string // of the issuer
	redirect *url.URL
	people   []Person
	grants   *grants
	key      jose.JSONWebKey // private; its id is its thumbprint
	signer   jose.Signer
	now      func() time.Time
}

// New returns a provider with a fresh signing key.
func New(cfg Config) (*Provider, error) {
	issuer, err := absolute(cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("devoidc: issuer: %w", err)
	}
	redirect, err := absolute(cfg.RedirectURI)
	if err != nil {
		return nil, fmt.Errorf("devoidc: redirect URI: %w", err)
	}
	if issuer.RawQuery != "" || strings.HasSuffix(cfg.Issuer, "/") {
		return nil, fmt.Errorf("devoidc: issuer %s: want no query and no slash at the end", cfg.Issuer)
	}
	if cfg.ClientID == "" {
		return nil, errors.New("devoidc: client id is missing")
	}
	cfg.AppName = cmp.Or(cfg.AppName, "Usher chat")
	people := cfg.People
	if people == nil {
		people = []Person{{"alice", "Alice"}, {"bob", "Bob"}, {"carol", "Carol"}, {"dave", "Dave"}}
	}
	for i, person := range people {
		if people[i], err = person.checked(); err != nil {
			return nil, fmt.Errorf("devoidc: person %d: %w", i, err)
		}
	}
	key, signer, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("devoidc: make signing key: %w", err)
	}
	return &Provider{
		cfg:      cfg,
		path:     strings.TrimSuffix(issuer.Path, "/"),
		redirect: redirect,
		people:   people,
		grants:   newGrants(time.Now),
		key:      key,
		signer:   signer,
		now:      time.Now,
	}, nil
}

// absolute parses an http or https URL without a fragment.
func absolute(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no absolute http(s) URL", u.Redacted())
	}
	return u, nil
}

func newKey() (jose.JSONWebKey, jose.Signer, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return jose.JSONWebKey{}, nil, err
	}
	key := jose.JSONWebKey{Key: private, Algorithm: string(jose.RS256), Use: "sig"}
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return jose.JSONWebKey{}, nil, err
	}
	// A new key has a new id, so that clients which cached the keys of the
	// process before this one look again.
	key.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	return key, signer, err
}

// Check returns nil if the development login may be on, else the reason why
// not: it would let anybody on the network, or beside a real login, be
// anybody. listenAddr is what the server listens on, host:port; real counts
// the other providers.
func Check(publicURL *url.URL, listenAddr string, real int) error {
	if real > 0 {
		return errors.New("devoidc: the development login is off: a real provider is configured")
	}
	host, _, err := net.SplitHostPort(listenAddr)
	if err != nil {
		return fmt.Errorf("devoidc: listen address: %w", err)
	}
	if !isLoopback(host) {
		return fmt.Errorf("devoidc: the development login lets anybody be anybody, so it is for loopback only, and the server listens on %q: "+
			"configure a real provider, or listen on 127.0.0.1", listenAddr)
	}
	if !isLoopback(publicURL.Hostname()) {
		return fmt.Errorf("devoidc: the development login lets anybody be anybody, so it is for loopback only, and the public URL is %s: "+
			"configure a real provider, or make the public URL one of localhost", publicURL.Redacted())
	}
	return nil
}

// isLoopback reports whether only this machine reaches host. An empty host
// listens everywhere.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

const maxBody = 64 << 10 // bytes of a posted form

// Handler serves the provider under the path of its issuer, which must not be
// stripped. Forms posted by other sites are refused.
func (p *Provider) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+p.path+"/.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET "+p.path+"/jwks", p.jwks)
	mux.HandleFunc("GET "+p.path+"/authorize", p.showAuthorize)
	mux.HandleFunc("POST "+p.path+"/authorize", p.submitAuthorize)
	mux.HandleFunc("POST "+p.path+"/token", p.token)
	mux.HandleFunc("GET "+p.path+"/userinfo", p.userInfo)
	mux.HandleFunc("POST "+p.path+"/userinfo", p.userInfo)
	mux.HandleFunc("GET "+p.path+"/avatar/{file}", p.avatar)
	mux.HandleFunc("GET "+p.path+"/style.css", p.style)
	guarded := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		guarded.ServeHTTP(w, r)
	})
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                         p.cfg.Issuer,
		"authorization_endpoint":                         p.cfg.Issuer + "/authorize",
		"token_endpoint":                                 p.cfg.Issuer + "/token",
		"userinfo_endpoint":                              p.cfg.Issuer + "/userinfo",
		"jwks_uri":                                       p.cfg.Issuer + "/jwks",
		"scopes_supported":                               []string{"openid", "profile"},
		"claims_supported":                               []string{"iss", "sub", "aud", "exp", "iat", "nonce", "name", "preferred_username", "picture"},
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{"authorization_code"},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          []string{string(jose.RS256)},
		"token_endpoint_auth_methods_supported":          []string{"none"},
		"code_challenge_methods_supported":               []string{"S256"},
		"authorization_response_iss_parameter_supported": true,
		"request_parameter_supported":                    false,
		"request_uri_parameter_supported":                false, // the default is true
	})
}

func (p *Provider) jwks(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{p.key.Public()}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails only if the client is gone
}
