package usagelog

import (
	"sync/atomic"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
)

// Cell counts the uses of one cached key since they were last written. It
// lies inside an entry in the cache, the key's own or that of what its tokens have to
// know of it, which is copied once, before it is shared: hence plain numbers, which only
// package atomic touches from then on.
type Cell struct {
	n       uint64
	last    int64          // Unix milliseconds
	crowded unsafe.Pointer // *cache.Counter, for uses that got into each other's way
	queued  uint32         // 1: in Log.dirty
	clashes uint32
	ID      backend.ID // whose uses they are; never changes
}

// crowd is how often, between two writes of usage, two cores may want one cell at
// the same instant before it is spread over several lines of memory. That takes some
// KiB: only for the few keys that carry much of the traffic.
const crowd = 32

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
	if atomic.AddUint32(&c.clashes, 1) == crowd {
		spread := cache.NewCounter()
		atomic.StorePointer(&c.crowded, unsafe.Pointer(&spread))
	}
}

// take returns the uses and sets them to zero.
func (c *Cell) take() uint64 {
	n := atomic.SwapUint64(&c.n, 0)
	if spread := c.spread(); spread != nil {
		return n + spread.Take()
	}
	atomic.StoreUint32(&c.clashes, 0)
	return n
}

// count returns the uses.
func (c *Cell) count() uint64 {
	n := atomic.LoadUint64(&c.n)
	if spread := c.spread(); spread != nil {
		n += spread.Load()
	}
	return n
}
