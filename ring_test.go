package fob_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// onRing counts the reads of the ring, and does something to each.
func onRing(fault *backendtest.Fault, inject backendtest.Injection) (reads func() int) {
	return onEach(fault, callsOf(backendtest.OpGet, fob.RecordRing), inject)
}

// TestHowOldTheRingInMemoryMayBeWithoutAFeed: MaxStaleness, here 2 s; and KeyLead where it
// cannot be read, for no key comes into use sooner. That the store is down is no problem of
// the ring's.
func TestHowOldTheRingInMemoryMayBeWithoutAFeed(t *testing.T) {
	clock := newClock()
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, clocked(tokenConfig(), clock))
	mustToken(t, m, fob.TokenSpec{})
	reads := onRing(fault, backendtest.Injection{})
	clock.Add(2*time.Second - time.Millisecond)
	mustToken(t, m, fob.TokenSpec{})
	require.Zero(t, reads())
	clock.Add(time.Millisecond)
	for range 3 {
		mustToken(t, m, fob.TokenSpec{})
	}
	require.Equal(t, 1, reads())

	onRing(fault, backendtest.Unavailable())
	clock.Add(time.Minute - time.Millisecond)
	mustToken(t, m, fob.TokenSpec{})
	clock.Add(time.Millisecond)
	issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	mustBeUnsure(t, err)
	require.Zero(t, issued)
	require.Empty(t, m.Health().Problems)
}

// TestOfManyWhoNeedTheRingOneReadsIt, and the others find in it what they want.
func TestOfManyWhoNeedTheRingOneReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		m := after(t, fault, tokenConfig())
		mustToken(t, m, fob.TokenSpec{})
		time.Sleep(time.Minute) // KeyLead: nobody may go on with the old one
		reads := onRing(fault, backendtest.Injection{Delay: 50 * time.Millisecond})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := m.IssueToken(context.Background(), fob.TokenSpec{Subject: fob.User("user-7")}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, reads())
		require.NoError(t, m.Close())
	})
}

// TestWhileTheRingIsReadTheOldOneDoes, but for no longer than KeyLead: then whoever comes
// waits, and no longer than he wants to.
func TestWhileTheRingIsReadTheOldOneDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		m := after(t, fault, tokenConfig())
		issue := func(patience time.Duration) (fob.Issued, error) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			return m.IssueToken(ctx, fob.TokenSpec{Subject: fob.User("user-7")})
		}
		mustToken(t, m, fob.TokenSpec{})
		time.Sleep(3 * time.Second)
		onRing(fault, backendtest.Injection{Hang: true})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = issue(2 * time.Minute) })
		synctest.Wait()
		began := time.Now()
		_, err := issue(time.Second)
		require.NoError(t, err)
		require.Zero(t, time.Since(began))

		time.Sleep(time.Minute)
		began = time.Now()
		issued, err := issue(time.Second)
		mustBeUnsure(t, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, issued)
		require.Equal(t, time.Second, time.Since(began))
		wg.Wait()
		require.NoError(t, m.Close())
	})
}

// TestTheRingIsReadWhenTheFeedTellsOfIt, and not before: while the feed lives no age of it
// is too old. What was told and could not be read is read when it is next needed, however
// lately it was read before.
func TestTheRingIsReadWhenTheFeedTellsOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		fault := backendtest.NewFault(store)
		cfg := tokenConfig(func(c *fob.TokenConfig) { c.KeyLead = 100 * time.Millisecond })
		other, m := newManager(t, store, cfg), newManager(t, fault, cfg)
		mustToken(t, m, fob.TokenSpec{})
		next, err := other.RotateTokenKey(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Second)
		reads := onRing(fault, backendtest.Injection{})
		for range 3 {
			require.Equal(t, next.ID, mustToken(t, m, fob.TokenSpec{}).Token.KeyID())
			time.Sleep(time.Minute)
		}
		require.Zero(t, reads())

		_, err = other.RotateTokenKey(t.Context())
		require.NoError(t, err)
		time.Sleep(200 * time.Millisecond)
		require.NotZero(t, reads())
		onRing(fault, backendtest.Unavailable())
		last, err := other.RotateTokenKey(t.Context())
		require.NoError(t, err)
		time.Sleep(200 * time.Millisecond)
		reads = onRing(fault, backendtest.Injection{})
		for range 3 {
			require.Equal(t, last.ID, mustToken(t, m, fob.TokenSpec{}).Token.KeyID())
		}
		require.Equal(t, 1, reads())
		require.NoError(t, m.Close())
		require.NoError(t, other.Close())
	})
}

