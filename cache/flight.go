package cache

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Flights lets one of several callers that need the same answer fetch it while the
// others wait. What is handed over may have been asked for before a caller came, and
// have changed before it came, even after it was put into a Cache: who waits for an
// answer that can change takes it from the Cache afterwards, which knows. Make one
// with NewFlights. It is safe for concurrent use.
type Flights[K comparable, V any] struct {
	seed   [2]uint64
	joined atomic.Uint64
	shards [64]flightShard[K, V]
}

type flightShard[K comparable, V any] struct {
	mu    sync.Mutex
	first *Flight[K, V] // of a chain: seldom more than one is under way in a shard
	spare *Flight[K, V] // one that nobody joined, to be used again
	_     [40]byte
}

// Flight is one answer on its way.
type Flight[K comparable, V any] struct {
	key    K
	shard  *flightShard[K, V]
	next   *Flight[K, V] // guarded by the shard's lock
	landed chan struct{} // made by the first who waits; guarded by the shard's lock
	value  V             // written before landed is closed

	// Guarded by the shard's lock:
	off       bool // nobody joins it any more
	left      bool // see Leave; not to be used again
	succeeded bool // landed is closed, and the value is nobody's; written before that

	then *Flight[K, V] // see Succeed
}

// ErrSucceeded is what Wait returns of a flight that somebody else has given up on: see
// Flights.Succeed.
var ErrSucceeded = errors.New("cache: the flight was given up on")

// NewFlights makes an empty Flights.
func NewFlights[K comparable, V any]() *Flights[K, V] {
	var seed [16]byte
	_, _ = rand.Read(seed[:]) // never returns an error
	return &Flights[K, V]{seed: [2]uint64{binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:]) | 1}}
}

// Join returns the flight for k. leads tells the caller that there was none: it
// must fetch the answer and call Land, whatever happens. The others call Wait.
// hash is the same for equal keys and mostly another for others; outsiders may know it,
// or choose it, for it is mixed with a secret.
func (f *Flights[K, V]) Join(k K, hash uint64) (fl *Flight[K, V], leads bool) {
	hi, lo := bits.Mul64(hash^f.seed[0], f.seed[1])
	s := &f.shards[(hi^lo)%uint64(len(f.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.join(s, k)
}

// join is Join for whoever has the lock of the shard.
func (f *Flights[K, V]) join(s *flightShard[K, V], k K) (fl *Flight[K, V], leads bool) {
	for fl := s.first; fl != nil; fl = fl.next {
		if fl.key != k {
			continue
		}
		if fl.landed == nil {
			fl.landed = make(chan struct{})
		}
		f.joined.Add(1)
		return fl, false
	}
	if fl, s.spare = s.spare, nil; fl == nil {
		fl = &Flight[K, V]{shard: s}
	}
	fl.key, fl.next, s.first, fl.off = k, s.first, fl, false
	return fl, true
}

// Land ends a flight that Join told its caller to lead, and hands v to those who wait.
// Who joins later begins a new one. Call it once, and leave the flight alone then.
func (f *Flights[K, V]) Land(fl *Flight[K, V], v V) {
	s := fl.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	unused := !fl.off && !fl.left
	fl.takeOff()
	switch {
	case fl.landed == nil && unused:
		s.spare = fl // only its leader has seen it
	case fl.landed != nil && !fl.succeeded:
		fl.value = v
		close(fl.landed)
	}
}

// takeOff makes nobody join the flight any more. The caller has the shard's lock.
func (fl *Flight[K, V]) takeOff() {
	if fl.off {
		return
	}
	at := &fl.shard.first
	for *at != fl {
		at = &(*at).next
	}
	*at, fl.next, fl.off = fl.next, nil, true
}

// Leave says that whoever led a flight has given up on it, and that it goes on alone: see
// Left. From then on Retire may be called for it at any time; after Land that does
// nothing. It reports whether the flight can still be joined.
func (f *Flights[K, V]) Leave(fl *Flight[K, V]) bool {
	fl.shard.mu.Lock()
	defer fl.shard.mu.Unlock()
	fl.left = true
	return !fl.off
}

// Left reports whether Leave was called for a flight.
func (fl *Flight[K, V]) Left() bool {
	fl.shard.mu.Lock()
	defer fl.shard.mu.Unlock()
	return fl.left
}

// Retire makes nobody join a flight any more: who comes later begins a new one. Those who
// wait for it go on waiting.
func (f *Flights[K, V]) Retire(fl *Flight[K, V]) {
	fl.shard.mu.Lock()
	defer fl.shard.mu.Unlock()
	fl.takeOff()
}

// Succeed is Join for those who waited for a flight that was of no use to them, or took
// too long: all of them come to one flight, which one of them leads, and which began after
// they came. Nobody joins the old one any more, and who still waits for it is told
// ErrSucceeded. Its leader still calls Land, which tells nobody then.
func (f *Flights[K, V]) Succeed(fl *Flight[K, V]) (next *Flight[K, V], leads bool) {
	s := fl.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if fl.then != nil {
		f.joined.Add(1)
		return fl.then, false
	}
	fl.takeOff()
	if !fl.done() {
		fl.succeeded = true
		close(fl.landed)
	}
	fl.then, leads = f.join(s, fl.key)
	if leads {
		fl.then.landed = make(chan struct{}) // for those who come to it when it has landed
	}
	return fl.then, leads
}

// done reports whether those who wait were let go. The caller has the shard's lock.
func (fl *Flight[K, V]) done() bool {
	select {
	case <-fl.landed: // never, where it is nil
		return true
	default:
		return false
	}
}

// Wait returns what Land was given, the error of ctx when that ends first, or
// ErrSucceeded.
func (fl *Flight[K, V]) Wait(ctx context.Context) (v V, err error) {
	select {
	case <-fl.landed:
		if fl.succeeded {
			return v, ErrSucceeded
		}
		return fl.value, nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// Collapsed is how many callers waited for another one's answer so far.
func (f *Flights[K, V]) Collapsed() uint64 { return f.joined.Load() }
