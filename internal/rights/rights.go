// Package rights is the arithmetic of what credentials allow: scopes, which may end in a
// wildcard, and grants on resources of a type. It does not know whose rights they are.
//
// A scope is compared as text. "*" covers every scope. A scope that ends in ":*" covers every
// scope that begins with what stands before the "*". Each other scope covers itself.
package rights

import (
	"slices"
	"strings"
)

// All is the scope that covers every other one. Any stands for every action or every
// identifier in a Grant.
const (
	All = "*"
	Any = "*"
)

// Grant allows each of the actions on each resource of the type that has one of the
// identifiers.
type Grant struct {
	Type                 string
	Actions, Identifiers []string
}

// Covers reports whether whoever has the scope have is granted the scope want. The empty
// scope is never granted.
func Covers(have, want string) bool {
	if have == want || have == All {
		return want != ""
	}
	begin, wild := beginning(have)
	return wild && strings.HasPrefix(want, begin)
}

// beginning returns the text with which everything begins that a scope covers, if the scope
// has a wildcard.
func beginning(scope string) (begin string, wild bool) {
	n := len(scope)
	if n < 2 || scope[n-1] != '*' || scope[n-2] != ':' {
		return "", false
	}
	return scope[:n-1], true
}

// Allow reports whether scopes grant the scope want.
func Allow[S ~string](scopes []S, want S) bool {
	for _, have := range scopes {
		if Covers(string(have), string(want)) {
			return true
		}
	}
	return false
}

// AllowOn reports whether scopes allow an action on every resource of a type: by the scope
// "type:action", or one that covers it. The action Any is every action.
func AllowOn[S ~string](scopes []S, action, typ string) bool {
	for _, s := range scopes {
		if coversType(string(s), action, typ) {
			return true
		}
	}
	return false
}

// coversType is Covers for the scope "typ:action", without building that text.
func coversType(have, action, typ string) bool {
	if have == All {
		return true
	}
	begin, wild := beginning(have)
	rest := have
	if wild {
		rest = begin
	}
	n := len(typ)
	switch {
	case wild && len(begin) <= n:
		return typ[:len(begin)] == begin
	case len(rest) <= n || rest[:n] != typ || rest[n] != ':':
		return false
	case wild:
		return len(begin) == n+1 || action != Any && strings.HasPrefix(action, begin[n+1:])
	}
	return action != Any && rest[n+1:] == action
}

// Allows reports whether a grant allows an action on the resource of a type with an
// identifier.
func (g *Grant) Allows(action, typ, id string) bool {
	return g.Type == typ && isAmong(g.Actions, action) && isAmong(g.Identifiers, id)
}

func isAmong(list []string, one string) bool {
	for _, have := range list {
		if have == one || have == Any {
			return true
		}
	}
	return false
}

// AllowOne reports whether one of the grants allows an action on a resource.
func AllowOne(grants []Grant, action, typ, id string) bool {
	for i := range grants {
		if grants[i].Allows(action, typ, id) {
			return true
		}
	}
	return false
}

// MeetScopes returns the scopes that grant exactly what both lists grant.
func MeetScopes[S ~string](a, b []S) []S {
	var both []S
	add := func(s S) {
		if !slices.Contains(both, s) {
			both = append(both, s)
		}
	}
	for _, x := range a {
		for _, y := range b {
			switch {
			case Covers(string(x), string(y)):
				add(y)
			case Covers(string(y), string(x)):
				add(x)
			}
		}
	}
	return both
}

// MeetGrants returns grants of what both sides allow on resources, where at least one side
// allows it by a grant. Where a grant of every action meets a scope that covers a part of the
// actions of its type ("type:part:*"), no grant can say what both allow, and it is left out:
// the result never allows more than both. No grant of the result allows all that another one
// does.
func MeetGrants[S ~string](scopesA, scopesB []S, a, b []Grant) []Grant {
	var both []Grant
	add := func(more ...Grant) {
		for _, g := range more {
			if slices.ContainsFunc(both, func(have Grant) bool { return have.covers(&g) }) {
				continue
			}
			both = append(slices.DeleteFunc(both, func(have Grant) bool { return g.covers(&have) }), g)
		}
	}
	for i := range a {
		add(under(&a[i], scopesB)...)
		for j := range b {
			if g := meet(&a[i], &b[j]); len(g.Actions) > 0 && len(g.Identifiers) > 0 {
				add(g)
			}
		}
	}
	for j := range b {
		add(under(&b[j], scopesA)...)
	}
	return both
}

// covers reports whether g alone allows all that other allows.
func (g *Grant) covers(other *Grant) bool {
	return g.Type == other.Type && areAmong(g.Actions, other.Actions) && areAmong(g.Identifiers, other.Identifiers)
}

func areAmong(list, all []string) bool {
	return !slices.ContainsFunc(all, func(one string) bool { return !isAmong(list, one) })
}

// under returns what a grant and scopes both allow, as one grant or none.
func under[S ~string](g *Grant, scopes []S) []Grant {
	var actions []string
	for _, action := range g.Actions {
		if AllowOn(scopes, action, g.Type) {
			actions = append(actions, action)
		}
	}
	if isAmong(g.Actions, Any) && !isAmong(actions, Any) {
		for _, s := range scopes { // those that name one action of the type
			action, ofType := strings.CutPrefix(string(s), g.Type+":")
			if _, wild := beginning(string(s)); ofType && !wild && action != "" && !slices.Contains(actions, action) {
				actions = append(actions, action)
			}
		}
	}
	if len(actions) == 0 {
		return nil
	}
	return []Grant{{g.Type, actions, g.Identifiers}}
}

// meet returns what two grants both allow; a list of it is empty if they allow nothing.
func meet(a, b *Grant) Grant {
	if a.Type != b.Type {
		return Grant{}
	}
	return Grant{a.Type, meetLists(a.Actions, b.Actions), meetLists(a.Identifiers, b.Identifiers)}
}

func meetLists(a, b []string) []string {
	var both []string
	for _, list := range [...]struct{ of, in []string }{{a, b}, {b, a}} {
		for _, one := range list.of {
			if isAmong(list.in, one) && !slices.Contains(both, one) {
				both = append(both, one)
			}
		}
	}
	return both
}
