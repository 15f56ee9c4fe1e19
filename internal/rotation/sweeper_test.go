package rotation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/rotation"
	"github.com/fobkit/fob/internal/usagelog"
	"github.com/stretchr/testify/require"
)

const (
	overlap   = 100 * time.Hour
	quietTime = time.Hour
)

// sweeper is a process that sweeps.
type sweeper struct {
	*process
	*rotation.Sweeper
	used     map[record.ID]usagelog.Tally
	usageErr error
	corrupt  record.ID   // whose usage cannot be read
	asked    int         // how often usage was asked for
	told     []record.ID // of the keys that were retired
}

func newSweeper(t *testing.T, store backend.Store, interval time.Duration) *sweeper {
	s := &sweeper{process: newProcess(t, store), used: make(map[record.ID]usagelog.Tally)}
	s.Sweeper = rotation.NewSweeper(rotation.Config{
		Keys: s.Keys, Clock: s.Clock, Interval: interval,
		Fleet: fleet.New(fleet.Config{Records: s.Keys.Store, Clock: s.Clock}),
		Usage: func(_ context.Context, ids ...record.ID) (found []usagelog.Tally, err error) {
			s.asked++
			for _, id := range ids {
				if id == s.corrupt {
					return nil, errs.ErrCorrupt
				}
				found = append(found, s.used[id])
			}
			return found, s.usageErr
		},
		Retired: func(old *keystate.State) { s.told = append(s.told, old.ID) },
	})
	return s
}

func (s *sweeper) use(k *keystate.State) {
	s.used[k.ID] = usagelog.Tally{N: s.used[k.ID].N + 1, Last: s.now.UnixMilli()}
}

func (s *sweeper) rotated() (old, next *keystate.State) {
	key := s.issue()
	_, _, next, err := s.Rotate(s.t.Context(), key.ID, rotation.Terms{Overlap: overlap, QuietTime: quietTime, TTL: overlap})
	require.NoError(s.t, err)
	_, err = s.Keys.Edit(s.t.Context(), key.ID, func(k *keystate.State, _ bool) (bool, error) {
		k.ExpiresAt = 0 // it is the rotation that ends it
		return true, nil
	})
	require.NoError(s.t, err)
	return key, next
}

func (s *sweeper) sweep() int {
	retired, more, err := s.Sweep(s.t.Context())
	require.NoError(s.t, err)
	require.False(s.t, more)
	return retired
}

// rotations is how many rotations are still to be looked at.
func (s *sweeper) rotations() int {
	lister, ok := backend.As[backend.Lister](backend.Store(s.store))
	require.True(s.t, ok)
	page, err := lister.List(s.t.Context(), backend.Query{Kind: record.Rotation, Limit: 10})
	require.NoError(s.t, err)
	return len(page.Records)
}

func TestAKeyIsRetiredOnceItIsQuiet(t *testing.T) {
	s := newSweeper(t, memory.New(), time.Minute)
	old, next := s.rotated()
	s.now = s.now.Add(2 * quietTime)
	require.Zero(t, s.sweep(), "nobody has the successor yet")
	s.use(next)
	s.use(old)
	s.now = s.now.Add(quietTime - time.Millisecond)
	require.Zero(t, s.sweep())
	require.Equal(t, 1, s.rotations())

	s.now = s.now.Add(time.Millisecond)
	s.usageErr = errors.ErrUnsupported
	require.Zero(t, s.sweep(), "nobody knows")
	s.usageErr = nil
	require.Equal(t, 1, s.sweep())
	require.Equal(t, []record.ID{old.ID}, s.told)
	require.ErrorIs(t, s.read(old.ID).Refusal(0), errs.ErrRetired, "by any clock")
	require.NoError(t, s.read(next.ID).Refusal(s.now.UnixMilli()))
	require.Zero(t, s.rotations())
	require.Zero(t, s.sweep())
}

// Usage is written behind, so a use may be on its way for as long as that takes.
func TestNoKeyIsQuietForLessThanTwoIntervals(t *testing.T) {
	s := newSweeper(t, memory.New(), quietTime)
	_, next := s.rotated()
	s.use(next)
	s.now = s.now.Add(2*quietTime - time.Millisecond)
	require.Zero(t, s.sweep())
	s.now = s.now.Add(time.Millisecond)
	require.Equal(t, 1, s.sweep())
}

