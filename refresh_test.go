package fob_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func mustRefresh(t testing.TB, m *fob.Manager, secret fob.Secret) fob.Issued {
	t.Helper()
	issued, err := m.Refresh(context.Background(), secret.Reveal())
	require.NoError(t, err)
	require.False(t, issued.Refresh.IsZero())
	return issued
}

func mustNotRefresh(t testing.TB, m *fob.Manager, secret fob.Secret, reason error) {
	t.Helper()
	issued, err := m.Refresh(context.Background(), secret.Reveal())
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, fob.ErrRejected)
	require.True(t, issued.Access.IsZero())
}

func TestRefresh(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	first := mustToken(t, m, fob.TokenSpec{
		Refreshable: true, TTL: time.Minute, Scopes: fob.Scopes{"a"}, Custom: map[string]any{"tenant": "t1"},
		Grants: fob.Grants{{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42"}}},
	})
	require.False(t, first.Refresh.IsZero())
	require.Equal(t, clock.Now().Add(7*24*time.Hour), first.RefreshExpiresAt)
	mustReject(t, m, first.Refresh.Reveal(), fob.ErrMalformed)

	clock.Add(50 * time.Second)
	second := mustRefresh(t, m, first.Refresh)
	cred := mustVerify(t, m, second.Access.Reveal()).(*fob.Token)
	require.Equal(t, first.Token.Session(), cred.Session())
	require.NotEqual(t, first.Token.ID(), cred.ID())
	require.Equal(t, "user-7", cred.Subject().Name)
	require.Equal(t, clock.Now().Add(time.Minute), cred.ExpiresAt(), "as long as the first")
	require.True(t, cred.Allows("a"))
	require.True(t, cred.AllowsOn("read", fob.Resource{Type: "orders", ID: "42"}))
	tenant, _ := cred.Claim("tenant")
	require.Equal(t, "t1", tenant)
	mustVerify(t, m, first.Access.Reveal())
	clock.Add(50 * time.Second)
	mustReject(t, m, first.Access.Reveal(), fob.ErrExpired)
	third := mustRefresh(t, m, second.Refresh)
	mustVerify(t, m, third.Access.Reveal())
}

func TestALostAnswerIsRepeatedAndAReplayEndsTheFamily(t *testing.T) {
	clock := newClock()
	store := memory.New()
	m := newManager(t, store, clocked(tokenConfig(), clock))
	first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	second := mustRefresh(t, m, first.Refresh)
	clock.Add(10*time.Second - time.Millisecond)
	again := mustRefresh(t, m, first.Refresh)
	require.Equal(t, second.Refresh.Reveal(), again.Refresh.Reveal(), "the identical pair")
	require.Equal(t, second.Access.Reveal(), again.Access.Reveal())
	require.Equal(t, second.Token, again.Token)
	clock.Add(time.Millisecond)
	mustNotRefresh(t, m, first.Refresh, fob.ErrReplayed)
	// Both branches are dead, and so are the access tokens, in every process.
	mustNotRefresh(t, m, second.Refresh, fob.ErrRevoked)
	mustNotRefresh(t, m, first.Refresh, fob.ErrRevoked)
	for _, m := range []*fob.Manager{m, newManager(t, store, clocked(tokenConfig(), clock))} {
		mustReject(t, m, first.Access.Reveal(), fob.ErrRevoked)
		mustReject(t, m, second.Access.Reveal(), fob.ErrRevoked)
	}
}

func TestWithoutGraceASecondUseIsAReplay(t *testing.T) {
	m := newManager(t, nil, tokenConfig(func(c *fob.TokenConfig) { c.RefreshGrace = -1 }))
	first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	mustRefresh(t, m, first.Refresh)
	mustNotRefresh(t, m, first.Refresh, fob.ErrReplayed)
}

// TestAMadeUpSecretDoesNotEndAFamily: the ID of a family is in each of its tokens.
func TestAMadeUpSecretDoesNotEndAFamily(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	second := mustRefresh(t, m, first.Refresh)
	_, err := m.Refresh(t.Context(), forge(t, "fobrefresh", first.Token.Session()))
	require.ErrorIs(t, err, fob.ErrUnknown)
	mustRefresh(t, m, second.Refresh)
	for _, text := range []string{"", "x", first.Access.Reveal(), relabel(t, first.Refresh.Reveal(), "acme_live"), first.Refresh.Reveal() + "x"} {
		_, err := m.Refresh(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrMalformed)
	}
	other, _ := mustIssue(t, m, fob.KeySpec{})
	_, err = m.Refresh(t.Context(), other)
	require.ErrorIs(t, err, fob.ErrKeyPrefix)
}

func TestRefreshEndsInTime(t *testing.T) {
	clock := newClock()
	cfg := clocked(tokenConfig(func(c *fob.TokenConfig) { c.RefreshTTL, c.RefreshIdle = 25*time.Hour, 10*time.Hour }), clock)
	m := newManager(t, nil, cfg)
	idle := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	busy := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	for range 2 {
		clock.Add(9 * time.Hour)
		busy = mustRefresh(t, m, busy.Refresh)
	}
	mustNotRefresh(t, m, idle.Refresh, fob.ErrExpired)
	require.Equal(t, clock.Now().Add(7*time.Hour), busy.RefreshExpiresAt, "never beyond the first's end")
	clock.Add(7*time.Hour - 5*time.Second)
	busy = mustRefresh(t, m, busy.Refresh)
	require.Equal(t, clock.Now().Add(5*time.Second), busy.Token.ExpiresAt())
	clock.Add(5 * time.Second)
	mustNotRefresh(t, m, busy.Refresh, fob.ErrExpired)
}

func TestARefreshCannotExceedItsKey(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a", "b"}})
	spec := fob.TokenSpec{Refreshable: true, Scopes: fob.Scopes{"a", "b"}, TTL: time.Minute}
	first, err := m.ExchangeKey(t.Context(), text, spec)
	require.NoError(t, err)
	first = mustRefresh(t, m, first.Refresh)
	narrowed := fob.Scopes{"a"}
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Scopes: &narrowed})
	require.NoError(t, err)
	first = mustRefresh(t, m, first.Refresh)
	require.Equal(t, narrowed, first.Token.Scopes())
	require.Equal(t, narrowed, mustVerify(t, m, first.Access.Reveal()).Scopes())

	spec.Scopes = narrowed
	second, err := m.ExchangeKey(t.Context(), text, spec)
	require.NoError(t, err)
	require.NoError(t, m.Disable(t.Context(), key.ID(), ""))
	mustNotRefresh(t, m, second.Refresh, fob.ErrDisabled)
	require.NoError(t, m.Enable(t.Context(), key.ID()))
	second = mustRefresh(t, m, second.Refresh)
	soon := clock.Now().Add(30 * time.Second)
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &soon})
	require.NoError(t, err)
	second = mustRefresh(t, m, second.Refresh)
	require.Equal(t, soon, second.Token.ExpiresAt(), "the key's end is the token's")
	_, err = m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	mustNotRefresh(t, m, second.Refresh, fob.ErrRevoked)
}

