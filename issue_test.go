package fob_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

const requestID = "5f0c9a52-6f1e-4a55-9d0c-2c1a7f6f3f11"

func TestAnIdempotentIssueReturnsTheSameSecret(t *testing.T) {
	clock := newClock()
	store := memory.New()
	pepper := fob.Pepper{ID: "p1", Key: make([]byte, 32)}
	for name, cfg := range map[string]fob.Config{
		"plain":    {Clock: clock.Now},
		"peppered": {Clock: clock.Now, Peppers: []fob.Pepper{pepper}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := fob.KeySpec{Subject: fob.App(name), Scopes: fob.Scopes{"a"}, IdempotencyKey: requestID}
			m := newManager(t, store, cfg)
			first, key, err := m.IssueKey(t.Context(), spec)
			require.NoError(t, err)
			again, sameKey, err := newManager(t, store, cfg).IssueKey(t.Context(), spec)
			require.NoError(t, err)
			require.Equal(t, first.Reveal(), again.Reveal())
			require.Equal(t, key.ID(), sameKey.ID())
			mustVerify(t, m, again.Reveal())
			page, err := m.List(t.Context(), fob.Query{Subject: fob.App(name)})
			require.NoError(t, err)
			require.Len(t, page.Items, 1)

			changed := spec
			changed.Scopes = fob.Scopes{"a", "b"}
			_, _, err = m.IssueKey(t.Context(), changed)
			require.ErrorIs(t, err, fob.ErrIdempotency)

			other := spec
			other.Subject.Name = name + "-2" // another tenant may choose the same key
			otherSecret, _, err := m.IssueKey(t.Context(), other)
			require.NoError(t, err)
			require.NotEqual(t, first.Reveal(), otherSecret.Reveal())

			_, err = m.Revoke(t.Context(), key.ID(), "")
			require.NoError(t, err)
			again, _, err = m.IssueKey(t.Context(), spec)
			require.NoError(t, err)
			mustReject(t, m, again.Reveal(), fob.ErrRevoked) // repeating brings nothing back

			clock.Add(24 * time.Hour)
			later, _, err := m.IssueKey(t.Context(), spec)
			require.NoError(t, err)
			require.NotEqual(t, first.Reveal(), later.Reveal(), "its window is over")
			mustVerify(t, m, later.Reveal())
		})
	}
}

func TestTheStoreAloneCannotOpenAnIdempotentAnswer(t *testing.T) {
	store := memory.New()
	spy := &recording{Store: store}
	m := newManager(t, spy, fob.Config{})
	secret, _, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID})
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(spy.put), 2)
	text := secret.Reveal()
	for _, rec := range spy.put {
		require.NotContains(t, string(rec.Body), text[27:59], "no record holds the secret")
		require.NotContains(t, string(rec.Body), requestID, "nor what would open it")
	}
}

// recording keeps what is written.
type recording struct {
	backend.Store
	mu  sync.Mutex
	put []backend.Record
}

func (r *recording) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	r.mu.Lock()
	r.put = append(r.put, rec)
	r.mu.Unlock()
	return r.Store.Put(ctx, rec, cond)
}

func TestAnIdempotentIssueCutOffAnywhereIsFinishedByTheRepeat(t *testing.T) {
	spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
	for n := 0; ; n++ {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, fault, fob.Config{})
		fault.CrashAfter(n)
		_, _, err := m.IssueKey(t.Context(), spec)
		fault.Inject(nil)
		secret, key, again := newManager(t, fault, fob.Config{}).IssueKey(t.Context(), spec)
		require.NoError(t, again, "cut off after %d calls", n)
		mustVerify(t, m, secret.Reveal())
		page, listErr := m.List(t.Context(), fob.Query{})
		require.NoError(t, listErr)
		require.Len(t, page.Items, 1)
		require.Equal(t, key.ID(), page.Items[0].ID())
		if err == nil {
			require.GreaterOrEqual(t, n, 4)
			return
		}
	}
}

func TestConcurrentIdempotentIssuesAgree(t *testing.T) {
	for range 20 {
		m := newManager(t, nil, fob.Config{})
		spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
		var mu sync.Mutex
		secrets := map[string]int{}
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				secret, _, err := m.IssueKey(context.Background(), spec)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				secrets[secret.Reveal()]++
				mu.Unlock()
			})
		}
		wg.Wait()
		require.Len(t, secrets, 1)
		for text := range secrets {
			mustVerify(t, m, text)
		}
	}
}

func TestAnIssueWhoseAnswerIsLostIsMadeSureOf(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{})
	fault.InjectOnce(backendtest.OpPut, backendtest.LostAck())
	text, _ := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)
	fault.InjectOnce(backendtest.OpPut, backendtest.Unavailable())
	secret, _, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a")})
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.True(t, secret.IsZero())
}

