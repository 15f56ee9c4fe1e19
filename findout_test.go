package fob_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// A credential is judged by when its answer is there, not by when it was asked for: it may
// expire, or begin, while the store is read.
func TestTheTimesOfACredentialAreThoseOfTheAnswer(t *testing.T) {
	for _, c := range []struct {
		name        string
		begins, ttl time.Duration
		takes       time.Duration
		want        error
	}{
		{"it ends after that", 0, 2 * time.Second, 2*time.Second - time.Millisecond, nil},
		{"it ends at that very instant", 0, 2 * time.Second, 2 * time.Second, fob.ErrExpired},
		{"it ends before that", 0, 2 * time.Second, 3 * time.Second, fob.ErrExpired},
		{"it begins at that very instant", 2 * time.Second, 0, 2 * time.Second, nil},
		{"it begins after that", 2 * time.Second, 0, 2*time.Second - time.Millisecond, fob.ErrNotYetValid},
		{"it begins and ends before that", time.Second, 2 * time.Second, 3 * time.Second, fob.ErrExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, fault *backendtest.Fault) {
				m := newManager(t, fault, tokenConfig())
				defer m.Close()
				pass(time.Second)
				parent, _ := mustIssue(t, m, fob.KeySpec{})
				spec := fob.KeySpec{TTL: c.ttl}
				if c.begins > 0 {
					spec.NotBefore = time.Now().Add(c.begins)
				}
				text, _ := mustIssue(t, m, spec)
				all := []string{text}
				if c.begins == 0 { // a token may be used a little before it begins
					issued, err := m.ExchangeKey(t.Context(), parent, fob.TokenSpec{Audience: "api", TTL: c.ttl})
					require.NoError(t, err)
					all = append(all, issued.Access.Reveal())
				}
				synctest.Wait()
				slow(fault, c.takes)
				var wg sync.WaitGroup
				for _, presented := range all {
					wg.Go(func() {
						began := time.Now()
						cred, err := m.Verify(t.Context(), presented)
						require.Equal(t, c.takes, time.Since(began))
						require.ErrorIs(t, err, c.want)
						require.Equal(t, c.want == nil, cred != nil)
					})
				}
				wg.Wait()
			})
		})
	}
}

// patient is a Manager that accepts what it knows for another second when the store fails.
// What it knows is old after one.
func patient(t *testing.T, store backend.Store) *fob.Manager {
	return newManager(t, store, fob.Config{MaxStaleness: time.Second, StaleIfError: time.Second})
}

// The store is left alone for a second after it failed to answer, and asked when that is
// over; before it has ever failed it is asked.
func TestAStoreThatFailedIsLeftAloneForASecond(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, bare{fault}, fob.Config{MaxStaleness: 100 * time.Millisecond, StaleIfError: 1900 * time.Millisecond})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		asked := func() bool {
			t.Helper()
			before := gets(fault)
			mustVerify(t, m, text)
			return gets(fault) > before
		}
		require.True(t, asked())
		require.Zero(t, m.CacheStats().Rechecked, "there was nothing to check again")
		pass(100 * time.Millisecond) // the Manager is younger than a second
		require.True(t, asked())
		require.EqualValues(t, 1, m.CacheStats().Rechecked)
		require.Zero(t, m.CacheStats().Stale)
		pass(100 * time.Millisecond)
		cut(fault)
		require.True(t, asked())
		require.EqualValues(t, 1, m.CacheStats().Stale)
		pass(time.Second - time.Millisecond)
		require.False(t, asked())
		require.EqualValues(t, 2, m.CacheStats().Stale)
		pass(time.Millisecond)
		require.True(t, asked())
		require.EqualValues(t, 3, m.CacheStats().Stale)
		require.EqualValues(t, 4, m.CacheStats().Rechecked)
	})
}

