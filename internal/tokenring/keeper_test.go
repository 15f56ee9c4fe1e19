package tokenring_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/fobkit/fob/internal/tokenring"
	"github.com/stretchr/testify/require"
)

// process is one of several that share a store.
type process struct {
	*tokenring.Keeper
	clock    *clock.Clock
	live     bool
	problems []error
}

// counted is a store that counts what is read from it.
type counted struct {
	backend.Store
	gets int
}

func (s *counted) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	s.gets++
	return s.Store.Get(ctx, id)
}

func newProcess(t *testing.T, store backend.Store, seal byte, now *time.Time) *process {
	p := &process{clock: new(clock.Clock)}
	p.clock.Start(func() time.Time { return *now }, time.Hour)
	var keys *tokenring.SealKeys
	if seal != 0 {
		var err error
		keys, err = tokenring.NewSealKeys(bytes.Repeat([]byte{seal}, 32))
		require.NoError(t, err)
	}
	p.Keeper = tokenring.NewKeeper(tokenring.KeeperConfig{
		Store: recordstore.Store{Store: store, Forget: func(...backend.ID) {}}, Clock: p.clock,
		Record: record.Named(record.Ring, "issuer"), Seal: keys, Protocol: paseto.V4Local,
		Lead: time.Minute, MaxAge: 5 * time.Second,
		Live:    func(clock.Moment) bool { return p.live },
		Problem: func(err error) { p.problems = append(p.problems, err) },
	})
	return p
}

func (p *process) current(t *testing.T) *tokenring.Ring {
	r, err := p.Current(t.Context(), p.clock.Now())
	require.NoError(t, err)
	return r
}

func hour(context.Context) time.Duration { return time.Hour }

// TestProcessesShareARing: the first makes it, each finds what another has added, and none
// reads it more often than it has to.
func TestProcessesShareARing(t *testing.T) {
	store, now := &counted{Store: memory.New()}, time.UnixMilli(1_700_000_000_000)
	a, b := newProcess(t, store, 1, &now), newProcess(t, store, 1, &now)
	first := a.current(t).Keys
	require.Len(t, first, 1)
	require.Equal(t, first[0].ID, b.current(t).Keys[0].ID)

	next, made, err := a.Rotate(t.Context(), hour)
	require.NoError(t, err)
	require.True(t, made)
	require.Equal(t, now.Add(time.Minute).UnixMilli(), next.ActiveAt)
	again, made, err := a.Rotate(t.Context(), hour)
	require.NoError(t, err)
	require.False(t, made, "one waits already")
	require.Equal(t, next.ID, again.ID)
	require.Equal(t, first[0].ID, a.current(t).Active(now.UnixMilli()).ID)
	require.Equal(t, now.Add(time.Hour+time.Minute).UnixMilli(), a.current(t).ByID[first[0].ID].RetireAt)

	reads := store.gets
	require.Len(t, b.current(t).Keys, 1, "what is young enough is not read again")
	require.Equal(t, reads, store.gets)
	now = now.Add(tokenring.ReloadEvery)
	found, err := b.Find(t.Context(), next.ID, b.clock.Now())
	require.NoError(t, err)
	require.NotNil(t, found)
	require.Equal(t, reads+1, store.gets)
	nobody, err := b.Find(t.Context(), "k4.lid.made-up", b.clock.Now())
	require.NoError(t, err)
	require.Nil(t, nobody)
	require.Equal(t, reads+1, store.gets, "it was read a moment ago")
}

// TestARingIsReadWhenItIsOldOrHasChanged, and not where a feed lives that tells of changes.
func TestARingIsReadWhenItIsOldOrHasChanged(t *testing.T) {
	store, now := &counted{Store: memory.New()}, time.UnixMilli(1_700_000_000_000)
	p := newProcess(t, store, 1, &now)
	p.Changed(t.Context())
	require.Zero(t, store.gets, "nobody has used it yet")
	p.current(t)
	for _, c := range []struct {
		what    string
		live    bool
		changed bool
		later   time.Duration
		reads   int
	}{
		{"young", false, false, 5*time.Second - 1, 0},
		{"old", false, false, time.Second, 1},
		{"old, but followed", true, false, time.Minute, 0},
		{"changed", true, true, 0, 1},
	} {
		now, p.live = now.Add(c.later), c.live
		before := store.gets
		if c.changed {
			p.Changed(t.Context())
		}
		p.current(t)
		require.Equal(t, c.reads, store.gets-before, c.what)
	}
}

// TestAnotherSealKeyIsAProblem, and an issuer without keys is none.
func TestAnotherSealKeyIsAProblem(t *testing.T) {
	store, now := memory.New(), time.UnixMilli(1_700_000_000_000)
	a, b := newProcess(t, store, 1, &now), newProcess(t, store, 2, &now)
	require.NoError(t, b.Check(t.Context()))
	a.current(t)
	require.Equal(t, []error{nil}, a.problems)
	require.ErrorIs(t, b.Check(t.Context()), errs.ErrSealKey)
	require.Empty(t, b.problems, "whoever checks is told")
	_, err := b.Current(t.Context(), b.clock.Now())
	require.ErrorIs(t, err, errs.ErrSealKey)
	require.Len(t, b.problems, 1)
	require.ErrorIs(t, b.problems[0], errs.ErrSealKey)
}

// TestARingInMemoryIsInNoStore: it can be rotated all the same, as often as there is room.
func TestARingInMemoryIsInNoStore(t *testing.T) {
	store, now := &counted{Store: memory.New()}, time.UnixMilli(1_700_000_000_000)
	p := newProcess(t, store, 0, &now)
	p.current(t)
	for range tokenring.Max - 1 {
		_, made, err := p.Rotate(t.Context(), hour)
		require.NoError(t, err)
		require.True(t, made)
		now = now.Add(time.Minute)
	}
	_, _, err := p.Rotate(t.Context(), hour)
	require.ErrorIs(t, err, errs.ErrInvalid)
	now = now.Add(time.Hour)
	_, made, err := p.Rotate(t.Context(), hour)
	require.NoError(t, err)
	require.True(t, made)
	require.Less(t, len(p.current(t).Keys), tokenring.Max, "those that have retired are gone")
	require.Zero(t, store.gets)
}
