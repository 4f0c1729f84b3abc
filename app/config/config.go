// Package config reads what the program is told and what it keeps to itself:
// the settings in the environment, and the secrets in the data folder.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Config is what the environment says. FromEnv makes it.
type Config struct {
	// Addr is where to listen: ADDR, or localhost and PORT (3000).
	Addr string
	// PublicURL is how people reach the site: PUBLIC_URL, spelled as browsers
	// do. Nil means http://localhost and the listener's port, on loopback only;
	// PublicURLOn says which.
	PublicURL *url.URL
	// DataDir holds the database and the secrets: DATA_DIR (data).
	DataDir string
	// TrustedProxies are the addresses and networks whose X-Forwarded-For is
	// believed: TRUSTED_PROXIES, separated by commas (none).
	TrustedProxies []string
	// TokenLife is how long a token of POST /api/login is valid: TOKEN_LIFE
	// (10m), at most MaxTokenLife.
	TokenLife time.Duration
	// Log writes to standard error what is at least LOG_LEVEL (warn): debug,
	// info (a line for every request), warn or error.
	Log *slog.Logger
}

// FromEnv reads and checks the environment. Its error names every variable that
// is wrong.
func FromEnv(getenv func(string) string) (Config, error) {
	get := func(name string) string { return strings.TrimSpace(getenv(name)) }
	var cfg Config
	var errs []error
	invalid := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s=%s: %s", name, get(name), fmt.Sprintf(format, args...)))
	}

	addr, port := get("ADDR"), get("PORT")
	switch {
	case addr != "" && port != "":
		errs = append(errs, errors.New("ADDR and PORT are both set: ADDR has the port already"))
	case addr == "":
		port = cmp.Or(port, "3000")
		if !validPort(port) {
			invalid("PORT", "want a number from 0 to 65535")
		}
		cfg.Addr = net.JoinHostPort("localhost", port)
	default:
		if _, port, err := net.SplitHostPort(addr); err != nil || !validPort(port) {
			invalid("ADDR", "want host:port, such as localhost:3000 or :8080")
		}
		cfg.Addr = addr
	}

	if raw := get("PUBLIC_URL"); raw != "" {
		public, err := parsePublicURL(raw)
		if err != nil {
			errs = append(errs, fmt.Errorf("PUBLIC_URL: %w", err))
		}
		cfg.PublicURL = public
	} else if host, _, err := net.SplitHostPort(cfg.Addr); err == nil && !IsLoopback(host) {
		errs = append(errs, fmt.Errorf("PUBLIC_URL is required, because %s is not only for this machine: "+
			"set it to the address people use, such as https://chat.example.org", cfg.Addr))
	}

	for entry := range strings.SplitSeq(get("TRUSTED_PROXIES"), ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		if !validProxy(entry) {
			invalid("TRUSTED_PROXIES", "%q is neither an IP address nor a network such as 10.0.0.0/8", entry)
			continue
		}
		cfg.TrustedProxies = append(cfg.TrustedProxies, entry)
	}

	cfg.TokenLife = 10 * time.Minute
	if raw := get("TOKEN_LIFE"); raw != "" {
		life, err := time.ParseDuration(raw)
		if err != nil || life < time.Second || life > MaxTokenLife {
			invalid("TOKEN_LIFE", "want a duration from 1s to %v, such as 10m", MaxTokenLife)
		}
		cfg.TokenLife = life
	}

	level := slog.LevelWarn
	if raw := get("LOG_LEVEL"); raw != "" {
		if err := level.UnmarshalText([]byte(raw)); err != nil {
			invalid("LOG_LEVEL", "want debug, info, warn or error")
		}
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	cfg.DataDir = cmp.Or(get("DATA_DIR"), "data")
	return cfg, errors.Join(errs...)
}

// PublicURLOn returns how people reach a site that listens on addr. It is an
// error if only the environment could know, and a warning in the log if others
// on the way could read along.
func (cfg Config) PublicURLOn(addr net.Addr) (*url.URL, error) {
	if cfg.PublicURL != nil {
		if cfg.PublicURL.Scheme == "http" && !IsLoopback(cfg.PublicURL.Hostname()) {
			cfg.Log.Warn("PUBLIC_URL is not https: whoever is on the way can read along and take over logins",
				"url", cfg.PublicURL.String())
		}
		return cfg.PublicURL, nil
	}
	if !listensOnLoopback(addr) {
		return nil, fmt.Errorf("PUBLIC_URL is required, because %s is not only for this machine", addr)
	}
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort("localhost", port)}, nil
}

// parsePublicURL accepts scheme://host[:port] and nothing more, because the
// routes, the cookie's path and the login callback all start at the root.
func parsePublicURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("not a URL") // err quotes it, perhaps with a password
	}
	port := u.Port()
	switch {
	case u.User != nil:
		return nil, errors.New("must not hold a user name or password")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", port != "" && !validPort(port):
		return nil, fmt.Errorf("%q: want http://host[:port] or https://host[:port]", raw)
	case u.Path != "" && u.Path != "/", u.RawQuery != "" || u.ForceQuery, u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, fmt.Errorf("%q: want only scheme and host, without path, query or fragment", raw)
	}
	// The one spelling that browsers use in Origin: lower case, and no port
	// where the scheme implies it.
	host := strings.ToLower(u.Host)
	switch {
	case u.Scheme == "http":
		host = strings.TrimSuffix(host, ":80")
	case u.Scheme == "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.TrimSuffix(host, ":")}, nil
}

func validPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil
}

func validProxy(entry string) bool {
	_, err := netip.ParseAddr(entry)
	if err != nil {
		_, err = netip.ParsePrefix(entry)
	}
	return err == nil
}

// IsLoopback reports whether host, a name or an address without a port, is this
// machine only.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

func listensOnLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
