package config

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"
)

// env stands in for os.Getenv.
type env map[string]string

func (e env) get(name string) string { return e[name] }

func TestFromEnv(t *testing.T) {
	type want struct {
		addr, public, dataDir string
		proxies               []string
		level                 slog.Level
	}
	tests := []struct {
		name string
		env  env
		want want
	}{
		{"nothing set", env{}, want{"localhost:3000", "", "data", nil, slog.LevelWarn}},
		{"port", env{"PORT": "8080"}, want{"localhost:8080", "", "data", nil, slog.LevelWarn}},
		{"any free port", env{"PORT": "0"}, want{"localhost:0", "", "data", nil, slog.LevelWarn}},
		{"loopback address", env{"ADDR": "127.0.0.1:99"}, want{"127.0.0.1:99", "", "data", nil, slog.LevelWarn}},
		{"IPv6 loopback", env{"ADDR": "[::1]:99"}, want{"[::1]:99", "", "data", nil, slog.LevelWarn}},
		{"all interfaces", env{"ADDR": ":80", "PUBLIC_URL": "https://chat.example.org"},
			want{":80", "https://chat.example.org", "data", nil, slog.LevelWarn}},
		{"public URL over http", env{"ADDR": "0.0.0.0:80", "PUBLIC_URL": "http://chat.lan:8080"},
			want{"0.0.0.0:80", "http://chat.lan:8080", "data", nil, slog.LevelWarn}},
		{"public URL as browsers spell it", env{"PUBLIC_URL": "HTTPS://Chat.Example.org:443/"},
			want{"localhost:3000", "https://chat.example.org", "data", nil, slog.LevelWarn}},
		{"default port over http", env{"PUBLIC_URL": "http://localhost:80"},
			want{"localhost:3000", "http://localhost", "data", nil, slog.LevelWarn}},
		{"proxies", env{"TRUSTED_PROXIES": "10.0.0.1, 192.168.0.0/16,,fd00::/8"},
			want{"localhost:3000", "", "data", []string{"10.0.0.1", "192.168.0.0/16", "fd00::/8"}, slog.LevelWarn}},
		{"data and log", env{"DATA_DIR": "/srv/usher", "LOG_LEVEL": "info"},
			want{"localhost:3000", "", "/srv/usher", nil, slog.LevelInfo}},
		{"spaces around", env{"PORT": " 8080 ", "PUBLIC_URL": " http://localhost:8080 "},
			want{"localhost:8080", "http://localhost:8080", "data", nil, slog.LevelWarn}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := FromEnv(tt.env.get)
			if err != nil {
				t.Fatalf("FromEnv: %v", err)
			}
			got := want{addr: cfg.Addr, dataDir: cfg.DataDir, proxies: cfg.TrustedProxies, level: tt.want.level}
			if cfg.PublicURL != nil {
				got.public = cfg.PublicURL.String()
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("config = %+v, want %+v", got, tt.want)
			}
			ctx := context.Background()
			if !cfg.Log.Enabled(ctx, tt.want.level) || cfg.Log.Enabled(ctx, tt.want.level-1) {
				t.Errorf("the log does not begin at %v", tt.want.level)
			}
		})
	}
}

