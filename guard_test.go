package fob_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// nilStore is a store whose methods need the pointer.
type nilStore struct{ backend.Store }

// onTop wraps a store.
type onTop struct{ backend.Store }

func (s onTop) Unwrap() backend.Store { return s.Store }

type pointerObserver struct{ n int }

func (o *pointerObserver) Observe(context.Context, fob.Event) { o.n++ }

type pointerKeys struct{ keys []fob.TokenKey }

func (k *pointerKeys) TokenKeys(context.Context) ([]fob.TokenKey, error) { return k.keys, nil }

func TestWhatIsNilBehindAnInterfaceIsRefusedAtOnce(t *testing.T) {
	var store *nilStore
	var fault *backendtest.Fault
	for _, s := range []backend.Store{nil, store, fault, (*memory.Store)(nil), onTop{store}, onTop{onTop{fault}}} {
		m, err := fob.New(s, fob.Config{})
		require.ErrorIs(t, err, fob.ErrInvalid, "%T", s)
		require.Nil(t, m)
	}
	for _, o := range []fob.Observer{(*pointerObserver)(nil), fob.ObserverFunc(nil), fob.LogEvents(nil)} {
		_, err := fob.New(memory.New(), fob.Config{Observer: o})
		require.ErrorIs(t, err, fob.ErrInvalid, "%T", o)
		require.ErrorContains(t, err, "Observer")
	}
	for _, source := range []fob.TokenKeySource{nil, (*pointerKeys)(nil), (*fob.Manager)(nil)} {
		_, err := fob.NewTokenVerifier(source, fob.TokenVerifierConfig{Issuer: "i", Audiences: []string{"a"}})
		require.ErrorIs(t, err, fob.ErrInvalid, "%T", source)
	}
	for _, v := range []fob.Verifier{fob.Chain(nil), fob.Chain((*fob.Manager)(nil)), fob.VerifierFunc(nil), fob.Chain(fob.VerifierFunc(nil))} {
		_, err := v.Verify(t.Context(), "x")
		mustBeUnsure(t, err)
		require.ErrorIs(t, err, fob.ErrInvalid)
	}
}

// has fails the test unless there was an event of a type whose error says a text.
func (o *observed) has(t *testing.T, kind fob.EventType, text string) {
	t.Helper()
	for _, e := range o.take() {
		if e.Type == kind && e.Err != nil && strings.Contains(e.Err.Error(), text) {
			return
		}
	}
	t.Fatalf("no event %v that tells of %q", kind, text)
}

// panicking is a store that panics where it is told to.
type panicking struct {
	*backendtest.Fault
	watch, batch, purge, add atomic.Bool
}

func (s *panicking) Unwrap() backend.Store { return s.Fault }

func (s *panicking) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	if s.watch.Load() {
		panic(errors.New("watch: a bug of the store"))
	}
	inner, _ := backend.As[backend.Watcher](s.Fault)
	return inner.Watch(ctx, from, func(b backend.Batch) error {
		if s.batch.Load() {
			panic("batch: a bug of the store")
		}
		return fn(b)
	})
}

func (s *panicking) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if s.purge.Load() {
		panic(fmt.Sprint("purge: ", "a bug of the store"))
	}
	inner, _ := backend.As[backend.Purger](s.Fault)
	return inner.Purge(ctx, before, limit)
}

func (s *panicking) AddUsage(ctx context.Context, batch []backend.Usage) error {
	if s.add.Load() {
		var none []int
		_ = none[len(none)] // an error of the runtime
	}
	inner, _ := backend.As[backend.UsageRecorder](s.Fault)
	return inner.AddUsage(ctx, batch)
}

func (s *panicking) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	inner, _ := backend.As[backend.UsageRecorder](s.Fault)
	return inner.Usage(ctx, ids)
}

func TestAStoreThatPanicsInTheBackgroundEndsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		store := &panicking{Fault: fault}
		var seen observed
		m := newManager(t, store, fob.Config{Observer: &seen, UsageInterval: time.Second, SweepInterval: time.Second})
		defer m.Close()
		text, key := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, text)
		pass(2 * time.Second)
		seen.take()
		for what, at := range map[string]*atomic.Bool{"watch: a bug": &store.watch, "batch: a bug": &store.batch, "purge: a bug": &store.purge, "index out of range": &store.add} {
			at.Store(true)
			mustVerify(t, m, text)
			kind := fob.EventUpkeepFailed
			switch at {
			case &store.watch:
				kind = fob.EventFeedLost
				fault.InjectOnce(backendtest.OpBatch, backendtest.Unavailable())
			case &store.batch:
				kind = fob.EventFeedLost
			}
			pass(10 * time.Second)
			seen.has(t, kind, what)
			mustVerify(t, m, text)
			at.Store(false)
			pass(10 * time.Second)
			require.True(t, m.Health().Following)
			require.NoError(t, m.Health().Err)
		}
		mustVerify(t, m, text)
		pass(2 * time.Second)
		usage, err := store.Usage(t.Context(), []backend.ID{idOf(key)})
		require.NoError(t, err)
		require.NotZero(t, usage[0].N, "usage is written again")
	})
}

// A load that goes on alone has no caller to panic in. What it says is not told if it
// has a part of what was presented in it.
func TestALoadThatPanicsAloneEndsNothing(t *testing.T) {
	for _, leaks := range []bool{false, true} {
		bubble(t, func(t *testing.T, fault *backendtest.Fault) {
			var seen observed
			m := newManager(t, fault, fob.Config{Observer: &seen})
			defer m.Close()
			text, _ := mustIssue(t, m, fob.KeySpec{})
			pass(time.Second)
			say := "a bug of the store"
			if leaks {
				say += " with " + text[len(text)/2:]
			}
			n := 0
			fault.Inject(func(c backendtest.Call) backendtest.Injection {
				if c.Op != backendtest.OpGet {
					return backendtest.Injection{}
				}
				if n++; n == 2 {
					return backendtest.Injection{Before: func() { panic(say) }}
				}
				return backendtest.Injection{Hang: n == 1}
			})
			short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			_, err := m.Verify(short, text)
			mustBeUnsure(t, err)
			synctest.Wait()
			mustVerify(t, m, text)
			for _, e := range seen.take() {
				if e.Type == fob.EventUpkeepFailed {
					require.Equal(t, !leaks, strings.Contains(e.Err.Error(), "a bug of the store"), e.Err)
					require.ErrorContains(t, e.Err, "panicked")
					return
				}
			}
			t.Fatal("nobody was told")
		})
	}
}

func TestAnObserverOrClockThatPanicsInTheBackgroundEndsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		var wrong, late atomic.Bool
		m := newManager(t, fault, fob.Config{
			UsageInterval: time.Second, SweepInterval: time.Second,
			Observer: fob.ObserverFunc(func(context.Context, fob.Event) {
				if wrong.Load() {
					panic("a bug of the observer")
				}
			}),
			Clock: func() time.Time {
				if late.Load() {
					panic("a bug of the clock")
				}
				return time.Now()
			},
		})
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, text)
		wrong.Store(true)
		cut(fault) // the feed is lost, upkeep fails: both would be told to the observer
		pass(10 * time.Second)
		late.Store(true)
		pass(10 * time.Second)
		require.Panics(t, func() { _, _ = m.Verify(t.Context(), text) }, "to its caller it is its own")
		late.Store(false)
		wrong.Store(false)
		fault.Inject(nil)
		pass(10 * time.Second)
		require.True(t, m.Health().Following)
		mustVerify(t, m, text)
	})
}
