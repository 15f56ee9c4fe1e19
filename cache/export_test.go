package cache

import "unsafe"

// BreakPublishOrder makes Invalidate announce a change before it is visible, and
// call a function between the two.
func (c *Cache[V]) BreakPublishOrder(between func()) { c.broken.publishFirst = between }

// BreakTickets makes Put take its ticket after the read instead of before.
func (c *Cache[V]) BreakTickets() { c.broken.ignoreTicket = true }

// BreakOverwriteOrder makes Invalidate overwrite a name before the floor stands for it.
func (c *Cache[V]) BreakOverwriteOrder() { c.broken.overwriteFirst = true }

// BreakFloorOrder makes Get look at the floor before the names.
func (c *Cache[V]) BreakFloorOrder() { c.broken.floorFirst = true }

// Amid has a function called between two steps of Invalidate, and of a Get that looks
// whether something was invalidated. nil is none.
func (c *Cache[V]) Amid(pause func()) { c.broken.amid = pause }

// OneLine makes all Refs fall on one line, in an empty Cache.
func (c *Cache[V]) OneLine() { c.names = c.names[:1] }

// Alike tells whether a Ref is taken for another one.
func (c *Cache[V]) Alike(a, b Ref) bool { return c.place(a) == c.place(b) }

// Line is where a change of a Ref is written down: one of Lines, from 0.
func (c *Cache[V]) Line(r Ref) int { return int(c.place(r)>>markBits) - 1 }

// LineNames is how many names a line holds.
const LineNames = lineNames

// BytesOfLine is how long a line is.
const BytesOfLine = unsafe.Sizeof(line{})

// Lines and Shards are into how many parts a Cache is divided.
func (c *Cache[V]) Lines() int { return len(c.names) }

// Shards is explained at Lines.
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

// HeadOfEntry is how many bytes of an entry come before its value.
const HeadOfEntry = unsafe.Offsetof(entry[int64]{}.value)

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
