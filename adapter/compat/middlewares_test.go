package compat

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Rows mostly wait, for timers that start replays, so many run at a time.
func TestMain(m *testing.M) {
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelWarn) // leaves out the audit trail
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// many is how often a thing is done that must not add up.
const many = 20

// A finding is what the document tells about a row.
type finding struct {
	row
	carries []string // headers on the answer of every handshake
	refuses string   // how strangers are answered
	replays string   // whether they run it, and what is left of them
	above   string   // what it does there, or what start-up says
	done    bool
}

func TestMiddlewares(t *testing.T) {
	all := rows()
	findings := make([]finding, len(all))
	t.Run("rows", func(t *testing.T) {
		for i, r := range all {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				f := finding{row: r}
				if r.place == nowhere {
					f.cannotWork(t)
				} else {
					f.inPlace(t)
					f.aboveTheRoute(t)
				}
				f.done = !t.Failed()
				findings[i] = f
			})
		}
	})
	if slices.ContainsFunc(findings, func(f finding) bool { return !f.done }) {
		t.Log("not every row has passed, so the document is not looked at")
		return
	}
	compare(t, document(findings))
}

// inPlace drives the middleware where it belongs.
func (f *finding) inPlace(t *testing.T) {
	s := mustSite(t, f.row, mounting{place: f.place})
	page := s.person(t).get(pagePath)
	if page.status != 200 {
		t.Fatalf("a page was answered %d %s", page.status, page.body)
	}
	f.carries = names(page.header)
	open := make([]*socket, len(transports))
	for i, tr := range transports {
		before := s.statuses(tr.statusOpen)
		sock := s.open(t, tr, "")
		open[i] = sock
		// What pages get on an answer, sockets get on theirs.
		for _, name := range f.carries {
			if !slices.Contains(names(sock.handshake), name) {
				t.Errorf("%s: %s is on pages and not on the answer to the handshake: %v", tr.name, name, names(sock.handshake))
			}
		}
		once(t, tr.name, sock.handshake)
		// The chain has come to its end although the socket lives.
		s.probe.await(t, moment{"handshake", tr.name}, 1)
		if n := s.probe.runs("handshake", tr.name); n != 1 {
			t.Errorf("%s: it ran %d times on the handshake", tr.name, n)
		}
		if s.wrote != nil {
			if s.statuses(tr.statusOpen) == before {
				t.Errorf("%s: the status %d was not seen while the socket was open:\n%s", tr.name, tr.statusOpen, s.wrote())
			}
		}
		sock.echoes()
		if s.look != nil {
			if got := sock.mustAsk("look", ""); got != s.want {
				t.Errorf("%s: a handler sees %q, want %q", tr.name, got, s.want)
			}
		}
	}
	if s.wrote != nil && strings.Contains(s.wrote(), "sid=") {
		t.Errorf("it published the sid of a connection:\n%s", s.wrote())
	}
	f.polled(t, s, open[2])
	f.strangers(t, s)
	f.replayed(t, s, open)
	s.quiet(t)
	if s.also != nil {
		s.also(t, s)
	}
	if s.wrote != nil {
		mustSite(t, f.row, mounting{place: f.place, token: true}).tokensStayIn(t)
	}
}

// once checks that no header has come twice.
func once(t *testing.T, what string, h map[string][]string) {
	t.Helper()
	for _, name := range names(h) {
		if strings.HasSuffix(name, " twice") {
			t.Errorf("%s: header %s: %v", what, name, h)
		}
	}
}

// statuses returns how often the middleware has seen a status.
func (s *site) statuses(want int) (n int) {
	if s.wrote == nil {
		return 0
	}
	for _, m := range s.status.FindAllStringSubmatch(s.wrote(), -1) {
		if m[1] == strconv.Itoa(want) {
			n++
		}
	}
	return n
}

// quiet checks that nobody has written to a connection that was taken over.
func (s *site) quiet(t *testing.T) {
	t.Helper()
	if got := s.errors.String(); got != "" {
		t.Errorf("net/http complains: %s", got)
	}
}

