package fob_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/stretchr/testify/require"
)

// old puts records into a store that may be purged.
func old(t *testing.T, store backend.Store, n int) {
	t.Helper()
	for i := range n {
		rec := backend.Record{Kind: 200, Created: 1, PurgeAt: 1}
		copy(rec.ID[:], fmt.Sprintf("%016d", i))
		_, err := store.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
	}
}

func TestTheSweepGoesOnUntilNothingIsLeft(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		old(t, store, 12_345)
		var mu sync.Mutex
		var times []time.Time
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if c.Op != backendtest.OpPurge {
				return backendtest.Injection{}
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Now())
			return backendtest.Injection{Delay: 100 * time.Millisecond}
		})
		var seen observed
		m := newManager(t, fault, fob.Config{SweepInterval: time.Minute, UsageInterval: 250 * time.Millisecond, Observer: &seen})
		defer m.Close()
		text, key := mustIssue(t, m, fob.KeySpec{})
		pass(time.Minute + 500*time.Millisecond)
		mustVerify(t, m, text)
		pass(500 * time.Millisecond)
		stored, ok := backend.As[backend.UsageRecorder](store)
		require.True(t, ok)
		usage, err := stored.Usage(t.Context(), []backend.ID{idOf(key)})
		require.NoError(t, err)
		require.NotZero(t, usage[0].N, "usage is written between two parts of it")
		pass(2 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, times, 13)
		for i := range times[1:] {
			require.GreaterOrEqual(t, times[i+1].Sub(times[i]), 200*time.Millisecond, "others have half of the time")
		}
		_, err = store.Get(t.Context(), backend.ID([]byte(fmt.Sprintf("%016d", 12_344))))
		require.ErrorIs(t, err, backend.ErrNotFound)
	})
}

func TestCloseEndsASweepThatGoesOn(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		old(t, store, 12_345)
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if c.Op == backendtest.OpPurge {
				return backendtest.Injection{Delay: 100 * time.Millisecond}
			}
			return backendtest.Injection{}
		})
		m := newManager(t, fault, fob.Config{SweepInterval: time.Minute})
		pass(time.Minute + 500*time.Millisecond)
		began := time.Now()
		require.NoError(t, m.Close())
		require.LessOrEqual(t, time.Since(began), 100*time.Millisecond)
		swept := fault.Calls(backendtest.OpPurge)
		pass(time.Minute)
		require.Equal(t, swept, fault.Calls(backendtest.OpPurge))
	})
}

// A thousand rotations are not looked at in one sweep, and all of them are in those that
// follow it at once. A store that fails makes the next one wait, and forgets none.
func TestTheSweepLooksAtEveryRotation(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		m := newManager(t, store, fob.Config{UsageInterval: 10 * time.Millisecond})
		defer m.Close()
		const n = 2345
		var next []string
		for range n {
			_, key := mustIssue(t, m, fob.KeySpec{})
			secret, _, err := m.RotateKey(context.Background(), key.ID(), fob.Rotation{Overlap: 24 * time.Hour, QuietTime: time.Second})
			require.NoError(t, err)
			next = append(next, secret.Reveal())
		}
		for _, text := range next {
			mustVerify(t, m, text)
		}
		pass(3 * time.Minute) // longer than usage may be on its way
		var seen observed
		other := newManager(t, fault, fob.Config{SweepInterval: time.Minute, Observer: &seen})
		defer other.Close()
		pass(time.Minute + time.Second)
		retired := 0
		for _, kind := range seen.types() {
			if kind == fob.EventRetired {
				retired++
			}
		}
		require.Equal(t, n, retired)
		swept, err := other.Sweep(t.Context())
		require.NoError(t, err)
		require.Equal(t, fob.Swept{}, swept)
	})
}
