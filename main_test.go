package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// env stands in for os.Getenv.
type env map[string]string

func (e env) get(name string) string { return e[name] }

func TestConfigFromEnv(t *testing.T) {
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
			cfg, err := configFromEnv(tt.env.get)
			if err != nil {
				t.Fatalf("configFromEnv: %v", err)
			}
			got := want{addr: cfg.addr, dataDir: cfg.dataDir, proxies: cfg.trustedProxies, level: tt.want.level}
			if cfg.publicURL != nil {
				got.public = cfg.publicURL.String()
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("config = %+v, want %+v", got, tt.want)
			}
			ctx := context.Background()
			if !cfg.log.Enabled(ctx, tt.want.level) || cfg.log.Enabled(ctx, tt.want.level-1) {
				t.Errorf("the log does not begin at %v", tt.want.level)
			}
		})
	}
}

func TestConfigFromEnvRefuses(t *testing.T) {
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
		{"log level", env{"LOG_LEVEL": "loud"}, []string{"LOG_LEVEL=loud"}},
		{"half a provider", env{"GITHUB_CLIENT_ID": "x"}, []string{"GITHUB_CLIENT_SECRET"}},
		{"everything at once", env{"PORT": "x", "TRUSTED_PROXIES": "y", "LOG_LEVEL": "z"}, []string{"PORT", "TRUSTED_PROXIES", "LOG_LEVEL"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := configFromEnv(tt.env.get)
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
			got, err := cfg.publicURLOn(addr)
			switch {
			case tt.want == "" && err == nil:
				t.Errorf("publicURLOn(%s) = %s, want an error", tt.addr, got)
			case tt.want != "" && (err != nil || got.String() != tt.want):
				t.Errorf("publicURLOn(%s) = %v, %v; want %s", tt.addr, got, err, tt.want)
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
		cfg.log = slog.New(slog.NewTextHandler(&log, nil))
		if _, err := cfg.publicURLOn(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		if warned := log.Len() > 0; warned != want {
			t.Errorf("%s: warned = %t, want %t", public, warned, want)
		}
	}
}

// The development provider lets anybody in as anybody, so nothing but this
// machine may ever reach it.
func TestDevelopmentProviderStaysOnLoopback(t *testing.T) {
	github := env{"GITHUB_CLIENT_ID": "id", "GITHUB_CLIENT_SECRET": "secret"}
	tests := []struct {
		name, public, addr string
		env                env
		dev                bool
		wantErr            bool
	}{
		{"loopback", "http://localhost:3000", "127.0.0.1:3000", nil, true, false},
		{"all interfaces", "http://localhost:3000", "0.0.0.0:3000", nil, false, true},
		{"behind a proxy or tunnel", "https://chat.example.org", "127.0.0.1:3000", nil, false, true},
		{"real provider", "https://chat.example.org", "0.0.0.0:3000", github, false, false},
		{"real provider on loopback", "http://localhost:3000", "127.0.0.1:3000", github, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, err := net.ResolveTCPAddr("tcp", tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			public, err := url.Parse(tt.public)
			if err != nil {
				t.Fatal(err)
			}
			providers, dev, err := loginProviders(testConfig(t, tt.env), public, addr)
			if (err != nil) != tt.wantErr || (dev != nil) != tt.dev {
				t.Fatalf("loginProviders: handler %v, error %v; want handler %t, error %t", dev, err, tt.dev, tt.wantErr)
			}
			if err != nil {
				if !strings.Contains(err.Error(), "GITHUB_CLIENT_ID") {
					t.Errorf("error %q does not say what to set", err)
				}
				return
			}
			if len(providers) != 1 || (providers[0].Name() == "dev") != tt.dev {
				t.Errorf("providers = %v", providers)
			}
		})
	}
}

func TestSecretsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first, err := loadSecrets(dir, discard)
	if err != nil {
		t.Fatalf("loadSecrets: %v", err)
	}
	for name, key := range map[string][]byte{"hash": first.SessionHash, "block": first.SessionBlock, "login": first.Login} {
		if len(bytes.Trim(key, "\x00")) == 0 {
			t.Errorf("the %s key is empty", name)
		}
	}
	wantPerm(t, dir, 0o700)
	wantPerm(t, filepath.Join(dir, secretsFile), 0o600)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v (%v), want the secrets only", entries, err)
	}

	second, err := loadSecrets(dir, discard)
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Errorf("the second start has other secrets (%v)", err)
	}
	other, err := loadSecrets(t.TempDir(), discard)
	if err != nil || bytes.Equal(first.SessionHash, other.SessionHash) {
		t.Errorf("another folder has the same secrets (%v)", err)
	}
}

