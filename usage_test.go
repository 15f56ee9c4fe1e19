package fob_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func TestUsageIsOneWritePerIntervalHoweverManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, fault, fob.Config{})
		text, key := mustIssue(t, m, fob.KeySpec{})
		other, otherKey := mustIssue(t, m, fob.KeySpec{})
		for range 1000 {
			mustVerify(t, m, text)
		}
		mustVerify(t, m, other)
		require.Zero(t, fault.Calls(backendtest.OpAddUsage), "written behind")
		u, err := m.Usage(t.Context(), key.ID())
		require.NoError(t, err)
		require.Equal(t, uint64(1000), u.Count, "what is not written yet is counted too")
		require.Equal(t, time.Now().UnixMilli(), u.LastUsedAt.UnixMilli())

		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, fault.Calls(backendtest.OpAddUsage))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Equal(t, 1, fault.Calls(backendtest.OpAddUsage), "nothing used, nothing written")
		u, err = m.Usage(t.Context(), key.ID())
		require.NoError(t, err)
		require.Equal(t, uint64(1000), u.Count)

		mustVerify(t, m, text)
		require.NoError(t, m.Close())
		require.Equal(t, 2, fault.Calls(backendtest.OpAddUsage), "Close writes what is left")
		stored := usageIn(t, fault, key, otherKey)
		require.Equal(t, uint64(1001), stored[0].N)
		require.Equal(t, uint64(1), stored[1].N)
		require.Equal(t, time.Now().UnixMilli(), stored[0].Last)
	})
}

func usageIn(t *testing.T, store backend.Store, keys ...*fob.Key) []backend.Usage {
	t.Helper()
	r, ok := backend.As[backend.UsageRecorder](store)
	require.True(t, ok)
	var ids []backend.ID
	for _, k := range keys {
		ids = append(ids, idOf(k))
	}
	u, err := r.Usage(t.Context(), ids)
	require.NoError(t, err)
	return u
}

// A crash loses at most one interval and never counts anything twice.
func TestACrashLosesAtMostOneInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		fault := backendtest.NewFault(store)
		m := newManager(t, fault, fob.Config{UsageInterval: time.Minute})
		text, key := mustIssue(t, m, fob.KeySpec{})
		used := func(n int) {
			for range n {
				mustVerify(t, m, text)
			}
		}
		used(10)
		time.Sleep(time.Minute)
		synctest.Wait()
		used(7)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		// The process ends here: what the store has is what is known.
		require.Equal(t, uint64(10), usageIn(t, store, key)[0].N, "all but the last interval")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, uint64(17), usageIn(t, store, key)[0].N)
	})
}

func TestUsageThatSurelyWasNotWrittenIsKeptAndWhatMayHaveBeenIsNotCountedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		fault := backendtest.NewFault(store)
		seen := &observed{}
		m := newManager(t, fault, fob.Config{Observer: seen})
		text, key := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, text)
		fault.InjectOnce(backendtest.OpAddUsage, backendtest.Unavailable())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, usageIn(t, store, key)[0].N)
		mustVerify(t, m, text)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, uint64(2), usageIn(t, store, key)[0].N, "kept and written with the next")

		mustVerify(t, m, text)
		fault.InjectOnce(backendtest.OpAddUsage, backendtest.LostAck())
		time.Sleep(time.Minute)
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, uint64(3), usageIn(t, store, key)[0].N, "never twice")
		require.Contains(t, seen.types(), fob.EventUsageLost)
	})
}

func TestARejectedKeyIsNotUsed(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{})
	require.NoError(t, m.Disable(t.Context(), key.ID(), ""))
	mustReject(t, m, text, fob.ErrDisabled)
	mustReject(t, m, forge(t, "acme_live", key.ID()), fob.ErrUnknown)
	u, err := m.Usage(t.Context(), key.ID())
	require.NoError(t, err)
	require.Zero(t, u)
}

