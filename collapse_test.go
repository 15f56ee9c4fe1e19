package fob_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/stretchr/testify/require"
)

// hangOnce makes the next read of a record hang until its context ends, and no other.
func hangOnce(fault *backendtest.Fault, id backend.ID) {
	hung := false
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if hung || c.Op != backendtest.OpGet || c.ID != id {
			return backendtest.Injection{}
		}
		hung = true
		return backendtest.Injection{Hang: true}
	})
}

// The read of somebody who waits hangs, and the store is well again at once: who comes
// later waits a bounded while, and is not told of what became of that read.
func TestNobodyWaitsForLongForALoadThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		text, key := mustIssue(t, m, fob.KeySpec{})
		pass(time.Second)
		hangOnce(fault, idOf(key))
		var wg sync.WaitGroup
		patient, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		wg.Go(func() {
			_, err := m.Verify(patient, text)
			mustBeUnsure(t, err) // its own read hangs, for as long as it wants to wait
		})
		synctest.Wait()
		before := gets(fault)
		began := time.Now()
		for range 1000 {
			wg.Go(func() {
				mustVerify(t, m, text)
				require.Equal(t, 2*time.Second, time.Since(began))
			})
		}
		pass(2 * time.Second)
		require.Equal(t, before+1, gets(fault), "one of a thousand asks, and the others wait for it")
		mustVerify(t, m, text)
		cancel()
		wg.Wait()
	})
}

func TestALoadThatWasLeftAloneHoldsUpNobody(t *testing.T) {
	for name, patience := range map[string]time.Duration{"with no deadline": time.Hour, "with one that is shorter than the while": 100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, fault *backendtest.Fault) {
				m := newManager(t, fault, fob.Config{})
				defer m.Close()
				text, _ := mustIssue(t, m, fob.KeySpec{})
				pass(time.Second)
				fault.Inject(func(c backendtest.Call) backendtest.Injection {
					return backendtest.Injection{Hang: c.Op == backendtest.OpGet}
				})
				short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				_, err := m.Verify(short, text)
				mustBeUnsure(t, err)
				synctest.Wait()
				fault.Inject(nil) // and the load that was begun anew hangs on
				began := time.Now()
				for {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					_, err := m.Verify(ctx, text)
					cancel()
					if err == nil {
						break
					}
					mustBeUnsure(t, err)
				}
				require.LessOrEqual(t, time.Since(began), 400*time.Millisecond)
			})
		})
	}
}

// A store that hangs for everybody is not asked by everybody.
func TestManyWhoWaitForAHungStoreAskItSeldom(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		pass(time.Second)
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			return backendtest.Injection{Hang: c.Op == backendtest.OpGet}
		})
		before := gets(fault)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				_, err := m.Verify(ctx, text)
				mustBeUnsure(t, err)
			})
			time.Sleep(5 * time.Millisecond)
		}
		wg.Wait()
		// One every 2 s, and once more for whom the last one has left.
		require.LessOrEqual(t, gets(fault)-before, 7)
	})
}

func TestAnOutageIsForThoseWhoCameBeforeIt(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		pass(time.Second)
		fault.InjectOnce(backendtest.OpGet, backendtest.Injection{Before: func() { time.Sleep(time.Second) }, Fail: backend.ErrUnavailable})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := m.Verify(t.Context(), text)
			require.ErrorIs(t, err, backend.ErrUnavailable)
		})
		synctest.Wait()
		before := gets(fault)
		for range 100 {
			wg.Go(func() { mustVerify(t, m, text) })
		}
		wg.Wait()
		require.Equal(t, before+1, gets(fault))

		// Where it lasts, one more of them is told of its own, and the others of that one's.
		other, _ := mustIssue(t, m, fob.KeySpec{})
		synctest.Wait()
		slowOutage := backendtest.Injection{Before: func() { time.Sleep(time.Second) }, Fail: backend.ErrUnavailable}
		fault.Inject(func(backendtest.Call) backendtest.Injection { return slowOutage })
		before = gets(fault)
		for range 100 {
			wg.Go(func() {
				_, err := m.Verify(t.Context(), other)
				require.ErrorIs(t, err, backend.ErrUnavailable)
			})
		}
		wg.Wait()
		require.LessOrEqual(t, gets(fault)-before, 2+2, "the feed, which begins anew, reads too")
	})
}

// Answers that find no place in memory are of no use to those who wait for them: in the
// end each asks for itself. Nobody who comes later waits for one of those.
func TestWhoWaitedInVainLeavesNobodyWaiting(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{CacheBytes: 1}) // no answer is remembered
		defer m.Close()
		pass(time.Second)
		text, _ := mustIssue(t, m, fob.KeySpec{})
		synctest.Wait()
		slow(fault, time.Second)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { mustVerify(t, m, text) })
		}
		wg.Wait()
		began := time.Now()
		mustVerify(t, m, text)
		require.Equal(t, time.Second, time.Since(began), "its own read")
	})
}
