// Package usagelog counts how often credentials are used, and writes the counts to a store
// from time to time, so that no verification waits for a write. It does not know what a
// credential is beyond its ID, nor when it is time to write: its caller does.
package usagelog

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/errs"
	"golang.org/x/sync/semaphore"
)

// Log collects the cells that were used since the last write. The log holds such a cell
// even if its cache entry is evicted, so an eviction loses no count. But the log must not
// hold many evicted entries for long: a scan through many keys would keep all of them in
// memory. So the log holds two generations of at most limit cells each, and whenever a cell
// is added, the count of one cell of the older generation moves to sums. A Log is safe for
// concurrent use.
type Log struct {
	limit int

	mu    sync.Mutex
	dirty []*Cell
	older []*Cell // it is empty again when dirty is full
	sums  map[backend.ID]Tally

	returns *returns // nil unless Watch was called

	hits cache.Counter // that were moved out of their cells
	told atomic.Uint64 // what Hits has returned

	flush *semaphore.Weighted // held by a write and by a read of usage, so that they never overlap; taken before mu
}

// Tally is a number of uses and the last of them.
type Tally struct {
	N    uint64
	Last int64 // Unix milliseconds
}

// New makes a log that holds two generations of up to limit cells.
func New(limit int) *Log {
	return &Log{limit: limit, sums: make(map[backend.ID]Tally), hits: cache.NewCounter(), flush: semaphore.NewWeighted(1)}
}

// Count counts one use, at ms (Unix milliseconds), of a credential that was not in the
// cache. The log does not hold its cell, because the cell may never be used again.
func (l *Log) Count(id backend.ID, ms int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	addTally(l.sums, id, 1, ms)
}

// Used counts one use, at ms (Unix milliseconds), of the key whose cell c is.
func (l *Log) Used(c *Cell, ms int64) {
	if c.use(ms) {
		l.add(c)
	}
}

func (l *Log) add(c *Cell) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.dirty) >= l.limit {
		l.dirty, l.older = l.older, l.dirty
	}
	l.dirty = append(l.dirty, c)
	if n := len(l.older); n > 0 {
		l.moveCount(l.sums, l.older[n-1])
		l.older[n-1] = nil
		l.older = l.older[:n-1]
	}
}

// moveCount moves the count of a cell into a map of tallies, and takes the cell out of the
// log.
func (l *Log) moveCount(into map[backend.ID]Tally, c *Cell) {
	if n, last := c.take(); n > 0 {
		addTally(into, c.ID, n, last)
		if c.Hit {
			l.hits.Add(n)
		}
	}
}

// Hits returns how many uses of cells that say Hit were counted since New. It does not keep
// anybody waiting who counts, so what is counted or moved meanwhile may be missing; it never
// returns less than it did before.
func (l *Log) Hits() uint64 {
	l.mu.Lock()
	n, cells := l.hits.Load(), slices.Concat(l.dirty, l.older)
	l.mu.Unlock()
	for _, c := range cells {
		if c.Hit {
			pending, _ := c.count()
			n += pending
		}
	}
	for {
		told := l.told.Load()
		if n <= told || l.told.CompareAndSwap(told, n) {
			return max(n, told)
		}
	}
}

// take empties the log into one Tally per credential.
func (l *Log) take() map[backend.ID]Tally {
	l.mu.Lock()
	cells, taken := [][]*Cell{l.dirty, l.older}, l.sums
	l.dirty, l.older, l.sums = nil, nil, make(map[backend.ID]Tally)
	l.mu.Unlock()
	for _, cells := range cells {
		for _, c := range cells {
			l.moveCount(taken, c)
		}
	}
	return taken
}

// addTally adds n uses, the last of them at last (Unix milliseconds), to a map of tallies.
func addTally(into map[backend.ID]Tally, id backend.ID, n uint64, last int64) {
	t := into[id]
	into[id] = Tally{t.N + n, max(t.Last, last)}
}

// giveBack puts counts that could not be written back into the log.
func (l *Log) giveBack(batch []backend.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range batch {
		addTally(l.sums, backend.ID(u.ID), u.N, u.Last)
	}
}

// pending returns the counts of some credentials that are not written yet. The counts stay
// in the log.
func (l *Log) pending(ids map[backend.ID]bool) map[backend.ID]Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := make(map[backend.ID]Tally)
	for id := range ids {
		if t, ok := l.sums[id]; ok {
			addTally(found, id, t.N, t.Last)
		}
	}
	for _, cells := range [][]*Cell{l.dirty, l.older} {
		for _, c := range cells {
			if n, last := c.count(); n > 0 && ids[c.ID] {
				addTally(found, c.ID, n, last)
			}
		}
	}
	return found
}

// Flush writes the counts since the last Flush: one entry per credential, however many uses
// there were. If a write fails, counts that were surely not written stay in the log for the
// next Flush. Counts that may have been written are dropped, and lost is told of them: the
// log promises that it may count too little, and that it never counts a use twice. If there
// is no recorder, all counts are dropped.
func (l *Log) Flush(ctx context.Context, recorder backend.UsageRecorder, lost func(error)) error {
	if err := l.flush.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("fob: add usage: %w", err)
	}
	defer l.flush.Release(1)
	taken := l.take()
	if recorder == nil || len(taken) == 0 {
		return nil
	}
	all := make([]backend.Usage, 0, len(taken))
	for id, t := range taken {
		all = append(all, backend.Usage{ID: id, N: t.N, Last: t.Last})
	}
	for len(all) > 0 {
		n := min(len(all), backend.MaxLimit)
		err := ctx.Err() // looked at before the call, so that nothing was written
		if err == nil {
			if err = l.write(ctx, recorder, all[:n]); errs.MayBeAdded(err) {
				lost(errs.OfStore("fob: add usage", err))
				all = all[n:]
			}
		}
		if err != nil {
			l.giveBack(all)
			return errs.OfStore("fob: add usage", err)
		}
		all = all[n:]
	}
	return nil
}

// write writes a batch. If it is to look for Returns, it reads the usage before it adds to
// it. A failure of that does not keep the batch from being written.
func (l *Log) write(ctx context.Context, recorder backend.UsageRecorder, batch []backend.Usage) error {
	if l.returns == nil {
		return recorder.AddUsage(ctx, batch)
	}
	found, lookErr := l.returns.look(ctx, recorder, batch)
	err := recorder.AddUsage(ctx, batch)
	if err == nil || errs.MayBeAdded(err) {
		l.wrote(batch, found, lookErr)
	}
	return err
}

// Read returns the tallies of credentials, in the order of ids: the counts in the store,
// plus those that are not written yet.
func (l *Log) Read(ctx context.Context, recorder backend.UsageRecorder, ids []backend.ID) ([]Tally, error) {
	// No Flush may move counts from the log to the store between the reads of the two.
	if err := l.flush.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("fob: read usage: %w", err)
	}
	defer l.flush.Release(1)
	wanted := make(map[backend.ID]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	stored, err := recorder.Usage(ctx, ids)
	if err != nil {
		return nil, errs.OfStore("fob: read usage", err)
	}
	pending := l.pending(wanted)
	out := make([]Tally, len(ids))
	for i, id := range ids {
		t := pending[id]
		out[i] = Tally{stored[i].N + t.N, max(stored[i].Last, t.Last)}
	}
	return out, nil
}
