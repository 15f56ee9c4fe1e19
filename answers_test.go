package fob_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/require"
)

// gets counts the reads of records.
func gets(f *backendtest.Fault) int { return f.Calls(backendtest.OpGet) }

// slow makes every read take so long.
func slow(f *backendtest.Fault, d time.Duration) {
	f.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpGet {
			return backendtest.Injection{Delay: d}
		}
		return backendtest.Injection{}
	})
}

// cut makes every call fail, and ends the feed.
func cut(f *backendtest.Fault) {
	f.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
}

// bubble runs a test in which time passes only when everybody waits, with a store
// behind a Fault.
func bubble(t *testing.T, test func(t *testing.T, fault *backendtest.Fault)) {
	t.Helper()
	bubbleOver(t, func(t *testing.T, _ backend.Store, fault *backendtest.Fault) { test(t, fault) })
}

// bubbleOver gives the test the store itself too, as another process sees it.
func bubbleOver(t *testing.T, test func(t *testing.T, store backend.Store, fault *backendtest.Fault)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer func() { require.NoError(t, store.Close()) }()
		test(t, store, backendtest.NewFault(store))
	})
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestWhileTheFeedIsAliveNothingIsReadTwice(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{MaxStaleness: time.Second})
		defer m.Close()
		text, key := mustIssue(t, m, fob.KeySpec{})
		pass(time.Second)
		mustVerify(t, m, text)
		before := gets(fault)
		for range 100 {
			pass(700 * time.Millisecond)
			cred := mustVerify(t, m, text)
			require.Less(t, time.Since(cred.AsOf()), 300*time.Millisecond, "the feed proves it every 100 ms")
		}
		require.Equal(t, before, gets(fault))

		// Cut off, an answer is believed for MaxStaleness, and not longer.
		cut(fault)
		pass(899 * time.Millisecond) // of which the last proof is up to 100 ms older
		mustVerify(t, m, text)
		pass(200 * time.Millisecond)
		_, err := m.Verify(t.Context(), text)
		mustBeUnsure(t, err)
		require.ErrorIs(t, err, backend.ErrUnavailable)

		// Back again, the feed goes on where it was.
		fault.Inject(nil)
		pass(5 * time.Second)
		mustVerify(t, m, text)
		require.Equal(t, key.ID(), mustVerify(t, m, text).ID())
		require.Less(t, m.CacheStats().FeedAge, 200*time.Millisecond)
	})
}

func TestWithoutAFeedAnAnswerIsReadAgainAfterMaxStaleness(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, bare{fault}, fob.Config{MaxStaleness: time.Second})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, text)
		require.Negative(t, m.CacheStats().FeedAge)
		before := gets(fault)
		pass(999 * time.Millisecond)
		cred := mustVerify(t, m, text)
		require.Equal(t, before, gets(fault))
		require.Equal(t, 999*time.Millisecond, time.Since(cred.AsOf()), "it was read then, and nobody has looked since")
		pass(time.Millisecond)
		require.WithinDuration(t, time.Now(), mustVerify(t, m, text).AsOf(), 0)
		require.Equal(t, before+2, gets(fault), "the key and its subject, once")
		require.EqualValues(t, 1, m.CacheStats().Rechecked)
	})
}

func TestAChangeElsewhereIsToldByTheFeed(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		here := newManager(t, fault, fob.Config{MaxStaleness: time.Hour})
		defer here.Close()
		there := newManager(t, fault, fob.Config{})
		defer there.Close()
		text, key := mustIssue(t, there, fob.KeySpec{})
		mustVerify(t, here, text)
		pass(time.Second)
		require.NoError(t, there.Disable(t.Context(), key.ID(), ""))
		synctest.Wait() // no time passes: the store pushes
		mustReject(t, here, text, fob.ErrDisabled)
		require.NoError(t, there.Enable(t.Context(), key.ID()))
		synctest.Wait()
		mustVerify(t, here, text)
		_, err := there.Revoke(t.Context(), key.Subject(), "")
		require.NoError(t, err)
		synctest.Wait()
		mustReject(t, here, text, fob.ErrRevoked)
	})
}

func TestAFeedThatLostItsHistoryIsNotBelievedForWhatWasBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer store.Close()
		feed := &switched{Store: store}
		here := newManager(t, feed, fob.Config{MaxStaleness: time.Hour})
		defer here.Close()
		there := newManager(t, store, fob.Config{})
		defer there.Close()
		text, key := mustIssue(t, there, fob.KeySpec{})
		pass(time.Second) // the feed has begun: what is found out now stays
		mustVerify(t, here, text)
		pass(time.Second)
		feed.cut(true)
		synctest.Wait()
		_, err := there.Revoke(t.Context(), key.ID(), "")
		require.NoError(t, err)
		mustVerify(t, here, text) // within the hour that was allowed
		feed.cut(false)           // and it forgets where we were
		pass(5 * time.Second)
		mustReject(t, here, text, fob.ErrRevoked)
	})
}

