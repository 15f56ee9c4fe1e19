package importedhash

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/semaphore"
)

var (
	// ErrBusy says that too many slow checks are waiting, or one of the same record:
	// this one was not made.
	ErrBusy = errors.New("legacyhash: too many checks under way")
	// ErrLanes says that a hash has more lanes than the Limiter has turns: its check
	// would take more cores than it may.
	ErrLanes = errors.New("legacyhash: more lanes than checks at once")
)

// queueFactor is how many checks may wait for each one that runs: enough for a
// burst of real clients after a migration, too few to hold a flood.
const queueFactor = 16

// Limiter bounds how many cores slow checks take at once, so that a flood of wrong
// secrets costs that many and no more. Of one record it makes one check at a time
// and lets none wait: who knows what leads to one record, which is public, cannot
// keep the queue full for all others. It is safe for concurrent use.
type Limiter struct {
	turns *semaphore.Weighted
	n     int64

	mu      sync.Mutex // guards waiting and records
	waiting int64
	records map[[16]byte]struct{} // those with a check that waits or runs
}

// NewLimiter lets slow checks take n cores at once, at least 1.
func NewLimiter(n int) *Limiter {
	n = max(n, 1)
	return &Limiter{turns: semaphore.NewWeighted(int64(n)), n: int64(n), records: make(map[[16]byte]struct{})}
}

// Cores is how many cores slow checks take at once.
func (l *Limiter) Cores() int { return int(l.n) }

// Verify is h.Check of what is in a record, after waiting for a turn if h is slow,
// or for as many as it has lanes. It fails with ErrBusy if too many wait already,
// with ErrLanes, and with the context's error if that ends first: the check was then
// not made. ErrUnavailable is that of Hash.Check.
func (l *Limiter) Verify(ctx context.Context, record [16]byte, h Hash, secret string) (bool, error) {
	if !h.Slow() {
		return h.Check(secret)
	}
	lanes := int64(h.Lanes())
	if lanes > l.n {
		return false, ErrLanes
	}
	if !l.enter(record) {
		return false, ErrBusy
	}
	defer l.leave(record)
	if err := l.wait(ctx, lanes); err != nil {
		return false, err
	}
	defer l.turns.Release(lanes)
	return h.Check(secret)
}

func (l *Limiter) enter(record [16]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, busy := l.records[record]; busy {
		return false
	}
	l.records[record] = struct{}{}
	return true
}

func (l *Limiter) leave(record [16]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.records, record)
}

// wait takes turns, in the queue if they are not free and it is not full.
func (l *Limiter) wait(ctx context.Context, turns int64) error {
	if l.turns.TryAcquire(turns) {
		return nil
	}
	if !l.queue(1) {
		return ErrBusy
	}
	defer l.queue(-1)
	return l.turns.Acquire(ctx, turns)
}

// queue lets one more wait if there is room, or one less.
func (l *Limiter) queue(more int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if more > 0 && l.waiting >= l.n*queueFactor {
		return false
	}
	l.waiting += more
	return true
}
