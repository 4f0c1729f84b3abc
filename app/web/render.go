package web

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/app"
)

// pages holds the parsed templates, each joined with the layout, by name.
type pages map[string]*template.Template

// view is what every template gets.
type view struct {
	Title string
	User  *app.User // nil: nobody is signed in, or nobody could tell
	Path  string    // of the request, for coming back after signing in
	Page  any       // the page's own data
}

// parsePages parses layout.html with each other file of fsys.
func parsePages(fsys fs.FS, static assets) (pages, error) {
	layout, err := template.New("layout.html").Funcs(template.FuncMap{
		"asset":   static.url,
		"hue":     hue,
		"initial": initial,
		"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"moment":  func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
		"clock":   func(t time.Time) string { return t.UTC().Format("15:04 UTC") },
	}).ParseFS(fsys, "layout.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(fsys, "*.html")
	if err != nil {
		return nil, err
	}
	all := pages{}
	for _, name := range names {
		if name == "layout.html" {
			continue
		}
		page, err := template.Must(layout.Clone()).ParseFS(fsys, name)
		if err != nil {
			return nil, err
		}
		all[strings.TrimSuffix(name, path.Ext(name))] = page
	}
	return all, nil
}

// render answers with the named page. It writes nothing until the page is
// complete, so a failing template is a clean 500.
func (s *site) render(c *gin.Context, status int, name, title string, data any) {
	v := view{Title: title, Path: c.Request.URL.EscapedPath(), Page: data}
	if u, ok := s.User(c); ok {
		v.User = &u
	}
	var page bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&page, "layout.html", v); err != nil {
		// Not through showErrors: the template that failed may be error.html.
		s.logFailure(c, http.StatusInternalServerError, fmt.Errorf("web: render %s: %w", name, err))
		c.String(http.StatusInternalServerError, "This page could not be shown.\n")
		return
	}
	c.Data(status, "text/html; charset=utf-8", page.Bytes())
}

// hue picks one of the eight colours of style.css for a person without a
// picture. static/chat.js computes the same.
func hue(id string) string {
	h := fnv.New32a()
	h.Write([]byte(id))
	return fmt.Sprintf("hue-%d", h.Sum32()%8)
}

// initial is what stands in a picture's place: the first letter of the name.
func initial(name string) string {
	r, _ := utf8.DecodeRuneInString(strings.TrimSpace(name))
	if r == utf8.RuneError {
		return "?"
	}
	return string(unicode.ToUpper(r))
}
