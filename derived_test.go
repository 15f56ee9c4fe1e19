package fob_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func setScopes(t testing.TB, m *fob.Manager, key *fob.Key, scopes ...fob.Scope) {
	t.Helper()
	s := fob.Scopes(scopes)
	_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Scopes: &s})
	require.NoError(t, err)
}

func mustExchange(t testing.TB, m *fob.Manager, key string, spec fob.TokenSpec) fob.Issued {
	t.Helper()
	issued, err := m.ExchangeKey(t.Context(), key, spec)
	require.NoError(t, err)
	return issued
}

// TestATokenAllowsWhatItsKeyAllowsNow: what a key loses its tokens lose, at once, in
// every process and for whoever reads from the store; what it gets back they have again.
func TestATokenAllowsWhatItsKeyAllowsNow(t *testing.T) {
	store := memory.New()
	here, there := newManager(t, store, tokenConfig()), newManager(t, store, tokenConfig())
	text, key := mustIssue(t, here, fob.KeySpec{Scopes: fob.Scopes{"orders:read", "orders:write", "a"}})
	issued := mustExchange(t, here, text, fob.TokenSpec{
		Refreshable: true, Scopes: fob.Scopes{"a", "orders:read"},
		Grants: fob.Grants{{Type: "orders", Actions: []string{"read", "write"}, Identifiers: []string{"42"}}},
	})
	order := fob.Resource{Type: "orders", ID: "42"}
	all := []fob.Verifier{here, here.Fresh(), there.Fresh()}
	held := mustVerify(t, here, issued.Access.Reveal())
	look := func(what string, a, read, write bool) {
		t.Helper()
		for i, v := range all {
			cred, err := v.Verify(t.Context(), issued.Access.Reveal())
			require.NoError(t, err, "%s %d", what, i)
			require.Equal(t, a, cred.Allows("a"), "%s %d", what, i)
			require.Equal(t, read, cred.Allows("orders:read"), "%s %d", what, i)
			require.Equal(t, read, cred.AllowsOn("read", order), "%s %d", what, i)
			require.Equal(t, write, cred.AllowsOn("write", order), "%s %d", what, i)
			require.Equal(t, a, slices.Contains(cred.Scopes(), "a"), "%s %d", what, i)
			require.Equal(t, write, cred.(*fob.Token).Grants().Allow("write", order), "%s %d", what, i)
			require.Equal(t, issued.Token.ID(), cred.ID())
		}
	}
	look("as issued", true, true, true)
	setScopes(t, here, key, "orders:read")
	look("narrowed", false, true, false)
	require.True(t, held.Allows("a"), "what is held says what was true when it was read")
	issued = mustRefresh(t, here, issued.Refresh)
	require.False(t, issued.Token.Allows("a"), "what is issued says what it allows now")
	look("refreshed while narrowed", false, true, false)
	setScopes(t, here, key)
	look("nothing left", false, false, false)
	issued = mustRefresh(t, here, issued.Refresh)
	look("refreshed with nothing left", false, false, false)
	setScopes(t, here, key, "a", "orders:write")
	look("other rights back", true, false, true)
	setScopes(t, here, key, fob.ScopeAll)
	look("all back", true, true, true)
	setScopes(t, here, key, "other")
	look("something else", false, false, false)
}

// TestWhatAPublicKeyVerifiesIsNarrowedAtTheRefresh: whoever has the public keys alone
// cannot look at the key, so a refresh writes no more into the token than it allows.
func TestWhatAPublicKeyVerifiesIsNarrowedAtTheRefresh(t *testing.T) {
	m := newManager(t, nil, tokenConfig(protocol(fob.V4Public)))
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a", "b"}})
	issued := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true, Scopes: fob.Scopes{"a", "b"}})
	v, err := fob.NewTokenVerifier(m, fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}})
	require.NoError(t, err)
	setScopes(t, m, key, "a")
	issued = mustRefresh(t, m, issued.Refresh)
	cred, err := v.Verify(t.Context(), issued.Access.Reveal())
	require.NoError(t, err)
	require.Equal(t, fob.Scopes{"a"}, cred.Scopes())
	setScopes(t, m, key, "a", "b")
	issued = mustRefresh(t, m, issued.Refresh)
	cred, err = v.Verify(t.Context(), issued.Access.Reveal())
	require.NoError(t, err)
	require.Equal(t, fob.Scopes{"a", "b"}, cred.Scopes(), "the bound is not kept")
}

