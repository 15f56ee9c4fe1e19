package fleet_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/stretchr/testify/require"
)

// process is one process on a store.
type process struct {
	*fleet.Fleet
	now    time.Time
	joined int64 // what Joined was told last
}

func newProcess(store backend.Store, cfg fleet.Config) *process {
	p := &process{now: time.UnixMilli(1_700_000_000_000), joined: clock.Forever}
	cfg.Records = recordstore.Store{Store: store, Forget: func(...backend.ID) {}}
	cfg.Clock = new(clock.Clock)
	cfg.Clock.Start(func() time.Time { return p.now }, 2*fleet.MaxStaleness)
	cfg.Joined = func(at int64) { p.joined = at }
	p.Fleet = fleet.New(cfg)
	return p
}

// get calls before in front of each read of the store, which fails with its error.
type get struct {
	backend.Store
	before func() error
}

func (s *get) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	if err := s.before(); err != nil {
		return backend.Record{}, err
	}
	return s.Store.Get(ctx, id)
}

func TestABoundIsRaisedLoweredAndRaisedAgain(t *testing.T) {
	store, ctx := memory.New(), t.Context()
	quick := newProcess(store, fleet.Config{Patience: fleet.DefaultStaleness})
	patient := newProcess(store, fleet.Config{Patience: 10 * time.Second})
	bound := func() time.Duration {
		have, err := quick.Bounds(ctx)
		require.NoError(t, err)
		return have.Staleness
	}
	require.True(t, quick.Joined(), "whoever is as everybody expects need not say so")
	require.NoError(t, quick.Join(ctx))
	require.False(t, patient.Joined())
	require.Equal(t, fleet.DefaultStaleness, bound())

	patient.now = patient.now.Add(3 * time.Second)
	require.NoError(t, patient.Join(ctx))
	require.True(t, patient.Joined())
	require.Equal(t, int64(3*time.Second), patient.joined)
	require.Equal(t, 10*time.Second, bound())
	patient.now = patient.now.Add(time.Second)
	require.NoError(t, patient.Join(ctx))
	require.Equal(t, int64(3*time.Second), patient.joined, "it is known since the first time")

	require.NoError(t, quick.Lower(ctx, 20*time.Second))
	require.Equal(t, 10*time.Second, bound(), "to lower raises nothing")
	require.False(t, patient.LeaveIfLowered(ctx))
	require.NoError(t, quick.Lower(ctx, 5*time.Second))
	require.Equal(t, 5*time.Second, bound())
	require.False(t, quick.LeaveIfLowered(ctx))
	require.True(t, patient.LeaveIfLowered(ctx))
	require.False(t, patient.Joined())
	require.Equal(t, clock.Forever, patient.joined)
	require.NoError(t, patient.Join(ctx))
	require.Equal(t, int64(4*time.Second), patient.joined)
	require.Equal(t, 10*time.Second, bound())
}

// What was read before the fleet was left says nothing of what is in the store now.
func TestWhoJoinsWhileTheFleetIsLeftHasNotJoined(t *testing.T) {
	var p *process
	leave := true
	store := &get{memory.New(), func() error {
		if leave {
			p.Leave()
		}
		return nil
	}}
	p = newProcess(store, fleet.Config{Patience: time.Minute, MaxTTL: 3 * time.Hour})
	require.NoError(t, p.Join(t.Context()))
	require.False(t, p.Joined())
	leave = false
	require.NoError(t, p.Join(t.Context()))
	require.True(t, p.Joined())
}

func TestTheLifeOfTokensIsAnnouncedOnce(t *testing.T) {
	ctx := t.Context()
	reads, fail := 0, error(nil)
	store := &get{memory.New(), func() error { reads++; return fail }}
	p := newProcess(store, fleet.Config{MaxTTL: 3 * time.Hour})
	other := newProcess(store, fleet.Config{MaxTTL: time.Hour})

	require.NoError(t, p.AnnounceTTL(ctx, fleet.DefaultTTL))
	require.Zero(t, reads)
	require.NoError(t, p.AnnounceTTL(ctx, 2*time.Hour))
	require.Equal(t, 3*time.Hour, other.LongestTTL(ctx))
	reads = 0
	require.NoError(t, p.AnnounceTTL(ctx, 3*time.Hour))
	require.Zero(t, reads, "all of them were announced at once")
	p.Leave()
	require.NoError(t, p.AnnounceTTL(ctx, 2*time.Hour))
	require.NotZero(t, reads, "who has left the fleet announces anew")

	fail = errors.New("down")
	require.Equal(t, fleet.MaxTTL, other.LongestTTL(ctx))
	p.Leave()
	require.ErrorIs(t, p.AnnounceTTL(ctx, 2*time.Hour), fail)
}

func TestARecordThatCannotBeUnderstoodIsMended(t *testing.T) {
	store, ctx := memory.New(), t.Context()
	p := newProcess(store, fleet.Config{Patience: time.Minute})
	require.NoError(t, p.Join(ctx))
	id := record.Named(record.Fleet, "staleness")
	require.True(t, fleet.IsBounds(id))
	rec, err := store.Get(ctx, id)
	require.NoError(t, err)
	w := record.NewBody()
	w.Number(record.FieldStaleness, uint64((fleet.MaxStaleness + time.Millisecond).Milliseconds()))
	w.Finish(&rec)
	_, err = store.Put(ctx, rec, backend.IfVersion(rec.Version))
	require.NoError(t, err)

	_, err = p.Bounds(ctx)
	require.ErrorIs(t, err, errs.ErrCorrupt)
	require.ErrorIs(t, p.Join(ctx), errs.ErrCorrupt)
	require.NoError(t, p.Lower(ctx, 2*time.Minute))
	have, err := p.Bounds(ctx)
	require.NoError(t, err)
	require.Equal(t, fleet.Bounds{Staleness: 2 * time.Minute, TTL: fleet.MaxTTL}, have)
}

