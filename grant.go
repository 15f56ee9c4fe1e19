package fob

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fobkit/fob/internal/limits"
)

// Resource is one thing on which actions are allowed, named by its type and identifier.
type Resource struct {
	Type string
	ID   string
}

// Grant allows actions on resources of one type, in the manner of an
// authorization detail (RFC 9396 §2). A scope "orders:read" grants the action
// "read" on every order; Grant{"orders", {"read"}, {"42"}} grants it on one.
type Grant struct {
	// Type is the type of resource.
	Type string
	// Actions and Identifiers list what is allowed: each action on each identifier. An
	// empty list allows nothing; Any in a list allows every action, or every resource of
	// the type.
	Actions     []string
	Identifiers []string
}

// Any stands for every action or every identifier in a Grant, by the explicit
// choice of whoever issues it.
const Any = "*"

// Grants is a set of grants. Empty means nothing, never everything.
type Grants []Grant

// The limits of grants.
const (
	maxGrants    = 32
	maxGrantList = 64
	maxGrantText = 256
)

// Allow reports whether one of the grants allows action on r. The empty action and a
// resource without a type or an identifier are never allowed. It allocates nothing.
func (g Grants) Allow(action string, r Resource) bool {
	if action == "" || r.Type == "" || r.ID == "" {
		return false
	}
	for i := range g {
		if g[i].Type == r.Type && isAmong(g[i].Actions, action) && isAmong(g[i].Identifiers, r.ID) {
			return true
		}
	}
	return false
}

func isAmong(list []string, one string) bool {
	for _, have := range list {
		if have == one || have == Any {
			return true
		}
	}
	return false
}

// allowsOn is AllowsOn of a credential: it looks for a grant, or for the scope that
// covers every resource of the type.
func allowsOn(scopes Scopes, grants Grants, action string, r Resource) bool {
	if action == "" || r.Type == "" || r.ID == "" {
		return false
	}
	for _, s := range scopes {
		// Any asks for every action; a scope "orders:*" names only one, whose name is "*".
		if s == ScopeAll || action != Any && coversType(s, r.Type, action) {
			return true
		}
	}
	return grants.Allow(action, r)
}

// coversType reports whether s is "type:action", without building that text.
func coversType(s Scope, typ, action string) bool {
	return len(s) == len(typ)+1+len(action) && s[len(typ)] == ':' &&
		string(s[:len(typ)]) == typ && string(s[len(typ)+1:]) == action
}

// within reports whether everything that g grants is allowed by scopes and have.
func (g Grants) within(scopes Scopes, have Grants) bool {
	for _, one := range g {
		for _, action := range one.Actions {
			for _, id := range one.Identifiers {
				if !allowsOn(scopes, have, action, Resource{one.Type, id}) {
					return false
				}
			}
		}
	}
	return true
}

// within reports whether everything that s grants is granted by have.
func (s Scopes) within(have Scopes) bool {
	for _, scope := range s {
		if !have.Allow(scope) {
			return false
		}
	}
	return true
}

// clone returns a copy that shares no memory with g.
func (g Grants) clone() Grants {
	out := slices.Clone(g)
	for i := range out {
		out[i].Actions = slices.Clone(out[i].Actions)
		out[i].Identifiers = slices.Clone(out[i].Identifiers)
	}
	return out
}

// normal returns a checked copy of g.
func (g Grants) normal() (Grants, error) {
	out := g.clone()
	for i := range out {
		out[i].Type = strings.Clone(out[i].Type)
		for _, list := range [...][]string{out[i].Actions, out[i].Identifiers} {
			for j, text := range list {
				list[j] = strings.Clone(text)
			}
		}
	}
	return out, out.check()
}

func (g Grants) check() error {
	if len(g) > maxGrants {
		return fmt.Errorf("%w: %d grants, at most %d", ErrInvalid, len(g), maxGrants)
	}
	for i := range g {
		one := &g[i]
		if !validGrantText(one.Type) || one.Type == Any {
			return fmt.Errorf("%w: type of grant %d, of %d bytes", ErrInvalid, i, len(one.Type))
		}
		if err := cmp.Or(limits.CheckList("actions of a grant", one.Actions, maxGrantList, maxGrantText),
			limits.CheckList("identifiers of a grant", one.Identifiers, maxGrantList, maxGrantText)); err != nil {
			return err
		}
	}
	return nil
}

func validGrantText(s string) bool { return limits.IsText(s, maxGrantText) }

// and returns the scopes that allow exactly what both allow.
func (s Scopes) and(o Scopes) Scopes {
	if slices.Contains(s, ScopeAll) {
		return slices.Clone(o)
	}
	var both Scopes
	for _, scope := range s {
		if o.Allow(scope) {
			both = append(both, scope)
		}
	}
	return both
}

// and returns the grants of what both g and scopes allow on a resource. The caller has
// made sure that scopes does not contain ScopeAll.
func (g Grants) and(scopes Scopes) Grants {
	var both Grants
	for _, one := range g {
		var actions []string
		for _, scope := range scopes {
			// Take the action from a scope "type:action". A scope cannot allow the action
			// Any (see allowsOn), and an empty action is none.
			n := len(one.Type)
			if len(scope) < n+2 || string(scope[:n]) != one.Type || scope[n] != ':' {
				continue
			}
			if action := string(scope[n+1:]); action != Any && isAmong(one.Actions, action) {
				actions = append(actions, action)
			}
		}
		if len(actions) > 0 {
			both = append(both, Grant{Type: one.Type, Actions: actions, Identifiers: one.Identifiers})
		}
	}
	return both
}
