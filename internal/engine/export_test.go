package engine

import (
	"testing"
	"unsafe"

	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/stretchr/testify/require"
)

// Memory is an Engine with one Part, for the tests of what is noted of the records that
// something in memory was made from (decision 0015).
type Memory struct {
	*Engine[int]
	kept *Part[int]
}

// NewMemory makes the memory for so many entries.
func NewMemory(t testing.TB, entries int) *Memory {
	e, err := New[int](Config{Entries: entries})
	require.NoError(t, err)
	kept, err := AddPart[int](e, nil)
	require.NoError(t, err)
	return &Memory{e, kept}
}

// MemoryLoad is a load that reads records.
type MemoryLoad struct {
	Reading
	memory *Memory
	read   []ID
	ticket [2]cache.Ticket
}

// Load begins a load that is about to read these records.
func (m *Memory) Load(ids ...ID) *MemoryLoad {
	l := &MemoryLoad{m.Reading(false, clock.Moment{}), m, ids, [2]cache.Ticket{m.kept.Begin(), m.absent.Begin()}}
	for _, id := range ids {
		l.Reads(id)
	}
	return l
}

// Own says that a record is that of a native key, by whose ID its entry is found.
func (l *MemoryLoad) Own(id ID) { l.own = id }

// Keep puts an answer of each record into memory, and reports whether all were taken.
func (l *MemoryLoad) Keep() bool {
	all := true
	for _, id := range l.read {
		_, ok := l.memory.kept.cache.Put(cache.Key(id), datedValue[int]{}, l.ticket[0], clock.Forever, cache.Ref(id))
		l.kept = l.kept || ok
		all = all && ok
	}
	return all
}

// KeepAbsent is Keep of the answer that there is no such credential.
func (l *MemoryLoad) KeepAbsent() bool {
	for _, id := range l.read {
		_, l.absent = l.memory.absent.Put(cache.Key(id), Absence[int]{}, l.ticket[1], clock.Forever, cache.Ref(id))
	}
	return l.absent
}

// Holds reports whether an answer of Keep or of KeepAbsent is still good.
func (m *Memory) Holds(id ID) bool {
	_, kept := m.kept.cache.Peek(cache.Key(id))
	_, absent := m.absent.Peek(cache.Key(id))
	return kept || absent
}

// Noted is how many records are noted because a load reads them, because something that
// was kept depends on them, and because there are none.
func (m *Memory) Noted() (loads, kept, absent int) {
	for i := range m.newest.shards {
		s := &m.newest.shards[i]
		loads += len(s.loads)
		kept += len(s.kept.young) + len(s.kept.old)
		absent += len(s.absent.young) + len(s.absent.old)
	}
	return loads, kept, absent
}

// Together reports whether two records are noted in one place, which has its own bound.
func (m *Memory) Together(a, b ID) bool { return m.newest.shard(a) == m.newest.shard(b) }

// CountSteps returns a function that says how often entries were dropped since then.
func (m *Memory) CountSteps() (steps func() int) {
	counting := &countedSteps{dependents: m.newest.memory}
	m.newest.memory = counting
	return func() int { return counting.n }
}

type countedSteps struct {
	dependents
	n int
}

func (c *countedSteps) forget(ids ...ID) {
	c.n++
	c.dependents.forget(ids...)
}

// Shards is how many places records are noted in.
const Shards = len(newest{}.shards)

// HeadOfAnswer is how many bytes of an Answer come before its Body.
const HeadOfAnswer = unsafe.Offsetof(Answer[int64]{}.Body)

// PinRoom is how many records a load can read of which something is kept.
const PinRoom = maxReads
