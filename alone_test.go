package fob_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/stretchr/testify/require"
)

func issueMany(t *testing.T, m *fob.Manager, n int) (texts []string) {
	t.Helper()
	for range n {
		text, _ := mustIssue(t, m, fob.KeySpec{})
		texts = append(texts, text)
	}
	return texts
}

// mustGiveUp is a caller that waits for a millisecond only, over a store that hangs.
func mustGiveUp(t *testing.T, m *fob.Manager, text string) {
	t.Helper()
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := m.Verify(short, text)
	mustBeUnsure(t, err)
}

// A rejection is an answer: a caller whose time ended with it leaves nothing to do.
func TestARejectionIsNotLookedForAgain(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		pass(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		fault.InjectOnce(backendtest.OpGet, backendtest.Injection{After: cancel})
		before := gets(fault)
		_, err := m.Verify(ctx, forge(t, "acme_live", fob.ID([]byte("0123456789abcdef"))))
		require.ErrorIs(t, err, fob.ErrUnknown)
		pass(time.Second)
		require.Equal(t, before+1, gets(fault))
	})
}

// A load that goes on alone keeps nothing of its caller: not its memory, nor the instant at
// which it asked.
func TestALoadThatGoesOnAloneHasNothingOfItsCaller(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, bare{fault}, fob.Config{Peppers: []fob.Pepper{{ID: "p1", Key: sealKey}}})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		slow(fault, 500*time.Millisecond)
		theirs := []byte(text)
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := m.Verify(short, unsafe.String(&theirs[0], len(theirs)))
		mustBeUnsure(t, err)
		clear(theirs)
		pass(1500 * time.Millisecond)
		before := gets(fault)
		cred := mustVerify(t, m, text)
		require.Equal(t, before, gets(fault))
		require.Equal(t, 300*time.Millisecond, cred.AsOf().Sub(began), "it was read from then on")
	})
}

// Of loads whose callers have left 64 go on alone at a time.
func TestABoundedNumberOfLoadsGoesOnAlone(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		texts := issueMany(t, m, 66)
		pass(time.Second)
		for range 3 { // when they have ended, as many may again
			onEach(fault, callsOf(backendtest.OpGet), backendtest.Injection{Hang: true})
			before := gets(fault)
			for _, text := range texts {
				mustGiveUp(t, m, text)
			}
			synctest.Wait()
			require.Equal(t, before+66+64, gets(fault))
			fault.Inject(nil)
			began := time.Now()
			mustVerify(t, m, texts[65])
			require.Zero(t, time.Since(began), "nobody waits for one that does not go on")
			pass(15 * time.Second)                       // they are given up
			disabled := mustVerify(t, m, texts[65]).ID() // so that it is not in memory the next time
			require.NoError(t, m.Disable(t.Context(), disabled, ""))
			require.NoError(t, m.Enable(t.Context(), disabled))
			synctest.Wait()
		}
	})
}

// A Manager that is closed begins nothing.
func TestNoLoadGoesOnAfterClose(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		text, _ := mustIssue(t, m, fob.KeySpec{})
		pass(time.Second)
		onEach(fault, callsOf(backendtest.OpGet), backendtest.Injection{Hang: true})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := m.Verify(ctx, text)
			mustBeUnsure(t, err)
		})
		synctest.Wait()
		require.NoError(t, m.Close())
		before := gets(fault)
		cancel()
		wg.Wait()
		pass(time.Second)
		require.Equal(t, before, gets(fault))
	})
}

// Many who ask at once for one token, or for what does not exist, are one read each.
func TestWhoeverWaitsIsGivenWhatCameIntoMemory(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, tokenConfig())
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api"})
		require.NoError(t, err)
		pass(time.Second)
		slow(fault, time.Second)
		many := func(verify func(), reads int) {
			t.Helper()
			before := gets(fault)
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(verify)
			}
			wg.Wait()
			require.Equal(t, reads, gets(fault)-before)
		}
		many(func() { mustVerify(t, m, issued.Access.Reveal()) }, 1) // of its key
		require.EqualValues(t, 99, m.CacheStats().Collapsed)
		nobody := forge(t, "acme_live", fob.ID([]byte("0123456789abcdef")))
		many(func() { mustReject(t, m, nobody, fob.ErrUnknown) }, 2) // it is remembered when it comes again
		st := m.CacheStats()
		require.Equal(t, 1, st.Tokens.Entries)
		require.NotZero(t, st.Tokens.Hits)
	})
}

// Who waited three times for an answer that found no place in memory asks for itself.
func TestNobodyWaitsInVainMoreThanThreeTimes(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{CacheBytes: 1})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		pass(time.Second)
		slow(fault, time.Second)
		began, took := time.Now(), map[time.Duration]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				mustVerify(t, m, text)
				mu.Lock()
				defer mu.Unlock()
				took[time.Since(began)]++
			})
		}
		wg.Wait()
		require.Equal(t, map[time.Duration]int{time.Second: 1, 2 * time.Second: 1, 3 * time.Second: 1, 4 * time.Second: 17}, took)
	})
}

// Nor is anybody told of another caller's deadline where that one's load does not go on.
func TestNobodyIsToldOfAnotherCallersDeadline(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		texts := issueMany(t, m, 65)
		pass(time.Second)
		onEach(fault, callsOf(backendtest.OpGet), backendtest.Injection{Hang: true})
		text := texts[64]
		for _, other := range texts[:64] { // no more than these go on alone
			mustGiveUp(t, m, other)
		}
		first, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		short, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for _, ctx := range []context.Context{first, short} {
			wg.Go(func() {
				_, err := m.Verify(ctx, text)
				mustBeUnsure(t, err)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
			pass(100 * time.Millisecond)
		}
		// This one waits for the first, then for the second, and then asks for itself.
		began := time.Now()
		wg.Go(func() {
			mustVerify(t, m, text)
			require.Equal(t, 2300*time.Millisecond, time.Since(began))
		})
		pass(2200 * time.Millisecond)
		fault.Inject(nil)
		wg.Wait()
	})
}
