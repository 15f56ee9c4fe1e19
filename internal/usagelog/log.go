// Package usagelog counts how often credentials are used, behind their verification, and
// writes the counts to a store now and then.
package usagelog

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"golang.org/x/sync/semaphore"
)

// Log collects the cells that were used since the last write. A cell
// outlives its entry in the cache until it is counted, so an eviction loses
// nothing. An evicted entry must not be held for long, though: a scan through
// many keys would hold them all. So the log holds two generations of up to limit
// cells, and each cell that is added moves the count of an older one to sums.
type Log struct {
	limit int

	mu    sync.Mutex
	dirty []*Cell
	older []*Cell // empty again by the time that dirty is full
	sums  map[backend.ID]*Tally

	flush *semaphore.Weighted // one write at a time, and none while usage is read; taken before mu
}

// Tally is a number of uses and the last of them.
type Tally struct {
	N    uint64
	Last int64 // Unix milliseconds
}

// New makes a log that holds two generations of up to limit cells.
func New(limit int) *Log {
	return &Log{limit: limit, sums: make(map[backend.ID]*Tally), flush: semaphore.NewWeighted(1)}
}

// Count counts one use of a credential that was not in the cache: its cell may
// never be used again, and is not held for it.
func (l *Log) Count(id backend.ID, ms int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	merge(l.sums, id, 1, ms)
}

// Used counts one use of the key that an entry of the cache has a cell of.
func (l *Log) Used(c *Cell, ms int64) {
	c.add()
	for {
		last := atomic.LoadInt64(&c.last)
		if ms <= last || atomic.CompareAndSwapInt64(&c.last, last, ms) {
			break
		}
	}
	if atomic.LoadUint32(&c.queued) == 0 && atomic.CompareAndSwapUint32(&c.queued, 0, 1) {
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
		sum(l.sums, l.older[n-1])
		l.older[n-1] = nil
		l.older = l.older[:n-1]
	}
}

// sum moves the count of a cell out of the log.
func sum(into map[backend.ID]*Tally, c *Cell) {
	// Before the counter is read: a use that comes after puts it back in the log.
	atomic.StoreUint32(&c.queued, 0)
	if n := c.take(); n > 0 {
		merge(into, c.ID, n, atomic.LoadInt64(&c.last))
	}
}

// take empties the log into one Tally per credential.
func (l *Log) take() map[backend.ID]*Tally {
	l.mu.Lock()
	cells, taken := [][]*Cell{l.dirty, l.older}, l.sums
	l.dirty, l.older, l.sums = nil, nil, make(map[backend.ID]*Tally)
	l.mu.Unlock()
	for _, cells := range cells {
		for _, c := range cells {
			sum(taken, c)
		}
	}
	return taken
}

func merge(into map[backend.ID]*Tally, id backend.ID, n uint64, last int64) {
	t := into[id]
	if t == nil {
		t = new(Tally)
		into[id] = t
	}
	t.N, t.Last = t.N+n, max(t.Last, last)
}

// giveBack returns what could not be written.
func (l *Log) giveBack(batch []backend.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range batch {
		merge(l.sums, backend.ID(u.ID), u.N, u.Last)
	}
}

// pending is what is not yet written of some credentials.
func (l *Log) pending(ids map[backend.ID]bool) map[backend.ID]*Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := make(map[backend.ID]*Tally)
	for id := range ids {
		if t := l.sums[id]; t != nil {
			merge(found, id, t.N, t.Last)
		}
	}
	for _, cells := range [][]*Cell{l.dirty, l.older} {
		for _, c := range cells {
			if n := c.count(); n > 0 && ids[c.ID] {
				merge(found, c.ID, n, atomic.LoadInt64(&c.last))
			}
		}
	}
	return found
}

// Flush writes what was used since the last time: one entry per credential, however many
// requests came. What surely was not written is kept for the next time; what may have
// been is dropped, and lost is told of it, because counting too little is promised and
// counting twice is not. Where there is no recorder everything is dropped.
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
		err := ctx.Err() // before the call: nothing was written
		if err == nil {
			if err = recorder.AddUsage(ctx, all[:n]); errs.MayBeAdded(err) {
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

// Read returns how credentials were used: what the store holds and what is not written
// yet.
func (l *Log) Read(ctx context.Context, recorder backend.UsageRecorder, ids []backend.ID) ([]Tally, error) {
	// No write may move counts from here to there while both are read.
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
		out[i] = Tally{stored[i].N, stored[i].Last}
		if t := pending[id]; t != nil {
			out[i] = Tally{out[i].N + t.N, max(out[i].Last, t.Last)}
		}
	}
	return out, nil
}
