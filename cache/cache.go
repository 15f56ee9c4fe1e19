// Package cache is a verification cache: what a credential was found to be,
// remembered until it could have changed.
//
// Reading takes no lock, allocates nothing and writes nothing shared, so callers
// who read the same key do not wait for each other. Forgetting is by reference: an entry names
// what it was made from (its credential, its subject …), and Invalidate of such
// a Ref ends every entry that names it, however many there are, at the price of
// one store to memory.
//
// The rule that makes it safe is the ticket. A caller takes one before it reads
// the source of truth and hands it in with what it read. An entry is good while
// none of its Refs has been invalidated since its ticket was taken. So an answer
// that was read before a change and comes in after it is refused, or dead on
// arrival, and once Invalidate has returned no Get that starts later returns
// anything that was read before.
package cache

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Key is what an entry is found by: a credential's ID, or a part of a digest.
// A value found by a Key that is less than the whole of what was presented must
// itself say what it belongs to, and its user must compare.
type Key [16]byte

// Ref names something that an entry was made from.
type Ref [16]byte

// MaxRefs is the most Refs that one entry can have.
const MaxRefs = 6

// Ticket is the instant before a read of the source of truth.
type Ticket struct{ seq uint64 }

// Config is the settings of a Cache of V.
type Config[V any] struct {
	// Entries is the most entries held. Default 100,000.
	Entries int
	// Bytes is the most memory that the entries take together, as far as Size
	// tells. Default 0: only Entries bounds it.
	Bytes int64
	// Size returns how many bytes a value holds beyond its own struct: what its
	// pointers lead to. It is called once for each Put, and must give the same for
	// the same value. Default nil: none.
	Size func(*V) int
}

const defaultEntries = 100_000

// Stats counts what a Cache did since it was made.
type Stats struct {
	Entries       int    // held now, dead ones included until they are replaced
	Bytes         int64  // that these take, the cache's own part included
	Hits          uint64 // Gets that found a good entry
	Misses        uint64 // Gets that did not
	Evicted       uint64 // entries removed to make room
	Refused       uint64 // answers that came in after what they were made from had changed
	Invalidations uint64
}

// Cache is a bounded map from Key to V. Make one with New. It is safe for
// concurrent use. It starts no goroutine and needs no Close.
type Cache[V any] struct {
	// seq is the number of invalidations, and names are those that were lately
	// invalidated. cleared is the value of seq at the last Clear.
	seq     atomic.Uint64
	seed    [2]uint64
	shards  []shard[V]
	shift   uint // of a hash, to the number of its shard
	names   names
	cleared atomic.Uint64
	hits    Counter
	misses  Counter
	size    func(*V) int
	broken  brokenness
	_       [64]byte // readers share no line with what follows

	mu               sync.Mutex // held by Invalidate and Clear: seq changes together with names and cleared
	evicted, refused atomic.Uint64
}

// brokenness turns off a rule, so that a test can see what it is there for.
type brokenness struct {
	publishFirst   func() // called where a reader may come between
	ignoreTicket   bool
	overwriteFirst bool   // see line.note
	floorFirst     bool   // see line.changed
	amid           func() // called between two steps, whether their order is broken or not
}

func (b *brokenness) pause() {
	if b.amid != nil {
		b.amid()
	}
}

// New makes an empty Cache.
func New[V any](cfg Config[V]) (*Cache[V], error) {
	if cfg.Entries == 0 {
		cfg.Entries = defaultEntries
	}
	if cfg.Entries < 0 || cfg.Bytes < 0 {
		return nil, fmt.Errorf("cache: %w: Entries %d, Bytes %d", errInvalid, cfg.Entries, cfg.Bytes)
	}
	var seed [16]byte
	_, _ = rand.Read(seed[:]) // never returns an error
	c := &Cache[V]{
		// Secret, so that nobody can choose keys that fall on one bucket.
		seed:   [2]uint64{binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:])},
		names:  make(names, pow2(cfg.Entries/entriesPerLine, leastLines, mostLines)),
		shards: make([]shard[V], pow2(cfg.Entries/128, 1, 64)),
		size:   cfg.Size,
		hits:   NewCounter(),
		misses: NewCounter(),
	}
	c.shift = uint(64 - bits.TrailingZeros(uint(len(c.shards))))
	for i := range c.shards {
		s := &c.shards[i]
		// The remainder goes to the first shards, so that the sum is exact.
		s.limit = (cfg.Entries + len(c.shards) - 1 - i) / len(c.shards)
		if cfg.Bytes > 0 {
			s.room = max(1, cfg.Bytes/int64(len(c.shards)))
		}
		order, err := simplelru.NewLRU[*entry[V], struct{}](s.limit, nil)
		if err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
		s.order = order
		s.table.Store(&table[V]{buckets: make([]atomic.Pointer[entry[V]], 8)})
	}
	return c, nil
}

