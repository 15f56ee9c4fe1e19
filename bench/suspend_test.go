package bench_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// BenchmarkSuspend disables and enables an account of which a million tokens are in the cache
// (with -short ten thousand). Each Disable ends what all of them are told, and is one write;
// some of the tokens are asked after each. An operation is all four calls. It also reports
// what a hit takes of tokens of this account in the end, and of an account that was never
// disabled, by turns.
func BenchmarkSuspend(b *testing.B) {
	n := 1_000_000
	if testing.Short() {
		n = 10_000
	}
	keys, err := fob.New(memory.New(), fob.Config{CacheEntries: n + 1000, CacheBytes: 8 << 30, MaxStaleness: time.Hour, SweepInterval: -1, Tokens: &fob.TokenConfig{TTL: time.Hour}})
	require.NoError(b, err)
	b.Cleanup(func() { _ = keys.Close() })
	texts := make([]string, n)
	for i := range texts {
		issued, err := keys.IssueToken(b.Context(), fob.TokenSpec{Subject: fob.User(fmt.Sprint("user-", i%1000)).In("acme")})
		require.NoError(b, err)
		texts[i] = issued.Access.Reveal()
		_, err = keys.Verify(b.Context(), texts[i])
		require.NoError(b, err)
	}
	require.GreaterOrEqual(b, keys.CacheStats().Tokens.Entries, n*9/10)
	account := fob.Account("acme")
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		err := keys.Disable(b.Context(), account, "unpaid")
		took = append(took, time.Since(began))
		require.NoError(b, err)
		_, err = keys.Verify(b.Context(), texts[i*7919%n])
		require.ErrorIs(b, err, fob.ErrDisabled)
		require.NoError(b, keys.Enable(b.Context(), account))
		_, err = keys.Verify(b.Context(), texts[i*104729%n])
		require.NoError(b, err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns/disable")
	others := make([]string, 1000)
	for i := range others {
		issued, err := keys.IssueToken(b.Context(), fob.TokenSpec{Subject: fob.User(fmt.Sprint("user-", i)).In("umbrella")})
		require.NoError(b, err)
		others[i] = issued.Access.Reveal()
	}
	never, resumed := hits(b, keys, others, texts[:len(others)])
	b.ReportMetric(never, "ns/hit-never")
	b.ReportMetric(resumed, "ns/hit-resumed")
	b.ReportMetric(resumed/never, "x-never")
}

// hits returns the median time of a cached verification of each of two lists of texts, in
// nanoseconds.
func hits(b *testing.B, m *fob.Manager, lists ...[]string) (one, other float64) {
	b.Helper()
	for {
		var turns [2][]time.Duration
		missed := m.CacheStats().Tokens.Misses
		for turn := range 402 {
			texts := lists[turn%2]
			began := time.Now()
			for _, text := range texts {
				if _, err := m.Verify(b.Context(), text); err != nil {
					b.Fatal(err)
				}
			}
			turns[turn%2] = append(turns[turn%2], time.Since(began))
		}
		// The first turns load what is not cached. The feed may tell of the last change once
		// more, which drops all of them.
		if m.CacheStats().Tokens.Misses == missed {
			slices.Sort(turns[0])
			slices.Sort(turns[1])
			median := func(i int) float64 {
				return float64(turns[i][len(turns[i])/2].Nanoseconds()) / float64(len(lists[i]))
			}
			return median(0), median(1)
		}
	}
}