// polled counts how often the middleware runs while a client polls, and when it
// moves to a WebSocket.
func (f *finding) polled(t *testing.T, s *site, sock *socket) {
	during := func() int {
		return s.probe.runs("poll", "") + s.probe.runs("post", "") + s.probe.runs("handshake", "polling")
	}
	before := during()
	for i := range many {
		if got := sock.mustAsk("echo", strconv.Itoa(i)); got != strconv.Itoa(i) {
			t.Errorf("the echo of %d is %q", i, got)
		}
	}
	ran := during() - before
	want := 0
	if f.place == useEach {
		want = 2 * many
		for _, name := range f.carries {
			if !strings.HasPrefix(name, "cookie ") && !slices.Contains(names(sock.last), name) {
				t.Errorf("%s is not on the answer to a poll: %v", name, names(sock.last))
			}
		}
	}
	if ran != want {
		t.Errorf("it ran %d times in %d posts and %d polls, want %d", ran, many, many, want)
	}
	once(t, "poll", sock.last)
	upgrade := sock.upgrade()
	sock.echoes()
	once(t, "upgrade", upgrade)
	if n, want := s.probe.runs("upgrade", ""), want/(2*many); n != want {
		t.Errorf("it ran %d times on the upgrade, want %d", n, want)
	}
}

// strangers checks that who is refused on pages is refused on sockets.
func (f *finding) strangers(t *testing.T, s *site) {
	var how []string
	for i, dress := range s.fixture.strangers {
		how = how[:0]
		page := newBrowser(t, s.url, dress).get(pagePath)
		if page.status < 300 {
			t.Errorf("stranger %d: a page was answered %d", i, page.status)
		}
		for _, tr := range transports {
			sock, a := tr.open(newBrowser(t, s.url, dress), "")
			if sock != nil {
				t.Errorf("stranger %d was let in over %s", i, tr.name)
				continue
			}
			switch redirect := page.status < 400; {
			case a.status == 0:
				how = append(how, "connect_error")
			case a.status == page.status, redirect && a.status == 401:
				how = append(how, strconv.Itoa(a.status))
			default:
				t.Errorf("stranger %d: %s was answered %d, a page %d", i, tr.name, a.status, page.status)
			}
		}
	}
	f.refuses = strings.Join(slices.Compact(how), ", ")
}

// replayed has every socket replayed many times and looks at what that leaves.
func (f *finding) replayed(t *testing.T, s *site, open []*socket) {
	kept := func() int {
		if s.kept == nil {
			return 0
		}
		return s.kept()
	}
	wrote := func() string {
		if s.wrote == nil {
			return ""
		}
		return s.wrote()
	}
	before, lines, ran := kept(), wrote(), s.probe.runs("replay", "")
	for _, tr := range transports {
		s.chain.await(t, moment{"replay", tr.name}, s.chain.runs("replay", tr.name)+many)
	}
	ran = s.probe.runs("replay", "") - ran
	if is := ran >= many; is != (f.place == use) {
		t.Errorf("it ran %d times in at least %d replays of its sockets", ran, len(transports)*many)
	}
	f.replays = "not run"
	if f.place == use {
		f.replays = "run"
		if s.kept != nil {
			f.replays += "; nothing written"
		}
	}
	if after := kept(); after != before {
		t.Errorf("what it keeps went from %d to %d in replays", before, after)
	}
	if wrote() != lines {
		t.Errorf("it told of replays:\n%s", strings.TrimPrefix(wrote(), lines))
	}
	if strings.Contains(s.logged.String(), "writes a session or cookie whenever it runs") {
		f.replays += "; its cookie is discarded"
	}
	for i, sock := range open {
		if got := sock.mustAsk("echo", "still"); got != "still" {
			t.Errorf("%s: after the replays the echo is %q", transports[i].name, got)
		}
	}
}