func TestPeppersRotateWithoutReissuing(t *testing.T) {
	store := memory.New()
	p1 := fob.Pepper{ID: "p1", Key: []byte("0123456789abcdef0123456789abcdef")}
	p2 := fob.Pepper{ID: "p2", Key: []byte("fedcba9876543210fedcba9876543210")}
	plain := newManager(t, store, fob.Config{})
	fromPlain, _ := mustIssue(t, plain, fob.KeySpec{})
	first := newManager(t, store, fob.Config{Peppers: []fob.Pepper{p1}})
	fromFirst, key := mustIssue(t, first, fob.KeySpec{})
	mustVerify(t, first, fromFirst)

	seen := &observed{}
	both := newManager(t, store, fob.Config{Peppers: []fob.Pepper{p2, p1}, Observer: seen})
	mustVerify(t, both, fromFirst)
	mustVerify(t, both, fromPlain)
	require.Equal(t, []fob.EventType{fob.EventRehashed, fob.EventRehashed}, seen.types())
	mustVerify(t, both, fromFirst)
	mustReject(t, both, forge(t, "acme_live", key.ID()), fob.ErrUnknown)

	second := newManager(t, store, fob.Config{Peppers: []fob.Pepper{p2}})
	mustVerify(t, second, fromFirst) // rehashed: the first pepper is no longer needed
	mustVerify(t, second, fromPlain)

	without := newManager(t, store, fob.Config{})
	_, err := without.Verify(t.Context(), fromFirst)
	require.ErrorIs(t, err, fob.ErrPepper)
	mustBeUnsure(t, err)
	wrong := newManager(t, store, fob.Config{Peppers: []fob.Pepper{{ID: "p2", Key: p1.Key}}})
	_, err = wrong.Verify(t.Context(), fromFirst)
	require.ErrorIs(t, err, fob.ErrPepper)
	mustBeUnsure(t, err)
}

func TestAFailedRehashIsNoFailureOfTheVerification(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	text, _ := mustIssue(t, newManager(t, fault, fob.Config{}), fob.KeySpec{})
	seen, clock := &observed{}, newClock()
	m := newManager(t, bare{fault}, fob.Config{Observer: seen, Clock: clock.Now, Peppers: []fob.Pepper{{ID: "p", Key: make([]byte, 32)}}})
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpPut {
			return backendtest.Unavailable()
		}
		return backendtest.Injection{}
	})
	for range 100 {
		mustVerify(t, m, text)
	}
	puts := fault.Calls(backendtest.OpPut)
	clock.Add(time.Minute) // it is read again
	mustVerify(t, m, text)
	require.Equal(t, puts, fault.Calls(backendtest.OpPut), "a store that takes no writes is left alone")
	require.Equal(t, []fob.EventType{fob.EventUpkeepFailed}, seen.types())
	fault.Inject(nil)
	clock.Add(10 * time.Minute)
	mustVerify(t, m, text)
	require.Equal(t, []fob.EventType{fob.EventUpkeepFailed, fob.EventRehashed}, seen.types())
}

// Two processes whose peppers are in another order do not write one key in turns.
func TestPeppersInAnotherOrder(t *testing.T) {
	store := memory.New()
	p1, p2 := fob.Pepper{ID: "p1", Key: make([]byte, 32)}, fob.Pepper{ID: "p2", Key: make([]byte, 33)}
	fault := backendtest.NewFault(store)
	a := newManager(t, fault, fob.Config{Peppers: []fob.Pepper{p1, p2}})
	b := newManager(t, fault, fob.Config{Peppers: []fob.Pepper{p2, p1}})
	text, _ := mustIssue(t, a, fob.KeySpec{})
	before := fault.Calls(backendtest.OpPut)
	for range 20 {
		for _, m := range []*fob.Manager{a, b} {
			_, err := m.Fresh().Verify(t.Context(), text)
			require.NoError(t, err)
		}
	}
	require.LessOrEqual(t, fault.Calls(backendtest.OpPut), before+3, "once each, and the check value of p2")
}

