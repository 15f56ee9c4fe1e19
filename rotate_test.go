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
	require.Equal(t, "app-42", cred.Subject().Name)
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
	require.NoError(t, m.Disable(t.Context(), disabled.ID(), ""))
	_, expired := mustIssue(t, m, fob.KeySpec{TTL: time.Second})
	_, cutOff := mustIssue(t, m, fob.KeySpec{Subject: fob.App("s")})
	_, err = m.Revoke(t.Context(), fob.App("s"), "")
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

	mustVerify(t, m, old)
	status, err := m.RotationStatus(t.Context(), oldKey.ID())
	require.NoError(t, err)
	require.False(t, status.OldStillUsed, "that use may have asked for the rotation")
	clock.Add(2 * time.Hour)
	require.Zero(t, sweep(), "quiet, but nobody has the successor yet")
	mustVerify(t, m, old)
	status, err = m.RotationStatus(t.Context(), oldKey.ID())
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
				successor := cred.Successor()
				require.False(t, successor.IsZero())
				secret, _, err = again.RotateKey(t.Context(), successor, fob.Rotation{})
				require.NoError(t, err)
				mustVerify(t, again, secret.Reveal())
				continue
			}
			require.NoError(t, err, "cut off after %d calls", n)
			mustVerify(t, again, secret.Reveal())
			mustVerify(t, again, old)
			page, err := again.List(t.Context(), fob.Query{Subject: fob.App("app-42"), Status: fob.StatusActive})
			require.NoError(t, err)
			require.Len(t, page.Items, 2, "cut off after %d calls: no key is left over", n)
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
					} else if !errors.Is(err, fob.ErrAlready) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.Len(t, secrets, 1, "round %d", round)
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
			if c.Op != backendtest.OpGet && c.Op != backendtest.OpPut {
				return backendtest.Injection{} // the feed's
			}
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
		require.Empty(t, page.Items, "no successor is left over")
	}
}

// atPut makes inj happen to the nth write.
func atPut(fault *backendtest.Fault, n int, inj backendtest.Injection) {
	puts := 0
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpPut {
			if puts++; puts == n {
				return inj
			}
		}
		return backendtest.Injection{}
	})
}

// The last step was made, and its answer lost: the rotation is complete, and its
// successor must not be taken for a left-over.
func TestARotationWhoseLastAnswerIsLostIsComplete(t *testing.T) {
	const lastStep = 3
	for name, lose := range map[string]func(fault *backendtest.Fault, other *fob.Manager, id fob.ID){
		"alone": func(fault *backendtest.Fault, _ *fob.Manager, _ fob.ID) {
			atPut(fault, lastStep, backendtest.LostAck())
		},
		"and the look after it": func(fault *backendtest.Fault, _ *fob.Manager, _ fob.ID) {
			puts, looked := 0, false
			fault.Inject(func(c backendtest.Call) backendtest.Injection {
				switch {
				case c.Op == backendtest.OpPut:
					if puts++; puts == lastStep {
						return backendtest.LostAck()
					}
				case c.Op == backendtest.OpGet && puts == lastStep && !looked:
					looked = true
					return backendtest.Unavailable()
				}
				return backendtest.Injection{}
			})
		},
		"and the key was renamed": func(fault *backendtest.Fault, other *fob.Manager, id fob.ID) {
			inj := backendtest.LostAck()
			inj.After = func() {
				name := "renamed"
				_, err := other.UpdateKey(context.Background(), id, fob.KeyUpdate{Name: &name})
				require.NoError(t, err)
			}
			atPut(fault, lastStep, inj)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inner := memory.New()
			fault := backendtest.NewFault(inner)
			m := newManager(t, fault, fob.Config{})
			old, key := mustIssue(t, m, fob.KeySpec{})
			lose(fault, newManager(t, inner, fob.Config{}), key.ID())
			secret, next, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
			fault.Inject(nil)
			require.NoError(t, err)
			require.Equal(t, next.ID(), mustVerify(t, m, secret.Reveal()).ID())
			mustReject(t, m, old, fob.ErrRetired)
		})
	}
}

