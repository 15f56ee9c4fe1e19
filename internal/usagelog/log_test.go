package usagelog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/usagelog"
	"github.com/stretchr/testify/require"
)

var errDown = errors.New("connection refused")

// recorder keeps usage in memory, and fails as it is told.
type recorder struct {
	used  map[backend.ID]backend.Usage
	calls int
	fails func(call int) error
}

func newRecorder() *recorder {
	return &recorder{used: make(map[backend.ID]backend.Usage), fails: func(int) error { return nil }}
}

func (r *recorder) AddUsage(_ context.Context, batch []backend.Usage) error {
	r.calls++
	if err := r.fails(r.calls); err != nil {
		return err
	}
	for _, u := range batch {
		old := r.used[u.ID]
		r.used[u.ID] = backend.Usage{ID: u.ID, N: old.N + u.N, Last: max(old.Last, u.Last)}
	}
	return nil
}

func (r *recorder) Usage(_ context.Context, ids []backend.ID) ([]backend.Usage, error) {
	out := make([]backend.Usage, len(ids))
	for i, id := range ids {
		out[i] = r.used[id]
	}
	return out, nil
}

func idOf(n int) (id backend.ID) {
	copy(id[:], fmt.Sprintf("%016d", n))
	return id
}

// lostNothing is for a Flush that drops no counts.
func lostNothing(t *testing.T) func(error) {
	return func(err error) { require.Fail(t, "counts were dropped", "%v", err) }
}

// reads asserts what Read returns, whether or not it is written yet.
func reads(t *testing.T, l *usagelog.Log, r *recorder, id backend.ID, want usagelog.Tally) {
	t.Helper()
	got, err := l.Read(t.Context(), r, []backend.ID{idOf(999_999), id})
	require.NoError(t, err)
	require.Equal(t, []usagelog.Tally{{}, want}, got)
}

func TestUsesAreCountedAndWrittenOnce(t *testing.T) {
	l, r := usagelog.New(4), newRecorder()
	cell := &usagelog.Cell{ID: idOf(1)}
	l.Used(cell, 10)
	l.Used(cell, 30)
	l.Used(cell, 20) // a late one does not set the last use back
	l.Count(idOf(1), 5)
	reads(t, l, r, idOf(1), usagelog.Tally{N: 4, Last: 30})
	require.NoError(t, l.Flush(t.Context(), r, lostNothing(t)))
	require.Equal(t, map[backend.ID]backend.Usage{idOf(1): {ID: idOf(1), N: 4, Last: 30}}, r.used)
	reads(t, l, r, idOf(1), usagelog.Tally{N: 4, Last: 30})
	require.NoError(t, l.Flush(t.Context(), r, lostNothing(t)))
	require.Equal(t, 1, r.calls, "there is nothing to write")
	l.Used(cell, 40)
	reads(t, l, r, idOf(1), usagelog.Tally{N: 5, Last: 40})
	require.NoError(t, l.Flush(t.Context(), r, lostNothing(t)))
	require.Equal(t, uint64(5), r.used[idOf(1)].N)
}

// More cells than the log holds lose no count, and neither do uses at the same instant.
func TestNoCountIsLost(t *testing.T) {
	const cells, uses, workers = 50, 20, 8
	l, r := usagelog.New(4), newRecorder()
	var all [cells]*usagelog.Cell // each allocated by itself, and so aligned for its atomic numbers
	for i := range all {
		all[i] = &usagelog.Cell{ID: idOf(i)}
	}
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for ms := range int64(uses) {
				for i := range all {
					l.Used(all[i], ms)
				}
			}
		})
	}
	wait.Wait()
	require.NoError(t, l.Flush(t.Context(), r, lostNothing(t)))
	require.Len(t, r.used, cells)
	for id, u := range r.used {
		require.Equal(t, backend.Usage{ID: id, N: uses * workers, Last: uses - 1}, u)
	}
}

func TestCountsThatWereSurelyNotWrittenAreKept(t *testing.T) {
	l, r := usagelog.New(4), newRecorder()
	for i := range backend.MaxLimit + 10 { // two batches
		l.Count(idOf(i), 1)
	}
	r.fails = func(call int) error {
		if call == 2 {
			return errDown
		}
		return nil
	}
	require.ErrorIs(t, l.Flush(t.Context(), r, lostNothing(t)), errDown)
	require.Len(t, r.used, backend.MaxLimit)
	require.NoError(t, l.Flush(t.Context(), r, lostNothing(t)))
	require.Len(t, r.used, backend.MaxLimit+10)
	for id, u := range r.used {
		require.Equal(t, uint64(1), u.N, "%s is counted once", id)
	}
}

func TestCountsThatMayHaveBeenWrittenAreDropped(t *testing.T) {
	l, r := usagelog.New(4), newRecorder()
	for i := range backend.MaxLimit + 10 {
		l.Count(idOf(i), 1)
	}
	r.fails = func(call int) error {
		if call == 1 {
			return backend.ErrIndeterminate
		}
		return nil
	}
	var lost []error
	require.ErrorIs(t, l.Flush(t.Context(), r, func(err error) { lost = append(lost, err) }), errs.ErrIndeterminate)
	require.Len(t, lost, 1)
	require.ErrorIs(t, lost[0], errs.ErrIndeterminate)
	require.NoError(t, l.Flush(t.Context(), r, lostNothing(t)))
	require.Len(t, r.used, 10, "only the batch that was not sent is written")
}

// A context that has ended before a write is no reason to drop anything.
func TestNothingIsSentAfterTheContextHasEnded(t *testing.T) {
	l, r := usagelog.New(4), newRecorder()
	l.Count(idOf(1), 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, l.Flush(ctx, r, lostNothing(t)), context.Canceled)
	require.Zero(t, r.calls)
	reads(t, l, r, idOf(1), usagelog.Tally{N: 1, Last: 1})
}

func TestWithoutARecorderCountsAreDropped(t *testing.T) {
	l, r := usagelog.New(4), newRecorder()
	l.Count(idOf(1), 1)
	require.NoError(t, l.Flush(t.Context(), nil, lostNothing(t)))
	reads(t, l, r, idOf(1), usagelog.Tally{})
}