// A repeat must find what became of the key, not make it anew: its record outlives
// the answer even where Retention is shorter than the window.
func TestARepeatedIssueRevivesNothing(t *testing.T) {
	spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
	limited := spec
	limited.TTL = time.Hour
	for name, c := range map[string]struct {
		spec   fob.KeySpec
		end    func(m *fob.Manager, id fob.ID) error
		reason error
		status fob.Status
		purged int
	}{
		"revoked": {spec, func(m *fob.Manager, id fob.ID) error {
			_, err := m.Revoke(t.Context(), id, "leaked")
			return err
		}, fob.ErrRevoked, fob.StatusRevoked, 2},
		"its subject revoked": {spec, func(m *fob.Manager, _ fob.ID) error {
			_, err := m.Revoke(t.Context(), fob.App("a"), "")
			return err
		}, fob.ErrRevoked, fob.StatusRevoked, 1}, // the answer; the key's own record has no end
		"expired": {limited, func(*fob.Manager, fob.ID) error { return nil }, fob.ErrExpired, fob.StatusExpired, 2},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			m := newManager(t, nil, fob.Config{Clock: clock.Now, Retention: time.Millisecond, IdempotencyWindow: 24 * time.Hour})
			text, key := mustIssue(t, m, c.spec)
			require.NoError(t, c.end(m, key.ID()))
			for range 3 {
				clock.Add(8*time.Hour - time.Millisecond)
				_, err := m.Sweep(t.Context())
				require.NoError(t, err)
				again, sameKey, err := m.IssueKey(t.Context(), c.spec)
				require.NoError(t, err)
				require.Equal(t, text, again.Reveal())
				require.Equal(t, c.status, sameKey.StatusAt(clock.Now()), "what is returned says what it is")
				mustReject(t, m, text, c.reason)
			}
			clock.Add(48 * time.Hour)
			swept, err := m.Sweep(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.purged, swept.Purged, "kept no longer than is needed")
		})
	}
}

// A host whose clock is late trusts an answer that is over elsewhere, and must
// still find its key.
func TestAnAnswerIsForgottenBeforeItsKey(t *testing.T) {
	store := memory.New()
	clock, late := newClock(), newClock()
	clock.Add(time.Hour)
	m := newManager(t, store, fob.Config{Clock: clock.Now, Retention: time.Millisecond})
	spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
	text, key := mustIssue(t, m, spec)
	_, err := m.Revoke(t.Context(), key.ID(), "leaked")
	require.NoError(t, err)
	clock.Add(24 * time.Hour)
	late.Add(24 * time.Hour)
	_, err = m.Sweep(t.Context())
	require.NoError(t, err)
	_, err = store.Get(t.Context(), idOf(key))
	require.NoError(t, err)
	_, _, _ = newManager(t, store, fob.Config{Clock: late.Now}).IssueKey(t.Context(), spec)
	mustReject(t, m, text, fob.ErrRevoked)
}

func TestARepeatedIssueIsOfTheSamePrefix(t *testing.T) {
	spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
	store := memory.New()
	mustIssue(t, newManager(t, store, fob.Config{Prefix: "acme_live"}), spec)
	_, _, err := newManager(t, store, fob.Config{Prefix: "acme_test"}).IssueKey(t.Context(), spec)
	require.ErrorIs(t, err, fob.ErrIdempotency, "another environment over the same store")
	both := newManager(t, store, fob.Config{Prefix: "acme_live", Prefixes: []string{"acme_ci"}})
	named := spec
	named.Prefix = "acme_ci"
	_, _, err = both.IssueKey(t.Context(), named)
	require.ErrorIs(t, err, fob.ErrIdempotency)
	named.Prefix = "acme_live"
	mustIssue(t, both, named) // the default, by its name
}

// The default prefix was retired between a call that was cut off and its repeat.
func TestARepeatedIssueOutlivesItsPrefix(t *testing.T) {
	for puts := 1; puts <= 2; puts++ {
		fault := backendtest.NewFault(memory.New())
		spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
		fault.CrashAfter(puts, backendtest.OpPut)
		_, _, err := newManager(t, fault, fob.Config{Prefix: "acme_old"}).IssueKey(t.Context(), spec)
		fault.Inject(nil)
		require.Equal(t, puts == 2, err == nil)
		m := newManager(t, fault, fob.Config{Prefix: "acme_new", RetiredPrefixes: []string{"acme_old"}})
		text, key := mustIssue(t, m, spec)
		require.Equal(t, "acme_old", key.Prefix())
		mustVerify(t, m, text)
	}
}

func TestAPurgeInTheMiddleOfAnIssueIsNoFailure(t *testing.T) {
	clock := newClock()
	inner := memory.New()
	fault := backendtest.NewFault(inner)
	m := newManager(t, fault, fob.Config{Clock: clock.Now, IdempotencyWindow: time.Hour})
	spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
	first, _ := mustIssue(t, m, spec)
	clock.Add(26 * time.Hour) // the window and a day, for clocks that are late
	fault.InjectOnce(backendtest.OpPut, backendtest.Injection{Before: func() {
		n, err := inner.Purge(context.Background(), clock.Now(), 1000)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}})
	text, _ := mustIssue(t, m, spec)
	require.NotEqual(t, first, text)
	mustVerify(t, m, text)
}
