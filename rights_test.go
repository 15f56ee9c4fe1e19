package fob_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

var someRoles = fob.Roles{"viewer": {"orders:read", "users:read"}, "clerk": {"orders:*"}, "owner": {fob.ScopeAll}, "nobody": {}}

var (
	someScopes = []fob.Scope{"orders:read", "orders:write", "orders:*", "orders:items:read", "orders:items:*", "users:read", "users:*", fob.ScopeAll}
	someTypes  = []string{"orders", "users", "orders:items"}
	someWords  = []string{"read", "write", fob.Any}
	someIDs    = []string{"1", "2", fob.Any}
	roleNames  = []string{"viewer", "clerk", "owner", "nobody"}
)

func pick[T any](r *rand.Rand, all []T, most int) (few []T) {
	for _, i := range r.Perm(len(all))[:r.IntN(most+1)] {
		few = append(few, all[i])
	}
	return few
}

func someGrants(r *rand.Rand) (all fob.Grants) {
	for range r.IntN(3) {
		all = append(all, fob.Grant{Type: someTypes[r.IntN(3)], Actions: append(pick(r, someWords[:1], 1), someWords[1+r.IntN(2)]), Identifiers: []string{someIDs[r.IntN(3)]}})
	}
	return all
}

// beyond is something that one credential allows and another does not.
func beyond(one, than fob.Credential) string {
	for _, s := range someScopes {
		if one.Allows(s) && !than.Allows(s) {
			return string(s)
		}
	}
	for _, typ := range someTypes {
		for _, action := range someWords {
			for _, id := range someIDs {
				if r := (fob.Resource{Type: typ, ID: id}); one.AllowsOn(action, r) && !than.AllowsOn(action, r) {
					return action + " on " + typ + " " + id
				}
			}
		}
	}
	return ""
}

// What is issued within a credential is never more than it, whatever the mix of scopes,
// wildcards, roles, grants and expiry, and is refused only if it asks for more.
func TestWhatIsIssuedWithinACredentialIsNeverMore(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 13))
	clock := newClock()
	cfg := clocked(tokenConfig(), clock)
	cfg.Roles = someRoles
	m := newManager(t, nil, cfg)
	of := fob.App("ci").In("acme")
	issued, refused := 0, 0
	for range 600 {
		text, parent := mustIssue(t, m, fob.KeySpec{
			Subject: of, Scopes: pick(r, someScopes, 3), Roles: pick(r, roleNames, 2), Grants: someGrants(r),
			TTL: time.Duration(r.IntN(3)) * time.Hour,
		})
		caller := mustVerify(t, m, text)
		if r.IntN(2) == 0 { // a token, which allows a part of the key, and then perhaps less
			token := mustExchange(t, m, text, fob.TokenSpec{Scopes: caller.Scopes(), Grants: caller.Grants()})
			if r.IntN(2) == 0 {
				_, err := m.UpdateKey(t.Context(), parent.ID(), fob.KeyUpdate{Scopes: ptr(fob.Scopes(pick(r, someScopes, 2))), Roles: ptr(pick(r, roleNames[:2], 1))})
				require.NoError(t, err)
			}
			caller = mustVerify(t, m, token.Access.Reveal())
			require.Empty(t, beyond(caller, mustVerify(t, m, text)), "a token allows what its key does not")
		}
		spec := fob.KeySpec{
			Subject: of, Within: caller, Scopes: pick(r, someScopes, 2), Roles: pick(r, roleNames, 1), Grants: someGrants(r),
			TTL: time.Duration(r.IntN(3)) * 40 * time.Minute, Outlast: r.IntN(4) == 0,
		}
		secret, key, err := m.IssueKey(t.Context(), spec)
		asked := fob.KeySpec{Subject: of, Scopes: spec.Scopes, Roles: spec.Roles, Grants: spec.Grants}
		_, free := mustIssue(t, m, asked)
		end := caller.ExpiresAt()
		late := !end.IsZero() && !spec.Outlast && spec.TTL != 0 && clock.Now().Add(spec.TTL).After(end)
		if err != nil {
			require.ErrorIs(t, err, fob.ErrScope)
			require.True(t, late || beyond(free, caller) != "", "it asks for no more")
			refused++
			continue
		}
		issued++
		got := mustVerify(t, m, secret.Reveal())
		require.Empty(t, beyond(got, caller))
		require.Empty(t, beyond(free, got), "it is what was asked for")
		require.Equal(t, parent.ID(), key.Parent())
		if !end.IsZero() && !spec.Outlast {
			require.False(t, got.ExpiresAt().IsZero())
			require.False(t, got.ExpiresAt().After(end))
		}
	}
	require.Greater(t, issued, 50)
	require.Greater(t, refused, 50)
	page, err := m.List(t.Context(), fob.Query{Account: "acme", Limit: 1})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
}