// TestAThousandRefreshesOfOneSecretMakeOneSuccessor, in two Managers on one store.
func TestAThousandRefreshesOfOneSecretMakeOneSuccessor(t *testing.T) {
	store := memory.New()
	managers := []*fob.Manager{newManager(t, store, tokenConfig()), newManager(t, store, tokenConfig())}
	first := mustToken(t, managers[0], fob.TokenSpec{Refreshable: true})
	var mu sync.Mutex
	answers := make(map[string]int)
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			issued, err := managers[i%2].Refresh(context.Background(), first.Refresh.Reveal())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[issued.Refresh.Reveal()+issued.Access.Reveal()]++
		})
	}
	wg.Wait()
	require.Len(t, answers, 1)
}

// TestARefreshThatIsCutOffAnywhere fails each store call of a refresh in turn,
// before and after it took effect, and then repeats it as a client does. The
// family goes on in one branch.
func TestARefreshThatIsCutOffAnywhere(t *testing.T) {
	for name, injection := range map[string]backendtest.Injection{"before": backendtest.Unavailable(), "after": backendtest.LostAck()} {
		for step := 1; ; step++ {
			clock := newClock()
			store := backendtest.NewFault(bare{memory.New()})
			m := newManager(t, store, clocked(tokenConfig(), clock))
			first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
			calls, hit := 0, false
			store.Inject(func(c backendtest.Call) backendtest.Injection {
				if calls++; calls == step {
					hit = true
					return injection
				}
				return backendtest.Injection{}
			})
			cut, err := m.Refresh(t.Context(), first.Refresh.Reveal())
			store.Inject(nil)
			if !hit {
				require.NoError(t, err)
				require.Greater(t, step, 3, "there are store calls to fail")
				break
			}
			if err != nil {
				require.NotErrorIs(t, err, fob.ErrRejected, "%s call %d: could not be done", name, step)
			}
			again := mustRefresh(t, m, first.Refresh)
			if err == nil {
				require.Equal(t, cut.Refresh.Reveal(), again.Refresh.Reveal(), "%s call %d", name, step)
			}
			mustVerify(t, m, again.Access.Reveal())
			next := mustRefresh(t, m, again.Refresh)
			_, err = m.Refresh(t.Context(), again.Refresh.Reveal())
			require.NoError(t, err, "the grace of the second")
			clock.Add(10 * time.Second)
			mustNotRefresh(t, m, first.Refresh, fob.ErrReplayed)
			mustNotRefresh(t, m, next.Refresh, fob.ErrRevoked)
		}
	}
}