// TestATokenAllowsExactlyWhatItAndItsKeyAllow draws keys, tokens and changes of the keys
// at random. After each change a token allows what its claims say and the key allows,
// no more and no less, whichever way it is asked.
func TestATokenAllowsExactlyWhatItAndItsKeyAllow(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 10))
	types, actions, names := []string{"orders", "users", "orders:x"}, []string{"read", "write", "x:read", fob.Any}, []string{"1", "2", fob.Any}
	all := []fob.Scope{
		"orders:read", "orders:write", "users:read", "orders:x:read", "orders", "read", "orders:", ":read", "orders:*", "*:read", "users:*", fob.ScopeAll,
	}
	draw := func(most int) (s fob.Scopes) {
		for range random.IntN(most + 1) {
			s = append(s, all[random.IntN(len(all))])
		}
		return s
	}
	some := func(from []string) (list []string) {
		for _, one := range from {
			if random.IntN(3) == 0 {
				list = append(list, one)
			}
		}
		return list
	}
	m := newManager(t, nil, tokenConfig())
	narrowed := 0
	for range 400 {
		text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{fob.ScopeAll}})
		spec := fob.TokenSpec{Scopes: draw(4)}
		for range random.IntN(4) {
			g := fob.Grant{Type: types[random.IntN(len(types))], Actions: some(actions), Identifiers: some(names)}
			if len(g.Actions) > 0 && len(g.Identifiers) > 0 {
				spec.Grants = append(spec.Grants, g)
			}
		}
		issued := mustExchange(t, m, text, spec)
		claims := issued.Token
		for range 3 {
			setScopes(t, m, key, draw(5)...)
			read, err := m.Get(t.Context(), key.ID())
			require.NoError(t, err)
			token := mustVerify(t, m, issued.Access.Reveal()).(*fob.Token)
			scopes, grants := token.Scopes(), token.Grants()
			about := fmt.Sprintf("key %v, claims %v %v, token %v %v", read.Scopes(), claims.Scopes(), claims.Grants(), scopes, grants)
			for _, s := range append(slices.Clone(all), "other", "") {
				want := claims.Allows(s) && read.Allows(s)
				require.Equal(t, want, token.Allows(s), "%q: %s", s, about)
				require.Equal(t, want, scopes.Allow(s), "%q: %s", s, about)
				if claims.Allows(s) != token.Allows(s) {
					narrowed++
				}
			}
			for _, typ := range append(slices.Clone(types), "other", "") {
				for _, action := range append(slices.Clone(actions), "other", "") {
					for _, name := range append(slices.Clone(names), "other", "") {
						r := fob.Resource{Type: typ, ID: name}
						want := claims.AllowsOn(action, r) && read.AllowsOn(action, r)
						require.Equal(t, want, token.AllowsOn(action, r), "%q on %q: %s", action, r, about)
						require.True(t, !grants.Allow(action, r) || want, "%q on %q by grant: %s", action, r, about)
					}
				}
			}
		}
	}
	require.Greater(t, narrowed, 1000)
}

// TestATokenOfANarrowedKeyCostsNothingMore at a hit.
func TestATokenOfANarrowedKeyCostsNothingMore(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a", "b", "t:a"}})
	issued := mustExchange(t, m, text, fob.TokenSpec{Scopes: fob.Scopes{"a", "b"}, Grants: fob.Grants{{Type: "t", Actions: []string{"a"}, Identifiers: []string{"1"}}}})
	setScopes(t, m, key, "a", "t:a")
	access := issued.Access.Reveal()
	mustVerify(t, m, access)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		cred, err := m.Verify(t.Context(), access)
		if err != nil || !cred.AllowsOn("a", fob.Resource{Type: "t", ID: "1"}) || cred.Allows("b") {
			t.Fatal("wrong")
		}
	}))
}