// TestWhoHasNoUseForTokensMakesNoKeys: to follow the feed is no use of the ring.
func TestWhoHasNoUseForTokensMakesNoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		fault := backendtest.NewFault(store)
		reads := onRing(fault, backendtest.Injection{})
		m := newManager(t, fault, tokenConfig())
		text, _ := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, text)
		time.Sleep(5 * time.Second)
		require.True(t, m.Health().Following)
		require.Zero(t, reads())
		require.Empty(t, mustList(t, store, 7))
		require.NoError(t, m.Close())
	})
}

// TestAKeyThatIsKnownIsNotLookedFor, retired or not; one that is not known is, once in
// 20 ms, whoever makes how many of them up.
func TestAKeyThatIsKnownIsNotLookedFor(t *testing.T) {
	clock, store := newClock(), memory.New()
	fault := backendtest.NewFault(store)
	m, other := newManager(t, bare{fault}, clocked(tokenConfig(), clock)), newManager(t, store, clocked(tokenConfig(), clock))
	old, unseen := mustToken(t, other, fob.TokenSpec{}), mustToken(t, other, fob.TokenSpec{})
	_, err := other.RotateTokenKey(t.Context())
	require.NoError(t, err)
	mustVerify(t, m, old.Access.Reveal())
	reads := onRing(fault, backendtest.Injection{})
	for range 3 {
		clock.Add(10 * time.Second)
		mustVerify(t, m, mustToken(t, other, fob.TokenSpec{}).Access.Reveal())
	}
	clock.Add(24 * time.Hour)
	mustReject(t, m, unseen.Access.Reveal(), fob.ErrTokenKey)
	mustVerify(t, m, mustToken(t, other, fob.TokenSpec{}).Access.Reveal())
	require.Zero(t, reads())

	for n := range 10 {
		mustReject(t, m, named(old.Access.Reveal(), n), fob.ErrTokenKey)
	}
	require.Equal(t, 1, reads())
	clock.Add(19 * time.Millisecond)
	mustReject(t, m, named(old.Access.Reveal(), 11), fob.ErrTokenKey)
	require.Equal(t, 1, reads())
	clock.Add(time.Millisecond)
	mustReject(t, m, named(old.Access.Reveal(), 12), fob.ErrTokenKey)
	require.Equal(t, 2, reads())
}

// TestWhoseKeyIsKnownWaitsForNoReading of the ring, be it that the key is in use or that it
// is retired: while somebody's made-up key is looked for in a store that hangs, all others
// are told at once.
func TestWhoseKeyIsKnownWaitsForNoReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		m := after(t, fault, tokenConfig())
		old := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
		_, err := m.RotateTokenKey(t.Context())
		require.NoError(t, err)
		time.Sleep(24 * time.Hour)
		fresh := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
		time.Sleep(time.Second)
		onRing(fault, backendtest.Injection{Hang: true})
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, err := m.Verify(ctx, named(old, 1))
			if err == nil {
				t.Error("a key that nobody knows")
			}
		})
		synctest.Wait()
		began := time.Now()
		mustVerify(t, m, fresh)
		mustReject(t, m, old, fob.ErrTokenKey)
		require.Zero(t, time.Since(began))
		wg.Wait()
		require.NoError(t, m.Close())
	})
}
