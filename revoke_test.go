package fob_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

func TestRevokeMeansRevoked(t *testing.T) {
	clock := newClock()
	seen := &observed{}
	m := newManager(t, nil, fob.Config{Clock: clock.Now, Observer: seen})
	text, key := mustIssue(t, m, fob.KeySpec{})
	other, _ := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)

	receipt, err := m.Revoke(t.Context(), key.ID(), "leaked in a log\n")
	require.NoError(t, err)
	require.False(t, receipt.Already)
	require.Equal(t, clock.Now(), receipt.At)
	require.Equal(t, clock.Now().Add(2*time.Second), receipt.EverywhereBy)
	mustReject(t, m, text, fob.ErrRevoked)
	mustVerify(t, m, other)

	cred, err := m.Get(t.Context(), key.ID())
	require.NoError(t, err)
	require.Equal(t, fob.StatusRevoked, cred.StatusAt(clock.Now()))
	require.Equal(t, fob.RevokeReason("leaked in a log"), cred.RevokeReason())
	require.Equal(t, clock.Now(), cred.RevokedAt())

	clock.Add(time.Minute)
	receipt, err = m.Revoke(t.Context(), key.ID(), "again")
	require.NoError(t, err)
	require.True(t, receipt.Already)
	cred, _ = m.Get(t.Context(), key.ID())
	require.Equal(t, fob.RevokeReason("leaked in a log"), cred.RevokeReason(), "the first reason stays")
	require.Equal(t, []fob.EventType{fob.EventIssued, fob.EventIssued, fob.EventRevoked}, seen.types())

	_, err = m.Revoke(t.Context(), fob.ID{1, 2, 3}, "")
	require.ErrorIs(t, err, fob.ErrNotFound)
	_, err = m.Revoke(t.Context(), key.ID(), fob.RevokeReason(strings.Repeat("é\x00", 1000)))
	require.NoError(t, err, "no reason is so bad that a revocation fails")
}

func TestRevokeSubjectEndsAllOfASubjectAndNothingElse(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{})
	var texts []string
	for range 50 {
		text, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-42")})
		mustVerify(t, m, text)
		texts = append(texts, text)
	}
	user, userKey := mustIssue(t, m, fob.KeySpec{Subject: fob.User("app-42")})
	other, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-4")})

	puts := fault.Calls(backendtest.OpPut)
	_, err := m.Revoke(t.Context(), fob.App("app-42"), "contract ended")
	require.NoError(t, err)
	require.Equal(t, puts+1, fault.Calls(backendtest.OpPut), "one write, however many keys")
	for _, text := range texts {
		mustReject(t, m, text, fob.ErrRevoked)
	}
	mustVerify(t, m, other)
	mustVerify(t, m, user)

	fresh, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-42")})
	mustVerify(t, m, fresh)
	page, err := m.List(t.Context(), fob.Query{Subject: fob.App("app-42"), Status: fob.StatusRevoked, Limit: 100})
	require.NoError(t, err)
	require.Len(t, page.Items, 50)

	_, err = m.Revoke(t.Context(), fob.App("app-42"), "once more")
	require.NoError(t, err)
	mustReject(t, m, fresh, fob.ErrRevoked)
	mustVerify(t, m, user)
	_, err = m.Revoke(t.Context(), fob.User("app-42"), "the user of that name")
	require.NoError(t, err)
	mustReject(t, m, user, fob.ErrRevoked)
	cred, err := m.Get(t.Context(), userKey.ID())
	require.NoError(t, err)
	require.Equal(t, fob.StatusRevoked, cred.StatusAt(time.Now()))
	_, err = m.Revoke(t.Context(), fob.App("never seen"), "")
	require.NoError(t, err)
	_, err = m.Revoke(t.Context(), fob.App(""), "")
	require.ErrorIs(t, err, fob.ErrInvalid)
}

func TestAKeyIssuedWhileItsSubjectIsRevokedIsNeverBothLost(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	// In one order or the other: it is revoked, or it was issued after.
	for range 200 {
		var text string
		var wg sync.WaitGroup
		wg.Go(func() { text, _ = mustIssue(t, m, fob.KeySpec{Subject: fob.App("s")}) })
		wg.Go(func() { _, _ = m.Revoke(context.Background(), fob.App("s"), "") })
		wg.Wait()
		_, first := m.Verify(t.Context(), text)
		_, second := m.Verify(t.Context(), text)
		require.Equal(t, first == nil, second == nil)
		if first != nil {
			require.ErrorIs(t, first, fob.ErrRevoked)
		}
		_, err := m.Revoke(t.Context(), fob.App("s"), "")
		require.NoError(t, err)
		mustReject(t, m, text, fob.ErrRevoked)
	}
}

