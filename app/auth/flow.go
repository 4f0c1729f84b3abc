package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"

	"github.com/gin-gonic/gin"
	"golang.org/x/oauth2"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
)

// Begin sends the browser to the provider named by the route. The query's
// next, when it is a path of this site, is where Callback returns to.
func (a *Auth) Begin(c *gin.Context) {
	noStore(c)
	p, ok := a.provider(c)
	if !ok {
		return
	}
	state := rand.Text() // 130 bits
	session, err := p.BeginAuth(state)
	if err != nil {
		fail(c, &app.Error{
			Code:    app.CodeUnavailable,
			Message: p.Label + " does not answer right now. Try again in a moment.",
			Err:     fmt.Errorf("auth: begin login at %s: %w", p.Name(), err),
		})
		return
	}
	to, err := session.GetAuthURL()
	if err == nil {
		err = a.attempts.save(c.Writer, c.Request, attempt{
			State:    state,
			Provider: p.Name(),
			Session:  session.Marshal(),
			Next:     localPath(c.Query("next")),
		})
	}
	if err != nil {
		fail(c, &app.Error{
			Code:    app.CodeInternal,
			Message: "The login could not be started.",
			Err:     fmt.Errorf("auth: begin login at %s: %w", p.Name(), err),
		})
		return
	}
	c.Redirect(http.StatusSeeOther, to)
}

// Callback is where the provider sends the browser back to. It logs the person
// in and redirects to the page that Begin was asked to return to.
func (a *Auth) Callback(c *gin.Context) {
	noStore(c)
	p, ok := a.provider(c)
	if !ok {
		return
	}
	q := c.Request.URL.Query()
	// Before anything else of the answer is believed: is it the answer to a
	// question that this browser asked, of this provider, and the first one?
	at, err := a.attempts.take(c.Writer, c.Request, single(q, "state"))
	if err == nil && at.Provider != p.Name() {
		err = fmt.Errorf("the state was made for %s", at.Provider)
	}
	if err != nil {
		fail(c, &app.Error{
			Code: app.CodeInvalid,
			Message: "This login was started in another browser, was used before, or took too long. Start again at " +
				a.public.JoinPath("login").String() + ".",
			Err: fmt.Errorf("auth: callback of %s: %w", p.Name(), err),
		})
		return
	}
	if q.Has("error") {
		fail(c, providerError(p, single(q, "error"), single(q, "error_description")))
		return
	}
	if single(q, "code") == "" {
		fail(c, app.Errorf(app.CodeInvalid, "%s sent no login code. Start again.", p.Label))
		return
	}

	profile, refusal := a.profile(p, at.Session, q)
	if refusal != nil {
		fail(c, refusal)
		return
	}
	u, err := a.users.UpsertUser(c.Request.Context(), profile)
	if err == nil {
		err = a.login(c, adapter.Identity{UserID: u.ID, Provider: p.Name(), User: u})
	}
	if err != nil {
		fail(c, &app.Error{
			Code:    app.CodeUnavailable,
			Message: "Your login could not be saved just now. Try again in a moment.",
			Err:     fmt.Errorf("auth: log in: %w", err),
		})
		return
	}
	a.log.Info("logged in", "user", u.ID, "provider", p.Name())
	c.Redirect(http.StatusSeeOther, at.Next)
}

// provider finds the provider of the route, or leaves an error in c.
func (a *Auth) provider(c *gin.Context) (Provider, bool) {
	for _, p := range a.providers {
		if p.Name() == c.Param("provider") {
			return p, true
		}
	}
	fail(c, app.Errorf(app.CodeNotFound, "There is no such way to log in here."))
	return Provider{}, false
}

