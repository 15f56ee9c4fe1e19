package engine_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/errs"
	"github.com/stretchr/testify/require"
)

var (
	errDown = errors.New("the store is down")
	record  = engine.ID{15: 7}
)

// desk is an Engine over a loader whose answers the test says. What it answers is a number.
type desk struct {
	*engine.Engine[int]
	clock  clock.Clock
	memory *cache.Cache[engine.Answer[int]]
	close  func()

	mu      sync.Mutex
	loads   int
	answers func(ctx context.Context, load int) (int, error)
	version uint64 // of the record
	during  func() // while a load has read the record
}

func newDesk(t *testing.T, cfg engine.Config) *desk {
	t.Helper()
	d := &desk{answers: func(context.Context, int) (int, error) { return 42, nil }, version: 1, during: func() {}}
	d.clock.Start(time.Now, time.Hour)
	running, stop := context.WithCancel(t.Context())
	var held sync.WaitGroup
	d.close = func() { stop(); held.Wait() }
	cfg.Clock, cfg.Running, cfg.Entries = &d.clock, running, 100
	cfg.Failed = func(err error) { t.Errorf("a load failed: %v", err) }
	cfg.Hold = func() (func(), bool) { held.Add(1); return held.Done, running.Err() == nil }
	if cfg.MaxStaleness == 0 {
		cfg.MaxStaleness = time.Second
	}
	if cfg.Expected == 0 {
		cfg.Expected = time.Minute
	}
	var err error
	d.Engine, err = engine.New[int](cfg)
	require.NoError(t, err)
	d.memory, err = d.AddMemory(nil, false)
	require.NoError(t, err)
	return d
}

func (d *desk) Load(ctx context.Context, q *engine.Lookup[int]) (*engine.Answer[int], error) {
	q.Reads(record)
	d.mu.Lock()
	d.loads++
	n, answers := d.loads, d.answers
	d.mu.Unlock()
	d.Saw(record, d.version)
	d.during()
	body, err := answers(ctx, n)
	switch {
	case errors.Is(err, errs.ErrRejected):
		return nil, d.Refuse(q, engine.Absence[int]{Err: err}, cache.Ref(record))
	case err != nil:
		return nil, err
	}
	return d.Remember(q, engine.Answer[int]{Body: body}, q.Now.Mono, cache.Ref(record)), nil
}

func (d *desk) Absent(_ *engine.Lookup[int], found *engine.Absence[int]) error { return found.Err }

func (d *desk) loaded() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.loads
}

// ask is a whole verification: from memory, if that may be believed.
func (d *desk) ask(ctx context.Context, text string, fresh bool) (int, error) {
	seen := engine.Digest(sha256.Sum256([]byte(text)))
	q := d.NewLookup()
	q.Now, q.Fresh, q.Presented = d.Now(), fresh, text
	q.Loader, q.Memory, q.At, q.Seen = d, d.memory, cache.Key(seen[:16]), seen
	if a, ok := d.memory.Get(q.At, q.Now.Mono); ok {
		if !fresh && d.Believes(a.AsOf(), q.Now) {
			return a.Body, nil
		}
		q.Old = a
	}
	a, err := d.Find(ctx, q)
	if err != nil {
		return 0, err
	}
	return a.Body, nil
}

func (d *desk) mustAsk(t *testing.T, text string) int {
	t.Helper()
	body, err := d.ask(t.Context(), text, false)
	require.NoError(t, err)
	return body
}

func TestAnAnswerIsBelievedForMaxStalenessAndEndsWithItsRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, engine.Config{})
		defer d.close()
		require.Equal(t, 42, d.mustAsk(t, "a"))
		time.Sleep(time.Second - 1)
		require.Equal(t, 42, d.mustAsk(t, "a"))
		require.Equal(t, 1, d.loaded())
		time.Sleep(time.Nanosecond)
		require.Equal(t, 42, d.mustAsk(t, "a"))
		require.Equal(t, 2, d.loaded(), "it was too old")
		require.EqualValues(t, 1, d.Stats().Rechecked)

		d.Forget(record)
		d.mustAsk(t, "a")
		require.Equal(t, 3, d.loaded(), "its record has changed")
		_, err := d.ask(t.Context(), "a", true)
		require.NoError(t, err)
		require.Equal(t, 4, d.loaded(), "no memory was to be believed")
		d.Clear()
		d.mustAsk(t, "a")
		require.Equal(t, 5, d.loaded())
	})
}

