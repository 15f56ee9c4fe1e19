package fob_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// What begins with v, a digit from 1 to 9 and a dot, and goes on, is taken for a token.
func TestWhatIsTakenForAToken(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	for text, token := range map[string]bool{
		"v1.a": true, "v4.a": true, "v9.a": true, "v4.local.": true, "v4..": true, "v4.local.AAAA": true,
		"": false, "v": false, "v4": false, "v4.": false, "v0.a": false, "v:.a": false, "v/.a": false,
		"x4.a": false, "V4.a": false, "v4a.": false, "v44.a": false, "vv.a": false, "4v.a": false,
	} {
		_, err := m.Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrMalformed, text)
		require.Equal(t, token, errors.Is(err, fob.ErrTokenFormat) || errors.Is(err, fob.ErrTokenProtocol), "%q: %v", text, err)
	}
}

func TestATokenOfEightKiBIsReadAndNoneThatIsLonger(t *testing.T) {
	m, _, v := sourced(t)
	for _, verifier := range []fob.Verifier{m, v} {
		const begin = "v4.public."
		_, err := verifier.Verify(t.Context(), begin+strings.Repeat("A", 8192-len(begin)))
		require.ErrorIs(t, err, fob.ErrRejected)
		require.NotErrorIs(t, err, fob.ErrTokenLength)
		_, err = verifier.Verify(t.Context(), begin+strings.Repeat("A", 8193-len(begin)))
		require.ErrorIs(t, err, fob.ErrTokenLength)
		_, err = verifier.Verify(t.Context(), begin+strings.Repeat("A", 100)+"."+strings.Repeat("A", 4000))
		require.ErrorIs(t, err, fob.ErrTokenLength, "of its footer")
	}
}

// What a token says of the instant at which it was found good is true: where the feed is
// followed that of its last proof, else that at which it and its key were read.
func TestATokenTellsAsOfWhenItIsGood(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, tokenConfig())
		defer m.Close()
		pass(time.Second + 50*time.Millisecond)
		text, _ := mustIssue(t, m, fob.KeySpec{})
		issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api", TTL: time.Hour})
		require.NoError(t, err)
		own := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
		pass(170 * time.Millisecond) // and not at the instant of a proof
		for range 20 {
			for _, text := range []string{issued.Access.Reveal(), own.Access.Reveal()} {
				cred := mustVerify(t, m, text)
				proof := time.Now().Add(-m.CacheStats().FeedAge)
				require.WithinDuration(t, proof, cred.AsOf(), 2*time.Millisecond)
				require.False(t, cred.AsOf().After(proof))
			}
			pass(770 * time.Millisecond)
		}
	})
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, bare{fault}, tokenConfig())
		defer m.Close()
		pass(time.Hour)
		text, _ := mustIssue(t, m, fob.KeySpec{})
		var tokens []string
		for range 2 {
			issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api", TTL: time.Hour})
			require.NoError(t, err)
			tokens = append(tokens, issued.Access.Reveal())
		}
		read := time.Now()
		require.WithinDuration(t, read, mustVerify(t, m, tokens[0]).AsOf(), 0)
		pass(time.Second)
		require.WithinDuration(t, read, mustVerify(t, m, tokens[0]).AsOf(), 0)
		require.WithinDuration(t, read, mustVerify(t, m, tokens[1]).AsOf(), 0, "its key was read then")
		pass(time.Second)
		require.WithinDuration(t, time.Now(), mustVerify(t, m, tokens[1]).AsOf(), 0)
	})
}

