package fob_test

import (
	"context"
	"fmt"
	"slices"
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

// feedScript is what a store's feed does, Watch by Watch, and what it was asked for: the
// last behaviour goes on.
type feedScript struct {
	watches []func(ctx context.Context, fn func(backend.Batch) error) error
	from    []string
	at      []time.Time
}

func (s *feedScript) behave(ctx context.Context, from backend.Token, _ backend.Watcher, fn func(backend.Batch) error) error {
	n := min(len(s.from), len(s.watches)-1)
	name := string(from)
	if from == nil {
		name = "the beginning"
	}
	s.from, s.at = append(s.from, name), append(s.at, time.Now())
	return s.watches[n](ctx, fn)
}

// follows makes a Manager over an empty store with such a feed.
func (s *feedScript) follows(t *testing.T, seen *observed) *fob.Manager {
	t.Helper()
	m, err := fob.New(&feedStore{memory.New(), s.behave}, fob.Config{Observer: seen, SweepInterval: -1})
	require.NoError(t, err)
	return m
}

func quiet(ctx context.Context, _ func(backend.Batch) error) error { <-ctx.Done(); return ctx.Err() }

// tells delivers batches with these tokens ("": with none), and fails.
func tells(err error, tokens ...string) func(context.Context, func(backend.Batch) error) error {
	return func(_ context.Context, fn func(backend.Batch) error) error {
		for _, token := range tokens {
			if err := fn(backend.Batch{Token: backend.Token(token), AsOf: time.Now()}); err != nil {
				return err
			}
		}
		return err
	}
}

func TestAFeedGoesOnWhereItWas(t *testing.T) {
	for name, c := range map[string]struct {
		first func(context.Context, func(backend.Batch) error) error
		from  string
	}{
		"of one byte":                {tells(backend.ErrUnavailable, "a"), "a"},
		"the last":                   {tells(backend.ErrUnavailable, "a", "bb"), "bb"},
		"a batch that has none":      {tells(backend.ErrUnavailable, "a", ""), "a"},
		"nothing was told":           {tells(backend.ErrUnavailable), "the beginning"},
		"it is no token there":       {tells(backend.ErrInvalid, "a"), "the beginning"},
		"it ended without a failure": {tells(nil, "a"), "a"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script := &feedScript{watches: []func(context.Context, func(backend.Batch) error) error{c.first, quiet}}
				m := script.follows(t, &observed{})
				defer m.Close()
				pass(time.Second)
				require.Equal(t, []string{"the beginning", c.from}, script.from)
			})
		})
	}
}

func TestAFeedThatEndsIsLostForWhateverReason(t *testing.T) {
	for name, err := range map[string]error{"it ended": nil, "it is down": backend.ErrUnavailable, "its token is none": backend.ErrInvalid} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := &observed{}
				script := &feedScript{watches: []func(context.Context, func(backend.Batch) error) error{tells(err, "a"), quiet}}
				m := script.follows(t, seen)
				defer m.Close()
				synctest.Wait()
				h := m.Health()
				require.False(t, h.Following)
				require.ErrorContains(t, h.Err, "follow the feed")
				events := seen.take()
				require.Len(t, events, 1)
				require.Equal(t, fob.EventFeedLost, events[0].Type)
				if err == nil {
					require.ErrorContains(t, events[0].Err, "the feed ended")
				} else {
					require.ErrorIs(t, events[0].Err, err)
				}
			})
		})
	}
}

// A store that is closed is not asked again, nor is one that a Manager has left; and
// neither is a loss to tell of.
func TestAClosedStoreIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, last := range map[string]func(context.Context, func(backend.Batch) error) error{
			"the store": tells(backend.ErrClosed, "a"), "the Manager": quiet,
		} {
			seen := &observed{}
			script := &feedScript{watches: []func(context.Context, func(backend.Batch) error) error{last}}
			m := script.follows(t, seen)
			synctest.Wait()
			if name == "the Manager" {
				require.NoError(t, m.Close())
			}
			pass(1500 * time.Millisecond) // and not until it is silent
			require.Len(t, script.from, 1, name)
			require.Empty(t, seen.types(), name)
			require.NoError(t, m.Close())
		}
	})
}

