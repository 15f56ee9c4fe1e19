package cache

// BreakPublishOrder makes Invalidate announce a change before it is visible, and
// call a function between the two.
func (c *Cache[V]) BreakPublishOrder(between func()) { c.broken.publishFirst = between }

// BreakTickets makes Put take its ticket after the read instead of before.
func (c *Cache[V]) BreakTickets() { c.broken.ignoreTicket = true }

// SameStripe tells whether a change of one of two refs also ends what depends on
// the other.
func (c *Cache[V]) SameStripe(a, b Ref) bool { return c.stripe(a) == c.stripe(b) }

// Stripe is where a change of a Ref is written down: one of Stripes, from 1.
func (c *Cache[V]) Stripe(r Ref) int { return int(c.stripe(r)) }

// Stripes and Shards are into how many parts a Cache is divided.
func (c *Cache[V]) Stripes() int { return len(c.stripes) - 1 }

// Shards is explained at Stripes.
func (c *Cache[V]) Shards() int { return len(c.shards) }

// Steps is how many entries are compared, on average, until a Get finds the one
// that it looks for.
func (c *Cache[V]) Steps() float64 {
	steps, entries := 0, 0
	for i := range c.shards {
		t := c.shards[i].table.Load()
		for j := range t.buckets {
			n := 0
			for e := t.buckets[j].Load(); e != nil; e = e.next.Load() {
				n++
				steps += n
			}
			entries += n
		}
	}
	return float64(steps) / float64(entries)
}

// Cells is how many numbers a Counter is spread over, and how many of them are not 0.
func (c Counter) Cells() (all, used int) {
	for i := range c.cells.all {
		if c.cells.all[i].n.Load() != 0 {
			used++
		}
	}
	return len(c.cells.all), used
}

// Holds reports whether an entry of that key is there, without marking it as read.
func (c *Cache[V]) Holds(k Key) bool {
	hash := c.mix((*[16]byte)(&k))
	return c.shard(hash).find(hash, k) != nil
}

// Shard is the number of the shard in which a flight with that hash is looked for.
func (f *Flights[K, V]) Shard(k K, hash uint64) int {
	fl, _ := f.Join(k, hash)
	for i := range f.shards {
		if fl.shard == &f.shards[i] {
			return i
		}
	}
	return -1
}
