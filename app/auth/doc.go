// Package auth logs people in. It speaks the OAuth 2.0 authorization-code flow
// to GitHub, Google and any OpenID Connect issuer, keeps the profile and
// nothing else, and hands the person to the session:
//
//	providers, err := auth.ProvidersFromEnv(os.Getenv, publicURL)
//	a, err := auth.New(auth.Config{
//		PublicURL: publicURL,
//		Users:     db,
//		Login:     srv.Login,
//		Logout:    srv.Logout,
//		Providers: providers,
//		Secure:    publicURL.Scheme == "https",
//		Keys:      [][]byte{secret},
//	})
//	srv.Identify(a.Identity)
//	r.GET("/login/:provider", a.Begin)
//	r.GET("/login/:provider/callback", a.Callback)
//	r.POST("/logout", a.Logout)
//
// # One login
//
// Begin asks the provider for an authorization URL, seals what must come back
// (state, nonce, PKCE verifier, the page to return to) into a short-lived
// cookie of its own, and redirects. Callback opens that cookie, which names
// the browser that began; the state must match and may be used once. Then the
// code is exchanged, the person is found or added, and the session begins.
//
// Nothing is derived from the Host header: redirect URIs are built from the
// public URL of the configuration.
//
// # Tokens
//
// Clients that keep no cookies show a token instead: Tokens.Bearer is a
// middleware for the same chain, after which Identity finds the same person.
//
// # Errors
//
// The handlers write no error pages (Bearer does: it also runs where there are
// no pages). They call c.Error with an *app.Error,
// whose message is for the person and whose cause is for the log, and abort;
// a middleware above renders it.
//
// # Concurrency
//
// An Auth and its Providers are safe for concurrent use. They start no
// goroutines of their own and need no closing.
package auth