// An answer of the store is no failure of it, nor is it one that a caller has given up.
func TestOnlyAFailureOfTheStoreMakesAnOldAnswerDo(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := patient(t, bare{fault})
		defer m.Close()
		one, _ := mustIssue(t, m, fob.KeySpec{})
		two, _ := mustIssue(t, m, fob.KeySpec{})
		unseen, _ := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, one)
		mustVerify(t, m, two)
		pass(1500 * time.Millisecond)
		for _, text := range []string{one, two} {
			before := gets(fault)
			mustVerify(t, m, text)
			require.Greater(t, gets(fault), before, "the other one's answer was no failure")
		}
		pass(1500 * time.Millisecond)
		onEach(fault, callsOf(backendtest.OpGet), backendtest.Injection{Hang: true})
		short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := m.Verify(short, one)
		mustBeUnsure(t, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		fault.Inject(nil)
		before := gets(fault)
		mustVerify(t, m, two)
		require.Greater(t, gets(fault), before)
		require.Zero(t, m.CacheStats().Stale)
		// What was never seen is not accepted because the store fails.
		cut(fault)
		_, err = m.Verify(t.Context(), unseen)
		mustBeUnsure(t, err)
		require.ErrorIs(t, err, backend.ErrUnavailable)
	})
}

// An old answer is there in 250 ms if the store takes longer. Where it is too old for that,
// or none would be given for want of a store, the store is waited for.
func TestWhoHasNoOldAnswerToGiveWaitsForTheStore(t *testing.T) {
	for name, c := range map[string]struct {
		patience, age, takes time.Duration
	}{
		"it is young enough": {time.Second, 1500 * time.Millisecond, 250 * time.Millisecond},
		"it is too old":      {time.Second, 5 * time.Second, 1500 * time.Millisecond}, // as long again for the read that it has left, and then its own
		"none is ever given": {0, 1500 * time.Millisecond, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, fault *backendtest.Fault) {
				m := newManager(t, fault, fob.Config{MaxStaleness: time.Second, StaleIfError: c.patience})
				defer m.Close()
				text, _ := mustIssue(t, m, fob.KeySpec{})
				pass(time.Second)
				mustVerify(t, m, text)
				fault.Inject(func(call backendtest.Call) backendtest.Injection { // the feed ends
					if call.Op == backendtest.OpWatch || call.Op == backendtest.OpBatch {
						return backendtest.Unavailable()
					}
					return backendtest.Injection{}
				})
				pass(c.age)
				fault.Inject(func(call backendtest.Call) backendtest.Injection {
					switch {
					case call.Op == backendtest.OpWatch || call.Op == backendtest.OpBatch:
						return backendtest.Unavailable()
					case call.Op == backendtest.OpGet && !isKind(call.ID, fob.RecordSubject): // the key, and not its subject
						return backendtest.Injection{Delay: time.Second}
					}
					return backendtest.Injection{}
				})
				began := time.Now()
				mustVerify(t, m, text)
				require.Equal(t, c.takes, time.Since(began))
			})
		})
	}
}

// How old an answer is counts from the last proof of the feed at which it was used.
func TestAnOldAnswerIsAsOldAsTheLastProofOfIt(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		cfg := tokenConfig()
		cfg.MaxStaleness, cfg.StaleIfError = time.Second, time.Minute
		m := newManager(t, fault, cfg)
		defer m.Close()
		pass(time.Second)
		text, _ := mustIssue(t, m, fob.KeySpec{})
		token := mustToken(t, m, fob.TokenSpec{TTL: time.Hour}).Access.Reveal()
		for range 2 {
			mustVerify(t, m, text)
			mustVerify(t, m, token)
			pass(50 * time.Second)
		}
		mustVerify(t, m, text)
		mustVerify(t, m, token)
		cut(fault)
		pass(time.Minute)
		mustVerify(t, m, text)
		mustVerify(t, m, token)
		pass(2 * time.Second)
		for _, presented := range []string{text, token} {
			_, err := m.Verify(t.Context(), presented)
			mustBeUnsure(t, err)
		}
	})
}

