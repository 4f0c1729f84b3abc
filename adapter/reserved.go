package adapter

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ownPrefix begins the keys under which the adapter keeps who is logged in,
// among the app's own values. An app that stores what a form says under the name
// that the form says would let anybody be anybody (session puzzling), so what
// lies under such keys is Login's alone to write.
const ownPrefix = "usher."

// checkOwn compares the adapter's own values with those that were loaded: they
// have to be all as they were, or all gone, as after a Clear. One that is
// missing alone is refused too: a session that has lost its provider would
// outlive Revoke(ByProvider).
func checkOwn(loaded, values map[any]any) error {
	kept := 0
	for k, v := range values {
		if !isOwn(k) {
			continue
		}
		if was, had := loaded[k]; !had || !unchanged(was, v) {
			return fmt.Errorf("adapter: save session: the value %q is the adapter's own, and only Login writes it", k)
		}
		kept++
	}
	if kept == 0 {
		return nil
	}
	for k := range loaded {
		if _, still := values[k]; isOwn(k) && !still {
			return fmt.Errorf("adapter: save session: the value %q is the adapter's own: use Logout, or clear the whole session", k)
		}
	}
	return nil
}

func isOwn(key any) bool {
	name, ok := key.(string)
	return ok && strings.HasPrefix(name, ownPrefix)
}

// hasOwn reports whether any of the adapter's own values is there.
func hasOwn(all ...map[any]any) bool {
	return slices.ContainsFunc(all, func(values map[any]any) bool {
		for k := range values {
			if isOwn(k) {
				return true
			}
		}
		return false
	})
}

// ownOf returns the adapter's own among values.
func ownOf(values map[any]any) map[any]any {
	own := maps.Clone(values)
	maps.DeleteFunc(own, func(k, _ any) bool { return !isOwn(k) })
	return own
}

// dropOwn deletes the adapter's own values.
func dropOwn(values map[any]any) {
	maps.DeleteFunc(values, func(k, _ any) bool { return isOwn(k) })
}
