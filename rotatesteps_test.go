package fob_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// unfinished leaves a rotation of a key in the state after so many of its writes.
func unfinished(t *testing.T, store backend.Store, cfg fob.Config, id fob.ID, writes int) {
	t.Helper()
	fault := backendtest.NewFault(store)
	m := newManager(t, bare{fault}, cfg)
	fault.CrashAfter(writes, backendtest.OpPut)
	_, _, err := m.RotateKey(context.Background(), id, fob.Rotation{})
	require.ErrorIs(t, err, backend.ErrUnavailable)
}

// namedSuccessor is what a key names its successor-to-be.
func namedSuccessor(t *testing.T, store backend.Store, key *fob.Key) fob.ID {
	t.Helper()
	rec, err := store.Get(context.Background(), idOf(key))
	require.NoError(t, err)
	return fob.ID([]byte(textsOf(t, rec)[fob.FieldSuccessor]))
}

// TestAStepOfARotationThatFailsIsAnError, each read and each write of it, also where it takes
// over what another one has left; and nobody has a secret then that is not good.
func TestAStepOfARotationThatFailsIsAnError(t *testing.T) {
	for name, left := range map[string]int{"from the beginning": 0, "after the first step": 1, "after the second": 2} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				store := memory.New()
				fault := backendtest.NewFault(store)
				m := newManager(t, bare{fault}, fob.Config{})
				text, key := mustIssue(t, m, fob.KeySpec{})
				if left > 0 {
					unfinished(t, store, fob.Config{}, key.ID(), left)
				}
				rotation := fob.Rotation{Overlap: time.Hour, QuietTime: 10 * time.Minute}
				calls := onNth(fault, n, readOrWrite, backendtest.Unavailable())
				secret, next, err := m.RotateKey(t.Context(), key.ID(), rotation)
				fault.Inject(nil)
				if calls() < n {
					require.NoError(t, err)
					require.GreaterOrEqual(t, calls(), 10)
					mustVerify(t, m, secret.Reveal())
					return
				}
				require.ErrorIs(t, err, backend.ErrUnavailable, "call %d", n)
				require.NotErrorIs(t, err, fob.ErrRejected, "call %d", n)
				require.True(t, secret.IsZero())
				require.Nil(t, next)
				mustVerify(t, m, text)
				secret, _, err = m.RotateKey(t.Context(), key.ID(), rotation)
				require.NoError(t, err, "call %d", n)
				mustVerify(t, m, secret.Reveal())
				require.Len(t, mustList(t, store, fob.RecordRotation), 1, "the sweep finds it")
				require.Len(t, mustList(t, store, 1), 2, "one successor")
			}
		})
	}
}

// TestAnUnfinishedRotationIsTakenOverAtOnce: whoever left it seems to be dead, and the ID
// that it has named is the successor's, whether it was written yet or not.
func TestAnUnfinishedRotationIsTakenOverAtOnce(t *testing.T) {
	for _, writes := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			m := newManager(t, bare{store}, fob.Config{})
			_, key := mustIssue(t, m, fob.KeySpec{})
			unfinished(t, store, fob.Config{}, key.ID(), writes)
			named := namedSuccessor(t, store, key)
			began := time.Now()
			secret, next, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
			require.NoError(t, err)
			require.Zero(t, time.Since(began))
			require.Equal(t, named, next.ID())
			mustVerify(t, m, secret.Reveal())
			require.Len(t, mustList(t, store, 1), 2)
			require.NoError(t, m.Close())
		})
	}
}

// TestARotationThatRacesWithNobodyDoesNotWait: its own name in the key is nobody else's.
func TestARotationThatRacesWithNobodyDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, bare{fault}, fob.Config{})
		_, key := mustIssue(t, m, fob.KeySpec{})
		atPut(fault, 2, backendtest.Injection{Fail: backend.ErrConflict})
		began := time.Now()
		secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
		require.NoError(t, err)
		require.Zero(t, time.Since(began))
		mustVerify(t, m, secret.Reveal())
		require.NoError(t, m.Close())
	})
}

// TestARotationWaitsForTheOneThatCameLater: that one is named by the key now. If it comes
// through, this one is told so; if it seems to be dead, after 24 looks it is taken over, and
// as many looks later the next one.
func TestARotationWaitsForTheOneThatCameLater(t *testing.T) {
	for name, rivals := range map[string]int{"one that comes through": 0, "one that dies": 1, "two that die": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				fault := backendtest.NewFault(store)
				m := newManager(t, bare{fault}, fob.Config{})
				_, key := mustIssue(t, m, fob.KeySpec{})
				var theirs fob.Secret
				puts := 0
				var looks [8]int // at the key, after so many writes
				fault.Inject(func(c backendtest.Call) backendtest.Injection {
					switch {
					case c.Op == backendtest.OpGet && c.ID == idOf(key):
						looks[puts]++
					case c.Op == backendtest.OpPut:
						puts++
						if puts == 2*rivals || puts == 2 { // the successor is about to be written
							return backendtest.Injection{After: func() {
								if rivals > 0 {
									unfinished(t, store, fob.Config{}, key.ID(), 1)
									return
								}
								other := newManager(t, bare{store}, fob.Config{})
								var err error
								theirs, _, err = other.RotateKey(context.Background(), key.ID(), fob.Rotation{})
								require.NoError(t, err)
							}}
						}
					}
					return backendtest.Injection{}
				})
				secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
				fault.Inject(nil)
				if rivals == 0 {
					require.ErrorIs(t, err, fob.ErrAlready)
					require.True(t, secret.IsZero())
					mustVerify(t, m, theirs.Reveal())
				} else {
					require.NoError(t, err)
					mustVerify(t, m, secret.Reveal())
					// Before it waits it finds out twice that the last step cannot be made, and
					// after that it looks twice before it takes over.
					for round := range rivals {
						require.Equal(t, 2+24+2, looks[2+2*round], "round %d: %v", round, looks)
					}
				}
				require.NoError(t, m.Close())
			})
		})
	}
}

