// Package chat is what can be said and where. Service has the rules and knows
// nothing of sockets; Live brings them to people whose pages are open.
package chat
