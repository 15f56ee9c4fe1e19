package fob_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// TestWhatARefreshCannotReadDecidesNothing: whichever of its reads fails, in a process that
// knows nothing yet, the secret is neither accepted nor refused, and is good again later.
func TestWhatARefreshCannotReadDecidesNothing(t *testing.T) {
	begin := func(t *testing.T, m *fob.Manager) fob.Issued {
		text, _ := mustIssue(t, m, fob.KeySpec{})
		return mustExchange(t, m, text, fob.TokenSpec{Refreshable: true})
	}
	for name, c := range map[string]struct {
		begin func(t *testing.T, m *fob.Manager) fob.Secret
		want  error // once everything can be read
		reads int   // at least
	}{
		"of nobody's key": {func(t *testing.T, m *fob.Manager) fob.Secret {
			return mustToken(t, m, fob.TokenSpec{Refreshable: true}).Refresh
		}, nil, 5},
		"of a key": {func(t *testing.T, m *fob.Manager) fob.Secret { return begin(t, m).Refresh }, nil, 7},
		"of a used secret": {func(t *testing.T, m *fob.Manager) fob.Secret {
			first := begin(t, m)
			mustRefresh(t, m, first.Refresh)
			return first.Refresh
		}, nil, 6},
		"of what was revoked": {func(t *testing.T, m *fob.Manager) fob.Secret {
			first := begin(t, m)
			_, err := m.Revoke(t.Context(), first.Token.Session(), "left")
			require.NoError(t, err)
			return first.Refresh
		}, fob.ErrRevoked, 2},
		"of a used secret of what was revoked": {func(t *testing.T, m *fob.Manager) fob.Secret {
			first := begin(t, m)
			mustRefresh(t, m, first.Refresh)
			_, err := m.Revoke(t.Context(), first.Token.Session(), "left")
			require.NoError(t, err)
			return first.Refresh
		}, fob.ErrRevoked, 2},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				fault := backendtest.NewFault(memory.New())
				secret := c.begin(t, newManager(t, bare{fault}, tokenConfig()))
				m := newManager(t, bare{fault}, tokenConfig())
				reads := onNth(fault, n, callsOf(backendtest.OpGet), backendtest.Unavailable())
				issued, err := m.Refresh(t.Context(), secret.Reveal())
				fault.Inject(nil)
				if reads() < n {
					require.ErrorIs(t, err, c.want)
					require.GreaterOrEqual(t, reads(), c.reads, "there are reads to fail")
					return
				}
				mustBeUnsure(t, err)
				require.ErrorIs(t, err, backend.ErrUnavailable, "read %d", n)
				require.Zero(t, issued)
				_, err = m.Refresh(t.Context(), secret.Reveal())
				require.ErrorIs(t, err, c.want, "read %d", n)
			}
		})
	}
}

// TestARefreshLooksAtItsKeyItself: a key of which the store knows nothing any more, or
// whose subject was revoked, is refreshed by nobody, whatever the session says.
func TestARefreshLooksAtItsKeyItself(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(store *memory.Store, m *fob.Manager, k *fob.Key) error
		want error
	}{
		"gone": {func(store *memory.Store, _ *fob.Manager, k *fob.Key) error {
			rec, err := store.Get(t.Context(), idOf(k))
			require.NoError(t, err)
			return store.Delete(t.Context(), rec.ID, rec.Version)
		}, fob.ErrUnknown},
		"its subject revoked": {func(_ *memory.Store, m *fob.Manager, k *fob.Key) error {
			_, err := m.Revoke(t.Context(), k.Subject(), "left")
			return err
		}, fob.ErrRevoked},
		"stamped with less than its subject has": {func(store *memory.Store, _ *fob.Manager, k *fob.Key) error {
			// A backup brought the key back, and not the sessions.
			alter(t, store, idOf(k), func(_ *backend.Record, f map[byte]string) { delete(f, fob.FieldEpoch) })
			return nil
		}, fob.ErrRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			m := newManager(t, bare{store}, tokenConfig())
			_, err := m.Revoke(t.Context(), fob.App("app-42"), "") // who was let in again
			require.NoError(t, err)
			text, key := mustIssue(t, m, fob.KeySpec{})
			first := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true})
			second := mustRefresh(t, m, first.Refresh)
			require.NoError(t, c.end(store, m, key))
			mustNotRefresh(t, m, first.Refresh, c.want)
			mustNotRefresh(t, m, second.Refresh, c.want)
		})
	}
}

// TestTheEndsOfASessionAreTheFirstInstantsAtWhichItIsOver: of its idleness, and its own,
// which is also that of what is answered again.
func TestTheEndsOfASessionAreTheFirstInstantsAtWhichItIsOver(t *testing.T) {
	clock := newClock()
	const long, idle = time.Hour, 10 * time.Minute
	m := newManager(t, nil, clocked(tokenConfig(func(c *fob.TokenConfig) {
		c.RefreshTTL, c.RefreshIdle, c.RefreshGrace = long, idle, time.Minute
	}), clock))
	early, late := mustToken(t, m, fob.TokenSpec{Refreshable: true}), mustToken(t, m, fob.TokenSpec{Refreshable: true})
	clock.Add(idle - time.Millisecond)
	mustRefresh(t, m, early.Refresh)
	clock.Add(time.Millisecond)
	mustNotRefresh(t, m, late.Refresh, fob.ErrExpired)

	clock.set(newClock().Now())
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	for range 6 {
		clock.Add(9 * time.Minute)
		issued = mustRefresh(t, m, issued.Refresh)
	}
	clock.Add(6*time.Minute - 30*time.Second)
	last := mustRefresh(t, m, issued.Refresh)
	clock.Add(30*time.Second - time.Millisecond)
	require.Equal(t, last.Refresh.Reveal(), mustRefresh(t, m, issued.Refresh).Refresh.Reveal())
	clock.Add(time.Millisecond)
	mustNotRefresh(t, m, issued.Refresh, fob.ErrExpired)
	mustNotRefresh(t, m, last.Refresh, fob.ErrExpired)
}

