package cache_test

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fobkit/fob/cache"
	"github.com/stretchr/testify/require"
)

func key(n int) (k cache.Key) {
	s := strconv.Itoa(1_000_000_000 + n)
	copy(k[16-len(s):], s) // text that differs in few characters, as IDs do
	return k
}

func ref(n int) (r cache.Ref) {
	binary.BigEndian.PutUint64(r[:], uint64(n))
	return r
}

func newCache[V any](t testing.TB, entries int) *cache.Cache[V] {
	t.Helper()
	c, err := cache.New[V](cache.Config[V]{Entries: entries})
	require.NoError(t, err)
	return c
}

const always = int64(1) << 62

func mustPut[V any](t *testing.T, c *cache.Cache[V], k cache.Key, v V, ticket cache.Ticket, until int64, refs ...cache.Ref) {
	t.Helper()
	_, ok := c.Put(k, v, ticket, until, refs...)
	require.True(t, ok)
}

func mustRefuse[V any](t *testing.T, c *cache.Cache[V], k cache.Key, v V, ticket cache.Ticket, until int64, refs ...cache.Ref) {
	t.Helper()
	stored, ok := c.Put(k, v, ticket, until, refs...)
	require.False(t, ok)
	require.Equal(t, v, *stored)
}

func TestAnEntryIsFoundUntilItsTime(t *testing.T) {
	c := newCache[string](t, 10)
	_, ok := c.Get(key(1), 0)
	require.False(t, ok)
	mustPut(t, c, key(1), "one", c.Begin(), 100, ref(1))
	v, ok := c.Get(key(1), 99)
	require.True(t, ok)
	require.Equal(t, "one", *v)
	_, ok = c.Get(key(1), 100)
	require.False(t, ok, "until is the first instant at which it no longer holds")
	_, ok = c.Get(key(2), 0)
	require.False(t, ok)
}

func TestInvalidateEndsWhatWasMadeFromTheRef(t *testing.T) {
	c := newCache[int](t, 1000)
	for i := range 100 {
		mustPut(t, c, key(i), i, c.Begin(), always, ref(i), ref(1000+i%2))
	}
	// Which refs look alike differs from Cache to Cache; those end too.
	ends := func(i int, changed cache.Ref) bool {
		return c.Alike(ref(i), changed) || c.Alike(ref(1000+i%2), changed)
	}
	checkEnded := func(changed ...cache.Ref) {
		t.Helper()
		for i := range 100 {
			want := !slices.ContainsFunc(changed, func(r cache.Ref) bool { return ends(i, r) })
			_, ok := c.Get(key(i), 0)
			require.Equal(t, want, ok, "entry %d", i)
		}
	}
	c.Invalidate(ref(7))
	_, ok := c.Get(key(7), 0)
	require.False(t, ok)
	checkEnded(ref(7))
	c.Invalidate(ref(1000)) // the parent of every second one
	for i := 0; i < 100; i += 2 {
		_, ok := c.Get(key(i), 0)
		require.False(t, ok, "entry %d", i)
	}
	checkEnded(ref(7), ref(1000))
	c.Clear()
	for i := range 100 {
		_, ok := c.Get(key(i), 0)
		require.False(t, ok)
	}
	require.Zero(t, c.Stats().Entries)
}

func TestAnAnswerFromBeforeAChangeIsRefusedAfterIt(t *testing.T) {
	c := newCache[string](t, 10)
	ticket := c.Begin()
	c.Invalidate(ref(1))
	mustRefuse(t, c, key(1), "old", ticket, always, ref(1))
	_, ok := c.Get(key(1), 0)
	require.False(t, ok)
	require.Equal(t, uint64(1), c.Stats().Refused)
	mustPut(t, c, key(1), "new", c.Begin(), always, ref(1))
	mustRefuse(t, c, key(1), "late", ticket, always, ref(2))
	v, _ := c.Get(key(1), 0)
	require.Equal(t, "new", *v)
	c.Clear()
	mustRefuse(t, c, key(2), "old", ticket, always)
	mustRefuse(t, c, key(3), "x", c.Begin(), always, make([]cache.Ref, cache.MaxRefs+1)...)
}

func TestTheBoundHoldsAndWhatIsReadStays(t *testing.T) {
	for _, entries := range []int{1, 2, 7, 1000, 20_000} {
		c := newCache[int](t, entries)
		hot := key(-1)
		for i := range 5 * entries {
			if entries >= 1000 {
				if _, ok := c.Get(hot, 0); !ok {
					if i > 0 {
						t.Fatal("the hot entry was evicted")
					}
					c.Put(hot, -1, c.Begin(), always)
				}
			}
			put, ok := c.Put(key(i), i, c.Begin(), always)
			if v, found := c.Get(key(i), 0); !ok || !found || v != put || *v != i {
				t.Fatalf("what was just put is not there: %v %v", ok, found)
			}
		}
		st := c.Stats()
		require.LessOrEqual(t, st.Entries, entries)
		require.Greater(t, st.Entries, entries*9/10-1)
		require.GreaterOrEqual(t, st.Evicted, uint64(4*entries-entries/10))
	}
}

