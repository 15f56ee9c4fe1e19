package fob_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func TestRotationWithOverlap(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	old, oldKey := mustIssue(t, m, fob.KeySpec{Name: "n", Scopes: fob.Scopes{"a"}, Tags: []string{"t"}, TTL: 48 * time.Hour})
	mustVerify(t, m, old)
	clock.Add(time.Hour)
	secret, next, err := m.RotateKey(t.Context(), oldKey.ID(), fob.Rotation{Overlap: 24 * time.Hour})
	require.NoError(t, err)
	fresh := secret.Reveal()
	require.Equal(t, oldKey.ID(), next.Predecessor())
	require.Equal(t, clock.Now().Add(48*time.Hour), next.ExpiresAt(), "the same lifetime, from now")

	cred := mustVerify(t, m, fresh)
	require.Equal(t, "app-42", cred.Subject())
	require.Equal(t, fob.Scopes{"a"}, cred.Scopes())
	require.Equal(t, "n", cred.(*fob.Key).Name())
	require.Equal(t, []string{"t"}, cred.(*fob.Key).Tags())
	cred = mustVerify(t, m, old)
	require.Equal(t, next.ID(), cred.(*fob.Key).Successor())
	require.Equal(t, clock.Now().Add(24*time.Hour), cred.ExpiresAt())

	_, _, err = m.RotateKey(t.Context(), oldKey.ID(), fob.Rotation{})
	require.ErrorIs(t, err, fob.ErrConflict, "it has been rotated: rotate its successor")

	clock.Add(24*time.Hour - time.Millisecond)
	mustVerify(t, m, old)
	clock.Add(time.Millisecond)
	mustReject(t, m, old, fob.ErrRetired)
	mustReject(t, m, old, fob.ErrExpired)
	mustVerify(t, m, fresh)
}

func TestRotationWithoutOverlapEndsTheOldKeyAtOnce(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	old, key := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, old)
	secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
	require.NoError(t, err)
	mustReject(t, m, old, fob.ErrRetired)
	mustVerify(t, m, secret.Reveal())
}

func TestWhatCannotBeRotated(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	_, revoked := mustIssue(t, m, fob.KeySpec{})
	_, err := m.Revoke(t.Context(), revoked.ID(), "")
	require.NoError(t, err)
	_, disabled := mustIssue(t, m, fob.KeySpec{})
	require.NoError(t, m.Disable(t.Context(), disabled.ID()))
	_, expired := mustIssue(t, m, fob.KeySpec{TTL: time.Second})
	_, cutOff := mustIssue(t, m, fob.KeySpec{Subject: "s"})
	_, err = m.RevokeSubject(t.Context(), "s", "")
	require.NoError(t, err)
	_, sound := mustIssue(t, m, fob.KeySpec{})
	clock.Add(time.Minute)
	for _, c := range []struct {
		id       fob.ID
		rotation fob.Rotation
		want     error
	}{
		{revoked.ID(), fob.Rotation{}, fob.ErrRevoked},
		{disabled.ID(), fob.Rotation{}, fob.ErrDisabled},
		{expired.ID(), fob.Rotation{}, fob.ErrExpired},
		{cutOff.ID(), fob.Rotation{}, fob.ErrRevoked},
		{fob.ID{7}, fob.Rotation{}, fob.ErrNotFound},
		{sound.ID(), fob.Rotation{Overlap: -1}, fob.ErrInvalid},
		{sound.ID(), fob.Rotation{TTL: -1}, fob.ErrInvalid},
		{sound.ID(), fob.Rotation{Overlap: time.Hour, QuietTime: time.Second}, fob.ErrInvalid},
	} {
		secret, next, err := m.RotateKey(t.Context(), c.id, c.rotation)
		require.ErrorIs(t, err, c.want)
		require.True(t, secret.IsZero())
		require.Nil(t, next)
	}
}

func TestARotatedKeyRetiresEarlyOnceItIsQuiet(t *testing.T) {
	clock := newClock()
	seen := &observed{}
	m := newManager(t, nil, fob.Config{Clock: clock.Now, Observer: seen})
	old, oldKey := mustIssue(t, m, fob.KeySpec{})
	secret, next, err := m.RotateKey(t.Context(), oldKey.ID(), fob.Rotation{Overlap: 24 * time.Hour, QuietTime: time.Hour})
	require.NoError(t, err)
	fresh := secret.Reveal()
	sweep := func() int { s, err := m.Sweep(t.Context()); require.NoError(t, err); return s.Retired }

	clock.Add(2 * time.Hour)
	require.Zero(t, sweep(), "quiet, but nobody has the successor yet")
	mustVerify(t, m, old)
	status, err := m.RotationStatus(t.Context(), oldKey.ID())
	require.NoError(t, err)
	require.True(t, status.OldStillUsed)
	require.False(t, status.Retired)
	require.Zero(t, status.SuccessorUsage.Count)
	require.Equal(t, next.ID(), status.Successor.ID())

	clock.Add(time.Minute)
	mustVerify(t, m, fresh)
	require.Zero(t, sweep(), "the old key was used a minute ago")
	clock.Add(59*time.Minute - time.Millisecond)
	require.Zero(t, sweep())
	clock.Add(time.Millisecond)
	require.Equal(t, 1, sweep())
	mustReject(t, m, old, fob.ErrRetired)
	mustVerify(t, m, fresh)
	require.Contains(t, seen.types(), fob.EventRetired)
	status, err = m.RotationStatus(t.Context(), oldKey.ID())
	require.NoError(t, err)
	require.True(t, status.Retired)
	require.Equal(t, clock.Now(), status.RetiresAt)
	require.Zero(t, sweep())
	_, err = m.RotationStatus(t.Context(), next.ID())
	require.ErrorIs(t, err, fob.ErrNotFound, "it has not been rotated")
}

