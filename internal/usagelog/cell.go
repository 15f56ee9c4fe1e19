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
	n       uint64
	last    int64          // Unix milliseconds
	crowded unsafe.Pointer // *cache.Counter, once uses on several cores have clashed too often
	queued  uint32         // 1 while the cell is in the log
	clashes uint32
	ID      backend.ID // of the credential whose uses are counted; it never changes
}

// maxClashes is how often, between two writes of usage, two cores may want the same cell at
// the same instant before its count is spread over several cache lines. Spreading a count
// takes some KiB, so only the few keys that carry much of the traffic get it.
const maxClashes = 32

func (c *Cell) spread() *cache.Counter {
	return (*cache.Counter)(atomic.LoadPointer(&c.crowded))
}

// add counts one use.
func (c *Cell) add() {
	if spread := c.spread(); spread != nil {
		spread.Add(1)
		return
	}
	if n := atomic.LoadUint64(&c.n); atomic.CompareAndSwapUint64(&c.n, n, n+1) {
		return
	}
	atomic.AddUint64(&c.n, 1)
	if atomic.AddUint32(&c.clashes, 1) == maxClashes {
		spread := cache.NewCounter()
		atomic.StorePointer(&c.crowded, unsafe.Pointer(&spread))
	}
}

// take returns the count and sets it to zero.
func (c *Cell) take() uint64 {
	n := atomic.SwapUint64(&c.n, 0)
	if spread := c.spread(); spread != nil {
		return n + spread.Take()
	}
	atomic.StoreUint32(&c.clashes, 0)
	return n
}

// count returns the count.
func (c *Cell) count() uint64 {
	n := atomic.LoadUint64(&c.n)
	if spread := c.spread(); spread != nil {
		n += spread.Load()
	}
	return n
}
