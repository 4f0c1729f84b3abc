package devoidc

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"html"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Person is somebody who can log in.
type Person struct {
	Username string // "alice": 1 to 40 characters; upper and lower case are one
	Name     string // "Alice"
}

// usernameRule completes what the login page says and what errUsername says.
const usernameRule = "1 to 40 letters or digits, and between them spaces and . _ ' -"

var errUsername = errors.New("want " + usernameRule)

const maxUsername = 40 // characters

// normalUsername returns the one spelling of a username that a subject is
// derived from.
func normalUsername(raw string) (string, error) {
	if len(raw) > 8*maxUsername {
		return "", errUsername
	}
	// NFKC, so that the same name typed on another keyboard is the same person.
	name := strings.ToLower(norm.NFKC.String(strings.TrimSpace(raw)))
	if n := utf8.RuneCountInString(name); n < 1 || n > maxUsername || !utf8.ValidString(name) {
		return "", errUsername
	}
	for i, r := range name {
		plain := unicode.IsLetter(r) || unicode.IsDigit(r)
		if !plain && (i == 0 || !unicode.IsMark(r) && !strings.ContainsRune(" ._'-", r)) {
			return "", errUsername
		}
	}
	if strings.Contains(name, "  ") {
		return "", errUsername
	}
	return name, nil
}

// checked returns the person with the username as it is compared.
func (person Person) checked() (Person, error) {
	username, err := normalUsername(person.Username)
	if err != nil {
		return Person{}, fmt.Errorf("username %q: %w", person.Username, err)
	}
	if person.Name == "" {
		return Person{}, fmt.Errorf("%s has no name", username)
	}
	return Person{Username: username, Name: person.Name}, nil
}

// person returns who a typed or clicked name is: one of the demo people, or
// somebody who is called what was typed. Its error is errUsername.
func (p *Provider) person(typed string) (Person, error) {
	username, err := normalUsername(typed)
	if err != nil {
		return Person{}, err
	}
	for _, known := range p.people {
		if known.Username == username {
			return known, nil
		}
	}
	return Person{Username: username, Name: norm.NFKC.String(strings.TrimSpace(typed))}, nil
}

// subject is the same for the same username in every process. It is a hash
// because a subject is an opaque id: nobody should come to rely on reading it.
func (person Person) subject() string {
	sum := sha256.Sum256([]byte("usher development person\x00" + person.Username))
	return hex.EncodeToString(sum[:16])
}

// A Profile is what the provider says about a person.
type Profile struct {
	Subject string
	Name    string
	Picture string // a URL
}

// Profile returns what a login under that username would say, for a way to log
// in that shows no pages. It is an error if nobody can have that name.
func (p *Provider) Profile(username string) (Profile, error) {
	person, err := p.person(username)
	if err != nil {
		return Profile{}, fmt.Errorf("devoidc: username: %w", err)
	}
	return Profile{person.subject(), person.Name, p.picture(person)}, nil
}

func (p *Provider) picture(person Person) string { return p.cfg.Issuer + avatarPath(person) }

// claims are the profile claims of OpenID Connect Core 5.1.
func (p *Provider) claims(person Person) map[string]any {
	return map[string]any{
		"sub":                person.subject(),
		"name":               person.Name,
		"preferred_username": person.Username,
		"picture":            p.picture(person),
	}
}

func avatarPath(person Person) string {
	return "/avatar/" + url.PathEscape(person.Username) + ".svg"
}

// hues of avatars: white text on each of them has a contrast above 4.5:1.
var hues = []string{"#9f1239", "#9a3412", "#854d0e", "#3f6212", "#166534", "#115e59", "#155e75", "#1e40af", "#5b21b6", "#86198f"}

// avatar draws a person's initial on a colour of their own.
func (p *Provider) avatar(w http.ResponseWriter, r *http.Request) {
	file, ok := strings.CutSuffix(r.PathValue("file"), ".svg")
	person, err := p.person(file)
	if !ok || err != nil {
		http.NotFound(w, r)
		return
	}
	initial, _ := utf8.DecodeRuneInString(person.Username)
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(person.Username))
	hue := hues[hash.Sum32()%uint32(len(hues))]
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	// As a page of its own an SVG could run scripts; this one has none, and may
	// have none.
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'")
	h.Set("Cache-Control", "public, max-age=86400")
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">`+
		`<rect width="64" height="64" fill="%s"/>`+
		`<text x="32" y="43" text-anchor="middle" font-family="system-ui, sans-serif" font-size="32" fill="#fff">%s</text></svg>`,
		hue, html.EscapeString(string(unicode.ToUpper(initial))))
}
