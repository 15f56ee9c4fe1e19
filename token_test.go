package fob_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

var sealKey = bytes.Repeat([]byte{7}, 32)

// tokenConfig is for tests that share a store: audience "api", ring in the store.
func tokenConfig(change ...func(*fob.TokenConfig)) fob.Config {
	c := fob.TokenConfig{Issuer: "acme", Audiences: []string{"api"}, SealKey: sealKey}
	for _, f := range change {
		f(&c)
	}
	return fob.Config{Tokens: &c}
}

func protocol(p fob.Protocol) func(*fob.TokenConfig) {
	return func(c *fob.TokenConfig) { c.Protocol = p }
}

func clocked(cfg fob.Config, clock *testClock) fob.Config {
	cfg.Clock = clock.Now
	return cfg
}

func mustToken(t testing.TB, m *fob.Manager, spec fob.TokenSpec) fob.Issued {
	t.Helper()
	if spec.Subject == (fob.Subject{}) {
		spec.Subject = fob.User("user-7")
	}
	issued, err := m.IssueToken(context.Background(), spec)
	require.NoError(t, err)
	return issued
}

var protocols = []fob.Protocol{fob.V4Local, fob.V4Public, fob.V2Local, fob.V2Public}

func TestIssueAndVerifyATokenOfEachProtocol(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.String(), func(t *testing.T) {
			clock := newClock()
			m := newManager(t, nil, clocked(tokenConfig(protocol(p)), clock))
			issued := mustToken(t, m, fob.TokenSpec{
				Scopes: fob.Scopes{"orders:list"},
				Grants: fob.Grants{{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42"}}},
				Custom: map[string]any{"tenant": "t1", "level": 3},
			})
			text := issued.Access.Reveal()
			require.True(t, strings.HasPrefix(text, p.String()+"."))
			require.True(t, issued.Refresh.IsZero())
			for range 2 { // from the key, then from the cache
				cred := mustVerify(t, m, text)
				require.Equal(t, fob.KindToken, cred.Kind())
				require.Equal(t, "user-7", cred.Subject().Name)
				require.Equal(t, fob.SubjectUser, cred.Subject().Kind)
				require.True(t, cred.Allows("orders:list"))
				require.False(t, cred.Allows("orders:read"))
				require.True(t, cred.AllowsOn("read", fob.Resource{Type: "orders", ID: "42"}))
				require.False(t, cred.AllowsOn("read", fob.Resource{Type: "orders", ID: "43"}))
				require.False(t, cred.AllowsOn("write", fob.Resource{Type: "orders", ID: "42"}))
				require.True(t, cred.AllowsOn("list", fob.Resource{Type: "orders", ID: "43"}), "by the scope")
				require.Equal(t, clock.Now(), cred.IssuedAt())
				require.Equal(t, clock.Now().Add(15*time.Minute), cred.ExpiresAt())
				require.Equal(t, issued.Token.ID(), cred.ID())
				token := cred.(*fob.Token)
				require.Equal(t, "acme", token.Issuer())
				require.Equal(t, "api", token.Audience())
				level, ok := token.Claim("level")
				require.True(t, ok)
				require.Equal(t, int64(3), level)
				require.Equal(t, "token "+cred.ID().String(), fmt.Sprintf("%+v", token))
			}
			clock.Add(15*time.Minute - 1)
			mustVerify(t, m, text)
			clock.Add(1)
			mustReject(t, m, text, fob.ErrExpired)
		})
	}
}

func TestTokensAreOffByDefault(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	_, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	require.ErrorIs(t, err, fob.ErrInvalid)
	text := mustToken(t, newManager(t, nil, tokenConfig()), fob.TokenSpec{}).Access.Reveal()
	mustReject(t, m, text, fob.ErrMalformed)
}

