package cache_test

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"

	"github.com/fobkit/fob/cache"
	"github.com/stretchr/testify/require"
)

// A Cache has a line for every four entries, but 2,048 at least and 8,192 at most. A
// shard has 128 entries or more, but there are 64 at most.
func TestIntoHowManyPartsACacheIsDivided(t *testing.T) {
	for entries, want := range map[int]struct{ lines, shards int }{
		1: {2048, 1}, 128: {2048, 1}, 255: {2048, 1}, 256: {2048, 2}, 383: {2048, 2}, 384: {2048, 4}, 1024: {2048, 8},
		2048: {2048, 16}, 3000: {2048, 32}, 8195: {2048, 64}, 8196: {4096, 64}, 16_400: {8192, 64}, 200_000: {8192, 64},
	} {
		c := newCache[int](t, entries)
		require.Equal(t, want.lines, c.Lines(), "%d entries", entries)
		require.Equal(t, want.shards, c.Shards(), "%d entries", entries)
	}
	c, err := cache.New(cache.Config[int]{})
	require.NoError(t, err)
	require.Equal(t, []int{8192, 64}, []int{c.Lines(), c.Shards()}, "the default is 100,000 entries")
}

// A full table has one entry for each bucket: half as many again are compared as
// there are to find, if keys spread like dice. So do those that differ in little.
func TestKeysThatDifferInLittleAreSpread(t *testing.T) {
	at := func(i, from int) (k cache.Key) {
		binary.BigEndian.PutUint64(k[from:], uint64(i))
		return k
	}
	for name, make := range map[string]func(int) cache.Key{
		"text":                key,
		"a number in front":   func(i int) cache.Key { return at(i, 0) },
		"a number at the end": func(i int) cache.Key { return at(i, 8) },
		"two equal halves": func(i int) cache.Key {
			k := at(i, 0)
			copy(k[8:], k[:8])
			return k
		},
		"one bit": func(i int) (k cache.Key) {
			k[i/8] = 1 << (i % 8)
			return k
		},
	} {
		t.Run(name, func(t *testing.T) {
			const rounds = 200
			steps := 0.0
			for range rounds { // each has its own secret
				c := newCache[int](t, 128)
				for range 2 {
					for i := range 128 {
						mustPut(t, c, make(i), i, c.Begin(), always)
					}
					steps += c.Steps() / 2
					c.Clear()
				}
			}
			// The standard deviation is 0.005.
			require.InDelta(t, 1.5, steps/rounds, 0.05)
		})
	}
}

func TestAnEntryMayHaveSixRefs(t *testing.T) {
	for last := range cache.MaxRefs + 1 {
		c := newCache[int](t, 10)
		refs := []cache.Ref{ref(0), ref(1), ref(2), ref(3), ref(4), ref(5)}
		mustPut(t, c, key(1), 1, c.Begin(), always, refs...)
		if last < len(refs) {
			c.Invalidate(refs[last])
		}
		_, ok := c.Get(key(1), 0)
		require.Equal(t, last == len(refs), ok, "ref %d", last)
	}
}

// TestNothingThatWasReadBeforeAClearComesInAfterIt, however many refs it has.
func TestNothingThatWasReadBeforeAClearComesInAfterIt(t *testing.T) {
	for n := range cache.MaxRefs + 1 {
		c := newCache[string](t, 100)
		var refs []cache.Ref
		for i := range n {
			refs = append(refs, ref(i+1))
		}
		before := c.Begin()
		c.Clear()
		_, ok := c.Put(key(1), "old", before, always, refs...)
		require.False(t, ok, "%d refs", n)
	}
}

func TestOfTwoAnswersToOneReadTheLastStays(t *testing.T) {
	c := newCache[int](t, 10)
	ticket := c.Begin()
	mustPut(t, c, key(1), 1, ticket, always, ref(1))
	mustPut(t, c, key(1), 2, ticket, always, ref(1))
	v, ok := c.Get(key(1), 0)
	require.True(t, ok)
	require.Equal(t, 2, *v)
	require.Equal(t, 1, c.Stats().Entries)
}

// What a hit looks at first, and the beginning of the value, are in one line of memory.
func TestTheHeadOfAnEntry(t *testing.T) {
	require.Equal(t, uintptr(48), cache.HeadOfEntry)
	require.Equal(t, uintptr(64), cache.BytesOfLine, "a line of names is one too")
	require.Equal(t, 7, cache.LineNames)
}