// A feed that fails is tried again after a pause that doubles up to 2 s, and a random half
// of it more; once it has told something, the next pause is short again.
func TestAFeedThatFailsIsTriedAgainLaterEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := &feedScript{watches: []func(context.Context, func(backend.Batch) error) error{tells(backend.ErrUnavailable)}}
		m := script.follows(t, &observed{})
		defer m.Close()
		pass(5 * time.Minute)
		require.Greater(t, len(script.at), 90)
		want, longest := 50*time.Millisecond, 0.0
		for i := range script.at[1:] {
			pause := script.at[i+1].Sub(script.at[i])
			require.GreaterOrEqual(t, pause, want)
			require.LessOrEqual(t, pause, want*3/2)
			longest = max(longest, float64(pause)/float64(want))
			want = min(2*want, 2*time.Second)
		}
		require.Greater(t, longest, 1.4)
	})
	synctest.Test(t, func(t *testing.T) {
		script := &feedScript{watches: []func(context.Context, func(backend.Batch) error) error{tells(backend.ErrUnavailable, "a")}}
		m := script.follows(t, &observed{})
		defer m.Close()
		pass(time.Minute)
		require.Greater(t, len(script.at), 800)
		for i := range script.at[1:] {
			pause := script.at[i+1].Sub(script.at[i])
			require.GreaterOrEqual(t, pause, 50*time.Millisecond)
			require.LessOrEqual(t, pause, 75*time.Millisecond)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		down := tells(backend.ErrUnavailable)
		script := &feedScript{watches: []func(context.Context, func(backend.Batch) error) error{down, down, down, down, down, tells(backend.ErrUnavailable, "a"), quiet}}
		m := script.follows(t, &observed{})
		defer m.Close()
		pass(time.Minute)
		require.Len(t, script.at, 7)
		require.GreaterOrEqual(t, script.at[5].Sub(script.at[4]), 800*time.Millisecond)
		require.LessOrEqual(t, script.at[6].Sub(script.at[5]), 75*time.Millisecond)
	})
}

// What a feed proves is no younger than now, though its clock may be ahead.
func TestAProofFromTheFutureIsOneOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := &feedScript{watches: []func(context.Context, func(backend.Batch) error) error{
			func(ctx context.Context, fn func(backend.Batch) error) error {
				_ = fn(backend.Batch{Token: backend.Token("a"), AsOf: time.Now().Add(time.Hour)})
				return quiet(ctx, fn)
			},
		}}
		m := script.follows(t, &observed{})
		defer m.Close()
		synctest.Wait()
		require.Zero(t, m.Health().FeedAge)
		time.Sleep(time.Second)
		require.Equal(t, time.Second, m.Health().FeedAge)
	})
}

// A mark that the feed has named and that cannot be read is unknown: whoever needs it asks
// the store, and is told if there is no answer. The feed goes on meanwhile, and the mark is
// asked for until there is.
func TestAMarkThatCannotBeReadIsUnknownUntilItCan(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		seen := &observed{}
		cfg := tokenConfig()
		cfg.Observer, cfg.MaxStaleness = seen, time.Hour
		here, there := newManager(t, fault, cfg), newManager(t, store, tokenConfig())
		defer here.Close()
		defer there.Close()
		issued, other := mustToken(t, there, fob.TokenSpec{TTL: time.Hour}), mustToken(t, there, fob.TokenSpec{TTL: time.Hour})
		pass(5 * time.Second)
		mustVerify(t, here, issued.Access.Reveal())
		mustVerify(t, here, other.Access.Reveal())
		seen.take()
		var down atomic.Bool
		down.Store(true)
		asked := onSome(fault, callsOf(backendtest.OpGet, fob.RecordMark), func(int) bool { return down.Load() }, backendtest.Unavailable())
		_, err := there.Revoke(t.Context(), issued.Token.ID(), "")
		require.NoError(t, err)
		for range 20 {
			pass(100 * time.Millisecond)
			_, err = here.Verify(t.Context(), issued.Access.Reveal())
			mustBeUnsure(t, err)
			require.ErrorIs(t, err, backend.ErrUnavailable)
			mustVerify(t, here, other.Access.Reveal())
		}
		require.True(t, here.Health().Following)
		require.LessOrEqual(t, here.Health().FeedAge, 500*time.Millisecond)
		down.Store(false)
		pass(4 * time.Second)
		before := asked()
		mustReject(t, here, issued.Access.Reveal(), fob.ErrRevoked)
		require.Equal(t, before, asked(), "it is known now")
		require.Empty(t, seen.types())
	})
}

// A process serves before it has read what was revoked: it asks the store for what it does
// not know yet. So nothing is accepted because the marks could not be read, and nothing is
// refused either.
func TestAProcessServesBeforeItKnowsWhatWasRevoked(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		there := newManager(t, store, tokenConfig())
		defer there.Close()
		revoked, good := mustToken(t, there, fob.TokenSpec{TTL: time.Hour}), mustToken(t, there, fob.TokenSpec{TTL: time.Hour})
		_, err := there.Revoke(t.Context(), revoked.Token.ID(), "")
		require.NoError(t, err)
		for failures := range 4 {
			onFirst(fault, failures, callsOf(backendtest.OpScan), backendtest.Unavailable())
			seen := &observed{}
			cfg := tokenConfig()
			cfg.Observer, cfg.SweepInterval = seen, -1
			here, err := fob.New(fault, cfg)
			require.NoError(t, err)
			synctest.Wait()
			h := here.Health()
			require.True(t, h.Following)
			require.Equal(t, failures > 0, h.CatchingUp)
			for range 30 {
				mustReject(t, here, revoked.Access.Reveal(), fob.ErrRevoked)
				mustVerify(t, here, good.Access.Reveal())
				pass(100 * time.Millisecond)
			}
			h = here.Health()
			require.False(t, h.CatchingUp)
			require.Equal(t, 1, h.Revocations)
			require.ElementsMatch(t, slices.Repeat([]fob.EventType{fob.EventUpkeepFailed}, failures), seen.types())
			require.NoError(t, here.Close())
		}
	})
}