// Processes that start together must agree, or they log each other's people out.
func TestSecretsOfConcurrentStarts(t *testing.T) {
	dir := t.TempDir()
	got := make([]secrets, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = loadSecrets(dir, discard); err != nil {
				t.Errorf("loadSecrets: %v", err)
			}
		})
	}
	wg.Wait()
	for _, s := range got {
		if !reflect.DeepEqual(s, got[0]) {
			t.Fatal("two starts have different secrets")
		}
	}
}

func TestSecretsThatOthersCanReadAreRestricted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, secretsFile)
	before, err := loadSecrets(dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o644)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	after, err := loadSecrets(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("loadSecrets: other secrets, or %v", err)
	}
	wantPerm(t, dir, 0o700)
	wantPerm(t, path, 0o600)
	if n := strings.Count(log.String(), "others could read"); n != 2 {
		t.Errorf("%d warnings, want one for the folder and one for the file:\n%s", n, log.String())
	}
}

func TestDamagedSecretsAreNotReplaced(t *testing.T) {
	tests := []struct{ name, content string }{
		{"empty", ""},
		{"cut off", `{"session_hash": "AAAA`},
		{"not JSON", "session_hash=AAAA"},
		{"a key is missing", `{"session_hash":"` + strings.Repeat("A", 86) + `==","login":"` + strings.Repeat("A", 43) + `="}`},
		{"a key is short", `{"session_hash":"AAAA","session_block":"AAAA","login":"AAAA"}`},
		{"unknown key", `{"session_hush":"AAAA"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), secretsFile)
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := loadSecrets(filepath.Dir(path), discard)
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("loadSecrets: %v, want an error that names the file", err)
			}
			if err != nil && strings.Contains(err.Error(), "AAAA") {
				t.Errorf("the error quotes a secret: %v", err)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != tt.content {
				t.Errorf("the file was changed to %q (%v)", after, err)
			}
		})
	}
}

func TestCookieName(t *testing.T) {
	if got := cookieName(true); !strings.HasPrefix(got, "__Host-") {
		t.Errorf("over https: %q, want the __Host- prefix", got)
	}
	if got := cookieName(false); strings.HasPrefix(got, "__") {
		t.Errorf("over http: %q, which browsers refuse", got)
	}
}

func TestRunServesUntilToldToStop(t *testing.T) {
	cfg := testConfig(t, env{"DATA_DIR": filepath.Join(t.TempDir(), "data")})
	announced := make(chan *url.URL, 1)
	cfg.announce = func(public *url.URL) { announced <- public }
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg, listener) }()

	var public *url.URL
	select {
	case public = <-announced:
	case err := <-ended:
		t.Fatalf("run: %v", err)
	}
	res, err := http.Get(public.JoinPath("healthz").String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("healthz: status %d, want 200", res.StatusCode)
	}

	stop()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if conn, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

var discard = slog.New(slog.DiscardHandler)

// testConfig is what e configures, with a silent log.
func testConfig(t testing.TB, e env) config {
	t.Helper()
	cfg, err := configFromEnv(e.get)
	if err != nil {
		t.Fatalf("configFromEnv: %v", err)
	}
	cfg.log = discard
	return cfg
}

func wantPerm(t testing.TB, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); runtime.GOOS != "windows" && got != want {
		t.Errorf("%s has permissions %v, want %v", path, got, want)
	}
}