// A Verify that read the record before the revocation and comes back after it
// must not bring the old state into the cache.
func TestALookupFromBeforeARevokeCannotFillTheCacheAfterIt(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{MaxStaleness: time.Hour})
	for name, revoke := range map[string]func(*fob.Key) error{
		"revoke":  func(k *fob.Key) error { _, err := m.Revoke(context.Background(), k.ID(), ""); return err },
		"disable": func(k *fob.Key) error { return m.Disable(context.Background(), k.ID(), "") },
		"subject": func(k *fob.Key) error {
			_, err := m.Revoke(context.Background(), k.Subject(), "")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			text, key := mustIssue(t, m, fob.KeySpec{Subject: fob.App(name)})
			done := false
			fault.Inject(func(c backendtest.Call) backendtest.Injection {
				if done || c.Op != backendtest.OpGet || c.ID != idOf(key) {
					return backendtest.Injection{}
				}
				done = true
				// The record has been read; now it is revoked; then the reader goes on.
				return backendtest.Injection{After: func() { require.NoError(t, revoke(key)) }}
			})
			_, _ = m.Verify(t.Context(), text) // began before: either answer is right
			require.True(t, done)
			_, err := m.Verify(t.Context(), text)
			require.ErrorIs(t, err, fob.ErrRejected, "the cache was filled with the state from before the %s", name)
		})
	}
}

// Many goroutines verify while one changes the key: no Verify that begins after
// a change has returned may see the state from before it.
func TestNoVerifyAfterAChangeSeesTheOldState(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	const keys, rounds = 4, 250
	var wg sync.WaitGroup
	var accepted, refused atomic.Int64
	for range keys {
		text, key := mustIssue(t, m, fob.KeySpec{})
		var disabled atomic.Int64 // odd: Disable has returned and Enable has not begun
		var done atomic.Bool
		wg.Go(func() {
			defer done.Store(true)
			// On a machine that is busy the others may come late.
			for i := 0; i < rounds || i < 1000*rounds && (accepted.Load() == 0 || refused.Load() == 0); i++ {
				if err := m.Disable(context.Background(), key.ID(), ""); err != nil {
					t.Error(err)
				}
				disabled.Add(1)
				disabled.Add(1) // before Enable begins, so that a reader that saw odd both times is sure
				if err := m.Enable(context.Background(), key.ID()); err != nil {
					t.Error(err)
				}
			}
			_, err := m.Revoke(context.Background(), key.ID(), "")
			if err != nil {
				t.Error(err)
			}
			disabled.Add(1)
		})
		for range 2 {
			wg.Go(func() {
				for !done.Load() {
					before := disabled.Load()
					_, err := m.Verify(context.Background(), text)
					after := disabled.Load()
					switch {
					case err == nil && before == after && before%2 == 1:
						t.Errorf("accepted although a change that refuses it had returned")
						return
					case err == nil:
						accepted.Add(1)
					case errors.Is(err, fob.ErrDisabled), errors.Is(err, fob.ErrRevoked):
						refused.Add(1)
					default:
						t.Error(err)
						return
					}
				}
				_, err := m.Verify(context.Background(), text)
				if !errors.Is(err, fob.ErrRevoked) {
					t.Errorf("after the revocation: %v", err)
				}
			})
		}
	}
	wg.Wait()
	require.NotZero(t, accepted.Load())
	require.NotZero(t, refused.Load())
}

func TestAnotherManagersChangeIsSeenWithinMaxStaleness(t *testing.T) {
	clock := newClock()
	store := memory.New()
	here := newManager(t, store, fob.Config{Clock: clock.Now, MaxStaleness: time.Second})
	there := newManager(t, store, fob.Config{Clock: clock.Now})
	text, key := mustIssue(t, there, fob.KeySpec{})
	mustVerify(t, here, text)
	_, err := there.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	clock.Add(time.Second - time.Millisecond)
	_, _ = here.Verify(t.Context(), text) // may be either
	clock.Add(time.Millisecond)
	mustReject(t, here, text, fob.ErrRevoked)

	text, key = mustIssue(t, there, fob.KeySpec{Subject: fob.App("s")})
	mustVerify(t, here, text)
	_, err = there.Revoke(t.Context(), key.Subject(), "")
	require.NoError(t, err)
	clock.Add(time.Second)
	mustReject(t, here, text, fob.ErrRevoked)
}

