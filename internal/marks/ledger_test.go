package marks_test

import (
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/stretchr/testify/require"
)

var (
	issuer  = record.Named(record.Mark, "issuer", "acme")
	token   = record.Named(record.Mark, "token", "1")
	subject = record.Named(record.Subject, "user", "alice")
)

// process is one of several that share a store.
type process struct {
	*marks.Ledger
	now       time.Time
	forgotten []backend.ID
}

func newProcess(store backend.Store, now time.Time) *process {
	p := &process{now: now}
	forget := func(ids ...backend.ID) { p.forgotten = append(p.forgotten, ids...) }
	p.Ledger = &marks.Ledger{
		Set: marks.New(true, forget), Store: recordstore.Store{Store: store, Forget: forget}, Clock: new(clock.Clock),
	}
	p.Clock.Start(func() time.Time { return p.now }, time.Hour)
	return p
}

// learns asserts that what a mark ended is forgotten, and that the mark is known.
func (p *process) learns(t *testing.T, id record.ID, want marks.Mark) {
	t.Helper()
	found, known := p.Get(id)
	require.Equal(t, known, found.Before == clock.Forever, "what is not taken back is known, also before the set was filled")
	want.Reason = ""
	require.Equal(t, want, found)
	require.True(t, slices.Contains(p.forgotten, id))
	p.forgotten = nil
	read, created, err := p.Read(t.Context(), id)
	require.NoError(t, err)
	read.Reason = ""
	require.Equal(t, want, read)
	require.NotZero(t, created)
}

// TestEpochsOnlyRise, by whatever clock they are raised.
func TestEpochsOnlyRise(t *testing.T) {
	store, now := memory.New(), time.UnixMilli(1_700_000_000_000)
	ahead, behind := newProcess(store, now), newProcess(store, now.Add(-time.Hour))
	none, _, err := ahead.Read(t.Context(), subject)
	require.NoError(t, err)
	require.Zero(t, none)
	ms := uint64(now.UnixMilli())
	for _, c := range []struct {
		by           *process
		least, epoch uint64
	}{
		{ahead, 0, ms},
		{behind, 0, ms + 1},
		{behind, ms - 1, ms + 1}, // it is that high
		{ahead, ms + 9, ms + 9},
	} {
		made, _, err := c.by.Change(t.Context(), marks.Place{ID: subject, Owner: "2alice"}, func(old marks.Mark, now int64) marks.Mark {
			if c.least > 0 {
				return marks.Mark{Epoch: c.least, Reason: "left"}
			}
			return old.Raised(now, "left")
		})
		require.NoError(t, err)
		require.Equal(t, c.epoch, made.Epoch)
		read, err := c.by.ReadHolders(t.Context(), subject, record.ID{})
		require.NoError(t, err)
		require.Equal(t, c.epoch, read.Subject.Epoch)
		require.Contains(t, c.by.forgotten, subject)
	}
	ahead.learns(t, subject, marks.Mark{Epoch: ms + 9, Reason: "left"})
}

// TestAMarkOfAnIssuerSaysAllThatWasSaid by anybody before.
func TestAMarkOfAnIssuerSaysAllThatWasSaid(t *testing.T) {
	store, now := memory.New(), time.UnixMilli(1_700_000_000_000)
	a, b := newProcess(store, now), newProcess(store, now.Add(-time.Hour))
	ms := uint64(now.UnixMilli())
	all, _, err := a.Change(t.Context(), marks.Place{ID: issuer}, func(old marks.Mark, now int64) marks.Mark {
		next := old.Raised(now, "all")
		next.Ends = next.Epoch
		return next
	})
	require.NoError(t, err)
	require.Equal(t, marks.Mark{Epoch: ms, Ends: ms, Reason: "all"}, all)
	a.learns(t, issuer, all)
	some, _, err := b.Change(t.Context(), marks.Place{ID: issuer}, func(old marks.Mark, now int64) marks.Mark {
		next := old.Raised(now, "some")
		next.Before = 5
		return next
	})
	require.NoError(t, err)
	require.Equal(t, marks.Mark{Epoch: ms + 1, Ends: ms, Before: 5, Reason: "some"}, some)
	b.learns(t, issuer, some)
	again, written, err := a.Change(t.Context(), marks.Place{ID: issuer}, func(marks.Mark, int64) marks.Mark { return all })
	require.NoError(t, err)
	require.False(t, written)
	require.Equal(t, some, again, "it says that already")
	a.learns(t, issuer, some)
}

// TestATokenEndsOnce: the first reason stays, and whoever comes later learns of it.
func TestATokenEndsOnce(t *testing.T) {
	store, now := memory.New(), time.UnixMilli(1_700_000_000_000)
	a, b := newProcess(store, now), newProcess(store, now)
	ended := marks.Mark{Before: clock.Forever, PurgeAt: now.Add(time.Hour).UnixMilli()}
	for i, p := range []*process{a, b, a} {
		reason := []string{"first", "second", "third"}[i]
		already, err := p.End(t.Context(), token, now.Add(time.Hour).UnixMilli(), reason)
		require.NoError(t, err)
		require.Equal(t, i > 0, already)
		p.learns(t, token, ended)
	}
	rec, err := store.Get(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, now.Add(time.Hour).UnixMilli(), rec.PurgeAt)
}

// TestAMarkThatCannotBeReadIsNotWrittenOver: it may say more than the new one would.
func TestAMarkThatCannotBeReadIsNotWrittenOver(t *testing.T) {
	store := memory.New()
	p := newProcess(store, time.UnixMilli(1_700_000_000_000))
	for _, id := range []record.ID{issuer, token, subject} {
		_, err := store.Put(t.Context(), backend.Record{ID: id, Kind: backend.Kind(id[0]), Created: 1, Body: []byte("nonsense")}, backend.IfAbsent())
		require.NoError(t, err)
	}
	raised := func(old marks.Mark, now int64) marks.Mark { return old.Raised(now, "") }
	_, _, err := p.Change(t.Context(), marks.Place{ID: issuer}, raised)
	require.ErrorIs(t, err, errs.ErrCorrupt)
	_, err = p.End(t.Context(), token, 0, "")
	require.ErrorIs(t, err, errs.ErrCorrupt)
	_, _, err = p.Change(t.Context(), marks.Place{ID: subject, Owner: "2alice"}, raised)
	require.ErrorIs(t, err, errs.ErrCorrupt)
	for _, id := range []record.ID{issuer, token, subject} {
		rec, err := store.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, "nonsense", string(rec.Body))
	}
}