// profile exchanges the code for tokens and the tokens for a profile; the
// tokens end with this function.
func (a *Auth) profile(p Provider, stored string, q url.Values) (app.Profile, *app.Error) {
	session, err := p.UnmarshalSession(stored)
	if err != nil {
		// We sealed it ourselves: only another version of this program could differ.
		return app.Profile{}, &app.Error{
			Code:    app.CodeInvalid,
			Message: "This login was started before the site was updated. Start again.",
			Err:     fmt.Errorf("auth: open session of %s: %w", p.Name(), err),
		}
	}
	if _, err := session.Authorize(p.Provider, q); err != nil {
		return app.Profile{}, exchangeError(p, err)
	}
	u, err := p.FetchUser(session)
	if err == nil && u.UserID == "" {
		err = errors.New("the profile has no id")
	}
	if err != nil {
		if errors.Is(err, errUnverified) {
			return app.Profile{}, exchangeError(p, err)
		}
		return app.Profile{}, &app.Error{
			Code:    app.CodeUnavailable,
			Message: p.Label + " did not say who you are. Try again in a moment.",
			Err:     fmt.Errorf("auth: profile from %s: %w", p.Name(), err),
		}
	}
	return app.Profile{
		Provider: p.Name(),
		Subject:  u.UserID,
		Name:     displayName(u.Name, u.NickName),
		Avatar:   avatarURL(a.public, u.AvatarURL),
	}, nil
}

// single returns the value of a parameter, and "" where it is missing or
// repeated: two values mean that two parties wrote the URL.
func single(q url.Values, key string) string {
	if v := q[key]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// errorCode is the alphabet of RFC 6749 error codes in practice.
var errorCode = regexp.MustCompile(`^[a-z_]{1,40}$`)

// providerError words an error that the provider sent instead of a code. Its
// description is for the log alone: it is text of somebody else.
func providerError(p Provider, code, description string) *app.Error {
	err := fmt.Errorf("auth: %s answered %q: %.200q", p.Name(), code, description)
	switch code {
	case "access_denied":
		return &app.Error{Code: app.CodeForbidden, Message: "The login at " + p.Label + " was cancelled. Nobody was logged in.", Err: err}
	case "server_error", "temporarily_unavailable":
		return &app.Error{Code: app.CodeUnavailable, Message: p.Label + " cannot log people in right now. Try again in a moment.", Err: err}
	}
	if !errorCode.MatchString(code) {
		code = "unknown error"
	}
	return &app.Error{Code: app.CodeInvalid, Message: fmt.Sprintf("%s refused the login (%s).", p.Label, code), Err: err}
}

// Providers wrap these where the cause alone does not tell.
var (
	errUnreachable = errors.New("provider does not answer")
	errUnverified  = errors.New("answer not verified")
)

// exchangeError words a code that did not become a verified person.
func exchangeError(p Provider, err error) *app.Error {
	e := &app.Error{Err: fmt.Errorf("auth: exchange code at %s: %w", p.Name(), err)}
	answer, answered := errors.AsType[*oauth2.RetrieveError](err)
	_, network := errors.AsType[net.Error](err) // *url.Error is one
	switch {
	case errors.Is(err, errUnverified):
		e.Code, e.Message = app.CodeForbidden, "What "+p.Label+" answered could not be verified. Nobody was logged in."
	case errors.Is(err, errUnreachable), network, errors.Is(err, context.DeadlineExceeded),
		answered && (answer.Response.StatusCode >= 500 || answer.Response.StatusCode == http.StatusTooManyRequests):
		e.Code, e.Message = app.CodeUnavailable, p.Label+" does not answer right now. Try again in a moment."
	case answered && (answer.ErrorCode == "invalid_grant" || answer.ErrorCode == "bad_verification_code"): // the latter is GitHub's
		e.Code, e.Message = app.CodeInvalid, "The login at "+p.Label+" expired or was used before. Start again."
	default:
		e.Code, e.Message = app.CodeInternal, "The login at "+p.Label+" is not set up correctly. Tell whoever runs this site."
	}
	if answered && answer.ErrorCode == "" {
		// RetrieveError prints the whole body: too much for a log line, and
		// nobody knows what is in it.
		e.Err = fmt.Errorf("auth: exchange code at %s: token endpoint answered %s", p.Name(), answer.Response.Status)
	}
	return e
}
