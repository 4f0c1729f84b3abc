package devoidc

import (
	"crypto/rand"
	"sync"
	"time"
)

const (
	codeLife  = time.Minute
	tokenLife = 5 * time.Minute
	maxGrants = 10_000
)

// grant is one consent, as a code and then as an access token.
type grant struct {
	person    Person
	nonce     string
	challenge string // PKCE, S256
	profile   bool   // scope
	consented time.Time

	code, token string
	redeemed    bool
	revoked     bool
}

// grants remembers consents for as long as a code or token made from them can
// be presented. It holds at most maxGrants, and forgets the oldest first.
type grants struct {
	now func() time.Time

	mu      sync.Mutex
	byCode  map[string]*grant
	byToken map[string]*grant
	fifo    []*grant
}

func newGrants(now func() time.Time) *grants {
	return &grants{now: now, byCode: make(map[string]*grant), byToken: make(map[string]*grant)}
}

// add keeps gr and returns the code for it.
func (g *grants) add(gr grant) (code string) {
	gr.consented = g.now()
	gr.code = rand.Text()
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.fifo) > 0 && (len(g.fifo) >= maxGrants || gr.consented.Sub(g.fifo[0].consented) > codeLife+tokenLife) {
		delete(g.byCode, g.fifo[0].code)
		delete(g.byToken, g.fifo[0].token)
		g.fifo = g.fifo[1:]
	}
	g.byCode[gr.code] = &gr
	g.fifo = append(g.fifo, &gr)
	return gr.code
}

// redeem returns the grant of a code, with a new access token, once. Whoever
// presents a code again may have stolen it, so that revokes the token too (RFC
// 6749, 4.1.2). The attempt counts even if accept finds fault with it: a code
// does not wait for a second guess of the verifier.
func (g *grants) redeem(code string, accept func(grant) bool) (grant, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	gr, ok := g.byCode[code]
	if !ok {
		return grant{}, false
	}
	if gr.redeemed || g.now().Sub(gr.consented) > codeLife || !accept(*gr) {
		gr.redeemed, gr.revoked = true, true
		return grant{}, false
	}
	gr.redeemed = true
	gr.token = rand.Text()
	g.byToken[gr.token] = gr
	return *gr, true
}

// find returns the grant of an access token.
func (g *grants) find(token string) (grant, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	gr, ok := g.byToken[token]
	if !ok || gr.revoked || g.now().Sub(gr.consented) > tokenLife {
		return grant{}, false
	}
	return *gr, true
}
