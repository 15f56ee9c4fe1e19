package cache

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Flights lets one of several callers that need the same answer fetch it while the
// others wait. What is handed over may have been asked for before a caller came, and
// have changed before it came, even after it was put into a Cache: who waits for an
// answer that can change takes it from the Cache afterwards, which knows. Make one
// with NewFlights. It is safe for concurrent use.
type Flights[K comparable, V any] struct {
	seed   maphash.Seed
	joined atomic.Uint64
	shards [64]flightShard[K, V]
}

type flightShard[K comparable, V any] struct {
	mu    sync.Mutex
	all   map[K]*Flight[V]
	spare *Flight[V] // one that nobody joined, to be used again
	_     [40]byte
}

// Flight is one answer on its way.
type Flight[V any] struct {
	landed chan struct{} // made by the first who waits; guarded by the shard's lock
	value  V             // written before landed is closed
}

// NewFlights makes an empty Flights.
func NewFlights[K comparable, V any]() *Flights[K, V] {
	return &Flights[K, V]{seed: maphash.MakeSeed()}
}

func (f *Flights[K, V]) shard(k K) *flightShard[K, V] {
	return &f.shards[maphash.Comparable(f.seed, k)%uint64(len(f.shards))]
}

// Join returns the flight for k. leads tells the caller that there was none: it
// must fetch the answer and call Land, whatever happens. The others call Wait.
func (f *Flights[K, V]) Join(k K) (fl *Flight[V], leads bool) {
	s := f.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if fl, ok := s.all[k]; ok {
		if fl.landed == nil {
			fl.landed = make(chan struct{})
		}
		f.joined.Add(1)
		return fl, false
	}
	if s.all == nil {
		s.all = make(map[K]*Flight[V])
	}
	if fl, s.spare = s.spare, nil; fl == nil {
		fl = new(Flight[V])
	}
	s.all[k] = fl
	return fl, true
}

// Land ends the flight that Join returned for k, and hands v to those who wait.
// Who joins later begins a new one. Call it once, and leave the flight alone then.
func (f *Flights[K, V]) Land(k K, fl *Flight[V], v V) {
	s := f.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, k)
	if fl.landed == nil {
		s.spare = fl // only its leader has seen it
		return
	}
	fl.value = v
	close(fl.landed)
}

// Wait returns what Land was given, or the error of ctx when that ends first.
func (fl *Flight[V]) Wait(ctx context.Context) (v V, err error) {
	select {
	case <-fl.landed:
		return fl.value, nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// Collapsed is how many callers waited for another one's answer so far.
func (f *Flights[K, V]) Collapsed() uint64 { return f.joined.Load() }