// Nobody can say whether the last step was made: the successor stays, so that
// either it or the old key can be rotated.
func TestARotationOfUnknownOutcomeLeavesAKeyToRotate(t *testing.T) {
	for name, inj := range map[string]backendtest.Injection{
		"made":     backendtest.LostAck(),
		"not made": {Fail: backendtest.LostAck().Lose},
	} {
		t.Run(name, func(t *testing.T) {
			fault := backendtest.NewFault(memory.New())
			m := newManager(t, fault, fob.Config{})
			_, key := mustIssue(t, m, fob.KeySpec{})
			puts := 0
			fault.Inject(func(c backendtest.Call) backendtest.Injection {
				if c.Op == backendtest.OpPut {
					puts++
				}
				switch {
				case puts < 3:
					return backendtest.Injection{}
				case puts == 3 && c.Op == backendtest.OpPut:
					return inj
				}
				return backendtest.Unavailable()
			})
			_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
			fault.Inject(nil)
			require.ErrorIs(t, err, fob.ErrIndeterminate)
			secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
			if name == "made" {
				require.ErrorIs(t, err, fob.ErrConflict)
				cred, err := m.Get(t.Context(), key.ID())
				require.NoError(t, err)
				secret, _, err = m.RotateKey(t.Context(), cred.Successor(), fob.Rotation{})
				require.NoError(t, err)
				mustVerify(t, m, secret.Reveal())
				return
			}
			require.NoError(t, err)
			mustVerify(t, m, secret.Reveal())
		})
	}
}

// Another attempt finishes between the last step of this one and its look: the
// successor has the other one's secret, and this one's must not be handed out.
func TestALostAnswerDoesNotHideAnotherRotation(t *testing.T) {
	inner := memory.New()
	fault := backendtest.NewFault(inner)
	m, other := newManager(t, fault, fob.Config{}), newManager(t, inner, fob.Config{})
	_, key := mustIssue(t, m, fob.KeySpec{})
	var theirs string
	atPut(fault, 3, backendtest.Injection{
		Fail: backendtest.LostAck().Lose, // not made, and nobody knows
		Before: func() {
			secret, _, err := other.RotateKey(context.Background(), key.ID(), fob.Rotation{})
			require.NoError(t, err)
			theirs = secret.Reveal()
		},
	})
	secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
	fault.Inject(nil)
	require.ErrorIs(t, err, fob.ErrConflict)
	require.True(t, secret.IsZero())
	mustVerify(t, m, theirs)
}

// A Verify that renews the digest of the old key changes nothing of its rotation.
func TestARehashDoesNotFailARotation(t *testing.T) {
	for step := 1; step <= 4; step++ { // the first is the check value of the pepper
		store := memory.New()
		text, key := mustIssue(t, newManager(t, store, fob.Config{}), fob.KeySpec{})
		cfg := fob.Config{Peppers: []fob.Pepper{{ID: "p1", Key: make([]byte, 32)}}}
		fault := backendtest.NewFault(store)
		m, user := newManager(t, fault, cfg), newManager(t, store, cfg)
		atPut(fault, step, backendtest.Injection{Before: func() { mustVerify(t, user, text) }})
		secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: time.Hour})
		fault.Inject(nil)
		require.NoError(t, err, "rehashed before write %d", step)
		mustVerify(t, m, secret.Reveal())
		mustVerify(t, newManager(t, store, cfg), text)
	}
}

// What was changed of the old key meanwhile is not in the successor: a right that
// was just taken away must not come back with it.
func TestAChangeDuringARotationWins(t *testing.T) {
	for step := 1; step <= 3; step++ {
		inner := memory.New()
		fault := backendtest.NewFault(inner)
		m, other := newManager(t, fault, fob.Config{}), newManager(t, inner, fob.Config{})
		text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"read", "write"}})
		atPut(fault, step, backendtest.Injection{Before: func() {
			less := fob.Scopes{"read"}
			_, err := other.UpdateKey(context.Background(), key.ID(), fob.KeyUpdate{Scopes: &less})
			require.NoError(t, err)
		}})
		_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
		fault.Inject(nil)
		require.ErrorIs(t, err, fob.ErrConflict)
		mustVerify(t, m, text)
		secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
		require.NoError(t, err)
		require.False(t, mustVerify(t, m, secret.Reveal()).Allows("write"))
	}
}

// An operator disables the key that an unfinished rotation left: nobody answers
// for it. The next attempt must not enable it.
func TestATakeoverLeavesAloneWhatWasDisabled(t *testing.T) {
	clock := newClock()
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{Clock: clock.Now})
	_, key := mustIssue(t, m, fob.KeySpec{})
	clock.Add(time.Second)
	fault.CrashAfter(2, backendtest.OpPut)
	_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
	require.Error(t, err)
	fault.Inject(nil)
	page, err := m.List(t.Context(), fob.Query{})
	require.NoError(t, err)
	require.Len(t, page.Items, 2)
	left := page.Items[1].ID()
	require.Equal(t, key.ID(), page.Items[0].ID())
	require.NoError(t, m.Disable(t.Context(), left, ""))
	secret, next, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
	require.NoError(t, err)
	mustVerify(t, m, secret.Reveal())
	require.NotEqual(t, left, next.ID())
	cred, err := m.Get(t.Context(), left)
	require.NoError(t, err)
	require.Equal(t, fob.StatusDisabled, cred.StatusAt(clock.Now()))
}

