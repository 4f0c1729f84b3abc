package auth

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/markbates/goth"
)

// Provider is one way to log in: an implementation of goth's interface and
// what the login page calls it. Its goth name is the name in URLs and in the
// profiles of the people who use it, so it must never change. The
// implementation answers for PKCE and, where there is an ID token, for its
// verification; GitHub and OIDC make some that do.
type Provider struct {
	goth.Provider
	Label string // "GitHub"
}

// ProvidersFromEnv returns the providers that the environment configures, for
// a site at publicURL:
//
//	GITHUB_CLIENT_ID, GITHUB_CLIENT_SECRET
//	GOOGLE_CLIENT_ID, GOOGLE_CLIENT_SECRET
//	OIDC_ISSUER, OIDC_CLIENT_ID, OIDC_CLIENT_SECRET; OIDC_NAME is its label
//
// The callback to register is publicURL + /login/<github|google|oidc>/callback.
// A provider that is half set is an error naming what is missing.
func ProvidersFromEnv(getenv func(string) string, publicURL *url.URL) ([]Provider, error) {
	e := env{getenv: getenv}
	var providers []Provider
	add := func(p Provider, err error) {
		providers = append(providers, p)
		e.errs = append(e.errs, err)
	}
	if e.complete("GITHUB_CLIENT_ID", "GITHUB_CLIENT_SECRET") {
		add(GitHub(GitHubConfig{
			PublicURL:    publicURL,
			ClientID:     e.get("GITHUB_CLIENT_ID"),
			ClientSecret: e.get("GITHUB_CLIENT_SECRET"),
		}))
	}
	if e.complete("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET") {
		add(OIDC(OIDCConfig{
			Name:         "google",
			Label:        "Google",
			Issuer:       "https://accounts.google.com",
			PublicURL:    publicURL,
			ClientID:     e.get("GOOGLE_CLIENT_ID"),
			ClientSecret: e.get("GOOGLE_CLIENT_SECRET"),
		}))
	}
	if e.complete("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET") {
		add(OIDC(OIDCConfig{
			Name:         "oidc",
			Label:        cmp.Or(e.get("OIDC_NAME"), "OpenID Connect"),
			Issuer:       e.get("OIDC_ISSUER"),
			PublicURL:    publicURL,
			ClientID:     e.get("OIDC_CLIENT_ID"),
			ClientSecret: e.get("OIDC_CLIENT_SECRET"),
			// The environment may name another issuer tomorrow, whose subjects
			// must not become the people of today's.
			QualifySubject: true,
		}))
	} else if e.get("OIDC_NAME") != "" {
		e.errs = append(e.errs, errors.New("auth: OIDC_NAME is set, but OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET are not"))
	}
	if err := errors.Join(e.errs...); err != nil {
		return nil, err
	}
	return providers, nil
}

// env reads variables that belong together.
type env struct {
	getenv func(string) string
	errs   []error
}

func (e *env) get(name string) string { return strings.TrimSpace(e.getenv(name)) }

// complete reports whether all of names are set. Some, but not all, is an error.
func (e *env) complete(names ...string) bool {
	var set, missing []string
	for _, name := range names {
		if e.get(name) == "" {
			missing = append(missing, name)
		} else {
			set = append(set, name)
		}
	}
	if len(set) > 0 && len(missing) > 0 {
		e.errs = append(e.errs, fmt.Errorf("auth: %s is set, but %s is not", strings.Join(set, ", "), strings.Join(missing, ", ")))
	}
	return len(missing) == 0
}

var providerName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

func validName(name string) bool { return providerName.MatchString(name) }

// checkPublicURL refuses an address that redirect URIs cannot be built on.
func checkPublicURL(u *url.URL) error {
	switch {
	case u == nil:
		return errors.New("auth: PublicURL is missing")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.User != nil,
		u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return fmt.Errorf("auth: PublicURL %s: want http(s)://host[:port] and nothing else", u.Redacted())
	}
	return nil
}

// callbackURL is the redirect URI of a provider.
func callbackURL(public *url.URL, name string) string {
	return public.JoinPath("login", name, "callback").String()
}

// checkEndpoint refuses an address of a provider where secrets would travel in
// the clear; plain http is for this machine.
func checkEndpoint(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("parse URL: %w", err)
	}
	if u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("%q is no absolute URL", u.Redacted())
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%q must be https", raw)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

const (
	defaultTimeout = 10 * time.Second
	maxAnswer      = 512 << 10 // bytes of one answer of a provider
)

// newClient returns the client for one provider's back channel. A provider
// that stalls or never stops talking costs a login, not the server.
func newClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:   timeout,
		Transport: boundedTransport{},
		// A redirect would take the client's secret, a code or a token to
		// where nobody configured it to go.
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			return fmt.Errorf("refused a redirect to %s", r.URL.Host)
		},
	}
}

// boundedTransport is http.DefaultTransport with answers cut, as an error, at
// maxAnswer bytes.
type boundedTransport struct{}

func (boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	return resp, nil
}