// A token whose key, or the subject of that, cannot be read could not be checked; one
// whose key is gone is unknown.
func TestATokenWhoseKeyCannotBeRead(t *testing.T) {
	for _, follows := range []bool{true, false} {
		bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
			var over backend.Store = fault
			if !follows {
				over = bare{fault}
			}
			m := newManager(t, over, tokenConfig())
			defer m.Close()
			text, key := mustIssue(t, m, fob.KeySpec{})
			issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api", TTL: time.Hour})
			require.NoError(t, err)
			token := issued.Access.Reveal()
			pass(5 * time.Second)
			check := func(verify fob.Verifier, want error) {
				t.Helper()
				cred, err := verify.Verify(t.Context(), token)
				require.ErrorIs(t, err, want)
				require.Nil(t, cred)
				if want != fob.ErrUnknown {
					mustBeUnsure(t, err)
				}
			}
			for _, kind := range []backend.Kind{fob.RecordKey, fob.RecordSubject} {
				onEach(fault, callsOf(backendtest.OpGet, kind), backendtest.Unavailable())
				check(m.Fresh(), backend.ErrUnavailable)
				if kind == fob.RecordKey || !follows {
					check(m, backend.ErrUnavailable)
				}
			}
			// The subject is that of the token too, and was read for it: then it fails.
			onNth(fault, 2, callsOf(backendtest.OpGet, fob.RecordSubject), backendtest.Unavailable())
			check(m.Fresh(), backend.ErrUnavailable)
			fault.Inject(nil)
			rec, err := store.Get(t.Context(), idOf(key))
			require.NoError(t, err)
			rec.Body[3] ^= 1
			version, err := store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
			require.NoError(t, err)
			pass(5 * time.Second)
			check(m, fob.ErrCorrupt)
			check(m.Fresh(), fob.ErrCorrupt)
			require.NoError(t, store.Delete(t.Context(), rec.ID, version))
			pass(5 * time.Second)
			check(m, fob.ErrUnknown)
			check(m.Fresh(), fob.ErrUnknown)
		})
	}
}

// Who was told that a key was disabled is not told afterwards that its token is good,
// though nobody has verified the key itself here; also where the token finds no place in
// memory and what is known of its key does.
func TestAKeyThatIsTalkedOfEndsItsTokens(t *testing.T) {
	for name, custom := range map[string]map[string]any{"small": nil, "too large to be remembered": {"text": strings.Repeat("x", 3000)}} {
		t.Run(name, func(t *testing.T) {
			bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
				var feed resettable
				cfg := tokenConfig()
				cfg.MaxStaleness, cfg.CacheEntries, cfg.CacheBytes = time.Minute, 100, 3000
				here, there := newManager(t, feed.over(fault), cfg), newManager(t, store, tokenConfig())
				defer here.Close()
				defer there.Close()
				text, key := mustIssue(t, there, fob.KeySpec{})
				issued, err := there.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api", TTL: time.Hour, Custom: custom})
				require.NoError(t, err)
				pass(5 * time.Second)
				feed.lost.Store(true)
				mustVerify(t, here, issued.Access.Reveal())
				before := gets(fault)
				mustVerify(t, here, issued.Access.Reveal())
				require.Equal(t, before, gets(fault), "what is known of the key is remembered")
				require.Equal(t, custom == nil, here.CacheStats().Tokens.Entries == 1)
				require.NoError(t, there.Disable(t.Context(), key.ID(), ""))
				mustVerify(t, here, issued.Access.Reveal()) // nobody was told here
				mustTellDisabled(t, here, key.ID())
				mustReject(t, here, issued.Access.Reveal(), fob.ErrDisabled)
			})
		})
	}
}

// A token that has expired is not worth a place.
func TestAnExpiredTokenIsNotRemembered(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text := mustToken(t, m, fob.TokenSpec{TTL: time.Minute}).Access.Reveal()
	clock.Add(time.Minute)
	mustReject(t, m, text, fob.ErrExpired)
	require.Zero(t, m.CacheStats().Tokens.Entries)
}

// A key under a pepper that this Manager does not have could not be checked, at the cost of
// one read.
func TestAKeyUnderAPepperThatIsNotConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		issuer := newManager(t, bare{fault}, fob.Config{Peppers: []fob.Pepper{{ID: "p1", Key: sealKey}}})
		defer issuer.Close()
		text, _ := mustIssue(t, issuer, fob.KeySpec{})
		m := newManager(t, bare{fault}, fob.Config{})
		defer m.Close()
		before := gets(fault)
		_, err := m.Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrPepper)
		mustBeUnsure(t, err)
		require.ErrorContains(t, err, `"p1"`)
		require.Equal(t, before+1, gets(fault))
	})
}
