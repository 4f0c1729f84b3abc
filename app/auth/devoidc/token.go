package devoidc

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"maps"
	"net/http"
	"regexp"
	"strings"

	"github.com/go-jose/go-jose/v4/jwt"
)

// verifierText is the alphabet of RFC 7636, 4.1.
var verifierText = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)

// token exchanges a code for an access token and an ID token.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code, description string) {
		writeJSON(w, status, oauthError{code, description})
	}
	if err := r.ParseForm(); err != nil {
		refuse(http.StatusBadRequest, "invalid_request", "the form could not be read")
		return
	}
	form := r.PostForm // never the query: URLs end up in logs
	for name, values := range form {
		if len(values) > 1 {
			refuse(http.StatusBadRequest, "invalid_request", name+" is there more than once")
			return
		}
	}
	if r.Header.Get("Authorization") != "" || form.Has("client_secret") {
		w.Header().Set("WWW-Authenticate", `Basic realm="development login"`)
		refuse(http.StatusUnauthorized, "invalid_client", "the client is public and has no secret")
		return
	}
	if form.Get("client_id") != p.cfg.ClientID {
		refuse(http.StatusUnauthorized, "invalid_client", "client_id is not known here")
		return
	}
	if form.Get("grant_type") != "authorization_code" {
		refuse(http.StatusBadRequest, "unsupported_grant_type", "grant_type must be authorization_code")
		return
	}
	if form.Get("code") == "" || form.Get("code_verifier") == "" {
		refuse(http.StatusBadRequest, "invalid_request", "code and code_verifier are both required")
		return
	}
	gr, ok := p.grants.redeem(form.Get("code"), func(gr grant) bool {
		return form.Get("redirect_uri") == p.cfg.RedirectURI && challenged(gr.challenge, form.Get("code_verifier"))
	})
	if !ok {
		refuse(http.StatusBadRequest, "invalid_grant", "the code is unknown, used or older than a minute, or code_verifier or redirect_uri does not match it")
		return
	}
	idToken, err := p.idToken(gr)
	if err != nil {
		refuse(http.StatusInternalServerError, "server_error", "the ID token could not be signed")
		return
	}
	w.Header().Set("Pragma", "no-cache") // RFC 6749, 5.1
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": gr.token,
		"token_type":   "Bearer",
		"expires_in":   int(tokenLife.Seconds()),
		"id_token":     idToken,
	})
}

// challenged reports whether challenge was made from verifier.
func challenged(challenge, verifier string) bool {
	sum := sha256.Sum256([]byte(verifier))
	made := base64.RawURLEncoding.EncodeToString(sum[:])
	return verifierText.MatchString(verifier) && subtle.ConstantTimeCompare([]byte(made), []byte(challenge)) == 1
}

func (p *Provider) idToken(gr grant) (string, error) {
	now := p.now()
	claims := map[string]any{
		"iss":       p.cfg.Issuer,
		"sub":       gr.person.subject(),
		"aud":       p.cfg.ClientID,
		"iat":       now.Unix(),
		"exp":       now.Add(tokenLife).Unix(),
		"auth_time": gr.consented.Unix(),
	}
	if gr.nonce != "" {
		claims["nonce"] = gr.nonce
	}
	if gr.profile {
		maps.Copy(claims, p.claims(gr.person))
	}
	return jwt.Signed(p.signer).Claims(claims).Serialize()
}

// userInfo tells the bearer of an access token who consented to it.
func (p *Provider) userInfo(w http.ResponseWriter, r *http.Request) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	gr, ok := p.grants.find(token)
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		writeJSON(w, http.StatusUnauthorized, oauthError{"invalid_token", "the access token is unknown, expired or revoked"})
		return
	}
	claims := map[string]any{"sub": gr.person.subject()}
	if gr.profile {
		claims = p.claims(gr.person)
	}
	writeJSON(w, http.StatusOK, claims)
}
