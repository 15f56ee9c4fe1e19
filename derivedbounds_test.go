package fob_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// TestAnEndOfTheKeyAloneIsThatOfTheToken: no other bound has moved, and no right.
func TestAnEndOfTheKeyAloneIsThatOfTheToken(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text, key := mustIssue(t, m, fob.KeySpec{})
	access := mustExchange(t, m, text, fob.TokenSpec{TTL: 30 * time.Minute}).Access.Reveal()
	end := clock.Now().Add(10 * time.Minute)
	_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &end})
	require.NoError(t, err)
	cred := mustVerify(t, m, access)
	require.Equal(t, end, cred.ExpiresAt())
	require.Equal(t, fob.StatusExpired, cred.StatusAt(end))
	require.Equal(t, clock.Now(), cred.(*fob.Token).NotBefore())
	clock.Add(10 * time.Minute)
	mustReject(t, m, access, fob.ErrExpired)
}

// TestATokenWhoseKeyBeginsAfterItHasEnded was never good after that, and does not become so.
func TestATokenWhoseKeyBeginsAfterItHasEnded(t *testing.T) {
	clock := newClock()
	cfg := clocked(tokenConfig(), clock)
	cfg.MaxStaleness = time.Hour
	m := newManager(t, bare{memory.New()}, cfg)
	text, key := mustIssue(t, m, fob.KeySpec{})
	access := mustExchange(t, m, text, fob.TokenSpec{TTL: 10 * time.Minute}).Access.Reveal()
	begin := clock.Now().Add(20 * time.Minute)
	_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{NotBefore: &begin})
	require.NoError(t, err)
	mustReject(t, m, access, fob.ErrNotYetValid)
	clock.Add(20*time.Minute - time.Millisecond)
	mustReject(t, m, access, fob.ErrNotYetValid)
	clock.Add(time.Millisecond)
	mustReject(t, m, access, fob.ErrExpired)
}

// TestAGrantOfNothingIsNone: where a narrowed key leaves no action of a grant, there is no
// grant; a scope that names a type and no action leaves none, not even of any action.
func TestAGrantOfNothingIsNone(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	for name, c := range map[string]struct {
		grant fob.Grant
		key   fob.Scope
		left  fob.Grants
	}{
		"another action":   {fob.Grant{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42"}}, "orders:write", nil},
		"another type":     {fob.Grant{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42"}}, "users:read", nil},
		"a longer type":    {fob.Grant{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42"}}, "ordersx:read", nil},
		"no action":        {fob.Grant{Type: "orders", Actions: []string{fob.Any}, Identifiers: []string{"42"}}, "orders:", nil},
		"the type alone":   {fob.Grant{Type: "orders", Actions: []string{fob.Any}, Identifiers: []string{"42"}}, "orders", nil},
		"one of any":       {fob.Grant{Type: "orders", Actions: []string{fob.Any}, Identifiers: []string{"42"}}, "orders:r", fob.Grants{{Type: "orders", Actions: []string{"r"}, Identifiers: []string{"42"}}}},
		"an action of any": {fob.Grant{Type: "orders", Actions: []string{fob.Any}, Identifiers: []string{"42"}}, "orders:*", fob.Grants{{Type: "orders", Actions: []string{fob.Any}, Identifiers: []string{"42"}}}},
	} {
		text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{fob.ScopeAll}})
		access := mustExchange(t, m, text, fob.TokenSpec{Grants: fob.Grants{c.grant}}).Access.Reveal()
		setScopes(t, m, key, c.key)
		left := mustVerify(t, m, access).(*fob.Token).Grants()
		require.Len(t, left, len(c.left), name)
		if len(c.left) > 0 {
			require.Equal(t, c.left, left, name)
		}
	}
}

// TestARevocationThatComesWhileATokenIsLookedAt is seen where the key is read after it:
// the token says nothing of it, its key does.
func TestARevocationThatComesWhileATokenIsLookedAt(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, tokenConfig())
	text, key := mustIssue(t, m, fob.KeySpec{})
	access := mustExchange(t, m, text, fob.TokenSpec{}).Access.Reveal()
	once(fault, callsAbout(backendtest.OpGet, idOf(key)), backendtest.Injection{After: func() {
		_, err := m.Revoke(context.Background(), key.Subject(), "left")
		require.NoError(t, err)
	}})
	_, err := m.Fresh().Verify(t.Context(), access)
	require.ErrorIs(t, err, fob.ErrRevoked)
}

// TestTheCacheCountsWhatATokenHolds: its key, which may be kept for it alone, and beside its
// claims what is left of them, where the key allows less.
func TestTheCacheCountsWhatATokenHolds(t *testing.T) {
	bytes := func(name string, scopes ...fob.Scope) (whole, narrowed int64) {
		m := newManager(t, bare{memory.New()}, tokenConfig()) // no feed that makes it forget
		text, key := mustIssue(t, m, fob.KeySpec{Name: name, Scopes: scopes})
		access := mustExchange(t, m, text, fob.TokenSpec{Scopes: scopes}).Access.Reveal()
		mustVerify(t, m, access)
		whole = m.CacheStats().Tokens.Bytes
		setScopes(t, m, key, scopes[1:]...)
		mustVerify(t, m, access)
		require.Equal(t, 1, m.CacheStats().Tokens.Entries)
		return whole, m.CacheStats().Tokens.Bytes
	}
	short, shortNarrowed := bytes("n", "a", "b", "c")
	long, longNarrowed := bytes("n"+strings.Repeat("m", 100), "a", "b", "c")
	require.Equal(t, int64(100), long-short)
	require.Equal(t, int64(100), longNarrowed-shortNarrowed)
	require.Greater(t, shortNarrowed, short+100, "a second token")
}
