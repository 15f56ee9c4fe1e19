package fob_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func usage(t testing.TB, m *fob.Manager, key *fob.Key) fob.Usage {
	t.Helper()
	u, err := m.Usage(t.Context(), key.ID())
	require.NoError(t, err)
	return u
}

// TestUseOfWhatAKeyWasExchangedForIsUseOfTheKey: each acceptance of its tokens, from
// memory or not, and each refresh, counts for it; what is refused does not.
func TestUseOfWhatAKeyWasExchangedForIsUseOfTheKey(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text, key := mustIssue(t, m, fob.KeySpec{})
	issued := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true, TTL: 20 * time.Minute})
	want := fob.Usage{Count: 1, LastUsedAt: clock.Now()}
	require.Equal(t, want, usage(t, m, key), "the exchange")
	used := func(what string) {
		t.Helper()
		want.Count++
		want.LastUsedAt = clock.Now()
		require.Equal(t, want, usage(t, m, key), what)
	}
	for _, what := range []string{"read", "from memory", "from memory again"} {
		clock.Add(time.Minute)
		mustVerify(t, m, issued.Access.Reveal())
		used(what)
	}
	clock.Add(time.Minute)
	_, err := m.Fresh().Verify(t.Context(), issued.Access.Reveal())
	require.NoError(t, err)
	used("read from the store")
	clock.Add(time.Minute)
	next := mustRefresh(t, m, issued.Refresh)
	used("a refresh")
	clock.Add(time.Second)
	mustRefresh(t, m, issued.Refresh)
	used("an answer that is given again")

	require.NoError(t, m.Disable(t.Context(), key.ID(), ""))
	clock.Add(time.Minute)
	mustReject(t, m, issued.Access.Reveal(), fob.ErrDisabled)
	mustNotRefresh(t, m, next.Refresh, fob.ErrDisabled)
	require.NoError(t, m.Enable(t.Context(), key.ID()))
	clock.Add(time.Hour)
	mustReject(t, m, next.Access.Reveal(), fob.ErrExpired)
	require.Equal(t, want, usage(t, m, key), "what is refused is no use")
}

// TestAKeyThatOnlyItsTokensUseIsNotUnused for a fortnight in which nobody presents it,
// and is not taken for quiet when it is rotated.
func TestAKeyThatOnlyItsTokensUseIsNotUnused(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text, key := mustIssue(t, m, fob.KeySpec{})
	_, idle := mustIssue(t, m, fob.KeySpec{})
	issued := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true, TTL: time.Hour})
	secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: 20 * 24 * time.Hour, QuietTime: 24 * time.Hour})
	require.NoError(t, err)
	mustVerify(t, m, secret.Reveal())
	for range 14 {
		clock.Add(23 * time.Hour)
		issued = mustRefresh(t, m, issued.Refresh)
		mustVerify(t, m, issued.Access.Reveal())
		swept, err := m.Sweep(t.Context())
		require.NoError(t, err)
		require.Zero(t, swept.Retired)
	}
	page, err := m.List(t.Context(), fob.Query{Subject: fob.App("app-42"), UnusedSince: clock.Now().Add(-24 * time.Hour)})
	require.NoError(t, err)
	for _, c := range page.Items {
		require.NotEqual(t, key.ID(), c.ID())
	}
	require.Contains(t, ids(page.Items), idle.ID())
	// An access token alone is enough.
	clock.Add(23 * time.Hour)
	last := mustRefresh(t, m, issued.Refresh)
	clock.Add(59 * time.Minute)
	mustVerify(t, m, last.Access.Reveal())
	clock.Add(23*time.Hour + 30*time.Minute)
	swept, err := m.Sweep(t.Context())
	require.NoError(t, err)
	require.Zero(t, swept.Retired)
	clock.Add(30 * time.Minute)
	swept, err = m.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, swept.Retired, "now it is quiet")
}

func ids(credentials []*fob.Key) (all []fob.ID) {
	for _, c := range credentials {
		all = append(all, c.ID())
	}
	return all
}

// TestUseByTokensIsOneWritePerKeyAndInterval, however many tokens a key has, and no use
// is lost among evictions, writes and many goroutines.
func TestUseByTokensIsOneWritePerKeyAndInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		cfg := tokenConfig()
		cfg.CacheEntries = 8
		m := newManager(t, fault, cfg)
		const keys, tokens, workers, uses = 3, 5, 6, 50
		var all []*fob.Key
		var texts []string
		for range keys {
			text, key := mustIssue(t, m, fob.KeySpec{})
			all = append(all, key)
			for range tokens {
				texts = append(texts, mustExchange(t, m, text, fob.TokenSpec{}).Access.Reveal())
			}
		}
		puts := fault.Calls(backendtest.OpPut)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range uses * len(texts) {
					if _, err := m.Verify(context.Background(), texts[i%len(texts)]); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		require.Zero(t, fault.Calls(backendtest.OpAddUsage), "written behind")
		require.Equal(t, puts, fault.Calls(backendtest.OpPut))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, fault.Calls(backendtest.OpAddUsage))
		for _, u := range usageIn(t, fault, all...) {
			require.Equal(t, uint64(tokens+workers*uses*tokens), u.N)
		}
		require.NoError(t, m.Close())
	})
}

