package usagelog_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/usagelog"
	"github.com/stretchr/testify/require"
)

const (
	day  = int64(24 * time.Hour / time.Millisecond)
	idle = 30 * 24 * time.Hour
)

// asked counts what is asked about usage, and fails as it is told.
type asked struct {
	*recorder
	asked []backend.ID
	err   error
	hangs bool
}

func (a *asked) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	a.asked = append(a.asked, ids...)
	if a.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.recorder.Usage(ctx, ids)
}

// returnsOf writes one use of each credential at an instant, and returns the Returns.
func returnsOf(t *testing.T, l *usagelog.Log, r backend.UsageRecorder, at int64, ids ...backend.ID) map[backend.ID]usagelog.Return {
	t.Helper()
	for _, id := range ids {
		l.Count(id, at)
	}
	require.NoError(t, l.Flush(t.Context(), r, lostNothing(t)))
	found, err := l.Returns()
	require.NoError(t, err)
	return found
}

func TestTheFirstUseAndTheOneAfterALongTimeAreReturns(t *testing.T) {
	r, l := &asked{recorder: newRecorder()}, usagelog.New(10)
	l.Watch(idle)
	one, two := idOf(1), idOf(2)
	require.Equal(t, map[backend.ID]usagelog.Return{one: {Last: day}}, returnsOf(t, l, r, day, one))
	require.Empty(t, returnsOf(t, l, r, 2*day, one), "it is told once")
	require.Equal(t, map[backend.ID]usagelog.Return{two: {Last: 31 * day}}, returnsOf(t, l, r, 31*day, one, two), "29 days are not long")
	require.Equal(t, map[backend.ID]usagelog.Return{one: {usagelog.Tally{N: 3, Last: 31 * day}, 61 * day}}, returnsOf(t, l, r, 61*day, one))
	require.Equal(t, []backend.ID{one, two, one}, r.asked, "and nothing is asked about what is in use")

	other := usagelog.New(10)
	other.Watch(idle)
	require.Empty(t, returnsOf(t, other, r, 62*day, one), "another process knows from the store that it is in use")
	require.Empty(t, returnsOf(t, other, r, 63*day), "there is nothing to write")
}

func TestALogThatWatchesNothingAsksNothing(t *testing.T) {
	r, l := &asked{recorder: newRecorder()}, usagelog.New(10)
	require.Empty(t, returnsOf(t, l, r, day, idOf(1)))
	require.Empty(t, r.asked)
}

// The memory of what is in use is bounded; what is no longer in it costs a question.
func TestWhatIsKnownToBeInUseIsBounded(t *testing.T) {
	r, l := &asked{recorder: newRecorder()}, usagelog.New(2)
	l.Watch(idle)
	for n := range 6 {
		require.Len(t, returnsOf(t, l, r, day, idOf(n)), 1)
	}
	r.asked = nil
	require.Empty(t, returnsOf(t, l, r, 2*day, idOf(5)))
	require.Empty(t, returnsOf(t, l, r, 2*day, idOf(3)), "of the generation before")
	require.Empty(t, r.asked)
	require.Empty(t, returnsOf(t, l, r, 2*day, idOf(0)))
	require.Equal(t, []backend.ID{idOf(0)}, r.asked)
}

func TestUsageIsWrittenAlthoughItCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := &asked{recorder: newRecorder(), err: errDown}, usagelog.New(10)
		l.Watch(idle)
		id := idOf(1)
		l.Count(id, day)
		require.NoError(t, l.Flush(t.Context(), r, lostNothing(t)))
		found, err := l.Returns()
		require.ErrorIs(t, err, errDown, "it may have been the first use")
		require.Empty(t, found)
		_, err = l.Returns()
		require.NoError(t, err, "that is told once")

		r.err, r.hangs = nil, true
		l.Count(idOf(2), day)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, l.Flush(ctx, r, lostNothing(t)), "the time is not all spent on an event")
		require.Equal(t, uint64(1), r.used[idOf(2)].N)
	})
}

func TestAReturnIsToldOnceItsUseIsWritten(t *testing.T) {
	r, l := &asked{recorder: newRecorder()}, usagelog.New(10)
	l.Watch(idle)
	r.fails = func(call int) error {
		switch call {
		case 1:
			return errDown
		case 2:
			return backend.ErrIndeterminate
		}
		return nil
	}
	l.Count(idOf(1), day)
	require.ErrorIs(t, l.Flush(t.Context(), r, lostNothing(t)), errDown)
	found, err := l.Returns()
	require.NoError(t, err)
	require.Empty(t, found, "it was surely not written, and will be")

	dropped := 0
	require.Error(t, l.Flush(t.Context(), r, func(error) { dropped++ }))
	require.Equal(t, 1, dropped)
	found, err = l.Returns()
	require.NoError(t, err)
	require.Equal(t, map[backend.ID]usagelog.Return{idOf(1): {Last: day}}, found, "it may have been written, and would be known for ever")
}
