package lifecycle_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/lifecycle"
	"github.com/fobkit/fob/internal/retry"
	"github.com/stretchr/testify/require"
)

// closing calls Close in another goroutine, and returns what tells whether it has returned.
func closing(l *lifecycle.Life) (returned func() bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Close()
	}()
	return func() bool {
		synctest.Wait()
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

func start(t *testing.T, test func(*testing.T, *lifecycle.Life)) {
	synctest.Test(t, func(t *testing.T) {
		l := new(lifecycle.Life)
		l.Start()
		test(t, l)
		l.Close()
	})
}

func TestCloseWaitsForWhatWasBegun(t *testing.T) {
	start(t, func(t *testing.T, l *lifecycle.Life) {
		end := make(chan struct{})
		require.True(t, l.Go(func() { <-end }))
		release, ok := l.Hold()
		require.True(t, ok)
		require.False(t, l.Closed())
		require.NoError(t, l.Context().Err())

		returned, again := closing(l), closing(l)
		require.False(t, returned())
		require.True(t, l.Closed())
		require.Error(t, l.Context().Err(), "whatever runs is told to end")
		require.False(t, l.Go(func() { t.Error("nothing begins after Close") }))
		_, ok = l.Hold()
		require.False(t, ok)
		require.ErrorIs(t, l.Protect(t.Context(), func(context.Context) error { return nil }), errs.ErrClosed)

		close(end)
		require.False(t, returned())
		require.False(t, again(), "each Close waits")
		release()
		require.True(t, returned())
		require.True(t, again())
		require.False(t, l.Close(), "it is not the first")
	})
	start(t, func(t *testing.T, l *lifecycle.Life) { require.True(t, l.Close()) })
}

func TestOnlySoManyAreHeld(t *testing.T) {
	start(t, func(t *testing.T, l *lifecycle.Life) {
		few := l.Limit(2)
		first, ok := few.Hold()
		require.True(t, ok)
		second, ok := few.Hold()
		require.True(t, ok)
		_, ok = few.Hold()
		require.False(t, ok)
		first()
		third, ok := few.Hold()
		require.True(t, ok)
		returned := closing(l)
		require.False(t, returned())
		second()
		_, ok = few.Hold()
		require.False(t, ok, "there is room, and no life")
		require.False(t, returned())
		third()
		require.True(t, returned())
	})
}

// TestAProtectedWriteIsEndedByNobody, and neither is what finishes a change that was begun.
func TestAProtectedWriteIsEndedByNobody(t *testing.T) {
	for _, run := range []func(*lifecycle.Life, context.Context, func(context.Context) error) error{
		(*lifecycle.Life).Protect, (*lifecycle.Life).Finish,
	} {
		start(t, func(t *testing.T, l *lifecycle.Life) {
			hung, hangUp := context.WithCancel(t.Context())
			hangUp()
			began, failed := time.Now(), errors.New("failed")
			end := make(chan error)
			go func() {
				end <- run(l, hung, func(ctx context.Context) error {
					<-ctx.Done()
					return failed
				})
			}()
			synctest.Wait()
			returned := closing(l)
			require.False(t, returned())
			require.ErrorIs(t, <-end, failed)
			require.Equal(t, retry.Within, time.Since(began))
			require.True(t, returned())
		})
	}
}

// After Close, what finishes a change is the caller's own.
func TestWhatIsFinishedAfterCloseIsTheCallersOwn(t *testing.T) {
	start(t, func(t *testing.T, l *lifecycle.Life) {
		require.True(t, l.Close())
		hung, hangUp := context.WithCancel(t.Context())
		hangUp()
		require.ErrorIs(t, l.Finish(hung, func(ctx context.Context) error { return ctx.Err() }), context.Canceled)
		require.NoError(t, l.Finish(t.Context(), func(ctx context.Context) error { return ctx.Err() }))
	})
}

func TestALoopThatPanicsBeginsAgain(t *testing.T) {
	start(t, func(t *testing.T, l *lifecycle.Life) {
		var told []error
		n := 0
		l.Loop(func(ctx context.Context) {
			if n++; n <= 3 {
				panic("a bug")
			}
			<-ctx.Done()
			panic("in the end")
		}, func(err error) { told = append(told, err) })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, 4, n)
		l.Close()
		require.Len(t, told, 3, "what comes after Close is nobody's concern")
		require.ErrorIs(t, told[0], errs.ErrPanicked)
	})
	start(t, func(t *testing.T, l *lifecycle.Life) {
		n := 0
		l.Loop(func(context.Context) { n++ }, func(err error) { t.Error(err) })
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, n, "a loop that ends has ended")
	})
}

func TestSleepEndsWithTheContextOrTheLife(t *testing.T) {
	start(t, func(t *testing.T, l *lifecycle.Life) {
		began := time.Now()
		require.NoError(t, l.Sleep(t.Context(), time.Minute))
		require.Equal(t, time.Minute, time.Since(began))
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.Sleep(short, time.Minute), context.DeadlineExceeded)
		require.NoError(t, l.Sleep(short, 0))
		time.AfterFunc(time.Second, func() { l.Close() })
		require.ErrorIs(t, l.Sleep(t.Context(), time.Minute), errs.ErrClosed)
		require.Equal(t, time.Minute+2*time.Second, time.Since(began))
	})
}
