// Package recent remembers for a while what was done lately, for whoever has to do it once
// more.
package recent

import (
	"slices"
	"sync"
	"time"

	"github.com/fobkit/fob/internal/clock"
)

const (
	// For is how long something is remembered.
	For = 10 * time.Minute
	// Max is how many things a List remembers; of more it remembers the latest.
	Max = 1024
)

// List is what was lately done, the oldest first, and each by what it was done to (K). What
// is done over and over to one thing is remembered once: Join returns what says all that
// either does. The zero value is empty. It is safe for concurrent use.
type List[K comparable, V interface{ Join(older V) V }] struct {
	mu   sync.Mutex // guards both
	done []entry[K, V]
	// whole is from when on (monotonic) all of it is here: those that had to make room
	// would have been forgotten by then. An instant at which something was is no sign of
	// whether it was, for the first one is zero.
	whole int64
}

type entry[K comparable, V any] struct {
	at    int64 // monotonic
	key   K
	value V
}

// Note remembers what was done just now.
func (l *List[K, V]) Note(now clock.Moment, key K, value V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(now)
	if i := slices.IndexFunc(l.done, func(old entry[K, V]) bool { return old.key == key }); i >= 0 {
		value = value.Join(l.done[i].value)
		l.done = slices.Delete(l.done, i, i+1)
	}
	if len(l.done) == Max {
		l.whole = max(l.whole, l.done[0].at+int64(For))
		l.done = slices.Delete(l.done, 0, 1)
	}
	l.done = append(l.done, entry[K, V]{now.Mono, key, value})
}

// All returns what was lately done, and whether that is all of it.
func (l *List[K, V]) All(now clock.Moment) (done []V, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(now)
	for i := range l.done {
		done = append(done, l.done[i].value)
	}
	return done, now.Mono >= l.whole
}

// forget drops what is too old.
func (l *List[K, V]) forget(now clock.Moment) {
	old := 0
	for old < len(l.done) && now.Mono-l.done[old].at >= int64(For) {
		old++
	}
	l.done = slices.Delete(l.done, 0, old)
}
