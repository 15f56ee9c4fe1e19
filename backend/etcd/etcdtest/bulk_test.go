package etcdtest_test

import (
	"sync"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/stretchr/testify/require"
)

// A Scan reads a part of the list and then its records, at one revision. When that is
// compacted meanwhile, it goes on from where it was.
func TestACompactionUnderAScan(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	admin := client(t, c.Config())
	s := open(t, admin, patient)
	const n = 5000 // more than a Scan hands on together
	var wg sync.WaitGroup
	for w := range 50 {
		wg.Go(func() {
			for i := w; i < n; i += 50 {
				if _, err := s.Put(t.Context(), mark(i), backend.IfAbsent()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[backend.ID]int)
	parts := 0
	require.NoError(t, s.Scan(t.Context(), 9, func(recs []backend.Record) error {
		parts++
		for _, rec := range recs {
			seen[rec.ID]++
		}
		other := recs[0]
		_, err := s.Put(t.Context(), other, backend.IfVersion(other.Version)) // there is a later revision
		compact(t, admin)
		return err
	}))
	require.Greater(t, parts, 1)
	require.Len(t, seen, n)
	for id, times := range seen {
		require.Equal(t, 1, times, "record %x", id)
	}
}