// What was ended here while the store was asked is not accepted for want of an answer.
func TestTheLastResortIsLookedUpAnew(t *testing.T) {
	for what, end := range map[string]func(t *testing.T, m *fob.Manager, id fob.ID){
		"key": func(t *testing.T, m *fob.Manager, id fob.ID) {
			require.NoError(t, m.Disable(context.Background(), id, ""))
		},
		"token": func(t *testing.T, m *fob.Manager, id fob.ID) {
			_, err := m.Revoke(context.Background(), id, "")
			require.NoError(t, err)
		},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, fault *backendtest.Fault) {
				cfg := tokenConfig()
				cfg.MaxStaleness, cfg.StaleIfError = time.Second, time.Second
				m := newManager(t, bare{fault}, cfg)
				defer m.Close()
				text, key := mustIssue(t, m, fob.KeySpec{})
				id := key.ID()
				if what == "token" {
					issued := mustToken(t, m, fob.TokenSpec{})
					text, id = issued.Access.Reveal(), issued.Token.ID()
				}
				mustVerify(t, m, text)
				pass(1500 * time.Millisecond)
				once(fault, callsOf(backendtest.OpGet), backendtest.Injection{
					Before: func() { end(t, m, id) }, Fail: backend.ErrUnavailable,
				})
				cred, err := m.Verify(t.Context(), text)
				mustBeUnsure(t, err)
				require.ErrorIs(t, err, backend.ErrUnavailable)
				require.Nil(t, cred)
				require.Zero(t, m.CacheStats().Stale)
				_, err = m.Verify(t.Context(), text)
				require.ErrorIs(t, err, fob.ErrRejected)
			})
		})
	}
}

// One change costs one verification more reads, and not the next one too; and it has its
// answer though the store fails in the middle of that.
func TestWhatIsFoundChangedIsReadOnceMore(t *testing.T) {
	for _, fails := range []bool{false, true} {
		bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
			here, there := newManager(t, bare{fault}, fob.Config{}), newManager(t, store, fob.Config{})
			defer here.Close()
			defer there.Close()
			text, key := mustIssue(t, there, fob.KeySpec{})
			mustVerify(t, here, text)
			name := "another"
			_, err := there.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Name: &name})
			require.NoError(t, err)
			pass(3 * time.Second)
			before := gets(fault)
			if fails {
				onSome(fault, callsOf(backendtest.OpGet), func(n int) bool { return n > 2 }, backendtest.Unavailable())
			}
			require.Equal(t, name, mustVerify(t, here, text).(*fob.Key).Name())
			if !fails {
				require.Equal(t, before+3, gets(fault), "the key twice, and its subject")
				mustVerify(t, here, text)
				require.Equal(t, before+3, gets(fault))
			}
		})
	}
}

// What tokens have to know of their keys takes memory too, and is bounded by CacheBytes.
func TestWhatIsKnownOfTheKeysOfTokensIsBoundedInBytes(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		cfg := tokenConfig()
		cfg.CacheEntries, cfg.CacheBytes, cfg.MaxStaleness = 1000, 100_000, 2*time.Second
		m := newManager(t, fault, cfg)
		defer m.Close()
		scopes := make(fob.Scopes, 60)
		for i := range scopes {
			scopes[i] = fob.Scope(fmt.Sprintf("a-rather-long-scope-of-something:%d", i))
		}
		var tokens [2][]string
		for range 200 {
			text, _ := mustIssue(t, m, fob.KeySpec{Scopes: scopes})
			for round := range tokens {
				issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api", Scopes: scopes[:1]})
				require.NoError(t, err)
				tokens[round] = append(tokens[round], issued.Access.Reveal())
			}
		}
		pass(time.Second)
		for _, round := range tokens {
			before := gets(fault)
			for _, token := range round {
				mustVerify(t, m, token)
			}
			require.Greater(t, gets(fault)-before, 150, "most of the keys are read again")
		}
	})
}

// So is what is remembered of texts that are no credential, by number.
func TestABoundedNumberOfUnknownTextsIsRemembered(t *testing.T) {
	m := newManager(t, bare{memory.New()}, fob.Config{Clock: newClock().Now})
	var id fob.ID
	for n := range 4000 {
		copy(id[:], fmt.Sprintf("0Zzz%012d", n))
		text := forge(t, "acme_live", id)
		mustReject(t, m, text, fob.ErrUnknown)
		mustReject(t, m, text, fob.ErrUnknown)
	}
	require.Equal(t, 1024, m.CacheStats().Absent.Entries)
}
