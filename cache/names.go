package cache

import "sync/atomic"

// names is what a Cache remembers of the Refs that were invalidated: for each of the last
// ones its mark, which is a part of its hash, and the number of its invalidation. A Ref has
// its place in one line. When a line is full, the name that was invalidated longest ago
// makes room, and from then on its number, the floor, counts for every Ref of that line.
// So an entry ends for another one's sake if two names look alike, which is once in 4,096
// of the names on one line, or if after its ticket more names fell on a line of its own
// than a line holds.
//
// One writer at a time calls note; readers take no lock. They rely on the order of the
// writes: the floor is raised before the name that it stands for is overwritten, and a
// reader looks at the names first and at the floor last. A name that it no longer finds is
// in the floor that it sees.
type names []line

// line is one line of memory.
type line struct {
	floor atomic.Uint64
	last  [lineNames]atomic.Uint64 // number<<markBits | mark; 0 where nothing was noted
}

const (
	lineNames = 7
	// markBits leaves 52 bits for the number: 142 years of a million invalidations a second.
	markBits = 12
	markMask = 1<<markBits - 1
)

// A Cache has a line for every four entries, 128 KiB at least and 512 KiB at most: 14,336
// to 57,344 names. A small Cache has more lines than its entries ask for, because how
// much is invalidated depends on how much there is elsewhere, and not on its own size.
const (
	entriesPerLine = 4
	leastLines     = 1 << 11
	mostLines      = 1 << 13
)

// place is a line, counted from 1, and a mark: 28 bits at most. 0 is none.
type place uint32

func (n names) place(hash uint64) place {
	return place((1+hash&uint64(len(n)-1))<<markBits | hash>>(64-markBits))
}

func (n names) line(p place) *line { return &n[p>>markBits-1] }

// note notes an invalidation. Its number is larger than all before.
func (l *line) note(p place, number uint64, b *brokenness) {
	mark, oldest := uint64(p)&markMask, 0
	for i := range l.last {
		noted := l.last[i].Load()
		if noted&markMask == mark {
			l.last[i].Store(number<<markBits | mark)
			return
		}
		if noted>>markBits < l.last[oldest].Load()>>markBits {
			oldest = i
		}
	}
	evicted, noted := l.last[oldest].Load()>>markBits, number<<markBits|mark
	if b.overwriteFirst {
		l.last[oldest].Store(noted)
		b.pause()
	}
	l.floor.Store(evicted)
	b.pause()
	l.last[oldest].Store(noted)
}

// changed reports whether a Ref may have been invalidated after a ticket was taken.
func (l *line) changed(p place, ticket uint64, b *brokenness) bool {
	var floor uint64
	mark := uint64(p) & markMask
	if b.floorFirst {
		floor = l.floor.Load()
		b.pause()
	}
	for i := range l.last {
		if noted := l.last[i].Load(); noted&markMask == mark && noted>>markBits > ticket {
			return true
		}
	}
	b.pause()
	if !b.floorFirst {
		floor = l.floor.Load()
	}
	return floor > ticket
}
