package postgres_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/stretchr/testify/require"
)

// everything calls each method with what is hard to write into SQL.
func everything(t *testing.T, p *place) {
	t.Helper()
	ctx := t.Context()
	s := p.open(t, postgres.Options{})
	w := follow(t, s, nil)
	rec := record(1)
	rec.Owner, rec.Parent, rec.Body = "it's \x00 \xff \\x00 \"", record(2).ID, []byte("\x00'\\\xff")
	rec.Expires, rec.PurgeAt = 1<<62, 1
	v, err := s.Put(ctx, rec, backend.IfAbsent())
	require.NoError(t, err)
	_, err = s.Put(ctx, rec, backend.IfAbsent())
	require.ErrorIs(t, err, backend.ErrConflict)
	rec.Body = nil
	rec.Version, err = s.Put(ctx, rec, backend.IfVersion(v))
	require.NoError(t, err)
	require.Greater(t, rec.Version, v)
	_, err = s.Put(ctx, rec, backend.IfVersion(v))
	require.ErrorIs(t, err, backend.ErrConflict)
	_, err = s.Put(ctx, rec, backend.IfVersion(1<<64-1))
	require.ErrorIs(t, err, backend.ErrConflict)
	changed := rec
	changed.Parent = backend.ID{}
	_, err = s.Put(ctx, changed, backend.IfVersion(rec.Version))
	require.ErrorIs(t, err, backend.ErrInvalid)
	_, err = s.Put(ctx, record(3), backend.IfVersion(1))
	require.ErrorIs(t, err, backend.ErrNotFound)
	got, err := s.Get(ctx, rec.ID)
	require.NoError(t, err)
	require.Empty(t, got.Body)
	got.Body = nil
	require.Equal(t, rec, got)
	for _, q := range []backend.Query{{Kind: 1}, {Kind: 1, Owner: rec.Owner}, {Kind: 1, Parent: rec.Parent}, {Kind: 1, ExpiresBefore: 1<<62 + 1}} {
		page, err := s.List(ctx, q)
		require.NoError(t, err)
		require.Len(t, page.Records, 1)
	}
	many, err := s.GetMany(ctx, []backend.ID{record(9).ID, rec.ID})
	require.NoError(t, err)
	scanned := false
	require.NoError(t, s.Scan(ctx, rec.Kind, func(all []backend.Record) error {
		require.Len(t, all, 1)
		many, scanned = append(many, all...), true
		return nil
	}))
	require.True(t, scanned)
	for i := range many {
		require.Empty(t, many[i].Body)
		many[i].Body = nil
	}
	require.Equal(t, []backend.Record{rec, rec}, many)
	require.NoError(t, s.AddUsage(ctx, []backend.Usage{{ID: rec.ID, N: 2, Last: 3}, {ID: rec.ID, N: 1, Last: 2}}))
	usage, err := s.Usage(ctx, []backend.ID{record(9).ID, rec.ID})
	require.NoError(t, err)
	require.Equal(t, []backend.Usage{{ID: record(9).ID}, {ID: rec.ID, N: 3, Last: 3}}, usage)
	n, err := s.Purge(ctx, time.UnixMilli(1), 10)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	w.sees(t, 1, rec.Version+1)
	require.ErrorIs(t, s.Delete(ctx, rec.ID, rec.Version), backend.ErrNotFound)

	// A race for one record, in which the isolation level decides how the losers
	// learn of it.
	v = create(t, s, 5)
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.Put(context.Background(), record(5), backend.IfVersion(v)) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		require.ErrorIs(t, err, backend.ErrConflict)
	}
	require.Equal(t, 1, won)
	got, err = s.Get(ctx, record(5).ID)
	require.NoError(t, err)
	require.ErrorIs(t, s.Delete(ctx, got.ID, v), backend.ErrConflict)
	require.NoError(t, s.Delete(ctx, got.ID, got.Version))
	require.Greater(t, create(t, s, 5), got.Version)
	require.NoError(t, s.Maintain(ctx))
	w.stop()
	require.NoError(t, s.Close())
}