// So that one Put never walks through everything, however much was read.
func TestAnEvictionPassesOver32EntriesAtMost(t *testing.T) {
	c := newCache[int](t, 40)
	for i := range 40 {
		mustPut(t, c, key(i), i, c.Begin(), always)
	}
	for i := range 40 {
		_, ok := c.Get(key(i), 0)
		require.True(t, ok)
	}
	gone := func() (all []int) {
		for i := range 42 {
			if !c.Holds(key(i)) {
				all = append(all, i)
			}
		}
		return all
	}
	mustPut(t, c, key(40), 40, c.Begin(), always)
	require.Equal(t, []int{32, 41}, gone(), "the first that is not passed over, though it was read")
	// The seven after it still have their marks; those that were passed over lost them,
	// and are the oldest then.
	mustPut(t, c, key(41), 41, c.Begin(), always)
	require.Equal(t, []int{0, 32}, gone())
	require.EqualValues(t, 2, c.Stats().Evicted)
}

func TestBytesAreCountedToTheLast(t *testing.T) {
	size := 0
	room := func(bytes int64) *cache.Cache[int] {
		c, err := cache.New(cache.Config[int]{Entries: 100, Bytes: bytes, Size: func(*int) int { return size }})
		require.NoError(t, err)
		return c
	}
	plain := newCache[int](t, 100)
	mustPut(t, plain, key(1), 1, plain.Begin(), always)
	one := plain.Stats().Bytes
	for given, counted := range map[int]int64{-5: 0, 0: 0, 1: 1, 1000: 1000} {
		size = given
		c := room(0)
		mustPut(t, c, key(1), 1, c.Begin(), always)
		require.Equal(t, one+counted, c.Stats().Bytes, "size %d", given)
	}
	size = 0
	c := room(one)
	mustPut(t, c, key(1), 1, c.Begin(), always)
	mustPut(t, c, key(2), 2, c.Begin(), always)
	require.Equal(t, 1, c.Stats().Entries, "one is what there is room for")
	c = room(one - 1)
	mustRefuse(t, c, key(1), 1, c.Begin(), always)
	c = room(2 * one)
	for i := range 3 {
		mustPut(t, c, key(i), i, c.Begin(), always)
		require.Equal(t, min(i+1, 2), c.Stats().Entries)
	}
	// A bound that leaves less than a byte for each part is still a bound.
	for _, entries := range []int{1, 20_000} {
		c, err := cache.New(cache.Config[int]{Entries: entries, Bytes: 1})
		require.NoError(t, err)
		mustRefuse(t, c, key(1), 1, c.Begin(), always)
	}
}

// What Stats tells of memory is what the heap holds, to a quarter.
func TestStatsTellTheMemory(t *testing.T) {
	const n = 100_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := newCache[*int](t, n)
	for i := range n {
		c.Put(key(i), nil, c.Begin(), always, ref(i))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.InEpsilon(t, after.HeapAlloc-before.HeapAlloc, c.Stats().Bytes, 0.25)
	runtime.KeepAlive(c)
}

func TestClearCountsAsOneInvalidation(t *testing.T) {
	c := newCache[int](t, 10)
	c.Clear()
	require.EqualValues(t, 1, c.Stats().Invalidations)
	c.Invalidate(ref(1), ref(2))
	require.EqualValues(t, 2, c.Stats().Invalidations, "however many refs it has")
}

// A counter has eight cells for each processor, 16 at least and 256 at most, and
// goroutines that run at once use all of them.
func TestACounterIsSpread(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for procs, want := range map[int]int{1: 16, 2: 16, 3: 32, 8: 64, 16: 128, 64: 256, 100: 256} {
		runtime.GOMAXPROCS(procs)
		c := cache.NewCounter()
		cells, _ := c.Cells()
		require.Equal(t, want, cells, "%d processors", procs)
	}
	runtime.GOMAXPROCS(2)
	c := cache.NewCounter()
	var all sync.WaitGroup
	var counted sync.WaitGroup
	const goroutines = 1000
	counted.Add(goroutines)
	for range goroutines {
		all.Go(func() {
			c.Add(1)
			counted.Done()
			counted.Wait() // each keeps its stack until all have counted
		})
	}
	all.Wait()
	require.EqualValues(t, goroutines, c.Load())
	cells, used := c.Cells()
	require.Equal(t, cells, used)
}
