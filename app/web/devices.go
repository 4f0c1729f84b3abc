package web

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
)

// Devices is where people are signed in; *adapter.Server is one.
type Devices interface {
	// Sessions lists where the user is signed in. Beside a list that may be
	// incomplete, as another server did not answer, there is an error.
	Sessions(ctx context.Context, userID string) ([]adapter.SessionInfo, error)
	// RevokeSession signs the user out at one of them. One that is not the
	// user's is adapter.ErrUnknownSession.
	RevokeSession(ctx context.Context, userID, handle string) (closed int, err error)
}

// maxRounds bounds how often "everywhere else" looks for what is left: each time
// Sessions lists no more than it can.
const maxRounds = 100

// devicesPage is the data of templates/devices.html.
type devicesPage struct {
	Devices []device
	Others  bool // there is something to sign out besides this device
	Partial bool // what is open on another server is not known
}

// device is a place where somebody is signed in, as the page shows it.
type device struct {
	Handle      string // what a form says it by; empty: it cannot be signed out
	Browser     string
	Address     string
	Since, Used time.Time
	Open        bool // it has pages open
	Current     bool // it is where the request comes from
}

func (s *site) devices(c *gin.Context) {
	u, _ := s.User(c)
	found, err := s.Devices.Sessions(c.Request.Context(), u.ID)
	if found == nil && err != nil {
		fail(c, err)
		return
	}
	page := devicesPage{Partial: err != nil}
	current := s.Session(c)
	for _, f := range found {
		d := device{
			Handle: f.Handle, Browser: browserName(f.Agent), Address: f.Address,
			Since: f.Since, Used: f.Used, Open: f.Sockets > 0, Current: f.Handle != "" && f.Handle == current,
		}
		page.Others = page.Others || !d.Current && d.Handle != ""
		page.Devices = append(page.Devices, d)
	}
	s.render(c, http.StatusOK, "devices", "Your devices", page)
}

// signOutDevice signs out the device that the form names.
func (s *site) signOutDevice(c *gin.Context) {
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, maxForm)
	if err := c.Request.ParseForm(); err != nil {
		fail(c, &app.Error{Code: app.CodeInvalid, Message: "This form is too long or incomplete.", Err: err})
		return
	}
	u, _ := s.User(c)
	_, err := s.Devices.RevokeSession(c.Request.Context(), u.ID, c.Request.PostForm.Get("device"))
	switch {
	case errors.Is(err, adapter.ErrUnknownSession):
		fail(c, &app.Error{Code: app.CodeNotFound, Message: "This device is signed out already, or it is not yours.", Err: err})
	case err != nil:
		fail(c, err)
	default:
		c.Redirect(http.StatusSeeOther, "/devices")
	}
}

// signOutOthers signs out everywhere but where the request comes from.
func (s *site) signOutOthers(c *gin.Context) {
	if err := s.endOthers(c); err != nil {
		fail(c, err)
		return
	}
	c.Redirect(http.StatusSeeOther, "/devices")
}

func (s *site) endOthers(c *gin.Context) error {
	u, _ := s.User(c)
	ctx, current := c.Request.Context(), s.Session(c)
	for range maxRounds {
		found, err := s.Devices.Sessions(ctx, u.ID)
		if found == nil && err != nil {
			return err
		}
		left := 0
		for _, f := range found {
			if f.Handle == "" || f.Handle == current {
				continue
			}
			left++
			if _, err := s.Devices.RevokeSession(ctx, u.ID, f.Handle); err != nil && !errors.Is(err, adapter.ErrUnknownSession) {
				return err
			}
		}
		switch {
		case left == 0 && err != nil:
			return &app.Error{Code: app.CodeUnavailable, Err: err,
				Message: "You are signed out everywhere we know of, but one of our servers did not answer. Please do it again in a minute."}
		case left == 0:
			return nil
		}
	}
	return app.Errorf(app.CodeUnavailable, "There are too many devices to sign out at once. Please do it again.")
}

// What a User-Agent says of browsers and systems. The first that fits counts: most
// browsers claim to be several others too.
var (
	browsers = [][2]string{
		{"Edg", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"},
		{"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"},
		{"Chrome/", "Chrome"}, {"Chromium/", "Chromium"}, {"CriOS/", "Chrome"},
		{"Safari/", "Safari"},
	}
	systems = [][2]string{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"},
		{"Windows", "Windows"}, {"Macintosh", "Mac"}, {"Linux", "Linux"},
	}
)

// browserName says for people what a User-Agent is. It is what the browser claims,
// and nothing is decided by it.
func browserName(agent string) string {
	browser, system := firstIn(browsers, agent), firstIn(systems, agent)
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "":
		return browser
	case system != "":
		return "A browser on " + system
	}
	if name := program.FindStringSubmatch(agent); name != nil {
		return name[1]
	}
	return "An unknown browser"
}

// program is what those call themselves that are no browsers: name/version.
var program = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9._-]{0,39})/`)

func firstIn(names [][2]string, agent string) string {
	for _, n := range names {
		if strings.Contains(agent, n[0]) {
			return n[1]
		}
	}
	return ""
}