// aboveTheRoute drives it where it is not meant to be, but often is.
func (f *finding) aboveTheRoute(t *testing.T) {
	s, refused := newSite(t, f.row, mounting{above: true})
	if s == nil {
		f.above = refused
		return
	}
	var said []string
	nobody := 0
	for _, tr := range transports {
		sock, a := tr.open(s.person(t), "")
		if sock == nil {
			if a.status == 0 || a.status == 401 {
				nobody++
			}
			said = append(said, fmt.Sprintf("%s: %s", tr.name, refusal(a)))
			continue
		}
		s.probe.await(t, moment{"handshake", tr.name}, 1)
		if s.wrote != nil && s.statuses(tr.statusOpen) == 0 {
			t.Errorf("above, %s: the status %d was not seen", tr.name, tr.statusOpen)
		}
		once(t, "above, "+tr.name, sock.handshake)
		for _, name := range f.carries {
			if !slices.Contains(names(sock.handshake), name) {
				t.Errorf("above, %s: %s is not on the answer: %v", tr.name, name, names(sock.handshake))
			}
		}
		if s.look != nil {
			if got, _ := sock.ask("look", ""); got != s.want {
				said = append(said, "handlers do not see its value")
			}
		}
		ran := func() int { return s.probe.runs("poll", "") + s.probe.runs("post", "") }
		before, lives := ran(), true
		for i := range many {
			got, a := sock.ask("echo", "still")
			if lives = a == nil; !lives {
				said = append(said, fmt.Sprintf("%s: %s", tr.name, refusal(a)))
				break
			}
			if got != "still" {
				t.Errorf("above, %s: echo %d is %q", tr.name, i, got)
			}
		}
		if tr.name == "polling" {
			if ran() == before+2*many {
				said = append(said, "runs on every poll and post")
			}
			if s.wrote != nil && strings.Contains(s.wrote(), "sid=") {
				said = append(said, "publishes the `sid` of polls")
			}
		}
		for later := s.chain.runs("replay", tr.name) + 3; lives && s.chain.runs("replay", tr.name) < later; {
			if _, a := sock.ask("echo", "still"); a != nil {
				said = append(said, "sockets end with the first replay, which knows nobody")
				break
			}
		}
		if strings.Contains(s.logged.String(), "a socket's identity could not be checked") {
			said = append(said, "no replay can tell who it is: sockets end after `Config.MaxStale`")
		}
	}
	s.quiet(t)
	if nobody == len(transports) {
		said = []string{"sockets know nobody: all are refused"}
	}
	slices.Sort(said)
	f.above = strings.Join(slices.Compact(said), "; ")
	if s.wrote == nil {
		return
	}
	if s, refused = newSite(t, f.row, mounting{above: true, token: true}); s == nil {
		f.above += "; refused above `Query` credentials"
		if !strings.Contains(refused, f.name) || !strings.Contains(refused, "Query credentials") {
			t.Errorf("above, with Query credentials: %s", refused)
		}
		return
	}
	s.tokensStayIn(t)
}

// tokensStayIn opens sockets with a token in the query, which must not be told.
func (s *site) tokensStayIn(t *testing.T) {
	t.Helper()
	for _, tr := range transports {
		s.open(t, tr, "token=SECRET")
		s.probe.await(t, moment{"handshake", tr.name}, 1)
	}
	if got := s.wrote(); strings.Contains(got, "SECRET") {
		t.Errorf("the token of the query was published:\n%s", got)
	}
}

// refusal says in a word how a handshake was refused.
func refusal(a *answer) string {
	if a.status == 0 {
		return "connect_error"
	}
	return strconv.Itoa(a.status)
}

// cannotWork checks that it is refused wherever sockets would meet it.
func (f *finding) cannotWork(t *testing.T) {
	for _, m := range []mounting{{above: true}, {place: use}, {place: useOnce}, {place: useEach}} {
		_, refused := newSite(t, f.row, m)
		if !strings.Contains(refused, f.name) || !strings.Contains(refused, "put it on the groups of your pages") {
			t.Errorf("%+v: start-up says %q, want a panic that names %s and the remedy", m, refused, f.name)
		}
		f.above = refused
	}
	s := mustSite(t, f.row, mounting{place: nowhere})
	if a := s.person(t).get(pagePath); a.status != 200 {
		t.Errorf("a page was answered %d", a.status)
	}
}
