package web

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/app"
)

// securityHeaders tells the browser what a page of this site may do. Scripts
// and styles come from files only, so nothing anyone types can become either.
func securityHeaders(public *url.URL) gin.HandlerFunc {
	socket := &url.URL{Scheme: "ws", Host: public.Host}
	if public.Scheme == "https" {
		socket.Scheme = "wss"
	}
	csp := strings.Join([]string{
		"default-src 'self'",
		"script-src 'self'",
		"style-src 'self'",
		"img-src 'self' https: data:", // avatars live at their providers
		// 'self' covers the socket too, except in Safari before 15.4.
		"connect-src 'self' " + socket.String(),
		// Chromium applies form-action to the redirects that follow a post.
		// Logging in at a provider starts with a link, so 'self' is enough.
		"form-action 'self'",
		"object-src 'none'",
		"base-uri 'none'",
		"frame-ancestors 'none'",
	}, "; ")
	return func(c *gin.Context) {
		h := c.Writer.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		if public.Scheme == "https" {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
	}
}

// crossOriginProtection refuses forms that another site submits.
func crossOriginProtection(public *url.URL) (gin.HandlerFunc, error) {
	cop := http.NewCrossOriginProtection()
	// Behind a proxy that rewrites Host, the browser's Origin is still ours.
	if err := cop.AddTrustedOrigin(public.Scheme + "://" + public.Host); err != nil {
		return nil, fmt.Errorf("public URL: %w", err)
	}
	return func(c *gin.Context) {
		if err := cop.Check(c.Request); err != nil {
			fail(c, &app.Error{
				Code:    app.CodeForbidden,
				Message: "This form was sent from another site, so it was not accepted.",
				Err:     err,
			})
		}
	}, nil
}

// bodyPatience is how long what a browser posts may take to arrive.
const bodyPatience = 30 * time.Second

// hurry keeps a body that trickles in from holding its request for ever:
// http.Server cannot, its limits would end sockets too.
func hurry(c *gin.Context) {
	if c.Request.ContentLength == 0 {
		return
	}
	// What cannot be limited is no connection of net/http's.
	_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(bodyPatience))
}

// noStore keeps pages with somebody's data out of every cache.
func noStore(c *gin.Context) { c.Header("Cache-Control", "no-store") }

// publicHost sends a browser that came by another name of this very machine
// (127.0.0.1 for localhost) to the public one: cookies and the login callback
// belong to that name alone. Other hosts are left as they are, because proxies
// and health checks may use names of their own.
func (s *site) publicHost(c *gin.Context) {
	r := c.Request
	if r.Method != http.MethodGet || r.Host == s.PublicURL.Host {
		return
	}
	if !loopback(r.Host) || !loopback(s.PublicURL.Host) {
		return
	}
	c.Redirect(http.StatusFound, s.PublicURL.Scheme+"://"+s.PublicURL.Host+r.URL.RequestURI())
	c.Abort()
}

// onlyThisMachine refuses requests that name another host: a page whose name was
// made to lead to this machine (DNS rebinding) is of the same origin as what it
// asks, to the browser and to every check of origins.
func onlyThisMachine(c *gin.Context) {
	if !loopback(c.Request.Host) {
		fail(c, app.Errorf(app.CodeForbidden, "This is for development on this machine only."))
	}
}

// loopback reports whether hostport names this machine's loopback interface.
func loopback(hostport string) bool {
	u := url.URL{Host: hostport}
	host := u.Hostname()
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}