// switched is a store whose feed can be cut off, and begins anew after that.
type switched struct {
	backend.Store
	mu   sync.Mutex
	off  bool
	ends []context.CancelFunc
}

func (s *switched) Unwrap() backend.Store { return s.Store }

func (s *switched) cut(off bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = off
	for _, end := range s.ends {
		end()
	}
	s.ends = nil
}

func (s *switched) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	s.mu.Lock()
	if s.off {
		s.mu.Unlock()
		return backend.ErrUnavailable
	}
	watching, end := context.WithCancel(ctx)
	s.ends = append(s.ends, end)
	s.mu.Unlock()
	inner, _ := backend.As[backend.Watcher](s.Store)
	first := true
	err := inner.Watch(watching, nil, func(b backend.Batch) error {
		b.Reset = b.Reset || first && from != nil
		first = false
		return fn(b)
	})
	if ctx.Err() == nil && errors.Is(err, context.Canceled) {
		return backend.ErrUnavailable
	}
	return err
}

func TestAClockThatStepsBackOrAhead(t *testing.T) {
	store := memory.New()
	defer store.Close()
	fault := backendtest.NewFault(store)
	clock := newClock()
	m := newManager(t, bare{fault}, fob.Config{Clock: clock.Now, MaxStaleness: time.Minute})
	text, _ := mustIssue(t, m, fob.KeySpec{TTL: time.Hour})
	mustVerify(t, m, text)
	before := gets(fault)
	mustVerify(t, m, text)
	require.Equal(t, before, gets(fault))
	clock.Add(-5 * time.Minute) // nobody knows how old the answer is now
	mustVerify(t, m, text)
	require.Greater(t, gets(fault), before, "read again")
	before = gets(fault)
	mustVerify(t, m, text)
	require.Equal(t, before, gets(fault), "once")
	clock.Add(-time.Millisecond) // two readings that came out of order
	mustVerify(t, m, text)
	require.Equal(t, before, gets(fault))
	clock.Add(30 * time.Minute)
	mustVerify(t, m, text)
	require.Greater(t, gets(fault), before)
	clock.Add(time.Hour)
	mustReject(t, m, text, fob.ErrExpired)
}

func TestConcurrentMissesMakeOneLoad(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		pass(time.Second) // the feed has begun: a key is one read
		text, _ := mustIssue(t, m, fob.KeySpec{})
		synctest.Wait() // the feed has told of the key
		slow(fault, time.Second)
		before := gets(fault)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { mustVerify(t, m, text) })
		}
		wg.Wait()
		require.Equal(t, before+1, gets(fault))
		require.EqualValues(t, 99, m.CacheStats().Collapsed)
		usage, err := m.Usage(t.Context(), mustVerify(t, m, text).ID())
		require.NoError(t, err)
		require.EqualValues(t, 101, usage.Count, "each is counted")
	})
}

func TestNobodySuffersFromTheFirstCallersDeadline(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		pass(time.Second)
		text, _ := mustIssue(t, m, fob.KeySpec{})
		synctest.Wait() // the feed has told of the key
		slow(fault, time.Second)
		before := gets(fault)
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := m.Verify(short, text)
			mustBeUnsure(t, err)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 300*time.Millisecond, time.Since(began), "it does not wait past its own deadline either")
		})
		synctest.Wait()
		wg.Go(func() { mustVerify(t, m, text) })
		wg.Wait()
		require.Equal(t, before+2, gets(fault), "the one that was cut off, and the one that went on")
	})
}

func TestAStoreSlowerThanEveryDeadlineStillFillsTheCache(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		pass(time.Second)
		text, _ := mustIssue(t, m, fob.KeySpec{})
		synctest.Wait() // the feed has told of the key
		slow(fault, time.Second)
		for range 3 {
			short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, err := m.Verify(short, text)
			cancel()
			mustBeUnsure(t, err)
		}
		pass(2 * time.Second)
		before := gets(fault)
		mustVerify(t, m, text)
		require.Equal(t, before, gets(fault))
	})
}

func TestCloseEndsALoadThatWentOnAlone(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		text, _ := mustIssue(t, m, fob.KeySpec{})
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			return backendtest.Injection{Hang: c.Op == backendtest.OpGet}
		})
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := m.Verify(short, text)
		mustBeUnsure(t, err)
		began := time.Now()
		require.NoError(t, m.Close())
		require.Zero(t, time.Since(began))
	})
}

