package fob_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// A SealKey that is not the others' concerns tokens alone: what the feed tells of keys
// is followed.
func TestAWrongSealKeyDoesNotStopTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		good := newManager(t, store, tokenConfig())
		defer good.Close()
		seen := &observed{}
		cfg := tokenConfig()
		cfg.Observer, cfg.MaxStaleness = seen, time.Minute
		m := newManager(t, store, cfg)
		defer m.Close()
		token := mustToken(t, good, fob.TokenSpec{TTL: time.Hour}).Access.Reveal()
		mustVerify(t, m, token) // the ring is in memory
		text, key := mustIssue(t, good, fob.KeySpec{})
		mustVerify(t, m, text)

		// The record of the ring goes bad.
		theirs := ringOf(t, store)
		theirs.Body[len(theirs.Body)-1] ^= 1
		version, err := store.Put(t.Context(), theirs, backend.IfVersion(theirs.Version))
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.True(t, m.Health().Following)
		require.NoError(t, m.Health().Err)
		require.Len(t, m.Health().Problems, 1)
		require.ErrorIs(t, m.Check(t.Context()), fob.ErrCorrupt)
		require.Equal(t, []fob.EventType{fob.EventUpkeepFailed}, seen.types(), "told once")
		_, err = good.Revoke(t.Context(), key.ID(), "")
		require.NoError(t, err)
		time.Sleep(time.Second)
		mustReject(t, m, text, fob.ErrRevoked)
		mustVerify(t, m, token)

		theirs.Body[len(theirs.Body)-1] ^= 1
		_, err = store.Put(t.Context(), theirs, backend.IfVersion(version))
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.Empty(t, m.Health().Problems)
	})
}

// A process that is started with a wrong SealKey follows the feed as well.
func TestAProcessWithAWrongSealKeyVerifiesKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		good := newManager(t, store, tokenConfig())
		defer good.Close()
		token := mustToken(t, good, fob.TokenSpec{}).Access.Reveal()
		text, key := mustIssue(t, good, fob.KeySpec{})
		m := newManager(t, store, tokenConfig(func(c *fob.TokenConfig) { c.SealKey = bytes.Repeat([]byte{8}, 32) }))
		defer m.Close()
		_, err := m.Verify(t.Context(), token)
		require.ErrorIs(t, err, fob.ErrSealKey)
		mustBeUnsure(t, err)
		mustVerify(t, m, text)
		time.Sleep(5 * time.Second)
		require.True(t, m.Health().Following)
		require.Len(t, m.Health().Problems, 1)
		_, err = good.Revoke(t.Context(), key.ID(), "")
		require.NoError(t, err)
		time.Sleep(time.Second)
		mustReject(t, m, text, fob.ErrRevoked)
	})
}

func ringOf(t *testing.T, store *memory.Store) backend.Record {
	t.Helper()
	page, err := store.List(t.Context(), backend.Query{Kind: fob.RecordRing, Limit: 10})
	require.NoError(t, err)
	require.Len(t, page.Records, 1)
	return page.Records[0]
}

// A mark that cannot be read is about one token, one family or one subject: that could
// not be checked, everything else goes on, whenever the mark went bad.
func TestAMarkThatCannotBeReadConcernsItsOwnAlone(t *testing.T) {
	for name, before := range map[string]bool{"before the feed began": true, "while it is followed": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				issuer := newManager(t, store, tokenConfig())
				defer issuer.Close()
				text, _ := mustIssue(t, issuer, fob.KeySpec{Subject: fob.App("a")})
				othersText, others := mustIssue(t, issuer, fob.KeySpec{Subject: fob.App("b")})
				issued := mustToken(t, issuer, fob.TokenSpec{TTL: time.Hour})
				othersToken := mustToken(t, issuer, fob.TokenSpec{TTL: time.Hour}).Access.Reveal()
				_, err := issuer.Revoke(t.Context(), fob.App("a"), "")
				require.NoError(t, err)
				again, _ := mustIssue(t, issuer, fob.KeySpec{Subject: fob.App("a")})
				_, err = issuer.Revoke(t.Context(), issued.Token.ID(), "")
				require.NoError(t, err)
				var m *fob.Manager
				if !before {
					m = newManager(t, store, tokenConfig())
				}
				for _, kind := range []backend.Kind{2, 6} {
					page, err := store.List(t.Context(), backend.Query{Kind: kind, Limit: 10})
					require.NoError(t, err)
					require.Len(t, page.Records, 1)
					rec := page.Records[0]
					rec.Body[4] ^= 1
					_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
					require.NoError(t, err)
				}
				if before {
					m = newManager(t, store, tokenConfig())
				}
				defer m.Close()
				time.Sleep(5 * time.Second)
				require.True(t, m.Health().Following)
				require.Len(t, m.Health().Problems, 2)
				for _, presented := range []string{text, again, issued.Access.Reveal()} {
					_, err := m.Verify(context.Background(), presented)
					require.ErrorIs(t, err, fob.ErrCorrupt)
					mustBeUnsure(t, err)
				}
				mustVerify(t, m, othersText)
				mustVerify(t, m, othersToken)
				_, err = issuer.Revoke(t.Context(), others.ID(), "")
				require.NoError(t, err)
				time.Sleep(time.Second)
				mustReject(t, m, othersText, fob.ErrRevoked)

				// Once the records can be read again, so it is.
				for _, kind := range []backend.Kind{2, 6} {
					page, err := store.List(t.Context(), backend.Query{Kind: kind, Limit: 10})
					require.NoError(t, err)
					rec := page.Records[0]
					rec.Body[4] ^= 1
					_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
					require.NoError(t, err)
				}
				time.Sleep(time.Second)
				require.Empty(t, m.Health().Problems)
				mustReject(t, m, text, fob.ErrRevoked)
				mustVerify(t, m, again)
				mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
			})
		})
	}
}
