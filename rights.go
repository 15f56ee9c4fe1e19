package fob

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/rights"
)

// Scope is one granted right: 1 to 128 printable ASCII characters without space, '"' and
// '\' (RFC 6749 §3.3), case-sensitive, compared as text. A scope that ends in ":*" covers
// every scope with that beginning: "orders:*" covers "orders:read" and "orders:items:read",
// and not "orders".
type Scope string

// ScopeAll is the scope that contains every other one. It grants the whole API, and only
// by the explicit choice of whoever issues the credential.
const ScopeAll Scope = rights.All

const (
	maxScopes   = 64
	maxScopeLen = 128
)

func (s Scope) valid() bool {
	if s == "" || len(s) > maxScopeLen {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c > '~' {
			return false
		}
	}
	return true
}

// Scopes is a set of granted scopes. Empty means nothing, never everything.
type Scopes []Scope

// ParseScopes reads the wire form: scopes separated by one space (RFC 6749
// §3.3). Empty text gives no scopes. It fails with ErrInvalid.
func ParseScopes(text string) (Scopes, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxScopes*(maxScopeLen+1) {
		return nil, fmt.Errorf("%w: scopes of %d bytes", ErrInvalid, len(text))
	}
	s := make(Scopes, 0, 1+strings.Count(text, " "))
	for part := range strings.SplitSeq(strings.Clone(text), " ") {
		s = append(s, Scope(part))
	}
	return s.distinct()
}

// String returns the wire form: the scopes separated by one space.
func (s Scopes) String() string {
	var b strings.Builder
	for i, scope := range s {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(scope))
	}
	return b.String()
}

// Allow reports whether s grants scope. The empty scope is never granted.
func (s Scopes) Allow(scope Scope) bool { return rights.Allow(s, scope) }

// normal returns a copy of s, checked, without duplicates, in the order given.
func (s Scopes) normal() (Scopes, error) {
	out, err := append(Scopes{}, s...).distinct()
	for i, scope := range out {
		out[i] = Scope(strings.Clone(string(scope)))
	}
	return out, err
}

// distinct checks s, and takes the duplicates out of it.
func (s Scopes) distinct() (Scopes, error) {
	if len(s) > maxScopes {
		return nil, fmt.Errorf("%w: %d scopes, at most %d", ErrInvalid, len(s), maxScopes)
	}
	out := s[:0]
	for _, scope := range s {
		if !scope.valid() {
			return nil, fmt.Errorf("%w: scope of %d bytes, want 1 to %d printable ASCII characters without space, '\"' and '\\'", ErrInvalid, len(scope), maxScopeLen)
		}
		if !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	return out, nil
}

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
	Type string `json:"type"`
	// Actions and Identifiers list what is allowed: each action on each identifier. An
	// empty list allows nothing; Any in a list allows every action, or every resource of
	// the type.
	Actions     []string `json:"actions"`
	Identifiers []string `json:"identifiers"`
}

// Any stands for every action or every identifier in a Grant, by the explicit
// choice of whoever issues it.
const Any = rights.Any

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
		if one := rights.Grant(g[i]); one.Allows(action, r.Type, r.ID) {
			return true
		}
	}
	return false
}

// allowed is what a credential allows by itself.
type allowed struct {
	scopes Scopes // with those of its roles
	grants []rights.Grant
}

func (a *allowed) allowsOn(action string, r Resource) bool {
	if action == "" || r.Type == "" || r.ID == "" {
		return false
	}
	return rights.AllowOn(a.scopes, action, r.Type) || rights.AllowOne(a.grants, action, r.Type, r.ID)
}

// covers reports whether a allows all that other allows.
func (a *allowed) covers(other *allowed) bool {
	return within(other, a.scopes.Allow, a.allowsOn)
}

// within reports whether all that a allows is allowed by two functions. A grant of Any is
// allowed if Any is.
func within(a *allowed, allows func(Scope) bool, allowsOn func(string, Resource) bool) bool {
	for _, scope := range a.scopes {
		if !allows(scope) {
			return false
		}
	}
	for _, one := range a.grants {
		for _, action := range one.Actions {
			for _, id := range one.Identifiers {
				if !allowsOn(action, Resource{one.Type, id}) {
					return false
				}
			}
		}
	}
	return true
}

// and returns what both allow. Where that cannot be said with scopes and grants it is less
// (see [rights.MeetGrants]).
func (a *allowed) and(b *allowed) allowed {
	return allowed{rights.MeetScopes(a.scopes, b.scopes), rights.MeetGrants(a.scopes, b.scopes, a.grants, b.grants)}
}

// size is the memory that a points to, in bytes.
func (a *allowed) size() int {
	n := 0
	for _, s := range a.scopes {
		n += 16 + len(s)
	}
	for i := range a.grants {
		g := &a.grants[i]
		n += int(unsafe.Sizeof(*g)) + len(g.Type)
		for _, list := range [...][]string{g.Actions, g.Identifiers} {
			for _, s := range list {
				n += 16 + len(s)
			}
		}
	}
	return n
}

// Roles are the roles that may be named in a spec, each with the scopes that it stands for
// when a credential is verified: whoever has a role has the scopes that the role has now.
type Roles map[string]Scopes

const (
	maxRoles = 16
	maxRole  = 64 // bytes
)

// resolve returns scopes with those of the roles. A role that is not known here grants
// nothing: another process may know it.
func (r Roles) resolve(scopes Scopes, roles []string) Scopes {
	if len(roles) == 0 {
		return scopes
	}
	all := slices.Clone(scopes)
	for _, role := range roles {
		for _, scope := range r[role] {
			if !slices.Contains(all, scope) {
				all = append(all, scope)
			}
		}
	}
	return slices.Clip(all)
}

// named returns a checked copy of the names of roles in a spec.
func (r Roles) named(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if err := limits.CheckList("roles", names, maxRoles, maxRole); err != nil {
		return nil, err
	}
	out := make([]string, len(names))
	for i, name := range names {
		if _, known := r[name]; !known {
			return nil, fmt.Errorf("%w: role %d is not in Config.Roles", ErrInvalid, i)
		}
		out[i] = strings.Clone(name)
	}
	return out, nil
}

// resolved returns a checked copy of the roles of a Config.
func (r Roles) resolved() (Roles, error) {
	out := make(Roles, len(r))
	for name, scopes := range r {
		if !limits.IsText(name, maxRole) {
			return nil, fmt.Errorf("%w: Roles: a name of %d bytes", ErrInvalid, len(name))
		}
		checked, err := scopes.normal()
		if err != nil {
			return nil, fmt.Errorf("Roles: %w", err)
		}
		out[name] = checked
	}
	return out, nil
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

// grantsOf is a set of grants in the form that users see, with memory of its own.
func grantsOf(grants []rights.Grant) Grants {
	if len(grants) == 0 {
		return nil
	}
	out := make(Grants, len(grants))
	for i := range grants {
		out[i] = Grant(grants[i])
	}
	return out.clone()
}

// normal returns a checked copy of g.
func (g Grants) normal() ([]rights.Grant, error) {
	out := g.clone()
	for i := range out {
		out[i].Type = strings.Clone(out[i].Type)
		for _, list := range [...][]string{out[i].Actions, out[i].Identifiers} {
			for j, text := range list {
				list[j] = strings.Clone(text)
			}
		}
	}
	if err := out.check(); err != nil || len(out) == 0 {
		return nil, err
	}
	made := make([]rights.Grant, len(out))
	for i := range out {
		made[i] = rights.Grant(out[i])
	}
	return made, nil
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