// TestTheTimesOfATokenAreThoseOfItsKeyToo, as the key is now, whichever way it moves:
// an answer that a time will change is not remembered for longer than that.
func TestTheTimesOfATokenAreThoseOfItsKeyToo(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a"}, TTL: time.Hour})
	issued := mustExchange(t, m, text, fob.TokenSpec{TTL: 30 * time.Minute})
	access := issued.Access.Reveal()
	mustVerify(t, m, access)

	begin := clock.Now().Add(1500 * time.Millisecond)
	_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{NotBefore: &begin})
	require.NoError(t, err)
	mustReject(t, m, access, fob.ErrNotYetValid)
	clock.Add(1500*time.Millisecond - time.Millisecond)
	mustReject(t, m, access, fob.ErrNotYetValid)
	clock.Add(time.Millisecond)
	require.Equal(t, begin, mustVerify(t, m, access).(*fob.Token).NotBefore())

	end := clock.Now().Add(1500 * time.Millisecond)
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &end})
	require.NoError(t, err)
	cred := mustVerify(t, m, access)
	require.Equal(t, end, cred.ExpiresAt(), "the end of the key is that of the token")
	require.Equal(t, fob.StatusExpired, cred.StatusAt(end))
	clock.Add(1500*time.Millisecond - time.Millisecond)
	mustVerify(t, m, access)
	clock.Add(time.Millisecond)
	mustReject(t, m, access, fob.ErrExpired)

	end = clock.Now().Add(time.Hour)
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &end})
	require.NoError(t, err)
	require.Equal(t, issued.Token.ExpiresAt(), mustVerify(t, m, access).ExpiresAt(), "and its own end again")

	// The overlap of a rotation: the reason is the key's, from memory and from the store.
	_, _, err = m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: time.Second})
	require.NoError(t, err)
	mustVerify(t, m, access)
	clock.Add(time.Second)
	mustReject(t, m, access, fob.ErrRetired)
	_, err = m.Fresh().Verify(t.Context(), access)
	require.ErrorIs(t, err, fob.ErrRetired)
}

// TestANotBeforeThatIsNeverSeenChanging: the answer comes from memory on both sides of
// the instant, and the clock alone makes the difference.
func TestANotBeforeThatIsNeverSeenChanging(t *testing.T) {
	clock := newClock()
	cfg := clocked(tokenConfig(), clock)
	cfg.MaxStaleness = time.Hour
	m := newManager(t, bare{memory.New()}, cfg)
	text, key := mustIssue(t, m, fob.KeySpec{})
	access := mustExchange(t, m, text, fob.TokenSpec{TTL: 30 * time.Minute}).Access.Reveal()
	begin := clock.Now().Add(time.Second)
	_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{NotBefore: &begin})
	require.NoError(t, err)
	for range 3 {
		mustReject(t, m, access, fob.ErrNotYetValid)
	}
	clock.Add(time.Second)
	mustVerify(t, m, access)
	// A clock that steps back makes it not yet valid again, and no more than that.
	clock.Add(-time.Second)
	mustReject(t, m, access, fob.ErrNotYetValid)
	clock.Add(time.Second)
	mustVerify(t, m, access)
}

// TestAFamilyLastsAsLongAsItsKeyDoesNow: the end of the key bounds it while the key has
// that end, and leaves nothing behind when the key is extended.
func TestAFamilyLastsAsLongAsItsKeyDoesNow(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	const day = 24 * time.Hour
	begun := clock.Now()
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a"}, TTL: day})
	issued := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true, Scopes: fob.Scopes{"a"}, TTL: time.Minute})
	require.Equal(t, begun.Add(day), issued.RefreshExpiresAt, "no more than the key has")
	issued = mustRefresh(t, m, issued.Refresh)
	require.Equal(t, begun.Add(day), issued.RefreshExpiresAt)

	end := begun.Add(31 * day)
	_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &end})
	require.NoError(t, err)
	clock.Add(25 * time.Hour)
	issued = mustRefresh(t, m, issued.Refresh)
	require.Equal(t, clock.Now().Add(7*day), issued.RefreshExpiresAt)
	for range 4 {
		clock.Add(6 * day)
		issued = mustRefresh(t, m, issued.Refresh)
	}
	require.Equal(t, begun.Add(30*day), issued.RefreshExpiresAt, "the family's own end")

	// Cut short: the family has that end, and what is given within the grace too.
	before := issued
	issued = mustRefresh(t, m, before.Refresh)
	soon := clock.Now().Add(time.Hour)
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &soon})
	require.NoError(t, err)
	require.Equal(t, soon, mustRefresh(t, m, before.Refresh).RefreshExpiresAt)
	require.Equal(t, soon, mustRefresh(t, m, issued.Refresh).RefreshExpiresAt)
}

