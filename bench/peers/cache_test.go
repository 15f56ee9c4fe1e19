package peers_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fobkit/fob/cache"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/maypok86/otter/v2"
	"github.com/stretchr/testify/require"
)

// bounded is one cache. Each stands behind the same two function values, which
// cost the same few nanoseconds in all of them.
type bounded struct {
	name string
	get  func(k [16]byte) (*int, bool)
	put  func(k [16]byte, v *int)
	size func() int
}

// newFobCache is the one place that knows the interface of fob's.
func newFobCache(tb testing.TB, entries int) bounded {
	tb.Helper()
	c, err := cache.New(cache.Config[*int]{Entries: entries})
	require.NoError(tb, err)
	return bounded{
		"fob",
		func(k [16]byte) (*int, bool) {
			v, ok := c.Get(k, 0)
			if !ok {
				return nil, false
			}
			return *v, true
		},
		// Two things that it depends on, as a key does on itself and its subject.
		func(k [16]byte, v *int) { c.Put(k, v, c.Begin(), math.MaxInt64, cache.Ref(k), cache.Ref{1}) },
		func() int { return c.Stats().Entries },
	}
}

func newGolangLRU(tb testing.TB, entries int) bounded {
	tb.Helper()
	c, err := lru.New[[16]byte, *int](entries)
	require.NoError(tb, err)
	return bounded{"golang-lru", c.Get, func(k [16]byte, v *int) { c.Add(k, v) }, c.Len}
}

func newOtter(tb testing.TB, entries int) bounded {
	tb.Helper()
	c, err := otter.New(&otter.Options[[16]byte, *int]{MaximumSize: entries, InitialCapacity: entries})
	require.NoError(tb, err)
	tb.Cleanup(func() { c.StopAllGoroutines() })
	size := func() int {
		c.CleanUp() // it evicts behind its callers' backs
		return c.EstimatedSize()
	}
	return bounded{"otter", c.GetIfPresent, func(k [16]byte, v *int) { c.Set(k, v) }, size}
}

// newSyncMap has no bound.
func newSyncMap(testing.TB, int) bounded {
	var m sync.Map
	return bounded{
		"sync.Map",
		func(k [16]byte) (*int, bool) {
			v, ok := m.Load(k)
			if !ok {
				return nil, false
			}
			return v.(*int), true
		},
		func(k [16]byte, v *int) { m.Store(k, v) },
		func() int {
			n := 0
			m.Range(func(any, any) bool { n++; return true })
			return n
		},
	}
}

// caches are all; those but the last are bounded.
func caches() []func(testing.TB, int) bounded {
	return []func(testing.TB, int) bounded{newFobCache, newGolangLRU, newOtter, newSyncMap}
}

// newKeys are n keys that are as digests are, the same in each run, and a value for each.
func newKeys(n int) ([][16]byte, []*int) {
	from := rand.NewChaCha8([32]byte{1})
	keys, values := make([][16]byte, n), make([]*int, n)
	for i := range keys {
		_, _ = from.Read(keys[i][:]) // never returns an error
		values[i] = new(int)
	}
	return keys, values
}

// order is which of n keys are asked for: a power of two of them, over and over.
func order(access string, n, length int) []uint16 {
	r := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(r, 1.1, 1, uint64(n-1))
	turns := make([]uint16, length)
	for i := range turns {
		switch access {
		case "uniform":
			turns[i] = uint16(r.IntN(n))
		case "zipf":
			turns[i] = uint16(zipf.Uint64())
		}
	}
	return turns // all the same one for "hot"
}

// BenchmarkCache asks caches for 10,000 entries that they have.
func BenchmarkCache(b *testing.B) {
	keys, values := newKeys(live)
	for _, access := range []string{"uniform", "zipf", "hot"} {
		turns := order(access, live, 1<<16)
		for _, newCache := range caches() {
			// Twice the room, so that none evicts: the shards of one fill unevenly.
			c := newCache(b, 2*live)
			for i := range keys {
				c.put(keys[i], values[i])
			}
			require.Equal(b, live, c.size(), c.name)
			b.Run(access+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				at := 0
				for b.Loop() {
					k := turns[at&(len(turns)-1)]
					if v, ok := c.get(keys[k]); !ok || v != values[k] {
						b.Fatal("miss")
					}
					at++
				}
			})
			b.Run(access+"_parallel/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				var start atomic.Uint32
				b.RunParallel(func(pb *testing.PB) {
					at := int(start.Add(1)) * 3571
					for pb.Next() {
						k := turns[at&(len(turns)-1)]
						if v, ok := c.get(keys[k]); !ok || v != values[k] {
							b.Error("miss")
							return
						}
						at++
					}
				})
			})
		}
	}
}

// BenchmarkCacheChurn asks for twice as many keys as there is room for, and puts
// what it misses. An operation is a get and, if it misses, a put.
func BenchmarkCacheChurn(b *testing.B) {
	keys, values := newKeys(2 * live)
	turns := order("zipf", 2*live, 1<<20)
	for _, newCache := range caches()[:3] {
		c := newCache(b, live)
		ask := func(at int) (hit int) {
			k := turns[at&(len(turns)-1)]
			v, ok := c.get(keys[k])
			if !ok {
				c.put(keys[k], values[k])
				return 0
			}
			if v != values[k] {
				b.Error("the value of another key")
			}
			return 1
		}
		for at := range turns {
			ask(at)
		}
		sound := func(b *testing.B, hits int) {
			b.Helper()
			if size := c.size(); size > live || size < live/2 {
				b.Errorf("%d entries, want up to %d", size, live)
			}
			b.ReportMetric(float64(hits)/float64(b.N), "hits/op")
		}
		b.Run("zipf/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			at, hits := 0, 0
			for b.Loop() {
				hits += ask(at)
				at++
			}
			sound(b, hits)
		})
		b.Run("zipf_parallel/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			var start atomic.Uint32
			var all atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				at, hits := int(start.Add(1))*357_913, 0
				for pb.Next() {
					hits += ask(at)
					at++
				}
				all.Add(int64(hits))
			})
			sound(b, int(all.Load()))
		})
	}
}
