// Package adapter gives WebSockets of a Gin app the user that its pages have.
//
// # The idea
//
// Ordinary Gin middlewares decide who someone is, and decide again whenever it
// may have changed. The middlewares that identify people on pages (the chain)
// are given to the server once. It runs them on a private Gin context against
// the upgrade request and keeps what they left behind as an immutable snapshot:
// an Identity, and the values they set. Later it replays the same chain with
// the same request, its cookies as they are now, when the session was saved,
// when an interval has passed, or after a login. Nothing that Gin owns outlives
// the handshake.
//
//	srv, err := adapter.New(adapter.Config{})
//	srv.Use(sessions.Sessions("sid", srv.Store(store)), auth.Load)
//	srv.Identify(auth.Identity)
//	adapter.Handle(srv, "chat message", chat.Post)
//	srv.Mount(r)                          // sockets
//	pages := r.Group("/", srv.HTTP()...)  // pages: the same people
//
// # What a replay can say
//
// It has three outcomes. The same user, perhaps with other roles: handlers see
// it from their next event on. Refused, or nobody where somebody is required:
// the socket is told why and closed. Unknown, because a store does not answer:
// the identity stays, for Config.MaxStale at most and never past its expiry. A
// new handshake or page whose user is unknown gets 503, not a login form.
//
// # What ends a socket
//
// Logout closes the sockets of that session at once, before it returns, with
// close code 4409; the old session cannot come back, not even through an HTTP
// request that saves late. A second user on the same session does the same: two
// people never share a socket. See Reason for all of them.
//
// # Concurrency
//
// A Server is set up by one goroutine and not changed after Mount or HTTP; from
// then on every method of Server, Namespace, Op, Socket and Session may be
// called from any goroutine.
//
// Events of one socket are handled one at a time and in order; so are its
// connecting, its changes of identity and its end. Different sockets are
// handled concurrently. A handler's context ends when the socket does. No
// method but Session.Get, Session.Update and Shutdown waits for anything: Emit
// queues, and a client that does not read what is queued for it is closed.
//
// An idle connection is one goroutine. Writers and dispatchers exist while
// there is something to write or to dispatch. Shutdown waits for all of them.
package adapter
