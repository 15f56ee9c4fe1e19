// Package lifecycle is the life of something that has goroutines of its own and is closed
// once: what it still runs is waited for, and nothing begins after that.
package lifecycle

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/retry"
	"golang.org/x/sync/semaphore"
)

// Life is such a life. It begins with Start, which is called before anything else. It is
// safe for concurrent use, and must not be copied after Start.
type Life struct {
	ctx    context.Context
	cancel context.CancelFunc
	closed atomic.Bool // set under mu
	mu     sync.Mutex  // guards that nothing is added to held after closed
	held   sync.WaitGroup
}

// Start begins the life.
func (l *Life) Start() { l.ctx, l.cancel = context.WithCancel(context.Background()) }

// Context ends with Close, before that waits.
func (l *Life) Context() context.Context { return l.ctx }

// Closed reports whether Close was called. It costs one atomic read.
func (l *Life) Closed() bool { return l.closed.Load() }

// Close ends Context, waits until all that was begun has ended, and reports whether it is
// the first Close. Each later one waits too.
func (l *Life) Close() (first bool) {
	l.mu.Lock()
	first = l.closed.CompareAndSwap(false, true)
	l.mu.Unlock()
	l.cancel()
	l.held.Wait()
	return first
}

// Hold makes Close wait until release is called, which has to be called once. After Close
// ok is false, and there is no release.
func (l *Life) Hold() (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return nil, false
	}
	l.held.Add(1)
	return l.held.Done, true
}

// Limited is a part of a Life of which only so many may be held at a time.
type Limited struct {
	life  *Life
	slots *semaphore.Weighted
}

// Limit makes a part of the life of which n may be held at a time.
func (l *Life) Limit(n int64) *Limited { return &Limited{l, semaphore.NewWeighted(n)} }

// Hold is Hold of the Life; ok is false also if as many are held as may be.
func (l *Limited) Hold() (release func(), ok bool) {
	if !l.slots.TryAcquire(1) {
		return nil, false
	}
	done, ok := l.life.Hold()
	if !ok {
		l.slots.Release(1)
		return nil, false
	}
	return func() { l.slots.Release(1); done() }, true
}

// Go runs fn in a goroutine, for which Close waits. After Close it runs nothing, and
// returns false.
func (l *Life) Go(fn func()) bool {
	release, ok := l.Hold()
	if ok {
		go func() {
			defer release()
			fn()
		}()
	}
	return ok
}

// Loop runs loop in a goroutine, with a context that ends with Close, which waits for it.
// A loop that panics begins again after a pause: what the application brings along may
// panic, and in a goroutine that nobody else has started that would end the process. failed
// is told of the panic.
func (l *Life) Loop(loop func(context.Context), failed func(error)) {
	l.Go(func() {
		var backoff retry.Backoff
		for {
			err := guard.Run("", func() error {
				loop(l.ctx)
				return nil
			})
			if err == nil || l.ctx.Err() != nil {
				return
			}
			failed(err)
			backoff.Pause(l.ctx)
		}
	})
}

// Protect makes a write that protects somebody else than whoever happens to call: the
// holder of a session whose secret somebody has copied, say. Once it is decided on it
// goes on, although the caller has hung up, and Close waits for it: whoever could end it
// by hanging up would decide whether it is made. It runs in the caller's goroutine, so
// that there is no queue from which it could be dropped, and takes retry.Within at most.
// After Close it is errs.ErrClosed.
//
// Writes on behalf of the caller end with the caller's context, and say what is then
// known of them. Those of upkeep are made again by the next.
func (l *Life) Protect(ctx context.Context, write func(context.Context) error) error {
	release, ok := l.Hold()
	if !ok {
		return errs.ErrClosed
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retry.Within)
	defer cancel()
	return write(ctx)
}

// Sleep waits for d. If ctx or the life ends before that, it returns the error of ctx or
// errs.ErrClosed. It does not look at either where d is not positive.
func (l *Life) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ctx.Done():
		return errs.ErrClosed
	}
}
