package engine_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/engine"
	"github.com/stretchr/testify/require"
)

// The rules of docs/decisions/0015-old-after-new.md, one by one, over the type that keeps
// them. What they are for is in told_test.go.

// recordIDs draws IDs, always the same.
type recordIDs struct{ *rand.ChaCha8 }

func newRecordIDs() recordIDs { return recordIDs{rand.NewChaCha8([32]byte{1})} }

func (r recordIDs) next() (id backend.ID) {
	binary.LittleEndian.PutUint64(id[:8], r.Uint64())
	binary.LittleEndian.PutUint64(id[8:], r.Uint64())
	return id
}

// beside draws n IDs that are noted in one place of a memory.
func (r recordIDs) beside(m *engine.Memory, n int) []backend.ID {
	ids := []backend.ID{r.next()}
	for len(ids) < n {
		if id := r.next(); m.Together(ids[0], id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// keep is a load that reads a record and remembers what it found.
func keep(t *testing.T, m *engine.Memory, id backend.ID, version uint64) {
	t.Helper()
	l := m.Load(id)
	m.Saw(id, version)
	require.True(t, l.Keep())
	require.False(t, l.End())
}

func keepAbsent(t *testing.T, m *engine.Memory, id backend.ID) {
	t.Helper()
	l := m.Load(id)
	m.Saw(id, 0)
	require.True(t, l.KeepAbsent())
	require.False(t, l.End())
}

func holding(m *engine.Memory, ids []backend.ID) (n int) {
	for _, id := range ids {
		if m.Holds(id) {
			n++
		}
	}
	return n
}

func requireNoted(t *testing.T, m *engine.Memory, loads, kept, absent int) {
	t.Helper()
	l, k, a := m.Noted()
	require.Equal(t, [3]int{loads, kept, absent}, [3]int{l, k, a}, "of loads, kept, absent")
}

func TestARecordIsNotedWhileAnAnswerMayDependOnItAndAtNoOtherTime(t *testing.T) {
	ids := newRecordIDs()
	m := engine.NewMemory(t, 1024)
	a, b := ids.next(), ids.next()
	m.Saw(a, 1)
	requireNoted(t, m, 0, 0, 0)

	first, second := m.Load(a, b), m.Load(a)
	requireNoted(t, m, 2, 0, 0)
	m.Saw(a, 1)
	require.False(t, first.End())
	requireNoted(t, m, 1, 0, 0)
	require.False(t, second.End())
	requireNoted(t, m, 0, 0, 0) // nothing came into memory

	l := m.Load(a, b)
	m.Saw(a, 1) // and b is not read: nobody knows at which version anything depends on it
	require.True(t, l.Keep())
	require.False(t, l.End())
	requireNoted(t, m, 0, 1, 0)

	// The entry of a native key tells its version itself.
	l = m.Load(b)
	l.Own(b)
	m.Saw(b, 1)
	require.True(t, l.Keep())
	require.False(t, l.End())
	requireNoted(t, m, 0, 1, 0)

	keepAbsent(t, m, ids.next())
	requireNoted(t, m, 0, 1, 1)
}

func TestWhatReadsAnotherVersionForgetsWhatDependsOnTheRecord(t *testing.T) {
	ids := newRecordIDs()
	a, b := ids.next(), ids.next()
	for name, began := range map[string]func(t *testing.T, m *engine.Memory){
		"of a newer version":     func(t *testing.T, m *engine.Memory) { keep(t, m, a, 3) },
		"of what was not there":  func(t *testing.T, m *engine.Memory) { keep(t, m, a, 0) },
		"an older one":           func(t *testing.T, m *engine.Memory) { keep(t, m, a, 9) }, // a store that failed over may go back
		"of what was not known":  func(t *testing.T, m *engine.Memory) { keepAbsent(t, m, a) },
		"made twice in the past": func(t *testing.T, m *engine.Memory) { keep(t, m, a, 3); keep(t, m, a, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			m := engine.NewMemory(t, 100_000)
			began(t, m)
			require.True(t, m.Holds(a))
			m.Saw(b, 7) // another one's
			require.True(t, m.Holds(a))
			m.Saw(a, 5)
			require.False(t, m.Holds(a))
			// That is over then: whoever reads it now finds no difference, and is remembered.
			keep(t, m, a, 5)
			require.True(t, m.Holds(a))
			m.Saw(a, 5)
			require.True(t, m.Holds(a))
			m.Saw(a, 0)
			require.False(t, m.Holds(a), "that there is none is a version too")
		})
	}
}

func TestAnAnswerThatComesInAfterAnotherVersionWasReadIsNotRemembered(t *testing.T) {
	ids := newRecordIDs()
	a, b := ids.next(), ids.next()
	for _, records := range [][]backend.ID{{a}, {a, b}, {b, a}} {
		m := engine.NewMemory(t, 100_000)
		l := m.Load(records...)
		m.Saw(a, 1)
		m.Saw(b, 1)
		m.Saw(a, 2) // somebody else is told
		require.False(t, l.Keep())
		require.True(t, l.End(), "so it is read once more")
		require.False(t, m.Holds(a))
		if len(records) == 1 {
			requireNoted(t, m, 0, 0, 0) // nothing was kept
		}
	}
	// A record that nobody has read yet has no version.
	m := engine.NewMemory(t, 1024)
	l := m.Load(a)
	m.Saw(a, 2)
	m.Saw(a, 2)
	require.True(t, l.Keep())
	require.False(t, l.End())
}

func TestWhatIsForgottenIsNotedNoMore(t *testing.T) {
	ids := newRecordIDs()
	a, b := ids.next(), ids.next()
	for name, forget := range map[string]func(m *engine.Memory){
		"changed here":       func(m *engine.Memory) { m.Forget(a, b) },
		"a feed that begins": func(m *engine.Memory) { m.Clear() },
	} {
		t.Run(name, func(t *testing.T) {
			m := engine.NewMemory(t, 1024)
			keep(t, m, a, 1)
			keepAbsent(t, m, b)
			requireNoted(t, m, 0, 1, 1)
			forget(m)
			require.False(t, m.Holds(a))
			require.False(t, m.Holds(b))
			requireNoted(t, m, 0, 0, 0)
			keep(t, m, a, 2) // at once
			keep(t, m, b, 2)
		})
	}
}

// Many records that are forgotten at once take as many steps as there are places, and one
// that is forgotten alone takes one.
func TestRecordsAreForgottenPlaceByPlace(t *testing.T) {
	ids := newRecordIDs()
	m := engine.NewMemory(t, 100_000)
	var all []backend.ID
	for range 1000 {
		all = append(all, ids.next())
		keep(t, m, all[len(all)-1], 1)
	}
	left := ids.next()
	keep(t, m, left, 1)
	steps := m.CountSteps()
	m.Forget()
	require.Zero(t, steps())
	m.Forget(append(all, all[0])...)
	require.Equal(t, engine.Shards, steps())
	require.Zero(t, holding(m, all))
	require.True(t, m.Holds(left))
	requireNoted(t, m, 0, 1, 0)
	m.Forget(left)
	require.Equal(t, engine.Shards+1, steps())
	require.False(t, m.Holds(left))
	requireNoted(t, m, 0, 0, 0)
}

// Each place has two generations. When the older one goes, so does what depends on it.
func TestABoundedNumberOfRecordsIsNoted(t *testing.T) {
	for _, c := range []struct{ entries, kept, absent int }{
		{1, 16, 16},
		{256, 16, 16},
		{272, 17, 17},
		{1024, 64, 64},
		{6400, 400, 64}, // of what does not exist no more is remembered, so no more is noted
		{100_000, 6250, 64},
	} {
		m := engine.NewMemory(t, c.entries)
		ids := newRecordIDs().beside(m, 2*c.kept+1)
		room := c.entries >= 6400 // for the answers themselves
		for _, id := range ids[:2*c.kept] {
			keep(t, m, id, 1)
		}
		requireNoted(t, m, 0, 2*c.kept, 0)
		if room {
			require.Equal(t, 2*c.kept, holding(m, ids))
		}
		keep(t, m, ids[2*c.kept], 1)
		requireNoted(t, m, 0, c.kept+1, 0)
		require.Zero(t, holding(m, ids[:c.kept]))

		m = engine.NewMemory(t, c.entries)
		ids = newRecordIDs().beside(m, 2*c.absent+1)
		for _, id := range ids[:2*c.absent] {
			keepAbsent(t, m, id)
		}
		requireNoted(t, m, 0, 0, 2*c.absent)
		if c.absent == 64 {
			require.Equal(t, 2*c.absent, holding(m, ids))
		}
		keepAbsent(t, m, ids[2*c.absent])
		requireNoted(t, m, 0, 0, c.absent+1)
		require.Zero(t, holding(m, ids[:c.absent]))
	}
}

func TestAFloodOfWhatDoesNotExistPushesOutNothingElse(t *testing.T) {
	ids := newRecordIDs()
	m := engine.NewMemory(t, 1024)
	var good []backend.ID
	for range 100 {
		good = append(good, ids.next())
		keep(t, m, good[len(good)-1], 1)
	}
	for range 20_000 {
		keepAbsent(t, m, ids.next())
	}
	require.Equal(t, len(good), holding(m, good))
	_, kept, _ := m.Noted()
	require.Equal(t, len(good), kept)
}

// As many records as there is room for are noted, wherever they fall.
func TestRecordsAreNotedAllOverTheMemory(t *testing.T) {
	ids := newRecordIDs()
	m := engine.NewMemory(t, 8192)
	for range 4 * 8192 {
		id := ids.next()
		l := m.Load(id)
		m.Saw(id, 1)
		l.Keep()
		l.End()
	}
	_, kept, _ := m.Noted()
	require.Equal(t, 4*8192, kept)
}

func TestWhatIsInTheOlderGenerationIsComparedToo(t *testing.T) {
	m := engine.NewMemory(t, 256)
	ids := newRecordIDs().beside(m, 17)
	for _, id := range ids {
		keep(t, m, id, 1)
	}
	require.True(t, m.Holds(ids[0]))
	m.Saw(ids[0], 2)
	require.False(t, m.Holds(ids[0]))
	keep(t, m, ids[0], 2) // and what was noted of it is gone
}

// What is read again belongs to the younger generation, and does not go with the older.
func TestWhatIsReadAgainStaysNoted(t *testing.T) {
	const limit = 400
	m := engine.NewMemory(t, 6400)
	ids := newRecordIDs().beside(m, 2*limit)
	for _, id := range ids[:limit+1] {
		keep(t, m, id, 1)
	}
	again := ids[:limit-1]
	for _, id := range again {
		keep(t, m, id, 1)
	}
	requireNoted(t, m, 0, limit+1, 0)
	keep(t, m, ids[limit+1], 1)
	// One of the first had not been read again, and made room.
	requireNoted(t, m, 0, limit+1, 0)
	require.False(t, m.Holds(ids[limit-1]))
	require.Greater(t, holding(m, again), limit*98/100, "but for those that are taken for it")
}

// The one for which room is made is not among those that make room.
func TestWhatIsNotedIsNotForgottenByThat(t *testing.T) {
	stayed := 0
	for range 20 {
		m := engine.NewMemory(t, 256)
		ids := newRecordIDs().beside(m, 32)
		for _, id := range ids {
			keep(t, m, id, 1)
		}
		keep(t, m, ids[0], 1)
		require.Zero(t, holding(m, ids[1:16]))
		if m.Holds(ids[0]) { // unless one of the others is taken for it
			stayed++
		}
	}
	require.Greater(t, stayed, 18)
}

// A load has room for as many records as any load reads. Of one that reads more nobody
// knows what depends on what, so nothing is kept, of anything.
func TestNothingIsKeptOfALoadThatReadsTooManyRecords(t *testing.T) {
	ids := newRecordIDs()
	for more := range 2 {
		m := engine.NewMemory(t, 100_000)
		other := ids.next()
		keep(t, m, other, 1)
		var records []backend.ID
		for range engine.PinRoom + more {
			records = append(records, ids.next())
		}
		l := m.Load(append(records, records...)...) // each twice: it is the same record
		for _, id := range records {
			m.Saw(id, 1)
		}
		require.True(t, l.Keep())
		require.False(t, l.End())
		if more == 0 {
			require.Equal(t, len(records), holding(m, records))
			require.True(t, m.Holds(other))
			requireNoted(t, m, 0, 1+len(records), 0)
		} else {
			require.Zero(t, holding(m, records))
			require.False(t, m.Holds(other))
			requireNoted(t, m, 0, 0, 0)
		}
	}
}
