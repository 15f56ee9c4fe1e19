// Package recent keeps a list of what was done recently, for whoever has to do it once
// more. It does not know what was done, nor who asks.
package recent

import (
	"container/list"
	"sync"
	"time"

	"github.com/fobkit/fob/internal/clock"
)

const (
	// For is how long an entry of a List is kept.
	For = 10 * time.Minute
	// Max is how many entries a List has at most. It keeps the latest.
	Max = 1024
)

// List is what was done recently, the oldest entry first. An entry has a key (K): the thing
// to which something was done. What is done several times to one thing is one entry, whose
// value says all that the joined values say (Join). The zero value is empty. It is safe for
// concurrent use.
type List[K comparable, V interface{ Join(older V) V }] struct {
	mu   sync.Mutex          // guards all below
	done list.List           // of entry[K, V]
	of   map[K]*list.Element // the entry of each key
	// whole is the instant (monotonic) from which on the list is complete: the entries that
	// had to make room for others would have expired by then. It is zero if no entry had to
	// make room. The instants of entries cannot say that, because the first entry may have
	// instant zero too.
	whole int64
}

type entry[K comparable, V any] struct {
	at    int64 // monotonic
	key   K
	value V
}

// Note adds what was done just now.
func (l *List[K, V]) Note(now clock.Moment, key K, value V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(now)
	if old := l.of[key]; old != nil {
		value = value.Join(l.remove(old).value)
	}
	if l.done.Len() == Max {
		l.whole = max(l.whole, l.remove(l.done.Front()).at+int64(For))
	}
	if l.of == nil {
		l.of = make(map[K]*list.Element)
	}
	l.of[key] = l.done.PushBack(entry[K, V]{now.Mono, key, value})
}

// remove takes an entry out of the list.
func (l *List[K, V]) remove(e *list.Element) entry[K, V] {
	old, _ := l.done.Remove(e).(entry[K, V]) // there is nothing else in the list
	delete(l.of, old.key)
	return old
}

// All returns the values in the list. whole says that the list is complete: whatever had to
// make room would have expired by now.
func (l *List[K, V]) All(now clock.Moment) (done []V, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(now)
	for e := l.done.Front(); e != nil; e = e.Next() {
		if one, ok := e.Value.(entry[K, V]); ok {
			done = append(done, one.value)
		}
	}
	return done, now.Mono >= l.whole
}

// forget drops the entries that are older than For.
func (l *List[K, V]) forget(now clock.Moment) {
	for e := l.done.Front(); e != nil; e = l.done.Front() {
		if one, ok := e.Value.(entry[K, V]); ok && now.Mono-one.at < int64(For) {
			return
		}
		l.remove(e)
	}
}
