package rights_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fobkit/fob/internal/rights"
	"github.com/stretchr/testify/require"
)

// The words that the properties are tried with: parts of each other, wildcards in the middle
// and at the end, and texts that only look like one.
var (
	parts       = []string{"a", "b", "ab", "*", "a:b"}
	scopes      = []string{"*", "a", "a:*", "a:a", "a:b", "a:b:*", "a:b:a", "ab:a", "ab:*", "b:*", "b:a", "a*", ":*", "a:", "a::*", "a:*:*", "*:a"}
	actions     = []string{"a", "b", "ab", "*", "a:b", "b:a"}
	types       = []string{"a", "b", "ab", "a:b"}
	identifiers = []string{"1", "2", "*"}
)

// covers is Covers as a person would say it.
func covers(have, want string) bool {
	switch {
	case want == "":
		return false
	case have == want, have == "*":
		return true
	}
	return len(have) > 1 && strings.HasSuffix(have, ":*") && strings.HasPrefix(want, strings.TrimSuffix(have, "*"))
}

func TestAScopeCoversWhatItSays(t *testing.T) {
	for _, have := range scopes {
		for _, want := range append(scopes, "") {
			require.Equal(t, covers(have, want), rights.Covers(have, want), "%q, %q", have, want)
		}
	}
	require.True(t, rights.Covers("orders:*", "orders:items:read"))
	require.False(t, rights.Covers("orders:*", "orders"))
	require.False(t, rights.Covers("orders:read", "orders:*"))
	require.False(t, rights.Covers("orders*", "orders:read"), "no wildcard")
}

// An action on a type is the scope "type:action"; every action is the scope "type:*".
func TestAScopeAllowsOnATypeWhatItCovers(t *testing.T) {
	for _, have := range scopes {
		for _, typ := range types {
			for _, action := range actions {
				want := covers(have, typ+":"+action)
				if action == rights.Any {
					want = covers(have, typ+":*")
				}
				require.Equal(t, want, rights.AllowOn([]string{have}, action, typ), "%q: %q on %q", have, action, typ)
			}
		}
	}
}

func some[T any](r *rand.Rand, all []T, most int) (few []T) {
	for range r.IntN(most + 1) {
		few = append(few, all[r.IntN(len(all))])
	}
	return few
}

func grants(r *rand.Rand) (all []rights.Grant) {
	for range r.IntN(3) {
		all = append(all, rights.Grant{
			Type: types[r.IntN(len(types))], Actions: append(some(r, actions, 2), actions[r.IntN(len(actions))]),
			Identifiers: append(some(r, identifiers, 1), identifiers[r.IntN(len(identifiers))]),
		})
	}
	return all
}

// What both of two sides allow is told by no scope more and none less.
func TestScopesMeetExactly(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 13))
	for range 3000 {
		a, b := some(r, scopes, 4), some(r, scopes, 4)
		both := rights.MeetScopes(a, b)
		for _, want := range append(scopes, parts...) {
			require.Equal(t, rights.Allow(a, want) && rights.Allow(b, want), rights.Allow(both, want), "%q and %q: %q", a, b, want)
		}
	}
}

// Nor do grants tell more than both allow. They tell less only where a grant of every action
// meets a scope of a part of them, which no grant can say, and where every resource is asked
// for and each side names it in another way.
func TestGrantsMeet(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 13))
	exact := 0
	for range 3000 {
		as, bs, ag, bg := some(r, scopes, 2), some(r, scopes, 2), grants(r), grants(r)
		allows := func(s []string, g []rights.Grant, action, typ, id string) bool {
			return rights.AllowOn(s, action, typ) || rights.AllowOne(g, action, typ, id)
		}
		scopesBoth, grantsBoth := rights.MeetScopes(as, bs), rights.MeetGrants(as, bs, ag, bg)
		part := slices.ContainsFunc(slices.Concat(as, bs), func(s string) bool { return strings.Count(s, ":") > 1 })
		for _, typ := range types {
			for _, action := range actions {
				for _, id := range identifiers {
					want := allows(as, ag, action, typ, id) && allows(bs, bg, action, typ, id)
					got := allows(scopesBoth, grantsBoth, action, typ, id)
					if got {
						require.True(t, want, "%q %v and %q %v: %q on %q %q", as, ag, bs, bg, action, typ, id)
					}
					if !part && action != rights.Any && id != rights.Any {
						require.Equal(t, want, got, "%q %v and %q %v: %q on %q %q", as, ag, bs, bg, action, typ, id)
						exact++
					}
				}
			}
		}
	}
	require.Greater(t, exact, 1000)
}
