package fob_test

import (
	"context"
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

// within is how long after its return here a receipt says that it holds everywhere.
func within(r fob.Receipt) time.Duration { return r.EverywhereBy.Sub(r.At) }

// A receipt is right about processes of which the one that gives it knows nothing.
func TestAReceiptKnowsTheMostPatientProcess(t *testing.T) {
	store := memory.New()
	here := newManager(t, store, fob.Config{MaxStaleness: 100 * time.Millisecond})
	_, key := mustIssue(t, here, fob.KeySpec{})
	receipt, err := here.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, within(receipt), "what every process may do without asking")

	there := newManager(t, store, fob.Config{MaxStaleness: 5 * time.Second, StaleIfError: time.Minute})
	require.Equal(t, 5*time.Second, there.Health().Staleness)
	receipt, err = here.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	require.Equal(t, 65*time.Second, within(receipt))
	receipt, err = here.Revoke(t.Context(), fob.App("app-42"), "")
	require.NoError(t, err)
	require.Equal(t, 65*time.Second, within(receipt))

	// It stays so when that process ends, until somebody says that it has.
	require.ErrorIs(t, there.LowerFleetStaleness(t.Context(), 10*time.Second), fob.ErrInvalid)
	require.NoError(t, there.Close())
	require.ErrorIs(t, there.LowerFleetStaleness(t.Context(), 0), fob.ErrClosed)
	_, err = there.FleetStaleness(t.Context())
	require.ErrorIs(t, err, fob.ErrClosed)
	bound, err := here.FleetStaleness(t.Context())
	require.NoError(t, err)
	require.Equal(t, 65*time.Second, bound)
	require.ErrorIs(t, here.LowerFleetStaleness(t.Context(), 1000*time.Hour), fob.ErrInvalid)
	require.NoError(t, here.LowerFleetStaleness(t.Context(), time.Hour), "which it is already")
	require.NoError(t, here.LowerFleetStaleness(t.Context(), 0))
	bound, err = here.FleetStaleness(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, bound)
}

// Whoever was forgotten when the bound was lowered raises it again, as the feed tells.
func TestAPatientProcessThatRunsRaisesTheBoundAgain(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, _ *backendtest.Fault) {
		here := newManager(t, store, fob.Config{})
		defer here.Close()
		there := newManager(t, store, fob.Config{MaxStaleness: 5 * time.Second})
		defer there.Close()
		for range 3 {
			require.NoError(t, here.LowerFleetStaleness(t.Context(), 0))
			pass(time.Second)
			bound, err := here.FleetStaleness(t.Context())
			require.NoError(t, err)
			require.Equal(t, 5*time.Second, bound)
			require.Equal(t, 5*time.Second, there.Health().Staleness)
		}
	})
}

// Before the others know of it, nobody believes anything for longer than they expect:
// no receipt can have missed it.
func TestNobodyIsPatientBeforeTheOthersKnow(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		issuer := newManager(t, store, fob.Config{})
		text, _ := mustIssue(t, issuer, fob.KeySpec{})
		require.NoError(t, issuer.Close())

		seen := &observed{}
		fault.Inject(noPuts)
		m := newManager(t, bare{fault}, fob.Config{MaxStaleness: time.Hour, StaleIfError: time.Hour, UsageInterval: time.Hour, Observer: seen})
		defer m.Close()
		require.Equal(t, 2*time.Second, m.Health().Staleness)
		require.Contains(t, seen.types(), fob.EventUpkeepFailed)
		mustVerify(t, m, text)
		pass(1900 * time.Millisecond)
		before := gets(fault)
		mustVerify(t, m, text)
		require.Equal(t, before, gets(fault), "so much needs no permission")
		cut(fault)
		pass(200 * time.Millisecond)
		_, err := m.Verify(t.Context(), text)
		mustBeUnsure(t, err)

		fault.Inject(nil)
		pass(10 * time.Second)
		require.Equal(t, time.Hour, m.Health().Staleness)
		mustVerify(t, m, text)
		cut(fault)
		pass(59 * time.Minute)
		mustVerify(t, m, text)
		pass(50 * time.Minute)
		mustVerify(t, m, text)
		pass(12 * time.Minute)
		_, err = m.Verify(t.Context(), text)
		mustBeUnsure(t, err)
	})
}

// noPuts makes every write fail.
func noPuts(c backendtest.Call) backendtest.Injection {
	if c.Op == backendtest.OpPut {
		return backendtest.Unavailable()
	}
	return backendtest.Injection{}
}

