package tokenring_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/tokenring"
	"github.com/stretchr/testify/require"
)

// follower follows the keys of a source that a test can break and change.
type follower struct {
	*tokenring.Fetcher
	clock clock.Clock
	now   time.Time
	keys  []tokenring.Key
	err   error
	asked int
	gone  int
}

func newFollower(t *testing.T) *follower {
	f := &follower{now: time.UnixMilli(1_700_000_000_000), keys: []tokenring.Key{drawn(t)}}
	f.clock.Start(func() time.Time { return f.now }, 24*time.Hour)
	f.Fetcher = tokenring.NewFetcher(func(context.Context) ([]tokenring.Key, error) {
		f.asked++
		return f.keys, f.err
	}, &f.clock, func() { f.gone++ })
	return f
}

func drawn(t *testing.T) tokenring.Key {
	k, err := tokenring.Draw(paseto.V4Public, 0)
	require.NoError(t, err)
	return k
}

func (f *follower) find(t *testing.T, id string) error {
	k, err := f.Find(t.Context(), id, f.clock.Now())
	if err == nil {
		require.Equal(t, id, k.ID)
	}
	return err
}

// TestKeysAreFetchedWhenTheyAreUnknownOrOld, and no more often than that.
func TestKeysAreFetchedWhenTheyAreUnknownOrOld(t *testing.T) {
	f := newFollower(t)
	require.False(t, f.Good(f.clock.Now()))
	f.Renew(t.Context(), f.clock.Now())
	require.Zero(t, f.asked, "nobody has asked for a key")
	old := f.keys[0].ID
	require.NoError(t, f.find(t, old))
	require.NoError(t, f.find(t, old))
	require.True(t, f.Good(f.clock.Now()))
	require.Equal(t, 1, f.asked)

	f.keys = []tokenring.Key{drawn(t)}
	require.Equal(t, errs.ErrTokenKey, f.find(t, f.keys[0].ID), "the source was asked less than a second ago")
	require.Equal(t, 1, f.asked)
	f.now = f.now.Add(time.Second)
	require.NoError(t, f.find(t, f.keys[0].ID))
	require.Equal(t, 2, f.asked)
	require.Equal(t, 1, f.gone)
	require.Equal(t, errs.ErrTokenKey, f.find(t, old))
	require.Equal(t, errs.ErrTokenKey, f.find(t, ""))

	for _, c := range []struct {
		later time.Duration
		asked int
	}{{15*time.Second - 1, 0}, {1, 1}, {time.Second, 0}} {
		f.now, f.asked = f.now.Add(c.later), 0
		f.Renew(t.Context(), f.clock.Now())
		require.Equal(t, c.asked, f.asked, c.later)
	}
	require.Equal(t, 1, f.gone, "the keys are the same")
}

// TestASourceThatFailsMakesNoTokenBad: what is known goes on for an hour, what is not known
// could not be looked at.
func TestASourceThatFailsMakesNoTokenBad(t *testing.T) {
	for name, breaks := range map[string]func(*follower){
		"an error":     func(f *follower) { f.err = errors.New("down") },
		"no keys":      func(f *follower) { f.keys = nil },
		"a rejection":  func(f *follower) { f.err = errs.ErrRevoked },
		"out of reach": func(f *follower) { f.err = context.DeadlineExceeded },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFollower(t)
			known := f.keys[0].ID
			require.NoError(t, f.find(t, known))
			breaks(f)
			f.now = f.now.Add(time.Second)
			err := f.find(t, "k4.pid.unknown")
			require.Error(t, err)
			require.NotErrorIs(t, err, errs.ErrRejected)
			require.NoError(t, f.find(t, known))
			f.now = f.now.Add(time.Hour - time.Second - 1)
			require.NoError(t, f.find(t, known))
			f.now = f.now.Add(1)
			require.False(t, f.Good(f.clock.Now()))
			err = f.find(t, known)
			require.Error(t, err)
			require.NotErrorIs(t, err, errs.ErrRejected)
			require.Zero(t, f.gone)
		})
	}
}

// TestASourceThatFailsIsAskedLessOften: after a pause that doubles up to a minute.
func TestASourceThatFailsIsAskedLessOften(t *testing.T) {
	f := newFollower(t)
	require.NoError(t, f.find(t, f.keys[0].ID))
	f.err = errors.New("down")
	f.now = f.now.Add(15 * time.Second)
	f.asked = 0
	var pauses []int
	for last, s := 0, 0; s < 200; s++ {
		f.Renew(t.Context(), f.clock.Now())
		if f.asked > 0 {
			pauses, last, f.asked = append(pauses, s-last), s, 0
		}
		f.now = f.now.Add(time.Second)
	}
	require.Equal(t, []int{0, 1, 2, 4, 8, 16, 32, 60, 60}, pauses)
}
