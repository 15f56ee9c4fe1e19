package fob

import (
	"slices"
)

// What a token may do that a key was exchanged for is worked out from the key as it is
// now, at every verification. Nothing of that is kept in the token, nor beside it for
// longer than the key stays as it is: the claims of a token are what was asked for, and
// a key that loses a right and gets it back takes its tokens along both ways.

// under returns what t is while its key is as k is: no right that k has not, and no
// instant at which k is not good. It is t itself where k allows all of it. What k
// refuses at any time is not looked at.
func (t *Token) under(k *Key) *Token {
	limited := t.limitedTo(k.scopes)
	from, to := max(t.notBefore, k.state.NotBefore), t.expiresAt
	if end := k.state.EndsAt(); end != 0 {
		to = min(to, end)
	}
	if from == t.notBefore && to == t.expiresAt {
		return limited
	}
	if limited == t {
		limited = t.again()
	}
	limited.notBefore, limited.expiresAt = from, to
	return limited
}

// limitedTo returns t with those of its rights that scopes allow too, or t itself if
// that is all of them.
func (t *Token) limitedTo(scopes Scopes) *Token {
	if t.scopes.within(scopes) && t.grants.within(scopes, nil) {
		return t
	}
	limited := t.again()
	limited.scopes, limited.grants = t.scopes.and(scopes), t.grants.and(scopes)
	return limited
}

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

// and returns the grants of what both g and scopes allow on a resource. ScopeAll is none
// of the scopes.
func (g Grants) and(scopes Scopes) Grants {
	var both Grants
	for _, one := range g {
		var actions []string
		for _, scope := range scopes {
			// The action of a scope that covers the type. One that is written "*" names no
			// action that a scope allows (see allowsOn), and an empty one is none.
			n := len(one.Type)
			if len(scope) < n+2 || string(scope[:n]) != one.Type || scope[n] != ':' {
				continue
			}
			if action := string(scope[n+1:]); action != Any && listed(one.Actions, action) {
				actions = append(actions, action)
			}
		}
		if len(actions) > 0 {
			both = append(both, Grant{Type: one.Type, Actions: actions, Identifiers: one.Identifiers})
		}
	}
	return both
}