func TestAStoreThatFailsIsNeverAnAcceptanceAndNeverARejection(t *testing.T) {
	clock := newClock()
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, fob.Config{Clock: clock.Now})
	text, key := mustIssue(t, m, fob.KeySpec{})
	cached, _ := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, cached)

	fault.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
	cred, err := m.Verify(t.Context(), text)
	mustBeUnsure(t, err)
	require.Nil(t, cred)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	mustVerify(t, m, cached) // while the cached answer may be believed
	clock.Add(2 * time.Second)
	_, err = m.Verify(t.Context(), cached)
	mustBeUnsure(t, err)

	// The key is read, its subject cannot be: still unsure.
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpGet && c.ID != idOf(key) {
			return backendtest.Unavailable()
		}
		return backendtest.Injection{}
	})
	_, err = m.Verify(t.Context(), text)
	mustBeUnsure(t, err)

}

// A store that hangs ends with the caller's patience, and no later one is held up by it.
func TestAStoreThatHangsIsNoRejectionAndHoldsUpNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		synctest.Wait()
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			return backendtest.Injection{Hang: c.Op == backendtest.OpGet}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := m.Verify(ctx, text)
		mustBeUnsure(t, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait() // its load has begun anew, and hangs
		fault.Inject(nil)
		began := time.Now()
		mustVerify(t, m, text)
		require.LessOrEqual(t, time.Since(began), 250*time.Millisecond)
	})
}

func TestARevokeWhoseAnswerIsLostIsMadeSureOf(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)
	fault.InjectOnce(backendtest.OpPut, backendtest.LostAck())
	puts := fault.Calls(backendtest.OpPut)
	_, err := m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	require.Equal(t, puts+2, fault.Calls(backendtest.OpPut), "written again: what can be read need not be durable")
	mustReject(t, m, text, fob.ErrRevoked)

	text, key = mustIssue(t, m, fob.KeySpec{Subject: fob.App("s")})
	mustVerify(t, m, text)
	// Every write is applied and every answer lost: it cannot be made sure of.
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpPut {
			return backendtest.LostAck()
		}
		return backendtest.Injection{}
	})
	_, err = m.Revoke(t.Context(), key.ID(), "")
	require.ErrorIs(t, err, fob.ErrIndeterminate)
	_, err = m.Revoke(t.Context(), fob.App("s"), "")
	require.ErrorIs(t, err, fob.ErrIndeterminate)
	mustReject(t, m, text, fob.ErrRevoked) // treated as applied: it is read anew
	fault.Inject(nil)
	_, err = m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
}

func TestARevokeThatSurelyFailedSaysSoAndChangesNothing(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{})
	fault.InjectOnce(backendtest.OpPut, backendtest.Unavailable())
	_, err := m.Revoke(t.Context(), key.ID(), "")
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.NotErrorIs(t, err, fob.ErrIndeterminate)
	mustVerify(t, m, text)
}

func TestACorruptRecordIsReportedAsSuch(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a", "b"}, Tags: []string{"t"}})
	sound, err := store.Get(t.Context(), idOf(key))
	require.NoError(t, err)
	version := sound.Version
	write := func(rec backend.Record) {
		v, err := store.Put(t.Context(), rec, backend.IfVersion(version))
		require.NoError(t, err)
		version = v
	}
	fresh := func() *fob.Manager { return newManager(t, store, fob.Config{}) }
	for i := range sound.Body {
		for _, bit := range []byte{1, 0x80} {
			rec := sound
			rec.Body = append([]byte(nil), sound.Body...)
			rec.Body[i] ^= bit
			write(rec)
			cred, err := fresh().Verify(t.Context(), text)
			require.ErrorIs(t, err, fob.ErrCorrupt, "byte %d", i)
			mustBeUnsure(t, err)
			require.Nil(t, cred)
		}
	}
	for _, body := range [][]byte{nil, {1}, sound.Body[:len(sound.Body)-1], append(append([]byte(nil), sound.Body...), 0)} {
		rec := sound
		rec.Body = body
		write(rec)
		_, err := fresh().Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrCorrupt)
		_, err = fresh().List(t.Context(), fob.Query{})
		require.ErrorIs(t, err, fob.ErrCorrupt)
		_, err = fresh().Revoke(t.Context(), key.ID(), "")
		require.ErrorIs(t, err, fob.ErrCorrupt)
	}
	write(sound)
	mustVerify(t, fresh(), text)

	// A record that was moved under another ID is no key either.
	other, otherKey := mustIssue(t, m, fob.KeySpec{})
	rec, err := store.Get(t.Context(), idOf(otherKey))
	require.NoError(t, err)
	rec.Body = sound.Body
	_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	require.NoError(t, err)
	_, err = fresh().Verify(t.Context(), other)
	require.ErrorIs(t, err, fob.ErrCorrupt)
}

