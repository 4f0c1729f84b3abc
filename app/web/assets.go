package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gin-usher/usher/app"
)

// An asset is one static file, held in memory.
type asset struct {
	body        []byte
	contentType string
	hash        string
}

// assets maps the names of the static files to their contents.
type assets map[string]asset

// contentTypes is our own table: the system's differs between machines, and a
// script under the wrong type does not run behind nosniff.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".ico": "image/x-icon",
	".js":  "text/javascript; charset=utf-8",
	".png": "image/png",
	".svg": "image/svg+xml",
}

// loadAssets reads every file of fsys. A type it does not know is an error.
func loadAssets(fsys fs.FS) (assets, error) {
	all := assets{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		contentType, ok := contentTypes[path.Ext(name)]
		if !ok {
			return fmt.Errorf("%s: no content type for %q", name, path.Ext(name))
		}
		sum := sha256.Sum256(body)
		all[name] = asset{body, contentType, base64.RawURLEncoding.EncodeToString(sum[:12])}
		return nil
	})
	return all, err
}

// url returns the address of a file that changes whenever its contents do.
func (a assets) url(name string) (string, error) {
	f, ok := a[name]
	if !ok {
		return "", fmt.Errorf("no static file %q", name)
	}
	return "/static/" + name + "?v=" + f.hash, nil
}

// asset serves /static/*file.
func (s *site) asset(c *gin.Context) { s.serveAsset(c, strings.TrimPrefix(c.Param("file"), "/")) }

// favicon serves those who never read the page's <link>.
func (s *site) favicon(c *gin.Context) { s.serveAsset(c, "favicon.ico") }

func (s *site) serveAsset(c *gin.Context, name string) {
	f, ok := s.assets[name]
	if !ok {
		fail(c, app.Errorf(app.CodeNotFound, "There is no file at this address."))
		return
	}
	h := c.Writer.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("ETag", `"`+f.hash+`"`)
	// Only the address that names these very contents may be kept for good;
	// modules import each other without it and ask again, mostly for a 304.
	if c.Query("v") == f.hash {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	http.ServeContent(c.Writer, c.Request, name, time.Time{}, bytes.NewReader(f.body))
}
