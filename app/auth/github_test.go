package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gin-usher/usher/app"
)

// fakeGitHub answers like github.com's token and profile endpoints.
type fakeGitHub struct {
	url       string
	challenge string // of the login under way
	token     string // body instead of a token
	profile   string
	posted    url.Values
	asked     []string // paths of the API
}

func newGitHub(t testing.TB) *fakeGitHub {
	t.Helper()
	g := &fakeGitHub{profile: `{"id":583231,"login":"octocat","name":"The Octocat","avatar_url":"https://avatars.example/u/583231","email":"o@example.com"}`}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login/oauth/access_token", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		g.posted = r.PostForm
		w.Header().Set("Content-Type", "application/x-www-form-urlencoded")
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		switch {
		case g.token != "":
			_, _ = io.WriteString(w, g.token)
		case base64.RawURLEncoding.EncodeToString(sum[:]) != g.challenge:
			// GitHub's errors come with status 200.
			_, _ = io.WriteString(w, "error=bad_verification_code&error_description=The+code+passed+is+incorrect+or+expired.")
		default:
			_, _ = io.WriteString(w, "access_token=gho_token&scope=&token_type=bearer")
		}
	})
	mux.HandleFunc("GET /user", func(w http.ResponseWriter, r *http.Request) {
		g.asked = append(g.asked, r.URL.Path)
		if r.Header.Get("Authorization") != "Bearer gho_token" {
			http.Error(w, "bad credentials", http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, g.profile)
	})
	mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { g.asked = append(g.asked, r.URL.Path) })
	server := httptest.NewServer(mux)
	g.url = server.URL
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		server.Close()
	})
	return g
}

func (g *fakeGitHub) provider(t testing.TB) func(*url.URL) []Provider {
	return func(public *url.URL) []Provider {
		p, err := GitHub(GitHubConfig{
			PublicURL: public, ClientID: "id", ClientSecret: "secret",
			AuthURL: g.url + "/login/oauth/authorize", TokenURL: g.url + "/login/oauth/access_token", ProfileURL: g.url + "/user",
		})
		if err != nil {
			t.Fatal(err)
		}
		return []Provider{p}
	}
}

// login begins and calls back with a code.
func (g *fakeGitHub) login(b *browser) answer {
	b.t.Helper()
	q := b.begin("/login/github?next=/room/lobby").Query()
	g.challenge = q.Get("code_challenge")
	return b.get("/login/github/callback?code=abc&state=" + q.Get("state"))
}

func TestGitHub(t *testing.T) {
	g := newGitHub(t)
	s := newSite(t, g.provider(t))
	b := s.browser(t)
	at := b.begin("/login/github").Query()
	if at.Get("code_challenge_method") != "S256" || at.Get("client_id") != "id" || at.Get("scope") != "" ||
		at.Get("redirect_uri") != s.url.String()+"/login/github/callback" || len(at.Get("state")) < 26 {
		t.Errorf("authorization request = %v", at)
	}
	if to := g.login(b).location(t).Path; to != "/room/lobby" {
		t.Errorf("returned to %s", to)
	}
	want := app.Profile{Provider: "github", Subject: "583231", Name: "The Octocat", Avatar: "https://avatars.example/u/583231"}
	if got := s.users.last(t); got != want {
		t.Errorf("profile = %+v, want %+v", got, want)
	}
	if g.posted.Get("client_secret") != "secret" || g.posted.Get("code") != "abc" {
		t.Errorf("token request = %v", g.posted)
	}
	if len(g.asked) != 1 { // not the e-mail addresses
		t.Errorf("the API was asked for %v", g.asked)
	}
}

func TestGitHubWithoutName(t *testing.T) {
	g := newGitHub(t)
	g.profile = `{"id":1,"login":"ghost","name":null}`
	s := newSite(t, g.provider(t))
	g.login(s.browser(t)).location(t)
	if got := s.users.last(t); got.Name != "ghost" || got.Avatar != "" {
		t.Errorf("profile = %+v", got)
	}
}

func TestGitHubRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*fakeGitHub)
		want   app.Code
	}{
		{"code of another login", func(g *fakeGitHub) { g.token = "error=bad_verification_code" }, app.CodeInvalid},
		{"wrong secret", func(g *fakeGitHub) { g.token = "error=incorrect_client_credentials" }, app.CodeInternal},
		{"no profile", func(g *fakeGitHub) { g.token = "access_token=other&token_type=bearer" }, app.CodeUnavailable},
		// Once an answer without id made everybody the person with id 0.
		{"profile without id", func(g *fakeGitHub) { g.profile = `{"message":"hello"}` }, app.CodeUnavailable},
		{"profile is no JSON", func(g *fakeGitHub) { g.profile = `<html>` }, app.CodeUnavailable},
		{"endless profile", func(g *fakeGitHub) { g.profile = `{"id":1,"bio":"` + strings.Repeat("x", maxAnswer) + `"}` }, app.CodeUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGitHub(t)
			tt.change(g)
			s := newSite(t, g.provider(t))
			g.login(s.browser(t)).refused(t, tt.want)
			if len(s.logins()) != 0 {
				t.Error("somebody was logged in")
			}
		})
	}
}

// The verifier is this login's: with another one's challenge GitHub refuses.
func TestGitHubChecksVerifier(t *testing.T) {
	g := newGitHub(t)
	s := newSite(t, g.provider(t))
	b := s.browser(t)
	first, second := b.begin("/login/github").Query(), b.begin("/login/github").Query()
	g.challenge = first.Get("code_challenge")
	b.get("/login/github/callback?code=abc&state="+second.Get("state")).refused(t, app.CodeInvalid)
	b.get("/login/github/callback?code=abc&state=" + first.Get("state")).location(t)
}
