package outbox_test

import (
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/outbox"
	"github.com/stretchr/testify/require"
)

var (
	start = backend.Token("start")
	noon  = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
)

func change(n byte, version uint64) backend.Change {
	return backend.Change{ID: backend.ID{n}, Version: version}
}

func changes(from, to byte) (all []backend.Change) {
	for n := from; n < to; n++ {
		all = append(all, change(n, 1))
	}
	return all
}

// ready reports whether the box says that there is something.
func ready(b *outbox.Box) bool {
	select {
	case <-b.Ready():
		return true
	default:
		return false
	}
}

// taken is what is taken at once, which there has to be.
func taken(t *testing.T, b *outbox.Box) backend.Batch {
	t.Helper()
	require.True(t, ready(b))
	return b.Take()
}

func token(n byte) backend.Token { return backend.Token{n} }

func at(minute int) time.Time { return noon.Add(time.Duration(minute) * time.Minute) }

// What is told early is delivered at once, and moves neither the place nor the proof.
func TestEarlyAndProven(t *testing.T) {
	b := outbox.New(start, 100, 10)
	require.False(t, ready(b))
	b.Add(changes(1, 2))
	require.False(t, ready(b), "nothing is delivered before the first proof")
	b.Prove(nil, token(1), at(1))
	require.Equal(t, backend.Batch{Changes: changes(1, 2), Token: token(1), AsOf: at(1)}, taken(t, b))

	b.Add(changes(2, 3))
	require.Equal(t, backend.Batch{Changes: changes(2, 3), Token: token(1), AsOf: at(1)}, taken(t, b))
	b.Prove(changes(2, 3), token(2), at(2))
	require.Equal(t, backend.Batch{Changes: changes(2, 3), Token: token(2), AsOf: at(2)}, taken(t, b))
	b.Prove(nil, token(3), time.Time{})
	require.Equal(t, backend.Batch{Token: token(3), AsOf: at(2)}, taken(t, b), "a place without a proof of its own")
	require.False(t, ready(b))
}

// Of several versions of a record a slow caller gets the latest, and one proof for all that
// came.
func TestWhatWaitsIsFolded(t *testing.T) {
	b := outbox.New(start, 100, 10)
	b.Prove([]backend.Change{change(1, 5)}, token(1), at(1))
	b.Prove([]backend.Change{change(1, 7), change(2, 1)}, token(2), at(2))
	b.Add([]backend.Change{change(1, 6)})
	got := taken(t, b)
	require.ElementsMatch(t, []backend.Change{change(1, 7), change(2, 1)}, got.Changes)
	got.Changes = nil
	require.Equal(t, backend.Batch{Token: token(2), AsOf: at(2)}, got)
	require.False(t, ready(b))
}

// Who gets a part of what waited, and resumes from there, gets all of it again.
func TestMuchComesInParts(t *testing.T) {
	b := outbox.New(start, 100, 4)
	b.Prove(changes(1, 11), token(1), at(1))
	var all []backend.Change
	for range 2 {
		got := taken(t, b)
		require.Len(t, got.Changes, 4)
		require.Equal(t, start, got.Token)
		require.Zero(t, got.AsOf)
		all = append(all, got.Changes...)
		b.Prove(changes(20, 21), token(2), at(2)) // which is not told yet
	}
	got := taken(t, b)
	require.Len(t, got.Changes, 2)
	require.Equal(t, token(1), got.Token)
	require.Equal(t, at(1), got.AsOf)
	require.ElementsMatch(t, changes(1, 11), append(all, got.Changes...))

	require.Equal(t, backend.Batch{Changes: changes(20, 21), Token: token(2), AsOf: at(2)}, taken(t, b), "what came between the parts")
	require.False(t, ready(b))

	b.Add(changes(21, 26))
	got = taken(t, b)
	require.Len(t, got.Changes, 4)
	require.Equal(t, backend.Batch{Token: token(2), AsOf: at(2)}, backend.Batch{Token: got.Token, AsOf: got.AsOf}, "the proof before")
	require.Len(t, taken(t, b).Changes, 1)
	require.False(t, ready(b))
}

// A history that was lost is told of, once, and nothing of it is delivered afterwards.
func TestReset(t *testing.T) {
	b := outbox.New(start, 100, 4)
	b.Prove(changes(1, 10), token(1), at(1))
	require.Len(t, taken(t, b).Changes, 4)
	b.Reset(token(2), at(2))
	b.Prove(changes(30, 36), token(3), at(3))
	got := taken(t, b)
	require.True(t, got.Reset)
	require.Len(t, got.Changes, 4)
	require.Equal(t, token(2), got.Token, "where the feed began again: not all after it was told")
	rest := taken(t, b)
	require.False(t, rest.Reset)
	require.Equal(t, token(3), rest.Token)
	require.ElementsMatch(t, changes(30, 36), append(got.Changes, rest.Changes...))
	require.False(t, ready(b))
}

// A caller that is too slow gets a Reset in place of what it missed.
func TestTooMuchWaits(t *testing.T) {
	for name, put := range map[string]func(*outbox.Box){
		"at once":            func(b *outbox.Box) { b.Prove(changes(1, 12), token(2), at(2)) },
		"early":              func(b *outbox.Box) { b.Prove(changes(1, 6), token(2), at(2)); b.Add(changes(6, 12)) },
		"while parts remain": func(b *outbox.Box) { b.Prove(changes(1, 11), token(2), at(2)); b.Take(); b.Add(changes(11, 17)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := outbox.New(start, 10, 4)
			put(b)
			require.Equal(t, backend.Batch{Token: token(2), AsOf: at(2), Reset: true}, taken(t, b))
			b.Prove(changes(1, 2), token(3), at(3))
			require.Equal(t, backend.Batch{Changes: changes(1, 2), Token: token(3), AsOf: at(3)}, taken(t, b), "and it goes on")
		})
	}
	b := outbox.New(start, 10, 4)
	b.Prove(changes(1, 11), token(1), at(1))
	require.False(t, b.Take().Reset, "as many as may wait")
}

// Whatever the pace of the two sides, everything is delivered, and a proof never before
// what it proves.
func TestTwoGoroutines(t *testing.T) {
	const n = 2000
	b := outbox.New(start, n, 3)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint64(n) {
			c := []backend.Change{change(byte(i), i+1)}
			if i%3 == 0 {
				b.Add(c)
			}
			b.Prove(c, backend.Token{1}, noon.Add(time.Duration(i+1)))
		}
	})
	latest := make(map[backend.ID]uint64)
	for proven := uint64(0); proven < n; {
		<-b.Ready()
		got := b.Take()
		require.LessOrEqual(t, len(got.Changes), 3)
		for _, c := range got.Changes {
			latest[c.ID] = max(latest[c.ID], c.Version)
		}
		if got.AsOf.IsZero() {
			continue
		}
		proven = uint64(got.AsOf.Sub(noon))
		for id := range uint64(256) {
			last := proven - 1 - (proven-1-id)%256 // the last i up to the proof that named it
			if id < proven {
				require.GreaterOrEqual(t, latest[backend.ID{byte(id)}], last-(last-id)%256+1)
			}
		}
	}
	wg.Wait()
}