// What was read before the others knew is believed no longer than they expected when
// they revoked it, even if they come to know meanwhile.
func TestAnOldAnswerDoesNotBecomeGoodByJoining(t *testing.T) {
	for name, feed := range map[string]bool{"with a feed": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
				here := newManager(t, store, fob.Config{})
				defer here.Close()
				text, key := mustIssue(t, here, fob.KeySpec{})
				fault.Inject(noPuts)
				theirs := backend.Store(bare{fault})
				if feed {
					theirs = fault
				}
				there, err := fob.New(theirs, fob.Config{Prefix: "acme_live", MaxStaleness: 10 * time.Second, StaleIfError: time.Minute, UsageInterval: time.Hour, SweepInterval: -1})
				require.NoError(t, err)
				defer there.Close()
				pass(1500 * time.Millisecond)
				mustVerify(t, there, text)
				require.Equal(t, 2*time.Second, there.Health().Staleness)
				// The feed ends, and writing works.
				fault.Inject(func(c backendtest.Call) backendtest.Injection {
					if c.Op == backendtest.OpWatch || c.Op == backendtest.OpBatch {
						return backendtest.Unavailable()
					}
					return backendtest.Injection{}
				})
				receipt, err := here.Revoke(t.Context(), key.Subject(), "")
				require.NoError(t, err)
				require.Equal(t, 2*time.Second, within(receipt), "nobody has asked for more")
				pass(time.Second)
				require.Equal(t, 10*time.Second, there.Health().Staleness, "now it is joined")
				cut(fault)
				err = receipt.Wait(t.Context())
				require.NoError(t, err)
				_, err = there.Verify(t.Context(), text)
				require.Error(t, err, "the receipt was wrong")
			})
		})
	}
}

// Who has asked the server before a failover knows nothing of the one after it.
func TestJoiningWhileHistoryIsLost(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		rec := fleetRecord(t, store)
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if c.ID == rec.ID {
				return backendtest.Unavailable()
			}
			return backendtest.Injection{}
		})
		feed, failover := failingOver(fault)
		m := newManager(t, feed, fob.Config{MaxStaleness: 3 * time.Second})
		defer m.Close()
		require.Equal(t, 2*time.Second, m.Health().Staleness)
		first := true
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if c.Op == backendtest.OpGet && c.ID == rec.ID && first {
				first = false
				return backendtest.Injection{After: func() {
					if err := store.Delete(context.Background(), rec.ID, rec.Version); err != nil {
						t.Error(err)
					}
					failover.Store(true)
					time.Sleep(time.Second)
				}}
			}
			return noPuts(c)
		})
		pass(4 * time.Second)
		require.False(t, first)
		require.Equal(t, 2*time.Second, m.Health().Staleness, "nothing stands in the store")
		fault.Inject(nil)
		pass(4 * time.Second)
		require.Equal(t, 3*time.Second, m.Health().Staleness)
	})
}

// The server after a failover may know of nobody's patience: until it does, nobody has more
// than everybody expects.
func TestNobodyIsPatientAfterAFailoverBeforeTheOthersKnow(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		feed, failover := failingOver(fault)
		m := newManager(t, feed, fob.Config{MaxStaleness: time.Minute})
		defer m.Close()
		require.Equal(t, time.Minute, m.Health().Staleness)
		onEach(fault, callsOf("", fob.RecordFleet), backendtest.Unavailable())
		failover.Store(true)
		pass(4 * time.Second)
		require.True(t, m.Health().Following)
		require.Equal(t, 2*time.Second, m.Health().Staleness)
		fault.Inject(nil)
		pass(4 * time.Second)
		require.Equal(t, time.Minute, m.Health().Staleness)
	})
}

// The bound is kept in whole milliseconds, and never below what was asked for.
func TestTheBoundIsRoundedUp(t *testing.T) {
	bubbleOver(t, func(t *testing.T, _ backend.Store, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{MaxStaleness: 3*time.Second + time.Microsecond, UsageInterval: time.Hour})
		defer m.Close()
		pass(10 * time.Second)
		require.Equal(t, 3*time.Second+time.Microsecond, m.Health().Staleness)
		require.Equal(t, 1, fault.Calls(backendtest.OpPut), "it is written once")
		bound, err := m.FleetStaleness(t.Context())
		require.NoError(t, err)
		require.Equal(t, 3001*time.Millisecond, bound)
	})
}