func TestTheOldestUnreadEntryGoesFirst(t *testing.T) {
	c := newCache[int](t, 3) // one shard
	for i := range 3 {
		c.Put(key(i), i, c.Begin(), always)
	}
	c.Get(key(0), 0)
	c.Put(key(3), 3, c.Begin(), always)
	present := func(i int) bool { _, ok := c.Get(key(i), 0); return ok }
	require.False(t, present(1), "1 is the oldest that was not read")
	require.True(t, present(0))
	require.True(t, present(2))
	require.True(t, present(3))
}

func TestAgainstAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c := newCache[int](t, 500)
	type state struct{ value, until, parent int }
	model := map[int]state{}
	for step := range 200_000 {
		k, now := rng.IntN(400), step
		switch rng.IntN(10) {
		case 0:
			c.Invalidate(ref(k))
			delete(model, k)
		case 1:
			parent := 10_000 + rng.IntN(20)
			if rng.IntN(50) == 0 {
				c.Invalidate(ref(parent))
				for k, s := range model {
					if s.parent == parent {
						delete(model, k)
					}
				}
			}
		case 2, 3, 4:
			s := state{step, step + rng.IntN(1000), 10_000 + rng.IntN(20)}
			if _, ok := c.Put(key(k), s.value, c.Begin(), int64(s.until), ref(k), ref(s.parent)); !ok {
				t.Fatalf("step %d: Put refused", step)
			}
			model[k] = s
		default:
			v, ok := c.Get(key(k), int64(now))
			s, held := model[k]
			// A miss is always allowed: lines are shared.
			if ok && (!held || now >= s.until || *v != s.value) {
				t.Fatalf("step %d: entry %d is %d, want %+v", step, k, *v, s)
			}
		}
	}
	found := 0
	for k, s := range model {
		if _, ok := c.Get(key(k), int64(s.until-1)); ok {
			found++
		}
	}
	// Shared lines cost some, more or fewer from Cache to Cache.
	require.Greater(t, found, len(model)*9/10, "nearly all misses are real ones")
}

// race runs verifiers and revokers over registers whose version only rises, and
// returns how often a Get that began after an Invalidate had returned yielded an
// older version.
func race(t *testing.T, c *cache.Cache[uint64], rounds int) (violations, hits uint64) {
	t.Helper()
	const keys = 8
	var source, announced [keys]atomic.Uint64
	var bad, good atomic.Uint64
	var revokers, verifiers sync.WaitGroup
	var done atomic.Bool
	for w := range 2 {
		revokers.Go(func() {
			for i := 0; i < rounds || good.Load() == 0; i++ { // the others may not have had a turn
				k := (i*2 + w) % keys
				v := source[k].Add(1)
				c.Invalidate(ref(k))
				for {
					old := announced[k].Load()
					if old >= v || announced[k].CompareAndSwap(old, v) {
						break
					}
				}
				if i%16 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	for w := range 4 {
		verifiers.Go(func() {
			for i := w; !done.Load(); i++ {
				k := i % keys
				least := announced[k].Load()
				v, ok := c.Get(key(k), 0)
				if ok {
					good.Add(1)
					if *v < least {
						bad.Add(1)
					}
					continue
				}
				ticket := c.Begin()
				read := source[k].Load()
				if i%4 == 0 {
					runtime.Gosched() // a slow store
				}
				c.Put(key(k), read, ticket, always, ref(k))
			}
		})
	}
	revokers.Wait()
	done.Store(true)
	verifiers.Wait()
	return bad.Load(), good.Load()
}

func TestNoGetAfterInvalidateReturnsTheOldState(t *testing.T) {
	for name, prepare := range map[string]func(c *cache.Cache[uint64]){
		"as it is":                   func(*cache.Cache[uint64]) {},
		"names push one another out": crowd,
	} {
		t.Run(name, func(t *testing.T) {
			c := newCache[uint64](t, 100)
			prepare(c)
			violations, hits := race(t, c, 50_000)
			require.Zero(t, violations)
			require.NotZero(t, hits)
		})
	}
}

// crowd makes all Refs of race, one more than a line holds, fall on one line, and lets
// others come between any two steps.
func crowd(c *cache.Cache[uint64]) {
	c.OneLine()
	c.Amid(runtime.Gosched)
}

// A check that cannot fail proves nothing: each rule is turned off once.
func TestTheRaceCheckFindsABrokenCache(t *testing.T) {
	for name, spoil := range map[string]func(c *cache.Cache[uint64]){
		"ticket taken after the read":                 func(c *cache.Cache[uint64]) { c.BreakTickets() },
		"a name overwritten before the floor has it":  func(c *cache.Cache[uint64]) { crowd(c); c.BreakOverwriteOrder() },
		"the floor looked at before the names it had": func(c *cache.Cache[uint64]) { crowd(c); c.BreakFloorOrder() },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCache[uint64](t, 100)
			spoil(c)
			violations := uint64(0)
			for range 4000 { // ends at the first, which may take its time where the machine is busy
				if violations, _ = race(t, c, 5_000); violations > 0 {
					break
				}
			}
			require.NotZero(t, violations, "the check did not find it")
		})
	}
	t.Run("change announced before it is visible", func(t *testing.T) {
		c := newCache[int](t, 100)
		c.Put(key(1), 1, c.Begin(), always, ref(1))
		c.BreakPublishOrder(func() { c.Get(key(1), 0) })
		c.Invalidate(ref(1))
		_, ok := c.Get(key(1), 0)
		require.True(t, ok, "a reader that came between believes the old state for good: the order in Invalidate matters")
	})
}

func TestGrowingUnderReaders(t *testing.T) {
	c := newCache[int](t, 50_000)
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for i := 0; !done.Load(); i = (i + 1) % 50_000 {
				if v, ok := c.Get(key(i), 0); ok && *v != i {
					t.Errorf("Get(%d) = %d", i, *v)
					return
				}
			}
		})
	}
	for i := range 50_000 {
		c.Put(key(i), i, c.Begin(), always)
	}
	done.Store(true)
	readers.Wait()
	missing := 0
	for i := range 50_000 {
		if _, ok := c.Get(key(i), 0); !ok {
			missing++
		}
	}
	// Shards fill unevenly, so some of the last entries push others out.
	require.Less(t, missing, 3000)
}

