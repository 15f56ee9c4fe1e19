package marks

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"github.com/fobkit/fob/internal/record"
)

// table is a map from IDs of marks to a number for each, which takes about 22 bytes an
// entry, where a map of Go takes 24 to 60 for the same. It is for one goroutine at a time.
//
// An entry has the first 12 bytes of an ID: the byte of its kind, and 88 bits of SHA-256.
// Two of ten million marks have the same with a chance of 1 in 10^13.
//
// The entries are in buckets, of which there is one more whenever these hold more than
// perBucket each (linear hashing: W. Litwin, 1980). So a table grows by one small step at
// a time, and nobody waits while ten million entries are moved.
type table struct {
	buckets []bucket
	seed    uint64 // secret, so that nobody can choose names whose marks fall on one bucket
	n       int
}

// bucket is a few entries in no order. It is allocated with little room to spare.
type bucket []slot

type slot struct {
	id    [12]byte
	value [8]byte
}

const (
	perBucket = 48
	spare     = 4 // slots by which a bucket grows
)

// place returns the bucket of an ID. Of n buckets, the first n - 2^k are those that were
// split since there were 2^k of them, and their other halves are the last.
func (t *table) place(id *[12]byte) int {
	hash := (binary.LittleEndian.Uint64(id[4:]) ^ t.seed) * 0x9e3779b97f4a7c15
	hash ^= hash >> 32
	whole := bits.Len(uint(len(t.buckets))) - 1 // k
	if i := int(hash & (1<<(whole+1) - 1)); i < len(t.buckets) {
		return i
	}
	return int(hash & (1<<whole - 1))
}

func (b bucket) find(id *[12]byte) int {
	for i := range b {
		if b[i].id == *id {
			return i
		}
	}
	return -1
}

// get returns the number of an ID; ok is false if it has none.
func (t *table) get(id record.ID) (value uint64, ok bool) {
	if t.n == 0 {
		return 0, false
	}
	short := [12]byte(id[:12])
	b := t.buckets[t.place(&short)]
	i := b.find(&short)
	if i < 0 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[i].value[:]), true
}

// put sets the number of an ID.
func (t *table) put(id record.ID, value uint64) {
	if t.buckets == nil {
		var seed [8]byte
		_, _ = rand.Read(seed[:]) // never returns an error (crypto/rand)
		t.seed, t.buckets = binary.LittleEndian.Uint64(seed[:]), make([]bucket, 1)
	}
	s := slot{id: [12]byte(id[:12])}
	binary.LittleEndian.PutUint64(s.value[:], value)
	b := &t.buckets[t.place(&s.id)]
	if i := b.find(&s.id); i >= 0 {
		(*b)[i] = s
		return
	}
	b.add(s)
	if t.n++; t.n > perBucket*len(t.buckets) {
		t.split()
	}
}

func (b *bucket) add(s slot) {
	if len(*b) == cap(*b) {
		grown := make(bucket, len(*b), len(*b)+spare)
		copy(grown, *b)
		*b = grown
	}
	*b = append(*b, s)
}

// split adds a bucket, and moves a half of the entries of another one into it.
func (t *table) split() {
	n := len(t.buckets)
	if n == cap(t.buckets) {
		grown := make([]bucket, n, n+n/8+8) // append would double it
		copy(grown, t.buckets)
		t.buckets = grown
	}
	from := n - 1<<(bits.Len(uint(n))-1)
	all := t.buckets[from]
	t.buckets = append(t.buckets, nil)
	var halves [2]bucket
	for _, s := range all {
		if t.place(&s.id) == from {
			halves[0].add(s)
		} else {
			halves[1].add(s)
		}
	}
	t.buckets[from], t.buckets[n] = halves[0], halves[1]
}

// drop removes an ID.
func (t *table) drop(id record.ID) {
	if t.n == 0 {
		return
	}
	short := [12]byte(id[:12])
	b := &t.buckets[t.place(&short)]
	if i := b.find(&short); i >= 0 {
		t.remove(b, i)
	}
}

func (t *table) remove(b *bucket, i int) {
	last := len(*b) - 1
	(*b)[i] = (*b)[last]
	*b = (*b)[:last]
	t.n--
	if cap(*b) > last+2*spare {
		*b = append(make(bucket, 0, last+spare), *b...)
	}
}

// dropIf removes, of the buckets from one on, at most most of them, the entries for which
// over returns true. It returns the bucket at which to go on; zero at the end.
func (t *table) dropIf(from, most int, over func(kind byte, value uint64) bool) (next int) {
	end := min(from+most, len(t.buckets))
	for ; from < end; from++ {
		b := &t.buckets[from]
		for i := len(*b) - 1; i >= 0; i-- {
			if s := &(*b)[i]; over(s.id[0], binary.LittleEndian.Uint64(s.value[:])) {
				t.remove(b, i)
			}
		}
	}
	if end == len(t.buckets) {
		return 0
	}
	return end
}
