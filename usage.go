package fob

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"golang.org/x/sync/semaphore"
)

// Usage is how often a credential was accepted, and when last. It is written
// behind: what the store holds trails by up to Config.UsageInterval, and a
// crash loses at most that much. It is never counted twice.
//
// What a key is exchanged for is used in its name: an exchange, each acceptance of such
// a token by a Manager, and each refresh is a use of the key. A token of no key has no
// usage; what a TokenVerifier accepts is seen by nobody.
type Usage struct {
	Count      uint64
	LastUsedAt time.Time // UTC, milliseconds; zero: never used
}

// usageCell counts the uses of one cached key since they were last written. It
// lies inside an entry in the cache, the key's own or that of what its tokens have to
// know of it, which is copied once, before it is shared: hence plain numbers, which only
// package atomic touches from then on.
type usageCell struct {
	n       uint64
	last    int64          // Unix milliseconds
	crowded unsafe.Pointer // *cache.Counter, for uses that got into each other's way
	queued  uint32         // 1: in usageLog.dirty
	clashes uint32
	id      ID // whose uses they are; never changes
}

// crowd is how often, between two writes of usage, two cores may want one cell at
// the same instant before it is spread over several lines of memory. That takes some
// KiB: only for the few keys that carry much of the traffic.
const crowd = 32

func (c *usageCell) spread() *cache.Counter {
	return (*cache.Counter)(atomic.LoadPointer(&c.crowded))
}

// add counts one use.
func (c *usageCell) add() {
	if spread := c.spread(); spread != nil {
		spread.Add(1)
		return
	}
	if n := atomic.LoadUint64(&c.n); atomic.CompareAndSwapUint64(&c.n, n, n+1) {
		return
	}
	atomic.AddUint64(&c.n, 1)
	if atomic.AddUint32(&c.clashes, 1) == crowd {
		spread := cache.NewCounter()
		atomic.StorePointer(&c.crowded, unsafe.Pointer(&spread))
	}
}

// take returns the uses and sets them to zero.
func (c *usageCell) take() uint64 {
	n := atomic.SwapUint64(&c.n, 0)
	if spread := c.spread(); spread != nil {
		return n + spread.Take()
	}
	atomic.StoreUint32(&c.clashes, 0)
	return n
}

// count returns the uses.
func (c *usageCell) count() uint64 {
	n := atomic.LoadUint64(&c.n)
	if spread := c.spread(); spread != nil {
		n += spread.Load()
	}
	return n
}

// usageLog collects the cells that were used since the last write. A cell
// outlives its entry in the cache until it is counted, so an eviction loses
// nothing. An evicted entry must not be held for long, though: a scan through
// many keys would hold them all. So the log holds two generations of up to limit
// cells, and each cell that is added moves the count of an older one to sums.
type usageLog struct {
	limit int

	mu    sync.Mutex
	dirty []*usageCell
	older []*usageCell // empty again by the time that dirty is full
	sums  map[ID]*tally

	flush *semaphore.Weighted // one write at a time, and none while usage is read; taken before mu
}

// tally is a number of uses and the last of them.
type tally struct {
	n    uint64
	last int64
}

func newUsageLog(limit int) *usageLog {
	return &usageLog{limit: limit, sums: make(map[ID]*tally), flush: semaphore.NewWeighted(1)}
}

// count counts one use of a credential that was not in the cache: its cell may
// never be used again, and is not held for it.
func (l *usageLog) count(id ID, ms int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	merge(l.sums, id, 1, ms)
}

