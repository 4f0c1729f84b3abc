package adapter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
)

// A clientFile is one file of the browser's client, as it is served.
type clientFile struct {
	name string
	kind string // Content-Type
	etag string
	data []byte
}

// clientEntry is the file without which a bundle is none: the one that pages
// have in their script tag.
const clientEntry = "socket.io.js"

// loadClient reads the client's files at the root of fsys, once: a file that
// changes later would not match its ETag.
func loadClient(fsys fs.FS) ([]clientFile, error) {
	if fsys == nil {
		return nil, nil
	}
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	var files []clientFile
	found := false
	for _, e := range entries {
		kind := clientKind(e.Name())
		if kind == "" || e.IsDir() {
			continue
		}
		data, err := fs.ReadFile(fsys, e.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		files = append(files, clientFile{e.Name(), kind, `"` + hex.EncodeToString(sum[:16]) + `"`, data})
		found = found || e.Name() == clientEntry
	}
	if !found {
		return nil, errors.New("expected " + clientEntry + " at the root, as in the folder dist of npm's socket.io-client, got none")
	}
	return files, nil
}

// clientKind is the Content-Type of a file of the client's, "" of any other.
func clientKind(name string) string {
	if !strings.HasPrefix(name, "socket.io") || strings.ContainsFunc(name, func(c rune) bool {
		// What the route and the URL would have to escape has no place here.
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-", c))
	}) {
		return ""
	}
	switch {
	case strings.HasSuffix(name, ".js"):
		return "text/javascript; charset=utf-8"
	case strings.HasSuffix(name, ".js.map"):
		return "application/json"
	}
	return ""
}

// mountClient registers a route for each file, so that nothing else of the file
// system can be asked for, and returns their paths.
func (s *Server) mountClient(g *gin.RouterGroup) (paths []string) {
	for _, f := range s.client {
		path := s.cfg.Path + f.name
		g.GET(path, f.serve)
		g.HEAD(path, f.serve)
		paths = append(paths, path)
	}
	return paths
}

// serve needs to know nothing of who asks: it is the same for everybody.
func (f clientFile) serve(c *gin.Context) {
	h := c.Writer.Header()
	h.Set("Content-Type", f.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "public, no-cache") // keep it, and ask whether it is still the one
	http.ServeContent(c.Writer, c.Request, f.name, time.Time{}, bytes.NewReader(f.data))
}
