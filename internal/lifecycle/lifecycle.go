// Package lifecycle is for an object that has goroutines of its own and is closed once:
// Close waits for everything that still runs, and nothing begins after that. It does not
// know what runs.
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

// Life is the time from Start to Close. Start must be called before anything else. A Life
// is safe for concurrent use, and must not be copied after Start.
type Life struct {
	ctx    context.Context
	cancel context.CancelFunc
	closed atomic.Bool // set under mu
	mu     sync.Mutex  // held while closed is set, and while something is added to held, so that nothing is added after closed
	held   sync.WaitGroup
}

// Start begins the life.
func (l *Life) Start() { l.ctx, l.cancel = context.WithCancel(context.Background()) }

// Context returns a context that ends when Close is called, before Close waits.
func (l *Life) Context() context.Context { return l.ctx }

// Closed reports whether Close was called. It costs one atomic read.
func (l *Life) Closed() bool { return l.closed.Load() }

// Close ends the Context and waits until everything that was held or started has ended.
// first reports whether this is the first call of Close. Later calls wait too.
func (l *Life) Close() (first bool) {
	l.mu.Lock()
	first = l.closed.CompareAndSwap(false, true)
	l.mu.Unlock()
	l.cancel()
	l.held.Wait()
	return first
}

// Hold makes Close wait until release is called. release must be called once. After Close
// ok is false, and release is nil.
func (l *Life) Hold() (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return nil, false
	}
	l.held.Add(1)
	return l.held.Done, true
}

// Limited is a part of a Life with a limit for how many holds there may be at a time.
type Limited struct {
	life  *Life
	slots *semaphore.Weighted
}

// Limit makes a part of the life with at most n holds at a time.
func (l *Life) Limit(n int64) *Limited { return &Limited{l, semaphore.NewWeighted(n)} }

// Hold is Life.Hold; ok is false also if the limit is reached.
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

// Go runs fn in a goroutine, and Close waits for it. After Close it does not run fn, and
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

// Loop runs loop in a goroutine, with a context that ends when Close is called; Close waits
// for loop. If loop panics, it is started again after a pause: code of the application may
// panic, and in a goroutine of the library a panic would end the process. failed is told of
// the panic.
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

// Protect runs a write that protects somebody other than the caller: the holder of a
// session whose secret was copied, say. Once Protect has begun, the write goes on even if
// the caller hangs up, and Close waits for it. Otherwise an attacker could prevent the
// write by hanging up. The write runs in the goroutine of the caller, so that there is no
// queue from which it could be dropped, and takes retry.Within at most. After Close Protect
// fails with errs.ErrClosed.
//
// A write on behalf of the caller does not need Protect: it ends with the caller's context,
// and its error says what is then known of it. Nor does a write of maintenance, because the
// next round makes it again.
func (l *Life) Protect(ctx context.Context, write func(context.Context) error) error {
	open, err := l.protect(ctx, write)
	if !open {
		return errs.ErrClosed
	}
	return err
}

// Finish is Protect for the last part of a change of which a part is written, so that the
// caller cannot leave it half done by hanging up. After Close it runs the write with the
// context of the caller, who may be protected already.
func (l *Life) Finish(ctx context.Context, write func(context.Context) error) error {
	open, err := l.protect(ctx, write)
	if !open {
		return write(ctx)
	}
	return err
}

// protect runs a write that goes on without its caller. It does not if open is false.
func (l *Life) protect(ctx context.Context, write func(context.Context) error) (open bool, err error) {
	release, open := l.Hold()
	if !open {
		return false, nil
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retry.Within)
	defer cancel()
	return true, write(ctx)
}

// Sleep waits for d. If ctx or the life ends before that, it returns the error of ctx or
// errs.ErrClosed. If d is not positive, it returns nil at once, without looking at either.
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