func TestTokensRefused(t *testing.T) {
	store := memory.New()
	clock := newClock()
	cfg := clocked(tokenConfig(), clock)
	m := newManager(t, store, cfg)
	good := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	mustVerify(t, m, good)

	mustReject(t, m, good[:len(good)-1], fob.ErrMalformed)
	mustReject(t, m, good+"A", fob.ErrRejected)
	mustReject(t, m, good+"\n", fob.ErrTokenFormat)
	body := strings.Index(good[9:], ".") // flip a bit in the middle
	at := 9 + body/2
	flipped := good[:at] + string([]byte{good[at] ^ 1}) + good[at+1:]
	mustReject(t, m, flipped, fob.ErrRejected)
	mustReject(t, m, strings.Replace(good, "v4.", "v2.", 1), fob.ErrTokenProtocol)
	mustReject(t, m, strings.Replace(good, "v4.", "v3.", 1), fob.ErrTokenProtocol)
	mustReject(t, m, strings.Replace(good, ".local.", ".public.", 1), fob.ErrTokenProtocol)
	mustReject(t, m, "v4.local."+strings.Repeat("A", 20_000), fob.ErrTokenLength)
	mustReject(t, m, "v4.local.", fob.ErrTokenFormat)
	mustReject(t, m, good[:strings.LastIndex(good, ".")], fob.ErrTokenKey)

	other := newManager(t, nil, cfg) // the same names, another ring
	mustReject(t, m, mustToken(t, other, fob.TokenSpec{}).Access.Reveal(), fob.ErrTokenKey)
	mustReject(t, m, mustToken(t, m, fob.TokenSpec{Audience: "billing"}).Access.Reveal(), fob.ErrWrongAudience)

	later := mustToken(t, m, fob.TokenSpec{NotBefore: clock.Now().Add(time.Minute)})
	mustReject(t, m, later.Access.Reveal(), fob.ErrNotYetValid)
	clock.Add(time.Minute)
	mustVerify(t, m, later.Access.Reveal())

	// A verifier whose policy is tighter than the issuer's.
	strict := newManager(t, store, clocked(tokenConfig(func(c *fob.TokenConfig) { c.TTL, c.MaxTTL = time.Minute, 5*time.Minute }), clock))
	mustReject(t, strict, good, fob.ErrTokenLifetime)

	// A clock that is behind the issuer's, and one within the leeway.
	behind := newClock()
	behind.Add(-2 * time.Second)
	late := newManager(t, store, clocked(tokenConfig(func(c *fob.TokenConfig) { c.Leeway = -1 }), behind))
	mustReject(t, late, good, fob.ErrNotYetValid)
	mustVerify(t, newManager(t, store, clocked(tokenConfig(), behind)), good)
	lenient := newManager(t, store, clocked(tokenConfig(func(c *fob.TokenConfig) { c.Leeway = 3 * time.Second }), behind))
	mustVerify(t, lenient, good)
}

func TestTokenSpecs(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	for name, spec := range map[string]fob.TokenSpec{
		"no subject":              {},
		"scope with a space":      {Subject: fob.User("a"), Scopes: fob.Scopes{"a b"}},
		"TTL too long":            {Subject: fob.User("a"), TTL: 2 * time.Hour},
		"TTL negative":            {Subject: fob.User("a"), TTL: -1},
		"TTL below a second":      {Subject: fob.User("a"), TTL: time.Millisecond},
		"begins after its end":    {Subject: fob.User("a"), NotBefore: time.Now().Add(time.Hour)},
		"audience of control":     {Subject: fob.User("a"), Audience: "a\n"},
		"grant without actions":   {Subject: fob.User("a"), Grants: fob.Grants{{Type: "t", Identifiers: []string{"1"}}}},
		"grant without resources": {Subject: fob.User("a"), Grants: fob.Grants{{Type: "t", Actions: []string{"read"}}}},
		"grant of any type":       {Subject: fob.User("a"), Grants: fob.Grants{{Type: "*", Actions: []string{"read"}, Identifiers: []string{"1"}}}},
		"claim with a known name": {Subject: fob.User("a"), Custom: map[string]any{"sub": "b"}},
		"claim like a known name": {Subject: fob.User("a"), Custom: map[string]any{"Exp": "b"}},
		"claim of a strange type": {Subject: fob.User("a"), Custom: map[string]any{"x": make(chan int)}},
	} {
		_, err := m.IssueToken(t.Context(), spec)
		require.ErrorIs(t, err, fob.ErrInvalid, name)
	}
	for name, c := range map[string]fob.TokenConfig{
		"seal key": {SealKey: make([]byte, 31)}, "zero seal key": {SealKey: make([]byte, 32)}, "protocol": {Protocol: 9},
		"TTL": {TTL: -1}, "MaxTTL": {TTL: time.Hour, MaxTTL: time.Minute}, "leeway": {Leeway: time.Hour}, "audience": {Audiences: []string{""}},
	} {
		_, err := fob.New(memory.New(), fob.Config{Tokens: &c})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", c, c, c), "7 7 7")
	}
	_, err := fob.New(memory.New(), fob.Config{Prefix: "fobrefresh"})
	require.ErrorIs(t, err, fob.ErrInvalid)
}

