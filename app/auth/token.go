package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
)

const (
	// tokenAudience is whom tokens are for.
	tokenAudience = "usher"
	maxToken      = 4 << 10 // bytes; ours have about 400
	maxLoginBody  = 4 << 10 // bytes
)

// TokenKeys are what tokens are signed with; *config.TokenKeys has some. An id
// is the same for ever, keys come and go.
type TokenKeys interface {
	Signing() (id string, key ed25519.PrivateKey)
	Verifying(id string) (key ed25519.PublicKey, ok bool)
}

// Tokens issues and verifies JSON Web Tokens (RFC 7519) that name a person:
// signed with Ed25519 and nothing else, by this site, for this site, and valid
// for a few minutes.
type Tokens struct {
	issuer string
	keys   TokenKeys
	life   time.Duration
	now    func() time.Time
}

// NewTokens returns the tokens of the site at public.
func NewTokens(public *url.URL, keys TokenKeys, life time.Duration) *Tokens {
	return &Tokens{issuer: public.String(), keys: keys, life: life, now: time.Now}
}

// Issue returns a token of the person with that id, and until when it is valid.
func (t *Tokens) Issue(userID string) (token string, expires time.Time, err error) {
	id, key := t.keys.Signing()
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: key, KeyID: id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("auth: sign token: %w", err)
	}
	now := t.now().UTC().Truncate(time.Second) // the grain of JWT
	expires = now.Add(t.life)
	token, err = jwt.Signed(signer).Claims(jwt.Claims{
		Issuer:   t.issuer,
		Subject:  userID,
		Audience: jwt.Audience{tokenAudience},
		Expiry:   jwt.NewNumericDate(expires),
		IssuedAt: jwt.NewNumericDate(now),
		ID:       rand.Text(),
	}).Serialize()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("auth: sign token: %w", err)
	}
	return token, expires, nil
}

// What is wrong with a token. Neither says anything that is in it.
var (
	errTokenInvalid = errors.New("this token is not valid here")
	errTokenExpired = errors.New("this token has expired; get a new one")
)

// verify returns whom the token names and until when.
func (t *Tokens) verify(token string) (adapter.Identity, error) {
	if len(token) > maxToken {
		return adapter.Identity{}, errTokenInvalid
	}
	// The algorithm is ours to choose, not the token's: RFC 8725, section 3.1.
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return adapter.Identity{}, errTokenInvalid
	}
	key, ok := t.keys.Verifying(parsed.Headers[0].KeyID)
	if !ok {
		return adapter.Identity{}, errTokenInvalid
	}
	var claims jwt.Claims
	if parsed.Claims(key, &claims) != nil {
		return adapter.Identity{}, errTokenInvalid
	}
	now := t.now()
	expected := jwt.Expected{Issuer: t.issuer, AnyAudience: jwt.Audience{tokenAudience}, Time: now}
	switch err := claims.ValidateWithLeeway(expected, 0); {
	case errors.Is(err, jwt.ErrExpired):
		return adapter.Identity{}, errTokenExpired
	case err != nil, claims.Subject == "", claims.Expiry == nil, claims.IssuedAt == nil: // which jwt leaves to us
		return adapter.Identity{}, errTokenInvalid
	}
	expires := claims.Expiry.Time()
	if !now.Before(expires) { // RFC 7519, section 4.1.4: not on the second either
		return adapter.Identity{}, errTokenExpired
	}
	return adapter.Identity{UserID: claims.Subject, Provider: "token", Expires: expires}, nil
}

// tokenIdentity is where Bearer leaves what it found.
const tokenIdentity = "github.com/gin-usher/usher/app/auth.token"

// Bearer is a middleware that knows people by the token in Authorization. It
// passes a request without one on, to be known by its session. One whose token
// is not valid is refused, whatever its session is: who shows a token means to
// be known by it.
func (t *Tokens) Bearer(c *gin.Context) {
	scheme, token, _ := strings.Cut(c.GetHeader("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110, section 11.1
		return
	}
	id, err := t.verify(strings.TrimSpace(token))
	if err != nil {
		c.Header("WWW-Authenticate", `Bearer error="invalid_token"`) // RFC 6750, section 3
		c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"code": app.CodeUnauthenticated, "message": err.Error()})
		return
	}
	c.Set(tokenIdentity, id)
}

// TokenLogin returns the handler that gives a token to whoever names a person:
// {"user":"alice"} is answered with {"token":…,"expires":…}. It asks for no
// password, so it is for development: person knows the people that there are
// and fails for every other name. Route it as POST, behind
// http.CrossOriginProtection.
func (a *Auth) TokenLogin(tokens *Tokens, person func(user string) (app.Profile, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		noStore(c)
		// Forms of other sites cannot send this type, and scripts of other
		// sites only after asking (fetch.spec.whatwg.org, CORS-safelisted).
		if kind, _, err := mime.ParseMediaType(c.GetHeader("Content-Type")); err != nil || kind != gin.MIMEJSON {
			fail(c, app.Errorf(app.CodeInvalid, "Expected the Content-Type application/json."))
			return
		}
		var in struct{ User string }
		body := http.MaxBytesReader(c.Writer, c.Request.Body, maxLoginBody)
		if json.NewDecoder(body).Decode(&in) != nil || in.User == "" {
			fail(c, app.Errorf(app.CodeInvalid, `Expected {"user":"…"}.`))
			return
		}
		profile, err := person(in.User)
		if err != nil {
			fail(c, &app.Error{Code: app.CodeInvalid, Message: "There is no such development user.", Err: err})
			return
		}
		profile.Name, profile.Avatar = displayName(profile.Name), avatarURL(a.public, profile.Avatar)
		u, err := a.users.UpsertUser(c.Request.Context(), profile)
		if err != nil {
			fail(c, &app.Error{
				Code:    app.CodeUnavailable,
				Message: "Your login could not be saved just now. Try again in a moment.",
				Err:     fmt.Errorf("auth: token login: %w", err),
			})
			return
		}
		token, expires, err := tokens.Issue(u.ID)
		if err != nil {
			fail(c, &app.Error{Code: app.CodeInternal, Message: "The token could not be made.", Err: err})
			return
		}
		a.log.Info("issued a token", "user", u.ID, "expires", expires)
		c.JSON(http.StatusOK, gin.H{"token": token, "expires": expires})
	}
}
