package clock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/stretchr/testify/require"
)

// at is a moment so long after the process began.
func at(d time.Duration) clock.Moment {
	return clock.Moment{MS: d.Milliseconds() + 1_000_000_000, Mono: int64(d), Floor: clock.Never}
}

func TestSkewIsTheLargestThatWasLatelySeen(t *testing.T) {
	var s clock.Skew
	require.Zero(t, s.Get(at(0)))

	s.Note(at(0).MS-5_000, at(0))
	require.Zero(t, s.Get(at(0)), "a time that has come says nothing")
	s.Note(at(0).MS+5_000, at(0))
	require.Equal(t, 5*time.Second, s.Get(at(0)), "one that is to come says that the other is ahead")

	told := at(time.Minute)
	s.NoteWithin(2*time.Second, told.MS-3_000, told)
	require.Equal(t, 5*time.Second, s.Get(told), "as late as it may be, with a second's grace")
	s.NoteWithin(2*time.Second, told.MS-4_000, told)
	require.Equal(t, 5*time.Second, s.Get(told), "a smaller difference replaces no larger one")
	s.NoteWithin(2*time.Second, told.MS-7_000, told)
	require.Equal(t, -7*time.Second, s.Get(told))

	require.Equal(t, -7*time.Second, s.Get(at(time.Minute+time.Hour)))
	require.Zero(t, s.Get(at(time.Minute+time.Hour+1)), "after an hour it is over")
	s.Note(at(2*time.Hour).MS+1, at(2*time.Hour))
	require.Equal(t, time.Millisecond, s.Get(at(2*time.Hour)), "and a smaller one counts again")
}

func TestSkewAsksAnotherClock(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	var own clock.Clock
	own.Start(func() time.Time { return now }, time.Hour)
	var s clock.Skew
	s.Note(own.Now().MS+time.Hour.Milliseconds(), own.Now())

	for name, c := range map[string]struct {
		other, want time.Duration
		takes       time.Duration // how long the answer takes
	}{
		"ahead":                         {other: 9 * time.Second, want: 9 * time.Second},
		"behind":                        {other: -9 * time.Second, want: -9 * time.Second},
		"between question and answer":   {other: 3 * time.Second, takes: 5 * time.Second, want: 0},
		"ahead of the answer":           {other: 7 * time.Second, takes: 5 * time.Second, want: 2 * time.Second},
		"an answer that is long behind": {other: -4 * time.Second, takes: 5 * time.Second, want: -4 * time.Second},
	} {
		err := s.Compare(t.Context(), &own, func(context.Context) (time.Time, error) {
			theirs := now.Add(c.other)
			now = now.Add(c.takes)
			return theirs, nil
		})
		require.NoError(t, err, name)
		require.Equal(t, c.want, s.Get(own.Now()), name)
	}

	failed := errors.New("no clock")
	before := s.Get(own.Now())
	require.ErrorIs(t, s.Compare(t.Context(), &own, func(context.Context) (time.Time, error) {
		return now.Add(time.Hour), failed
	}), failed)
	require.Equal(t, before, s.Get(own.Now()))
}