// TestTheLifeOfARefreshedTokenIsWhatWasAskedFor, not what was left of the key when it was
// exchanged, nor more than is allowed now.
func TestTheLifeOfARefreshedTokenIsWhatWasAskedFor(t *testing.T) {
	clock := newClock()
	store := memory.New()
	m := newManager(t, store, clocked(tokenConfig(), clock))
	text, key := mustIssue(t, m, fob.KeySpec{TTL: 5 * time.Minute})
	issued := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true, TTL: 30 * time.Minute})
	require.Equal(t, key.ExpiresAt(), issued.Token.ExpiresAt())
	end := clock.Now().Add(24 * time.Hour)
	_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &end})
	require.NoError(t, err)
	issued = mustRefresh(t, m, issued.Refresh)
	require.Equal(t, clock.Now().Add(30*time.Minute), issued.Token.ExpiresAt())
	mustVerify(t, m, issued.Access.Reveal())

	strict := newManager(t, store, clocked(tokenConfig(func(c *fob.TokenConfig) { c.TTL, c.MaxTTL = time.Minute, 10*time.Minute }), clock))
	issued = mustRefresh(t, strict, issued.Refresh)
	require.Equal(t, clock.Now().Add(10*time.Minute), issued.Token.ExpiresAt())
	mustVerify(t, strict, issued.Access.Reveal())
}

// TestNoRefreshedTokenBeginsBeforeTheFirst was to begin.
func TestNoRefreshedTokenBeginsBeforeTheFirst(t *testing.T) {
	clock := newClock()
	cfg := clocked(tokenConfig(func(c *fob.TokenConfig) { c.MaxTTL, c.Leeway = 60*24*time.Hour, -1 }), clock)
	m := newManager(t, nil, cfg)
	text, _ := mustIssue(t, m, fob.KeySpec{})
	begin := clock.Now().Add(30 * time.Minute)
	spec := fob.TokenSpec{Refreshable: true, TTL: time.Hour, NotBefore: begin}
	for name, issued := range map[string]fob.Issued{
		"exchanged": mustExchange(t, m, text, spec),
		"issued":    mustToken(t, m, spec),
	} {
		issued = mustRefresh(t, m, mustRefresh(t, m, issued.Refresh).Refresh)
		require.Equal(t, begin, issued.Token.NotBefore(), name)
		require.Equal(t, begin.Add(time.Hour), issued.Token.ExpiresAt(), name)
		mustReject(t, m, issued.Access.Reveal(), fob.ErrNotYetValid)
		clock.Add(30*time.Minute - time.Millisecond)
		mustReject(t, m, issued.Access.Reveal(), fob.ErrNotYetValid)
		clock.Add(time.Millisecond)
		mustVerify(t, m, issued.Access.Reveal())
		clock.Add(time.Minute)
		issued = mustRefresh(t, m, issued.Refresh)
		require.Equal(t, clock.Now(), issued.Token.NotBefore(), name)
		mustVerify(t, m, issued.Access.Reveal())
		clock.Add(-31 * time.Minute)
	}

	// What begins after a secret may lie unused, or after a family may last, is to be
	// used when it begins.
	for _, days := range []int{8, 31} {
		begin := clock.Now().Add(time.Duration(days) * 24 * time.Hour)
		issued := mustToken(t, m, fob.TokenSpec{Refreshable: true, TTL: 40 * 24 * time.Hour, NotBefore: begin})
		require.Equal(t, begin.Add(7*24*time.Hour), issued.RefreshExpiresAt)
		clock.Add(time.Duration(days)*24*time.Hour + time.Hour)
		mustVerify(t, m, issued.Access.Reveal())
		mustVerify(t, m, mustRefresh(t, m, issued.Refresh).Access.Reveal())
	}
}