// TestAReplayThatIsCutOffAnywhere: a family that was to be ended is dead, or the
// replay can be detected again; no access token outlives it.
func TestAReplayThatIsCutOffAnywhere(t *testing.T) {
	for step := 1; ; step++ {
		store := backendtest.NewFault(bare{memory.New()})
		m := newManager(t, store, tokenConfig(func(c *fob.TokenConfig) { c.RefreshGrace = -1 }))
		first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
		second := mustRefresh(t, m, first.Refresh)
		calls := 0
		store.Inject(func(backendtest.Call) backendtest.Injection {
			if calls++; calls >= step { // the process ends here
				return backendtest.Unavailable()
			}
			return backendtest.Injection{}
		})
		_, err := m.Refresh(t.Context(), first.Refresh.Reveal())
		store.Inject(nil)
		if errors.Is(err, fob.ErrReplayed) {
			require.Greater(t, step, 3)
			return
		}
		require.Error(t, err)
		require.NotErrorIs(t, err, fob.ErrRejected)
		later := newManager(t, store, tokenConfig())
		_, err = later.Refresh(t.Context(), first.Refresh.Reveal())
		require.ErrorIs(t, err, fob.ErrRevoked) // ErrReplayed, or it was dead already
		mustNotRefresh(t, later, second.Refresh, fob.ErrRevoked)
		mustReject(t, later, second.Access.Reveal(), fob.ErrRevoked)
	}
}

// TestTheStoreAloneOpensNoAnswer: what a refresh leaves in the store holds neither
// the next secret nor the access token.
func TestTheStoreAloneOpensNoAnswer(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, tokenConfig())
	first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	second := mustRefresh(t, m, first.Refresh)
	bodies := allBodies(t, store)
	require.NotEmpty(t, bodies)
	for _, secret := range []string{first.Refresh.Reveal(), second.Refresh.Reveal(), first.Access.Reveal(), second.Access.Reveal()} {
		for _, body := range bodies {
			require.NotContains(t, body, secret)
			require.NotContains(t, body, secret[len(secret)-38:len(secret)-6])
		}
	}
}

// allBodies is everything that a store holds.
func allBodies(t *testing.T, store *memory.Store) (bodies []string) {
	t.Helper()
	for kind := backend.Kind(1); kind < 20; kind++ {
		page, err := store.List(t.Context(), backend.Query{Kind: kind, Limit: backend.MaxLimit})
		require.NoError(t, err)
		for _, rec := range page.Records {
			bodies = append(bodies, string(rec.Body))
		}
	}
	return bodies
}

// TestAFamilyThatDiedInACrashStaysDead: what a replay had got to when its process
// ended holds, also after the records that ended the access tokens were purged.
func TestAFamilyThatDiedInACrashStaysDead(t *testing.T) {
	died := 0
	for step := 1; ; step++ {
		clock := newClock()
		store := backendtest.NewFault(memory.New())
		cfg := clocked(tokenConfig(func(c *fob.TokenConfig) { c.RefreshGrace = -1 }), clock)
		m := newManager(t, bareButPurged{store}, cfg)
		first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
		second := mustRefresh(t, m, first.Refresh)
		calls := 0
		store.Inject(func(backendtest.Call) backendtest.Injection {
			if calls++; calls >= step {
				return backendtest.Unavailable()
			}
			return backendtest.Injection{}
		})
		_, err := m.Refresh(t.Context(), first.Refresh.Reveal())
		store.Inject(nil)
		if errors.Is(err, fob.ErrReplayed) {
			require.Positive(t, died, "some step leaves it half dead")
			return
		}
		later := newManager(t, bareButPurged{store}, cfg)
		_, err = later.Verify(t.Context(), second.Access.Reveal())
		dead := errors.Is(err, fob.ErrRevoked)
		require.True(t, dead || err == nil, "%v", err)
		clock.Add(3 * time.Hour)
		_, err = later.Sweep(t.Context())
		require.NoError(t, err)
		if _, err = later.Refresh(t.Context(), second.Refresh.Reveal()); err == nil {
			require.False(t, dead)
			continue
		}
		require.ErrorIs(t, err, fob.ErrRevoked)
		died++
	}
}

// bareButPurged is a store without any capability but Purger.
type bareButPurged struct{ *backendtest.Fault }

func (s bareButPurged) Unwrap() backend.Store { return nil }

func (s bareButPurged) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	purger, _ := backend.As[backend.Purger](s.Fault)
	return purger.Purge(ctx, before, limit)
}
