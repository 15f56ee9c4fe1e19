package fob_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// A server that takes over from another one may have forgotten what that one had
// acknowledged. What was lately revoked here is revoked again.
func TestWhatAFailoverForgotIsRevokedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer func() { require.NoError(t, store.Close()) }()
		feed, failover := failingOver(store)
		seen := &observed{}
		cfg := tokenConfig()
		cfg.Observer = seen
		m := newManager(t, feed, cfg)
		defer m.Close()
		before := snapshot{} // of what the new server has
		text, key := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-1")})
		bySubject, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-2")})
		disabled, disabledKey := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-3")})
		old, oldKey := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-4")})
		applied, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-5")})
		token := mustToken(t, m, fob.TokenSpec{})
		stolen := mustToken(t, m, fob.TokenSpec{Subject: fob.User("user-8"), Refreshable: true})
		next, err := m.Refresh(t.Context(), stolen.Refresh.Reveal())
		require.NoError(t, err)
		family := mustToken(t, m, fob.TokenSpec{Refreshable: true})
		before.take(t, store)

		_, err = m.Revoke(t.Context(), oldKey.ID(), "")
		require.NoError(t, err)
		pass(11 * time.Minute) // that one reached every server long ago
		before.take(t, store)
		_, err = m.Revoke(t.Context(), key.ID(), "leaked")
		require.NoError(t, err)
		_, err = m.Revoke(t.Context(), fob.App("app-2"), "")
		require.NoError(t, err)
		require.NoError(t, m.Disable(t.Context(), disabledKey.ID(), ""))
		_, err = m.Revoke(t.Context(), token.Token.ID(), "")
		require.NoError(t, err)
		_, err = m.Revoke(t.Context(), family.Token.Session(), "")
		require.NoError(t, err)
		_, err = m.Refresh(t.Context(), stolen.Refresh.Reveal())
		require.ErrorIs(t, err, fob.ErrReplayed)
		_, err = m.ApplyRevocations(t.Context(), strings.NewReader(fmt.Sprintf(`{"subject": {"kind": "application", "name": "app-5"}, "epoch": %d, "at": "2026-11-25T00:00:00Z"}`, time.Now().UnixMilli())))
		require.NoError(t, err)
		pass(time.Minute)
		before.restore(t, store)
		seen.take()
		failover.Store(true)
		pass(time.Second)

		mustReject(t, m, text, fob.ErrRevoked)
		mustReject(t, m, bySubject, fob.ErrRevoked)
		mustReject(t, m, old, fob.ErrRevoked)
		mustReject(t, m, family.Access.Reveal(), fob.ErrRevoked)
		mustReject(t, m, token.Access.Reveal(), fob.ErrRevoked)
		mustReject(t, m, applied, fob.ErrRevoked)
		_, err = m.Refresh(t.Context(), next.Refresh.Reveal())
		require.ErrorIs(t, err, fob.ErrRevoked)
		mustVerify(t, m, disabled) // its record has a higher version now, as if somebody had changed it since
		_, err = m.Refresh(t.Context(), family.Refresh.Reveal())
		require.ErrorIs(t, err, fob.ErrRevoked)
		var types []fob.EventType
		for _, e := range seen.take() {
			types = append(types, e.Type)
		}
		require.ElementsMatch(t, []fob.EventType{fob.EventRevoked, fob.EventRevoked, fob.EventRevoked, fob.EventRevoked, fob.EventRevoked, fob.EventRevoked}, types)

		// In another process it is so too.
		other := newManager(t, store, tokenConfig())
		defer other.Close()
		mustReject(t, other, text, fob.ErrRevoked)
		mustReject(t, other, bySubject, fob.ErrRevoked)
	})
}

