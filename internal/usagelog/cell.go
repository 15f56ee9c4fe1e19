package usagelog

import (
	"sync/atomic"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
)

// Cell counts the uses of one cached key since they were last written. A Cell lies inside a
// cache entry: that of the key, or that of the state that the key's tokens depend on. The
// entry is copied once, before it is shared. That is why the fields are plain numbers and
// not types of package atomic, which must not be copied; once the entry is shared, only
// functions of package atomic touch them.
type Cell struct {
	// word is all that a use writes, as a rule: a single number, because a use costs as
	// many nanoseconds as it has atomic writes. From the highest bits: the last use in Unix
	// milliseconds, which the year 9999 fits into; whether the uses are spread; whether the
	// cell is in the log; and how many uses there were.
	word    uint64
	more    uint64         // uses that word had no room for
	crowded unsafe.Pointer // *cache.Counter, once uses on several cores have clashed too often
	clashes uint32
	// Hit says that each use is a cache hit, which Log.Hits counts and nobody else has to.
	// Neither it nor ID changes.
	Hit bool
	ID  backend.ID // of the credential whose uses are counted
}

// The parts of Cell.word.
const (
	usesInWord = 1<<14 - 1
	isQueued   = 1 << 14
	isSpread   = 1 << 15
	lastShift  = 16
	belowLast  = 1<<lastShift - 1
)

// maxClashes is how often, between two writes of usage, two cores may want the same cell at
// the same instant before its count is spread over several cache lines. Spreading a count
// takes some KiB, so only the few keys that carry much of the traffic get it.
const maxClashes = 32

// use counts one use, at ms (Unix milliseconds). It reports whether the cell has to be put
// into the log.
func (c *Cell) use(ms int64) (toQueue bool) {
	for {
		old := atomic.LoadUint64(&c.word)
		if old&isSpread != 0 || old&usesInWord == usesInWord {
			c.useBeyond()
			return c.mark(ms)
		}
		if atomic.CompareAndSwapUint64(&c.word, old, marked(old+1, ms)) {
			return old&isQueued == 0
		}
		c.clash()
	}
}

// useBeyond counts one use outside of word.
func (c *Cell) useBeyond() {
	if counter := c.spread(); counter != nil {
		counter.Add(1)
		return
	}
	for {
		if n := atomic.LoadUint64(&c.more); atomic.CompareAndSwapUint64(&c.more, n, n+1) {
			return
		}
		c.clash()
	}
}

// mark notes when the cell was last used, and that it is in the log. It writes only what is
// not noted yet. It reports whether the cell has to be put into the log.
func (c *Cell) mark(ms int64) (toQueue bool) {
	for {
		old := atomic.LoadUint64(&c.word)
		next := marked(old, ms)
		if next == old || atomic.CompareAndSwapUint64(&c.word, old, next) {
			return old&isQueued == 0
		}
	}
}

// marked is a word with a use at ms (Unix milliseconds), in the log.
func marked(word uint64, ms int64) uint64 {
	if at := uint64(max(ms, 0)); at > word>>lastShift {
		word = word&belowLast | at<<lastShift
	}
	return word | isQueued
}

func (c *Cell) spread() *cache.Counter {
	return (*cache.Counter)(atomic.LoadPointer(&c.crowded))
}

// clash notes that two cores wanted the cell at the same instant.
func (c *Cell) clash() {
	if atomic.AddUint32(&c.clashes, 1) == maxClashes {
		counter := cache.NewCounter()
		atomic.StorePointer(&c.crowded, unsafe.Pointer(&counter))
		atomic.OrUint64(&c.word, isSpread)
	}
}

// take returns the count, sets it to zero, and notes that the cell is not in the log.
func (c *Cell) take() (n uint64, last int64) {
	// The cell leaves the log before the other counters are read, so that a use after that
	// puts it into the log again.
	old := atomic.AndUint64(&c.word, ^uint64(isQueued|usesInWord))
	n = old&usesInWord + atomic.SwapUint64(&c.more, 0)
	if counter := c.spread(); counter != nil {
		return n + counter.Take(), int64(old >> lastShift)
	}
	atomic.StoreUint32(&c.clashes, 0)
	return n, int64(old >> lastShift)
}

// count returns the count.
func (c *Cell) count() (n uint64, last int64) {
	word := atomic.LoadUint64(&c.word)
	n = word&usesInWord + atomic.LoadUint64(&c.more)
	if counter := c.spread(); counter != nil {
		n += counter.Load()
	}
	return n, int64(word >> lastShift)
}
