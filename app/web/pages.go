package web

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/app"
)

// maxForm is more than the longest message can take, percent-encoded.
const maxForm = 64 << 10

// homePage is the data of templates/home.html.
type homePage struct {
	Rooms []app.Room
}

func (s *site) home(c *gin.Context) {
	rooms, err := s.Chat.Rooms(c.Request.Context())
	if err != nil {
		fail(c, err)
		return
	}
	s.render(c, http.StatusOK, "home", "Rooms", homePage{rooms})
}

// loginPage is the data of templates/login.html.
type loginPage struct {
	Providers []provider
	Next      string // the path of a page to come back to, or empty
}

// nextPath matches the only pages there are to come back to after signing in.
var nextPath = regexp.MustCompile(`^/(room/[a-z0-9-]{1,32}|devices)$`)

// provider is one way to sign in.
type provider struct {
	Name, Label string
	URL         string
}

func (s *site) login(c *gin.Context) {
	var page loginPage
	if next := c.Query("next"); nextPath.MatchString(next) {
		page.Next = next
	}
	for _, p := range s.Login.Providers() {
		href := p.URL
		if page.Next != "" {
			href += "?" + url.Values{"next": {page.Next}}.Encode()
		}
		page.Providers = append(page.Providers, provider{p.Name, p.Label, href})
	}
	s.render(c, http.StatusOK, "login", "Sign in", page)
}

// roomPage is the data of templates/room.html.
type roomPage struct {
	Room    app.Room
	Lines   []line
	Members []app.User
	Earlier int64 // the message before which there may be more; 0: none
	Latest  int   // how many messages make a full page
	MaxText int
	Past    bool // an earlier page, to read only
	Draft   draft
}

// line is a message as the room page shows it.
type line struct {
	app.Message
	Follows bool // by the same person as the line above, shortly after
}

// draft is what stands in the form of a browser without JavaScript.
type draft struct {
	Text  string
	Nonce string // makes a form sent twice one message
	Error string // why Text was not posted
}

func (s *site) room(c *gin.Context) {
	if c.Query("before") != "" {
		s.past(c)
		return
	}
	s.showRoom(c, http.StatusOK, draft{Nonce: rand.Text()})
}

// showRoom renders the room as it is now.
func (s *site) showRoom(c *gin.Context, status int, d draft) {
	ctx := c.Request.Context()
	room, messages, err := s.Chat.Open(ctx, c.Param("name"))
	switch {
	case err != nil && d.Text != "":
		// Without its messages, rather than without what was written.
		room = app.Room{Name: c.Param("name"), Title: c.Param("name")}
		s.logFailure(c, status, err)
	case err != nil:
		fail(c, err)
		return
	}
	members, err := s.Live.Members(ctx, room.Name)
	if err != nil {
		// Who is here is an ornament of this page; the messages are its point.
		s.Logger.WarnContext(ctx, "members of room", "room", room.Name, "error", err)
	}
	page := newRoomPage(room, messages)
	page.Members, page.Draft = members, d
	s.render(c, status, "room", room.Title, page)
}

// past renders the messages before the one that the query names.
func (s *site) past(c *gin.Context) {
	before, err := strconv.ParseInt(c.Query("before"), 10, 64)
	if err != nil || before <= 0 {
		fail(c, app.Errorf(app.CodeInvalid, "The address of this page is not complete."))
		return
	}
	ctx := c.Request.Context()
	room, _, err := s.Chat.Open(ctx, c.Param("name"))
	if err != nil {
		fail(c, err)
		return
	}
	messages, err := s.Chat.History(ctx, room.Name, before)
	if err != nil {
		fail(c, err)
		return
	}
	page := newRoomPage(room, messages)
	page.Past = true
	s.render(c, http.StatusOK, "room", room.Title, page)
}

// post takes a message from a browser without JavaScript.
func (s *site) post(c *gin.Context) {
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, maxForm)
	if err := c.Request.ParseForm(); err != nil {
		fail(c, &app.Error{Code: app.CodeInvalid, Message: "This form is too long or incomplete.", Err: err})
		return
	}
	u, _ := s.User(c)
	d := app.Draft{
		Room:   c.Param("name"),
		Text:   strings.ReplaceAll(c.Request.PostForm.Get("text"), "\r\n", "\n"), // forms send CRLF
		UserID: u.ID,
		Nonce:  c.Request.PostForm.Get("nonce"),
	}
	if _, err := s.Live.Post(c.Request.Context(), u, d); err != nil {
		e := safe(err)
		if e.Code == app.CodeNotFound {
			fail(c, err)
			return
		}
		// The form again, with what was written.
		status := failures[e.Code].status
		s.logFailure(c, status, err)
		s.showRoom(c, status, draft{Text: d.Text, Nonce: d.Nonce, Error: e.Message})
		return
	}
	c.Redirect(http.StatusSeeOther, "/room/"+url.PathEscape(d.Room))
}

// followWithin is how soon a line must come to stand under the same name.
const followWithin = 5 * time.Minute

func newRoomPage(room app.Room, messages []app.Message) roomPage {
	page := roomPage{Room: room, Latest: app.Latest, MaxText: app.MaxText}
	for i, m := range messages {
		follows := i > 0 && messages[i-1].User.ID == m.User.ID &&
			m.At.Sub(messages[i-1].At) < followWithin
		page.Lines = append(page.Lines, line{m, follows})
	}
	if len(messages) >= app.Latest {
		page.Earlier = messages[0].ID
	}
	return page
}