func TestAHitAllocatesNothing(t *testing.T) {
	c := newCache[int](t, 100)
	k := key(1)
	c.Put(k, 1, c.Begin(), always, ref(1))
	require.Zero(t, testing.AllocsPerRun(1000, func() { c.Get(k, 0) }))
}

func TestSettings(t *testing.T) {
	_, err := cache.New[int](cache.Config[int]{Entries: -1})
	require.Error(t, err)
	c, err := cache.New[int](cache.Config[int]{})
	require.NoError(t, err)
	mustPut(t, c, key(1), 1, c.Begin(), 1)
}

func TestMemoryPerEntry(t *testing.T) {
	const n = 200_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := newCache[*int](t, n)
	for i := range n {
		c.Put(key(i), nil, c.Begin(), always, ref(i))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (after.HeapAlloc - before.HeapAlloc) / uint64(c.Stats().Entries)
	t.Logf("%d bytes per entry", per)
	require.Less(t, per, uint64(350))
	runtime.KeepAlive(c)
}

// Peek looks, whatever the time, and leaves no trace.
func TestPeekLeavesNoTrace(t *testing.T) {
	c := newCache[string](t, 4)
	_, ok := c.Peek(key(1))
	require.False(t, ok)
	mustPut(t, c, key(1), "one", c.Begin(), 5, ref(1))
	mustPut(t, c, key(2), "two", c.Begin(), always, ref(2))
	for n, want := range map[int]string{1: "one", 2: "two"} {
		v, ok := c.Peek(key(n))
		require.True(t, ok)
		require.Equal(t, want, *v)
	}
	_, ok = c.Get(key(1), 5)
	require.False(t, ok, "its time is over")
	v, ok := c.Peek(key(1))
	require.True(t, ok)
	require.Equal(t, "one", *v)
	c.Invalidate(ref(1))
	v, ok = c.Peek(key(1))
	require.False(t, ok)
	require.Equal(t, "one", *v, "it is there, and no longer good")
	require.Equal(t, uint64(0), c.Stats().Hits)
	require.Equal(t, uint64(1), c.Stats().Misses)

	// What was only looked at goes as if it had not been.
	c = newCache[string](t, 2)
	mustPut(t, c, key(1), "one", c.Begin(), always)
	mustPut(t, c, key(2), "two", c.Begin(), always)
	_, ok = c.Peek(key(1))
	require.True(t, ok)
	mustPut(t, c, key(3), "three", c.Begin(), always)
	require.False(t, c.Holds(key(1)))

	// Clear leaves nothing to look at.
	c.Clear()
	for n := range 4 {
		v, ok = c.Peek(key(n))
		require.False(t, ok)
		require.Nil(t, v)
	}
}

// As many entries are held by default as the documentation says, and not one more.
func TestTheDefaultNumberOfEntries(t *testing.T) {
	c := newCache[struct{}](t, 0)
	for n := range 200_000 {
		mustPut(t, c, key(n), struct{}{}, c.Begin(), always)
	}
	require.Equal(t, 100_000, c.Stats().Entries)
}
