package legacyhash

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// ErrBusy says that too many slow checks are waiting: this one was not made.
var ErrBusy = errors.New("legacyhash: too many checks under way")

// queueFactor is how many checks may wait for each one that runs: enough for a
// burst of real clients after a migration, too few to hold a flood.
const queueFactor = 16

// Limiter bounds how many slow checks run at once, so that a flood of wrong
// secrets costs that many cores and no more. It is safe for concurrent use.
type Limiter struct {
	sem     *semaphore.Weighted
	waiting atomic.Int64
	queue   int64
}

// NewLimiter lets n slow checks run at once, at least 1.
func NewLimiter(n int) *Limiter {
	n = max(n, 1)
	return &Limiter{sem: semaphore.NewWeighted(int64(n)), queue: int64(n) * queueFactor}
}

// Verify is h.Verify, after waiting for a turn if h is slow. It fails with
// ErrBusy if too many wait already, and with the context's error if that ends
// first: the check was then not made.
func (l *Limiter) Verify(ctx context.Context, h Hash, secret string) (bool, error) {
	if !h.Slow() {
		return h.Verify(secret), nil
	}
	if !l.sem.TryAcquire(1) {
		if l.waiting.Add(1) > l.queue {
			l.waiting.Add(-1)
			return false, ErrBusy
		}
		err := l.sem.Acquire(ctx, 1)
		l.waiting.Add(-1)
		if err != nil {
			return false, err
		}
	}
	defer l.sem.Release(1)
	return h.Verify(secret), nil
}