// What somebody else has changed already is changed for this Manager too, once it
// says so.
func TestAChangeThatIsThereAlreadyEndsTheCachedAnswer(t *testing.T) {
	for name, change := range map[string]func(m *fob.Manager, k *fob.Key) error{
		"revoke":  func(m *fob.Manager, k *fob.Key) error { _, err := m.Revoke(t.Context(), k.ID(), ""); return err },
		"disable": func(m *fob.Manager, k *fob.Key) error { return m.Disable(t.Context(), k.ID(), "") },
		"subject": func(m *fob.Manager, k *fob.Key) error {
			line := fmt.Sprintf(`{"subject":{"kind":"application","name":%q},"epoch":%d,"at":"2036-01-01T00:00:00Z"}`+"\n", k.Subject().Name, int64(2_000_000_000_000))
			_, err := m.ApplyRevocations(t.Context(), strings.NewReader(line))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			here := newManager(t, bare{store}, fob.Config{MaxStaleness: time.Hour})
			there := newManager(t, store, fob.Config{})
			text, key := mustIssue(t, here, fob.KeySpec{})
			mustVerify(t, here, text)
			require.NoError(t, change(there, key))
			mustVerify(t, here, text) // as MaxStaleness allows
			require.NoError(t, change(here, key))
			_, err := here.Verify(t.Context(), text)
			require.ErrorIs(t, err, fob.ErrRejected)
		})
	}
}

// RevokeSubject writes no key, and yet no call says of one that it is good.
func TestEveryCallSeesThatTheSubjectIsRevoked(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
	_, key := mustIssue(t, m, spec)
	_, disabled := mustIssue(t, m, fob.KeySpec{Subject: fob.App("a")})
	require.NoError(t, m.Disable(t.Context(), disabled.ID(), ""))
	_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: time.Hour})
	require.NoError(t, err)
	_, err = m.Revoke(t.Context(), fob.App("a"), "")
	require.NoError(t, err)

	status, err := m.RotationStatus(t.Context(), key.ID())
	require.NoError(t, err)
	require.True(t, status.Retired, "the old key is no longer accepted")
	require.Equal(t, fob.StatusRevoked, status.Old.StatusAt(time.Now()))
	require.Equal(t, fob.StatusRevoked, status.Successor.StatusAt(time.Now()))
	_, again, err := m.IssueKey(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, fob.StatusRevoked, again.StatusAt(time.Now()))
	name := "x"
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Name: &name})
	require.ErrorIs(t, err, fob.ErrRevoked)
	require.ErrorIs(t, m.Enable(t.Context(), disabled.ID()), fob.ErrRevoked)
	require.ErrorIs(t, m.Disable(t.Context(), key.ID(), ""), fob.ErrRevoked)
	_, err = m.Revoke(t.Context(), key.ID(), "for the record")
	require.NoError(t, err)
}

func TestAKeyThatIsNotYetValidIsNotRetired(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	_, key := mustIssue(t, m, fob.KeySpec{NotBefore: clock.Now().Add(time.Hour)})
	_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: 2 * time.Hour})
	require.NoError(t, err)
	status, err := m.RotationStatus(t.Context(), key.ID())
	require.NoError(t, err)
	require.False(t, status.Retired)
	clock.Add(2 * time.Hour)
	status, err = m.RotationStatus(t.Context(), key.ID())
	require.NoError(t, err)
	require.True(t, status.Retired)
}