func TestAHitOfATokenThatCountsForItsKeyAllocatesNothing(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	text, _ := mustIssue(t, m, fob.KeySpec{})
	access := mustExchange(t, m, text, fob.TokenSpec{}).Access.Reveal()
	mustVerify(t, m, access)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		if _, err := m.Verify(t.Context(), access); err != nil {
			t.Fatal(err)
		}
	}))
}

// unfed is a store that can do everything but say what has changed.
type unfed struct{ *memory.Store }

func (unfed) Watch() {}

// TestQuietIsLongerThanAnybodysUsageIsOnItsWay: a process that writes its usage once an
// hour uses the old key all the time; another one, which writes it once a minute, sweeps.
func TestQuietIsLongerThanAnybodysUsageIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := unfed{memory.New()} // in days there is a million polls of a feed
		slow := newManager(t, store, fob.Config{UsageInterval: time.Hour})
		quick := newManager(t, store, fob.Config{})
		old, oldKey := mustIssue(t, quick, fob.KeySpec{})
		// Nobody is told yet of the hour: until then usage is written once a minute.
		rotation := fob.Rotation{Overlap: 100 * time.Hour, QuietTime: 10 * time.Minute}
		secret, _, err := quick.RotateKey(t.Context(), oldKey.ID(), rotation)
		require.NoError(t, err)
		mustVerify(t, quick, secret.Reveal())
		for range 5 * 60 { // five hours
			mustVerify(t, slow, old)
			time.Sleep(time.Minute)
			synctest.Wait()
			swept, err := quick.Sweep(t.Context())
			require.NoError(t, err)
			require.Zero(t, swept.Retired)
		}
		mustVerify(t, slow, old)

		// By now it is known, and a shorter quiet time is refused, in every process.
		for _, m := range []*fob.Manager{quick, slow} {
			_, key := mustIssue(t, m, fob.KeySpec{})
			_, _, err := m.RotateKey(t.Context(), key.ID(), rotation)
			require.ErrorIs(t, err, fob.ErrInvalid)
			_, _, err = m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: 100 * time.Hour, QuietTime: 2 * time.Hour})
			require.NoError(t, err)
		}

		// When the old key is no longer used it retires, if later.
		retired := func() int {
			swept, err := quick.Sweep(t.Context())
			require.NoError(t, err)
			return swept.Retired
		}
		time.Sleep(2*time.Hour - time.Minute)
		require.Zero(t, retired())
		time.Sleep(2 * time.Minute)
		require.Equal(t, 1, retired())
		require.NoError(t, slow.Close())

		// Nobody needs the hour any more: that is forgotten by itself.
		for range 4 * 24 {
			time.Sleep(time.Hour)
			_ = retired()
		}
		_, key := mustIssue(t, quick, fob.KeySpec{})
		_, _, err = quick.RotateKey(t.Context(), key.ID(), rotation)
		require.NoError(t, err)
		require.NoError(t, quick.Close())
	})
}

// TestALongUsageIntervalHoldsOnceTheFleetKnowsOfIt, and as long as it does not, usage is
// written once a minute.
func TestALongUsageIntervalHoldsOnceTheFleetKnowsOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, fault, fob.Config{UsageInterval: 30 * time.Minute})
		text, key := mustIssue(t, m, fob.KeySpec{})
		var down atomic.Bool
		down.Store(true)
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if c.Op == backendtest.OpPut && down.Load() {
				return backendtest.Unavailable()
			}
			return backendtest.Injection{}
		})
		for n := range 5 {
			mustVerify(t, m, text)
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Equal(t, uint64(n+1), usageIn(t, fault, key)[0].N, "nobody knows")
		}
		down.Store(false)
		mustVerify(t, m, text)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, uint64(6), usageIn(t, fault, key)[0].N)
		mustVerify(t, m, text)
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		require.Equal(t, uint64(6), usageIn(t, fault, key)[0].N, "everybody knows")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, uint64(7), usageIn(t, fault, key)[0].N)

		// A store that has forgotten it, after a failover, is told again.
		page := mustList(t, fault, fob.RecordFleet)
		require.Len(t, page, 1)
		require.NoError(t, fault.Delete(t.Context(), page[0].ID, page[0].Version))
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		page = mustList(t, fault, fob.RecordFleet)
		require.Len(t, page, 1)
		require.NoError(t, m.Close())
	})
}

func mustList(t *testing.T, store backend.Store, kind backend.Kind) []backend.Record {
	t.Helper()
	lister, ok := backend.As[backend.Lister](store)
	require.True(t, ok)
	page, err := lister.List(t.Context(), backend.Query{Kind: kind, Limit: 10})
	require.NoError(t, err)
	return page.Records
}