// A caller that comes after a revocation must not be given what a load from before
// it brings.
func TestALateCallerDoesNotJoinALoadFromBeforeTheRevocation(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		pass(time.Second)
		text, key := mustIssue(t, m, fob.KeySpec{})
		// The record is read, and takes its time to get here.
		late := false
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if c.Op == backendtest.OpGet && !late {
				late = true
				return backendtest.Injection{After: func() { time.Sleep(time.Minute) }}
			}
			return backendtest.Injection{}
		})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = m.Verify(t.Context(), text) }) // began before: either answer is right
		synctest.Wait()
		_, err := m.Revoke(t.Context(), key.ID(), "")
		require.NoError(t, err)
		wg.Go(func() { mustReject(t, m, text, fob.ErrRevoked) })
		wg.Wait()
		mustReject(t, m, text, fob.ErrRevoked)
	})
}

func TestAPanicOfTheStoreLeavesNobodyWaiting(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		fault.InjectOnce(backendtest.OpGet, backendtest.Injection{Before: func() {
			time.Sleep(time.Second)
			panic("a bug of the store")
		}})
		var wg sync.WaitGroup
		wg.Go(func() { require.Panics(t, func() { _, _ = m.Verify(t.Context(), text) }) })
		synctest.Wait()
		wg.Go(func() { mustVerify(t, m, text) }) // looks for itself
		wg.Wait()
		mustVerify(t, m, text)
	})
}

func TestUnknownKeysAreRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{Imported: &fob.ImportedKeys{}})
		defer m.Close()
		pass(time.Second)
		text, key := mustIssue(t, m, fob.KeySpec{})
		synctest.Wait() // the feed has told of the key
		before := gets(fault)

		// One ID that nobody has, under many secrets.
		var nobody fob.ID
		copy(nobody[:], "0123456789abcdef")
		for range 50 {
			mustReject(t, m, forge(t, "acme_live", nobody), fob.ErrUnknown)
		}
		require.Equal(t, before+2, gets(fault), "what comes again is remembered")
		// One that somebody has, under wrong secrets.
		for range 50 {
			mustReject(t, m, forge(t, "acme_live", key.ID()), fob.ErrUnknown)
		}
		require.Equal(t, before+4, gets(fault))
		require.EqualValues(t, 96, m.CacheStats().NegativeHits)
		mustVerify(t, m, text)

		// An imported key that was asked for too early.
		mustReject(t, m, importedText, fob.ErrUnknown)
		mustReject(t, m, importedText, fob.ErrUnknown)
		before = gets(fault)
		mustReject(t, m, importedText, fob.ErrUnknown)
		require.Equal(t, before, gets(fault))
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
		require.NoError(t, err)
		mustVerify(t, m, importedText)
	})
}

func TestAKeyMadeElsewhereIsNotUnknownForLong(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		for _, store := range []backend.Store{fault, bare{fault}} {
			here := newManager(t, store, fob.Config{Imported: &fob.ImportedKeys{}})
			there := newManager(t, fault, fob.Config{Imported: &fob.ImportedKeys{}})
			text := fmt.Sprintf("%s-%T", importedText, store)
			mustReject(t, here, text, fob.ErrUnknown)
			mustReject(t, here, text, fob.ErrUnknown)
			_, err := there.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: text})
			require.NoError(t, err)
			if _, plain := store.(bare); plain {
				pass(2 * time.Second) // MaxStaleness
			}
			synctest.Wait()
			mustVerify(t, here, text)
			require.NoError(t, here.Close())
			require.NoError(t, there.Close())
		}
	})
}

func TestAFloodOfGarbageEvictsNothingGood(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{CacheEntries: 100, MaxStaleness: time.Hour})
	var texts []string
	for range 100 {
		text, _ := mustIssue(t, m, fob.KeySpec{})
		texts = append(texts, text)
	}
	for _, text := range texts {
		mustVerify(t, m, text)
	}
	evicted := m.CacheStats().Keys.Evicted
	for range 10_000 {
		mustReject(t, m, forge(t, "acme_live", fob.ID([]byte(forge(t, "x", fob.ID([]byte("0123456789abcdef"))))[20:36])), fob.ErrUnknown)
	}
	require.Equal(t, evicted, m.CacheStats().Keys.Evicted)
	require.LessOrEqual(t, m.CacheStats().Absent.Entries, 100)
}

