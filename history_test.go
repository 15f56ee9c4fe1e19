package fob_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/stretchr/testify/require"
)

// resettable is a feed that tells no changes while lost is set, and that history was lost
// when reset is set: of what happened meanwhile, only what is read anew is known.
type resettable struct{ lost, reset atomic.Bool }

func (r *resettable) over(store backend.Store) backend.Store {
	return &feedStore{store, func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
		return inner.Watch(ctx, from, func(b backend.Batch) error {
			if r.lost.Load() {
				b.Changes = nil
			}
			b.Reset = b.Reset || r.reset.Swap(false)
			return fn(b)
		})
	}}
}

// While everything is read anew the feed proves nothing; and when it was, nothing is
// believed that was remembered before.
func TestALossOfHistoryEndsWhatIsRemembered(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		var feed resettable
		cfg := tokenConfig()
		cfg.MaxStaleness = time.Second
		here, there := newManager(t, feed.over(fault), cfg), newManager(t, store, cfg)
		defer here.Close()
		defer there.Close()
		pass(time.Second)
		issued, other := mustToken(t, there, fob.TokenSpec{TTL: time.Hour}), mustToken(t, there, fob.TokenSpec{TTL: time.Hour})
		text, key := mustIssue(t, there, fob.KeySpec{})
		mustVerify(t, here, text)
		mustVerify(t, here, issued.Access.Reveal())
		mustVerify(t, here, other.Access.Reveal())
		// Of the tokens of one key the first is verified now, the second when it is disabled.
		parentText, parent := mustIssue(t, there, fob.KeySpec{})
		var exchanged [2]fob.Issued
		for i := range exchanged {
			var err error
			exchanged[i], err = there.ExchangeKey(t.Context(), parentText, fob.TokenSpec{Audience: "api", TTL: time.Hour})
			require.NoError(t, err)
		}
		mustVerify(t, here, exchanged[0].Access.Reveal())
		feed.lost.Store(true)
		_, err := there.Revoke(t.Context(), issued.Token.ID(), "")
		require.NoError(t, err)
		require.NoError(t, there.Disable(t.Context(), key.ID(), ""))
		require.NoError(t, there.Disable(t.Context(), parent.ID(), ""))
		next, err := there.RotateTokenKey(t.Context())
		require.NoError(t, err)
		pass(time.Second)
		mustVerify(t, here, issued.Access.Reveal()) // nobody was told
		onEach(fault, callsOf(backendtest.OpScan), backendtest.Injection{Delay: 10 * time.Second})
		feed.reset.Store(true)
		pass(2 * time.Second)
		require.True(t, here.Health().CatchingUp)
		mustReject(t, here, issued.Access.Reveal(), fob.ErrRevoked)
		mustReject(t, here, text, fob.ErrDisabled)
		pass(30 * time.Second)
		require.True(t, here.Health().Following)
		mustReject(t, here, issued.Access.Reveal(), fob.ErrRevoked)
		mustReject(t, here, text, fob.ErrDisabled)
		mustVerify(t, here, other.Access.Reveal())
		mustReject(t, here, exchanged[1].Access.Reveal(), fob.ErrDisabled)
		// The token keys are among what was read.
		onEach(fault, callsOf(backendtest.OpGet, fob.RecordRing), backendtest.Injection{Hang: true})
		keys, err := here.TokenKeys(t.Context())
		require.NoError(t, err)
		require.Contains(t, []string{keys[0].ID, keys[len(keys)-1].ID}, next.ID)
	})
}

func TestATokenInMemoryDoesNotSurviveALossOfHistory(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, _ *backendtest.Fault) {
		var feed resettable
		cfg := tokenConfig()
		cfg.MaxStaleness = time.Hour
		here, there := newManager(t, feed.over(store), cfg), newManager(t, store, cfg)
		defer here.Close()
		defer there.Close()
		pass(5 * time.Second)
		issued := mustToken(t, there, fob.TokenSpec{TTL: time.Hour})
		mustVerify(t, here, issued.Access.Reveal())
		feed.lost.Store(true)
		_, err := there.Revoke(t.Context(), issued.Token.ID(), "")
		require.NoError(t, err)
		pass(time.Second)
		mustVerify(t, here, issued.Access.Reveal()) // within the hour that was allowed
		feed.reset.Store(true)
		pass(time.Second)
		mustReject(t, here, issued.Access.Reveal(), fob.ErrRevoked)
	})
}

