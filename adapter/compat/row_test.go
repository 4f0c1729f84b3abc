package compat

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

// A place is where a middleware belongs.
type place string

const (
	use     place = "Use"
	useOnce place = "UseOnce"
	useEach place = "UseEach"
	nowhere place = "pages only"
)

// A row is one middleware.
type row struct {
	name   string // as people call it
	module string // whose version the document tells; empty for Gin's own
	place  place
	// build makes it anew, for one server.
	build func(t *testing.T, srv *adapter.Server) *fixture
	// note is what a reader of the document must know beyond what is measured.
	note string
}

// A fixture is a middleware that is ready to be mounted, and what the runner has
// to know to see it work. All but mw may be left out.
type fixture struct {
	mw     []gin.HandlerFunc
	before []gin.HandlerFunc // what it needs in front of it, in Use

	// identify is given to the server; without it everybody is let in.
	identify func(*gin.Context) (*adapter.Identity, error)
	pages    func(*gin.RouterGroup) // routes that it needs
	login    func(*browser)         // what a person does first
	dress    func(*http.Request)    // what a person's requests carry

	// strangers are what the requests of those carry who are to be refused.
	strangers []func(*http.Request)

	// look returns what a handler sees of it: want.
	look func(context.Context, *adapter.Socket) string
	want string

	// wrote returns all that it has told about requests, and status finds the
	// statuses in there.
	wrote  func() string
	status *regexp.Regexp

	// kept counts what it keeps outside of the process's memory of a request:
	// sessions it has saved, counters.
	kept func() int

	// also is a claim of its own, about a site with the middleware in its place.
	also func(*testing.T, *site)
}

// A group is a table of the document.
type group struct {
	title string
	rows  []row
}

var groups = []group{
	{"Who is it", identifying},
	{"Logs, metrics, traces", observing},
	{"Headers", heading},
	{"Limits and forged requests", limiting},
	{"Everything else", assorted},
	{"Not on sockets", unfit},
}

// rows returns every row there is.
func rows() (all []row) {
	for _, g := range groups {
		all = append(all, g.rows...)
	}
	return all
}

// named returns the row of a name.
func named(t *testing.T, name string) row {
	t.Helper()
	all := rows()
	i := slices.IndexFunc(all, func(r row) bool { return r.name == name })
	if i < 0 {
		t.Fatalf("there is no row %q", name)
	}
	return all[i]
}