func TestExchangeKey(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"orders:read", "orders:list"}, TTL: 10 * time.Minute})
	narrow := fob.TokenSpec{TTL: time.Minute, Grants: fob.Grants{{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42"}}}}
	issued, err := m.ExchangeKey(t.Context(), text, narrow)
	require.NoError(t, err)
	cred := mustVerify(t, m, issued.Access.Reveal())
	require.Equal(t, "app-42", cred.Subject().Name)
	require.Equal(t, fob.SubjectApplication, cred.Subject().Kind)
	require.Equal(t, key.ID(), cred.(*fob.Token).Parent())
	require.True(t, cred.AllowsOn("read", fob.Resource{Type: "orders", ID: "42"}))
	require.False(t, cred.AllowsOn("read", fob.Resource{Type: "orders", ID: "43"}))
	require.False(t, cred.Allows("orders:read"))

	for name, spec := range map[string]fob.TokenSpec{
		"another scope":    {Scopes: fob.Scopes{"orders:write"}},
		"every scope":      {Scopes: fob.Scopes{fob.ScopeAll}},
		"another action":   {Grants: fob.Grants{{Type: "orders", Actions: []string{"write"}, Identifiers: []string{"42"}}}},
		"any action":       {Grants: fob.Grants{{Type: "orders", Actions: []string{fob.Any}, Identifiers: []string{"42"}}}},
		"another resource": {Grants: fob.Grants{{Type: "users", Actions: []string{"read"}, Identifiers: []string{"42"}}}},
	} {
		_, err := m.ExchangeKey(t.Context(), text, spec)
		require.ErrorIs(t, err, fob.ErrScope, name)
	}
	_, err = m.ExchangeKey(t.Context(), text, fob.TokenSpec{Subject: fob.User("root")})
	require.ErrorIs(t, err, fob.ErrInvalid)
	_, err = m.ExchangeKey(t.Context(), issued.Access.Reveal(), narrow)
	require.ErrorIs(t, err, fob.ErrRejected, "a token is no key")
	long, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{TTL: time.Hour})
	require.NoError(t, err)
	require.Equal(t, key.ExpiresAt(), long.Token.ExpiresAt(), "never longer than the key")

	// Whatever ends the key ends the token, at once.
	require.NoError(t, m.Disable(t.Context(), key.ID(), ""))
	mustReject(t, m, issued.Access.Reveal(), fob.ErrDisabled)
	require.NoError(t, m.Enable(t.Context(), key.ID()))
	mustVerify(t, m, issued.Access.Reveal())
	_, err = m.Revoke(t.Context(), key.ID(), "leaked")
	require.NoError(t, err)
	mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
	mustReject(t, m, long.Access.Reveal(), fob.ErrRevoked)
	_, err = m.ExchangeKey(t.Context(), text, narrow)
	require.ErrorIs(t, err, fob.ErrRevoked)
}

func TestATokenEndsWithTheOverlapOfItsKey(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a"}})
	issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{TTL: 30 * time.Minute})
	require.NoError(t, err)
	mustVerify(t, m, issued.Access.Reveal())
	_, _, err = m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: time.Minute})
	require.NoError(t, err)
	mustVerify(t, m, issued.Access.Reveal())
	clock.Add(time.Minute)
	mustReject(t, m, issued.Access.Reveal(), fob.ErrRetired)
}