// scanStore is a store that is slow to tell all its records of a kind.
type scanStore struct {
	backend.Store
	scan func(context.Context, backend.Kind, func([]backend.Record) error) error
}

func (s *scanStore) Unwrap() backend.Store { return s.Store }

func (s *scanStore) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	return s.scan(ctx, kind, fn)
}

// Whoever waits for a process to read what was revoked sees that it moves.
func TestCatchingUpIsReported(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, _ *backendtest.Fault) {
		slow := &scanStore{store, func(_ context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
			for i := range 3 {
				rec := backend.Record{ID: backend.ID{byte(kind), byte(i)}, Kind: kind}
				time.Sleep(700 * time.Millisecond)
				if err := fn([]backend.Record{rec}); err != nil { // unreadable; it counts
					return err
				}
			}
			return nil
		}}
		seen := &observed{}
		m, err := fob.New(slow, fob.Config{Observer: seen, SweepInterval: -1})
		require.NoError(t, err)
		defer m.Close()
		pass(3 * time.Second)
		require.True(t, m.Health().CatchingUp)
		require.True(t, m.Health().Following)
		pass(5 * time.Second)
		require.False(t, m.Health().CatchingUp)
		var told []string
		for _, e := range seen.take() {
			told = append(told, fmt.Sprint(e.Type, " ", e.Count))
		}
		require.Equal(t, []string{"catching_up 2", "catching_up 4", "catching_up 6", "catching_up 8", "caught_up 9"}, told)
	})
}

// The time at which a mark was written tells of another one's clock.
func TestAMarkTellsOfTheClockOfWhoeverWroteIt(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		for _, of := range []string{"token", "subject"} {
			t.Run(name+"/"+of, func(t *testing.T) {
				bubbleOver(t, func(t *testing.T, store backend.Store, _ *backendtest.Fault) {
					here := newManager(t, store, tokenConfig())
					defer here.Close()
					cfg := tokenConfig()
					cfg.Clock = func() time.Time { return time.Now().Add(by) }
					there := newManager(t, store, cfg)
					defer there.Close()
					issued := mustToken(t, here, fob.TokenSpec{TTL: time.Hour})
					pass(5 * time.Second)
					require.Zero(t, here.Health().Skew)
					var err error
					if of == "token" {
						_, err = there.Revoke(t.Context(), issued.Token.ID(), "")
					} else {
						_, err = there.Revoke(t.Context(), fob.User("user-7"), "")
					}
					require.NoError(t, err)
					pass(time.Second)
					want := by
					if of == "subject" && by < 0 {
						want = 0 // it may have been written first long ago
					}
					require.Equal(t, want, here.Health().Skew)
				})
			})
		}
	}
}

// TestWhatOthersIssueEndsNoAnswerHere, though there are many times as many such changes as
// entries in the cache; and each change of what is in memory is seen.
func TestWhatOthersIssueEndsNoAnswerHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer store.Close()
		here, there := newManager(t, store, fob.Config{CacheEntries: 100}), newManager(t, store, fob.Config{})
		defer here.Close()
		defer there.Close()
		text, key := mustIssue(t, there, fob.KeySpec{Subject: fob.App("alice")})
		texts := []string{text}
		for i := range 19 { // each of its own subject, because all keys of one would end together
			text, _ := mustIssue(t, there, fob.KeySpec{Subject: fob.App(fmt.Sprint("friend ", i))})
			texts = append(texts, text)
		}
		synctest.Wait() // until the feed has begun, and has told of these keys
		verifyAll := func() {
			for _, text := range texts {
				mustVerify(t, here, text)
			}
		}
		verifyAll()
		before := here.CacheStats().Keys.Misses
		for range 1000 { // a small cache remembers 14,336 changes
			mustIssue(t, there, fob.KeySpec{Subject: fob.App("bob")})
		}
		synctest.Wait()
		verifyAll()
		require.LessOrEqual(t, here.CacheStats().Keys.Misses-before, uint64(2), "one is expected in some hundred runs, because two names look alike")
		require.NoError(t, there.Disable(t.Context(), key.ID(), ""))
		synctest.Wait()
		mustReject(t, here, text, fob.ErrDisabled)
		require.NoError(t, there.Enable(t.Context(), key.ID()))
		synctest.Wait()
		mustVerify(t, here, text)
		_, err := there.Revoke(t.Context(), fob.App("alice"), "")
		require.NoError(t, err)
		synctest.Wait()
		mustReject(t, here, text, fob.ErrRevoked)
	})
}