// A rotation is cut off after each of its store calls in turn: the old key must
// work until a rotation has returned, and the next attempt must come through.
func TestARotationCutOffAnywhereCanBeCalledAgain(t *testing.T) {
	rotation := fob.Rotation{Overlap: time.Hour, QuietTime: 10 * time.Minute}
	for lost := range 2 {
		for n := 0; ; n++ {
			fault := backendtest.NewFault(memory.New())
			m := newManager(t, fault, fob.Config{})
			old, key := mustIssue(t, m, fob.KeySpec{})
			if lost == 0 {
				fault.CrashAfter(n)
			} else { // the call is made, then the process ends before it knows
				left := n
				fault.Inject(func(backendtest.Call) backendtest.Injection {
					if left--; left < -1 {
						return backendtest.Unavailable()
					} else if left == -1 {
						return backendtest.LostAck()
					}
					return backendtest.Injection{}
				})
			}
			secret, _, err := m.RotateKey(t.Context(), key.ID(), rotation)
			fault.Inject(nil)
			if err == nil {
				require.Greater(t, n, 5, "it has that many steps")
				mustVerify(t, m, secret.Reveal())
				mustVerify(t, m, old)
				break
			}
			require.True(t, secret.IsZero())
			again := newManager(t, fault, fob.Config{}) // a new process
			mustVerify(t, again, old)
			secret, next, err := again.RotateKey(t.Context(), key.ID(), rotation)
			if errors.Is(err, fob.ErrConflict) {
				// The last step had been made: the rotation is complete, its secret is lost,
				// and the old key says who replaced it.
				require.Equal(t, 1, lost)
				cred, err := again.Get(t.Context(), key.ID())
				require.NoError(t, err)
				successor := cred.(*fob.Key).Successor()
				require.False(t, successor.IsZero())
				secret, _, err = again.RotateKey(t.Context(), successor, fob.Rotation{})
				require.NoError(t, err)
				mustVerify(t, again, secret.Reveal())
				continue
			}
			require.NoError(t, err, "cut off after %d calls", n)
			mustVerify(t, again, secret.Reveal())
			mustVerify(t, again, old)
			page, err := again.List(t.Context(), fob.Query{Subject: "app-42", Status: fob.StatusActive})
			require.NoError(t, err)
			require.Len(t, page.Credentials, 2, "cut off after %d calls: no key is left over", n)
			require.Equal(t, key.ID(), next.Predecessor())
		}
	}
}

func TestOfManyRotationsAtOnceExactlyOneWins(t *testing.T) {
	for round := range 30 {
		m := newManager(t, nil, fob.Config{})
		old, key := mustIssue(t, m, fob.KeySpec{})
		var mu sync.Mutex
		var secrets []string
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 3 {
					secret, _, err := m.RotateKey(context.Background(), key.ID(), fob.Rotation{Overlap: time.Hour})
					if err == nil {
						mu.Lock()
						secrets = append(secrets, secret.Reveal())
						mu.Unlock()
					} else if !errors.Is(err, fob.ErrConflict) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.LessOrEqual(t, len(secrets), 1, "round %d", round)
		if len(secrets) == 0 { // all met each other; the next one comes through
			secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: time.Hour})
			require.NoError(t, err)
			secrets = append(secrets, secret.Reveal())
		}
		mustVerify(t, m, secrets[0])
		mustVerify(t, m, old)
	}
}

func TestARevokeDuringARotationWins(t *testing.T) {
	for step := range 12 {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, fault, fob.Config{})
		old, key := mustIssue(t, m, fob.KeySpec{})
		n, done := 0, false
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if n++; n != step+1 || done {
				return backendtest.Injection{}
			}
			done = true
			return backendtest.Injection{Before: func() {
				_, err := m.Revoke(context.Background(), key.ID(), "leaked")
				require.NoError(t, err)
			}}
		})
		secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: time.Hour})
		fault.Inject(nil)
		if !done {
			require.NoError(t, err)
			break
		}
		require.Error(t, err, "revoked before call %d", step+1)
		require.True(t, secret.IsZero())
		mustReject(t, m, old, fob.ErrRevoked)
		page, err := m.List(t.Context(), fob.Query{Status: fob.StatusActive})
		require.NoError(t, err)
		require.Empty(t, page.Credentials, "no successor is left over")
	}
}
