package adapter

import (
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
)

// An unfit is a middleware that cannot work on the requests of a socket.
type unfit struct {
	name   string   // as people call it
	pkg    string   // its import path
	makers []string // functions of the package that return one; nil for all
	why    string   // what it would do, and what to do instead
}

var unfits = []unfit{
	{"gin-contrib/timeout", "github.com/gin-contrib/timeout", nil,
		"a poll is held for as long as there is nothing to say, and it would answer 408: put it on the groups of your pages; sockets have PingTimeout, ConnectTimeout and the contexts of their handlers"},
	{"gin-contrib/cache", "github.com/gin-contrib/cache", []string{"SiteCache", "CachePage"},
		"it would answer a poll or a handshake with an old page: put it on the groups of your pages"},
	{"gin-contrib/gzip", "github.com/gin-contrib/gzip", nil,
		"an upgrade has no body that it could end, and a poll behind it cannot outlast http.Server.WriteTimeout: put it on the groups of your pages; Config.CompressPolls and Config.Compression compress what sockets get"},
}

// tellers publish the query of a request as it came in. Above the route no
// handler can take a token out of it in time.
var tellers = []unfit{
	{"gin.Logger", "github.com/gin-gonic/gin", []string{"LoggerWithConfig"}, ""},
	{"gin-contrib/logger", "github.com/gin-contrib/logger", nil, ""},
	{"gin-contrib/zap", "github.com/gin-contrib/zap", []string{"Ginzap"}, ""},
	{"gin-contrib/slog", "github.com/gin-contrib/slog", nil, ""},
	{"sentry-go/gin", "github.com/getsentry/sentry-go/gin", nil, ""},
}

// find returns the one of list that has made h.
func find(list []unfit, h gin.HandlerFunc) (m unfit, ok bool) {
	pc := reflect.ValueOf(h).Pointer()
	f := runtime.FuncForPC(pc)
	file, _ := f.FileLine(pc)
	for _, m := range list {
		if m.made(f.Name(), file) {
			return m, true
		}
	}
	return unfit{}, false
}

// made tells by the name of a function and the file where it stands. Neither is
// enough: a function that returns a closure may be inlined, and then the closure
// has the caller's name with the function's behind it; and a method that is
// taken as a value has no file.
func (m unfit) made(function, file string) bool {
	rest, named := strings.CutPrefix(function, m.pkg+".")
	if !named {
		// In the module cache the version follows, in a vendor folder the file.
		_, in, found := strings.Cut(file, m.pkg+"@")
		if found {
			_, in, _ = strings.Cut(in, "/")
		} else if _, in, found = strings.Cut(file, m.pkg+"/"); !found {
			return false
		}
		if strings.Contains(in, "/") {
			return false // another package of the module
		}
		rest = function
	}
	return m.makers == nil || slices.ContainsFunc(m.makers, func(maker string) bool {
		return strings.Contains("."+rest, "."+maker)
	})
}