// TestRevocationOfTokens: each way to end tokens ends those that it names, at
// once here and by the feed in another Manager, and no others.
func TestRevocationOfTokens(t *testing.T) {
	for name, revoke := range map[string]func(ctx context.Context, m *fob.Manager, issued fob.Issued) error{
		"by ID": func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.Revoke(ctx, i.Token.ID(), "x")
			return err
		},
		"by family": func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.Revoke(ctx, i.Token.Session(), "x")
			return err
		},
		"by parent": func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.Revoke(ctx, i.Token.Parent(), "x")
			return err
		},
		"by subject": func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.Revoke(ctx, i.Token.Subject(), "x")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				here, there := newManager(t, store, tokenConfig()), newManager(t, store, tokenConfig())
				text, _ := mustIssue(t, here, fob.KeySpec{Subject: fob.App("doomed"), Scopes: fob.Scopes{"a"}})
				doomed, err := here.ExchangeKey(t.Context(), text, fob.TokenSpec{Refreshable: true, Scopes: fob.Scopes{"a"}})
				require.NoError(t, err)
				other := mustToken(t, here, fob.TokenSpec{})
				for _, m := range []*fob.Manager{here, there} {
					mustVerify(t, m, doomed.Access.Reveal())
					mustVerify(t, m, other.Access.Reveal())
				}
				require.NoError(t, revoke(t.Context(), here, doomed))
				mustReject(t, here, doomed.Access.Reveal(), fob.ErrRevoked)
				time.Sleep(2 * backend.HeartbeatEvery) // far below MaxStaleness
				mustReject(t, there, doomed.Access.Reveal(), fob.ErrRevoked)
				mustReject(t, newManager(t, store, tokenConfig()), doomed.Access.Reveal(), fob.ErrRevoked)
				mustVerify(t, here, other.Access.Reveal())
				mustVerify(t, there, other.Access.Reveal())
				if name != "by ID" {
					_, err = here.Refresh(t.Context(), doomed.Refresh.Reveal())
					require.ErrorIs(t, err, fob.ErrRevoked)
				}
				require.NoError(t, revoke(t.Context(), here, doomed), "again is no error")
			})
		})
	}
}

func TestRevokeTokensEndsAllThatWereIssuedBefore(t *testing.T) {
	clock := newClock()
	store := memory.New()
	m := newManager(t, store, clocked(tokenConfig(), clock))
	old := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	clock.Add(time.Minute)
	cut := clock.Now()
	young := mustToken(t, m, fob.TokenSpec{})
	_, err := m.Revoke(t.Context(), fob.AllTokens(cut), "before the deploy")
	require.NoError(t, err)
	mustReject(t, m, old.Access.Reveal(), fob.ErrRevoked)
	mustVerify(t, m, young.Access.Reveal())
	_, err = m.Refresh(t.Context(), old.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)

	_, err = m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "all")
	require.NoError(t, err)
	mustReject(t, m, young.Access.Reveal(), fob.ErrRevoked)
	mustVerify(t, m, mustToken(t, m, fob.TokenSpec{}).Access.Reveal())
}

func TestRevokeOfAnIDThatNamesNothing(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	id := mustToken(t, m, fob.TokenSpec{}).Token.ID()
	clock.Add(14 * time.Hour)
	_, err := m.Revoke(t.Context(), id, "")
	require.ErrorIs(t, err, fob.ErrNotFound, "too old to be a token's, whatever the clocks")
}

// TestVerifyingATokenReadsNoStore once the feed is alive.
func TestVerifyingATokenReadsNoStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := backendtest.NewFault(memory.New())
		m := newManager(t, store, tokenConfig(protocol(fob.V4Public)))
		mustVerify(t, m, mustToken(t, m, fob.TokenSpec{}).Access.Reveal())
		time.Sleep(2 * backend.HeartbeatEvery)
		text, _ := mustIssue(t, m, fob.KeySpec{})
		time.Sleep(2 * backend.HeartbeatEvery) // the feed has told of the new key
		derived, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{})
		require.NoError(t, err)
		second, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{})
		require.NoError(t, err)
		fresh := mustToken(t, m, fob.TokenSpec{})
		mustVerify(t, m, derived.Access.Reveal()) // reads the key, once for all of its tokens
		before := store.Calls(backendtest.OpGet)
		mustVerify(t, m, fresh.Access.Reveal())
		mustVerify(t, m, second.Access.Reveal())
		time.Sleep(time.Minute) // far beyond MaxStaleness
		mustVerify(t, m, fresh.Access.Reveal())
		mustVerify(t, m, second.Access.Reveal())
		mustVerify(t, m, derived.Access.Reveal())
		require.Equal(t, before, store.Calls(backendtest.OpGet))
	})
}