func TestWhatTheFeedHasProvedIsBelievedForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, engine.Config{})
		defer d.close()
		d.mustAsk(t, "a")
		for range 10 {
			time.Sleep(time.Second / 2)
			d.Proven(d.clock.Now().Mono)
			d.mustAsk(t, "a")
		}
		require.Equal(t, 1, d.loaded())
		require.True(t, d.Live(d.Now()))
		d.FeedBegins()
		require.False(t, d.Live(d.Now()))
		d.mustAsk(t, "a")
		require.Equal(t, 2, d.loaded())
	})
}

// Two bounds hold for every answer: that of the configuration, and, until the others know
// of that, what every process expects.
func TestNobodyIsMorePatientThanTheOthersKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, engine.Config{MaxStaleness: 10 * time.Second, Expected: 2 * time.Second})
		defer d.close()
		age := func(asOf, age time.Duration) bool {
			now := clock.Moment{Mono: int64(asOf + age), Synced: clock.Never}
			return d.Believes(int64(asOf), now)
		}
		at := time.Hour
		require.True(t, age(at, 2*time.Second-1))
		require.False(t, age(at, 2*time.Second))

		d.Joined(int64(at))
		require.True(t, age(at, 10*time.Second-1))
		require.False(t, age(at, 10*time.Second))
		require.False(t, age(at-1, 2*time.Second), "it was read before the others knew")

		d.Joined(clock.Forever)
		require.False(t, age(at, 2*time.Second), "they may no longer know")
	})
}

func TestOfManyWhoWantOneAnswerOneLoadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, engine.Config{})
		defer d.close()
		d.answers = func(context.Context, int) (int, error) {
			time.Sleep(time.Millisecond)
			return 42, nil
		}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { d.mustAsk(t, "a") })
		}
		all.Wait()
		require.Equal(t, 1, d.loaded())
		require.EqualValues(t, 19, d.Stats().Collapsed)
	})
}

func TestALoadGoesOnWithoutItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, engine.Config{MaxStaleness: time.Minute, Expected: time.Hour})
		defer d.close()
		d.answers = func(ctx context.Context, _ int) (int, error) {
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(time.Second):
				return 42, nil
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := d.ask(ctx, "a", false)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(2 * time.Second)
		require.Equal(t, 42, d.mustAsk(t, "a"))
		require.Equal(t, 2, d.loaded(), "that of its caller, and the one that went on")

		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = d.ask(ctx, "b", false)
		require.Error(t, err)
		d.close() // ends it, and waits
		synctest.Wait()
		require.Equal(t, 4, d.loaded())
	})
}

func TestARefusalIsRememberedWhenItComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, engine.Config{})
		defer d.close()
		d.answers = func(context.Context, int) (int, error) { return 0, errs.ErrUnknown }
		for range 5 {
			_, err := d.ask(t.Context(), "a", false)
			require.ErrorIs(t, err, errs.ErrUnknown)
		}
		require.Equal(t, 2, d.loaded(), "the first one is forgotten, the second is not")
		require.EqualValues(t, 3, d.Stats().Refused)
		d.Forget(record)
		_, err := d.ask(t.Context(), "a", false)
		require.ErrorIs(t, err, errs.ErrUnknown)
		require.Equal(t, 3, d.loaded())
		time.Sleep(time.Second)
		_, err = d.ask(t.Context(), "a", false)
		require.ErrorIs(t, err, errs.ErrUnknown)
		require.Equal(t, 4, d.loaded(), "it is believed no longer than an answer")
	})
}

func TestAnOldAnswerStandsInForAStoreThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, engine.Config{StaleIfError: 10 * time.Second})
		defer d.close()
		d.mustAsk(t, "a")
		d.answers = func(context.Context, int) (int, error) { return 0, errDown }
		time.Sleep(5 * time.Second)
		require.Equal(t, 42, d.mustAsk(t, "a"))
		require.Equal(t, 2, d.loaded())
		require.Equal(t, 42, d.mustAsk(t, "a"))
		require.Equal(t, 2, d.loaded(), "the store is left alone for a second")
		require.EqualValues(t, 2, d.Stats().Stale)
		_, err := d.ask(t.Context(), "b", false)
		require.ErrorIs(t, err, errDown, "there is no answer that could stand in")

		time.Sleep(2 * time.Second)
		d.answers = func(ctx context.Context, _ int) (int, error) {
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(5 * time.Second):
				return 43, nil
			}
		}
		began := time.Now()
		require.Equal(t, 42, d.mustAsk(t, "a"))
		require.Equal(t, 250*time.Millisecond, time.Since(began), "nobody waits for long")

		d.Forget(record)
		require.Equal(t, 43, d.mustAsk(t, "a"), "what was revoked stands in for nothing")
		time.Sleep(11 * time.Second)
		d.answers = func(context.Context, int) (int, error) { return 0, errDown }
		_, err = d.ask(t.Context(), "a", false)
		require.ErrorIs(t, err, errDown, "it is too old for that too")
	})
}

func TestARecordThatChangesDuringALoadIsReadOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, engine.Config{})
		defer d.close()
		d.during = func() {
			if d.loaded() == 1 {
				d.Saw(record, 2) // by somebody else
			}
		}
		d.answers = func(_ context.Context, load int) (int, error) { return load, nil }
		require.Equal(t, 2, d.mustAsk(t, "a"))
		require.Equal(t, 2, d.mustAsk(t, "a"))
		require.Equal(t, 2, d.loaded())
	})
}

// What a load reads of several records has to be of one instant, also for whoever uses nothing
// that is in memory. So a load begins again when one of the records has changed meanwhile.
func TestALoadDuringWhichARecordChangesBeginsAgain(t *testing.T) {
	for name, c := range map[string]struct {
		during       func(d *desk)
		fresh, keeps bool // and an answer of another version is in memory
		loads        int
	}{
		"nothing":                {func(*desk) {}, true, false, 1},
		"another record written": {func(d *desk) { d.Forget(engine.ID{15: 8}) }, true, false, 1},
		"written":                {func(d *desk) { d.Forget(record) }, true, false, 2},
		"written, not fresh":     {func(d *desk) { d.Forget(record) }, false, false, 2},
		"found changed":          {func(d *desk) { d.Saw(record, 2) }, true, false, 2},
		"memory has another":     {func(*desk) {}, true, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, engine.Config{})
				defer d.close()
				if c.keeps {
					d.version = 9
					d.mustAsk(t, "a")
					d.version, d.loads = 1, 0
				}
				d.during = func() {
					if d.loaded() == 1 {
						c.during(d)
					}
				}
				d.answers = func(_ context.Context, load int) (int, error) { return load, nil }
				got, err := d.ask(t.Context(), "a", c.fresh)
				require.NoError(t, err)
				require.Equal(t, c.loads, d.loaded())
				require.Equal(t, c.loads, got)
			})
		})
	}
}

// A record that changes whenever it is read is answered in the end.
func TestALoadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, engine.Config{})
		defer d.close()
		d.during = func() { d.Forget(record) }
		_, err := d.ask(t.Context(), "a", true)
		require.NoError(t, err)
		require.Equal(t, 17, d.loaded())
	})
}

// With the 48 bytes that a cache entry begins with, a body begins in the middle of the
// second line of memory, so that what it begins with is in it too.
func TestTheHeadOfAnAnswer(t *testing.T) {
	require.Equal(t, uintptr(48), engine.HeadOfAnswer)
}