func TestFreshTrustsNoMemory(t *testing.T) {
	store := memory.New()
	defer store.Close()
	fault := backendtest.NewFault(store)
	here := newManager(t, bare{fault}, fob.Config{MaxStaleness: time.Hour, StaleIfError: time.Hour, Tokens: tokenConfig().Tokens})
	there := newManager(t, store, fob.Config{Tokens: tokenConfig().Tokens})
	text, key := mustIssue(t, there, fob.KeySpec{})
	issued, err := there.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api"})
	require.NoError(t, err)
	for _, presented := range []string{text, issued.Access.Reveal()} {
		mustVerify(t, here, presented)
		cred, err := here.Fresh().Verify(t.Context(), presented)
		require.NoError(t, err)
		require.Equal(t, mustVerify(t, here, presented).ID(), cred.ID())
	}
	require.NoError(t, there.Disable(t.Context(), key.ID(), ""))
	for _, presented := range []string{text, issued.Access.Reveal()} {
		mustVerify(t, here, presented) // as MaxStaleness allows, until anybody is told
	}
	for _, presented := range []string{text, issued.Access.Reveal()} {
		_, err := here.Fresh().Verify(t.Context(), presented)
		require.ErrorIs(t, err, fob.ErrDisabled)
		mustReject(t, here, presented, fob.ErrDisabled) // what was learnt is remembered
	}
	require.NoError(t, there.Enable(t.Context(), key.ID()))
	cut(fault)
	_, err = here.Fresh().Verify(t.Context(), text)
	mustBeUnsure(t, err)
	mustReject(t, here, forge(t, "acme_test", key.ID()), fob.ErrMalformed)
}

func TestStaleIfError(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{MaxStaleness: time.Second, StaleIfError: time.Minute, Tokens: tokenConfig().Tokens})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api", TTL: 10 * time.Minute})
		require.NoError(t, err)
		token := issued.Access.Reveal()
		never, _ := mustIssue(t, m, fob.KeySpec{})
		short, _ := mustIssue(t, m, fob.KeySpec{TTL: 20 * time.Second})
		revoked, key := mustIssue(t, m, fob.KeySpec{})
		pass(time.Second)
		for _, text := range []string{text, token, short, revoked} {
			mustVerify(t, m, text)
		}
		pass(time.Second)
		receipt, err := m.Revoke(t.Context(), key.ID(), "")
		require.NoError(t, err)
		require.Equal(t, 61*time.Second, receipt.EverywhereBy.Sub(receipt.At), "who is cut off may go on so long")

		// The store fails at once.
		cut(fault)
		pass(30 * time.Second)
		for range 10 {
			cred := mustVerify(t, m, text)
			require.InDelta(t, 30, time.Since(cred.AsOf()).Seconds(), 0.3, "it says how old it is")
			cred = mustVerify(t, m, token)
			require.InDelta(t, 30, time.Since(cred.AsOf()).Seconds(), 0.3)
		}
		mustReject(t, m, short, fob.ErrExpired)
		for _, text := range []string{revoked, never} {
			_, err := m.Verify(t.Context(), text)
			mustBeUnsure(t, err) // known to be revoked, or never seen: neither is accepted
		}
		require.NotZero(t, m.CacheStats().Stale)

		// The store hangs: nobody waits for it longer than a moment, and few at all.
		fault.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Injection{Hang: true} })
		pass(2 * time.Second)
		began := time.Now()
		for range 10 {
			mustVerify(t, m, text)
		}
		require.LessOrEqual(t, time.Since(began), 250*time.Millisecond)

		// And it ends.
		cut(fault)
		pass(30 * time.Second)
		for _, text := range []string{text, token} {
			_, err := m.Verify(t.Context(), text)
			mustBeUnsure(t, err)
		}
		fault.Inject(nil)
		pass(5 * time.Second)
		mustVerify(t, m, text)
		mustVerify(t, m, token)
		mustReject(t, m, revoked, fob.ErrRevoked)
	})
}

func TestACorruptRecordIsNoOutage(t *testing.T) {
	store := memory.New()
	defer store.Close()
	clock := newClock()
	m := newManager(t, bare{store}, fob.Config{MaxStaleness: time.Second, StaleIfError: time.Hour, Clock: clock.Now})
	text, key := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)
	rec, err := store.Get(t.Context(), backend.ID(key.ID()))
	require.NoError(t, err)
	rec.Body = []byte("what is this")
	_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	require.NoError(t, err)
	clock.Add(time.Minute)
	_, err = m.Verify(t.Context(), text)
	require.ErrorIs(t, err, fob.ErrCorrupt)
}