func ptr[T any](v T) *T { return &v }

// A token allows exactly what its claims say and its key allows now, however often the key
// changes, and whatever is worked out for lists is never more.
func TestATokenAllowsExactlyWhatItsKeyAllowsToo(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 13))
	cfg := tokenConfig()
	cfg.Roles = someRoles
	m := newManager(t, nil, cfg)
	for range 100 {
		scopes, grants := pick(r, someScopes, 3), someGrants(r)
		text, key := mustIssue(t, m, fob.KeySpec{Subject: fob.App("ci"), Scopes: scopes, Grants: grants})
		access := mustExchange(t, m, text, fob.TokenSpec{Scopes: scopes, Grants: grants}).Access.Reveal()
		claims := mustVerify(t, m, access) // as long as the key has everything
		for range 5 {
			_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{
				Scopes: ptr(fob.Scopes(pick(r, someScopes, 2))), Roles: ptr(pick(r, roleNames, 1)), Grants: ptr(someGrants(r)),
			})
			require.NoError(t, err)
			now, parent := mustVerify(t, m, access), mustVerify(t, m, text)
			for _, s := range someScopes {
				require.Equal(t, claims.Allows(s) && parent.Allows(s), now.Allows(s), s)
			}
			listed := now.Scopes()
			for _, typ := range someTypes {
				for _, action := range someWords {
					for _, id := range someIDs {
						on := fob.Resource{Type: typ, ID: id}
						require.Equal(t, claims.AllowsOn(action, on) && parent.AllowsOn(action, on), now.AllowsOn(action, on))
						if now.Grants().Allow(action, on) {
							require.True(t, now.AllowsOn(action, on), "what is listed")
						}
					}
				}
			}
			for _, s := range listed {
				require.True(t, now.Allows(s))
			}
		}
	}
}

// Changing a role changes everybody who has it, when the next process starts with it.
func TestARoleIsWhatItIsNow(t *testing.T) {
	store := memory.New()
	with := func(roles fob.Roles) *fob.Manager {
		cfg := tokenConfig()
		cfg.Roles = roles
		return newManager(t, store, cfg)
	}
	m := with(fob.Roles{"clerk": {"orders:read"}})
	text, _ := mustIssue(t, m, fob.KeySpec{Roles: []string{"clerk"}, Meta: map[string]string{"team": "payments"}})
	token := mustExchange(t, m, text, fob.TokenSpec{Roles: []string{"clerk"}}).Access.Reveal()
	direct := mustToken(t, m, fob.TokenSpec{Roles: []string{"clerk"}}).Access.Reveal()
	for _, presented := range []string{text, token, direct} {
		require.Equal(t, fob.Scopes{"orders:read"}, mustVerify(t, m, presented).Scopes())
		require.Equal(t, fob.Scopes{"orders:*"}, mustVerify(t, with(fob.Roles{"clerk": {"orders:*"}}), presented).Scopes())
		require.Empty(t, mustVerify(t, with(nil), presented).Scopes(), "a role that is not known grants nothing")
	}
	key := mustVerify(t, m, text).(*fob.Key)
	require.Equal(t, []string{"clerk"}, key.Roles())
	require.Equal(t, map[string]string{"team": "payments"}, key.Meta())
	key.Meta()["team"] = "mine"
	require.Equal(t, "payments", key.Meta()["team"], "it is a copy")
}

// What a credential allows is asked on every request.
func TestAskingWhatIsAllowedAllocatesNothing(t *testing.T) {
	cfg := tokenConfig()
	cfg.Roles = someRoles
	m := newManager(t, nil, cfg)
	grants := fob.Grants{{Type: "project", Actions: []string{"read"}, Identifiers: []string{"7", "8"}}}
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"users:*"}, Roles: []string{"clerk"}, Grants: grants})
	token := mustExchange(t, m, text, fob.TokenSpec{Scopes: fob.Scopes{"users:read", "orders:*"}, Grants: grants}).Access.Reveal()
	_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Scopes: &fob.Scopes{"users:read"}, Roles: &[]string{"viewer"}})
	require.NoError(t, err)
	for _, presented := range []string{text, token} {
		cred := mustVerify(t, m, presented)
		require.True(t, cred.Allows("orders:read"))
		require.False(t, cred.Allows("orders:write"))
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if !cred.Allows("users:read") || !cred.AllowsOn("read", fob.Resource{Type: "project", ID: "8"}) || cred.AllowsOn("write", fob.Resource{Type: "project", ID: "8"}) || !cred.AllowsOn("read", fob.Resource{Type: "orders", ID: "1"}) {
				panic(errors.New("wrong"))
			}
		}))
	}
}