// What may have been revoked is in the audit trail, whether the call that did it
// could make sure of it or not.
func TestNoChangeWithoutAnEvent(t *testing.T) {
	for _, c := range []struct {
		event  fob.EventType
		change func(ctx context.Context, m *fob.Manager, k *fob.Key) error
	}{
		{fob.EventRevoked, func(ctx context.Context, m *fob.Manager, k *fob.Key) error {
			_, err := m.Revoke(ctx, k.ID(), "leaked")
			return err
		}},
		{fob.EventRevoked, func(ctx context.Context, m *fob.Manager, k *fob.Key) error {
			_, err := m.Revoke(ctx, k.Subject(), "leaked")
			return err
		}},
		{fob.EventRevoked, func(ctx context.Context, m *fob.Manager, k *fob.Key) error {
			_, err := m.ApplyRevocations(ctx, strings.NewReader(`{"subject":{"kind":"application","name":"app-42"},"epoch":2000000000000}`))
			return err
		}},
		{fob.EventDisabled, func(ctx context.Context, m *fob.Manager, k *fob.Key) error { return m.Disable(ctx, k.ID(), "") }},
		{fob.EventRevoked, func(ctx context.Context, m *fob.Manager, _ *fob.Key) error {
			_, err := m.Revoke(ctx, fob.AllTokens(time.Time{}), "leaked")
			return err
		}},
	} {
		t.Run(c.event.String(), func(t *testing.T) {
			fault, seen := backendtest.NewFault(memory.New()), &observed{}
			m := newManager(t, fault, fob.Config{Observer: seen, Tokens: &fob.TokenConfig{}})
			reported := func() (errs []error) {
				for _, e := range seen.take() {
					if e.Type == c.event {
						errs = append(errs, e.Err)
					}
				}
				return errs
			}
			_, key := mustIssue(t, m, fob.KeySpec{})
			fault.InjectOnce(backendtest.OpPut, backendtest.LostAck())
			require.NoError(t, c.change(t.Context(), m, key))
			require.Equal(t, []error{nil}, reported(), "its own, though it found it in place")

			fault, seen = backendtest.NewFault(memory.New()), &observed{}
			m = newManager(t, fault, fob.Config{Observer: seen, Tokens: &fob.TokenConfig{}})
			_, key = mustIssue(t, m, fob.KeySpec{})
			fault.Inject(func(call backendtest.Call) backendtest.Injection {
				if call.Op == backendtest.OpPut {
					return backendtest.LostAck()
				}
				return backendtest.Injection{}
			})
			require.ErrorIs(t, c.change(t.Context(), m, key), fob.ErrIndeterminate)
			errs := reported()
			require.Len(t, errs, 1, "the process may end before it calls again")
			require.ErrorIs(t, errs[0], fob.ErrIndeterminate)
			// Every call: the feed's goroutine reads too, and would take a single fault away.
			fault.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
			require.NotErrorIs(t, c.change(t.Context(), m, key), fob.ErrIndeterminate)
			require.Empty(t, reported(), "what surely failed is no event")
		})
	}
}

// A family ends in two writes: the call that finishes what another one began is the
// one that reports it.
func TestTheEndOfAFamilyThatWasCutOffIsReported(t *testing.T) {
	fault, seen := backendtest.NewFault(memory.New()), &observed{}
	m := newManager(t, fault, fob.Config{Observer: seen, Tokens: &fob.TokenConfig{}})
	issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("a"), Refreshable: true})
	require.NoError(t, err)
	fault.CrashAfter(1, backendtest.OpPut)
	_, err = m.Revoke(t.Context(), issued.Token.Session(), "leaked")
	require.ErrorIs(t, err, fob.ErrIndeterminate)
	fault.Inject(nil)
	// The crash also ends the feed, at some time.
	events := slices.DeleteFunc(seen.take(), func(e fob.Event) bool { return e.Type == fob.EventFeedLost })
	require.Equal(t, fob.EventRevoked, events[len(events)-1].Type)
	require.ErrorIs(t, events[len(events)-1].Err, fob.ErrIndeterminate)
	receipt, err := m.Revoke(t.Context(), issued.Token.Session(), "leaked")
	require.NoError(t, err)
	require.False(t, receipt.Already)
	require.Contains(t, seen.types(), fob.EventRevoked)
	receipt, err = m.Revoke(t.Context(), issued.Token.Session(), "leaked")
	require.NoError(t, err)
	require.True(t, receipt.Already)
}
