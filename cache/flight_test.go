package cache_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob/cache"
	"github.com/stretchr/testify/require"
)

func TestACounterCountsEachOnce(t *testing.T) {
	c := cache.NewCounter()
	copied := c
	var wg sync.WaitGroup
	var taken uint64
	for range 8 {
		wg.Go(func() {
			for range 10_000 {
				c.Add(1)
			}
		})
	}
	for range 100 {
		taken += copied.Take()
	}
	wg.Wait()
	require.Equal(t, uint64(80_000), taken+c.Load(), "what was taken is not there any more, and the rest is")
	require.Equal(t, c.Load(), copied.Take())
	require.Zero(t, c.Load())
	require.Zero(t, testing.AllocsPerRun(100, func() { c.Add(1) }))
}

func TestOneOfManyFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := cache.NewFlights[string, int]()
		first, leads := f.Join("a", 1)
		require.True(t, leads)
		_, leads = f.Join("b", 1)
		require.True(t, leads, "another answer is another flight")
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				fl, leads := f.Join("a", 1)
				require.False(t, leads)
				v, err := fl.Wait(t.Context())
				require.NoError(t, err)
				require.Equal(t, 7, v)
			})
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Go(func() {
			fl, _ := f.Join("a", 1)
			_, err := fl.Wait(impatient)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		time.Sleep(2 * time.Second)
		f.Land(first, 7)
		wg.Wait()
		require.EqualValues(t, 11, f.Collapsed())
		_, leads = f.Join("a", 1)
		require.True(t, leads, "who comes later begins anew")
	})
}

func TestAFlightThatNobodyJoinedLeavesNothingBehind(t *testing.T) {
	f := cache.NewFlights[int, string]()
	for i := range 1000 { // every shard has its spare then
		fl, _ := f.Join(i, uint64(i))
		f.Land(fl, "")
	}
	require.Less(t, testing.AllocsPerRun(1000, func() {
		fl, leads := f.Join(1, 1)
		if !leads {
			t.Error("somebody else leads")
		}
		f.Land(fl, "x")
	}), 1.0)
	fl, _ := f.Join(1, 1)
	joined, leads := f.Join(1, 1)
	require.False(t, leads)
	f.Land(fl, "y")
	v, err := joined.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, "y", v, "not what was left of an earlier one")
}

func TestTheBoundInBytes(t *testing.T) {
	c, err := cache.New(cache.Config[string]{Entries: 1000, Bytes: 20_000, Size: func(s *string) int { return len(*s) }})
	require.NoError(t, err)
	big := make([]byte, 700)
	for i := range 100 {
		mustPut(t, c, key(i), string(big), c.Begin(), always)
		require.LessOrEqual(t, c.Stats().Bytes, int64(20_000))
	}
	st := c.Stats()
	require.NotZero(t, st.Entries)
	require.Equal(t, uint64(100-st.Entries), st.Evicted)
	_, ok := c.Get(key(99), 0)
	require.True(t, ok)
	mustRefuse(t, c, key(1000), string(make([]byte, 30_000)), c.Begin(), always)
	require.Equal(t, st.Entries, c.Stats().Entries, "what is too large alone throws nothing out")
	mustPut(t, c, key(99), "small", c.Begin(), always)
	require.Less(t, c.Stats().Bytes, st.Bytes, "what is replaced counts no more")
	c.Clear()
	require.Zero(t, c.Stats().Bytes)
	_, err = cache.New(cache.Config[int]{Bytes: -1})
	require.Error(t, err)
}

func TestStatsCountWhatHappened(t *testing.T) {
	c := newCache[int](t, 10)
	ticket := c.Begin()
	mustPut(t, c, key(1), 1, c.Begin(), always, ref(1))
	for range 3 {
		c.Get(key(1), 0)
	}
	c.Get(key(2), 0)
	c.Invalidate(ref(1))
	c.Get(key(1), 0)
	mustRefuse(t, c, key(1), 1, ticket, always, ref(1))
	st := c.Stats()
	require.EqualValues(t, 3, st.Hits)
	require.EqualValues(t, 2, st.Misses, "an entry that is no longer good is a miss")
	require.EqualValues(t, 1, st.Refused)
	require.EqualValues(t, 1, st.Invalidations)
}

func TestAFlightThatIsGivenUpOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := cache.NewFlights[string, int]()
		first, leads := f.Join("a", 1)
		require.True(t, leads)
		require.False(t, first.Left())
		var wg sync.WaitGroup
		wait := func(fl *cache.Flight[string, int], want int, wrong error) {
			wg.Go(func() {
				v, err := fl.Wait(t.Context())
				require.ErrorIs(t, err, wrong)
				require.Equal(t, want, v)
			})
		}
		joined, _ := f.Join("a", 1)
		require.Same(t, first, joined)
		wait(joined, 0, cache.ErrSucceeded)
		synctest.Wait()
		second, leads := f.Succeed(joined)
		require.True(t, leads)
		again, leads := f.Succeed(joined)
		require.False(t, leads, "one of those who waited")
		require.Same(t, second, again)
		newcomer, leads := f.Join("a", 1)
		require.False(t, leads)
		require.Same(t, second, newcomer)
		wait(newcomer, 2, nil)
		synctest.Wait()
		f.Land(first, 1) // tells nobody
		f.Land(second, 2)
		wg.Wait()
		late, leads := f.Succeed(joined)
		require.False(t, leads, "who was slow still comes to what the others came to")
		v, err := late.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, v)
	})
}

func TestAFlightThatWasLeft(t *testing.T) {
	f := cache.NewFlights[string, int]()
	first, _ := f.Join("a", 1)
	require.True(t, f.Leave(first))
	require.True(t, first.Left())
	waiting, leads := f.Join("a", 1)
	require.False(t, leads)
	f.Retire(first)
	require.False(t, f.Leave(first), "nobody can join it any more")
	second, leads := f.Join("a", 1)
	require.True(t, leads, "who comes later begins anew")
	next, leads := f.Succeed(waiting)
	require.False(t, leads)
	require.Same(t, second, next, "what began since is what the others come to")
	f.Land(first, 1)
	f.Land(second, 2)
	f.Retire(first)
	third, leads := f.Join("a", 1)
	require.True(t, leads)
	f.Retire(first)
	require.NotSame(t, first, third, "it is not used again while somebody may retire it")
	joined, leads := f.Join("a", 1)
	require.False(t, leads)
	require.Same(t, third, joined)
}

// Hashes that somebody chose so that they are alike fall on shards like any others, and
// on other ones in another process.
func TestHashesThatWereChosenAreSpread(t *testing.T) {
	f, other := cache.NewFlights[int, int](), cache.NewFlights[int, int]()
	const n, shards = 640, 64
	var load [shards]int
	same := 0
	for i := range n {
		at := f.Shard(i, uint64(i)*shards)
		load[at]++
		if other.Shard(i, uint64(i)*shards) == at {
			same++
		}
	}
	for _, flights := range load {
		require.Less(t, flights, 5*n/shards)
	}
	require.Less(t, same, n/4)
}

// Who succeeds a flight after another has done so comes to that one's, landed or not, and
// counts as one who waits.
func TestWhoSucceedsLaterComesToTheSameFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := cache.NewFlights[string, int]()
		old, leads := f.Join("a", 1)
		require.True(t, leads)
		for range 3 {
			_, leads = f.Join("a", 1)
			require.False(t, leads)
		}
		require.Equal(t, uint64(3), f.Collapsed())
		next, leads := f.Succeed(old)
		require.True(t, leads)
		require.Equal(t, uint64(3), f.Collapsed())
		f.Land(next, 7)
		for i := range uint64(2) {
			late, leads := f.Succeed(old)
			require.False(t, leads)
			require.Same(t, next, late)
			require.Equal(t, 4+i, f.Collapsed())
			v, err := late.Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, 7, v)
		}
		f.Land(old, 1)
	})
}

// An answer that has come can be of no use as well.
func TestAFlightThatHasLandedCanBeSucceeded(t *testing.T) {
	f := cache.NewFlights[string, int]()
	first, _ := f.Join("a", 1)
	waiting, leads := f.Join("a", 1)
	require.False(t, leads)
	f.Land(first, 1)
	next, leads := f.Succeed(waiting)
	require.True(t, leads)
	f.Land(next, 2)
	v, err := waiting.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, v, "what it was given stays")
}

// Of a flight that was left, or retired, somebody may still hold on to: it is not used
// again for another answer.
func TestAFlightThatOthersHoldIsNotUsedAgain(t *testing.T) {
	f := cache.NewFlights[string, int]()
	for name, hold := range map[string]func(*cache.Flight[string, int]){
		"left":    func(fl *cache.Flight[string, int]) { f.Leave(fl) },
		"retired": f.Retire,
	} {
		t.Run(name, func(t *testing.T) {
			fl, leads := f.Join("a", 1)
			require.True(t, leads)
			hold(fl)
			f.Land(fl, 1)
			next, leads := f.Join("a", 1)
			require.True(t, leads)
			require.NotSame(t, fl, next)
			require.False(t, next.Left())
			f.Land(next, 2)
			again, leads := f.Join("a", 1)
			require.True(t, leads)
			require.Same(t, next, again, "one that only its leader has seen is")
			f.Land(again, 3)
		})
	}
}
