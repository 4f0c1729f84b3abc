package adapter

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	gsessions "github.com/gorilla/sessions"
)

// A savedRow is a session's row in a store as this node has written it lately.
//
// A save may meet the end of its session on another node: it writes the row when
// that node has deleted it, and before this one has heard. Both are hidden by a
// tombstone from then on, but the row is there for longer than that. So who hears
// of an end deletes the row again, if it has written it lately.
type savedRow struct {
	store  *store
	tokens *tokenStore // in the place of store; then there is no cookie
	id     string
	name   string // of the cookie
	cookie string
	last   uint64 // which note of all it is
}

// maxSavedRows bounds how many are remembered, those that were written last. What
// ends is heard of within moments, or when the backplane is back.
const maxSavedRows = 8192

// dropTimeout bounds the deletion of one row for which nobody waits.
const dropTimeout = 10 * time.Second

// savedRows are those of a node in a cluster.
type savedRows struct {
	c *cluster

	mu      sync.Mutex
	of      map[sessionHash]savedRow
	notes   []sessionHash // a ring of maxSavedRows
	last    uint64
	due     []savedRow // to be deleted, by a task that exists while there are some
	running bool
}

// note is called between writing a row and looking for its tombstone: what has
// not ended by then is heard of afterwards.
func (st *store) note(r *http.Request, session *gsessions.Session) {
	if st.srv.cluster == nil || session.ID == "" {
		return
	}
	row := savedRow{store: st, id: session.ID, name: session.Name()}
	if c, err := r.Cookie(row.name); err == nil {
		row.cookie = c.Value
	}
	st.srv.cluster.saved.note(row)
}

// note is the same for a session of a TokenStore.
func (st *tokenStore) note(token string) {
	if c := st.srv.cluster; c != nil {
		c.saved.note(savedRow{tokens: st, id: token})
	}
}

func (s *savedRows) note(row savedRow) {
	h := hashSession(row.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of, s.notes = make(map[sessionHash]savedRow), make([]sessionHash, maxSavedRows)
	}
	s.last++
	row.last = s.last
	slot := &s.notes[s.last%maxSavedRows]
	if oldest, ok := s.of[*slot]; ok && oldest.last+maxSavedRows == s.last {
		delete(s.of, *slot) // else it was written again since
	}
	*slot, s.of[h] = h, row
}

// ended is told of a session that has ended on another node, once it has its
// tombstone here. It does not wait.
func (s *savedRows) ended(h sessionHash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.of[h]
	if !ok {
		return
	}
	delete(s.of, h)
	s.due = append(s.due, row)
	if !s.running {
		s.running = true
		s.c.srv.eng.Go(s)
	}
}

// Run deletes what is due.
func (s *savedRows) Run() {
	for {
		s.mu.Lock()
		if len(s.due) == 0 {
			s.due, s.running = nil, false
			s.mu.Unlock()
			return
		}
		row := s.due[0]
		s.due = s.due[1:]
		s.mu.Unlock()
		if err := row.drop(); err != nil {
			// Its tombstone has to last as long as it may be there.
			life := row.life()
			s.c.srv.ended.add(row.id, life)
			s.c.srv.ledger.later(false, endingOfSession(hashSession(row.id), life))
			s.c.srv.log.Warn("a session that has ended on another node could not be deleted", "error", err)
		}
	}
}

func (row savedRow) drop() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("adapter: delete session: the store panicked: %v", v)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
	defer cancel()
	if row.tokens != nil {
		return row.tokens.drop(ctx, row.id)
	}
	header := make(http.Header)
	if row.cookie != "" {
		header.Set("Cookie", row.name+"="+row.cookie)
	}
	return row.store.dropRow(ctx, row.name, row.id, header)
}

// life is how long the row can live that nothing has deleted.
func (row savedRow) life() time.Duration {
	if row.tokens != nil {
		return row.tokens.sessionLife()
	}
	return row.store.sessionLife()
}
