package compat

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// page is the document that these tests write.
const page = "../../docs/middlewares.md"

var update = flag.Bool("update", false, "write "+page)

// compare checks that the document says what was found.
func compare(t *testing.T, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) == want {
		return
	}
	is, should := strings.Split(string(got), "\n"), strings.Split(want, "\n")
	for i := range max(len(is), len(should)) {
		var a, b string
		if i < len(is) {
			a = is[i]
		}
		if i < len(should) {
			b = should[i]
		}
		if a != b {
			t.Fatalf("%s:%d says\n\t%s\nbut the tests have found\n\t%s\nrun: go test -run TestMiddlewares -update", page, i+1, a, b)
		}
	}
}

const head = `# Middlewares on sockets

Written by the tests in [adapter/compat](../adapter/compat), which run these
modules at these versions; change the tests, not this page:
` + "`cd adapter/compat && go test -run TestMiddlewares -update`" + `

Each was driven over plain WebSockets, Socket.IO over WebSocket and Socket.IO that
polls and then upgrades, in the place that the second column names, next to a page
that has it too. For every row in the first tables this holds, on each transport:

- Who is let in on a page is let in, and who is refused there is refused.
- The headers and cookies that it sets on pages are on the answer to the handshake
  (the 101, or the first poll), none of them twice; in ` + "`UseEach`" + ` its headers are on
  the answers to polls as well.
- What it does after ` + "`c.Next()`" + ` has run when the handshake is over, while the socket
  is open: loggers, metrics and traces see the status 101 (200 for a first poll) and
  the duration of the handshake.
- Nothing that it writes gets between the messages.
- What it leaves with ` + "`c.Set`" + ` handlers read with ` + "`Socket.Get`" + `.
- In 20 polls and 20 posts it runs 40 times in ` + "`UseEach`" + `, and elsewhere not at all.
- When its sockets are replayed 20 times each it runs in ` + "`Use`" + `, and elsewhere not at
  all, and what it keeps (sessions stored, counters, lines, spans) is the same
  afterwards.

The columns: **Place**, where to put it. **Refused**, how strangers are answered:
by a status, or, where the chain passes and names nobody, by ` + "`connect_error`" + ` on
Socket.IO. **On the answer**, the headers it sets. **Replayed**, whether replays run
it. **With ` + "`r.Use`" + `**, what happens where the same middleware stands above the
sockets' route.
`

const tail = `
They are refused at start-up, in ` + "`Use`, `UseOnce`, `UseEach`" + ` and above the route: the
program panics with the sentence in the table. Hidden in a function of your own they
cannot be seen, and do what the sentence says. With ` + "`Query`" + ` or ` + "`QuerySession`" + `
credentials this goes for loggers above the route, too: gin.Logger,
gin-contrib/logger, zap and slog, and Sentry keep the query as it came in.

To have sockets out of the way of what stands on the engine, mount them first:

` + "```go" + `
srv.Mount(r)                       // not below what follows
r.Use(gzip.Gzip(gzip.BestSpeed))   // for pages
` + "```" + `

## Impossible by nature

| What | Why | Instead |
|---|---|---|
| A redirect as the answer to a WebSocket | no client follows one; it becomes 401 and names the page | refuse with 401 or 403, and let the page's script go to the login |
| OAuth callbacks on the sockets' route | a provider redirects a browser, not a socket | log in on pages; open sockets follow (` + "`srv.Login`" + `) |
| Writing a cookie session from an open WebSocket | a cookie reaches the browser in an answer of HTTP only; ` + "`Update`" + ` is ` + "`ErrReadOnlySession`" + ` | a store that keeps sessions on the server, or a request of HTTP from the page |
| CSRF tokens instead of an origin check | an upgrade is a GET, which they exempt, and scripts set no header on it | ` + "`Config.Origins`" + `; by default only pages of the same host |
| Caches of answers | every poll is an answer of its own, an upgrade has none | on pages |
| A timeout as the limit of a connection | a poll and a socket are meant to wait | ` + "`PingTimeout`, `ConnectTimeout`" + `, the context of ` + "`Call`" + ` and of handlers |
| gzip or a size limit on frames | they see the request, not what flows afterwards | ` + "`Config.Compression`, `Config.CompressPolls`, `Config.MaxPayload`" + ` |
| A transaction per request, kept by a socket | it would be open as long as the socket | begin one in the handler of the event |
`

// document is the page for what was found.
func document(findings []finding) string {
	var b strings.Builder
	b.WriteString(head)
	for _, g := range groups {
		mine := slices.DeleteFunc(slices.Clone(findings), func(f finding) bool {
			return !slices.ContainsFunc(g.rows, func(r row) bool { return r.name == f.name })
		})
		fmt.Fprintf(&b, "\n## %s\n\n", g.title)
		if mine[0].place == nowhere {
			b.WriteString("| Middleware | Why, and what to do instead |\n|---|---|\n")
			for _, f := range mine {
				fmt.Fprintf(&b, "| %s | %s |\n", f.title(), f.reason())
			}
			continue
		}
		b.WriteString("| Middleware | Place | Refused | On the answer | Replayed | With `r.Use` |\n|---|---|---|---|---|---|\n")
		for _, f := range mine {
			fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s |\n",
				f.title(), f.place, orDash(f.refuses), orDash(strings.Join(f.carries, ", ")), f.replays, orDash(f.above))
		}
		b.WriteString("\n")
		for _, f := range mine {
			if f.note != "" {
				fmt.Fprintf(&b, "- **%s**: %s.\n", f.name, f.note)
			}
		}
	}
	b.WriteString(tail)
	return b.String()
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// title is the name with the version that was run.
func (f finding) title() string {
	if f.module == "" {
		return f.name
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(versions[f.module], "v0.0.0-"), "-")
	return f.name + " " + strings.TrimPrefix(version, "v")
}

// reason is what follows the name in the panic.
func (f finding) reason() string {
	_, why, _ := strings.Cut(strings.TrimPrefix(f.above, "adapter: "), ": ")
	return why
}

// versions are those of the modules in go.mod, with what is replaced. A test
// does not know them of itself.
var versions = func() map[string]string {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		panic(err)
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 5 && fields[0] == "replace":
			found[fields[1]] = fields[4]
		case len(fields) >= 2 && strings.HasPrefix(fields[1], "v"):
			found[fields[0]] = fields[1]
		}
	}
	return found
}()
