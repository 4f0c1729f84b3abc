// Package devoidc is a small OpenID Connect provider for development: it logs
// in whoever types a name, without a password. With it the chat runs its real
// login flow on a machine that has neither an account anywhere nor a network.
//
//	p, err := devoidc.New(devoidc.Config{
//		Issuer:      "http://localhost:3000/dev/oidc",
//		ClientID:    "usher",
//		RedirectURI: "http://localhost:3000/login/dev/callback",
//	})
//	mux.Handle("/dev/oidc/", p.Handler())
//
// Because it lets anybody be anybody, Check says where it may run: on
// loopback, and only while no real provider is configured.
//
// It is strict where clients have bugs: exact redirect URI, PKCE with S256
// required, codes that live a minute and work once, RS256 with a key made at
// start. It is small where development needs nothing: one public client, the
// code flow alone, nothing stored. People are who they were before after a
// restart, because the subject is derived from the name.
//
// It is written here, over go-jose which the client side needs anyway, and not
// taken from zitadel/oidc: that is a fine framework for real providers, and
// brings a router, telemetry and a storage interface of some thirty methods
// into every build for the sake of a feature of development.
//
// # Concurrency
//
// A Provider is safe for concurrent use. It starts no goroutines and needs no
// closing.
package devoidc