func TestARotationThatCannotBeReadIsToldAndHoldsUpNone(t *testing.T) {
	for name, spoil := range map[string]func(*backend.Record){
		"damaged": func(rec *backend.Record) { rec.Body[0]++ },
		"of no key": func(rec *backend.Record) {
			w := record.NewBody()
			w.Number(record.FieldQuiet, 1)
			w.Finish(rec)
		},
		"of more": func(rec *backend.Record) {
			w := record.NewBody()
			w.ID(record.FieldTarget, record.ID{1})
			w.Number(record.FieldKeptUntil, 1)
			w.Finish(rec)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSweeper(t, memory.New(), time.Minute)
			rec := backend.Record{ID: record.Named(record.Rotation, "x"), Kind: record.Rotation, Owner: "1ann", Created: 1}
			w := record.NewBody()
			w.ID(record.FieldTarget, record.ID{1})
			w.Finish(&rec)
			spoil(&rec)
			_, err := s.Keys.Create(t.Context(), rec)
			require.NoError(t, err)
			_, next := s.rotated()
			s.use(next)
			s.now = s.now.Add(quietTime)
			retired, _, err := s.Sweep(t.Context())
			require.ErrorIs(t, err, errs.ErrCorrupt)
			require.Equal(t, 1, retired)
		})
	}
}

// asked counts the calls of a store. A call for many records is one.
type asked struct {
	*memory.Store
	calls int
}

func (s *asked) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	s.calls++
	return s.Store.Get(ctx, id)
}

func (s *asked) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	s.calls++
	return s.Store.GetMany(ctx, ids)
}

func (s *asked) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	s.calls++
	return s.Store.List(ctx, q)
}

// TestASweepAsksOncePerPage, and not once per rotation, as long as no key is quiet.
func TestASweepAsksOncePerPage(t *testing.T) {
	store := &asked{Store: memory.New()}
	s := newSweeper(t, store, time.Minute)
	const n = 250 // three pages
	for range n {
		old, next := s.rotated()
		s.use(old)
		s.use(next)
	}
	store.calls, s.asked = 0, 0
	require.Zero(t, s.sweep())
	require.Equal(t, 3*3, store.calls, "a page is a list, its keys, and the interval of the fleet")
	require.Equal(t, 3, s.asked)

	for id := range s.used {
		s.used[id] = usagelog.Tally{N: 1}
	}
	store.calls, s.asked = 0, 0
	require.Zero(t, s.sweep(), "the successors are young")
	require.Equal(t, 3*4, store.calls, "and the successors of the page")

	s.now = s.now.Add(quietTime)
	require.Equal(t, n, s.sweep())
}

// TestAUsageThatCannotBeReadHoldsUpNoOtherKey on the same page.
func TestAUsageThatCannotBeReadHoldsUpNoOtherKey(t *testing.T) {
	s := newSweeper(t, memory.New(), time.Minute)
	for i := range 3 {
		old, next := s.rotated()
		s.use(next)
		if i == 1 {
			s.corrupt = old.ID
		}
	}
	s.now = s.now.Add(quietTime)
	retired, _, err := s.Sweep(t.Context())
	require.ErrorIs(t, err, errs.ErrCorrupt)
	require.Equal(t, 2, retired)
	require.Equal(t, 1, s.rotations())
}

// What was revoked stays revoked, and no two sweeps count one key.
func TestAKeyThatEndsMeanwhileIsNotRetired(t *testing.T) {
	store := memory.New()
	first, second := newSweeper(t, store, time.Minute), newSweeper(t, store, time.Minute)
	old, next := first.rotated()
	first.use(next)
	second.use(next)
	first.now, second.now = first.now.Add(quietTime), second.now.Add(quietTime)
	first.store.put = func(int, backend.Record) error {
		first.store.put = nil
		require.Equal(t, 1, second.sweep())
		return nil
	}
	require.Zero(t, first.sweep())
	require.Empty(t, first.told)
	require.Equal(t, []record.ID{old.ID}, second.told)
}
