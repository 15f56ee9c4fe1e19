package cache

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

type shard[V any] struct {
	table atomic.Pointer[table[V]]
	_     [56]byte // readers of one shard's table share no cache line with the next

	mu    sync.Mutex // guards what is below, and every change of table
	order *simplelru.LRU[*entry[V], struct{}]
	limit int
	bytes int64 // of the entries in order
	room  int64 // most of that; 0 is no bound
}

// table is a hash table with chains, read without a lock.
type table[V any] struct {
	buckets []atomic.Pointer[entry[V]]
}

// entry has what a hit looks at first. That is 48 bytes, so that a value that is compared
// begins in the same line of memory.
type entry[V any] struct {
	key     Key
	next    atomic.Pointer[entry[V]]
	checked atomic.Uint64 // no Ref of this entry had changed when seq was this; 0 in a new entry: when seq was 0 nothing had changed yet
	until   int64
	used    atomic.Bool    // since the order last looked
	size    uint32         // see Config.Size
	value   V              // aligned to 8 bytes on every platform, for its atomic numbers
	refs    [MaxRefs]place // 0 where unused, after those that are used
	ticket  uint64
}

// orderBytes is what the order and the tables keep for one entry: golang-lru's list
// element and its place in a map, and a place in the hash table. Most of it is pointers:
// 150 bytes where these have 64 bits, 90 where they have 32.
const orderBytes = 30 + 15*unsafe.Sizeof(uintptr(0))

func (e *entry[V]) bytes() int64 { return int64(unsafe.Sizeof(*e)+orderBytes) + int64(e.size) }

func (t *table[V]) bucket(hash uint64) *atomic.Pointer[entry[V]] {
	return &t.buckets[hash&uint64(len(t.buckets)-1)]
}

func (s *shard[V]) find(hash uint64, k Key) *entry[V] {
	for e := s.table.Load().bucket(hash).Load(); e != nil; e = e.next.Load() {
		if e.key == k {
			return e
		}
	}
	return nil
}

// remove takes e out. A reader that stands on it still finds its way: its next
// is left alone.
func (s *shard[V]) remove(hash uint64, e *entry[V]) {
	s.order.Remove(e)
	s.bytes -= e.bytes()
	at := s.table.Load().bucket(hash)
	for at.Load() != e {
		at = &at.Load().next
	}
	at.Store(e.next.Load())
}

// secondChances bounds how many entries one eviction may pass over.
const secondChances = 32

// evict removes the entry that was put or moved to the front longest ago. One
// that was read since then is moved to the front instead: readers leave a mark,
// and this is where the marks become golang-lru's order.
func (s *shard[V]) evict(c *Cache[V]) {
	for range secondChances {
		e, _, ok := s.order.GetOldest()
		if !ok {
			return
		}
		if !e.used.Load() {
			break
		}
		e.used.Store(false)
		s.order.Get(e)
	}
	if e, _, ok := s.order.GetOldest(); ok {
		s.remove(c.mix((*[16]byte)(&e.key)), e)
		c.evicted.Add(1)
	}
}

// grow doubles the table. Entries are moved while readers walk: one may come
// from an old chain into a new one and miss what is there, but a chain never
// turns back on itself, and a miss is only a reload.
func (s *shard[V]) grow(c *Cache[V], old *table[V]) {
	t := &table[V]{buckets: make([]atomic.Pointer[entry[V]], 2*len(old.buckets))}
	for i := range old.buckets {
		for e := old.buckets[i].Load(); e != nil; {
			next := e.next.Load()
			b := t.bucket(c.mix((*[16]byte)(&e.key)))
			e.next.Store(b.Load())
			b.Store(e)
			e = next
		}
	}
	s.table.Store(t)
}