func TestNoUseIsLostAmongManyGoroutinesEvictionsAndWrites(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, fob.Config{CacheEntries: 2, UsageInterval: 10 * time.Millisecond})
	const keys, workers, uses = 6, 8, 300
	var texts []string
	var all []*fob.Key
	for range keys {
		text, key := mustIssue(t, m, fob.KeySpec{})
		texts, all = append(texts, text), append(all, key)
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range uses {
				if _, err := m.Verify(context.Background(), texts[(w+i)%keys]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, m.Close())
	total := uint64(0)
	for _, u := range usageIn(t, store, all...) {
		total += u.N
	}
	require.Equal(t, uint64(workers*uses), total)
}

// bare is a store without any capability.
type bare struct{ backend.Store }

func TestAStoreWithoutCapabilities(t *testing.T) {
	m := newManager(t, bare{memory.New()}, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)
	_, err := m.Usage(t.Context(), key.ID())
	require.ErrorContains(t, err, "unsupported")
	_, err = m.List(t.Context(), fob.Query{})
	require.ErrorContains(t, err, "unsupported")
	_, err = m.Sweep(t.Context())
	require.NoError(t, err)
	_, err = m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	mustReject(t, m, text, fob.ErrRevoked)
	require.NoError(t, m.Close())
}

// slowUsage is a store whose usage can be made to hang, and whose AddUsage to fail
// with its context's error alone after it has added.
type slowUsage struct {
	backend.Store
	backend.UsageRecorder
	backend.Lister
	entered, release chan struct{}
	late             atomic.Bool
}

func newSlowUsage() *slowUsage {
	mem := memory.New()
	return &slowUsage{Store: mem, UsageRecorder: mem, Lister: mem, entered: make(chan struct{}, 1), release: make(chan struct{})}
}

func (s *slowUsage) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	s.entered <- struct{}{}
	<-s.release // whatever ctx says
	return s.UsageRecorder.Usage(ctx, ids)
}

func (s *slowUsage) AddUsage(ctx context.Context, batch []backend.Usage) error {
	err := s.UsageRecorder.AddUsage(ctx, batch)
	if s.late.Swap(false) {
		return context.DeadlineExceeded
	}
	return err
}

func TestNobodyWaitsForUsagePastTheirDeadlineAndCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowUsage()
		m, err := fob.New(s, fob.Config{})
		require.NoError(t, err)
		text, key := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, text)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = m.Usage(context.Background(), key.ID()) // a patient caller, a store that hangs
		}()
		<-s.entered
		for name, call := range map[string]func(ctx context.Context) error{
			"usage": func(ctx context.Context) error { _, err := m.Usage(ctx, key.ID()); return err },
			"list": func(ctx context.Context) error {
				_, err := m.List(ctx, fob.Query{UnusedSince: time.Now().Add(time.Hour)})
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			begun := time.Now()
			require.ErrorIs(t, call(ctx), context.DeadlineExceeded, name)
			require.Equal(t, 100*time.Millisecond, time.Since(begun), name)
			cancel()
		}
		begun := time.Now()
		require.ErrorIs(t, m.Close(), context.DeadlineExceeded, "it says that usage was lost")
		require.Equal(t, 10*time.Second, time.Since(begun))
		close(s.release)
		<-done
	})
}

func TestCloseWaitsForTheWriteOfUsageThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		fault := backendtest.NewFault(store)
		m := newManager(t, fault, fob.Config{})
		text, key := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, text)
		fault.InjectOnce(backendtest.OpAddUsage, backendtest.Injection{Delay: 3 * time.Second})
		time.Sleep(time.Minute + time.Second)
		require.NoError(t, m.Close())
		require.Equal(t, uint64(1), usageIn(t, store, key)[0].N)
	})
}

// Rule R4 says when a store may answer with the context's error alone; one that
// does so after it has added must not make uses count twice.
func TestABareContextErrorIsNoProofThatUsageWasNotAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seen := newSlowUsage(), &observed{}
		close(s.release) // it does not hang
		m := newManager(t, s, fob.Config{Observer: seen})
		text, key := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, text)
		s.late.Store(true)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		require.Equal(t, uint64(1), usageIn(t, s.Store, key)[0].N, "never twice")
		require.Contains(t, seen.types(), fob.EventUsageLost)
	})
}