// RevokeEverywhere returns when the last process that could accept cannot any more: one
// that has lost the store and whose settings let it go on for a while.
func TestRevokeEverywhere(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		here := newManager(t, store, fob.Config{Tokens: tokenConfig().Tokens})
		defer here.Close()
		there := newManager(t, fault, fob.Config{MaxStaleness: 10 * time.Second, UsageInterval: time.Hour})
		defer there.Close()
		text, key := mustIssue(t, here, fob.KeySpec{})
		pass(time.Second)
		mustVerify(t, there, text)
		cut(fault)
		began := time.Now()
		done := make(chan fob.Receipt)
		go func() {
			receipt, err := revokeEverywhere(context.Background(), here, key.ID(), "leaked")
			if err != nil {
				t.Error(err)
			}
			done <- receipt
		}()
		pass(9 * time.Second)
		mustReject(t, here, text, fob.ErrRevoked)
		mustVerify(t, there, text) // cut off, and patient: this is what is waited for
		receipt := <-done
		require.Equal(t, 10*time.Second, time.Since(began))
		require.False(t, time.Now().Before(receipt.EverywhereBy))
		_, err := there.Verify(t.Context(), text)
		require.Error(t, err)

		// Whoever cannot wait knows at least that it is revoked here, and when it will be
		// everywhere.
		_, key = mustIssue(t, here, fob.KeySpec{})
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		receipt, err = revokeEverywhere(short, here, key.ID(), "")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, within(receipt))
		receipt, err = here.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
		require.NoError(t, err)
		began = time.Now()
		err = receipt.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, time.Since(began))

		err = fob.Receipt{}.Wait(t.Context())
		require.ErrorIs(t, err, fob.ErrInvalid)
		_, err = revokeEverywhere(t.Context(), here, fob.ID{}, "")
		require.ErrorIs(t, err, fob.ErrNotFound)
		go func() {
			time.Sleep(time.Second)
			_ = here.Close()
		}()
		err = receipt.Wait(t.Context())
		require.NoError(t, err, "that time has come already")
		ended, end := context.WithCancel(t.Context())
		end()
		for range 100 {
			err = receipt.Wait(ended)
			require.NoError(t, err, "it is not waited for")
		}
		receipt.At, receipt.EverywhereBy = time.Now(), time.Now().Add(time.Minute)
		err = receipt.Wait(t.Context())
		require.ErrorIs(t, err, fob.ErrClosed)
		receipt.EverywhereBy = receipt.At
		err = receipt.Wait(t.Context())
		require.ErrorIs(t, err, fob.ErrClosed)
	})
}

// If nobody can be asked how patient the others are, the receipt says the worst that a
// Config allows rather than something that could be wrong.
func TestAReceiptOfAStoreThatFailsIsNotTooEarly(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		_, key := mustIssue(t, m, fob.KeySpec{})
		rec := fleetRecord(t, store)
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if c.ID == rec.ID {
				return backendtest.Unavailable()
			}
			return backendtest.Injection{}
		})
		receipt, err := m.Revoke(t.Context(), key.ID(), "")
		require.NoError(t, err)
		require.Equal(t, 48*time.Hour, within(receipt))
		began := time.Now()
		go func() {
			time.Sleep(5 * time.Second)
			fault.Inject(nil)
		}()
		err = receipt.Wait(t.Context())
		require.NoError(t, err)
		require.Greater(t, time.Since(began), 3*time.Second, "as long as was found out meanwhile")
		require.Less(t, time.Since(began), 10*time.Second)

		// Nor is the answer held up by a store that hangs.
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			return backendtest.Injection{Hang: c.ID == rec.ID}
		})
		began = time.Now()
		receipt, err = m.Revoke(context.Background(), key.ID(), "")
		require.NoError(t, err)
		require.Equal(t, 48*time.Hour, within(receipt))
		require.Equal(t, 10*time.Second, time.Since(began))
		fault.Inject(nil)

		// What stands there for the bound cannot be read: that is no bound.
		rec.Body[3] ^= 1
		_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
		require.NoError(t, err)
		_, err = m.FleetStaleness(t.Context())
		require.ErrorIs(t, err, fob.ErrCorrupt)
		receipt, err = m.Revoke(t.Context(), key.ID(), "")
		require.NoError(t, err)
		require.Equal(t, 48*time.Hour, within(receipt))
		err = receipt.Wait(t.Context())
		require.ErrorIs(t, err, fob.ErrCorrupt)
		require.NoError(t, m.LowerFleetStaleness(t.Context(), 0), "the way to repair it")
		bound, err := m.FleetStaleness(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2*time.Second, bound)
	})
}

