package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"

	"github.com/gin-usher/usher/adapter"
	"github.com/gin-usher/usher/app"
	"github.com/gin-usher/usher/app/store"
)

// patience is how long a test waits for what has to come.
const patience = 10 * time.Second

// site is the chat behind a real server, with sessions in the same database.
type site struct {
	t    *testing.T
	db   *store.DB
	live *Live
	url  string
	log  *logBook
}

func newSite(t *testing.T) *site {
	t.Helper()
	db := openStore(t)
	return newSiteWith(t, db, db)
}

// newSiteWith keeps people and sessions in db, and messages in m.
func newSiteWith(t *testing.T, db *store.DB, m app.Messages) *site {
	t.Helper()
	s := &site{t: t, db: db, log: new(logBook)}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	srv, err := adapter.New(adapter.Config{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	srv.Use(sessions.Sessions("sid", srv.Store(db.Sessions([]byte("0123456789abcdef0123456789abcdef")))))
	srv.Identify(func(c *gin.Context) (*adapter.Identity, error) {
		id, ok := adapter.LoggedIn(c)
		if !ok {
			return nil, nil
		}
		u, err := db.User(c.Request.Context(), id.UserID)
		if err != nil {
			return nil, err
		}
		id.User = u
		return &id, nil
	})
	s.live = NewLive(srv, New(m), log)

	gin.SetMode(gin.TestMode)
	engine := gin.New()
	srv.Mount(engine)
	engine.Group("/", srv.HTTP()...).POST("/login/:id", func(c *gin.Context) {
		if err := srv.Login(c, adapter.Identity{UserID: c.Param("id"), Provider: "test"}); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(engine)
	s.url = server.URL
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		server.Close()
		s.live.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// login makes a person and returns the cookie of a new session of theirs.
func (s *site) login(u app.User) string {
	s.t.Helper()
	resp, err := http.Post(s.url+"/login/"+u.ID, "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	cookies := resp.Cookies()
	if resp.StatusCode != http.StatusOK || len(cookies) != 1 {
		s.t.Fatalf("login: status %d, cookies %v", resp.StatusCode, cookies)
	}
	return cookies[0].Name + "=" + cookies[0].Value
}

// open adds a person of this name, if needed, and opens a tab of theirs.
func (s *site) open(name string) *tab {
	s.t.Helper()
	u := addUser(s.t, s.db, name)
	conn, resp, err := websocket.DefaultDialer.DialContext(s.t.Context(),
		"ws"+strings.TrimPrefix(s.url, "http")+"/socket.io/ws", http.Header{"Cookie": {s.login(u)}})
	if err != nil {
		s.t.Fatalf("dial: %v, %v", err, resp)
	}
	tb := &tab{t: s.t, user: u, conn: conn}
	s.t.Cleanup(tb.close)
	tb.await("connect")
	return tb
}

// messages returns what is stored in a room.
func (s *site) messages(room string) []app.Message {
	s.t.Helper()
	m, err := s.db.Messages(s.t.Context(), room, 0, 10_000)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// frame is what the server sends.
type frame struct {
	Type  string          `json:"type"`
	ID    int             `json:"id"`
	Data  json.RawMessage `json:"data"`
	Error *adapter.Error  `json:"error"`
}

// tab is one open socket. Only the test's goroutine uses it.
type tab struct {
	t     *testing.T
	user  app.User
	conn  *websocket.Conn
	ids   int
	early []frame // arrived while something else was awaited
}

func (tb *tab) close() { tb.conn.Close() }

func (tb *tab) send(event string, data any) (id int) {
	tb.t.Helper()
	tb.ids++
	if err := tb.conn.WriteJSON(map[string]any{"type": event, "data": data, "id": tb.ids}); err != nil {
		tb.t.Fatal(err)
	}
	return tb.ids
}

// next returns the first frame that fits, and keeps the others for later.
func (tb *tab) next(what string, fits func(frame) bool) frame {
	tb.t.Helper()
	if i := slices.IndexFunc(tb.early, fits); i >= 0 {
		f := tb.early[i]
		tb.early = slices.Delete(tb.early, i, i+1)
		return f
	}
	if err := tb.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		tb.t.Fatal(err)
	}
	for {
		_, data, err := tb.conn.ReadMessage()
		if err != nil {
			tb.t.Fatalf("%s waits for %s: %v; there came %s", tb.user.Name, what, err, tb.early)
		}
		var f frame
		if err := json.Unmarshal(data, &f); err != nil {
			tb.t.Fatalf("%s got %s: %v", tb.user.Name, data, err)
		}
		if fits(f) {
			return f
		}
		tb.early = append(tb.early, f)
	}
}

func (f frame) String() string {
	return fmt.Sprintf("{%s %d %s %v}", f.Type, f.ID, f.Data, f.Error)
}

// await returns the data of the next frame of a type.
func (tb *tab) await(event string) json.RawMessage {
	tb.t.Helper()
	return tb.next(event, func(f frame) bool { return f.Type == event }).Data
}

// ask sends an event and returns the data of its reply.
func (tb *tab) ask(event string, data any) json.RawMessage {
	tb.t.Helper()
	f := tb.reply(event, data)
	if f.Error != nil {
		tb.t.Fatalf("%s %v was refused: %v", event, data, f.Error)
	}
	return f.Data
}

// refused sends an event and returns the error of its reply.
func (tb *tab) refused(event string, data any) *adapter.Error {
	tb.t.Helper()
	f := tb.reply(event, data)
	if f.Error == nil {
		tb.t.Fatalf("%s %v was accepted: %s", event, data, f.Data)
	}
	return f.Error
}

func (tb *tab) reply(event string, data any) frame {
	tb.t.Helper()
	id := tb.send(event, data)
	return tb.next("the reply to "+event, func(f frame) bool { return f.Type == "reply" && f.ID == id })
}

func (tb *tab) join(room string) joined {
	tb.t.Helper()
	return as[joined](tb.t, tb.ask("join", roomRef{room}))
}

func (tb *tab) say(room, text string) accepted {
	tb.t.Helper()
	return as[accepted](tb.t, tb.ask("chat message", message{Room: room, Text: text}))
}

// awaitMembers reads announcements until the room has these people, and
// returns how many it took.
func (tb *tab) awaitMembers(room string, want ...app.User) (count int) {
	tb.t.Helper()
	var last here
	for range 100 {
		f := tb.next(fmt.Sprintf("members %v after %v", want, last), func(f frame) bool { return f.Type == "presence" })
		last = as[here](tb.t, f.Data)
		if count++; last.Room == room && slices.Equal(last.Members, want) {
			return count
		}
	}
	tb.t.Fatalf("members = %v, want %v", last, want)
	return 0
}

func as[T any](t testing.TB, data json.RawMessage) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return v
}

// logBook is a log that may be read while it is written.
type logBook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestLiveWireForm(t *testing.T) {
	s := newSite(t)
	ann := s.open("ann")
	who := fmt.Sprintf(`{"id":%q,"name":"ann","avatar":"/ann.png"}`, ann.user.ID)

	if got, want := string(ann.ask("join", roomRef{"lobby"})), `{"room":"lobby","members":[`+who+`],"messages":[]}`; got != want {
		t.Errorf("join is answered %s, want %s", got, want)
	}
	if got, want := string(ann.await("presence")), `{"room":"lobby","members":[`+who+`]}`; got != want {
		t.Errorf("presence = %s, want %s", got, want)
	}
	for _, nonce := range []string{"", "n-1"} {
		reply := as[accepted](t, ann.ask("chat message", message{"lobby", "<hi> & bye", nonce}))
		stored := s.messages("lobby")
		m := stored[len(stored)-1]
		if reply.ID != m.ID || !reply.At.Equal(m.At) {
			t.Errorf("accepted %v, stored %v", reply, m)
		}
		want := map[string]any{
			"id": float64(m.ID), "room": "lobby", "text": "<hi> & bye", "at": m.At.Format(time.RFC3339Nano),
			"user": map[string]any{"id": ann.user.ID, "name": "ann", "avatar": "/ann.png"},
		}
		if nonce != "" {
			want["nonce"] = nonce
		}
		if got := as[map[string]any](t, ann.await("chat message")); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("chat message = %v, want %v", got, want)
		}
	}
	if got, want := string(ann.ask("history", pageRef{"lobby", 1})), `{"messages":[]}`; got != want {
		t.Errorf("history is answered %s, want %s", got, want)
	}
	if got, want := string(ann.ask("leave", roomRef{"lobby"})), `{"room":"lobby"}`; got != want {
		t.Errorf("leave is answered %s, want %s", got, want)
	}
}

func TestLiveJoinShowsLatest(t *testing.T) {
	s := newSite(t)
	ann := s.open("ann")
	for i := range app.Latest + 3 {
		if _, err := s.db.Post(t.Context(), app.Draft{Room: "lobby", Text: fmt.Sprint(i), UserID: ann.user.ID}); err != nil {
			t.Fatal(err)
		}
	}
	all := s.messages("lobby")
	for range 2 { // joining again is how a client that was away catches up
		if got := ann.join("lobby"); !slices.Equal(got.Messages, all[3:]) || !slices.Equal(got.Members, []app.User{ann.user}) {
			t.Errorf("join = %v", got)
		}
	}
	if got := as[page](t, ann.ask("history", pageRef{"lobby", all[3].ID})); !slices.Equal(got.Messages, all[:3]) {
		t.Errorf("history = %v, want %v", got, all[:3])
	}
	if got := as[page](t, ann.ask("history", pageRef{Room: "lobby"})); !slices.Equal(got.Messages, all[3:]) {
		t.Errorf("history from the newest = %v, want %v", got, all[3:])
	}
}

func TestLiveMessageReachesTheRoom(t *testing.T) {
	s := newSite(t)
	addRoom(t, s.db, "attic")
	ann, ben, cat := s.open("ann"), s.open("ben"), s.open("cat")
	ann.join("lobby")
	ben.join("lobby")
	ben.join("attic")
	cat.join("attic")

	ann.say("lobby", "first")
	ben.say("attic", "second")
	ann.say("lobby", "third")
	for _, tt := range []struct {
		tab  *tab
		want []string
	}{{ann, []string{"first", "third"}}, {ben, []string{"first", "second", "third"}}, {cat, []string{"second"}}} {
		for _, want := range tt.want {
			if got := as[posted](t, tt.tab.await("chat message")); got.Text != want {
				t.Errorf("%s hears %q, want %q", tt.tab.user.Name, got.Text, want)
			}
		}
	}

	// From a page without a socket.
	if _, err := s.live.Post(t.Context(), cat.user, app.Draft{Room: "lobby", Text: " by form ", Nonce: "f"}); err != nil {
		t.Fatal(err)
	}
	for _, tb := range []*tab{ann, ben} {
		if got := as[posted](t, tb.await("chat message")); got.Text != "by form" || got.User != cat.user || got.Nonce != "f" {
			t.Errorf("%s hears %v", tb.user.Name, got)
		}
	}
}

func TestLiveRefusals(t *testing.T) {
	s := newSite(t)
	addRoom(t, s.db, "attic")
	ann := s.open("ann")
	ann.join("lobby")
	for _, tt := range []struct {
		event string
		data  any
		code  app.Code
		want  string // in the message
	}{
		{"join", roomRef{"kitchen"}, app.CodeNotFound, `no room named "kitchen"`},
		{"join", roomRef{"The Kitchen"}, app.CodeNotFound, "1 to 32 characters"},
		{"join", nil, app.CodeNotFound, "no such room"},
		{"history", pageRef{"kitchen", 0}, app.CodeNotFound, `no room named "kitchen"`},
		{"history", pageRef{"lobby", -5}, app.CodeInvalid, "-5"},
		{"chat message", message{Room: "attic", Text: "x"}, app.CodeForbidden, "Join it first"},
		{"chat message", message{Room: ann.user.ID, Text: "x"}, app.CodeForbidden, "Join it first"},
		{"chat message", message{Room: "lobby"}, app.CodeInvalid, "1 to 4,000"},
		{"chat message", message{Room: "lobby", Text: strings.Repeat("x", 4001)}, app.CodeInvalid, "4,001"},
		{"chat message", message{Room: "lobby", Text: "x", Nonce: strings.Repeat("x", 65)}, app.CodeInvalid, "nonce"},
		{"typing", roomRef{"attic"}, app.CodeForbidden, "Join it first"},
	} {
		if e := ann.refused(tt.event, tt.data); e.Code != string(tt.code) || !strings.Contains(e.Message, tt.want) {
			t.Errorf("%s %v: %v, want %q and %q", tt.event, tt.data, e, tt.code, tt.want)
		}
	}
	if got := append(s.messages("lobby"), s.messages("attic")...); len(got) != 0 {
		t.Errorf("stored %v, want nothing", got)
	}

	ann.ask("leave", roomRef{"attic"}) // was not there: nothing to do
	ann.ask("leave", roomRef{"lobby"})
	if e := ann.refused("chat message", message{Room: "lobby", Text: "x"}); e.Code != string(app.CodeForbidden) {
		t.Errorf("after leaving: %v", e)
	}
}

// What is refused was not joined: nobody is announced, nothing is heard.
func TestLiveRefusedJoinLeavesNothing(t *testing.T) {
	db := openStore(t)
	broken := &flaky{DB: db}
	s := newSiteWith(t, db, broken)
	ann, ben := s.open("ann"), s.open("ben")
	ann.join("lobby")
	ann.awaitMembers("lobby", ann.user)

	broken.set(errors.New("a secret cause"))
	if e := ben.refused("join", roomRef{"lobby"}); e.Code != string(app.CodeInternal) || strings.Contains(e.Message, "secret") {
		t.Errorf("join: %v, want %q without the cause", e, app.CodeInternal)
	}
	if log := s.log.String(); !strings.Contains(log, "a secret cause") {
		t.Errorf("the cause is not logged:\n%s", log)
	}
	if e := ben.refused("chat message", message{Room: "lobby", Text: "x"}); e.Code != string(app.CodeForbidden) {
		t.Errorf("post after a refused join: %v", e)
	}
	if got, err := s.live.Members(t.Context(), "lobby"); err != nil || !slices.Equal(got, []app.User{ann.user}) {
		t.Errorf("members = %v, %v; want ann", got, err)
	}

	broken.set(nil)
	ben.join("lobby")
	ann.awaitMembers("lobby", ann.user, ben.user)
}

// flaky fails to read messages while it is told to.
type flaky struct {
	*store.DB
	mu  sync.Mutex
	err error
}

func (f *flaky) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *flaky) Messages(ctx context.Context, room string, before int64, limit int) ([]app.Message, error) {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return f.DB.Messages(ctx, room, before, limit)
}

func TestLiveWithoutStore(t *testing.T) {
	s := newSite(t)
	ann := s.open("ann")
	ann.join("lobby")
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	for event, data := range map[string]any{
		"join": roomRef{"lobby"}, "history": pageRef{"lobby", 0}, "chat message": message{Room: "lobby", Text: "x"},
	} {
		if e := ann.refused(event, data); e.Code != string(app.CodeUnavailable) || !strings.Contains(e.Message, "try again") {
			t.Errorf("%s: %v, want %q", event, e, app.CodeUnavailable)
		}
	}
	if log := s.log.String(); !strings.Contains(log, "database is closed") {
		t.Errorf("the cause is not logged:\n%s", log)
	}
	ann.ask("typing", roomRef{"lobby"}) // needs no store: the socket is alive
}

func TestLiveRepeatedPost(t *testing.T) {
	s := newSite(t)
	ann, ben := s.open("ann"), s.open("ben")
	ann.join("lobby")
	ben.join("lobby")
	again := s.open("ann") // the connection that her client opens after a drop
	again.join("lobby")

	once := message{"lobby", "hello", "n1"}
	first := as[accepted](t, ann.ask("chat message", once))
	for _, tb := range []*tab{ann, again} {
		if got := as[accepted](t, tb.ask("chat message", once)); got.ID != first.ID || !got.At.Equal(first.At) {
			t.Errorf("repeated post is answered %v, want %v", got, first)
		}
	}

	// Stored by a process that crashed before it told anyone.
	lost, err := s.db.Post(t.Context(), app.Draft{Room: "lobby", Text: "lost", UserID: ann.user.ID, Nonce: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	if got := as[accepted](t, again.ask("chat message", message{"lobby", "lost", "n2"})); got.ID != lost.ID {
		t.Errorf("repeated post is answered %v, want %v", got, lost)
	}
	ann.say("lobby", "the end")
	for _, want := range []string{"hello", "lost", "the end"} {
		if got := as[posted](t, ben.await("chat message")); got.Text != want {
			t.Errorf("ben hears %q, want %q", got.Text, want)
		}
	}
	if got := s.messages("lobby"); len(got) != 3 {
		t.Errorf("stored %v, want three messages", got)
	}
}

func TestLiveTooFast(t *testing.T) {
	s := newSite(t)
	ann, ben := s.open("ann"), s.open("ben")
	more := s.open("ann") // another tab is no second allowance
	for _, tb := range []*tab{ann, ben, more} {
		tb.join("lobby")
	}
	sent, fast := 0, (*adapter.Error)(nil)
	for fast == nil {
		if sent > 10*postBurst {
			t.Fatalf("%d posts in a row were accepted", sent)
		}
		f := []*tab{ann, more}[sent%2].reply("chat message", message{Room: "lobby", Text: "x"})
		if fast = f.Error; fast == nil {
			sent++
		}
	}
	if sent < postBurst || fast.Code != "too_fast" {
		t.Errorf("after %d posts: %v; want too_fast after at least %d", sent, fast, postBurst)
	}
	if got := s.messages("lobby"); len(got) != sent {
		t.Errorf("%d messages are stored, %d were accepted", len(got), sent)
	}
	ben.say("lobby", "I am patient")
}

func TestLiveTooManyRooms(t *testing.T) {
	s := newSite(t)
	ann := s.open("ann")
	for i := range MaxRooms + 1 {
		addRoom(t, s.db, fmt.Sprintf("room-%d", i))
	}
	for i := range MaxRooms {
		ann.join(fmt.Sprintf("room-%d", i))
	}
	last := fmt.Sprintf("room-%d", MaxRooms)
	if e := ann.refused("join", roomRef{last}); e.Code != string(app.CodeForbidden) || !strings.Contains(e.Message, fmt.Sprint(MaxRooms)) {
		t.Errorf("join: %v, want %q and the limit", e, app.CodeForbidden)
	}
	ann.join("room-3") // is there already
	ann.ask("leave", roomRef{"room-3"})
	ann.join(last)
}

func TestLivePresence(t *testing.T) {
	s := newSite(t)
	ann := s.open("ann")
	ann.join("lobby")
	ann.awaitMembers("lobby", ann.user)

	// Three tabs are one member, announced once.
	var tabs []*tab
	for range 3 {
		ben := s.open("ben")
		if got := ben.join("lobby").Members; !slices.Equal(got, []app.User{ann.user, ben.user}) {
			t.Errorf("members = %v", got)
		}
		tabs = append(tabs, ben)
	}
	ben := tabs[0].user
	if n := ann.awaitMembers("lobby", ann.user, ben); n != 1 {
		t.Errorf("ben was announced after %d announcements, want at once", n)
	}

	// Two of them go, one way or the other: he is still here.
	tabs[0].ask("leave", roomRef{"lobby"})
	tabs[1].close()
	cat := s.open("cat")
	cat.join("lobby")
	if n := ann.awaitMembers("lobby", ann.user, ben, cat.user); n != 1 {
		t.Errorf("it took %d announcements to say that cat came, want 1: nobody else came or went", n)
	}

	tabs[2].close() // without saying goodbye
	ann.awaitMembers("lobby", ann.user, cat.user)
	cat.ask("leave", roomRef{"lobby"})
	ann.awaitMembers("lobby", ann.user)
	if got, err := s.live.Members(t.Context(), "attic"); err != nil || got == nil || len(got) != 0 {
		t.Errorf("members of an empty room = %#v, %v; want an empty list", got, err)
	}
}

func TestLivePresenceOfSeveralRooms(t *testing.T) {
	s := newSite(t)
	addRoom(t, s.db, "attic")
	ann, ben := s.open("ann"), s.open("ben")
	for _, room := range []string{"attic", "lobby"} {
		ann.join(room)
		ann.awaitMembers(room, ann.user)
	}
	for _, room := range []string{"attic", "lobby"} {
		ben.join(room)
		ann.awaitMembers(room, ann.user, ben.user)
	}
	ben.close()
	left := map[string]bool{}
	for range 2 {
		got := as[here](t, ann.await("presence"))
		left[got.Room] = slices.Equal(got.Members, []app.User{ann.user})
	}
	if !left["attic"] || !left["lobby"] {
		t.Errorf("ben left %v, want both rooms", left)
	}
}

func TestLiveTyping(t *testing.T) {
	s := newSite(t)
	ann, ben := s.open("ann"), s.open("ben")
	ann.join("lobby")
	ben.join("lobby")
	ben.awaitMembers("lobby", ann.user, ben.user) // volatile: nothing else on its way to him
	ann.ask("typing", roomRef{"lobby"})
	if got := as[typist](t, ben.await("typing")); got != (typist{"lobby", ann.user}) {
		t.Errorf("typing = %v", got)
	}
	ann.say("lobby", "done")
	ann.await("chat message")
	if slices.ContainsFunc(ann.early, func(f frame) bool { return f.Type == "typing" }) {
		t.Error("ann was told that she types")
	}
}

func TestLiveMembersOrder(t *testing.T) {
	got := members([]adapter.Member{
		{UserID: "1", User: app.User{ID: "1", Name: "Cat"}},
		{UserID: "3", User: app.User{ID: "3", Name: "Ann"}},
		{UserID: "2", User: app.User{ID: "2", Name: "Ann"}},
		{UserID: "4"},
	})
	want := []app.User{{ID: "4"}, {ID: "2", Name: "Ann"}, {ID: "3", Name: "Ann"}, {ID: "1", Name: "Cat"}}
	if !slices.Equal(got, want) {
		t.Errorf("members = %v, want %v", got, want)
	}
}
