package fob_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// A refresh looks at what ends its session, and then seals a token: what is revoked in
// between ends that token too.
func TestARefreshDoesNotComeThroughARevocationOfAllTokens(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, tokenConfig())
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	// The record of the subject is read after the marks.
	once(fault, callsOf(backendtest.OpGet, fob.RecordSubject), backendtest.Injection{After: func() {
		_, err := m.Revoke(context.Background(), fob.AllTokens(time.Time{}), "leaked")
		require.NoError(t, err)
	}})
	_, err := m.Refresh(t.Context(), issued.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)
	mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
}

// A secret that was presented within its grace is no replay because the store is slow.
func TestASecretThatWasPresentedInTimeIsNoReplay(t *testing.T) {
	clock := newClock()
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, clocked(tokenConfig(), clock))
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	var other fob.Issued
	// The first tab reads the session, and its write comes after that of another tab, and late.
	once(fault, callsOf(backendtest.OpPut), backendtest.Injection{Before: func() {
		other = mustRefresh(t, m, issued.Refresh)
		clock.Add(11 * time.Second) // longer than RefreshGrace
	}})
	first, err := m.Refresh(t.Context(), issued.Refresh.Reveal())
	require.NoError(t, err)
	require.Equal(t, other.Refresh.Reveal(), first.Refresh.Reveal(), "both tabs have the newest pair")
	mustRefresh(t, m, first.Refresh)
}

// Whoever sends garbage and hangs up keeps new keys from nobody.
func TestWhoHangsUpKeepsNoKeysFromOthers(t *testing.T) {
	clock := newClock()
	issuer := newManager(t, nil, clocked(tokenConfig(protocol(fob.V4Public)), clock))
	text := mustToken(t, issuer, fob.TokenSpec{TTL: time.Hour}).Access.Reveal()
	v, err := fob.NewTokenVerifier(sourceFunc(func(ctx context.Context) ([]fob.TokenKey, error) {
		if err := ctx.Err(); err != nil {
			return nil, err // as a client of a server does
		}
		return issuer.TokenKeys(ctx)
	}), fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}, Clock: clock.Now})
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), text)
	require.NoError(t, err)
	_, err = issuer.RotateTokenKey(t.Context())
	require.NoError(t, err)
	clock.Add(2 * time.Minute)
	rotated := mustToken(t, issuer, fob.TokenSpec{TTL: time.Hour}).Access.Reveal()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range 100 {
		_, _ = v.Verify(gone, named(text, n))
		_, _ = v.Verify(gone, "v4.x")
	}
	clock.Add(time.Second)
	_, err = v.Verify(t.Context(), rotated)
	require.NoError(t, err)
}

// A flood of keys that do not exist costs the good ones nothing, however often each of
// them comes.
func TestAFloodOfUnknownKeysForgetsNothingGood(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, fob.Config{CacheEntries: 2000, MaxStaleness: time.Hour})
	var good []string
	for i := range 200 {
		text, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App(fmt.Sprint(i))})
		good = append(good, text)
	}
	reads := func() int {
		before := gets(fault)
		for _, text := range good {
			mustVerify(t, m, text)
		}
		return gets(fault) - before
	}
	reads()
	require.Zero(t, reads())
	var id fob.ID
	for n := range 12_000 {
		copy(id[:], fmt.Sprintf("0Zzz%012d", n))
		text := forge(t, "acme_live", id)
		mustReject(t, m, text, fob.ErrUnknown)
		mustReject(t, m, text, fob.ErrUnknown)
	}
	require.Zero(t, reads())
}

// The last step of an import may be lost, and somebody else finish it with another spec:
// the first one is not told that it has won.
func TestAnImportWhoseEndWasLostDoesNotTakeAnothersForItsOwn(t *testing.T) {
	inner := memory.New()
	defer inner.Close()
	fault := backendtest.NewFault(inner)
	cfg := fob.Config{Imported: located()}
	a, b := newManager(t, bare{fault}, cfg), newManager(t, bare{inner}, cfg)
	key := fob.ImportedKey{Secret: "ab12cd.secret-number-1", Locator: "ab12cd"}
	onNth(fault, 2, callsOf(backendtest.OpPut, fob.RecordAlias), backendtest.Injection{Before: func() {
		_, err := b.ImportKey(context.Background(), fob.KeySpec{Subject: fob.App("s"), Scopes: fob.Scopes{"b:b"}}, key)
		require.NoError(t, err)
	}, Fail: fmt.Errorf("cut off: %w", backend.ErrIndeterminate)})
	_, err := a.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("s"), Scopes: fob.Scopes{"a:a"}}, key)
	require.ErrorIs(t, err, fob.ErrAlready)
	require.Equal(t, fob.Scopes{"b:b"}, mustVerify(t, b, key.Secret).Scopes())
}

// What is known here of an issuer, and what the store says after it has lost a part of
// its history, end what either of them ends.
func TestTheMarksOfAnIssuerAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer store.Close()
		var lost, reset atomic.Bool // changes are not told, until the feed says that history was lost
		feed := &feedStore{store, func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
			return inner.Watch(ctx, from, func(b backend.Batch) error {
				if lost.Load() {
					b.Changes = nil
				}
				b.Reset = b.Reset || reset.Swap(false)
				return fn(b)
			})
		}}
		m := newManager(t, feed, tokenConfig())
		defer m.Close()
		mustToken(t, m, fob.TokenSpec{}) // the token keys are there
		pass(time.Second)
		before := snapshot{}
		before.take(t, store)
		elsewhere := newManager(t, store, tokenConfig())
		_, err := elsewhere.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
		require.NoError(t, err)
		require.NoError(t, elsewhere.Close()) // so that it makes nothing again
		pass(time.Second)
		between := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
		pass(time.Minute)
		lost.Store(true)
		before.restore(t, store)
		third := newManager(t, store, tokenConfig())
		_, err = third.Revoke(t.Context(), fob.AllTokens(time.Now()), "")
		require.NoError(t, err)
		require.NoError(t, third.Close())
		reset.Store(true)
		pass(3 * time.Second)
		mustReject(t, m, between.Access.Reveal(), fob.ErrRevoked)
	})
}

// However many records cannot be read, what else is wrong is told beside them.
func TestManyRecordsThatCannotBeReadHideNoOtherProblem(t *testing.T) {
	inner := memory.New()
	defer inner.Close()
	clock := newClock()
	by := time.Duration(0)
	store := engineClock{inner, func() (time.Time, error) { return clock.Now().Add(by), nil }}
	issuer := newManager(t, store, clocked(tokenConfig(), clock))
	for range 40 {
		_, err := issuer.Revoke(t.Context(), mustToken(t, issuer, fob.TokenSpec{}).Token.ID(), "")
		require.NoError(t, err)
	}
	page, err := inner.List(t.Context(), backend.Query{Kind: fob.RecordMark, Limit: 100})
	require.NoError(t, err)
	require.Len(t, page.Records, 40)
	for _, rec := range page.Records {
		rec.Body[4] ^= 1
		_, err := inner.Put(t.Context(), rec, backend.IfVersion(rec.Version))
		require.NoError(t, err)
	}
	m := newManager(t, store, clocked(tokenConfig(), clock))
	await.Until(t, "as many are told as may be", func() bool { return len(m.Health().Problems) == 32 })
	by = 13 * time.Hour
	_, err = m.Sweep(t.Context())
	require.ErrorIs(t, err, fob.ErrSkew)
	require.ErrorIs(t, errors.Join(m.Health().Problems...), fob.ErrSkew)
	require.ErrorIs(t, m.Check(t.Context()), fob.ErrSkew)
}