// fleetRecord finds the record of the bound, which a patient process writes.
func fleetRecord(t *testing.T, store backend.Store) backend.Record {
	t.Helper()
	patient := newManager(t, store, fob.Config{MaxStaleness: 3 * time.Second})
	require.NoError(t, patient.Close())
	lister, _ := backend.As[backend.Lister](store)
	page, err := lister.List(t.Context(), backend.Query{Kind: fob.RecordFleet})
	require.NoError(t, err)
	require.Len(t, page.Records, 1)
	return page.Records[0]
}

// Health tells what the Manager does about a feed that is lost, and its events tell
// the log.
func TestHealth(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		seen := &observed{}
		m := newManager(t, fault, fob.Config{MaxStaleness: time.Second, Observer: seen})
		defer m.Close()
		pass(time.Second)
		h := m.Health()
		require.True(t, h.Following)
		require.Less(t, h.FeedAge, 2*backend.HeartbeatEvery)
		require.NoError(t, h.Err)
		require.Zero(t, h.LostAt)

		lost := time.Now()
		cut(fault)
		pass(30 * time.Second)
		h = m.Health()
		require.False(t, h.Following)
		require.Greater(t, h.FeedAge, 29*time.Second)
		require.ErrorIs(t, h.Err, backend.ErrUnavailable)
		require.WithinDuration(t, lost, h.LostAt, 2*backend.HeartbeatEvery)
		require.Greater(t, h.Failures, 8)
		require.Less(t, h.Failures, 40, "it waits longer each time")
		require.Contains(t, seen.types(), fob.EventFeedLost)
		require.NotContains(t, seen.types(), fob.EventFeedResumed)

		fault.Inject(nil)
		pass(4 * time.Second)
		h = m.Health()
		require.True(t, h.Following)
		require.NoError(t, h.Err)
		require.Zero(t, h.Failures)
		require.Equal(t, fob.EventFeedResumed, seen.types()[len(seen.types())-1])
		pass(time.Minute)
		require.Equal(t, fob.EventFeedResumed, seen.types()[len(seen.types())-1], "once")
	})
}

// A feed that has not ended and says nothing any more is lost as well.
func TestHealthOfAFeedThatFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer func() { require.NoError(t, store.Close()) }()
		var silent atomic.Bool
		seen := &observed{}
		m := newManager(t, &feedStore{store, func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
			return inner.Watch(ctx, from, func(b backend.Batch) error {
				for silent.Load() && ctx.Err() == nil {
					time.Sleep(time.Second)
				}
				return fn(b)
			})
		}}, fob.Config{Observer: seen})
		defer m.Close()
		pass(10 * time.Second)
		require.True(t, m.Health().Following)
		require.Empty(t, seen.types())
		silent.Store(true)
		pass(4 * time.Second)
		h := m.Health()
		require.False(t, h.Following)
		require.ErrorContains(t, h.Err, "proved nothing")
		require.WithinDuration(t, time.Now(), h.LostAt, 3*time.Second)
		pass(time.Minute)
		require.Equal(t, []fob.EventType{fob.EventFeedLost}, seen.types(), "once")
		silent.Store(false)
		pass(2 * time.Second)
		require.True(t, m.Health().Following)
		require.Equal(t, []fob.EventType{fob.EventFeedLost, fob.EventFeedResumed}, seen.types())
	})
}

// A feed that is well is not silent, whatever MaxStaleness is.
func TestAFeedThatIsWellIsNotSilent(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		seen := &observed{}
		m := newManager(t, fault, fob.Config{MaxStaleness: 50 * time.Millisecond, Observer: seen})
		defer m.Close()
		pass(time.Minute)
		require.Empty(t, seen.types())
	})
}

// So is one that never says anything, or never proves what it says.
func TestHealthOfAFeedThatProvesNothing(t *testing.T) {
	for name, behave := range map[string]feedBehaviour{
		"nothing comes": func(ctx context.Context, _ backend.Token, _ backend.Watcher, _ func(backend.Batch) error) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"no proof comes": func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
			return inner.Watch(ctx, from, func(b backend.Batch) error {
				b.AsOf = time.Time{}
				return fn(b)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				defer func() { require.NoError(t, store.Close()) }()
				seen := &observed{}
				m, err := fob.New(&feedStore{store, behave}, fob.Config{Observer: seen, SweepInterval: -1})
				require.NoError(t, err)
				defer m.Close()
				pass(time.Minute)
				require.Equal(t, []fob.EventType{fob.EventFeedLost}, seen.types())
				h := m.Health()
				require.False(t, h.Following)
				require.Negative(t, h.FeedAge)
				require.ErrorContains(t, h.Err, "proved nothing")
			})
		})
	}
}

