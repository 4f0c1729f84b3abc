package adapter

import (
	"fmt"
	"maps"
	"strings"
)

// A pattern is the name of a namespace with parameters, by its parts.
type pattern []patternPart

// A patternPart is a segment of the name: a literal beginning and, unless it is
// all, a parameter for the rest.
type patternPart struct{ literal, param string }

// maxPatternName bounds the names that clients may make namespaces of.
const maxPatternName = 255

// parsePattern returns the parts of a name with parameters, nil for one without.
func parsePattern(name string) (pattern, error) {
	if !strings.Contains(name, ":") {
		return nil, nil
	}
	var p pattern
	seen := make(map[string]bool)
	for segment := range strings.SplitSeq(name[1:], "/") {
		literal, param, has := strings.Cut(segment, ":")
		if has && (param == "" || strings.Contains(param, ":") || seen[param]) {
			return nil, fmt.Errorf("expected at most one parameter in each part between slashes, each with a name of its own, got %q", name)
		}
		seen[param] = has
		p = append(p, patternPart{literal, param})
	}
	return p, nil
}

// match returns what the parameters stand for in name.
func (p pattern) match(name string) (params map[string]string, ok bool) {
	if len(name) > maxPatternName || !strings.HasPrefix(name, "/") {
		return nil, false
	}
	segments := strings.Split(name[1:], "/")
	if len(segments) != len(p) {
		return nil, false
	}
	params = make(map[string]string)
	for i, part := range p {
		value, begins := strings.CutPrefix(segments[i], part.literal)
		if !begins || (value == "") != (part.param == "") {
			return nil, false
		}
		if part.param != "" {
			params[part.param] = value
		}
	}
	return params, true
}

// made returns a namespace that n, a pattern, makes.
func (n *Namespace) made(name string, params map[string]string) *Namespace {
	made := newNamespace(n.srv, name)
	made.conduct, made.pattern, made.params = n.conduct, n, params
	return made
}

// matchLocked returns the namespace that the first pattern which fits makes of
// name. It is not listed.
func (s *Server) matchLocked(name string) *Namespace {
	for _, n := range s.patterns {
		if params, ok := n.parts.match(name); ok {
			return n.made(name, params)
		}
	}
	return nil
}

// enter returns the namespace of a name for a socket that is about to be in it,
// nil if there is none. Every enter needs a leave.
func (s *Server) enter(name string) *Namespace {
	s.mu.RLock()
	n := s.namespaces[name]
	s.mu.RUnlock()
	if n != nil && n.parts != nil {
		return nil // "/room/:id" itself is no place to be
	}
	if n != nil && n.pattern == nil {
		return n
	}
	n, made := s.enterMade(name)
	if made {
		s.cluster.namespaces(name)
	}
	return n
}

// enterMade is enter for a name that needs a pattern. made says that the
// namespace was not there before.
func (s *Server) enterMade(name string) (n *Namespace, made bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = s.namespaces[name]; n == nil {
		if n = s.matchLocked(name); n == nil {
			return nil, false
		}
		s.namespaces[name] = n
		made = true
	}
	n.uses++
	return n, made
}

// stay is an enter for one who is away, from where somebody still is.
func (n *Namespace) stay() {
	if n.pattern == nil {
		return
	}
	n.srv.mu.Lock()
	defer n.srv.mu.Unlock()
	n.uses++
}

// leave undoes an enter. What a pattern has made ends with the last who leaves.
func (n *Namespace) leave() {
	if n.pattern == nil {
		return
	}
	n.srv.mu.Lock()
	n.uses--
	over := n.uses == 0
	if over {
		delete(n.srv.namespaces, n.name)
	}
	n.srv.mu.Unlock()
	if over {
		n.srv.cluster.namespaces(n.name)
	}
}

// here returns the namespaces that n stands for at this moment: of a pattern
// all that it has made, of one that is made by a pattern the one that there is
// under its name, if any.
func (n *Namespace) here() []*Namespace {
	s := n.srv
	switch {
	case n.parts != nil:
		var made []*Namespace
		s.mu.RLock()
		defer s.mu.RUnlock()
		for other := range maps.Values(s.namespaces) {
			if other.pattern == n {
				made = append(made, other)
			}
		}
		return made
	case n.pattern != nil:
		s.mu.RLock()
		defer s.mu.RUnlock()
		if there := s.namespaces[n.name]; there != nil {
			return []*Namespace{there}
		}
		return nil
	}
	return []*Namespace{n}
}