// TestAStoreThatFailsNeverMakesATokenGood: with the feed cut and the store gone,
// what was cached is believed for MaxStaleness, and then nothing is.
func TestAStoreThatFailsNeverMakesATokenGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := backendtest.NewFault(memory.New())
		m := newManager(t, store, tokenConfig())
		text := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
		time.Sleep(2 * backend.HeartbeatEvery)
		mustVerify(t, m, text)
		store.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
		time.Sleep(time.Second)
		mustVerify(t, m, text)
		time.Sleep(2 * time.Second)
		_, err := m.Verify(t.Context(), text)
		mustBeUnsure(t, err)
		store.Inject(nil)
		time.Sleep(5 * time.Second)
		mustVerify(t, m, text)
	})
}

func TestAStoreWithoutAFeed(t *testing.T) {
	store := memory.New()
	here, there := newManager(t, bare{store}, tokenConfig()), newManager(t, bare{store}, tokenConfig())
	issued := mustToken(t, here, fob.TokenSpec{})
	mustVerify(t, there, issued.Access.Reveal())
	_, err := here.Revoke(t.Context(), issued.Token.ID(), "")
	require.NoError(t, err)
	mustReject(t, here, issued.Access.Reveal(), fob.ErrRevoked)
	await.Until(t, "a process without a feed sees the revocation", func() bool {
		_, err := there.Verify(context.Background(), issued.Access.Reveal())
		return err != nil
	})
}

// TestRotationOfTokenKeysRefusesNothing rotates under load, in two Managers on
// one ring.
func TestRotationOfTokenKeysRefusesNothing(t *testing.T) {
	store := memory.New()
	cfg := tokenConfig(func(c *fob.TokenConfig) { c.KeyLead, c.TTL, c.MaxTTL = 50*time.Millisecond, time.Second, time.Second })
	managers := []*fob.Manager{newManager(t, store, cfg), newManager(t, store, cfg)}
	var stop atomic.Bool
	var verified atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			issuer, verifier := managers[i%2], managers[(i+1)%2]
			for !stop.Load() {
				issued, err := issuer.IssueToken(context.Background(), fob.TokenSpec{Subject: fob.User("user-7")})
				if err == nil {
					_, err = verifier.Verify(context.Background(), issued.Access.Reveal())
				}
				if err != nil && !strings.Contains(err.Error(), "expired") { // a token of one second may be
					t.Error(err)
					return
				}
				verified.Add(1)
			}
		})
	}
	seen := make(map[string]bool)
	for range 20 {
		key, err := managers[0].RotateTokenKey(t.Context())
		require.NoError(t, err)
		seen[key.ID] = true
		time.Sleep(60 * time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	require.Len(t, seen, 20)
	require.Greater(t, verified.Load(), int64(100))
}

func TestTheLifeOfATokenKey(t *testing.T) {
	clock := newClock()
	store := memory.New()
	cfg := clocked(tokenConfig(protocol(fob.V4Public)), clock)
	m := newManager(t, store, cfg)
	first := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
	keys, err := m.TokenKeys(t.Context())
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Equal(t, first.Token.KeyID(), keys[0].ID)
	require.True(t, strings.HasPrefix(keys[0].Public, "k4.public."))
	require.Zero(t, keys[0].RetireAt)

	next, err := m.RotateTokenKey(t.Context())
	require.NoError(t, err)
	again, err := m.RotateTokenKey(t.Context())
	require.NoError(t, err)
	require.Equal(t, next, again, "one key waits at a time")
	require.Equal(t, clock.Now().Add(time.Minute), next.ActiveAt)
	require.Equal(t, keys[0].ID, mustToken(t, m, fob.TokenSpec{}).Token.KeyID(), "published before it is used")
	clock.Add(time.Minute)
	second := mustToken(t, m, fob.TokenSpec{})
	require.Equal(t, next.ID, second.Token.KeyID())
	mustVerify(t, m, first.Access.Reveal())
	clock.Add(59*time.Minute - 1)
	mustVerify(t, m, first.Access.Reveal())

	// Another process, started later, has the whole ring.
	late := newManager(t, store, cfg)
	mustVerify(t, late, first.Access.Reveal())
	clock.Add(2 * time.Hour)
	keys, err = m.TokenKeys(t.Context())
	require.NoError(t, err)
	require.Len(t, keys, 1, "the first is retired")
	_, err = m.RotateTokenKey(t.Context())
	require.NoError(t, err)

	wrong := newManager(t, store, clocked(tokenConfig(func(c *fob.TokenConfig) { c.SealKey = bytes.Repeat([]byte{8}, 32) }), clock))
	_, err = wrong.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("a")})
	require.ErrorIs(t, err, fob.ErrSealKey)
	_, err = wrong.Verify(t.Context(), second.Access.Reveal())
	mustBeUnsure(t, err)
}

