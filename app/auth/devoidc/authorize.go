package devoidc

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// authorization is a valid request of the client (OpenID Connect Core 3.1.2.1).
type authorization struct {
	State     string
	Nonce     string
	Challenge string
	Profile   bool
	Params    []param // the request itself, which the forms carry along
}

type param struct{ Name, Value string }

// params are the parameters of a request that mean something here.
var params = []string{
	"client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "prompt",
	"code_challenge", "code_challenge_method", "request", "request_uri",
}

const maxParam = 1024 // bytes of state or nonce, which are handed back

// oauthError is an error of RFC 6749, 4.1.2.1 and 5.2.
type oauthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// stranger says why a request is not our client's, or sends its answers
// somewhere else. Such a request is answered by a page and never by a
// redirect, which would make an open redirector of us.
func (p *Provider) stranger(v url.Values) string {
	switch {
	case len(v["client_id"]) != 1 || v.Get("client_id") != p.cfg.ClientID:
		return "The client_id of this request is not known here."
	case len(v["redirect_uri"]) != 1 || v.Get("redirect_uri") != p.cfg.RedirectURI:
		return "The redirect_uri of this request is not exactly the one that is registered."
	}
	return ""
}

// authorization checks the rest of the request.
func (p *Provider) authorization(v url.Values) (authorization, *oauthError) {
	var a authorization
	if len(v["state"]) == 1 {
		a.State = v.Get("state") // first: errors hand it back too
	}
	for _, name := range params {
		switch values := v[name]; len(values) {
		case 0:
		case 1:
			a.Params = append(a.Params, param{name, values[0]})
		default:
			return a, &oauthError{"invalid_request", name + " is there more than once"}
		}
	}
	a.Nonce, a.Challenge = v.Get("nonce"), v.Get("code_challenge")
	scopes := strings.Fields(v.Get("scope"))
	a.Profile = slices.Contains(scopes, "profile")
	digest, err := base64.RawURLEncoding.DecodeString(a.Challenge)
	switch {
	case v.Get("request") != "":
		return a, &oauthError{"request_not_supported", "request objects are not supported"}
	case v.Get("request_uri") != "":
		return a, &oauthError{"request_uri_not_supported", "request objects are not supported"}
	case v.Get("response_type") != "code":
		return a, &oauthError{"unsupported_response_type", "response_type must be code"}
	case v.Get("response_mode") != "" && v.Get("response_mode") != "query":
		return a, &oauthError{"invalid_request", "response_mode must be query"}
	case !slices.Contains(scopes, "openid"):
		return a, &oauthError{"invalid_scope", "scope must contain openid"}
	case len(a.State) > maxParam || len(a.Nonce) > maxParam:
		return a, &oauthError{"invalid_request", "state or nonce is too long"}
	case a.Challenge == "":
		return a, &oauthError{"invalid_request", "code_challenge is missing: PKCE is required"}
	case v.Get("code_challenge_method") != "S256": // without one it would mean plain
		return a, &oauthError{"invalid_request", "code_challenge_method must be S256"}
	case err != nil || len(digest) != 32:
		return a, &oauthError{"invalid_request", "code_challenge is no SHA-256 in base64url"}
	case slices.Contains(strings.Fields(v.Get("prompt")), "none"):
		return a, &oauthError{"login_required", "nobody stays logged in here"}
	}
	return a, nil
}

// answer redirects to the client with the outcome.
func (p *Provider) answer(w http.ResponseWriter, r *http.Request, state string, outcome url.Values) {
	to := *p.redirect
	q := to.Query()
	for k, v := range outcome {
		q[k] = v
	}
	if state != "" {
		q.Set("state", state)
	}
	q.Set("iss", p.cfg.Issuer) // RFC 9207
	to.RawQuery = q.Encode()
	http.Redirect(w, r, to.String(), http.StatusSeeOther)
}

func (p *Provider) refuse(w http.ResponseWriter, r *http.Request, state string, e *oauthError) {
	p.answer(w, r, state, url.Values{"error": {e.Code}, "error_description": {e.Description}})
}

func (p *Provider) showAuthorize(w http.ResponseWriter, r *http.Request) {
	p.authorize(w, r, r.URL.Query(), nil)
}

func (p *Provider) submitAuthorize(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.page(w, http.StatusBadRequest, "error", view{Problem: "This form could not be read."})
		return
	}
	p.authorize(w, r, r.PostForm, r.PostForm)
}

// authorize walks a person through the request v: who are you, may the app
// know, back to the app. Nothing is kept between the steps; the forms carry
// the request along, and it is checked again each time.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request, v, form url.Values) {
	if problem := p.stranger(v); problem != "" {
		p.page(w, http.StatusBadRequest, "error", view{Problem: problem})
		return
	}
	a, refusal := p.authorization(v)
	if refusal != nil {
		p.refuse(w, r, a.State, refusal)
		return
	}
	if form.Get("decision") == "deny" {
		p.refuse(w, r, a.State, &oauthError{"access_denied", "the person said no"})
		return
	}
	if !form.Has("username") && !form.Has("person") {
		p.page(w, http.StatusOK, "login", view{Request: a})
		return
	}
	typed := form.Get("person")
	if typed == "" {
		typed = form.Get("username")
	}
	person, err := p.person(typed)
	if err != nil {
		p.page(w, http.StatusUnprocessableEntity, "login", view{Request: a, Typed: typed, Problem: "A name has " + usernameRule})
		return
	}
	if form.Get("decision") != "allow" {
		p.page(w, http.StatusOK, "consent", view{Request: a, Person: p.card(person), Typed: typed})
		return
	}
	code := p.grants.add(grant{person: person, nonce: a.Nonce, challenge: a.Challenge, profile: a.Profile})
	p.answer(w, r, a.State, url.Values{"code": {code}})
}

//go:embed pages.html
var pagesHTML string

var pages = template.Must(template.New("pages").Parse(pagesHTML))

//go:embed style.css
var styleCSS []byte

func (p *Provider) style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	_, _ = w.Write(styleCSS)
}

// view is what pages.html shows.
type view struct {
	App     string
	Path    string // of the issuer
	People  []card
	Request authorization
	Person  card
	Typed   string
	Problem string
}

// card is a person as a picture and a name.
type card struct {
	Person
	Avatar string
}

func (p *Provider) card(person Person) card {
	return card{person, p.path + avatarPath(person)}
}

// Again is the URL that begins this request anew.
func (v view) Again() string {
	q := make(url.Values, len(v.Request.Params))
	for _, param := range v.Request.Params {
		q.Set(param.Name, param.Value)
	}
	return v.Path + "/authorize?" + q.Encode()
}

func (p *Provider) page(w http.ResponseWriter, status int, name string, v view) {
	v.App, v.Path = p.cfg.AppName, p.path
	for _, person := range p.people {
		v.People = append(v.People, p.card(person))
	}
	var buf bytes.Buffer
	if err := pages.ExecuteTemplate(&buf, name, v); err != nil {
		http.Error(w, "this page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	// Chromium holds form-action against the redirect that answers the form
	// too, hence the client's origin.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; "+
		"form-action 'self' "+p.redirect.Scheme+"://"+p.redirect.Host)
	// Not no-referrer: with that, browsers post forms with Origin: null.
	h.Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes())
}
