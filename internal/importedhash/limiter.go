package importedhash

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/semaphore"
)

var (
	// ErrBusy says that too many slow checks wait, or that a check of the same record does.
	// The check was not made.
	ErrBusy = errors.New("imported hash: too many checks under way")
	// ErrLanes says that a hash has more lanes than the Limiter has turns: its check would
	// run on more cores than checks may take.
	ErrLanes = errors.New("imported hash: more lanes than checks at once")
)

// queueFactor is how many checks may wait for each check that runs: enough for a burst of
// real clients after a migration, too few to hold a flood.
const queueFactor = 16

// Limiter bounds how many cores slow checks take at once, so that a flood of wrong secrets
// costs no more than these cores. Of one record it makes one check at a time, and no other
// check of that record waits. What leads to a record, its locator say, is public, so
// otherwise anybody who knows it could keep the queue full for all other records. It is
// safe for concurrent use.
type Limiter struct {
	turns *semaphore.Weighted
	n     int64

	mu      sync.Mutex // guards waiting and records
	waiting int64
	records map[[16]byte]struct{} // records with a check that waits or runs
}

// NewLimiter makes a Limiter that lets slow checks run on n cores at once, at least 1.
func NewLimiter(n int) *Limiter {
	n = max(n, 1)
	return &Limiter{turns: semaphore.NewWeighted(int64(n)), n: int64(n), records: make(map[[16]byte]struct{})}
}

// Cores returns on how many cores slow checks may run at once.
func (l *Limiter) Cores() int { return int(l.n) }

// Verify calls h.Check for the hash of a record. If h is slow, it first waits for as many
// turns as h has lanes. It fails with ErrBusy if too many checks wait already, with
// ErrLanes, and with the error of the context if that ends first: then the check was not
// made. It fails with ErrUnavailable if Hash.Check does.
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

// wait takes turns. If they are not free, it waits for them, unless the queue is full.
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

// queue changes the number of checks that wait, by 1 or -1. It reports whether there was
// room.
func (l *Limiter) queue(more int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if more > 0 && l.waiting >= l.n*queueFactor {
		return false
	}
	l.waiting += more
	return true
}
