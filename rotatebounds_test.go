package fob_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// TestHowShortAQuietTimeMayBe: twice what this process takes to write usage, and twice what
// any other takes, whose setting the error names.
func TestHowShortAQuietTimeMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer func() { require.NoError(t, store.Close()) }()
		quick := newManager(t, bare{store}, fob.Config{UsageInterval: 10 * time.Minute})
		rotate := func(quiet time.Duration) error {
			_, key := mustIssue(t, quick, fob.KeySpec{})
			_, _, err := quick.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: 100 * time.Hour, QuietTime: quiet})
			return err
		}
		for _, short := range []time.Duration{1, 10 * time.Minute, 20*time.Minute - 1} {
			require.ErrorIs(t, rotate(short), fob.ErrInvalid, short)
		}
		require.NoError(t, rotate(20*time.Minute))

		slow := newManager(t, store, fob.Config{UsageInterval: time.Hour})
		pass(2 * time.Minute) // the others know
		for _, short := range []time.Duration{20 * time.Minute, time.Hour, 2*time.Hour - 1} {
			err := rotate(short)
			require.ErrorIs(t, err, fob.ErrInvalid, short)
			require.ErrorContains(t, err, "want 2h0m0s")
		}
		require.NoError(t, rotate(2*time.Hour))
		require.NoError(t, rotate(0))
		require.NoError(t, slow.Close())

		// What says so cannot be read: that is of no concern to who wants no quiet time.
		for _, rec := range mustList(t, store, fob.RecordFleet) {
			rec.Body[len(rec.Body)-1] ^= 1
			_, err := store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
			require.NoError(t, err)
		}
		require.ErrorIs(t, rotate(2*time.Hour), fob.ErrCorrupt)
		require.NoError(t, rotate(0))
		require.NoError(t, quick.Close())
	})
}

// TestARotationNamesBothKeys: the old key gave way, and another one was issued.
func TestARotationNamesBothKeys(t *testing.T) {
	seen := &observed{}
	m := newManager(t, nil, fob.Config{Observer: seen})
	_, key := mustIssue(t, m, fob.KeySpec{})
	seen.take()
	_, next, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
	require.NoError(t, err)
	told := seen.take()
	require.Len(t, told, 1)
	require.Equal(t, fob.EventRotated, told[0].Type)
	require.Equal(t, key.ID(), told[0].ID)
	require.Equal(t, next.ID(), told[0].Other)
	for _, e := range told {
		require.Equal(t, "app-42", e.Subject.Name)
	}
}

// TestTheSuccessorOfWhoWasLetInAgainIsLetInToo: it is of the time after the revocation.
func TestTheSuccessorOfWhoWasLetInAgainIsLetInToo(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	_, err := m.Revoke(t.Context(), fob.App("app-42"), "")
	require.NoError(t, err)
	_, key := mustIssue(t, m, fob.KeySpec{})
	secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
	require.NoError(t, err)
	mustVerify(t, m, secret.Reveal())
}

// TestTheLifetimeOfASuccessor is what was asked for, in whole milliseconds and one at least,
// else that of the old key. It has to outlast the old key's NotBefore.
func TestTheLifetimeOfASuccessor(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	for ttl, want := range map[time.Duration]time.Duration{
		0: time.Hour, 1: time.Millisecond, time.Millisecond: time.Millisecond, 2*time.Millisecond - 1: time.Millisecond, 2 * time.Hour: 2 * time.Hour,
	} {
		_, key := mustIssue(t, m, fob.KeySpec{TTL: time.Hour})
		_, next, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{TTL: ttl})
		require.NoError(t, err)
		require.Equal(t, clock.Now().Add(want), next.ExpiresAt(), "%v", ttl)
	}
	_, key := mustIssue(t, m, fob.KeySpec{NotBefore: clock.Now().Add(48 * time.Hour)})
	_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{TTL: 48 * time.Hour})
	require.ErrorIs(t, err, fob.ErrInvalid)
	_, next, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{TTL: 48*time.Hour + time.Millisecond})
	require.NoError(t, err)
	require.Equal(t, time.Millisecond, next.ExpiresAt().Sub(next.NotBefore()))
}