var errInvalid = errors.New("invalid setting")

// pow2 is the power of two at or above n, within bounds that are powers of two.
func pow2(n, least, most int) int {
	p := least
	for p < n && p < most {
		p <<= 1
	}
	return p
}

// mix spreads 16 bytes, which may be chosen by an outsider and are often text
// that differs in a few characters, over 64 bits.
func (c *Cache[V]) mix(b *[16]byte) uint64 {
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(b[:8])^c.seed[0], binary.LittleEndian.Uint64(b[8:])^c.seed[1])
	hi, lo = bits.Mul64(hi^lo^c.seed[0], 0x9e3779b97f4a7c15)
	return hi ^ lo
}

func (c *Cache[V]) place(r Ref) place { return c.names.place(c.mix((*[16]byte)(&r))) }

func (c *Cache[V]) shard(hash uint64) *shard[V] { return &c.shards[hash>>c.shift] }

// Begin returns the ticket for what is read from now on.
func (c *Cache[V]) Begin() Ticket { return Ticket{c.seq.Load()} }

// Get returns the value of k if it was put, its time (see Put) is after now,
// and nothing that it was made from has been invalidated since it was read. It
// takes no lock and allocates nothing. The value is shared with everybody else
// who gets it: what is changed in it must be changed atomically.
func (c *Cache[V]) Get(k Key, now int64) (v *V, ok bool) {
	if e := c.find(k); e != nil && now < e.until && c.use(e) {
		c.hits.Add(1)
		return &e.value, true
	}
	c.misses.Add(1)
	return nil, false
}

// Find is Get without the time and without the count: it ignores until which time an entry
// was put, and counts neither a hit nor a miss. The caller calls Found for that, or counts
// in a place of its own. A count is an atomic write, for which a processor waits until
// everything before it is done; so a caller that has something to do while the entry comes
// from memory does that first.
func (c *Cache[V]) Find(k Key) (v *V, ok bool) {
	if e := c.find(k); e != nil && c.use(e) {
		return &e.value, true
	}
	return nil, false
}

// Found counts what a Find has returned: a hit if ok, else a miss.
func (c *Cache[V]) Found(ok bool) {
	if ok {
		c.hits.Add(1)
	} else {
		c.misses.Add(1)
	}
}

// Peek is Get for whoever looks and uses nothing: whatever the time of the entry, it
// counts neither as a hit nor as a miss, and keeps the entry from no eviction.
func (c *Cache[V]) Peek(k Key) (v *V, ok bool) {
	if e := c.find(k); e != nil {
		return &e.value, c.good(e)
	}
	return nil, false
}

func (c *Cache[V]) find(k Key) *entry[V] {
	hash := c.mix((*[16]byte)(&k))
	e := c.shard(hash).table.Load().bucket(hash).Load()
	for e != nil && e.key != k {
		e = e.next.Load()
	}
	return e
}

// use reports whether e is good, and keeps it from the next eviction if it is.
func (c *Cache[V]) use(e *entry[V]) bool {
	if !c.good(e) {
		return false
	}
	if !e.used.Load() { // most often it is: then nothing is written
		e.used.Store(true)
	}
	return true
}

// good reports whether no Ref of e changed since its ticket.
func (c *Cache[V]) good(e *entry[V]) bool {
	// seq is read before the names, and Invalidate writes it after them: whoever
	// sees a value of seq sees every name that it counts.
	seq := c.seq.Load()
	if e.checked.Load() == seq {
		return true
	}
	if c.changed(e) {
		return false
	}
	e.checked.Store(seq)
	return true
}