// Clients that revoke their own tokens, as RFC 7009 lets them, do not make a process
// forget what it would revoke again.
func TestHoldersPushOutNoRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer func() { require.NoError(t, store.Close()) }()
		feed, failover := failingOver(store)
		m := newManager(t, feed, tokenConfig())
		defer m.Close()
		text, key := mustIssue(t, m, fob.KeySpec{})
		again := mustToken(t, m, fob.TokenSpec{})
		first := mustToken(t, m, fob.TokenSpec{})
		before := snapshot{}
		before.take(t, store)
		revoke := func(id fob.ID) {
			_, err := m.Revoke(t.Context(), id, "")
			require.NoError(t, err)
		}
		revoke(key.ID())
		revoke(first.Token.ID())
		for range 2000 {
			revoke(again.Token.ID())
		}
		fail := func() {
			before.restore(t, store)
			failover.Store(true)
			pass(time.Second)
		}
		fail()
		mustReject(t, m, text, fob.ErrRevoked)
		mustReject(t, m, again.Access.Reveal(), fob.ErrRevoked)
		mustReject(t, m, first.Access.Reveal(), fob.ErrRevoked)

		for range 1100 {
			revoke(mustToken(t, m, fob.TokenSpec{}).Token.ID())
		}
		fail()
		mustReject(t, m, text, fob.ErrRevoked)
	})
}

// A revocation that ends less than an earlier one, of the same subject or of all
// tokens, does not take its place.
func TestAWeakerRevocationReplacesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer func() { require.NoError(t, store.Close()) }()
		feed, failover := failingOver(store)
		m := newManager(t, feed, tokenConfig())
		defer m.Close()
		begun := time.Now()
		earlier := func() {
			_, err := m.ApplyRevocations(t.Context(), strings.NewReader(fmt.Sprintf(`{"subject": {"kind": "application", "name": "app-5"}, "epoch": %d, "at": "2026-11-25T00:00:00Z"}`, begun.UnixMilli())))
			require.NoError(t, err)
			_, err = m.Revoke(t.Context(), fob.AllTokens(begun.Add(-time.Hour)), "")
			require.NoError(t, err)
		}
		earlier()
		pass(time.Second)
		text, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-5")}) // let in again
		token := mustToken(t, m, fob.TokenSpec{})
		before := snapshot{}
		before.take(t, store)
		pass(2 * time.Second)
		_, err := m.Revoke(t.Context(), fob.App("app-5"), "leaked")
		require.NoError(t, err)
		_, err = m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "leaked")
		require.NoError(t, err)
		earlier() // the same journal comes once more
		before.restore(t, store)
		failover.Store(true)
		pass(3 * time.Second)
		other := newManager(t, store, tokenConfig())
		defer other.Close()
		for _, m := range []*fob.Manager{m, other} {
			mustReject(t, m, text, fob.ErrRevoked)
			mustReject(t, m, token.Access.Reveal(), fob.ErrRevoked)
		}
	})
}

// What is more than is remembered is not forgotten in silence: somebody has to apply an
// export. It is so too for what was revoked in the instant in which the Manager began.
func TestAFailoverSaysIfNotAllIsRevokedAgain(t *testing.T) {
	for _, n := range []int{1024, 1025} {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			defer func() { require.NoError(t, store.Close()) }()
			feed, failover := failingOver(store)
			seen := &observed{}
			m, err := fob.New(feed, fob.Config{Prefix: "acme_live", SweepInterval: -1, Observer: seen})
			require.NoError(t, err)
			defer m.Close()
			begun := time.Now()
			synctest.Wait() // for the feed, not for time
			for range n {
				_, key := mustIssue(t, m, fob.KeySpec{})
				_, err := m.Revoke(t.Context(), key.ID(), "")
				require.NoError(t, err)
			}
			require.Zero(t, time.Since(begun))
			pass(time.Minute)
			seen.take()
			failover.Store(true)
			pass(10 * time.Second)
			var told []string
			for _, e := range seen.take() {
				if e.Type == fob.EventUpkeepFailed {
					told = append(told, e.Err.Error())
				}
			}
			if n == 1024 {
				require.Empty(t, told)
				return
			}
			require.Len(t, told, 1)
			require.Contains(t, told[0], "apply an export")
		})
	}
}
