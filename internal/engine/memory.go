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
	// absentEntries bounds what is remembered of what was refused.
	absentEntries = 1024
	glimpsedBits  = 13
)

// memory is everything that is remembered.
type memory[B any] struct {
	memories []*cache.Cache[Answer[B]]
	byID     *cache.Cache[Answer[B]] // the one of them whose answers tell the version of their record
	parts    []forgetter             // what several answers are made from
	// absent is apart from the others and small, so that garbage evicts nothing good.
	absent *cache.Cache[Absence[B]]
	// glimpsed has a part of the digest of what was lately refused: only what comes again
	// is worth an entry, so that a flood of garbage leaves nothing behind that has to be
	// collected.
	glimpsed [1 << glimpsedBits]atomic.Uint64
}

// forgetter is a cache as it is cleared.
type forgetter interface {
	Invalidate(refs ...cache.Ref)
	Clear()
}

// forget ends what depends on these records.
func (m *memory[B]) forget(ids ...ID) {
	refs := make([]cache.Ref, len(ids))
	for i, id := range ids {
		refs[i] = cache.Ref(id)
	}
	// What answers are made from goes first: an answer must not be made anew from a part
	// that is about to be forgotten.
	for _, part := range m.parts {
		part.Invalidate(refs...)
	}
	m.absent.Invalidate(refs...)
	for _, answers := range m.memories {
		answers.Invalidate(refs...)
	}
}

// forgetAbsent ends what is remembered of refusals that depend on one record.
func (m *memory[B]) forgetAbsent(id ID) { m.absent.Invalidate(cache.Ref(id)) }

// clear ends everything, in the order of forget.
func (m *memory[B]) clear() {
	for _, part := range m.parts {
		part.Clear()
	}
	m.absent.Clear()
	for _, answers := range m.memories {
		answers.Clear()
	}
}

// version is that of the record of which an answer is made that is found by its ID; zero
// if there is none.
func (m *memory[B]) version(id ID) uint64 {
	if m.byID == nil {
		return 0
	}
	if a, ok := m.byID.Peek(cache.Key(id)); ok {
		return a.Version
	}
	return 0
}

// Remember puts an answer that was loaded for q into memory, under the records that end it
// besides those named by Reads, and returns it. asOf is the instant (monotonic) as of which
// it is known to be good.
func (e *Engine[B]) Remember(q *Lookup[B], a Answer[B], asOf int64, refs ...cache.Ref) *Answer[B] {
	a.Seen, a.Form, a.asOf = q.Seen, q.Form, asOf
	a.tell(q.Now.Wall(asOf))
	stored, ok := q.Memory.Put(q.At, a, q.ticket, clock.Forever, refs...)
	q.kept = q.kept || ok
	return stored
}

// Refuse remembers that q is refused, if something like it was before, under the records
// that end this. It returns why it is.
func (e *Engine[B]) Refuse(q *Lookup[B], a Absence[B], refs ...cache.Ref) error {
	a.Seen, a.Form, a.asOf = q.Seen, q.Form, q.Now.Mono
	part := binary.LittleEndian.Uint64(q.At[8:]) * 0x9e3779b97f4a7c15 // there may be text in its low bits
	if e.glimpsed[part>>(64-glimpsedBits)].Swap(part) == part {
		_, q.absent = e.absent.Put(q.At, a, q.absentTicket, clock.Forever, refs...)
	}
	return a.Err
}

// knownAbsent returns why q is refused, if that is remembered and may be believed.
func (e *Engine[B]) knownAbsent(q *Lookup[B]) error {
	a, ok := e.absent.Get(q.At, q.Now.Mono)
	if !ok || !e.Believes(a.asOf, q.Now) {
		return nil
	}
	return q.Loader.Absent(q, a)
}

// Part remembers one sort of what several answers are made from: the state of a subject,
// say. It is safe for concurrent use.
type Part[V any] struct {
	trust *Trust
	cache *cache.Cache[dated[V]]
}

type dated[V any] struct {
	asOf  int64 // monotonic
	value V
}

// AddPart makes a Part of an Engine. size is what a value takes beside itself, in bytes;
// nil is nothing.
func AddPart[V, B any](e *Engine[B], size func(*V) int) (*Part[V], error) {
	cfg := cache.Config[dated[V]]{Entries: e.cfg.Entries, Bytes: e.cfg.Bytes}
	if size != nil {
		cfg.Size = func(d *dated[V]) int { return size(&d.value) }
	}
	made, err := cache.New(cfg)
	if err != nil {
		return nil, cacheError(err)
	}
	e.parts = append(e.parts, made)
	return &Part[V]{&e.Trust, made}, nil
}

// Get returns what is remembered in a place, and as of when (monotonic), if r may believe
// it.
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

// Begin is called before a value is read that is then Put.
func (p *Part[V]) Begin() cache.Ticket { return p.cache.Begin() }

// Put remembers a value that r has read, as of an instant (monotonic), under the records
// that end it, and returns it.
func (p *Part[V]) Put(r *Reading, at cache.Key, value V, asOf int64, ticket cache.Ticket, refs ...cache.Ref) *V {
	stored, ok := p.cache.Put(at, dated[V]{asOf, value}, ticket, clock.Forever, refs...)
	r.kept = r.kept || ok
	return &stored.value
}
