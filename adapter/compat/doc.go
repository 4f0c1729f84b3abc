// Package compat tries the middlewares that people use with Gin on sockets: the
// real modules, at the versions in go.mod, over plain WebSockets, Socket.IO over
// WebSocket and Socket.IO over polling, above the route and in the place where
// they belong. It is a module of its own, so that what it needs weighs on nobody.
//
// A middleware is one row of a list (identifying, observing, heading, limiting,
// assorted, unfit): its name, its place, and a function that builds it. To try
// another one, add a row. The same runner, TestMiddlewares, drives them all, and
// what it finds is docs/middlewares.md: it fails if the page does not say so, and
// with -update writes it.
//
//	go test -run TestMiddlewares -update
package compat
