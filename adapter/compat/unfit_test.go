package compat

import (
	"testing"
	"time"

	"github.com/gin-contrib/cache"
	"github.com/gin-contrib/gzip"
	"github.com/gin-contrib/timeout"
	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/adapter"
)

var unfit = []row{
	{name: "gin-contrib/timeout", module: "github.com/gin-contrib/timeout", place: nowhere, build: func(*testing.T, *adapter.Server) *fixture {
		return &fixture{mw: []gin.HandlerFunc{timeout.New(timeout.WithTimeout(time.Second))}}
	}},
	{name: "gin-contrib/cache", module: "github.com/gin-contrib/cache", place: nowhere, build: func(*testing.T, *adapter.Server) *fixture {
		return &fixture{mw: []gin.HandlerFunc{cache.SiteCache(newPageCache(), time.Minute)}}
	}},
	{name: "gin-contrib/gzip", module: "github.com/gin-contrib/gzip", place: nowhere, build: func(*testing.T, *adapter.Server) *fixture {
		return &fixture{mw: []gin.HandlerFunc{gzip.Gzip(gzip.DefaultCompression)}}
	}},
}