func TestHealthWithoutAFeed(t *testing.T) {
	m := newManager(t, bare{memory.New()}, fob.Config{})
	h := m.Health()
	require.False(t, h.Following)
	require.Negative(t, h.FeedAge)
	require.NoError(t, h.Err)
}

// That history was lost is said once: what then fails is done again.
func TestALossOfHistoryIsNotForgotten(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		here := newManager(t, store, fob.Config{})
		defer here.Close()
		text, key := mustIssue(t, here, fob.KeySpec{})
		var failover atomic.Bool
		there := newManager(t, &feedStore{fault, func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
			// Of the other server a token says nothing, and is not seen to.
			return inner.Watch(ctx, nil, func(b backend.Batch) error {
				if failover.Swap(false) {
					b.Reset, b.Changes = true, nil
				}
				return fn(b)
			})
		}}, fob.Config{})
		defer there.Close()
		pass(time.Second)
		mustVerify(t, there, text)
		fault.InjectOnce(backendtest.OpList, backendtest.Unavailable())
		failover.Store(true)
		_, err := here.Revoke(t.Context(), key.ID(), "")
		require.NoError(t, err)
		pass(3 * time.Second)
		require.True(t, there.Health().Following)
		mustReject(t, there, text, fob.ErrRevoked)
	})
}

// snapshot is the records of a store as they once were.
type snapshot map[backend.ID]backend.Record

func (s snapshot) take(t *testing.T, store backend.Store) {
	t.Helper()
	clear(s)
	for _, rec := range everything(t, store) {
		s[rec.ID] = rec
	}
}

// restore brings back how the records were.
func (s snapshot) restore(t *testing.T, store backend.Store) {
	t.Helper()
	for _, rec := range everything(t, store) {
		old, had := s[rec.ID]
		if !had {
			require.NoError(t, store.Delete(t.Context(), rec.ID, rec.Version))
			continue
		}
		_, err := store.Put(t.Context(), old, backend.IfVersion(rec.Version))
		require.NoError(t, err)
	}
}

func everything(t *testing.T, store backend.Store) (all []backend.Record) {
	t.Helper()
	lister, _ := backend.As[backend.Lister](store)
	for kind := backend.Kind(1); kind < 20; kind++ {
		page, err := lister.List(t.Context(), backend.Query{Kind: kind, Limit: backend.MaxLimit})
		require.NoError(t, err)
		all = append(all, page.Records...)
	}
	return all
}

// countedLists counts the records that lists returned.
type countedLists struct {
	backend.Store
	listed atomic.Int64
}

func (s *countedLists) Unwrap() backend.Store { return s.Store }

func (s *countedLists) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	lister, _ := backend.As[backend.Lister](s.Store)
	page, err := lister.List(ctx, q)
	s.listed.Add(int64(len(page.Records)))
	return page, err
}

func (s *countedLists) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	scanner, _ := backend.As[backend.Scanner](s.Store)
	return scanner.Scan(ctx, kind, func(recs []backend.Record) error {
		s.listed.Add(int64(len(recs)))
		return fn(recs)
	})
}

// A Manager over many credentials begins by reading what was revoked, and no credential.
func TestStartReadsOnlyWhatWasRevoked(t *testing.T) {
	store := memory.New()
	first := newManager(t, store, fob.Config{})
	text, _ := mustIssue(t, first, fob.KeySpec{})
	for range 5000 {
		mustIssue(t, first, fob.KeySpec{})
	}
	for _, subject := range []string{"a", "b", "c"} {
		_, err := first.Revoke(t.Context(), fob.User(subject), "")
		require.NoError(t, err)
	}
	counted := &countedLists{Store: store}
	fault := backendtest.NewFault(counted)
	second := newManager(t, fault, fob.Config{})
	require.True(t, second.Health().Following)
	require.EqualValues(t, 3, counted.listed.Load())
	require.Zero(t, gets(fault))
	mustVerify(t, second, text)
	require.Equal(t, 1, gets(fault))
}
