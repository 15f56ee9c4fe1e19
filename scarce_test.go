package fob_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// scarceStore has no space for what is not urgent, once it is full (rule R18).
type scarceStore struct {
	*memory.Store
	full atomic.Bool
}

func (s *scarceStore) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if s.full.Load() && !backend.IsUrgent(ctx) {
		return 0, backend.ErrUnavailable
	}
	return s.Store.Put(ctx, rec, cond)
}

func (s *scarceStore) AddUsage(ctx context.Context, batch []backend.Usage) error {
	if s.full.Load() {
		return backend.ErrUnavailable
	}
	return s.Store.AddUsage(ctx, batch)
}

// What ends something is written from what a store keeps back, each way of ending; and
// nothing else is.
func TestWhatEndsSomethingGoesOnWhereSpaceRunsOut(t *testing.T) {
	clock := newClock()
	store := &scarceStore{Store: memory.New()}
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	m := newManager(t, store, clocked(tokenConfig(), clock))
	ctx := t.Context()
	text, key := mustIssue(t, m, fob.KeySpec{})
	disabledText, disabled := mustIssue(t, m, fob.KeySpec{})
	everywhereText, everywhere := mustIssue(t, m, fob.KeySpec{})
	subjectText, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-of-another")})
	_, old := mustIssue(t, m, fob.KeySpec{Subject: fob.App("app-quiet")})
	nextText, next, err := m.RotateKey(ctx, old.ID(), fob.Rotation{Overlap: 100 * time.Hour, QuietTime: 10 * time.Minute})
	require.NoError(t, err)
	_ = mustVerify(t, m, nextText.Reveal())
	token := mustToken(t, m, fob.TokenSpec{Subject: fob.User("user-1")})
	family := mustToken(t, m, fob.TokenSpec{Subject: fob.User("user-2"), Refreshable: true})
	replayed := mustToken(t, m, fob.TokenSpec{Subject: fob.User("user-3"), Refreshable: true})
	clock.Add(time.Minute)
	refreshed := mustRefresh(t, m, replayed.Refresh)
	clock.Add(6 * time.Minute)
	third := mustRefresh(t, m, refreshed.Refresh)
	clock.Add(6 * time.Minute)
	late := mustToken(t, m, fob.TokenSpec{Subject: fob.User("user-4")})

	store.full.Store(true)
	_, _, err = m.IssueKey(ctx, fob.KeySpec{Subject: fob.App("app-1")})
	require.ErrorIs(t, err, backend.ErrUnavailable)
	name := "another"
	_, err = m.UpdateKey(ctx, next.ID(), fob.KeyUpdate{Name: &name})
	require.ErrorIs(t, err, backend.ErrUnavailable)
	_, err = m.Refresh(ctx, third.Refresh.Reveal())
	require.ErrorIs(t, err, backend.ErrUnavailable)

	_, err = m.Revoke(ctx, key.ID(), "leaked")
	require.NoError(t, err)
	mustReject(t, m, text, fob.ErrRevoked)
	require.NoError(t, m.Disable(ctx, disabled.ID(), ""))
	mustReject(t, m, disabledText, fob.ErrDisabled)
	require.ErrorIs(t, m.Enable(ctx, disabled.ID()), backend.ErrUnavailable, "that ends nothing")
	_, err = m.Revoke(ctx, fob.App("app-of-another"), "left")
	require.NoError(t, err)
	mustReject(t, m, subjectText, fob.ErrRevoked)
	_, err = m.Revoke(ctx, token.Token.ID(), "leaked")
	require.NoError(t, err)
	_, err = m.Revoke(ctx, family.Token.Session(), "leaked")
	require.NoError(t, err)
	_, err = m.Refresh(ctx, family.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRejected)
	_, err = m.Refresh(ctx, replayed.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRejected, "the replay ends the family")
	mustReject(t, m, third.Access.Reveal(), fob.ErrRejected)
	_, err = m.Revoke(ctx, fob.AllTokens(time.Time{}), "key lost")
	require.NoError(t, err)
	mustReject(t, m, late.Access.Reveal(), fob.ErrRevoked)
	swept, err := m.Sweep(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, swept.Retired)
	revoked, err := revokeEverywhere(ctx, m, everywhere.ID(), "leaked")
	require.NoError(t, err)
	require.False(t, revoked.Already)
	mustReject(t, m, everywhereText, fob.ErrRevoked)
}
