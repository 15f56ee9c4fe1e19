package usagelog_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/usagelog"
	"github.com/stretchr/testify/require"
)

// flushed writes what is in the log, and returns what was written for a credential.
func flushed(t *testing.T, l *usagelog.Log, id backend.ID) backend.Usage {
	t.Helper()
	r := newRecorder()
	require.NoError(t, l.Flush(t.Context(), r, lostNothing(t)))
	return r.used[id]
}

// A cell counts in one of three places: in the number that has everything, beside it when
// that is full, and on many lines of memory when many cores want it. The count is right at
// each border.
func TestACellCountsOnWhateverHappens(t *testing.T) {
	const full = usagelog.UsesInWord
	for name, happens := range map[string]func(c *usagelog.Cell, use func(n int)){
		"a few":                   func(_ *usagelog.Cell, use func(int)) { use(3) },
		"as many as fit":          func(_ *usagelog.Cell, use func(int)) { use(full) },
		"one more":                func(_ *usagelog.Cell, use func(int)) { use(full + 1) },
		"many more":               func(_ *usagelog.Cell, use func(int)) { use(3 * full) },
		"crowded":                 func(c *usagelog.Cell, use func(int)) { c.Crowd(); use(5) },
		"crowded later":           func(c *usagelog.Cell, use func(int)) { use(5); c.Crowd(); use(5) },
		"crowded when it is full": func(c *usagelog.Cell, use func(int)) { use(full + 5); c.Crowd(); use(full + 5) },
	} {
		t.Run(name, func(t *testing.T) {
			l, c, ms := usagelog.New(4), &usagelog.Cell{ID: idOf(1), Hit: true}, int64(1_000)
			uses, hits := 0, 0
			use := func(n int) {
				for range n {
					ms++
					l.Used(c, ms)
				}
				uses, hits = uses+n, hits+n
			}
			for range 3 { // what was written leaves nothing behind
				happens(c, use)
				require.EqualValues(t, hits, l.Hits(), "before they are written")
				reads(t, l, newRecorder(), c.ID, usagelog.Tally{N: uint64(uses), Last: ms})
				require.Equal(t, backend.Usage{ID: c.ID, N: uint64(uses), Last: ms}, flushed(t, l, c.ID))
				require.EqualValues(t, hits, l.Hits(), "and afterwards")
				require.Zero(t, flushed(t, l, c.ID))
				uses = 0
			}
		})
	}
}

// Where a use is counted is a matter of time: of one write, or of waiting for other cores.
func TestWhereACellCounts(t *testing.T) {
	require.Equal(t, 16_383, usagelog.UsesInWord)
	require.Equal(t, 32, usagelog.MaxClashes)
	l, c := usagelog.New(4), &usagelog.Cell{ID: idOf(1)}
	for i := range usagelog.UsesInWord + 5 {
		require.Equal(t, min(i, usagelog.UsesInWord), c.InWord())
		l.Used(c, 1)
	}
	require.EqualValues(t, usagelog.UsesInWord+5, flushed(t, l, c.ID).N)
	require.Zero(t, c.InWord())
	l.Used(c, 1)
	require.Equal(t, 1, c.InWord())
	c.Crowd()
	l.Used(c, 1)
	require.Equal(t, 1, c.InWord(), "it is spread")
	require.EqualValues(t, 2, flushed(t, l, c.ID).N)
	l.Used(c, 1)
	require.Zero(t, c.InWord(), "and stays so")
	require.EqualValues(t, 1, flushed(t, l, c.ID).N)
}

func TestACountIsSpreadAfterSomeClashesBetweenTwoWrites(t *testing.T) {
	l, c := usagelog.New(4), &usagelog.Cell{ID: idOf(1)}
	for range 3 {
		for range usagelog.MaxClashes - 1 {
			c.Clash()
		}
		require.False(t, c.Crowded())
		l.Used(c, 1)
		require.NotZero(t, flushed(t, l, c.ID))
	}
	c.Crowd()
	require.True(t, c.Crowded())
	l.Used(c, 1)
	require.NotZero(t, flushed(t, l, c.ID))
	require.True(t, c.Crowded(), "for good")
}

// The last use is any instant that a clock gives, and never moves back.
func TestTheLastUse(t *testing.T) {
	for _, crowded := range []bool{false, true} {
		l, c := usagelog.New(4), &usagelog.Cell{ID: idOf(1)}
		if crowded {
			c.Crowd()
		}
		for _, at := range []struct{ ms, last int64 }{{0, 0}, {1, 1}, {1, 1}, {500, 500}, {499, 500}, {-1, 500}, {clock.MaxMillis, clock.MaxMillis}, {1, clock.MaxMillis}} {
			l.Used(c, at.ms)
			require.Equal(t, backend.Usage{ID: c.ID, N: 1, Last: at.last}, flushed(t, l, c.ID))
		}
	}
}

func TestHitsAreCountedOfCellsThatSaySo(t *testing.T) {
	l := usagelog.New(2)
	require.Zero(t, l.Hits())
	var hits [5]*usagelog.Cell // more than the log holds at once
	for i := range hits {
		hits[i] = &usagelog.Cell{ID: idOf(i), Hit: true}
	}
	other := &usagelog.Cell{ID: idOf(9)}
	for i := range 10 * len(hits) {
		l.Used(hits[i%len(hits)], 1)
		l.Used(other, 1)
		l.Count(idOf(1), 1) // of a credential that was not in the cache
		require.EqualValues(t, i+1, l.Hits())
	}
	require.NoError(t, l.Flush(t.Context(), nil, lostNothing(t)))
	require.EqualValues(t, 10*len(hits), l.Hits(), "also what is written nowhere")
}

// One cell that everybody wants, while it is written and looked at: nothing is lost or
// counted twice, and the number of hits never goes back.
func TestOneCellThatEverybodyWants(t *testing.T) {
	const workers, uses = 8, 20_000
	l, c := usagelog.New(1), &usagelog.Cell{ID: idOf(1), Hit: true}
	var users, others sync.WaitGroup
	var done atomic.Bool
	for range workers {
		users.Go(func() {
			for i := range uses {
				l.Used(c, int64(i))
			}
		})
	}
	var written uint64
	others.Go(func() {
		for !done.Load() {
			written += flushed(t, l, c.ID).N
		}
	})
	others.Go(func() {
		for before := uint64(0); !done.Load(); {
			now := l.Hits()
			if now < before || now > workers*uses {
				t.Errorf("%d hits after %d", now, before)
				return
			}
			before = now
		}
	})
	users.Wait()
	done.Store(true)
	others.Wait()
	last := flushed(t, l, c.ID)
	require.EqualValues(t, workers*uses, written+last.N)
	require.EqualValues(t, workers*uses, l.Hits())
}