func TestFromEnvRefuses(t *testing.T) {
	tests := []struct {
		name string
		env  env
		want []string // in the message
	}{
		{"port is no number", env{"PORT": "http"}, []string{"PORT=http"}},
		{"port too high", env{"PORT": "65536"}, []string{"PORT=65536"}},
		{"port negative", env{"PORT": "-1"}, []string{"PORT=-1"}},
		{"address without port", env{"ADDR": "localhost"}, []string{"ADDR=localhost", "host:port"}},
		{"address with a bad port", env{"ADDR": "localhost:x"}, []string{"ADDR=localhost:x"}},
		{"address and port", env{"ADDR": "localhost:1", "PORT": "2"}, []string{"ADDR and PORT"}},
		{"all interfaces, no public URL", env{"ADDR": ":3000"}, []string{"PUBLIC_URL is required"}},
		{"network address, no public URL", env{"ADDR": "192.168.1.5:3000"}, []string{"PUBLIC_URL is required"}},
		{"host name, no public URL", env{"ADDR": "chat.lan:3000"}, []string{"PUBLIC_URL is required"}},
		{"public URL without scheme", env{"PUBLIC_URL": "chat.example.org"}, []string{"PUBLIC_URL", "https://host"}},
		{"public URL of another scheme", env{"PUBLIC_URL": "ftp://chat.example.org"}, []string{"PUBLIC_URL"}},
		{"public URL without host", env{"PUBLIC_URL": "https://"}, []string{"PUBLIC_URL"}},
		{"public URL with a port that is none", env{"PUBLIC_URL": "https://chat.example.org:99999"}, []string{"PUBLIC_URL"}},
		{"public URL with path", env{"PUBLIC_URL": "https://example.org/chat"}, []string{"PUBLIC_URL", "without path"}},
		{"public URL with query", env{"PUBLIC_URL": "https://example.org?x"}, []string{"PUBLIC_URL", "query"}},
		{"public URL with an empty query", env{"PUBLIC_URL": "https://example.org?"}, []string{"PUBLIC_URL", "query"}},
		{"public URL with fragment", env{"PUBLIC_URL": "https://example.org#"}, []string{"PUBLIC_URL", "fragment"}},
		{"public URL with password", env{"PUBLIC_URL": "https://u:hunter2@example.org"}, []string{"PUBLIC_URL", "password"}},
		{"public URL with password, and broken", env{"PUBLIC_URL": "https://u:hunter2@example.org:x"}, []string{"PUBLIC_URL", "not a URL"}},
		{"proxies by name", env{"TRUSTED_PROXIES": "proxy.lan"}, []string{"TRUSTED_PROXIES", `"proxy.lan"`}},
		{"proxies with a bad mask", env{"TRUSTED_PROXIES": "10.0.0.0/99"}, []string{"TRUSTED_PROXIES"}},
		{"token life is no duration", env{"TOKEN_LIFE": "10"}, []string{"TOKEN_LIFE=10", "1s to 24h"}},
		{"tokens for a week", env{"TOKEN_LIFE": "168h"}, []string{"TOKEN_LIFE=168h"}},
		{"tokens for no time", env{"TOKEN_LIFE": "0s"}, []string{"TOKEN_LIFE=0s"}},
		{"log level", env{"LOG_LEVEL": "loud"}, []string{"LOG_LEVEL=loud"}},
		{"everything at once", env{"PORT": "x", "TRUSTED_PROXIES": "y", "LOG_LEVEL": "z"}, []string{"PORT", "TRUSTED_PROXIES", "LOG_LEVEL"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := FromEnv(tt.env.get)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the password: %q", err)
			}
		})
	}
}

func TestTokenLife(t *testing.T) {
	for set, want := range map[string]time.Duration{"": 10 * time.Minute, "2m": 2 * time.Minute} {
		if got := testConfig(t, env{"TOKEN_LIFE": set}).TokenLife; got != want {
			t.Errorf("TOKEN_LIFE=%s: tokens are valid for %v, want %v", set, got, want)
		}
	}
}

func TestPublicURLOn(t *testing.T) {
	tests := []struct{ name, configured, addr, want string }{
		{"loopback", "", "127.0.0.1:4567", "http://localhost:4567"},
		{"IPv6 loopback", "", "[::1]:4567", "http://localhost:4567"},
		{"configured", "https://chat.example.org", "0.0.0.0:80", "https://chat.example.org"},
		{"all interfaces", "", "0.0.0.0:80", ""},
		{"network", "", "192.168.1.5:80", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t, env{"PUBLIC_URL": tt.configured})
			addr, err := net.ResolveTCPAddr("tcp", tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			got, err := cfg.PublicURLOn(addr)
			switch {
			case tt.want == "" && err == nil:
				t.Errorf("PublicURLOn(%s) = %s, want an error", tt.addr, got)
			case tt.want != "" && (err != nil || got.String() != tt.want):
				t.Errorf("PublicURLOn(%s) = %v, %v; want %s", tt.addr, got, err, tt.want)
			}
		})
	}
}

func TestPublicURLOverHTTPWarns(t *testing.T) {
	for public, want := range map[string]bool{
		"http://chat.lan": true, "https://chat.lan": false, "http://localhost:3000": false,
	} {
		cfg := testConfig(t, env{"PUBLIC_URL": public})
		var log bytes.Buffer
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		if _, err := cfg.PublicURLOn(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		if warned := log.Len() > 0; warned != want {
			t.Errorf("%s: warned = %t, want %t", public, warned, want)
		}
	}
}

// testConfig is what e configures, with a silent log.
func testConfig(t testing.TB, e env) Config {
	t.Helper()
	cfg, err := FromEnv(e.get)
	if err != nil {
		t.Fatalf("FromEnv: %v", err)
	}
	cfg.Log = discard
	return cfg
}