func TestALimitSetLaterHoldsForTheSuccessor(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	update := func(id fob.ID, ends time.Time) {
		_, err := m.UpdateKey(t.Context(), id, fob.KeyUpdate{ExpiresAt: &ends})
		require.NoError(t, err)
	}
	rotate := func(id fob.ID) *fob.Key {
		_, next, err := m.RotateKey(t.Context(), id, fob.Rotation{})
		require.NoError(t, err)
		return next
	}
	_, key := mustIssue(t, m, fob.KeySpec{})
	clock.Add(time.Hour)
	update(key.ID(), clock.Now().Add(24*time.Hour))
	clock.Add(time.Hour)
	update(key.ID(), clock.Now().Add(23*time.Hour)) // the same: still a day
	next := rotate(key.ID())
	require.Equal(t, clock.Now().Add(24*time.Hour), next.ExpiresAt())
	update(next.ID(), time.Time{})
	require.Zero(t, rotate(next.ID()).ExpiresAt(), "a limit that was taken away")
}

// An attempt that did not finish leaves its own deadline behind.
func TestTheLastAttemptsDeadlineCounts(t *testing.T) {
	clock := newClock()
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{Clock: clock.Now})
	text, key := mustIssue(t, m, fob.KeySpec{})
	fault.CrashAfter(3, backendtest.OpPut)
	_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: 3 * time.Hour, QuietTime: time.Hour})
	require.Error(t, err)
	fault.Inject(nil)
	secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: 1000 * time.Hour, QuietTime: time.Hour})
	require.NoError(t, err)
	mustVerify(t, m, secret.Reveal())
	sweep := func() int { s, err := m.Sweep(t.Context()); require.NoError(t, err); return s.Retired }
	for range 8 { // in use for four hours more, then quiet
		clock.Add(30 * time.Minute)
		mustVerify(t, m, text)
		require.Zero(t, sweep())
	}
	clock.Add(2 * time.Hour)
	require.Equal(t, 1, sweep())
}

func TestASuccessorThatWouldNeverBeValid(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	_, key := mustIssue(t, m, fob.KeySpec{NotBefore: time.Now().Add(48 * time.Hour)})
	_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{TTL: time.Hour})
	require.ErrorIs(t, err, fob.ErrInvalid)
	_, _, err = m.RotateKey(t.Context(), key.ID(), fob.Rotation{TTL: 49 * time.Hour})
	require.NoError(t, err)
}

// A rotation never moves a key from one environment to another.
func TestARotationStaysInItsEnvironment(t *testing.T) {
	store := memory.New()
	_, key := mustIssue(t, newManager(t, store, fob.Config{Prefix: "acme_test"}), fob.KeySpec{})
	for name, c := range map[string]struct {
		cfg  fob.Config
		want error
	}{
		"another environment": {fob.Config{OtherPrefixes: []string{"acme_test"}}, fob.ErrWrongEnvironment},
		"nobody knows whose":  {fob.Config{}, fob.ErrInvalid},
	} {
		secret, _, err := newManager(t, store, c.cfg).RotateKey(t.Context(), key.ID(), fob.Rotation{})
		require.ErrorIs(t, err, c.want, name)
		require.True(t, secret.IsZero())
	}
	m := newManager(t, store, fob.Config{RetiredPrefixes: []string{"acme_test"}})
	secret, next, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
	require.NoError(t, err)
	require.Equal(t, "acme_live", next.Prefix(), "one that is no longer issued gives way")
	mustVerify(t, m, secret.Reveal())
}

// "Not at all" is a state, not an instant: clocks step back, and the other host's
// is late.
func TestARetiredKeyStaysRetiredWhateverTheClockSays(t *testing.T) {
	rotate := func(m *fob.Manager, id fob.ID, rotation fob.Rotation) string {
		secret, _, err := m.RotateKey(t.Context(), id, rotation)
		require.NoError(t, err)
		return secret.Reveal()
	}
	for name, retire := range map[string]func(m *fob.Manager, clock *testClock, id fob.ID){
		"no overlap": func(m *fob.Manager, _ *testClock, id fob.ID) {
			rotate(m, id, fob.Rotation{})
		},
		"early": func(m *fob.Manager, clock *testClock, id fob.ID) {
			mustVerify(t, m, rotate(m, id, fob.Rotation{Overlap: 24 * time.Hour, QuietTime: time.Hour}))
			clock.Add(2 * time.Hour)
			swept, err := m.Sweep(t.Context())
			require.NoError(t, err)
			require.Equal(t, 1, swept.Retired)
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			clock, late := newClock(), newClock()
			clock.Add(time.Hour)
			cfg := clocked(tokenConfig(), clock)
			m := newManager(t, store, cfg)
			other := newManager(t, bare{store}, clocked(cfg, late))
			text, key := mustIssue(t, m, fob.KeySpec{TTL: 1000 * time.Hour})
			issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{TTL: time.Hour})
			require.NoError(t, err)
			retire(m, clock, key.ID())
			mustReject(t, m, text, fob.ErrRetired)
			clock.Add(-3 * time.Hour)
			for range 2 { // read, and from the cache
				mustReject(t, m, text, fob.ErrRetired)
				mustReject(t, other, text, fob.ErrRetired)
			}
			late.Add(time.Hour)
			mustReject(t, other, issued.Access.Reveal(), fob.ErrRetired)

			status, err := m.RotationStatus(t.Context(), key.ID())
			require.NoError(t, err)
			require.True(t, status.Retired)
			require.Equal(t, fob.StatusExpired, status.Old.StatusAt(clock.Now()))
			later := clock.Now().Add(10000 * time.Hour)
			_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &later})
			require.NoError(t, err)
			mustReject(t, m, text, fob.ErrRetired)
			_, _, err = m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
			require.ErrorIs(t, err, fob.ErrConflict)
		})
	}
}