// TestNoTokenOfLessThanASecondIsIssued: tokens have whole seconds, so in its last one a
// session that ends within a second is over.
func TestNoTokenOfLessThanASecondIsIssued(t *testing.T) {
	clock := newClock()
	clock.Add(500 * time.Millisecond)
	m := newManager(t, nil, clocked(tokenConfig(func(c *fob.TokenConfig) { c.RefreshTTL, c.RefreshIdle = time.Minute, time.Minute }), clock))
	first, second := mustToken(t, m, fob.TokenSpec{Refreshable: true}), mustToken(t, m, fob.TokenSpec{Refreshable: true})
	clock.Add(time.Minute - 500*time.Millisecond - time.Millisecond) // 59.999
	issued := mustRefresh(t, m, first.Refresh)
	require.Equal(t, time.Second, issued.Token.ExpiresAt().Sub(issued.Token.IssuedAt()))
	clock.Add(time.Millisecond)
	mustNotRefresh(t, m, second.Refresh, fob.ErrExpired)
}

// TestAMistypedSecretIsNoReplay: the checksum tells it, before anything is read.
func TestAMistypedSecretIsNoReplay(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, tokenConfig())
	first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	text := first.Refresh.Reveal()
	last := "0"
	if text[len(text)-1] == '0' {
		last = "1"
	}
	reads := fault.Calls(backendtest.OpGet)
	mistyped := text[:len(text)-1] + last
	issued, err := m.Refresh(t.Context(), mistyped)
	require.ErrorIs(t, err, fob.ErrKeyChecksum)
	require.Zero(t, issued)
	require.Equal(t, reads, fault.Calls(backendtest.OpGet))
	mustRefresh(t, m, first.Refresh)
}

// TestWithoutGraceNobodyIsAnsweredTwice, not even who presented the secret before the other
// one did, and was late.
func TestWithoutGraceNobodyIsAnsweredTwice(t *testing.T) {
	clock := newClock()
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, clocked(tokenConfig(func(c *fob.TokenConfig) { c.RefreshGrace = -1 }), clock))
	first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	once(fault, callsOf(backendtest.OpGet), backendtest.Injection{Before: func() {
		clock.Add(time.Second)
		mustRefresh(t, m, first.Refresh)
	}})
	mustNotRefresh(t, m, first.Refresh, fob.ErrReplayed)
}

// TestAGraceThatIsTakenAwayIsGone, for the secrets too that were used while there was one.
func TestAGraceThatIsTakenAwayIsGone(t *testing.T) {
	clock, store := newClock(), memory.New()
	kind := newManager(t, store, clocked(tokenConfig(), clock))
	strict := newManager(t, store, clocked(tokenConfig(func(c *fob.TokenConfig) { c.RefreshGrace = -1 }), clock))
	first := mustToken(t, kind, fob.TokenSpec{Refreshable: true})
	second := mustRefresh(t, kind, first.Refresh)
	third := mustRefresh(t, strict, second.Refresh)
	mustNotRefresh(t, kind, first.Refresh, fob.ErrReplayed)
	mustNotRefresh(t, kind, third.Refresh, fob.ErrRevoked)
}

// TestTheHolderOfASessionPushesOutNoRevocation: what he does to his own is remembered apart,
// so that after a failover that has forgotten it a key and a subject are revoked again.
func TestTheHolderOfASessionPushesOutNoRevocation(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, m *fob.Manager){
		"by replays": func(t *testing.T, m *fob.Manager) {
			first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
			mustRefresh(t, m, first.Refresh)
			mustNotRefresh(t, m, first.Refresh, fob.ErrReplayed)
		},
		"by revoking his own": func(t *testing.T, m *fob.Manager) {
			_, err := m.Revoke(t.Context(), mustToken(t, m, fob.TokenSpec{}).Token.ID(), "left")
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				defer func() { require.NoError(t, store.Close()) }()
				feed, failover := failingOver(store)
				m := newManager(t, feed, tokenConfig(func(c *fob.TokenConfig) { c.RefreshGrace = -1 }))
				defer m.Close()
				text, key := mustIssue(t, m, fob.KeySpec{})
				theirs, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-2")})
				before := snapshot{}
				before.take(t, store)
				_, err := m.Revoke(t.Context(), key.ID(), "leaked")
				require.NoError(t, err)
				_, err = m.Revoke(t.Context(), fob.App("app-2"), "leaked")
				require.NoError(t, err)
				for range 1024 {
					end(t, m)
				}
				before.restore(t, store)
				failover.Store(true)
				pass(time.Second)
				mustReject(t, m, text, fob.ErrRevoked)
				mustReject(t, m, theirs, fob.ErrRevoked)
			})
		})
	}
}
