package engine

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
)

// ID names a record of the store.
type ID = backend.ID

const (
	// absentEntries is the maximum of entries for lookups that were refused.
	absentEntries = 1024
	glimpsedBits  = 13
)

// memory is all caches of an Engine.
type memory[B any] struct {
	memories []*cache.Cache[Answer[B]]
	byID     *cache.Cache[Answer[B]] // the one of memories whose answers have the version of their record
	parts    []forgetter             // caches of what several answers are made from
	// absent is the cache of lookups that were refused. It is separate and small, so that
	// presented garbage evicts no good entry.
	absent *cache.Cache[Absence[B]]
	// glimpsed has a part of the digest of each text that was refused lately. Only a text
	// that is refused again gets an entry in absent, so a flood of different garbage
	// allocates nothing that would have to be collected.
	glimpsed [1 << glimpsedBits]atomic.Uint64
}

// forgetter is the part of a cache that drops entries.
type forgetter interface {
	Invalidate(refs ...cache.Ref)
	Clear()
}

// forget drops all entries that depend on these records.
func (m *memory[B]) forget(ids ...ID) {
	refs := make([]cache.Ref, len(ids))
	for i, id := range ids {
		refs[i] = cache.Ref(id)
	}
	// The parts are dropped before the answers: an answer must not be made again from a
	// part that is about to be dropped.
	for _, part := range m.parts {
		part.Invalidate(refs...)
	}
	m.absent.Invalidate(refs...)
	for _, answers := range m.memories {
		answers.Invalidate(refs...)
	}
}

// forgetAbsent drops the entries of refused lookups that depend on one record.
func (m *memory[B]) forgetAbsent(id ID) { m.absent.Invalidate(cache.Ref(id)) }

// clear drops all entries, in the order of forget.
func (m *memory[B]) clear() {
	for _, part := range m.parts {
		part.Clear()
	}
	m.absent.Clear()
	for _, answers := range m.memories {
		answers.Clear()
	}
}

// version returns the version of a record of which an answer in memory is made, if answers
// are found by the ID of that record; zero if there is no such answer.
func (m *memory[B]) version(id ID) uint64 {
	if m.byID == nil {
		return 0
	}
	if a, ok := m.byID.Peek(cache.Key(id)); ok {
		return a.Version
	}
	return 0
}

// Remember puts an answer that was loaded for q into memory, and returns it. It depends on
// the records that the Loader has named with Reads, and on refs. asOf is the instant
// (monotonic) as of which the answer is known to be good.
func (e *Engine[B]) Remember(q *Lookup[B], a Answer[B], asOf int64, refs ...cache.Ref) *Answer[B] {
	a.Seen, a.Tail, a.Form, a.asOf = q.Seen, q.Tail, q.Form, asOf
	a.tell(q.Now.Wall(asOf))
	stored, ok := q.Memory.Put(q.At, a, q.ticket, clock.Forever, refs...)
	q.kept = q.kept || ok
	q.mixed = !ok && q.Memory.Changed(q.ticket, refs...)
	return stored
}

// Refuse puts the refusal of q into memory if the same text was refused before, and returns
// the reason, a.Err. The entry depends on the records that the Loader has named with Reads,
// and on refs.
func (e *Engine[B]) Refuse(q *Lookup[B], a Absence[B], refs ...cache.Ref) error {
	a.Seen, a.Form, a.asOf = q.Seen, q.Form, q.Now.Mono
	part := binary.LittleEndian.Uint64(q.At[8:]) * 0x9e3779b97f4a7c15 // mixed, because the place may be text, of which many bits are alike
	if e.glimpsed[part>>(64-glimpsedBits)].Swap(part) == part {
		_, q.absent = e.absent.Put(q.At, a, q.absentTicket, clock.Forever, refs...)
	}
	return a.Err
}

// knownAbsent returns why q is refused, if memory has an entry for that which may be
// believed.
func (e *Engine[B]) knownAbsent(q *Lookup[B]) error {
	a, ok := e.absent.Get(q.At, q.Now.Mono)
	if !ok || !e.Believes(a.asOf, q.Now) {
		return nil
	}
	return q.Loader.Absent(q, a)
}

// Part is a cache of one sort of state that several answers are made from: the state of
// subjects, say. It is safe for concurrent use.
type Part[V any] struct {
	trust *Trust
	cache *cache.Cache[datedValue[V]]
}

// datedValue is a value, and the instant as of which it is known to be good.
type datedValue[V any] struct {
	asOf  int64 // monotonic
	value V
}

// AddPart makes a Part of an Engine. size returns how many bytes a value takes in addition
// to the value itself; a nil size means none.
func AddPart[V, B any](e *Engine[B], size func(*V) int) (*Part[V], error) {
	cfg := cache.Config[datedValue[V]]{Entries: e.cfg.Entries, Bytes: e.cfg.Bytes}
	if size != nil {
		cfg.Size = func(d *datedValue[V]) int { return size(&d.value) }
	}
	made, err := cache.New(cfg)
	if err != nil {
		return nil, cacheError(err)
	}
	e.parts = append(e.parts, made)
	return &Part[V]{&e.Trust, made}, nil
}

// Get returns the value in a place of the cache, and the instant (monotonic) as of which it
// is known to be good. ok is false if there is no value that r may believe.
func (p *Part[V]) Get(r *Reading, at cache.Key) (value *V, asOf int64, ok bool) {
	if r.Fresh {
		return nil, 0, false
	}
	d, ok := p.cache.Get(at, r.Now.Mono)
	if !ok || !p.trust.Believes(d.asOf, r.Now) {
		return nil, 0, false
	}
	return &d.value, d.asOf, true
}

// Begin returns the ticket for Put. It must be called before the value is read from the
// store.
func (p *Part[V]) Begin() cache.Ticket { return p.cache.Begin() }

// Put puts a value that r has read into the cache, and returns it. asOf is the instant
// (monotonic) as of which it is known to be good. The entry depends on the records refs.
func (p *Part[V]) Put(r *Reading, at cache.Key, value V, asOf int64, ticket cache.Ticket, refs ...cache.Ref) *V {
	stored, ok := p.cache.Put(at, datedValue[V]{asOf, value}, ticket, clock.Forever, refs...)
	r.kept = r.kept || ok
	return &stored.value
}
