package memory

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/fobkit/fob/backend"
)

// listPlace is where a record stands in a list.
type listPlace struct {
	at int64
	id backend.ID
}

func (p listPlace) compare(q listPlace) int {
	if c := cmp.Compare(p.at, q.at); c != 0 {
		return c
	}
	return bytes.Compare(p.id[:], q.id[:])
}

// index is a sorted set of places, in chunks: finding one is two binary
// searches, changing one moves at most a chunk. Records mostly come in order,
// so that most inserts are appends.
type index struct{ chunks [][]listPlace }

const chunkLen = 512

// chunk is the number of the chunk where p is or belongs: the last that does not
// begin after it.
func (ix *index) chunk(p listPlace) int {
	i, found := slices.BinarySearchFunc(ix.chunks, p, func(c []listPlace, p listPlace) int { return c[0].compare(p) })
	if found {
		return i
	}
	return max(i-1, 0)
}

func (ix *index) insert(p listPlace) {
	if len(ix.chunks) == 0 {
		ix.chunks = [][]listPlace{{p}}
		return
	}
	n := ix.chunk(p)
	c := ix.chunks[n]
	i, _ := slices.BinarySearchFunc(c, p, listPlace.compare)
	c = slices.Insert(c, i, p)
	ix.chunks[n] = c
	if len(c) <= chunkLen {
		return
	}
	cut := len(c) / 2
	if n == len(ix.chunks)-1 && i == len(c)-1 {
		cut = len(c) - 1 // in order: leave full chunks behind
	}
	ix.chunks[n] = c[:cut:cut]
	ix.chunks = slices.Insert(ix.chunks, n+1, slices.Clone(c[cut:]))
}

// remove takes p out and reports whether the index is now empty.
func (ix *index) remove(p listPlace) bool {
	n := ix.chunk(p)
	c := ix.chunks[n]
	if i, found := slices.BinarySearchFunc(c, p, listPlace.compare); found {
		ix.chunks[n] = slices.Delete(c, i, i+1)
	}
	if len(ix.chunks[n]) == 0 {
		ix.chunks = slices.Delete(ix.chunks, n, n+1)
	}
	return len(ix.chunks) == 0
}

// after yields the places after p, in order, until yield returns false.
func (ix *index) after(p listPlace, yield func(listPlace) bool) {
	for n := ix.chunk(p); n < len(ix.chunks); n++ {
		c := ix.chunks[n]
		i, found := slices.BinarySearchFunc(c, p, listPlace.compare)
		if found {
			i++
		}
		for ; i < len(c); i++ {
			if !yield(c[i]) {
				return
			}
		}
	}
}

// before yields the places before p, or all where p is nil, the last first, until yield
// returns false.
func (ix *index) before(p *listPlace, yield func(listPlace) bool) {
	n := len(ix.chunks) - 1
	if p != nil {
		n = ix.chunk(*p)
	}
	for ; n >= 0; n-- {
		c := ix.chunks[n]
		i := len(c)
		if p != nil {
			i, _ = slices.BinarySearchFunc(c, *p, listPlace.compare)
		}
		for i--; i >= 0; i-- {
			if !yield(c[i]) {
				return
			}
		}
	}
}

// count is the number of places.
func (ix *index) count() (n int) {
	for _, c := range ix.chunks {
		n += len(c)
	}
	return n
}

// countBelow is the number of places before p.
func (ix *index) countBelow(p listPlace) (n int) {
	last := ix.chunk(p)
	for _, c := range ix.chunks[:last] {
		n += len(c)
	}
	i, _ := slices.BinarySearchFunc(ix.chunks[last], p, listPlace.compare)
	return n + i
}
