package auth

import (
	"net/url"
	"strings"
	"testing"
)

func TestProvidersFromEnv(t *testing.T) {
	public := &url.URL{Scheme: "https", Host: "chat.example"}
	all := map[string]string{
		"GITHUB_CLIENT_ID": "gh", "GITHUB_CLIENT_SECRET": "s1",
		"GOOGLE_CLIENT_ID": "go", "GOOGLE_CLIENT_SECRET": "s2\n",
		"OIDC_ISSUER": "https://idp.example", "OIDC_CLIENT_ID": "oi", "OIDC_CLIENT_SECRET": "s3", "OIDC_NAME": "Our company",
	}
	for _, tt := range []struct {
		name   string
		env    map[string]string
		labels string // name=label
		err    []string
	}{
		{"nothing", nil, "", nil},
		{"all", all, "github=GitHub google=Google oidc=Our company", nil},
		{"OIDC without a name", without(all, "OIDC_NAME", "GITHUB_CLIENT_ID", "GITHUB_CLIENT_SECRET", "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET"), "oidc=OpenID Connect", nil},
		{"GitHub without secret", without(all, "GITHUB_CLIENT_SECRET"), "", []string{"GITHUB_CLIENT_SECRET is not"}},
		{"GitHub without id", without(all, "GITHUB_CLIENT_ID"), "", []string{"GITHUB_CLIENT_ID is not"}},
		{"Google without secret", without(all, "GOOGLE_CLIENT_SECRET"), "", []string{"GOOGLE_CLIENT_SECRET is not"}},
		{"OIDC issuer alone", map[string]string{"OIDC_ISSUER": "https://idp.example"}, "", []string{"OIDC_CLIENT_ID, OIDC_CLIENT_SECRET is not"}},
		{"OIDC without issuer", without(all, "OIDC_ISSUER"), "", []string{"OIDC_ISSUER is not"}},
		{"OIDC name alone", map[string]string{"OIDC_NAME": "Us"}, "", []string{"OIDC_NAME is set"}},
		{"blank is unset", map[string]string{"GITHUB_CLIENT_ID": "x", "GITHUB_CLIENT_SECRET": "  "}, "", []string{"GITHUB_CLIENT_SECRET is not"}},
		{"issuer in the clear", map[string]string{"OIDC_ISSUER": "http://idp.example", "OIDC_CLIENT_ID": "x", "OIDC_CLIENT_SECRET": "y"}, "", []string{"must be https"}},
		{"two by half", map[string]string{"GITHUB_CLIENT_ID": "x", "GOOGLE_CLIENT_SECRET": "y"}, "",
			[]string{"GITHUB_CLIENT_SECRET is not", "GOOGLE_CLIENT_ID is not"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			providers, err := ProvidersFromEnv(func(k string) string { return tt.env[k] }, public)
			var labels []string
			for _, p := range providers {
				labels = append(labels, p.Name()+"="+p.Label)
			}
			if got := strings.Join(labels, " "); got != tt.labels {
				t.Errorf("providers = %q, want %q", got, tt.labels)
			}
			if (err != nil) != (tt.err != nil) {
				t.Fatalf("error = %v, want %q", err, tt.err)
			}
			for _, want := range tt.err {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if err != nil && strings.Contains(err.Error(), "s1") {
				t.Errorf("error %q tells a secret", err)
			}
		})
	}
}

func without(env map[string]string, names ...string) map[string]string {
	left := make(map[string]string)
	for k, v := range env {
		left[k] = v
	}
	for _, n := range names {
		delete(left, n)
	}
	return left
}

func TestCallbackURL(t *testing.T) {
	for public, want := range map[string]string{
		"http://localhost:3000": "http://localhost:3000/login/dev/callback",
		"https://chat.example/": "https://chat.example/login/dev/callback",
		"https://[::1]:8443":    "https://[::1]:8443/login/dev/callback",
	} {
		u, err := url.Parse(public)
		if err != nil {
			t.Fatal(err)
		}
		if got := callbackURL(u, "dev"); got != want {
			t.Errorf("callbackURL(%s) = %s, want %s", public, got, want)
		}
	}
}
