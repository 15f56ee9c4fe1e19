package bench_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// BenchmarkHit is a cached verification against the floor, hash and map, in one run: the
// two take turns of 1,000 lookups each, of the same 10,000 keys in the same order, so that
// whatever else the machine does meets both. It reports the medians of the turns, and their
// ratio.
func BenchmarkHit(b *testing.B) {
	m := newManager(b, memory.New(), fob.Config{MaxStaleness: time.Hour, UsageInterval: time.Hour})
	texts := issue(b, m, live, 1000)
	byDigest := make(map[[sha256.Size]byte]*int, live)
	for _, text := range texts {
		byDigest[blockSum(text)] = new(int)
		_, err := m.Verify(b.Context(), text)
		require.NoError(b, err)
	}
	for _, a := range accesses {
		order := a.order(live)
		b.Run(a.name, func(b *testing.B) {
			const turn = 1000
			b.ReportAllocs()
			before := m.CacheStats().Keys.Hits
			var floor, hit []time.Duration
			at := 0
			ctx := b.Context()
			for b.Loop() {
				from := at
				begun := time.Now()
				for range turn {
					if byDigest[blockSum(texts[order[at&(len(order)-1)]])] == nil {
						b.Fatal("not found")
					}
					at++
				}
				halfway := time.Now()
				for at = from; at < from+turn; at++ {
					if cred, err := m.Verify(ctx, texts[order[at&(len(order)-1)]]); err != nil || cred == nil {
						b.Fatal("not accepted: ", err)
					}
				}
				hit = append(hit, time.Since(halfway))
				floor = append(floor, halfway.Sub(begun))
			}
			// The feed may still tell of the keys that were just issued, which forgets some.
			if hits := m.CacheStats().Keys.Hits - before; hits < uint64(len(hit)*turn*99/100) {
				b.Fatalf("%d hits for %d verifications", hits, len(hit)*turn)
			}
			slices.Sort(floor)
			slices.Sort(hit)
			least, took := floor[len(floor)/2], hit[len(hit)/2]
			b.ReportMetric(float64(least.Nanoseconds())/turn, "ns/floor")
			b.ReportMetric(float64(took.Nanoseconds())/turn, "ns/hit")
			b.ReportMetric(float64(took)/float64(least), "x-floor")
			b.ReportMetric(0, "ns/op") // of both together, which says nothing
		})
	}
}