// What this Manager has revoked while the list was on its way is not forgotten because the
// list does not have it.
func TestARevocationDuringTheListIsNotForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		var feed resettable
		m := newManager(t, feed.over(fault), tokenConfig())
		defer m.Close()
		issued := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
		text, key := mustIssue(t, m, fob.KeySpec{})
		pass(time.Second)
		feed.lost.Store(true)
		// It is read, and takes its time to get here.
		onEach(fault, callsOf(backendtest.OpScan), backendtest.Injection{After: func() { time.Sleep(10 * time.Second) }})
		feed.reset.Store(true)
		pass(11 * time.Second) // the marks, and not yet the subjects
		_, err := m.Revoke(t.Context(), issued.Token.ID(), "")
		require.NoError(t, err)
		_, err = m.Revoke(t.Context(), key.Subject(), "")
		require.NoError(t, err)
		fault.Inject(nil)
		pass(time.Minute)
		require.True(t, m.Health().Following)
		mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
		mustReject(t, m, text, fob.ErrRevoked)
	})
}

// A mark that went bad, or was mended, while history was lost is what it is now: what it
// was before is neither believed nor told as a problem.
func TestAMarkIsReadAnewAfterALossOfHistory(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, _ *backendtest.Fault) {
		var feed resettable
		seen := &observed{}
		cfg := tokenConfig()
		cfg.Observer = seen
		m := newManager(t, feed.over(store), cfg)
		defer m.Close()
		issued := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
		fob.PutTokenMark(t, store, issued.Token.ID(), fob.MarkFields{Before: 1<<62 - 1})
		pass(time.Second)
		mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
		now := func(f fob.MarkFields) {
			t.Helper()
			fob.PutTokenMark(t, store, issued.Token.ID(), f)
			feed.reset.Store(true)
			pass(2 * time.Second)
			require.True(t, m.Health().Following)
		}
		bad := func() {
			t.Helper()
			require.Len(t, m.Health().Problems, 1)
			_, err := m.Verify(t.Context(), issued.Access.Reveal())
			require.ErrorIs(t, err, fob.ErrCorrupt)
			mustBeUnsure(t, err)
		}
		feed.lost.Store(true)
		now(fob.MarkFields{Unknown: true})
		bad()
		now(fob.MarkFields{Unknown: true, Reason: "still"})
		bad()
		require.Equal(t, []fob.EventType{fob.EventIssued, fob.EventUpkeepFailed}, seen.types(), "told once")
		now(fob.MarkFields{Before: 1<<62 - 1})
		require.Empty(t, m.Health().Problems)
		mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)

		// Where the feed tells of it, it is told once too.
		feed.lost.Store(false)
		seen.take()
		for _, reason := range []string{"a", "b", "c"} {
			fob.PutTokenMark(t, store, issued.Token.ID(), fob.MarkFields{Unknown: true, Reason: reason})
			pass(time.Second)
			bad()
		}
		require.Equal(t, []fob.EventType{fob.EventUpkeepFailed}, seen.types())
		fob.PutTokenMark(t, store, issued.Token.ID(), fob.MarkFields{Before: 1<<62 - 1})
		pass(time.Second)
		require.Empty(t, m.Health().Problems)
		mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
	})
}

// A patient Manager is as patient as before as soon as everything was read anew, and what
// it has revoked is revoked again, though the store fails in between.
func TestALossOfHistoryIsMadeGoodAtOnce(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		var feed resettable
		m := newManager(t, feed.over(fault), fob.Config{MaxStaleness: time.Minute})
		defer m.Close()
		pass(5 * time.Second)
		text, key := mustIssue(t, m, fob.KeySpec{})
		pass(time.Second)
		before := snapshot{}
		before.take(t, store)
		_, err := m.Revoke(t.Context(), key.ID(), "")
		require.NoError(t, err)
		pass(time.Second)
		feed.lost.Store(true)
		before.restore(t, store)
		once(fault, callsAbout(backendtest.OpGet, idOf(key)), backendtest.Unavailable())
		feed.reset.Store(true)
		pass(200 * time.Millisecond) // with the next that the feed tells
		require.Equal(t, time.Minute, m.Health().Staleness)
		pass(3 * time.Second)
		require.True(t, m.Health().Following)
		rec, err := store.Get(t.Context(), idOf(key))
		require.NoError(t, err)
		require.NotEqual(t, before[idOf(key)].Body, rec.Body, "it is revoked again")
		mustReject(t, m, text, fob.ErrRevoked)
	})
}