// changed reports whether a Ref of e may have changed since its ticket. What was known of e
// when it was last found good need not be looked for again: by now, names that were
// invalidated before may have made room for others.
func (c *Cache[V]) changed(e *entry[V]) bool {
	since := max(e.ticket, e.checked.Load())
	if c.cleared.Load() > since {
		return true
	}
	for _, p := range &e.refs {
		if p == 0 {
			break
		}
		if c.names.line(p).changed(p, since, &c.broken) {
			return true
		}
	}
	return false
}

// Changed reports whether one of refs was invalidated after t was taken, or may have been.
func (c *Cache[V]) Changed(t Ticket, refs ...Ref) bool {
	for _, r := range refs {
		if p := c.place(r); c.names.line(p).changed(p, t.seq, &c.broken) {
			return true
		}
	}
	return false
}

// Put remembers v, which was read after t was taken and made from refs, for
// times before until, on the clock that Get is given. It returns the value as
// Get will. It reports false, and remembers nothing, if a Ref was invalidated
// since, if a newer answer is there, if there are more than MaxRefs, or if v alone
// is larger than a shard; the value it returns is then nobody else's.
func (c *Cache[V]) Put(k Key, v V, t Ticket, until int64, refs ...Ref) (*V, bool) {
	if len(refs) > MaxRefs {
		e := entry[V]{value: v}
		return &e.value, false
	}
	if c.broken.ignoreTicket {
		t = c.Begin()
	}
	e := &entry[V]{key: k, value: v, ticket: t.seq, until: until}
	if c.size != nil {
		e.size = uint32(min(max(0, c.size(&e.value)), math.MaxInt32))
	}
	for i, r := range refs {
		e.refs[i] = c.place(r)
	}
	hash := c.mix((*[16]byte)(&k))
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.good(e) {
		c.refused.Add(1)
		return &e.value, false
	}
	if old := s.find(hash, k); old != nil {
		if old.ticket > e.ticket {
			return &e.value, false
		}
		s.remove(hash, old)
	}
	if s.room > 0 && e.bytes() > s.room {
		return &e.value, false
	}
	for s.order.Len() >= s.limit || s.room > 0 && s.bytes+e.bytes() > s.room {
		s.evict(c)
	}
	if t := s.table.Load(); s.order.Len() >= len(t.buckets) {
		s.grow(c, t)
	}
	s.order.Add(e, struct{}{})
	s.bytes += e.bytes()
	b := s.table.Load().bucket(hash)
	e.next.Store(b.Load())
	b.Store(e)
	return &e.value, true
}

// Invalidate ends every entry that was made from one of refs, and refuses
// those that are still to come from a read that began before. Once it has
// returned, no Get that starts later returns one of them. It costs the same
// however many there are.
func (c *Cache[V]) Invalidate(refs ...Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.seq.Load() + 1
	if c.broken.publishFirst != nil {
		c.seq.Store(next)
		c.broken.publishFirst()
	}
	for _, r := range refs {
		p := c.place(r)
		c.names.line(p).note(p, next, &c.broken)
	}
	c.seq.Store(next) // last: see good
}

// Clear ends every entry, as if all of their Refs had been invalidated, and
// frees their memory.
func (c *Cache[V]) Clear() {
	c.mu.Lock()
	next := c.seq.Load() + 1
	c.cleared.Store(next)
	c.seq.Store(next)
	c.mu.Unlock()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.order.Purge()
		s.bytes = 0
		s.table.Store(&table[V]{buckets: make([]atomic.Pointer[entry[V]], 8)})
		s.mu.Unlock()
	}
}

// Stats returns the counts so far.
func (c *Cache[V]) Stats() Stats {
	st := Stats{
		Hits: c.hits.Load(), Misses: c.misses.Load(),
		Evicted: c.evicted.Load(), Refused: c.refused.Load(), Invalidations: c.seq.Load(),
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		st.Entries += s.order.Len()
		st.Bytes += s.bytes
		s.mu.Unlock()
	}
	return st
}