// used counts one use of the key that an entry of the cache has a cell of.
func (l *usageLog) used(c *usageCell, ms int64) {
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

func (l *usageLog) add(c *usageCell) {
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
func sum(into map[ID]*tally, c *usageCell) {
	// Before the counter is read: a use that comes after puts it back in the log.
	atomic.StoreUint32(&c.queued, 0)
	if n := c.take(); n > 0 {
		merge(into, c.id, n, atomic.LoadInt64(&c.last))
	}
}

// take empties the log into one Usage per credential.
func (l *usageLog) take() map[ID]*tally {
	l.mu.Lock()
	cells, taken := [][]*usageCell{l.dirty, l.older}, l.sums
	l.dirty, l.older, l.sums = nil, nil, make(map[ID]*tally)
	l.mu.Unlock()
	for _, cells := range cells {
		for _, c := range cells {
			sum(taken, c)
		}
	}
	return taken
}

func merge(into map[ID]*tally, id ID, n uint64, last int64) {
	t := into[id]
	if t == nil {
		t = new(tally)
		into[id] = t
	}
	t.n, t.last = t.n+n, max(t.last, last)
}

// giveBack returns what could not be written.
func (l *usageLog) giveBack(batch []backend.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range batch {
		merge(l.sums, ID(u.ID), u.N, u.Last)
	}
}

// pending is what is not yet written of some credentials.
func (l *usageLog) pending(ids map[ID]bool) map[ID]*tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := make(map[ID]*tally)
	for id := range ids {
		if t := l.sums[id]; t != nil {
			merge(found, id, t.n, t.last)
		}
	}
	for _, cells := range [][]*usageCell{l.dirty, l.older} {
		for _, c := range cells {
			if n := c.count(); n > 0 && ids[c.id] {
				merge(found, c.id, n, atomic.LoadInt64(&c.last))
			}
		}
	}
	return found
}

// flushUsage writes what was used since the last time: one entry per
// credential, however many requests came. What surely was not written is kept
// for the next time; what may have been is dropped, because counting too little
// is promised and counting twice is not.
func (m *Manager) flushUsage(ctx context.Context) error {
	if err := m.usage.flush.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("fob: add usage: %w", err)
	}
	defer m.usage.flush.Release(1)
	recorder, ok := backend.As[backend.UsageRecorder](m.store)
	taken := m.usage.take()
	if !ok || len(taken) == 0 {
		return nil
	}
	all := make([]backend.Usage, 0, len(taken))
	for id, t := range taken {
		all = append(all, backend.Usage{ID: backend.ID(id), N: t.n, Last: t.last})
	}
	for len(all) > 0 {
		n := min(len(all), backend.MaxLimit)
		err := ctx.Err() // before the call: nothing was written
		if err == nil {
			if err = recorder.AddUsage(ctx, all[:n]); mayHaveAdded(err) {
				m.observe(Event{Type: EventUsageLost, Err: errs.OfStore("fob: add usage", err)})
				all = all[n:]
			}
		}
		if err != nil {
			m.usage.giveBack(all)
			return errs.OfStore("fob: add usage", err)
		}
		all = all[n:]
	}
	return nil
}

// mayHaveAdded reports whether an error of AddUsage leaves its outcome open. The
// error of a context alone should mean that nothing was added (rule R4 of package
// backend), but is what a store says that never thought of it.
func mayHaveAdded(err error) bool {
	return errors.Is(err, backend.ErrIndeterminate) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Usage returns how a credential was used: what the store holds and what this
// Manager has not written yet. A store that keeps no usage fails with
// errors.ErrUnsupported. An ID that was never used, or never was, gives zeros.
func (m *Manager) Usage(ctx context.Context, id ID) (Usage, error) {
	found, err := m.usageOf(ctx, id)
	if err != nil {
		return Usage{}, err
	}
	return found[0], nil
}

func (m *Manager) usageOf(ctx context.Context, ids ...ID) ([]Usage, error) {
	if m.closed.Load() {
		return nil, ErrClosed
	}
	recorder, ok := backend.As[backend.UsageRecorder](m.store)
	if !ok {
		return nil, fmt.Errorf("fob: the store keeps no usage: %w", errors.ErrUnsupported)
	}
	// No write may move counts from here to there while both are read.
	if err := m.usage.flush.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("fob: read usage: %w", err)
	}
	defer m.usage.flush.Release(1)
	asked := make([]backend.ID, len(ids))
	wanted := make(map[ID]bool, len(ids))
	for i, id := range ids {
		asked[i], wanted[id] = backend.ID(id), true
	}
	stored, err := recorder.Usage(ctx, asked)
	if err != nil {
		return nil, errs.OfStore("fob: read usage", err)
	}
	pending := m.usage.pending(wanted)
	out := make([]Usage, len(ids))
	for i, id := range ids {
		var p tally
		if t := pending[id]; t != nil {
			p = *t
		}
		out[i] = Usage{Count: stored[i].N + p.n, LastUsedAt: clock.Instant(max(stored[i].Last, p.last))}
	}
	return out, nil
}
