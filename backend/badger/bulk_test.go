package badger_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/stretchr/testify/require"
)

// fillTwoKinds puts n records, the even ones of kind 1 and the others of kind 2.
func fillTwoKinds(t testing.TB, s *badger.Store, n uint64) {
	t.Helper()
	var wg sync.WaitGroup
	var next atomic.Uint64
	for range 256 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				rec := record(i)
				rec.Kind = backend.Kind(1 + i%2)
				if _, err := s.Put(t.Context(), rec, backend.IfAbsent()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// scanned is how often a Scan of a kind delivers each record, and in how many parts.
func scanned(t testing.TB, s *badger.Store, kind backend.Kind) (times map[backend.ID]int, parts int, err error) {
	t.Helper()
	times = make(map[backend.ID]int)
	err = s.Scan(t.Context(), kind, func(recs []backend.Record) error {
		parts++
		require.LessOrEqual(t, len(recs), badger.ScanAtOnce)
		for _, rec := range recs {
			require.Equal(t, kind, rec.Kind)
			require.Len(t, rec.Body, 200)
			times[rec.ID]++
		}
		return nil
	})
	return times, parts, err
}

// Of a kind that has many of the records, all records are passed after the first ones were
// read by the list, which are delivered twice. Where a record is damaged, nobody knows of
// which kind it is but the list.
func TestAScanOfAKindWithManyRecords(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	const n = 2 * (badger.ByList + 3*badger.ScanAtOnce)
	fillTwoKinds(t, s, n)
	for kind := range backend.Kind(2) {
		times, _, err := scanned(t, s, 1+kind)
		require.NoError(t, err)
		require.Len(t, times, n/2)
		twice := 0
		for _, n := range times {
			require.LessOrEqual(t, n, 2)
			twice += n - 1
		}
		require.Equal(t, badger.ByList, twice, "it was worth passing them all")
	}
	require.NoError(t, s.Overwrite(record(1).ID, func(b []byte) []byte { b[1] = 1; return b }))
	times, parts, err := scanned(t, s, 1)
	require.NoError(t, err, "a damaged record of another kind is not this kind's matter")
	require.Len(t, times, n/2)
	require.NotContains(t, times, record(1).ID)
	require.Greater(t, parts, (n/2+badger.ByList)/badger.ScanAtOnce, "it began anew by the list")
	_, _, err = scanned(t, s, 2)
	require.ErrorIs(t, err, backend.ErrCorrupt, "and is not taken for one that is not there")
}

// BenchmarkScan reads 200,000 records of 400,000, by a Scan and by pages.
func BenchmarkScan(b *testing.B) {
	const n = 400_000
	s := openBench(b)
	fillTwoKinds(b, s, n)
	for name, read := range map[string]func(fn func([]backend.Record) error) error{
		"scan": func(fn func([]backend.Record) error) error { return s.Scan(b.Context(), 2, fn) },
		"pages": func(fn func([]backend.Record) error) error {
			q := backend.Query{Kind: 2, Limit: backend.MaxLimit}
			for {
				page, err := s.List(b.Context(), q)
				if err != nil {
					return err
				}
				_ = fn(page.Records)
				if q.After = page.Next; q.After == "" {
					return nil
				}
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				got := 0
				require.NoError(b, read(func(recs []backend.Record) error {
					got += len(recs)
					return nil
				}))
				require.GreaterOrEqual(b, got, n/2)
			}
			b.ReportMetric(float64(n/2*b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
