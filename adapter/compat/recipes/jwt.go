package recipes

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"github.com/gin-usher/usher/adapter"
)

// JWT identifies people by a token, wherever a client can put it. New takes
//
//	adapter.Config{Credentials: []adapter.Source{
//		adapter.Subprotocol("bearer"), adapter.AuthPayload("token"), adapter.FirstMessage(),
//	}}
func JWT(srv *adapter.Server, key any) {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithIssuer("https://example.com"),
		jwt.WithAudience("chat"), jwt.WithExpirationRequired())
	srv.Use(func(c *gin.Context) {
		token, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
		if !ok {
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"code": "unauthenticated", "message": "a token, please"})
			return
		}
		claims := new(jwt.RegisteredClaims)
		if _, err := parser.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"code": "unauthenticated", "message": "this token is not valid"})
			return
		}
		c.Set("claims", claims)
	})
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		claims := c.MustGet("claims").(*jwt.RegisteredClaims)
		return &adapter.Identity{UserID: claims.Subject, Expires: claims.ExpiresAt.Time}, nil // sockets end with the token
	})
}