func TestEveryRotationIsLookedAt(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	rotate := func() string {
		_, key := mustIssue(t, m, fob.KeySpec{})
		secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: 1000 * time.Hour, QuietTime: time.Hour})
		require.NoError(t, err)
		clock.Add(time.Millisecond)
		return secret.Reveal()
	}
	sweep := func() int { s, err := m.Sweep(t.Context()); require.NoError(t, err); return s.Retired }
	first := rotate()
	for range 999 { // never used: not quiet
		rotate()
	}
	mustVerify(t, m, rotate())
	clock.Add(2 * time.Hour)
	require.Zero(t, sweep())
	require.Equal(t, 1, sweep(), "the next sweep goes on where this one ended")
	mustVerify(t, m, first)
	clock.Add(2 * time.Hour)
	require.Equal(t, 1, sweep(), "and begins again at the end")
}

// Whatever two things go wrong, and whoever else rotates the key meanwhile: a
// secret that is handed out works, and some key is left that works or can be
// rotated.
func TestNoTwoFaultsLeaveAnApplicationWithoutAKey(t *testing.T) {
	unknown := backendtest.LostAck().Lose
	type mishap struct {
		name string
		inj  func(other func()) backendtest.Injection
	}
	mishaps := []mishap{
		{"answer lost", func(func()) backendtest.Injection { return backendtest.LostAck() }},
		{"not made, unknown", func(func()) backendtest.Injection { return backendtest.Injection{Fail: unknown} }},
		{"unavailable", func(func()) backendtest.Injection { return backendtest.Unavailable() }},
		{"rotated before", func(other func()) backendtest.Injection { return backendtest.Injection{Before: other} }},
		{"rotated after", func(other func()) backendtest.Injection { return backendtest.Injection{After: other} }},
	}
	const calls = 9
	clock := newClock() // stands still: nothing may be told apart by its time
	for _, a := range mishaps {
		for _, b := range mishaps {
			for first := range calls {
				for second := range calls {
					inner := memory.New()
					fault := backendtest.NewFault(inner)
					m := newManager(t, fault, fob.Config{Clock: clock.Now, CacheEntries: 64})
					other := newManager(t, inner, fob.Config{Clock: clock.Now, CacheEntries: 64})
					old, key := mustIssue(t, m, fob.KeySpec{})
					var secrets []string
					rotate := func(by *fob.Manager) {
						if secret, _, err := by.RotateKey(context.Background(), key.ID(), fob.Rotation{}); err == nil {
							secrets = append(secrets, secret.Reveal())
						}
					}
					n := -1
					fault.Inject(func(c backendtest.Call) backendtest.Injection {
						if c.Op != backendtest.OpGet && c.Op != backendtest.OpPut {
							return backendtest.Injection{}
						}
						switch n++; n {
						case first:
							return a.inj(func() { rotate(other) })
						case first + 1 + second:
							return b.inj(func() { rotate(other) })
						}
						return backendtest.Injection{}
					})
					rotate(m)
					fault.Inject(nil)
					where := []any{"%s at call %d, %s %d later", a.name, first, b.name, second + 1}
					require.LessOrEqual(t, len(secrets), 1, where...)
					for _, secret := range secrets {
						mustVerify(t, m, secret)
						mustReject(t, m, old, fob.ErrRetired)
					}
					if len(secrets) == 0 {
						cred, err := m.Get(t.Context(), key.ID())
						require.NoError(t, err)
						id := key.ID()
						if next := cred.Successor(); !next.IsZero() {
							id = next
						}
						_, _, err = m.RotateKey(t.Context(), id, fob.Rotation{})
						require.NoError(t, err, where...)
					}
					require.NoError(t, m.Close())
					require.NoError(t, other.Close())
				}
			}
		}
	}
}