// TestASuccessorThatAnotherRotationDidNotUse: somebody has revoked it meanwhile, so the key
// was rotated to another one, and this one's secret is good for nothing.
func TestASuccessorThatAnotherRotationDidNotUse(t *testing.T) {
	store := memory.New()
	fault := backendtest.NewFault(store)
	m, other := newManager(t, bare{fault}, fob.Config{}), newManager(t, bare{store}, fob.Config{})
	_, key := mustIssue(t, m, fob.KeySpec{})
	var theirs fob.Secret
	atPut(fault, 3, backendtest.Injection{Before: func() {
		_, err := other.Revoke(context.Background(), namedSuccessor(t, store, key), "whose is that?")
		require.NoError(t, err)
		theirs, _, err = other.RotateKey(context.Background(), key.ID(), fob.Rotation{})
		require.NoError(t, err)
	}})
	secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
	fault.Inject(nil)
	require.ErrorIs(t, err, fob.ErrAlready)
	require.True(t, secret.IsZero())
	mustVerify(t, m, theirs.Reveal())
}

// TestTheLastStepOfARotationIsMadeSureOf: its answer is lost, and then it can be read that
// it was made. It is written once more, for what can be read need not be durable; where
// that fails, or it cannot be read whose the successor is, nobody knows.
func TestTheLastStepOfARotationIsMadeSureOf(t *testing.T) {
	for name, c := range map[string]struct {
		then  func(puts int, c backendtest.Call, key *fob.Key) backendtest.Injection
		want  error
		wrote int
	}{
		"and confirmed": {func(int, backendtest.Call, *fob.Key) backendtest.Injection { return backendtest.Injection{} }, nil, 4},
		"and fails": {func(puts int, c backendtest.Call, _ *fob.Key) backendtest.Injection {
			if c.Op == backendtest.OpPut {
				return backendtest.Unavailable()
			}
			return backendtest.Injection{}
		}, fob.ErrIndeterminate, 4},
		"and the successor cannot be read": {func(_ int, c backendtest.Call, key *fob.Key) backendtest.Injection {
			if c.Op == backendtest.OpGet && c.ID != idOf(key) {
				return backendtest.Unavailable()
			}
			return backendtest.Injection{}
		}, fob.ErrIndeterminate, 3},
	} {
		t.Run(name, func(t *testing.T) {
			fault := backendtest.NewFault(memory.New())
			m := newManager(t, bare{fault}, fob.Config{})
			text, key := mustIssue(t, m, fob.KeySpec{})
			puts, looked := 0, false
			fault.Inject(func(call backendtest.Call) backendtest.Injection {
				if call.Op == backendtest.OpPut {
					puts++
				}
				switch {
				case puts < 3:
					return backendtest.Injection{}
				case puts == 3 && call.Op == backendtest.OpPut:
					return backendtest.LostAck()
				case !looked: // the first look after it ends the step
					looked = true
					return backendtest.Unavailable()
				}
				return c.then(puts, call, key)
			})
			secret, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
			fault.Inject(nil)
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.wrote, puts)
			require.Equal(t, c.want != nil, secret.IsZero())
			mustReject(t, m, text, fob.ErrRetired)
		})
	}
}

// TestWhatASweepHasToLookAt: a rotated key that may retire early, which takes a quiet time
// and an overlap; and what was purged while it was noted is noted anew.
func TestWhatASweepHasToLookAt(t *testing.T) {
	const quiet = 10 * time.Minute
	for name, c := range map[string]struct {
		rotation fob.Rotation
		records  int
	}{
		"at once":            {fob.Rotation{}, 0},
		"after the overlap":  {fob.Rotation{Overlap: time.Hour}, 0},
		"nothing to shorten": {fob.Rotation{QuietTime: quiet}, 0},
		"early":              {fob.Rotation{Overlap: time.Hour, QuietTime: quiet}, 1},
		"a little early":     {fob.Rotation{Overlap: 1, QuietTime: quiet}, 1},
	} {
		store := memory.New()
		m := newManager(t, bare{store}, fob.Config{})
		_, key := mustIssue(t, m, fob.KeySpec{})
		_, _, err := m.RotateKey(t.Context(), key.ID(), c.rotation)
		require.NoError(t, err)
		require.Len(t, mustList(t, store, fob.RecordRotation), c.records, name)
	}

	store := memory.New()
	fault := backendtest.NewFault(store)
	m := newManager(t, bare{fault}, fob.Config{})
	_, key := mustIssue(t, m, fob.KeySpec{})
	rotation := fob.Rotation{Overlap: time.Hour, QuietTime: quiet}
	atPut(fault, 4, backendtest.Unavailable())
	_, _, err := m.RotateKey(t.Context(), key.ID(), rotation)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	atPut(fault, 3, backendtest.Injection{Before: func() {
		left := mustList(t, store, fob.RecordRotation)
		require.Len(t, left, 1)
		require.NoError(t, store.Delete(context.Background(), left[0].ID, left[0].Version))
	}})
	_, _, err = m.RotateKey(t.Context(), key.ID(), rotation)
	require.NoError(t, err)
	require.Len(t, mustList(t, store, fob.RecordRotation), 1)
}
