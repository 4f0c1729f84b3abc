package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/markbates/goth"
	"golang.org/x/oauth2"
)

// OIDCConfig configures an OpenID Connect issuer.
type OIDCConfig struct {
	Name, Label string // "google", "Google"
	Issuer      string // exactly as in its discovery document
	PublicURL   *url.URL
	ClientID    string
	// ClientSecret is empty for a public client, which PKCE alone protects.
	ClientSecret string
	// QualifySubject puts the issuer before the subject in profiles, for a
	// Name whose issuer may change.
	QualifySubject bool
	// Timeout bounds each step of a login: discovery, exchange, userinfo.
	// Zero means 10s.
	Timeout time.Duration
}

// OIDC returns a provider for an OpenID Connect issuer. The issuer is not
// contacted before the first login, and again at every login until it has
// answered once: it may be down when the program starts, or be served by the
// very same process.
func OIDC(cfg OIDCConfig) (Provider, error) {
	if err := checkPublicURL(cfg.PublicURL); err != nil {
		return Provider{}, err
	}
	if !validName(cfg.Name) {
		return Provider{}, fmt.Errorf("auth: provider name %q: want 1 to 32 of a-z, 0-9 and -", cfg.Name)
	}
	if err := checkEndpoint(cfg.Issuer); err != nil {
		return Provider{}, fmt.Errorf("auth: issuer of %s: %w", cfg.Name, err)
	}
	if cfg.ClientID == "" {
		return Provider{}, fmt.Errorf("auth: %s: client id is missing", cfg.Name)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	return Provider{
		Label:    cmp.Or(cfg.Label, cfg.Name),
		Provider: &oidcProvider{name: cfg.Name, cfg: cfg, client: newClient(cfg.Timeout), now: time.Now},
	}, nil
}

// oidcProvider implements goth's Provider over golang.org/x/oauth2 and
// coreos/go-oidc.
//
// It stands in for goth's own openidConnect provider, which passes a
// code_verifier on but sends no challenge, so there is no PKCE; decodes the ID
// token without verifying its signature; knows no nonce; and fails for good if
// the issuer is down when it is made.
type oidcProvider struct {
	name   string
	cfg    OIDCConfig
	client *http.Client
	now    func() time.Time

	mu     sync.Mutex
	issuer *issuer    // once discovered, for good
	flight *discovery // under way
}

// issuer is what discovery found.
type issuer struct {
	*oidc.Provider
	oauth    oauth2.Config
	keys     oidc.KeySet
	sendsIss bool // RFC 9207
}

// discovery is one attempt to find the issuer, shared by all who wait for it.
type discovery struct {
	done   chan struct{}
	issuer *issuer
	err    error
}

func (p *oidcProvider) Name() string        { return p.name }
func (p *oidcProvider) SetName(name string) { p.name = name }
func (p *oidcProvider) Debug(bool)          {}

// RefreshToken always fails: no token is kept, so none is refreshed.
func (p *oidcProvider) RefreshToken(string) (*oauth2.Token, error) {
	return nil, errors.New("auth: tokens are not kept")
}
func (p *oidcProvider) RefreshTokenAvailable() bool { return false }

// context bounds one step of a login; goth's interface has none to pass on.
func (p *oidcProvider) context() (context.Context, context.CancelFunc) {
	ctx := oidc.ClientContext(context.Background(), p.client)
	return context.WithTimeout(ctx, p.cfg.Timeout)
}

// discover returns the issuer, asking it if it has never answered. Logins that
// come while it is being asked wait for the same answer.
func (p *oidcProvider) discover(ctx context.Context) (*issuer, error) {
	p.mu.Lock()
	if p.issuer != nil {
		defer p.mu.Unlock()
		return p.issuer, nil
	}
	if d := p.flight; d != nil {
		p.mu.Unlock()
		select {
		case <-d.done:
			return d.issuer, d.err
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", errUnreachable, ctx.Err())
		}
	}
	d := &discovery{done: make(chan struct{})}
	p.flight = d
	p.mu.Unlock()

	d.issuer, d.err = p.ask(ctx)
	p.mu.Lock()
	p.issuer, p.flight = d.issuer, nil
	p.mu.Unlock()
	close(d.done)
	return d.issuer, d.err
}

// ask reads the discovery document.
func (p *oidcProvider) ask(ctx context.Context) (*issuer, error) {
	found, err := oidc.NewProvider(ctx, p.cfg.Issuer)
	if err != nil {
		// Cut short: the error may hold a whole error page.
		return nil, fmt.Errorf("%w: discover %s: %.300v", errUnreachable, p.cfg.Issuer, err)
	}
	var doc struct {
		JWKSURI     string   `json:"jwks_uri"`
		UserInfo    string   `json:"userinfo_endpoint"`
		AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
		SendsIss    bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := found.Claims(&doc); err != nil {
		return nil, fmt.Errorf("%w: discover %s: %w", errUnreachable, p.cfg.Issuer, err)
	}
	endpoint := found.Endpoint()
	for _, u := range []string{endpoint.AuthURL, endpoint.TokenURL, doc.JWKSURI, cmp.Or(doc.UserInfo, p.cfg.Issuer)} {
		if err := checkEndpoint(u); err != nil {
			return nil, fmt.Errorf("%w: endpoints of %s: %w", errUnreachable, p.cfg.Issuer, err)
		}
	}
	// Chosen, not probed: oauth2's probe spends the single-use code on a
	// request that may fail. client_secret_basic is the default of OpenID
	// Connect Discovery.
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if p.cfg.ClientSecret == "" || len(doc.AuthMethods) > 0 && !slices.Contains(doc.AuthMethods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return &issuer{
		Provider: found,
		oauth: oauth2.Config{
			ClientID:     p.cfg.ClientID,
			ClientSecret: p.cfg.ClientSecret,
			RedirectURL:  callbackURL(p.cfg.PublicURL, p.name),
			Endpoint:     endpoint,
			Scopes:       []string{oidc.ScopeOpenID, "profile"},
		},
		// The key set keeps the client of ctx and not its deadline.
		keys:     oidc.NewRemoteKeySet(ctx, doc.JWKSURI),
		sendsIss: doc.SendsIss,
	}, nil
}

// oidcSession is what one login must remember. Only exported fields are kept
// in the browser.
type oidcSession struct {
	Nonce    string
	Verifier string

	authURL string
	token   *oauth2.Token
	idToken *oidc.IDToken // verified
}

func (p *oidcProvider) BeginAuth(state string) (goth.Session, error) {
	ctx, cancel := p.context()
	defer cancel()
	iss, err := p.discover(ctx)
	if err != nil {
		return nil, err
	}
	s := &oidcSession{Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier()}
	s.authURL = iss.oauth.AuthCodeURL(state, oidc.Nonce(s.Nonce), oauth2.S256ChallengeOption(s.Verifier))
	return s, nil
}

func (p *oidcProvider) UnmarshalSession(data string) (goth.Session, error) {
	s := &oidcSession{}
	if err := json.Unmarshal([]byte(data), s); err != nil {
		return nil, fmt.Errorf("decode session: %w", err)
	}
	if s.Nonce == "" || s.Verifier == "" {
		return nil, errors.New("decode session: nonce or verifier missing")
	}
	return s, nil
}

func (s *oidcSession) GetAuthURL() (string, error) {
	if s.authURL == "" {
		return "", errors.New(goth.NoAuthUrlErrorMessage)
	}
	return s.authURL, nil
}

func (s *oidcSession) Marshal() string {
	b, _ := json.Marshal(s) // a struct of strings
	return string(b)
}

// Authorize exchanges the code and verifies the ID token.
func (s *oidcSession) Authorize(provider goth.Provider, params goth.Params) (string, error) {
	p, ok := provider.(*oidcProvider)
	if !ok {
		return "", fmt.Errorf("provider is a %T", provider)
	}
	ctx, cancel := p.context()
	defer cancel()
	found, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	// RFC 9207: the answer says who gave it, so that a code of one issuer is
	// not spent at another.
	if iss := params.Get("iss"); iss != p.cfg.Issuer && (iss != "" || found.sendsIss) {
		return "", fmt.Errorf("%w: the answer is from issuer %.200q", errUnverified, iss)
	}
	token, err := found.oauth.Exchange(ctx, params.Get("code"), oauth2.VerifierOption(s.Verifier))
	if err != nil {
		return "", err
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return "", fmt.Errorf("%w: no ID token", errUnverified)
	}
	idToken, err := p.verify(ctx, found, raw, s.Nonce)
	if err != nil {
		return "", err
	}
	s.token, s.idToken = token, idToken
	return token.AccessToken, nil
}

// signingAlgs are the signatures that need the issuer's private key. "none"
// and those made with a shared secret are not among them.
var signingAlgs = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
	oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// verify checks an ID token as OpenID Connect Core 3.1.3.7 asks.
func (p *oidcProvider) verify(ctx context.Context, found *issuer, raw, nonce string) (*oidc.IDToken, error) {
	keys := &keySet{KeySet: found.keys}
	verifier := oidc.NewVerifier(p.cfg.Issuer, keys, &oidc.Config{
		ClientID:             p.cfg.ClientID,
		SupportedSigningAlgs: signingAlgs,
		Now:                  p.now,
	})
	// Signature, issuer, audience and expiry are go-oidc's; the rest it leaves
	// to us.
	idToken, err := verifier.Verify(ctx, raw)
	if err != nil {
		_, network := errors.AsType[*url.Error](keys.err)
		if network || errors.Is(keys.err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("%w: %w", errUnreachable, keys.err)
		}
		return nil, fmt.Errorf("%w: %.300v", errUnverified, err)
	}
	if subtle.ConstantTimeCompare([]byte(idToken.Nonce), []byte(nonce)) != 1 {
		return nil, fmt.Errorf("%w: wrong nonce", errUnverified)
	}
	var claims struct {
		AuthorizedParty string `json:"azp"`
	}
	if err := idToken.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnverified, err)
	}
	if azp := claims.AuthorizedParty; azp != p.cfg.ClientID && (azp != "" || len(idToken.Audience) > 1) {
		return nil, fmt.Errorf("%w: issued to %.200q", errUnverified, azp)
	}
	if idToken.Subject == "" || len(idToken.Subject) > 255 {
		return nil, fmt.Errorf("%w: subject of %d bytes", errUnverified, len(idToken.Subject))
	}
	return idToken, nil
}

// keySet remembers why keys could not be fetched, which the verifier's error
// says only in words.
type keySet struct {
	oidc.KeySet
	err error
}

func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	var payload []byte
	payload, k.err = k.KeySet.VerifySignature(ctx, jwt)
	return payload, k.err
}