func TestRevokingAParentEndsAllItsTokens(t *testing.T) {
	store := memory.New()
	defer store.Close()
	m := newManager(t, store, fob.Config{Tokens: tokenConfig().Tokens, MaxStaleness: time.Hour})
	text, key := mustIssue(t, m, fob.KeySpec{})
	var tokens []string
	for range 200 {
		issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api"})
		require.NoError(t, err)
		tokens = append(tokens, issued.Access.Reveal())
		mustVerify(t, m, tokens[len(tokens)-1])
	}
	_, err := m.Revoke(t.Context(), key.ID(), "leaked")
	require.NoError(t, err)
	for _, token := range tokens {
		mustReject(t, m, token, fob.ErrRevoked)
	}
}

func TestAForgedTokenThatComesAgainCostsNoSignature(t *testing.T) {
	m := newManager(t, bare{memory.New()}, fob.Config{Tokens: tokenConfig().Tokens, MaxStaleness: time.Hour})
	issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("u"), Audience: "api"})
	require.NoError(t, err)
	text := issued.Access.Reveal()
	forged := text[:40] + "AAAA" + text[44:]
	for range 10 {
		mustReject(t, m, forged, fob.ErrTokenSeal)
	}
	require.EqualValues(t, 8, m.CacheStats().NegativeHits)
	mustVerify(t, m, text)
}

func TestTheCacheIsBoundedInBytes(t *testing.T) {
	m := newManager(t, nil, fob.Config{CacheEntries: 1000, CacheBytes: 100_000, MaxStaleness: time.Hour})
	scopes := make(fob.Scopes, 60)
	for i := range scopes {
		scopes[i] = fob.Scope(fmt.Sprintf("a-rather-long-scope-of-something:%d", i))
	}
	for range 200 {
		text, _ := mustIssue(t, m, fob.KeySpec{Scopes: scopes})
		mustVerify(t, m, text)
		mustVerify(t, m, text)
	}
	st := m.CacheStats().Keys
	require.LessOrEqual(t, st.Bytes, int64(100_000))
	require.NotZero(t, st.Entries)
	require.NotZero(t, st.Evicted)
	require.NotZero(t, st.Hits)
}

// What finds a good entry is a hit, once, whether it is accepted or not.
func TestEachHitIsCountedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		cfg := tokenConfig()
		cfg.MaxStaleness = time.Hour
		m := newManager(t, fault, cfg)
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		short, _ := mustIssue(t, m, fob.KeySpec{ExpiresAt: time.Now().Add(time.Minute)})
		parent, _ := mustIssue(t, m, fob.KeySpec{})
		plain := mustToken(t, m, fob.TokenSpec{Subject: fob.User("ada")}).Access.Reveal()
		exchanged := mustExchange(t, m, parent, fob.TokenSpec{}).Access.Reveal()
		pass(time.Second) // the feed has told of all of it
		for _, presented := range []string{text, short, plain, exchanged} {
			mustVerify(t, m, presented)
		}
		hits := func() [2]uint64 {
			st := m.CacheStats()
			return [2]uint64{st.Keys.Hits, st.Tokens.Hits}
		}
		require.Equal(t, [2]uint64{}, hits(), "each was read")
		want := [2]uint64{}
		for range 3 {
			for at, presented := range map[int][]string{0: {text, short}, 1: {plain, exchanged}} {
				for _, p := range presented {
					mustVerify(t, m, p)
					want[at]++
					require.Equal(t, want, hits())
				}
			}
		}
		block := keytext.Block(text)
		mustReject(t, m, keytext.Format("acme_live", [keytext.IDLen]byte(block[1:]), keytext.NewSecret()), fob.ErrUnknown)
		pass(time.Minute)
		mustReject(t, m, short, fob.ErrExpired)
		want[0] += 2
		require.Equal(t, want, hits(), "what is refused with what is in memory")
	})
}

func TestANextVersionOfCacheSettingsIsChecked(t *testing.T) {
	_, err := fob.New(memory.New(), fob.Config{StaleIfError: -1, CacheBytes: -1, MaxStaleness: 48 * time.Hour})
	require.ErrorIs(t, err, fob.ErrInvalid)
	require.ErrorContains(t, err, "StaleIfError")
	require.ErrorContains(t, err, "CacheBytes")
	require.ErrorContains(t, err, "MaxStaleness")
}

// A clock that stands before 1970, on a machine that has not found the time yet, is no
// reason to answer neither yes nor no.
func TestAClockBefore1970(t *testing.T) {
	m := newManager(t, nil, fob.Config{Clock: func() time.Time { return time.Unix(-5, 0) }})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	for range 3 {
		mustVerify(t, m, text)
	}
}