func TestARingWithoutASealKeyIsThisManagersOwn(t *testing.T) {
	store := memory.New()
	own := func(c *fob.TokenConfig) { c.SealKey = nil }
	a, b := newManager(t, store, tokenConfig(own)), newManager(t, store, tokenConfig(own))
	text := mustToken(t, a, fob.TokenSpec{}).Access.Reveal()
	mustVerify(t, a, text)
	mustReject(t, b, text, fob.ErrTokenKey)
	_, err := a.RotateTokenKey(t.Context())
	require.NoError(t, err)
	mustVerify(t, a, text)
}

func TestATokenHitAllocatesNothing(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	text := mustToken(t, m, fob.TokenSpec{Scopes: fob.Scopes{"a"}, Grants: fob.Grants{{Type: "t", Actions: []string{"a"}, Identifiers: []string{"1"}}}}).Access.Reveal()
	cred := mustVerify(t, m, text)
	ctx := context.Background()
	require.Zero(t, testing.AllocsPerRun(200, func() {
		if _, err := m.Verify(ctx, text); err != nil {
			t.Fatal(err)
		}
		if !cred.AllowsOn("a", fob.Resource{Type: "t", ID: "1"}) || cred.AllowsOn("b", fob.Resource{Type: "t", ID: "1"}) {
			t.Fatal("grants")
		}
	}))
}

// TestADerivedTokenNeverExceedsItsKey draws keys and specs at random. Whatever a
// token that was exchanged or refreshed allows, its key allows, for as long.
func TestADerivedTokenNeverExceedsItsKey(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from []string, most int) (some []string) {
		for range random.IntN(most + 1) {
			if one := from[random.IntN(len(from))]; !slices.Contains(some, one) {
				some = append(some, one)
			}
		}
		return some
	}
	types, actions, names := []string{"orders", "users"}, []string{"read", "write", "*"}, []string{"1", "2", "*"}
	all := []string{"orders:read", "orders:write", "users:read", "orders", "read", "*", "orders:*"}
	scopes := func(most int) (s fob.Scopes) {
		for _, one := range pick(all, most) {
			s = append(s, fob.Scope(one))
		}
		return s
	}
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	issued, refused := 0, 0
	for range 2000 {
		lifetime := time.Duration(1+random.IntN(3600)) * time.Second
		text, key := mustIssue(t, m, fob.KeySpec{Scopes: scopes(3), TTL: lifetime})
		spec := fob.TokenSpec{Scopes: scopes(2), TTL: time.Duration(1+random.IntN(3600)) * time.Second, Refreshable: random.IntN(4) == 0}
		for range random.IntN(3) {
			g := fob.Grant{Type: types[random.IntN(2)], Actions: pick(actions, 2), Identifiers: pick(names, 2)}
			if len(g.Actions) > 0 && len(g.Identifiers) > 0 {
				spec.Grants = append(spec.Grants, g)
			}
		}
		out, err := m.ExchangeKey(t.Context(), text, spec)
		if err != nil {
			require.ErrorIs(t, err, fob.ErrScope)
			refused++
			continue
		}
		issued++
		if spec.Refreshable {
			out = mustRefresh(t, m, out.Refresh)
		}
		token := mustVerify(t, m, out.Access.Reveal())
		require.False(t, token.ExpiresAt().After(key.ExpiresAt()))
		for _, s := range append(slices.Clone(all), "other") {
			require.True(t, !token.Allows(fob.Scope(s)) || key.Allows(fob.Scope(s)), "scope %q: key %v, token %v", s, key.Scopes(), token.Scopes())
		}
		for _, typ := range append(slices.Clone(types), "other") {
			for _, action := range append(slices.Clone(actions), "other") {
				for _, name := range append(slices.Clone(names), "other") {
					r := fob.Resource{Type: typ, ID: name}
					require.True(t, !token.AllowsOn(action, r) || key.AllowsOn(action, r), "%s on %v: key %v, token %v %v", action, r, key.Scopes(), token.Scopes(), spec.Grants)
				}
			}
		}
	}
	require.Greater(t, issued, 200)
	require.Greater(t, refused, 200)
}

