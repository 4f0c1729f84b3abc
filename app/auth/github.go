package auth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/markbates/goth"
	"github.com/markbates/goth/providers/github"
	"golang.org/x/oauth2"
)

// GitHubConfig configures GitHub.
type GitHubConfig struct {
	PublicURL              *url.URL
	ClientID, ClientSecret string

	// AuthURL, TokenURL and ProfileURL are set for a GitHub Enterprise server.
	// Empty means github.com's.
	AuthURL, TokenURL, ProfileURL string

	// Timeout bounds each wait for GitHub. Zero means 10s.
	Timeout time.Duration
}

// GitHub returns the provider named "github". It asks for no scope: the public
// profile is all that is needed.
func GitHub(cfg GitHubConfig) (Provider, error) {
	if err := checkPublicURL(cfg.PublicURL); err != nil {
		return Provider{}, err
	}
	if cfg.ClientID == "" || cfg.ClientSecret == "" {
		return Provider{}, errors.New("auth: github: client id and secret are both required")
	}
	cfg.AuthURL = cmp.Or(cfg.AuthURL, github.AuthURL)
	cfg.TokenURL = cmp.Or(cfg.TokenURL, github.TokenURL)
	cfg.ProfileURL = cmp.Or(cfg.ProfileURL, github.ProfileURL)
	for _, u := range []string{cfg.AuthURL, cfg.TokenURL, cfg.ProfileURL} {
		if err := checkEndpoint(u); err != nil {
			return Provider{}, fmt.Errorf("auth: github: %w", err)
		}
	}
	callback := callbackURL(cfg.PublicURL, "github")
	inner := github.NewCustomisedURL(cfg.ClientID, cfg.ClientSecret, callback, cfg.AuthURL, cfg.TokenURL, cfg.ProfileURL, github.EmailURL)
	inner.HTTPClient = newClient(cmp.Or(cfg.Timeout, defaultTimeout))
	return Provider{Label: "GitHub", Provider: &githubProvider{
		Provider: inner,
		client:   inner.HTTPClient,
		oauth: oauth2.Config{
			ClientID:     cfg.ClientID,
			ClientSecret: cfg.ClientSecret,
			RedirectURL:  callback,
			Endpoint: oauth2.Endpoint{
				AuthURL:  cfg.AuthURL,
				TokenURL: cfg.TokenURL,
				// Said, not probed: a probe spends the code on a request that fails.
				AuthStyle: oauth2.AuthStyleInParams,
			},
		},
	}}, nil
}

// githubProvider is goth's provider with PKCE, which GitHub supports and
// goth's lacks: its BeginAuth sends no challenge, and its session's Authorize
// drops the verifier. Profile and the rest are goth's.
type githubProvider struct {
	*github.Provider
	client *http.Client
	oauth  oauth2.Config
}

// githubSession is what one login at GitHub must remember. Only exported
// fields are kept in the browser.
type githubSession struct {
	Verifier string

	authURL     string
	accessToken string
}

func (p *githubProvider) BeginAuth(state string) (goth.Session, error) {
	s := &githubSession{Verifier: oauth2.GenerateVerifier()}
	s.authURL = p.oauth.AuthCodeURL(state, oauth2.S256ChallengeOption(s.Verifier))
	return s, nil
}

func (p *githubProvider) UnmarshalSession(data string) (goth.Session, error) {
	s := &githubSession{}
	if err := json.Unmarshal([]byte(data), s); err != nil {
		return nil, fmt.Errorf("decode session: %w", err)
	}
	return s, nil
}

func (p *githubProvider) FetchUser(session goth.Session) (goth.User, error) {
	s, ok := session.(*githubSession)
	if !ok {
		return goth.User{}, fmt.Errorf("session is a %T", session)
	}
	u, err := p.Provider.FetchUser(&github.Session{AccessToken: s.accessToken})
	// goth reads an answer without an id as id 0, which would make one person
	// of everybody who gets such an answer.
	if err == nil && u.UserID == "0" {
		err = errors.New("profile without an id")
	}
	if err != nil {
		return goth.User{}, err
	}
	return u, nil
}

func (s *githubSession) GetAuthURL() (string, error) {
	if s.authURL == "" {
		return "", errors.New(goth.NoAuthUrlErrorMessage)
	}
	return s.authURL, nil
}

func (s *githubSession) Marshal() string {
	b, _ := json.Marshal(s) // a struct of strings
	return string(b)
}

func (s *githubSession) Authorize(provider goth.Provider, params goth.Params) (string, error) {
	p, ok := provider.(*githubProvider)
	if !ok {
		return "", fmt.Errorf("provider is a %T", provider)
	}
	// goth's interface has no context; the client's timeout bounds the wait.
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, p.client)
	token, err := p.oauth.Exchange(ctx, params.Get("code"), oauth2.VerifierOption(s.Verifier))
	if err != nil {
		return "", err
	}
	s.accessToken = token.AccessToken
	return s.accessToken, nil
}
