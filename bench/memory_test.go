package bench_test

import (
	"crypto/sha256"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// BenchmarkMillionCached is the cache with 1,000,000 keys in it: a hit, beside
// hash and map of as many; what an entry takes beyond the credential itself; and
// what the entries add to the pauses of a garbage collection.
//
//	go test -run '^$' -bench MillionCached ./bench
func BenchmarkMillionCached(b *testing.B) {
	const n = 1_000_000
	store := memory.New()
	maker := newManager(b, store, fob.Config{MaxStaleness: time.Hour})
	texts := issue(b, maker, n, 1000)
	for _, text := range texts { // so that the store has a record of the usage of each
		if _, err := maker.Verify(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, maker.Close())

	b.Run("floor", func(b *testing.B) {
		byDigest := make(map[[sha256.Size]byte]*int, n)
		for _, text := range texts {
			byDigest[blockSum(text)] = new(int)
		}
		for _, a := range accesses[:2] {
			order := a.order(n)
			b.Run(a.name, func(b *testing.B) {
				parallel(b, order, func(at int) bool { return byDigest[blockSum(texts[at])] != nil })
			})
		}
	})

	m := newManager(b, store, fob.Config{CacheEntries: n + n/5, MaxStaleness: time.Hour, UsageInterval: time.Hour})
	pausesBefore := pauses()
	// What a credential takes that somebody holds.
	before := heap()
	held := make([]fob.Credential, n/10)
	for i := range held {
		block := texts[i][len(texts[i])-54:]
		id, err := fob.ParseID(block[:16])
		require.NoError(b, err)
		held[i], err = m.Get(b.Context(), id)
		require.NoError(b, err)
	}
	credential := float64(heap()-before) / float64(len(held))
	runtime.KeepAlive(held)

	before = heap()
	for _, text := range texts {
		if _, err := m.Verify(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, m.Close()) // writes the usage, which is not the cache's
	entry := float64(heap()-before) / n
	m = newManager(b, store, fob.Config{CacheEntries: n + n/5, MaxStaleness: time.Hour, UsageInterval: time.Hour})
	for _, text := range texts {
		if _, err := m.Verify(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
	require.Equal(b, n, m.CacheStats().Keys.Entries)

	b.Run("memory", func(b *testing.B) {
		for b.Loop() {
			runtime.GC()
		}
		b.ReportMetric(entry-credential, "B/entry-beyond-credential")
		b.ReportMetric(credential, "B/credential")
	})
	b.Run("gc_pause", func(b *testing.B) {
		var after pause
		for b.Loop() {
			after = pauses()
		}
		b.ReportMetric(pausesBefore.longest*1e6, "µs-longest-without")
		b.ReportMetric(after.longest*1e6, "µs-longest-with")
		b.ReportMetric((after.longest-pausesBefore.longest)*1e6, "µs-added")
	})
	for _, a := range accesses {
		order := a.order(n)
		b.Run("key/"+a.name, func(b *testing.B) {
			parallel(b, order, func(at int) bool {
				cred, err := m.Verify(b.Context(), texts[at])
				return err == nil && cred != nil
			})
		})
	}
}

// heap is the memory in use after a collection.
func heap() uint64 {
	runtime.GC()
	debug.FreeOSMemory()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return mem.HeapAlloc
}

// pause is how long all goroutines stood still, in seconds.
type pause struct{ longest float64 }

// pauses collects ten times and returns the longest stop, as the upper bound of the
// runtime's histogram.
func pauses() pause {
	const name = "/sched/pauses/total/gc:seconds"
	read := func() *metrics.Float64Histogram {
		sample := []metrics.Sample{{Name: name}}
		metrics.Read(sample)
		h := *sample[0].Value.Float64Histogram()
		h.Counts = slices.Clone(h.Counts)
		return &h
	}
	before := read()
	for range 10 {
		runtime.GC()
	}
	after := read()
	var p pause
	for i, count := range after.Counts {
		if count > before.Counts[i] && !math.IsInf(after.Buckets[i+1], 1) {
			p.longest = after.Buckets[i+1]
		}
	}
	return p
}