// TestCustomClaimsGrantNothing: a custom claim with the name of a known one would
// be that claim, where the spec leaves it out.
func TestCustomClaimsGrantNothing(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	text, _ := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"orders:read"}})
	for name, value := range map[string]any{
		"scope": "admin:all", "Scope": "admin:all", "epoch": int64(1) << 62, "family": "0ZqKJ3vT9xWm4cRb", "client_id": "0ZqKJ3vT9xWm4cRb",
		"nbf": "2036-11-23T08:00:00Z", "use": "refresh", "sub_type": "application",
		"authorization_details": []any{map[string]any{"type": "orders", "actions": []any{"*"}, "identifiers": []any{"*"}}},
	} {
		custom := map[string]any{name: value}
		_, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Custom: custom})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		_, err = m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7"), Custom: custom})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
	}
}

// TestAStoreThatHangsHoldsNobodyPastTheirDeadline: one caller waits for the token
// keys without end, another one does not.
func TestAStoreThatHangsHoldsNobodyPastTheirDeadline(t *testing.T) {
	store := backendtest.NewFault(memory.New())
	m := newManager(t, bare{store}, tokenConfig())
	text := mustToken(t, newManager(t, bare{store}, tokenConfig()), fob.TokenSpec{}).Access.Reveal()
	reading, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	store.Inject(func(backendtest.Call) backendtest.Injection {
		return backendtest.Injection{Before: func() { once.Do(func() { close(reading) }); <-release }}
	})
	first := make(chan error)
	go func() { _, err := m.Verify(context.Background(), text); first <- err }()
	<-reading
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := m.Verify(ctx, text)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	mustBeUnsure(t, err)
	close(release)
	require.NoError(t, <-first)
}

// A ring that could not be read says nothing of a token whose key is not in the last
// one, not even to those who come a moment after the failure.
func TestATokenKeyThatCouldNotBeLookedForIsNotUnknown(t *testing.T) {
	store := memory.New()
	cfg := tokenConfig(func(c *fob.TokenConfig) { c.KeyLead = 50 * time.Millisecond })
	fault := backendtest.NewFault(bare{store})
	here, there := newManager(t, store, cfg), newManager(t, fault, cfg)
	mustVerify(t, there, mustToken(t, here, fob.TokenSpec{}).Access.Reveal())
	key, err := here.RotateTokenKey(t.Context())
	require.NoError(t, err)
	var issued fob.Issued
	await.Until(t, "the new key is used", func() bool {
		issued = mustToken(t, here, fob.TokenSpec{})
		return issued.Token.KeyID() == key.ID
	})
	fault.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
	for range 3 {
		_, err := there.Verify(t.Context(), issued.Access.Reveal())
		mustBeUnsure(t, err)
	}
	fault.Inject(nil)
	mustVerify(t, there, issued.Access.Reveal())
}
