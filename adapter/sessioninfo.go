package adapter

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
)

// MaxSessions is how many sessions of a user Server.Sessions lists: those that
// were used last.
const MaxSessions = 100

// SessionInfo is a place where a user is signed in, for a page "your devices". It
// has nothing that anybody could act with but the user, through RevokeSession.
type SessionInfo struct {
	// Handle is what RevokeSession takes. It is SessionHandle of the session's id,
	// or stands for a token; empty for sockets that were identified by neither,
	// which cannot be ended like this.
	Handle  string
	Address string    // network address at the login, or of an open socket
	Agent   string    // the browser's User-Agent, of at most 200 bytes
	Since   time.Time // of the login, or since when sockets are open
	Used    time.Time // when it was last seen: now, if it has open sockets
	Sockets int       // open ones, on all nodes
}

// StoredSession is what a SessionLister tells of a session.
type StoredSession struct {
	Handle   string // SessionHandle of its id
	UserID   string // empty for nobody's
	Provider string
	Address  string
	Agent    string
	Since    time.Time
	Used     time.Time // as far as the store knows
}

// A SessionLister is a session store that knows whose its sessions are: what a
// store given to Server.Store may be besides. Login puts into the sessions of
// such a store what StoredSessionOf reads back when they are saved.
type SessionLister interface {
	// UserSessions returns the user's sessions that have not ended, those that
	// were used last first, and not more than limit.
	UserSessions(ctx context.Context, userID string, limit int) ([]StoredSession, error)
	// EndUserSession deletes the session with a handle, if it is the user's.
	// That there is none is no error: found is false.
	EndUserSession(ctx context.Context, userID, handle string) (found bool, err error)
}

// Keys of session values that Login sets for a SessionLister.
const (
	keyAddress = "usher.address"
	keyAgent   = "usher.agent"
)

// StoredSessionOf returns what a SessionLister is to keep of a session that has an
// id and values: all but Used.
func StoredSessionOf(id string, values map[any]any) StoredSession {
	text := func(key string) string {
		s, _ := values[key].(string)
		return s
	}
	found := StoredSession{
		Handle:   SessionHandle(id),
		UserID:   text(keyUser),
		Provider: text(keyProvider),
		Address:  text(keyAddress),
		Agent:    text(keyAgent),
	}
	if n, err := strconv.ParseInt(text(keyAt), 10, 64); err == nil {
		found.Since = time.Unix(0, n)
	}
	return found
}

// describe puts into the values of a new session where it was made.
func describe(c *gin.Context, values map[any]any) {
	values[keyAddress] = c.ClientIP()
	values[keyAgent] = clip(c.Request.UserAgent())
}

// SessionHandle stands for the session with an id where the id itself is not to
// be shown: on pages, in databases. It is a hash, and empty for no id. The session
// of a request is SessionHandle of its Identity's SessionID.
func SessionHandle(id string) string {
	if id == "" {
		return ""
	}
	return handleOf(hashSession(id))
}

// handleOf is the handle that a hash is, empty if it is none.
func handleOf(h sessionHash) string {
	if h == (sessionHash{}) {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// hashOfHandle is the hash of a session that a handle stands for.
func hashOfHandle(handle string) (h sessionHash, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(handle)
	return h, err == nil && copy(h[:], b) == len(h) && len(b) == len(h)
}

// handle stands for what the socket is identified by.
func (s *Socket) handle() string {
	if id := s.SessionID(); id != "" {
		return SessionHandle(id)
	}
	if token := s.shake.Load().token(); token != "" {
		return handleOf(ByToken(token).mark().hash)
	}
	return ""
}

// Sessions returns where a user is signed in, the place used last first, and not
// more than MaxSessions: the sessions that a SessionLister knows of, with the
// sockets that are open on them, and besides, what else the user has open sockets
// with: sessions of other stores, and each token.
//
// In a cluster the sockets of all nodes count, up to MaxSessions places of each.
// Other nodes are waited for until ctx is done, but not longer than 5 s: if one
// does not answer there is an error beside the places that are known. If a store
// fails, there is an error and no place.
func (s *Server) Sessions(ctx context.Context, userID string) ([]SessionInfo, error) {
	if userID == "" {
		return nil, errors.New("adapter: Sessions: expected a user, got none")
	}
	all := newPlaces()
	for _, st := range s.stores {
		lister, ok := st.inner.(SessionLister)
		if !ok {
			continue
		}
		stored, err := lister.UserSessions(ctx, userID, MaxSessions)
		if err != nil {
			return nil, fmt.Errorf("adapter: list sessions: %w", err)
		}
		for _, of := range stored {
			if !s.isOver(of) {
				all.keep(of)
			}
		}
	}
	all.openHere(s, isUser(userID))
	elsewhere, err := s.locate(ctx, userID)
	for _, at := range elsewhere {
		all.open(at)
	}
	return all.latest(), err
}

// isOver reports whether a session that a store still has was ended.
func (s *Server) isOver(of StoredSession) bool {
	h, ok := hashOfHandle(of.Handle)
	return !ok || s.ended.hasHash(h) || s.revoked.login(map[any]any{
		keyUser: of.UserID, keyProvider: of.Provider, keyAt: strconv.FormatInt(of.Since.UnixNano(), 10),
	})
}

// place is what the socket itself tells of where its user is.
func (s *Socket) place() SessionInfo {
	shake := s.shake.Load()
	c := gin.CreateTestContextOnly(&recorder{header: make(http.Header)}, s.mount.engine)
	c.Request = shake.Request(context.Background())
	return SessionInfo{
		Handle: s.handle(), Address: s.mount.clientIP(c), Agent: clip(c.Request.UserAgent()), Since: shake.Time(), Sockets: 1,
	}
}

// RevokeSession is Revoke for one entry of Sessions: it ends the session, or the
// token, that the handle stands for, if it is the user's, and closes its sockets
// on every node, of which it returns how many there were on this one. If the user
// has none with this handle, whoever else may, the error is ErrUnknownSession; if
// a node that might know better has not answered within 5 s, it is another one.
// The handle may come from a form.
func (s *Server) RevokeSession(ctx context.Context, userID, handle string) (closed int, err error) {
	if userID == "" || handle == "" {
		return 0, ErrUnknownSession
	}
	known := false
	for _, st := range s.stores {
		if lister, ok := st.inner.(SessionLister); ok {
			found, endErr := lister.EndUserSession(ctx, userID, handle)
			if endErr != nil {
				err = errors.Join(err, fmt.Errorf("adapter: delete session: %w", endErr))
			}
			known = known || found
		}
	}
	if h, ok := hashOfHandle(handle); known && ok {
		// The store has told neither the id nor the cookie: all nodes know a
		// session that has ended by this hash.
		s.ended.addFar(h, s.longestLife())
		if c := s.cluster; c != nil {
			c.hashEnded(h, s.longestLife())
		}
	}
	found, closed, endErr := s.signOut(ctx, isUser(userID), handle)
	known, err = known || found, errors.Join(err, endErr)
	if !known {
		known, endErr = s.signOutElsewhere(ctx, userID, handle)
		err = errors.Join(err, endErr)
	}
	if !known && err == nil {
		err = ErrUnknownSession
	}
	return closed, err
}