func TestTheLongestUsageIntervalIsKnownWhileItIsNeeded(t *testing.T) {
	store, ctx := memory.New(), t.Context()
	usual := newProcess(store, fleet.Config{UsageInterval: time.Second})
	hourly := newProcess(store, fleet.Config{UsageInterval: time.Hour})
	daily := newProcess(store, fleet.Config{UsageInterval: 24 * time.Hour})
	join := func(p *process, known time.Duration) (purgeAt time.Time) {
		_, err := p.JoinUsage(ctx)
		require.NoError(t, err)
		interval, err := usual.UsageInterval(ctx)
		require.NoError(t, err)
		require.Equal(t, known, interval)
		rec, err := store.Get(ctx, record.Named(record.Fleet, "usage interval"))
		if errors.Is(err, backend.ErrNotFound) {
			return time.Time{}
		}
		require.NoError(t, err)
		return time.UnixMilli(rec.PurgeAt)
	}
	require.Zero(t, join(usual, fleet.DefaultUsageInterval))
	join(hourly, time.Hour)
	due := join(daily, 24*time.Hour)
	require.True(t, due.Equal(daily.now.Add(2*24*time.Hour+clock.PurgeMargin)), due)
	require.Equal(t, due, join(hourly, 24*time.Hour), "a smaller one changes nothing")

	daily.now = daily.now.Add(25 * time.Hour)
	renewed := join(daily, 24*time.Hour)
	require.Equal(t, due, renewed, "it is early enough for the next time")
	daily.now = daily.now.Add(24 * time.Hour)
	require.True(t, join(daily, 24*time.Hour).After(due))

	// Nobody has renewed it, and it is nearly due: the next one writes its own.
	hourly.now = daily.now.Add(10 * 24 * time.Hour)
	join(hourly, time.Hour)

	closed := newProcess(&get{store, func() error { return errors.New("down") }}, fleet.Config{UsageInterval: time.Hour})
	interval, err := closed.JoinUsage(ctx)
	require.Error(t, err)
	require.Equal(t, fleet.DefaultUsageInterval, interval, "nobody knows that it may be later")
}

// TestManyAskForTheBoundsAtOnce: they share reads, and each gets what was there after it
// asked.
func TestManyAskForTheBoundsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		patient := newProcess(store, fleet.Config{Patience: time.Hour})
		var reads atomic.Int64
		slow := &get{store, func() error { reads.Add(1); time.Sleep(time.Second); return nil }}
		p := newProcess(slow, fleet.Config{})
		var group sync.WaitGroup
		ask := func(want time.Duration) {
			group.Go(func() {
				have, err := p.Bounds(t.Context())
				require.NoError(t, err)
				require.GreaterOrEqual(t, have.Staleness, want)
			})
		}
		for range 100 {
			ask(fleet.DefaultStaleness)
		}
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, patient.Join(t.Context()))
		for range 100 {
			ask(time.Hour)
		}
		group.Wait()
		require.LessOrEqual(t, reads.Load(), int64(6))
		require.NoError(t, store.Close())
	})
}

// TestWhoAsksForOthersMayFailAlone, by its own context or in whatever way.
func TestWhoAsksForOthersMayFailAlone(t *testing.T) {
	for _, panics := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store, fails := memory.New(), false
			first := make(chan struct{})
			blocks := &get{store, func() error {
				<-first
				if fails {
					fails = false
					if panics {
						panic("a bug")
					}
					return backend.ErrUnavailable
				}
				return nil
			}}
			p := newProcess(blocks, fleet.Config{})
			var group sync.WaitGroup
			for range 4 { // as many reads as there may be
				group.Go(func() { _, _ = p.Bounds(t.Context()) })
				synctest.Wait()
			}
			group.Go(func() { // waits for its turn, and asks for the rest
				defer func() { require.Equal(t, panics, recover() != nil) }()
				_, err := p.Bounds(t.Context())
				require.ErrorIs(t, err, backend.ErrUnavailable)
			})
			synctest.Wait()
			for range 10 {
				group.Go(func() {
					have, err := p.Bounds(t.Context())
					require.NoError(t, err)
					require.Equal(t, fleet.DefaultStaleness, have.Staleness)
				})
			}
			synctest.Wait()
			for range 4 {
				first <- struct{}{}
			}
			synctest.Wait()
			fails = true
			close(first)
			group.Wait()
			require.NoError(t, store.Close())
		})
	}
}

// TestReadsThatHangHoldUpNobody: as many as there may be hang, and the store answers again.
func TestReadsThatHangHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		var hang atomic.Bool
		hang.Store(true)
		end := make(chan struct{})
		p := newProcess(&get{store, func() error {
			if hang.Load() {
				<-end
			}
			return nil
		}}, fleet.Config{})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() { _, _ = p.Bounds(t.Context()) })
			synctest.Wait()
		}
		hang.Store(false)
		began := time.Now()
		_, err := p.Bounds(t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
		close(end)
		group.Wait()
		require.NoError(t, store.Close())
	})
}