// profileClaims are the standard claims that a profile is made of.
type profileClaims struct {
	Name              string `json:"name"`
	Nickname          string `json:"nickname"`
	PreferredUsername string `json:"preferred_username"`
	Picture           string `json:"picture"`
}

// FetchUser makes a profile of the ID token's claims, and asks the userinfo
// endpoint for what they lack.
func (p *oidcProvider) FetchUser(session goth.Session) (goth.User, error) {
	s, ok := session.(*oidcSession)
	if !ok || s.idToken == nil {
		return goth.User{}, errors.New("session is not authorized")
	}
	var claims profileClaims
	if err := s.idToken.Claims(&claims); err != nil {
		return goth.User{}, fmt.Errorf("decode claims: %w", err)
	}
	if claims.Name == "" || claims.Picture == "" {
		more, err := p.userInfo(s)
		if err != nil && (claims.Name == "" || errors.Is(err, errUnverified)) {
			return goth.User{}, err
		}
		claims.Name = cmp.Or(claims.Name, more.Name)
		claims.Nickname = cmp.Or(claims.Nickname, more.Nickname)
		claims.PreferredUsername = cmp.Or(claims.PreferredUsername, more.PreferredUsername)
		claims.Picture = cmp.Or(claims.Picture, more.Picture)
	}
	subject := s.idToken.Subject
	if p.cfg.QualifySubject {
		subject = p.cfg.Issuer + "#" + subject
	}
	return goth.User{
		Provider:  p.name,
		UserID:    subject,
		Name:      claims.Name,
		NickName:  cmp.Or(claims.Nickname, claims.PreferredUsername),
		AvatarURL: claims.Picture,
	}, nil
}

// userInfo asks the userinfo endpoint; an issuer without one adds nothing.
func (p *oidcProvider) userInfo(s *oidcSession) (profileClaims, error) {
	var claims profileClaims
	ctx, cancel := p.context()
	defer cancel()
	found, err := p.discover(ctx)
	if err != nil {
		return claims, err
	}
	if found.UserInfoEndpoint() == "" {
		return claims, nil
	}
	info, err := found.UserInfo(ctx, oauth2.StaticTokenSource(s.token))
	if err != nil {
		return claims, fmt.Errorf("userinfo: %.300v", err)
	}
	// OpenID Connect Core 5.3.2: an answer about somebody else must not be used.
	if info.Subject != s.idToken.Subject {
		return claims, fmt.Errorf("%w: userinfo is about somebody else", errUnverified)
	}
	if err := info.Claims(&claims); err != nil {
		return profileClaims{}, fmt.Errorf("userinfo: %w", err)
	}
	return claims, nil
}
